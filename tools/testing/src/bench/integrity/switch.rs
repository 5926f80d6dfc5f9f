// SPDX-License-Identifier: GPL-2.0

//! What the look at each task that gets a CPU costs.

use crate::{
    bench::{
        profile::Profile,
        rig::Rig,
        rows::{
            Row,
            Side, //
        },
        Bench,
        Benchmark,
        Findings,
        Workload, //
    },
    guest::Spec,
    tests::integrity::MODULE, //
};
use anyhow::Result;
use std::time::Duration;

/// Rounds of the ping-pong, of two switches each.
const ROUNDS: u32 = 20_000;

const LIMIT: Duration = Duration::from_secs(150);

/// A probe that does nothing.
const EMPTY: &str = "empty_probe";

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "integrity/switch",
        "instructions for a switch in a ping-pong through pipes, with an empty probe (C) and with that of the module",
        switch,
    )]
}

fn switch(bench: &Bench) -> Result<Findings> {
    let mut rig = Rig::boot(bench, Spec::q35())?;
    let measure = |rig: &mut Rig| -> Result<Profile> {
        let (profile, _) = rig.count(LIMIT, &format!("pipes {ROUNDS}"))?;
        Ok(profile.each(f64::from(2 * ROUNDS)))
    };
    let mut all = Row::new("all that was executed", "instructions/switch");
    let mut added = Row::new("of that, added by the probe", "instructions/switch");
    let mut inside = Row::new("in functions of the module", "instructions/switch");
    let mut share = Row::new("added above an empty probe", "%");
    let mut bare = Vec::new();
    let mut empty = Vec::new();
    let mut ours = Vec::new();

    bench.progress("the guest is up");
    // The guest has just come up.
    measure(&mut rig)?;
    for run in 1..=bench.runs {
        bench.progress(&format!("run {run} of {}", bench.runs));
        let without = measure(&mut rig)?;
        rig.guest.insmod(EMPTY, "")?;
        let theirs = measure(&mut rig)?;
        rig.guest.sh(&format!("rmmod {EMPTY}"))?;
        // A scan would be counted.
        MODULE.load(&mut rig.guest, "interval_ms=0")?;
        let with = measure(&mut rig)?;
        MODULE.unload(&mut rig.guest)?;

        for (side, profile, module) in [
            (Side::Theirs, &theirs, EMPTY),
            (Side::Ours, &with, MODULE.module),
        ] {
            all.push(side, profile.total());
            added.push(side, profile.total() - without.total());
            inside.push(side, of_module(profile, module));
        }
        share.push(
            Side::Ours,
            (with.total() - theirs.total()) / without.total() * 100.0,
        );
        bare.push(without);
        empty.push(theirs);
        ours.push(with);
    }
    bench.check_log(&mut rig.guest)?;
    Ok(Findings {
        rows: vec![all, added, inside, share],
        workloads: vec![Workload {
            name: "a switch".to_owned(),
            unit: "switch".to_owned(),
            alone: Profile::mean(bare.iter()),
            theirs: Profile::mean(empty.iter()),
            ours: Profile::mean(ours.iter()),
        }],
        ..Findings::default()
    })
}

fn of_module(profile: &Profile, module: &str) -> f64 {
    profile
        .0
        .iter()
        .filter(|(function, _)| function.module.as_deref() == Some(module))
        .map(|(_, count)| count.instructions)
        .sum()
}
