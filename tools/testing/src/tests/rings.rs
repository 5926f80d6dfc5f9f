// SPDX-License-Identifier: GPL-2.0

//! Tests of the sizes of the network card's rings. The C driver passes the same tests, but for what is said there.

use super::{
    net::{
        ping,
        reset_function,
        transfer,
        up,
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload,
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
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Longest time for a program to end.
const SHORT: Duration = Duration::from_secs(20);
/// The largest rings that the card allows.
const MAX: [u64; 2] = [512, 256];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/rings/{subject}", driver.module);
        let card = |properties: &str| {
            Spec::q35().network(&format!("{MODERN},rx_queue_size=512{properties}"))
        };

        for (subject, properties) in [("split", ""), ("packed", ",packed=on")] {
            tests.push(Test::guest(
                name(subject),
                120,
                card(properties),
                move |guest, lab| resize(guest, lab, driver, properties.is_empty()),
            ));
        }
        tests.push(Test::guest(
            name("one-direction"),
            90,
            card(""),
            move |guest, lab| one_direction(guest, lab, driver),
        ));
        tests.push(Test::guest(
            name("fixed"),
            60,
            card(",queue_reset=off"),
            move |guest, lab| fixed(guest, lab, driver),
        ));
    }
    // The C driver accepts a receive ring of one entry, into which nothing comes any more.
    tests.push(Test::guest(
        format!("net/{}/rings/smallest", RUST.module),
        90,
        Spec::q35().tap(1, MODERN),
        |guest, _| smallest(guest),
    ));
    // The C driver does not come back from a reset of its function.
    tests.push(Test::guest(
        format!("net/{}/rings/kept", RUST.module),
        60,
        Spec::q35()
            .port()
            .network(&format!("{MODERN},bus=port0,rx_queue_size=512")),
        |guest, _| kept(guest),
    ));
    tests
}

/// How large the rings can be, and are: those of the receive queues before those of the transmit queues.
fn rings(guest: &mut Guest) -> Result<([u64; 2], [u64; 2])> {
    let text = guest.sh("ethtool -g eth0 | sed -n 's/^[RT]X:[[:space:]]*//p'")?;
    let mut numbers = text.lines().map(str::parse);
    let mut next = || -> Result<u64> { Ok(numbers.next().with_context(|| text.clone())??) };

    Ok(([next()?, next()?], [next()?, next()?]))
}

fn ensure_rings(guest: &mut Guest, expected: [u64; 2]) -> Result<()> {
    let (max, now) = rings(guest)?;

    ensure!(max == MAX && now == expected, "{now:?} of {max:?}");
    Ok(())
}

/// The rings change while packets come and go, and each works.
fn resize(guest: &mut Guest, lab: &Lab, driver: Driver, split: bool) -> Result<()> {
    up(guest, driver)?;
    ensure_rings(guest, MAX)?;
    for [rx, tx] in [[64, 256], [512, 32], [16, 128]] {
        guest.sh(&format!("ethtool -G eth0 rx {rx} tx {tx}"))?;
        ensure_rings(guest, [rx, tx])?;
        transfer(guest, lab, 4 * MIB)?;
    }

    let mut wrong = vec!["rx 0", "tx 0", "rx 1024", "tx 512", "tx 16"];
    if split {
        wrong.push("rx 100");
    }
    for wrong in wrong {
        let refused = guest.run(&format!("ethtool -G eth0 {wrong}"))?;
        ensure!(refused.status != 0, "{wrong} is accepted");
        ensure_rings(guest, [16, 128])?;
    }
    if driver.module == RUST.module {
        // A frame would take more buffers than there are.
        let refused = guest.run(&format!("{IP} link set eth0 mtu 60000"))?;
        ensure!(refused.status != 0, "an MTU is accepted");
        guest.sh(&format!("{IP} link set eth0 mtu 9000"))?;
        ping(guest, 3)?;
        guest.sh(&format!("{IP} link set eth0 mtu 1500"))?;
    }

    guest.sh("ping -q -c 2000 -i 0.002 10.0.2.2 >/dev/null 2>&1 &")?;
    for _ in 0..10 {
        for sizes in ["rx 512 tx 32", "rx 64 tx 256"] {
            guest.sh(&format!("ethtool -G eth0 {sizes}"))?;
        }
    }
    transfer(guest, lab, 4 * MIB)?;

    guest.sh(&format!(
        "{IP} link set eth0 down && ethtool -G eth0 rx 128 tx 64"
    ))?;
    guest.sh(&format!("{IP} link set eth0 up"))?;
    ensure_rings(guest, [128, 64])?;
    ping(guest, 3)?;
    driver.unload(guest)
}

/// The receive rings change while the transmit rings, which do not, have something in flight.
fn one_direction(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    guest.modprobe("pktgen")?;
    guest.sh(
        "cd /proc/net/pktgen && echo 'add_device eth0' >kpktgend_0 && \
         for line in 'count 0' 'pkt_size 200' 'delay 0' 'dst 10.0.2.2' 'dst_mac 52:55:0a:00:02:02' \
         'udp_dst_min 9' 'udp_dst_max 9'; do echo \"$line\" >eth0 || exit 1; done; \
         (echo start >pgctrl) >/dev/null 2>&1 </dev/null &",
    )?;
    for _ in 0..10 {
        for rx in [128, 64] {
            guest.sh(&format!("ethtool -G eth0 rx {rx}"))?;
            ensure_rings(guest, [rx, MAX[1]])?;
        }
    }
    guest.sh("echo stop >/proc/net/pktgen/pgctrl")?;
    guest.wait_for("the end of pktgen", SHORT, |guest| {
        Ok((guest.run("rmmod pktgen")?.status == 0).then_some(()))
    })?;
    transfer(guest, lab, MIB)?;
    driver.unload(guest)
}

/// A card that cannot reset a queue has the rings that it has.
fn fixed(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let refused = guest.run("ethtool -G eth0 rx 128")?;
    ensure!(refused.status != 0, "another size is accepted");
    ensure_rings(guest, MAX)?;
    transfer(guest, lab, MIB)
}

/// The smallest rings that there can be hold the largest packets, and a refusal says why.
fn smallest(guest: &mut Guest) -> Result<()> {
    offload::up(guest, RUST)?;
    for direction in ["rx", "tx"] {
        let refusal = (0..8)
            .rev()
            .map(|power| guest.run(&format!("ethtool -G eth0 {direction} {}", 1 << power)))
            .find(|result| result.as_ref().map_or(true, |output| output.status != 0))
            .context("all sizes are accepted")??;
        ensure!(
            refusal.stderr.contains("hold the longest packet"),
            "{direction}: {}",
            refusal.stderr
        );
    }
    let (_, now) = rings(guest)?;
    ensure!(now == [64, 32], "{now:?}");
    for inward in [true, false] {
        let host = if inward { "10.0.2.15" } else { "10.0.2.2" };
        let size = offload::packet_size(guest, inward, host)?;
        ensure!(size > 3000, "packets of {size} bytes");
    }
    RUST.unload(guest)
}

/// After a reset the rings are as large as before.
fn kept(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    guest.sh("ethtool -G eth0 rx 128 tx 64")?;
    reset_function(guest)?;
    ensure_rings(guest, [128, 64])?;
    ping(guest, 3)
}
