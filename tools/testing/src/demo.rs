// SPDX-License-Identifier: GPL-2.0

//! `make demo`: a stock guest with the three modules, what each does for it, in figures.

use crate::{
    check,
    guest::{
        Guest,
        Lab,
        Spec, //
    },
    tests::{
        balloon,
        integrity,
        net, //
    },
    transfer::Transfer, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use comfy_table::{
    presets,
    ContentArrangement,
    Table, //
};
use std::time::{
    Duration,
    Instant, //
};

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 768 * MIB;
const BALLOON: u64 = 384 * MIB;
const MOVED: u64 = 32 * MIB;
const LIMIT: Duration = Duration::from_secs(60);

type Action = fn(&mut Guest) -> Result<String>;

/// The steps after the guest is up: what is shown, by which module, and how.
const STEPS: [(&str, &str, Action); 8] = [
    (
        "virtio_net_rust",
        "is the only network driver; an address comes by DHCP",
        network,
    ),
    (
        "virtio_net_rust",
        "data from the host, compared by SHA-256",
        download,
    ),
    ("virtio_net_rust", "the same data to the host", upload),
    (
        "virtio_balloon_rust",
        "the host asks for half of the memory",
        shrink,
    ),
    ("virtio_balloon_rust", "the host gives it back", grow),
    ("guest_integrity", "a scan of the untampered system", clean),
    (
        "guest_integrity",
        "a task is taken off the task list",
        caught,
    ),
    (
        "all three",
        "leave, and the kernel has no complaint",
        unload,
    ),
];

/// Shows everything and returns whether all of it held.
pub fn run(lab: &Lab) -> Result<bool> {
    let start = Instant::now();
    println!(
        "A guest with Debian's own kernel {}, {} MiB of memory and no driver but ours.\n",
        lab.env.kernel_release,
        MEMORY / MIB
    );
    let spec = Spec::q35()
        .memory(u32::try_from(MEMORY / MIB)?)
        .network("disable-legacy=on")
        .device("virtio-balloon", "id=b0");
    let mut guest = Guest::boot(lab, &spec)?;

    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(100)
        .set_header(["module", "what", "result", ""]);
    let booted = format!("up after {:.1} s", start.elapsed().as_secs_f32());
    println!("{:22}{booted}", "guest");
    table.add_row([
        "guest",
        "boots the distribution's kernel as it is",
        &booted,
        "ok",
    ]);

    let mut held = true;
    for (module, what, action) in STEPS {
        println!("{module:22}{what} ...");
        let (figures, state) = match action(&mut guest) {
            Ok(figures) => (figures, "ok"),
            Err(error) => {
                held = false;
                (format!("{error:#}"), "FAILED")
            }
        };
        println!("{:22}  {figures}", "");
        table.add_row([module, what, &figures, state]);
    }

    println!("\n{table}");
    println!("{:.0} s in all.", start.elapsed().as_secs_f32());
    if held {
        // Nobody will want it.
        let _ = std::fs::remove_file(&lab.log);
    } else {
        println!("The guest's log: {}", lab.log.display());
    }
    Ok(held)
}

fn network(guest: &mut Guest) -> Result<String> {
    guest.insmod("virtio_net_rust", "")?;
    net::address(guest)?;
    net::ping(guest, 3)?;
    let driver = guest.sh("ethtool -i eth0 | sed -n 's/^driver: //p'")?;
    ensure!(
        driver == "virtio_net_rust",
        "the driver of eth0 is {driver}"
    );
    let address = guest.sh("ip -4 -o address show dev eth0 | awk '{ print $4 }'")?;

    Ok(format!(
        "driver {driver}, address {address}, 3 of 3 pings answered"
    ))
}

fn download(guest: &mut Guest) -> Result<String> {
    let before = net::counter(guest, "rx_bytes")?;
    let transfer = Transfer::send(MOVED, LIMIT)?;
    let start = Instant::now();
    net::download(guest, net::HOST, &transfer, None, LIMIT, "/tmp/data")?;
    let time = start.elapsed();
    let sent = transfer.finish()?;
    let sum = guest.sh("sha256sum /tmp/data | cut -d' ' -f1")?;
    sent.ensure_is(guest.number("stat -c %s /tmp/data")?, &sum)?;
    let counted = net::counter(guest, "rx_bytes")? - before;
    ensure!(counted >= MOVED, "the card counts {counted} bytes");

    Ok(moved(time, &sum))
}

fn upload(guest: &mut Guest) -> Result<String> {
    let sum = guest.sh("sha256sum /tmp/data | cut -d' ' -f1")?;
    let transfer = Transfer::receive(LIMIT)?;
    let start = Instant::now();
    net::upload(guest, net::HOST, &transfer, LIMIT, "/tmp/data")?;
    let time = start.elapsed();
    transfer.finish()?.ensure_is(MOVED, &sum)?;
    guest.sh("rm /tmp/data")?;

    Ok(moved(time, &sum))
}

fn moved(time: Duration, sum: &str) -> String {
    let rate = (MOVED / MIB) as f32 / time.as_secs_f32();

    format!(
        "{} MiB at {rate:.0} MiB/s, {}... at both ends",
        MOVED / MIB,
        &sum[..12.min(sum.len())]
    )
}

fn shrink(guest: &mut Guest) -> Result<String> {
    guest.insmod("virtio_balloon_rust", "")?;
    // So that the host holds the memory that it then asks for.
    balloon::touch(guest)?;
    let figures = resized(guest, MEMORY - BALLOON)?;
    ensure!(
        figures.resident.0 > figures.resident.1 + BALLOON / 2,
        "QEMU's resident memory only went {}",
        figures.arrow(figures.resident)
    );
    Ok(figures.text())
}

fn grow(guest: &mut Guest) -> Result<String> {
    let mut figures = resized(guest, MEMORY)?;
    ensure!(
        figures.available.1 > figures.available.0 + BALLOON * 9 / 10,
        "the guest's available memory only went {}",
        figures.arrow(figures.available)
    );
    balloon::touch(guest)?;
    figures.resident.1 = guest.resident()?;
    ensure!(
        figures.resident.1 > figures.resident.0 + BALLOON / 2,
        "QEMU's resident memory only went {}",
        figures.arrow(figures.resident)
    );
    Ok(figures.text())
}

/// Before and after a change of the guest's size.
struct Resized {
    time: Duration,
    resident: (u64, u64),
    available: (u64, u64),
}

fn resized(guest: &mut Guest, size: u64) -> Result<Resized> {
    let resident = guest.resident()?;
    let available = balloon::meminfo(guest, "MemAvailable")?;
    let start = Instant::now();
    balloon::resize(guest, size)?;

    Ok(Resized {
        time: start.elapsed(),
        resident: (resident, guest.resident()?),
        available: (available, balloon::meminfo(guest, "MemAvailable")?),
    })
}

impl Resized {
    fn arrow(&self, (before, after): (u64, u64)) -> String {
        format!("{} -> {} MiB", before / MIB, after / MIB)
    }

    fn text(&self) -> String {
        format!(
            "in {:.1} s; resident on the host {}, available in the guest {}",
            self.time.as_secs_f32(),
            self.arrow(self.resident),
            self.arrow(self.available)
        )
    }
}

fn clean(guest: &mut Guest) -> Result<String> {
    guest.insmod("guest_integrity", "interval_ms=0")?;
    integrity::scan(guest)?;
    let found = integrity::count(guest, "findings")?;
    ensure!(
        found == 0,
        "{found} findings: {:?}",
        integrity::findings(guest)?
    );
    ensure!(
        integrity::last(guest, "complete")? == 1,
        "the scan left something out"
    );

    Ok(format!(
        "clean: {} processes and the run queues of {} CPUs agree, {} us",
        integrity::last(guest, "processes")?,
        integrity::last(guest, "cpus")?,
        integrity::last(guest, "duration_ns")? / 1000
    ))
}

fn caught(guest: &mut Guest) -> Result<String> {
    let victim = integrity::Victim::start(guest, "-c 1")?;
    integrity::scan(guest)?;
    let before = integrity::count(guest, "findings")?;
    ensure!(before == 0, "a finding before the task is hidden");

    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    integrity::scan(guest)?;
    let found = integrity::findings(guest)?;
    let finding = found.last().context("the hidden task was not found")?;
    ensure!(finding.is(&victim), "something else was found: {finding:?}");
    guest.sh("rmmod hide_task")?;
    let pid = victim.pid;
    victim.end(guest)?;

    Ok(format!(
        "caught by the next scan: pid={pid} comm={} {}",
        finding.comm, finding.reason
    ))
}

fn unload(guest: &mut Guest) -> Result<String> {
    guest.sh("rmmod guest_integrity virtio_balloon_rust virtio_net_rust")?;
    let log = guest.finish()?;
    if let Some(report) = check::first_report(&log) {
        anyhow::bail!("the kernel reports: {report}");
    }
    Ok(format!("{} lines of log", log.lines().count()))
}
