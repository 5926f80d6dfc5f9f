// SPDX-License-Identifier: GPL-2.0

//! Completions with a time limit.
//!
//! The kernel crate's `Completion` can only be completed for good and waited for without end; a driver that waits for a
//! device needs neither. What is here would be added to `rust/kernel/sync/completion.rs`.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::bindings;
use kernel::{
    prelude::*,
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    types::Opaque, //
};

/// Something that tasks wait for and that can happen again and again.
///
/// Each [`complete`](Completion::complete) lets one wait through, now or later.
#[pin_data]
pub struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A completion is bound to no thread.
unsafe impl Send for Completion {}

// SAFETY: All operations are synchronised in C.
unsafe impl Sync for Completion {}

impl Completion {
    /// Creates an initializer.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes and pinned from here on.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    /// Lets one wait through. Any context.
    pub fn complete(&self) {
        // SAFETY: The completion is initialised and pinned.
        unsafe { bindings::complete(self.inner.get()) };
    }

    /// Lets every wait through, now and from now on. Any context.
    pub fn complete_all(&self) {
        // SAFETY: The completion is initialised and pinned.
        unsafe { bindings::complete_all(self.inner.get()) };
    }

    /// Waits for at most `timeout` milliseconds, in a way that nobody takes for a task that is stuck. Process context.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`]; [`ERESTARTSYS`] when there is a signal for the task, which never happens to a thread of the kernel.
    pub fn wait_interruptible_timeout(&self, timeout: Msecs) -> Result {
        // SAFETY: The completion is initialised and pinned.
        let left = unsafe {
            bindings::wait_for_completion_interruptible_timeout(
                self.inner.get(),
                msecs_to_jiffies(timeout),
            )
        };

        Self::result(left)
    }

    /// Waits for at most `timeout` milliseconds. Process context.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`]; [`ERESTARTSYS`] when the task is being killed.
    pub fn wait_killable_timeout(&self, timeout: Msecs) -> Result {
        // SAFETY: The completion is initialised and pinned.
        let left = unsafe {
            bindings::wait_for_completion_killable_timeout(
                self.inner.get(),
                msecs_to_jiffies(timeout),
            )
        };

        Self::result(left)
    }

    /// Reads what C says of how a wait ended.
    fn result(left: c_long) -> Result {
        match left {
            0 => Err(ETIMEDOUT),
            1.. => Ok(()),
            _ => Err(ERESTARTSYS),
        }
    }
}
