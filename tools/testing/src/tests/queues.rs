// SPDX-License-Identifier: GPL-2.0

//! Tests of several pairs of queues of a network card. The C driver passes the same tests.

use super::{
    net::{
        ping,
        C,
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
use std::{
    thread,
    time::Duration, //
};

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/queues/{subject}", driver.module);
        let tap = |queues, properties: &str| {
            Spec::q35().tap(queues, &format!("{MODERN},mq=on,{properties}"))
        };

        tests.push(Test::guest(
            name("two"),
            120,
            tap(2, "vectors=6"),
            move |guest, _| two(guest, driver),
        ));
        tests.push(Test::guest(
            name("more-than-cpus"),
            60,
            tap(4, "vectors=10"),
            move |guest, _| more(guest, driver),
        ));
        tests.push(Test::guest(
            name("hotplug"),
            60,
            tap(2, "vectors=6"),
            move |guest, _| hotplug(guest, driver),
        ));
        tests.push(Test::guest(
            name("one-interrupt"),
            60,
            tap(2, "vectors=0"),
            move |guest, _| shared(guest, driver),
        ));
    }
    tests
}

/// The most pairs of queues, and how many are in use.
fn channels(guest: &mut Guest) -> Result<(u64, u64)> {
    let text = guest.sh("ethtool -l eth0 | sed -n 's/^Combined:[[:space:]]*//p'")?;
    let mut numbers = text.lines().map(str::parse);
    let mut next = || -> Result<u64> { Ok(numbers.next().with_context(|| text.clone())??) };

    Ok((next()?, next()?))
}

/// A statistic of the card; 0 if it is not shown, as the C driver does with queues that are not in use.
pub fn statistic(guest: &mut Guest, name: &str) -> Result<u64> {
    guest.number(&format!(
        "ethtool -S eth0 | awk '$1 == \"{name}:\" {{ n = $2 }} END {{ print n + 0 }}'"
    ))
}

/// How busy the queues 0 and 1 have been: those that receive, then those that send. The C driver counts no packets of a queue
/// where `ethtool` shows it, but its interrupts and notifications can be counted.
pub fn activity(guest: &mut Guest, driver: Driver) -> Result<[u64; 4]> {
    let mut values = [0; 4];

    for queue in [0, 1] {
        let (received, sent) = if driver == RUST {
            (
                statistic(guest, &format!("rx{queue}_packets"))?,
                statistic(guest, &format!("tx{queue}_packets"))?,
            )
        } else {
            (
                guest.number(&format!(
                    "awk '/-input.{queue}$/ {{ n = $2 + $3 }} END {{ print n + 0 }}' /proc/interrupts"
                ))?,
                statistic(guest, &format!("tx{queue}_kicks"))?,
            )
        };
        values[queue] = received;
        values[2 + queue] = sent;
    }
    Ok(values)
}

/// Moves data in both directions over a connection of a process on one CPU, and returns by how much the [`activity`] grew.
pub fn on_cpu(guest: &mut Guest, driver: Driver, cpu: u32) -> Result<[u64; 4]> {
    let port = 6000 + cpu;
    let echo = guest
        .outside()
        .start(MOVE, format!("busybox nc -l -p {port} -e cat"));
    thread::sleep(Duration::from_millis(500));
    let before = activity(guest, driver)?;
    // Softirqs run on the CPU of the process that sends, so both ends of the connection are there.
    guest.sh_for(
        MOVE,
        &format!(
            "taskset {} sh -c 'head -c 2000000 /dev/zero | nc 10.0.2.2 {port} | head -c 2000000 >/dev/null'",
            1 << cpu
        ),
    )?;
    let after = activity(guest, driver)?;
    echo.finish()?;

    let mut grown = [0; 4];
    for ((grown, before), after) in grown.iter_mut().zip(before).zip(after) {
        *grown = after - before;
    }
    Ok(grown)
}

/// Two pairs, one for each CPU, and what the user can change.
fn two(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let numbers = channels(guest)?;
    ensure!(numbers == (2, 2), "{numbers:?}");

    for cpu in [0, 1] {
        let grown = on_cpu(guest, driver, cpu)?;
        let (mine, other) = (cpu as usize, 1 - cpu as usize);
        ensure!(
            grown[2 + mine] > 4 && grown[2 + other] < grown[2 + mine] / 4,
            "from CPU {cpu}: {grown:?}"
        );
        ensure!(
            grown[mine] > 4 && grown[other] < grown[mine] / 4,
            "to CPU {cpu}: {grown:?}"
        );
    }
    ensure_cpus(guest, [0, 1])?;

    guest.sh("ethtool -L eth0 combined 1")?;
    let numbers = channels(guest)?;
    ensure!(numbers == (2, 1), "{numbers:?}");
    for cpu in [0, 1] {
        let grown = on_cpu(guest, driver, cpu)?;
        ensure!(
            grown[0] > 4 && grown[1] == 0 && grown[2] > 4 && grown[3] == 0,
            "with one pair, CPU {cpu}: {grown:?}"
        );
    }
    for wrong in ["3", "0"] {
        let refused = guest.run(&format!("ethtool -L eth0 combined {wrong}"))?;
        ensure!(refused.status != 0, "{wrong} pairs are accepted");
    }
    guest.sh("ethtool -L eth0 combined 2")?;
    let grown = on_cpu(guest, driver, 1)?;
    ensure!(grown[1] > 4 && grown[3] > 4, "with two again: {grown:?}");

    // The interface goes down and comes back, and so does the driver.
    guest.sh("ip link set eth0 down && ip link set eth0 up")?;
    ping(guest, 3)?;
    driver.unload(guest)?;
    up(guest, driver)?;
    ping(guest, 3)
}

/// Each queue of the first two pairs belongs to this CPU.
fn ensure_cpus(guest: &mut Guest, cpus: [u32; 2]) -> Result<()> {
    for (queue, cpu) in cpus.iter().enumerate() {
        guest.wait_for("the queues' CPUs", Duration::from_secs(5), |guest| {
            let list = guest.sh(&format!(
                "for end in input output; do \
                 cat /proc/irq/$(sed -n \"s/ *\\([0-9]*\\):.*-$end.{queue}$/\\1/p\" /proc/interrupts)/smp_affinity_list; done; \
                 cat /sys/class/net/eth0/queues/tx-{queue}/xps_cpus"
            ))?;
            Ok((list == format!("{cpu}\n{cpu}\n{}", 1 << cpu)).then_some(()))
        })?;
    }
    Ok(())
}

/// A CPU goes, and comes back: its queue is another's meanwhile.
fn hotplug(guest: &mut Guest, driver: Driver) -> Result<()> {
    const CPU: &str = "/sys/devices/system/cpu/cpu1/online";

    up(guest, driver)?;
    ensure_cpus(guest, [0, 1])?;
    for _ in 0..2 {
        guest.sh(&format!("echo 0 >{CPU}"))?;
        ensure_cpus(guest, [0, 0])?;
        ping(guest, 3)?;
        guest.sh(&format!("echo 1 >{CPU}"))?;
        ensure_cpus(guest, [0, 1])?;
        ping(guest, 3)?;
    }

    // Neither is in the way of the other.
    for _ in 0..5 {
        guest.sh(&format!(
            "(echo 0 >{CPU}; echo 1 >{CPU}) >/dev/null 2>&1 & rmmod {}; wait",
            driver.module
        ))?;
        up(guest, driver)?;
    }
    ping(guest, 3)
}

/// More pairs than CPUs: as many as there are CPUs are used, and the user can have all.
fn more(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let numbers = channels(guest)?;
    ensure!(numbers == (4, 2), "{numbers:?}");
    guest.sh("ethtool -L eth0 combined 4")?;
    let numbers = channels(guest)?;
    ensure!(numbers == (4, 4), "{numbers:?}");
    ping(guest, 3)
}

/// A device that has one interrupt for everything.
fn shared(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let numbers = channels(guest)?;
    ensure!(numbers == (2, 2), "{numbers:?}");
    ping(guest, 3)?;
    for size in [100, 1400] {
        guest.sh(&format!(
            "taskset 1 ping -c 3 -i 0.1 -s {size} 10.0.2.2 && taskset 2 ping -c 3 -i 0.1 -s {size} 10.0.2.2"
        ))?;
    }
    Ok(())
}
