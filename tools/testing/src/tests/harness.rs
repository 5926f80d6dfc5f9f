// SPDX-License-Identifier: GPL-2.0

//! Tests of what the other tests rely on: that guests come up, on both machines, and that trouble in a guest is noticed.

use super::Test;
use crate::guest::Spec;
use anyhow::{
    ensure,
    Result, //
};
use std::time::{
    Duration,
    Instant, //
};

pub fn tests() -> Vec<Test> {
    vec![
        Test::guest("harness/boot/q35", 30, Spec::q35(), boot),
        Test::guest("harness/boot/microvm", 30, Spec::microvm(), boot),
        Test::guest("harness/command", 60, Spec::q35(), command),
        Test::guest("harness/report", 30, Spec::q35(), |guest, _| {
            guest
                .sh("echo 'WARNING: CPU: 0 PID: 1 at test.c:1 provoked' >/dev/kmsg")
                .map(drop)
        })
        .expect_report("test.c:1 provoked"),
        Test::guest("harness/panic", 60, Spec::q35(), panic).expect_report("Kernel panic"),
    ]
}

/// The guest runs the kernel that the test is about, with the CPUs and the memory it was given.
fn boot(guest: &mut crate::guest::Guest, lab: &crate::guest::Lab) -> Result<()> {
    let release = guest.sh("uname -r")?;
    ensure!(
        release == lab.env.kernel_release,
        "the guest runs {release}"
    );
    ensure!(guest.number("nproc")? == 2);

    let memory = guest.number("awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo")?;
    ensure!(memory < guest.spec().memory_bytes() && memory > guest.spec().memory_bytes() / 2);
    Ok(())
}

/// The status and both outputs of a command arrive, and one that does not end is ended.
fn command(guest: &mut crate::guest::Guest, _: &crate::guest::Lab) -> Result<()> {
    let output = guest.run("echo out; echo err >&2; exit 3")?;
    ensure!(
        output.status == 3 && output.stdout == "out\n" && output.stderr == "err\n",
        "{output:?}"
    );

    let long = guest.sh("seq 20000")?;
    ensure!(long.lines().count() == 20000);

    let start = Instant::now();
    let error = guest.run_for(Duration::from_secs(2), "sleep 1000");
    ensure!(
        error.is_err() && start.elapsed() < Duration::from_secs(20),
        "{error:?}"
    );
    guest.sh("true").map(drop)
}

/// A guest that panics is noticed at once, with what it said last.
fn panic(guest: &mut crate::guest::Guest, _: &crate::guest::Lab) -> Result<()> {
    let start = Instant::now();
    let error = guest.run("echo c >/proc/sysrq-trigger").map(drop);

    ensure!(
        start.elapsed() < Duration::from_secs(20),
        "noticed after {:?}",
        start.elapsed()
    );
    match error {
        Err(error) => {
            ensure!(
                format!("{error:#}").contains("the guest went down"),
                "{error:#}"
            );
            Ok(())
        }
        Ok(()) => anyhow::bail!("the guest is still there"),
    }
}
