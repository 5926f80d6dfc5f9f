// SPDX-License-Identifier: GPL-2.0

//! One scan, from the views to what was found.

use crate::{
    coverage::{
        Coverage,
        Damage, //
    },
    decide::{
        Entry,
        Search,
        Suspect,
        Unlisted, //
    },
    departed::Departed,
    finding::{
        Found,
        Key,
        Known,
        Subject,
        Weight,
        Who, //
    },
    views::{
        views,
        Examined,
        Sources,
        View,
        VIEWS, //
    },
    witness::Witnesses, //
};

use guest::sched::{
    grace_period,
    list::{
        Listed,
        Processes,
        Threads, //
    },
    peek::Peek,
    SignalId,
    TaskId, //
};

use kernel::{
    alloc::{
        allocator::KVmalloc,
        AllocError, //
    },
    prelude::*,
    sync::{
        barrier::{
            smp_mb,
            Full, //
        },
        rcu, //
    },
};

/// Most faults of listed tasks that one scan can note.
const MAX_DOUBTS: usize = 256;

/// Attempts to find room for what the views name.
const ATTEMPTS: u32 = 8;

/// What one scan has found, in numbers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Result {
    /// Tasks that were on no list because they were exiting.
    pub(crate) exiting: u32,
    /// Tasks that the first look suspected.
    pub(crate) suspects: u32,
    /// Those of them that a later look did not.
    pub(crate) cleared: u32,
}

/// A fault of a task on the lists, which only some looks have seen yet.
#[derive(Clone, Copy)]
struct Doubt {
    task: TaskId,
    key: Key,
    view: u8,
    reason: &'static str,
    who: Who,
    looks: u32,
}

/// Memory that scans use again and again.
#[derive(Default)]
pub(crate) struct Look {
    pub(crate) witnesses: Witnesses,
    pub(crate) found: KVVec<Found>,
    entries: KVVec<Entry>,
    suspects: KVVec<Suspect>,
    doubts: KVVec<Doubt>,
    departed: Departed,
}

impl Unlisted {
    fn reason(self) -> &'static str {
        match self {
            Unlisted::Process => "process_unlisted",
            Unlisted::Thread => "thread_unlisted",
        }
    }
}

impl Look {
    /// Takes all views and compares them.
    ///
    /// # Errors
    ///
    /// There is no memory to write down what they say.
    pub(crate) fn take(
        &mut self,
        sources: &Sources,
        known: &Known,
    ) -> core::result::Result<Result, AllocError> {
        let mut result = Result::default();

        self.found.clear();
        self.doubts.clear();
        self.doubts.reserve(MAX_DOUBTS, GFP_KERNEL)?;

        // What is known to be hidden is looked for whether it runs now or not.
        self.witnesses.begin(known)?;
        for (i, view) in views() {
            self.witnesses.of_view(i);
            if let Some(collect) = view.collect {
                collect(sources, &mut self.witnesses)?;
            }
        }

        let collected = self.witnesses.len();
        for attempt in 1.. {
            let room = self.witnesses.capacity();
            make_room(&mut self.entries, room)?;
            make_room(&mut self.suspects, room)?;
            make_room(&mut self.found, (room / 64).max(MAX_DOUBTS))?;

            let guard = rcu::read_lock();
            for (i, view) in views() {
                self.witnesses.of_view(i);
                if let Some(witness) = view.witness {
                    witness(&guard, &mut self.witnesses);
                }
            }
            if self.witnesses.are_all() || attempt == ATTEMPTS {
                if !self.witnesses.are_all() {
                    self.witnesses.coverage.skipped += 1;
                }
                self.compare(&guard, sources, known, &mut result);
                break;
            }
            drop(guard);
            self.witnesses.retry(collected)?;
        }

        self.confirm(sources, &mut result);
        for (i, view) in views() {
            let Some(examine) = view.examine else {
                continue;
            };
            // CAST: The table is short.
            let examined = examine(sources, &mut self.found, i as u8)?;
            let coverage = &mut self.witnesses.coverage;

            if !matches!(examined, Examined::Whole) {
                coverage.uncovered |= 1 << i;
            }
            if let Examined::Damaged(damage) = examined {
                coverage.cut(damage);
            }
        }
        Ok(result)
    }

    /// Compares what the views say with the lists.
    fn compare(
        &mut self,
        guard: &rcu::Guard,
        sources: &Sources,
        known: &Known,
        result: &mut Result,
    ) {
        let Look {
            witnesses,
            found,
            entries,
            suspects,
            doubts,
            departed,
        } = self;

        // Who is no longer said to exit may do so for the first time later on.
        departed.keep(|(task, start)| {
            let task = Peek::new(guard, TaskId(task));
            task.start_time() == start && task.has_exited()
        });
        entries.clear();
        suspects.clear();
        for entry in witnesses.entries() {
            // There is room for all.
            let _ = entries.push_within_capacity(entry);
        }

        // The lists are read after the views were taken.
        smp_mb(Full);

        // Only what two searches, one after the other, do not find is hidden.
        for pass in 0..2 {
            let mut seen = Coverage::default();
            let mut search = Search::new(entries);
            let mut full = false;

            walk(guard, &mut search, &mut seen, pass == 0, |task| {
                full |= check(guard, sources, task, doubts).is_err();
            });
            let coverage = &mut witnesses.coverage;
            coverage.cut += seen.cut;
            coverage.damage = coverage.damage.or(seen.damage);
            coverage.skipped += u32::from(full);
            if pass == 0 {
                coverage.processes = seen.processes;
                coverage.threads = seen.threads;
            }
            suspects.clear();
            if seen.cut != 0 {
                // Nobody can be said to be missing from a list that was not read to its end, nor what is on it to be a task.
                doubts.clear();
                break;
            }
            search.finish(
                |origin| {
                    let Some(witness) = witnesses.get(origin) else {
                        return true;
                    };
                    let task = Peek::new(guard, witness.task);
                    let exited = task.has_exited() && autopsy(task, departed).is_none();
                    result.exiting += u32::from(exited);
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
                result.suspects = count;
                if count == 0 {
                    break;
                }
                entries.retain(|entry| entry.is_suspected());
            } else {
                result.cleared = result.suspects - count;
            }
        }

        for suspect in suspects.iter() {
            let Some(witness) = witnesses.get(suspect.origin) else {
                continue;
            };
            let task = Peek::new(guard, witness.task);
            let who = Who::of(task);
            let forged = task.has_exited().then(|| autopsy(task, departed));
            let (view, reason) = match forged.flatten() {
                Some(forged) => forged,
                None => (witness.view, suspect.unlisted.reason()),
            };
            let one = Found {
                key: Key::of(task, ""),
                view,
                reason,
                weight: Weight::Finding,
                subject: Subject::Task(Who {
                    cpu: witness.cpu.unwrap_or(who.cpu),
                    ..who
                }),
                held: witnesses.held(witness, known),
            };
            if found.push_within_capacity(one).is_err() {
                witnesses.coverage.skipped += 1;
                break;
            }
        }
    }

    /// Looks again at the tasks on the lists that have a fault, until there were enough looks.
    fn confirm(&mut self, sources: &Sources, result: &mut Result) {
        // CAST: At most `MAX_DOUBTS`.
        let suspects = self.doubts.len() as u32;
        result.suspects += suspects;

        for looks in 2..=View::LOOKS {
            if self.doubts.is_empty() {
                return;
            }
            grace_period();

            let guard = rcu::read_lock();
            let mut seen = Coverage::default();
            walk(&guard, &mut Search::new(&mut []), &mut seen, true, |task| {
                // One that is new has to wait for the next scan.
                again(&guard, sources, task, &mut self.doubts, looks);
            });
            drop(guard);
            self.doubts.retain(|doubt| doubt.looks == looks);
        }

        for doubt in self.doubts.iter() {
            let one = Found {
                key: doubt.key,
                view: doubt.view,
                reason: doubt.reason,
                weight: Weight::Finding,
                subject: Subject::Task(doubt.who),
                held: None,
            };
            if self.found.push_within_capacity(one).is_err() {
                self.witnesses.coverage.skipped += 1;
                break;
            }
        }
        // CAST: As above.
        result.cleared += suspects - self.doubts.len() as u32;
    }
}

/// Sees to it that `list` can have `len` elements. Sleeps.
fn make_room<T>(list: &mut Vec<T, KVmalloc>, len: usize) -> core::result::Result<(), AllocError> {
    list.reserve(len.saturating_sub(list.len()), GFP_KERNEL)
}

/// Has all views look at a task of the lists, and notes what they say.
fn check(
    guard: &rcu::Guard,
    sources: &Sources,
    task: Peek<'_>,
    doubts: &mut KVVec<Doubt>,
) -> core::result::Result<(), ()> {
    for (i, view) in views() {
        let Some(reason) = view.check.and_then(|check| check(guard, sources, task)) else {
            continue;
        };
        let doubt = Doubt {
            task: task.id(),
            key: Key::of(task, reason),
            // CAST: The table is short.
            view: i as u8,
            reason,
            who: Who::of(task),
            looks: 1,
        };
        doubts.push_within_capacity(doubt).map_err(drop)?;
    }
    Ok(())
}

/// Has all views look at a task that is not on the lists, and says that it has begun to exit: what is wrong with it, and the place
/// of the view that says so.
fn autopsy(task: Peek<'_>, departed: &mut Departed) -> Option<(u8, &'static str)> {
    views().find_map(|(i, view)| {
        let reason = view.autopsy?(task, departed)?;
        // CAST: The table is short.
        Some((i as u8, reason))
    })
}

/// Has the views that found a fault with a task look at it again.
fn again(guard: &rcu::Guard, sources: &Sources, task: Peek<'_>, doubts: &mut [Doubt], looks: u32) {
    for doubt in doubts.iter_mut().filter(|doubt| doubt.task == task.id()) {
        let view = (&VIEWS as &[View]).get(usize::from(doubt.view));
        let reason = view.and_then(|view| view.check?(guard, sources, task));

        if reason.is_some_and(|reason| Key::of(task, reason) == doubt.key) {
            doubt.looks = looks;
            doubt.who = Who::of(task);
        }
    }
}

/// Walks the lists and tells `search` what is on them, and `met` of each task if it is to be asked.
fn walk(
    guard: &rcu::Guard,
    search: &mut Search<'_>,
    coverage: &mut Coverage,
    ask: bool,
    mut met: impl FnMut(Peek<'_>),
) {
    let ask = ask && views().any(|(_, view)| view.check.is_some());
    let mut processes = Processes::new(guard);

    for Listed { process, .. } in processes.by_ref() {
        let SignalId(id) = process;

        coverage.processes = coverage.processes.saturating_add(1);
        // Memory that a bent link leads to may have no threads at all.
        if !search.process(id) && (!ask || id == 0) {
            continue;
        }

        let mut threads = Threads::of(guard, process);
        for Listed { task, .. } in threads.by_ref() {
            coverage.threads = coverage.threads.saturating_add(1);
            search.thread(id, task.0);
            if ask {
                met(Peek::new(guard, task));
            }
        }
        if let Some(cut) = threads.cut() {
            coverage.cut(Damage::Threads(cut));
        }
    }
    if let Some(cut) = processes.cut() {
        coverage.cut(Damage::Processes(cut));
    }
}
