// SPDX-License-Identifier: GPL-2.0

//! The lists of processes and threads, walked as the rest of the kernel walks them.
//!
//! [`Processes`] follows `task_struct.tasks` from `init_task`, one task of each process, [`Threads`] follows
//! `task_struct.thread_node` from the head that the threads of a process share. The walks run under RCU without any lock: entries
//! that are on a list from before a walk to its end are met, since new ones are added at the tail only and an entry that is taken
//! off keeps its way to the next.
//!
//! Both end after a bounded number of steps however the links may have been tampered with: each iterator says whether it
//! met the end of its list ([`Cut`]).
//!
//! C header: [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h)

use super::SignalId;
use crate::bindings;

use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::addr_of, //
};

use kernel::{
    sync::rcu,
    task::Task, //
};

/// Most entries that a list is believed to have: as many as there can be process ids.
const MAX_TASKS: usize = 1 << 22;

/// Why a walk ended before its list did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The links lead back to an entry that was met before.
    Cycle,
    /// The list has more entries than there can be tasks.
    TooLong,
}

/// A walk along a list of tasks.
///
/// # Invariants
///
/// `head` is the head of a list that is linked through the member at offset `node` of tasks, and `entry` is `head` or the
/// link of a task of that list; both stay valid during `'rcu`, which is within one RCU read-side critical section.
struct Walk<'rcu> {
    head: *const bindings::list_head,
    entry: *const bindings::list_head,
    node: usize,
    /// An entry met before, and the number of steps after which it is moved up to the current one (Brent's algorithm): if the
    /// links go in a circle, it is met again.
    mark: *const bindings::list_head,
    next_mark: usize,
    steps: usize,
    cut: Option<Cut>,
    _rcu: PhantomData<&'rcu rcu::Guard>,
}

impl<'rcu> Walk<'rcu> {
    /// # Safety
    ///
    /// `head` must be as the type invariants say.
    unsafe fn new(head: *const bindings::list_head, node: usize) -> Self {
        // INVARIANT: By the safety requirements.
        Walk {
            head,
            entry: head,
            node,
            mark: core::ptr::null(),
            next_mark: 1,
            steps: 0,
            cut: None,
            _rcu: PhantomData,
        }
    }

    fn next(&mut self) -> Option<&'rcu Task> {
        if self.cut.is_some() {
            return None;
        }

        // SAFETY: By the type invariants, `entry` is valid.
        let next = unsafe { &raw const (*self.entry).next };
        // SAFETY: As above. A volatile read of a pointer is `rcu_dereference()`, with the address dependency that it needs.
        let next = unsafe { next.read_volatile() }.cast_const();

        if core::ptr::eq(next, self.head) {
            return None;
        }
        if core::ptr::eq(next, self.mark) {
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
        // INVARIANT: The successor of an entry is an entry; under RCU it stays valid.
        self.entry = next;

        let task = next.cast::<u8>().wrapping_sub(self.node);
        // SAFETY: By the type invariants, `next` is the link of a task that stays valid during `'rcu`. `Task` is a transparent
        // wrapper.
        Some(unsafe { &*task.cast() })
    }
}

/// The processes: one task of each, the leader of its threads.
///
/// The idle tasks are not among them.
pub struct Processes<'rcu>(Walk<'rcu>);

impl<'rcu> Processes<'rcu> {
    /// Begins a walk along the list of processes.
    pub fn new(_guard: &'rcu rcu::Guard) -> Self {
        let init = addr_of!(bindings::init_task);
        // SAFETY: `init_task` is always valid.
        let head = unsafe { &raw const (*init).tasks };

        // SAFETY: `init_task.tasks` is the head of the list of processes, whose entries are freed after a grace period only.
        Processes(unsafe { Walk::new(head, offset_of!(bindings::task_struct, tasks)) })
    }

    /// Returns why the walk ended early, if it did.
    pub fn cut(&self) -> Option<Cut> {
        self.0.cut
    }
}

impl<'rcu> Iterator for Processes<'rcu> {
    type Item = &'rcu Task;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The threads of a process.
pub struct Threads<'rcu>(Walk<'rcu>);

impl<'rcu> Threads<'rcu> {
    /// Begins a walk along the threads of the process that `task` belongs to.
    pub fn of(_guard: &'rcu rcu::Guard, task: &'rcu Task) -> Self {
        let SignalId(signal) = super::TaskExt::signal_id(task);
        let signal = signal as *const bindings::signal_struct;
        // SAFETY: `task` is valid during `'rcu`, and its signal structure as long as the task.
        let head = unsafe { &raw const (*signal).thread_head };

        // SAFETY: `thread_head` is the head of the list of threads, whose entries are freed after a grace period only.
        Threads(unsafe { Walk::new(head, offset_of!(bindings::task_struct, thread_node)) })
    }

    /// Returns why the walk ended early, if it did.
    pub fn cut(&self) -> Option<Cut> {
        self.0.cut
    }
}

impl<'rcu> Iterator for Threads<'rcu> {
    type Item = &'rcu Task;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}
