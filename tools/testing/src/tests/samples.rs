// SPDX-License-Identifier: GPL-2.0

//! Tests of the drivers in `samples/`.

use super::{
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

const RUST: Driver = Driver::ours("rust_virtio_rng");
const C: Driver = Driver::stock("virtio_rng");

pub fn tests() -> Vec<Test> {
    let mmio = ["-global", "virtio-mmio.force-legacy=false"];
    let devices = [
        ("pci", Spec::q35().device("virtio-rng", "")),
        (
            "mmio",
            Spec::microvm().device("virtio-rng", "").arguments(&mmio),
        ),
    ];
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        for (bus, spec) in devices.clone() {
            tests.push(Test::guest(
                format!("samples/{}/{bus}", driver.module),
                60,
                spec,
                move |guest, _| random(guest, driver),
            ));
        }
    }
    tests
}

/// `/dev/hwrng` gives random bytes that come from the driver, and no others once it is gone.
fn random(guest: &mut Guest, driver: Driver) -> Result<()> {
    const AVAILABLE: &str = "cat /sys/class/misc/hw_random/rng_available";

    let before = guest.sh(AVAILABLE)?;
    for _ in 0..3 {
        driver.load(guest, "")?;
        let names = guest.sh(AVAILABLE)?;
        // The kernel may have another source of its own.
        let name = names
            .split_whitespace()
            .find(|name| !before.split_whitespace().any(|old| old == *name))
            .map(str::to_owned);
        let Some(name) = name else {
            anyhow::bail!("no source in addition to {before:?}: {names:?}");
        };
        let current = guest.sh(&format!(
            "echo {name} >/sys/class/misc/hw_random/rng_current && \
             cat /sys/class/misc/hw_random/rng_current"
        ))?;
        ensure!(current == name, "{current:?} instead of {name:?}");

        // Of n random bytes about 63 % of the values occur for n = 256.
        let kinds = guest.number(
            "dd if=/dev/hwrng bs=1 count=256 2>/dev/null | hexdump -v -e '1/1 \"%u\\n\"' | sort -u | wc -l",
        )?;
        ensure!((110..=210).contains(&kinds), "{kinds} values in 256 bytes");
        let sums =
            "for i in 1 2 3 4; do dd if=/dev/hwrng bs=1000 count=1 2>/dev/null | sha256sum; done";
        let different = guest.number(&format!("{{ {sums}; }} | sort -u | wc -l"))?;
        ensure!(different == 4, "only {different} of 4 reads differ");

        driver.unload(guest)?;
        ensure!(
            guest.sh(AVAILABLE)? == before,
            "the source outlives the driver"
        );
    }
    Ok(())
}
