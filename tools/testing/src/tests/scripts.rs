// SPDX-License-Identifier: GPL-2.0

//! Tests of what users run on their own machines: `scripts/install`, `scripts/uninstall` and `scripts/load`, and of what these
//! refuse. A refusal is one line that says what is wrong and what to do, and it changes nothing.

use super::{
    net,
    Driver,
    Test, //
};
use crate::guest::{
    Guest,
    Spec, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    collections::BTreeSet,
    time::Duration, //
};

/// Why these tests are left out on the sanitizer kernel.
const REASON: &str = "the scripts do the same on each kernel";
/// How long a script may take: emulated, the kernel's list of symbols takes many seconds to read.
const SCRIPT: Duration = Duration::from_secs(90);
/// Our driver, the kernel's own, and the device's number, for each device that both drive.
const DRIVERS: [(&str, &str, &str); 2] = [
    ("virtio_net_rust", "virtio_net", "0x0001"),
    ("virtio_balloon_rust", "virtio_balloon", "0x0005"),
];

pub fn tests() -> Vec<Test> {
    let spec = || {
        Spec::q35()
            .network("disable-legacy=on")
            .device("virtio-balloon", "id=b0")
    };
    let lockdown = || spec().append("lockdown=integrity");
    let enforced = || spec().append("module.sig_enforce=1");

    [
        Test::guest("scripts/install", 180, spec(), |guest, _| install(guest)),
        Test::guest("scripts/install-refusals", 180, spec(), |guest, _| {
            install_refusals(guest)
        }),
        Test::guest("scripts/load", 180, spec(), |guest, _| load(guest)),
        Test::guest("scripts/replace", 180, spec(), |guest, _| replace(guest)),
        Test::guest("scripts/give-back", 120, spec(), |guest, _| {
            give_back(guest)
        }),
        Test::guest(
            "scripts/take-over",
            240,
            Spec::q35().card(2, &[]),
            |guest, _| take_over(guest),
        ),
        Test::guest("scripts/other-kernel", 240, spec(), |guest, _| {
            other_kernel(guest)
        }),
        Test::guest("scripts/lockdown", 120, lockdown(), |guest, _| {
            unsigned(guest, "is locked down (Secure Boot)")
        }),
        Test::guest("scripts/sig-enforce", 120, enforced(), |guest, _| {
            unsigned(guest, "has module.sig_enforce set")
        }),
    ]
    .map(|test| test.stock_only(REASON))
    .into()
}

/// Where the scripts are, for a shell that takes programs from the path: that of busybox prefers its own.
const INSTALL: &str = "bash /tenon/scripts/install";
const UNINSTALL: &str = "bash /tenon/scripts/uninstall";
const LOAD: &str = "bash /tenon/scripts/load";

/// A shell command with the tools for modules that distributions have, in place of busybox's.
fn kmod(command: &str) -> String {
    format!("PATH=/kmod:$PATH bash <<'EOT'\n{command}\nEOT")
}

/// The driver of the device with this number, or nothing.
fn driver(guest: &mut Guest, device: &str) -> Result<String> {
    guest.sh(&format!(
        "for d in /sys/bus/virtio/devices/*; do \
         [ $(cat $d/device) != {device} ] || [ ! -e $d/driver ] || basename $(readlink $d/driver); done"
    ))
}

/// Whether the drivers are ours or the kernel's own.
fn ensure_drivers(guest: &mut Guest, ours: bool) -> Result<()> {
    for (rust, stock, device) in DRIVERS {
        let driver = driver(guest, device)?;
        let expected = if ours { rust } else { stock };
        ensure!(
            driver == expected,
            "the driver of device {device} is {driver:?}, not {expected}"
        );
    }
    Ok(())
}

/// All that a script could change: files, modules, and who drives which device.
fn state(guest: &mut Guest) -> Result<BTreeSet<String>> {
    let lines = guest.sh(
        "find /lib/modules /etc/mod* -type f ! -path '*/kernel/*' 2>/dev/null | xargs md5sum; \
         ls -d /lib/modules/* /lib/modules/*/*; cut -d' ' -f1 /proc/modules; \
         for d in /sys/bus/virtio/devices/*; do echo $d $(readlink $d/driver) $(ls $d/net 2>/dev/null); done",
    )?;
    Ok(lines.lines().map(str::to_owned).collect())
}

/// Everything is as it was before.
fn ensure_unchanged(guest: &mut Guest, before: &BTreeSet<String>) -> Result<()> {
    let after = state(guest)?;
    let changed: Vec<_> = after.symmetric_difference(before).collect();

    ensure!(changed.is_empty(), "not as it was before: {changed:?}");
    Ok(())
}

/// The command fails with one line that contains `expected`, and changes nothing.
fn ensure_refused(guest: &mut Guest, command: &str, expected: &str) -> Result<()> {
    let before = state(guest)?;
    let output = guest.run_for(SCRIPT, command)?;
    let said = format!("{}{}", output.stdout, output.stderr);

    ensure!(
        output.status == 1 && said.lines().count() == 1 && said.starts_with("tenon: error: "),
        "`{command}` ended with {}: {said}",
        output.status
    );
    ensure!(said.contains(expected), "`{command}`: {said}");
    ensure_unchanged(guest, &before).with_context(|| format!("`{command}`"))
}

/// What is installed is preferred to the kernel's own drivers, however they are asked for, and uninstalling undoes it.
fn install(guest: &mut Guest) -> Result<()> {
    guest.sh(&kmod("depmod"))?;
    let before = state(guest)?;
    guest.sh_for(SCRIPT, &kmod(INSTALL))?;
    // A second time changes nothing.
    let installed = state(guest)?;
    guest.sh_for(SCRIPT, &kmod(INSTALL))?;
    ensure_unchanged(guest, &installed)?;

    for (_, stock, _) in DRIVERS {
        guest.sh(&kmod(&format!("modprobe {stock}")))?;
    }
    ensure_drivers(guest, true)?;
    net::address(guest)?;
    net::ping(guest, 3)?;

    // As udev does it.
    guest.sh("rmmod virtio_net virtio_balloon virtio_net_rust virtio_balloon_rust")?;
    guest.sh(&kmod(
        "for d in /sys/bus/virtio/devices/*; do modprobe -qab $(cat $d/modalias) || true; done",
    ))?;
    ensure_drivers(guest, true)?;

    // Without our files the kernel's own drivers are as before.
    guest.sh("rmmod virtio_net virtio_balloon virtio_net_rust virtio_balloon_rust")?;
    guest.sh(&kmod(
        "mv /lib/modules/$(uname -r)/updates /run/ && depmod && \
         modprobe virtio_net && modprobe virtio_balloon",
    ))?;
    ensure_drivers(guest, false)?;
    guest.sh("rmmod virtio_net virtio_balloon; mv /run/updates /lib/modules/$(uname -r)/")?;
    guest.sh(&kmod("depmod"))?;
    ensure!(
        guest
            .sh("cut -d' ' -f1 /proc/modules | grep _rust || true")?
            .is_empty(),
        "a driver of ours is still loaded"
    );

    guest.sh_for(SCRIPT, &kmod(&format!("INTEGRITY=1 {INSTALL}")))?;
    ensure!(guest.sh("cat /etc/modules-load.d/tenon.conf")? == "guest_integrity");
    guest.sh(&kmod(UNINSTALL))?;
    guest.sh("rmmod net_failover failover")?;
    ensure_unchanged(guest, &before)?;
    let again = guest.run(&kmod(UNINSTALL))?;
    ensure!(
        again.status == 0 && again.stderr.contains("nothing was installed"),
        "{again:?}"
    );
    Ok(())
}

/// Whatever stops an installation halfway, nothing of it stays.
fn install_refusals(guest: &mut Guest) -> Result<()> {
    const UPDATES: &str = "/lib/modules/$(uname -r)/updates";

    guest.sh(&kmod("depmod"))?;
    ensure_refused(
        guest,
        "su nobody -c '/tenon/scripts/install'",
        "only root may install modules: run it with sudo",
    )?;
    ensure_refused(
        guest,
        "su nobody -c '/tenon/scripts/uninstall'",
        "only root may uninstall modules: run it with sudo",
    )?;
    ensure_refused(
        guest,
        &format!("{INSTALL} --all"),
        "see scripts/install --help",
    )?;

    for (options, expected) in [
        (
            "size=100k",
            "is the disk full?; nothing is installed or changed",
        ),
        (
            "ro",
            "is it read-only or full?; nothing is installed or changed",
        ),
    ] {
        guest.sh(&format!(
            "mkdir -p {UPDATES} && mount -t tmpfs -o {options} full {UPDATES}"
        ))?;
        ensure_refused(guest, &kmod(INSTALL), expected)?;
        guest.sh(&format!("umount {UPDATES}"))?;
    }
    guest.sh(&format!("rmdir {UPDATES} 2>/dev/null || true"))?;

    guest.sh("mkdir -p /etc/modprobe.d && mount -t tmpfs -o ro full /etc/modprobe.d")?;
    ensure_refused(
        guest,
        &kmod(INSTALL),
        "cannot write /etc/modprobe.d/tenon.conf",
    )?;
    guest.sh("umount /etc/modprobe.d")?;

    // With and without something to put back.
    for _ in 0..2 {
        guest.sh("mkdir -p /run/broken && printf '#!/bin/sh\\nexit 1\\n' >/run/broken/depmod && chmod +x /run/broken/depmod")?;
        ensure_refused(
            guest,
            &format!("PATH=/run/broken:$PATH {INSTALL}"),
            "depmod failed; nothing is installed or changed",
        )?;
        guest.sh("rm /run/broken/depmod")?;
        guest.sh_for(SCRIPT, &kmod(&format!("INTEGRITY=1 {INSTALL}")))?;
    }
    Ok(())
}

/// The modules are loaded from where they were built, and removed again.
fn load(guest: &mut Guest) -> Result<()> {
    let said = |guest: &mut Guest, command: &str| -> Result<String> {
        let output = guest.run_for(SCRIPT, command)?;
        ensure!(output.status == 0, "`{command}`: {}", output.stderr);
        Ok(output.stderr)
    };
    let loaded = said(guest, LOAD)?;
    for line in [
        "virtio_net_rust drives virtio",
        "(eth0)",
        "virtio_balloon_rust drives virtio",
        "guest_integrity is loaded",
    ] {
        ensure!(loaded.contains(line), "no {line:?}: {loaded}");
    }
    ensure_drivers(guest, true)?;
    net::address(guest)?;
    ensure!(said(guest, LOAD)?.matches("is loaded already").count() == 3);
    net::ping(guest, 3)?;

    let removed = said(guest, &format!("{LOAD} --unload"))?;
    ensure!(removed.matches("is removed").count() == 3, "{removed}");
    ensure_drivers(guest, false)?;
    let none = guest.sh("cut -d' ' -f1 /proc/modules | grep -e _rust -e guest_ || true")?;
    ensure!(none.is_empty(), "still loaded: {none}");

    // One by name.
    said(guest, &format!("{LOAD} guest_integrity"))?;
    ensure_drivers(guest, false)?;
    ensure_refused(
        guest,
        &format!("{LOAD} virtio_blk_rust"),
        "there is no module 'virtio_blk_rust'",
    )?;
    guest.sh("exec 3</dev/guest_integrity; sleep 60 <&3 >/dev/null 2>&1 & echo $! >/run/reader")?;
    ensure_refused(
        guest,
        &format!("{LOAD} --unload guest_integrity"),
        "guest_integrity is in use and cannot be removed",
    )?;
    guest.sh("kill $(cat /run/reader)")?;
    guest.wait_for("the reader's end", Duration::from_secs(5), |guest| {
        Ok((guest.run("test -e /proc/$(cat /run/reader)")?.status != 0).then_some(()))
    })?;
    said(guest, &format!("{LOAD} --unload guest_integrity")).map(drop)
}

/// A device that the kernel's own driver holds is left to it, unless asked otherwise, and goes back.
fn replace(guest: &mut Guest) -> Result<()> {
    Driver::stock("virtio_net").load(guest, "")?;
    Driver::stock("virtio_balloon").load(guest, "")?;
    ensure_refused(
        guest,
        LOAD,
        "(eth0) by virtio_net: take it over with --replace",
    )?;
    ensure_refused(
        guest,
        &format!("{LOAD} virtio_balloon_rust"),
        "by virtio_balloon: take it over with --replace",
    )?;

    guest.sh_for(SCRIPT, &format!("{LOAD} --replace"))?;
    ensure_drivers(guest, true)?;
    net::address(guest)?;
    net::ping(guest, 3)?;
    guest.sh_for(SCRIPT, &format!("{LOAD} --unload"))?;
    ensure_drivers(guest, false)?;
    net::address(guest)?;
    net::ping(guest, 3)
}

/// A device that was taken over goes back when a later step fails.
fn give_back(guest: &mut Guest) -> Result<()> {
    Driver::stock("virtio_net").load(guest, "")?;
    Driver::stock("virtio_balloon").load(guest, "")?;
    // No module, but what says for which kernel it is.
    guest.sh("cp -r /modules /run/broken && cd /run/broken && \
         printf 'no module' | dd of=guest_integrity.ko conv=notrunc 2>/dev/null")?;
    ensure_refused_after_moving(guest, &format!("{LOAD} --replace --from /run/broken"))?;
    ensure_drivers(guest, false)?;
    net::address(guest)?;
    net::ping(guest, 3)
}

/// A connection outlives the change of drivers, there and back, and the interface has all that it was told before.
fn take_over(guest: &mut Guest) -> Result<()> {
    // Sends without an end, and compares what comes back.
    const TRANSFER: &str = "head -c 300000 /dev/urandom >/run/noise; rm -f /run/stop; mkfifo /run/sent 2>/dev/null; \
         (md5sum </run/sent >/run/sent.sum &) >/dev/null 2>&1; \
         (while [ ! -e /run/stop ]; do cat /run/noise; done | tee /run/sent | nc 10.0.2.2 7 | md5sum >/run/echo.sum; \
         touch /run/done) >/dev/null 2>&1 &";
    const STATE: &str = "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu /sys/class/net/eth0/tx_queue_len; \
         /bin/ip -o address show dev eth0 | sed -e 's/^[0-9]*: //' -e 's/[0-9]*sec/sec/g'; \
         /bin/ip -4 route; /bin/ip -6 route show dev eth0; /bin/ip neighbour show dev eth0 nud permanent; \
         ethtool -l eth0 | grep Combined; cat /proc/sys/net/ipv4/conf/eth0/rp_filter";

    Driver::stock("virtio_net").load(guest, "")?;
    net::appears(guest)?;
    guest.sh(&kmod(
        "ip link set eth0 address 52:54:00:aa:bb:cc mtu 1400 txqueuelen 77 && \
         echo 2 >/proc/sys/net/ipv4/conf/eth0/rp_filter && ip link set eth0 up && \
         ip address add 10.0.2.15/24 brd + dev eth0 && ip address add 10.0.2.77/32 dev eth0 valid_lft 3000 preferred_lft 2000 && \
         ip address add fd00::15/64 dev eth0 nodad && ip route add default via 10.0.2.2 metric 50 && \
         ip route add 192.0.2.0/24 via 10.0.2.2 src 10.0.2.77 && ip -6 route add fd01::/64 via fd00::2 dev eth0 && \
         ip neighbour replace 10.0.2.99 lladdr 52:54:00:00:00:99 nud permanent dev eth0 && ethtool -L eth0 combined 1",
    ))?;
    net::ping(guest, 3)?;
    // The kernel finds out its link-local address first.
    guest.wait_for("an address", Duration::from_secs(10), |guest| {
        let tentative = guest.sh("/bin/ip -6 address show dev eth0 tentative")?;
        Ok(tentative.is_empty().then_some(()))
    })?;
    let before = guest.sh(STATE)?;

    for (command, driver) in [
        ("--replace virtio_net_rust", "virtio_net_rust"),
        ("--unload virtio_net_rust", "virtio_net"),
    ] {
        guest.sh(TRANSFER)?;
        let output = guest.run_for(SCRIPT, &format!("{LOAD} {command}"))?;
        ensure!(
            output.status == 0
                && output
                    .stderr
                    .contains("eth0 has what it was told before, and was away for ")
                && !output.stderr.contains("warning"),
            "{output:?}"
        );
        ensure!(self::driver(guest, "0x0001")? == driver);
        guest.wait_for("an address", Duration::from_secs(10), |guest| {
            let tentative = guest.sh("/bin/ip -6 address show dev eth0 tentative")?;
            Ok(tentative.is_empty().then_some(()))
        })?;
        let after = guest.sh(STATE)?;
        ensure!(after == before, "before:\n{before}\nafter:\n{after}");

        // The connection is still there, and goes on.
        ensure!(guest.run("test -e /run/done")?.status != 0, "it has ended");
        let before = net::counter(guest, "tx_bytes")?;
        guest.wait_for("data", Duration::from_secs(30), |guest| {
            Ok((net::counter(guest, "tx_bytes")? > before + 1_000_000).then_some(()))
        })?;
        guest.sh("touch /run/stop")?;
        guest.wait_for(
            "the end of the transfer",
            Duration::from_secs(30),
            |guest| Ok((guest.run("test -e /run/done")?.status == 0).then_some(())),
        )?;
        guest.sh("cmp /run/sent.sum /run/echo.sum && rm /run/done")?;
    }

    // What other interfaces rest on is left alone.
    guest.sh("modprobe 8021q && /bin/ip link add link eth0 name eth0.5 type vlan id 5")?;
    ensure_refused(
        guest,
        &format!("{LOAD} --replace virtio_net_rust"),
        "eth0 is part of eth0.5, which would lose it",
    )
}

/// As [`ensure_refused`], for a script that gets as far as telling what it does before it fails.
fn ensure_refused_after_moving(guest: &mut Guest, command: &str) -> Result<()> {
    let before = state(guest)?;
    let output = guest.run_for(SCRIPT, command)?;
    let errors = output
        .stderr
        .lines()
        .filter(|line| line.contains(" error: "));
    let errors: Vec<_> = errors.collect();

    ensure!(
        output.status == 1 && output.stderr.contains("virtio_net_rust drives"),
        "{output:?}"
    );
    ensure!(
        errors.len() == 1
            && errors[0].contains("guest_integrity does not load: ")
            && errors[0].ends_with("; everything is as it was"),
        "{output:?}"
    );
    ensure_unchanged(guest, &before)
}

/// Modules that are not for the kernel at hand are refused.
fn other_kernel(guest: &mut Guest) -> Result<()> {
    let release = guest.sh("uname -r")?;
    let build = format!("/tenon/build/{release}");
    // What is done to a copy of the modules, and what is said about it.
    let cases = [
        (
            "rm guest_integrity.ko".to_owned(),
            "guest_integrity.ko is missing: run make modules",
        ),
        (
            // The same length, and no other release in the file.
            format!(
                "sed -i 's/vermagic={release} /vermagic=9{} /' virtio_net_rust.ko",
                &release[1..]
            ),
            "virtio_net_rust.ko is for kernel 9",
        ),
        (
            "sed -i 's/^btf ./btf x/' kernel-id".to_owned(),
            "its types are not those of the kernel the modules were built for",
        ),
        (
            "echo 'needs tenon_no_such_symbol' >>kernel-id".to_owned(),
            "has no tenon_no_such_symbol, which the modules need",
        ),
        (
            "sed -i '/^needs /s/$/_of_rust/' kernel-id".to_owned(),
            "which the modules need: it is not the kernel they were built for",
        ),
        ("rm kernel-id".to_owned(), "kernel-id is missing"),
    ];

    guest.sh(&kmod("depmod"))?;
    for (spoil, expected) in cases {
        guest.sh(&format!(
            "rm -rf {build} && cp -r /modules {build} && cd {build} && {spoil}"
        ))?;
        // A build without this file is one that make modules did not finish.
        let expected = match spoil.as_str() {
            "rm kernel-id" => "there are no modules for the running kernel",
            _ => expected,
        };
        ensure_refused(guest, &kmod(LOAD), expected).with_context(|| format!("after `{spoil}`"))?;
    }

    guest.sh(&format!(
        "rm -rf {build} && mkdir /tenon/build/9.9 && touch /tenon/build/9.9/kernel-id"
    ))?;
    for script in [LOAD, INSTALL] {
        ensure_refused(
            guest,
            &kmod(script),
            &format!(
                "no modules for the running kernel {release} here (there are for: 9.9): install "
            ),
        )?;
    }
    guest.sh("echo CONFIG_MODULES=y >/lib/modules/$(uname -r)/config")?;
    for script in [LOAD, INSTALL] {
        ensure_refused(
            guest,
            &kmod(script),
            "has no Rust support and cannot run these modules",
        )?;
    }
    Ok(())
}

/// Where the kernel insists on signatures, the scripts say so before anything is changed; so does the kernel itself.
fn unsigned(guest: &mut Guest, why: &str) -> Result<()> {
    for script in [LOAD, INSTALL] {
        ensure_refused(
            guest,
            &kmod(script),
            &format!("the running kernel {why} and loads signed modules only, virtio_net_rust.ko is not signed: "),
        )?;
    }
    ensure!(guest.insmod("virtio_net_rust", "").is_err());
    Driver::stock("virtio_net").load(guest, "")?;
    net::address(guest)
}
