// SPDX-License-Identifier: GPL-2.0

//! Tasks on no list that say to have begun to exit: whether they come to their end.
//!
//! It imports only `core`, so that the host tests can run it.
//!
//! An honest task that was taken off the lists has little left to do until it is switched away from for the last time. But its
//! time is measured by the clock: a virtual CPU that its host does not run at that moment lets it have had seconds at once. And the
//! little can be waited for in line for as long as there are others, with a moment of a CPU now and then. So one that goes on
//! living is known by having had much of a CPU many times: [`STEPS`] times at least [`STEP_NS`], each seen by a scan of its own.

/// Identity of a task: its address, and when it was made.
type Id = (usize, u64);

/// How many are remembered.
const SLOTS: usize = 32;

/// Time of a CPU that counts, in nanoseconds: far more than an honest task needs in all.
pub(crate) const STEP_NS: u64 = 250_000_000;

/// How often one must have had that much.
pub(crate) const STEPS: u32 = 16;

/// One that was seen.
#[derive(Clone, Copy)]
struct Slot {
    id: Id,
    /// The time that it had had when it was counted last.
    runtime: u64,
    steps: u32,
    /// When it came, as a number that grows.
    came: u64,
}

/// Those that were seen.
pub(crate) struct Departed {
    slots: [Option<Slot>; SLOTS],
    came: u64,
}

impl Default for Departed {
    fn default() -> Self {
        Departed {
            slots: [None; SLOTS],
            came: 0,
        }
    }
}

impl Departed {
    /// Notes that a task which says to have begun to exit has had a CPU for `runtime` nanoseconds by now. Returns whether it lives on.
    pub(crate) fn lives(&mut self, id: Id, runtime: u64) -> bool {
        let known = self.slots.iter_mut().flatten().find(|slot| slot.id == id);

        if let Some(slot) = known {
            if runtime.wrapping_sub(slot.runtime) >= STEP_NS {
                slot.runtime = runtime;
                slot.steps = slot.steps.saturating_add(1);
            }
            return slot.steps >= STEPS;
        }

        // In the place of who has given least reason to be remembered, and of those of who came first.
        let place = self
            .slots
            .iter_mut()
            .min_by_key(|slot| slot.map(|slot| (slot.steps, slot.came)));
        self.came = self.came.wrapping_add(1);
        if let Some(place) = place {
            *place = Some(Slot {
                id,
                runtime,
                steps: 0,
                came: self.came,
            });
        }
        false
    }

    /// Forgets those that `keep` does not want to be remembered.
    pub(crate) fn keep(&mut self, mut keep: impl FnMut(Id) -> bool) {
        for slot in &mut self.slots {
            if slot.is_some_and(|slot| !keep(slot.id)) {
                *slot = None;
            }
        }
    }
}
