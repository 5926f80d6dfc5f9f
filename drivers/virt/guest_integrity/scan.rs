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

use crate::{
    collect::{
        self,
        Coverage,
        Damage, //
    },
    decide::{
        Entry,
        Search,
        Suspect, //
    },
    params,
    report::{
        Hidden,
        Log,
        Sighting, //
    },
};

use guest::{
    param::Watch,
    sched::{
        rq::{
            QueuedTask,
            QueuedTasks,
            RunQueues, //
        },
        TaskExt, //
    },
    workqueue::{
        cancel_delayed,
        disable_delayed_sync,
        OwnedQueue, //
    },
};

use kernel::{
    fmt, new_condvar, new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        barrier::{
            smp_mb,
            Full, //
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

/// How many of each there have been since the module was loaded.
pub(crate) struct Counts {
    /// Scans.
    pub(crate) scans: Atomic<u64>,
    /// Scans that left nothing out and found nothing.
    pub(crate) clean: Atomic<u64>,
    /// Scans that left something out.
    pub(crate) truncated: Atomic<u64>,
    /// Tasks found hidden, each once.
    pub(crate) findings: Atomic<u64>,
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
    exiting: u32,
    suspects: u32,
    cleared: u32,
    hidden: u32,
    duration_ns: u64,
}

/// Whether a scan is under way.
#[derive(Default)]
struct Flight {
    /// Number of the scan that began last.
    begun: u64,
    /// Number of the scan that ended last.
    done: u64,
    last: Last,
}

/// Memory that scans use again and again, and what they know of earlier ones.
struct Buffers {
    tasks: QueuedTasks,
    entries: KVVec<Entry>,
    suspects: KVVec<Suspect>,
    hidden: Hidden,
    /// The damage that was reported last, as long as it is there.
    damage: Option<Damage>,
}

/// Makes scans.
#[pin_data]
pub(crate) struct Scanner {
    run_queues: RunQueues,
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
    queue: OwnedQueue,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Scanner { self.work }
}

impl Scanner {
    /// Makes what scans need. The first one begins with [`start`](Self::start), or when it is asked for.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(run_queues: RunQueues, log: Arc<Log>) -> Result<Arc<Self>> {
        let queue = OwnedQueue::new(c"guest_integrity")?;
        let buffers = Buffers {
            tasks: QueuedTasks::default(),
            entries: KVVec::new(),
            suspects: KVVec::new(),
            hidden: Hidden::new(),
            damage: None,
        };

        Arc::pin_init(
            pin_init!(Self {
                run_queues,
                log,
                counts: Counts::new(),
                flight <- new_mutex!(Flight::default()),
                ended <- new_condvar!(),
                buffers <- new_mutex!(buffers),
                work <- new_delayed_work!(),
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
        disable_delayed_sync(self);
    }

    /// What scans have seen so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
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
                flight.begun += 1;
                let number = flight.begun;
                drop(flight);

                let last = self.run_scan(number);

                flight = self.flight.lock();
                flight.done = number;
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

    /// Shows what the last scan was like.
    pub(crate) fn show_last(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.flight.lock().last;
        let coverage = &last.coverage;

        writeln!(f, "scan={}", last.number)?;
        writeln!(f, "complete={}", u8::from(coverage.is_complete()))?;
        writeln!(f, "cpus={}", coverage.cpus)?;
        writeln!(f, "cpus_online={}", coverage.online)?;
        writeln!(f, "queued={}", coverage.queued)?;
        writeln!(f, "processes={}", coverage.processes)?;
        writeln!(f, "threads={}", coverage.threads)?;
        writeln!(f, "retries={}", coverage.cost.retries)?;
        writeln!(f, "skipped={}", coverage.skipped)?;
        writeln!(f, "cut={}", coverage.cut)?;
        writeln!(f, "exiting={}", last.exiting)?;
        writeln!(f, "suspects={}", last.suspects)?;
        writeln!(f, "cleared={}", last.cleared)?;
        writeln!(f, "hidden={}", last.hidden)?;
        writeln!(f, "held_ns={}", coverage.cost.held_ns)?;
        writeln!(f, "duration_ns={}", last.duration_ns)
    }

    fn scan_in(self: &Arc<Self>, ms: u32) {
        // If it is queued already, or may not be any more, that is as well.
        let _ = self
            .queue
            .enqueue_delayed(self.clone(), msecs_to_jiffies(ms));
    }

    /// Makes scan `number`.
    fn run_scan(&self, number: u64) -> Last {
        let start = Instant::<Monotonic>::now();
        let mut buffers = self.buffers.lock();
        let mut last = Last {
            number,
            ..Last::default()
        };

        if self.look(&mut buffers, &mut last).is_err() {
            // No memory to write down what was found.
            last.coverage.skipped = last.coverage.skipped.max(1);
        }
        self.report(&mut buffers, &mut last);
        // Tasks are let go without delay: they may have exited.
        buffers.tasks.clear();

        // CAST: Time does not run backwards.
        last.duration_ns = start.elapsed().as_nanos() as u64;
        self.count(&last);
        guest::trace::guest_integrity::scan(
            number,
            last.duration_ns,
            last.coverage.queued,
            last.coverage.processes,
            last.hidden,
            last.coverage.is_complete(),
        );
        last
    }

    /// Takes the views and compares them, twice for those that the first time suspects.
    fn look(
        &self,
        buffers: &mut Buffers,
        last: &mut Last,
    ) -> Result<(), kernel::alloc::AllocError> {
        let Buffers {
            tasks,
            entries,
            suspects,
            hidden,
            ..
        } = buffers;

        entries.clear();
        suspects.clear();

        // What is known to be hidden is looked for whether it runs now or not; it comes first, and is known by its place.
        for (i, task) in (0..).zip(hidden.tasks()) {
            collect::entry(entries, task, false, i)?;
        }
        let known = hidden.len();
        collect::run_queues(&self.run_queues, tasks, &mut last.coverage);
        for (i, queued) in (known..).zip(tasks.iter()) {
            collect::entry(entries, &queued.task, queued.idle, i)?;
        }
        suspects.reserve(entries.len(), GFP_KERNEL)?;

        // The lists are read after the run queues.
        smp_mb(Full);

        // Only what two searches, one after the other, do not find is hidden.
        for pass in 0..2 {
            let mut seen = Coverage::default();
            let mut search = Search::new(entries);

            collect::lists(&mut search, &mut seen);
            last.coverage.cut += seen.cut;
            last.coverage.damage = last.coverage.damage.or(seen.damage);
            if pass == 0 {
                last.coverage.processes = seen.processes;
                last.coverage.threads = seen.threads;
            }
            suspects.clear();
            if seen.cut != 0 {
                // Nobody can be said to be missing from a list that was not read to its end.
                break;
            }
            search.finish(
                |origin| {
                    let exited =
                        sighting(hidden, tasks, origin).is_none_or(|s| s.task.has_exited());
                    last.exiting += u32::from(exited);
                    exited
                },
                |suspect| {
                    // There is room for all.
                    let _ = suspects.push_within_capacity(suspect);
                },
            );

            // CAST: As many as entries, of which there are not that many.
            let count = suspects.len() as u32;
            if pass == 0 {
                last.suspects = count;
                if count == 0 {
                    break;
                }
                entries.retain(|entry| entry.is_suspected());
            } else {
                last.cleared = last.suspects - count;
            }
        }
        last.hidden = suspects.len() as u32;
        Ok(())
    }

    /// Reports what was found, and forgets whom it does not apply to any more.
    fn report(&self, buffers: &mut Buffers, last: &mut Last) {
        let Buffers {
            tasks,
            suspects,
            hidden,
            damage,
            ..
        } = buffers;

        for suspect in suspects.iter() {
            match sighting(hidden, tasks, suspect.origin) {
                Some(sighting) if !sighting.known => {
                    self.log.finding(&sighting, suspect.unlisted);
                    add(&self.counts.findings, 1);
                }
                Some(_) => hidden.seen(suspect.origin),
                None => {}
            }
        }
        if let Some(found) = last.coverage.damage.filter(|found| *damage != Some(*found)) {
            self.log.damage(found);
        }
        *damage = last.coverage.damage;

        let known = hidden.len();
        hidden.keep_seen(last.coverage.is_complete());
        for suspect in suspects.iter() {
            let i = suspect.origin.checked_sub(known);
            if let Some(queued) = i.and_then(|i| tasks.get(i as usize)) {
                // If there is no memory for it, it is reported again.
                let _ = hidden.add(queued);
            }
        }
    }

    fn count(&self, last: &Last) {
        let complete = last.coverage.is_complete();

        add(&self.counts.scans, 1);
        add(&self.counts.clean, (complete && last.hidden == 0).into());
        add(&self.counts.truncated, (!complete).into());
        add(&self.counts.sightings, last.hidden.into());
        add(&self.counts.exiting, last.exiting.into());
        add(&self.counts.cleared, last.cleared.into());
    }
}

/// Returns the task that an entry was made of.
fn sighting<'a>(hidden: &'a Hidden, tasks: &'a [QueuedTask], origin: u32) -> Option<Sighting<'a>> {
    if origin < hidden.len() {
        return hidden.get(origin);
    }
    tasks
        .get((origin - hidden.len()) as usize)
        .map(|queued| Sighting {
            task: &queued.task,
            cpu: queued.cpu,
            known: false,
        })
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

/// Passes a new interval on to the work that is waiting for the old one to pass.
pub(crate) struct Rearm(pub(crate) Arc<Scanner>);

impl Watch<u32> for Rearm {
    fn changed(&self, ms: u32) {
        cancel_delayed(&self.0);
        if ms != 0 {
            self.0.scan_in(ms);
        }
    }
}
