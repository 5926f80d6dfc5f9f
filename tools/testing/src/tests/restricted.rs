// SPDX-License-Identifier: GPL-2.0

//! A test of the network driver for a device that reaches nothing but a pool of memory (restricted DMA): rings are allocated there, and
//! all data is copied there. The C driver passes the same test.

use super::{
    net::{
        ping,
        transfer,
        up,
        C,
        MODERN,
        RUST, //
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

/// What the kernel knows of the pool.
const USED: &str = "cat /sys/kernel/debug/swiotlb/restrict_dma/io_tlb_used";

/// The receive queue and the transmit queue.
const QUEUES: [u16; 2] = [0, 1];

pub fn tests() -> Vec<Test> {
    [RUST, C]
        .map(|driver| {
            Test::guest(
                format!("net/{}/device/restricted", driver.module),
                60,
                Spec::q35().network(&format!("{MODERN},iommu_platform=on")),
                move |guest, lab| restricted(guest, lab, driver),
            )
            .sanitizer_only("the stock kernel has no restricted DMA")
        })
        .into()
}

/// The addresses that the device has been told.
fn told(guest: &mut Guest) -> Result<Vec<u64>> {
    let mut told = Vec::new();

    for queue in QUEUES {
        told.extend(guest.ring("n0", queue)?.addresses());
    }
    Ok(told)
}

/// A device that is restricted is told of nothing outside the pool, and works; what it has been given of the pool comes back.
fn restricted(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    const PARAMETERS: &str = "/sys/module/restrict_dma/parameters";

    up(guest, driver)?;
    let free = told(guest)?;
    let function = guest.sh("basename $(readlink -f /sys/class/net/eth0/device/..)")?;
    driver.unload(guest)?;

    guest.insmod("restrict_dma", &format!("device={function}"))?;
    let start = guest.number(&format!("cat {PARAMETERS}/start"))?;
    let pool = start..start + guest.number(&format!("cat {PARAMETERS}/size"))?;
    ensure!(
        !free.iter().all(|address| pool.contains(address)),
        "a device that is not restricted was told of nothing else"
    );

    up(guest, driver)?;
    ping(guest, 3)?;
    transfer(guest, lab, 4 << 20)?;
    let told = told(guest)?;
    let outside: Vec<_> = told
        .iter()
        .filter(|address| !pool.contains(address))
        .collect();
    // The parts of two rings, and what there is to receive into.
    ensure!(told.len() > 100, "the device was told of {}", told.len());
    ensure!(
        outside.is_empty(),
        "the device was told of {outside:x?}, which are not in {pool:x?}"
    );
    let used = guest.number(USED)?;
    ensure!(used > 100, "only {used} slots of the pool are used");

    driver.unload(guest)?;
    let used = guest.number(USED)?;
    ensure!(used == 0, "{used} slots of the pool are lost");
    guest.sh("rmmod restrict_dma").map(drop)
}
