// SPDX-License-Identifier: GPL-2.0

//! Benchmarks that count instructions.
//!
//! A load runs alone first, and then through the driver: the difference is the driver's, and that of what it calls.

use super::{
    profile::{
        Class,
        Function,
        Profile, //
    },
    rig::Rig,
    rows::{
        Pair,
        Row,
        Side, //
    },
    Bench,
    Findings,
    Workload, //
};
use crate::guest::{
    Guest,
    Spec, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::time::Duration;

/// Longest time for one load.
const LIMIT: Duration = Duration::from_secs(150);

/// Something for a driver to do.
pub struct Load {
    /// What it is.
    pub name: &'static str,
    /// What is counted: packets, or the like.
    pub unit: &'static str,
    /// How many of them there are.
    pub number: f64,
    /// How many packets the network card's counter below must advance by, at least.
    pub packets: u64,
    /// The counter of the network card.
    pub counter: &'static str,
    /// Whether it says something how often the driver and the device disturb each other.
    pub disturbs: bool,
    /// The script without the driver.
    pub alone: String,
    /// The script with the driver.
    pub with: String,
}

/// What all loads of a guest need.
pub struct Setup {
    pub pair: Pair,
    pub spec: Spec,
    /// Before everything.
    pub prepare: String,
    /// On this machine, where the guest's network card ends, if there is something to be done.
    pub outside: &'static str,
    /// After a driver was loaded. A failure means that the driver cannot do it.
    pub up: &'static str,
    /// Before it is unloaded.
    pub down: &'static str,
}

/// Runs the loads with both drivers in turns.
pub fn measure(bench: &Bench, setup: Setup, loads: &[Load]) -> Result<Findings> {
    let mut rig = Rig::boot(bench, setup.spec)?;
    bench.progress("the guest is up");
    if !setup.outside.is_empty() {
        rig.guest.outside().sh(LIMIT, setup.outside)?;
    }
    rig.guest.sh(&setup.prepare)?;
    let mut findings = Findings::default();
    let mut alone = Vec::new();
    let mut results: Vec<Vec<(Side, Profile)>> = loads.iter().map(|_| Vec::new()).collect();

    for load in loads {
        bench.progress(&format!("{}, without a driver", load.name));
        // The first time leaves free memory as the others find it.
        rig.count(LIMIT, &load.alone)?;
        alone.push(rig.count(LIMIT, &load.alone)?.0.each(load.number));
    }
    for run in 1..=bench.runs {
        for (side, driver) in setup.pair.both() {
            driver.load(&mut rig.guest, "")?;
            crate::tests::net::appears(&mut rig.guest)?;
            let up = rig.guest.run(setup.up)?;
            if up.status != 0 {
                ensure!(
                    side == Side::Ours,
                    "`{}` with {}: {}",
                    setup.up,
                    driver.module,
                    up.stderr
                );
                findings.unsupported = Some(format!(
                    "{} cannot: {}",
                    driver.module,
                    up.stderr.trim().lines().last().unwrap_or_default()
                ));
            } else {
                for (load, results) in loads.iter().zip(&mut results) {
                    bench.progress(&format!(
                        "{}, {}, run {run} of {}",
                        load.name, driver.module, bench.runs
                    ));
                    let before = counter(&mut rig.guest, load.counter)?;
                    let (profile, output) = rig.count(LIMIT, &load.with)?;
                    let packets = counter(&mut rig.guest, load.counter)? - before;
                    ensure!(
                        packets >= load.packets,
                        "{} with {}: {packets} packets of {} were counted: {output}",
                        load.name,
                        driver.module,
                        load.packets
                    );
                    results.push((side, profile.each(load.number)));
                }
                rig.guest.sh(setup.down)?;
            }
            driver.unload(&mut rig.guest)?;
        }
    }

    for ((load, alone), results) in loads.iter().zip(alone).zip(results) {
        let side = |wanted| {
            Profile::mean(
                results
                    .iter()
                    .filter(|(side, _)| *side == wanted)
                    .map(|(_, profile)| profile),
            )
        };
        let workload = Workload {
            name: load.name.to_owned(),
            unit: load.unit.to_owned(),
            theirs: side(Side::Theirs),
            ours: side(Side::Ours),
            alone,
        };
        findings.rows.extend(rows(load, &workload, &results));
        findings.workloads.push(workload);
    }
    for row in &mut findings.rows {
        row.note.clone_from(&findings.unsupported);
    }
    bench.check_log(&mut rig.guest)?;
    Ok(findings)
}

fn counter(guest: &mut Guest, name: &str) -> Result<u64> {
    guest
        .number(&format!("cat /sys/class/net/eth0/statistics/{name}"))
        .context("the packets that the network card counts")
}

/// The figures of a load.
fn rows(load: &Load, workload: &Workload, results: &[(Side, Profile)]) -> Vec<Row> {
    type Figure<'a> = Box<dyn Fn(&Profile) -> f64 + 'a>;
    let Workload {
        theirs,
        ours,
        alone,
        ..
    } = workload;
    // An instruction for each packet.
    let differing = theirs.differing(ours, load.packets as f64 / load.number);
    let figures: [(&str, &str, Figure<'_>); 6] = [
        (
            "all but the load",
            "instructions",
            Box::new(|profile| profile.total() - alone.total()),
        ),
        (
            "what differs outside the core",
            "instructions",
            Box::new(|profile| profile.of_these(&differing) - alone.of_these(&differing)),
        ),
        (
            "driver and virtio core",
            "instructions",
            Box::new(|profile| profile.of(Class::Driver) + profile.of(Class::Virtio)),
        ),
        (
            "driver",
            "instructions",
            Box::new(|profile| profile.of(Class::Driver)),
        ),
        (
            "notifications",
            "notifications",
            Box::new(|profile| profile.calls("vp_notify")),
        ),
        (
            "interrupts",
            "interrupts",
            Box::new(|profile| profile.calls("vring_interrupt")),
        ),
    ];

    figures
        .iter()
        .filter(|(what, ..)| load.disturbs || !matches!(*what, "notifications" | "interrupts"))
        .map(|(what, unit, figure)| {
            let mut row = Row::new(
                format!("{}: {what}", load.name),
                format!("{unit}/{}", load.unit),
            );
            for (side, profile) in results {
                row.push(*side, figure(profile));
            }
            row
        })
        .collect()
}

/// Whether a function is the driver's, or the virtio core's on its behalf.
pub fn is_near(function: &Function) -> bool {
    matches!(function.class(), Class::Driver | Class::Virtio)
}
