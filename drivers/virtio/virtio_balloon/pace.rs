// SPDX-License-Identifier: GPL-2.0

//! When to try again, when to tell the device how far we are, and when to say something.
//!
//! Pure: time is a count of milliseconds that the caller passes in. It starts anywhere and may wrap.

use super::target::Units;

/// A moment, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// Returns how many milliseconds have passed since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0)
    }

    fn after(self, ms: u64) -> Self {
        Self(self.0.wrapping_add(ms))
    }

    /// Returns how many milliseconds there are until `later`: 0 if it has passed.
    fn until(self, later: Self) -> u64 {
        let ms = later.0.wrapping_sub(self.0);
        // What looks more than half of the range ahead lies behind.
        if ms > u64::MAX / 2 {
            0
        } else {
            ms
        }
    }
}

/// Pauses between attempts to get memory that the guest does not have to spare.
pub(crate) struct BackOff {
    pause: u64,
    retry: Option<Moment>,
}

impl BackOff {
    const FIRST: u64 = 200;
    const LAST: u64 = 6_400;

    /// Begins without a pause.
    pub(crate) fn new() -> Self {
        Self {
            pause: Self::FIRST,
            retry: None,
        }
    }

    /// An attempt has failed: begins a pause, twice as long as the last one.
    pub(crate) fn failed(&mut self, now: Moment) {
        self.retry = Some(now.after(self.pause));
        self.pause = self.pause.saturating_mul(2).min(Self::LAST);
    }

    /// An attempt got all that it asked for: the next pause is a short one again.
    pub(crate) fn succeeded(&mut self) {
        self.pause = Self::FIRST;
    }

    /// The target has changed: ends the pause.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Returns how long to wait for the next attempt; [`None`] when there is no pause.
    pub(crate) fn pause(&self, now: Moment) -> Option<u64> {
        match now.until(self.retry?) {
            0 => None,
            ms => Some(ms),
        }
    }
}

/// What `actual` says to the device, and when it is written again.
///
/// A write is an exit to the host, so while things move it is written every so often, and when they stand still at once.
pub(crate) struct Told {
    last: Option<(Units, Moment)>,
}

impl Told {
    /// This much more or less is told at once.
    const STEP: u32 = 64 * 256;

    /// Less than that, after this many milliseconds.
    const INTERVAL: u64 = 100;

    /// The device has been told nothing.
    pub(crate) fn new() -> Self {
        Self { last: None }
    }

    /// Returns how many milliseconds from `now` on `actual` is to be told, if it is; `resting` says that it will not move by
    /// itself.
    pub(crate) fn due(&self, actual: Units, resting: bool, now: Moment) -> Option<u64> {
        let Some((told, at)) = self.last else {
            return Some(0);
        };

        if told == actual {
            None
        } else if resting || told.0.abs_diff(actual.0) >= Self::STEP {
            Some(0)
        } else {
            Some(Self::INTERVAL.saturating_sub(now.since(at)))
        }
    }

    /// The device has been told.
    pub(crate) fn told(&mut self, actual: Units, now: Moment) {
        self.last = Some((actual, now));
    }
}

/// Whether there may be another message to the log: the host must not be able to fill it.
pub(crate) struct Voice {
    last: Option<Moment>,
}

impl Voice {
    const INTERVAL: u64 = 30_000;

    /// Nothing has been said.
    pub(crate) fn new() -> Self {
        Self { last: None }
    }

    /// Returns whether something may be said now, and takes it that it is.
    pub(crate) fn may_speak(&mut self, now: Moment) -> bool {
        let may = self
            .last
            .is_none_or(|last| now.since(last) >= Self::INTERVAL);

        if may {
            self.last = Some(now);
        }
        may
    }
}
