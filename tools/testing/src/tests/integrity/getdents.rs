// SPDX-License-Identifier: GPL-2.0

//! Tests of what guest_integrity makes of listings that a program submits.

use super::{
    count,
    interfaces::for_root_only,
    records,
    scan,
    Victim,
    DEBUGFS,
    MODULE,
    ON_DEMAND, //
};
use crate::guest::Guest;
use anyhow::{
    ensure,
    Result, //
};

const DEVICE: &str = "/dev/guest_integrity_listing";
const SUBMIT: &str = "/tenon/scripts/integrity-listing";
const MAX_MS: &str = "/sys/module/guest_integrity/parameters/listing_max_ms";

/// Most numbers of a listing.
const MOST: u32 = 4_194_304;

/// What is not a listing.
const BAD: [&str; 8] = [
    "x",
    "0\\nend\\n",
    "01\\nend\\n",
    "-1\\nend\\n",
    "4194305\\nend\\n",
    "1 2\\nend\\n",
    "1\\nend\\n2\\n",
    "\\nend\\n",
];

/// What the view says of itself after a scan.
fn state(guest: &mut Guest) -> Result<String> {
    scan(guest)?;
    let state = guest.sh(&format!(
        "sed -n 's/^view=listing state=\\([a-z_]*\\) .*/\\1/p' {DEBUGFS}/views"
    ))?;

    Ok(state.trim().to_owned())
}

/// A hook that hides a process from programs is found by what a program says, and nothing else is.
pub fn getdents(guest: &mut Guest) -> Result<()> {
    MODULE.load(guest, ON_DEMAND)?;
    ensure!(state(guest)? == "not_covered", "covered by nobody");
    refused(guest)?;
    ensure!(state(guest)? == "not_covered", "covered by what is refused");
    guest.sh(SUBMIT)?;
    ensure!(state(guest)? == "on");

    let victim = Victim::start(guest, "-s")?;
    guest.insmod("hide_dirent", &format!("pid={} change=0", victim.pid))?;
    guest.sh(SUBMIT)?;
    ensure!(state(guest)? == "on" && records(guest)?.is_empty());
    guest.sh("rmmod hide_dirent")?;

    guest.insmod("hide_dirent", &format!("pid={}", victim.pid))?;
    let seen = guest.run(&format!("ls /proc | grep -qx {}", victim.pid))?;
    ensure!(seen.status != 0, "the fixture hides nobody");
    for _ in 0..2 {
        ensure!(state(guest)? == "on" && records(guest)?.is_empty());
    }
    // Once is not enough.
    guest.sh(&format!(
        "cd /proc && {{ printf '%s\\n' [0-9]*; echo end; }} >{DEVICE}"
    ))?;
    ensure!(state(guest)? == "on" && records(guest)?.is_empty());

    guest.sh(SUBMIT)?;
    for _ in 0..2 {
        ensure!(state(guest)? == "on");
    }
    let all = records(guest)?;
    ensure!(
        all.len() == 1
            && all[0].contains(&format!(
                " type=finding pid={0} tgid={0} comm=tenon-victim ",
                victim.pid
            ))
            && all[0].ends_with(" view=listing reason=getdents_unlisted"),
        "{all:?}"
    );

    guest.sh("rmmod hide_dirent")?;
    guest.sh(SUBMIT)?;
    let sightings = count(guest, "sightings")?;
    ensure!(state(guest)? == "on" && count(guest, "sightings")? == sightings);
    victim.end(guest)?;

    storm(guest)?;
    // What was so is not so for ever.
    guest.sh(&format!("echo 1 >{MAX_MS}"))?;
    ensure!(state(guest)? == "not_covered", "covered by what is stale");
    ensure!(count(guest, "findings")? == 1);
    Ok(())
}

/// What is not a listing is refused, in any state of the file, and changes nothing.
fn refused(guest: &mut Guest) -> Result<()> {
    for bad in BAD {
        let written = guest.run(&format!("printf '{bad}' >{DEVICE}"))?;
        ensure!(written.status != 0, "{bad} is taken");
    }
    for (command, error) in [
        // More numbers than there can be.
        (
            format!("yes 1 | head -c {} | dd of={DEVICE} bs=64k", 2 * (MOST + 1)),
            "Argument list too long",
        ),
        // Whose numbers mean others.
        (
            format!("unshare -p -f sh -c ': >{DEVICE}'"),
            "Operation not permitted",
        ),
        // Where there is no /proc to compare with.
        (
            format!("unshare -m sh -c 'umount -l /proc && echo end >{DEVICE}'"),
            "No such file or directory",
        ),
    ] {
        let written = guest.run(&command)?;
        ensure!(
            written.status != 0 && written.stderr.contains(error),
            "{command}: {written:?}"
        );
    }
    for_root_only(guest, &format!(">{DEVICE}"))?;
    // Nor is one without an end taken for one.
    guest.sh(&format!("printf '1\\n2\\n' >{DEVICE}"))?;
    let mode = guest.sh(&format!("stat -c %a {DEVICE}"))?;
    ensure!(mode.trim() == "200", "{mode}");
    Ok(())
}

/// However fast processes come and go, none of them is missing from a listing.
fn storm(guest: &mut Guest) -> Result<()> {
    const FORKS: &str = "sed -n 's/^processes //p' /proc/stat";
    let before = records(guest)?.len();
    let forks = guest.number(FORKS)?;

    // Some execute a program, some do not.
    guest.sh(
        "for i in 1 2 3 4; do \
         sh -c 'while :; do /bin/true; (:); done' >/dev/null 2>&1 </dev/null & echo $! >>/run/storm; done",
    )?;
    for _ in 0..4 {
        guest.sh(SUBMIT)?;
        scan(guest)?;
    }
    guest.sh("kill $(cat /run/storm)")?;

    let forks = guest.number(FORKS)? - forks;
    ensure!(forks > 100, "{forks} processes are no storm");
    let all = records(guest)?;
    ensure!(
        all.len() == before,
        "an honest process is taken for a hidden one: {all:?}"
    );
    Ok(())
}
