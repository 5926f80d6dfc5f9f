// SPDX-License-Identifier: GPL-2.0

//! Tests of the modules as files: their source is in order, each is complete by itself, and all of them fit into one kernel.

use super::{
    Tally,
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
use std::{
    fs,
    path::Path,
    process::Command,
    time::Duration, //
};

const MODULES: [&str; 4] = [
    "virtio_net_rust",
    "virtio_balloon_rust",
    "guest_integrity",
    "rust_virtio_rng",
];

pub fn tests() -> Vec<Test> {
    vec![
        check("build/clippy", &["build-modules", "--clippy"]),
        check("build/rustfmt", &["rustfmt", "--check"]),
        check("build/shellcheck", &["shellcheck"]),
        Test::host("build/blocklist", 60, blocklist),
        Test::guest("build/alone", 60, Spec::q35(), alone),
        Test::guest("build/together", 60, Spec::q35(), |guest, _| {
            together(guest)
        }),
    ]
}

/// A script of `scripts/` that finds fault with the source or does not.
fn check(name: &str, command: &'static [&'static str]) -> Test {
    const LIMIT: Duration = Duration::from_secs(600);

    Test::host(name, LIMIT.as_secs(), move |lab| {
        let mut script = Command::new(lab.env.top.join("scripts").join(command[0]));

        let (success, text) = lab.run(script.args(&command[1..]), LIMIT)?;
        ensure!(
            success,
            "{}: {}",
            command.join(" "),
            text.lines()
                .find(|line| line.starts_with("error") || line.starts_with("Diff"))
                .or(text.lines().last())
                .unwrap_or_default()
        );
        Ok(Tally {
            passed: 1,
            failed: Vec::new(),
        })
    })
}

/// What our bindings leave to the kernel's does not depend on whether bindgen found rustfmt.
fn blocklist(lab: &Lab) -> Result<Tally> {
    let formatted = lab.env.kdir.join("rust/bindings/bindings_generated.rs");
    let text = fs::read_to_string(&formatted).context("the kernel's bindings")?;
    let directory = tempfile::tempdir()?;
    let bare = directory.path().join("bindings.rs");
    fs::write(
        &bare,
        text.replace('{', " { ")
            .replace("_unused: [u8; 0]", "_unused : [u8 ; 0]")
            .replace('\n', " "),
    )?;

    let script = lab.env.top.join("rust/bindings/blocklist.awk");
    let list = |file: &Path| -> Result<String> {
        let (success, text) = lab.run(
            Command::new("awk").arg("-f").arg(&script).arg(file),
            Duration::from_secs(60),
        )?;
        ensure!(success, "awk: {text}");
        Ok(text)
    };
    let with = list(&formatted)?;
    let without = list(&bare)?;
    for name in ["sk_buff", "work_struct", "list_head"] {
        ensure!(
            with.split(['|', ' ', '\n']).any(|blocked| blocked == name),
            "{name} is not left to the kernel's bindings"
        );
    }
    ensure!(with == without, "without rustfmt the list is another one");
    Ok(Tally {
        passed: 1,
        failed: Vec::new(),
    })
}

/// Each module needs no other, was built for this kernel, and comes and goes without a device.
fn alone(guest: &mut Guest, lab: &Lab) -> Result<()> {
    for module in MODULES {
        let info = guest.sh(&format!("modinfo /modules/{module}.ko"))?;
        let value = |key: &str| {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.map(str::trim).unwrap_or_default()
        };

        ensure!(
            value("depends").is_empty(),
            "{module} needs {}",
            value("depends")
        );
        let magic = value("vermagic");
        ensure!(
            magic.split(' ').next() == Some(lab.env.kernel_release.as_str()),
            "{module} is for {magic}"
        );
        for _ in 0..3 {
            guest.insmod(module, "")?;
            guest.sh(&format!("test -s /sys/kernel/btf/{module}"))?;
            guest.sh(&format!("rmmod {module}"))?;
        }
    }
    Ok(())
}

/// All modules are in the kernel at once, in whatever order they come and go.
fn together(guest: &mut Guest) -> Result<()> {
    for round in 0..MODULES.len() {
        for index in 0..MODULES.len() {
            guest.insmod(MODULES[(index + round) % MODULES.len()], "")?;
        }
        let loaded = guest.number("lsmod | grep -c -e _rust -e rust_ -e guest_integrity")?;
        ensure!(loaded == 4, "{loaded} of 4 modules are loaded");
        for index in 0..MODULES.len() {
            guest.sh(&format!(
                "rmmod {}",
                MODULES[(index + 2 * round) % MODULES.len()]
            ))?;
        }
    }
    Ok(())
}
