// SPDX-License-Identifier: GPL-2.0

//! Tests of what guest_integrity says of hooks on what it relies on.

use super::{
    count,
    last,
    records,
    scan,
    views::VIEWS,
    Victim,
    DEBUGFS,
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

const TRACING: &str = "/sys/kernel/tracing";

/// A program of BPF, which is detached when the program goes that has attached it.
const BPF: [(&str, &str, &str); 2] = [
    (
        "attach /lib/trace.bpf.o enter >/run/attach 2>&1 </dev/null & echo $! >/run/attach.pid",
        "kill $(cat /run/attach.pid)",
        "find_pid_ns",
    ),
    // By an event of perf.
    (
        "attach /lib/trace.bpf.o probe >/run/attach 2>&1 </dev/null & echo $! >/run/attach.pid",
        "kill $(cat /run/attach.pid)",
        "iterate_dir",
    ),
];

/// Tracing that comes and goes on functions that the views call, and how it is called then.
const TRACERS: [(&str, &str, &str); 2] = [
    (
        "echo find_pid_ns >set_ftrace_filter; echo function >current_tracer",
        "echo nop >current_tracer; echo >set_ftrace_filter",
        "find_pid_ns",
    ),
    (
        "echo p:tenon iterate_dir >kprobe_events; echo 1 >events/kprobes/tenon/enable",
        "echo 0 >events/kprobes/tenon/enable; echo >kprobe_events",
        "iterate_dir",
    ),
];

const PATCH: &str = "/sys/kernel/livepatch/live_patch";

/// Operations of `/proc` that are not the kernel's own are found; tracing by root, programs of BPF and live patches are said to be there,
/// and no more.
pub fn hooks(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    guest.sh(&format!(
        "test -e {TRACING}/trace || mount -t tracefs t {TRACING}"
    ))?;
    for _ in 0..3 {
        scan(guest)?;
    }
    ensure!(
        records(guest)?.is_empty(),
        "found where nothing is: {:?}",
        records(guest)?
    );

    // The module itself has no place for a tracer.
    let own = guest.sh(&format!(
        "grep -c '\\[guest_integrity\\]' {TRACING}/available_filter_functions || true"
    ))?;
    ensure!(
        own.trim() == "0",
        "{own} functions of the module can be hooked"
    );

    for (attach, detach, function) in TRACERS.into_iter().chain(BPF) {
        tracer(guest, attach, detach, function).with_context(|| attach.to_owned())?;
    }
    // The sanitizer kernel has no live patches.
    if guest.run("test -e /sys/kernel/livepatch")?.status == 0 {
        tracer(
            guest,
            "insmod /modules/live_patch.ko",
            &format!("echo 0 >{PATCH}/enabled"),
            "find_pid_ns",
        )
        .context("a live patch")?;
    }
    ensure!(count(guest, "findings")? == 0 && count(guest, "clean")? == count(guest, "scans")?);
    replaced(guest)
}

fn tracer(guest: &mut Guest, attach: &str, detach: &str, function: &str) -> Result<()> {
    let before = records(guest)?.len();

    guest.sh("rm -f /run/attach")?;
    guest.sh(&format!("cd {TRACING} && {{ {attach}; }}"))?;
    observed(guest, 1)?;
    for _ in 0..3 {
        scan(guest)?;
        ensure!(last(guest, "observed")? == 1 && last(guest, "hidden")? == 0);
    }
    guest.sh(&format!("cd {TRACING} && {{ {detach}; }}"))?;
    observed(guest, 0)?;

    // Said once while it lasts.
    let all = records(guest)?;
    let new: Vec<_> = all.iter().skip(before).collect();
    ensure!(
        new.len() == 1
            && new[0].contains(&format!(" type=observation function={function} target="))
            && new[0].ends_with(" view=hooks reason=entry_patched"),
        "{new:?}"
    );
    Ok(())
}

/// Waits until scans observe so many functions: what attaches to them may take its time.
fn observed(guest: &mut Guest, number: u64) -> Result<()> {
    guest.wait_for("an observation", Duration::from_secs(60), |guest| {
        let error = guest.sh("grep attach: /run/attach || true")?;
        ensure!(error.is_empty(), "{error}");
        scan(guest)?;
        Ok((last(guest, "observed")? == number).then_some(()))
    })
}

/// The operations of `/proc`.
fn replaced(guest: &mut Guest) -> Result<()> {
    let before = records(guest)?.len();
    let victim = Victim::start(guest, "-s")?;

    guest.insmod("hide_proc", &format!("pid={} change=0", victim.pid))?;
    scan(guest)?;
    ensure!(count(guest, "findings")? == 0);
    guest.sh("rmmod hide_proc")?;

    guest.sh(&format!(
        "echo runqueue,switch,pid,family,disguise >{VIEWS}"
    ))?;
    guest.insmod("hide_proc", &format!("pid={}", victim.pid))?;
    scan(guest)?;
    ensure!(count(guest, "findings")? == 0, "found without the view");
    guest.sh(&format!("echo hooks >{VIEWS}"))?;
    for _ in 0..2 {
        scan(guest)?;
    }
    let all = records(guest)?;
    let new: Vec<_> = all.iter().skip(before).collect();
    ensure!(
        new.len() == 1
            && new[0].contains(" type=finding file=/proc target=")
            && new[0].contains("@hide_proc view=hooks reason=file_operations_replaced"),
        "{new:?}"
    );
    super::views::remove(guest, "hide_proc")?;
    scan(guest)?;
    ensure!(last(guest, "hidden")? == 0);

    // Those by which an entry is looked up: the directory shows it.
    guest.insmod("hide_proc", &format!("pid={} what=lookup", victim.pid))?;
    guest.sh(&format!("echo runqueue,proc >{VIEWS}"))?;
    scan(guest)?;
    ensure!(last(guest, "hidden")? == 0, "found without the view");
    guest.sh(&format!("echo hooks >{VIEWS}"))?;
    for _ in 0..2 {
        scan(guest)?;
    }
    let all = records(guest)?;
    let new: Vec<_> = all.iter().skip(before + 1).collect();
    ensure!(
        new.len() == 1
            && new[0].contains(" type=finding file=/proc target=")
            && new[0].contains("@hide_proc view=hooks reason=inode_operations_replaced"),
        "{new:?}"
    );
    super::views::remove(guest, "hide_proc")?;
    scan(guest)?;
    ensure!(last(guest, "hidden")? == 0);
    victim.end(guest)
}

/// A directory that has no end does not keep a scan from its own.
pub fn endless(guest: &mut Guest) -> Result<()> {
    let state = |guest: &mut Guest| guest.sh(&format!("grep view=proc {DEBUGFS}/views"));

    MODULE.load(guest, &format!("{ON_DEMAND} views=proc"))?;
    let victim = Victim::start(guest, "-s")?;
    guest.insmod("hide_proc", &format!("pid={} what=endless", victim.pid))?;
    guest.sh_for(Duration::from_secs(60), &format!("echo 1 >{DEBUGFS}/scan"))?;
    let endless = state(guest)?;
    ensure!(endless.contains(" state=not_covered "), "{endless}");
    super::views::remove(guest, "hide_proc")?;
    scan(guest)?;
    let whole = state(guest)?;
    ensure!(whole.contains(" state=on "), "{whole}");
    victim.end(guest)
}
