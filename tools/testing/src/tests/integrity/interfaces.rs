// SPDX-License-Identifier: GPL-2.0

//! Tests of where findings of guest_integrity go, and what users are shown.

use super::{
    count,
    findings,
    scan,
    Victim,
    DEBUGFS,
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
use std::time::{
    Duration,
    Instant, //
};

const PARAMETERS: &str = "/sys/module/guest_integrity/parameters";
const EVENTS: &str = "/sys/kernel/tracing";

/// One finding arrives everywhere.
pub fn everywhere(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, &format!("{ON_DEMAND} tag=watchman"))?;
    guest.sh(&format!(
        "mountpoint -q {EVENTS} || mount -t tracefs t {EVENTS}; \
         echo 1 >{EVENTS}/events/guest_integrity/guest_integrity_finding/enable"
    ))?;
    // One reader waits for it, one comes later.
    guest.sh("head -n 1 /dev/guest_integrity >/run/first 2>&1 &")?;
    let victim = Victim::start(guest, "-c 1")?;
    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    scan(guest)?;

    let text = format!("pid={0} tgid={0} comm=tenon-victim", victim.pid);
    for (place, command) in [
        ("the log", "dmesg | grep 'watchman: finding '".to_owned()),
        (
            "the audit trail",
            "dmesg | grep 'audit: type=1316 .*op=guest_integrity '".to_owned(),
        ),
        (
            "the trace",
            format!("grep guest_integrity_finding: {EVENTS}/trace"),
        ),
        ("the first reader", "cat /run/first".to_owned()),
        (
            "the second reader",
            "head -n 1 /dev/guest_integrity".to_owned(),
        ),
    ] {
        let line = guest.sh(&command).with_context(|| place.to_owned())?;
        ensure!(
            line.contains(&text) && line.contains("view=runqueue reason=process_unlisted"),
            "{place}: {line}"
        );
    }
    let own = guest.run("dmesg | grep 'guest_integrity: finding'")?;
    ensure!(own.status != 0, "the tag is not heeded: {own:?}");

    let views = guest.sh(&format!("cat {DEBUGFS}/views"))?;
    ensure!(
        views.starts_with("view=runqueue state=on findings=1 uncovered=0\n")
            && views.contains("view=proc state=on findings=0 uncovered=0"),
        "{views}"
    );
    metrics(guest)?;
    guest.sh("rmmod hide_task")?;
    victim.end(guest)
}

/// Nothing is lost silently where there is more than anybody wants to read: a reader that is too slow is told how many records it has missed,
/// the log how many lines were held back, and the trace has all.
pub fn overflow(guest: &mut Guest) -> Result<()> {
    const FINDINGS: u64 = 300;
    /// Records that are kept.
    const KEPT: u64 = 256;
    const HIDE: &str = "/sys/kernel/debug/hide_module";

    MODULE.load(guest, &format!("{ON_DEMAND} views=modules"))?;
    guest.insmod("hide_module", "what=state")?;
    guest.sh(&format!(
        "mountpoint -q {EVENTS} || mount -t tracefs t {EVENTS}; cd {EVENTS}/events/guest_integrity && \
         echo 1 >guest_integrity_object/enable && echo 1 >guest_integrity_scan/enable"
    ))?;
    let rounds = |number: u64| {
        format!(
            "for i in $(seq {number}); do for on in 1 0; do echo $on >{HIDE}; echo 1 >{DEBUGFS}/scan; done; done"
        )
    };

    let start = Instant::now();
    // One reader was there before, and reads when all is over.
    let text = guest.sh_for(
        Duration::from_secs(60),
        &format!(
            "exec 9</dev/guest_integrity; {}; head -n {} <&9",
            rounds(FINDINGS),
            KEPT + 1
        ),
    )?;
    let mut lines = text.lines();
    let lost = FINDINGS - KEPT;
    ensure!(
        lines.next() == Some(&format!("seq=1 type=lost count={lost}")),
        "{text}"
    );
    for (seq, line) in (lost + 1..).zip(lines) {
        ensure!(
            line.starts_with(&format!("seq={seq} time_ns="))
                && line.ends_with("module=hide_module view=modules reason=module_state_forged"),
            "{line}"
        );
    }
    let first = guest.sh("head -n 1 /dev/guest_integrity")?;
    ensure!(
        first.starts_with(&format!("seq={} time_ns=", lost + 1)),
        "{first}"
    );

    // What is held back is said with the next line, when there may be one again.
    guest.sh(&format!("sleep 6; {}; rmmod hide_module", rounds(1)))?;
    let findings = FINDINGS + 1;
    ensure!(count(guest, "findings")? == findings);
    let printed = guest.number("dmesg | grep -c 'guest_integrity: finding module='")?;
    let held = guest.sh(
        "dmesg | sed -n 's/.*guest_integrity: \\([0-9]*\\) messages were held back before the next one/\\1/p'",
    )?;
    let held: u64 = held
        .lines()
        .filter_map(|number| number.parse::<u64>().ok())
        .sum();
    // Ten in five seconds.
    let most = 10 * (start.elapsed().as_secs() / 5 + 2);
    ensure!(
        printed <= most && printed + held == findings,
        "{printed} lines, at most {most}, and {held} held back of {findings}"
    );

    for (event, wanted) in [
        (
            "guest_integrity_object: type=finding module=hide_module",
            findings,
        ),
        ("guest_integrity_scan:", count(guest, "scans")?),
    ] {
        let seen = guest.number(&format!("grep -c '{event}' {EVENTS}/trace || true"))?;
        ensure!(
            seen == wanted,
            "{seen} of {wanted} are in the trace: {event}"
        );
    }
    Ok(())
}

/// Each family of metrics says what it is before it says how many, and the text has an end.
fn metrics(guest: &mut Guest) -> Result<()> {
    let text = guest.sh(&format!("cat {DEBUGFS}/metrics"))?;
    let mut family = "";
    let mut samples = 0;

    ensure!(text.trim_end().ends_with("\n# EOF"), "{text}");
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            family = declared.split(' ').next().unwrap_or_default();
        } else if !line.starts_with('#') {
            let Some((name, value)) = line.rsplit_once(' ') else {
                bail!("{line}");
            };
            ensure!(
                name.starts_with(family) && value.parse::<u64>().is_ok(),
                "{line}"
            );
            samples += 1;
        }
    }
    ensure!(samples > 20, "{samples} samples");
    for sample in [
        "guest_integrity_findings_total 1",
        "guest_integrity_scans_total 1",
        "guest_integrity_view_findings_total{view=\"runqueue\"} 1",
        "guest_integrity_last_scan_complete 1",
    ] {
        ensure!(
            text.lines().any(|line| line == sample),
            "no {sample}: {text}"
        );
    }
    Ok(())
}

/// Scans are as far from each other as they are to be, whoever asks for them; a view that cannot be taken is said to be so.
pub fn limits(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, &format!("{ON_DEMAND} scan_min_ms=500"))?;
    // From before the first scan on: a busy host lets any time pass between its end and the next request.
    let start = Instant::now();
    scan(guest)?;
    guest.sh(&format!(
        "for i in 1 2 3; do echo 1 >{DEBUGFS}/scan & done; wait; echo 1 >{DEBUGFS}/scan"
    ))?;
    let taken = start.elapsed();
    let scans = count(guest, "scans")?;
    // Those who wait together share one.
    ensure!((3..=5).contains(&scans), "{scans} scans");
    ensure!(
        taken >= Duration::from_millis(900),
        "the scans took {} ms",
        taken.as_millis()
    );

    for (parameter, bad) in [
        ("scan_min_ms", "10001"),
        ("on_finding", "reboot"),
        ("views", "runqueue,nothing"),
        ("switch_probe", "2"),
    ] {
        let before = guest.sh(&format!("cat {PARAMETERS}/{parameter}"))?;
        let written = guest.run(&format!("echo {bad} >{PARAMETERS}/{parameter}"))?;
        ensure!(written.status != 0, "{parameter}={bad} is accepted");
        ensure!(guest.sh(&format!("cat {PARAMETERS}/{parameter}"))? == before);
    }

    guest.sh(&format!("echo 0 >{PARAMETERS}/scan_min_ms"))?;
    guest
        .sh("mkdir /run/other && mount -t tmpfs none /run/other && mount --move /proc /run/other")
        .or_else(|_| guest.sh("mount -t tmpfs none /proc"))?;
    scan(guest)?;
    let views = guest.sh(&format!("cat {DEBUGFS}/views"))?;
    ensure!(
        views.contains("view=proc state=not_covered findings=0 uncovered=1"),
        "{views}"
    );
    ensure!(count(guest, "findings")? == 0);
    guest
        .sh("umount /proc || mount --move /run/other /proc")
        .map(drop)
}

/// The system stops on a finding if it was asked to, and says why.
pub fn stop(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, &format!("{ON_DEMAND} on_finding=panic"))?;
    scan(guest)?;
    let victim = Victim::start(guest, "-c 1")?;
    scan(guest)?;
    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    ensure!(findings(guest)?.is_empty());
    match scan(guest) {
        Ok(()) => bail!("the guest goes on"),
        Err(_) => Ok(()),
    }
}

/// Fails unless a device is refused to whoever is not root, with this redirection of the shell.
pub fn for_root_only(guest: &mut Guest, redirection: &str) -> Result<()> {
    let opened = guest.run(&format!(
        "start-stop-daemon -S -c 65534:65534 -n nobody -a /bin/sh -- -c ': {redirection}'"
    ))?;
    ensure!(
        opened.status != 0 && opened.stderr.contains("Permission denied"),
        "{redirection}: {opened:?}"
    );
    guest.sh(&format!(": {redirection}")).map(drop)
}
