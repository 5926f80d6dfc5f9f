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
use guest::net::{
    buffer::{
        Room,
        RxBuffer, //
    },
    page_pool::{
        Fragment,
        PoolRef,
        Wait,
        UNIT, //
    },
    skbuff::{
        ETH_HLEN,
        MAX_FRAGS, //
    },
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

/// How many packets' pages are kept for the next buffers.
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
        let len = if merged {
            MERGED_LEN
        } else {
            // CAST: A small constant.
            mtu.saturating_add(FRAME_OVERHEAD)
                .saturating_add(MAX_LEN as u32)
        };

        Self::Single(Single::new(len, MEMORY, PROGRAM_MEMORY))
    }

    /// Returns how many pages follow the first fragment of a buffer.
    pub(crate) fn pages(&self) -> u32 {
        match self {
            Self::Mergeable => 0,
            Self::Single(single) => single.pages,
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
    /// Pages of buffers whose packets did not reach them.
    spare: KVec<Fragment>,
}

impl Supply {
    /// Begins with nothing known of the packets.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(sizing: Sizing, format: Format) -> Result<Self> {
        let spare = (sizing.pages() as usize).saturating_mul(SPARE);

        Ok(Self {
            sizing,
            mergeable: Mergeable::new(MEMORY),
            // CAST: At most 20.
            header: format.len() as u32,
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

    /// Returns a new buffer, if there is memory.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        pool: &mut PoolRef<'_>,
        units: u32,
        room: Room,
        wait: Wait,
    ) -> Option<RxBuffer> {
        let mut buffer = RxBuffer::new(pool.alloc(units, wait)?, room)?;

        for _ in 0..self.sizing.pages() {
            let page = match self.spare.pop() {
                Some(page) => page,
                None => pool.alloc(MEMORY.page_units(), wait)?,
            };
            buffer.push_page(page).ok()?;
        }
        Some(buffer)
    }

    /// Keeps the pages that the first `len` bytes of a buffer do not reach.
    #[inline(always)]
    pub(crate) fn trim(&mut self, buffer: &mut RxBuffer, len: u32) {
        if self.sizing.pages() > 0 {
            self.keep_pages(buffer, len);
        }
    }

    #[inline(never)]
    fn keep_pages(&mut self, buffer: &mut RxBuffer, len: u32) {
        while let Some(page) = buffer.pop_page(len) {
            // Without room for it, it goes back to the pool.
            let _ = self.spare.push_within_capacity(page);
        }
    }
}
