// SPDX-License-Identifier: GPL-2.0

//! The pages of a balloon that compaction has replaced by others, and what of that the device knows.
//!
//! Pure: it imports only `core`, and a page is anything that can be compared.
//!
//! A replacement is *made* by compaction: from then on the new page is in the balloon instead of the old one. The device is
//! *given* the new page, and when it has answered it has *taken* it. Then it is *asked* for the old page, and when it has
//! answered that page is *freed*. Replacements take these steps in the order in which they were made, all of those that can
//! take a step together, and only one group is under way in each direction.

use core::ops::DerefMut;

/// One page in the place of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replacement<P> {
    new: P,
    old: P,
}

/// Why a page stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Pages are not to be replaced at the moment.
    Closed,
    /// The device has not taken the page that is to be replaced.
    Untaken,
    /// There are as many replacements as can be remembered.
    Full,
}

/// Replacements of which the device does not know all.
///
/// # Invariants
///
/// The counts run from the start and each is at most the one before it; `made` is at most the number of slots ahead of
/// `freed`. A replacement's slot is its number modulo their number, and is filled while it is counted by `made` and not by
/// `freed`.
pub(super) struct Moves<S> {
    slots: S,
    made: u64,
    given: u64,
    taken: u64,
    asked: u64,
    freed: u64,
    open: bool,
}

impl<P, S> Moves<S>
where
    P: Copy + Eq,
    S: DerefMut<Target = [Option<Replacement<P>>]>,
{
    /// Makes a record with these slots, all empty. It is closed.
    pub(super) fn new(slots: S) -> Self {
        // INVARIANT: Nothing has been made.
        Self {
            slots,
            made: 0,
            given: 0,
            taken: 0,
            asked: 0,
            freed: 0,
            open: false,
        }
    }

    /// Decides whether pages may be replaced from now on.
    pub(super) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Notes that `new` takes the place of `old`.
    pub(super) fn make(&mut self, new: P, old: P) -> Result<(), Refusal> {
        if !self.open {
            return Err(Refusal::Closed);
        }
        if self.range(self.taken, self.made).any(|it| it.new == old) {
            return Err(Refusal::Untaken);
        }
        if self.made - self.freed >= self.slots.len() as u64 {
            return Err(Refusal::Full);
        }

        let slot = self.slot(self.made);
        if let Some(slot) = self.slots.get_mut(slot) {
            // INVARIANT: The slot was free, as there are fewer replacements than slots.
            *slot = Some(Replacement { new, old });
            self.made += 1;
        }
        Ok(())
    }

    /// The new pages that the device is to be given now: none while it has not answered for others. Afterwards it counts as
    /// told.
    pub(super) fn give(&mut self) -> impl Iterator<Item = P> + '_ {
        let from = self.given;
        if self.given == self.taken {
            self.given = self.made;
        }
        self.range(from, self.given).map(|it| it.new)
    }

    /// The device has answered for the pages that it was given.
    pub(super) fn taken(&mut self) {
        self.taken = self.given;
    }

    /// The old pages that the device is to be asked for now: none while it has not answered for others. Afterwards it counts
    /// as told.
    pub(super) fn ask(&mut self) -> impl Iterator<Item = P> + '_ {
        let from = self.asked;
        if self.asked == self.freed {
            self.asked = self.taken;
        }
        self.range(from, self.asked).map(|it| it.old)
    }

    /// The device has answered for the pages that it was asked for: passes each to `free`.
    pub(super) fn freed(&mut self, free: impl FnMut(P)) {
        self.range(self.freed, self.asked)
            .map(|it| it.old)
            .for_each(free);
        self.freed = self.asked;
    }

    /// Returns how many pages have been replaced and the old ones freed.
    pub(super) fn count(&self) -> u64 {
        self.freed
    }

    /// Returns whether the device has taken all that is in the balloon in the place of something else.
    pub(super) fn is_taken(&self) -> bool {
        self.taken == self.made
    }

    /// Returns whether nothing is left to do.
    pub(super) fn is_settled(&self) -> bool {
        self.freed == self.made
    }

    /// The device has been reset and knows nothing any more: passes each old page that was not freed to `free`.
    pub(super) fn forget(&mut self, free: impl FnMut(P)) {
        self.given = self.made;
        self.taken = self.made;
        self.asked = self.made;
        self.freed(free);
    }

    fn slot(&self, number: u64) -> usize {
        // CAST: Less than the number of slots. Without slots nothing is made, and this is not used.
        number.checked_rem(self.slots.len() as u64).unwrap_or(0) as usize
    }

    fn range(&self, from: u64, to: u64) -> impl Iterator<Item = Replacement<P>> + '_ {
        (from..to).filter_map(|number| *self.slots.get(self.slot(number))?)
    }
}
