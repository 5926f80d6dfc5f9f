// SPDX-License-Identifier: GPL-2.0

//! Brings the balloon to the size that the device asks for.
//!
//! A state machine without a task of its own. What makes it take its next steps, in a work item, is
//!
//! - an answer of the device: a used buffer in one of the two queues,
//! - a new target: a change of the device's configuration,
//! - compaction, which has put other pages into the balloon,
//! - a timer: the end of a pause, or `actual` that is to be told.
//!
//! Each run takes a bounded number of steps and leaves the rest to the next one. It never waits for the device.
//!
//! # Locking
//!
//! `worker` is held throughout a run. Inside it: a queue's lock, and the balloon's, one after the other.

use crate::{
    params::{
        cap_mib,
        floor_mib, //
    },
    target::{
        Release,
        Units, //
    },
    view::View,
    worker::{
        Context,
        Flow,
        Worker, //
    }, //
};
use core::pin::Pin;
use guest::{
    mm::{
        balloon::{
            Accounting,
            Balloon,
            Fresh,
            PfnList,
            Removed,
            Watcher,
            PFNS_PER_PAGE, //
        },
        oom::{
            Notifier,
            Relief, //
        }, //
    },
    param::{
        Number,
        Watch,
        Watched, //
    },
    virtio::{
        self,
        config::Field,
        Queue, //
    },
    workqueue::{
        self,
        OwnedQueue, //
    }, //
};
use kernel::{
    impl_has_delayed_work,
    impl_has_work,
    new_condvar,
    new_delayed_work,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex,
        MutexGuard, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    },
    workqueue::{
        DelayedWork,
        Work,
        WorkItem, //
    },
    ModuleMetadata, //
};

/// What the device wants to have.
const NUM_PAGES: Field<u32> = Field::new(0);

/// When the driver is removed: how long a device may be silent before it is not waited for any more, in milliseconds.
const DRAIN_SILENCE: u64 = 2_000;

/// The same, for the whole of it.
const DRAIN_LIMIT: u64 = 20_000;

/// How often parameters are looked at that another balloon watches, in milliseconds.
const POLL: u64 = 2_000;

/// When there is no memory left: how many milliseconds to wait for a run to end, and for the device to answer.
const RELIEF_PATIENCE: u32 = 200;

/// The number of the timer among the work items; the other one is 0.
const TIMER: u64 = 1;

/// The state machine of one device.
#[pin_data]
pub(crate) struct Resizer {
    #[pin]
    worker: Mutex<Worker>,
    #[pin]
    balloon: Balloon,
    dev: ARef<virtio::Device>,
    queue: Arc<OwnedQueue>,
    view: View,
    changed: Atomic<bool>,
    draining: Atomic<bool>,
    /// The parameters have to be looked at now and then.
    polls: Atomic<bool>,
    #[pin]
    progress: CondVar,
    #[pin]
    work: Work<Self, 0>,
    #[pin]
    timer: DelayedWork<Self, TIMER>,
}

impl_has_work! {
    impl HasWork<Self, 0> for Resizer { self.work }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, 1> for Resizer { self.timer }
}

impl WorkItem<0> for Resizer {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.run();
    }
}

impl WorkItem<TIMER> for Resizer {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.run();
    }
}

/// Passes on what compaction does.
struct Compaction(Arc<Resizer>);

impl Watcher for Compaction {
    fn moved(&self) {
        self.0.step_soon();
    }
}

/// Passes on what becomes of a parameter.
struct Changed(Arc<Resizer>);

impl Watch<u32> for Changed {
    fn changed(&self, _new: u32) {
        self.0.step_soon();
    }
}

/// Keeps the balloon following the parameters.
pub(crate) struct Watches([Option<Watched<u32>>; 2]);

/// Asks the balloon when there is no memory left.
struct LastResort(Arc<Resizer>);

impl Relief for LastResort {
    fn relieve(&self) -> usize {
        let pages = self.0.relieve();

        self.0.step_soon();
        pages
    }
}

impl Resizer {
    /// Makes the state machine of `dev`. It does nothing before [`start`](Self::start).
    pub(crate) fn new(
        dev: ARef<virtio::Device>,
        inflate: Arc<Queue<PfnList<Fresh>>>,
        deflate: Arc<Queue<PfnList<Removed>>>,
        release: Release,
        accounting: Accounting,
        queue: Arc<OwnedQueue>,
    ) -> Result<Arc<Self>> {
        let worker = Worker::new(inflate, deflate, release)?;

        Arc::pin_init(
            try_pin_init!(Self {
                worker <- new_mutex!(worker, "virtio_balloon::worker"),
                balloon <- Balloon::new(accounting),
                dev,
                queue,
                view: View::new(),
                changed: Atomic::new(true),
                draining: Atomic::new(false),
                polls: Atomic::new(false),
                progress <- new_condvar!("virtio_balloon::progress"),
                work <- new_work!("virtio_balloon::work"),
                timer <- new_delayed_work!("virtio_balloon::timer"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns figures of the last run.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Begins: the device is live.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn start(self: &Arc<Self>) -> Result {
        self.balloon
            .watch(Arc::new(Compaction(self.clone()), GFP_KERNEL)?);
        self.target_changed();
        Ok(())
    }

    /// Gives memory back when there is none left, as long as the value lives.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn last_resort(self: &Arc<Self>) -> Result<Pin<KBox<Notifier>>> {
        Notifier::new(Arc::new(LastResort(self.clone()), GFP_KERNEL)?)
    }

    /// Has the device's balloon follow the parameters at once.
    pub(crate) fn watch_parameters(self: &Arc<Self>) -> Result<Watches> {
        let module: &'static ThisModule = &<crate::driver::Module as ModuleMetadata>::THIS_MODULE;
        let watch = |number: &'static Number<u32>| {
            match number.watch(module, Arc::new(Changed(self.clone()), GFP_KERNEL)?) {
                Ok(watched) => Ok(Some(watched)),
                // Another balloon does.
                Err(error) if error == EBUSY => Ok(None),
                Err(error) => Err(error),
            }
        };
        let watches = Watches([watch(&cap_mib)?, watch(&floor_mib)?]);

        self.polls
            .store(watches.0.iter().any(Option::is_none), Relaxed);
        Ok(watches)
    }

    /// The device's configuration has changed. Any context.
    pub(crate) fn target_changed(self: &Arc<Self>) {
        self.changed.store(true, Relaxed);
        self.step_soon();
    }

    /// Something has happened that lets the machine go on. Any context.
    pub(crate) fn step_soon(self: &Arc<Self>) {
        // Queued already is as good.
        let _ = self.queue.enqueue::<Arc<Self>, 0>(self.clone());
    }

    /// There is no memory left: gives some back, and returns how many pages. Waits for the device only if it must be told first, and
    /// not for long.
    fn relieve(&self) -> usize {
        let context = Context {
            balloon: &self.balloon,
            dev: &self.dev,
            view: &self.view,
        };

        // Whoever has the lock does not wait for memory, so it will be free.
        let Some(mut worker) = self.lock_soon() else {
            return 0;
        };
        let before = worker.deflated();
        worker.relieve(&context);
        let mut freed = worker.deflated().wrapping_sub(before);
        let told = worker.books.deflating() != Units::ZERO;
        drop(worker);

        if told && freed == 0 {
            for _ in 0..RELIEF_PATIENCE {
                fsleep(Delta::from_millis(1));
                if let Some(mut worker) = self.worker.try_lock() {
                    worker.collect(&self.balloon);
                    freed = worker.deflated().wrapping_sub(before);
                }
                if freed > 0 {
                    break;
                }
            }
        }
        // CAST: At most what is in the balloon, which is memory of this machine.
        freed as usize / PFNS_PER_PAGE
    }

    fn lock_soon(&self) -> Option<MutexGuard<'_, Worker>> {
        for _ in 0..RELIEF_PATIENCE {
            if let Some(worker) = self.worker.try_lock() {
                return Some(worker);
            }
            fsleep(Delta::from_millis(1));
        }
        None
    }

    /// Takes back all that the device has, as far as it answers, within bounds of time.
    pub(crate) fn drain(self: &Arc<Self>) {
        self.draining.store(true, Relaxed);

        let mut worker = self.worker.lock();
        let begin = worker.now();
        let mut left = worker.left();
        let mut progress = begin;

        self.step_soon();
        while !self.is_drained(&worker) {
            let now = worker.now();
            if now.since(begin) >= DRAIN_LIMIT || now.since(progress) >= DRAIN_SILENCE {
                break;
            }

            // CAST: A constant that fits.
            let patience = msecs_to_jiffies(DRAIN_SILENCE as u32);
            let woken = self
                .progress
                .wait_interruptible_timeout(&mut worker, patience);
            if matches!(woken, CondVarTimeoutResult::Signal { .. }) {
                break;
            }
            if worker.left() != left {
                left = worker.left();
                progress = worker.now();
            }
        }

        if !self.is_drained(&worker) {
            dev_warn!(
                self.dev,
                "the device does not answer; the guest takes back the {} MiB of the balloon without telling it\n",
                worker.left().mib()
            );
        }
    }

    fn is_drained(&self, worker: &Worker) -> bool {
        worker.books.is_empty() && self.balloon.is_settled()
    }

    /// Ends all activity. The pages that are left go back when the device has been reset and the value is dropped.
    pub(crate) fn stop(self: &Arc<Self>) {
        // Ends the circle of references, too.
        self.balloon.unwatch();
        self.halt();
    }

    /// Takes back all that the device has, and ends all activity until [`resume`](Self::resume).
    pub(crate) fn suspend(self: &Arc<Self>) {
        self.drain();
        self.balloon.keep_still(true);
        self.halt();
    }

    /// Begins anew: the device is live, and was reset.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn resume(self: &Arc<Self>) -> Result {
        // Not under the lock, as memory may have to be reclaimed.
        let (inflate, deflate, release) = self.worker.lock().parts();
        let fresh = Worker::new(inflate, deflate, release)?;

        let mut worker = self.worker.lock();
        // What it did not give back in time.
        self.balloon.empty();
        let before = core::mem::replace(&mut *worker, fresh);
        drop(worker);
        drop(before);

        self.draining.store(false, Relaxed);
        workqueue::enable::<_, 0>(self);
        workqueue::enable_delayed::<_, TIMER>(self);
        self.target_changed();
        Ok(())
    }

    fn halt(self: &Arc<Self>) {
        workqueue::disable_sync::<_, 0>(self);
        workqueue::disable_delayed_sync::<_, TIMER>(self);

        let mut worker = self.worker.lock();
        worker.tell_actual(&self.dev, true);
    }

    /// One run.
    fn run(self: &Arc<Self>) {
        let mut worker = self.worker.lock();

        worker.collect(&self.balloon);
        self.read_target(&mut worker);
        worker.limit(&self.dev);
        let flow = worker.resize(&Context {
            balloon: &self.balloon,
            dev: &self.dev,
            view: &self.view,
        });
        // If it goes on at once, it looks for itself.
        let heard = matches!(flow, Flow::Continue) || worker.listen();
        let at_rest = worker.is_at_rest();
        let actual_due = worker.tell_actual(&self.dev, at_rest);
        worker.publish(&self.view, &self.balloon);

        let pause = match flow {
            Flow::Continue => Some(0),
            _ if !heard => Some(0),
            Flow::Stop => actual_due,
            Flow::Pause(ms) => Some(actual_due.map_or(ms, |due| due.min(ms))),
        };
        let pause = match (pause, worker.limits_end()) {
            (Some(pause), Some(end)) => Some(pause.min(end)),
            (pause, end) => pause.or(end),
        };
        let poll = self.polls.load(Relaxed) && worker.is_asked();
        let pause = match pause {
            None if poll => Some(POLL),
            Some(ms) if poll => Some(ms.min(POLL)),
            pause => pause,
        };
        match pause {
            Some(0) => self.step_soon(),
            Some(ms) => self.step_in(ms),
            None => {}
        }
        drop(worker);

        self.progress.notify_all();
    }

    /// Sets the timer. Under `worker`'s lock, so that the run that knows most has the last word.
    fn step_in(self: &Arc<Self>, ms: u64) {
        // CAST: Pauses are a few seconds at most.
        let delay = msecs_to_jiffies(ms.min(u64::from(u32::MAX)) as u32);

        workqueue::cancel_delayed::<_, TIMER>(self);
        let _ = self
            .queue
            .enqueue_delayed::<Arc<Self>, TIMER>(self.clone(), delay);
    }

    fn read_target(&self, worker: &mut Worker) {
        let target = if self.draining.load(Relaxed) {
            Units::ZERO
        } else if self.changed.xchg(false, Full) {
            Units(self.dev.read(NUM_PAGES))
        } else {
            return;
        };

        worker.set_wanted(target);
    }
}
