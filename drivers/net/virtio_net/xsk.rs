// SPDX-License-Identifier: GPL-2.0

//! Sockets that receive into memory of their own, and send from it (AF_XDP without copies).
//!
//! While one is bound to a pair of queues the device writes what it receives into frames of the socket's. A program says which packets
//! the socket gets; the others are copied for the stack, or go where programs send packets. What the socket has to send shares the
//! transmit queue with the stack.

use crate::{
    config::{
        self,
        Feature, //
    },
    counters::{
        rx,
        tx, //
    },
    header::{
        Checksum,
        Verdict, //
    },
    interface::Interface,
    rx::{
        set_hash,
        Opened,
        Receiver,
        Shared, //
    },
    tx::Sender,
    xdp::hash_for_programs, //
};
use guest::{
    net::{
        napi::{
            Context,
            Progress, //
        },
        skbuff::{
            Depth,
            DropReason,
            RxSkBuff, //
        },
        stats::Writer,
        transmit::{
            Ring,
            TxQueue, //
        },
        xdp::Program,
        xsk::{
            Packet,
            Queues, //
        }, //
    },
    virtio::Features, //
};
use kernel::prelude::*;

/// Returns whether sockets can be bound to queues of a device with these features: one that forgets a queue when told, whose memory is
/// mapped for it, and that writes no packet into a frame which is larger than that.
pub(crate) fn is_possible(features: &Features<Feature>) -> bool {
    let fits = features.contains(Feature::MrgRxbuf) || !config::can_merge(features);

    features.can_reset_queues() && features.maps_memory() && features.any_layout() && fits
}

/// Returns the queues of a pair for a socket.
pub(crate) fn queues(interface: &Interface, index: u16) -> Result<Queues<'_>> {
    let pair = interface.pairs.get(usize::from(index)).ok_or(EINVAL)?;

    if !is_possible(&interface.features) {
        return Err(EOPNOTSUPP);
    }
    Ok(Queues {
        rx: &pair.queues.frames,
        tx: &pair.queues.tx,
        // CAST: At most 24.
        header: config::format(&interface.features).len() as u32,
    })
}

/// Whether the MTU can be changed. A packet that takes one frame has to fit, which was checked when the socket was bound.
pub(crate) fn check_mtu(interface: &Interface) -> Result {
    let bound = || {
        interface
            .pairs
            .iter()
            .any(|pair| pair.queues.frames.is_lent())
    };

    if !interface.features.contains(Feature::MrgRxbuf) && bound() {
        return Err(EBUSY);
    }
    Ok(())
}

impl Receiver {
    /// Polls a queue that is filled with frames of a socket's, or with nothing because the device is gone.
    #[cold]
    pub(crate) fn poll_frames(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Progress {
        // CAST: A budget is not negative.
        let budget = cx.budget() as u32;
        let program = cx.program();
        let mut counts = [0; rx::COUNT];
        let mut work = 0;

        shared.frames.disable_cb();
        while work < budget {
            let Some(packet) = cx.next_frame() else {
                break;
            };
            let result = match program {
                Some(program) => self.decide(packet, program, shared, cx, &mut counts),
                None => self.copy(packet, shared, cx, &mut counts),
            };
            if let Err(reason) = result {
                counts[rx::DROPS] += 1;
                counts[reason] += 1;
            }
            counts[rx::XSK_PACKETS] += 1;
            work += 1;
        }
        if program.is_some() {
            self.sending.finish(cx, &mut counts);
        }

        let mut enough = true;
        if let Some(lent) = cx.lend_frames() {
            enough = lent.enough;
            counts[rx::KICKS] += u64::from(lent.notified);
            counts[rx::REFILL_FAILURES] += u64::from(!enough);
            if let (Some(peers), true) = (&self.peers, lent.notified) {
                peers.kick();
            }
        }
        self.stats.add_all(&counts);

        if work < budget && enough {
            Progress::Done(work)
        } else {
            Progress::Again
        }
    }

    /// Shows a packet to a program, and does what that says. Fails with the counter that the packet's loss belongs to.
    fn decide<'a>(
        &mut self,
        mut packet: Packet<'a>,
        program: Program<'a>,
        shared: &Shared,
        cx: &mut Context<'a>,
        counts: &mut [u64; rx::COUNT],
    ) -> core::result::Result<(), usize> {
        let Opened {
            skip,
            hash,
            received,
            ..
        } = self.open(&packet, packet.len(), cx)?;

        if received.buffers > 1 || received.segmented {
            skip_frames(received.buffers.saturating_sub(1), cx)?;
            return Err(rx::XDP_DROPS);
        }
        if let Verdict::Missing(Checksum { start, offset }) = received.verdict {
            packet
                .fill_checksum(start, offset)
                .map_err(|_| rx::BAD_HEADER)?;
        }

        counts[rx::PACKETS] += 1;
        counts[rx::BYTES] += u64::from(packet.len().wrapping_sub(skip));
        counts[rx::XDP_PACKETS] += 1;
        packet.set_hash(hash.map(hash_for_programs));
        let decided = packet.run(program, cx);
        if self.is_passed(decided, cx, counts) {
            let mut skb = packet.copy(cx).ok_or(rx::NO_MEMORY)?;
            set_hash(&mut skb, hash);
            if received.verdict == Verdict::Verified {
                skb.set_checksum_verified(Depth::Outer);
            }
            skb.receive(shared.index, cx);
        }
        Ok(())
    }

    /// Copies a packet for the stack. Fails with the counter that its loss belongs to.
    fn copy<'a>(
        &mut self,
        packet: Packet<'a>,
        shared: &Shared,
        cx: &mut Context<'a>,
        counts: &mut [u64; rx::COUNT],
    ) -> core::result::Result<(), usize> {
        let Opened {
            header,
            hash,
            received,
            ..
        } = self.open(&packet, packet.len(), cx)?;

        let mut copied = packet.copy(cx).ok_or(rx::NO_MEMORY);
        drop(packet);
        for left in (0..received.buffers.saturating_sub(1)).rev() {
            match append_frame(copied, cx) {
                Ok(skb) => copied = Ok(skb),
                Err(reason) => {
                    skip_frames(left, cx)?;
                    return Err(reason);
                }
            }
        }
        let skb = self.finish(copied?, hash, &header, &received)?;

        counts[rx::PACKETS] += 1;
        counts[rx::BYTES] += u64::from(skb.len());
        skb.receive(shared.index, cx);
        Ok(())
    }
}

/// Appends the next frame to a packet.
fn append_frame(
    copied: core::result::Result<RxSkBuff, usize>,
    cx: &mut Context<'_>,
) -> core::result::Result<RxSkBuff, usize> {
    let next = cx.next_frame().ok_or(rx::MISSING_BUFFERS);
    let mut skb = copied?;

    let appended = match next {
        Ok(next) if next.len() == 0 => Err(rx::SHORT),
        Ok(next) => next.append_to(&mut skb, cx).map_err(|_| rx::NO_MEMORY),
        Err(reason) => Err(reason),
    };
    match appended {
        Ok(()) => Ok(skb),
        Err(rx::NO_MEMORY) => {
            skb.free(DropReason::NoMemory);
            Err(rx::NO_MEMORY)
        }
        Err(reason) => {
            skb.free(DropReason::DeviceHeader);
            Err(reason)
        }
    }
}

/// Uses up the rest of a packet that is lost.
fn skip_frames(count: u16, cx: &mut Context<'_>) -> core::result::Result<(), usize> {
    for _ in 0..count {
        drop(cx.next_frame().ok_or(rx::MISSING_BUFFERS)?);
    }
    Ok(())
}

impl Sender {
    /// Sends what a socket has to send, as far as there is room. The stack keeps what it needs for a packet.
    #[cold]
    pub(crate) fn send_frames(
        stats: &mut Writer<{ tx::COUNT }>,
        enough: u32,
        vq: &mut Ring<'_>,
        queue: &TxQueue<'_, Interface>,
        cx: &Context<'_>,
    ) -> Progress {
        let budget = u32::try_from(cx.budget()).unwrap_or(0);
        let reserve = enough.min(vq.size() / 2);
        // Each packet has a header, which takes an entry too where descriptors are not indirect.
        let room = vq.num_free().saturating_sub(reserve) / 2;

        let sent = queue.send_frames(vq, room.min(budget));
        if sent == 0 {
            return Progress::Done(0);
        }
        let mut counts = [0; tx::COUNT];
        counts[tx::XSK_PACKETS] = u64::from(sent);
        counts[tx::KICKS] = u64::from(vq.kick_prepare() && vq.notify());
        stats.add_all(&counts);
        if sent < budget {
            // For want of room, or of more to send.
            Progress::Done(0)
        } else {
            Progress::Again
        }
    }
}
