// SPDX-License-Identifier: GPL-2.0

//! Tests of single feature bits that show in a figure: a card with the feature is plugged into a guest that runs, and one without
//! it. The C driver passes the same tests. What shows in packets is in `bits.rs`.

use super::{
    bits,
    hash::traced,
    net::{
        appears,
        counter,
        ping,
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload::MOVE,
    plug::{
        has,
        replace,
        PLUG, //
    },
    queues::on_cpu,
    Driver,
    Test, //
};
use crate::{
    fixtures,
    guest::{
        Chain,
        Guest,
        Lab,
        Spec, //
    },
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use qapi::qmp;
use std::{
    ops::RangeInclusive,
    thread,
    time::Duration, //
};

/// The queues of the first pair.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// One kind of card: its properties, and what its figure can be.
type Kind = (&'static str, RangeInclusive<u64>);

/// A feature, and how it shows.
struct Row {
    bit: u32,
    with: Kind,
    without: Kind,
    figure: fn(&mut Guest, &Lab, Driver) -> Result<u64>,
}

/// What shows at the interface.
fn interface() -> Vec<Row> {
    vec![
        // MTU
        Row {
            bit: 3,
            with: ("host_mtu=1400", 1400..=1400),
            without: ("host_mtu=0", 65535..=65535),
            figure: largest_mtu,
        },
        // STATUS
        Row {
            bit: 16,
            with: ("status=on", 0..=0),
            without: ("status=off", 1..=1),
            figure: carrier_of_a_cut_cable,
        },
        // MQ
        Row {
            bit: 22,
            with: ("mq=on,vectors=6", 5..=u64::MAX),
            without: ("mq=off,vectors=6", 0..=0),
            figure: sent_by_the_second,
        },
        // ACCESS_PLATFORM
        Row {
            bit: 33,
            with: ("iommu_platform=on", 100..=u64::MAX),
            without: ("iommu_platform=off", 0..=0),
            figure: copied,
        },
        // HASH_REPORT
        Row {
            bit: 57,
            with: ("hash=on", 3..=u64::MAX),
            without: ("hash=off", 0..=0),
            figure: hashes,
        },
        // SPEED_DUPLEX
        Row {
            bit: 63,
            with: ("speed=25000,duplex=full", 25000..=25000),
            without: ("speed=-1", 0..=0),
            figure: speed,
        },
    ]
}

/// What shows in the rings, or is a legacy card's.
fn rings() -> Vec<Row> {
    vec![
        // GSO
        Row {
            bit: 6,
            with: (
                "disable-modern=on,disable-legacy=off,host_tso4=off,host_tso6=off,host_ecn=off,host_uso=off",
                1..=1,
            ),
            without: (
                "disable-modern=on,disable-legacy=off,host_tso4=off,host_tso6=off,host_ecn=off,host_uso=off,gso=off",
                4..=4,
            ),
            figure: pieces,
        },
        // MRG_RXBUF
        Row {
            bit: 15,
            with: ("disable-legacy=on", LARGE..=u64::MAX),
            without: ("disable-legacy=on,mrg_rxbuf=off", 0..=0),
            figure: more_buffers,
        },
        // ANY_LAYOUT
        Row {
            bit: 27,
            with: (
                "disable-modern=on,disable-legacy=off,indirect_desc=off",
                1..=1,
            ),
            without: (
                "disable-modern=on,disable-legacy=off,indirect_desc=off,any_layout=off",
                2..=2,
            ),
            figure: descriptors_of_a_small_one,
        },
        // INDIRECT_DESC
        Row {
            bit: 28,
            with: ("disable-legacy=on", 1..=1),
            without: ("disable-legacy=on,indirect_desc=off", 2..=19),
            figure: descriptors_of_a_large_one,
        },
        // VERSION_1
        Row {
            bit: 32,
            // Tunnels would make it longer.
            with: (
                "disable-legacy=on,mrg_rxbuf=off,host_tunnel=off,host_tunnel_csum=off,guest_tunnel=off,guest_tunnel_csum=off",
                12..=12,
            ),
            without: (
                "disable-modern=on,disable-legacy=off,mrg_rxbuf=off",
                10..=10,
            ),
            figure: header,
        },
        // RING_PACKED
        Row {
            bit: 34,
            with: ("disable-legacy=on,packed=on", 10..=u64::MAX),
            without: ("disable-legacy=on", 0..=0),
            figure: marks,
        },
        // IN_ORDER
        Row {
            bit: 35,
            with: ("disable-legacy=on,in_order=on", 0..=0),
            without: ("disable-legacy=on", 5..=u64::MAX),
            figure: jumps,
        },
    ]
}

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/features/{subject}", driver.module);

        tests.push(Test::guest(
            name("interface"),
            180,
            Spec::q35()
                .port()
                .tap(2, &format!("{MODERN},bus=port0"))
                .append("swiotlb=force"),
            move |guest, lab| all(guest, lab, driver, &interface()),
        ));
        tests.push(Test::guest(
            name("rings"),
            180,
            Spec::q35().port().tap(1, &format!("{MODERN},bus=port0")),
            move |guest, lab| all(guest, lab, driver, &rings()),
        ));
    }
    tests
}

/// Each feature shows, and its lack as well.
fn all(guest: &mut Guest, lab: &Lab, driver: Driver, rows: &[Row]) -> Result<()> {
    driver.load(guest, "")?;
    for row in rows {
        for (offered, (properties, expected)) in [(true, &row.with), (false, &row.without)] {
            let context = || format!("bit {} with {properties}", row.bit);

            replace(guest, properties).with_context(context)?;
            ensure!(has(guest, row.bit)? == offered, "{}: wrong", context());
            up(guest).with_context(context)?;
            let figure = (row.figure)(guest, lab, driver).with_context(context)?;
            ensure!(
                expected.contains(&figure),
                "{}: {figure} instead of {expected:?}",
                context()
            );
        }
    }
    driver.unload(guest)
}

/// Has the interface send and receive.
fn up(guest: &mut Guest) -> Result<()> {
    appears(guest)?;
    guest.sh(&format!(
        "{IP} address add 10.0.2.15/24 dev eth0 && {IP} link set eth0 up"
    ))?;
    guest.wait_for("the first answer", PLUG, |guest| {
        Ok((guest.run("ping -c 1 -W 1 10.0.2.2")?.status == 0).then_some(()))
    })
}

/// The largest MTU that the user can set.
fn largest_mtu(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    guest.number(&format!(
        "{IP} -d link show eth0 | sed -n 's/.* maxmtu \\([0-9]*\\).*/\\1/p'"
    ))
}

/// The carrier some time after the host has cut the cable.
fn carrier_of_a_cut_cable(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    guest.qmp(qmp::set_link {
        name: "n0".to_owned(),
        up: false,
    })?;
    guest.number(
        "for i in $(seq 50); do test $(cat /sys/class/net/eth0/carrier) = 0 && break; sleep 0.1; done; \
         cat /sys/class/net/eth0/carrier",
    )
}

/// What the second transmit queue has to do when a process on the second CPU sends.
fn sent_by_the_second(guest: &mut Guest, _: &Lab, driver: Driver) -> Result<u64> {
    let [_, _, _, sent] = on_cpu(guest, driver, 1)?;

    Ok(sent)
}

/// How much memory holds copies of data for devices.
fn copied(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    guest.number("cat /sys/kernel/debug/swiotlb/io_tlb_used")
}

/// How many packets have come with a hash.
fn hashes(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    // With the C driver it is off at first; without the feature it stays so.
    guest.run("ethtool -K eth0 rxhash on")?;
    let seen = traced(guest, |guest| ping(guest, 3))?;
    ensure!(seen.len() >= 3, "{} packets are seen", seen.len());

    Ok(seen.iter().filter(|(hash, _)| *hash != 0).count() as u64)
}

/// The speed that the user sees, 0 if it is unknown.
fn speed(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    guest.number("ethtool eth0 | awk '/Speed:/ { print $2 + 0 }'")
}

/// In how many pieces a packet of TCP leaves the card.
fn pieces(guest: &mut Guest, lab: &Lab, _: Driver) -> Result<u64> {
    let (pieces, _) = bits::arrives(guest, lab, false, "tcp4")?;

    Ok(pieces as u64)
}

/// How many packets that fill several buffers of the usual size are sent to the guest.
const LARGE: u64 = 8;

/// How many buffers more than packets the card has used for them.
fn more_buffers(guest: &mut Guest, lab: &Lab, _: Driver) -> Result<u64> {
    // Of buffers, modulo 2^16, and of packets.
    let counts = |guest: &mut Guest| -> Result<(u16, u64)> {
        Ok((
            guest.ring("n0", RECEIVE)?.used,
            counter(guest, "rx_packets")?,
        ))
    };
    // Nothing that the card has used is on its way to the counter.
    let settled = |guest: &mut Guest, least: u64| {
        guest.wait_for("quiet", PLUG, |guest| {
            let first = counts(guest)?;
            thread::sleep(Duration::from_millis(200));
            let second = counts(guest)?;
            Ok((first == second && first.1 >= least).then_some(first))
        })
    };

    let mac = guest.sh("cat /sys/class/net/eth0/address")?;
    let (buffers, packets) = settled(guest, 0)?;
    let segment = fixtures::program(&lab.env, "segment");
    guest.outside().sh(
        MOVE,
        &format!(
            "for i in $(seq {LARGE}); do {} tap0 {mac} tcp4 || exit; done",
            segment.display()
        ),
    )?;
    // After each of them comes a small one.
    let (all_buffers, all_packets) = settled(guest, packets + 2 * LARGE)?;
    let used = u64::from(all_buffers.wrapping_sub(buffers));
    used.checked_sub(all_packets - packets)
        .with_context(|| format!("{used} buffers"))
}

/// Sends a packet whose length is known, and returns what it is in the ring.
fn small(guest: &mut Guest) -> Result<Chain> {
    guest.wait_for("the packet in the ring", PLUG, |guest| {
        guest.sh("ping -c 1 -W 5 -s 1000 10.0.2.2")?;
        let chains = guest.ring("n0", TRANSMIT)?.newest(8)?;
        // One that was sent since may have taken its descriptors.
        Ok(chains
            .into_iter()
            .rev()
            .find(|chain| (FRAME..FRAME + 20).contains(&chain.len)))
    })
}

/// The length of that packet.
const FRAME: u32 = 14 + 20 + 8 + 1000;

/// How many descriptors a packet in one piece has.
fn descriptors_of_a_small_one(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    Ok(small(guest)?.descriptors.into())
}

/// The length of what comes before a packet.
fn header(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    Ok((small(guest)?.len - FRAME).into())
}

/// How many descriptors of the ring a packet takes that is in several pieces.
fn descriptors_of_a_large_one(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    let mut most = 0;

    // A packet that was sent since may have taken its descriptors, but not each time.
    for _ in 0..5 {
        guest.sh("frames eth0 1")?;
        let chains = guest.ring("n0", TRANSMIT)?.newest(4)?;
        most = chains
            .iter()
            .map(|chain| chain.descriptors.into())
            .fold(most, u64::max);
    }
    Ok(most)
}

/// How many descriptors carry the mark that the card has used them.
fn marks(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    ping(guest, 20)?;
    Ok(guest.ring("n0", TRANSMIT)?.used_marks() as u64)
}

/// How often a packet is not in the descriptor after that of the packet before.
fn jumps(guest: &mut Guest, _: &Lab, _: Driver) -> Result<u64> {
    ping(guest, 20)?;
    let chains = guest.ring("n0", TRANSMIT)?.newest(16)?;

    Ok(chains
        .windows(2)
        .filter(|pair| pair[1].head != pair[0].head + 1)
        .count() as u64)
}
