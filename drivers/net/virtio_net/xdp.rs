// SPDX-License-Identifier: GPL-2.0

//! Programs of the user's that see packets before the stack does.
//!
//! They see every packet as it was on the wire. So while there is one the device merges no packets, for which one without a command
//! for that is [reset](crate::recovery); and what checksum a device leaves open is filled in here. Packets that a program wants sent share the transmit queues with the stack.

use crate::{
    counters::rx as counter,
    header::{
        Checksum,
        Hash,
        Received,
        Transport,
        Verdict as Sums, //
    },
    interface::Interface,
    rx::{
        set_hash,
        Begun,
        Opened,
        Receiver,
        Shared, //
    },
    supply::max_linear_mtu,
    xsk, //
};
use guest::{
    net::{
        buffer::RxBuffer,
        device::{
            Device,
            Features, //
        },
        napi::Context,
        refusal::Refusal,
        skbuff::{
            Depth,
            RxSkBuff, //
        },
        xdp::{
            Attached,
            Buff,
            Bulk,
            Ports,
            Program,
            RxHash,
            Verdict, //
        }, //
    },
    virtio::{
        buffer::Used,
        Queue, //
    }, //
};
use kernel::prelude::*;

/// What a program has decided during a poll, and what is still to be done for it.
#[derive(Default)]
pub(crate) struct Sending {
    /// To go out by the device that they came from.
    bulk: Bulk,
    redirected: bool,
}

impl Sending {
    fn flush(&mut self, cx: &Context<'_>, counts: &mut [u64; counter::COUNT]) {
        // CAST: A small number.
        let lost = self.bulk.flush(cx) as u64;

        counts[counter::XDP_TX] = counts[counter::XDP_TX].wrapping_sub(lost);
        counts[counter::XDP_DROPS] += lost;
    }

    /// Hands over what is left, at the end of a poll.
    pub(crate) fn finish(&mut self, cx: &Context<'_>, counts: &mut [u64; counter::COUNT]) {
        self.flush(cx, counts);
        if core::mem::take(&mut self.redirected) {
            cx.flush_redirects();
        }
    }
}

/// The hash as programs know it.
pub(crate) fn hash_for_programs(hash: Hash) -> RxHash {
    let ports = match hash.ports {
        None => Ports::Without,
        Some(Transport::Tcp) => Ports::Tcp,
        Some(Transport::Udp) => Ports::Udp,
    };

    RxHash::new(hash.value, hash.ipv6, hash.extended, ports)
}

impl Receiver {
    /// Shows a packet to a program, and does what that says.
    // The poll does not get better by being one with it.
    #[inline(never)]
    pub(crate) fn inspect<'a>(
        &mut self,
        program: Program<'a>,
        used: Used<RxBuffer>,
        shared: &Shared,
        cx: &mut Context<'a>,
        counts: &mut [u64; counter::COUNT],
    ) {
        let shown = match self.begin(used.buffer(), used.written()) {
            Ok(begun) => match begun.plain() {
                Some(begun) => self.show(program, begun, used, shared, cx, counts),
                None => self.show_any(program, begun, used, shared, cx, counts),
            },
            Err(reason) => Err(reason),
        };

        if let Err(reason) = shown {
            counts[counter::DROPS] += 1;
            counts[reason] += 1;
        }
    }

    /// Does it, or says which counter the packet's loss belongs to.
    #[inline(always)]
    fn show<'a>(
        &mut self,
        program: Program<'a>,
        begun: Begun,
        used: Used<RxBuffer>,
        shared: &Shared,
        cx: &mut Context<'a>,
        counts: &mut [u64; counter::COUNT],
    ) -> core::result::Result<(), usize> {
        let opened = self.check(begun, used.buffer(), cx)?;

        let (buffer, len) = self.supply.trim(used).into_parts();
        let mut packet = Buff::new(buffer, opened.skip, len, program, cx);
        let decided = self.settle(&mut packet, &opened, program, shared, cx, counts);
        // What went nowhere is received into again.
        if let Some(buffer) = packet.as_mut().and_then(Buff::take_buffer) {
            self.supply.give_back(buffer);
        }
        decided
    }

    /// The same for headers of which nothing is known.
    #[inline(never)]
    fn show_any<'a>(
        &mut self,
        program: Program<'a>,
        begun: Begun,
        used: Used<RxBuffer>,
        shared: &Shared,
        cx: &mut Context<'a>,
        counts: &mut [u64; counter::COUNT],
    ) -> core::result::Result<(), usize> {
        self.show(program, begun, used, shared, cx, counts)
    }

    /// Has a program decide, and does what it says. A packet that stays in `packet` goes nowhere.
    #[inline(always)]
    fn settle<'a>(
        &mut self,
        packet: &mut Option<Buff<'a>>,
        opened: &Opened,
        program: Program<'a>,
        shared: &Shared,
        cx: &mut Context<'a>,
        counts: &mut [u64; counter::COUNT],
    ) -> core::result::Result<(), usize> {
        let Received {
            verdict,
            buffers,
            segmented,
        } = opened.received;

        if buffers > 1 {
            self.gather(packet, buffers - 1, program, &shared.queue)?;
        }
        let Some(buff) = packet else {
            return Err(counter::NO_MEMORY);
        };
        if segmented {
            // It came before the device knew that it is not to merge any more.
            return Err(counter::XDP_DROPS);
        }
        if let Sums::Missing(Checksum { start, offset }) = verdict {
            buff.fill_checksum(start, offset)
                .map_err(|_| counter::BAD_HEADER)?;
        }

        counts[counter::PACKETS] += 1;
        counts[counter::BYTES] += u64::from(buff.len());
        counts[counter::XDP_PACKETS] += 1;
        if let Some(hash) = opened.hash {
            buff.set_hash(hash_for_programs(hash));
        }
        let decided = buff.run(program, cx);
        if self.is_passed(decided, cx, counts) {
            let mut skb = RxSkBuff::from_buff(buff, cx).ok_or(counter::NO_MEMORY)?;
            set_hash(&mut skb, opened.hash);
            if verdict == Sums::Verified {
                skb.set_checksum_verified(Depth::Outer);
            }
            skb.receive(shared.index, cx);
        }
        Ok(())
    }

    /// Does what a program has decided of a packet, and returns whether the stack gets it.
    #[inline(always)]
    pub(crate) fn is_passed(
        &mut self,
        decided: Verdict,
        cx: &Context<'_>,
        counts: &mut [u64; counter::COUNT],
    ) -> bool {
        match decided {
            Verdict::Dropped => counts[counter::XDP_DROPS] += 1,
            Verdict::Pass => return true,
            Verdict::Transmit(frame) => {
                counts[counter::XDP_TX] += 1;
                if self.sending.bulk.push(frame) {
                    self.sending.flush(cx, counts);
                }
            }
            Verdict::Redirected => {
                counts[counter::XDP_REDIRECTS] += 1;
                self.sending.redirected = true;
            }
        }
        false
    }

    /// Appends `more` buffers. They are used up even if the packet is lost.
    #[inline(never)]
    fn gather<'a>(
        &mut self,
        packet: &mut Option<Buff<'a>>,
        more: u16,
        program: Program<'a>,
        queue: &Queue<RxBuffer>,
    ) -> core::result::Result<(), usize> {
        let mut result = Ok(());

        for _ in 0..more {
            let (buffer, len) = self.next(queue)?.into_parts();
            let appended = match packet {
                Some(buff) if program.takes_fragments() => buff.append(buffer, len),
                Some(buff) => buff.append_copy(&buffer, len),
                None => continue,
            };
            if let Err(error) = appended {
                *packet = None;
                result = Err(match error {
                    EINVAL => counter::SHORT,
                    // It came before the device or the user knew better.
                    _ => counter::XDP_DROPS,
                });
            }
        }
        result
    }
}

/// Whether programs can be run on what this device delivers, and one like this at the present MTU.
pub(crate) fn check(
    dev: &Device<Interface>,
    program: Attached,
) -> core::result::Result<(), Refusal> {
    if program == Attached::Linear && dev.mtu() > max_linear_mtu() {
        return Err(Refusal::new(
            EINVAL,
            c"the MTU is too large for a program that takes no fragments",
        ));
    }
    Ok(())
}

/// Whether the MTU can be changed under the program that there is.
pub(crate) fn check_mtu(dev: &Device<Interface>, mtu: u32) -> Result {
    if dev.attached() == Attached::Linear && mtu > max_linear_mtu() {
        return Err(EINVAL);
    }
    xsk::check_mtu(&dev.data())
}

/// Returns what of `features` the interface can have with the program that there is, if there is one.
pub(crate) fn fix_features(dev: &Device<Interface>, features: Features) -> Features {
    match dev.attached() {
        Attached::Nothing => features,
        Attached::Linear | Attached::Fragments => features.without(Features::GRO_HW),
    }
}
