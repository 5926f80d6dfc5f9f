// SPDX-License-Identifier: GPL-2.0

//! The storm: whatever honest tasks do, guest_integrity raises no alarm.

use super::{
    count,
    findings,
    DEBUGFS,
    MODULE, //
};
use crate::guest::{
    Guest,
    Lab, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::time::Duration;

/// What changes the machine meanwhile, each for ever.
const LOOPS: [(&str, &str); 4] = [
    // A group that has used up its time within a moment, with a storm of its own.
    (
        "throttle",
        "(echo 0 >/run/cg/small/cgroup.procs; exec storm -s 100000 -w 2 >/dev/null) & \
         while sleep 1; do grep -q \"^nr_throttled [1-9]\" /run/cg/small/cpu.stat && echo; done",
    ),
    (
        "hotplug",
        "while echo 0 && sleep 0.3 && echo 1 >&3 && sleep 0.3; do echo >&4; done \
         4>&1 >/sys/devices/system/cpu/cpu1/online 3>/sys/devices/system/cpu/cpu1/online",
    ),
    (
        "modules",
        "while modprobe dummy && rmmod dummy; do echo; done",
    ),
    // The probe, and views that come and go.
    (
        "parameters",
        "cd /sys/module/guest_integrity/parameters; while sleep 0.2; do \
         echo 0 >switch_probe; echo pid,switch >views; echo 1 >switch_probe; echo all >views; echo; done",
    ),
];

/// How long it lasts: a minute, or `TENON_STORM_SECONDS`.
pub fn seconds() -> u64 {
    std::env::var("TENON_STORM_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(60)
}

/// However fast honest tasks come and go, none is taken for a hidden one, and each scan is complete.
pub fn storm(guest: &mut Guest, lab: &Lab) -> Result<()> {
    let seconds = seconds();

    // Each honest suspect of the probe has another scan made.
    MODULE.load(guest, "interval_ms=0")?;
    guest.sh(
        "mkdir -p /run/cg && mount -t cgroup2 none /run/cg && echo +cpu >/run/cg/cgroup.subtree_control && \
         mkdir /run/cg/small && echo '1000 50000' >/run/cg/small/cpu.max",
    )?;
    guest.sh(&format!(
        "(while echo 1 >{DEBUGFS}/scan; do :; done) >/dev/null 2>&1 & echo $! >/run/scanner"
    ))?;
    for (name, command) in LOOPS {
        guest.sh(&format!(
            "sh -c '{command}' >/run/loop-{name} 2>/run/loop-{name}.err </dev/null & \
             echo $! >/run/loop-{name}.pid"
        ))?;
    }
    // The kernel divides by the number of CPUs that are left of a deadline task's when its last one has gone: with such tasks, all
    // CPUs stay.
    let storms = [
        (seconds * 3 / 4, "-w $((2 * $(nproc)))"),
        (seconds / 4, "-w $((2 * $(nproc))) -d"),
    ];
    for (seconds, options) in storms {
        let done = guest.sh_for(
            Duration::from_secs(seconds + 45),
            &format!("storm -s {seconds} {options}"),
        )?;
        for kind in done.split(' ') {
            let (name, number) = kind.split_once('=').with_context(|| done.clone())?;
            ensure!(
                number.parse::<u64>()? > 3,
                "too little of a storm: {name}={number}"
            );
        }
        println!("{}", done.trim());
        guest.sh(
            "kill -KILL $(cat /run/loop-hotplug.pid) 2>/dev/null; sleep 1; \
             [ $(cat /sys/devices/system/cpu/cpu1/online) = 1 ] || echo 1 >/sys/devices/system/cpu/cpu1/online",
        )?;
    }
    guest.sh("kill $(cat /run/scanner)")?;
    for (name, _) in LOOPS {
        let rounds = guest.number(&format!("wc -l </run/loop-{name}"))?;
        let error = guest.sh(&format!("cat /run/loop-{name}.err"))?;
        ensure!(rounds >= 3, "{name}: {rounds} rounds only, {error}");
    }

    let scans = count(guest, "scans")?;
    let found = count(guest, "findings")?;
    ensure!(
        found == 0,
        "{found} findings in {scans} scans: {:?}",
        findings(guest)?
    );
    ensure!(scans > 500 / u64::from(lab.slow), "{scans} scans only");
    let clean = count(guest, "clean")?;
    let truncated = count(guest, "truncated")?;
    ensure!(
        clean == scans && truncated == 0,
        "{clean} of {scans} scans are clean, {truncated} truncated"
    );
    let [suspected, exiting, cleared] =
        ["suspected", "exiting", "cleared"].map(|name| count(guest, name));
    let exiting = exiting?;
    println!(
        "{scans} scans, {} suspects of the probe, {exiting} tasks were exiting, {} cleared",
        suspected?, cleared?
    );
    // Else the storm did not bring the scans into the situation that it is for.
    ensure!(exiting > 0, "no scan met a task that was exiting");
    Ok(())
}
