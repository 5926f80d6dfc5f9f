// SPDX-License-Identifier: GPL-2.0

//! Tests of what guest_integrity says of the probes of trace events.

use super::{
    count,
    last,
    records,
    scan,
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

/// A probe in code that nobody knows is found; its twin, tracing by root and modules that come and go with a probe are not.
pub fn probes(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
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

    let all = guest.sh(&format!("cat {VIEWS}"))?;
    let without: Vec<_> = all
        .trim()
        .split(',')
        .filter(|view| *view != "probes")
        .collect();
    guest.insmod("stray_probe", "")?;
    guest.sh(&format!("echo {} >{VIEWS}", without.join(",")))?;
    scan(guest)?;
    ensure!(records(guest)?.is_empty(), "found without the view");
    guest.sh(&format!("echo all >{VIEWS}"))?;
    for _ in 0..3 {
        scan(guest)?;
        ensure!(last(guest, "hidden")? == 1);
    }
    let found = records(guest)?;
    ensure!(
        found.len() == 1
            && found[0].ends_with(
                " type=finding event=sched_process_exec target=unknown view=probes reason=probe_unknown"
            ),
        "{found:?}"
    );

    guest.sh("rmmod stray_probe")?;
    scan(guest)?;
    ensure!(last(guest, "hidden")? == 0 && last(guest, "complete")? == 1);
    Ok(())
}
