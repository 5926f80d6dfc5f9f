// SPDX-License-Identifier: GPL-2.0

//! The rule that decides whether a task is hidden.
//!
//! It works on recorded views only and imports only `core`, so that the host tests can run it against a model of the kernel
//! in which tasks are made, execute programs, exit and are reaped between any two of its steps.
//!
//! The steps, in this order:
//!
//! 1. The run queue of each CPU is copied under its lock: the entries of a [`Search`].
//! 2. The list of processes is walked, and the threads of each process that an entry belongs to ([`Search::process`],
//!    [`Search::thread`]).
//! 3. For each entry that the walk did not meet, it is asked whether the task has begun to exit ([`Search::finish`]).
//!
//! Why this finds no honest task. A task is on the lists before it can be on a run queue. An entry that is on a list during the
//! whole walk is met, as new ones go to the tail and those taken off keep their way to the next. So one that was not met was
//! taken off after step 1, and the kernel sets the exit state before it takes a task off. Processes are told apart by what all
//! their threads share for their whole life (`signal_struct`): when a thread executes a program and takes the leader's place,
//! one of both is in the list at any time, but neither all the time. An idle task is on no list; it is recognised by the run
//! queue's own pointer to it, on that CPU only.

use crate::sort::sort;

/// What the run queue view knows of one task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Identity of what the threads of the task's process share.
    process: usize,
    /// Identity of the task.
    task: usize,
    /// The run queue names it as its idle task.
    idle: bool,
    /// What the caller knows the entry by.
    origin: u32,
    process_met: bool,
    task_met: bool,
    suspected: bool,
}

impl Entry {
    /// Makes an entry for `task` of `process`. `origin` is whatever the caller knows it by.
    pub(crate) fn new(process: usize, task: usize, idle: bool, origin: u32) -> Self {
        Entry {
            process,
            task,
            idle,
            origin,
            process_met: false,
            task_met: false,
            suspected: false,
        }
    }

    /// Returns whether the last search passed the entry on as a suspect.
    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected
    }

    /// Returns whether the entry comes before `other`. Of the entries for one task, those that count come first.
    fn precedes(&self, other: &Self) -> bool {
        if self.process != other.process {
            return self.process < other.process;
        }
        (self.task, self.idle, self.origin) < (other.task, other.idle, other.origin)
    }
}

/// What of a task the lists lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlisted {
    /// No task of its process is in the list of processes.
    Process,
    /// Its process is, but the task is not among its threads.
    Thread,
}

/// One task of which the lists lack something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// What the caller knows the entry by.
    pub(crate) origin: u32,
    /// What is missing.
    pub(crate) unlisted: Unlisted,
}

/// A comparison of entries with the lists, in the making.
pub(crate) struct Search<'a> {
    entries: &'a mut [Entry],
}

impl<'a> Search<'a> {
    /// Begins a search for `entries`. There may be several for one task.
    pub(crate) fn new(entries: &'a mut [Entry]) -> Self {
        for entry in entries.iter_mut() {
            entry.process_met = false;
            entry.task_met = false;
            entry.suspected = false;
        }
        sort(entries, Entry::precedes);

        Search { entries }
    }

    /// Notes that a process was met in the list of processes. Returns whether its threads are to be walked.
    pub(crate) fn process(&mut self, process: usize) -> bool {
        let start = self
            .entries
            .partition_point(|entry| entry.process < process);
        let mut any = false;

        for entry in self.entries.iter_mut().skip(start) {
            if entry.process != process {
                break;
            }
            entry.process_met = true;
            any = true;
        }
        any
    }

    /// Notes that `task` was met among the threads of `process`.
    pub(crate) fn thread(&mut self, process: usize, task: usize) {
        let start = self
            .entries
            .partition_point(|entry| (entry.process, entry.task) < (process, task));

        for entry in self.entries.iter_mut().skip(start) {
            if (entry.process, entry.task) != (process, task) {
                break;
            }
            entry.task_met = true;
        }
    }

    /// Ends the search after a walk of all lists: passes each task that is missing somewhere to `suspect`, once.
    ///
    /// `has_exited` says whether the task with the given origin has begun to exit. It must look at the task when it is called,
    /// not before.
    pub(crate) fn finish(
        self,
        mut has_exited: impl FnMut(u32) -> bool,
        mut suspect: impl FnMut(Suspect),
    ) {
        let mut last = None;

        for entry in self.entries.iter_mut() {
            let unlisted = match (entry.process_met, entry.task_met) {
                (true, true) => continue,
                (true, false) => Unlisted::Thread,
                (false, _) => Unlisted::Process,
            };
            if entry.idle || last == Some(entry.task) {
                continue;
            }

            last = Some(entry.task);
            if !has_exited(entry.origin) {
                entry.suspected = true;
                suspect(Suspect {
                    origin: entry.origin,
                    unlisted,
                });
            }
        }
    }
}
