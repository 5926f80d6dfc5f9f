// SPDX-License-Identifier: GPL-2.0

//! How soon the host has memory that the guest keeps, but does not use.

use super::{
    spec,
    touch,
    LIMIT,
    MIB,
    PAIR, //
};
use crate::{
    bench::{
        rows::Row,
        Bench,
        Benchmark,
        Findings, //
    },
    guest::Guest,
    tests::balloon::meminfo, //
};
use anyhow::{
    ensure,
    Result, //
};
use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "balloon/reporting",
        "how soon the host has three quarters of the guest's free memory",
        reporting,
    )]
}

fn reporting(bench: &Bench) -> Result<Findings> {
    let mut guest = Guest::boot(&bench.lab, &spec(",free-page-reporting=on"))?;
    let mut row = Row::new("all free memory, after the driver was loaded", "s");

    guest.sh("echo 100 >/sys/module/page_reporting/parameters/page_reporting_delay_ms")?;
    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            touch(&mut guest)?;
            let full = guest.resident()?;
            let free = meminfo(&mut guest, "MemFree")?;
            let start = Instant::now();
            driver.load(&mut guest, "")?;
            falls_to(&guest, full - free * 3 / 4)?;
            row.push(side, start.elapsed().as_secs_f64());

            driver.unload(&mut guest)?;
        }
    }
    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows: vec![row],
        ..Findings::default()
    })
}

/// Waits until the host holds so little memory of the guest.
fn falls_to(guest: &Guest, most: u64) -> Result<()> {
    let start = Instant::now();

    while guest.resident()? > most {
        ensure!(
            start.elapsed() < LIMIT,
            "the host holds {} MiB, not {} MiB",
            guest.resident()? / MIB,
            most / MIB
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
