// SPDX-License-Identifier: GPL-2.0

//! Groups of fair tasks that have used up their time.
//!
//! Their tasks are on no run queue until there is more time: each group has a list of them for each CPU. The tree of groups is walked as
//! the scheduler walks it, under RCU, without a lock. Groups whose list is not empty are noted for a CPU; the lists themselves are
//! read later, with the lock of its run queue held.
//!
//! C header: `kernel/sched/sched.h`

use super::{
    super::{
        layout::GroupLayout,
        list::Cut,
        peek::word, //
    },
    NotCopied,
};

use kernel::{
    prelude::*,
    sync::rcu, //
};

/// Most groups that there are believed to be.
const MAX_GROUPS: usize = 1 << 20;

/// Groups on one CPU.
pub(super) struct Groups<'a> {
    layout: &'a GroupLayout,
    /// The address of the run queue.
    rq: usize,
    /// What an address of a per-CPU variable is less than that of this CPU's.
    percpu: usize,
}

impl<'a> Groups<'a> {
    /// The groups on the CPU with the run queue at `rq`, whose per-CPU variables lie at a distance of `percpu`.
    pub(super) fn new(layout: &'a GroupLayout, rq: usize, percpu: usize) -> Self {
        Groups { layout, rq, percpu }
    }

    /// Returns whether the root group leads to the run queue, as it must.
    pub(super) fn check(&self) -> bool {
        let own = self.rq.wrapping_add(self.layout.root_cfs_rq);

        self.root().and_then(|root| self.cfs_rq(root)) == Some(own)
    }

    /// Notes the addresses of the lists of this CPU that are not empty.
    ///
    /// # Errors
    ///
    /// [`NotCopied::Full`] if there is no room for more, [`NotCopied::Damaged`] if the tree cannot be walked to its end.
    pub(super) fn throttled(
        &self,
        _rcu: &rcu::Guard,
        lists: &mut KVVec<usize>,
    ) -> Result<(), NotCopied> {
        let unreadable = NotCopied::Damaged(Cut::Unreadable);
        let root = self.root().ok_or(unreadable)?;
        let mut group = root;

        for _ in 0..MAX_GROUPS {
            match self.after(root, group).ok_or(unreadable)? {
                None => return Ok(()),
                Some(next) => group = next,
            }
            if let Some(list) = self.list(group) {
                lists
                    .push_within_capacity(list)
                    .map_err(|_| NotCopied::Full)?;
            }
        }
        Err(NotCopied::Damaged(Cut::TooLong))
    }

    fn root(&self) -> Option<usize> {
        word(self.rq.wrapping_add(self.layout.root))
    }

    /// The `struct cfs_rq` of a group on this CPU.
    fn cfs_rq(&self, group: usize) -> Option<usize> {
        let cfs_rq = word(group.wrapping_add(self.layout.cfs_rq))?;

        Some(cfs_rq.wrapping_add(self.percpu))
    }

    /// The list of a group on this CPU, if there is anything in it.
    fn list(&self, group: usize) -> Option<usize> {
        let cfs_rq = self.cfs_rq(group)?;
        let list = cfs_rq.wrapping_add(self.layout.throttled);

        // Each `struct cfs_rq` says whose it is.
        let is_here = word(cfs_rq.wrapping_add(self.layout.rq))? == self.rq;
        (is_here && word(list)? != list).then_some(list)
    }

    /// The group after `group` in the tree below `root`: its first child, or the next child of the nearest group above that has
    /// another. The inner [`None`] is the end, the outer one that a link leads to where there is no memory.
    fn after(&self, root: usize, mut group: usize) -> Option<Option<usize>> {
        let mut head = group.wrapping_add(self.layout.children);
        let mut link = word(head)?;

        for _ in 0..MAX_GROUPS {
            if link != head {
                return Some(Some(link.wrapping_sub(self.layout.siblings)));
            }
            if group == root {
                return Some(None);
            }
            link = word(group.wrapping_add(self.layout.siblings))?;
            group = word(group.wrapping_add(self.layout.parent))?;
            head = group.wrapping_add(self.layout.children);
        }
        None
    }
}
