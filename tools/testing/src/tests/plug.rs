// SPDX-License-Identifier: GPL-2.0

//! A network card behind a port of its own, `n0` of a guest that has [`Spec::port`](crate::guest::Spec::port), comes and goes while
//! the guest runs; and any device goes whose port has registers for its slot.

use super::net::appears;
use crate::guest::Guest;
use anyhow::{
    ensure,
    Context,
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

/// Switches off the power of the slot behind a port, which is named by a directory, so that the function in it is gone though nobody
/// has asked its driver. The kernel takes the slot for one that it has switched off itself. The guest has
/// [`Spec::express_port`](crate::guest::Spec::express_port).
pub fn switch_off(guest: &mut Guest, port: &str) -> Result<()> {
    const EXPRESS: u8 = 0x10;
    const SLOT_CONTROL: usize = 0x18;
    // The controls of the slot's power, and of its indicator.
    const OFF: u16 = 0x0700;

    let port = guest.sh(&format!("readlink -f {port}"))?;
    let config: Vec<u8> = guest
        .sh(&format!("hexdump -v -e '1/1 \"%u \"' -n 256 {port}/config"))?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let byte = |at: usize| config.get(at).copied().context("the port's registers");

    let mut at = usize::from(byte(0x34)?);
    while byte(at)? != EXPRESS {
        at = usize::from(byte(at + 1)?);
        ensure!(at != 0, "the port is not one of PCI Express");
    }
    at += SLOT_CONTROL;
    let control = u16::from_le_bytes([byte(at)?, byte(at + 1)?]) | OFF;
    let [low, high] = control.to_le_bytes();
    guest
        .sh(&format!(
            "printf '\\{low:03o}\\{high:03o}' | dd of={port}/config bs=2 seek={} conv=notrunc 2>/dev/null",
            at / 2
        ))
        .map(drop)
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
