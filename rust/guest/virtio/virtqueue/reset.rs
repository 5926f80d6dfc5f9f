// SPDX-License-Identifier: GPL-2.0

//! Queues that the device is to forget: virtqueue reset (VirtIO 1.3, 2.6.1).

use super::{
    lent::Guard,
    Buffer,
    Queue, //
};
use crate::{
    bindings,
    virtio::is_present, //
};
use core::{
    ffi::c_void,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc, //
};

impl<B: Buffer> Queue<B> {
    /// Gives the queue a ring of `size` entries (VirtIO 1.3, 2.6.1: virtqueue reset), and drops all buffers in flight. Sleeps.
    /// Meanwhile [`lock`](Self::lock) returns [`None`].
    ///
    /// # Errors
    ///
    /// [`ENOENT`]: the device cannot reset a queue. [`E2BIG`]: the device allows no ring of that size; [`EINVAL`]: it is 0.
    /// [`ENOMEM`]: the ring is as large as before, and empty. [`EBUSY`]: the device did not reset it, or does not take it back;
    /// nothing can be added and nothing comes back until the device is reset. [`ENODEV`]: the device is gone; nothing comes back.
    pub fn resize(&self, size: u32) -> Result {
        let life = self.life.lock();
        let vq = self.take_present(&life).ok_or(ENODEV)?;

        // SAFETY: `vq` is valid as long as the queue's life is held, and nobody else can reach it now.
        let result = to_result(unsafe {
            bindings::virtqueue_resize(vq.as_ptr(), size, Some(Self::recycle_callback), None)
        });

        // SAFETY: As above.
        unsafe { give_up(vq, &result) };
        self.put(&life, vq);
        result
    }

    /// Has the device forget the queue (VirtIO 1.3, 2.6.1: virtqueue reset), drops all buffers in flight, and begins anew. Sleeps.
    /// Meanwhile [`lock`](Self::lock) returns [`None`].
    ///
    /// # Errors
    ///
    /// As [`resize`](Self::resize).
    pub fn reset(&self) -> Result {
        self.reset_then(|| {})
    }

    /// Does the same, and calls `settle` when nothing that was added before comes back any more, and before anybody can add something
    /// again: also after an error, unless that is [`ENODEV`], [`ENOENT`] or [`EPERM`].
    ///
    /// # Errors
    ///
    /// As [`resize`](Self::resize).
    pub fn reset_then(&self, settle: impl FnOnce()) -> Result {
        let life = self.life.lock();
        let vq = self.take_present(&life).ok_or(ENODEV)?;

        // SAFETY: `vq` is valid as long as the queue's life is held, and nobody else can reach it now.
        let result = to_result(unsafe {
            bindings::virtqueue_reset(vq.as_ptr(), Some(Self::recycle_callback), None)
        });

        // SAFETY: As above.
        unsafe { give_up(vq, &result) };
        if !matches!(result, Err(ENOENT | EPERM)) {
            settle();
        }
        self.put(&life, vq);
        result
    }

    /// Has the device forget the queue, as [`reset`](Self::reset) does, and `other` have it from then on: another handle of the
    /// same queue. Sleeps.
    ///
    /// # Errors
    ///
    /// As [`resize`](Self::resize), with [`ENODEV`] also when it is `other` that has the queue. [`EINVAL`]: they are not handles
    /// of the same queue. Unless it is one of these two, [`ENOENT`] or [`EPERM`], which change nothing, `other` has it after an error
    /// too, empty and out of use.
    pub fn hand_over<C: Buffer>(&self, other: &Queue<C>) -> Result {
        if !Arc::ptr_eq(&self.life, &other.life) {
            return Err(EINVAL);
        }
        let life = self.life.lock();
        let vq = self.take_present(&life).ok_or(ENODEV)?;

        // SAFETY: `vq` is valid as long as the queue's life is held, and nobody else can reach it now.
        let result = to_result(unsafe {
            bindings::virtqueue_reset(vq.as_ptr(), Some(Self::recycle_callback), None)
        });

        // SAFETY: As above.
        unsafe { give_up(vq, &result) };
        match result {
            Err(ENOENT | EPERM) => self.put(&life, vq),
            _ => {
                // SAFETY: `vq` is valid as long as the queue's life is held, and nobody else can reach it now.
                unsafe { abandon(vq) };
                // INVARIANT: No token is left in it.
                other.put(&life, vq);
            }
        }
        result
    }

    /// Returns the number of entries of the ring, and the most that the device allows, whichever handle has the queue. Sleeps.
    ///
    /// Returns [`None`] when the device is gone.
    pub fn sizes(&self) -> Option<(u32, u32)> {
        let life = self.life.lock();
        let vq = life.vq?.as_ptr();

        // SAFETY: `vq` is valid as long as the queue's life is held.
        let size = unsafe { bindings::virtqueue_get_vring_size(vq) };
        // SAFETY: As above; the number never changes.
        Some((size, unsafe { (*vq).num_max }))
    }

    /// Returns the device that the queue's memory is to be mapped for, if it wants that done and nobody does it in another way.
    pub(crate) fn dma_dev(&self) -> Option<NonNull<bindings::device>> {
        let life = self.life.lock();

        // SAFETY: The queue is valid as long as its life is held.
        NonNull::new(unsafe { bindings::virtqueue_dma_dev(life.vq?.as_ptr()) })
    }

    /// Takes the queue of the C core away: nobody else reaches it then.
    pub(super) fn take(&self, life: &Guard<'_>) -> Option<NonNull<bindings::virtqueue>> {
        let mut taken = None;

        self.with_inner(life, |inner| taken = inner.vq.take());
        taken
    }

    /// The same with a device that is there, and [`None`] with one that is not: the core would wait for its answer without end.
    fn take_present(&self, life: &Guard<'_>) -> Option<NonNull<bindings::virtqueue>> {
        let vq = self.take(life)?;
        // SAFETY: `vq` is valid as long as the queue's life is held.
        let vdev = unsafe { (*vq.as_ptr()).vdev };

        // SAFETY: A queue belongs to a valid device.
        if unsafe { is_present(vdev) } {
            return Some(vq);
        }
        // SAFETY: As above.
        unsafe { bindings::__virtqueue_break(vq.as_ptr()) };
        self.put(life, vq);
        None
    }

    /// Puts the queue of the C core where it is reached.
    pub(super) fn put(&self, life: &Guard<'_>, vq: NonNull<bindings::virtqueue>) {
        self.with_inner(life, |inner| inner.vq = Some(vq));
    }

    /// # Safety
    ///
    /// The C core calls it, with a token of a queue of this type, once for each.
    unsafe extern "C" fn recycle_callback(_vq: *mut bindings::virtqueue, token: *mut c_void) {
        if let Some(token) = NonNull::new(token) {
            // SAFETY: By the type invariant of `Inner`, `token` comes from `B::into_raw()`; the core returns it once.
            drop(unsafe { B::from_raw(token) });
        }
    }
}

/// Puts a queue out of use that the device keeps: whoever has asked for the reset takes what was in flight for dropped, and must
/// not get it back later.
///
/// # Safety
///
/// `vq` is valid, and nobody else can reach it. `result` is that of its reset.
unsafe fn give_up(vq: NonNull<bindings::virtqueue>, result: &Result) {
    if matches!(result, Err(EBUSY)) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::__virtqueue_break(vq.as_ptr()) };
    }
}

/// Empties a queue after its reset: there is something in it only if the transport has failed before the reset, and then the device may
/// still write to it. So it is never freed.
///
/// # Safety
///
/// `vq` is valid, and nobody else can reach it.
unsafe fn abandon(vq: NonNull<bindings::virtqueue>) {
    // Each call removes one, so the loop ends.
    // SAFETY: By the safety requirements.
    while !unsafe { bindings::virtqueue_detach_unused_buf(vq.as_ptr()) }.is_null() {}
}
