// SPDX-License-Identifier: GPL-2.0

//! Scans: when one is made, by whom, and what it does.
//!
//! There is one scan at a time. Who asks for one while another is under way waits for that to end, as it may have passed by what
//! has changed since; of those who wait, one then scans for all. Periodic scans ask in the same way.
//!
//! # Locking
//!
//! `flight` says whether a scan is under way, and is held only to look at that and to change it; `buffers` is held by the one who
//! scans. Taken in neither order: who holds one does not ask for the other.

mod probing;
mod show;
mod watching;

use crate::{
    coverage::{
        Coverage,
        Damage, //
    },
    finding::{
        Found,
        Known,
        Weight, //
    },
    look::{
        self,
        Look, //
    },
    params,
    report::Log,
    views::{
        Sources,
        NAMES, //
    },
};

pub(crate) use self::{
    probing::Probing,
    watching::Watching, //
};

use guest::{
    param::Watch,
    sched::switch::{
        Alarm,
        Suspects, //
    },
    time::ktime_get_ns,
    workqueue::{
        cancel_delayed,
        disable_delayed_sync,
        OwnedQueue, //
    },
};

use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
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
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    },
};

/// Longest time that is waited for scans of others.
const PATIENCE_MS: u32 = 30_000;

/// The work that an alarm queues, as the kernel crate tells works from each other.
const ALARM: u64 = 1;
/// Milliseconds from an alarm to a scan.
const ALARM_MS: u32 = 2;

/// How many of each there have been since the module was loaded.
pub(crate) struct Counts {
    /// Scans.
    pub(crate) scans: Atomic<u64>,
    /// Scans that left nothing out and found nothing.
    pub(crate) clean: Atomic<u64>,
    /// Scans that left something out.
    pub(crate) truncated: Atomic<u64>,
    /// What was found, each once.
    pub(crate) findings: Atomic<u64>,
    /// Other things that were seen, each once, and that an honest user may have done as well.
    pub(crate) observations: Atomic<u64>,
    /// Of the findings, those of each view.
    pub(crate) by_view: [Atomic<u64>; NAMES.len()],
    /// Scans in which each view could not be taken.
    pub(crate) uncovered: [Atomic<u64>; NAMES.len()],
    /// Hidden tasks seen, once in each scan.
    pub(crate) sightings: Atomic<u64>,
    /// Tasks on a run queue and not on the lists, as they were exiting: none over a long time says that little goes on.
    pub(crate) exiting: Atomic<u64>,
    /// Tasks that the first look suspected and the second one did not.
    pub(crate) cleared: Atomic<u64>,
}

impl Counts {
    const fn new() -> Self {
        Counts {
            scans: Atomic::new(0),
            clean: Atomic::new(0),
            truncated: Atomic::new(0),
            findings: Atomic::new(0),
            observations: Atomic::new(0),
            by_view: [const { Atomic::new(0) }; NAMES.len()],
            uncovered: [const { Atomic::new(0) }; NAMES.len()],
            sightings: Atomic::new(0),
            exiting: Atomic::new(0),
            cleared: Atomic::new(0),
        }
    }
}

fn add(counter: &Atomic<u64>, n: u64) {
    // Only the one who scans changes a counter.
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// What the last scan was like.
#[derive(Clone, Copy, Default)]
struct Last {
    number: u64,
    coverage: Coverage,
    result: look::Result,
    found: u32,
    observed: u32,
    duration_ns: u64,
}

/// Whether a scan is under way.
#[derive(Default)]
struct Flight {
    /// Number of the scan that began last.
    begun: u64,
    /// Number of the scan that ended last.
    done: u64,
    /// When that was.
    ended_ns: u64,
    last: Last,
}

impl Flight {
    /// Returns for how many milliseconds there is to be no scan yet.
    fn rest(&self) -> u32 {
        let least = params::scan_min_ms.get();
        let passed = ktime_get_ns().wrapping_sub(self.ended_ns) / 1_000_000;

        if self.done == 0 {
            return 0;
        }
        least.saturating_sub(passed.try_into().unwrap_or(u32::MAX))
    }
}

/// Memory that scans use again and again, and what they know of earlier ones.
struct Buffers {
    look: Look,
    known: Known,
    /// The damage that was reported last, as long as it is there.
    damage: Option<Damage>,
}

/// Makes scans.
#[pin_data]
pub(crate) struct Scanner {
    sources: Sources,
    log: Arc<Log>,
    counts: Counts,
    #[pin]
    flight: Mutex<Flight>,
    #[pin]
    ended: CondVar,
    #[pin]
    buffers: Mutex<Buffers>,
    #[pin]
    work: DelayedWork<Scanner>,
    #[pin]
    alarm: DelayedWork<Scanner, ALARM>,
    queue: OwnedQueue,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Scanner { self.work }
    impl HasDelayedWork<Self, ALARM> for Scanner { self.alarm }
}

impl Scanner {
    /// Makes what scans need. The first one begins with [`start`](Self::start), or when it is asked for.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(sources: Sources, log: Arc<Log>) -> Result<Arc<Self>> {
        let queue = OwnedQueue::new(c"guest_integrity")?;
        let buffers = Buffers {
            look: Look::default(),
            known: Known::new(),
            damage: None,
        };

        Arc::pin_init(
            pin_init!(Self {
                sources,
                log,
                counts: Counts::new(),
                flight <- new_mutex!(Flight::default()),
                ended <- new_condvar!(),
                buffers <- new_mutex!(buffers),
                work <- new_delayed_work!(),
                alarm <- new_delayed_work!(),
                queue,
            }),
            GFP_KERNEL,
        )
    }

    /// Begins periodic scanning, with a scan now, if there is to be any.
    pub(crate) fn start(self: &Arc<Self>) {
        if params::interval_ms.get() != 0 {
            self.scan_in(0);
        }
    }

    /// Ends periodic scanning for good.
    pub(crate) fn stop(self: &Arc<Self>) {
        disable_delayed_sync::<_, 0>(self);
        disable_delayed_sync::<_, ALARM>(self);
    }

    /// What scans have seen so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Where scans take their views from.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The views that the last scan could not take, a bit each.
    pub(crate) fn uncovered(&self) -> u32 {
        self.flight.lock().last.coverage.uncovered
    }

    /// The suspects of the probe.
    pub(crate) fn suspects(&self) -> &Suspects {
        &self.sources.suspects
    }

    /// Makes a scan, or waits for one that begins after the call.
    ///
    /// # Errors
    ///
    /// [`ERESTARTSYS`] if a signal comes while others scan, [`ETIMEDOUT`] if they do not come to an end.
    pub(crate) fn scan(&self) -> Result {
        let mut patience = msecs_to_jiffies(PATIENCE_MS);
        let mut flight = self.flight.lock();
        let wanted = flight.begun + 1;

        while flight.done < wanted {
            if flight.done == flight.begun {
                let rest = flight.rest();
                if rest != 0 {
                    // Somebody else may scan first.
                    let waited = self
                        .ended
                        .wait_interruptible_timeout(&mut flight, msecs_to_jiffies(rest));
                    if let CondVarTimeoutResult::Signal { .. } = waited {
                        return Err(ERESTARTSYS);
                    }
                    continue;
                }
                flight.begun += 1;
                let number = flight.begun;
                drop(flight);

                let last = self.run_scan(number);

                flight = self.flight.lock();
                flight.done = number;
                flight.ended_ns = ktime_get_ns();
                flight.last = last;
                self.ended.notify_all();
                continue;
            }
            match self.ended.wait_interruptible_timeout(&mut flight, patience) {
                CondVarTimeoutResult::Woken { jiffies } => patience = jiffies,
                CondVarTimeoutResult::Timeout => return Err(ETIMEDOUT),
                CondVarTimeoutResult::Signal { .. } => return Err(ERESTARTSYS),
            }
        }
        Ok(())
    }

    fn scan_in(self: &Arc<Self>, ms: u32) {
        // If it is queued already, or may not be any more, that is as well.
        let _ = self
            .queue
            .enqueue_delayed::<_, 0>(self.clone(), msecs_to_jiffies(ms));
    }

    /// Makes scan `number`.
    fn run_scan(&self, number: u64) -> Last {
        let start = Instant::<Monotonic>::now();
        let mut buffers = self.buffers.lock();
        let mut last = Last {
            number,
            ..Last::default()
        };

        let Buffers { look, known, .. } = &mut *buffers;
        let taken = look.take(&self.sources, known);

        last.coverage = look.witnesses.coverage;
        match taken {
            Ok(result) => last.result = result,
            // No memory to write down what was found.
            Err(_) => last.coverage.skipped = last.coverage.skipped.max(1),
        }
        self.report(&mut buffers, &mut last);
        buffers.look.witnesses.end();

        // CAST: Time does not run backwards.
        last.duration_ns = start.elapsed().as_nanos() as u64;
        self.count(&last);
        guest::trace::guest_integrity::scan(
            number,
            last.duration_ns,
            last.coverage.queued,
            last.coverage.processes,
            last.found,
            last.coverage.is_complete(),
        );
        last
    }

    /// Reports what was found, and forgets what is not so any more.
    fn report(&self, buffers: &mut Buffers, last: &mut Last) {
        let Buffers {
            look,
            known,
            damage,
        } = buffers;

        for found in look.found.iter() {
            let seen = match found.weight {
                Weight::Finding => &mut last.found,
                Weight::Observation => &mut last.observed,
            };

            *seen = seen.saturating_add(1);
            if !known.see(found) {
                self.log.found(found);
                self.count_new(found);
                // If there is no memory for it, it is reported again.
                let _ = known.add(found);
            }
        }
        look.found.clear();
        known.keep_seen(last.coverage.is_complete());
        // Who was cleared is suspected anew when there is reason to.
        self.sources.suspects.settle(|task| known.has(task));

        if let Some(found) = last.coverage.damage.filter(|found| *damage != Some(*found)) {
            self.log.damage(found);
        }
        *damage = last.coverage.damage;
    }

    /// Counts something that was not known.
    fn count_new(&self, found: &Found) {
        if found.weight == Weight::Observation {
            return add(&self.counts.observations, 1);
        }
        add(&self.counts.findings, 1);
        if let Some(counter) = self.counts.by_view.get(usize::from(found.view)) {
            add(counter, 1);
        }
    }

    fn count(&self, last: &Last) {
        let complete = last.coverage.is_complete();

        for (i, counter) in self.counts.uncovered.iter().enumerate() {
            add(counter, (last.coverage.uncovered >> i & 1).into());
        }
        add(&self.counts.scans, 1);
        add(&self.counts.clean, (complete && last.found == 0).into());
        add(&self.counts.truncated, (!complete).into());
        add(&self.counts.sightings, last.found.into());
        add(&self.counts.exiting, last.result.exiting.into());
        add(&self.counts.cleared, last.result.cleared.into());
    }
}

impl WorkItem for Scanner {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if params::interval_ms.get() == 0 {
            return;
        }
        // A kernel thread gets no signals; if others scan without end, the next time is as good.
        let _ = this.scan();
        match params::interval_ms.get() {
            0 => {}
            ms => this.scan_in(ms),
        }
    }
}

impl WorkItem<ALARM> for Scanner {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // As above.
        let _ = this.scan();
    }
}

impl Alarm for Scanner {
    fn suspected(self: &Arc<Self>) {
        // Others that come until then are looked at together. If it is queued already, or may not be any more, that is as well.
        let _ = self
            .queue
            .enqueue_delayed::<_, ALARM>(self.clone(), msecs_to_jiffies(ALARM_MS));
    }
}

/// Passes a new interval on to the work that is waiting for the old one to pass.
pub(crate) struct Rearm(pub(crate) Arc<Scanner>);

impl Watch<u32> for Rearm {
    fn changed(&self, ms: u32) {
        cancel_delayed::<_, 0>(&self.0);
        if ms != 0 {
            self.0.scan_in(ms);
        }
    }
}
