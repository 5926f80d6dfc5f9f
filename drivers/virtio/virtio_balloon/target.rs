// SPDX-License-Identifier: GPL-2.0

//! What is in the balloon, what is under way, and what to do next.
//!
//! Pure: it knows no queue, no page and no clock. The device's word comes in through [`Books::set_target`] and nowhere else;
//! all other amounts are the driver's own, of pages that it has counted itself.

/// An amount of memory in the device's unit, pages of 4 KiB whatever the size of the guest's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Units(pub(crate) u32);

impl Units {
    /// Nothing.
    pub(crate) const ZERO: Self = Self(0);

    /// Returns as much of `bytes` as whole units can say.
    pub(crate) fn from_bytes(bytes: u64) -> Self {
        Self(u32::try_from(bytes / 4096).unwrap_or(u32::MAX))
    }

    /// Returns so many MiB.
    pub(crate) fn from_mib(mib: u32) -> Self {
        Self(mib.saturating_mul(256))
    }

    /// Returns the amount in MiB, rounded down.
    pub(crate) fn mib(self) -> u32 {
        self.0 / 256
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// What the guest keeps for itself, however much the device asks for.
///
/// The page allocator would go on down to its last reserves, where the guest's next page fault meets the OOM killer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserve(Units);

impl Reserve {
    const LEAST: u32 = 16 * 256;
    const MOST: u32 = 128 * 256;

    /// Sets apart `mib` MiB, or if that is 0 a 64th of the guest's memory, within limits.
    pub(crate) fn of(total: Units, mib: u32) -> Self {
        Self(Units(match mib {
            0 => (total.0 / 64).clamp(Self::LEAST, Self::MOST),
            mib => Units::from_mib(mib).0,
        }))
    }

    /// Returns how much of what the guest has `available` can be had.
    pub(crate) fn leaves(self, available: Units) -> Units {
        available.minus(self.0)
    }
}

/// When pages that leave the balloon may be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Release {
    /// When the device has answered (`VIRTIO_BALLOON_F_MUST_TELL_HOST`).
    Answered,

    /// As soon as the device has been told.
    Told,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Give the device so much.
    Inflate(Units),

    /// Take so much back.
    Deflate(Units),

    /// Nothing before the device has answered.
    Wait,

    /// Nothing: the target is reached and nothing is under way.
    Rest,
}

/// The balloon's books.
///
/// # Invariants
///
/// All amounts but the target are sums of amounts that were booked in and not out, so they are exact as long as each amount
/// is booked once. All, the target too, are multiples of a guest page.
pub(crate) struct Books {
    /// A guest page has so many units and one more: the bits to round by.
    mask: u32,
    release: Release,
    target: Units,
    held: Units,
    inflating: Units,
    deflating: Units,
}

impl Books {
    /// Opens the books of an empty balloon with the target 0. A guest page has `page` units, a power of two.
    pub(crate) fn new(page: u32, release: Release) -> Self {
        Self {
            mask: page.saturating_sub(1),
            release,
            target: Units::ZERO,
            held: Units::ZERO,
            inflating: Units::ZERO,
            deflating: Units::ZERO,
        }
    }

    /// Takes over the device's target, rounded up to whole guest pages. Returns whether that changes anything.
    pub(crate) fn set_target(&mut self, target: Units) -> bool {
        let target = Units(target.0.saturating_add(self.mask) & !self.mask);
        let changed = target != self.target;

        self.target = target;
        changed
    }

    /// Returns the target.
    pub(crate) fn target(&self) -> Units {
        self.target
    }

    /// Returns what may be said to be in the balloon: what the device has answered for, and the guest has not taken back.
    pub(crate) fn actual(&self) -> Units {
        match self.release {
            Release::Answered => self.held.plus(self.deflating),
            Release::Told => self.held,
        }
    }

    /// Returns what is in the balloon.
    pub(crate) fn held(&self) -> Units {
        self.held
    }

    /// Returns what the device has been given and has not answered for.
    pub(crate) fn inflating(&self) -> Units {
        self.inflating
    }

    /// Returns what the device has been told to give back and has not answered for.
    pub(crate) fn deflating(&self) -> Units {
        self.deflating
    }

    /// Returns whether the balloon is empty and nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == Units::ZERO && !self.is_waiting()
    }

    /// Returns whether the device owes an answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.inflating != Units::ZERO || self.deflating != Units::ZERO
    }

    /// Returns what to do next, at most `limit` at once.
    ///
    /// Inflation waits until the device has answered for all that leaves the balloon: the same page could otherwise be on its
    /// way in both directions, through two queues of which the device may serve either first. The other way round there is
    /// nothing to fear, because only what the device has answered for leaves the balloon.
    pub(crate) fn next(&self, limit: Units) -> Step {
        let promised = self.held.plus(self.inflating);

        if self.target > promised {
            if self.deflating == Units::ZERO {
                return Step::Inflate(self.target.minus(promised).min(limit));
            }
        } else if promised > self.target && self.held != Units::ZERO {
            return Step::Deflate(promised.minus(self.target).min(self.held).min(limit));
        }

        if self.is_waiting() {
            Step::Wait
        } else {
            Step::Rest
        }
    }

    /// Books that the device was given `amount`.
    pub(crate) fn inflate_told(&mut self, amount: Units) {
        self.inflating = self.inflating.plus(amount);
    }

    /// Books that the device has answered for `amount` that it was given.
    pub(crate) fn inflate_answered(&mut self, amount: Units) {
        self.inflating = self.inflating.minus(amount);
        self.held = self.held.plus(amount);
    }

    /// Books that the device was told to give back `amount`.
    pub(crate) fn deflate_told(&mut self, amount: Units) {
        self.held = self.held.minus(amount);
        self.deflating = self.deflating.plus(amount);
    }

    /// Books that the device has answered for `amount` that it was told to give back.
    pub(crate) fn deflate_answered(&mut self, amount: Units) {
        self.deflating = self.deflating.minus(amount);
    }
}
