// SPDX-License-Identifier: GPL-2.0

//! The balloon: how fast memory goes to the host and comes back, and what that costs the guest.

mod backing;
mod ceiling;
mod counted;
mod exits;
mod free;
mod latency;
mod rates;

use super::{
    rows::Pair,
    Benchmark, //
};
use crate::{
    guest::{
        Guest,
        Spec, //
    },
    tests::{
        self,
        balloon::{
            actual,
            ask,
            meminfo,
            C,
            RUST, //
        },
    },
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    fs,
    path::Path,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

const PAIR: Pair = Pair {
    theirs: C,
    ours: RUST,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What is in the balloon.
const AMOUNT: u64 = 384 * MIB;

/// Longest time for anything.
const LIMIT: Duration = Duration::from_secs(120);

pub fn benchmarks() -> Vec<Benchmark> {
    [
        rates::benchmarks(),
        counted::benchmarks(),
        exits::benchmarks(),
        backing::benchmarks(),
        free::benchmarks(),
        latency::benchmarks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A PC with a balloon `b0`, all of whose memory the host holds from the start.
fn spec(properties: &str) -> Spec {
    tests::balloon::spec(Spec::q35(), &format!("id=b0{properties}"))
}

/// How long the threads of a process have been at work.
fn worked(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/task");
    let mut sum = Duration::ZERO;

    for thread in fs::read_dir(&path).context(path)? {
        sum += ran(&thread?.path());
    }
    Ok(sum)
}

/// How long the first thread of a process, which does a device's work, has been at work.
fn first_worked(pid: u32) -> Duration {
    ran(Path::new(&format!("/proc/{pid}/task/{pid}")))
}

/// How long a thread has been at work: nothing if it has ended meanwhile.
fn ran(thread: &Path) -> Duration {
    let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();

    Duration::from_nanos(
        text.split_whitespace()
            .next()
            .and_then(|nanoseconds| nanoseconds.parse().ok())
            .unwrap_or(0),
    )
}

/// Asks for a guest of this size, and returns how long it takes until the driver has told the host that it has it.
fn resize(guest: &mut Guest, size: u64) -> Result<Duration> {
    let start = Instant::now();

    ask(guest, size)?;
    while actual(guest)? != size {
        ensure!(
            start.elapsed() < LIMIT,
            "the guest has {} MiB, not {} MiB",
            actual(guest)? / MIB,
            size / MIB
        );
        thread::sleep(Duration::from_millis(2));
    }
    Ok(start.elapsed())
}

/// Has the guest write to nearly all memory that it can have, so that the host holds that, and returns how long it takes.
fn touch(guest: &mut Guest) -> Result<Duration> {
    let start = Instant::now();

    fill(guest)?;
    let took = start.elapsed();
    empty(guest)?;
    Ok(took)
}

/// Has the guest fill nearly all memory that it can have, and returns how many bytes these are.
fn fill(guest: &mut Guest) -> Result<u64> {
    let megabytes = meminfo(guest, "MemAvailable")? / MIB * 9 / 10;

    guest.sh_for(
        LIMIT,
        &format!("dd if=/dev/zero of=/tmp/touch bs=1M count={megabytes} 2>/dev/null"),
    )?;
    Ok(megabytes * MIB)
}

/// Frees it again.
fn empty(guest: &mut Guest) -> Result<()> {
    guest.sh("rm /tmp/touch").map(drop)
}
