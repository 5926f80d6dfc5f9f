// SPDX-License-Identifier: GPL-2.0

//! Tests without memory: each allocation that our modules cause is refused in turn, or some of them are at random.
//!
//! Only what has code of a module on its stack is refused, so that the rest of the guest is left alone. That nothing is
//! reported meanwhile, and nothing leaks, is found out after each test as after any other.

use super::{
    balloon,
    net,
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
    thread,
    time::Duration, //
};

const MIB: u64 = 1 << 20;
/// How the kernel itself says with a stack that memory was refused: for a mask of CPUs, for memory in the vmalloc area, and when
/// an interrupt goes of which some of the files in /proc/irq could not be made.
const REFUSED: [&str; 3] = [
    "=> alloc_cpumask_var: failed!",
    "vmalloc error: size",
    "] name '",
];
/// Longest time for one round after the other, each with another allocation refused.
const ROUNDS: Duration = Duration::from_secs(240);

/// Makes the kernel refuse nothing but what is asked for, of any size and kind, and say nothing about that. kmemleak's books
/// are left alone: it has some memory in reserve, and nobody notices.
const PREPARE: &str = r#"
address() { awk '$3 == "'$1'" { print "0x" $1; exit }' /proc/kallsyms; }
above=$(address _etext) from=$(address kmemleak_alloc) to=$(address kmemleak_seq_show)
for f in failslab fail_page_alloc fail_usercopy; do
	cd /sys/kernel/debug/$f || exit
	echo 0 >verbose
	# Where modules are.
	echo $above >require-start
	echo $from >reject-start
	echo $to >reject-end
	[ ! -e ignore-gfp-wait ] || echo N >ignore-gfp-wait
	[ ! -e ignore-gfp-highmem ] || echo N >ignore-gfp-highmem
	[ ! -e min-order ] || echo 0 >min-order
done
"#;

/// Runs `$1` again and again, with the first allocation refused, then the second, until there is none left to refuse. After a
/// success it runs `$2`, which must succeed; after a failure `$3` must. Prints how many rounds succeeded and failed. A round
/// takes a second or more, so it starts as few programs as can be.
const EACH: &str = r#"
cd /sys/kernel/debug
n=1 good=0 bad=0
while :; do
	echo 1 >failslab/times; echo 1 >fail_page_alloc/times
	(echo $n >/proc/self/fail-nth && eval "exec $1") >/run/out 2>&1
	status=$?
	read slab <failslab/times
	read page <fail_page_alloc/times
	refused=y
	[ $slab$page != 11 ] || refused=
	if [ $status = 0 ]; then
		good=$((good + 1))
		(eval "$2") || { echo "after round $n, which succeeded: $2" >&2; exit 1; }
	else
		bad=$((bad + 1))
		[ -n "$refused" ] || { echo "round $n failed, though nothing was refused: $(cat /run/out)" >&2; exit 1; }
		(eval "$3") || { echo "after round $n, which failed: $3" >&2; exit 1; }
	fi
	[ -n "$refused" ] || break
	n=$((n + 1))
done
echo $good $bad
"#;

pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::guest(
            "faults/guest_integrity/load",
            300,
            Spec::q35(),
            |guest, _| {
                prepare(guest)?;
                let load = "load /modules/guest_integrity.ko interval_ms=0";
                each_needed(
                    guest,
                    load,
                    // debugfs may be missing then, as that of any module.
                    "cd /sys/kernel/debug; [ ! -e guest_integrity/scan ] || echo 1 >guest_integrity/scan; \
                     cd / && rmmod guest_integrity",
                    "! grep -q ^guest_integrity /proc/modules",
                )
            },
        ),
        Test::guest(
            "faults/virtio_balloon_rust/resize",
            120,
            Spec::q35().memory(768).device("virtio-balloon", "id=b0"),
            |guest, _| resize(guest),
        ),
        Test::guest(
            "faults/virtio_net_rust/open",
            300,
            Spec::q35().network(""),
            |guest, _| {
                prepare(guest)?;
                guest.insmod("virtio_net_rust", "")?;
                // The ring may stay empty for a while, and the device's filters are set later.
                each(
                    guest,
                    "ip link set eth0 up",
                    "ip link set eth0 down",
                    "! ip link show eth0 | grep -q LOWER_UP",
                )?;
                net::address(guest)?;
                net::ping(guest, 3)
            },
        ),
        Test::guest(
            "faults/virtio_net_rust/transfer",
            120,
            Spec::q35().network(""),
            transfer,
        ),
    ];

    for (module, id, spec, works) in [
        (
            "virtio_net_rust",
            1,
            Spec::q35().network(""),
            (|guest| {
                net::address(guest)?;
                net::ping(guest, 3)
            }) as fn(&mut Guest) -> Result<()>,
        ),
        (
            "virtio_balloon_rust",
            5,
            Spec::q35().device("virtio-balloon", "id=b0"),
            |guest| balloon::resize(guest, 400 * MIB),
        ),
        (
            "rust_virtio_rng",
            4,
            Spec::q35().device("virtio-rng", ""),
            |guest| guest.sh("head -c 100 /dev/hwrng >/dev/null").map(drop),
        ),
    ] {
        tests.push(Test::guest(
            format!("faults/{module}/probe"),
            300,
            spec,
            move |guest, _| probe(guest, module, id, works),
        ));
    }

    tests
        .into_iter()
        .map(|test| {
            test.sanitizer_only("it needs fault injection")
                .allow_stacks(&REFUSED)
        })
        .collect()
}

fn prepare(guest: &mut Guest) -> Result<()> {
    guest.sh(PREPARE).map(drop)
}

/// Runs a command with each of its allocations refused in turn: it fails cleanly or does what it is for. Returns how often it
/// failed.
fn each(guest: &mut Guest, command: &str, undo: &str, after_failure: &str) -> Result<u32> {
    let script = format!("set -- '{command}' '{undo}' '{after_failure}'{EACH}");
    let output = guest.run_for(ROUNDS, &script)?;
    ensure!(output.status == 0, "{}", output.stderr.trim());
    let counts = output.stdout.trim().to_owned();

    let (good, bad) = counts.split_once(' ').with_context(|| counts.clone())?;
    let (good, bad) = (good.parse::<u32>()?, bad.parse::<u32>()?);
    // The last round, in which nothing is refused, is not what this is for.
    ensure!(good > 0 && good + bad > 1, "nothing was refused: {counts}");
    Ok(bad)
}

/// As [`each`], for a command that needs some of its allocations.
fn each_needed(guest: &mut Guest, command: &str, undo: &str, after_failure: &str) -> Result<()> {
    let failed = each(guest, command, undo, after_failure)?;
    ensure!(failed > 0, "`{command}` succeeds without memory");
    Ok(())
}

/// A driver is bound to its device with each allocation refused in turn. Afterwards the device works.
fn probe(
    guest: &mut Guest,
    module: &str,
    id: u32,
    works: fn(&mut Guest) -> Result<()>,
) -> Result<()> {
    prepare(guest)?;
    // Loading alone, which has nothing to bind to, is part of it.
    guest.sh("echo 0 >/sys/bus/virtio/drivers_autoprobe")?;
    each_needed(
        guest,
        &format!("load /modules/{module}.ko"),
        &format!("rmmod {module}"),
        &format!("! grep -q ^{module} /proc/modules"),
    )
    .context("loading")?;

    guest.insmod(module, "")?;
    let device = guest.sh(&format!(
        "cd /sys/bus/virtio/devices && dirname $(grep -lx 0x{id:04x} */device)"
    ))?;
    let driver = format!("/sys/bus/virtio/drivers/{module}");
    let bind = |to: &str| format!("echo {device} >{driver}/{to}");
    guest.sh(&format!("echo {device} >/run/device"))?;
    each_needed(
        guest,
        // A program is needed that does nothing else.
        &format!("dd if=/run/device of={driver}/bind"),
        &bind("unbind"),
        &format!("! test -e {driver}/{device}"),
    )
    .context("binding")?;
    guest.sh(&bind("bind"))?;
    works(guest)
}

/// Starts or stops refusing so many of a hundred allocations, and returns how many were refused so far.
fn refuse(guest: &mut Guest, percent: u32) -> Result<u64> {
    const TIMES: u64 = 1_000_000;

    let left = guest.number(&format!(
        "cd /sys/kernel/debug; a=0; for f in failslab fail_page_alloc; do \
         echo {percent} >$f/probability; t=$(cat $f/times); \
         [ $t -gt 1 ] || {{ t={TIMES}; echo $t >$f/times; }}; a=$((a + t)); done; echo $a"
    ))?;
    Ok(2 * TIMES - left)
}

/// The balloon comes to terms with a lack of memory in its work, and goes on when there is some.
fn resize(guest: &mut Guest) -> Result<()> {
    const TARGET: u64 = 512 * MIB;

    prepare(guest)?;
    guest.insmod("virtio_balloon_rust", "")?;
    refuse(guest, 20)?;
    for target in [TARGET, 600 * MIB, TARGET] {
        balloon::ask(guest, target)?;
        thread::sleep(Duration::from_secs(5));
    }
    let refused = refuse(guest, 0)?;
    ensure!(refused > 0, "nothing was refused");
    balloon::resize(guest, TARGET)?;
    balloon::resize(guest, 768 * MIB)
}

/// Packets may get lost for want of memory, connections may not.
fn transfer(guest: &mut Guest, lab: &Lab) -> Result<()> {
    prepare(guest)?;
    net::up(guest, net::RUST)?;
    refuse(guest, 1)?;
    let moved = net::transfer(guest, lab, 4 * MIB);
    let refused = refuse(guest, 0)?;
    moved?;
    ensure!(refused > 0, "nothing was refused");
    net::ping(guest, 3)
}
