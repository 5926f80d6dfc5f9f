// SPDX-License-Identifier: GPL-2.0

//! Tests of the balloon driver with a device that is reset: by the machine's sleep, or by its bus.

use super::{
    balloon::{
        actual,
        ask,
        fresh,
        resize,
        spec,
        C,
        RESIZE,
        RUST,
        SIZE,
        SPARE, //
    },
    memory::{
        available,
        ensure_available, //
    },
    plug::switch_off,
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
use qapi::qmp;
use std::{
    thread,
    time::Duration, //
};

pub fn tests() -> Vec<Test> {
    let name = |driver: Driver, subject: &str| format!("balloon/{}/{subject}", driver.module);
    let mut tests: Vec<_> = [RUST, C]
        .into_iter()
        .map(|driver| {
            Test::guest(
                name(driver, "suspend"),
                120,
                spec(Spec::q35(), "id=b0"),
                move |guest, _| suspend(guest, driver),
            )
        })
        .collect();

    for driver in [RUST, C] {
        tests.push(Test::guest(
            name(driver, "shutdown"),
            60,
            spec(Spec::q35(), "id=b0"),
            move |guest, _| shutdown(guest, driver),
        ));
    }
    // The C driver does not come back from this.
    tests.push(Test::guest(
        name(RUST, "function-reset"),
        120,
        spec(Spec::q35().port(), "id=b0,bus=port0"),
        |guest, _| function_reset(guest),
    ));
    let slot = || {
        spec(
            Spec::q35().express_port(),
            "id=b0,bus=port0,free-page-reporting=on",
        )
    };
    // The C driver waits for its answer without end.
    for state in ["inflating", "deflating", "reporting"] {
        tests.push(Test::guest(
            name(RUST, &format!("vanished-{state}")),
            90,
            slot(),
            move |guest, _| vanished(guest, state),
        ));
    }
    tests.push(Test::guest(
        name(RUST, "vanished-shutdown"),
        60,
        slot(),
        |guest, _| {
            RUST.load(guest, "")?;
            resize(guest, SIZE - SPARE)?;
            take_away(guest)?;
            guest.power_off().map(drop)
        },
    ));
    tests
}

/// The machine is suspended to memory, and woken up. It has all its memory while it sleeps, and gives it away again.
fn suspend(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    resize(guest, SIZE - SPARE)?;
    guest.sh("head -c 20000000 /dev/urandom >/tmp/noise && md5sum /tmp/noise >/tmp/sum")?;
    // It says so when the balloon has its size again, and gives the host time to see that.
    guest.leave_alone(&format!(
        "for round in 1 2; do echo mem >/sys/power/state && md5sum -c -s /tmp/sum || exit 1; \
         until awk '$1 == \"Balloon:\" {{ exit $2 != {} }}' /proc/meminfo; do sleep 0.2; done; \
         echo tenon: alive $round >/dev/kmsg; sleep 5; done; rmmod {}",
        SPARE / 1024,
        driver.module
    ))?;

    for round in 1..=2 {
        guest.wait_for(&format!("life after sleep {round}"), RESIZE, |guest| {
            if guest.qmp(qmp::query_status {})?.status == qmp::RunState::suspended {
                ensure!(actual(guest)? == SIZE, "asleep without all memory");
                guest.qmp(qmp::system_wakeup {})?;
            }
            let alive = format!("tenon: alive {round}");
            Ok(guest.log().contains(&alive).then_some(()))
        })?;
        guest.wait_for("the size", Duration::from_secs(1), |guest| {
            Ok((actual(guest)? == SIZE - SPARE).then_some(()))
        })?;
    }
    guest.wait_for("the end", RESIZE, |guest| {
        Ok((actual(guest)? == SIZE).then_some(()))
    })?;
    let sleeps = guest
        .log()
        .matches("Waking up from system sleep state S3")
        .count();
    ensure!(sleeps == 2, "the machine has slept {sleeps} times");
    Ok(())
}

/// The machine is switched off with memory in the balloon, and our driver has lent some to a device that does not answer.
fn shutdown(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    if driver == RUST {
        guest.insmod("mute_balloon", "devices=1 pages=8192")?;
    }
    resize(guest, SIZE - SPARE / 2)?;
    guest.power_off().map(drop)
}

/// The PCI function is reset, whatever the balloon was doing.
fn function_reset(guest: &mut Guest) -> Result<()> {
    const RESET: &str =
        "echo 1 >$(readlink -f /sys/bus/virtio/drivers/virtio_balloon_rust/virtio*/..)/reset";

    RUST.load(guest, "")?;
    let available = available(guest)?;
    guest.qom_set("b0", "guest-stats-polling-interval", 1.into())?;
    for step in 0..6 {
        ask(guest, SIZE - step % 2 * SPARE)?;
        thread::sleep(Duration::from_millis(50 * step));
        guest.sh_for(RESIZE, RESET)?;
    }
    guest.wait_for("the target of before", RESIZE, |guest| {
        Ok((actual(guest)? == SIZE - SPARE).then_some(()))
    })?;
    ensure_available(guest, "shrunk", available - SPARE)?;
    fresh(guest)?;
    resize(guest, SIZE)?;
    ensure_available(guest, "grown", available)?;
    RUST.unload(guest)
}

/// Takes the balloon's function away though nobody has asked the driver.
fn take_away(guest: &mut Guest) -> Result<()> {
    switch_off(
        guest,
        "/sys/bus/virtio/drivers/virtio_balloon_rust/virtio*/../..",
    )?;
    guest.wait_for("the end of the device", RESIZE, |guest| {
        Ok(guest.qmp(qmp::query_balloon {}).is_err().then_some(()))
    })
}

/// The function vanishes, whatever the balloon was doing: the driver goes in some seconds, and the guest has its memory.
fn vanished(guest: &mut Guest, state: &str) -> Result<()> {
    let available = available(guest)?;

    guest.sh("echo 100 >/sys/module/page_reporting/parameters/page_reporting_delay_ms")?;
    RUST.load(guest, "")?;
    match state {
        "inflating" => ask(guest, SIZE - SPARE)?,
        "deflating" => {
            resize(guest, SIZE - SPARE)?;
            ask(guest, SIZE)?;
        }
        _ => guest
            .sh("dd if=/dev/zero of=/tmp/touch bs=1M count=200 2>/dev/null; rm /tmp/touch")
            .map(drop)?,
    }
    take_away(guest)?;
    // The kernel may have seen it, and unbound the driver; if not, this does.
    RUST.unload(guest)?;
    let log = guest.log();
    ensure!(log.contains("the device is gone"), "no message");
    ensure_available(guest, "after the end", available)
}
