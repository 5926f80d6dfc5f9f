// SPDX-License-Identifier: GPL-2.0

//! Tests of devices that do not answer for everything, answer what makes no sense, or go away meanwhile.

use super::{
    balloon::RUST,
    memory::{
        available,
        ensure_available, //
    },
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
use std::time::{
    Duration,
    Instant, //
};

const DEBUGFS: &str = "/sys/kernel/debug/virtio_balloon_rust";

/// As much as may be under way at once.
const PAGES: u64 = 64 * 256;

pub fn tests() -> Vec<Test> {
    // The C driver waits for such hosts without end.
    let mut tests: Vec<_> = [true, false]
        .into_iter()
        .map(|must_tell| {
            let when = if must_tell { "answered" } else { "told" };
            Test::guest(
                format!("balloon/{}/released-when-{when}", RUST.module),
                60,
                Spec::q35(),
                move |guest, _| released(guest, must_tell),
            )
        })
        .collect();

    tests.push(Test::guest(
        format!("balloon/{}/spoiled", RUST.module),
        60,
        Spec::q35(),
        |guest, _| spoiled(guest),
    ));
    tests
}

/// A device takes pages and does not answer when they are to come back: if it has asked to be told first, the guest must not use
/// them, and has to say that they are away; otherwise it has them at once. None of them is given away again meanwhile.
fn released(guest: &mut Guest, must_tell: bool) -> Result<()> {
    const WANTED: &str = "/sys/module/mute_balloon/parameters/pages";
    let figure = |guest: &mut Guest, file: &str| guest.number(&format!("cat {DEBUGFS}/*/{file}"));
    let becomes = |guest: &mut Guest, file: &str| {
        guest.wait_for(file, Duration::from_secs(10), |guest| {
            Ok((figure(guest, file)? == PAGES).then_some(()))
        })
    };

    let before = available(guest)?;
    RUST.load(guest, "")?;
    let module = format!(
        "devices=1 pages={PAGES} takes=1 must_tell={}",
        u32::from(must_tell)
    );
    guest.insmod("mute_balloon", &module)?;
    becomes(guest, "actual")?;
    ensure_available(guest, "inflated", before - PAGES * 4096)?;

    guest.sh(&format!("echo 0 >{WANTED}"))?;
    becomes(guest, "deflating")?;
    let (actual, freed, left) = if must_tell {
        (PAGES, 0, before - PAGES * 4096)
    } else {
        (0, PAGES, before)
    };
    ensure!(figure(guest, "actual")? == actual);
    ensure!(figure(guest, "deflated")? == freed);
    ensure_available(guest, "deflating", left)?;

    guest.sh(&format!("echo {} >{WANTED}; sleep 1", PAGES / 2))?;
    ensure!(figure(guest, "inflating")? == 0);
    ensure!(figure(guest, "deflating")? == PAGES);
    let state = guest.sh(&format!("cat {DEBUGFS}/*/state"))?;
    ensure!(state == "waiting for the host", "{state}");

    let start = Instant::now();
    if must_tell {
        RUST.unload(guest)?;
        guest.sh("rmmod mute_balloon")?;
    } else {
        // The device is gone before its driver.
        guest.sh("rmmod mute_balloon")?;
        RUST.unload(guest)?;
    }
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(15), "the end took {took:?}");
    ensure_available(guest, "unloaded", before)
}

/// A device that answers what makes no sense is not told anything any more; what it was given comes back when the driver goes.
fn spoiled(guest: &mut Guest) -> Result<()> {
    let before = available(guest)?;

    RUST.load(guest, "")?;
    guest.insmod(
        "mute_balloon",
        &format!("devices=1 pages={PAGES} takes=1 spoils=1"),
    )?;
    guest.wait_for("an end", Duration::from_secs(10), |guest| {
        let state = guest.sh(&format!("cat {DEBUGFS}/*/state"))?;
        Ok(state.starts_with("broken").then_some(()))
    })?;
    let said = guest.log().matches("a queue is out of use").count();
    ensure!(said == 1, "that is said {said} times");
    let stuck = guest.sh("ps -o stat,comm | grep '^D' || true")?;
    ensure!(stuck.is_empty(), "in D state: {stuck}");

    let start = Instant::now();
    RUST.unload(guest)?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(15), "unloading took {took:?}");
    guest.sh("rmmod mute_balloon")?;
    ensure_available(guest, "unloaded", before)
}
