// SPDX-License-Identifier: GPL-2.0

//! Tests of guest_integrity against what a rootkit does with the links of those that it hides, and against a task that plays dead.

use super::{
    count,
    findings,
    last,
    lists::{
        end_row,
        row, //
    },
    scan,
    switch::PROBE,
    views::{
        found_by,
        remove,
        VIEWS, //
    },
    MODULE,
    ON_DEMAND, //
};
use crate::guest::Guest;
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use std::time::Duration;

/// Where the links of those who are hidden lead to, how many they are, and whether the probe sees each of them.
const WAYS: [(&str, usize, bool); 4] = [
    ("kept", 1, true),
    // The one in the middle has neighbours that know it.
    ("chain", 3, false),
    ("ring", 2, false),
    ("poison", 1, true),
];

/// The views that name tasks, which the lists of tasks lack.
const NAMING: [&str; 4] = ["runqueue", "switch", "pid", "family"];

/// Whoever is hidden is found, wherever the links lead that are left; honest ones are not.
pub fn links(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    let all = guest.sh(&format!("cat {VIEWS}"))?;
    let all = all.trim();
    let others: Vec<_> = all
        .split(',')
        .filter(|view| !NAMING.contains(view))
        .collect();

    for (links, number, probe) in WAYS {
        one(guest, links, number, probe, all, &others.join(","))
            .with_context(|| format!("{number} with links=\"{links}\""))?;
    }
    ensure!(count(guest, "cleared")? == 0 && count(guest, "truncated")? == 0);
    Ok(())
}

fn one(
    guest: &mut Guest,
    links: &str,
    number: usize,
    probe: bool,
    all: &str,
    others: &str,
) -> Result<()> {
    let victims = hide(guest, links, number, "unlink=0")?;
    let found = found_by(guest, all)?;
    ensure!(found.is_empty(), "the honest twin is found: {found:?}");
    unhide(guest)?;
    drop(victims);

    let victims = hide(guest, links, number, "")?;
    let found = found_by(guest, others)?;
    ensure!(found.is_empty(), "without the views: {found:?}");
    let mut found = found_by(guest, "runqueue")?;
    found.sort_by_key(|finding| finding.pid);
    ensure!(
        found.iter().map(|finding| finding.pid).eq(victims)
            && found.iter().all(|finding| finding.view == "runqueue"
                && finding.reason == "process_unlisted"
                && finding.comm == "tenon-victim"),
        "{found:?}"
    );
    let found = found_by(guest, all)?;
    ensure!(found.is_empty(), "found again: {found:?}");
    unhide(guest)?;

    // Nobody hides any more.
    let sightings = count(guest, "sightings")?;
    scan(guest)?;
    ensure!(count(guest, "sightings")? == sightings);

    if probe {
        guest.sh(&format!("echo switch >{VIEWS}; echo 1 >{PROBE}"))?;
        let before = count(guest, "findings")?;
        hide(guest, links, number, "")?;
        guest.wait_for("the probe to see them", Duration::from_secs(20), |guest| {
            Ok((count(guest, "findings")? == before + number as u64).then_some(()))
        })?;
        let found = findings(guest)?;
        ensure!(
            found
                .iter()
                .rev()
                .take(number)
                .all(|finding| finding.view == "switch"),
            "{found:?}"
        );
        unhide(guest)?;
        guest.sh(&format!("echo 0 >{PROBE}"))?;
    }
    Ok(())
}

/// Starts so many victims, and one more that shares the CPU with them, and hides them. Returns their numbers in ascending order.
fn hide(guest: &mut Guest, links: &str, number: usize, more: &str) -> Result<Vec<u64>> {
    for _ in 0..5 {
        let mut victims = row(guest, number + 1)?;
        victims.pop();
        let list: Vec<_> = victims.iter().map(u64::to_string).collect();
        let hidden = guest.run(&format!(
            "insmod /modules/hide_task.ko pid={} links={links} {more}",
            list.join(",")
        ))?;
        if hidden.status == 0 {
            return Ok(victims);
        }
        // Another process was started just between.
        ensure!(
            hidden.stderr.contains("temporarily unavailable"),
            "{hidden:?}"
        );
        end_row(guest)?;
    }
    bail!("no {number} processes follow each other")
}

fn unhide(guest: &mut Guest) -> Result<()> {
    remove(guest, "hide_task")?;
    end_row(guest)
}

/// A task on no list that says to have exited is found by what an honest one has and has not, and if it has all of that, by its going on.
pub fn departed(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    guest.insmod("kthread_victim", "")?;
    let pid = guest.number("cat /sys/module/kthread_victim/parameters/pid")?;

    for (what, at_once) in [
        ("exit_state_forged", true),
        ("exit_state_forged,flags_forged", false),
    ] {
        let forge = format!("pid={pid} what={what}");

        // One that runs as long, and does not say so.
        guest.insmod("forge_task", &format!("{forge} change=0"))?;
        let found = found_by(guest, "runqueue,disguise")?;
        ensure!(found.is_empty(), "the honest twin is found: {found:?}");
        remove(guest, "forge_task")?;

        guest.insmod("forge_task", &forge)?;
        let found = found_by(guest, "runqueue")?;
        ensure!(found.is_empty(), "without the view: {found:?}");
        let before = count(guest, "findings")?;
        guest.sh(&format!("echo runqueue,disguise >{VIEWS}"))?;
        let mut scans = 0;
        guest.wait_for("a finding", Duration::from_secs(60), |guest| {
            scan(guest)?;
            scans += 1;
            ensure!(last(guest, "complete")? == 1);
            Ok((count(guest, "findings")? == before + 1).then_some(()))
        })?;
        ensure!(
            (scans == 1) == at_once,
            "{what}: found by scan {scans} of them"
        );
        let all = findings(guest)?;
        let finding = all.last().context("the finding is not in the log")?;
        ensure!(
            finding.pid == pid
                && finding.comm == "tenon-victim"
                && finding.view == "disguise"
                && finding.reason == "exit_state_forged",
            "{finding:?}"
        );

        remove(guest, "forge_task")?;
        let sightings = count(guest, "sightings")?;
        scan(guest)?;
        ensure!(count(guest, "sightings")? == sightings && count(guest, "findings")? == before + 1);
    }
    guest.sh("rmmod kthread_victim").map(drop)
}
