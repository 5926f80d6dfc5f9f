// SPDX-License-Identifier: GPL-2.0

//! Tests of what QEMU's network card does not have, with one of our own. The C driver passes the same tests, but for what is
//! said there.

use super::{
    net::{
        ping,
        C,
        RUST, //
    },
    offload::up,
    Driver,
    Test, //
};
use crate::guest::{
    Guest,
    Spec, //
};
use anyhow::{
    ensure,
    Result, //
};
use std::time::Duration;
use tenon_device::net::feature;

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
    }
    tests
}

/// Has the peer send back what it gets, and compares.
fn echo(guest: &mut Guest) -> Result<()> {
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
