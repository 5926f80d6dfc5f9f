// SPDX-License-Identifier: GPL-2.0

//! Memory that the guest keeps, but does not use: how soon the host has it, and what migrating the guest costs.

use super::{
    empty,
    fill,
    spec,
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
    guest::Guest, //
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
    vec![
        Benchmark::new(
            "balloon/reporting",
            "how soon the host has two thirds of what the guest frees",
            reporting,
        ),
        Benchmark::new(
            "balloon/hinting",
            "migrating a guest with much free memory to a file",
            hinting,
        ),
    ]
}

fn reporting(bench: &Bench) -> Result<Findings> {
    let mut guest = Guest::boot(&bench.lab, &spec(",free-page-reporting=on"))?;
    let mut row = Row::new("until two thirds of what is freed are reported", "s");

    guest.sh("echo 100 >/sys/module/page_reporting/parameters/page_reporting_delay_ms")?;
    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            driver.load(&mut guest, "")?;
            let bytes = fill(&mut guest)?;
            let full = guest.resident()?;
            let start = Instant::now();
            empty(&mut guest)?;
            falls_to(&guest, full - bytes * 2 / 3)?;
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

fn hinting(bench: &Bench) -> Result<Findings> {
    let spec = spec(",free-page-hint=on,iothread=io0")
        // The kernel would clear what it takes, and pages of zeroes are hardly anything to send.
        .append("init_on_alloc=0")
        .arguments(&["-object", "iothread,id=io0"]);
    let mut sent = Row::new("memory that was sent", "MiB");
    let mut took = Row::new("the migration", "s");
    let mut guest = Guest::boot(&bench.lab, &spec)?;

    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            // Free memory with something in it.
            guest.sh_for(
                LIMIT,
                "head -c 33554432 /dev/urandom >/tmp/piece && \
                 for i in $(seq 10); do cp /tmp/piece /tmp/piece$i || exit; done; rm /tmp/piece*",
            )?;
            driver.load(&mut guest, "")?;
            let start = Instant::now();
            let bytes = guest.migrate_by_file(&bench.lab)?;
            took.push(side, start.elapsed().as_secs_f64());
            sent.push(side, bytes as f64 / MIB as f64);
            driver.unload(&mut guest)?;
        }
    }
    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows: vec![sent, took],
        ..Findings::default()
    })
}
