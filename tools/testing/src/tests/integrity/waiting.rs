// SPDX-License-Identifier: GPL-2.0

//! Tests of guest_integrity with hidden tasks that do not run at the moment of the scan, each in the place where the scheduler
//! keeps them then. Only the run queues are looked at.

use super::{
    count,
    findings,
    Victim,
    DEBUGFS,
    MODULE,
    ON_DEMAND, //
};
use crate::guest::Guest;
use anyhow::{
    ensure,
    Result, //
};
use std::time::Duration;

/// Has a scan made by a program on CPU 1, where the victim is: the victim waits meanwhile.
fn scan_beside(guest: &mut Guest) -> Result<()> {
    guest
        .sh(&format!("taskset 2 sh -c 'echo 1 >{DEBUGFS}/scan'"))
        .map(drop)
}

/// A scan finds the process when it is hidden, and not its honest twin.
fn found(guest: &mut Guest, victim: &Victim) -> Result<()> {
    for (twin, wanted) in [("unlink=0", 0), ("", 1)] {
        let before = count(guest, "findings")?;

        guest.insmod("hide_task", &format!("pid={} {twin}", victim.pid))?;
        scan_beside(guest)?;
        let all = findings(guest)?;
        let found = count(guest, "findings")? - before;
        guest.sh("rmmod hide_task")?;
        ensure!(
            found == wanted,
            "{found} findings with `{twin}`, not {wanted}: {all:?}"
        );
        ensure!(found == 0 || all.last().is_some_and(|finding| finding.is(victim)));
    }
    Ok(())
}

/// A task that a BPF scheduler has not let run yet.
pub fn sched_ext(guest: &mut Guest) -> Result<()> {
    const STATE: &str = "/sys/kernel/sched_ext/state";

    MODULE.load(guest, &format!("{ON_DEMAND} views=runqueue"))?;
    guest.sh("attach /lib/sched.bpf.o tenon >/run/scx 2>&1 </dev/null & echo $! >/run/scx.pid")?;
    // The program reads all types of the kernel first.
    guest.wait_for("the scheduler", Duration::from_secs(60), |guest| {
        let state = guest.sh(&format!("cat {STATE} /run/scx"))?;
        ensure!(!state.contains("attach:"), "{state}");
        Ok((state == "enabled\non").then_some(()))
    })?;

    let victim = Victim::start(guest, "-c 1")?;
    guest.sh(&format!(
        "grep -q 'ext.enabled *: *1' /proc/{}/sched",
        victim.pid
    ))?;
    found(guest, &victim)?;
    victim.end(guest)?;

    guest.sh("kill $(cat /run/scx.pid)")?;
    guest.wait_for("its end", Duration::from_secs(10), |guest| {
        let state = guest.sh(&format!("cat {STATE}"))?;
        Ok((state == "disabled").then_some(()))
    })
}

/// A task of a group that has used up its time.
pub fn throttled(guest: &mut Guest) -> Result<()> {
    const GROUP: &str = "/run/cg/small";

    MODULE.load(guest, &format!("{ON_DEMAND} views=runqueue"))?;
    // A millisecond of each second, in a group within that group: tasks wait where they are.
    guest.sh(&format!(
        "mkdir -p /run/cg && mount -t cgroup2 none /run/cg && echo +cpu >/run/cg/cgroup.subtree_control && \
         mkdir {GROUP} && echo +cpu >{GROUP}/cgroup.subtree_control && mkdir {GROUP}/inner && \
         echo '1000 1000000' >{GROUP}/cpu.max"
    ))?;
    let victim = Victim::start(guest, "-c 1")?;
    guest.sh(&format!("echo {} >{GROUP}/inner/cgroup.procs", victim.pid))?;
    guest.wait_for("a throttled group", Duration::from_secs(10), |guest| {
        let throttled = guest.number(&format!("sed -n 's/^nr_throttled //p' {GROUP}/cpu.stat"))?;
        Ok((throttled > 2).then_some(()))
    })?;
    found(guest, &victim)?;
    // It needs time to end.
    guest.sh(&format!("echo max >{GROUP}/cpu.max"))?;
    victim.end(guest)
}

/// A task that sleeps, but had more than its share before that, and stays on the run queue until that is made good.
pub fn delayed(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, &format!("{ON_DEMAND} views=runqueue"))?;
    let victim = Victim::start(guest, "-c 1 -s -p short")?;

    // Nobody else wants the CPU: it is gone from there when it sleeps.
    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    scan_beside(guest)?;
    ensure!(count(guest, "findings")? == 0, "{:?}", findings(guest)?);
    guest.sh("rmmod hide_task")?;

    // With another that wants the CPU, it has its turn as it is woken, and its share in a moment. The more the other outweighs it, the
    // longer it stays; but what it has taken too much, at most a tick or two, is made good in seconds.
    guest.sh(
        "taskset 2 sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null & echo $! >/run/hog; \
         renice -n -14 -p $(cat /run/hog)",
    )?;
    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    guest.wait_for("a finding", Duration::from_secs(90), |guest| {
        // No program is started in between: that takes longer than it may stay.
        guest.sh_for(
            Duration::from_secs(60),
            &format!(
                "kill -USR1 {0}; state=; while [ \"$state\" != S ]; do read pid name state rest </proc/{0}/stat; done; \
                 echo 1 >{DEBUGFS}/scan",
                victim.pid
            ),
        )?;
        Ok((count(guest, "findings")? == 1).then_some(()))
    })?;
    let all = findings(guest)?;
    ensure!(
        all.len() == 1 && all.iter().all(|finding| finding.is(&victim)),
        "{all:?}"
    );
    guest.sh("rmmod hide_task; kill $(cat /run/hog)")?;
    victim.end(guest)
}
