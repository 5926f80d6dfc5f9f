// SPDX-License-Identifier: GPL-2.0

//! Looks at tasks that may not be what they seem.
//!
//! What a link leads to is a task only if nobody has tampered with the link. A [`Peek`] reads each field as what may not be there:
//! it gives some bits, or nothing, but never a fault, and it writes nothing and takes no reference. Within the RCU read-side
//! critical section in which the task was met, the bits are those of the same task.
//!
//! C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)

use super::{
    SignalId,
    TaskExt,
    TaskId, //
};
use crate::bindings;

use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        size_of, //
    },
};

use kernel::{
    sync::{
        barrier::{
            smp_mb,
            Read, //
        },
        rcu, //
    },
    task::Task,
};

/// Reads the word at the address `at`, if there is one.
#[inline]
pub(crate) fn word(at: usize) -> Option<usize> {
    let mut word = 0;

    // SAFETY: `word` is valid for writing; the function takes any address.
    unsafe {
        bindings::read_kernel_word(&mut word, core::ptr::without_provenance(at)).then_some(word)
    }
}

/// Reads the aligned half of a word at the address `at`, if there is one.
#[inline]
pub(crate) fn half(at: usize) -> Option<u32> {
    let word = word(at & !(size_of::<usize>() - 1))?;
    let bytes = word.to_ne_bytes();
    let (low, high) = bytes.split_at(4);
    let bytes = if at & 4 == 0 { low } else { high };

    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// What is taken for a task, within an RCU read-side critical section.
#[derive(Clone, Copy)]
pub struct Peek<'rcu> {
    task: usize,
    _rcu: PhantomData<&'rcu rcu::Guard>,
}

/// Reads a field of a task.
macro_rules! field {
    ($read:ident, $peek:expr, $($field:ident).+) => {
        $read($peek.task.wrapping_add(offset_of!(bindings::task_struct, $($field).+)))
    };
}

impl<'rcu> Peek<'rcu> {
    /// Looks at what lies at the address `id`.
    #[inline]
    pub fn new(_guard: &'rcu rcu::Guard, id: TaskId) -> Self {
        Peek {
            task: id.0,
            _rcu: PhantomData,
        }
    }

    /// The task's identity.
    #[inline]
    pub fn id(self) -> TaskId {
        TaskId(self.task)
    }

    /// Identity of its process.
    #[inline]
    pub fn process(self) -> Option<SignalId> {
        field!(word, self, signal).map(SignalId)
    }

    /// Returns whether it has passed the point at which it may be taken off the lists; see [`TaskExt::has_exited`].
    #[inline]
    pub fn has_exited(self) -> bool {
        // Pairs with the order in which the kernel stores the exit state and takes the task off its lists.
        smp_mb(Read);
        field!(half, self, exit_state) != Some(0)
    }

    /// Returns whether it is the leader of its threads.
    #[inline]
    pub fn is_leader(self) -> bool {
        field!(word, self, group_leader) == Some(self.task)
    }

    /// Returns whether it has not been woken for the first time, before which it is put on all lists.
    pub fn is_new(self) -> bool {
        field!(half, self, __state).is_none_or(|state| state & bindings::TASK_NEW != 0)
    }

    /// Its `__state`, `flags` and `exit_state`, as the kernel's headers number them.
    pub fn raw_states(self) -> (u32, u32, u32) {
        (
            field!(half, self, __state).unwrap_or(0),
            field!(half, self, flags).unwrap_or(0),
            field!(half, self, exit_state).unwrap_or(0),
        )
    }

    /// Returns whether it has memory of its own, as one that has exited has not.
    pub fn has_memory(self) -> bool {
        // The kernel takes the memory before it stores the exit state; who has seen the latter sees the former.
        smp_mb(Read);
        field!(word, self, mm).is_some_and(|mm| mm != 0)
    }

    /// Returns whether it says to be a thread of the kernel.
    pub fn is_kthread(self) -> bool {
        field!(half, self, flags).unwrap_or(0) & bindings::PF_KTHREAD != 0
    }

    /// Returns whether it has begun to exit, though it may still be on the lists. What was read before this call was read before.
    pub fn is_exiting(self) -> bool {
        smp_mb(Read);
        field!(half, self, flags).unwrap_or(0) & bindings::PF_EXITING != 0
    }

    /// Returns whether it says to be a thread of the kernel, and lacks what the kernel gives each of those before it is made
    /// known.
    pub fn is_forged_kthread(self) -> bool {
        self.is_kthread() && field!(word, self, worker_private) == Some(0)
    }

    /// Returns whether it says to be idle, as a thread of the kernel may do, but has memory of its own.
    pub fn is_forged_idle(self) -> bool {
        let flags = field!(half, self, flags).unwrap_or(0);

        flags & bindings::PF_IDLE != 0 && self.has_memory()
    }

    /// Nanoseconds for which it has had a CPU, as the clock measures them.
    pub fn runtime(self) -> u64 {
        field!(word, self, se.sum_exec_runtime).unwrap_or(0) as u64
    }

    /// Its number, and that of its process.
    pub fn numbers(self) -> (i32, i32) {
        // CAST: The bits of the number.
        let number = |half: Option<u32>| half.unwrap_or(0) as i32;

        (
            number(field!(half, self, pid)),
            number(field!(half, self, tgid)),
        )
    }

    /// Nanoseconds after the system's start at which it was made: with the address, this tells it from others.
    pub fn start_time(self) -> u64 {
        field!(word, self, start_boottime).unwrap_or(0) as u64
    }

    /// The CPU that it ran on last.
    pub fn cpu(self) -> u32 {
        field!(half, self, thread_info.cpu).unwrap_or(0)
    }

    /// Its name; see [`TaskExt::comm`].
    pub fn comm(self) -> [u8; 16] {
        let at = self
            .task
            .wrapping_add(offset_of!(bindings::task_struct, comm));
        let at = core::ptr::without_provenance(at);

        // SAFETY: Any bytes are some bytes.
        unsafe { super::read_nofault(at) }.unwrap_or_default()
    }

    /// The address of its field at `offset`.
    #[inline]
    pub(super) fn at(self, offset: usize) -> usize {
        self.task.wrapping_add(offset)
    }
}

impl<'rcu> From<(&'rcu rcu::Guard, &Task)> for Peek<'rcu> {
    fn from((guard, task): (&'rcu rcu::Guard, &Task)) -> Self {
        Peek::new(guard, task.id())
    }
}
