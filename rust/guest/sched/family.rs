// SPDX-License-Identifier: GPL-2.0

//! Parents and children.
//!
//! Each process is in the list of its parent's children. The lists are changed under `tasklist_lock`, which is not exported, and
//! not meant to be read without it: a walk may leave its list when an entry is moved, so each entry is checked to be what it is
//! taken for, and nothing is concluded from who is not met.
//!
//! C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)

use super::{
    list::Walk,
    peek::{
        word,
        Peek, //
    },
    TaskId, //
};
use crate::bindings;

use core::mem::offset_of;

use kernel::sync::{
    barrier::{
        smp_mb,
        Full, //
    },
    rcu, //
};

/// Where in a process the link is by which it is in the list of its parent's children.
const SIBLING: usize = offset_of!(bindings::task_struct, sibling);

/// The processes in the list of the children of a task.
pub struct Children<'rcu> {
    guard: &'rcu rcu::Guard,
    parent: TaskId,
    walk: Walk<'rcu>,
}

impl<'rcu> Children<'rcu> {
    /// Begins a walk along the children of `parent`.
    pub fn of(guard: &'rcu rcu::Guard, parent: Peek<'rcu>) -> Self {
        let head = parent.at(offset_of!(bindings::task_struct, children));

        Children {
            guard,
            parent: parent.id(),
            walk: Walk::new(head, SIBLING),
        }
    }
}

impl<'rcu> Iterator for Children<'rcu> {
    type Item = Peek<'rcu>;

    /// Returns the next child that is certain to have been put on the lists of tasks.
    fn next(&mut self) -> Option<Peek<'rcu>> {
        loop {
            let child = Peek::new(self.guard, self.walk.next()?.task);
            let parent = word(child.at(offset_of!(bindings::task_struct, real_parent)));

            // The head of another list is no task, and one that was moved has another parent.
            if parent != Some(self.parent.0) || !child.is_leader() {
                return None;
            }
            // It is linked here first, and woken after it was put on all lists.
            if !child.is_new() {
                // The lists are read after that.
                smp_mb(Full);
                return Some(child);
            }
        }
    }
}

/// Returns whether a process, which must have been met on a list within the same critical section, is in no list of children.
///
/// Its neighbours are changed one at a time, so that a process that stays is always linked from one of them at least. Only one
/// whose parent dies may be linked from none, while it is moved, with interrupts off. If there is a grace period from each look
/// to the next, and an honest process were found so at each, it would have lost a parent at each.
pub fn is_orphaned(_guard: &rcu::Guard, task: Peek<'_>) -> bool {
    if !task.is_leader() || task.is_new() {
        return false;
    }

    let node = task.at(SIBLING);
    let next = offset_of!(bindings::list_head, next);
    let prev = offset_of!(bindings::list_head, prev);
    let leads_back = |to: usize, back: usize| {
        let neighbour = word(node.wrapping_add(to)).unwrap_or(0);
        neighbour != node && word(neighbour.wrapping_add(back)) == Some(node)
    };

    !leads_back(next, prev) && !leads_back(prev, next) && !task.has_exited()
}
