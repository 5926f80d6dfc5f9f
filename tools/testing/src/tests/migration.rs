// SPDX-License-Identifier: GPL-2.0

//! Live migration of a guest with a network card. The C driver passes the same tests.

use super::{
    capture::Capture,
    net::{
        counter,
        ping,
        C,
        MODERN,
        RUST, //
    },
    offload::{
        up,
        MOVE, //
    },
    several::listens,
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
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for (driver, subject, properties) in [
        (RUST, "announced", ""),
        (C, "announced", ""),
        (RUST, "silent", ",guest_announce=off"),
    ] {
        let announced = properties.is_empty();
        tests.push(Test::guest(
            format!("net/{}/migration/{subject}", driver.module),
            240,
            Spec::q35().tap(1, &format!("{MODERN}{properties}")),
            move |guest, lab| migration(guest, lab, driver, announced),
        ));
    }
    tests
}

/// Puts a switch between the interface that the host has and two that guests can be connected to. Its address is its own: else it is
/// that of some port, and changes when that goes with a QEMU.
pub fn bridge(guest: &Guest) -> Result<()> {
    guest
        .outside()
        .sh(
            MOVE,
            "ip link add br0 address 52:54:00:00:02:02 type bridge forward_delay 0 && ip address flush dev tap0 && \
             ip tuntap add dev tap1 mode tap vnet_hdr && ip link set tap0 master br0 && \
             ip link set tap1 master br0 && ip link set tap1 up && ip address add 10.0.2.2/24 dev br0 && \
             ip link set br0 up",
        )
        .map(drop)
}

/// How many announcements of its address the guest has made, and how many QEMU in its place.
fn announcements(capture: &Capture) -> Result<(usize, usize)> {
    let text = capture.text()?;
    let lines = |patterns: &[&str]| {
        text.lines()
            .filter(|line| patterns.iter().any(|pattern| line.contains(pattern)))
            .count()
    };

    Ok((
        lines(&["who-has 10.0.2.15 tell 10.0.2.15", "Announcement 10.0.2.15"]),
        lines(&["Reverse Request"]),
    ))
}

/// A TCP connection of the guest to the host, which sends back what it gets.
pub struct Stream(crate::guest::Background);

impl Stream {
    /// Begins.
    pub fn new(guest: &mut Guest) -> Result<Self> {
        let echo = guest.outside().start(
            Duration::from_secs(300),
            "busybox nc -l -p 5000 -e cat".to_owned(),
        );
        listens(guest, 5000)?;
        guest.sh(
            "head -c 50000 /dev/urandom >/tmp/noise && mkfifo /run/copy && exec >/dev/null 2>&1 </dev/null && \
             (sha256sum </run/copy >/run/sent &) && (while ! test -e /run/stop; do cat /tmp/noise; sleep 0.02; done | \
             tee /run/copy | nc 10.0.2.2 5000 | sha256sum >/run/new; mv /run/new /run/received) &",
        )?;
        Ok(Stream(echo))
    }

    /// Data moves in both directions.
    pub fn flows(&self, guest: &mut Guest) -> Result<()> {
        const BYTES: u64 = 1_000_000;
        // A sender that got no answer while the guest was away waits twice as long each time.
        const LIMIT: Duration = Duration::from_secs(90);

        for name in ["rx_bytes", "tx_bytes"] {
            let before = counter(guest, name)?;
            guest.wait_for("the stream", LIMIT, |guest| {
                Ok((counter(guest, name)? > before + BYTES).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Ends, and compares what was sent with what came back.
    pub fn finish(self, guest: &mut Guest) -> Result<()> {
        guest.sh("touch /run/stop")?;
        let sums = guest.wait_for("the end of the stream", Duration::from_secs(30), |guest| {
            let output = guest.run("cat /run/sent /run/received")?;
            Ok((output.status == 0).then_some(output.stdout))
        })?;
        self.0.finish()?;
        let sums: Vec<_> = sums.lines().collect();
        ensure!(
            sums.len() == 2 && sums[0] == sums[1],
            "sent and received: {sums:?}"
        );
        Ok(())
    }
}

/// The guest goes to another QEMU and comes back while a TCP connection moves data. Each time its device asks it to say where it
/// is now, if it can, and that is heard at the new port of the switch.
fn migration(guest: &mut Guest, lab: &Lab, driver: Driver, announced: bool) -> Result<()> {
    up(guest, driver)?;
    bridge(guest)?;
    let stream = Stream::new(guest)?;
    stream.flows(guest)?;

    for port in ["tap1", "tap0"] {
        let capture = Capture::new(guest, lab, port, &["-Q", "in", "arp or rarp"])?;
        guest.migrate(lab, port)?;
        guest.wait_for("announcements", Duration::from_secs(10), |_| {
            let (by_guest, by_qemu) = announcements(&capture)?;
            // QEMU's own come five times, the guest's until it says that it has made them.
            Ok((by_qemu >= 4 && (by_guest > 0) >= announced).then_some(()))
        })?;
        let (by_guest, _) = announcements(&capture)?;
        ensure!(
            announced == (by_guest > 0),
            "{by_guest} announcements by the guest"
        );
        stream.flows(guest)?;
    }
    stream.finish(guest)?;
    ping(guest, 3)
}
