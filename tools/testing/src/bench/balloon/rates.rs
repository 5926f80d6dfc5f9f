// SPDX-License-Identifier: GPL-2.0

//! How fast the balloon is by the clock on the wall, beside the C driver and beside the device itself.

use super::{
    ceiling,
    first_worked,
    resize,
    spec,
    touch,
    worked,
    AMOUNT,
    GIB,
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
    tests::balloon::{
        meminfo,
        SIZE, //
    },
};
use anyhow::{
    ensure,
    Result, //
};
use std::time::Duration;

/// What else may take memory of the host, or give it back, meanwhile.
const SLACK: u64 = 64 * MIB;

/// How much moves before anything is measured.
const WARM: u64 = 32 * MIB;

pub fn benchmarks() -> Vec<Benchmark> {
    vec![
        Benchmark::new(
            "balloon/rates",
            "inflating and deflating by the clock on the wall, and of the rate that the device has without a guest",
            |bench| rates(bench, ""),
        ),
        Benchmark::new(
            "balloon/rates-not-cleared",
            "the same in a guest whose kernel does not clear the pages that it hands out",
            |bench| rates(bench, "init_on_alloc=0"),
        ),
    ]
}

/// Seconds for a GiB.
fn each(took: Duration) -> f64 {
    took.as_secs_f64() * GIB as f64 / AMOUNT as f64
}

fn rates(bench: &Bench, append: &str) -> Result<Findings> {
    let mut rows: Vec<[Row; 5]> = ["inflate", "deflate"]
        .iter()
        .map(|name| {
            [
                Row::new(*name, "GiB/s").more_is_better(),
                Row::new(format!("{name}, of the device's own rate"), "").more_is_better(),
                Row::new(format!("{name}, CPU time of QEMU"), "s/GiB"),
                Row::new(format!("{name}, of that the device's thread"), "s/GiB"),
                Row::new(format!("{name}, of that beside the device"), "s/GiB"),
            ]
        })
        .collect();
    let mut freed = Row::new("memory that the host got back", "MiB").more_is_better();
    let mut touched = Row::new("writing to the guest's memory after deflation", "s");
    let mut huge = Row::new("huge pages of the host in it then", "MiB").more_is_better();

    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            let ceilings = ceiling::measure(bench)?;
            // A new one each time: what the host has split it merges again in its own time.
            let mut guest = Guest::boot(&bench.lab, &spec("").append(append))?;
            touch(&mut guest)?;
            driver.load(&mut guest, "")?;
            // What is executed for the first time is translated first.
            resize(&mut guest, SIZE - WARM)?;
            resize(&mut guest, SIZE)?;
            let free = meminfo(&mut guest, "MemFree")?;

            for ((size, ceiling), rows) in [SIZE - AMOUNT, SIZE]
                .into_iter()
                .zip(ceilings)
                .zip(&mut rows)
            {
                let (resident, before) = (guest.resident()?, worked(guest.pid())?);
                let device = first_worked(guest.pid());
                let took = resize(&mut guest, size)?;
                let work = worked(guest.pid())? - before;
                let device = first_worked(guest.pid()) - device;

                if size < SIZE {
                    let fell = resident.saturating_sub(guest.resident()?);
                    ensure!(
                        fell + SLACK >= AMOUNT,
                        "the host got {} MiB only",
                        fell / MIB
                    );
                    freed.push(side, fell as f64 / MIB as f64);
                } else {
                    let again = meminfo(&mut guest, "MemFree")?;
                    ensure!(
                        again + SLACK >= free,
                        "{} MiB are free, {} MiB were",
                        again / MIB,
                        free / MIB
                    );
                }
                let beside = work.saturating_sub(ceiling.worked);
                let figures = [
                    1.0 / each(took),
                    ceiling.took.as_secs_f64() / took.as_secs_f64(),
                    each(work),
                    each(device),
                    each(beside),
                ];
                for (row, figure) in rows.iter_mut().zip(figures) {
                    row.push(side, figure);
                }
            }
            touched.push(side, touch(&mut guest)?.as_secs_f64());
            huge.push(side, guest.huge()? as f64 / MIB as f64);
            driver.unload(&mut guest)?;
            bench.check_log(&mut guest)?;
        }
    }
    Ok(Findings {
        rows: rows
            .into_iter()
            .flatten()
            .chain([freed, touched, huge])
            .collect(),
        ..Findings::default()
    })
}
