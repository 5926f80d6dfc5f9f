// SPDX-License-Identifier: GPL-2.0

//! Module parameters.

use crate::views::NAMES;

use guest::param::{
    names::Set,
    Number, //
};

guest::module_params! {
    /// Milliseconds from the end of one periodic scan to the start of the next.
    interval_ms: Number<u32> = Number::new(1000, 0, 86_400_000), 0o644,
        "Milliseconds between periodic scans, 0 for none (default 1000)";
    /// Whether each task is looked at when it gets a CPU.
    switch_probe: Number<u32> = Number::new(1, 0, 1), 0o644,
        "1 looks at each task when it gets a CPU (default), 0 does not";
    /// The views that scans take.
    views: Set = Set::new(&NAMES, 0), 0o644,
        "What is compared with the lists of tasks: names with commas between them, or all (default)";
}
