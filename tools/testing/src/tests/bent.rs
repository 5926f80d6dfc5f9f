// SPDX-License-Identifier: GPL-2.0

//! Tests of the network driver with a card that breaks the rules. Whatever that does, the guest goes on, and a card that behaves
//! again works again, at the latest when its driver is bound anew.

use super::{
    card,
    net::{
        ping,
        MODERN,
        RUST, //
    },
    offload::up,
    queues::statistic,
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
use std::time::{
    Duration,
    Instant, //
};
use tenon_device::script::Script;

/// One wrong packet costs that packet: what the card does, and where it is counted.
const PACKETS: [(&str, &str); 7] = [
    ("rx.used-len times 3 5", "rx0_short"),
    ("rx.used-len times 3 0", "rx0_short"),
    ("rx.header.10 times 3 0", "rx0_bad_header"),
    ("rx.header.11 times 3 0xff", "rx0_bad_header"),
    ("rx.header.10 times 1 3", "rx0_missing_buffers"),
    ("rx.header.0 times 3 1", "rx0_bad_header"),
    ("rx.header.1 times 3 1", "rx0_bad_header"),
];

/// The queue is out of use afterwards, and the kernel's log says so.
const QUEUES: [&str; 4] = [
    "rx.used-len 70000",
    "rx.used-id 4000000000",
    "tx.used-id 200",
    "tx.used-id 4000000000",
];

/// How many cards that do anything at all there are.
const SEEDS: u64 = 6;

pub fn tests() -> Vec<Test> {
    let test = |name: &str, seconds, pairs, body: fn(&mut Guest) -> Result<()>| {
        Test::guest(
            format!("net/{}/bent/{name}", RUST.module),
            seconds,
            Spec::q35().card(pairs, &[]),
            move |guest, _| body(guest),
        )
    };

    let not_looked_into = |name: &str, properties: &str, body: fn(&mut Guest) -> Result<()>| {
        Test::guest(
            format!("net/{}/bent/{name}", RUST.module),
            120,
            Spec::q35().tap(1, &format!("{MODERN}{properties}")),
            move |guest, _| body(guest),
        )
        .allow_message(LATE)
    };

    vec![
        test("packets", 120, 1, packets),
        test("queues", 120, 1, queues),
        test("silent-control", 120, 2, silent_control),
        test("refusing-control", 60, 2, refusing_control),
        test("statistics", 60, 2, statistics),
        test("lost-kick", 60, 1, lost_kick).allow_message(LATE),
        test("silent-transmit", 120, 1, silent_transmit).allow_message(LATE),
        test("anything", 240, 2, anything),
        not_looked_into("ignored-queue", ",queue_reset=on", |guest| {
            ignored(guest, "queue", "queue_reset", 2)
        }),
        not_looked_into("ignored-device", ",queue_reset=on", |guest| {
            ignored(guest, "device", "device_reset", 3)
        }),
        not_looked_into("ignored-fixed", ",queue_reset=off", |guest| {
            ignored(guest, "device", "device_reset", 2)
        }),
    ]
}

/// Has the card follow a script from now on.
fn bend(guest: &mut Guest, script: &str) -> Result<()> {
    guest.card()?.script = script.parse().with_context(|| script.to_owned())?;
    Ok(())
}

/// Has the card behave, and returns how often it did not.
fn straighten(guest: &mut Guest) -> Result<u64> {
    Ok(std::mem::take(&mut guest.card()?.script).bent)
}

fn packets(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    for (script, counter) in PACKETS {
        let before = statistic(guest, counter)?;
        bend(guest, script)?;
        guest.run("ping -c 4 -i 0.1 -W 1 10.0.2.2")?;
        let bent = straighten(guest)?;
        let counted = statistic(guest, counter)? - before;
        ensure!(
            bent > 0 && counted > 0,
            "{script}: done {bent} times, {counted} counted as {counter}"
        );
        ping(guest, 3).with_context(|| format!("after {script}"))?;
    }
    bend(guest, "rx.copies times 20 30")?;
    guest.run("ping -c 5 -i 0.1 -W 1 10.0.2.2")?;
    ensure!(straighten(guest)? > 0, "no packet came twice");
    card::echo(guest)
}

fn queues(guest: &mut Guest) -> Result<()> {
    for script in QUEUES {
        up(guest, RUST)?;
        bend(guest, script)?;
        guest.run("ping -c 4 -i 0.1 -W 1 10.0.2.2")?;
        ensure!(straighten(guest)? > 0, "{script} has not happened");
        let lost = guest.run("ping -c 3 -i 0.1 -W 1 10.0.2.2")?;
        ensure!(lost.status != 0, "{script} does no harm");
        guest.sh("ip link set eth0 down && ip link set eth0 up")?;
        RUST.unload(guest)?;
    }
    up(guest, RUST)?;
    ping(guest, 3)
}

/// Commands that are not answered are given up, and hold up nothing else.
fn silent_control(guest: &mut Guest) -> Result<()> {
    const GROUPS: &str =
        "for i in 1 2 3 4; do /bin/ip maddress add 33:33:00:00:00:0$i dev eth0; done";

    up(guest, RUST)?;
    bend(guest, "control.used times all 0")?;
    let start = Instant::now();
    guest.sh(GROUPS)?;
    let refused = guest.run("ethtool -L eth0 combined 1")?;
    ensure!(
        refused.status != 0,
        "a command that is not answered succeeds"
    );
    ping(guest, 3)?;
    RUST.unload(guest)?;
    let taken = start.elapsed();
    ensure!(
        taken < Duration::from_secs(25),
        "it took {} s",
        taken.as_secs()
    );

    ensure!(straighten(guest)? > 0, "no command was sent");
    up(guest, RUST)?;
    guest.sh("ethtool -L eth0 combined 1")?;
    ping(guest, 3)
}

/// Commands that are refused are for nothing.
fn refusing_control(guest: &mut Guest) -> Result<()> {
    bend(guest, "control.status times all 1")?;
    up(guest, RUST)?;
    for wish in [
        "ethtool -L eth0 combined 2",
        "ethtool -C eth0 rx-usecs 5",
        "/bin/ip link set eth0 address 52:54:00:00:00:99",
    ] {
        let refused = guest.run(wish)?;
        ensure!(refused.status != 0, "{wish}: succeeds");
    }
    ping(guest, 3)?;
    ensure!(straighten(guest)? > 0, "no command was sent");
    guest.sh("ethtool -L eth0 combined 2 && ethtool -C eth0 rx-usecs 5")?;
    ping(guest, 3)
}

/// Statistics that make no sense are not shown, and their end is found.
fn statistics(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    for script in [
        "stats.size times all 0",
        "stats.size times all 7",
        "stats.size times all 65535",
        "stats.queue times all 65535",
        "stats.queue times all 4",
    ] {
        bend(guest, script)?;
        let value = statistic(guest, "rx1_hw_ratelimit_bytes")?;
        ensure!(value == 0, "{script}: {value}");
        ensure!(straighten(guest)? > 0, "{script} has not happened");
    }
    bend(
        guest,
        "seed 1\nstats.size times all random\nstats.queue times all random",
    )?;
    for _ in 0..10 {
        statistic(guest, "rx0_hw_packets")?;
    }
    straighten(guest)?;
    let value = statistic(guest, "rx1_hw_ratelimit_bytes")?;
    ensure!(value == 22, "{value}");
    ping(guest, 3)
}

/// What the stack says when a queue was stopped for too long.
const LATE: &str = "NETDEV WATCHDOG";

/// Until the watchdog's first look, and its second one.
const WATCHDOG: Duration = Duration::from_secs(15);

/// What an interface is to everybody else.
const INTERFACE: &str =
    "cat /sys/class/net/eth0/ifindex; /bin/ip -4 -o addr show eth0; ethtool -c eth0";

/// Has the guest send more than a ring holds, without waiting for an end of it.
const FLOOD: &str = "ping -q -c 3000 -i 0.002 -W 1 10.0.2.2 >/dev/null 2>&1 &";

/// Of what can be tried, this has helped, and nothing else.
fn recovered(guest: &mut Guest, by: &str) -> Result<()> {
    for step in ["kick", "queue_reset", "device_reset"] {
        let counted = statistic(guest, &format!("tx0_recoveries_by_{step}"))?;
        ensure!((counted > 0) == (step == by), "{counted} by {step}");
    }
    Ok(())
}

/// Has QEMU's card not look into its transmit queue, until that or the card is reset. Returns when a step of the driver's has helped,
/// after as many timeouts; the interface stays as it was.
fn ignored(guest: &mut Guest, until: &str, by: &str, timeouts: u64) -> Result<()> {
    const IGNORE: &str = "/sys/module/restart_queue/parameters/ignore";

    up(guest, RUST)?;
    guest.insmod("restart_queue", "")?;
    let before = guest.sh(INTERFACE)?;
    guest.sh(&format!("echo eth0 1 {until} >{IGNORE}"))?;
    guest.sh("(for i in $(seq 30); do ping -q -c 300 -i 0.002 -W 1 10.0.2.2; done) >/dev/null 2>&1 </dev/null &")?;
    guest.wait_for("a step that helps", 4 * WATCHDOG, |guest| {
        let counted = statistic(guest, &format!("tx0_recoveries_by_{by}"))?;
        Ok((counted > 0).then_some(()))
    })?;
    recovered(guest, by)?;
    let counted = statistic(guest, "tx0_tx_timeouts")?;
    ensure!(counted == timeouts, "{counted} times too late");
    let was_reset = guest.run("dmesg | grep 'the device was reset'")?.status == 0;
    ensure!(was_reset == (by == "device_reset"), "{was_reset}");

    ping(guest, 20)?;
    let after = guest.sh(INTERFACE)?;
    ensure!(before == after, "{before} and then {after}");
    RUST.unload(guest)
}

/// A notification of a transmit queue that is lost costs the time until the watchdog looks.
fn lost_kick(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    card::echo(guest)?;
    bend(guest, "tx.kick times 1 0")?;
    guest.sh(FLOOD)?;
    guest.wait_for("the watchdog", WATCHDOG, |guest| {
        Ok((statistic(guest, "tx0_tx_timeouts")? > 0).then_some(()))
    })?;
    ensure!(straighten(guest)? == 1, "no notification was lost");
    ping(guest, 3)?;
    recovered(guest, "kick")?;
    card::echo(guest)?;
    let begins = guest.card()?.begins;
    ensure!(begins == 1, "the card was reset {} times", begins - 1);
    Ok(())
}

/// A card that gives nothing back is reset, and again after a longer pause; the interface stays as it was.
fn silent_transmit(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    guest.sh("ethtool -C eth0 rx-usecs 5")?;
    let before = guest.sh(INTERFACE)?;
    bend(guest, "tx.used times all 0")?;
    guest.sh(FLOOD)?;
    for resets in 1..=2 {
        guest.wait_for("a reset", 2 * WATCHDOG, |guest| {
            Ok((guest.card()?.begins > resets).then_some(()))
        })?;
        guest.sh(FLOOD)?;
    }
    // It keeps another packet, so that one more reset is due.
    guest.wait_for("a packet", WATCHDOG, |guest| {
        Ok((guest.card()?.queues[1].packets > 0).then_some(()))
    })?;
    ensure!(straighten(guest)? > 0, "the card gives buffers back");

    guest.wait_for("the last reset", 4 * WATCHDOG, |guest| {
        let answered = guest.run("ping -c 3 -i 0.1 -W 1 10.0.2.2")?;
        Ok((answered.status == 0).then_some(()))
    })?;
    card::echo(guest)?;
    let after = guest.sh(INTERFACE)?;
    ensure!(before == after, "{before} and then {after}");
    let counted = statistic(guest, "tx0_tx_timeouts")?;
    ensure!(counted >= 4, "{counted} times too late");

    // One that is reset can be let go of meanwhile.
    bend(guest, "tx.used times all 0")?;
    let begins = guest.card()?.begins;
    guest.sh(FLOOD)?;
    guest.wait_for("a reset", 2 * WATCHDOG, |guest| {
        Ok((guest.card()?.begins > begins).then_some(()))
    })?;
    RUST.unload(guest)
}

/// The card says anything at all.
fn anything(guest: &mut Guest) -> Result<()> {
    for seed in 0..SEEDS {
        let mut script = format!("seed {seed}\n");
        for byte in 0..12 {
            script += &format!(
                "rx.header.{byte} after {} times 60 random\n",
                byte * 3 + seed
            );
        }
        for point in ["rx.used-len", "rx.used-id", "control.status"] {
            script += &format!("{point} after {} times 5 random\n", 90 + 30 * seed);
        }
        // It is a script at all.
        script.parse::<Script>()?;

        up(guest, RUST)?;
        bend(guest, &script)?;
        guest.run_for(
            Duration::from_secs(60),
            "ping -c 150 -i 0.01 -W 1 10.0.2.2 >/dev/null; ethtool -C eth0 rx-usecs 5; \
             head -c 100000 /dev/zero | timeout 5 nc 10.0.2.2 7 >/dev/null",
        )?;
        ensure!(straighten(guest)? > 50, "seed {seed} has not happened");
        RUST.unload(guest)?;
    }
    up(guest, RUST)?;
    card::echo(guest)
}
