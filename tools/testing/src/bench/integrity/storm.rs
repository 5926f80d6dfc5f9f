// SPDX-License-Identifier: GPL-2.0

//! False alarms in a long storm.

use crate::{
    bench::{
        rows::{
            Row,
            Side, //
        },
        Bench,
        Benchmark,
        Findings, //
    },
    guest::Guest,
    tests::integrity::{
        count,
        storm::{
            self,
            Storm, //
        },
        MODULE, //
    },
};
use anyhow::Result;
use std::time::Instant;

/// How long it lasts unless `TENON_STORM_SECONDS` says otherwise.
const SECONDS: u64 = 600;

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "integrity/storm-long",
        "false alarms in scans of all views without a pause while honest tasks come and go, for TENON_STORM_SECONDS",
        long,
    )]
}

fn long(bench: &Bench) -> Result<Findings> {
    let mut guest = Guest::boot(&bench.lab, &storm::spec().in_turn())?;

    MODULE.load(&mut guest, "interval_ms=0")?;
    // Views do not come and go: each scan is of all. Scans have half of the machine, or there would be a third of them.
    let mut storm = Storm::begin(&mut guest, -10, &["parameters"])?;
    let start = Instant::now();
    storm.rage(storm::seconds(SECONDS), bench.lab.slow, |guest| {
        let mut number = |name| count(guest, name);
        bench.progress(&format!(
            "{} scans, {} clean, {} truncated, {} findings, {} tasks met while they exited, {} cleared",
            number("scans")?,
            number("clean")?,
            number("truncated")?,
            number("findings")?,
            number("exiting")?,
            number("cleared")?,
        ));
        Ok(())
    })?;
    let scans = storm.end()?;
    let seconds = start.elapsed().as_secs_f64();

    storm::check(&mut guest, true)?;
    let mut number = |name| count(&mut guest, name);
    let rows = [
        ("scans", "scans", number("scans")?),
        (
            "of full coverage, without a finding",
            "scans",
            number("clean")?,
        ),
        ("truncated", "scans", number("truncated")?),
        ("false alarms", "findings", number("findings")?),
        ("met while they exited", "tasks", number("exiting")?),
        (
            "of tracing that came and went",
            "observations",
            number("observations")?,
        ),
        ("suspected by the probe", "times", number("suspected")?),
        (
            "suspected by the first look only",
            "tasks",
            number("cleared")?,
        ),
        (
            "failed attempts at a lock",
            "attempts",
            scans.get("retries")?,
        ),
        (
            "run queues copied, at least",
            "CPUs",
            scans.get("cpus_min")?,
        ),
        (
            "of them in use, at least",
            "CPUs",
            scans.get("cpus_online_min")?,
        ),
        ("processes, at least", "tasks", scans.get("processes_min")?),
        ("processes, at most", "tasks", scans.get("processes_max")?),
        ("on run queues, at most", "tasks", scans.get("queued_max")?),
    ]
    .map(|(name, unit, value)| {
        let mut row = Row::new(name, unit);
        row.push(Side::Ours, value as f64);
        row
    });
    let mut rate = Row::new("scans", "scans/s").more_is_better();
    rate.push(Side::Ours, scans.get("scans")? as f64 / seconds);

    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows: rows.into_iter().chain([rate]).collect(),
        ..Findings::default()
    })
}
