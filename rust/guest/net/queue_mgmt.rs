// SPDX-License-Identifier: GPL-2.0

//! Queue management: a receive queue is restarted by itself, with memory of its own, while the other queues go on.
//!
//! The stack does this when the memory that a queue receives into is to be another's. It
//!
//! 1. makes a page pool, before anything is stopped;
//! 2. stops the queue: its NAPI instance is disabled, [`Operations::reset_receive_queue`] has the device forget the queue, and the
//!    instance gives its pool away;
//! 3. starts the queue: the instance gets the new pool, fills the ring and is enabled, which cannot fail;
//! 4. frees the old pool, which lasts until the last of its pages has come back.
//!
//! If 2 fails the queue goes on with its old pool, and the new one is freed.
//!
//! All of it is under the device's lock, without the rtnl lock. A pool lies in memory of the stack's, of the size that the operations
//! name: it moves in with 1 or 2 and out with 3 or 4.
//!
//! C header: [`include/net/netdev_queues.h`](srctree/include/net/netdev_queues.h)

use super::{
    device::{
        Device,
        Locked, //
    },
    napi::Napi,
    operations::Operations,
    page_pool::Pool, //
};
use crate::bindings;
use core::{
    ffi::c_void,
    marker::PhantomData, //
};
use kernel::{
    error::from_result,
    prelude::*, //
};

/// The operations as C has them.
pub(super) struct Callbacks<T: Operations>(PhantomData<T>);

impl<T: Operations> Callbacks<T> {
    pub(super) const OPS: bindings::netdev_queue_mgmt_ops = bindings::netdev_queue_mgmt_ops {
        ndo_queue_mem_size: size_of::<Pool>(),
        ndo_queue_mem_alloc: Some(Self::queue_mem_alloc),
        ndo_queue_mem_free: Some(Self::queue_mem_free),
        ndo_queue_start: Some(Self::queue_start),
        ndo_queue_stop: Some(Self::queue_stop),
        ..pin_init::zeroed()
    };

    /// Returns the number and the instance of the receive queue that the stack means.
    fn queue(dev: &Device<T>, queue: c_int) -> Result<(u16, &Napi<T::Receive>)> {
        let queue = u16::try_from(queue)?;
        let napi = dev.receive().get(usize::from(queue)).ok_or(EINVAL)?;

        Ok((queue, napi))
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that was made for `T`, and in `memory` room for a [`Pool`], of which it passes on what is
    /// there afterwards, to [`queue_start`](Self::queue_start) or [`queue_mem_free`](Self::queue_mem_free), before the device goes.
    unsafe extern "C" fn queue_mem_alloc(
        dev: *mut bindings::net_device,
        _config: *mut bindings::netdev_queue_config,
        memory: *mut c_void,
        queue: c_int,
    ) -> c_int {
        // `kvzalloc()` is not asked for more.
        const { assert!(align_of::<Pool>() <= align_of::<u64>()) };

        from_result(|| {
            // SAFETY: The stack calls with a valid device of this type.
            let dev = unsafe { Device::<T>::from_raw(dev) };
            let (_, napi) = Self::queue(dev, queue)?;

            // SAFETY: The stack frees it before the device goes, or starts the queue with it.
            let pool = unsafe { napi.another_pool() }?;
            // SAFETY: The stack has made room for it.
            unsafe { memory.cast::<Pool>().write(pool) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// The stack calls it once for each pool that has moved into its memory, and not out of it.
    unsafe extern "C" fn queue_mem_free(_dev: *mut bindings::net_device, memory: *mut c_void) {
        // SAFETY: There is a pool in it, which nobody uses any more.
        unsafe { memory.cast::<Pool>().drop_in_place() };
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that was made for `T` and whose lock is held, and a pool in `memory`, which moves out if this
    /// succeeds.
    unsafe extern "C" fn queue_start(
        dev: *mut bindings::net_device,
        _config: *mut bindings::netdev_queue_config,
        memory: *mut c_void,
        queue: c_int,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The stack calls with a valid device of this type, and its lock held.
            let dev = unsafe { Locked::<T>::from_raw(dev) };
            let (_, napi) = Self::queue(dev, queue)?;

            // SAFETY: There is a pool in it, which moves out.
            napi.start(unsafe { memory.cast::<Pool>().read() });
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that was made for `T` and whose lock is held, and room for a pool in `memory`, into which one
    /// moves if this succeeds.
    unsafe extern "C" fn queue_stop(
        dev: *mut bindings::net_device,
        memory: *mut c_void,
        queue: c_int,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The stack calls with a valid device of this type, and its lock held.
            let dev = unsafe { Locked::<T>::from_raw(dev) };
            let (queue, napi) = Self::queue(dev, queue)?;

            let pool = napi.stop(|| T::reset_receive_queue(dev, queue))?;
            // SAFETY: The stack has made room for it.
            unsafe { memory.cast::<Pool>().write(pool) };
            Ok(0)
        })
    }
}
