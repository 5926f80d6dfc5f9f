// SPDX-License-Identifier: GPL-2.0

//! Tests of the balloon driver as a host has it that runs more than one guest.

use super::{
    balloon::{
        actual,
        ask,
        resize,
        vmstat,
        RUST, //
    },
    Test, //
};
use crate::{
    check,
    guest::{
        Guest,
        Lab,
        Spec, //
    },
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use std::{
    fs,
    path::Path,
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use tenon_balloon_policy::{
    policy::Host,
    Guests, //
};

const MIB: u64 = 1 << 20;

/// What one guest can have.
const MOST: u64 = 768 * MIB;

/// What there is for both.
const HOST: Host = Host {
    total: 1000 * MIB,
    least: 256 * MIB,
    step: 64 * MIB,
};

/// Memory that programs of a guest hold, in files of four pieces, and how many files these are at most and at least.
const PIECE: u64 = 4 * MIB;
const MANY: u64 = 22;
const FEW: u64 = 2;

/// Holds as many files as `/run/want` says. It takes the next one when there is room for it, as a program that gets no
/// memory from elsewhere waits for it.
const HOLDER: &str = "
mkdir /run/held
while :; do
	have=$(ls /run/held | wc -l)
	want=$(cat /run/want)
	if [ $have -gt $want ]; then
		rm /run/held/$have
	elif [ $have -lt $want ] && awk '$1 == \"MemAvailable:\" { exit $2 < 40960 }' /proc/meminfo; then
		cat /run/piece /run/piece /run/piece /run/piece >/run/held/$((have + 1))
	else
		sleep 0.2
	fi
done";

pub fn tests() -> Vec<Test> {
    let machine = || Spec::q35().memory(768);

    vec![
        Test::guest(
            format!("balloon/{}/two-guests", RUST.module),
            300,
            machine()
                .device("virtio-balloon", "id=balloon0")
                .arguments(&["-qmp", "unix:SOCKETS/policy,server=on,wait=off"]),
            |guest, lab| with_another(guest, lab, two_guests),
        )
        .guests(2)
        .stock_only("it needs compressed swap"),
        Test::guest(
            format!("balloon/{}/same-pages", RUST.module),
            180,
            machine()
                .arguments(&["-machine", "mem-merge=on"])
                .device("virtio-balloon", "id=b0,free-page-reporting=on"),
            |guest, lab| with_another(guest, lab, same_pages),
        )
        .guests(2)
        .stock_only("its page allocator writes to free memory")
        .where_possible(
            Path::new(KSM).join("run").exists(),
            "the host's kernel does not merge pages (KSM)",
        ),
    ]
}

/// Where the host's merging of pages is controlled.
const KSM: &str = "/sys/kernel/mm/ksm";

/// The host merges pages while the value lives.
struct Merging {
    before: Vec<(&'static str, String)>,
}

impl Merging {
    fn start() -> Result<Self> {
        let mut this = Merging { before: Vec::new() };

        for (file, value) in [
            ("pages_to_scan", "1000"),
            ("sleep_millisecs", "10"),
            ("run", "1"),
        ] {
            let path = Path::new(KSM).join(file);
            let before = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            fs::write(&path, value).with_context(|| path.display().to_string())?;
            this.before.push((file, before));
        }
        Ok(this)
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        for (file, value) in self.before.iter().rev() {
            // It could be written before.
            let _ = fs::write(Path::new(KSM).join(file), value.trim());
        }
    }
}

/// Starts another guest like this one, and sees to it that its kernel has nothing to report in the end, either.
fn with_another(
    guest: &mut Guest,
    lab: &Lab,
    body: impl FnOnce([&mut Guest; 2]) -> Result<()>,
) -> Result<()> {
    let beside = Lab {
        env: lab.env.clone(),
        image: lab.image.clone(),
        group: lab.group.clone(),
        slow: lab.slow,
        sanitizer: lab.sanitizer,
        log: lab.log.with_extension("other.log"),
    };
    let mut other = Guest::boot(&beside, guest.spec()).context("the other guest")?;

    body([guest, &mut other])?;
    let log = other.finish()?;
    if let Some(report) = check::first_report(&log) {
        bail!("the other guest's kernel reports: {report}");
    }
    // Only what has failed is of interest.
    let _ = fs::remove_file(&beside.log);
    Ok(())
}

/// A program of the host moves memory to the guest that needs it, and to the other one when that needs it: both get what they need, of
/// memory that is not enough for both, and neither lives on its swap space.
fn two_guests(mut both: [&mut Guest; 2]) -> Result<()> {
    for guest in &mut both {
        guest.sh(
            "modprobe zram && echo 256M >/sys/block/zram0/disksize && mkswap /dev/zram0 >/dev/null && \
             swapon /dev/zram0",
        )?;
        guest.sh(&format!(
            "head -c {PIECE} /dev/urandom >/run/piece && md5sum /run/piece >/run/sum && echo {FEW} >/run/want && cat >/run/holder <<'EOF'\n{HOLDER}\nEOF\n\
             sh /run/holder >/dev/null 2>&1 &"
        ))?;
        RUST.load(guest, "")?;
    }
    let sockets = both.each_ref().map(|guest| guest.socket("policy"));
    let mut policy = Guests::open(HOST, &sockets, "balloon0")?;

    until(&mut policy, &mut both, "both fit", |both| {
        Ok(sizes(both)?.iter().sum::<u64>() <= HOST.total)
    })?;
    for round in 0..2 {
        let (needy, other) = (round, 1 - round);
        both[other].sh(&format!("echo {FEW} >/run/want"))?;
        both[needy].sh(&format!("echo {MANY} >/run/want"))?;
        until(
            &mut policy,
            &mut both,
            &format!("the needs of round {round}"),
            |both| {
                let sum: u64 = sizes(both)?.iter().sum();
                ensure!(sum <= HOST.total, "both have {} MiB", sum / MIB);
                Ok(both[needy].number("ls /run/held | wc -l")? == MANY)
            },
        )?;
        let sizes = sizes(&mut both)?.map(|size| size / MIB);
        println!("note  round {round}: {sizes:?} MiB");
        ensure!(sizes[needy] > sizes[other], "{sizes:?} MiB");
    }

    for guest in both {
        let killed = vmstat(guest, "oom_kill")?;
        ensure!(killed == Some(0), "{killed:?} processes were killed");
        let read = vmstat(guest, "pswpin")?.unwrap_or(0) * 4096;
        ensure!(read < 64 * MIB, "{} MiB were read from swap", read / MIB);
        // One of the first files is as it was written, four times over.
        guest.sh(
            "for i in 1 2 3 4; do cat /run/piece; done | cmp - /run/held/1 && md5sum -c -s /run/sum",
        )?;
    }
    Ok(())
}

/// What two like guests share in the host's memory they still share when memory has gone to the host and come back.
fn same_pages(mut both: [&mut Guest; 2]) -> Result<()> {
    // The programs and libraries of both, which lie in memory.
    const DATA: u64 = 24 * MIB;
    const PATIENCE: Duration = Duration::from_secs(60);
    let _merging = Merging::start()?;

    for guest in &mut both {
        guest.sh("echo 100 >/sys/module/page_reporting/parameters/page_reporting_delay_ms")?;
        guest.sh("md5sum /bin/* >/run/sum")?;
        RUST.load(guest, "")?;
    }
    let mut shared = [0; 2];
    for (guest, shared) in both.iter_mut().zip(&mut shared) {
        *shared = guest.wait_for("the same pages", PATIENCE, |guest| {
            let merged = guest.merged()?;
            Ok((merged >= DATA).then_some(merged))
        })?;
    }

    for _ in 0..3 {
        for size in [MOST - 300 * MIB, MOST] {
            for guest in &mut both {
                ask(guest, size)?;
            }
            for guest in &mut both {
                resize(guest, size)?;
            }
        }
    }
    for (guest, before) in both.iter_mut().zip(shared) {
        let mut now = 0;
        let still = guest.wait_for("the same pages", PATIENCE, |guest| {
            now = guest.merged()?;
            Ok((now >= DATA).then_some(()))
        });
        println!(
            "note  {} MiB were shared, {} MiB are",
            before / MIB,
            now / MIB
        );
        ensure!(
            still.is_ok(),
            "of {} MiB {} MiB are shared",
            DATA / MIB,
            now / MIB
        );
        let reported = guest.number("cat /sys/kernel/debug/virtio_balloon_rust/*/reported")?;
        ensure!(reported > 0, "nothing was reported");
        guest.sh("md5sum -c -s /run/sum")?;
        RUST.unload(guest)?;
    }
    Ok(())
}

/// How much each guest says that it has.
fn sizes(both: &mut [&mut Guest; 2]) -> Result<[u64; 2]> {
    let [one, other] = both;

    Ok([actual(one)?, actual(other)?])
}

/// Has the policy look at the guests now and then, until something is so.
fn until(
    policy: &mut Guests,
    both: &mut [&mut Guest; 2],
    what: &str,
    mut is_so: impl FnMut(&mut [&mut Guest; 2]) -> Result<bool>,
) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(100);
    let start = Instant::now();
    let mut seen = Vec::new();

    while !is_so(both)? {
        ensure!(
            start.elapsed() < LIMIT,
            "{what}: not within {LIMIT:?}: {seen:?}"
        );
        seen = policy.share()?;
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}
