// SPDX-License-Identifier: GPL-2.0

//! XDP sockets (AF_XDP): user space receives and sends in memory of its own, without copies.
//!
//! A socket is bound to one receive and one transmit queue. Its pool of frames takes the place of the receive queue's own memory: the
//! device writes packets into frames that the user has made available, a program decides which of them the socket gets, and what
//! it sends goes out by the transmit queue, which the stack still uses too.
//!
//! # Who owns a frame
//!
//! - The user, who makes it available to receive into, or asks to have it sent.
//! - A [`RxQueue`], from [`Context::lend_frames`] until [`Context::next_frame`]; or a transmit queue, from
//!   [`TxQueue::send_frames`](super::transmit::TxQueue::send_frames) until
//!   [`TxQueue::frames_sent`](super::transmit::TxQueue::frames_sent).
//! - A [`Packet`], in the poll that has received it: it goes to the socket, or back to the pool.
//!
//! The user can read and write a frame at any time, whoever owns it. So all that is read from one counts as the device's word: it is
//! copied first and then looked at.
//!
//! # Locking
//!
//! What receives belongs to the poll of the receive queue's NAPI instance, and what sends to the lock of the transmit queue, as everything
//! else that these queues have. A pool comes and goes under the device's lock, while the receive queue's instance is disabled and with the
//! transmit queue's lock held.
//!
//! # When a frame is dropped
//!
//! A pool has no lock for its list of free frames: only the poll of the receive queue's instance uses it, or whoever has disabled that.
//! So a frame lives only in the poll, in what the poll owns, and in the queue, which is emptied when the instance is disabled.
//!
//! C header: [`include/net/xdp_sock_drv.h`](srctree/include/net/xdp_sock_drv.h)
//!
//! [`Context::lend_frames`]: super::napi::Context::lend_frames
//! [`Context::next_frame`]: super::napi::Context::next_frame

mod attach;
mod order;
mod packet;
mod queue;
mod rx;
mod tx;

pub use self::{
    attach::Queues,
    packet::Packet,
    queue::RxQueue,
    rx::Lent,
    tx::Descriptors, //
};
pub(super) use self::{
    attach::{
        setup_callback,
        wakeup_callback, //
    },
    rx::Rx,
    tx::Tx, //
};

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// A pool of frames, mapped for a device.
///
/// # Invariants
///
/// `pool` is valid, and its memory is mapped for its device, until the value is dropped, under the device's lock.
struct Pool(NonNull<bindings::xsk_buff_pool>);

// SAFETY: A pool is bound to no thread.
unsafe impl Send for Pool {}

// SAFETY: What uses it says which lock it needs.
unsafe impl Sync for Pool {}

impl Pool {
    /// Maps the memory of a pool.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `pool` is valid and not mapped, and stays valid until the value is dropped; `dev` is valid as long. The rtnl lock is held now
    /// and then.
    unsafe fn new(
        pool: NonNull<bindings::xsk_buff_pool>,
        dev: NonNull<bindings::device>,
    ) -> Result<Self> {
        // SAFETY: By the safety requirements.
        to_result(unsafe { bindings::xsk_pool_dma_map(pool.as_ptr(), dev.as_ptr(), 0) })?;

        // INVARIANT: It has just been mapped.
        Ok(Self(pool))
    }

    #[inline]
    fn as_ptr(&self) -> *mut bindings::xsk_buff_pool {
        self.0.as_ptr()
    }

    /// Returns the device that the memory is mapped for.
    #[inline]
    fn dev(&self) -> *mut bindings::device {
        // SAFETY: By the type invariant the pool is valid; this does not change while it is mapped.
        unsafe { (*self.as_ptr()).dev }
    }

    /// Returns whether the user wants to know when the driver waits.
    #[inline]
    fn uses_need_wakeup(&self) -> bool {
        // SAFETY: By the type invariant the pool is valid.
        unsafe { bindings::xsk_uses_need_wakeup(self.as_ptr()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the pool is valid and mapped, and the lock is held.
        unsafe { bindings::xsk_pool_dma_unmap(self.as_ptr(), 0) };
    }
}
