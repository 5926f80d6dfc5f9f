// SPDX-License-Identifier: GPL-2.0

//! A copy of a run queue in the making: pointers only, as its lock is held meanwhile.

use super::{
    super::list::Cut,
    NotCopied,
    Queue,
    MAX_QUEUED, //
};
use crate::bindings;

use kernel::prelude::*;

/// The parts of a run queue, in the order in which a run queue is copied.
pub(super) const QUEUES: [Queue; Queue::Stop as usize + 1] = [
    Queue::Current,
    Queue::Fair,
    Queue::Realtime,
    Queue::Deadline,
    Queue::Ext,
    Queue::Throttled,
    Queue::Stop,
];

/// A copy in the making.
pub(super) struct Copy<'a> {
    found: &'a mut KVVec<*const bindings::task_struct>,
    /// How many there may be.
    room: usize,
    /// How many there were when each part of the run queue had been copied.
    pub(super) ends: [usize; QUEUES.len()],
}

impl<'a> Copy<'a> {
    /// Begins a copy to `found` of `room` tasks at most.
    pub(super) fn new(found: &'a mut KVVec<*const bindings::task_struct>, room: usize) -> Self {
        Copy {
            found,
            room,
            ends: [0; QUEUES.len()],
        }
    }

    /// Notes a task that the run queue points to. Called with its lock held.
    pub(super) fn add(&mut self, task: *const bindings::task_struct) -> Result<(), NotCopied> {
        if task.is_null() {
            // A CPU that was never started has no stopper.
            return Ok(());
        }
        if self.found.len() >= self.room {
            return Err(self.over());
        }
        self.found
            .push_within_capacity(task)
            .map_err(|_| NotCopied::Full)
    }

    /// Notes the tasks of the list at `head`, linked by their member at offset `node`.
    ///
    /// # Safety
    ///
    /// `head` must be a list of tasks that does not change meanwhile.
    pub(super) unsafe fn add_list(
        &mut self,
        head: *const bindings::list_head,
        node: usize,
    ) -> Result<(), NotCopied> {
        let room = self.room.saturating_sub(self.found.len());
        let spare = self.found.spare_capacity_mut();
        let room = room.min(spare.len());

        // SAFETY: By the safety requirements, and there is room for so many pointers.
        let number = unsafe { bindings::copy_list(head, node, spare.as_mut_ptr().cast(), room) };
        let number = usize::try_from(number).map_err(|_| NotCopied::Damaged(Cut::Unreadable))?;
        if number > room {
            return Err(self.over());
        }
        // SAFETY: So many have just been written.
        unsafe { self.found.inc_len(number) };
        Ok(())
    }

    /// Notes that there is no more in a part of the run queue.
    pub(super) fn end(&mut self, queue: Queue) {
        if let Some(end) = self.ends.get_mut(queue as usize) {
            *end = self.found.len();
        }
    }

    /// Why there may be no more.
    fn over(&self) -> NotCopied {
        match self.room {
            MAX_QUEUED => NotCopied::Damaged(Cut::TooLong),
            _ => NotCopied::Full,
        }
    }
}
