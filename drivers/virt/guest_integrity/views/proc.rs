// SPDX-License-Identifier: GPL-2.0

//! View `proc`: what the directory `/proc` shows.
//!
//! The kernel reads the directory as a program does, through the operations that whoever replaced them has replaced. A process that
//! is in the table of numbers before that is read, and the same one after it, was there all the time: it must have been
//! shown. Nothing is said where `/proc` is not mounted.

use super::{
    Examined,
    Sources,
    View, //
};
use crate::finding::{
    Found,
    Key,
    Subject,
    Weight,
    Who, //
};

use guest::{
    fs::{
        Directory,
        PROC_SUPER_MAGIC, //
    },
    sched::{
        peek::Peek,
        pids::{
            self,
            Numbered, //
        },
    },
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::rcu, //
};

/// Attempts to find room for all processes.
const ATTEMPTS: u32 = 8;

pub(super) const VIEW: View = View {
    examine: Some(examine),
    shows: Some(listing),
    ..View::named("proc")
};

/// A process: its number, and when it was made.
pub(crate) type Process = (i32, u64);

fn examine(_sources: &Sources, found: &mut KVVec<Found>, view: u8) -> Result<Examined, AllocError> {
    let Some(before) = processes()? else {
        return Ok(Examined::NotCovered);
    };
    let Some(shown) = listing() else {
        return Ok(Examined::NotCovered);
    };
    compare(&before, &shown, |process| {
        let one = missing(process, view, "proc_unlisted");
        match one {
            Some(one) => found.push(one, GFP_KERNEL),
            None => Ok(()),
        }
    })?;
    Ok(Examined::Whole)
}

/// Returns all processes that have a number, in the order of those.
pub(crate) fn processes() -> Result<Option<KVVec<Process>>, AllocError> {
    let mut processes = KVVec::new();
    let mut room = 256;

    for _ in 0..ATTEMPTS {
        processes.reserve(room, GFP_KERNEL)?;

        let guard = rcu::read_lock();
        let all = Numbered::processes(&guard).try_for_each(|(number, leader)| {
            processes.push_within_capacity((number, leader.start_time()))
        });
        drop(guard);
        if all.is_ok() {
            return Ok(Some(processes));
        }
        room = processes.len() * 2;
        processes.clear();
    }
    Ok(None)
}

/// Returns the numbers that `/proc` shows, in the order of numbers, if it can be read.
pub(crate) fn listing() -> Option<KVVec<i32>> {
    let mut directory = Directory::open(c"/proc").ok()?;
    let mut shown = KVVec::new();

    if directory.magic() != PROC_SUPER_MAGIC {
        return None;
    }
    directory
        .read(&mut |name| {
            if let Some(number) = number(name) {
                shown.push(number, GFP_KERNEL)?;
            }
            Ok(())
        })
        .ok()?;
    Some(shown)
}

/// Reads a number, as the names of processes are.
fn number(name: &[u8]) -> Option<i32> {
    core::str::from_utf8(name).ok()?.parse().ok()
}

/// Calls `missing` with those of `before` that `shown` lacks. Both are in the order of their numbers, unless `shown` was tampered
/// with: then more are missing than there need be.
fn compare(
    before: &[Process],
    shown: &[i32],
    mut missing: impl FnMut(Process) -> Result<(), AllocError>,
) -> Result<(), AllocError> {
    let mut shown = shown.iter().peekable();

    for &process in before {
        while shown.next_if(|number| **number < process.0).is_some() {}
        if shown.peek() != Some(&&process.0) {
            missing(process)?;
        }
    }
    Ok(())
}

/// Returns the process if it is still there.
fn still(guard: &rcu::Guard, (number, start): Process) -> Option<Peek<'_>> {
    pids::process(guard, number).filter(|leader| leader.start_time() == start)
}

/// Returns whether a process is still there.
pub(crate) fn is_still(process: Process) -> bool {
    still(&rcu::read_lock(), process).is_some()
}

/// Returns what there is to say of a process that was not shown, if it is still there.
pub(super) fn missing(process: Process, view: u8, reason: &'static str) -> Option<Found> {
    let guard = rcu::read_lock();
    let leader = still(&guard, process)?;

    Some(Found {
        key: Key::of(leader, reason),
        view,
        reason,
        weight: Weight::Finding,
        subject: Subject::Task(Who::of(leader)),
        held: None,
    })
}
