// SPDX-License-Identifier: GPL-2.0

//! What was found, and what of it is known from earlier scans.
//!
//! Each thing is reported when it is first seen, not again each second: it is remembered until a complete scan no longer sees it. Of a
//! hidden task that a view brought a reference to, the reference is kept, so that it is watched also while it sleeps.

use crate::{
    record::{
        self,
        Line,
        NAME_LEN, //
    },
    views::NAMES, //
};

use guest::sched::{
    peek::Peek,
    TaskExt,
    TaskId, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::aref::ARef,
    task::Task, //
};

/// What is told of a task.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub(crate) pid: i32,
    pub(crate) tgid: i32,
    pub(crate) comm: [u8; 16],
    pub(crate) cpu: u32,
}

impl Who {
    /// Reads it from the task.
    pub(crate) fn of(task: Peek<'_>) -> Self {
        let (pid, tgid) = task.numbers();

        Who {
            pid,
            tgid,
            comm: task.comm(),
            cpu: task.cpu(),
        }
    }
}

/// Something that is no task.
#[derive(Clone, Copy)]
pub(crate) struct Object {
    /// What it is.
    pub(crate) kind: &'static str,
    pub(crate) name: Line<NAME_LEN>,
    /// Where it leads to, if it leads anywhere.
    pub(crate) target: Line<NAME_LEN>,
}

/// What a finding is about.
#[derive(Clone, Copy)]
pub(crate) enum Subject {
    Task(Who),
    Object(Object),
}

/// What it means that something is so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Nobody honest does it.
    Finding,
    /// Both a rootkit and an honest user of the kernel's means to trace it look like that.
    Observation,
}

/// What tells one thing from another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// Empty for a task that the lists lack, whoever sees it.
    reason: &'static str,
    /// Address, and time or whatever else tells it from others at that address.
    id: (usize, u64),
}

impl Key {
    /// That of a task which has a fault, or none but that it is missing.
    pub(crate) fn of(task: Peek<'_>, reason: &'static str) -> Self {
        Key {
            reason,
            id: (task.id().0, task.start_time()),
        }
    }
}

/// Something that was found.
pub(crate) struct Found {
    pub(crate) key: Key,
    /// The place of the view in the table.
    pub(crate) view: u8,
    pub(crate) reason: &'static str,
    pub(crate) weight: Weight,
    pub(crate) subject: Subject,
    /// A reference to the task, if its view has brought one.
    pub(crate) held: Option<ARef<Task>>,
}

impl Found {
    /// Something that is no task. `id` tells it from others of the same reason: an address, or whatever else does.
    pub(crate) fn of_object(
        view: u8,
        weight: Weight,
        reason: &'static str,
        id: (usize, usize),
        object: Object,
    ) -> Self {
        Found {
            key: Key {
                reason,
                id: (id.0, id.1 as u64),
            },
            view,
            reason,
            weight,
            subject: Subject::Object(object),
            held: None,
        }
    }

    /// What is reported of it.
    pub(crate) fn record(&self) -> record::Finding<'_> {
        record::Finding {
            subject: match &self.subject {
                Subject::Task(who) => record::Subject::Task {
                    pid: who.pid,
                    tgid: who.tgid,
                    comm: &who.comm,
                    cpu: who.cpu,
                },
                Subject::Object(object) => record::Subject::Object {
                    kind: object.kind,
                    name: object.name.as_str(),
                    target: object.target.as_str(),
                },
            },
            view: NAMES.get(usize::from(self.view)).unwrap_or(&""),
            reason: self.reason,
        }
    }
}

/// What was found before.
pub(crate) struct Known(KVVec<Remembered>);

struct Remembered {
    key: Key,
    view: u8,
    /// Where the task was seen first.
    cpu: u32,
    held: Option<ARef<Task>>,
    /// It was seen in the scan that is being reported.
    seen: bool,
}

impl Known {
    /// Begins with nothing.
    pub(crate) fn new() -> Self {
        Known(KVVec::new())
    }

    /// The hidden tasks that there are references to: place, view, CPU and task.
    pub(crate) fn held(&self) -> impl Iterator<Item = (usize, u8, u32, &Task)> {
        self.0.iter().enumerate().filter_map(|(i, known)| {
            known
                .held
                .as_deref()
                .map(|task| (i, known.view, known.cpu, task))
        })
    }

    /// Returns whether there is a reference to this hidden task.
    pub(crate) fn has(&self, id: TaskId) -> bool {
        self.held().any(|(.., task)| task.id() == id)
    }

    /// The task at a place.
    pub(crate) fn task(&self, i: usize) -> Option<ARef<Task>> {
        self.0.get(i).and_then(|known| known.held.clone())
    }

    /// Notes that `found` is still so. Returns whether it was known.
    pub(crate) fn see(&mut self, found: &Found) -> bool {
        let known = self.0.iter_mut().find(|known| known.key == found.key);
        let is_known = known.is_some();

        if let Some(known) = known {
            known.seen = true;
            if known.held.is_none() {
                known.held = found.held.clone();
            }
        }
        is_known
    }

    /// Adds what was not known.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub(crate) fn add(&mut self, found: &Found) -> Result<(), AllocError> {
        let remembered = Remembered {
            key: found.key,
            view: found.view,
            cpu: match found.subject {
                Subject::Task(who) => who.cpu,
                Subject::Object(_) => 0,
            },
            held: found.held.clone(),
            seen: true,
        };

        self.0.push(remembered, GFP_KERNEL)
    }

    /// Ends a scan: forgets what it did not see, if it was `complete`.
    pub(crate) fn keep_seen(&mut self, complete: bool) {
        self.0
            .retain(|known| core::mem::take(&mut known.seen) || !complete);
    }
}
