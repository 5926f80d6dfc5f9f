// SPDX-License-Identifier: GPL-2.0

//! Virtual functions of a network card. The C driver passes the same test.

use super::{
    net::{
        C,
        MODERN,
        RUST, //
    },
    several::{
        self,
        address,
        interface,
        moves, //
    },
    Driver,
    Test, //
};
use crate::guest::{
    Guest,
    Lab,
    Spec, //
};
use anyhow::{
    ensure,
    Result, //
};

/// How many virtual functions the card can have.
const FUNCTIONS: u32 = 3;

pub fn tests() -> Vec<Test> {
    [RUST, C]
        .map(|driver| {
            Test::guest(
                format!("net/{}/sriov", driver.module),
                120,
                spec(),
                move |guest, lab| sriov(guest, lab, driver),
            )
        })
        .into()
}

/// A card whose physical function is number 0 behind a port of its own; QEMU wants the virtual ones first.
fn spec() -> Spec {
    let mut spec = several::network(Spec::q35().port(), 0);

    for number in 1..=FUNCTIONS {
        spec = several::network(spec, number).device(
            "virtio-net",
            &format!("{MODERN},bus=port0,addr=0.{number},netdev=net{number},sriov-pf=n0"),
        );
    }
    spec.device(
        "virtio-net",
        &format!("{MODERN},id=n0,bus=port0,addr=0.0,netdev=net0"),
    )
}

/// Virtual functions come and go as the user wishes; the driver takes each, and each moves data.
fn sriov(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    const SR_IOV: u32 = 37;

    driver.load(guest, "")?;
    let physical = guest.sh("cd /sys/bus/pci/devices && ls -d */sriov_numvfs | cut -d/ -f1")?;
    let function = |number: u32| physical.replace(".0", &format!(".{number}"));
    let device = format!("/sys/bus/pci/devices/{physical}");
    let bit = |guest: &mut Guest, device: &str| {
        guest.sh(&format!("cut -c{} {device}/virtio*/features", SR_IOV + 1))
    };
    let of_physical = bit(guest, &device)?;
    ensure!(of_physical == "1", "VIRTIO_F_SR_IOV is {of_physical}");
    let most = guest.number(&format!("cat {device}/sriov_totalvfs"))?;
    ensure!(most == u64::from(FUNCTIONS), "at most {most} functions");

    let of_physical = interface(guest, &physical)?;
    address(guest, &of_physical, 0)?;
    for count in [FUNCTIONS, 2] {
        guest.sh(&format!("echo {count} >{device}/sriov_numvfs"))?;
        for number in 1..=count {
            let name = interface(guest, &function(number))?;
            let info = guest.sh(&format!("ethtool -i {name}"))?;
            ensure!(
                info.lines()
                    .any(|line| line == format!("driver: {}", driver.module)),
                "{info}"
            );
            // One that does not have the feature has no functions of its own.
            let device = format!("/sys/bus/pci/devices/{}", function(number));
            let bit = bit(guest, &device)?;
            ensure!(bit == "0", "VIRTIO_F_SR_IOV is {bit} in {device}");
            let file = guest.run(&format!("test -e {device}/sriov_totalvfs"))?;
            ensure!(file.status != 0, "{device} has functions");
            address(guest, &name, number)?;
            moves(guest, lab, &name, number, true)?;
        }
        moves(guest, lab, &of_physical, 0, true)?;

        // They go while packets are under way.
        guest.sh("(ping -A -s 1400 10.1.1.2 >/dev/null 2>&1 & echo $! >/run/ping); sleep 0.5")?;
        guest.sh(&format!(
            "echo 0 >{device}/sriov_numvfs || exit; kill $(cat /run/ping); true"
        ))?;
        let left = guest.sh("ls -d /sys/class/net/*/device | cut -d / -f 5")?;
        ensure!(left == of_physical, "left are {left:?}");
        moves(guest, lab, &of_physical, 0, true)?;
    }
    Ok(())
}
