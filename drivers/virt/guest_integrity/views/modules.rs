// SPDX-License-Identifier: GPL-2.0

//! View `modules`: the list of modules, what is in `/sys/module`, the tree of their memory, and who came and has not gone.
//!
//! A module in use is in all four, from before it is in use until after it has begun to go, and it does not come back from there. So
//! one that some place has, and that is still in use after another one was read to its end without it, is missing there. A module
//! that the kernel has told of, and that says not to be in use although nobody was told that it goes, lies.
//!
//! A thread of the kernel runs in code that the kernel knows. A module waits for its threads before it goes, but such a thread may be
//! found between its last word and its end; so code of modules that went is known as well, see `loaded`.

use super::{
    Examined,
    Sources,
    View, //
};
use crate::{
    coverage::Damage,
    finding::{
        Found,
        Object,
        Weight, //
    },
    record::Line, //
};

use guest::{
    module::{
        ModuleId,
        State, //
    },
    sched::peek::Peek, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::rcu, //
};

/// Attempts to find room for all modules.
const ATTEMPTS: u32 = 8;

pub(super) const VIEW: View = View {
    check: Some(check),
    examine: Some(examine),
    ..View::named("modules")
};

fn check(_guard: &rcu::Guard, sources: &Sources, task: Peek<'_>) -> Option<&'static str> {
    let entry = sources.kthreads.entry(task)?;

    // Who begins to exit has no business in that code any more.
    (!sources.loaded.knows(entry) && !task.is_exiting()).then_some("kthread_entry_unknown")
}

/// What each place has.
#[derive(Default)]
pub(crate) struct Places {
    /// The list, and of that those in use, before the other places were read.
    before: KVVec<ModuleId>,
    set: KVVec<ModuleId>,
    tree: KVVec<ModuleId>,
    /// The list after them.
    after: KVVec<ModuleId>,
}

/// Reads all places, and calls `f` with those and with the modules that the kernel has told of, unless they cannot be read.
pub(crate) fn look(
    sources: &Sources,
    f: impl FnOnce(&rcu::Guard, &[ModuleId], &Places),
) -> Result<Examined, AllocError> {
    let live = sources.loaded.lock();
    let mut places = Places::default();
    let mut room = live.len() + 64;

    for _ in 0..ATTEMPTS {
        for place in [
            &mut places.before,
            &mut places.set,
            &mut places.tree,
            &mut places.after,
        ] {
            place.clear();
            place.reserve(room, GFP_KERNEL)?;
        }

        let guard = rcu::read_lock();
        match places.read(sources, &guard) {
            Ok(Err(damage)) => return Ok(Examined::Damaged(damage)),
            Ok(Ok(())) => {
                f(&guard, &live, &places);
                return Ok(Examined::Whole);
            }
            Err(AllocError) => room *= 2,
        }
    }
    Ok(Examined::NotCovered)
}

fn examine(sources: &Sources, found: &mut KVVec<Found>, view: u8) -> Result<Examined, AllocError> {
    // A module may be wrong in several places.
    found.reserve(64, GFP_KERNEL)?;

    look(sources, |guard, live, places| {
        places.compare(guard, live, found, view);
    })
}

impl Places {
    /// Reads all places. Returns which of them has no end, if there is one.
    fn read(
        &mut self,
        sources: &Sources,
        guard: &rcu::Guard,
    ) -> Result<core::result::Result<(), Damage>, AllocError> {
        let modules = &sources.loaded.modules;
        let mut full = false;
        let mut add = |to: &mut KVVec<ModuleId>, module: ModuleId| {
            // The tree has each several times, one after the other or not.
            if to.last() != Some(&module) {
                full |= to.push_within_capacity(module).is_err();
            }
        };

        let before = modules.listed(guard, |module| {
            if module.state(guard) == State::Live {
                add(&mut self.before, module);
            }
        });
        modules.in_tree(guard, |module| add(&mut self.tree, module));
        let set = modules.in_set(guard, |module| add(&mut self.set, module));
        let after = modules.listed(guard, |module| add(&mut self.after, module));
        let whole = before
            .and(after)
            .map_err(Damage::Modules)
            .and(set.map_err(Damage::ModuleSet));

        // A list without an end has more than there is room for.
        if whole.is_ok() && full {
            return Err(AllocError);
        }
        Ok(whole)
    }

    /// The modules on the list, in the set and in the tree.
    pub(crate) fn each(&self) -> [&[ModuleId]; 3] {
        [&self.after, &self.set, &self.tree]
    }

    /// Adds each module that a place lacks, once.
    fn compare(&self, guard: &rcu::Guard, live: &[ModuleId], found: &mut KVVec<Found>, view: u8) {
        let first = found.len();
        let mut check = |module: ModuleId, told: bool, was_live: bool| {
            let Some(reason) = self.fault(guard, module, told, was_live) else {
                return;
            };
            let one = Found::of_object(
                view,
                Weight::Finding,
                reason,
                (module.0, 0),
                Object {
                    kind: "module",
                    name: Line::escaped(&module.name(guard)),
                    target: Line::EMPTY,
                },
            );
            if !found.iter().skip(first).any(|other| other.key == one.key) {
                // There is room for more than a rootkit needs; the next scan finds the others.
                let _ = found.push_within_capacity(one);
            }
        };

        for &module in live {
            check(module, true, true);
        }
        for &module in &self.before {
            check(module, false, true);
        }
        for &module in [&self.set, &self.tree].into_iter().flatten() {
            check(module, false, false);
        }
    }

    /// Says what is wrong with a module. `told`: the kernel has told that it is in use, and not that it goes. `was_live`: it was in
    /// use before the places were read.
    fn fault(
        &self,
        guard: &rcu::Guard,
        module: ModuleId,
        told: bool,
        was_live: bool,
    ) -> Option<&'static str> {
        let reason = if !self.after.contains(&module) {
            Some("module_unlisted")
        } else if was_live && !self.set.contains(&module) {
            Some("module_sysfs_unlinked")
        } else if was_live && !self.tree.contains(&module) && !module.is_found(guard) {
            Some("module_tree_unlinked")
        } else {
            None
        };

        match module.state(guard) {
            State::Live => reason,
            State::Other if told => Some("module_state_forged"),
            State::Other | State::Going => None,
        }
    }
}
