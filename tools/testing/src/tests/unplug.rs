// SPDX-License-Identifier: GPL-2.0

//! A network card is taken out of a guest while data moves both ways, with the consent of the guest and without. The C driver passes
//! the tests in which the kernel hears of that.

use super::{
    migration::Stream,
    net::{
        ping,
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload::up,
    plug::{
        pull_out,
        put_in,
        switch_off,
        take_out, //
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
    Result, //
};

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        for (subject, spec, asked) in [
            ("asked", Spec::q35().port(), true),
            ("asked-express", Spec::q35().express_port(), true),
            ("surprise", Spec::q35().express_port(), false),
        ] {
            let test = Test::guest(
                format!("net/{}/unplug/{subject}", driver.module),
                180,
                spec.tap(1, &format!("{MODERN},bus=port0")),
                move |guest, _| unplug(guest, driver, asked),
            );
            tests.push(if subject == "asked" {
                test
            } else {
                test.stock_only(
                    "lockdep finds fault with the kernel's pciehp when a slot is emptied",
                )
            });
        }
    }
    // The C driver's reset waits for the device without end.
    tests.push(Test::guest(
        "net/virtio_net_rust/unplug/unnoticed",
        120,
        Spec::q35()
            .express_port()
            .tap(1, &format!("{MODERN},bus=port0")),
        |guest, _| unnoticed(guest),
    ));
    tests
}

/// The port of the card.
const PORT: &str = "/sys/class/net/eth0/device/../..";

/// The card goes while a TCP connection moves data and the user has something to tell the card; its module can be removed. A card that
/// is put in after that works, and the connection goes on with it.
fn unplug(guest: &mut Guest, driver: Driver, asked: bool) -> Result<()> {
    up(guest, driver)?;
    let stream = Stream::new(guest)?;
    stream.flows(guest)?;
    guest.sh(&format!(
        "(while {IP} link set eth0 promisc on && {IP} link set eth0 promisc off; do :; done) \
         >/dev/null 2>&1 </dev/null &"
    ))?;
    if asked {
        take_out(guest)?;
    } else {
        pull_out(guest, PORT)?;
    }
    driver.unload(guest)?;
    let functions = guest.sh("ls /sys/bus/virtio/devices")?;
    ensure!(functions.lines().count() == 1, "left are {functions}");

    driver.load(guest, "")?;
    put_in(guest, MODERN)?;
    guest.sh(&format!(
        "{IP} address add 10.0.2.15/24 dev eth0 && {IP} link set eth0 up"
    ))?;
    stream.flows(guest)?;
    stream.finish(guest)?;
    ping(guest, 3)?;
    driver.unload(guest)
}

/// The card goes while packets move, and the kernel does not know: what the user wants ends within a time, and the module can be
/// removed.
fn unnoticed(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    guest.sh("(ping -A -s 1400 10.0.2.2 >/dev/null 2>&1 &); sleep 0.5")?;
    switch_off(guest, PORT)?;
    for wish in ["promisc on", "address 52:54:00:00:00:99", "down"] {
        guest.run(&format!("{IP} link set eth0 {wish}"))?;
    }
    // It has ended already if it wanted to send once more: without the interface there is no way.
    guest.run("killall ping")?;
    RUST.unload(guest)
}
