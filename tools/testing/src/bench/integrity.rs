// SPDX-License-Identifier: GPL-2.0

//! Whether guest_integrity raises false alarms, see `Documentation/benchmarks.md`.

mod mutants;
mod storm;

use super::Benchmark;

/// The benchmarks of guest_integrity.
pub fn benchmarks() -> Vec<Benchmark> {
    [storm::benchmarks(), mutants::benchmarks()]
        .into_iter()
        .flatten()
        .collect()
}
