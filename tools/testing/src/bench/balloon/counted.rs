// SPDX-License-Identifier: GPL-2.0

//! What the guest executes for a page that goes into the balloon or comes out of it, and for free memory that it tells the host of.
//!
//! The guest's one CPU is kept busy by a program meanwhile, as it would run ahead of the clock of this machine otherwise. The device
//! works in the CPU's thread, so nobody waits for it.

use super::{
    resize,
    spec,
    touch,
    LIMIT,
    MIB,
    PAIR, //
};
use crate::bench::{
    profile::{
        Class,
        Profile, //
    },
    rig::Rig,
    rows::{
        Row,
        Side, //
    },
    Bench,
    Benchmark,
    Findings,
    Workload, //
};
use crate::tests::balloon::SIZE;
use anyhow::{
    ensure,
    Result, //
};

/// What goes into the balloon: less than elsewhere, as counting takes its time.
const AMOUNT: u64 = 256 * MIB;

/// Runs until it is told that it is over.
const BUSY: &str =
    "while [ ! -e /run/over ]; do i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); done; done";

pub fn benchmarks() -> Vec<Benchmark> {
    vec![
        Benchmark::new(
            "balloon/instructions",
            "what the guest executes for a page of the balloon",
            |bench| instructions(bench, ""),
        ),
        Benchmark::new(
            "balloon/instructions-not-cleared",
            "the same in a guest whose kernel does not clear the pages that it hands out",
            |bench| instructions(bench, "init_on_alloc=0"),
        ),
        Benchmark::new(
            "balloon/instructions-reporting",
            "what the guest executes for a MiB of free memory that it reports",
            reporting,
        ),
    ]
}

/// What is executed while the guest gets this size.
fn count(rig: &mut Rig, size: u64) -> Result<Profile> {
    let (profile, _) = rig.count_while(LIMIT, BUSY, |guest| {
        resize(guest, size)?;
        guest.sh("touch /run/over").map(drop)
    })?;
    rig.guest.sh("rm /run/over")?;
    // CAST: A page count is far below 2^52.
    Ok(profile.each((AMOUNT / 4096) as f64))
}

/// Whether a function clears memory.
fn clears(name: &str) -> bool {
    name.starts_with("clear_") || name.contains("memset")
}

/// The instructions of functions that clear memory.
fn clearing(profile: &Profile) -> f64 {
    profile
        .0
        .iter()
        .filter(|(function, _)| clears(&function.name))
        .map(|(_, count)| count.instructions)
        .sum()
}

/// All instructions of the kernel but those that clear memory.
fn others(profile: &Profile) -> f64 {
    profile.total() - profile.of(Class::Programs) - clearing(profile)
}

/// The mean of one side's results.
fn mean(results: &[(Side, Profile)], wanted: Side) -> Profile {
    Profile::mean(
        results
            .iter()
            .filter(|(side, _)| *side == wanted)
            .map(|(_, profile)| profile),
    )
}

fn instructions(bench: &Bench, append: &str) -> Result<Findings> {
    let mut rig = Rig::boot(bench, spec("").append(append))?;
    let mut findings = Findings::default();
    let loads = [("inflate", SIZE - AMOUNT), ("deflate", SIZE)];
    let mut results: [Vec<(Side, Profile)>; 2] = Default::default();

    bench.progress("without a change of size");
    PAIR.theirs.load(&mut rig.guest, "")?;
    let alone = count(&mut rig, SIZE)?;
    PAIR.theirs.unload(&mut rig.guest)?;
    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            driver.load(&mut rig.guest, "")?;
            for ((name, size), results) in loads.iter().zip(&mut results) {
                bench.progress(&format!(
                    "{name}, {}, run {run} of {}",
                    driver.module, bench.runs
                ));
                results.push((side, count(&mut rig, *size)?));
            }
            driver.unload(&mut rig.guest)?;
        }
    }

    type Figure<'a> = Box<dyn Fn(&Profile) -> f64 + 'a>;
    let figures: [(&str, &str, Figure<'_>); 4] = [
        (
            "all but clearing",
            "instructions/page",
            Box::new(|profile| others(profile) - others(&alone)),
        ),
        (
            "clearing",
            "instructions/page",
            Box::new(|profile| clearing(profile) - clearing(&alone)),
        ),
        (
            "driver and virtio core",
            "instructions/page",
            Box::new(|profile| profile.of(Class::Driver) + profile.of(Class::Virtio)),
        ),
        (
            "driver",
            "instructions/page",
            Box::new(|profile| profile.of(Class::Driver)),
        ),
    ];
    for ((name, _), results) in loads.iter().zip(&results) {
        for (what, unit, figure) in &figures {
            let mut row = Row::new(format!("{name}: {what}"), *unit);
            for (side, profile) in results {
                row.push(*side, figure(profile));
            }
            findings.rows.push(row);
        }
        let cleared = if append.is_empty() {
            ""
        } else {
            ", not cleared"
        };
        findings.workloads.push(Workload {
            name: format!("{name} the balloon{cleared}"),
            unit: "page".to_owned(),
            theirs: mean(results, Side::Theirs),
            ours: mean(results, Side::Ours),
            alone: alone.clone(),
        });
    }
    bench.check_log(&mut rig.guest)?;
    Ok(findings)
}

/// The clock on the wall says little of this: when memory is reported is up to a timer of the kernel, and taking it is the host's work.
fn reporting(bench: &Bench) -> Result<Findings> {
    const DELAY: &str = "/sys/module/page_reporting/parameters/page_reporting_delay_ms";
    let mut rig = Rig::boot(bench, spec(",free-page-reporting=on"))?;
    let mut results: Vec<(Side, Profile)> = Vec::new();

    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            touch(&mut rig.guest)?;
            let full = rig.guest.resident()?;
            // The first report is long after counting has begun, by the guest's clock, which does not wait when there is no work.
            rig.guest.sh(&format!("echo 30000 >{DELAY}"))?;
            driver.load(&mut rig.guest, "")?;
            rig.guest.sh(&format!("echo 10 >{DELAY}"))?;
            let (profile, _) = rig.count(LIMIT, "sleep 60")?;
            let got = full.saturating_sub(rig.guest.resident()?) / MIB;
            driver.unload(&mut rig.guest)?;

            ensure!(got > 100, "{got} MiB are no measure");
            // CAST: A number of MiB is far below 2^52.
            results.push((side, profile.each(got as f64)));
        }
    }
    bench.check_log(&mut rig.guest)?;

    type Figure = fn(&Profile) -> f64;
    let figures: [(&str, Figure); 2] = [
        ("report: all of the kernel", |profile| {
            profile.total() - profile.of(Class::Programs)
        }),
        ("report: driver and virtio core", |profile| {
            profile.of(Class::Driver) + profile.of(Class::Virtio)
        }),
    ];
    let rows = figures.map(|(name, figure)| {
        let mut row = Row::new(name, "instructions/MiB");
        for (side, profile) in &results {
            row.push(*side, figure(profile));
        }
        row
    });
    Ok(Findings {
        rows: rows.into(),
        workloads: vec![Workload {
            name: "report free memory".to_owned(),
            unit: "MiB".to_owned(),
            theirs: mean(&results, Side::Theirs),
            ours: mean(&results, Side::Ours),
            alone: Profile::default(),
        }],
        ..Findings::default()
    })
}
