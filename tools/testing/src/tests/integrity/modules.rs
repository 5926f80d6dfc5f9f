// SPDX-License-Identifier: GPL-2.0

//! Tests of what guest_integrity says of modules that hide.

use super::{
    count,
    last,
    records,
    scan,
    MODULE,
    ON_DEMAND, //
};
use crate::guest::Guest;
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::time::Duration;

const VIEWS: &str = "/sys/module/guest_integrity/parameters/views";
const HIDE: &str = "/sys/kernel/debug/hide_module";

/// What is hidden, and what is found.
const CASES: [(&str, &[&str]); 5] = [
    (
        "list",
        &["module=hide_module view=modules reason=module_unlisted"],
    ),
    (
        "sysfs",
        &["module=hide_module view=modules reason=module_sysfs_unlinked"],
    ),
    (
        "tree",
        &["module=hide_module view=modules reason=module_tree_unlinked"],
    ),
    (
        "state",
        &["module=hide_module view=modules reason=module_state_forged"],
    ),
    (
        "thread",
        &[
            "comm=tenon-victim",
            "view=modules reason=kthread_entry_unknown",
            "module=hide_module view=modules reason=module_tree_unlinked",
        ],
    ),
];

/// A module that hides in any way is found, its twin is not, nor is it without the view.
pub fn modules(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    let all = guest.sh(&format!("cat {VIEWS}"))?;
    let without: Vec<_> = all
        .trim()
        .split(',')
        .filter(|view| *view != "modules")
        .collect();

    for (what, expected) in CASES {
        case(guest, what, expected, &without.join(",")).with_context(|| what.to_owned())?;
    }
    ensure!(count(guest, "cleared")? == 0);
    Ok(())
}

fn case(guest: &mut Guest, what: &str, expected: &[&str], without: &str) -> Result<()> {
    let before = records(guest)?.len();

    guest.insmod("hide_module", &format!("what={what} change=0"))?;
    guest.sh(&format!("echo 1 >{HIDE}"))?;
    scan(guest)?;
    guest.sh("rmmod hide_module")?;
    scan(guest)?;
    ensure!(records(guest)?.len() == before, "the honest twin is found");

    guest.insmod("hide_module", &format!("what={what}"))?;
    scan(guest)?;
    guest.sh(&format!("echo {without} >{VIEWS}; echo 1 >{HIDE}"))?;
    scan(guest)?;
    ensure!(records(guest)?.len() == before, "found without the view");
    guest.sh(&format!("echo all >{VIEWS}"))?;
    for _ in 0..3 {
        scan(guest)?;
        ensure!(last(guest, "complete")? == 1);
    }
    guest.sh(&format!("echo 0 >{HIDE}; rmmod hide_module"))?;
    scan(guest)?;
    ensure!(last(guest, "hidden")? == 0, "found when it is back");

    let found = records(guest)?.split_off(before);
    let text = found.join("\n");
    ensure!(
        expected.iter().all(|part| text.contains(part))
            && found.iter().all(|line| line.contains(" type=finding "))
            && found.len() == if what == "thread" { 2 } else { 1 },
        "{text}"
    );
    Ok(())
}

/// A module that is on no list at the moment it comes into use is found then, without a scan that is due.
pub fn early(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    guest.insmod("hide_module", "what=list early=1")?;
    guest.wait_for("a finding", Duration::from_secs(10), |guest| {
        Ok((count(guest, "findings")? == 1).then_some(()))
    })?;
    let all = records(guest)?;
    ensure!(
        all.len() == 1
            && all[0].ends_with("module=hide_module view=modules reason=module_unlisted"),
        "{all:?}"
    );
    guest.sh(&format!("echo 0 >{HIDE}; rmmod hide_module"))?;

    // Modules that come and go openly are no reason for a scan.
    let scans = count(guest, "scans")?;
    for _ in 0..5 {
        guest.insmod("hide_module", "what=list change=0")?;
        guest.sh("rmmod hide_module")?;
    }
    ensure!(count(guest, "scans")? == scans && count(guest, "findings")? == 1);
    scan(guest)?;
    ensure!(last(guest, "hidden")? == 0 && last(guest, "complete")? == 1);
    Ok(())
}

/// A list of modules that does not come to its end is reported, once, and no scan of it counts as clean, hangs or crashes.
pub fn bent(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    let mut expected = Vec::new();

    for (what, list) in [("bent", "modules"), ("bent_set", "module_set")] {
        guest.insmod("hide_module", &format!("what={what}"))?;
        scan(guest)?;
        ensure!(last(guest, "complete")? == 1, "before: {what}");
        guest.sh(&format!("echo 1 >{HIDE}"))?;
        for _ in 0..3 {
            scan(guest)?;
            ensure!(
                last(guest, "complete")? == 0 && last(guest, "cut")? == 1,
                "{what}"
            );
        }
        guest.sh(&format!("echo 0 >{HIDE}; rmmod hide_module"))?;
        scan(guest)?;
        ensure!(last(guest, "complete")? == 1, "after: {what}");
        expected.push(format!(" type=damage list={list} reason=too_long"));
    }

    let all = records(guest)?;
    ensure!(
        all.len() == expected.len()
            && all
                .iter()
                .zip(&expected)
                .all(|(line, end)| line.ends_with(end)),
        "{all:?}"
    );
    ensure!(count(guest, "findings")? == 0);
    Ok(())
}
