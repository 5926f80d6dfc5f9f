// SPDX-License-Identifier: GPL-2.0

//! View `disguise`: tasks that say to be what nobody looks at.
//!
//! A thread of the kernel has a structure that the kernel makes before the task is put on the lists, and keeps until it is gone. A
//! task with memory of its own never idles for a CPU. And a task gives its memory up before it is marked as exiting, which it
//! is before it is taken off the lists. None of this has a moment at which an honest task is otherwise.

use super::{
    Sources,
    View, //
};

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

fn autopsy(task: Peek<'_>) -> Option<&'static str> {
    task.has_memory().then_some("exit_state_forged")
}
