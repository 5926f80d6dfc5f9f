// SPDX-License-Identifier: GPL-2.0

//! Receive queues.
//!
//! A buffer becomes a packet where it lies: nothing is copied. The poll refills the ring when a good part of it is empty, and
//! polls on when there was no memory and the ring runs dry.

use crate::{
    coalesce::Coalescing,
    counters::rx as counter,
    header::{
        Checksum,
        Format,
        Hash,
        Header,
        Received,
        Rules,
        Verdict,
        GSO_NONE,
        GSO_TUNNEL,
        UNUSUAL, //
    },
    peers::Peers,
    supply::Supply,
    tunnel,
    xdp::Sending, //
};
use guest::{
    net::{
        buffer::{
            Head,
            Room,
            RxBuffer, //
        },
        device::Features,
        dim::Sample,
        ethtool::coalesce::Moderation,
        napi::{
            Context,
            Handler,
            Progress, //
        },
        page_pool::{
            PoolRef,
            Wait, //
        },
        skbuff::{
            Depth,
            DropReason,
            HashLevel,
            PartialChecksum,
            RxSkBuff,
            ETH_HLEN, //
        },
        stats::Writer,
        xsk::RxQueue, //
    },
    virtio::{
        buffer::{
            Batch,
            Rejected,
            Used, //
        },
        Queue,
        Virtqueue, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// How many buffers are taken from the ring at a time.
const BATCH: usize = 16;

/// What the poll of a receive queue shares.
pub(crate) struct Shared {
    /// The pair that it belongs to.
    pub(crate) index: u16,
    pub(crate) queue: Arc<Queue<RxBuffer>>,
    /// The same, while it is filled with a socket's frames.
    pub(crate) frames: RxQueue,
    pub(crate) coalescing: Arc<Coalescing>,
}

/// What the poll of a receive queue has for itself.
pub(crate) struct Receiver {
    format: Format,
    /// How long a header is.
    skip: u32,
    rules: Rules,
    pub(crate) supply: Supply,
    /// Buffers that have been taken from the ring and not looked at yet, so that the queue's lock is not taken for each.
    taken: Batch<RxBuffer, BATCH>,
    pub(crate) peers: Option<Arc<Peers>>,
    pub(crate) sending: Sending,
    pub(crate) stats: Writer<{ counter::COUNT }>,
    /// How often the queue's interrupt was turned on.
    events: u16,
}

/// How a header begins, which is before a packet long enough to be one.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    flags: u8,
    gso_type: u8,
    /// The length without the header, of what is in the first buffer.
    data_len: u32,
}

impl Begun {
    /// Returns the same if the rest says no more than over how many buffers the packet is spread, so that the compiler knows it as well:
    /// nearly all that is done with a header is then no code at all.
    #[inline(always)]
    pub(crate) fn plain(self) -> Option<Self> {
        Header::is_plain(self.flags, self.gso_type).then_some(Self {
            flags: self.flags & !UNUSUAL,
            gso_type: GSO_NONE,
            ..self
        })
    }
}

/// A header, checked, with what it says beyond that.
pub(crate) struct Opened {
    /// How long it is.
    pub(crate) skip: u32,
    pub(crate) header: Header,
    pub(crate) hash: Option<Hash>,
    pub(crate) received: Received,
}

/// Returns the room that buffers need, with a program or without.
fn room(program: bool) -> Room {
    if program {
        Room::Program
    } else {
        Room::Stack
    }
}

/// Gives a packet the hash that the device has computed.
#[inline]
pub(crate) fn set_hash(skb: &mut RxSkBuff, hash: Option<Hash>) {
    match hash {
        Some(Hash {
            value, ports: None, ..
        }) => skb.set_hash(value, HashLevel::Network),
        Some(Hash { value, .. }) => skb.set_hash(value, HashLevel::Transport),
        None => {}
    }
}

impl Receiver {
    pub(crate) fn new(
        format: Format,
        rules: Rules,
        supply: Supply,
        peers: Option<Arc<Peers>>,
        stats: Writer<{ counter::COUNT }>,
    ) -> Self {
        Self {
            format,
            // CAST: At most 24.
            skip: format.len() as u32,
            rules,
            supply,
            taken: Batch::default(),
            peers,
            sending: Sending::default(),
            stats,
            events: 0,
        }
    }

    /// Fills the ring. Returns `false` when there was no memory and the ring runs dry.
    fn refill(
        &mut self,
        vq: &mut Virtqueue<'_, RxBuffer>,
        pool: &mut PoolRef<'_>,
        units: u32,
        room: Room,
        counts: &mut [u64; counter::COUNT],
    ) -> bool {
        let mut enough = true;

        while vq.num_free() > 0 {
            let Some(buffer) = self.supply.take(pool, units, room, Wait::No) else {
                counts[counter::REFILL_FAILURES] += 1;
                enough = vq.num_free() < vq.size() - vq.size() / 4;
                break;
            };
            if let Err(Rejected { mut buffer, .. }) = vq.add_inbuf(buffer) {
                // Where each segment takes an entry, what is free may not be enough.
                self.supply.keep(|| buffer.pop(0));
                break;
            }
        }

        if vq.kick_prepare() && vq.notify() {
            counts[counter::KICKS] += 1;
        }
        enough
    }

    /// Makes a packet of a buffer, and the ones that follow if it says so, and hands it to the stack.
    fn frame(
        &mut self,
        used: Used<RxBuffer>,
        shared: &Shared,
        cx: &mut Context<'_>,
        counts: &mut [u64; counter::COUNT],
    ) {
        let made = match self.begin(used.buffer(), used.written()) {
            Ok(begun) => match begun.plain() {
                Some(begun) => self.assemble(begun, used, &shared.queue, cx),
                None => self.assemble_any(begun, used, &shared.queue, cx),
            },
            Err(reason) => Err(reason),
        };

        match made {
            Ok(skb) => {
                let len = skb.len();

                // A poll sees far fewer than they can count.
                counts[counter::PACKETS] = counts[counter::PACKETS].wrapping_add(1);
                counts[counter::BYTES] = counts[counter::BYTES].wrapping_add(u64::from(len));
                self.supply.observe(len);
                skb.receive(shared.index, cx);
            }
            Err(reason) => {
                counts[counter::DROPS] += 1;
                counts[reason] += 1;
            }
        }
    }

    /// Makes a packet, or says which counter its loss belongs to.
    #[inline(always)]
    fn assemble(
        &mut self,
        begun: Begun,
        used: Used<RxBuffer>,
        queue: &Queue<RxBuffer>,
        cx: &Context<'_>,
    ) -> core::result::Result<RxSkBuff, usize> {
        let Opened {
            skip,
            header,
            hash,
            received,
        } = self.check(begun, used.buffer(), cx)?;

        let used = self.supply.trim(used);
        if received.buffers > 1 || hash.is_some() {
            // A copy, which has to lie in memory.
            let opened = Opened {
                skip,
                header,
                hash,
                received,
            };
            return self.join(used, opened, queue, cx);
        }
        let skb = RxSkBuff::of_used(used, skip, cx).ok_or(counter::NO_MEMORY)?;
        self.finish(skb, None, &header, &received)
    }

    /// The same for headers of which nothing is known.
    #[inline(never)]
    fn assemble_any(
        &mut self,
        begun: Begun,
        used: Used<RxBuffer>,
        queue: &Queue<RxBuffer>,
        cx: &Context<'_>,
    ) -> core::result::Result<RxSkBuff, usize> {
        self.assemble(begun, used, queue, cx)
    }

    /// Tells the stack what the header says of a packet, its hash too.
    #[inline(always)]
    pub(crate) fn finish(
        &self,
        mut skb: RxSkBuff,
        hash: Option<Hash>,
        header: &Header,
        received: &Received,
    ) -> core::result::Result<RxSkBuff, usize> {
        set_hash(&mut skb, hash);
        if received.segmented {
            // Its header is about the checksum too.
            let [bytes @ .., _, _] = header.to_bytes(self.format);
            let set = if header.gso_type & GSO_TUNNEL != 0 {
                self.set_tunnel_offloads(&mut skb, header, bytes)
            } else {
                skb.set_offloads(bytes, !self.format.big_endian)
            };
            return match set {
                Ok(()) => Ok(skb),
                Err(_) => {
                    skb.free(DropReason::DeviceHeader);
                    Err(counter::BAD_HEADER)
                }
            };
        }
        match received.verdict {
            Verdict::Unknown => {}
            Verdict::Verified => skb.set_checksum_verified(Depth::Outer),
            Verdict::VerifiedInTunnel => skb.set_checksum_verified(Depth::Inner),
            Verdict::Missing(Checksum { start, offset }) => {
                if skb
                    .set_partial_checksum(PartialChecksum { start, offset })
                    .is_err()
                {
                    skb.free(DropReason::DeviceHeader);
                    return Err(counter::BAD_HEADER);
                }
            }
        }
        Ok(skb)
    }

    /// Tells the stack what the header says of a packet that is several in one, and in a tunnel.
    #[cold]
    #[inline(never)]
    fn set_tunnel_offloads(&self, skb: &mut RxSkBuff, header: &Header, bytes: [u8; 10]) -> Result {
        let mut head = [0; tunnel::MAX_LEN];
        let head = skb.copy_head(&mut head);
        let place = tunnel::locate(head, header.gso_type, header.csum_start).ok_or(EINVAL)?;
        let checksums = self.rules.segments.tunnel_checksum;

        skb.set_tunnel_offloads(bytes, place.outer_transport, place.inner_network, checksums)
    }

    /// Checks the header before a packet, of which, and the packet, there are `len` bytes in the first buffer. Fails with the
    /// counter that the packet's loss belongs to.
    #[inline(always)]
    pub(crate) fn open(
        &self,
        buffer: &impl Head,
        len: u32,
        cx: &Context<'_>,
    ) -> core::result::Result<Opened, usize> {
        self.check(self.begin(buffer, len)?, buffer, cx)
    }

    /// Reads how the header begins. Fails as [`open`](Self::open).
    #[inline(always)]
    pub(crate) fn begin(&self, buffer: &impl Head, len: u32) -> core::result::Result<Begun, usize> {
        if len < self.skip.saturating_add(ETH_HLEN) {
            return Err(counter::SHORT);
        }
        let data_len = len.wrapping_sub(self.skip);
        let [flags, gso_type] = buffer.read::<0, 2>().ok_or(counter::SHORT)?;

        Ok(Begun {
            flags,
            gso_type,
            data_len,
        })
    }

    /// Checks the header that has begun so. Fails as [`open`](Self::open).
    #[inline(always)]
    pub(crate) fn check(
        &self,
        begun: Begun,
        buffer: &impl Head,
        cx: &Context<'_>,
    ) -> core::result::Result<Opened, usize> {
        let (header, hash) = self.header(begun, buffer, cx).ok_or(counter::SHORT)?;
        let received = header
            .received(begun.data_len, &self.rules)
            .map_err(|_| counter::BAD_HEADER)?;

        Ok(Opened {
            skip: self.skip,
            header,
            hash,
            received,
        })
    }

    /// Returns the next buffer that the device has used.
    #[inline(always)]
    fn used(&mut self, queue: &Queue<RxBuffer>) -> Option<Used<RxBuffer>> {
        if let Some(used) = self.taken.pop() {
            return Some(used);
        }
        self.fetch(queue);
        self.taken.pop()
    }

    /// Takes from the ring what the device has used.
    #[inline(never)]
    fn fetch(&mut self, queue: &Queue<RxBuffer>) {
        if let Some(mut vq) = queue.lock() {
            vq.get_bufs(&mut self.taken);
        }
    }

    /// Returns the next buffer of a packet, or which counter the packet's loss belongs to.
    #[inline(never)]
    pub(crate) fn next(
        &mut self,
        queue: &Queue<RxBuffer>,
    ) -> core::result::Result<Used<RxBuffer>, usize> {
        self.used(queue).ok_or(counter::MISSING_BUFFERS)
    }

    /// Copies the rest of a header, each byte once, and reads the hash if there is one and the stack wants it.
    #[inline(always)]
    fn header(
        &self,
        begun: Begun,
        buffer: &impl Head,
        cx: &Context<'_>,
    ) -> Option<(Header, Option<Hash>)> {
        let Begun {
            flags, gso_type, ..
        } = begun;
        let rest = if Header::is_plain(flags, gso_type) {
            [0; 8]
        } else {
            buffer.read::<2, 8>()?
        };
        let [a, b, c, d, e, f, g, h] = rest;
        let [i, j] = buffer.read::<10, 2>()?;
        let bytes = [flags, gso_type, a, b, c, d, e, f, g, h, i, j];

        let hash = if self.format.has_hash() && cx.features().contains(Features::RXHASH) {
            Hash::from_bytes(&buffer.read::<12, 8>()?)
        } else {
            None
        };
        Some((Header::from_bytes(&bytes, self.format), hash))
    }

    /// Makes a packet of a buffer and those that follow, which are used up even if the packet is lost.
    // Apart, so that next to nothing is kept for a packet of one buffer, without a hash, while it is made.
    #[inline(never)]
    fn join(
        &mut self,
        used: Used<RxBuffer>,
        opened: Opened,
        queue: &Queue<RxBuffer>,
        cx: &Context<'_>,
    ) -> core::result::Result<RxSkBuff, usize> {
        let mut packet = RxSkBuff::of_used(used, opened.skip, cx).ok_or(counter::NO_MEMORY);

        for _ in 1..opened.received.buffers {
            let (buffer, len) = match self.next(queue) {
                Ok(used) => used.into_parts(),
                Err(counter) => {
                    if let Ok(skb) = packet {
                        skb.free(DropReason::DeviceHeader);
                    }
                    return Err(counter);
                }
            };

            let Ok(mut skb) = packet else {
                continue;
            };
            packet = if len == 0 {
                skb.free(DropReason::DeviceHeader);
                Err(counter::SHORT)
            } else if skb.append(buffer, len).is_err() {
                skb.free(DropReason::NoMemory);
                Err(counter::NO_MEMORY)
            } else {
                Ok(skb)
            };
        }
        self.finish(packet?, opened.hash, &opened.header, &opened.received)
    }
}

impl Handler for Receiver {
    type Shared = Shared;

    /// Fills the ring while it is allowed to wait for memory.
    fn start(&mut self, shared: &Shared, pool: Option<PoolRef<'_>>, program: bool) {
        let Some(mut pool) = pool else {
            return;
        };
        let room = room(program);
        // With the smallest MTU: the packets will show what they need.
        let units = self.supply.units(0, room);

        // Not one more than there is room for: the pool would get memory for dozens.
        while shared.queue.lock_bh().is_some_and(|vq| vq.num_free() > 0) {
            let Some(buffer) = self.supply.take(&mut pool, units, room, Wait::Yes) else {
                // The first poll tries again.
                break;
            };
            let Some(mut vq) = shared.queue.lock_bh() else {
                return;
            };
            if let Err(Rejected { mut buffer, .. }) = vq.add_inbuf(buffer) {
                self.supply.keep(|| buffer.pop(0));
                break;
            }
        }
        if let Some(mut vq) = shared.queue.lock_bh() {
            vq.kick();
        }
        if let Some(peers) = &self.peers {
            peers.kick();
        }
    }

    fn forget(&mut self) {
        self.taken = Batch::default();
        self.supply.forget();
    }

    fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Progress {
        // CAST: A budget is not negative.
        let budget = cx.budget() as u32;
        let program = cx.program();
        let mut counts = [0; counter::COUNT];
        let mut work = 0;

        if budget == 0 {
            return Progress::Done(0);
        }
        match shared.queue.lock() {
            Some(mut vq) => vq.disable_cb(),
            None => return self.poll_frames(shared, cx),
        }

        while work < budget {
            let Some(used) = self.used(&shared.queue) else {
                break;
            };
            match program {
                None => self.frame(used, shared, cx, &mut counts),
                Some(program) => self.inspect(program, used, shared, cx, &mut counts),
            }
            work += 1;
        }
        if program.is_some() {
            self.sending.finish(cx, &mut counts);
        }

        let room = room(program.is_some());
        let units = self.supply.units(cx.mtu(), room);
        let mut enough = true;
        if let (Some(mut vq), Some(mut pool)) = (shared.queue.lock(), cx.pool()) {
            if vq.num_free() > budget.min(vq.size()) / 2 {
                enough = self.refill(&mut vq, &mut pool, units, room, &mut counts);
            }
        }
        if let (Some(peers), true) = (&self.peers, counts[counter::KICKS] != 0) {
            peers.kick();
        }
        self.stats.add_all(&counts);

        if work < budget && enough {
            Progress::Done(work)
        } else {
            Progress::Again
        }
    }

    fn arm(&mut self, shared: &Shared) -> bool {
        match shared.queue.lock() {
            Some(mut vq) => vq.enable_cb(),
            None => shared.frames.enable_cb(),
        }
    }

    fn disarm(shared: &Shared) {
        match shared.queue.lock() {
            Some(mut vq) => vq.disable_cb(),
            None => shared.frames.disable_cb(),
        }
    }

    fn sample(&mut self, shared: &Shared) -> Option<Sample> {
        self.events = self.events.wrapping_add(1);
        shared.coalescing.is_adaptive(shared.index).then(|| Sample {
            events: self.events,
            packets: self.stats.get(counter::PACKETS),
            bytes: self.stats.get(counter::BYTES),
        })
    }

    fn tune(shared: &Shared, moderation: Moderation) {
        shared.coalescing.tune(shared.index, moderation);
    }
}
