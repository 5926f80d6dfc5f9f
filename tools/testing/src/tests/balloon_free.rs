// SPDX-License-Identifier: GPL-2.0

//! Tests of what the balloon driver tells the host of free memory, which the guest keeps.

use super::{
    balloon::{
        meminfo,
        resize,
        spec,
        touch,
        C,
        RUST,
        SIZE,
        SPARE, //
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
    Lab,
    Spec, //
};
use anyhow::{
    ensure,
    Result, //
};
use std::time::{
    Duration,
    Instant, //
};

const MIB: u64 = 1 << 20;
/// Has the page allocator report free memory sooner than after its 2 s.
const SOON: &str = "echo 100 >/sys/module/page_reporting/parameters/page_reporting_delay_ms";
const DEBUGFS: &str = "/sys/kernel/debug/virtio_balloon_rust";

pub fn tests() -> Vec<Test> {
    let name = |driver: Driver, subject: &str| format!("balloon/{}/{subject}", driver.module);
    let mut tests: Vec<_> = [RUST, C]
        .into_iter()
        .map(|driver| {
            Test::guest(
                name(driver, "report"),
                120,
                spec(Spec::q35(), "id=b0,free-page-reporting=on"),
                move |guest, _| report(guest, driver),
            )
        })
        .collect();

    for driver in [RUST, C] {
        for known in [true, false] {
            let properties = format!(
                "id=b0,free-page-reporting=on,page-poison={}",
                if known { "on" } else { "off" }
            );
            let subject = if known { "poison" } else { "poison-unknown" };
            tests.push(
                Test::guest(
                    name(driver, subject),
                    90,
                    spec(Spec::q35().append("init_on_free=1"), &properties),
                    move |guest, _| poison(guest, driver, known),
                )
                .stock_only("its page allocator writes something else to free memory"),
            );
        }
    }
    for driver in [RUST, C] {
        // The kernel would clear what it takes, and pages of zeroes are hardly anything to send.
        let machine = spec(
            Spec::q35().append("init_on_alloc=0"),
            "id=b0,free-page-hint=on,iothread=io0",
        )
        .arguments(&["-object", "iothread,id=io0"]);
        tests.push(
            Test::guest(name(driver, "hint"), 180, machine, move |guest, lab| {
                hint(guest, lab, driver)
            })
            .stock_only("its page allocator writes to free memory"),
        );
    }
    for driver in [RUST, C] {
        let machine = spec(
            Spec::q35().append("init_on_alloc=0"),
            "id=b0,free-page-reporting=on",
        );
        tests.push(
            Test::guest(
                name(driver, "report-untouched"),
                90,
                machine,
                move |guest, _| untouched(guest, driver),
            )
            .stock_only("its page allocator writes to free memory"),
        );
    }
    // The C driver waits for such a host without end.
    tests.push(Test::guest(
        name(RUST, "report-mute"),
        120,
        spec(Spec::q35(), "id=b0"),
        |guest, _| report_to_nobody(guest),
    ));
    tests
}

/// Waits until the host holds so little memory of the guest.
fn falls_to(guest: &mut Guest, when: &str, most: u64) -> Result<()> {
    let mut resident = 0;
    let fell = guest.wait_for("less memory", Duration::from_secs(40), |guest| {
        resident = guest.resident()?;
        Ok((resident <= most).then_some(()))
    });

    ensure!(
        fell.is_ok(),
        "{when} the host holds {} MiB, not {}",
        resident / MIB,
        most / MIB
    );
    Ok(())
}

/// The host gets free memory without asking for it, again and again, and what the guest uses stays what it is.
fn report(guest: &mut Guest, driver: Driver) -> Result<()> {
    guest.sh(SOON)?;
    guest.sh("head -c 30000000 /dev/urandom >/tmp/noise && md5sum /tmp/noise >/tmp/sum")?;
    let full = guest.resident()?;
    // Blocks that are being reported are not free for so long, as much as 128 MiB.
    let free = meminfo(guest, "MemFree")?;
    driver.load(guest, "")?;
    // Most of it lies in blocks that are large enough.
    let low = full - free * 2 / 3;
    if guest.sh("cat /proc/cmdline")?.contains("page_poison=1") {
        return stays_poisoned(guest, driver, low);
    }
    falls_to(guest, "idle,", low)?;
    let told = |guest: &mut Guest| guest.number(&format!("cat {DEBUGFS}/*/reported"));
    let mut before = 0;
    if driver == RUST {
        before = told(guest)?;
        guest.sh(
            "echo 1 >/sys/kernel/tracing/events/virtio_balloon_rust/virtio_balloon_rust_report/enable",
        )?;
    }

    guest.sh(&format!(
        "dd if=/dev/zero of=/tmp/used bs=1M count={} 2>/dev/null",
        free / 2 / MIB
    ))?;
    let used = guest.resident()?;
    ensure!(
        used > low + free / 16,
        "used again, the host holds {} MiB",
        used / MIB
    );
    guest.sh("rm /tmp/used")?;
    falls_to(guest, "idle again,", low)?;
    // Both at once, and with less memory.
    resize(guest, SIZE - 128 * MIB)?;
    touch(guest)?;
    resize(guest, SIZE)?;
    falls_to(guest, "after the balloon,", low)?;

    ensure!(
        guest.run("md5sum -c -s /tmp/sum")?.status == 0,
        "data of the guest has changed"
    );
    if driver == RUST {
        guest.sh("echo 0 >/sys/kernel/tracing/tracing_on")?;
        let reported = told(guest)?;
        ensure!(reported * 4096 > free, "{reported} pages are reported");
        // None missed, but for those between the two commands.
        let traced = guest.number(
            "awk '/virtio_balloon_rust_report: device=/ { sub(\".*bytes=\", \"\"); n += $1 } END { printf \"%u\", n / 4096 }' /sys/kernel/tracing/trace",
        )?;
        ensure!(
            traced > 0 && traced <= reported - before,
            "{traced} pages are traced, {} reported",
            reported - before
        );
    }
    driver.unload(guest)?;
    // Nobody is told any more.
    touch(guest)?;
    ensure!(
        guest.run("md5sum -c -s /tmp/sum")?.status == 0,
        "data of the guest has changed"
    );
    driver.load(guest, "")?;
    driver.unload(guest)
}

/// Nobody writes to what the host was told of when it goes into the balloon and comes out: the host does not have to hold it again.
fn untouched(guest: &mut Guest, driver: Driver) -> Result<()> {
    guest.sh(SOON)?;
    let full = guest.resident()?;
    let low = full - meminfo(guest, "MemFree")? * 2 / 3;
    driver.load(guest, "")?;
    falls_to(guest, "idle,", low)?;

    for _ in 0..3 {
        for size in [SIZE - SPARE, SIZE] {
            resize(guest, size)?;
            let now = guest.resident()?;
            ensure!(
                now <= low,
                "the host holds {} MiB, not {}",
                now / MIB,
                low / MIB
            );
        }
    }
    driver.unload(guest)
}

/// The kernel looks at free memory when it uses it again, so the host leaves that as it is; the kernel reports what it misses.
fn stays_poisoned(guest: &mut Guest, driver: Driver, low: u64) -> Result<()> {
    if driver == RUST {
        guest.wait_for("reports", Duration::from_secs(20), |guest| {
            let reported = guest.number(&format!("cat {DEBUGFS}/*/reported"))?;
            Ok((reported > 0).then_some(()))
        })?;
    }
    touch(guest)?;
    ensure!(guest.resident()? > low, "the host has taken free memory");
    driver.unload(guest)
}

/// Whether the page allocator clears free memory, and whether the host may know: without that it must not take any.
fn poison(guest: &mut Guest, driver: Driver, known: bool) -> Result<()> {
    guest.sh(SOON)?;
    let full = guest.resident()?;
    driver.load(guest, "")?;
    let bits = guest.sh(&format!(
        "cat /sys/bus/virtio/drivers/{}/virtio*/features",
        driver.module
    ))?;
    let has = |bit: usize| bits.as_bytes().get(bit) == Some(&b'1');
    ensure!(
        has(4) == known && has(5) == known,
        "features, of which the host knows what free memory holds: {known}: {bits}"
    );

    let low = full - meminfo(guest, "MemFree")? * 2 / 3;
    if known {
        falls_to(guest, "told of zeroes,", low)?;
    } else {
        guest.sh("sleep 3")?;
        ensure!(guest.resident()? > low, "the host has taken free memory");
    }
    touch(guest)?;
    driver.unload(guest)
}

/// The host need not copy free memory when it moves the guest, whose data arrives as it was; afterwards the guest has all its memory.
fn hint(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    const NOISE: u64 = 320 * MIB;

    guest.sh(
        "head -c 33554432 /dev/urandom >/tmp/keep && md5sum /tmp/keep >/tmp/sum && \
         for i in 1 2 3 4 5 6 7 8 9 10; do cp /tmp/keep /tmp/noise$i || exit; done; rm /tmp/noise*",
    )?;
    let plain = guest.migrate_by_file(lab)?;
    ensure!(plain > NOISE, "{} MiB were sent", plain / MIB);

    driver.load(guest, "")?;
    let available = available(guest)?;
    for round in 1..=2 {
        let sent = guest.migrate_by_file(lab)?;
        println!(
            "note  {}: {} MiB sent, {} MiB without hints",
            driver.module,
            sent / MIB,
            plain / MIB
        );
        ensure!(
            sent < plain - NOISE / 2,
            "round {round}: {} MiB were sent, {} MiB without hints",
            sent / MIB,
            plain / MIB
        );
        ensure!(
            guest.run("md5sum -c -s /tmp/sum")?.status == 0,
            "data of the guest has changed"
        );
        ensure_available(guest, "moved", available)?;
    }
    driver.unload(guest)?;
    ensure_available(guest, "unloaded", available)
}

/// A device that keeps what it is told of costs the guest that, until the driver is unbound, which is soon.
fn report_to_nobody(guest: &mut Guest) -> Result<()> {
    const NO_MORE: &str = "the device does not answer a report of free pages";

    guest.sh(SOON)?;
    let available = meminfo(guest, "MemAvailable")?;
    RUST.load(guest, "")?;
    // Two of them: there is only one who can be told.
    guest.insmod("mute_balloon", "devices=2 pages=0 reporting=1")?;
    guest.wait_for("the end of patience", Duration::from_secs(30), |guest| {
        Ok(guest.log().contains(NO_MORE).then_some(()))
    })?;
    let left = meminfo(guest, "MemAvailable")?;
    ensure!(left + 160 * MIB > available, "{} MiB are left", left / MIB);
    // The rest of the machine works, nobody counts as stuck, and the other balloon follows.
    touch(guest)?;
    let stuck = guest.sh("ps -o stat,comm | grep '^D' || true")?;
    ensure!(stuck.is_empty(), "in D state: {stuck}");
    resize(guest, SIZE - 64 * MIB)?;
    resize(guest, SIZE)?;

    let start = Instant::now();
    RUST.unload(guest)?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(15), "unloading took {took:?}");
    guest.sh("rmmod mute_balloon")?;
    // The next one can be told.
    RUST.load(guest, "")?;
    guest.insmod("mute_balloon", "devices=1 pages=0 reporting=1")?;
    guest.sh("sleep 1; rmmod mute_balloon")?;
    RUST.unload(guest)
}
