// SPDX-License-Identifier: GPL-2.0

//! Brings the balloon to the size that the device asks for.
//!
//! A state machine without a task of its own. What makes it take its next steps, in a work item, is
//!
//! - an answer of the device: a used buffer in one of the two queues,
//! - a new target: a change of the device's configuration,
//! - a timer: the end of a pause, or `actual` that is to be told.
//!
//! Each run takes a bounded number of steps and leaves the rest to the next one. It never waits for the device.
//!
//! # Locking
//!
//! `worker` is held throughout a run. Inside it: a queue's lock, and the balloon's, one after the other.

use crate::{
    lane::Lane,
    pace::{
        BackOff,
        Moment,
        Told,
        Voice, //
    },
    target::{
        Books,
        Release,
        Step,
        Units, //
    }, //
};
use guest::{
    mm::balloon::{
        Accounting,
        Allocator,
        Balloon,
        Fresh,
        PfnBuffer,
        PfnList,
        Removed,
        MAX_PFNS,
        PFNS_PER_PAGE, //
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
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic, //
    },
    workqueue::{
        DelayedWork,
        Work,
        WorkItem, //
    }, //
};

/// What the device wants to have.
const NUM_PAGES: Field<u32> = Field::new(0);

/// What the device has.
const ACTUAL: Field<u32> = Field::new(4);

/// The most lists under way, both directions together.
const MAX_IN_FLIGHT: u32 = 64;

/// The most lists made in one run.
const STEPS: usize = 32;

/// What one list holds.
const LIST: Units = Units(MAX_PFNS as u32);

/// How soon to look again for pages that compaction is looking at, in milliseconds.
const ISOLATED_PAUSE: u64 = 10;

/// When the driver is removed: how long a device may be silent before it is not waited for any more, in milliseconds.
const DRAIN_SILENCE: u64 = 2_000;

/// The same, for the whole of it.
const DRAIN_LIMIT: u64 = 20_000;

/// The number of the timer among the work items; the other one is 0.
const TIMER: u64 = 1;

/// Why the machine does what it does, for people.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// The target is reached.
    Resting,
    /// Pages go to the device.
    Inflating,
    /// Pages come back.
    Deflating,
    /// The device owes an answer.
    Waiting,
    /// The guest has no memory to spare.
    BackingOff,
    /// The device cannot be told anything.
    Broken,
}

/// A copy of the machine's figures that can be read while it runs.
pub(crate) struct View {
    pub(crate) target: Atomic<u32>,
    pub(crate) actual: Atomic<u32>,
    pub(crate) inflating: Atomic<u32>,
    pub(crate) deflating: Atomic<u32>,
    pub(crate) state: Atomic<u32>,
    pub(crate) shortages: Atomic<u32>,
}

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

/// What only a run uses.
struct Worker {
    books: Books,
    inflate: Lane<Fresh>,
    deflate: Lane<Removed>,
    allocator: Allocator,
    spare: KVec<PfnBuffer>,
    /// Pages that must not be used before the device has answered, but of which it could not be told.
    stranded: Option<PfnList<Removed>>,
    release: Release,
    back_off: BackOff,
    told: Told,
    voice: Voice,
    state: State,
    start: Instant<Monotonic>,
}

/// How a step went.
enum Flow {
    /// Go on.
    Continue,
    /// Go on when the device has answered.
    Stop,
    /// Go on after so many milliseconds.
    Pause(u64),
}

impl Resizer {
    /// Makes the state machine of `dev`. It does nothing before [`target_changed`](Self::target_changed).
    pub(crate) fn new(
        dev: ARef<virtio::Device>,
        inflate: Arc<Queue<PfnList<Fresh>>>,
        deflate: Arc<Queue<PfnList<Removed>>>,
        release: Release,
        queue: Arc<OwnedQueue>,
    ) -> Result<Arc<Self>> {
        let worker = Worker::new(inflate, deflate, release)?;

        Arc::pin_init(
            try_pin_init!(Self {
                worker <- new_mutex!(worker, "virtio_balloon::worker"),
                balloon <- Balloon::new(Accounting::Managed),
                dev,
                queue,
                view: View {
                    target: Atomic::new(0),
                    actual: Atomic::new(0),
                    inflating: Atomic::new(0),
                    deflating: Atomic::new(0),
                    state: Atomic::new(State::Resting as u32),
                    shortages: Atomic::new(0),
                },
                changed: Atomic::new(true),
                draining: Atomic::new(false),
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

    /// Takes back all that the device has, as far as it answers, within bounds of time.
    pub(crate) fn drain(self: &Arc<Self>) {
        self.draining.store(true, Relaxed);

        let mut worker = self.worker.lock();
        let begin = worker.now();
        let mut left = worker.left();
        let mut progress = begin;

        self.step_soon();
        while !worker.books.is_empty() {
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

        if !worker.books.is_empty() {
            dev_warn!(
                self.dev,
                "removed with {} MiB in the balloon that the device was not told of; the guest has them back\n",
                worker.left().mib()
            );
        }
    }

    /// Ends all activity. The pages that are left go back when the device has been reset and the value is dropped.
    pub(crate) fn stop(self: &Arc<Self>) {
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
        let flow = worker.resize(self);
        let heard = worker.listen();
        let at_rest = worker.is_at_rest();
        let actual_due = worker.tell_actual(&self.dev, at_rest);
        worker.publish(&self.view);

        let pause = match flow {
            Flow::Continue => Some(0),
            _ if !heard => Some(0),
            Flow::Stop => actual_due,
            Flow::Pause(ms) => Some(actual_due.map_or(ms, |due| due.min(ms))),
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

        if worker.books.set_target(target) {
            worker.back_off.reset();
        }
    }
}

impl Worker {
    fn new(
        inflate: Arc<Queue<PfnList<Fresh>>>,
        deflate: Arc<Queue<PfnList<Removed>>>,
        release: Release,
    ) -> Result<Self> {
        let inflate = Lane::new(inflate);
        let deflate = Lane::new(deflate);

        // No more than either ring has room for, so that a list is never refused for want of room.
        let lists = MAX_IN_FLIGHT.min(inflate.size()).min(deflate.size()) as usize;
        let mut spare = KVec::with_capacity(lists, GFP_KERNEL)?;
        for _ in 0..lists {
            spare.push(PfnBuffer::new()?, GFP_KERNEL)?;
        }

        Ok(Self {
            // CAST: A page has at most a few dozen units.
            books: Books::new(PFNS_PER_PAGE as u32, release),
            inflate,
            deflate,
            allocator: Allocator::new()?,
            spare,
            stranded: None,
            release,
            back_off: BackOff::new(),
            told: Told::new(),
            voice: Voice::new(),
            state: State::Resting,
            start: Instant::now(),
        })
    }

    fn now(&self) -> Moment {
        // CAST: Time does not run backwards.
        Moment(self.start.elapsed().as_millis() as u64)
    }

    /// Returns what has not come back from the device.
    fn left(&self) -> Units {
        Units(
            self.books
                .actual()
                .0
                .saturating_add(self.books.inflating().0)
                .saturating_add(self.books.deflating().0),
        )
    }

    /// Takes in the device's answers. There are at most as many as lists under way.
    fn collect(&mut self, balloon: &Balloon) {
        while let Some(list) = self.inflate.answered() {
            let amount = Units(list.pfns());
            let (buffer, pages) = list.unload();
            balloon.enqueue(pages);
            self.books.inflate_answered(amount);
            self.recycle(buffer);
        }
        while let Some(list) = self.deflate.answered() {
            let amount = Units(list.pfns());
            let (buffer, pages) = list.unload();
            drop(pages);
            self.books.deflate_answered(amount);
            self.recycle(buffer);
        }
    }

    fn recycle(&mut self, buffer: PfnBuffer) {
        // There is room: all buffers come from here.
        let _ = self.spare.push_within_capacity(buffer);
    }

    /// Takes steps towards the target.
    fn resize(&mut self, resizer: &Resizer) -> Flow {
        let mut flow = Flow::Continue;

        for _ in 0..STEPS {
            flow = match self.books.next(LIST) {
                Step::Inflate(amount) => self.inflate(amount, resizer),
                Step::Deflate(amount) => self.deflate(amount, resizer),
                Step::Wait => self.stop(State::Waiting),
                Step::Rest => self.stop(State::Resting),
            };
            if !matches!(flow, Flow::Continue) {
                break;
            }
        }

        self.inflate.flush();
        self.deflate.flush();
        flow
    }

    fn stop(&mut self, state: State) -> Flow {
        self.state = state;
        Flow::Stop
    }

    /// The device cannot be told anything any more.
    fn give_up(&mut self, resizer: &Resizer) -> Flow {
        if self.state != State::Broken && self.voice.may_speak(self.now()) {
            dev_err!(
                resizer.dev,
                "a queue is out of use; the balloon stays at {} MiB until the driver is bound again\n",
                self.books.actual().mib()
            );
        }
        self.stop(State::Broken)
    }

    fn inflate(&mut self, amount: Units, resizer: &Resizer) -> Flow {
        if let Some(ms) = self.back_off.pause(self.now()) {
            self.state = State::BackingOff;
            return Flow::Pause(ms);
        }
        if !self.inflate.is_usable() {
            return self.give_up(resizer);
        }
        self.state = State::Inflating;
        let Some(buffer) = self.spare.pop() else {
            return Flow::Stop;
        };

        let wanted = amount.0 as usize / PFNS_PER_PAGE;
        let pages = self.allocator.take(wanted);
        let mut enough = pages.len() == wanted;

        match buffer.load(pages) {
            Ok(list) => {
                let amount = Units(list.pfns());
                if let Err(list) = self.inflate.tell(list) {
                    self.recycle(list.unload().0);
                    return self.give_up(resizer);
                }
                self.books.inflate_told(amount);
            }
            Err((buffer, _pages)) => {
                self.recycle(buffer);
                enough = false;
            }
        }

        if enough {
            self.back_off.succeeded();
            Flow::Continue
        } else {
            self.run_short(resizer)
        }
    }

    /// The guest has no memory to spare.
    fn run_short(&mut self, resizer: &Resizer) -> Flow {
        let now = self.now();

        self.state = State::BackingOff;
        self.back_off.failed(now);
        resizer.view.shortages.add(1, Relaxed);
        if self.voice.may_speak(now) {
            dev_info!(
                resizer.dev,
                "the target of {} MiB is out of reach for now: the guest can spare {} MiB; trying again now and then\n",
                self.books.target().mib(),
                self.books.actual().mib()
            );
        }
        self.back_off.pause(now).map_or(Flow::Stop, Flow::Pause)
    }

    fn deflate(&mut self, amount: Units, resizer: &Resizer) -> Flow {
        if !self.deflate.is_usable() {
            return self.give_up(resizer);
        }
        self.state = State::Deflating;
        let Some(buffer) = self.spare.pop() else {
            return Flow::Stop;
        };

        let pages = resizer.balloon.dequeue(amount.0 as usize / PFNS_PER_PAGE);
        let mut list = match buffer.load(pages) {
            Ok(list) => list,
            Err((buffer, _pages)) => {
                // Nothing but no pages can be wrong: the device was told of these before.
                self.recycle(buffer);
                return Flow::Pause(ISOLATED_PAUSE);
            }
        };

        let amount = Units(list.pfns());
        self.books.deflate_told(amount);
        let released = (self.release == Release::Told).then(|| list.take_pages());
        let told = self.deflate.tell(list);
        // The device can see them in its queue now: they may be used.
        drop(released);

        match told {
            Ok(()) => Flow::Continue,
            Err(list) if self.release == Release::Told => {
                self.books.deflate_answered(amount);
                self.recycle(list.unload().0);
                self.give_up(resizer)
            }
            Err(list) => {
                self.stranded = Some(list);
                self.give_up(resizer)
            }
        }
    }

    /// Asks for the next interrupts. Returns `false` when there are answers already.
    fn listen(&mut self) -> bool {
        let inflate = self.inflate.listen();
        let deflate = self.deflate.listen();

        inflate && deflate
    }

    /// Returns whether `actual` will not change by itself soon.
    fn is_at_rest(&self) -> bool {
        matches!(
            self.state,
            State::Resting | State::BackingOff | State::Broken
        )
    }

    /// Tells the device how far the balloon is, if it is time. Returns in how many milliseconds it will be.
    fn tell_actual(&mut self, dev: &virtio::Device, resting: bool) -> Option<u64> {
        let now = self.now();
        let actual = self.books.actual();

        match self.told.due(actual, resting, now) {
            Some(0) => {
                dev.write(ACTUAL, actual.0);
                self.told.told(actual, now);
                None
            }
            due => due,
        }
    }

    fn publish(&self, view: &View) {
        view.target.store(self.books.target().0, Relaxed);
        view.actual.store(self.books.actual().0, Relaxed);
        view.inflating.store(self.books.inflating().0, Relaxed);
        view.deflating.store(self.books.deflating().0, Relaxed);
        view.state.store(self.state as u32, Relaxed);
    }
}
