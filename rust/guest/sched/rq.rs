// SPDX-License-Identifier: GPL-2.0

//! Run queues: what runs or waits to run on each CPU.
//!
//! `runqueues` is not exported and `struct rq` is private to the scheduler. The address follows from an exported per-CPU
//! variable and the distance between both that BTF states; the members are found by name ([`layout`]). [`RunQueues::find`]
//! believes neither before what it finds there has been compared with what is known otherwise.
//!
//! # Locking
//!
//! A run queue is read under its own lock (`rq->__lock`), which may be taken in any context but that of the scheduler. It is only
//! tried for, so that this code never makes a CPU wait in a line for the lock of another. While it is held, interrupts are off,
//! and the pointers to tasks are copied into memory that was allocated before, no more. The tasks themselves are not looked at
//! before the lock is free again: RCU keeps them from being freed until there is a reference to each. The links of lists are read as
//! what may lead nowhere, so that a list that somebody has bent is said to be so.
//!
//! [`layout`]: super::layout
//!
//! C header: `kernel/sched/sched.h`

mod copy;
mod groups;

use self::{
    copy::{
        Copy,
        QUEUES, //
    },
    groups::Groups, //
};

use super::{
    check_task,
    layout::{
        RqLayout,
        RT_PRIORITIES, //
    },
    list::Cut,
    read_nofault,
    Misfit,
    TaskId, //
};
use crate::{
    bindings,
    btf::Vmlinux,
    cpu,
    time::ktime_get_ns, //
};

use core::{
    mem::{
        offset_of,
        size_of, //
    },
    ptr::addr_of,
};

use kernel::{
    alloc::AllocError,
    cpu::{
        nr_cpu_ids,
        CpuId, //
    },
    prelude::*,
    processor::cpu_relax,
    sync::{
        aref::ARef,
        rcu, //
    },
    task::Task, //
};

/// Most entries that one run queue is believed to have; a list that is longer is taken for damaged.
pub const MAX_QUEUED: usize = 1 << 16;

/// Attempts at a lock before the caller is given the choice to wait.
const LOCK_ATTEMPTS: usize = 256;

/// Where on a run queue a task was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// It was running.
    Current,
    /// In the list of fair tasks, of all groups; this has tasks that block but are dequeued later, too.
    Fair,
    /// In the list of its real-time priority.
    Realtime,
    /// In the tree of deadline tasks.
    Deadline,
    /// In the list of runnable tasks of sched_ext.
    Ext,
    /// In the list of a group that has used up its time.
    Throttled,
    /// It is the CPU's stopper.
    Stop,
}

/// A task found on a run queue, with a reference to it.
pub struct QueuedTask {
    /// The task.
    pub task: ARef<Task>,
    /// The CPU whose run queue it was.
    pub cpu: u32,
    /// Where on the run queue.
    pub queue: Queue,
    /// It is the idle task of that CPU.
    pub idle: bool,
}

/// Why a run queue was not copied, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCopied {
    /// Its lock was taken each time it was tried for.
    Busy,
    /// There was no room for more tasks.
    Full,
    /// A list on it has no end, or the tree of groups has none.
    Damaged(Cut),
}

/// Tasks of run queues, and the memory for copying more of them. The default has neither.
#[derive(Default)]
pub struct QueuedTasks {
    tasks: KVVec<QueuedTask>,
    /// Those that a run queue points to, as long as they are known to be valid.
    found: KVVec<*const bindings::task_struct>,
    /// Lists of groups that have used up their time.
    lists: KVVec<usize>,
}

// SAFETY: What is in `found` is not used between calls.
unsafe impl Send for QueuedTasks {}

impl QueuedTasks {
    /// Allocates memory for `more` tasks of a run queue. Sleeps.
    ///
    /// # Errors
    ///
    /// There is not so much memory.
    pub fn reserve(&mut self, more: usize) -> Result<(), AllocError> {
        self.tasks.reserve(more, GFP_KERNEL)?;
        self.lists.reserve(more, GFP_KERNEL)?;
        self.found.reserve(more, GFP_KERNEL)
    }

    /// How many tasks of one more run queue there is memory for.
    pub fn room(&self) -> usize {
        let room = self.tasks.capacity() - self.tasks.len();

        room.min(self.found.capacity())
    }

    /// Lets all tasks go. The memory stays.
    pub fn clear(&mut self) {
        self.tasks.clear();
    }
}

impl core::ops::Deref for QueuedTasks {
    type Target = [QueuedTask];

    fn deref(&self) -> &[QueuedTask] {
        &self.tasks
    }
}

/// What copying run queues has cost.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// Attempts at a lock that failed.
    pub retries: u64,
    /// The longest time that a lock was held, with interrupts off, in nanoseconds.
    pub held_ns: u64,
}

/// The run queues of all CPUs.
///
/// # Invariants
///
/// For each possible CPU, a `struct rq` with the members that `layout` says lies where `layout` says.
pub struct RunQueues {
    layout: RqLayout,
}

// SAFETY: The run queues belong to the kernel; their parts are read under their own locks from any context.
unsafe impl Send for RunQueues {}
// SAFETY: As for `Send`.
unsafe impl Sync for RunQueues {}

impl RunQueues {
    /// Finds the run queues of the running kernel.
    ///
    /// # Errors
    ///
    /// Says what of this kernel is not as the code needs it.
    pub fn find() -> Result<Self, Misfit> {
        let btf = Vmlinux::get().map_err(|_| Misfit::NoBtf)?;

        check_task(&btf)?;

        let layout = RqLayout::find(&btf, "kstat", size_of::<bindings::raw_spinlock_t>())?;
        check_symbol(&layout)?;

        // INVARIANT: The types are from the kernel's own BTF, and `check` compares what they lead to with what is known.
        let this = RunQueues { layout };
        this.check()?;
        Ok(this)
    }

    /// Returns the run queue of `cpu`, or [`None`] if there can be no such CPU.
    pub fn of(&self, cpu: CpuId) -> Option<RunQueue<'_>> {
        // SAFETY: A number below `nr_cpu_ids` can be asked about.
        if !unsafe { bindings::cpu_possible(cpu.as_u32()) } {
            return None;
        }

        // SAFETY: The CPU is possible, so that it has an area of per-CPU variables.
        let anchor: *const u8 = unsafe { bindings::kstat_cpu(cpu.into()) }
            .cast_const()
            .cast();

        // INVARIANT: By the invariants of `self`.
        Some(RunQueue {
            rq: anchor.wrapping_offset(self.layout.from_anchor),
            layout: &self.layout,
            cpu,
        })
    }

    /// Returns the run queues of all possible CPUs, whether they are in use or not.
    pub fn iter(&self) -> impl Iterator<Item = RunQueue<'_>> {
        (0..nr_cpu_ids())
            .filter_map(CpuId::from_u32)
            .filter_map(|cpu| self.of(cpu))
    }

    /// Compares what lies at the address of each run queue with what must be there.
    fn check(&self) -> Result<(), Misfit> {
        for rq in self.iter() {
            // SAFETY: Only read as an integer. If the address were wrong, it would still be within or near the per-CPU
            // variables; the copy does not fault.
            let cpu = unsafe { read_nofault::<i32>(rq.rq.wrapping_add(self.layout.cpu)) };
            if cpu != Some(rq.cpu.into()) {
                return Err(Misfit::Contents("number of a CPU"));
            }

            // SAFETY: As above.
            let idle = unsafe { read_nofault::<usize>(rq.rq.wrapping_add(self.layout.idle)) };
            let idle = idle.map(core::ptr::without_provenance::<u8>);
            let flags = idle.and_then(|idle| {
                let at = idle.wrapping_add(offset_of!(bindings::task_struct, flags));
                // SAFETY: As above.
                unsafe { read_nofault::<u32>(at) }
            });
            let pid = idle.and_then(|idle| {
                let at = idle.wrapping_add(offset_of!(bindings::task_struct, pid));
                // SAFETY: As above.
                unsafe { read_nofault::<i32>(at) }
            });
            // `PF_IDLE` would say more, but is set when the CPU is idle for the first time.
            let wanted = bindings::PF_KTHREAD | bindings::PF_NO_SETAFFINITY;
            if pid != Some(0) || flags.is_none_or(|flags| flags & wanted != wanted) {
                return Err(Misfit::Contents("idle task"));
            }
            if rq.groups().is_some_and(|groups| !groups.check()) {
                return Err(Misfit::Contents("group of all tasks"));
            }
        }

        // What runs here is this.
        let current = Task::current_raw() as usize;
        let seen = || {
            self.iter().any(|rq| {
                // SAFETY: As above.
                let curr = unsafe { read_nofault(rq.rq.wrapping_add(self.layout.curr)) };
                curr == Some(current)
            })
        };
        // It may move while the CPUs are gone through, but not each time.
        if !(0..100).any(|_| seen()) {
            return Err(Misfit::Contents("current task"));
        }
        Ok(())
    }
}

/// The run queue of one CPU.
///
/// # Invariants
///
/// `rq` points to the `struct rq` of `cpu`, laid out as `layout` says.
pub struct RunQueue<'a> {
    rq: *const u8,
    layout: &'a RqLayout,
    cpu: CpuId,
}

impl RunQueue<'_> {
    /// The CPU that the run queue is of.
    pub fn cpu(&self) -> u32 {
        self.cpu.as_u32()
    }

    /// The idle task of the CPU.
    pub fn idle(&self) -> TaskId {
        let at = self.rq.wrapping_add(self.layout.idle).cast::<usize>();

        // SAFETY: By the type invariants, this is a field of the run queue, which is always valid for reading.
        TaskId(unsafe { at.read_volatile() })
    }

    /// Returns whether the CPU is in use at the moment.
    pub fn is_online(&self) -> bool {
        cpu::is_online(self.cpu)
    }

    /// Groups of fair tasks, if those that have used up their time keep their tasks themselves.
    fn groups(&self) -> Option<Groups<'_>> {
        // SAFETY: By the type invariants, the CPU is possible, so that it has an area of per-CPU variables.
        let here = unsafe { bindings::kstat_cpu(self.cpu.into()) } as usize;
        let percpu = here.wrapping_sub(addr_of!(bindings::kstat) as usize);
        let groups = self.layout.groups.as_ref()?;

        Some(Groups::new(groups, self.rq as usize, percpu))
    }

    /// Number of tasks that run or wait to run, at the moment.
    pub fn nr_running(&self) -> usize {
        let at = self.rq.wrapping_add(self.layout.nr_running).cast::<u32>();

        // SAFETY: By the type invariants, this is a field of the run queue, which is always valid for reading.
        unsafe { at.read_volatile() as usize }
    }

    /// Appends the tasks of the run queue to `tasks`, if there is [room](QueuedTasks::room) for all.
    ///
    /// # Errors
    ///
    /// See [`NotCopied`]; nothing is appended then.
    pub fn copy(&self, tasks: &mut QueuedTasks, cost: &mut Cost) -> Result<(), NotCopied> {
        let room = tasks.room().min(MAX_QUEUED);
        let QueuedTasks {
            tasks,
            found,
            lists,
        } = tasks;
        found.clear();
        lists.clear();

        // From before the lock is taken until there are references.
        let rcu = rcu::read_lock();
        if let Some(groups) = self.groups() {
            groups.throttled(&rcu, lists)?;
        }
        let guard = self.try_lock(&mut cost.retries).ok_or(NotCopied::Busy)?;
        let start = ktime_get_ns();
        let mut copy = Copy::new(found, room);
        let copied = guard.copy(lists, &mut copy);
        let ends = copy.ends;
        let idle = guard.task(self.layout.idle);
        let held = ktime_get_ns().wrapping_sub(start);
        drop(guard);
        cost.held_ns = cost.held_ns.max(held);
        copied?;

        let mut start = 0;
        for (queue, end) in QUEUES.into_iter().zip(ends) {
            for &found in found.get(start..end).unwrap_or_default() {
                // SAFETY: A task that a run queue points to or has queued is valid while the lock is held: its last reference is
                // not dropped before it is switched away from and dequeued for the last time. That reference is dropped after a
                // grace period of RCU, which cannot pass before this function returns. `Task` is a transparent wrapper.
                let task: &Task = unsafe { &*found.cast() };

                // There is room for all.
                let _ = tasks.push_within_capacity(QueuedTask {
                    task: task.into(),
                    cpu: self.cpu.as_u32(),
                    queue,
                    idle: core::ptr::eq(found, idle),
                });
            }
            start = end;
        }
        Ok(())
    }

    fn try_lock(&self, retries: &mut u64) -> Option<Locked<'_>> {
        let lock = self.rq.wrapping_add(self.layout.lock).cast_mut().cast();
        let mut flags = 0;

        for _ in 0..LOCK_ATTEMPTS {
            // SAFETY: By the type invariants, `lock` is the lock of the run queue.
            if unsafe { bindings::raw_spin_trylock_irqsave(lock, &mut flags) } != 0 {
                // INVARIANT: The lock was just taken, and `flags` set.
                return Some(Locked { queue: self, flags });
            }
            *retries = retries.wrapping_add(1);
            cpu_relax();
        }
        None
    }
}

/// A run queue whose lock is held.
///
/// # Invariants
///
/// The lock of `queue` is held, and interrupts are off; `flags` is the state they were in before.
struct Locked<'a> {
    queue: &'a RunQueue<'a>,
    flags: usize,
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        let lock = self.queue.rq.wrapping_add(self.queue.layout.lock);

        // SAFETY: By the type invariants, the lock is held, and `flags` is from taking it.
        unsafe { bindings::raw_spin_unlock_irqrestore(lock.cast_mut().cast(), self.flags) };
    }
}

impl Locked<'_> {
    /// Copies all tasks. `lists` are those of groups, which have been found since before the lock was taken, within the same RCU
    /// read-side critical section.
    fn copy(&self, lists: &[usize], copy: &mut Copy<'_>) -> Result<(), NotCopied> {
        let layout = self.queue.layout;

        copy.add(self.task(layout.curr))?;
        copy.end(Queue::Current);
        let node = offset_of!(bindings::task_struct, se.group_node);
        self.list(self.at(layout.cfs_tasks), node, copy)?;
        copy.end(Queue::Fair);
        self.realtime(copy)?;
        copy.end(Queue::Realtime);
        self.deadline(copy)?;
        copy.end(Queue::Deadline);
        #[cfg(CONFIG_SCHED_CLASS_EXT)]
        if let Some(runnable) = layout.scx_runnable {
            let node = offset_of!(bindings::task_struct, scx.runnable_node);
            self.list(self.at(runnable), node, copy)?;
        }
        copy.end(Queue::Ext);
        #[cfg(CONFIG_CFS_BANDWIDTH)]
        for list in lists.iter().copied() {
            let node = offset_of!(bindings::task_struct, throttle_node);
            let list = core::ptr::with_exposed_provenance(list);
            self.list(list, node, copy)?;
        }
        copy.end(Queue::Throttled);
        copy.add(self.task(layout.stop))?;
        copy.end(Queue::Stop);
        Ok(())
    }

    /// Copies the tasks of the list at `head`, linked by their member at offset `node`.
    fn list(&self, head: *const u8, node: usize, copy: &mut Copy<'_>) -> Result<(), NotCopied> {
        // SAFETY: `head` is a list head of the run queue, or of a group's part on this CPU, which RCU keeps; the lock is held.
        unsafe { copy.add_list(head.cast(), node) }
    }

    /// Copies the tasks of the real-time priorities that the bitmap says are in use.
    fn realtime(&self, copy: &mut Copy<'_>) -> Result<(), NotCopied> {
        let bitmap: *const usize = self.at(self.queue.layout.rt_bitmap).cast();
        let bits = usize::BITS as usize;

        for prio in 0..RT_PRIORITIES {
            // SAFETY: By the type invariants, `bitmap` has a bit for each priority.
            let word = unsafe { bitmap.add(prio / bits).read() };

            if word & (1 << (prio % bits)) != 0 {
                let queue = self.queue.layout.rt_queue + prio * size_of::<bindings::list_head>();
                let node = offset_of!(bindings::task_struct, rt.run_list);
                self.list(self.at(queue), node, copy)?;
            }
        }
        Ok(())
    }

    /// Copies the tasks of the deadline tree, which has entries of servers for other classes too.
    fn deadline(&self, copy: &mut Copy<'_>) -> Result<(), NotCopied> {
        let leftmost: *const *const bindings::rb_node =
            self.at(self.queue.layout.dl_leftmost).cast();
        // SAFETY: By the type invariants, this is the pointer to the first node of the deadline tree.
        let mut node = unsafe { leftmost.read() };

        for _ in 0..MAX_QUEUED {
            if node.is_null() {
                return Ok(());
            }
            let entity = node
                .cast::<u8>()
                .wrapping_sub(offset_of!(bindings::sched_dl_entity, rb_node))
                .cast::<bindings::sched_dl_entity>();

            // SAFETY: All nodes of the tree are in deadline entities, valid while the lock is held.
            if unsafe { (*entity).dl_server() } == 0 {
                let task = entity
                    .cast::<u8>()
                    .wrapping_sub(offset_of!(bindings::task_struct, dl));
                copy.add(task.cast())?;
            }
            // SAFETY: `node` is linked into the tree, which does not change while the lock is held.
            node = unsafe { bindings::rb_next(node) };
        }
        Err(NotCopied::Damaged(Cut::TooLong))
    }

    /// Reads the pointer to a task at offset `at`.
    fn task(&self, at: usize) -> *const bindings::task_struct {
        // SAFETY: Each offset that this is called with is that of a pointer to a task, by the type invariants.
        unsafe {
            self.at(at)
                .cast::<*const bindings::task_struct>()
                .read_volatile()
        }
    }

    fn at(&self, offset: usize) -> *const u8 {
        self.queue.rq.wrapping_add(offset)
    }
}

impl QueuedTask {
    /// Identity of the task.
    pub fn id(&self) -> TaskId {
        super::TaskExt::id(&*self.task)
    }
}

/// Checks that the kernel's own table of symbols agrees about the address of `runqueues`, if it has that symbol.
fn check_symbol(layout: &RqLayout) -> Result<(), Misfit> {
    let address = (addr_of!(bindings::kstat) as usize).wrapping_add_signed(layout.from_anchor);
    // `KSYM_SYMBOL_LEN` is the length of a name and some numbers.
    let mut buf = [0_u8; 2 * bindings::KSYM_NAME_LEN as usize];

    // SAFETY: The buffer is longer than `KSYM_SYMBOL_LEN`, the most that the function writes.
    unsafe { bindings::sprint_symbol(buf.as_mut_ptr().cast(), address) };

    // Without a symbol, the address itself is printed.
    if buf.starts_with(b"runqueues+0x0/") || buf.starts_with(b"0x") {
        Ok(())
    } else {
        Err(Misfit::Contents("symbol at that address"))
    }
}
