// SPDX-License-Identifier: GPL-2.0

//! View `runqueue`: what runs or waits to run.
//!
//! A task is put on the lists before it is woken for the first time, so whatever is on a run queue is on the lists, or was taken off
//! them as it exits.

use super::{
    Sources,
    View, //
};
use crate::witness::Witnesses;

use guest::sched::rq::{
    Cost,
    NotCopied,
    QueuedTasks,
    RunQueue,
    MAX_QUEUED, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// Most tasks that all run queues together are believed to have.
const MAX_TASKS: usize = 1 << 20;
/// Rounds of attempts at the lock of a run queue, with a pause after each.
const LOCK_ROUNDS: u32 = 64;
/// The pause.
const LOCK_PAUSE: Delta = Delta::from_micros(200);

pub(super) const VIEW: View = View {
    collect: Some(collect),
    ..View::named("runqueue")
};

/// Copies all run queues.
fn collect(sources: &Sources, to: &mut Witnesses) -> Result<(), AllocError> {
    let Witnesses {
        queued, coverage, ..
    } = to;

    // Room for what runs now, and as much again, so that the usual scan needs no more. Without it, `copy` asks for some.
    let wanted = sources.run_queues.iter().fold(0_usize, |sum, rq| {
        sum.saturating_add(rq.nr_running().min(MAX_QUEUED) * 2 + 4)
    });
    let _ = queued.reserve(wanted.min(MAX_TASKS));

    for rq in sources.run_queues.iter() {
        match copy(&rq, queued, &mut coverage.cost) {
            Ok(()) => {
                coverage.cpus += 1;
                coverage.online += u32::from(rq.is_online());
            }
            Err(why) => {
                coverage.skipped += 1;
                if let NotCopied::Damaged(cut) = why {
                    coverage.damaged_run_queue(cut);
                }
            }
        }
    }
    // CAST: Not more than `MAX_TASKS` and a doubling.
    coverage.queued = queued.len() as u32;
    to.add_queued()
}

/// Copies one run queue, with more room and more attempts at its lock as it needs them.
fn copy(rq: &RunQueue<'_>, tasks: &mut QueuedTasks, cost: &mut Cost) -> Result<(), NotCopied> {
    let mut rounds = 0;

    loop {
        match rq.copy(tasks, cost) {
            Err(NotCopied::Full) if tasks.len() < MAX_TASKS => {
                let more = (2 * tasks.room()).clamp(256, MAX_TASKS);
                tasks.reserve(more).map_err(|_| NotCopied::Full)?;
            }
            Err(NotCopied::Busy) if rounds < LOCK_ROUNDS => {
                rounds += 1;
                fsleep(LOCK_PAUSE);
            }
            done => return done,
        }
    }
}
