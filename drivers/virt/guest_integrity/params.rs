// SPDX-License-Identifier: GPL-2.0

//! Module parameters.

use crate::views::NAMES;

use guest::param::{
    names::{
        Choice,
        Set, //
    },
    Number,
    Text, //
};

/// Length of the longest tag.
pub(crate) const TAG_LEN: usize = 32;

/// What may be done on a finding, beyond reporting it.
const ACTIONS: [&str; 2] = ["report", "panic"];
/// The place of the one that stops the system.
pub(crate) const PANIC: usize = 1;

guest::module_params! {
    /// Milliseconds from the end of one periodic scan to the start of the next.
    interval_ms: Number<u32> = Number::new(1000, 0, 86_400_000), 0o644,
        "Milliseconds between periodic scans, 0 for none (default 1000)";
    /// Milliseconds from the end of one scan to the start of the next, whoever asks for it.
    scan_min_ms: Number<u32> = Number::new(0, 0, 10_000), 0o644,
        "Least milliseconds from the end of a scan to the start of the next, whoever asks for it (default 0)";
    /// The port of the host that findings and heartbeats go to.
    vsock_port: Number<u32> = Number::new(0, 0, u32::MAX), 0o644,
        "Port of the host that findings and heartbeats go to, 0 for none (default)";
    /// The machine that listens there.
    vsock_cid: Number<u32> = Number::new(2, 0, u32::MAX), 0o444,
        "Number of the machine that listens there (default 2, the host)";
    /// Milliseconds from one heartbeat to the next.
    heartbeat_ms: Number<u32> = Number::new(1000, 10, 3_600_000), 0o644,
        "Milliseconds from one heartbeat to the next (default 1000)";
    /// Milliseconds for which a listing that a program has submitted counts.
    listing_max_ms: Number<u32> = Number::new(60_000, 1, 86_400_000), 0o644,
        "Milliseconds for which a submitted listing of /proc counts (default 60000)";
    /// What is done on a finding.
    on_finding: Choice = Choice::new(&ACTIONS), 0o644,
        "What is done on a finding: report (default), or panic";
    /// What lines in the log of the kernel begin with.
    tag: Text<TAG_LEN> = Text::new("guest_integrity"), 0o444,
        "What lines in the log of the kernel begin with (default guest_integrity)";
    /// Whether each task is looked at when it gets a CPU.
    switch_probe: Number<u32> = Number::new(1, 0, 1), 0o644,
        "1 looks at each task when it gets a CPU (default), 0 does not";
    /// The views that scans take.
    views: Set = Set::new(&NAMES, 0), 0o644,
        "What is compared with the lists of tasks: names with commas between them, or all (default)";
}
