// SPDX-License-Identifier: GPL-2.0

//! Tests of what the modules themselves refuse: each time one line of theirs in the kernel's log, and a guest that goes on as before.

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

/// Parameters of numbers, with the largest value of each.
const NUMBERS: [(&str, &str, u64); 2] = [
    ("guest_integrity", "interval_ms", 86_400_000),
    ("virtio_balloon_rust", "reserve_mib", 0xff_ffff),
];

pub fn tests() -> Vec<Test> {
    vec![
        Test::guest("refusals/btf", 60, Spec::q35(), |guest, _| btf(guest)),
        Test::guest("refusals/exports", 60, Spec::q35(), |guest, _| {
            exports(guest)
        }),
        Test::guest("refusals/parameters", 90, Spec::q35(), |guest, _| {
            parameters(guest)
        }),
    ]
}

/// Runs a command that must fail, and returns what the kernel's log has got meanwhile. The insmod of busybox tries twice.
fn refused(guest: &mut Guest, command: &str) -> Result<Vec<String>> {
    guest.sh("dmesg -c >/dev/null")?;
    let output = guest.run(command)?;
    ensure!(output.status != 0, "`{command}` is accepted");

    let log = guest.sh("dmesg | grep -e guest_integrity -e virtio_ || true")?;
    Ok(log.lines().map(str::to_owned).collect())
}

/// Without type information, or with other types than it knows, the checker reads nothing.
fn btf(guest: &mut Guest) -> Result<()> {
    for (what, reason) in [
        (
            "header",
            "the kernel has no readable BTF (CONFIG_DEBUG_INFO_BTF); boot a kernel that has it",
        ),
        (
            "size",
            "; build the module from the headers and source of this very kernel",
        ),
    ] {
        guest.insmod("spoil_btf", &format!("what={what}"))?;
        let log = refused(guest, "/kmod/insmod /modules/guest_integrity.ko")?;
        ensure!(
            log.len() == 1
                && log[0].contains("guest_integrity: not loaded: ")
                && log[0].ends_with(reason),
            "what={what}: {log:?}"
        );
        ensure!(what != "size" || log[0].contains(": size of "), "{log:?}");
        ensure!(guest.run("test -e /sys/module/guest_integrity")?.status != 0);
        guest.sh("rmmod spoil_btf")?;

        guest.insmod("guest_integrity", "interval_ms=0")?;
        guest.sh("echo 1 >/sys/kernel/debug/guest_integrity/scan && rmmod guest_integrity")?;
    }
    Ok(())
}

/// Without the kernel's own functions to call, the checker does not begin.
fn exports(guest: &mut Guest) -> Result<()> {
    guest.insmod("forge_export", "")?;
    let log = refused(guest, "/kmod/insmod /modules/guest_integrity.ko")?;
    ensure!(
        log.len() == 1
            && log[0].contains(
                "guest_integrity: not loaded: find_pid_ns does not lead to the kernel's own function; "
            ),
        "{log:?}"
    );
    ensure!(guest.run("test -e /sys/module/guest_integrity")?.status != 0);
    guest.sh("rmmod forge_export")?;

    guest.insmod("forge_export", "change=0")?;
    guest.insmod("guest_integrity", "interval_ms=0")?;
    guest.sh("echo 1 >/sys/kernel/debug/guest_integrity/scan && rmmod guest_integrity")?;
    guest.sh("rmmod forge_export").map(drop)
}

/// A value out of range is refused with one line that names the range, and the old value stays.
fn parameters(guest: &mut Guest) -> Result<()> {
    for (module, name, max) in NUMBERS {
        let file = format!("/sys/module/{module}/parameters/{name}");
        let above = (max + 1).to_string();

        for value in ["x", "-1", "1x", &above, "99999999999999999999"] {
            let line = format!(
                "{module}: parameter {name}: '{value}' refused, expected a number from 0 to {max}"
            );
            let ours = |log: Vec<String>| {
                let lines = log.iter().filter(|said| said.contains("refused"));
                let count = lines.clone().count();
                ensure!(
                    count == 1 && lines.clone().all(|said| said.ends_with(&line)),
                    "not once {line:?}: {log:?}"
                );
                Ok(())
            };

            ours(refused(
                guest,
                &format!("/kmod/insmod /modules/{module}.ko {name}={value}"),
            )?)?;
            ensure!(guest.run(&format!("test -e /sys/module/{module}"))?.status != 0);

            Driver::ours(module).load(guest, &format!("{name}={max}"))?;
            ours(refused(guest, &format!("echo {value} >{file}"))?)?;
            ensure!(guest.number(&format!("cat {file}"))? == max);
            Driver::ours(module).unload(guest)?;
        }
    }
    Ok(())
}
