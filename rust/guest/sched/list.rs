// SPDX-License-Identifier: GPL-2.0

//! The lists of processes and threads, walked as the rest of the kernel walks them.
//!
//! [`Processes`] follows `task_struct.tasks` from `init_task`, one task of each process, [`Threads`] follows
//! `task_struct.thread_node` from the head that the threads of a process share. The walks run under RCU without any lock: entries
//! that are on a list from before a walk to its end are met, since new ones are added at the tail only and an entry that is taken
//! off keeps its way to the next.
//!
//! Both end after a bounded number of steps however the links may have been tampered with, and follow no link that leads to
//! where there is no memory: each iterator says whether it met the end of its list ([`Cut`]).
//!
//! C header: [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h)

use super::{
    read_nofault,
    SignalId,
    TaskId, //
};
use crate::bindings;

use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::addr_of, //
};

use kernel::sync::rcu;

/// Most entries that a list is believed to have: as many as there can be process ids.
const MAX_TASKS: usize = 1 << 22;

/// Why a walk ended before its list did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The links lead back to an entry that was met before.
    Cycle,
    /// The list has more entries than there can be tasks.
    TooLong,
    /// A link leads to where nothing can be read.
    Unreadable,
}

/// A task that was met on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The task.
    pub task: TaskId,
    /// Its process.
    pub process: SignalId,
}

/// A walk along a list of tasks, within one RCU read-side critical section.
///
/// The entries are those of the kernel's list unless somebody has changed links, so each is read as what may not be there.
pub(super) struct Walk<'rcu> {
    /// The head of the list.
    head: usize,
    /// The head, or the link of the task that was met last.
    entry: usize,
    /// Where in a task the link is.
    node: usize,
    /// An entry met before, and the number of steps after which it is moved up to the current one (Brent's algorithm): if the
    /// links go in a circle, it is met again.
    mark: usize,
    next_mark: usize,
    steps: usize,
    cut: Option<Cut>,
    _rcu: PhantomData<&'rcu rcu::Guard>,
}

impl Walk<'_> {
    /// Begins a walk along the list with the head at the address `head`, which links tasks at their offset `node`.
    pub(super) fn new(head: usize, node: usize) -> Self {
        Walk {
            head,
            entry: head,
            node,
            mark: 0,
            next_mark: 1,
            steps: 0,
            cut: None,
            _rcu: PhantomData,
        }
    }

    pub(super) fn next(&mut self) -> Option<Listed> {
        if self.cut.is_some() {
            return None;
        }
        let next = self.read(self.entry, offset_of!(bindings::list_head, next))?;

        if next == self.head {
            return None;
        }
        if next == self.mark {
            self.cut = Some(Cut::Cycle);
            return None;
        }
        if self.steps == MAX_TASKS {
            self.cut = Some(Cut::TooLong);
            return None;
        }

        self.steps += 1;
        if self.steps == self.next_mark {
            self.mark = next;
            self.next_mark = self.next_mark.saturating_mul(2);
        }
        self.entry = next;

        let task = next.wrapping_sub(self.node);
        let process = self.read(task, offset_of!(bindings::task_struct, signal))?;
        Some(Listed {
            task: TaskId(task),
            process: SignalId(process),
        })
    }

    /// Reads the pointer at `offset` from the address `base`, with the address dependency that RCU needs.
    fn read(&mut self, base: usize, offset: usize) -> Option<usize> {
        let at = core::ptr::without_provenance(base.wrapping_add(offset));
        // SAFETY: Any bits are an address.
        let value = unsafe { read_nofault::<usize>(at) };

        if value.is_none() {
            self.cut = Some(Cut::Unreadable);
        }
        value
    }
}

/// The processes: one task of each, the leader of its threads.
///
/// The idle tasks are not among them.
pub struct Processes<'rcu>(Walk<'rcu>);

impl<'rcu> Processes<'rcu> {
    /// Begins a walk along the list of processes.
    pub fn new(_guard: &'rcu rcu::Guard) -> Self {
        let node = offset_of!(bindings::task_struct, tasks);
        let init = addr_of!(bindings::init_task) as usize;

        Processes(Walk::new(init.wrapping_add(node), node))
    }

    /// Returns why the walk ended early, if it did.
    pub fn cut(&self) -> Option<Cut> {
        self.0.cut
    }
}

impl Iterator for Processes<'_> {
    type Item = Listed;

    fn next(&mut self) -> Option<Listed> {
        self.0.next()
    }
}

/// The threads of a process.
pub struct Threads<'rcu>(Walk<'rcu>);

impl<'rcu> Threads<'rcu> {
    /// Begins a walk along the threads of `process`.
    pub fn of(_guard: &'rcu rcu::Guard, process: SignalId) -> Self {
        let SignalId(signal) = process;
        let head = signal.wrapping_add(offset_of!(bindings::signal_struct, thread_head));

        Threads(Walk::new(
            head,
            offset_of!(bindings::task_struct, thread_node),
        ))
    }

    /// Returns why the walk ended early, if it did.
    pub fn cut(&self) -> Option<Cut> {
        self.0.cut
    }
}

impl Iterator for Threads<'_> {
    type Item = Listed;

    fn next(&mut self) -> Option<Listed> {
        self.0.next()
    }
}
