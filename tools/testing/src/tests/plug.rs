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
    is_out(guest)
}

/// Waits until the guest has no interface any more.
fn is_out(guest: &mut Guest) -> Result<()> {
    guest.wait_for("the end of the card", PLUG, |guest| {
        Ok((guest.run("test -e /sys/class/net/eth0")?.status != 0).then_some(()))
    })
}

/// The controls of a slot's power, and of its indicator.
const OFF: u16 = 0x0700;
/// Interrupts when something has come or gone, and interrupts at all.
const PRESENCE: u16 = 0x0008;
const INTERRUPT: u16 = 0x0020;

/// Where the slot behind a port is controlled: the guest has [`Spec::express_port`](crate::guest::Spec::express_port).
struct Slot {
    /// The port's configuration space.
    config: String,
    /// Where in there.
    at: usize,
}

impl Slot {
    /// Finds it behind a port, which is named by a directory.
    fn behind(guest: &mut Guest, port: &str) -> Result<Self> {
        const FIRST: usize = 0x34;
        const EXPRESS: u8 = 0x10;
        const SLOT_CONTROL: usize = 0x18;

        let port = guest.sh(&format!("readlink -f {port}"))?;
        let slot = |at| Slot {
            config: format!("{port}/config"),
            at,
        };
        let bytes = slot(0).read(guest, 256)?;
        let byte = |at: usize| bytes.get(at).copied().context("the port's registers");

        let mut at = usize::from(byte(FIRST)?);
        while byte(at)? != EXPRESS {
            at = usize::from(byte(at + 1)?);
            ensure!(at != 0, "the port is not one of PCI Express");
        }
        Ok(slot(at + SLOT_CONTROL))
    }

    fn read(&self, guest: &mut Guest, length: usize) -> Result<Vec<u8>> {
        Ok(guest
            .sh(&format!(
                "hexdump -v -e '1/1 \"%u \"' -s {} -n {length} {}",
                self.at, self.config
            ))?
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?)
    }

    fn control(&self, guest: &mut Guest) -> Result<u16> {
        let bytes = self.read(guest, 2)?;
        let bytes = bytes.as_slice().try_into().context("the slot's control")?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn set_control(&self, guest: &mut Guest, value: u16) -> Result<()> {
        let [low, high] = value.to_le_bytes();
        guest
            .sh(&format!(
                "printf '\\{low:03o}\\{high:03o}' | dd of={} bs=2 seek={} conv=notrunc 2>/dev/null",
                self.config,
                self.at / 2
            ))
            .map(drop)
    }
}

/// Switches off the power of the slot behind a port, so that the function in it is gone though nobody has asked its driver. The kernel
/// takes the slot for one that it has switched off itself.
pub fn switch_off(guest: &mut Guest, port: &str) -> Result<()> {
    let slot = Slot::behind(guest, port)?;
    let control = slot.control(guest)?;

    slot.set_control(guest, control | OFF)
}

/// Has the function behind a port be gone in the same way, and the kernel hear of that. Waits until it is done with the slot.
pub fn pull_out(guest: &mut Guest, port: &str) -> Result<()> {
    let slot = Slot::behind(guest, port)?;
    let control = slot.control(guest)?;

    // When the kernel looks, the slot has its power, and nothing in it.
    slot.set_control(guest, (control | OFF) & !INTERRUPT)?;
    slot.set_control(guest, control | PRESENCE)?;
    is_out(guest)?;

    // While it is busy it takes the slot for one that it has switched on; when it is done it finds nothing there.
    guest.wait_for("a slot that is off", PLUG, |guest| {
        let done = guest.run(
            "busy() { dmesg | grep -c 'Already enabled'; }; before=$(busy)
             echo 1 >/sys/bus/pci/slots/0/power; test $(busy) = $before",
        )?;
        Ok((done.status == 0).then_some(()))
    })?;
    // It does not use this interrupt itself: of a card that comes it would hear twice.
    let control = slot.control(guest)?;
    slot.set_control(guest, control & !PRESENCE)
}

/// Puts a card with these properties in, at the other end of the same cable.
pub fn put_in(guest: &mut Guest, properties: &str) -> Result<()> {
    let add = format!("device_add virtio-net-pci,id=n0,bus=port0,netdev=net0,{properties}");

    // QEMU has the old one for a moment longer than the guest.
    let mut answer = String::new();
    guest
        .wait_for("a place for the card", PLUG, |guest| {
            answer = guest.monitor(&add)?;
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
