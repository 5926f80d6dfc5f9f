// SPDX-License-Identifier: GPL-2.0

//! What can be seen of the machine from outside.

use crate::limits::Reason;
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
    pub(crate) allowed: Atomic<u32>,
    /// A [`Reason`].
    pub(crate) reason: Atomic<u32>,
    /// Milliseconds that what was felt is held on, as of the last run.
    pub(crate) hold: Atomic<u64>,
    pub(crate) relieved: Atomic<u64>,
    pub(crate) inflated: Atomic<u64>,
    pub(crate) deflated: Atomic<u64>,
    /// In a second.
    pub(crate) inflate_rate: Atomic<u64>,
    pub(crate) deflate_rate: Atomic<u64>,
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
            allowed: Atomic::new(0),
            reason: Atomic::new(Reason::None as u32),
            hold: Atomic::new(0),
            relieved: Atomic::new(0),
            inflated: Atomic::new(0),
            deflated: Atomic::new(0),
            inflate_rate: Atomic::new(0),
            deflate_rate: Atomic::new(0),
            actual: Atomic::new(0),
            inflating: Atomic::new(0),
            deflating: Atomic::new(0),
            state: Atomic::new(State::Resting as u32),
            shortages: Atomic::new(0),
            moved: Atomic::new(0),
        }
    }
}
