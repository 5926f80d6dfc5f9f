// SPDX-License-Identifier: GPL-2.0

//! Frames of a pool, and the queue that lends them to a device.

use crate::{
    bindings,
    net::{
        buffer::RxBuffer,
        xdp::RxHash, //
    },
    virtio::{
        buffer::{
            Buffer,
            MappedSegments,
            Premapped,
            Segments, //
        },
        Queue,
        Virtqueues, //
    }, //
};
use core::{
    ffi::c_void,
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A receive queue that can be filled with its own buffers, or with frames of a pool.
#[derive(Clone)]
pub struct RxQueue {
    own: Arc<Queue<RxBuffer>>,
    pub(super) frames: Arc<Queue<Frame>>,
}

impl RxQueue {
    /// Adds the handle for frames to a queue that has been asked for.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(queues: &mut Virtqueues<'_>, own: Arc<Queue<RxBuffer>>) -> Result<Self> {
        let frames = queues.add_alternate(&own, 1)?;

        Ok(Self { own, frames })
    }

    /// Asks the device to interrupt again when it has used a frame. Returns `false` when it has done so meanwhile: poll again.
    pub fn enable_cb(&self) -> bool {
        // A queue without frames interrupts for none.
        self.frames.lock().is_none_or(|mut vq| vq.enable_cb())
    }

    /// Asks the device not to interrupt.
    pub fn disable_cb(&self) {
        if let Some(mut vq) = self.frames.lock() {
            vq.disable_cb();
        }
    }

    /// Notifies the device, whatever the queue is filled with. The caller has no lock of a queue.
    pub fn notify(&self) {
        if let Some(vq) = self.own.lock_bh() {
            vq.notify();
        } else if let Some(vq) = self.frames.lock_bh() {
            vq.notify();
        }
    }

    /// Returns whether the queue is filled with frames. It changes under the device's lock.
    pub fn is_lent(&self) -> bool {
        self.frames.lock_bh().is_some()
    }

    /// Gives the queue a ring of another size, whatever it is filled with, as [`Queue::resize`] does. The instance that polls it is
    /// disabled.
    ///
    /// # Errors
    ///
    /// As [`Queue::resize`].
    pub fn resize(&self, size: u32) -> Result {
        match self.own.resize(size) {
            Err(ENODEV) => self.frames.resize(size),
            result => result,
        }
    }

    /// Has the device forget the queue, whatever it is filled with, as [`Queue::reset`] does. The instance that polls it is disabled.
    ///
    /// # Errors
    ///
    /// As [`Queue::reset`].
    pub fn reset(&self) -> Result {
        match self.own.reset() {
            Err(ENODEV) => self.frames.reset(),
            result => result,
        }
    }

    /// Has the queue filled with frames from now on.
    pub(super) fn lend(&self) -> Result {
        self.own.hand_over(&self.frames)
    }

    /// Has the queue filled with its own buffers again.
    pub(super) fn take_back(&self) -> Result {
        self.frames.hand_over(&self.own)
    }

    /// Returns the device that the queue's memory is to be mapped for.
    pub(super) fn dma_dev(&self) -> Option<NonNull<bindings::device>> {
        self.own.dma_dev()
    }
}

/// What the driver keeps in a frame's control block: how the device is lent it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Control {
    /// Where [`RX_HASH`](crate::net::xdp::RX_HASH) looks for it.
    pub(super) hash: RxHash,
    /// The length of what the device puts before a packet.
    pub(super) header: u32,
    /// How many bytes the device may write.
    pub(super) capacity: u32,
}

const _: () = assert!(offset_of!(bindings::xdp_buff_xsk, cb) == size_of::<bindings::xdp_buff>());

const _: () = assert!(
    size_of::<Control>()
        <= offset_of!(bindings::xdp_buff_xsk, dma) - offset_of!(bindings::xdp_buff_xsk, cb)
);

/// A frame of a pool, for a device to write a packet into.
///
/// # Invariants
///
/// - The pointer is that of the `xdp` member of a `struct xdp_buff_xsk` of a pool that stays valid, and owned by the value.
/// - Its control block holds a [`Control`], for at least as much memory of the frame as that says.
/// - The value is dropped in the poll of the instance that the pool belongs to, or while that is disabled.
pub(in crate::net) struct Frame(pub(super) NonNull<bindings::xdp_buff>);

// SAFETY: A frame is memory, bound to no thread.
unsafe impl Send for Frame {}

impl Frame {
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::xdp_buff {
        self.0.as_ptr()
    }

    #[inline]
    pub(super) fn control(&self) -> Control {
        // The member `xdp` is the first one.
        let frame: *mut bindings::xdp_buff_xsk = self.as_raw().cast();

        // SAFETY: By the type invariants there is such a value, which nobody else writes to.
        unsafe { (&raw const (*frame).cb).cast::<Control>().read_unaligned() }
    }

    /// Has programs find this hash, if they ask for one.
    #[inline]
    pub(super) fn set_hash(&mut self, hash: RxHash) {
        let frame: *mut bindings::xdp_buff_xsk = self.as_raw().cast();

        // SAFETY: By the type invariants the frame is valid and owned; its control block begins with the hash.
        unsafe {
            (&raw mut (*frame).cb)
                .cast::<RxHash>()
                .write_unaligned(hash)
        };
    }

    /// Returns the address at which the device writes.
    #[inline]
    pub(super) fn dma(&self) -> bindings::dma_addr_t {
        // SAFETY: By the type invariant the frame is valid.
        let data = unsafe { bindings::xsk_buff_xdp_get_dma(self.as_raw()) };

        data.wrapping_sub(u64::from(self.control().header))
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the frame is valid and owned, and nobody else uses the pool's list.
        unsafe { bindings::xsk_buff_free(self.as_raw()) };
    }
}

// SAFETY:
// - The pointer is unique while the frame is owned.
// - Nothing but a `Premapped` is lent by its kind of segments: there are none here.
// - `capacity()` is what the segment of `Premapped` has.
unsafe impl Buffer for Frame {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        ManuallyDrop::new(self).0.cast()
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // INVARIANT: By the safety requirements it comes from `into_raw()` and is restored once.
        Self(ptr.cast())
    }

    /// It is only lent by its address for the device.
    fn segments(&self, _list: &mut Segments<'_>) -> Result {
        Err(EINVAL)
    }

    #[inline]
    fn capacity(&self) -> u32 {
        self.control().capacity
    }
}

// SAFETY:
// - `Buffer::from_raw()` restores the very value.
// - The pool stays mapped as long as there are frames of it. The user can access the memory, which surprises nobody else: what is read
//   from it counts as the device's word.
// - The capacity is the segment's length.
unsafe impl Premapped<Frame> for Frame {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        Buffer::into_raw(self)
    }

    #[inline]
    fn segments(&self, list: &mut MappedSegments<'_>) -> Result {
        list.push_in(self.dma(), self.control().capacity)
    }
}
