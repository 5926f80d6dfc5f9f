// SPDX-License-Identifier: GPL-2.0

//! Tests of what guest_integrity says of the probes of trace events.

use super::{
    count,
    last,
    records,
    scan,
    switch::PROBE,
    views::VIEWS,
    MODULE,
    ON_DEMAND, //
};
use crate::guest::Guest;
use anyhow::{
    ensure,
    Result, //
};

const EVENTS: &str = "/sys/kernel/tracing/events/sched/enable";

/// A probe that is in code which nobody knows is found, and one that somebody has taken off.
pub fn probes(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    stray(guest)?;
    taken(guest)
}

/// A probe in code that nobody knows is found; its twin, tracing by root and modules that come and go with a probe are not.
fn stray(guest: &mut Guest) -> Result<()> {
    guest.sh(&format!(
        "test -e {EVENTS} || mount -t tracefs t /sys/kernel/tracing"
    ))?;

    guest.insmod("stray_probe", "change=0")?;
    guest.sh(&format!("echo 1 >{EVENTS}"))?;
    for _ in 0..3 {
        scan(guest)?;
    }
    guest.sh(&format!("echo 0 >{EVENTS}; rmmod stray_probe"))?;
    guest.sh(
        "while insmod /modules/empty_probe.ko && rmmod empty_probe; do :; done >/dev/null 2>&1 </dev/null & \
         echo $! >/run/loop",
    )?;
    for _ in 0..20 {
        scan(guest)?;
    }
    guest.sh("kill $(cat /run/loop)")?;
    ensure!(records(guest)?.is_empty(), "{:?}", records(guest)?);
    ensure!(count(guest, "clean")? == count(guest, "scans")?);

    found(
        guest,
        "stray_probe",
        "event=sched_process_exec target=unknown view=probes reason=probe_unknown",
    )
}

/// The module's own probe of the switch, taken off by somebody else, is missed; its twin is not, nor is a probe that the parameter takes
/// off.
fn taken(guest: &mut Guest) -> Result<()> {
    let before = records(guest)?.len();

    guest.sh(&format!("echo 1 >{PROBE}"))?;
    guest.insmod("take_probe", "change=0")?;
    scan(guest)?;
    guest.sh(&format!("rmmod take_probe; echo 0 >{PROBE}"))?;
    scan(guest)?;
    guest.sh(&format!(
        "while echo 1 >{PROBE} && echo 0 >{PROBE}; do :; done >/dev/null 2>&1 </dev/null & echo $! >/run/loop"
    ))?;
    for _ in 0..20 {
        scan(guest)?;
    }
    guest.sh(&format!("kill $(cat /run/loop); echo 1 >{PROBE}"))?;
    ensure!(records(guest)?.len() == before, "{:?}", records(guest)?);

    found(
        guest,
        "take_probe",
        "event=sched_switch target=guest_integrity view=switch reason=probe_gone",
    )
}

/// What the fixture does is found once, as a record with that end; without the view, or when the fixture has gone, it is not.
fn found(guest: &mut Guest, fixture: &str, record: &str) -> Result<()> {
    let before = records(guest)?.len();
    let all = guest.sh(&format!("cat {VIEWS}"))?;
    let without: Vec<_> = all
        .trim()
        .split(',')
        .filter(|view| !record.contains(&format!("view={view} ")))
        .collect();

    guest.insmod(fixture, "")?;
    guest.sh(&format!("echo {} >{VIEWS}", without.join(",")))?;
    scan(guest)?;
    ensure!(records(guest)?.len() == before, "found without the view");
    guest.sh(&format!("echo all >{VIEWS}"))?;
    for _ in 0..3 {
        scan(guest)?;
        ensure!(last(guest, "hidden")? == 1);
    }
    let all = records(guest)?;
    ensure!(
        all.len() == before + 1 && all[before].ends_with(&format!(" type=finding {record}")),
        "{all:?}"
    );

    guest.sh(&format!("rmmod {fixture}"))?;
    scan(guest)?;
    ensure!(last(guest, "hidden")? == 0 && last(guest, "complete")? == 1);
    Ok(())
}
