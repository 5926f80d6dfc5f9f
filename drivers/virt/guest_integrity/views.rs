// SPDX-License-Identifier: GPL-2.0

//! The views: what a scan compares with the lists of tasks, one file each.
//!
//! A view is a file and a line in [`VIEWS`]. It does one or more of these:
//!
//! - it names tasks that must be on the lists ([`View::collect`], [`View::witness`]); the rule of `decide` says which of them are
//!   hidden;
//! - it shows numbers of processes without naming tasks ([`View::shows`]);
//! - it finds fault with a task that is on the lists ([`View::check`]). One look may come while the kernel changes the task; what
//!   is still so at each of [`View::LOOKS`] looks, each a grace period of RCU after the one before, is reported. Whatever
//!   the kernel changes under `tasklist_lock` has interrupts off, which a grace period waits for; so a view says why an honest task
//!   cannot be met within such a change at each look.

mod disguise;
mod family;
pub(crate) mod hooks;
mod listing;
pub(crate) mod modules;
mod pid;
mod probes;
pub(crate) mod proc;
mod runqueue;
mod switch;

use crate::{
    coverage::Damage,
    departed::Departed,
    finding::Found,
    listing::Listings,
    loaded::Loaded,
    params,
    witness::Witnesses, //
};

use guest::sched::{
    kthread::Kthreads,
    peek::Peek,
    rq::RunQueues,
    switch::Suspects, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};

type Collect = fn(&Sources, &mut Witnesses) -> Result<(), AllocError>;
type Examine = fn(&Sources, &mut KVVec<Found>, u8) -> Result<Examined, AllocError>;
type Check = fn(&rcu::Guard, &Sources, Peek<'_>) -> Option<&'static str>;

/// Whether a view could [look](View::examine).
pub(crate) enum Examined {
    /// At all.
    Whole,
    /// Not at all that it is for.
    NotCovered,
    /// At a list that has no end.
    Damaged(Damage),
}

impl From<bool> for Examined {
    fn from(whole: bool) -> Self {
        if whole {
            Examined::Whole
        } else {
            Examined::NotCovered
        }
    }
}

/// One view.
pub(crate) struct View {
    /// Its name, in the parameter `views` and in records.
    pub(crate) name: &'static str,
    /// Names tasks that must be on the lists, before those are read. May sleep.
    pub(crate) collect: Option<Collect>,
    /// Does the same right before that, within the RCU read-side critical section in which the lists are read.
    pub(crate) witness: Option<fn(&rcu::Guard, &mut Witnesses)>,
    /// What it [collects](View::collect) is there to be taken once, by a scan.
    pub(crate) once: bool,
    /// Returns the numbers of the processes that it shows, in any order, if it can be taken. For a snapshot. May sleep.
    pub(crate) shows: Option<fn() -> Option<KVVec<i32>>>,
    /// Says what is wrong with a task on the lists.
    pub(crate) check: Option<Check>,
    /// Looks at something else than the lists, and adds what is wrong to what was found, as from the view at that place. May
    /// sleep.
    pub(crate) examine: Option<Examine>,
    /// Says what is wrong with a task that is not on the lists, and says that it has begun to exit.
    pub(crate) autopsy: Option<fn(Peek<'_>, &mut Departed) -> Option<&'static str>>,
}

impl View {
    /// Looks at which a task must have the same fault.
    pub(crate) const LOOKS: u32 = 3;

    /// A view that does nothing.
    const fn named(name: &'static str) -> Self {
        View {
            name,
            collect: None,
            once: false,
            shows: None,
            witness: None,
            check: None,
            autopsy: None,
            examine: None,
        }
    }
}

/// Where views are taken from.
pub(crate) struct Sources {
    pub(crate) run_queues: RunQueues,
    pub(crate) suspects: Arc<Suspects>,
    pub(crate) kthreads: Kthreads,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) listings: Arc<Listings>,
}

/// All views. Where several see the same task, the first one reports it.
pub(crate) const VIEWS: [View; 10] = [
    runqueue::VIEW,
    switch::VIEW,
    pid::VIEW,
    family::VIEW,
    disguise::VIEW,
    proc::VIEW,
    listing::VIEW,
    modules::VIEW,
    probes::VIEW,
    hooks::VIEW,
];

/// Their names.
pub(crate) const NAMES: [&str; VIEWS.len()] = {
    let mut names = [""; VIEWS.len()];
    let mut i = 0;

    while i < names.len() {
        names[i] = VIEWS[i].name;
        i += 1;
    }
    names
};

/// The views that are taken, with their places in the table.
pub(crate) fn views() -> impl Iterator<Item = (usize, &'static View)> {
    const TABLE: &[View] = &VIEWS;

    TABLE
        .iter()
        .enumerate()
        .filter(|(i, _)| params::views.has(*i))
}
