// SPDX-License-Identifier: GPL-2.0

//! The callback of a queue.

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

/// A queue's interrupt, in its callback. Hard interrupt context.
///
/// # Invariants
///
/// `vq` is valid as long as the value exists.
pub struct Interrupt<'a> {
    vq: NonNull<bindings::virtqueue>,
    _callback: PhantomData<&'a ()>,
}

impl Interrupt<'_> {
    /// # Safety
    ///
    /// `vq` is valid as long as the value exists.
    #[inline]
    pub(in crate::virtio) unsafe fn new(vq: NonNull<bindings::virtqueue>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            vq,
            _callback: PhantomData,
        }
    }

    /// Returns the queue's number in the device.
    #[inline]
    pub fn index(&self) -> u32 {
        // SAFETY: By the type invariant `vq` is valid; its index never changes.
        unsafe { (*self.vq.as_ptr()).index }
    }

    /// Asks the device not to interrupt any more, before the work is handed to NAPI or a work item.
    ///
    /// The queue may be in use on another CPU; as in C, at worst one more interrupt comes.
    #[inline]
    pub fn disable_cb(&self) {
        // SAFETY: By the type invariant `vq` is valid.
        unsafe { bindings::virtqueue_disable_cb(self.vq.as_ptr()) };
    }
}
