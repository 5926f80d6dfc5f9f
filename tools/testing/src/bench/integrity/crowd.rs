// SPDX-License-Identifier: GPL-2.0

//! Scans of many tasks, beside a walk of the lists with all CPUs stopped.

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
    guest::{
        Guest,
        Spec, //
    },
    tests::integrity::{
        last,
        DEBUGFS,
        MODULE,
        ON_DEMAND, //
    },
};
use anyhow::{
    ensure,
    Result, //
};
use std::time::Duration;

/// Longest time for a crowd to come together, to be looked at, and to go.
const LIMIT: Duration = Duration::from_secs(600);

/// What walks the lists with all CPUs stopped.
const STOP_WALK: &str = "/sys/module/stop_walk/parameters";

pub fn benchmarks() -> Vec<Benchmark> {
    vec![
        Benchmark::new(
            "integrity/lock",
            "instructions with interrupts off while many tasks want to run: for a scan, and for a walk of the lists with all CPUs \
             stopped (C)",
            lock,
        ),
        Benchmark::new(
            "integrity/scan",
            "instructions for a scan while many tasks sleep, and for a walk of the lists with all CPUs stopped (C)",
            scan,
        ),
    ]
}

/// A guest for many tasks, with the modules.
fn boot(bench: &Bench) -> Result<Rig> {
    let mut rig = Rig::boot(bench, Spec::q35().memory(2560))?;

    // What has the priority of a crowd does not interrupt a scan.
    rig.guest.sh(
        "echo 100000 >/proc/sys/kernel/threads-max; echo 100000 >/proc/sys/kernel/pid_max; \
         echo 0 >/proc/sys/kernel/hung_task_timeout_secs; echo -1 >/proc/sys/kernel/sched_rt_runtime_us; \
         for s in /sys/kernel/debug/sched/*_server/cpu0/runtime; do echo 0 >$s; done",
    )?;
    MODULE.load(&mut rig.guest, ON_DEMAND)?;
    rig.guest.insmod("stop_walk", "")?;
    bench.progress("the guest is up");
    Ok(rig)
}

/// What was executed while there was a crowd.
struct Measured {
    /// All for a walk, and for a scan.
    walk: Profile,
    scan: Profile,
    /// With interrupts off.
    stopped: f64,
    held: f64,
    /// What the scan has said of itself.
    duration: f64,
    queued: u64,
    tasks: u64,
}

/// Measures while there is a crowd. A scan before has allocated what there is to allocate.
fn measure(rig: &mut Rig, crowd: &str) -> Result<Measured> {
    let scan = format!("echo 1 >{DEBUGFS}/scan");
    let walk = format!("echo 1 >{STOP_WALK}/walk");
    let before = format!("{scan}; {scan}; {walk}");
    let counted = rig.count_within(LIMIT, &format!("crowd {crowd}"), &before, &[&walk, &scan])?;

    rig.guest.wait_for("the crowd to go", LIMIT, |guest| {
        Ok((guest.run_for(LIMIT, "pidof crowd")?.status != 0).then_some(()))
    })?;
    let guest = &mut rig.guest;
    ensure!(
        last(guest, "complete")? == 1 && last(guest, "hidden")? == 0,
        "{}",
        guest.sh(&format!("cat {DEBUGFS}/last"))?
    );
    let mut profiles = counted.into_iter().map(|(profile, _)| profile);
    Ok(Measured {
        walk: profiles.next().unwrap_or_default(),
        scan: profiles.next().unwrap_or_default(),
        stopped: guest.number(&format!("cat {STOP_WALK}/ns"))? as f64,
        held: last(guest, "held_ns")? as f64,
        duration: last(guest, "duration_ns")? as f64,
        queued: last(guest, "queued")?,
        tasks: guest.number(&format!("cat {STOP_WALK}/tasks"))?,
    })
}

fn lock(bench: &Bench) -> Result<Findings> {
    let mut rig = boot(bench)?;
    let mut findings = Findings::default();

    for number in [10, 1_000, 20_000] {
        let mut row = Row::new(
            format!("interrupts off, {number} tasks want to run"),
            "instructions",
        );
        for run in 1..=bench.runs {
            bench.progress(&format!("{number} tasks, run {run} of {}", bench.runs));
            let measured = measure(&mut rig, &format!("-n {number} -r -t"))?;
            ensure!(
                measured.queued >= number,
                "{} of {number} tasks are on a run queue",
                measured.queued
            );
            row.push(Side::Theirs, measured.stopped);
            row.push(Side::Ours, measured.held);
        }
        findings.rows.push(row);
    }
    end(bench, &mut rig.guest)?;
    Ok(findings)
}

fn scan(bench: &Bench) -> Result<Findings> {
    let mut rig = boot(bench)?;
    let mut findings = Findings::default();

    for (what, options, numbers) in [
        ("children of one", "", [5_000, 10_000, 20_000].as_slice()),
        ("each the child of another", "-c", &[5_000]),
        ("threads of one", "-t", &[20_000]),
    ] {
        for &number in numbers {
            let name = format!("{number} tasks, {what}");
            let row = |figure: &str| Row::new(format!("{figure}, {name}"), "instructions");
            let mut off = row("interrupts off");
            let mut duration = row("a scan");
            let mut all = row("all that was executed");
            let mut walks = Vec::new();
            let mut scans = Vec::new();

            for run in 1..=bench.runs {
                bench.progress(&format!("{name}, run {run} of {}", bench.runs));
                let measured = measure(&mut rig, &format!("-n {number} {options}"))?;
                ensure!(
                    measured.tasks >= number,
                    "{} tasks of {number}",
                    measured.tasks
                );
                off.push(Side::Theirs, measured.stopped);
                off.push(Side::Ours, measured.held);
                duration.push(Side::Ours, measured.duration);
                all.push(Side::Theirs, measured.walk.total());
                all.push(Side::Ours, measured.scan.total());
                walks.push(measured.walk);
                scans.push(measured.scan);
            }
            findings.rows.extend([off, duration, all]);
            findings.workloads.push(Workload {
                name: format!("scan, {name}"),
                unit: "scan".to_owned(),
                alone: Profile::default(),
                theirs: Profile::mean(walks.iter()),
                ours: Profile::mean(scans.iter()),
            });
        }
    }
    end(bench, &mut rig.guest)?;
    Ok(findings)
}

fn end(bench: &Bench, guest: &mut Guest) -> Result<()> {
    guest.sh("rmmod stop_walk")?;
    MODULE.unload(guest)?;
    bench.check_log(guest)
}
