// SPDX-License-Identifier: GPL-2.0

//! The steps of the state machine: what is given to the device, taken back from it, and said to it.

mod restraint;

use crate::{
    lane::{
        Kick,
        Lane, //
    },
    limits::{
        Limits,
        Meter,
        Reason, //
    },
    pace::{
        BackOff,
        Moment,
        Told,
        Voice, //
    },
    params::{
        list_pfns,
        reserve_mib, //
    },
    target::{
        Books,
        Release,
        Reserve,
        Step,
        Units, //
    },
    view::{
        State,
        View, //
    }, //
};
use guest::{
    mm::{
        balloon::{
            Allocator,
            Balloon,
            Fresh,
            PfnList,
            Removed,
            PFNS_PER_PAGE, //
        },
        stats::{
            available,
            swap_free,
            MemInfo, //
        }, //
    },
    trace::virtio_balloon as trace,
    virtio::{
        self,
        config::Field,
        Queue, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// What the device has.
const ACTUAL: Field<u32> = Field::new(4);

/// The most lists made in one run.
const STEPS: usize = 32;

/// How soon to look again for pages that compaction is looking at, in milliseconds.
const ISOLATED_PAUSE: u64 = 10;

/// What a worker is made of.
pub(crate) type Parts = (
    Arc<Queue<PfnList<Fresh>>>,
    Arc<Queue<PfnList<Removed>>>,
    Release,
);

/// What the steps are about.
pub(crate) struct Context<'a> {
    pub(crate) balloon: &'a Balloon,
    pub(crate) dev: &'a virtio::Device,
    pub(crate) view: &'a View,
}

/// What only a run uses, one at a time.
pub(crate) struct Worker {
    pub(crate) books: Books,
    inflate: Lane<Fresh>,
    deflate: Lane<Removed>,
    allocator: Allocator,
    /// Pages that must not be used before the device has answered, but of which it could not be told.
    stranded: Option<PfnList<Removed>>,
    release: Release,
    /// What one list holds.
    list: Units,
    total: Units,
    /// What the device asks for.
    wanted: Units,
    limits: Limits,
    reason: Reason,
    /// How often memory was given back because there was none left.
    relieved: u64,
    inflated: u64,
    deflated: u64,
    inflate_meter: Meter,
    deflate_meter: Meter,
    pub(crate) back_off: BackOff,
    told: Told,
    voice: Voice,
    state: State,
    start: Instant<Monotonic>,
}

/// How a step went.
pub(crate) enum Flow {
    /// Go on.
    Continue,
    /// Go on when the device has answered.
    Stop,
    /// Go on after so many milliseconds.
    Pause(u64),
}

impl Worker {
    /// Makes a worker that has done nothing.
    pub(crate) fn new(
        inflate: Arc<Queue<PfnList<Fresh>>>,
        deflate: Arc<Queue<PfnList<Removed>>>,
        release: Release,
    ) -> Result<Self> {
        // Whole pages.
        // CAST: A page has at most a few dozen units.
        let page = PFNS_PER_PAGE as u32;
        let list = (list_pfns.get() / page).max(1).saturating_mul(page);

        Ok(Self {
            list: Units(list),
            // CAST: A page has at most a few dozen units.
            books: Books::new(PFNS_PER_PAGE as u32, release),
            inflate: Lane::new(inflate, Kick::InTurn)?,
            deflate: Lane::new(deflate, Kick::Early)?,
            // CAST: Does not truncate.
            allocator: Allocator::new(list as usize)?,
            stranded: None,
            release,
            total: Units::from_bytes(MemInfo::now().total),
            wanted: Units::ZERO,
            limits: Limits::new(),
            reason: Reason::None,
            relieved: 0,
            inflated: 0,
            deflated: 0,
            inflate_meter: Meter::new(Moment(0)),
            deflate_meter: Meter::new(Moment(0)),
            back_off: BackOff::new(),
            told: Told::new(),
            voice: Voice::new(),
            state: State::Resting,
            start: Instant::now(),
        })
    }

    /// Returns what a worker for the same queues is made of.
    pub(crate) fn parts(&self) -> Parts {
        (
            self.inflate.queue().clone(),
            self.deflate.queue().clone(),
            self.release,
        )
    }

    /// Returns whether the device asks for anything, or has something.
    pub(crate) fn is_asked(&self) -> bool {
        self.wanted != Units::ZERO || !self.books.is_empty()
    }

    /// Returns how much has left the balloon since the worker was made, and is free.
    pub(crate) fn deflated(&self) -> u64 {
        self.deflated
    }

    /// Returns the time.
    pub(crate) fn now(&self) -> Moment {
        // CAST: Time does not run backwards.
        Moment(self.start.elapsed().as_millis() as u64)
    }

    /// Returns what has not come back from the device.
    pub(crate) fn left(&self) -> Units {
        Units(
            self.books
                .actual()
                .0
                .saturating_add(self.books.inflating().0)
                .saturating_add(self.books.deflating().0),
        )
    }

    /// Takes in the device's answers. There are at most as many as lists under way.
    pub(crate) fn collect(&mut self, balloon: &Balloon) {
        while let Some(list) = self.inflate.answered() {
            let list = match balloon.settle_new(list) {
                Ok(buffer) => {
                    self.inflate.recycle(buffer);
                    continue;
                }
                Err(list) => list,
            };
            let amount = Units(list.pfns());
            let (buffer, pages) = list.unload();
            balloon.enqueue(pages);
            self.books.inflate_answered(amount);
            self.inflated = self.inflated.wrapping_add(u64::from(amount.0));
            self.inflate_meter.add(u64::from(amount.0), self.now());
            self.inflate.recycle(buffer);
        }
        while let Some(list) = self.deflate.answered() {
            let list = match balloon.settle_old(list) {
                Ok(buffer) => {
                    self.deflate.recycle(buffer);
                    continue;
                }
                Err(list) => list,
            };
            let amount = Units(list.pfns());
            let (buffer, pages) = list.unload();
            if self.release == Release::Answered {
                self.freed(amount);
            }
            drop(pages);
            self.books.deflate_answered(amount);
            self.deflate.recycle(buffer);
        }
    }

    /// Counts what has left the balloon and may be used.
    fn freed(&mut self, amount: Units) {
        self.deflated = self.deflated.wrapping_add(u64::from(amount.0));
        self.deflate_meter.add(u64::from(amount.0), self.now());
    }

    /// Tells the device of pages that compaction has replaced. What is in the balloon stays as much as it was, so the books
    /// do not know of it.
    fn relay(&mut self, context: &Context<'_>) {
        context.balloon.keep_still(!self.may_move());

        // If a queue is out of use the balloon keeps the old pages, which the device has not given back.
        if let Some(buffer) = self.inflate.buffer() {
            match context.balloon.list_new(buffer) {
                Ok(list) => {
                    if let Err(list) = self.inflate.tell(list) {
                        self.inflate.recycle(list.unload().0);
                        self.give_up(context);
                    }
                }
                Err(buffer) => self.inflate.recycle(buffer),
            }
        }
        if let Some(buffer) = self.deflate.buffer() {
            match context.balloon.list_old(buffer) {
                Ok(list) => {
                    if let Err(list) = self.deflate.tell(list) {
                        self.deflate.recycle(list.unload().0);
                        self.give_up(context);
                    }
                }
                Err(buffer) => self.deflate.recycle(buffer),
            }
        }
    }

    /// Returns whether compaction may replace pages: not while the balloon gets smaller, which would have to wait for it, nor
    /// while pages are used again of which the device has not answered, as one of them could be the new one.
    fn may_move(&self) -> bool {
        let shrinking = matches!(self.books.next(self.list), Step::Deflate(_));
        let unsettled = self.release == Release::Told && self.books.deflating() != Units::ZERO;

        !shrinking && !unsettled && self.is_usable()
    }

    fn is_usable(&self) -> bool {
        self.inflate.is_usable() && self.deflate.is_usable()
    }

    /// Takes steps towards the target.
    pub(crate) fn resize(&mut self, context: &Context<'_>) -> Flow {
        let mut flow = Flow::Continue;

        self.relay(context);
        for _ in 0..STEPS {
            let step = self.books.next(self.list);
            flow = match step {
                Step::Inflate(amount) => self.inflate(amount, context),
                Step::Deflate(amount) => self.deflate(amount, context),
                Step::Wait if !self.is_usable() => self.give_up(context),
                Step::Wait => self.stop(State::Waiting),
                Step::Rest => self.stop(State::Resting),
            };
            // While it waits for its turn it still grows.
            let grows = matches!(step, Step::Inflate(_))
                && matches!(self.state, State::Inflating | State::Waiting);
            if !grows {
                self.limits.unfelt();
            }
            if !matches!(flow, Flow::Continue) {
                break;
            }
        }

        if !matches!(flow, Flow::Continue) {
            self.inflate.flush();
            self.deflate.flush();
        }
        flow
    }

    fn stop(&mut self, state: State) -> Flow {
        self.state = state;
        Flow::Stop
    }

    /// The device cannot be told anything any more.
    fn give_up(&mut self, context: &Context<'_>) -> Flow {
        if self.state != State::Broken && self.voice.may_speak(self.now()) {
            dev_err!(
                context.dev,
                "a queue is out of use; the balloon stays at {} MiB until the driver is bound again\n",
                self.books.actual().mib()
            );
        }
        self.stop(State::Broken)
    }

    fn inflate(&mut self, amount: Units, context: &Context<'_>) -> Flow {
        if let Some(ms) = self.back_off.pause(self.now()) {
            self.state = State::BackingOff;
            return Flow::Pause(ms);
        }
        if !self.inflate.is_usable() {
            return self.give_up(context);
        }
        let Some(buffer) = self.inflate.buffer() else {
            return self.stop(State::Waiting);
        };
        if self.is_pressed() {
            self.inflate.recycle(buffer);
            return self.hold_on(context);
        }
        self.state = State::Inflating;

        let spare = available().saturating_add(swap_free());
        let spare = Reserve::of(self.total, reserve_mib.get()).leaves(Units::from_bytes(spare));
        let wanted = amount.0 as usize / PFNS_PER_PAGE;
        let allowed = spare.min(amount).0 as usize / PFNS_PER_PAGE;

        let pages = self.allocator.take(allowed);
        let mut enough = pages.len() == wanted;

        match buffer.load(pages) {
            Ok(list) => {
                let amount = Units(list.pfns());
                if let Err(list) = self.inflate.tell(list) {
                    self.inflate.recycle(list.unload().0);
                    return self.give_up(context);
                }
                self.books.inflate_told(amount);
                trace::inflate(context.dev.index(), amount.0, self.books.inflating().0);
            }
            Err((buffer, _pages)) => {
                self.inflate.recycle(buffer);
                enough = false;
            }
        }

        if enough {
            self.back_off.succeeded();
            Flow::Continue
        } else {
            self.run_short(context)
        }
    }

    /// The guest has no memory to spare.
    fn run_short(&mut self, context: &Context<'_>) -> Flow {
        let now = self.now();

        self.state = State::BackingOff;
        self.back_off.failed(now);
        context.view.shortages.add(1, Relaxed);
        if self.voice.may_speak(now) {
            dev_info!(
                context.dev,
                "the target of {} MiB is out of reach for now: the guest can spare {} MiB; trying again now and then\n",
                self.wanted.mib(),
                self.left().mib()
            );
        }
        self.back_off.pause(now).map_or(Flow::Stop, Flow::Pause)
    }

    fn deflate(&mut self, amount: Units, context: &Context<'_>) -> Flow {
        if !self.deflate.is_usable() {
            return self.give_up(context);
        }
        let Some(buffer) = self.deflate.buffer() else {
            return self.stop(State::Waiting);
        };
        self.state = State::Deflating;

        let pages = context.balloon.dequeue(amount.0 as usize / PFNS_PER_PAGE);
        let mut list = match buffer.load(pages) {
            Ok(list) => list,
            Err((buffer, _pages)) => {
                // Nothing but no pages can be wrong: the device was told of these before.
                self.deflate.recycle(buffer);
                return if context.balloon.is_settled() {
                    Flow::Pause(ISOLATED_PAUSE)
                } else {
                    self.stop(State::Waiting)
                };
            }
        };

        let amount = Units(list.pfns());
        self.books.deflate_told(amount);
        trace::deflate(context.dev.index(), amount.0, self.books.deflating().0);
        let released = (self.release == Release::Told).then(|| list.take_pages());
        let told = self.deflate.tell(list);
        // The device can see them in its queue now: they may be used.
        if released.is_some() {
            self.freed(amount);
        }
        drop(released);

        match told {
            Ok(()) => Flow::Continue,
            Err(list) if self.release == Release::Told => {
                self.books.deflate_answered(amount);
                self.deflate.recycle(list.unload().0);
                self.give_up(context)
            }
            Err(list) => {
                self.stranded = Some(list);
                self.give_up(context)
            }
        }
    }

    /// Asks for the next interrupts. Returns `false` when there are answers already.
    pub(crate) fn listen(&mut self) -> bool {
        let inflate = self.inflate.listen();
        let deflate = self.deflate.listen();

        inflate && deflate
    }

    /// Returns whether `actual` will not change by itself soon.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(
            self.state,
            State::Resting | State::BackingOff | State::Broken
        )
    }

    /// Tells the device how far the balloon is, if it is time. Returns in how many milliseconds it will be.
    pub(crate) fn tell_actual(&mut self, dev: &virtio::Device, resting: bool) -> Option<u64> {
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

    /// Shows where the machine is.
    pub(crate) fn publish(&mut self, view: &View, balloon: &Balloon) {
        let now = self.now();
        view.target.store(self.wanted.0, Relaxed);
        view.allowed.store(self.books.target().0, Relaxed);
        view.reason.store(self.reason as u32, Relaxed);
        view.hold.store(
            match self.reason {
                Reason::Pressure | Reason::OutOfMemory => self.limits.left(now).unwrap_or(0),
                _ => 0,
            },
            Relaxed,
        );
        view.relieved.store(self.relieved, Relaxed);
        view.inflated.store(self.inflated, Relaxed);
        view.deflated.store(self.deflated, Relaxed);
        view.inflate_rate
            .store(self.inflate_meter.add(0, now), Relaxed);
        view.deflate_rate
            .store(self.deflate_meter.add(0, now), Relaxed);
        view.actual.store(self.books.actual().0, Relaxed);
        view.inflating.store(self.books.inflating().0, Relaxed);
        view.deflating.store(self.books.deflating().0, Relaxed);
        view.moved.store(balloon.moved(), Relaxed);
        view.state.store(self.state as u32, Relaxed);
    }
}
