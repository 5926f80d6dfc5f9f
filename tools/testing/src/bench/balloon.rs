// SPDX-License-Identifier: GPL-2.0

//! The balloon: how fast memory goes to the host and comes back, and what that costs the guest.

mod backing;
mod ceiling;
mod exits;
mod latency;
mod rates;
mod reporting;

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
    fs, thread,
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
        exits::benchmarks(),
        backing::benchmarks(),
        reporting::benchmarks(),
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
    let mut sum = 0;

    for thread in fs::read_dir(&path).context(path)? {
        let path = thread?.path().join("schedstat");
        // A thread may end meanwhile.
        let text = fs::read_to_string(path).unwrap_or_default();
        sum += text
            .split_whitespace()
            .next()
            .and_then(|nanoseconds| nanoseconds.parse().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
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
    let megabytes = meminfo(guest, "MemAvailable")? / MIB * 9 / 10;
    let start = Instant::now();

    guest.sh_for(
        LIMIT,
        &format!("dd if=/dev/zero of=/tmp/touch bs=1M count={megabytes} 2>/dev/null"),
    )?;
    let took = start.elapsed();
    guest.sh("rm /tmp/touch")?;
    Ok(took)
}
