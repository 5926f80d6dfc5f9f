// SPDX-License-Identifier: GPL-2.0

//! Tests of receive queues that the kernel restarts with memory of their own (`netdev_rx_queue_restart`), which the module
//! `restart_queue` of `tools/testing/fixtures` has it do, and of cards that do not reset a queue. The C driver cannot do the first and
//! does not come back from the second, so there is no twin.

use super::{
    net::{
        ping,
        IP,
        MODERN,
        RUST, //
    },
    offload::{
        packet_size,
        up,
        MOVE, //
    },
    xdp::{
        attach,
        ensure_echoes,
        pings, //
    },
    xsk::{
        self,
        CAPABLE, //
    },
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
use std::{
    collections::BTreeMap,
    time::{
        Duration,
        Instant, //
    }, //
};

/// Where a restart is asked for.
const RESTART: &str = "/sys/module/restart_queue/parameters/restart";

/// Where it is said what the card does not do.
const REFUSE: &str = "/sys/module/restart_queue/parameters/refuse";

/// What an interface is to everybody else.
const INTERFACE: &str = "cat /sys/class/net/eth0/ifindex; /bin/ip -4 -o addr show eth0";

/// How often each queue is restarted under traffic, where the kernel is not slow.
const TIMES: u32 = 48;

/// Longest time for that.
const RESTARTS: Duration = Duration::from_secs(120);

/// Longest time until a device that was reset moves packets again.
const RECOVERY: Duration = Duration::from_secs(30);

pub fn tests() -> Vec<Test> {
    let name = |subject: &str| format!("net/{}/restart/{subject}", RUST.module);
    let test = |subject: &str, seconds, spec, body: fn(&mut Guest) -> Result<()>| {
        Test::guest(name(subject), seconds, spec, move |guest, _| body(guest))
    };
    let tap = |pairs: u32, properties: &str| {
        Spec::q35().tap(
            pairs,
            &format!("{MODERN},mq=on,vectors={}{properties}", 2 * pairs + 2),
        )
    };

    vec![
        Test::guest(name("traffic"), 240, tap(2, ""), traffic),
        Test::guest(
            name("traffic-small"),
            240,
            tap(2, ",mrg_rxbuf=off,packed=on"),
            traffic,
        ),
        test("socket", 120, tap(1, CAPABLE), socket),
        test("down", 60, tap(1, ""), down),
        test("refused", 60, tap(1, ",queue_reset=off"), refused),
        test("kept", 120, tap(2, ""), kept),
        test("kept-rings", 180, tap(2, ""), kept_rings),
        test("kept-socket", 120, tap(1, CAPABLE), kept_socket),
    ]
}

/// Loads the driver and what asks for restarts.
fn begin(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    guest.insmod("restart_queue", "")
}

/// Ends that.
fn end(guest: &mut Guest) -> Result<()> {
    guest.sh("rmmod restart_queue")?;
    RUST.unload(guest)
}

/// Restarts a receive queue.
fn restart(guest: &mut Guest, queue: u32) -> Result<()> {
    guest.sh(&format!("echo eth0 {queue} >{RESTART}")).map(drop)
}

/// Has a restart fail, and returns with what.
fn restart_fails(guest: &mut Guest, what: &str) -> Result<String> {
    let output = guest.run(&format!("echo {what} >{RESTART}"))?;

    ensure!(output.status != 0, "{what}: the queue is restarted");
    Ok(output.stderr)
}

/// The numbers of the page pools of the receive queues that are in use, by the queue.
fn pools(guest: &mut Guest) -> Result<BTreeMap<u64, u64>> {
    let text = guest.sh("pools eth0")?;
    let pairs = |kind: &str| -> Vec<(u64, u64)> {
        text.lines()
            .filter_map(|line| line.strip_prefix(kind)?.trim().split_once(' '))
            .filter_map(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
            .collect()
    };
    let by_instance: BTreeMap<u64, u64> = pairs("pool ")
        .into_iter()
        .map(|(pool, napi)| (napi, pool))
        .collect();

    pairs("queue ")
        .into_iter()
        .map(|(queue, napi)| {
            let pool = by_instance.get(&napi).with_context(|| text.clone())?;
            Ok((queue, *pool))
        })
        .collect()
}

/// A TCP stream survives that both queues are restarted again and again. Each restart gives one queue another pool, and none of those
/// that were given up stays.
fn traffic(guest: &mut Guest, lab: &Lab) -> Result<()> {
    let times = TIMES / lab.slow;

    begin(guest)?;
    let before = pools(guest)?;
    ensure!(before.len() == 2, "{before:?}");
    restart(guest, 0)?;
    let after = pools(guest)?;
    ensure!(
        after[&0] > before[&0] && after[&1] == before[&1],
        "{before:?} became {after:?}"
    );

    guest.sh(&format!(
        "(for n in $(seq {times}); do for queue in 0 1; do echo eth0 $queue >{RESTART} || exit; done; \
         sleep 0.02; done; echo all >/run/restarted) >/dev/null 2>/run/failed </dev/null &"
    ))?;
    let start = Instant::now();
    let mut over = false;
    while !over {
        // What was sent before the last restart has met it.
        over = guest.run("grep -q all /run/restarted")?.status == 0;
        packet_size(guest, true, "10.0.2.15")?;
        packet_size(guest, false, "10.0.2.2")?;
        let failed = guest.sh("cat /run/failed")?;
        ensure!(failed.is_empty(), "{failed}");
        ensure!(
            start.elapsed() < RESTARTS * lab.slow,
            "the queues are not restarted"
        );
    }

    let last = pools(guest)?;
    for queue in [0, 1] {
        ensure!(
            last[&queue] >= after[&queue] + u64::from(2 * times - 1),
            "{after:?} became {last:?}"
        );
    }
    guest.wait_for("the end of old pools", MOVE, |guest| {
        let detached = guest.run("pools eth0 | grep detached")?;
        Ok((detached.status != 0).then_some(()))
    })?;
    ping(guest, 3)?;
    end(guest)
}

/// A queue that is filled with frames of a socket's goes on with them.
fn socket(guest: &mut Guest) -> Result<()> {
    begin(guest)?;
    attach(guest, "eth0", "to_socket")?;
    restart(guest, 0)?;
    ensure!(pings(guest, 20, 1400)? == 20, "pings are lost");

    xsk::start(guest, "")?;
    ensure_echoes(guest, 50, 1400)?;
    for _ in 0..5 {
        restart(guest, 0)?;
        ensure_echoes(guest, 50, 1400)?;
    }
    xsk::end(guest)?;
    ensure!(pings(guest, 20, 1400)? == 20, "pings are lost at the end");
    end(guest)
}

/// The queue of an interface that is down keeps its memory, and there is no queue that is not in use.
fn down(guest: &mut Guest) -> Result<()> {
    begin(guest)?;
    let stderr = restart_fails(guest, "eth0 1")?;
    ensure!(stderr.contains("out of range"), "{stderr}");
    let before = pools(guest)?;
    guest.sh(&format!("{IP} link set eth0 down"))?;
    for _ in 0..5 {
        restart(guest, 0)?;
    }
    guest.sh(&format!("{IP} link set eth0 up"))?;
    let after = pools(guest)?;
    ensure!(before == after, "{before:?} became {after:?}");
    ping(guest, 3)?;
    restart(guest, 0)?;
    ping(guest, 3)?;
    end(guest)
}

/// A card that cannot reset a queue has no queue that could be restarted.
fn refused(guest: &mut Guest) -> Result<()> {
    begin(guest)?;
    let stderr = restart_fails(guest, "eth0 0")?;
    ensure!(stderr.contains("not supported"), "{stderr}");
    ping(guest, 3)?;
    end(guest)
}

/// Has the card not do one of the steps of resetting a queue, until it is reset itself.
fn refuse(guest: &mut Guest, step: &str) -> Result<()> {
    guest.sh("dmesg -c >/dev/null")?;
    guest.sh(&format!("echo eth0 {step} >{REFUSE}")).map(drop)
}

/// Waits until the card has been reset because it keeps a queue, and moves packets.
fn recovered(guest: &mut Guest) -> Result<()> {
    guest.wait_for("the reset", RECOVERY, |guest| {
        let log = guest.sh("dmesg")?;
        ensure!(!log.contains("not reset"), "{log}");
        Ok(log.contains("the device was reset").then_some(()))
    })?;
    guest.wait_for("an answer", RECOVERY, |guest| {
        let answered = guest.run("ping -c 3 -i 0.1 -W 1 10.0.2.2")?;
        Ok((answered.status == 0).then_some(()))
    })?;
    let log = guest.sh("dmesg")?;
    ensure!(
        log.contains("the device keeps a queue; it is reset"),
        "{log}"
    );
    Ok(())
}

/// A card that does not reset a queue when told, or keeps it, is reset itself: the interface goes on as it was, with the memory that
/// it had.
fn kept(guest: &mut Guest) -> Result<()> {
    begin(guest)?;
    for (queue, step) in [(0, "disable"), (1, "enable")] {
        let (before, had) = (guest.sh(INTERFACE)?, pools(guest)?);
        refuse(guest, step)?;
        let stderr = restart_fails(guest, &format!("eth0 {queue}"))?;
        ensure!(stderr.contains("busy"), "{step}: {stderr}");
        recovered(guest)?;

        packet_size(guest, true, "10.0.2.15")?;
        let (after, has) = (guest.sh(INTERFACE)?, pools(guest)?);
        ensure!(before == after, "{before} became {after}");
        ensure!(had == has, "{had:?} became {has:?}");
        restart(guest, queue)?;
        ping(guest, 3)?;
    }
    end(guest)
}

/// The same when the user wants rings of other sizes, while packets come and go in all of them.
fn kept_rings(guest: &mut Guest) -> Result<()> {
    begin(guest)?;
    guest.sh("ethtool -G eth0 rx 128 tx 128")?;
    for (wish, step) in [
        ("rx 64", "disable"),
        ("rx 64 tx 64", "enable"),
        ("tx 256", "enable"),
    ] {
        let sizes = "ethtool -g eth0";
        let (before, had) = (guest.sh(INTERFACE)?, guest.sh(sizes)?);
        guest.sh("ping -q -i 0.002 -w 2 10.0.2.2 >/dev/null 2>&1 </dev/null &")?;
        refuse(guest, step)?;
        let refused = guest.run(&format!("ethtool -G eth0 {wish}"))?;
        ensure!(refused.status != 0, "{wish}, {step}: it is done");
        recovered(guest)?;

        ensure!(pings(guest, 20, 1400)? == 20, "pings are lost, {wish}");
        let (after, has) = (guest.sh(INTERFACE)?, guest.sh(sizes)?);
        ensure!(before == after, "{before} became {after}");
        ensure!(had == has, "{had} became {has}");
    }
    guest.sh("ethtool -G eth0 rx 64 tx 64")?;
    ping(guest, 3)?;
    end(guest)
}

/// The same when a socket goes, or comes.
fn kept_socket(guest: &mut Guest) -> Result<()> {
    begin(guest)?;
    attach(guest, "eth0", "to_socket")?;
    xsk::start(guest, "")?;
    ensure_echoes(guest, 50, 1400)?;
    refuse(guest, "enable")?;
    xsk::end(guest)?;
    recovered(guest)?;
    ensure!(pings(guest, 20, 1400)? == 20, "pings are lost");

    refuse(guest, "enable")?;
    // It tries again, before the reset, after it, or while the device is away.
    guest.run("timeout 2 xsk eth0 0")?;
    recovered(guest)?;
    ensure!(pings(guest, 20, 1400)? == 20, "pings are lost");
    xsk::start(guest, "")?;
    ensure_echoes(guest, 50, 1400)?;
    xsk::end(guest)?;
    end(guest)
}
