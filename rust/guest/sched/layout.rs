// SPDX-License-Identifier: GPL-2.0

//! Where things lie in the scheduler's private structures.
//!
//! `struct rq` is not in any header that a module can include, and its members move with the version, the configuration
//! and the compiler of a kernel. They are looked up by name in the BTF of the kernel at hand, and each is checked to be of the
//! size that the reading code expects; whatever is missing or differs is named, and nothing is read then.
//!
//! The file imports only the BTF reader, so that it is tested on the host with the type information of real kernels.
//!
//! C header: `kernel/sched/sched.h`

use crate::btf::reader::{
    Kind,
    Source,
    Type, //
};

/// Number of real-time priorities, each with a list of its own in `struct rt_prio_array` (`MAX_RT_PRIO`).
pub const RT_PRIORITIES: usize = 100;

const PTR: usize = core::mem::size_of::<usize>();
/// `struct list_head`.
const LIST: usize = 2 * PTR;

/// What in the running kernel does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The kernel offers no BTF, or it cannot be read.
    NoBtf,
    /// A type, member or variable is not there.
    Missing(&'static str),
    /// A type or member has another size than the code was built for.
    Size {
        /// What was looked at.
        what: &'static str,
        /// The size or offset that the code was built for.
        want: usize,
        /// What the kernel's BTF says.
        have: usize,
    },
    /// A member lies at another offset than the code was built for.
    Offset {
        /// What was looked at.
        what: &'static str,
        /// The offset that the code was built for.
        want: usize,
        /// What the kernel's BTF says.
        have: usize,
    },
    /// The kernel was configured with an option that changes how run queues are read.
    Option(&'static str),
    /// What BTF says about the run queues does not hold for the memory found there.
    Contents(&'static str),
}

impl Misfit {
    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Misfit::NoBtf => "boot a kernel that has it",
            Misfit::Option(_) => "boot a kernel without it",
            _ => "build the module from the headers and source of this very kernel",
        }
    }
}

impl core::fmt::Display for Misfit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Misfit::NoBtf => f.write_str("the kernel has no readable BTF (CONFIG_DEBUG_INFO_BTF)"),
            Misfit::Missing(what) => write!(f, "the kernel's BTF has no {what}"),
            Misfit::Size { what, want, have } => {
                write!(f, "size of {what} is {have}, built for {want}")
            }
            Misfit::Offset { what, want, have } => {
                write!(f, "offset of {what} is {have}, built for {want}")
            }
            Misfit::Option(option) => write!(f, "kernels with {option} are not supported"),
            Misfit::Contents(what) => write!(f, "run queues are not where BTF says: {what}"),
        }
    }
}

/// Offsets within `struct rq`, and of the run queues within a CPU's private data.
#[derive(Clone, Copy, Debug)]
pub struct RqLayout {
    /// Distance from the per-CPU variable that serves as the anchor to `runqueues`.
    pub from_anchor: isize,
    /// Size of `struct rq`.
    pub size: usize,
    /// `raw_spinlock_t __lock`.
    pub lock: usize,
    /// `int cpu`.
    pub cpu: usize,
    /// `unsigned int nr_running`.
    pub nr_running: usize,
    /// `struct task_struct *curr`.
    pub curr: usize,
    /// `struct task_struct *idle`.
    pub idle: usize,
    /// `struct task_struct *stop`.
    pub stop: usize,
    /// `struct list_head cfs_tasks`: all fair tasks, of all groups.
    pub cfs_tasks: usize,
    /// Bitmap of the real-time priorities in use.
    pub rt_bitmap: usize,
    /// Lists of the real-time priorities.
    pub rt_queue: usize,
    /// `struct rb_node *`, leftmost node of the deadline tree.
    pub dl_leftmost: usize,
    /// `struct list_head runnable_list` of sched_ext, where the kernel has it.
    pub scx_runnable: Option<usize>,
    /// Groups of fair tasks, where the kernel keeps the tasks of those that have used up their time in lists of their own.
    pub groups: Option<GroupLayout>,
}

/// Offsets within `struct task_group` and `struct cfs_rq`, and of the root group's within `struct rq`.
#[derive(Clone, Copy, Debug)]
pub struct GroupLayout {
    /// `struct cfs_rq cfs` in `struct rq`: that of the root.
    pub root_cfs_rq: usize,
    /// `struct task_group *cfs.tg` in `struct rq`: the root.
    pub root: usize,
    /// `struct cfs_rq __percpu *cfs_rq` in `struct task_group`.
    pub cfs_rq: usize,
    /// `struct task_group *parent`.
    pub parent: usize,
    /// `struct list_head children`.
    pub children: usize,
    /// `struct list_head siblings`.
    pub siblings: usize,
    /// `struct rq *rq` in `struct cfs_rq`.
    pub rq: usize,
    /// `struct list_head throttled_limbo_list` in `struct cfs_rq`.
    pub throttled: usize,
}

impl GroupLayout {
    fn find<'a>(btf: &impl Source<'a>, rq: &Type<'a>) -> Result<Option<Self>, Misfit> {
        let Some(cfs_rq) = btf.find("cfs_rq", Kind::Struct) else {
            return Ok(None);
        };
        if btf.field(&cfs_rq, "throttled_limbo_list").is_none() {
            return Ok(None);
        }
        let group = btf
            .find("task_group", Kind::Struct)
            .ok_or(Misfit::Missing("struct task_group"))?;
        let member = |of: &Type<'a>, path, size| {
            let field = btf.field(of, path).ok_or(Misfit::Missing(path))?;
            expect_size(path, size, field.size)?;
            Ok(field.offset)
        };
        let root_cfs_rq = btf.field(rq, "cfs").ok_or(Misfit::Missing("cfs"))?;

        Ok(Some(GroupLayout {
            root_cfs_rq: root_cfs_rq.offset,
            root: member(rq, "cfs.tg", PTR)?,
            cfs_rq: member(&group, "cfs_rq", PTR)?,
            parent: member(&group, "parent", PTR)?,
            children: member(&group, "children", LIST)?,
            siblings: member(&group, "siblings", LIST)?,
            rq: member(&cfs_rq, "rq", PTR)?,
            throttled: member(&cfs_rq, "throttled_limbo_list", LIST)?,
        }))
    }
}

impl RqLayout {
    /// Looks the layout up in `btf`. `anchor` is the name of an exported per-CPU variable, `lock` the size of a
    /// `raw_spinlock_t`.
    ///
    /// # Errors
    ///
    /// What is missing or differs.
    pub fn find<'a>(
        btf: &impl Source<'a>,
        anchor: &'static str,
        lock: usize,
    ) -> Result<Self, Misfit> {
        let percpu = btf
            .find(".data..percpu", Kind::Datasec)
            .ok_or(Misfit::Missing("section .data..percpu"))?;
        let rq = btf
            .find("rq", Kind::Struct)
            .ok_or(Misfit::Missing("struct rq"))?;
        let size = rq.size().ok_or(Misfit::Missing("size of struct rq"))? as usize;

        let runqueues = btf
            .variable(&percpu, "runqueues")
            .ok_or(Misfit::Missing("variable runqueues"))?;
        let anchor = btf
            .variable(&percpu, anchor)
            .ok_or(Misfit::Missing(anchor))?;
        expect_size("runqueues", size, runqueues.size as usize)?;

        // With core scheduling, the lock of a run queue may be that of a sibling.
        if btf.field(&rq, "core").is_some() {
            return Err(Misfit::Option("CONFIG_SCHED_CORE"));
        }
        // With real-time groups, what is queued may be a group rather than a task.
        if btf.field(&rq, "rt.rt_throttled").is_some() {
            return Err(Misfit::Option("CONFIG_RT_GROUP_SCHED"));
        }

        let member = |path, size| {
            let field = btf.field(&rq, path).ok_or(Misfit::Missing(path))?;
            expect_size(path, size, field.size)?;
            Ok(field.offset)
        };

        Ok(RqLayout {
            from_anchor: runqueues.offset as isize - anchor.offset as isize,
            size,
            lock: member("__lock", lock)?,
            cpu: member("cpu", 4)?,
            nr_running: member("nr_running", 4)?,
            curr: member("curr", PTR)?,
            idle: member("idle", PTR)?,
            stop: member("stop", PTR)?,
            cfs_tasks: member("cfs_tasks", LIST)?,
            // One bit more than there are lists: the end marker.
            rt_bitmap: member("rt.active.bitmap", RT_PRIORITIES / 8 / PTR * PTR + PTR)?,
            rt_queue: member("rt.active.queue", RT_PRIORITIES * LIST)?,
            dl_leftmost: member("dl.root.rb_leftmost", PTR)?,
            scx_runnable: match btf.field(&rq, "scx") {
                Some(_) => Some(member("scx.runnable_list", LIST)?),
                None => None,
            },
            groups: GroupLayout::find(btf, &rq)?,
        })
    }
}

/// Checks that a size is the one that the code was built for.
pub fn expect_size(what: &'static str, want: usize, have: usize) -> Result<(), Misfit> {
    if want == have {
        Ok(())
    } else {
        Err(Misfit::Size { what, want, have })
    }
}
