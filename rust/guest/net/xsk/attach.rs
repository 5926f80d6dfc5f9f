// SPDX-License-Identifier: GPL-2.0

//! Binding pools to queues.

use super::{
    Pool,
    Rx,
    RxQueue,
    Tx, //
};
use crate::{
    bindings,
    bottom_half,
    net::{
        buffer::TxFrame,
        device::{
            Device,
            Locked,
            Operations, //
        }, //
    },
    virtio::Queue, //
};
use core::ptr::NonNull;
use kernel::{
    error::from_result,
    prelude::*,
    sync::Arc, //
};

/// The queues that a pool is bound to, and what their device puts before packets.
pub struct Queues<'a> {
    /// It is filled with frames instead of its own buffers.
    pub rx: &'a RxQueue,
    /// The stack goes on to send by it.
    pub tx: &'a Queue<TxFrame>,
    /// The length in bytes of a header: before each packet that is received, and zeros before each that is sent.
    pub header: u32,
}

impl<T: Operations> Locked<T> {
    /// Binds a pool to a pair of queues. Under the rtnl lock and the device's.
    ///
    /// # Safety
    ///
    /// `pool` is valid, bound to nothing, and stays valid until it is unbound from this device.
    unsafe fn bind_pool(&self, pool: NonNull<bindings::xsk_buff_pool>, index: u16) -> Result {
        if u32::from(index) >= self.channels().active {
            return Err(EINVAL);
        }
        let data = self.data();
        let Queues { rx, tx, header } = T::socket_queues(data.get_ref(), index)?;
        let napi = self.receive().get(usize::from(index)).ok_or(EINVAL)?;
        let (_, ring) = tx.sizes().ok_or(ENODEV)?;
        // A frame can be received into and sent: one mapping has to do for both.
        let dma = rx.dma_dev().ok_or(EOPNOTSUPP)?;
        if tx.dma_dev() != Some(dma) {
            return Err(EOPNOTSUPP);
        }

        // SAFETY: By the safety requirements; the device of a queue is valid as long as the driver is bound to it.
        let pool = Arc::new(unsafe { Pool::new(pool, dma) }?, GFP_KERNEL)?;
        // SAFETY: As above; what is made here goes to the lock of the queue that the pool is bound to.
        let sending = unsafe { Tx::new(pool.clone(), dma, ring, header) }?;
        let receiving = {
            let dev = self.as_raw();
            // SAFETY: The instance is this device's, and drops what it gets here; nobody uses the pool's frames.
            unsafe { Rx::new(pool, rx.clone(), dev, napi.as_ptr(), index, header) }?
        };

        napi.pause(|mut paused| {
            let lent = rx.lend();
            if lent.is_err() {
                // It may be as it was already.
                let _ = rx.take_back();
            } else {
                paused.forget();
                *paused.frames = Some(receiving);
            }
            lent
        })
        .inspect_err(|error| self.note_failure(index, *error))?;
        self.exchange_frames(index, Some(sending));
        Ok(())
    }

    /// Unbinds the pool of a pair of queues: all its frames come back. Under the rtnl lock and the device's.
    fn unbind_pool(&self, index: u16) -> Result {
        let data = self.data();
        let Queues { rx, tx, .. } = T::socket_queues(data.get_ref(), index)?;
        let napi = self.receive().get(usize::from(index)).ok_or(EINVAL)?;

        // Where the device is gone what it had came back then. Otherwise a queue can come back empty and out of use.
        let received = napi.pause(|mut paused| {
            let result = rx.take_back();
            paused.forget();
            drop(paused.frames.take());
            result
        });
        let sent = self.interrupt_queue(index, || {
            let result = tx.reset();
            if let Some(mut sending) = self.exchange_frames(index, None) {
                sending.reset();
            }
            Ok(result)
        })?;
        for result in [received, sent] {
            if let Err(error) = result {
                self.note_failure(index, error);
            }
        }
        Ok(())
    }

    /// A queue of a pair could not be reset.
    fn note_failure(&self, index: u16, error: Error) {
        match error {
            // Where the device is gone there is nothing to be done.
            ENODEV => {}
            EBUSY => T::queue_kept(self, index),
            error => pr_err!("{}: queue {index} was not reset: {error:?}\n", self.name()),
        }
    }

    /// Has receive queues, and pools, go on after all buffers in flight were dropped, and perhaps the queues made anew. The interface
    /// is stopped, under the rtnl lock and the device's.
    pub(in crate::net) fn receive_again(&self) {
        for (index, napi) in (0u16..).zip(self.receive()) {
            let bound = napi.pause(|mut paused| {
                paused.forget();
                let rx = paused.frames.as_ref()?;
                // Unless it is already.
                let _ = rx.queue().lend();
                Some(())
            });
            if bound.is_some() {
                self.reset_frames(index);
            }
        }
    }
}

/// `XDP_SETUP_XSK_POOL` of `ndo_bpf`.
///
/// # Safety
///
/// Called under the rtnl lock and the device's; `pool` is null, or valid until the function is called with null for the same queue.
pub(in crate::net) unsafe fn setup_callback<T: Operations>(
    dev: &Locked<T>,
    pool: *mut bindings::xsk_buff_pool,
    index: u16,
) -> c_int {
    from_result(|| {
        match NonNull::new(pool) {
            // SAFETY: By the safety requirements.
            Some(pool) => unsafe { dev.bind_pool(pool, index) }?,
            None => dev.unbind_pool(index)?,
        }
        Ok(0)
    })
}

/// `ndo_xsk_wakeup`.
///
/// # Safety
///
/// The core calls it, with a device of this type, in process or softirq context.
pub(in crate::net) unsafe extern "C" fn wakeup_callback<T: Operations>(
    dev: *mut bindings::net_device,
    index: u32,
    flags: u32,
) -> c_int {
    // SAFETY: The core calls with a valid device of this type.
    let dev = unsafe { Device::<T>::from_raw(dev) };

    from_result(|| {
        let index = u16::try_from(index)?;
        if !dev.is_running() {
            return Err(ENETDOWN);
        }
        let rx = dev.receive().get(usize::from(index)).ok_or(EINVAL)?;
        let tx = dev.reclaim(index).ok_or(EINVAL)?;

        let _off = bottom_half::disable();
        if flags & bindings::XDP_WAKEUP_TX != 0 {
            tx.schedule(|| {});
        }
        if flags & bindings::XDP_WAKEUP_RX != 0 {
            rx.schedule(|| {});
        }
        Ok(0)
    })
}
