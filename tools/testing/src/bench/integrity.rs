// SPDX-License-Identifier: GPL-2.0

//! What guest_integrity costs, and whether it raises false alarms: `Documentation/benchmarks.md` says which column is what.

mod crowd;
mod lkrg;
mod mutants;
mod pause;
mod storm;
mod switch;

use super::Benchmark;

/// The benchmarks of guest_integrity.
pub fn benchmarks() -> Vec<Benchmark> {
    [
        crowd::benchmarks(),
        switch::benchmarks(),
        pause::benchmarks(),
        storm::benchmarks(),
        mutants::benchmarks(),
        lkrg::benchmarks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
