// SPDX-License-Identifier: GPL-2.0

//! Transmit queues.
//!
//! The device is told of packets when the stack has no more at hand or the byte queue limit is reached, and asked to
//! interrupt when it has sent most of what it has. When the ring cannot take another packet of any shape the stack is
//! stopped; the poll that reclaims what was sent wakes it.

use crate::{
    counters::tx as counter,
    header::{
        self,
        Format,
        Layout,
        Place,
        Tunnel,
        GSO_ECN,
        GSO_TCPV4,
        GSO_TCPV6,
        GSO_UDP_L4,
        HASH_LEN,
        LEGACY_LEN,
        LEN,
        TUNNEL_LEN, //
    },
    interface::Interface,
};
use guest::{
    net::{
        buffer::{
            Outgoing,
            TxFrame,
            Unsent, //
        },
        napi::{
            Context,
            Progress, //
        },
        skbuff::{
            DropReason,
            SegmentKind,
            TxSkBuff, //
        },
        stats::Writer,
        transmit::{
            Ring,
            Transmit,
            TxQueue,
            Xmit, //
        },
        xdp::{
            Frame,
            Frames, //
        }, //
    },
    virtio::buffer::Rejected, //
};
use kernel::prelude::*;

/// How a device wants a packet and its header.
pub(crate) struct Framing {
    format: Format,
    /// How long a header is of this format.
    len: u8,
    any_layout: bool,
    exact_header_len: bool,
}

impl Framing {
    /// With `any_layout` header and packet may share a descriptor: VIRTIO_F_VERSION_1 or VIRTIO_F_ANY_LAYOUT. With `exact_header_len`
    /// the device relies on what it is told of the length of a packet's headers: VIRTIO_NET_F_GUEST_HDRLEN.
    pub(crate) fn new(format: Format, any_layout: bool, exact_header_len: bool) -> Self {
        Self {
            format,
            // CAST: At most 24.
            len: format.len() as u8,
            any_layout,
            exact_header_len,
        }
    }
}

impl Place for Unsent {
    #[inline]
    fn put<const AT: usize, const N: usize>(&mut self, bytes: [u8; N]) {
        self.put::<AT, N>(bytes);
    }

    #[inline]
    fn put_last<const N: usize>(&mut self, bytes: [u8; N]) {
        self.put_last(bytes);
    }
}

/// What the lock of a transmit queue protects.
pub(crate) struct Sender {
    framing: Framing,
    /// With fewer free entries than this the ring may be unable to take a packet.
    enough: u32,
    stats: Writer<{ counter::COUNT }>,
}

impl Sender {
    /// Makes the state of a queue whose ring has `size` entries.
    pub(crate) fn new(size: u32, framing: Framing, stats: Writer<{ counter::COUNT }>) -> Self {
        Self {
            framing,
            // CAST: A small constant. A ring that is smaller still has to be usable.
            enough: size.min(TxFrame::MAX_SEGMENTS as u32),
            stats,
        }
    }

    /// Gives a packet to the device, or frees it.
    #[inline]
    fn lend(framing: &Framing, vq: &mut Ring<'_>, skb: TxSkBuff) -> Result {
        let complete = skb.is_complete();
        let mut packet = Unsent::new(skb, framing.len, framing.any_layout);
        if !complete {
            let described = if framing.format.big_endian {
                Self::describe::<true>(&mut packet, framing.exact_header_len)
            } else {
                Self::describe::<false>(&mut packet, framing.exact_header_len)
            };
            if let Err(error) = described {
                packet.into_skb().free(DropReason::NotSpecified);
                return Err(error);
            }
        }

        packet.skb().timestamp();
        vq.add_outbuf(packet.finish()).map_err(|rejected| {
            let reason = match rejected.error {
                ENOSPC => DropReason::FullRing,
                ENOMEM => DropReason::NoMemory,
                _ => DropReason::DeviceReady,
            };
            if let Outgoing::Stack(skb) = rejected.buffer.into_inner() {
                skb.free(reason);
            }
            rejected.error
        })
    }

    /// Says what the device is to do with a packet.
    #[inline]
    fn describe<const BIG_ENDIAN: bool>(packet: &mut Unsent, exact_header_len: bool) -> Result {
        let mut header = header::Draft::<_, BIG_ENDIAN>::new(packet);

        if let Some(sum) = header.place().skb().missing_checksum() {
            let (start, offset) = (sum.start(), sum.offset());
            header.leave_checksum(start, offset);
        }
        let skb = header.place().skb();
        let Some(segmentation) = skb.segmentation() else {
            return Ok(());
        };
        let gso_type = match segmentation.kind().ok_or(EPROTO)? {
            SegmentKind::TcpV4 => GSO_TCPV4,
            SegmentKind::TcpV6 => GSO_TCPV6,
            SegmentKind::Udp => GSO_UDP_L4,
        };
        let ecn = if segmentation.ecn() { GSO_ECN } else { 0 };
        let size = segmentation.size();
        let header_len = if exact_header_len {
            segmentation.header_len()
        } else {
            u16::try_from(skb.head_len()).unwrap_or(u16::MAX)
        };
        let tunnel = segmentation.tunnel();
        header.leave_cutting(gso_type | ecn, size, header_len);
        if let Some(tunnel) = tunnel {
            header.put_into(Tunnel {
                ipv6: tunnel.ipv6,
                checksum: tunnel.checksum,
                outer_transport: tunnel.outer_transport,
                inner_network: tunnel.inner_network,
            });
        }
        Ok(())
    }

    /// Gives a packet of a program to the device, or back.
    #[inline]
    fn lend_frame(&self, vq: &mut Ring<'_>, frame: Frame) -> core::result::Result<(), Frame> {
        let frame = match self.framing.format.layout {
            _ if !self.framing.any_layout => Err(frame),
            Layout::Short => TxFrame::of_program::<LEGACY_LEN>(frame),
            Layout::Long => TxFrame::of_program::<LEN>(frame),
            Layout::Hash => TxFrame::of_program::<HASH_LEN>(frame),
            Layout::Tunnel => TxFrame::of_program::<TUNNEL_LEN>(frame),
        }?;

        match vq.add_outbuf(frame) {
            Ok(()) => Ok(()),
            Err(Rejected { buffer, .. }) => match buffer.into_inner() {
                Outgoing::Program(frame) => Err(frame),
                Outgoing::Stack(_) | Outgoing::Socket(_) => Ok(()),
            },
        }
    }

    /// Tells the device of what it has been given.
    #[inline]
    fn tell(
        stats: &mut Writer<{ counter::COUNT }>,
        vq: &mut Ring<'_>,
        queue: &TxQueue<'_, Interface>,
    ) {
        if vq.kick_prepare() && vq.notify() {
            stats.add(counter::KICKS, 1);
        }
        if !vq.enable_cb_delayed() {
            queue.schedule(|| vq.disable_cb());
        }
    }

    /// Takes back what the device has sent, and gives what the stack has sent to `consume`.
    #[inline(always)]
    fn reclaim(
        stats: &mut Writer<{ counter::COUNT }>,
        header_len: u8,
        vq: &mut Ring<'_>,
        queue: &TxQueue<'_, Interface>,
        mut consume: impl FnMut(TxSkBuff),
    ) {
        // Of the stack, which counts what is in flight, and of programs and sockets.
        let mut packets = 0u32;
        let mut bytes = 0u32;
        let mut frames = 0u32;
        let mut frame_bytes = 0u32;

        // What is in flight cannot become more meanwhile, so this ends.
        while let Some(used) = vq.get_buf() {
            match used.into_buffer().into_inner() {
                Outgoing::Stack(skb) => {
                    packets = packets.wrapping_add(1);
                    bytes = bytes.wrapping_add(skb.len());
                    consume(skb);
                }
                Outgoing::Program(frame) => {
                    frames = frames.wrapping_add(1);
                    let len = frame.len().wrapping_sub(header_len.into());
                    frame_bytes = frame_bytes.wrapping_add(len);
                }
                Outgoing::Socket(packet) => {
                    frames = frames.wrapping_add(1);
                    frame_bytes = frame_bytes.wrapping_add(packet.len());
                    queue.frames_sent(packet);
                }
            }
        }

        if packets | frames != 0 {
            let mut counts = [0; counter::COUNT];
            counts[counter::PACKETS] = u64::from(packets) + u64::from(frames);
            counts[counter::BYTES] = u64::from(bytes) + u64::from(frame_bytes);
            stats.add_all(&counts);
        }
        if packets > 0 {
            queue.completed(packets, bytes);
        }
    }
}

impl Transmit for Sender {
    type Device = Interface;

    #[inline]
    fn xmit(
        &mut self,
        queue: &TxQueue<'_, Interface>,
        ring: Option<Ring<'_>>,
        skb: TxSkBuff,
    ) -> Xmit {
        let more = queue.xmit_more();
        let len = skb.len();
        let Some(mut vq) = ring else {
            skb.free(DropReason::DeviceReady);
            self.stats.add(counter::DROPS, 1);
            return Xmit::Taken;
        };

        vq.disable_cb();
        let kick = match Self::lend(&self.framing, &mut vq, skb) {
            Ok(()) => {
                if vq.num_free() < self.enough {
                    queue.stop();
                    self.stats.add(counter::STOPS, 1);
                }
                queue.sent(len, more)
            }
            Err(_) => {
                self.stats.add(counter::DROPS, 1);
                // The device does not know yet of what came before.
                !more
            }
        };

        if kick {
            Self::tell(&mut self.stats, &mut vq, queue);
        }
        Xmit::Taken
    }

    fn xdp_xmit(
        &mut self,
        queue: &TxQueue<'_, Interface>,
        ring: Option<Ring<'_>>,
        frames: &mut Frames<'_>,
        flush: bool,
    ) {
        let Some(mut vq) = ring else {
            return;
        };
        let mut sent = 0;
        let mut dropped = 0;

        vq.disable_cb();
        if (vq.num_free() as usize) < frames.len().saturating_add(TxFrame::MAX_SEGMENTS) {
            let header_len = self.framing.len;
            Self::reclaim(&mut self.stats, header_len, &mut vq, queue, |skb| {
                skb.consume_any()
            });
        }
        while let Some(frame) = frames.take() {
            if let Err(frame) = self.lend_frame(&mut vq, frame) {
                frames.give_back(frame);
                // CAST: A few at a time.
                dropped = frames.len() as u64;
                break;
            }
            sent += 1;
        }

        let mut counts = [0; counter::COUNT];
        counts[counter::XDP_TX] = sent;
        counts[counter::XDP_TX_DROPS] = dropped;
        self.stats.add_all(&counts);
        if vq.num_free() < self.enough {
            queue.stop();
            self.stats.add(counter::STOPS, 1);
        }
        if flush {
            Self::tell(&mut self.stats, &mut vq, queue);
        }
    }

    #[inline(always)]
    fn complete(
        &mut self,
        queue: &TxQueue<'_, Interface>,
        ring: Option<Ring<'_>>,
        cx: &Context<'_>,
    ) -> Progress {
        let Some(mut vq) = ring else {
            // A device that is gone interrupts no more.
            return Progress::Done(0);
        };

        // Netpoll has no poll follow, which would turn the interrupt on again, and a queue that is stopped waits for it.
        let is_netpoll = cx.budget() == 0;
        if !is_netpoll {
            vq.disable_cb();
        }
        let header_len = self.framing.len;
        Self::reclaim(&mut self.stats, header_len, &mut vq, queue, |skb| {
            skb.consume(cx)
        });
        let progress = if queue.has_frames() && !is_netpoll {
            Self::send_frames(&mut self.stats, self.enough, &mut vq, queue, cx)
        } else {
            Progress::Done(0)
        };
        if vq.num_free() >= self.enough && queue.wake() {
            self.stats.add(counter::WAKES, 1);
        }
        match progress {
            // Freeing what was sent can wait until there is more of it. When all is back the next packet turns the interrupt on.
            Progress::Done(_) if !is_netpoll && !vq.is_idle() && !vq.enable_cb_delayed() => {
                vq.disable_cb();
                Progress::Again
            }
            progress => progress,
        }
    }
}
