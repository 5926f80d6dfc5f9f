// SPDX-License-Identifier: GPL-2.0

//! View `pid`: the table of numbers, by which the kernel finds tasks and `/proc` lists them.
//!
//! Whoever has a number is on the lists, or was taken off them as it exits; whoever is on the lists is found by its number. The
//! latter is not so only within two changes of a task's life, see [`fault`].

use super::{
    Sources,
    View, //
};
use crate::witness::Witnesses;

use guest::sched::{
    peek::Peek,
    pids::{
        fault,
        Fault,
        Numbered, //
    },
};

use kernel::sync::rcu;

pub(super) const VIEW: View = View {
    witness: Some(witness),
    check: Some(check),
    ..View::named("pid")
};

fn witness(guard: &rcu::Guard, to: &mut Witnesses) {
    for (_, task) in Numbered::tasks(guard) {
        to.add(task);
    }
}

fn check(guard: &rcu::Guard, _sources: &Sources, task: Peek<'_>) -> Option<&'static str> {
    fault(guard, task).map(|fault| match fault {
        Fault::Unlinked => "pid_unlinked",
        Fault::ProcessUnlinked => "tgid_unlinked",
        Fault::Unhashed => "pid_unhashed",
        Fault::Forged => "pid_forged",
    })
}
