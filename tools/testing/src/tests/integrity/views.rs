// SPDX-License-Identifier: GPL-2.0

//! Tests of the views of guest_integrity: each finds what only it can see, alone; without it, that is not found.

use super::{
    count,
    findings,
    last,
    scan,
    Finding,
    Victim,
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

pub const VIEWS: &str = "/sys/module/guest_integrity/parameters/views";

/// What is done to a process, and which view finds what.
struct Case {
    /// How the process is started.
    victim: &'static str,
    /// The fixtures that are loaded, in this order, with their parameters but the number of the process.
    fixtures: &'static [(&'static str, &'static str)],
    view: &'static str,
    reason: &'static str,
    /// No other view finds anything.
    alone: bool,
    /// A view that finds something else, and is not taken.
    not: &'static str,
}

const HIDE: (&str, &str) = ("hide_task", "");

/// A case of a fixture that changes a thing which only one view looks at.
const fn forged(
    fixture: &'static [(&'static str, &'static str)],
    view: &'static str,
    reason: &'static str,
) -> Case {
    Case {
        victim: "-s",
        fixtures: fixture,
        view,
        reason,
        alone: true,
        not: "",
    }
}

const CASES: [Case; 12] = [
    // A process that sleeps still has its number, and is a child.
    Case {
        victim: "-s",
        fixtures: &[HIDE],
        view: "pid",
        reason: "process_unlisted",
        alone: false,
        not: "",
    },
    // One that runs is on a run queue, whatever it says that its number is.
    Case {
        victim: "-c 1",
        fixtures: &[HIDE, ("forge_task", "what=pid_zero")],
        view: "runqueue",
        reason: "process_unlisted",
        alone: false,
        not: "",
    },
    // Without its number one that sleeps is still a child.
    Case {
        victim: "-s",
        fixtures: &[HIDE, ("forge_task", "what=pid_unhashed")],
        view: "family",
        reason: "process_unlisted",
        alone: true,
        not: "",
    },
    forged(
        &[("forge_task", "what=pid_unlinked")],
        "pid",
        "pid_unlinked",
    ),
    forged(
        &[("forge_task", "what=tgid_unlinked")],
        "pid",
        "tgid_unlinked",
    ),
    forged(
        &[("forge_task", "what=pid_unhashed")],
        "pid",
        "pid_unhashed",
    ),
    forged(&[("forge_task", "what=pid_forged")], "pid", "pid_forged"),
    forged(
        &[("forge_task", "what=sibling_unlinked")],
        "family",
        "sibling_unlinked",
    ),
    forged(
        &[("forge_task", "what=kthread_forged")],
        "disguise",
        "kthread_forged",
    ),
    forged(
        &[("forge_task", "what=idle_forged")],
        "disguise",
        "idle_forged",
    ),
    Case {
        not: "hooks",
        ..forged(&[("hide_proc", "")], "proc", "proc_unlisted")
    },
    Case {
        victim: "-c 1",
        fixtures: &[("forge_task", "what=exit_state_forged")],
        view: "disguise",
        reason: "exit_state_forged",
        alone: true,
        not: "",
    },
];

/// Scans with `views` until nothing changes any more, and returns what that has found anew.
pub fn found_by(guest: &mut Guest, views: &str) -> Result<Vec<Finding>> {
    guest.sh(&format!("echo {views} >{VIEWS}"))?;
    let logged = findings(guest)?.len();
    let before = count(guest, "findings")?;

    for _ in 0..2 {
        scan(guest)?;
        ensure!(last(guest, "complete")? == 1);
    }
    let mut all = findings(guest)?;
    let found = all.split_off(logged);
    ensure!(count(guest, "findings")? - before == found.len() as u64);
    Ok(found)
}

/// Each view finds its own, and nobody else does; nothing is found when it is all put back, nor of the honest twin.
pub fn cases(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    let all = guest.sh(&format!("cat {VIEWS}"))?;
    let all: Vec<_> = all.trim().split(',').map(str::to_owned).collect();

    for case in &CASES {
        one(guest, case, &all).with_context(|| format!("{:?}", case.fixtures))?;
    }
    ensure!(count(guest, "cleared")? == 0);
    Ok(())
}

fn one(guest: &mut Guest, case: &Case, all: &[String]) -> Result<()> {
    let victim = Victim::start(guest, case.victim)?;
    let mut all = all.to_vec();
    all.retain(|view| view != case.not);
    let every = all.join(",");

    load(guest, case, &victim, true)?;
    let found = found_by(guest, &every)?;
    ensure!(found.is_empty(), "the honest twin is found: {found:?}");
    unload(guest, case)?;

    load(guest, case, &victim, false)?;
    if case.alone {
        let mut without = all.clone();
        without.retain(|view| view != case.view);
        let found = found_by(guest, &without.join(","))?;
        ensure!(found.is_empty(), "without the view: {found:?}");
    }
    // The run queues name the tasks that this view looks at.
    let alone = match case.view {
        "disguise" => "runqueue,disguise",
        view => view,
    };
    let found = found_by(guest, alone)?;
    let [finding] = found.as_slice() else {
        bail!("{found:?}");
    };
    ensure!(
        finding.view == case.view
            && finding.reason == case.reason
            && finding.comm == "tenon-victim"
            && finding.tgid == victim.pid,
        "{finding:?}"
    );
    let found = found_by(guest, &every)?;
    ensure!(found.is_empty(), "found again: {found:?}");

    unload(guest, case)?;
    let sightings = count(guest, "sightings")?;
    scan(guest)?;
    ensure!(
        count(guest, "sightings")? == sightings,
        "something is still found when all is put back"
    );
    victim.end(guest)
}

fn load(guest: &mut Guest, case: &Case, victim: &Victim, honest: bool) -> Result<()> {
    for (fixture, parameters) in case.fixtures {
        let twin = match (honest, *fixture) {
            (false, _) => "",
            (true, "hide_task") => "unlink=0",
            (true, _) => "change=0",
        };
        guest.insmod(fixture, &format!("pid={} {parameters} {twin}", victim.pid))?;
    }
    Ok(())
}

fn unload(guest: &mut Guest, case: &Case) -> Result<()> {
    for (fixture, _) in case.fixtures.iter().rev() {
        remove(guest, fixture)?;
    }
    Ok(())
}

/// Unloads a fixture.
pub fn remove(guest: &mut Guest, fixture: &str) -> Result<()> {
    // The kernel closes files that it has opened itself a moment later.
    guest.wait_for("the fixture to go", Duration::from_secs(10), |guest| {
        let gone = guest.run(&format!("rmmod {fixture}"))?;
        Ok((gone.status == 0).then_some(()))
    })
}
