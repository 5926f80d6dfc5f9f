// SPDX-License-Identifier: GPL-2.0

//! Tests of the balloon driver through what the host sees of it, and the same ones of the C driver.

use super::{
    memory::{
        available,
        ensure_available, //
    },
    Driver,
    Test, //
};
use crate::guest::{
    Guest,
    Spec, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use qapi::qmp;
use std::{
    collections::BTreeMap,
    thread,
    time::{
        Duration,
        Instant,
        SystemTime,
        UNIX_EPOCH, //
    },
};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// Memory of the guests.
pub const SIZE: u64 = 768 * MIB;
/// What they can spare of it, on the sanitizer kernel, too, whose checkers take their part.
pub const SPARE: u64 = 320 * MIB;
/// What else may take or give memory meanwhile: other processes of the guest, and QEMU for the code that it translates.
pub const SLACK: u64 = 32 * MIB;
/// Makes the host hold all memory of the guest from the start, so that each page given away shows.
const PREALLOCATED: [&str; 4] = [
    "-object",
    "memory-backend-ram,id=ram,size=768M,prealloc=on",
    "-machine",
    "memory-backend=ram",
];
/// Longest time for the balloon to reach a size that it can reach.
pub const RESIZE: Duration = Duration::from_secs(60);

pub const RUST: Driver = Driver::ours("virtio_balloon_rust");
pub const C: Driver = Driver::stock("virtio_balloon");

/// A machine with a balloon that has these properties.
pub fn spec(machine: Spec, properties: &str) -> Spec {
    machine
        .memory(768)
        .arguments(&PREALLOCATED)
        .device("virtio-balloon", properties)
}

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("balloon/{}/{subject}", driver.module);
        let plain = || spec(Spec::q35(), "id=b0");
        let legacy = spec(Spec::q35(), "id=b0,disable-modern=on,disable-legacy=off");
        let mmio = spec(Spec::microvm(), "id=b0")
            .arguments(&["-global", "virtio-mmio.force-legacy=false"]);

        tests.extend([
            Test::guest(name("follow"), 120, plain(), move |guest, _| {
                follow(guest, driver)
            }),
            Test::guest(name("actual"), 120, plain(), move |guest, _| {
                actual_is_honest(guest, driver)
            }),
            Test::guest(name("statistics"), 60, plain(), move |guest, _| {
                statistics(guest, driver)
            }),
            Test::guest(name("unload"), 120, plain(), move |guest, _| {
                unload(guest, driver)
            }),
        ]);
        if driver == RUST {
            tests.extend([
                // The C driver takes so much that the kernel kills processes.
                Test::guest(name("unreachable"), 180, plain(), move |guest, _| {
                    unreachable(guest, driver)
                }),
                // The C driver sends all that it knows.
                Test::guest(name("statistics-capped"), 60, plain(), |guest, _| {
                    capped(guest)
                }),
                // The C driver waits for such a host without end.
                Test::guest(name("mute"), 120, plain(), move |guest, _| {
                    mute(guest, driver)
                }),
                Test::guest(name("legacy"), 120, legacy, move |guest, _| {
                    follow(guest, driver)
                }),
                Test::guest(name("mmio"), 120, mmio, move |guest, _| {
                    follow(guest, driver)
                }),
            ]);
        }
    }
    tests
}

/// Asks for a guest of this size.
pub fn ask(guest: &mut Guest, size: u64) -> Result<()> {
    let value = i64::try_from(size)?;
    guest.qmp(qmp::balloon { value }).map(drop)
}

/// The size that the driver tells the host.
pub fn actual(guest: &mut Guest) -> Result<u64> {
    let info = guest.qmp(qmp::query_balloon {})?;
    u64::try_from(info.actual).context("the size of the guest")
}

/// Asks for a guest of this size and waits until it has it.
pub fn resize(guest: &mut Guest, size: u64) -> Result<()> {
    ask(guest, size)?;
    guest.wait_for(&format!("a guest of {} MiB", size / MIB), RESIZE, |guest| {
        Ok((actual(guest)? == size).then_some(()))
    })
}

/// A line of `/proc/meminfo`, in bytes.
pub fn meminfo(guest: &mut Guest, key: &str) -> Result<u64> {
    guest.number(&format!(
        "awk '$1 == \"{key}:\" {{ print $2 * 1024 }}' /proc/meminfo"
    ))
}

/// A line of `/proc/vmstat`, if this kernel has it.
pub fn vmstat(guest: &mut Guest, key: &str) -> Result<Option<u64>> {
    let text = guest.sh(&format!(
        "awk '$1 == \"{key}\" {{ print $2 }}' /proc/vmstat"
    ))?;

    match text.is_empty() {
        true => Ok(None),
        false => Ok(Some(
            text.parse().with_context(|| format!("{key} is {text:?}"))?,
        )),
    }
}

/// Writes to most of the free memory once, so that the host holds it.
pub fn touch(guest: &mut Guest) -> Result<()> {
    let megabytes = meminfo(guest, "MemAvailable")? / MIB * 7 / 10;

    guest
        .sh_for(
            Duration::from_secs(60),
            &format!(
                "dd if=/dev/zero of=/tmp/touch bs=1M count={megabytes} 2>/dev/null; rm /tmp/touch"
            ),
        )
        .map(drop)
}

fn ensure_near(what: &str, value: u64, expected: u64) -> Result<()> {
    ensure!(
        value.abs_diff(expected) <= SLACK,
        "{what}: {} MiB, expected about {} MiB",
        value / MIB,
        expected / MIB
    );
    Ok(())
}

/// The guest's memory and the host's follow the target down and up.
fn follow(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    ensure!(actual(guest)? == SIZE);
    let available = available(guest)?;
    let resident = guest.resident()?;

    resize(guest, SIZE - SPARE)?;
    ensure_available(guest, "shrunk", available - SPARE)?;
    let shrunk = guest.resident()?;
    ensure_near(
        "the host's memory, shrunk",
        shrunk,
        resident.saturating_sub(SPARE),
    )?;

    // A size in the middle, and one that is no multiple of a MiB.
    resize(guest, SIZE - SPARE / 2)?;
    resize(guest, SIZE - SPARE + 3 * PAGE)?;

    resize(guest, SIZE)?;
    ensure_available(guest, "grown", available)?;
    // The host gives the pages back when they are used.
    touch(guest)?;
    let grown = guest.resident()?;
    ensure!(
        grown > shrunk + SPARE / 2,
        "the host's memory grew by {} MiB only",
        grown.saturating_sub(shrunk) / MIB
    );
    Ok(())
}

/// At no moment does the driver tell the host of more than the guest gave away, or of less than it still lacks.
fn actual_is_honest(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    let resident = guest.resident()?;
    let pages = vmstat(guest, "balloon_inflate")?.context("no balloon_inflate in vmstat")?;

    let mut between = 0;
    ask(guest, SIZE - SPARE)?;
    let start = Instant::now();
    loop {
        // Told first, looked at later: both can only have grown meanwhile.
        let told = SIZE - actual(guest)?;
        let fell = resident.saturating_sub(guest.resident()?);
        let given = vmstat(guest, "balloon_inflate")?.unwrap_or(0) - pages;
        ensure!(
            given * PAGE >= told,
            "{told} bytes are told, {given} pages are given away"
        );
        ensure!(
            fell + SLACK >= told,
            "{} MiB are told, the host got {} MiB",
            told / MIB,
            fell / MIB
        );
        match told {
            SPARE => break,
            0 => {}
            _ => between += 1,
        }
        ensure!(
            start.elapsed() < RESIZE,
            "{told} of {SPARE} bytes given away"
        );
    }

    let pages = vmstat(guest, "balloon_deflate")?.context("no balloon_deflate in vmstat")?;
    ask(guest, SIZE)?;
    loop {
        let told = SIZE - actual(guest)?;
        let taken = vmstat(guest, "balloon_deflate")?.unwrap_or(0) - pages;
        ensure!(
            taken * PAGE >= SPARE - told,
            "{} bytes are told to be back, {taken} pages are",
            SPARE - told
        );
        match told {
            0 => break,
            SPARE => {}
            _ => between += 1,
        }
        ensure!(
            start.elapsed() < 2 * RESIZE,
            "{told} of {SPARE} bytes still away"
        );
    }
    ensure!(
        between > 0,
        "the size was never seen between the two targets"
    );
    Ok(())
}

/// All statistics arrive, and agree with what the guest itself says.
fn statistics(guest: &mut Guest, driver: Driver) -> Result<()> {
    // Name for QEMU, where the guest says the same, and how exactly the two agree.
    const TAGS: [(&str, &str, u64); 16] = [
        ("stat-swap-in", "vmstat pswpin", 0),
        ("stat-swap-out", "vmstat pswpout", 0),
        ("stat-major-faults", "vmstat pgmajfault", 200),
        ("stat-minor-faults", "vmstat pgfault", 20_000),
        ("stat-free-memory", "meminfo MemFree", SLACK),
        ("stat-total-memory", "meminfo MemTotal", 0),
        ("stat-available-memory", "meminfo MemAvailable", SLACK),
        ("stat-disk-caches", "meminfo Cached", SLACK),
        ("stat-htlb-pgalloc", "vmstat htlb_buddy_alloc_success", 0),
        ("stat-htlb-pgfail", "vmstat htlb_buddy_alloc_fail", 0),
        ("stat-oom-kills", "vmstat oom_kill", 0),
        ("stat-alloc-stalls", "vmstat allocstall_", 20),
        ("stat-async-scans", "vmstat pgscan_kswapd", 20_000),
        ("stat-direct-scans", "vmstat pgscan_direct", 20_000),
        ("stat-async-reclaims", "vmstat pgsteal_kswapd", 20_000),
        ("stat-direct-reclaims", "vmstat pgsteal_direct", 20_000),
    ];

    driver.load(guest, "")?;
    guest.qom_set("b0", "guest-stats-polling-interval", 1.into())?;
    let first = fresh(guest)?;
    // Something to count.
    touch(guest)?;
    guest.sh("dd if=/dev/zero of=/tmp/cache bs=1M count=64 2>/dev/null")?;
    let second = fresh(guest)?;

    for (tag, place, tolerance) in TAGS {
        let Some(&value) = second.get(tag) else {
            anyhow::bail!("no {tag} in {:?}", second);
        };
        let (file, key) = place.split_once(' ').unwrap_or((place, ""));
        let expected = match file {
            "meminfo" => Some(meminfo(guest, key)?),
            // The kernel counts per zone; the statistic is the sum.
            _ if key == "allocstall_" => Some(
                guest
                    .number("awk '/^allocstall_/ { n += $2 } END { print n + 0 }' /proc/vmstat")?,
            ),
            _ => vmstat(guest, key)?,
        };
        // A kernel without huge pages has no counters of them, and the driver none to send: QEMU shows this as -1.
        let Some(expected) = expected else {
            ensure!(value == u64::MAX, "{tag} is {value}, {key} does not exist");
            continue;
        };
        ensure!(
            value.abs_diff(expected) <= tolerance,
            "{tag} is {value}, {key} is {expected}"
        );
    }
    let cached = second["stat-disk-caches"].saturating_sub(first["stat-disk-caches"]);
    ensure_near("growth of the cache", cached, 64 * MIB)?;
    ensure!(second["stat-minor-faults"] > first["stat-minor-faults"]);
    Ok(())
}

/// A host that knows seven kinds of statistics gets these.
fn capped(guest: &mut Guest) -> Result<()> {
    RUST.load(guest, "stat_tags=7")?;
    guest.qom_set("b0", "guest-stats-polling-interval", 1.into())?;
    let stats = fresh(guest)?;

    // What the guest does not send QEMU shows as -1.
    for (tag, is_sent) in [
        ("stat-available-memory", true),
        ("stat-disk-caches", false),
        ("stat-oom-kills", false),
    ] {
        let value = stats.get(tag).copied();
        ensure!(
            value.is_some_and(|value| (value != u64::MAX) == is_sent),
            "{tag}: {value:?}"
        );
    }
    RUST.unload(guest)
}

/// Statistics that the guest has sent since now.
pub fn fresh(guest: &mut Guest) -> Result<BTreeMap<String, u64>> {
    // QEMU says when they came, in whole seconds of this machine's clock.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();

    guest.wait_for("new statistics", Duration::from_secs(20), |guest| {
        let value = guest.qom_get("b0", "guest-stats")?;

        if value["last-update"].as_u64().unwrap_or(0) <= now {
            return Ok(None);
        }
        serde_json::from_value(value["stats"].clone()).context("guest-stats")
    })
}

/// A target that the guest cannot reach costs it neither its life nor its CPUs, and the next one is followed.
fn unreachable(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    ask(guest, 16 * MIB)?;
    // The size falls, then stays where it is.
    let mut last = actual(guest)?;
    guest.wait_for("an end of inflating", Duration::from_secs(90), |guest| {
        thread::sleep(Duration::from_secs(3));
        let now = actual(guest)?;
        let stays = now < SIZE / 2 && now.abs_diff(last) < 4 * MIB;
        last = now;
        Ok(stays.then_some(()))
    })?;
    ensure!(last > 16 * MIB, "the guest lives on {} MiB", last / MIB);

    let idle = idle_percent(guest, 5)?;
    ensure!(
        idle >= 50,
        "the CPUs are idle for {idle} % of the time only"
    );
    ensure!(guest.sh("seq 1000 | tail -n 1")? == "1000");

    resize(guest, SIZE - 128 * MIB)?;
    resize(guest, SIZE)?;
    let killed = vmstat(guest, "oom_kill")?;
    ensure!(
        matches!(killed, None | Some(0)),
        "{killed:?} processes were killed for want of memory"
    );
    Ok(())
}

/// How much of the next `seconds` the CPUs are idle.
pub fn idle_percent(guest: &mut Guest, seconds: u64) -> Result<u64> {
    // The words of the first line: user nice system idle iowait irq softirq steal.
    let line = guest.sh(&format!(
        "head -n 1 /proc/stat; sleep {seconds}; head -n 1 /proc/stat"
    ))?;
    let rows: Vec<Vec<u64>> = line
        .lines()
        .map(|line| {
            line.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect()
        })
        .collect();
    let [before, after] = rows.as_slice() else {
        anyhow::bail!("/proc/stat: {line}");
    };
    let spent: Vec<u64> = after
        .iter()
        .zip(before)
        .map(|(a, b)| a.saturating_sub(*b))
        .collect();
    let total: u64 = spent.iter().take(8).sum();

    ensure!(total > 0 && spent.len() >= 5, "/proc/stat: {line}");
    Ok((spent[3] + spent[4]) * 100 / total)
}

/// Devices that never answer cost the guest what they were given, and no more: no task waits for them, and unloading ends. Of
/// several devices, each has figures of its own.
fn mute(guest: &mut Guest, driver: Driver) -> Result<()> {
    const DEBUGFS: &str = "/sys/kernel/debug/virtio_balloon_rust";
    const WANTED: u64 = 65_536;

    let total = meminfo(guest, "MemTotal")?;
    let available = available(guest)?;
    driver.load(guest, "")?;
    let own = guest.sh(&format!("ls {DEBUGFS}"))?;
    guest.insmod("mute_balloon", &format!("devices=2 pages={WANTED}"))?;
    let mutes = guest.sh(&format!("ls {DEBUGFS} | grep -vx {own}"))?;
    ensure!(mutes.lines().count() == 2, "{own} and {mutes}");

    for device in mutes.lines() {
        // The driver works when it gets to it.
        guest.wait_for("work", Duration::from_secs(5), |guest| {
            let state = guest.sh(&format!("cat {DEBUGFS}/{device}/state"))?;
            Ok((state == "waiting for the host").then_some(()))
        })?;
        let mut figure = |file: &str| guest.sh(&format!("cat {DEBUGFS}/{device}/{file}"));
        ensure!(figure("target")?.parse() == Ok(WANTED));
        let state = figure("state")?;
        ensure!(state == "waiting for the host", "{device}: {state}");
        ensure!(figure("actual")? == "0", "{device}");
        // As many lists as may be under way.
        let inflating = figure("inflating")?;
        ensure!(inflating.parse() == Ok(64 * 256), "{device}: {inflating}");
    }
    // The one that answers is not held up by the others.
    resize(guest, SIZE - 128 * MIB)?;
    ensure!(guest.number(&format!("cat {DEBUGFS}/{own}/actual"))? == 128 * MIB / PAGE);
    compact(guest)?;
    let idle = idle_percent(guest, 3)?;
    ensure!(
        idle >= 50,
        "the CPUs are idle for {idle} % of the time only"
    );
    resize(guest, SIZE)?;

    // 2 s of silence for each device, and some time for a busy host.
    let start = Instant::now();
    driver.unload(guest)?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(20), "unloading took {took:?}");
    guest.sh("rmmod mute_balloon")?;
    ensure!(meminfo(guest, "MemTotal")? == total);
    ensure_available(guest, "unloaded", available)
}

/// Has the kernel compact all memory.
pub fn compact(guest: &mut Guest) -> Result<()> {
    guest
        .sh_for(
            Duration::from_secs(120),
            "echo 1 >/proc/sys/vm/compact_memory",
        )
        .map(drop)
}

/// The files are what they were.
pub fn intact(guest: &mut Guest, when: &str) -> Result<()> {
    let same = guest.run("cd /tmp/data && md5sum -c -s /tmp/sums")?;

    ensure!(
        same.status == 0,
        "{when}: data of the guest has changed: {}{}",
        same.stdout,
        same.stderr
    );
    Ok(())
}

/// Without the driver the guest has all its memory again, whatever the balloon was doing.
fn unload(guest: &mut Guest, driver: Driver) -> Result<()> {
    let total = meminfo(guest, "MemTotal")?;
    let available = available(guest)?;

    driver.load(guest, "")?;
    resize(guest, SIZE - SPARE)?;
    driver.unload(guest)?;
    ensure!(meminfo(guest, "MemTotal")? == total);
    ensure_available(guest, "unloaded", available)?;
    ensure!(
        actual(guest)? == SIZE,
        "the host was not told of the return"
    );

    // The target still stands: a new instance follows it.
    driver.load(guest, "")?;
    guest.wait_for("the target of before", RESIZE, |guest| {
        Ok((actual(guest)? == SIZE - SPARE).then_some(()))
    })?;
    for step in 1..=6 {
        ask(guest, SIZE - SPARE + step % 2 * 300 * MIB)?;
        // At another moment of the way each time.
        thread::sleep(Duration::from_millis(40 * step));
        driver.unload(guest)?;
        ensure!(meminfo(guest, "MemTotal")? == total, "after round {step}");
        driver.load(guest, "")?;
    }
    resize(guest, SIZE)?;
    driver.unload(guest)?;
    ensure_available(guest, "at the end", available)
}
