// SPDX-License-Identifier: GPL-2.0

//! How much of what the device asks for it gets.
//!
//! Pure: time is passed in, and so is what the guest feels. What the device asks for stands; these limits hold the balloon below it,
//! each for a reason that can be seen, and when the reason is gone the balloon goes on.
//!
//! What was felt is *held* for a while: a balloon that grew again at once would only be felt again. Each hold that follows upon
//! another is twice as long.

use core::ffi::CStr;

use super::{
    pace::Moment,
    target::Units, //
};

/// Why the balloon is not as large as the device asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Reason {
    /// It may be.
    None,
    /// The guest is to keep so much memory, says who configured it.
    Floor,
    /// The balloon is to be no larger, says a program of the guest.
    Cap,
    /// Memory that was reclaimed is needed again.
    Pressure,
    /// There was no memory left.
    OutOfMemory,
}

impl Reason {
    /// Returns a word for it.
    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Reason::None => c"none",
            Reason::Floor => c"floor_mib",
            Reason::Cap => c"cap_mib",
            Reason::Pressure => c"pressure",
            Reason::OutOfMemory => c"oom",
        }
    }
}

/// What people and programs of the guest have decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// All memory of the guest, with what is in the balloon.
    pub(crate) total: Units,
    /// What of it the balloon does not get.
    pub(crate) floor: Units,
    /// The most that is to be in the balloon.
    pub(crate) cap: Units,
}

/// Holds the balloon at a size.
#[derive(Clone, Copy, Debug)]
struct Hold {
    most: Units,
    begin: Moment,
    length: u64,
    reason: Reason,
}

impl Hold {
    /// Returns how many milliseconds are left.
    fn left(&self, now: Moment) -> u64 {
        self.length.saturating_sub(now.since(self.begin))
    }
}

/// The limits of one balloon.
pub(crate) struct Limits {
    hold: Option<Hold>,
    /// What had come back from where it was reclaimed to, in bytes, and when.
    returned: Option<(u64, Moment)>,
}

impl Limits {
    /// The first hold for each reason, in milliseconds.
    const PRESSURE: u64 = 5_000;
    const OUT_OF_MEMORY: u64 = 30_000;

    /// No hold is longer.
    const LONGEST: u64 = 600_000;

    /// What is felt is measured over at least so many milliseconds.
    const WINDOW: u64 = 250;

    /// Begins with nothing felt.
    pub(crate) fn new() -> Self {
        Self {
            hold: None,
            returned: None,
        }
    }

    /// Returns how much may be in the balloon when the device asks for `wanted`, and why no more.
    pub(crate) fn allow(&self, wanted: Units, settings: &Settings, now: Moment) -> (Units, Reason) {
        let above_floor = Units(settings.total.0.saturating_sub(settings.floor.0));
        let mut allowed = (wanted, Reason::None);
        let mut limit = |most: Units, reason| {
            if most < allowed.0 {
                allowed = (most, reason);
            }
        };

        limit(above_floor, Reason::Floor);
        limit(settings.cap, Reason::Cap);
        if let Some(hold) = self.hold.filter(|hold| hold.left(now) > 0) {
            limit(hold.most, hold.reason);
        }
        allowed
    }

    /// Returns how many milliseconds the hold lasts, if there is one.
    pub(crate) fn left(&self, now: Moment) -> Option<u64> {
        match self.hold?.left(now) {
            0 => None,
            left => Some(left),
        }
    }

    /// There was no memory left; the balloon, in which there is `held`, is to give back `relief`.
    pub(crate) fn out_of_memory(&mut self, held: Units, relief: Units, now: Moment) {
        let most = Units(held.0.saturating_sub(relief.0));

        self.hold_at(most, Reason::OutOfMemory, Self::OUT_OF_MEMORY, now);
    }

    /// While the balloon grows: `returned` bytes have come back from where they were reclaimed to, since the guest has started, and at
    /// most `limit` bytes in a second are taken for chance. Returns whether the balloon, in which there will be `promised`, is
    /// held there.
    pub(crate) fn felt(&mut self, returned: u64, limit: u64, promised: Units, now: Moment) -> bool {
        let Some((before, at)) = self.returned else {
            self.returned = Some((returned, now));
            return false;
        };
        let passed = now.since(at);
        if passed < Self::WINDOW {
            return false;
        }

        self.returned = Some((returned, now));
        let came = returned.saturating_sub(before);
        if came.saturating_mul(1000) / passed.max(1) <= limit {
            return false;
        }
        self.hold_at(promised, Reason::Pressure, Self::PRESSURE, now);
        true
    }

    /// The balloon does not grow: what comes back is not its doing.
    pub(crate) fn unfelt(&mut self) {
        self.returned = None;
    }

    fn hold_at(&mut self, most: Units, reason: Reason, first: u64, now: Moment) {
        let mut hold = Hold {
            most,
            begin: now,
            length: first,
            reason,
        };

        if let Some(before) = self.hold {
            let since = now.since(before.begin);
            // One that ended no longer ago than it lasted was too short.
            if since < before.length.saturating_mul(2) {
                // In the same emergency there are many calls.
                hold.length = if since < first {
                    before.length.max(first)
                } else {
                    before.length.saturating_mul(2).clamp(first, Self::LONGEST)
                };
            }
            if before.left(now) > 0 {
                hold.most = most.min(before.most);
                if before.reason == Reason::OutOfMemory {
                    hold.reason = before.reason;
                }
            }
        }
        self.hold = Some(hold);
    }
}

/// How fast something goes on, over windows of a second.
pub(crate) struct Meter {
    sum: u64,
    begin: Moment,
    last: Option<u64>,
}

impl Meter {
    const WINDOW: u64 = 1_000;

    /// Begins with nothing.
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            sum: 0,
            begin: now,
            last: None,
        }
    }

    /// Adds `amount`, and returns how much there was in the last whole second, or in this one if it is more.
    pub(crate) fn add(&mut self, amount: u64, now: Moment) -> u64 {
        let passed = now.since(self.begin);

        if passed >= Self::WINDOW {
            // After a pause of more than a window nothing was in the last one.
            self.last = (passed < 2 * Self::WINDOW).then_some(self.sum);
            self.sum = 0;
            self.begin = now;
        }
        self.sum = self.sum.saturating_add(amount);
        self.sum.max(self.last.unwrap_or(0))
    }
}
