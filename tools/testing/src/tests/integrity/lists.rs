// SPDX-License-Identifier: GPL-2.0

//! Tests of guest_integrity against a fixture that bends the links of lists of tasks.

use super::{
    count,
    findings,
    last,
    scan,
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

/// Starts three victims whose places in the list of processes follow each other, and bends the link of the one in the middle.
/// Returns that one's number.
fn bend(guest: &mut Guest, to: &str) -> Result<u64> {
    for _ in 0..5 {
        let row = row(guest, 3)?;
        let middle = row[1];
        let bent = guest.run(&format!(
            "insmod /modules/bend_list.ko pid={middle} to={to}"
        ))?;
        if bent.status == 0 {
            return Ok(middle);
        }
        // Another process was started just between.
        ensure!(bent.stderr.contains("temporarily unavailable"), "{bent:?}");
        end_row(guest)?;
    }
    bail!("no three processes follow each other")
}

/// Starts so many victims, whose places in the list of processes follow each other unless others are started at that time. Returns
/// their numbers.
pub fn row(guest: &mut Guest, number: usize) -> Result<Vec<u64>> {
    let text = guest.sh(&format!(
        "for i in $(seq {number}); do victim -c 1 >/run/row$i 2>&1 </dev/null & done; \
         for i in $(seq {number}); do until grep -q tid= /run/row$i; do sleep 0.1; done; done; \
         for i in $(seq {number}); do sed 's/pid=\\([0-9]*\\).*/\\1/' /run/row$i; done"
    ))?;

    text.lines()
        .map(|line| line.parse().context(line.to_owned()))
        .collect()
}

/// Ends them. They must be on the list.
pub fn end_row(guest: &mut Guest) -> Result<()> {
    guest.sh("sed 's/pid=\\([0-9]*\\).*/\\1/' /run/row? | xargs kill -KILL; rm /run/row?")?;
    guest.wait_for("the end of the victims", Duration::from_secs(10), |guest| {
        Ok((guest.run("pidof victim")?.status != 0).then_some(()))
    })
}

/// A list of processes that does not come to its end is reported once, and no scan of it counts as clean, hangs or crashes.
pub fn bent(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    // The kernel's own check would walk the list as well.
    guest.sh("echo 0 >/proc/sys/kernel/hung_task_timeout_secs")?;

    let mut expected = String::new();
    for (to, reason) in [
        ("self", "cycle"),
        ("back", "cycle"),
        ("memory", "unreadable"),
        ("nowhere", "unreadable"),
    ] {
        bend(guest, to)?;
        let clean = count(guest, "clean")?;
        let truncated = count(guest, "truncated")?;
        for _ in 0..3 {
            scan(guest)?;
            ensure!(last(guest, "complete")? == 0 && last(guest, "cut")? == 1);
            ensure!(last(guest, "processes")? > 10, "{to}");
        }
        ensure!(
            count(guest, "clean")? == clean && count(guest, "truncated")? == truncated + 3,
            "{to}"
        );
        ensure!(cut(guest)? > 0, "a snapshot does not say so: {to}");

        guest.sh("rmmod bend_list")?;
        scan(guest)?;
        ensure!(
            last(guest, "complete")? == 1
                && count(guest, "clean")? == clean + 1
                && cut(guest)? == 0,
            "{to}"
        );
        end_row(guest)?;
        expected.push_str(&format!("type=damage list=processes reason={reason}\n"));
    }

    ensure!(count(guest, "findings")? == 0);
    let records = guest.sh("badread /dev/guest_integrity | sed 's/.*type=/type=/'")?;
    ensure!(records == expected.trim_end(), "{records}");
    let lines = guest.number("dmesg | grep -c 'guest_integrity: damage list=processes'")?;
    ensure!(lines == 4, "{lines} lines in the log");
    Ok(())
}

/// The list that is bent, where the link leads to, and what is reported of it.
const OTHERS: [(&str, &str, &str); 4] = [
    ("threads", "self", "list=threads reason=cycle"),
    ("threads", "nowhere", "list=threads reason=unreadable"),
    ("realtime", "self", "list=runqueue reason=too_long"),
    ("realtime", "nowhere", "list=runqueue reason=unreadable"),
];

/// So are the threads of a process, and a list on a run queue, which is read with its lock held.
pub fn others(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    guest.sh("echo 0 >/proc/sys/kernel/hung_task_timeout_secs")?;

    let mut expected = Vec::new();
    for (list, to, damage) in OTHERS {
        let victims = if list == "threads" {
            vec![Victim::start(guest, "-t -c 1")?]
        } else {
            let both = [Victim::start(guest, "-c 1")?, Victim::start(guest, "-c 1")?];
            // The first one has the CPU from here on, and the other waits.
            for victim in &both {
                guest.sh(&format!("chrt -f -p 10 {}", victim.pid))?;
            }
            both.into()
        };
        let counter = if list == "threads" { "cut" } else { "skipped" };
        scan(guest)?;
        ensure!(last(guest, "complete")? == 1, "before: {damage}");

        let pid = victims.last().context("a victim")?.pid;
        guest.insmod("bend_list", &format!("pid={pid} list={list} to={to}"))?;
        for _ in 0..3 {
            scan(guest)?;
            ensure!(
                last(guest, "complete")? == 0 && last(guest, counter)? == 1,
                "{damage}"
            );
        }
        guest.sh("rmmod bend_list")?;
        scan(guest)?;
        ensure!(last(guest, "complete")? == 1, "after: {damage}");
        for victim in &victims {
            // One that waits behind the other would not come to its end.
            guest.sh(&format!("chrt -o -p 0 {}", victim.pid))?;
        }
        for victim in victims {
            victim.end(guest)?;
        }
        expected.push(format!("type=damage {damage}"));
    }

    ensure!(count(guest, "findings")? == 0);
    let records = guest.sh("badread /dev/guest_integrity | sed 's/.*type=/type=/'")?;
    ensure!(records == expected.join("\n"), "{records}");
    Ok(())
}

/// How many lists a snapshot says to have no end.
fn cut(guest: &mut Guest) -> Result<u64> {
    guest.number("sed -n 's/.*\"cut\":\\([0-9]*\\),.*/\\1/p' /dev/guest_integrity_snapshot")
}

/// A process that its neighbours in the list skip is found, though its own links look right.
pub fn skipped(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    let middle = bend(guest, "skip")?;
    // Three tasks share the CPU, and all of them are runnable all the time.
    scan(guest)?;
    let all = findings(guest)?;
    guest.sh("rmmod bend_list")?;
    let [finding] = all.as_slice() else {
        bail!("{all:?}");
    };
    ensure!(
        finding.pid == middle && finding.reason == "process_unlisted",
        "{finding:?}"
    );
    end_row(guest)
}
