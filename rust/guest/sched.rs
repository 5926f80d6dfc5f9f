// SPDX-License-Identifier: GPL-2.0

//! Views of the scheduler and of the lists of tasks.
//!
//! Two views of which tasks there are, taken from two places that are kept by different code:
//!
//! - [`rq`]: what runs or waits to run, from the run queue of each CPU;
//! - [`list`]: the processes and their threads, from the lists that the rest of the kernel walks.
//!
//! Both are taken while the system runs. What may be concluded from one view lacking a task that the other has is for the
//! user of this module to know; [`TaskExt`] has what such a decision needs to know of a task.
//!
//! C headers: [`include/linux/sched.h`](srctree/include/linux/sched.h),
//! [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h)

pub mod family;
pub mod kthread;
pub mod layout;
pub mod list;
pub mod peek;
pub mod pids;
pub mod rq;
pub mod switch;

use crate::{
    bindings,
    btf::reader::{
        Kind,
        Source, //
    },
};

use core::mem::{
    offset_of,
    size_of, //
};

use kernel::{
    fmt,
    task::Task, //
};

pub use self::layout::Misfit;

use self::layout::expect_size;

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// Identity of a task, as long as a reference to it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(pub usize);

/// Identity of what the threads of a process share (`struct signal_struct`), as long as a reference to one of them is held.
///
/// It stays the same from the start of a process to its end, also when a thread other than the first executes a program
/// and takes the place of the group's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignalId(pub usize);

/// What [`Task`] lacks.
pub trait TaskExt {
    /// Identity of the task.
    fn id(&self) -> TaskId;

    /// Identity of the process that the task belongs to.
    fn signal_id(&self) -> SignalId;

    /// Returns whether the task has passed the point at which it may be taken off the lists of tasks.
    ///
    /// The kernel sets the state (`exit_state`) before it takes the task off any list, and never clears it. A task that was
    /// missed on a list because it left is therefore seen to have exited by a call after the search.
    fn has_exited(&self) -> bool;

    /// Name of the task. Bytes after the first NUL are left over from longer names.
    ///
    /// A task may change its name at any time; the result may be a mix of two then.
    fn comm(&self) -> [u8; 16];
}

impl TaskExt for Task {
    #[inline]
    fn id(&self) -> TaskId {
        TaskId(self.as_ptr() as usize)
    }

    #[inline]
    fn signal_id(&self) -> SignalId {
        // SAFETY: The existence of the reference means that the task is valid. Its signal structure is set before the task is
        // made known to anybody, and not changed after that.
        SignalId(unsafe { (*self.as_ptr()).signal } as usize)
    }

    #[inline]
    fn has_exited(&self) -> bool {
        // Pairs with the order in which the kernel stores the exit state and takes the task off its lists.
        kernel::sync::barrier::smp_mb(kernel::sync::barrier::Read);

        // SAFETY: The existence of the reference means that the task is valid.
        let state = unsafe { &raw const (*self.as_ptr()).exit_state };
        // SAFETY: As above. Other CPUs may write the field: a volatile read of an aligned integer is `READ_ONCE()`.
        unsafe { state.read_volatile() != 0 }
    }

    #[inline]
    fn comm(&self) -> [u8; 16] {
        // SAFETY: The existence of the reference means that the task is valid.
        let comm = unsafe { &raw const (*self.as_ptr()).comm };
        // SAFETY: As above. The name may change meanwhile; a volatile read gives some bytes for each byte of it.
        unsafe { comm.cast::<[u8; 16]>().read_volatile() }
    }
}

/// Waits until all that runs with interrupts off, or within an RCU read-side critical section, at the time of the call has ended
/// that. Sleeps.
pub fn grace_period() {
    // SAFETY: No requirements but that the caller may sleep, and is in no critical section, which would be a deadlock only.
    unsafe { bindings::synchronize_rcu() };
}

/// Reads from an address that may not be valid.
///
/// # Safety
///
/// Any value must be valid for `T`.
pub(crate) unsafe fn read_nofault<T>(at: *const u8) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();

    // SAFETY: `value` is valid for writing its size; the source may be any address.
    let ret = unsafe {
        bindings::copy_from_kernel_nofault(value.as_mut_ptr().cast(), at.cast(), size_of::<T>())
    };
    // SAFETY: All of it was written, and any value is valid by the safety requirements.
    (ret == 0).then(|| unsafe { value.assume_init() })
}

/// Checks that the running kernel's tasks are laid out as in the headers that this code was built with.
///
/// # Errors
///
/// What is missing or differs.
fn check_task(btf: &impl Source<'static>) -> Result<(), Misfit> {
    let task = btf
        .find("task_struct", Kind::Struct)
        .ok_or(Misfit::Missing("struct task_struct"))?;
    let size = task.size().ok_or(Misfit::Missing("size of task_struct"))? as usize;
    expect_size(
        "struct task_struct",
        size_of::<bindings::task_struct>(),
        size,
    )?;

    let signal = btf
        .find("signal_struct", Kind::Struct)
        .ok_or(Misfit::Missing("struct signal_struct"))?;

    let pid = btf
        .find("pid", Kind::Struct)
        .ok_or(Misfit::Missing("struct pid"))?;

    macro_rules! check {
        ($outer:ident: $name:ident, $($field:ident).+) => {{
            let what = concat!(stringify!($name) $(, ".", stringify!($field))+);
            let path = what.split_once('.').map_or(what, |(_, path)| path);
            let want = offset_of!(bindings::$name, $($field).+);
            let have = btf.field(&$outer, path).ok_or(Misfit::Missing(what))?.offset;
            if want != have {
                return Err(Misfit::Offset { what, want, have });
            }
        }};
    }

    check!(task: task_struct, thread_info.cpu);
    check!(task: task_struct, usage);
    check!(task: task_struct, flags);
    check!(task: task_struct, se.group_node);
    check!(task: task_struct, se.sum_exec_runtime);
    check!(task: task_struct, rt.run_list);
    check!(task: task_struct, dl.rb_node);
    check!(task: task_struct, dl.flags);
    #[cfg(CONFIG_SCHED_CLASS_EXT)]
    check!(task: task_struct, scx.runnable_node);
    #[cfg(CONFIG_CFS_BANDWIDTH)]
    check!(task: task_struct, throttle_node);
    check!(task: task_struct, tasks);
    check!(task: task_struct, mm);
    check!(task: task_struct, exit_state);
    check!(task: task_struct, pid);
    check!(task: task_struct, tgid);
    check!(task: task_struct, thread_node);
    check!(task: task_struct, __state);
    check!(task: task_struct, real_parent);
    check!(task: task_struct, children);
    check!(task: task_struct, sibling);
    check!(task: task_struct, group_leader);
    check!(task: task_struct, thread_pid);
    check!(task: task_struct, pid_links);
    check!(task: task_struct, worker_private);
    check!(task: task_struct, start_boottime);
    check!(task: task_struct, comm);
    check!(task: task_struct, signal);
    check!(signal: signal_struct, thread_head);
    check!(pid: pid, tasks);
    check!(pid: pid, numbers);
    Ok(())
}
