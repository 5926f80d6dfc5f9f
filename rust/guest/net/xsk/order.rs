// SPDX-License-Identifier: GPL-2.0

//! The order in which what was sent is given back to the user.
//!
//! The ring by which the user gets descriptors back holds them in the order in which they were taken, and all that a driver can say is
//! how many more of them are free. A device may be done with them in any order. So one that is done early waits here for those
//! before it.

use core::ops::DerefMut;

/// Set in an entry that is done; the other bits count descriptors.
const DONE: u8 = 0x80;

/// Packets in flight, in the order in which they were taken. `S` has room for one byte per packet.
pub(crate) struct Order<S> {
    slots: S,
    first: usize,
    count: usize,
}

impl<S: DerefMut<Target = [u8]>> Order<S> {
    /// Begins with none.
    pub(crate) fn new(slots: S) -> Self {
        Self {
            slots,
            first: 0,
            count: 0,
        }
    }

    /// Returns for how many more packets there is room.
    pub(crate) fn free(&self) -> usize {
        self.slots.len().saturating_sub(self.count)
    }

    /// Takes a packet of so many descriptors, and returns its slot. Returns [`None`] when there is no room, or they are none or too many.
    pub(crate) fn begin(&mut self, descriptors: usize) -> Option<usize> {
        let entry = u8::try_from(descriptors).ok()?;
        if entry == 0 || entry & DONE != 0 || self.free() == 0 {
            return None;
        }

        let slot = self.first.checked_add(self.count)? % self.slots.len();
        *self.slots.get_mut(slot)? = entry;
        self.count = self.count.wrapping_add(1);
        Some(slot)
    }

    /// The packet in this slot is done. Returns how many more descriptors the user gets back.
    pub(crate) fn end(&mut self, slot: usize) -> u32 {
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry |= DONE;
        }
        self.give_back(DONE)
    }

    /// All packets are done. Returns how many more descriptors the user gets back.
    pub(crate) fn end_all(&mut self) -> u32 {
        self.give_back(0)
    }

    /// Takes out packets from the first on, as long as they have all bits of `wanted`.
    fn give_back(&mut self, wanted: u8) -> u32 {
        let mut descriptors = 0u32;

        while self.count > 0 {
            let Some(&entry) = self.slots.get(self.first) else {
                break;
            };
            if entry & wanted != wanted {
                break;
            }
            descriptors = descriptors.wrapping_add(u32::from(entry & !DONE));
            self.first = self.first.wrapping_add(1) % self.slots.len();
            self.count = self.count.wrapping_sub(1);
        }
        descriptors
    }
}
