// SPDX-License-Identifier: GPL-2.0

//! Tests of the balloon driver with a device of our own, which notes what no driver may do and overwrites what it is given, and which
//! can break the rules itself. The C driver passes the same tests with the one that keeps them.

use super::{
    balloon::{
        intact,
        meminfo,
        touch,
        vmstat,
        C,
        RESIZE,
        RUST,
        SLACK, //
    },
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
use std::time::{
    Duration,
    Instant, //
};
use tenon_device::{
    balloon::{
        feature,
        Balloon, //
    },
    script::Script, //
};

const MIB: u64 = 1 << 20;

/// How many pages a MiB has.
const PAGES: u32 = 256;

/// Buffers that are said to be used: the queue has none with such a number, or the device has none. Lists are numbered from 0 on.
const NO_BUFFER: [&str; 5] = [
    "inflate.used-id 4000000000",
    "deflate.used-id 120",
    "report.used-id 4000000000",
    "hint.used-id 120",
    "statistics.used-id 4000000000",
];

const DEBUGFS: &str = "/sys/kernel/debug/virtio_balloon_rust";

/// How many pages may be under way at once.
const UNDER_WAY: u32 = 64 * 256;

/// How many balloons that do anything at all there are.
const SEEDS: u64 = 4;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    let test =
        |driver: Driver, subject: &str, balloon, body: fn(&mut Guest, Driver) -> Result<()>| {
            Test::guest(
                format!("balloon/{}/{subject}", driver.module),
                180,
                Spec::q35().memory(768).balloon(balloon),
                move |guest, _| body(guest, driver),
            )
        };

    let told = || Balloon::default().with(feature::MUST_TELL_HOST);

    for driver in [RUST, C] {
        tests.extend([
            test(driver, "own/moves", Balloon::default(), moves),
            test(driver, "own/moves-told", told(), moves),
            test(driver, "own/statistics", Balloon::default(), statistics),
            test(driver, "own/report", Balloon::default(), report),
            test(driver, "own/hint", Balloon::default(), hint),
        ]);
    }
    // The C driver waits for such a device without end, or goes by what it says.
    tests.extend([
        test(RUST, "bent/silent", Balloon::default(), silent),
        test(
            RUST,
            "bent/silent-deflate",
            Balloon::default(),
            |guest, _| silent_deflate(guest, false),
        ),
        test(RUST, "bent/silent-deflate-told", told(), |guest, _| {
            silent_deflate(guest, true)
        }),
        test(RUST, "bent/no-buffer", Balloon::default(), no_buffer),
        test(RUST, "bent/anything", Balloon::default(), anything),
    ]);
    tests
}

/// Has the balloon follow a script from now on.
fn bend(guest: &mut Guest, script: &str) -> Result<()> {
    guest.balloon()?.script = script.parse().with_context(|| script.to_owned())?;
    Ok(())
}

/// Has the balloon behave, and returns how often it did not.
fn straighten(guest: &mut Guest) -> Result<u64> {
    Ok(std::mem::take(&mut guest.balloon()?.script).bent)
}

/// The driver has done nothing that it must not.
fn ensure_faultless(guest: &mut Guest) -> Result<()> {
    let faults = guest.balloon()?.faults.join(", ");

    ensure!(faults.is_empty(), "{faults}");
    Ok(())
}

/// Asks for so many pages, and waits until the balloon has them and the driver says so.
fn resize(guest: &mut Guest, pages: u32) -> Result<()> {
    guest.balloon()?.resize(pages);
    guest.wait_for(&format!("{pages} pages"), RESIZE, |guest| {
        let balloon = guest.balloon()?;
        let size = u32::try_from(balloon.pages.len())?;
        Ok((size == pages && balloon.actual == pages).then_some(()))
    })?;
    ensure_faultless(guest)
}

/// Leaves data in the guest which [`intact`] compares.
fn remember(guest: &mut Guest) -> Result<()> {
    guest
        .sh("mkdir -p /tmp/data && cd /tmp/data && head -c 30000000 /dev/urandom >keep && md5sum keep >/tmp/sums")
        .map(drop)
}

/// The balloon follows its target, and no page is in it that the guest still uses or that it has given already. Its end gives all of
/// them back, in the same way.
fn moves(guest: &mut Guest, driver: Driver) -> Result<()> {
    remember(guest)?;
    driver.load(guest, "")?;
    let available = available(guest)?;

    for mebibytes in [64, 200, 15, 100, 0] {
        resize(guest, mebibytes * PAGES)?;
        ensure_available(guest, "moved", available - u64::from(mebibytes) * MIB)?;
    }
    // Sizes that are no multiples of anything.
    resize(guest, 12_345)?;
    resize(guest, 54_321)?;
    intact(guest, "inflated")?;
    resize(guest, 1)?;
    touch(guest)?;
    intact(guest, "deflated")?;

    resize(guest, 100 * PAGES)?;
    driver.unload(guest)?;
    ensure_faultless(guest)?;
    let (left, actual) = {
        let balloon = guest.balloon()?;
        (balloon.pages.len(), balloon.actual)
    };
    ensure!(left == 0 && actual == 0, "{left} pages are left, {actual}");
    touch(guest)?;
    intact(guest, "unloaded")?;
    ensure_available(guest, "unloaded", available)
}

/// Statistics come when they are asked for, each time anew.
fn statistics(guest: &mut Guest, driver: Driver) -> Result<()> {
    const MEMTOT: u16 = 5;
    const MEMFREE: u16 = 4;

    driver.load(guest, "")?;
    let answers = |guest: &mut Guest, answers: u32| {
        guest.wait_for("statistics", RESIZE, |guest| {
            Ok((guest.balloon()?.answers >= answers).then_some(()))
        })
    };
    let value = |guest: &mut Guest, tag: u16| -> Result<u64> {
        let value = guest.balloon()?.statistics.get(&tag).copied();
        value.with_context(|| format!("statistic {tag} is missing"))
    };

    answers(guest, 1)?;
    for round in 2..=4 {
        guest.balloon()?.ask();
        answers(guest, round)?;
        let total = meminfo(guest, "MemTotal")?;
        ensure!(value(guest, MEMTOT)? == total);
    }
    let free = value(guest, MEMFREE)?;
    guest.sh("head -c 100000000 /dev/zero >/tmp/fill")?;
    guest.balloon()?.ask();
    answers(guest, 5)?;
    let less = free.saturating_sub(value(guest, MEMFREE)?);
    ensure!(
        less > 60 * MIB && less < 160 * MIB,
        "free memory is less by {} MiB",
        less / MIB
    );
    // Nobody has asked for more.
    guest.sh("sleep 1")?;
    ensure!(guest.balloon()?.answers == 5);
    ensure_faultless(guest)
}

/// Free memory is reported, and that is all that is overwritten.
fn report(guest: &mut Guest, driver: Driver) -> Result<()> {
    remember(guest)?;
    driver.load(guest, "")?;
    resize(guest, 50 * PAGES)?;
    touch(guest)?;
    guest.wait_for("reports", RESIZE, |guest| {
        Ok((guest.balloon()?.reported > 200 * MIB).then_some(()))
    })?;
    intact(guest, "reported")?;
    touch(guest)?;
    intact(guest, "used again")?;
    resize(guest, 0)?;
    driver.unload(guest)?;
    ensure_faultless(guest)
}

/// Free memory is hinted at when that is asked for, and is the guest's again when hints are not wanted any more.
fn hint(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    resize(guest, 50 * PAGES)?;
    let available = available(guest)?;

    for _ in 0..2 {
        guest.balloon()?.hint();
        guest.wait_for("hints", RESIZE, |guest| {
            let balloon = guest.balloon()?;
            Ok((!balloon.is_hinting && balloon.hinted > 100 * MIB).then_some(()))
        })?;
        guest.balloon()?.end_hints();
        guest.wait_for("what was hinted at", RESIZE, |guest| {
            Ok((self::available(guest)? + SLACK > available).then_some(()))
        })?;
    }
    resize(guest, 0)?;
    driver.unload(guest)?;
    ensure_faultless(guest)
}

/// Lets go of a device, which takes no longer than it is waited for, and has all memory back.
fn let_go(guest: &mut Guest, available: u64) -> Result<()> {
    let stuck = guest.sh("ps -o stat,comm | grep '^D' || true")?;
    ensure!(stuck.is_empty(), "in D state: {stuck}");

    let start = Instant::now();
    RUST.unload(guest)?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(20), "unloading took {took:?}");
    straighten(guest)?;
    ensure_available(guest, "unloaded", available)?;
    let killed = vmstat(guest, "oom_kill")?;
    ensure!(
        matches!(killed, None | Some(0)),
        "{killed:?} processes were killed for want of memory"
    );
    Ok(())
}

/// Has the driver do all that it does, whatever comes of it. Some hundred MiB may be with the device then: as much as may be under way.
fn exercise(guest: &mut Guest) -> Result<()> {
    for pages in [30 * PAGES, 60 * PAGES, 0, 20 * PAGES] {
        guest.balloon()?.resize(pages);
        guest.balloon()?.ask();
        guest.sh("dd if=/dev/zero of=/tmp/fill bs=1M count=100 2>/dev/null && rm /tmp/fill")?;
    }
    guest.balloon()?.hint();
    guest.sh("sleep 1")?;
    guest.balloon()?.end_hints();
    guest.sh("sleep 1").map(drop)
}

/// A device that behaves again works again, and the driver makes no mistake. Before, it could not always tell the device what it takes back.
fn still_works(guest: &mut Guest) -> Result<()> {
    guest.balloon()?.resize(0);
    guest.balloon()?.faults.clear();
    RUST.load(guest, "")?;
    for pages in [20_000, 10_000, 0] {
        resize(guest, pages)?;
    }
    RUST.unload(guest)
}

/// A device that does not give back costs the guest what it has, and nothing waits for it for long.
fn silent(guest: &mut Guest, _: Driver) -> Result<()> {
    let available = available(guest)?;

    for queue in ["inflate", "deflate", "report", "hint"] {
        let script = format!("{queue}.used times all 0");
        bend(guest, &script)?;
        RUST.load(guest, "")?;
        exercise(guest)?;
        let bent = guest.balloon()?.script.bent;
        ensure!(bent > 0, "{script} has not happened");
        let_go(guest, available).with_context(|| script)?;
    }
    still_works(guest)
}

/// The device takes pages and does not answer when they are to come back: if it has asked to be told first, the guest must not use
/// them, and has to say that they are away; otherwise it has them at once. None of them is given away again meanwhile.
fn silent_deflate(guest: &mut Guest, must_tell: bool) -> Result<()> {
    let figure = |guest: &mut Guest, file: &str| guest.number(&format!("cat {DEBUGFS}/*/{file}"));
    let pages = u64::from(UNDER_WAY);
    let bytes = pages * 4096;

    let before = available(guest)?;
    bend(guest, "deflate.used times all 0")?;
    RUST.load(guest, "")?;
    resize(guest, UNDER_WAY)?;
    ensure_available(guest, "inflated", before - bytes)?;

    guest.balloon()?.resize(0);
    guest.wait_for("deflating", RESIZE, |guest| {
        let deflating = figure(guest, "deflating")?;
        Ok((deflating == pages).then_some(()))
    })?;
    let (actual, freed, left) = if must_tell {
        (pages, 0, before - bytes)
    } else {
        (0, pages, before)
    };
    ensure!(figure(guest, "actual")? == actual);
    ensure!(figure(guest, "deflated")? == freed);
    ensure_available(guest, "deflating", left)?;

    guest.balloon()?.resize(UNDER_WAY / 2);
    guest.sh("sleep 1")?;
    ensure!(figure(guest, "inflating")? == 0);
    ensure!(figure(guest, "deflating")? == pages);
    let state = guest.sh(&format!("cat {DEBUGFS}/*/state"))?;
    ensure!(state == "waiting for the host", "{state}");
    ensure_faultless(guest)?;
    let_go(guest, before)?;
    still_works(guest)
}

/// A queue that answers what is no buffer is out of use, and its driver can be bound anew. If the balloon depends on it, it says so.
fn no_buffer(guest: &mut Guest, _: Driver) -> Result<()> {
    let available = available(guest)?;

    for (done, script) in NO_BUFFER.iter().enumerate() {
        bend(guest, script)?;
        RUST.load(guest, "")?;
        exercise(guest)?;
        let bent = guest.balloon()?.script.bent;
        ensure!(bent == 1, "{script} has happened {bent} times");
        let log = guest.log();
        let noticed = log.matches(" out of range").count() + log.matches(" is not a head!").count();
        ensure!(noticed == done + 1, "{script}: {noticed} noticed");
        let state = guest.sh(&format!("cat {DEBUGFS}/*/state"))?;
        let said = log.matches("a queue is out of use").count();
        let moves = script.starts_with("inflate") || script.starts_with("deflate");
        ensure!(
            state.starts_with("broken") == moves && said == (done + 1).min(2),
            "{script}: {state}, said {said} times"
        );
        let_go(guest, available).with_context(|| *script)?;
    }
    still_works(guest)
}

/// The device says anything at all.
fn anything(guest: &mut Guest, _: Driver) -> Result<()> {
    let available = available(guest)?;

    for seed in 0..SEEDS {
        let mut script = format!("seed {seed}\n");
        for point in ["config.target", "config.hint"] {
            script += &format!("{point} times 20 random\n");
        }
        for point in ["inflate", "deflate", "report", "hint"] {
            script += &format!("{point}.used after {} times 3 0\n", 3 * seed);
            script += &format!("{point}.used-id after {} times 2 random\n", 10 + 5 * seed);
        }
        script += "statistics.used-id after 1 random\n";
        script.parse::<Script>()?;

        bend(guest, &script)?;
        RUST.load(guest, "")?;
        exercise(guest)?;
        let bent = guest.balloon()?.script.bent;
        ensure!(bent > 5, "seed {seed} has happened {bent} times");
        let_go(guest, available).with_context(|| format!("seed {seed}"))?;
    }
    still_works(guest)
}
