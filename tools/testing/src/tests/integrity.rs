// SPDX-License-Identifier: GPL-2.0

//! Tests of guest_integrity against a fixture that hides tasks as a rootkit would.

mod getdents;
mod hooks;
mod interfaces;
mod links;
mod lists;
mod modules;
mod probes;
mod snapshot;
pub mod storm;
mod switch;
pub mod uplink;
mod views;
mod waiting;

use super::{
    Driver,
    Test, //
};
use crate::guest::{
    Guest,
    Spec, //
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use std::{
    thread,
    time::Duration, //
};

pub const MODULE: Driver = Driver::ours("guest_integrity");
pub const DEBUGFS: &str = "/sys/kernel/debug/guest_integrity";
const INTERVAL: &str = "/sys/module/guest_integrity/parameters/interval_ms";
/// What no scan happens without being asked for with.
pub const ON_DEMAND: &str = "interval_ms=0 switch_probe=0";

pub fn tests() -> Vec<Test> {
    let spec = Spec::q35;

    vec![
        Test::guest("integrity/clean", 60, spec(), |guest, _| clean(guest)),
        Test::guest("integrity/process", 60, spec(), |guest, _| {
            MODULE.load(guest, ON_DEMAND)?;
            hidden(guest, "task", "-c 1", "process_unlisted").map(drop)
        }),
        Test::guest("integrity/thread", 60, spec(), |guest, _| {
            MODULE.load(guest, ON_DEMAND)?;
            hidden(guest, "thread", "-t -c 1", "thread_unlisted").map(drop)
        }),
        Test::guest("integrity/views", 240, spec(), |guest, _| {
            views::cases(guest)
        }),
        Test::guest("integrity/hooks", 180, spec(), |guest, _| {
            hooks::hooks(guest)
        }),
        Test::guest("integrity/endless", 90, spec(), |guest, _| {
            hooks::endless(guest)
        })
        .stock_only("so many entries take too long there"),
        Test::guest("integrity/getdents", 150, spec(), |guest, _| {
            getdents::getdents(guest)
        }),
        Test::guest("integrity/modules", 60, spec(), |guest, _| {
            modules::modules(guest)
        }),
        Test::guest("integrity/module-early", 60, spec(), |guest, _| {
            modules::early(guest)
        }),
        Test::guest("integrity/bent-modules", 60, spec(), |guest, _| {
            modules::bent(guest)
        }),
        Test::guest("integrity/probes", 60, spec(), |guest, _| {
            probes::probes(guest)
        }),
        Test::guest("integrity/switch", 60, spec(), |guest, _| {
            switch::sleeper(guest)
        }),
        Test::guest(
            "integrity/switch-cost",
            120,
            spec().counted(),
            |guest, _| switch::cost(guest),
        )
        .stock_only("it counts instructions"),
        Test::guest("integrity/policies", 120, spec(), |guest, _| {
            // Others see it while it is on no run queue.
            MODULE.load(guest, &format!("{ON_DEMAND} views=runqueue"))?;
            for policy in ["fifo", "deadline", "idle"] {
                hidden(
                    guest,
                    "task",
                    &format!("-c 1 -p {policy}"),
                    "process_unlisted",
                )
                .with_context(|| format!("with policy {policy}"))?;
            }
            Ok(())
        }),
        Test::guest("integrity/sched-ext", 120, spec(), |guest, _| {
            waiting::sched_ext(guest)
        }),
        Test::guest("integrity/throttled", 120, spec(), |guest, _| {
            waiting::throttled(guest)
        }),
        Test::guest("integrity/delayed", 120, spec(), |guest, _| {
            waiting::delayed(guest)
        }),
        Test::guest("integrity/twin", 60, spec(), |guest, _| twin(guest)),
        Test::guest("integrity/forged-name", 60, spec(), |guest, _| {
            forged_name(guest)
        }),
        Test::guest("integrity/periodic", 60, spec(), |guest, _| periodic(guest)),
        Test::guest("integrity/parameters", 60, spec(), |guest, _| {
            parameters(guest)
        }),
        Test::guest("integrity/reload", 60, spec(), |guest, _| reload(guest)),
        Test::guest("integrity/device", 60, spec(), |guest, _| device(guest)),
        Test::guest(
            "integrity/interfaces",
            60,
            spec().append("audit=1"),
            |guest, _| interfaces::everywhere(guest),
        ),
        Test::guest("integrity/snapshot", 120, spec(), |guest, _| {
            snapshot::snapshot(guest)
        }),
        Test::guest(
            "integrity/snapshot-full",
            240,
            spec().memory(2560),
            |guest, _| snapshot::full(guest),
        )
        .stock_only("so many tasks take too long there"),
        Test::guest("integrity/overflow", 120, spec(), |guest, _| {
            interfaces::overflow(guest)
        }),
        Test::guest("integrity/limits", 60, spec(), |guest, _| {
            interfaces::limits(guest)
        }),
        Test::guest("integrity/panic", 60, spec(), |guest, _| {
            interfaces::stop(guest)
        })
        .expect_report("Kernel panic - not syncing: op=guest_integrity pid="),
        Test::guest("integrity/bent-list", 120, spec(), |guest, _| {
            lists::bent(guest)
        }),
        Test::guest("integrity/bent-others", 120, spec(), |guest, _| {
            lists::others(guest)
        }),
        // One of the CPUs has never run.
        Test::guest(
            "integrity/absent-cpus",
            60,
            spec().append("maxcpus=1"),
            |guest, _| {
                MODULE.load(guest, ON_DEMAND)?;
                scan(guest)?;
                ensure!(last(guest, "cpus")? == 2 && last(guest, "cpus_online")? == 1);
                ensure!(last(guest, "complete")? == 1 && count(guest, "findings")? == 0);
                hidden(guest, "task", "-c 0", "process_unlisted").map(drop)
            },
        ),
        Test::guest("integrity/skipped", 60, spec(), |guest, _| {
            lists::skipped(guest)
        }),
        Test::guest("integrity/links", 120, spec(), |guest, _| {
            links::links(guest)
        }),
        Test::guest("integrity/departed", 120, spec(), |guest, _| {
            links::departed(guest)
        }),
        Test::guest(
            "integrity/lock",
            240,
            spec().memory(1024).counted(),
            |guest, _| lock(guest),
        )
        .stock_only("it counts instructions"),
        Test::guest(
            "integrity/storm",
            120 + storm::seconds(storm::SECONDS) * 5 / 4,
            storm::spec(),
            storm::storm,
        ),
        Test::guest(
            "integrity/storm-traced",
            120 + storm::seconds(storm::SECONDS) * 5 / 4,
            storm::spec().in_turn(),
            storm::traced,
        ),
    ]
}

/// A counter under debugfs.
pub fn count(guest: &mut Guest, name: &str) -> Result<u64> {
    guest.number(&format!("cat {DEBUGFS}/{name}"))
}

/// Has a scan made and returns when it is done.
pub fn scan(guest: &mut Guest) -> Result<()> {
    guest.sh(&format!("echo 1 >{DEBUGFS}/scan")).map(drop)
}

/// What the last scan says of itself.
pub fn last(guest: &mut Guest, key: &str) -> Result<u64> {
    guest.number(&format!("sed -n 's/^{key}=//p' {DEBUGFS}/last"))
}

/// The findings in the kernel's log.
pub fn findings(guest: &mut Guest) -> Result<Vec<Finding>> {
    let lines = guest.sh("dmesg | grep 'guest_integrity: .*pid=' || true")?;

    lines.lines().map(Finding::parse).collect()
}

/// All records that are kept.
pub fn records(guest: &mut Guest) -> Result<Vec<String>> {
    // There may be none.
    let text = guest.sh("badread /dev/guest_integrity 2>/dev/null || true")?;

    Ok(text.lines().map(str::to_owned).collect())
}

/// A record of the form `pid=N tgid=N comm=S cpu=N view=V reason=R`.
#[derive(Debug)]
pub struct Finding {
    pub pid: u64,
    tgid: u64,
    pub comm: String,
    cpu: u64,
    pub view: String,
    pub reason: String,
}

impl Finding {
    /// Whether it names the victim.
    pub fn is(&self, victim: &Victim) -> bool {
        self.pid == victim.tid && self.tgid == victim.pid && self.comm == "tenon-victim"
    }

    fn parse(line: &str) -> Result<Self> {
        let start = line.find("pid=").context("no pid= in the line")?;
        let mut words = line[start..].split(' ');
        let mut word = |key: &str| -> Result<String> {
            let word = words
                .next()
                .and_then(|word| word.strip_prefix(key)?.strip_prefix('='));
            Ok(word
                .with_context(|| format!("no {key}= where it belongs: {line}"))?
                .to_owned())
        };

        Ok(Finding {
            pid: word("pid")?.parse()?,
            tgid: word("tgid")?.parse()?,
            comm: word("comm")?,
            cpu: word("cpu")?.parse()?,
            view: word("view")?,
            reason: word("reason")?,
        })
    }
}

/// A process of the fixture: its number, and that of the thread that spins.
pub struct Victim {
    pub pid: u64,
    pub tid: u64,
}

impl Victim {
    /// Starts it with these arguments.
    pub fn start(guest: &mut Guest, arguments: &str) -> Result<Self> {
        guest.sh(&format!(
            "rm -f /run/victim; victim {arguments} >/run/victim 2>&1 </dev/null &"
        ))?;
        let line = guest.wait_for("the victim", Duration::from_secs(10), |guest| {
            let line = guest.sh("cat /run/victim 2>/dev/null || true")?;
            Ok((!line.is_empty()).then_some(line))
        })?;
        let number = |key: &str| -> Result<u64> {
            let word = line.split(' ').find_map(|word| word.strip_prefix(key));
            word.and_then(|word| word.parse().ok())
                .with_context(|| format!("the victim says: {line}"))
        };

        Ok(Victim {
            pid: number("pid=")?,
            tid: number("tid=")?,
        })
    }

    /// Ends it. It must be on the lists.
    pub fn end(self, guest: &mut Guest) -> Result<()> {
        guest.sh(&format!("kill -KILL {}", self.pid))?;
        guest.wait_for("the end of the victim", Duration::from_secs(10), |guest| {
            let there = guest.run(&format!("test -e /proc/{}", self.pid))?.status == 0;
            Ok((!there).then_some(()))
        })
    }
}

/// Nothing is found where nothing is hidden, and each scan says what it looked at.
fn clean(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    // Something to run on each CPU.
    let first = Victim::start(guest, "-c 0")?;
    let second = Victim::start(guest, "-c 1 -t")?;

    for round in 1..=20 {
        scan(guest)?;
        ensure!(count(guest, "scans")? == round);
    }
    ensure!(count(guest, "findings")? == 0 && findings(guest)?.is_empty());

    for (key, at_least) in [
        ("complete", 1),
        ("cpus", 2),
        ("cpus_online", 2),
        ("queued", 2),
        ("processes", 10),
    ] {
        let value = last(guest, key)?;
        ensure!(value >= at_least, "{key}={value}");
    }
    let processes = last(guest, "processes")?;
    let listed = guest.number("ls -d /proc/[0-9]* | wc -l")?;
    ensure!(
        processes.abs_diff(listed) <= 5,
        "{processes} processes, /proc has {listed}"
    );
    first.end(guest)?;
    second.end(guest)
}

/// One scan finds a hidden task, once, and no longer when it is back.
fn hidden(guest: &mut Guest, what: &str, arguments: &str, reason: &str) -> Result<()> {
    let before = count(guest, "findings")?;
    let victim = Victim::start(guest, arguments)?;
    scan(guest)?;
    ensure!(
        count(guest, "findings")? == before,
        "a finding before anything is hidden"
    );

    guest.insmod("hide_task", &format!("pid={} what={what}", victim.tid))?;
    // A deadline task is runnable for four fifths of the time, see the admin guide's limits; any other is found at once.
    let mut scans = if arguments.contains("deadline") {
        20
    } else {
        1
    };
    while scans > 0 && count(guest, "findings")? == before {
        scan(guest)?;
        scans -= 1;
    }
    let all = findings(guest)?;
    let found = count(guest, "findings")? - before;
    ensure!(found == 1, "{found} findings for one hidden task");
    let Some(finding) = all.last() else {
        bail!("the finding is not in the kernel's log");
    };
    ensure!(
        finding.is(&victim)
            && finding.cpu < 2
            && finding.view == "runqueue"
            && finding.reason == reason,
        "{finding:?}"
    );

    // Seen again, not reported again.
    scan(guest)?;
    ensure!(count(guest, "findings")? == before + 1 && findings(guest)?.len() == all.len());
    guest.sh("rmmod hide_task")?;
    let sightings = count(guest, "sightings")?;
    scan(guest)?;
    ensure!(
        count(guest, "sightings")? == sightings,
        "a task that is back is still seen as hidden"
    );
    victim.end(guest)
}

/// The same without hiding gives no finding: the fixture itself is not what is found.
fn twin(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    for (what, arguments) in [("task", "-c 1"), ("thread", "-t -c 1")] {
        let victim = Victim::start(guest, arguments)?;
        guest.insmod(
            "hide_task",
            &format!("pid={} what={what} unlink=0", victim.tid),
        )?;
        for _ in 0..5 {
            scan(guest)?;
        }
        guest.sh("rmmod hide_task")?;
        victim.end(guest)?;
    }
    ensure!(count(guest, "findings")? == 0 && findings(guest)?.is_empty());
    Ok(())
}

/// A task cannot choose a name that makes its record say something else.
fn forged_name(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    let victim = Victim::start(guest, "-c 1 -n 'x pid=1 view='")?;

    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    guest.sh(&format!("kill -USR1 {}", victim.pid))?;
    guest.wait_for("the new name", Duration::from_secs(10), |guest| {
        let name = guest.sh(&format!("cat /proc/{}/comm", victim.pid))?;
        Ok(name.starts_with("x pid").then_some(()))
    })?;
    scan(guest)?;
    let all = findings(guest)?;
    let [finding] = all.as_slice() else {
        bail!("{all:?}");
    };
    ensure!(
        finding.pid == victim.pid && finding.view == "runqueue",
        "{finding:?}"
    );
    ensure!(
        !finding
            .comm
            .contains(|c: char| c == ' ' || c == '=' || c.is_control()),
        "{finding:?}"
    );
    guest.sh("rmmod hide_task")?;
    victim.end(guest)
}

/// Scans happen by themselves, as often as the parameter says, which may change at any time; the first one that begins after a task was
/// hidden finds it, if it is runnable.
fn periodic(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, "switch_probe=0")?;
    ensure!(guest.number(&format!("cat {INTERVAL}"))? == 1000);
    guest.sh(&format!("echo 100 >{INTERVAL}"))?;
    let before = count(guest, "scans")?;
    guest.wait_for("ten scans", Duration::from_secs(10), |guest| {
        Ok((count(guest, "scans")? >= before + 10).then_some(()))
    })?;

    let victim = Victim::start(guest, "-c 1")?;
    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    // One may be under way, the second has begun since.
    let before = count(guest, "scans")?;
    guest.wait_for("two scans", Duration::from_secs(10), |guest| {
        Ok((count(guest, "scans")? >= before + 2).then_some(()))
    })?;
    ensure!(
        count(guest, "findings")? == 1,
        "not found by the first scan"
    );
    guest.sh("rmmod hide_task")?;
    victim.end(guest)?;

    guest.sh(&format!("echo 0 >{INTERVAL}"))?;
    // One may have been under way.
    thread::sleep(Duration::from_millis(500));
    let before = count(guest, "scans")?;
    thread::sleep(Duration::from_secs(2));
    ensure!(
        count(guest, "scans")? == before,
        "scans go on with an interval of 0"
    );
    scan(guest)?;
    ensure!(count(guest, "scans")? == before + 1);
    Ok(())
}

/// What is not a valid interval is refused, and changes nothing.
fn parameters(guest: &mut Guest) -> Result<()> {
    for bad in [
        "interval_ms=x",
        "interval_ms=-1",
        "interval_ms=86400001",
        "interval_ms=99999999999",
    ] {
        ensure!(MODULE.load(guest, bad).is_err(), "{bad} is accepted");
    }
    MODULE.load(guest, ON_DEMAND)?;
    for bad in ["x", "-1", "86400001", "99999999999"] {
        let written = guest.run(&format!("echo {bad} >{INTERVAL}"))?;
        ensure!(written.status != 0, "{bad} is accepted");
        ensure!(guest.number(&format!("cat {INTERVAL}"))? == 0);
    }
    Ok(())
}

/// The module goes while scans are asked for, and leaves nothing.
fn reload(guest: &mut Guest) -> Result<()> {
    for round in 0..8 {
        MODULE.load(guest, "interval_ms=1")?;
        guest.sh(&format!(
            "for i in 1 2 3; do (while echo 1 >{DEBUGFS}/scan; do :; done) >/dev/null 2>&1 & done"
        ))?;
        thread::sleep(Duration::from_millis(100 * (round % 4)));
        if round % 4 != 0 {
            ensure!(count(guest, "scans")? > 0, "no scan was made");
        }
        // An open file keeps the module for the moment.
        guest.wait_for("the module to go", Duration::from_secs(10), |guest| {
            Ok((guest.run("rmmod guest_integrity")?.status == 0).then_some(()))
        })?;
        ensure!(
            guest.run(&format!("test -e {DEBUGFS}"))?.status != 0,
            "{DEBUGFS} is left"
        );
    }
    Ok(())
}

/// Records go to each reader once, and one that cannot be given to a reader is not lost.
fn device(guest: &mut Guest) -> Result<()> {
    const DEVICE: &str = "/dev/guest_integrity";

    MODULE.load(guest, ON_DEMAND)?;
    interfaces::for_root_only(guest, &format!("<{DEVICE}"))?;
    for _ in 0..3 {
        hidden(guest, "task", "-c 1", "process_unlisted")?;
    }
    let records = guest.sh(&format!("badread {DEVICE}"))?;
    let lines: Vec<_> = records.lines().collect();
    ensure!(lines.len() == 3, "{records}");
    for (seq, line) in (1..).zip(lines) {
        ensure!(
            line.starts_with(&format!("seq={seq} time_ns="))
                && line.contains(" type=finding pid=")
                && line.ends_with(" view=runqueue reason=process_unlisted"),
            "{line}"
        );
    }
    // A reader that has room for a part of a line only gets nothing.
    let small = guest.run(&format!("dd if={DEVICE} bs=20 count=1"))?;
    ensure!(
        small.status != 0 && small.stdout.is_empty() && small.stderr.contains("Invalid argument"),
        "{small:?}"
    );
    Ok(())
}

/// The lock of a run queue, under which interrupts are off, is held for a few instructions per task.
fn lock(guest: &mut Guest) -> Result<()> {
    const TASKS: u64 = 1000;

    MODULE.load(guest, ON_DEMAND)?;
    scan(guest)?;
    let idle = last(guest, "held_ns")?;
    // Of the lowest priority, so that commands are still executed.
    guest.sh_for(
        Duration::from_secs(120),
        &format!("for i in $(seq {TASKS}); do victim -p idle >/dev/null 2>&1 </dev/null & done"),
    )?;
    guest.wait_for("a thousand tasks", Duration::from_secs(90), |guest| {
        scan(guest)?;
        Ok((last(guest, "queued")? > TASKS).then_some(()))
    })?;

    let mut longest = 0;
    for _ in 0..5 {
        scan(guest)?;
        ensure!(last(guest, "complete")? == 1 && last(guest, "queued")? > TASKS);
        longest = longest.max(last(guest, "held_ns")?);
    }
    let whole = last(guest, "duration_ns")?;
    println!("lock held for {idle} and {longest} instructions, a scan takes {whole}");
    ensure!(
        idle < 5_000 && longest < 18_000,
        "the lock of a run queue is held for {idle} instructions, with {TASKS} tasks for {longest}"
    );
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_record_is_read_in_its_order_only() {
        let good = "[ 9.1] guest_integrity: pid=12 tgid=11 comm=a\\x20b cpu=1 view=runqueue reason=thread_unlisted";
        let finding = Finding::parse(good).unwrap();
        assert_eq!((finding.pid, finding.tgid, finding.cpu), (12, 11, 1));
        assert_eq!(
            (finding.comm.as_str(), finding.reason.as_str()),
            ("a\\x20b", "thread_unlisted")
        );

        assert!(
            Finding::parse("guest_integrity: pid=12 tgid=11 comm=x pid=1 view= cpu=1").is_err()
        );
    }
}
