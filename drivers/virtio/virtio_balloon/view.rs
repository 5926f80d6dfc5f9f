// SPDX-License-Identifier: GPL-2.0

//! What can be seen of the machine from outside.

use kernel::sync::atomic::Atomic;

/// Why the machine does what it does, for people.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// The target is reached.
    Resting,
    /// Pages go to the device.
    Inflating,
    /// Pages come back.
    Deflating,
    /// The device owes an answer.
    Waiting,
    /// The guest has no memory to spare.
    BackingOff,
    /// The device cannot be told anything.
    Broken,
}

/// A copy of the machine's figures that can be read while it runs.
pub(crate) struct View {
    pub(crate) target: Atomic<u32>,
    pub(crate) actual: Atomic<u32>,
    pub(crate) inflating: Atomic<u32>,
    pub(crate) deflating: Atomic<u32>,
    pub(crate) state: Atomic<u32>,
    pub(crate) shortages: Atomic<u32>,
    /// Guest pages, not units.
    pub(crate) moved: Atomic<u64>,
}

impl View {
    /// Nothing has happened.
    pub(crate) fn new() -> Self {
        Self {
            target: Atomic::new(0),
            actual: Atomic::new(0),
            inflating: Atomic::new(0),
            deflating: Atomic::new(0),
            state: Atomic::new(State::Resting as u32),
            shortages: Atomic::new(0),
            moved: Atomic::new(0),
        }
    }
}
