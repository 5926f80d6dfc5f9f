// SPDX-License-Identifier: GPL-2.0

//! Module parameters.

use guest::param::Number;

guest::module_params! {
    /// Milliseconds from the end of one periodic scan to the start of the next.
    interval_ms: Number<u32> = Number::new(1000, 0, 86_400_000), 0o644,
        "Milliseconds between periodic scans, 0 for none (default 1000)";
}
