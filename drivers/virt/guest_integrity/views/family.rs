// SPDX-License-Identifier: GPL-2.0

//! View `family`: parents and children.
//!
//! Whoever is in the list of a parent's children is on the list of processes, or was taken off it as it exits; and whoever is on the
//! latter is in the list of some parent's children, see [`is_orphaned`].

use super::{
    Sources,
    View, //
};
use crate::witness::Witnesses;

use guest::sched::{
    family::{
        is_orphaned,
        Children, //
    },
    list::{
        Processes,
        Threads, //
    },
    peek::Peek,
};

use kernel::sync::rcu;

pub(super) const VIEW: View = View {
    witness: Some(witness),
    check: Some(check),
    ..View::named("family")
};

fn witness(guard: &rcu::Guard, to: &mut Witnesses) {
    for process in Processes::new(guard) {
        for thread in Threads::of(guard, process.process) {
            for child in Children::of(guard, Peek::new(guard, thread.task)) {
                to.add(child);
            }
        }
    }
}

fn check(guard: &rcu::Guard, _sources: &Sources, task: Peek<'_>) -> Option<&'static str> {
    is_orphaned(guard, task).then_some("sibling_unlinked")
}
