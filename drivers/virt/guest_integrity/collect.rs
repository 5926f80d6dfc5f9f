// SPDX-License-Identifier: GPL-2.0

//! Takes the views: the run queues, and the lists of processes and threads.

use crate::decide::{
    Entry,
    Search, //
};

use guest::sched::{
    list::{
        Cut,
        Processes,
        Threads, //
    },
    rq::{
        Cost,
        NotCopied,
        QueuedTasks,
        RunQueue,
        RunQueues,
        MAX_QUEUED, //
    },
    SignalId,
    TaskExt, //
};

use kernel::{
    alloc::allocator::KVmalloc,
    prelude::*,
    sync::rcu,
    task::Task,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Most tasks that all run queues together are believed to have.
const MAX_TASKS: usize = 1 << 20;
/// Rounds of attempts at the lock of a run queue, with a pause after each.
const LOCK_ROUNDS: u32 = 64;
/// The pause.
const LOCK_PAUSE: Delta = Delta::from_micros(200);

/// What a scan has looked at, and what it could not.
#[derive(Clone, Copy, Default)]
pub(crate) struct Coverage {
    /// Possible CPUs whose run queues were copied.
    pub(crate) cpus: u32,
    /// Those of them that were in use.
    pub(crate) online: u32,
    /// Tasks found on run queues; one that is in two places counts twice.
    pub(crate) queued: u32,
    /// Processes met in the list.
    pub(crate) processes: u32,
    /// Threads met in the lists of processes that have a task on a run queue.
    pub(crate) threads: u32,
    /// What copying the run queues has cost.
    pub(crate) cost: Cost,
    /// Run queues that were not copied: locked all the time, too long, or no memory for them.
    pub(crate) skipped: u32,
    /// Lists that were not walked to their end.
    pub(crate) cut: u32,
    /// What is wrong with the first list, of tasks or on a run queue, that has no end.
    pub(crate) damage: Option<Damage>,
}

/// A list that cannot be walked to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// One on a run queue has more entries than it can have.
    RunQueue,
    /// That of the processes.
    Processes(Cut),
    /// That of the threads of a process.
    Threads(Cut),
}

impl Coverage {
    /// Returns whether nothing was left out.
    pub(crate) fn is_complete(&self) -> bool {
        self.skipped == 0 && self.cut == 0
    }

    fn cut(&mut self, damage: Damage) {
        self.cut = self.cut.saturating_add(1);
        self.damage = self.damage.or(Some(damage));
    }
}

/// Copies all run queues to `tasks`.
pub(crate) fn run_queues(queues: &RunQueues, tasks: &mut QueuedTasks, coverage: &mut Coverage) {
    tasks.clear();

    // Room for what runs now, and as much again, so that the usual scan needs no more. Without it, `copy` asks for some.
    let wanted = queues.iter().fold(0_usize, |sum, rq| {
        sum.saturating_add(rq.nr_running().min(MAX_QUEUED) * 2 + 4)
    });
    let _ = tasks.reserve(wanted.min(MAX_TASKS));

    for rq in queues.iter() {
        match copy(&rq, tasks, &mut coverage.cost) {
            Ok(()) => {
                coverage.cpus += 1;
                coverage.online += u32::from(rq.is_online());
            }
            Err(why) => {
                coverage.skipped += 1;
                if why == NotCopied::TooLong {
                    coverage.damage = coverage.damage.or(Some(Damage::RunQueue));
                }
            }
        }
    }
    // CAST: Not more than `MAX_TASKS` and a doubling.
    coverage.queued = tasks.len() as u32;
}

/// Copies one run queue, with more room and more attempts at its lock as it needs them.
fn copy(rq: &RunQueue<'_>, tasks: &mut QueuedTasks, cost: &mut Cost) -> Result<(), NotCopied> {
    let mut rounds = 0;

    loop {
        match rq.copy(tasks, cost) {
            Err(NotCopied::Full) if tasks.len() < MAX_TASKS => {
                let more = (2 * tasks.room()).clamp(256, MAX_TASKS);
                tasks.reserve(more).map_err(|_| NotCopied::Full)?;
            }
            Err(NotCopied::Busy) if rounds < LOCK_ROUNDS => {
                rounds += 1;
                fsleep(LOCK_PAUSE);
            }
            done => return done,
        }
    }
}

/// Appends an entry for `task` to `entries`.
pub(crate) fn entry(
    entries: &mut KVVec<Entry>,
    task: &Task,
    idle: bool,
    origin: u32,
) -> Result<(), kernel::alloc::AllocError> {
    let SignalId(process) = task.signal_id();
    let entry = Entry::new(process, task.id().0, idle, origin);

    Vec::<_, KVmalloc>::push(entries, entry, GFP_KERNEL)
}

/// Walks the lists and tells `search` what is on them.
pub(crate) fn lists(search: &mut Search<'_>, coverage: &mut Coverage) {
    let guard = rcu::read_lock();
    let mut processes = Processes::new(&guard);

    for listed in processes.by_ref() {
        let SignalId(process) = listed.process;

        coverage.processes = coverage.processes.saturating_add(1);
        if !search.process(process) {
            continue;
        }

        let mut threads = Threads::of(&guard, listed.process);
        for thread in threads.by_ref() {
            coverage.threads = coverage.threads.saturating_add(1);
            search.thread(process, thread.task.0);
        }
        if let Some(cut) = threads.cut() {
            coverage.cut(Damage::Threads(cut));
        }
    }
    if let Some(cut) = processes.cut() {
        coverage.cut(Damage::Processes(cut));
    }
}
