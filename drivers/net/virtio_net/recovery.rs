// SPDX-License-Identifier: GPL-2.0

//! What is done when the device does not send, or keeps a queue that it was to forget, or is to merge packets or not and has no
//! command for that: it is reset.
//!
//! The stack's watchdog tells of a queue that has been stopped for five seconds. A notification or an interrupt may have been
//! lost, so the first time the device is told of the queue again, and what it has sent is looked for. When that has brought
//! nothing the next time, the device is reset and told everything again; the interface stays. If nothing is sent after that
//! either, the pauses between resets become twice as long each time.

use crate::interface::Interface;
use guest::{
    net::device::Device,
    virtio,
    workqueue::disable_delayed_sync, //
};
use kernel::{
    impl_has_delayed_work,
    new_delayed_work,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    time::{
        msecs_to_jiffies,
        Jiffies,
        Msecs, //
    },
    workqueue::{
        system_freezable,
        DelayedWork,
        WorkItem, //
    }, //
};

/// After how many milliseconds a reset is tried again that was not possible.
const RETRY: Msecs = 1000;

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
    /// It is to be reset for what it does.
    faulty: Atomic<bool>,
    /// Whether it is to merge packets that the guest receives.
    merge: Atomic<bool>,
    /// Whether it knows that it may.
    merges: Atomic<bool>,
    #[pin]
    work: DelayedWork<Recovery>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Recovery { self.work }
}

impl WorkItem for Recovery {
    type Pointer = Arc<Recovery>;

    fn run(this: Arc<Recovery>) {
        // Another reset may have done it.
        if !this.is_due() {
            return;
        }
        match this.vdev.reset() {
            Ok(()) => dev_info!(this.vdev, "the device was reset\n"),
            // It is bound, suspended or reset by somebody else, or merely looked at. When it is unbound there is no next time.
            Err(EBUSY) if this.is_due() => this.enqueue(msecs_to_jiffies(RETRY)),
            Err(error) => dev_err!(this.vdev, "the device was not reset: {error:?}\n"),
        }
    }
}

impl Recovery {
    /// Makes what can reset `vdev`, which merges packets if that was negotiated.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(vdev: ARef<virtio::Device>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                vdev,
                faulty: Atomic::new(false),
                merge: Atomic::new(true),
                merges: Atomic::new(true),
                work <- new_delayed_work!("virtio_net_rust::Recovery::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Resets the device soon, which `fault`. Any context.
    pub(crate) fn begin(self: &Arc<Self>, fault: &str) {
        if !self.faulty.load(Relaxed) {
            dev_warn!(
                self.vdev,
                "the device {fault}; it is reset, and what it had not sent is lost\n"
            );
        }
        self.faulty.store(true, Relaxed);
        self.enqueue(0);
    }

    /// Has the device merge packets that the guest receives, if that can be negotiated, or not: soon, by a reset.
    pub(crate) fn set_merging(self: &Arc<Self>, merge: bool) {
        self.merge.store(merge, Relaxed);
        self.enqueue(0);
    }

    /// The device is being reset, whoever wants that. Returns whether it is to merge packets afterwards.
    pub(crate) fn negotiate(&self) -> bool {
        let merge = self.merge.load(Relaxed);

        self.faulty.store(false, Relaxed);
        self.merges.store(merge, Relaxed);
        merge
    }

    /// Returns whether there is a reason for a reset.
    fn is_due(&self) -> bool {
        self.faulty.load(Relaxed) || self.merge.load(Relaxed) != self.merges.load(Relaxed)
    }

    fn enqueue(self: &Arc<Self>, delay: Jiffies) {
        // It may be queued already.
        let _ = system_freezable().enqueue_delayed::<_, 0>(self.clone(), delay);
    }

    /// Waits for a reset that is under way, and allows no other one.
    pub(crate) fn stop(self: &Arc<Self>) {
        disable_delayed_sync(self);
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
