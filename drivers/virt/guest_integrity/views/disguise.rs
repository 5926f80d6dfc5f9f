// SPDX-License-Identifier: GPL-2.0

//! View `disguise`: tasks that say to be what nobody looks at.
//!
//! A thread of the kernel has a structure that the kernel makes before the task is put on the lists, and keeps until it is gone. A
//! task with memory of its own never idles for a CPU. And a task that is to exit gets a flag which says so, gives its memory up and
//! gets its exit state, in this order, before it is taken off the lists. None of this has a moment at which an honest task is
//! otherwise. After that it does not run for long: see [`Departed`].

use super::{
    Sources,
    View, //
};
use crate::departed::Departed;

use guest::sched::peek::Peek;

use kernel::sync::rcu;

pub(super) const VIEW: View = View {
    check: Some(check),
    autopsy: Some(autopsy),
    ..View::named("disguise")
};

fn check(_guard: &rcu::Guard, _sources: &Sources, task: Peek<'_>) -> Option<&'static str> {
    let reason = if task.is_forged_kthread() {
        "kthread_forged"
    } else if task.is_forged_idle() {
        "idle_forged"
    } else {
        return None;
    };

    (!task.has_exited()).then_some(reason)
}

fn autopsy(task: Peek<'_>, departed: &mut Departed) -> Option<&'static str> {
    let id = (task.id().0, task.start_time());
    let forged = task.has_memory() || !task.is_exiting() || departed.lives(id, task.runtime());

    forged.then_some("exit_state_forged")
}
