// SPDX-License-Identifier: GPL-2.0

//! Numbers of tasks.
//!
//! The kernel finds a task by its number in a table (`init_pid_ns.idr`), which leads to a `struct pid`, which leads to the task;
//! `/proc` lists what this table has. [`Numbered`] goes through the table, [`fault`] goes the way of one task there and back.
//!
//! C header: [`include/linux/pid.h`](srctree/include/linux/pid.h)

use super::{
    peek::{
        half,
        word,
        Peek, //
    },
    TaskId, //
};
use crate::bindings;

use core::mem::{
    offset_of,
    size_of, //
};

use kernel::sync::rcu;

/// The way from a number to a task: what kind of number it is.
#[derive(Clone, Copy)]
enum Kind {
    Task = 0,
    Process = 1,
}

impl Kind {
    /// Where in a `struct pid` the list of tasks of this kind begins.
    const fn head(self) -> usize {
        offset_of!(bindings::pid, tasks) + self as usize * size_of::<bindings::hlist_head>()
    }

    /// Where in a task its link of this kind is.
    const fn link(self) -> usize {
        offset_of!(bindings::task_struct, pid_links)
            + self as usize * size_of::<bindings::hlist_node>()
    }
}

/// The tasks that have a number, with their numbers, in the order of those.
///
/// A number gets a task under `tasklist_lock`, after the task was put on the lists, and loses it before the task is taken off
/// them, both after the task began to exit.
pub struct Numbered<'rcu> {
    guard: &'rcu rcu::Guard,
    kind: Kind,
    next: i32,
}

impl<'rcu> Numbered<'rcu> {
    /// All tasks.
    pub fn tasks(guard: &'rcu rcu::Guard) -> Self {
        Self::of(guard, Kind::Task)
    }

    /// The processes: the leader of each.
    pub fn processes(guard: &'rcu rcu::Guard) -> Self {
        Self::of(guard, Kind::Process)
    }

    fn of(guard: &'rcu rcu::Guard, kind: Kind) -> Self {
        Numbered {
            guard,
            kind,
            next: 1,
        }
    }
}

impl<'rcu> Iterator for Numbered<'rcu> {
    type Item = (i32, Peek<'rcu>);

    fn next(&mut self) -> Option<(i32, Peek<'rcu>)> {
        loop {
            // SAFETY: The table of the first namespace is always there, and may be read under RCU.
            let pid = unsafe {
                bindings::idr_get_next(&raw mut bindings::init_pid_ns.idr, &mut self.next)
            };
            if pid.is_null() {
                return None;
            }
            let number = self.next;
            self.next = number.checked_add(1)?;

            // A number has no task for a moment after it was given away, and before it is taken back.
            if let Some(task) = first(self.guard, pid as usize, self.kind) {
                return Some((number, task));
            }
        }
    }
}

/// Most numbers that there can be, and the highest.
pub const MAX_NUMBERS: u32 = 1 << 22;

/// Returns whether the calling thread is in the first PID namespace, whose numbers these are.
pub fn is_in_first_namespace() -> bool {
    kernel::current!()
        .active_pid_ns()
        .is_some_and(|namespace| namespace.as_ptr() == &raw mut bindings::init_pid_ns)
}

/// Returns the leader of the process with the given number.
pub fn process(guard: &rcu::Guard, number: i32) -> Option<Peek<'_>> {
    // SAFETY: The first namespace is always there, and may be searched under RCU.
    let pid = unsafe { bindings::find_pid_ns(number, &raw mut bindings::init_pid_ns) };

    first(guard, pid as usize, Kind::Process)
}

/// Returns the task that a `struct pid` leads to.
fn first(guard: &rcu::Guard, pid: usize, kind: Kind) -> Option<Peek<'_>> {
    let first = word(pid.wrapping_add(kind.head())).unwrap_or(0);

    (first != 0).then(|| Peek::new(guard, TaskId(first.wrapping_sub(kind.link()))))
}

/// What is wrong with a task's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The number does not lead to the task.
    Unlinked,
    /// As the number of a process it does not lead to the leader of its threads: `/proc` does not list it.
    ProcessUnlinked,
    /// The number is not in the table.
    Unhashed,
    /// The task says that it has another number.
    Forged,
}

/// Says what is wrong with the number of `task`, which must have been met on a list within the same critical section.
///
/// The kernel changes all of this under `tasklist_lock`, with interrupts off, and once each: when the task is made, and when it
/// takes the place of its leader. An honest task is within such a change at two looks at most, if there is a grace period
/// from each to the next.
pub fn fault(_guard: &rcu::Guard, task: Peek<'_>) -> Option<Fault> {
    let fault = find_fault(task)?;

    // It has no number any more when it has exited.
    (!task.has_exited()).then_some(fault)
}

fn find_fault(task: Peek<'_>) -> Option<Fault> {
    let pid = word(task.at(offset_of!(bindings::task_struct, thread_pid))).unwrap_or(0);
    let leads_here = |kind: Kind| word(pid.wrapping_add(kind.head())) == Some(task.at(kind.link()));

    if pid == 0 || !leads_here(Kind::Task) {
        return Some(Fault::Unlinked);
    }

    let number = pid.wrapping_add(offset_of!(bindings::pid, numbers));
    // CAST: The bits of the number.
    let number = half(number.wrapping_add(offset_of!(bindings::upid, nr))).unwrap_or(0) as i32;
    // SAFETY: The first namespace is always there, and may be searched under RCU.
    let found = unsafe { bindings::find_pid_ns(number, &raw mut bindings::init_pid_ns) };
    if found as usize != pid {
        return Some(Fault::Unhashed);
    }
    if task.numbers().0 != number {
        return Some(Fault::Forged);
    }

    (task.is_leader() && !leads_here(Kind::Process)).then_some(Fault::ProcessUnlinked)
}
