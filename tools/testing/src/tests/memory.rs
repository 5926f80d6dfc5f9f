// SPDX-License-Identifier: GPL-2.0

//! How much memory a guest has.

use super::balloon::SLACK;
use crate::guest::Guest;
use anyhow::{
    ensure,
    Result, //
};
use std::time::Duration;

/// Memory that programs of the guest could have, in bytes. Free pages in the lists of a CPU count: `MemAvailable` leaves them out, they
/// may be an eighth of the memory, and a CPU without work keeps them.
pub fn available(guest: &mut Guest) -> Result<u64> {
    guest.number(
        "awk '$1 == \"MemAvailable:\" { n += $2 } $1 == \"count:\" { n += $2 * 4 } END { print n * 1024 }' \
         /proc/meminfo /proc/zoneinfo",
    )
}

/// What programs could have comes near to what is expected.
pub fn ensure_available(guest: &mut Guest, when: &str, expected: u64) -> Result<()> {
    ensure_available_within(guest, when, expected, SLACK)
}

/// The same, with so much of a difference at most.
pub fn ensure_available_within(
    guest: &mut Guest,
    when: &str,
    expected: u64,
    slack: u64,
) -> Result<()> {
    let mut now = 0;
    let settled = guest.wait_for("available", Duration::from_secs(10), |guest| {
        now = available(guest)?;
        Ok((now.abs_diff(expected) <= slack).then_some(()))
    });

    ensure!(
        settled.is_ok(),
        "available memory, {when}: {} KiB, expected {} KiB",
        now >> 10,
        expected >> 10
    );
    Ok(())
}
