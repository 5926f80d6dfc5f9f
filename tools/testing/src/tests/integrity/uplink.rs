// SPDX-License-Identifier: GPL-2.0

//! Tests of what guest_integrity tells the host, and of the receiver there.
//!
//! The guest is its own host here, over the kernel's loopback of AF_VSOCK; what it sends is then given to the receiver.

use super::{
    count,
    scan,
    Victim,
    MODULE,
    ON_DEMAND, //
};
use crate::guest::{
    Guest,
    Lab, //
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use std::{
    io::{
        BufRead,
        BufReader,
        Write, //
    },
    os::unix::net::UnixStream,
    path::Path,
    process::{
        Child,
        Command,
        Stdio, //
    },
    thread,
    time::Duration, //
};

/// What has arrived at the other end.
fn arrived(guest: &mut Guest) -> Result<String> {
    guest.sh("cat /run/host 2>/dev/null || true")
}

/// Waits for a line with this text.
fn wait_for(guest: &mut Guest, text: &str) -> Result<()> {
    guest.wait_for(text, Duration::from_secs(10), |guest| {
        Ok(arrived(guest)?.contains(text).then_some(()))
    })
}

/// Findings and heartbeats arrive, also those from before somebody listened; the receiver says what is missing.
pub fn heartbeat(guest: &mut Guest, lab: &Lab) -> Result<()> {
    const LISTEN: &str = "vsink 5000 >>/run/host 2>&1 & echo $! >/run/vsink";
    const PORT: &str = "/sys/module/guest_integrity/parameters/vsock_port";

    guest.modprobe("vsock_loopback")?;
    MODULE.load(
        guest,
        &format!("{ON_DEMAND} vsock_port=5000 vsock_cid=1 heartbeat_ms=100"),
    )?;
    let victim = Victim::start(guest, "-c 1")?;
    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    scan(guest)?;
    ensure!(count(guest, "findings")? == 1);

    // Nobody listens yet.
    guest.sh(LISTEN)?;
    wait_for(guest, "type=heartbeat next_seq=2")?;
    // The listener goes, and another one comes.
    guest.sh("kill -KILL $(cat /run/vsink)")?;
    guest.sh("rmmod hide_task")?;
    scan(guest)?;
    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    scan(guest)?;
    guest.sh(LISTEN)?;
    wait_for(guest, "type=heartbeat next_seq=3")?;
    guest.sh(&format!("echo 0 >{PORT}"))?;
    // One may have been under way.
    thread::sleep(Duration::from_millis(500));
    let sent = arrived(guest)?;
    thread::sleep(Duration::from_millis(500));
    ensure!(arrived(guest)? == sent, "heartbeats go on without a port");

    for seq in 1..=2 {
        let record = format!("seq={seq} time_ns=");
        ensure!(sent.matches(&record).count() >= 1, "no {record}: {sent}");
    }
    guest.sh("rmmod hide_task")?;
    victim.end(guest)?;
    // It goes while it tries to reach somebody.
    guest.sh(&format!("kill -KILL $(cat /run/vsink); echo 5000 >{PORT}"))?;
    MODULE.unload(guest)?;

    receiver(&lab.env.top, &sent)
}

/// A receiver, which ends with the value.
struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The receiver prints each record once, and what is missing.
fn receiver(top: &Path, sent: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("host_5000");
    let mut receiver = Receiver(
        Command::new(top.join("scripts/integrity-receiver"))
            .args(["--silence", "0.5", "--unix"])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .context("scripts/integrity-receiver")?,
    );
    let out = receiver.0.stdout.take().context("its output")?;
    let mut lines = BufReader::new(out).lines();
    let mut next = || -> Result<String> {
        let line = lines.next().context("the receiver has ended")?;
        Ok(line?)
    };

    let mut stream = connect(&path)?;
    stream.write_all(sent.as_bytes())?;
    stream
        .write_all(b"beat=100001 time_ns=1 type=heartbeat\nseq=9 time_ns=1 type=finding pid=1\n")?;

    let first = next()?;
    ensure!(first == "guest=1 connected", "{first}");
    let mut seen = Vec::new();
    loop {
        let line = next()?;
        if line.starts_with("guest=1 silence seconds=") {
            break;
        }
        seen.push(line);
    }
    for seq in 1..=2 {
        let times = seen
            .iter()
            .filter(|line| line.starts_with(&format!("guest=1 seq={seq} ")))
            .count();
        ensure!(
            times == 1,
            "record {seq} is printed {times} times: {seen:?}"
        );
    }
    ensure!(
        seen.iter()
            .any(|line| line.starts_with("guest=1 gap beat="))
            && seen.contains(&"guest=1 gap seq=3 count=6".to_owned())
            && seen.contains(&"guest=1 seq=9 time_ns=1 type=finding pid=1".to_owned()),
        "{seen:?}"
    );
    drop(stream);
    let mut last = next()?;
    while last.starts_with("guest=1 silence") {
        last = next()?;
    }
    ensure!(last == "guest=1 gone", "{last}");
    Ok(())
}

/// Connects when the receiver listens.
fn connect(path: &Path) -> Result<UnixStream> {
    for _ in 0..100 {
        if let Ok(stream) = UnixStream::connect(path) {
            return Ok(stream);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the receiver does not listen")
}
