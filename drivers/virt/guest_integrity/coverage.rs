// SPDX-License-Identifier: GPL-2.0

//! What a scan has looked at, and what it could not.

use guest::sched::{
    list::Cut,
    rq::Cost, //
};

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
    /// Threads met in the lists of those processes whose threads were looked at.
    pub(crate) threads: u32,
    /// Tasks that other views than the run queues have named.
    pub(crate) named: u32,
    /// What copying the run queues has cost.
    pub(crate) cost: Cost,
    /// What was left out: run queues that were locked all the time or too long, and whatever there was no memory for.
    pub(crate) skipped: u32,
    /// Views that could not be taken, a bit each.
    pub(crate) uncovered: u32,
    /// Lists that were not walked to their end.
    pub(crate) cut: u32,
    /// What is wrong with the first list that has no end.
    pub(crate) damage: Option<Damage>,
}

/// A list that cannot be walked to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// One on a run queue.
    RunQueue(Cut),
    /// That of the processes.
    Processes(Cut),
    /// That of the threads of a process.
    Threads(Cut),
    /// That of the modules.
    Modules(Cut),
    /// That of what is in `/sys/module`.
    ModuleSet(Cut),
}

impl Coverage {
    /// Returns whether nothing was left out.
    pub(crate) fn is_complete(&self) -> bool {
        self.skipped == 0 && self.cut == 0
    }

    /// Notes that a list on a run queue has no end.
    pub(crate) fn damaged_run_queue(&mut self, cut: Cut) {
        self.damage = self.damage.or(Some(Damage::RunQueue(cut)));
    }

    /// Notes that a list of tasks or modules has no end.
    pub(crate) fn cut(&mut self, damage: Damage) {
        self.cut = self.cut.saturating_add(1);
        self.damage = self.damage.or(Some(damage));
    }
}
