// SPDX-License-Identifier: GPL-2.0

//! What views say before the lists are read: tasks that must be on those.

use crate::{
    coverage::Coverage,
    decide::Entry,
    finding::Known, //
};

use guest::sched::{
    peek::Peek,
    rq::{
        Queue,
        QueuedTasks, //
    },
    SignalId,
    TaskExt,
    TaskId, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::aref::ARef,
    task::Task, //
};

/// A task that a view has named.
#[derive(Clone, Copy)]
pub(crate) struct Witness {
    pub(crate) task: TaskId,
    process: SignalId,
    /// The place of the view in the table.
    pub(crate) view: u8,
    /// The CPU that the view saw it on, if it did.
    pub(crate) cpu: Option<u32>,
    /// The run queue of a CPU names it as its idle task.
    pub(crate) idle: bool,
    held: Held,
}

/// Where a reference to a task is.
#[derive(Clone, Copy)]
enum Held {
    /// Nowhere: it is valid only as long as the scan's RCU read-side critical section.
    No,
    Queued(usize),
    Switched(usize),
    Known(usize),
}

/// The tasks that the views of one scan have named, and the memory for them.
#[derive(Default)]
pub(crate) struct Witnesses {
    pub(crate) coverage: Coverage,
    /// The tasks of run queues.
    pub(crate) queued: QueuedTasks,
    /// Other tasks that views have a reference to.
    switched: KVVec<ARef<Task>>,
    list: KVVec<Witness>,
    /// The view that is being taken.
    view: u8,
    /// How many there was no room for.
    more: usize,
}

impl Witnesses {
    /// Begins a scan with `known`, who are looked for wherever they are now.
    pub(crate) fn begin(&mut self, known: &Known) -> Result<(), AllocError> {
        self.coverage = Coverage::default();
        self.end();
        self.more = 0;

        for (i, view, cpu, task) in known.held() {
            self.list.push(
                Witness {
                    task: task.id(),
                    process: task.signal_id(),
                    view,
                    cpu: Some(cpu),
                    idle: false,
                    held: Held::Known(i),
                },
                GFP_KERNEL,
            )?;
        }
        Ok(())
    }

    /// Whatever is named next is named by the view at place `view` of the table.
    pub(crate) fn of_view(&mut self, view: usize) {
        // CAST: The table is short.
        self.view = view as u8;
    }

    /// Lets all tasks go: they may have exited.
    pub(crate) fn end(&mut self) {
        self.queued.clear();
        self.switched.clear();
        self.list.clear();
    }

    /// Names all tasks of the run queues.
    pub(crate) fn add_queued(&mut self) -> Result<(), AllocError> {
        self.list.reserve(self.queued.len(), GFP_KERNEL)?;
        for (i, queued) in self.queued.iter().enumerate() {
            let witness = Witness {
                task: queued.id(),
                process: queued.task.signal_id(),
                view: self.view,
                cpu: Some(queued.cpu),
                idle: queued.idle,
                held: Held::Queued(i),
            };
            if self.list.push_within_capacity(witness).is_err() {
                return Err(AllocError);
            }
        }
        Ok(())
    }

    /// Names a task, and keeps a reference to it. Sleeps.
    pub(crate) fn add_held(&mut self, task: &Task) -> Result<(), AllocError> {
        let witness = Witness {
            task: task.id(),
            process: task.signal_id(),
            view: self.view,
            cpu: None,
            idle: false,
            held: Held::Switched(self.switched.len()),
        };

        self.switched.push(task.into(), GFP_KERNEL)?;
        self.list.push(witness, GFP_KERNEL)
    }

    /// Names a task within the RCU read-side critical section of the scan. Does not sleep.
    pub(crate) fn add(&mut self, task: Peek<'_>) {
        let Some(process) = task.process() else {
            return;
        };
        let witness = Witness {
            task: task.id(),
            process,
            view: self.view,
            cpu: None,
            idle: false,
            held: Held::No,
        };

        self.coverage.named = self.coverage.named.saturating_add(1);
        if self.list.push_within_capacity(witness).is_err() {
            self.more += 1;
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// How many there is memory for.
    pub(crate) fn capacity(&self) -> usize {
        self.list.capacity()
    }

    /// Forgets all but the first `len`, and makes room for those that there was none for. Sleeps.
    pub(crate) fn retry(&mut self, len: usize) -> Result<(), AllocError> {
        let more = core::mem::take(&mut self.more);

        self.list.truncate(len);
        self.coverage.named = 0;
        // Others may come meanwhile.
        self.list.reserve(
            self.list.capacity() - len + more + more / 4 + 64,
            GFP_KERNEL,
        )
    }

    /// How many there was no room for.
    pub(crate) fn missing(&self) -> usize {
        self.more
    }

    /// Returns whether there was room for all.
    pub(crate) fn are_all(&self) -> bool {
        self.more == 0
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Witness> {
        self.list.iter()
    }

    /// Where on a run queue `witness` was found, if it was found there.
    pub(crate) fn queue(&self, witness: &Witness) -> Option<Queue> {
        match witness.held {
            Held::Queued(i) => self.queued.get(i).map(|queued| queued.queue),
            _ => None,
        }
    }

    /// The one at place `i`.
    pub(crate) fn get(&self, i: u32) -> Option<&Witness> {
        self.list.get(i as usize)
    }

    /// What `decide` wants to know of each, known by its place.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..).zip(&self.list).map(|(i, witness)| {
            let Witness {
                task: TaskId(task),
                process: SignalId(process),
                idle,
                ..
            } = *witness;

            Entry::new(process, task, idle, i)
        })
    }

    /// Returns the reference to the task of `witness` that its view has brought, if it has.
    pub(crate) fn held(&self, witness: &Witness, known: &Known) -> Option<ARef<Task>> {
        match witness.held {
            Held::No => None,
            Held::Queued(i) => self.queued.get(i).map(|queued| queued.task.clone()),
            Held::Switched(i) => self.switched.get(i).cloned(),
            Held::Known(i) => known.task(i),
        }
    }
}
