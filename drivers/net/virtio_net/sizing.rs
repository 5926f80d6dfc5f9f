// SPDX-License-Identifier: GPL-2.0

//! How large receive buffers are.
//!
//! A buffer is a number of units of memory, of which the ends are not the device's to write. The usual packet is to fit into
//! one, and an unusually large one into as many as a packet of the stack can have.
//!
//! This file uses nothing but `core`.

/// The memory that receive buffers are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    /// What the size of each buffer is a multiple of.
    pub(crate) unit: u32,
    /// The size of a page.
    pub(crate) page: u32,
    /// How many bytes of each buffer the device cannot write.
    pub(crate) overhead: u32,
}

impl Memory {
    /// Returns how many units a buffer takes of which the device can write `len` bytes.
    pub(crate) const fn units(&self, len: u32) -> u32 {
        len.saturating_add(self.overhead).div_ceil(self.unit)
    }

    /// Returns how many buffers of one unit each a packet of `len` bytes takes.
    pub(crate) const fn buffers(&self, len: u32) -> u32 {
        match self.unit.saturating_sub(self.overhead) {
            0 => u32::MAX,
            room => len.div_ceil(room),
        }
    }

    /// Returns how many units a page is.
    pub(crate) const fn page_units(&self) -> u32 {
        match self.page.checked_div(self.unit) {
            Some(units) => units,
            None => 1,
        }
    }

    /// Returns how many bytes of a page the device can write.
    const fn page_capacity(&self) -> u32 {
        self.page.saturating_sub(self.overhead)
    }
}

/// Buffers of which each holds a packet: a first fragment, and others if that is not enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Single {
    /// How many units the first fragment has.
    pub(crate) stack: u32,
    /// How many it has while a program sees the packets.
    pub(crate) program: u32,
    /// How many fragments follow, of which the device can write every byte.
    pub(crate) more: u32,
    /// The size of each of them.
    pub(crate) size: u32,
}

impl Single {
    /// Returns the smallest buffers of which the device can write `len` bytes, made of `stack`, or of `program` while a program
    /// sees the packets, which leaves less room. Fragments that follow the first have `size` bytes, which is not zero.
    pub(crate) const fn new(len: u32, stack: Memory, program: Memory, size: u32) -> Self {
        let rest = len.saturating_sub(program.page_capacity());

        if rest == 0 {
            return Self {
                stack: stack.units(len),
                program: program.units(len),
                more: 0,
                size,
            };
        }
        let more = rest.div_ceil(size);
        Self {
            stack: stack.units(len.saturating_sub(more.saturating_mul(size))),
            // Programs work best on packets in one piece.
            program: program.page_units(),
            more,
            size,
        }
    }

    /// Returns how many bytes the device can write.
    pub(crate) const fn capacity(&self, memory: Memory) -> u32 {
        self.stack
            .saturating_mul(memory.unit)
            .saturating_sub(memory.overhead)
            .saturating_add(self.more.saturating_mul(self.size))
    }
}

/// How much an observation moves the average: one part in this many.
const WEIGHT: u32 = 64;

/// Chooses the size of mergeable buffers by the packets that come.
///
/// The ring can be refilled at once, so the average follows slowly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mergeable {
    memory: Memory,
    /// The average length of a packet, times [`WEIGHT`].
    average: u32,
}

impl Mergeable {
    pub(crate) const fn new(memory: Memory) -> Self {
        Self { memory, average: 0 }
    }

    /// Takes a received packet into account.
    pub(crate) fn observe(&mut self, len: u32) {
        // A packet is at most a few hundred KiB, which a hostile device cannot exceed: it lies in buffers of ours.
        let len = len.min(1 << 20);

        self.average = self.average - self.average / WEIGHT + len;
    }

    /// Returns how many units the next buffer takes.
    ///
    /// `frame` is the length that a frame of the present MTU has, with the device's header; `buffers` how many buffers the
    /// stack can take for one packet.
    ///
    /// Buffers are one unit, or a page when packets are larger than what a unit holds, or a unit is so small that a frame
    /// would take more buffers than there can be.
    pub(crate) const fn units(&self, frame: u32, buffers: u32) -> u32 {
        let small = self.memory.unit.saturating_sub(self.memory.overhead);
        let page = self.memory.page_units();

        if self.average / WEIGHT > small || frame > small.saturating_mul(buffers) {
            page
        } else {
            1
        }
    }
}
