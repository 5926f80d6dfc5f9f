// SPDX-License-Identifier: GPL-2.0

//! Tests of what each queue of a network card has counted, as user space asks for it of any card (`qstats-get` of the netlink
//! family `netdev`). The C driver passes the same tests, but for what is said there.

use super::{
    card::echo,
    net::{
        counter,
        C,
        MODERN,
        RUST, //
    },
    offload::up,
    queues::{
        on_cpu,
        statistic, //
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
use std::collections::BTreeMap;
use tenon_device::net::feature;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/qstats/{subject}", driver.module);

        tests.push(Test::guest(
            name("queues"),
            120,
            Spec::q35().tap(2, &format!("{MODERN},mq=on,vectors=6")),
            move |guest, _| queues(guest, driver),
        ));
        for (subject, without) in [("card", &[][..]), ("card-not", &[feature::DEVICE_STATS])] {
            tests.push(Test::guest(
                name(subject),
                60,
                Spec::q35().card(2, without),
                move |guest, _| card(guest, driver, without.is_empty()),
            ));
        }
    }
    tests
}

/// The statistics by their names, in sum (`scope` is empty) or of each queue (`queue`).
fn qstats(guest: &mut Guest, scope: &str) -> Result<BTreeMap<String, u64>> {
    let text = guest.sh(&format!("qstats eth0 {scope}"))?;

    text.lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').with_context(|| text.clone())?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

fn get(stats: &BTreeMap<String, u64>, name: &str) -> Result<u64> {
    stats
        .get(name)
        .copied()
        .with_context(|| format!("no {name} in {stats:?}"))
}

/// What the queues have counted adds up to what the card has, also when one of them is not in use any more.
fn queues(guest: &mut Guest, driver: Driver) -> Result<()> {
    const NAMES: [&str; 4] = ["rx-packets", "rx-bytes", "tx-packets", "tx-bytes"];
    let link = |guest: &mut Guest| -> Result<Vec<u64>> {
        NAMES
            .iter()
            .map(|name| counter(guest, &name.replace('-', "_")))
            .collect()
    };

    up(guest, driver)?;
    for cpu in [0, 1] {
        let before = qstats(guest, "queue")?;
        on_cpu(guest, driver, cpu)?;
        let after = qstats(guest, "queue")?;
        let (mine, other) = (cpu, 1 - cpu);
        for name in ["rx-packets", "rx-bytes", "tx-packets", "tx-bytes"] {
            let grown = |queue: u32| -> Result<u64> {
                let name = format!("{}{queue}{}", &name[..2], &name[2..]);
                Ok(get(&after, &name)? - get(&before, &name)?)
            };
            ensure!(
                grown(mine)? > 4 && grown(other)? < grown(mine)? / 4,
                "from CPU {cpu}, {name}: {before:?} became {after:?}"
            );
        }
        // None of them is larger than what is counted elsewhere.
        ensure!(get(&after, "tx0-stop")? >= get(&after, "tx0-wake")?);
    }

    // The guest may send something meanwhile.
    let before = link(guest)?;
    let each = qstats(guest, "queue")?;
    let sums = qstats(guest, "")?;
    let after = link(guest)?;
    for ((name, low), high) in NAMES.iter().zip(before).zip(after) {
        let (direction, rest) = (&name[..2], &name[2..]);
        let of_queues = get(&each, &format!("{direction}0{rest}"))?
            + get(&each, &format!("{direction}1{rest}"))?;
        for value in [of_queues, get(&sums, name)?] {
            ensure!(
                (low..=high).contains(&value),
                "{name}: {value} is not {low} to {high}"
            );
        }
        if driver == RUST {
            let own = statistic(guest, &name.replace('-', "_"))?;
            ensure!(own >= of_queues, "{name}: {of_queues} are {own} elsewhere");
        }
    }
    if driver == RUST {
        ensure!(get(&sums, "rx-alloc-fail")? == 0, "{sums:?}");
    }

    guest.sh("ethtool -L eth0 combined 1")?;
    let one = qstats(guest, "queue")?;
    ensure!(
        one.contains_key("rx0-packets") && !one.contains_key("rx1-packets"),
        "{one:?}"
    );
    let all = qstats(guest, "")?;
    for name in NAMES {
        ensure!(
            get(&all, name)? >= get(&sums, name)?,
            "{name}: {sums:?} became {all:?}"
        );
    }
    Ok(())
}

/// What the card itself has counted is among them, if it has.
fn card(guest: &mut Guest, driver: Driver, offered: bool) -> Result<()> {
    up(guest, driver)?;
    guest.sh("ethtool -L eth0 combined 2")?;
    echo(guest)?;
    let each = qstats(guest, "queue")?;
    let all = qstats(guest, "")?;

    ensure!(guest.card()?.has(feature::DEVICE_STATS) == offered);
    for name in [
        "rx-hw-drops",
        "rx-hw-drop-overruns",
        "rx-hw-drop-ratelimits",
        "tx-hw-drops",
        "tx-hw-drop-errors",
        "tx-hw-gso-packets",
        "tx-hw-gso-bytes",
        "tx-hw-gso-wire-packets",
        "tx-hw-gso-wire-bytes",
    ] {
        let of = |queue: u32| format!("{}{queue}{}", &name[..2], &name[2..]);
        ensure!(
            each.contains_key(&of(0)) == offered
                && each.contains_key(&of(1)) == offered
                && all.contains_key(name) == offered,
            "{name}: {each:?}, {all:?}"
        );
        if offered {
            let sum = get(&each, &of(0))? + get(&each, &of(1))?;
            let value = get(&all, name)?;
            ensure!(value >= sum, "{name}: {sum} of the queues, {value} in sum");
        }
    }
    if offered {
        // The C driver reads past the end of what it asks the card for then.
        let shown = if driver == RUST {
            guest.sh("ethtool -S eth0 | sed 's/^ *//'")?
        } else {
            String::new()
        };
        for (ours, theirs) in [
            ("rx0_hw_ratelimit_packets", "rx0-hw-drop-ratelimits"),
            ("tx1_hw_gso_segments", "tx1-hw-gso-wire-packets"),
        ] {
            let line = format!("{ours}: {}", get(&each, theirs)?);
            ensure!(
                driver == C || shown.lines().any(|shown| shown == line),
                "no {line} in {shown}"
            );
        }
        // What the card says whatever happens.
        ensure!(get(&each, "rx0-hw-drop-ratelimits")? == 11, "{each:?}");
    }
    Ok(())
}
