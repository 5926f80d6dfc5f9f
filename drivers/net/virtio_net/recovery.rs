// SPDX-License-Identifier: GPL-2.0

//! What is done when the device does not send, or keeps a queue that it was to forget, or is to merge packets or not and has no
//! command for that.
//!
//! The stack's watchdog tells of a queue that has been stopped for five seconds. A notification or an interrupt may have been
//! lost, so the first time the device is told of the queue again, and what it has sent is looked for. When that has brought
//! nothing the next time, the queue begins anew, if the device can do that; when that has brought nothing either, the device is reset
//! and told everything again. The interface stays. If nothing is sent after that, the pauses between resets become twice as long each
//! time. See [`Escalation`].
//!
//! In the other cases the device is reset at once.

use crate::{
    escalation::{
        Escalation,
        Step, //
    },
    interface::Interface,
    pairs::Pair,
    rings, //
};
use guest::{
    bottom_half,
    net::device::Device,
    virtio,
    workqueue::disable_delayed_sync, //
};
use kernel::{
    impl_has_delayed_work,
    new_delayed_work,
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock, //
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

/// What the watchdog has found of a transmit queue, and what was done about it.
#[pin_data]
pub(crate) struct Watch {
    /// How often it had been stopped for too long.
    timeouts: Atomic<u64>,
    /// It is to begin anew.
    reset: Atomic<bool>,
    /// Taken with softirqs off.
    #[pin]
    escalation: SpinLock<Escalation>,
}

impl Watch {
    /// Begins with nothing found.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                timeouts: Atomic::new(0),
                reset: Atomic::new(false),
                escalation <- new_spinlock!(
                    Escalation::default(),
                    "virtio_net_rust::Watch::escalation"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns how often the queue had been stopped for too long.
    pub(crate) fn timeouts(&self) -> u64 {
        self.timeouts.load(Relaxed)
    }

    /// Returns how often each step has helped, when `sent` packets have been sent until now. Process context.
    pub(crate) fn recoveries(&self, sent: u64) -> [u64; Step::COUNT] {
        let _off = bottom_half::disable();
        // Ends before softirqs come back on, which a guard in the block's last expression would not.
        let escalation = *self.escalation.lock();

        escalation.recoveries(sent)
    }

    /// The queue has been stopped for too long, after `sent` packets. Returns what to try. One call at a time, with softirqs off.
    fn expire(&self, sent: u64, can_reset_queue: bool) -> Step {
        self.timeouts
            .store(self.timeouts.load(Relaxed).wrapping_add(1), Relaxed);

        self.escalation.lock().expire(sent, can_reset_queue)
    }

    /// The queue cannot begin anew. Process context.
    fn give_up_queue(&self) {
        let _off = bottom_half::disable();
        let mut escalation = self.escalation.lock();

        escalation.replace(Step::ResetDevice);
    }
}

/// Resets a device, or queues of it.
#[pin_data]
pub(crate) struct Recovery {
    vdev: ARef<virtio::Device>,
    /// The interface, from [`start`](Self::start) to [`stop`](Self::stop).
    #[pin]
    dev: Mutex<Option<ARef<Device<Interface>>>>,
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
        this.reset_queues();
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
                dev <- new_mutex!(None, "virtio_net_rust::Recovery::dev"),
                faulty: Atomic::new(false),
                merge: Atomic::new(true),
                merges: Atomic::new(true),
                work <- new_delayed_work!("virtio_net_rust::Recovery::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Queues of this interface can be reset from now on.
    pub(crate) fn start(&self, dev: ARef<Device<Interface>>) {
        *self.dev.lock() = Some(dev);
    }

    /// Has the transmit queue of `pair` begin anew soon. Any context.
    fn begin_queue(self: &Arc<Self>, pair: &Pair, index: u16) {
        dev_warn!(
            self.vdev,
            "transmit queue {index} has stopped; it is reset, and what it had not sent is lost\n"
        );
        pair.watch.reset.store(true, Relaxed);
        self.enqueue(0);
    }

    /// Resets the queues that are to begin anew.
    fn reset_queues(self: &Arc<Self>) {
        let Some(dev) = self.dev.lock().clone() else {
            return;
        };

        for (pair, index) in dev.data().get_ref().pairs.iter().zip(0u16..) {
            if !pair.watch.reset.load(Relaxed) {
                continue;
            }
            pair.watch.reset.store(false, Relaxed);
            match rings::reset_transmit(&dev, index) {
                Ok(()) => dev_info!(self.vdev, "transmit queue {index} was reset\n"),
                // The device is being reset, or gone.
                Err(ENODEV) => {}
                Err(_) => {
                    pair.watch.give_up_queue();
                    self.begin("does not reset a transmit queue");
                }
            }
        }
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
        let dev = self.dev.lock().take();
        drop(dev);
    }
}

/// A transmit queue has been stopped for too long. Softirqs are off.
pub(crate) fn expire(dev: &Device<Interface>, queue: u16) {
    let data = dev.data();
    let Some(pair) = data.pairs.get(usize::from(queue)) else {
        return;
    };

    match pair
        .watch
        .expire(pair.sent(), data.features.can_reset_queues())
    {
        Step::Notify => {
            dev.kick_transmit_queue(queue);
        }
        Step::ResetQueue => data.recovery.begin_queue(pair, queue),
        Step::ResetDevice => data.recovery.begin("has stopped sending"),
    }
}
