// SPDX-License-Identifier: GPL-2.0

//! Tests of the balloon driver in a guest that works meanwhile.

use super::{
    balloon::{
        actual,
        ask,
        compact,
        intact,
        meminfo,
        resize,
        spec,
        touch,
        vmstat,
        C,
        RESIZE,
        RUST,
        SIZE,
        SLACK,
        SPARE, //
    },
    memory::{
        available,
        ensure_available_within, //
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
    Context,
    Result, //
};
use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};

const MIB: u64 = 1 << 20;
const DEBUGFS: &str = "/sys/kernel/debug/virtio_balloon_rust";
/// How much less the guest may have after a soak: caches of the kernel grow by a MiB or two.
const SOAK_SLACK: u64 = 8 * MIB;

pub fn tests() -> Vec<Test> {
    let soak_for = Duration::from_secs(number_from("SOAK").unwrap_or(20));
    let mut tests = vec![Test::guest(
        format!("balloon/{}/soak", RUST.module),
        150 + soak_for.as_secs(),
        spec(Spec::q35(), "id=b0,free-page-reporting=on"),
        move |guest, lab| soak(guest, lab, soak_for),
    )];

    for driver in [RUST, C] {
        tests.push(Test::guest(
            format!("balloon/{}/compaction", driver.module),
            180,
            spec(Spec::q35(), "id=b0"),
            move |guest, _| compaction(guest, driver),
        ));
        tests.push(
            Test::guest(
                format!("balloon/{}/cold-first", driver.module),
                180,
                with_disk(),
                move |guest, _| cold_first(guest, driver),
            )
            .stock_only("it needs compressed swap"),
        );
    }
    tests
}

/// A machine with a balloon, and a disk of zeroes, of which what is read lies in the cache.
pub fn with_disk() -> Spec {
    spec(Spec::q35(), "id=b0")
        .arguments(&[
            "-blockdev",
            "driver=null-co,read-zeroes=on,size=1073741824,node-name=zeroes",
        ])
        .device("virtio-blk", "drive=zeroes")
}

/// A number in a variable of the environment.
fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Numbers that look random, the same ones for each seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Targets at random, while programs take and free memory and compaction moves pages: the books are exact at the end, and the data of
/// the guest is what it was.
fn soak(guest: &mut Guest, lab: &Lab, length: Duration) -> Result<()> {
    let seed = number_from("SOAK_SEED").unwrap_or(u64::from(std::process::id()) | (1 << 40));
    println!("note  soak: {} s, seed {seed}", length.as_secs());
    let mut dice = Dice(seed.max(1));

    guest.sh("echo 100 >/sys/module/page_reporting/parameters/page_reporting_delay_ms")?;
    // Fragmented memory has the kernel boost its watermarks, by 2 MiB at a time, and `MemAvailable` falls with that.
    guest.sh("echo 0 >/proc/sys/vm/watermark_boost_factor")?;
    guest.sh(
        "mkdir /tmp/data && cd /tmp/data && head -c 20000000 /dev/urandom >keep && md5sum keep >/tmp/sums",
    )?;
    let total = meminfo(guest, "MemTotal")?;
    // Without the driver no blocks are being reported, which are not free for so long.
    let available = available(guest)?;
    RUST.load(guest, "")?;
    guest.sh(
        "(while [ ! -e /run/enough ]; do for i in 1 2 3; do cp /tmp/data/keep /tmp/load$i; done; \
          rm /tmp/load*; done; touch /run/end1) >/dev/null 2>&1 & \
         (while [ ! -e /run/enough ]; do echo 1 >/proc/sys/vm/compact_memory; sleep 0.3; done; \
          touch /run/end2) >/dev/null 2>&1 &",
    )?;

    let start = Instant::now();
    let mut targets = 0;
    while start.elapsed() < length * lab.slow.min(2) {
        // Now and then more than there is.
        let most = if dice.below(8) == 0 { SIZE } else { SPARE };
        ask(guest, SIZE - dice.below(most / 4096 - 1) * 4096)?;
        thread::sleep(Duration::from_millis(dice.below(400)));
        ensure!(actual(guest)? <= SIZE);
        targets += 1;
    }
    guest.sh("touch /run/enough")?;
    resize(guest, SIZE)?;
    guest.wait_for("the end of the load", RESIZE, |guest| {
        Ok((guest.run("[ -e /run/end1 ] && [ -e /run/end2 ]")?.status == 0).then_some(()))
    })?;

    let mut figure = |file: &str| guest.number(&format!("cat {DEBUGFS}/*/{file}"));
    let (inflated, deflated) = (figure("inflated")?, figure("deflated")?);
    let (moved, reported) = (figure("moved")?, figure("reported")?);
    println!("note  soak: {targets} targets, {inflated} pages in, {deflated} out, {moved} moved, {reported} reported");
    ensure!(
        inflated == deflated && inflated > 0,
        "{inflated} pages in, {deflated} out"
    );
    for file in ["actual", "inflating", "deflating"] {
        let left = figure(file)?;
        ensure!(left == 0, "{file}: {left}");
    }
    let came = vmstat(guest, "balloon_inflate")?.context("balloon_inflate")?;
    let went = vmstat(guest, "balloon_deflate")?.context("balloon_deflate")?;
    ensure!(came == went, "the kernel counts {came} in, {went} out");
    // Each CPU tells what it has counted once in a second.
    guest.wait_for("nothing in the balloon", RESIZE, |guest| {
        Ok((meminfo(guest, "Balloon")? == 0).then_some(()))
    })?;
    ensure!(meminfo(guest, "MemTotal")? == total);
    let killed = vmstat(guest, "oom_kill")?.unwrap_or(0);
    ensure!(killed == 0, "{killed} processes were killed");
    intact(guest, "after the soak")?;
    compact(guest)?;
    RUST.unload(guest)?;
    intact(guest, "unloaded")?;
    ensure_available_within(guest, "after the soak", available, SOAK_SLACK)
}

/// The guest gives what it needs least: a cache that nobody reads, before memory that a program works with.
fn cold_first(guest: &mut Guest, driver: Driver) -> Result<()> {
    const HOT: u64 = 160 * MIB;
    const PASS: &str = "s=$(cut -d. -f1 /proc/uptime)$(cut -d. -f2 /proc/uptime | cut -d' ' -f1); \
                        cat /tmp/hot >/dev/null; \
                        e=$(cut -d. -f1 /proc/uptime)$(cut -d. -f2 /proc/uptime | cut -d' ' -f1); \
                        echo $((e - s))";

    guest.sh(
        "modprobe virtio_blk && modprobe zram && echo 256M >/sys/block/zram0/disksize && \
         mkswap /dev/zram0 >/dev/null && swapon /dev/zram0",
    )?;
    driver.load(guest, "")?;
    guest.sh("head -c 16777216 /dev/urandom >/tmp/part && for i in 1 2 3 4 5 6 7 8 9 10; do cat /tmp/part; done >/tmp/hot; rm /tmp/part; md5sum </tmp/hot >/tmp/sum")?;
    // The cache takes what is left. It is dropped when nobody has the disk open.
    guest.sh("sleep 1000 </dev/vda >/dev/null 2>&1 &")?;
    guest.sh_for(
        RESIZE,
        "dd if=/dev/vda of=/dev/null bs=1M count=400 2>/dev/null",
    )?;
    let cold = file_cache(guest)?;
    ensure!(cold > 250 * MIB, "{} MiB of cache", cold / MIB);
    guest.sh("cat /tmp/hot /tmp/hot >/dev/null")?;
    let before = guest.number(PASS)?;
    let refaults = vmstat(guest, "workingset_refault_anon")?.unwrap_or(0);

    // What is free, and most of the cache.
    let target = SIZE - (meminfo(guest, "MemFree")? + cold * 3 / 4) / 4096 * 4096;
    guest.sh("(while [ ! -e /run/enough ]; do cat /tmp/hot; done >/dev/null; touch /run/end) >/dev/null 2>&1 &")?;
    resize(guest, target)?;
    guest.sh("touch /run/enough; until [ -e /run/end ]; do sleep 0.1; done")?;

    let left = file_cache(guest)?;
    let swapped = vmstat(guest, "pswpout")?.unwrap_or(0) * 4096;
    let refaults = vmstat(guest, "workingset_refault_anon")?.unwrap_or(0) - refaults;
    let after = guest.number(PASS)?;
    println!(
        "note  {}: cache {} -> {} MiB, {} MiB swapped out, {refaults} anonymous refaults, a pass over the hot set {before} -> {after} cs",
        driver.module,
        cold / MIB,
        left / MIB,
        swapped / MIB
    );
    ensure!(
        left < cold / 2,
        "{} of {} MiB of cold cache are left",
        left / MIB,
        cold / MIB
    );
    ensure!(
        swapped < HOT / 4,
        "{} MiB of memory in use were swapped out",
        swapped / MIB
    );
    ensure!(
        guest
            .run("[ \"$(md5sum </tmp/hot)\" = \"$(cat /tmp/sum)\" ]")?
            .status
            == 0
    );
    resize(guest, SIZE)?;
    driver.unload(guest)
}

/// Memory of files that can be read again.
pub fn file_cache(guest: &mut Guest) -> Result<u64> {
    Ok(meminfo(guest, "Active(file)")? + meminfo(guest, "Inactive(file)")?)
}

/// Compaction moves pages of the balloon, and neither the guest's data nor what the host has suffers.
fn compaction(guest: &mut Guest, driver: Driver) -> Result<()> {
    // Half, as what is moved needs a place.
    const BALLOON: u64 = SPARE / 2;

    driver.load(guest, "")?;
    // Data, the balloon and free memory alternate everywhere: compaction moves from the low end to free pages at the high end,
    // and only to blocks that are partly in use. The sanitizer kernel leaves less room for that.
    let rounds = (meminfo(guest, "MemAvailable")? * 8 / 10 / (4 * MIB)).min(100);
    guest.sh_for(
        Duration::from_secs(90),
        &format!(
            "mkdir /tmp/data && cd /tmp/data && for i in $(seq {rounds}); do
                 dd if=/dev/urandom of=keep$i bs=1M count=1 2>/dev/null &&
                 for file in later drop drop_too; do cp keep$i $file$i; done || exit 1; done
             rm drop*; md5sum keep* >/tmp/sums"
        ),
    )?;
    let resident = guest.resident()?;
    resize(guest, SIZE - BALLOON)?;
    guest.sh("rm /tmp/data/later*")?;

    let moved = migrated(guest)?;
    compact(guest)?;
    let moved = migrated(guest)? - moved;
    ensure!(moved > 1000, "compaction has moved {moved} pages only");
    intact(guest, "compacted")?;
    touch(guest)?;
    ensure!(actual(guest)? == SIZE - BALLOON);
    let shrunk = guest.resident()?;
    ensure!(
        shrunk <= resident - BALLOON + SLACK,
        "the host has {} MiB, of {} before the balloon",
        shrunk / MIB,
        resident / MIB
    );

    // Both at once.
    guest.sh(
        "(while :; do echo 1 >/proc/sys/vm/compact_memory; done) >/dev/null 2>&1 &
         echo $! >/run/compact",
    )?;
    let before = migrated(guest)?;
    for step in 1..=6 {
        ask(guest, SIZE - BALLOON + step % 2 * 200 * MIB)?;
        thread::sleep(Duration::from_millis(500));
    }
    resize(guest, SIZE - BALLOON)?;
    ensure!(
        migrated(guest)? > before,
        "compaction moves nothing while the balloon changes"
    );
    resize(guest, SIZE)?;
    guest.sh("kill $(cat /run/compact)")?;
    touch(guest)?;
    intact(guest, "grown")?;
    driver.unload(guest)?;
    intact(guest, "unloaded")
}

/// How many pages of balloons the kernel has moved.
fn migrated(guest: &mut Guest) -> Result<u64> {
    vmstat(guest, "balloon_migrate")?.context("no balloon_migrate in vmstat")
}
