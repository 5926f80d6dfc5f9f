// SPDX-License-Identifier: GPL-2.0

//! Tests of what guest_integrity tells the host, and of the receiver there.
//!
//! Once the guest is its own host, over the kernel's loopback of AF_VSOCK, and what it sends is then given to the receiver. And once the
//! receiver is at the end of a virtio-vsock device.

use super::{
    count,
    scan,
    Victim,
    MODULE,
    ON_DEMAND, //
};
use crate::{
    fixtures,
    guest::{
        Guest,
        Lab,
        Spec, //
    },
    tests::Test,
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use std::{
    io::{
        self,
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
    sync::mpsc,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

const PARAMETERS: &str = "/sys/module/guest_integrity/parameters";

/// Longest time for the receiver to print something.
const LIMIT: Duration = Duration::from_secs(60);

pub fn tests() -> Vec<Test> {
    vec![
        Test::guest("integrity/uplink", 60, Spec::q35(), heartbeat),
        Test::guest("integrity/uplink-vhost", 90, host_spec(), to_the_host),
    ]
}

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
fn heartbeat(guest: &mut Guest, lab: &Lab) -> Result<()> {
    const LISTEN: &str = "vsink 5000 >>/run/host 2>&1 & echo $! >/run/vsink";

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
    guest.sh(&format!("echo 0 >{PARAMETERS}/vsock_port"))?;
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
    guest.sh(&format!(
        "kill -KILL $(cat /run/vsink); echo 5000 >{PARAMETERS}/vsock_port"
    ))?;
    MODULE.unload(guest)?;

    receiver(&lab.env.top, &sent)
}

/// A guest with a virtio-vsock device, which vhost-device-vsock is.
fn host_spec() -> Spec {
    Spec::q35()
        .beside_crate(
            fixtures::VSOCK,
            "vsock",
            &[
                "--vm",
                "guest-cid=3,socket=SOCKETS/vsock,uds-path=SOCKETS/host",
            ],
        )
        .arguments(&[
            "-chardev",
            "socket,id=vsock,path=SOCKETS/vsock",
            "-device",
            "vhost-user-vsock-pci,chardev=vsock",
        ])
}

/// The receiver on the host has what the guest finds, also from before it listened, and says when the guest is silent.
fn to_the_host(guest: &mut Guest, lab: &Lab) -> Result<()> {
    let path = guest.socket("host_5000");
    let hide = |guest: &mut Guest, victim: &Victim| -> Result<()> {
        guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
        scan(guest)?;
        guest.sh("rmmod hide_task").map(drop)
    };

    guest.modprobe("vmw_vsock_virtio_transport")?;
    MODULE.load(
        guest,
        &format!("{ON_DEMAND} vsock_port=5000 heartbeat_ms=100"),
    )?;
    let victim = Victim::start(guest, "-c 1")?;
    hide(guest, &victim)?;
    // Once while nobody has listened yet, and once while nobody does any more.
    for seq in 1..=2 {
        let receiver = Receiver::start(&lab.env.top, &path, "3")?;
        let found = receiver.wait_for(&format!(" seq={seq} "))?;
        ensure!(
            found.contains("type=finding") && found.contains(&format!("pid={}", victim.pid)),
            "{found}"
        );
        if seq == 2 {
            // A host knows by that alone that something is wrong.
            guest.sh(&format!("echo 60000 >{PARAMETERS}/heartbeat_ms"))?;
            receiver.wait_for("silence seconds=")?;
            MODULE.unload(guest)?;
            receiver.wait_for("gone")?;
            break;
        }
        drop(receiver);
        scan(guest)?;
        hide(guest, &victim)?;
    }
    victim.end(guest)
}

/// A receiver, which ends with the value.
struct Receiver {
    process: Child,
    lines: mpsc::Receiver<io::Result<String>>,
}

impl Receiver {
    /// Starts one that listens at `path`, and complains when it has heard nothing for that long.
    fn start(top: &Path, path: &Path, silence: &str) -> Result<Self> {
        let mut process = Command::new(top.join("scripts/integrity-receiver"))
            .args(["--silence", silence, "--unix"])
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()
            .context("scripts/integrity-receiver")?;
        let out = process.stdout.take().context("its output")?;
        let (sender, lines) = mpsc::channel();

        thread::spawn(move || {
            BufReader::new(out)
                .lines()
                .try_for_each(|line| sender.send(line))
        });
        Ok(Receiver { process, lines })
    }

    /// The next line that it prints.
    fn next(&self) -> Result<String> {
        let line = self
            .lines
            .recv_timeout(LIMIT)
            .context("the receiver prints nothing")?;
        Ok(line?)
    }

    /// The next line that contains `text`.
    fn wait_for(&self, text: &str) -> Result<String> {
        let mut seen = Vec::new();

        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let line = self.next().with_context(|| format!("{seen:?}"))?;
            if line.contains(text) {
                return Ok(line);
            }
            seen.push(line);
        }
        bail!("no {text}: {seen:?}")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The receiver prints each record once, and what is missing.
fn receiver(top: &Path, sent: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("host_5000");
    let receiver = Receiver::start(top, &path, "0.5")?;
    let next = || receiver.next();

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
