// SPDX-License-Identifier: GPL-2.0

//! What is done when the device does not send, or keeps a queue that it was to forget: it is reset.
//!
//! The stack's watchdog tells of a queue that has been stopped for five seconds. A notification or an interrupt may have been
//! lost, so the first time the device is told of the queue again, and what it has sent is looked for. When that has brought
//! nothing the next time, the device is reset and told everything again; the interface stays. If nothing is sent after that
//! either, the pauses between resets become twice as long each time.

use crate::interface::Interface;
use guest::{
    net::device::Device,
    virtio,
    workqueue::disable_sync, //
};
use kernel::{
    impl_has_work,
    new_work,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    workqueue::{
        system_freezable,
        Work,
        WorkItem, //
    }, //
};

/// What the watchdog has found of a transmit queue.
pub(crate) struct Watch {
    /// How often it had been stopped for too long.
    timeouts: Atomic<u64>,
    /// How many packets it had sent the last time.
    sent: Atomic<u64>,
    /// How often that has been as many.
    in_vain: Atomic<u32>,
}

impl Watch {
    /// Begins with nothing found.
    pub(crate) fn new() -> Self {
        Self {
            timeouts: Atomic::new(0),
            // No queue has.
            sent: Atomic::new(u64::MAX),
            in_vain: Atomic::new(0),
        }
    }

    /// Returns how often the queue had been stopped for too long.
    pub(crate) fn timeouts(&self) -> u64 {
        self.timeouts.load(Relaxed)
    }

    /// The queue has been stopped for too long, after `sent` packets. Returns whether it is time for a reset. One call at a time.
    fn expire(&self, sent: u64) -> bool {
        self.timeouts
            .store(self.timeouts.load(Relaxed).wrapping_add(1), Relaxed);

        let in_vain = if self.sent.xchg(sent, Relaxed) != sent {
            0
        } else {
            self.in_vain.load(Relaxed).saturating_add(1)
        };
        self.in_vain.store(in_vain, Relaxed);
        in_vain.is_power_of_two()
    }
}

/// Resets a device.
#[pin_data]
pub(crate) struct Recovery {
    vdev: ARef<virtio::Device>,
    #[pin]
    work: Work<Recovery>,
}

impl_has_work! {
    impl HasWork<Self> for Recovery { self.work }
}

impl WorkItem for Recovery {
    type Pointer = Arc<Recovery>;

    fn run(this: Arc<Recovery>) {
        match this.vdev.reset() {
            Ok(()) => dev_info!(this.vdev, "the device was reset\n"),
            // The system sleeps, the function is reset or the driver unbound: then this is not needed, or comes again.
            Err(EBUSY) => {}
            Err(error) => dev_err!(this.vdev, "the device was not reset: {error:?}\n"),
        }
    }
}

impl Recovery {
    /// Makes what can reset `vdev`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(vdev: ARef<virtio::Device>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                vdev,
                work <- new_work!("virtio_net_rust::Recovery::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Resets the device soon, which `fault`. Any context.
    pub(crate) fn begin(self: &Arc<Self>, fault: &str) {
        // It may be under way already.
        if system_freezable().enqueue(self.clone()).is_ok() {
            dev_warn!(
                self.vdev,
                "the device {fault}; it is reset, and what it had not sent is lost\n"
            );
        }
    }

    /// Waits for a reset that is under way, and allows no other one.
    pub(crate) fn stop(self: &Arc<Self>) {
        disable_sync(self);
    }
}

/// A transmit queue has been stopped for too long. Softirqs are off.
pub(crate) fn expire(dev: &Device<Interface>, queue: u16) {
    let data = dev.data();
    let Some(pair) = data.pairs.get(usize::from(queue)) else {
        return;
    };

    if pair.watch.expire(pair.sent()) {
        data.recovery.begin("has stopped sending");
        return;
    }
    if let Some(vq) = pair.queues.tx.lock() {
        vq.notify();
    }
    if let Some(napi) = dev.reclaim(queue) {
        napi.schedule(|| {});
    }
}
