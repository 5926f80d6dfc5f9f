// SPDX-License-Identifier: GPL-2.0

//! Packets of a UDP tunnel that the device cuts, and such that it delivers several in one. The other end is an interface of this
//! machine's kernel, which has to be able to do that too. The C driver passes the same test, but for what it receives: QEMU leaves
//! out where the headers are in packets that are several in one, so that it loses them.

use super::{
    backends::{
        size,
        FRAME, //
    },
    net::{
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload::{
        up,
        MOVE, //
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
use std::fs;

/// The feature bits: the device merges, with checksums of the tunnel as well, and it cuts, with these.
const BITS: [usize; 4] = [65, 66, 67, 68];

pub fn tests() -> Vec<Test> {
    const OLD: &str =
        "a tap interface of this machine's kernel has no tunnels: that takes Linux 6.17";
    const OFF: &str =
        ",host_tunnel=off,host_tunnel_csum=off,guest_tunnel=off,guest_tunnel_csum=off";
    let able = able();
    let mut tests = Vec::new();

    for (driver, subject, properties) in [
        (RUST, "tunnel", ""),
        (C, "tunnel", ""),
        (RUST, "tunnel-not", OFF),
    ] {
        let offered = properties.is_empty();
        let test = Test::guest(
            format!("net/{}/{subject}", driver.module),
            180,
            Spec::q35().tap(1, &format!("{MODERN}{properties}")),
            move |guest, _| tunnel(guest, driver, offered),
        );
        tests.push(if able || !offered {
            test
        } else {
            test.stock_only(OLD).sanitizer_only(OLD)
        });
    }
    tests
}

/// Whether the kernel of this machine is new enough.
fn able() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);

    (next(), next()) >= (6, 17)
}

/// Makes a tunnel over the addresses of the two ends.
fn make(guest: &mut Guest, inner: u32, ends: [&str; 2], options: &str) -> Result<()> {
    let [inside, outside] = ends;
    let end = |ip: &str, device: &str, local: &str, remote: &str, number: u32| {
        format!(
            "{ip} link add vx{inner} type vxlan id {inner} local {local} remote {remote} dstport {} dev {device} {options} && \
             {ip} address add 10.9.{inner}.{number}/24 dev vx{inner} && {ip} link set vx{inner} up",
            4789 + inner
        )
    };

    guest
        .outside()
        .sh(MOVE, &end("ip", "tap0", outside, inside, 2))?;
    guest.sh(&end(IP, "eth0", inside, outside, 15))?;
    guest
        .sh(&format!("ping -c 1 -W 5 10.9.{inner}.2"))
        .map(drop)
}

/// Packets inside of a tunnel are sent larger than frames where the device can cut them, and not where it cannot; so they are received.
fn tunnel(guest: &mut Guest, driver: Driver, offered: bool) -> Result<()> {
    up(guest, driver)?;
    guest.modprobe("vxlan")?;
    let features = guest.sh("cat /sys/class/net/eth0/device/features")?;
    for bit in BITS {
        let negotiated = features.as_bytes().get(bit) == Some(&b'1');
        ensure!(negotiated == offered, "bit {bit}: {negotiated}");
    }

    let over_ipv4 = ["10.0.2.15", "10.0.2.2"];
    let over_ipv6 = ["fd00::15", "fd00::2"];
    for (inner, ends, options) in [
        (1, over_ipv4, "noudpcsum"),
        (2, over_ipv4, "udpcsum"),
        (3, over_ipv6, ""),
    ] {
        make(guest, inner, ends, options)?;
        let host = format!("10.9.{inner}.2");
        let what = format!("{ends:?} {options}");
        let sent = size(guest, "eth0", &host, false).with_context(|| what.clone())?;
        ensure!((sent > FRAME) == offered, "{what}: {sent} bytes a packet");
        if driver == RUST {
            let received = size(guest, "eth0", &host, true).with_context(|| what.clone())?;
            ensure!(
                (received > FRAME) == offered,
                "{what}: {received} bytes a packet received"
            );
        }
    }
    if driver == RUST && offered {
        for (state, merged) in [("off", false), ("on", true)] {
            guest.sh(&format!("ethtool -K eth0 rx-gro-hw {state}"))?;
            let received = size(guest, "eth0", "10.9.1.2", true)?;
            ensure!(
                (received > FRAME) == merged,
                "with rx-gro-hw {state} {received} bytes a packet"
            );
        }
    }
    Ok(())
}
