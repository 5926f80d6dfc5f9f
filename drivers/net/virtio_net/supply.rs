// SPDX-License-Identifier: GPL-2.0

//! The buffers that receive queues are filled with.

use crate::{
    header::{
        Format,
        MAX_LEN, //
    },
    sizing::{
        Memory,
        Mergeable,
        Single, //
    },
};
use guest::{
    net::{
        buffer::{
            Room,
            RxBuffer, //
        },
        page_pool::{
            Listed,
            PoolRef,
            Wait,
            UNIT, //
        },
        skbuff::{
            ETH_HLEN,
            MAX_FRAGS, //
        },
    },
    virtio::buffer::Used, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// An Ethernet header with a VLAN tag.
const FRAME_OVERHEAD: u32 = ETH_HLEN + 4;

/// The longest packet that is several in one, with a header (VirtIO 1.3, 5.1.6.3.1).
const MERGED_LEN: u32 = 65_550 + MAX_LEN as u32;

/// What buffers are made of.
const MEMORY: Memory = memory(Room::Stack);

/// What they are made of while a program sees the packets.
const PROGRAM_MEMORY: Memory = memory(Room::Program);

const fn memory(room: Room) -> Memory {
    Memory {
        // CAST: Both are a few KiB.
        unit: UNIT as u32,
        page: PAGE_SIZE as u32,
        overhead: room.overhead(),
    }
}

/// A packet that is several in one lies in pages of this order: each takes a descriptor, of which a ring has few, and instructions
/// even if the packet does not reach it. Larger ones are hard to get when memory is fragmented.
const MERGED_ORDER: u32 = 2;

/// Of how many packets the buffer, or its rest, is kept for the next ones: two polls'.
const SPARE: usize = 128;

/// How large buffers are.
#[derive(Clone, Copy)]
pub(crate) enum Sizing {
    /// A packet can have several; their size follows the packets.
    Mergeable,
    /// A packet has one.
    Single(Single),
}

impl Sizing {
    /// Chooses how large buffers are of a device whose packets are spread over several of them (`mergeable`), may be several in
    /// one (`merged`), and else follow from the largest MTU.
    pub(crate) fn new(mergeable: bool, merged: bool, mtu: u32) -> Self {
        if mergeable {
            return Self::Mergeable;
        }
        let order = if merged { MERGED_ORDER } else { 0 };

        Self::Single(Single::new(
            longest(merged, mtu),
            MEMORY,
            PROGRAM_MEMORY,
            MEMORY.page << order,
        ))
    }

    /// Returns how many descriptors the longest packet takes, which may be several in one (`merged`), and else is as long as the MTU
    /// says.
    pub(crate) fn descriptors(&self, merged: bool, mtu: u32) -> u32 {
        match self {
            Self::Mergeable => MEMORY.buffers(longest(merged, mtu)),
            Self::Single(single) => 1 + single.more,
        }
    }

    /// Returns how many fragments follow the first one of a buffer.
    pub(crate) fn more(&self) -> u32 {
        match self {
            Self::Mergeable => 0,
            Self::Single(single) => single.more,
        }
    }

    /// Returns the order of the pages that buffers are made of.
    pub(crate) fn order(&self) -> u32 {
        match self {
            Self::Single(single) if single.more > 0 => (single.size / MEMORY.page).ilog2(),
            _ => 0,
        }
    }

    /// Returns the largest MTU that there is room for.
    pub(crate) fn max_mtu(&self) -> u32 {
        match self {
            Self::Mergeable => u32::MAX,
            // CAST: A small constant.
            Self::Single(single) => single
                .capacity(MEMORY)
                .saturating_sub(FRAME_OVERHEAD + MAX_LEN as u32),
        }
    }
}

/// Returns how long a packet can be, with its header.
const fn longest(merged: bool, mtu: u32) -> u32 {
    if merged {
        return MERGED_LEN;
    }
    // CAST: A small constant.
    mtu.saturating_add(FRAME_OVERHEAD)
        .saturating_add(MAX_LEN as u32)
}

/// Returns the largest MTU of which a program that takes no fragments can see every packet.
pub(crate) const fn max_linear_mtu() -> u32 {
    // CAST: A small constant.
    PROGRAM_MEMORY.page - PROGRAM_MEMORY.overhead - FRAME_OVERHEAD - MAX_LEN as u32
}

/// Where the buffers of one queue come from.
pub(crate) struct Supply {
    sizing: Sizing,
    mergeable: Mergeable,
    /// The length of a header.
    header: u32,
    /// Buffers of packets that went nowhere. Each has room for a program, and so is as large as any.
    returned: KVec<RxBuffer>,
    /// Fragments of buffers whose packets did not reach them.
    spare: KVec<Listed>,
}

impl Supply {
    /// Begins with nothing known of the packets.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(sizing: Sizing, format: Format) -> Result<Self> {
        let spare = (sizing.more() as usize).saturating_mul(SPARE);

        Ok(Self {
            sizing,
            mergeable: Mergeable::new(MEMORY),
            // CAST: At most 20.
            header: format.len() as u32,
            returned: KVec::with_capacity(SPARE, GFP_KERNEL)?,
            spare: KVec::with_capacity(spare, GFP_KERNEL)?,
        })
    }

    /// Takes a received packet into account.
    #[inline]
    pub(crate) fn observe(&mut self, len: u32) {
        if matches!(self.sizing, Sizing::Mergeable) {
            self.mergeable.observe(len);
        }
    }

    /// Returns how many units the first fragment of the next buffer takes.
    #[inline]
    pub(crate) fn units(&self, mtu: u32, room: Room) -> u32 {
        match (&self.sizing, room) {
            (Sizing::Single(single), Room::Stack) => single.stack,
            (Sizing::Single(single), Room::Program) => single.program,
            // Programs work best on packets in one piece.
            (Sizing::Mergeable, Room::Program) => PROGRAM_MEMORY.page_units(),
            (Sizing::Mergeable, Room::Stack) => {
                let frame = mtu
                    .saturating_add(FRAME_OVERHEAD)
                    .saturating_add(self.header);
                // CAST: A small constant.
                self.mergeable.units(frame, MAX_FRAGS as u32)
            }
        }
    }

    /// Returns a buffer, if there is memory.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        pool: &mut PoolRef<'_>,
        units: u32,
        room: Room,
        wait: Wait,
    ) -> Option<RxBuffer> {
        let mut buffer = match self.returned.pop() {
            Some(buffer) => buffer,
            None => RxBuffer::new(pool.alloc(units, wait)?, room),
        };

        if let Sizing::Single(single @ Single { more: 1.., .. }) = self.sizing {
            self.extend(&mut buffer, single, pool, wait)?;
        }
        Some(buffer)
    }

    /// Adds the fragments that follow the first.
    #[inline(never)]
    fn extend(
        &mut self,
        buffer: &mut RxBuffer,
        single: Single,
        pool: &mut PoolRef<'_>,
        wait: Wait,
    ) -> Option<()> {
        for _ in 0..single.more {
            let fragment = match self.spare.pop() {
                Some(fragment) => fragment,
                None => pool.alloc(single.size / MEMORY.unit, wait)?.into(),
            };
            buffer.push(fragment).ok()?;
        }
        Some(())
    }

    /// Keeps the buffer of a packet that went nowhere.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, buffer: RxBuffer) {
        // Without room for it, it goes back to the pool.
        let _ = self.returned.push_within_capacity(buffer);
    }

    /// Gives back what is kept for later.
    pub(crate) fn forget(&mut self) {
        self.returned.clear();
        self.spare.clear();
    }

    /// Keeps the fragments of a buffer that nothing was written to.
    #[inline(always)]
    pub(crate) fn trim(&mut self, used: Used<RxBuffer>) -> Used<RxBuffer> {
        if used.buffer().has_list() {
            return self.trim_list(used);
        }
        used
    }

    #[inline(never)]
    fn trim_list(&mut self, mut used: Used<RxBuffer>) -> Used<RxBuffer> {
        self.keep(|| used.pop());
        used
    }

    /// Keeps the fragments that `pop` takes off a buffer.
    pub(crate) fn keep(&mut self, mut pop: impl FnMut() -> Option<Listed>) {
        while let Some(fragment) = pop() {
            // Without room for it, it goes back to the pool.
            let _ = self.spare.push_within_capacity(fragment);
        }
    }
}
