// SPDX-License-Identifier: GPL-2.0

//! Tests of what QEMU's network card does not have, with one of our own. The C driver passes the same tests, but for what is
//! said there.

use super::{
    net::{
        counter,
        ping,
        reset_function,
        C,
        RUST, //
    },
    offload::up,
    queues::statistic,
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
use std::time::Duration;
use tenon_device::{
    net::{
        feature,
        DATAGRAM, //
    },
    script::Script, //
};

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/card/{subject}", driver.module);

        tests.push(Test::guest(
            name("plain"),
            60,
            Spec::q35().card(1, &[]),
            move |guest, _| plain(guest, driver),
        ));
        tests.push(Test::guest(
            name("small"),
            60,
            Spec::q35().card(1, &[feature::MRG_RXBUF, feature::CTRL_VQ]),
            move |guest, _| plain(guest, driver),
        ));
        tests.push(Test::guest(
            name("pairs"),
            60,
            Spec::q35().card(2, &[]),
            move |guest, _| pairs(guest, driver),
        ));
        tests.push(Test::guest(
            name("no-address"),
            60,
            Spec::q35().card(1, &[feature::MAC]),
            move |guest, _| no_address(guest, driver),
        ));
        // With the card's statistics the C driver breaks a rule: see below.
        for (subject, without) in [
            ("event-index", &[feature::DEVICE_STATS][..]),
            (
                "event-index-not",
                &[feature::DEVICE_STATS, feature::EVENT_IDX],
            ),
        ] {
            tests.push(Test::guest(
                name(subject),
                60,
                Spec::q35().card(1, without),
                move |guest, _| event_index(guest, driver, !without.contains(&feature::EVENT_IDX)),
            ));
        }
        for (subject, with) in [
            ("fragments", &[feature::GUEST_CSUM, feature::GUEST_UFO][..]),
            ("fragments-not", &[feature::GUEST_CSUM]),
        ] {
            tests.push(Test::guest(
                name(subject),
                60,
                Spec::q35().card_with(with),
                move |guest, _| fragments(guest, driver, with.len() > 1),
            ));
        }
        let counted = Test::guest(
            name("statistics"),
            60,
            Spec::q35().card(2, &[]),
            move |guest, _| statistics(guest, driver),
        );
        tests.push(if driver == C {
            // Its request for more than one queue does not fit its type.
            counted.expect_report("UBSAN: array-index-out-of-bounds")
        } else {
            counted
        });
        for (subject, without) in [
            ("header-length", &[][..]),
            ("header-length-not", &[feature::GUEST_HDRLEN]),
        ] {
            tests.push(Test::guest(
                name(subject),
                60,
                Spec::q35().card(1, without),
                move |guest, _| header_length(guest, driver, without.is_empty()),
            ));
        }
        tests.push(Test::guest(
            name("coalesce"),
            120,
            Spec::q35().card(2, &[]),
            move |guest, _| coalesce(guest, driver),
        ));
        tests.push(Test::guest(
            name("coalesce-not"),
            60,
            Spec::q35().card(1, &[feature::NOTF_COAL, feature::VQ_NOTF_COAL]),
            move |guest, _| coalesce_not(guest, driver),
        ));
        tests.push(Test::guest(
            name("adaptive"),
            120,
            Spec::q35().card(2, &[]),
            move |guest, _| adaptive(guest, driver),
        ));
        // The C driver knows no table of queues here, and tells nothing again.
        if driver == RUST {
            tests.push(Test::guest(
                name("coalesce-each"),
                60,
                Spec::q35().card(2, &[feature::NOTF_COAL]),
                |guest, _| coalesce_each(guest),
            ));
        }
    }
    tests
}

/// Has the peer send back what it gets, and compares.
pub fn echo(guest: &mut Guest) -> Result<()> {
    const LENGTH: u32 = 1_000_000;

    let sums = guest.sh_for(
        Duration::from_secs(40),
        &format!(
            "head -c {LENGTH} /dev/urandom >/tmp/noise && sha256sum </tmp/noise && \
             nc 10.0.2.2 7 </tmp/noise | head -c {LENGTH} | sha256sum; rm /tmp/noise"
        ),
    )?;
    let mut sums = sums.lines();
    ensure!(sums.next() == sums.next(), "{sums:?}");
    Ok(())
}

/// The card works at all.
fn plain(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    ping(guest, 3)?;
    echo(guest)?;
    {
        let card = guest.card()?;
        ensure!(
            card.queues[0].used > 100 && card.queues[1].used > 100,
            "{:?}",
            card.queues
        );
        ensure!(
            card.commands.iter().all(|command| command.done),
            "{:?}",
            card.commands
        );
    }
    driver.unload(guest)?;
    up(guest, driver)?;
    ping(guest, 3)
}

/// A card without an address gets one by chance, and is told.
fn no_address(guest: &mut Guest, driver: Driver) -> Result<()> {
    // Of the first byte: that nobody has assigned it to a maker.
    const LOCAL: u8 = 2;

    let own = guest.card()?.address;
    up(guest, driver)?;
    let text = guest.sh("cat /sys/class/net/eth0/address")?;
    let address: Vec<_> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .with_context(|| text.clone())?;
    ensure!(
        address != own && address[0] & LOCAL != 0,
        "the address is {text}"
    );
    let kind = guest.sh("cat /sys/class/net/eth0/addr_assign_type")?;
    ensure!(kind == "1", "it is of kind {kind}, not a random one");
    let told = guest.card()?.address;
    ensure!(
        address == told,
        "{address:x?}, and the card knows {told:x?}"
    );
    ping(guest, 3)
}

/// A card that says with which packet it wants to be notified again is not notified before, however long it takes.
fn event_index(guest: &mut Guest, driver: Driver, offered: bool) -> Result<()> {
    const PACKETS: u64 = 20;
    // So many bytes may always be on their way.
    const LIMIT: &str = "echo 100000 >/sys/class/net/eth0/queues/tx-0/byte_queue_limits/limit_min";

    up(guest, driver)?;
    guest.sh(LIMIT)?;
    echo(guest)?;
    ensure!(guest.card()?.has(feature::EVENT_IDX) == offered);
    guest.card()?.script = "tx.kick times all 0".parse()?;
    let before = statistic(guest, "tx0_kicks")?;
    guest.sh(&format!(
        "bash -c 'for i in $(seq {PACKETS}); do echo x >/dev/udp/10.0.2.2/9; done'"
    ))?;
    let kicks = statistic(guest, "tx0_kicks")? - before;
    guest.card()?.script = Script::default();
    // The last notification may have come too early to be lost.
    ensure!(
        if offered {
            kicks <= 2
        } else {
            kicks >= PACKETS
        },
        "{kicks} notifications for {PACKETS} packets"
    );

    // It has not heard the one that counts.
    driver.unload(guest)?;
    up(guest, driver)?;
    echo(guest)
}

/// A datagram that is larger than a frame comes as one packet if the driver takes that, otherwise as three.
fn fragments(guest: &mut Guest, driver: Driver, offered: bool) -> Result<()> {
    up(guest, driver)?;
    ensure!(guest.card()?.has(feature::GUEST_UFO) == offered);
    for _ in 0..3 {
        let before = counter(guest, "rx_packets")?;
        let received = guest.number(
            "bash -c 'exec 3<>/dev/udp/10.0.2.2/19; echo >&3; timeout 10 dd bs=65536 count=1 <&3 2>/dev/null | wc -c'",
        )?;
        ensure!(received == DATAGRAM as u64, "{received} bytes come");
        let packets = counter(guest, "rx_packets")? - before;
        // The peer may have something to say about addresses.
        ensure!(
            (packets < 3) == offered,
            "a datagram comes as {packets} packets"
        );
    }
    ping(guest, 3)
}

/// The control queue comes after all pairs, and the driver uses as many as it says.
fn pairs(guest: &mut Guest, driver: Driver) -> Result<()> {
    const MQ: u8 = 4;

    up(guest, driver)?;
    echo(guest)?;
    guest.sh("ethtool -L eth0 combined 1 && ethtool -L eth0 combined 2")?;
    let told: Vec<_> = {
        let card = guest.card()?;
        card.commands
            .iter()
            .filter(|command| command.class == MQ && command.done)
            .map(|command| command.data.clone())
            .collect()
    };
    ensure!(told == [[2, 0], [1, 0], [2, 0]], "{told:?}");
    ping(guest, 3)
}

/// What the card has counted is shown.
fn statistics(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    guest.sh("ethtool -L eth0 combined 2")?;
    echo(guest)?;
    let counts = |guest: &Guest| -> Result<[u64; 5]> {
        let card = guest.card()?;
        let (rx, tx) = (&card.queues[0], &card.queues[1]);

        ensure!(card.has(feature::DEVICE_STATS));
        let commands = card.commands.len() as u64;
        Ok([rx.packets, rx.bytes, rx.kicks, tx.packets, commands])
    };
    // The guest may send something meanwhile.
    let before = counts(guest)?;
    let shown = guest.sh("ethtool -S eth0 | sed 's/^ *//'")?;
    let after = counts(guest)?;
    let value = |name: &str| -> Result<u64> {
        let value = shown
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .with_context(|| format!("no {name} in {shown}"))?;
        Ok(value.parse()?)
    };

    for (name, (low, high)) in [
        "rx0_hw_packets",
        "rx0_hw_bytes",
        "rx0_hw_notifications",
        "tx0_hw_packets",
        "cq_hw_command_num",
    ]
    .iter()
    .zip(before.into_iter().zip(after))
    {
        let value = value(name)?;
        ensure!(
            value > 0 && (low..=high).contains(&value),
            "{name} is {value}, not {low} to {high}"
        );
    }
    for (name, expected) in [
        ("rx0_hw_ratelimit_bytes", 22),
        ("rx_hw_ratelimit_bytes", 2 * 22),
        ("tx0_hw_gso_bytes_noseg", 36),
        ("tx1_hw_gso_packets_noseg", 35),
    ] {
        let value = value(name)?;
        ensure!(value == expected, "{name} is {value}, not {expected}");
    }
    Ok(())
}

/// A packet that the card is to cut says how long its headers are, and a card that asked for it can rely on that: to another it says how
/// much lies where they do.
fn header_length(guest: &mut Guest, driver: Driver, offered: bool) -> Result<()> {
    // Of the packets of the program.
    const DATA: usize = 64_000;
    const WITH_HEADERS: usize = 100;
    // Of Ethernet, and of IPv4 without options.
    const TCP: usize = 14 + 20;
    // Where TCP's header says how long it is itself.
    const DATA_OFFSET: usize = TCP + 12;

    up(guest, driver)?;
    // First, as the card notes some packets only.
    guest.sh(&format!("frames eth0 1 {WITH_HEADERS}"))?;
    echo(guest)?;
    let card = guest.card()?;
    ensure!(card.has(feature::GUEST_HDRLEN) == offered);
    let mut kinds = (0, 0);
    for packet in &card.segmented {
        let headers = TCP + usize::from(packet.frame[DATA_OFFSET] >> 4) * 4;
        let said = usize::from(packet.header_len);
        let whole = packet.frame.len() == headers + DATA;
        // What the peer takes in a packet, and what the program says.
        let mss = if whole { 1448 } else { 1460 };
        ensure!(
            packet.frame.len() > headers + usize::from(packet.size) && packet.size == mss,
            "a packet of {} is to be cut to {}",
            packet.frame.len(),
            packet.size
        );
        let right = match (offered, whole) {
            (true, _) => said == headers,
            (false, true) => said == headers + WITH_HEADERS,
            (false, false) => said >= headers,
        };
        ensure!(right, "headers of {headers} bytes, the driver says {said}");
        if whole {
            kinds.1 += 1;
        } else {
            kinds.0 += 1;
        }
    }
    ensure!(
        kinds.0 > 0 && kinds.1 == 1,
        "{} packets of the stream were to be cut, and {} of the program",
        kinds.0,
        kinds.1
    );
    Ok(())
}

/// What the device has been told of its queues, without the control queue: numbers of packets and of microseconds.
fn told(guest: &Guest) -> Result<Vec<(u32, u32)>> {
    let card = guest.card()?;
    let queues = card
        .queues
        .split_last()
        .map_or(&[][..], |(_, queues)| queues);

    Ok(queues
        .iter()
        .map(|queue| (queue.coalescing.max_packets, queue.coalescing.max_usecs))
        .collect())
}

/// How many interrupts there are for a hundred buffers that are used, while data goes back and forth.
fn interrupts(guest: &mut Guest) -> Result<u64> {
    let counts = |guest: &Guest| -> Result<(u64, u64)> {
        let card = guest.card()?;
        Ok(card
            .queues
            .iter()
            .fold((0, 0), |(used, interrupts), queue| {
                (used + queue.used, interrupts + queue.interrupts)
            }))
    };
    let before = counts(guest)?;
    echo(guest)?;
    let after = counts(guest)?;

    Ok((after.1 - before.1) * 100 / (after.0 - before.0))
}

/// The user says when the card interrupts, for all queues and for some.
fn coalesce(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let first = guest.sh("ethtool -c eth0")?;
    for line in [
        "rx-usecs:\t0",
        "rx-frames:\t0",
        "tx-usecs:\t0",
        "tx-frames:\t1",
    ] {
        ensure!(first.contains(line), "{first}");
    }
    let often = interrupts(guest)?;

    guest.sh("ethtool -C eth0 rx-usecs 20000 rx-frames 64 tx-usecs 30000 tx-frames 32")?;
    let all = told(guest)?;
    ensure!(
        all == [(64, 20000), (32, 30000), (64, 20000), (32, 30000)],
        "{all:?}"
    );
    let rarely = interrupts(guest)?;
    ensure!(
        rarely * 2 < often,
        "{often} and then {rarely} interrupts for a hundred buffers"
    );

    guest.sh(
        "ethtool -Q eth0 queue_mask 0x2 --coalesce rx-usecs 7 rx-frames 5 tx-usecs 8 tx-frames 6",
    )?;
    let some = told(guest)?;
    ensure!(
        some == [(64, 20000), (32, 30000), (5, 7), (6, 8)],
        "{some:?}"
    );
    let shown = guest.sh("ethtool -Q eth0 queue_mask 0x2 --show-coalesce")?;
    ensure!(
        shown.contains("rx-usecs: 7") && shown.contains("tx-frames: 6"),
        "{shown}"
    );
    for wrong in [
        "-C eth0 rx-usecs-irq 5",
        "-Q eth0 queue_mask 0x4 --coalesce rx-usecs 1",
    ] {
        let refused = guest.run(&format!("ethtool {wrong}"))?;
        ensure!(refused.status != 0, "{wrong} is accepted");
    }

    guest.sh("ethtool -C eth0 rx-usecs 0 rx-frames 0 tx-usecs 0 tx-frames 1")?;
    let none = told(guest)?;
    ensure!(none == [(0, 0), (1, 0), (0, 0), (1, 0)], "{none:?}");
    ping(guest, 3)
}

/// The kernel's library says when a receive queue interrupts.
fn adaptive(guest: &mut Guest, driver: Driver) -> Result<()> {
    // The library's second setting, which it tries first: 256 packets or 8 microseconds, here for the first queue.
    const FIRST: [u8; 12] = [0, 0, 0, 0, 0, 1, 0, 0, 8, 0, 0, 0];
    // The times that it has.
    const TIMES: [u32; 5] = [1, 8, 64, 128, 256];

    up(guest, driver)?;
    guest.sh("ethtool -C eth0 rx-usecs 3 rx-frames 2 && ethtool -C eth0 adaptive-rx on")?;
    let shown = guest.sh("ethtool -c eth0; ethtool -Q eth0 queue_mask 0x2 --show-coalesce")?;
    ensure!(
        shown.contains("Adaptive RX: on") && shown.matches("on  TX").count() == 2,
        "{shown}"
    );
    let refused = guest.run("ethtool -C eth0 adaptive-rx on rx-usecs 50")?;
    ensure!(refused.status != 0, "a time for what adapts is accepted");
    let first = told(guest)?;
    ensure!(first[0] == (2, 3) && first[2] == (2, 3), "{first:?}");

    let steps = |guest: &Guest| -> Result<Vec<Vec<u8>>> {
        let card = guest.card()?;
        Ok(card
            .commands
            .iter()
            .filter(|command| (command.class, command.number) == (6, 2) && command.done)
            .map(|command| command.data.clone())
            .collect())
    };
    guest.wait_for("a step", Duration::from_secs(40), |guest| {
        echo(guest)?;
        Ok((!steps(guest)?.is_empty()).then_some(()))
    })?;
    let taken = steps(guest)?;
    ensure!(taken[0] == FIRST, "{taken:?}");
    for step in &taken {
        let time = step.last_chunk().map(|time| u32::from_le_bytes(*time));
        ensure!(
            step[..8] == FIRST[..8] && time.is_some_and(|time| TIMES.contains(&time)),
            "{taken:?}"
        );
    }
    // The peer is in the first queue, and the other one has nothing to adapt to.
    let now = told(guest)?;
    ensure!(now[2] == (2, 3), "{now:?}");
    guest.wait_for("what it has come to", Duration::from_secs(5), |guest| {
        let shown = guest.sh("ethtool -Q eth0 queue_mask 0x1 --show-coalesce")?;
        let line = format!("rx-usecs: {}\n", told(guest)?[0].1);
        Ok(shown.contains(&line).then_some(()))
    })?;

    // That it ends, ends it.
    guest.sh("ethtool -C eth0 adaptive-rx off")?;
    let last = told(guest)?;
    ensure!(last[0] == (2, 3), "{last:?}");
    let taken = steps(guest)?.len();
    for _ in 0..3 {
        echo(guest)?;
    }
    ensure!(steps(guest)?.len() == taken, "it adapts though it is off");

    // Neither is it in the way of being taken down.
    guest.sh("ethtool -Q eth0 queue_mask 0x1 --coalesce adaptive-rx on")?;
    echo(guest)?;
    driver.unload(guest)
}

/// A card that cannot be told is not, and the user hears of it.
fn coalesce_not(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let shown = guest.sh("ethtool -c eth0")?;
    ensure!(
        shown.contains("rx-frames:\t1") && shown.contains("tx-frames:\t1"),
        "{shown}"
    );
    let mut wrong = vec!["rx-usecs 5", "rx-frames 5", "tx-frames 5"];
    if driver == RUST {
        // The C driver says yes, and does nothing.
        wrong.push("adaptive-rx on");
    }
    for wrong in wrong {
        let refused = guest.run(&format!("ethtool -C eth0 {wrong}"))?;
        ensure!(refused.status != 0, "{wrong} is accepted");
    }
    ping(guest, 3)
}

/// A card that can be told for each queue only is told so.
fn coalesce_each(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    guest.sh("ethtool -C eth0 rx-usecs 20 rx-frames 10 tx-usecs 40 tx-frames 30")?;
    let all = told(guest)?;
    ensure!(all == [(10, 20), (30, 40), (10, 20), (30, 40)], "{all:?}");
    guest.sh("ethtool -Q eth0 queue_mask 0x1 --coalesce rx-frames 5")?;
    let some = told(guest)?;
    ensure!(some == [(5, 20), (30, 40), (10, 20), (30, 40)], "{some:?}");

    // What a reset has made the device forget it is told again.
    reset_function(guest)?;
    ping(guest, 3)?;
    let again = told(guest)?;
    ensure!(again == some, "{again:?}");
    guest.sh("ethtool -C eth0 tx-usecs 0 tx-frames 1").map(drop)
}
