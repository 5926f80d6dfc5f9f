// SPDX-License-Identifier: GPL-2.0

//! How much memory a receive queue takes.

use super::{
    packets::PAIR,
    rows::Row,
    Bench,
    Benchmark,
    Findings, //
};
use crate::{
    guest::{
        Guest,
        Spec, //
    },
    tests::net::{
        appears,
        MODERN, //
    }, //
};
use anyhow::{
    Context,
    Result, //
};

/// How many pairs of queues: what else the drivers need does not count much then.
const QUEUES: u32 = 8;

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "net/memory",
        "memory that a pair of queues takes before the first packet, with 256 receive buffers",
        memory,
    )]
}

fn memory(bench: &Bench) -> Result<Findings> {
    let vectors = 2 * QUEUES + 2;
    // One CPU, and nothing that happens at times of the host's.
    let spec = Spec::q35()
        .tap(QUEUES, &format!("mq=on,vectors={vectors},{MODERN}"))
        .counted();
    let mut guest = Guest::boot(&bench.lab, &spec)?;
    let mut row = Row::new("memory of a pair of queues", "KiB");

    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            let before = free(&mut guest)?;
            driver.load(&mut guest, "")?;
            appears(&mut guest)?;
            guest.sh(&format!(
                "{{ test $(ethtool -l eth0 | awk '/^Combined/ {{ n = $2 }} END {{ print n }}') = {QUEUES} || \
                 ethtool -L eth0 combined {QUEUES}; }} && sleep 1"
            ))?;
            let down = free(&mut guest)?;
            guest.sh("ip link set eth0 up && sleep 1")?;
            let up = free(&mut guest)?;
            let taken = down.saturating_sub(up) as f64 / f64::from(QUEUES);
            bench.progress(&format!("  {before} -> {down} -> {up} KiB free"));
            row.push(side, taken);
            driver.unload(&mut guest)?;
        }
    }
    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows: vec![row],
        ..Findings::default()
    })
}

/// Free memory in KiB, with what is free but in the lists of a CPU.
fn free(guest: &mut Guest) -> Result<u64> {
    guest
        .number(
            "sync; echo 3 >/proc/sys/vm/drop_caches; \
             awk '$1 == \"nr_free_pages\" || $1 == \"count:\" { n += $2 } END { print n * 4 }' /proc/zoneinfo",
        )
        .context("the free memory of the guest")
}
