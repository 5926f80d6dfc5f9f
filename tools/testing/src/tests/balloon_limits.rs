// SPDX-License-Identifier: GPL-2.0

//! Tests of what holds the balloon below what the host asks for: the guest's need, and those who speak for it.

use super::{
    balloon::{
        actual,
        ask,
        meminfo,
        resize,
        spec,
        touch,
        C,
        RESIZE,
        RUST,
        SIZE, //
    },
    balloon_load::{
        file_cache,
        with_disk, //
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
use std::{
    thread,
    time::Duration, //
};

const MIB: u64 = 1 << 20;
const DEBUGFS: &str = "/sys/kernel/debug/virtio_balloon_rust";
const PARAMETERS: &str = "/sys/module/virtio_balloon_rust/parameters";

pub fn tests() -> Vec<Test> {
    let name = |driver: Driver, subject: &str| format!("balloon/{}/{subject}", driver.module);
    let mut tests: Vec<_> = [RUST, C]
        .into_iter()
        .map(|driver| {
            Test::guest(
                name(driver, "oom"),
                180,
                spec(Spec::q35(), "id=b0,deflate-on-oom=on"),
                move |guest, _| out_of_memory(guest, driver),
            )
        })
        .collect();

    // The C driver gives up the feature, and then this device refuses it.
    tests.push(Test::guest(
        name(RUST, "platform"),
        60,
        spec(Spec::q35(), "id=b0,disable-legacy=on,iommu_platform=on"),
        |guest, _| platform(guest),
    ));
    tests.push(Test::guest(
        name(RUST, "limits"),
        120,
        spec(Spec::q35(), "id=b0"),
        |guest, _| limits(guest),
    ));
    tests.push(Test::guest(
        name(RUST, "refaults"),
        180,
        with_disk(),
        |guest, _| refaults(guest),
    ));
    tests
}

/// What the driver says of itself.
fn figure(guest: &mut Guest, file: &str) -> Result<String> {
    guest.sh(&format!("cat {DEBUGFS}/*/{file}"))
}

/// Waits until the guest has this size.
fn becomes(guest: &mut Guest, size: u64) -> Result<()> {
    let mut seen = 0;
    let reached = guest.wait_for("another size", RESIZE, |guest| {
        seen = actual(guest)?;
        Ok((seen == size).then_some(()))
    });

    reached.with_context(|| format!("a guest of {seen} bytes, not of {size}"))
}

/// A program that needs what is in the balloon gets it, and nobody is killed. Our balloon does not take it back at once.
fn out_of_memory(guest: &mut Guest, driver: Driver) -> Result<()> {
    let total = meminfo(guest, "MemTotal")?;
    driver.load(guest, "")?;
    // As long as the guest may take them back, the pages count as its own.
    let target = SIZE - meminfo(guest, "MemAvailable")? + 96 * MIB;
    resize(guest, target)?;
    ensure!(meminfo(guest, "MemTotal")? == total);

    // Memory of a file system without a disk cannot be reclaimed, nor moved away.
    guest.sh_for(
        RESIZE,
        "dd if=/dev/zero of=/tmp/needed bs=1M count=240 2>/dev/null && [ $(wc -c </tmp/needed) = 251658240 ]",
    )?;
    let killed = guest.number("awk '$1 == \"oom_kill\" { print $2 }' /proc/vmstat")?;
    ensure!(killed == 0, "{killed} processes were killed");
    let reached = actual(guest)?;
    ensure!(
        reached >= target + 64 * MIB,
        "the guest has {} MiB only",
        reached / MIB
    );
    if driver == RUST {
        const HELD: &str = "out of memory; held for";
        let limit = figure(guest, "limit")?;
        ensure!(limit.starts_with(HELD), "{limit}");
        ensure!(figure(guest, "relieved")? != "0");
        // It is not taken again as soon as it is free.
        guest.sh("rm /tmp/needed")?;
        let reached = actual(guest)?;
        for _ in 0..=5 {
            let now = actual(guest)?;
            // What a busy machine needs until here may be longer than that.
            if !figure(guest, "limit")?.starts_with(HELD) {
                break;
            }
            ensure!(now == reached, "the balloon grows at once");
            thread::sleep(Duration::from_secs(1));
        }
    }
    resize(guest, SIZE)?;
    driver.unload(guest)?;
    ensure!(meminfo(guest, "MemTotal")? == total);
    touch(guest)
}

/// The program that watches the guest's pressure makes the balloon smaller when programs wait, and lets it grow when they do not.
fn watched(guest: &mut Guest) -> Result<()> {
    let look = |guest: &mut Guest, percent: u32| {
        guest.sh(&format!(
            "echo 'some avg10={percent}.50 avg60=0.00 avg300=0.00 total=0' >/tmp/pressure && \
             STEP=50 PRESSURE=/tmp/pressure sh /tenon/scripts/balloon-pressure --once"
        ))
    };

    for (percent, size) in [(40, 150), (5, 150), (90, 100), (0, 150), (0, 200), (0, 200)] {
        look(guest, percent)?;
        becomes(guest, SIZE - size * MIB)?;
    }
    ensure!(figure(guest, "limit")? == "none");
    // What the kernel says is understood, too.
    guest
        .sh("HIGH=101 sh /tenon/scripts/balloon-pressure --once")
        .map(drop)
}

/// A device that insists on access by platform rules has a balloon, here with the longest lists.
fn platform(guest: &mut Guest) -> Result<()> {
    const SPARE: u64 = 256 * MIB;

    RUST.load(guest, "list_pfns=512")?;
    guest.sh("echo 1 >/sys/kernel/tracing/events/virtio_balloon_rust/enable")?;
    let resident = guest.resident()?;
    resize(guest, SIZE - SPARE)?;
    let shrunk = guest.resident()?;
    ensure!(
        shrunk < resident - SPARE / 2,
        "the host has {} MiB of {} MiB",
        shrunk / MIB,
        resident / MIB
    );
    let long = guest.number("grep -c ' pages=512 ' /sys/kernel/tracing/trace || true")?;
    ensure!(long > 100, "{long} lists of 512 page frames");
    resize(guest, SIZE)?;
    RUST.unload(guest)
}

/// What a program of the guest or its owner decides holds at once, goes before what the host asks for, and can be taken back.
fn limits(guest: &mut Guest) -> Result<()> {
    let set = |guest: &mut Guest, name: &str, value: u64| {
        guest.sh(&format!("echo {value} >{PARAMETERS}/{name}"))
    };

    // The kernel itself and what firmware keeps do not count.
    let total = meminfo(guest, "MemTotal")?;
    let floor = total / MIB - 150;
    RUST.load(guest, &format!("floor_mib={floor}"))?;
    guest.sh("echo 1 >/sys/kernel/tracing/events/virtio_balloon_rust/enable")?;
    ask(guest, SIZE - 300 * MIB)?;
    becomes(guest, SIZE - (total - floor * MIB))?;
    ensure!(figure(guest, "limit")? == "floor_mib");
    let wanted: u64 = figure(guest, "target")?.parse()?;
    ensure!(wanted == 300 * MIB / 4096, "the target is {wanted}");

    set(guest, "floor_mib", 0)?;
    becomes(guest, SIZE - 300 * MIB)?;
    ensure!(figure(guest, "limit")? == "none");
    set(guest, "cap_mib", 100)?;
    becomes(guest, SIZE - 100 * MIB)?;
    ensure!(figure(guest, "limit")? == "cap_mib");
    // The host cannot do anything about it.
    ask(guest, SIZE - 200 * MIB)?;
    guest.sh("sleep 1")?;
    ensure!(actual(guest)? == SIZE - 100 * MIB);
    set(guest, "cap_mib", 0)?;
    becomes(guest, SIZE)?;
    set(guest, "cap_mib", 16_777_215)?;
    becomes(guest, SIZE - 200 * MIB)?;
    ensure!(figure(guest, "limit")? == "none");

    watched(guest)?;

    // Each page was counted, and none twice.
    let inflated: u64 = figure(guest, "inflated")?.parse()?;
    let deflated: u64 = figure(guest, "deflated")?.parse()?;
    ensure!(
        inflated - deflated == 200 * MIB / 4096,
        "{inflated} in, {deflated} out"
    );
    for event in [
        "virtio_balloon_rust_inflate: device=virtio[0-9]* pages=256 ",
        "virtio_balloon_rust_deflate: device=virtio[0-9]* pages=256 ",
        "virtio_balloon_rust_target: .* wanted=76800 allowed=25600 limit=cap_mib",
    ] {
        let seen = guest.number(&format!(
            "grep -c '{event}' /sys/kernel/tracing/trace || true"
        ))?;
        ensure!(seen > 0, "no event {event}");
    }
    let refused = guest.run(&format!("echo 16777216 >{PARAMETERS}/cap_mib"))?;
    ensure!(refused.status != 0, "any number is taken");
    resize(guest, SIZE)?;
    RUST.unload(guest)
}

/// A program reads again and again what was reclaimed for the balloon: that grows no further for now. With the limit off it does.
fn refaults(guest: &mut Guest) -> Result<()> {
    // A balloon that is complete in a fraction of a second has not felt anything.
    const ATTEMPTS: usize = 8;

    // The cache is dropped when nobody has the disk open.
    guest.sh("modprobe virtio_blk && (sleep 1000 </dev/vda >/dev/null 2>&1 &)")?;
    RUST.load(guest, "refault_mib=1")?;
    guest.sh(
        "(while [ ! -e /run/enough ]; do dd if=/dev/vda of=/dev/null bs=1M count=400; done; touch /run/end) \
         >/dev/null 2>&1 &",
    )?;
    let mut held = None;
    for _ in 0..ATTEMPTS {
        let target = squeeze(guest)?;
        if actual(guest)? > target {
            held = Some(target);
            break;
        }
        resize(guest, SIZE)?;
    }
    let target = held.context("the balloon was complete each time")?;
    ensure!(
        guest
            .log()
            .contains("the guest needs reclaimed memory again"),
        "no message"
    );

    guest.sh(&format!("echo 0 >{PARAMETERS}/refault_mib"))?;
    becomes(guest, target)?;
    resize(guest, SIZE)?;
    let target = squeeze(guest)?;
    ensure!(actual(guest)? == target, "held without a limit");
    guest.sh("touch /run/enough")?;
    guest.wait_for("the end of the program", RESIZE, |guest| {
        Ok((guest.run("[ -e /run/end ]")?.status == 0).then_some(()))
    })?;
    resize(guest, SIZE)?;
    RUST.unload(guest)
}

/// Asks for what is free and most of the cache of 400 MiB, and waits until the balloon has it or is held. Returns the target.
fn squeeze(guest: &mut Guest) -> Result<u64> {
    const TAKEN: u64 = 280 * MIB;

    guest.wait_for("the cache", RESIZE, |guest| {
        Ok((file_cache(guest)? >= 380 * MIB).then_some(()))
    })?;
    let target = SIZE - (meminfo(guest, "MemFree")? + TAKEN) / 4096 * 4096;
    ask(guest, target)?;
    guest.wait_for("the balloon", RESIZE, |guest| {
        let is_held = figure(guest, "limit")?.starts_with("pressure");
        Ok((is_held || actual(guest)? == target).then_some(()))
    })?;
    Ok(target)
}
