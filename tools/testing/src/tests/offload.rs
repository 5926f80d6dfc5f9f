// SPDX-License-Identifier: GPL-2.0

//! Tests of what the network driver leaves to the device and the device to it: with a card whose other end is an interface of
//! this machine's kernel. The C driver passes the same tests.

use super::{
    net::{
        appears,
        counter,
        C,
        IP,
        MODERN,
        RUST, //
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

/// Longest time for what moves some data.
pub const MOVE: Duration = Duration::from_secs(60);

/// How many bytes are moved.
pub const LENGTH: u64 = 24 << 20;

/// No frame on a wire is longer.
pub const FRAME: u64 = 1514;

/// The number of a feature bit: packets of TCP over IPv4 can come several in one.
const GUEST_TSO4: usize = 7;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/{subject}", driver.module);
        let tap = |properties: &str| Spec::q35().tap(1, &format!("{MODERN}{properties}"));

        tests.push(Test::guest(
            name("offload/all"),
            180,
            tap(""),
            move |guest, _| all(guest, driver),
        ));
        // Each buffer holds a packet as large as the device can merge it.
        tests.push(Test::guest(
            name("offload/big"),
            180,
            tap(",mrg_rxbuf=off"),
            move |guest, _| all(guest, driver),
        ));
        tests.push(Test::guest(
            name("offload/none"),
            180,
            tap(
                ",csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_uso=off,guest_csum=off,\
                 guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_uso4=off,guest_uso6=off,guest_ufo=off,host_ufo=off",
            ),
            move |guest, _| none(guest, driver),
        ));
        tests.push(Test::guest(
            name("offload/fixed"),
            60,
            tap(",ctrl_guest_offloads=off"),
            move |guest, _| fixed(guest, driver),
        ));
    }
    tests
}

/// Loads the driver and sets addresses by hand: nobody gives any here.
pub fn up(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    appears(guest)?;
    guest.sh(&format!(
        "{IP} address add 10.0.2.15/24 dev eth0 && {IP} address add fd00::15/64 dev eth0 nodad && {IP} link set eth0 up"
    ))?;
    guest.sh("ping -c 1 -W 5 10.0.2.2").map(drop)
}

/// Whether `ethtool -k` says that a feature is on.
pub fn is_on(guest: &mut Guest, feature: &str) -> Result<bool> {
    let features = guest.sh("ethtool -k eth0")?;
    let line = features
        .lines()
        .find_map(|line| line.trim().strip_prefix(feature)?.strip_prefix(": "))
        .with_context(|| format!("no {feature} in {features}"))?;
    Ok(line.starts_with("on"))
}

/// Whether it is negotiated that the device may merge packets of TCP.
fn may_merge(guest: &mut Guest) -> Result<bool> {
    let bits = guest.sh("cat /sys/class/net/eth0/device/features")?;

    Ok(bits.as_bytes().get(GUEST_TSO4) == Some(&b'1'))
}

/// Waits until it is negotiated so, and the interface moves packets: after a reset of the device.
pub fn renegotiated(guest: &mut Guest, merging: bool) -> Result<()> {
    guest.wait_for("the negotiation", MOVE, |guest| {
        Ok((may_merge(guest)? == merging).then_some(()))
    })?;
    guest.wait_for("an answer", MOVE, |guest| {
        let answered = guest.run("ping -c 1 -W 1 10.0.2.2")?;
        Ok((answered.status == 0).then_some(()))
    })
}

/// Moves data over TCP from the other end to the guest (`inward`) or back, compares what arrives by SHA-256, and returns how
/// many bytes a packet of the guest's card had on average.
pub fn packet_size(guest: &mut Guest, inward: bool, address: &str) -> Result<u64> {
    let direction = if inward { "rx" } else { "tx" };
    let counters = |guest: &mut Guest| -> Result<(u64, u64)> {
        Ok((
            counter(guest, &format!("{direction}_bytes"))?,
            counter(guest, &format!("{direction}_packets"))?,
        ))
    };
    let (bytes, packets) = counters(guest)?;

    let data = format!("yes 0123456789abcdef-{direction}-{address} | head -c {LENGTH}");
    let send = format!("{data} >/dev/tcp/{address}/5000 && {data} | sha256sum | cut -d' ' -f1");
    let receive = "busybox nc -l -p 5000 | sha256sum | cut -d' ' -f1";
    let (sent, received) = if inward {
        guest.sh(&format!(
            "rm -f /run/sum; ({receive} >/run/new; mv /run/new /run/sum) >/dev/null 2>&1 </dev/null & sleep 1"
        ))?;
        let sent = guest.outside().sh(MOVE, &send)?;
        let received = guest.wait_for("all data", MOVE, |guest| {
            let output = guest.run("cat /run/sum")?;
            Ok((output.status == 0).then(|| output.stdout.trim().to_owned()))
        })?;
        (sent, received)
    } else {
        let listener = guest.outside().start(MOVE, receive.to_owned());
        thread::sleep(Duration::from_secs(1));
        let sent = guest.sh_for(MOVE, &format!("bash -c '{}'", send.replace('\'', "'\\''")))?;
        (sent, listener.finish()?)
    };
    ensure!(sent == received, "sent {sent}, received {received}");

    let (all_bytes, all_packets) = counters(guest)?;
    ensure!(all_bytes - bytes > LENGTH, "{} bytes", all_bytes - bytes);
    Ok((all_bytes - bytes) / (all_packets - packets))
}

/// With everything on, packets are larger than frames both ways and for both families; each feature that is turned off ends
/// that for itself.
fn all(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    for feature in [
        "tx-checksum-ip-generic",
        "tx-tcp-segmentation",
        "tx-tcp6-segmentation",
        "rx-gro-hw",
        "rx-checksumming",
    ] {
        ensure!(is_on(guest, feature)?, "{feature} is off");
    }

    for (inside, outside) in [("10.0.2.15", "10.0.2.2"), ("fd00::15", "fd00::2")] {
        let size = packet_size(guest, true, inside)?;
        ensure!(size > 2 * FRAME, "{size} bytes a received packet, {inside}");
        let size = packet_size(guest, false, outside)?;
        ensure!(size > 2 * FRAME, "{size} bytes a sent packet, {outside}");
    }

    guest.sh("ethtool -K eth0 rx-gro-hw off")?;
    let size = packet_size(guest, true, "10.0.2.15")?;
    ensure!(
        size <= FRAME,
        "{size} bytes a received packet, without rx-gro-hw"
    );
    ensure!(may_merge(guest)?, "the device was reset");
    guest.sh("ethtool -K eth0 rx-gro-hw on")?;
    let size = packet_size(guest, true, "10.0.2.15")?;
    ensure!(
        size > 2 * FRAME,
        "{size} bytes a received packet, with rx-gro-hw again"
    );
    guest.sh("ethtool -K eth0 tso off")?;
    let size = packet_size(guest, false, "10.0.2.2")?;
    ensure!(size <= FRAME, "{size} bytes a sent packet, without tso");
    Ok(())
}

/// A device that computes nothing.
fn none(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    for feature in ["tx-checksum-ip-generic", "tx-tcp-segmentation", "rx-gro-hw"] {
        ensure!(!is_on(guest, feature)?, "{feature} is on");
    }
    let size = packet_size(guest, true, "10.0.2.15")?;
    ensure!(size <= FRAME, "{size} bytes a received packet");
    let size = packet_size(guest, false, "10.0.2.2")?;
    ensure!(size <= FRAME, "{size} bytes a sent packet");
    Ok(())
}

/// A device that has no command for it is reset to change what it merges. With the C driver the user cannot change that.
fn fixed(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    ensure!(is_on(guest, "rx-gro-hw")?, "rx-gro-hw is off");
    if driver == RUST {
        guest.sh("ethtool -K eth0 rx-gro-hw off")?;
        renegotiated(guest, false)?;
        let size = packet_size(guest, true, "10.0.2.15")?;
        ensure!(
            size <= FRAME,
            "{size} bytes a received packet, without rx-gro-hw"
        );
        guest.sh("ethtool -K eth0 rx-gro-hw on")?;
        renegotiated(guest, true)?;
    } else {
        guest.run("ethtool -K eth0 rx-gro-hw off")?;
        ensure!(is_on(guest, "rx-gro-hw")?, "rx-gro-hw was turned off");
    }
    let size = packet_size(guest, true, "10.0.2.15")?;
    ensure!(size > 2 * FRAME, "{size} bytes a received packet");
    Ok(())
}
