// SPDX-License-Identifier: GPL-2.0

//! Several network cards in one guest, each on a network of its own.

use super::net::transfer_with;
use crate::guest::{
    Guest,
    Lab,
    Spec, //
};
use anyhow::{
    ensure,
    Result, //
};
use std::time::Duration;

/// How many bytes are moved each way to see that a card works.
const LENGTH: u64 = 1 << 20;

/// The netdev of the card with a number, on a network where QEMU itself answers.
pub fn network(spec: Spec, number: u32) -> Spec {
    spec.arguments(&[
        "-netdev",
        &format!("user,id=net{number},net=10.1.{number}.0/24"),
    ])
}

/// Waits until somebody outside of the guest listens on a TCP port.
pub fn listens(guest: &Guest, port: u16) -> Result<()> {
    guest
        .outside()
        .sh(
            Duration::from_secs(10),
            &format!("until ss -Hltn sport = :{port} | grep -q .; do sleep 0.05; done"),
        )
        .map(drop)
}

/// Waits until a PCI function has an interface, and returns its name.
pub fn interface(guest: &mut Guest, function: &str) -> Result<String> {
    guest.wait_for(
        &format!("the interface of {function}"),
        Duration::from_secs(10),
        |guest| {
            let output = guest.run(&format!(
                "basename /sys/bus/pci/devices/{function}/virtio*/net/*"
            ))?;
            let name = output.stdout.trim();
            Ok((output.status == 0 && name != "*").then(|| name.to_owned()))
        },
    )
}

/// Gives the interface of the card with a number an address in its network.
pub fn address(guest: &mut Guest, interface: &str, number: u32) -> Result<()> {
    guest
        .sh(&format!(
            "ip address add 10.1.{number}.15/24 dev {interface} && ip link set {interface} up"
        ))
        .map(drop)
}

/// Moves data both ways through the card with a number, compares it, and sees that it went through that card.
pub fn moves(
    guest: &mut Guest,
    lab: &Lab,
    interface: &str,
    number: u32,
    closes: bool,
) -> Result<()> {
    let host = format!("10.1.{number}.2");
    let counters = |guest: &mut Guest| -> Result<[u64; 2]> {
        let mut values = [0; 2];
        for (value, name) in values.iter_mut().zip(["rx_bytes", "tx_bytes"]) {
            *value = guest.number(&format!("cat /sys/class/net/{interface}/statistics/{name}"))?;
        }
        Ok(values)
    };

    let before = counters(guest)?;
    transfer_with(guest, lab, &host, LENGTH, closes)?;
    let after = counters(guest)?;
    ensure!(
        before
            .iter()
            .zip(after)
            .all(|(before, after)| after - before > LENGTH),
        "{interface}: {before:?} bytes became {after:?}"
    );
    Ok(())
}
