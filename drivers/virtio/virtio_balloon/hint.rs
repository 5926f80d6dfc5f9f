// SPDX-License-Identifier: GPL-2.0

//! When to hint at free memory, and when to give it back (VirtIO 1.3, 5.5.6.5).
//!
//! Pure: the device's word is a number that it changes as it likes, and it comes in through [`Protocol::heard`] and nowhere else.

/// The device has no use for hints at the moment, but still relies on those that it has.
pub(crate) const STOP: u32 = 0;

/// The device has no use for hints any more.
pub(crate) const DONE: u32 = 1;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    /// Tell the device this number: the hints that follow are for it, or with [`STOP`] there are no more.
    Say(u32),

    /// Hint at another block.
    Hint,

    /// Nothing.
    Rest,
}

/// What the device was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// Nothing, or that there are no more hints.
    Stop,

    /// That hints follow.
    Start,
}

/// The conversation with a device.
pub(crate) struct Protocol {
    wanted: u32,
    /// The last number that the device was told.
    active: u32,
    told: Told,
    /// The guest has no more for this number.
    exhausted: bool,
}

impl Protocol {
    /// Begins with nothing said.
    pub(crate) fn new() -> Self {
        Self {
            wanted: STOP,
            active: STOP,
            told: Told::Stop,
            exhausted: false,
        }
    }

    /// The device says `number`.
    pub(crate) fn heard(&mut self, number: u32) {
        self.wanted = number;
    }

    /// The guest has no more free memory, or wants some back: that was all for this number.
    pub(crate) fn exhausted(&mut self) {
        self.exhausted = true;
    }

    /// Returns whether the device has no use for hints that it was given.
    pub(crate) fn is_over(&self) -> bool {
        self.wanted == DONE
    }

    /// Says what to do next, and counts it as done.
    pub(crate) fn next(&mut self) -> Act {
        if self.told == Told::Start {
            if self.wanted == self.active && !self.exhausted {
                return Act::Hint;
            }
            self.told = Told::Stop;
            return Act::Say(STOP);
        }

        match self.wanted {
            STOP | DONE => Act::Rest,
            number if number == self.active => Act::Rest,
            number => {
                self.active = number;
                self.told = Told::Start;
                self.exhausted = false;
                Act::Say(number)
            }
        }
    }
}
