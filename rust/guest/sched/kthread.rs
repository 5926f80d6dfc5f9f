// SPDX-License-Identifier: GPL-2.0

//! Threads of the kernel: the function that each was made for.
//!
//! `struct kthread` is private to the kernel; where in it the function is, its BTF says.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use super::{
    peek::{
        word,
        Peek, //
    },
    Misfit, //
};
use crate::{
    bindings,
    btf::{
        reader::{
            Kind,
            Source, //
        },
        Vmlinux, //
    },
};

use core::mem::offset_of;

/// How threads of the kernel are laid out.
pub struct Kthreads {
    threadfn: usize,
}

impl Kthreads {
    /// Looks that up for the running kernel.
    ///
    /// # Errors
    ///
    /// Says what is missing.
    pub fn find() -> Result<Self, Misfit> {
        let btf = Vmlinux::get().map_err(|_| Misfit::NoBtf)?;
        let kthread = btf
            .find("kthread", Kind::Struct)
            .ok_or(Misfit::Missing("struct kthread"))?;
        let threadfn = btf
            .field(&kthread, "threadfn")
            .ok_or(Misfit::Missing("kthread.threadfn"))?;

        Ok(Kthreads {
            threadfn: threadfn.offset,
        })
    }

    /// The function that a task was made for, if it is a thread of the kernel that was made for one.
    pub fn entry(&self, task: Peek<'_>) -> Option<usize> {
        if !task.is_kthread() {
            return None;
        }
        let kthread = word(task.at(offset_of!(bindings::task_struct, worker_private)))?;

        word(kthread.wrapping_add(self.threadfn)).filter(|&function| function != 0)
    }
}
