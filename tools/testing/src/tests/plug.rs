// SPDX-License-Identifier: GPL-2.0

//! A network card behind a port of its own, `n0` of a guest that has [`Spec::port`](crate::guest::Spec::port), comes and goes while
//! the guest runs.

use super::net::appears;
use crate::guest::Guest;
use anyhow::{
    ensure,
    Result, //
};
use qapi::qmp;
use std::time::Duration;

/// How long a card may take to come or go.
pub const PLUG: Duration = Duration::from_secs(30);

/// Takes the card out, with the consent of the guest, and waits until that has no interface any more.
pub fn take_out(guest: &mut Guest) -> Result<()> {
    guest.qmp(qmp::device_del {
        id: "n0".to_owned(),
    })?;
    guest.wait_for("the end of the card", PLUG, |guest| {
        Ok((guest.run("test -e /sys/class/net/eth0")?.status != 0).then_some(()))
    })
}

/// Puts a card with these properties in, at the other end of the same cable.
pub fn put_in(guest: &mut Guest, properties: &str) -> Result<()> {
    let add = format!("device_add virtio-net-pci,id=n0,bus=port0,netdev=net0,{properties}");

    // QEMU has the old one for a moment longer than the guest.
    let mut answer = String::new();
    guest
        .wait_for("a place for the card", PLUG, |guest| {
            answer = guest.qmp(qmp::human_monitor_command {
                cpu_index: None,
                command_line: add.clone(),
            })?;
            Ok(answer.is_empty().then_some(()))
        })
        .map_err(|error| error.context(answer))?;
    appears(guest)
}

/// Takes the card out, and puts one with these properties in.
pub fn replace(guest: &mut Guest, properties: &str) -> Result<()> {
    take_out(guest)?;
    put_in(guest, properties)
}

/// Whether the driver has accepted a feature.
pub fn has(guest: &mut Guest, bit: u32) -> Result<bool> {
    let value = guest.sh(&format!(
        "cut -c{} /sys/class/net/eth0/device/features",
        bit + 1
    ))?;
    ensure!(
        ["0", "1"].contains(&value.as_str()),
        "bit {bit} is {value:?}"
    );
    Ok(value == "1")
}
