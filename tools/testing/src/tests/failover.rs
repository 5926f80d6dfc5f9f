// SPDX-License-Identifier: GPL-2.0

//! Tests of a network card that stands in for another one (VIRTIO_NET_F_STANDBY): QEMU takes that one away before a migration, and
//! plugs one in after it. The C driver passes the same tests.
//!
//! It has no ROM, which QEMU would move although the card is gone. And it is no virtio card: the kernel's module `net_failover` takes only interfaces whose parent is a PCI function, which
//! that of a virtio card is not.

use super::{
    migration::{
        bridge,
        Stream, //
    },
    net::{
        address,
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
    Lab,
    Spec, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use qapi::{
    qmp,
    Dictionary, //
};
use std::time::Duration;

/// The address that both cards have.
const MAC: &str = "52:54:00:74:65:6e";
/// How long a card may take to come or go.
const PLUG: Duration = Duration::from_secs(30);

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    let standby = format!("{MODERN},failover=on,mac={MAC}");

    for driver in [RUST, C] {
        let test = Test::guest(
            format!("net/{}/failover", driver.module),
            300,
            Spec::q35()
                .tap(1, &standby)
                .arguments(&["-device", "pcie-root-port,id=port1,chassis=1,slot=1"])
                .arguments(&[
                    "-netdev",
                    "tap,id=net1,ifname=tap0p,script=no,downscript=no,vhost=off",
                ])
                .arguments(&[
                    "-device",
                    &format!(
                        "vmxnet3,id=primary,bus=port1,netdev=net1,mac={MAC},failover_pair_id=n0,romfile="
                    ),
                ]),
            move |guest, lab| failover(guest, lab, driver),
        );
        tests.push(test.stock_only("net_failover takes a lock that it has not initialised"));
    }
    // The C driver cannot be loaded then.
    tests.push(Test::guest(
        "net/virtio_net_rust/failover-alone",
        60,
        Spec::q35().network(&standby),
        |guest, _| alone(guest),
    ));
    tests
}

/// How many packets an interface has sent.
fn sent(guest: &mut Guest, name: &str) -> Result<u64> {
    guest.number(&format!("cat /sys/class/net/{name}/statistics/tx_packets"))
}

/// Waits until the primary card is there and sends what the guest sends.
fn primary(guest: &mut Guest, stream: &Stream) -> Result<()> {
    let name = guest.wait_for("the primary card", PLUG, |guest| {
        let output = guest.run(
            "cd /sys/class/net/eth0 && for lower in lower_*; do name=${lower#lower_}; \
             test $(basename $(readlink /sys/class/net/$name/device/driver)) = vmxnet3 && \
             test $(cat /sys/class/net/$name/carrier) = 1 && echo $name && break; done",
        )?;
        Ok((output.status == 0).then(|| output.stdout.trim().to_owned()))
    })?;
    let before = sent(guest, &name)?;
    stream.flows(guest)?;
    let packets = sent(guest, &name)? - before;
    ensure!(packets > 100, "the primary card sends {packets} packets");
    Ok(())
}

/// Waits until the primary card is gone, and sees that data moves on without it.
fn standby(guest: &mut Guest, stream: &Stream, name: &str) -> Result<()> {
    guest.wait_for("the end of the primary card", PLUG, |guest| {
        let left = guest.run("grep -l . /sys/bus/pci/drivers/vmxnet3/*/vendor")?;
        Ok((left.status != 0).then_some(()))
    })?;
    let before = sent(guest, name)?;
    stream.flows(guest)?;
    let packets = sent(guest, name)? - before;
    ensure!(packets > 100, "the standby card sends {packets} packets");
    Ok(())
}

/// The primary card goes and comes, by the user's wish and with a migration; a TCP connection lives on.
fn failover(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    const STANDBY: u32 = 62;

    up(guest, driver)?;
    let info = guest.sh("ethtool -i eth0")?;
    ensure!(info.starts_with("driver: net_failover"), "{info}");
    let name = guest.sh("cd /sys/class/net/eth0 && ls -d lower_* | sed s/lower_//")?;
    let port = guest.sh(&format!("cat /sys/class/net/{name}/phys_port_name"))?;
    ensure!(port == "sby", "the port of {name} is {port:?}");
    let info = guest.sh(&format!(
        "ethtool -i {name}; cut -c{} /sys/class/net/{name}/device/features",
        STANDBY + 1
    ))?;
    ensure!(
        info.starts_with(&format!("driver: {}", driver.module)) && info.ends_with("\n1"),
        "{info}"
    );

    bridge(guest)?;
    guest.outside().sh(
        MOVE,
        "ip tuntap add dev tap1p mode tap vnet_hdr && for port in tap0p tap1p; do \
         ip link set $port master br0 && ip link set $port up || exit 1; done",
    )?;
    let stream = Stream::new(guest)?;
    stream.flows(guest)?;
    guest.modprobe("vmxnet3")?;
    primary(guest, &stream)?;

    guest.qmp(qmp::device_del {
        id: "primary".to_owned(),
    })?;
    standby(guest, &stream, &name)?;
    let arguments: Dictionary = [
        ("netdev", "net1"),
        ("mac", MAC),
        ("failover_pair_id", "n0"),
        ("romfile", ""),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.into()))
    .collect();
    guest.qmp(qmp::device_add {
        driver: "vmxnet3".to_owned(),
        bus: Some("port1".to_owned()),
        id: Some("primary".to_owned()),
        arguments,
    })?;
    primary(guest, &stream)?;

    guest.migrate(lab, "tap1")?;
    primary(guest, &stream).context("after the migration")?;
    stream.finish(guest)?;
    ping(guest, 3)
}

/// Without the kernel's module the card works by itself, and does not say that it stands in for another one.
fn alone(guest: &mut Guest) -> Result<()> {
    guest.sh("find /lib/modules -name 'net_failover.ko' -exec rm {} +")?;
    RUST.load(guest, "")?;
    ensure!(
        guest.log().contains("net_failover cannot be loaded"),
        "no warning"
    );
    address(guest)?;
    let info = guest.sh("ethtool -i eth0; cut -c63 /sys/class/net/eth0/device/features")?;
    ensure!(
        info.starts_with("driver: virtio_net_rust") && info.ends_with("\n0"),
        "{info}"
    );
    ping(guest, 3)?;
    RUST.unload(guest)
}
