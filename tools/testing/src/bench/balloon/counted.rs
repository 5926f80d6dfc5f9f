// SPDX-License-Identifier: GPL-2.0

//! What the guest executes for a page that goes into the balloon or comes out of it.
//!
//! The guest's one CPU is kept busy by a program meanwhile, as it would run ahead of the clock of this machine otherwise. The device
//! works in the CPU's thread, so nobody waits for it.

use super::{
    resize,
    spec,
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
use anyhow::Result;

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
        let side = |wanted| {
            Profile::mean(
                results
                    .iter()
                    .filter(|(side, _)| *side == wanted)
                    .map(|(_, profile)| profile),
            )
        };
        let cleared = if append.is_empty() {
            ""
        } else {
            ", not cleared"
        };
        findings.workloads.push(Workload {
            name: format!("{name} the balloon{cleared}"),
            unit: "page".to_owned(),
            theirs: side(Side::Theirs),
            ours: side(Side::Ours),
            alone: alone.clone(),
        });
    }
    bench.check_log(&mut rig.guest)?;
    Ok(findings)
}
