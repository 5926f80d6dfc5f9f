// SPDX-License-Identifier: GPL-2.0

//! What users are shown of scans.

use super::Scanner;
use crate::{
    params,
    views::NAMES, //
};

use kernel::{
    fmt,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

impl Scanner {
    /// Shows what the last scan was like.
    pub(crate) fn show_last(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.flight.lock().last;
        let coverage = &last.coverage;

        writeln!(f, "scan={}", last.number)?;
        writeln!(f, "complete={}", u8::from(coverage.is_complete()))?;
        writeln!(f, "cpus={}", coverage.cpus)?;
        writeln!(f, "cpus_online={}", coverage.online)?;
        writeln!(f, "queued={}", coverage.queued)?;
        writeln!(f, "processes={}", coverage.processes)?;
        writeln!(f, "threads={}", coverage.threads)?;
        writeln!(f, "named={}", coverage.named)?;
        writeln!(f, "retries={}", coverage.cost.retries)?;
        writeln!(f, "skipped={}", coverage.skipped)?;
        writeln!(f, "cut={}", coverage.cut)?;
        writeln!(f, "exiting={}", last.result.exiting)?;
        writeln!(f, "suspects={}", last.result.suspects)?;
        writeln!(f, "cleared={}", last.result.cleared)?;
        writeln!(f, "hidden={}", last.found)?;
        writeln!(f, "observed={}", last.observed)?;
        writeln!(f, "held_ns={}", coverage.cost.held_ns)?;
        writeln!(f, "duration_ns={}", last.duration_ns)
    }

    /// Shows the state of each view.
    pub(crate) fn show_views(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uncovered = self.flight.lock().last.coverage.uncovered;

        for (i, name) in NAMES.iter().enumerate() {
            let state = match (params::views.has(i), uncovered >> i & 1) {
                (false, _) => "off",
                (true, 0) => "on",
                (true, _) => "not_covered",
            };
            let count = |counters: &[Atomic<u64>]| counters.get(i).map_or(0, |n| n.load(Relaxed));
            writeln!(
                f,
                "view={} state={} findings={} uncovered={}",
                name,
                state,
                count(&self.counts.by_view),
                count(&self.counts.uncovered)
            )?;
        }
        Ok(())
    }

    /// Shows the counters as OpenMetrics text.
    pub(crate) fn show_metrics(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.flight.lock().last;
        let counts = &self.counts;

        for (name, help, value) in [
            ("scans", "Scans made", &counts.scans),
            (
                "clean_scans",
                "Scans that left nothing out and found nothing",
                &counts.clean,
            ),
            (
                "truncated_scans",
                "Scans that left something out",
                &counts.truncated,
            ),
            ("findings", "Things found, each once", &counts.findings),
            (
                "observations",
                "Things seen that honest users do as well, each once",
                &counts.observations,
            ),
            (
                "sightings",
                "Things seen, once in each scan",
                &counts.sightings,
            ),
            (
                "exiting_tasks",
                "Tasks on no list because they were exiting",
                &counts.exiting,
            ),
            (
                "cleared_suspects",
                "Suspects that a later look cleared",
                &counts.cleared,
            ),
        ] {
            metric(f, name, "counter", help)?;
            writeln!(f, "guest_integrity_{}_total {}", name, value.load(Relaxed))?;
        }
        for (name, help, counters) in [
            (
                "view_findings",
                "Things found by each view",
                &counts.by_view,
            ),
            (
                "view_uncovered_scans",
                "Scans in which a view could not be taken",
                &counts.uncovered,
            ),
        ] {
            metric(f, name, "counter", help)?;
            for (view, counter) in NAMES.iter().zip(counters) {
                let value = counter.load(Relaxed);
                writeln!(
                    f,
                    "guest_integrity_{}_total{{view=\"{}\"}} {}",
                    name, view, value
                )?;
            }
        }
        for (name, help, value) in [
            (
                "last_scan_complete",
                "Whether the last scan left nothing out",
                last.coverage.is_complete().into(),
            ),
            (
                "last_scan_hidden",
                "Things seen by the last scan",
                last.found.into(),
            ),
            (
                "last_scan_queued_tasks",
                "Tasks on run queues",
                last.coverage.queued.into(),
            ),
            (
                "last_scan_processes",
                "Processes in the list",
                last.coverage.processes.into(),
            ),
            (
                "last_scan_duration_nanoseconds",
                "Time that the last scan took",
                last.duration_ns,
            ),
            (
                "last_scan_lock_nanoseconds",
                "Longest time for which a run queue was locked",
                last.coverage.cost.held_ns,
            ),
        ] {
            metric(f, name, "gauge", help)?;
            writeln!(f, "guest_integrity_{} {}", name, value)?;
        }
        writeln!(f, "# EOF")
    }
}

/// Begins a family of metrics.
fn metric(f: &mut fmt::Formatter<'_>, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(f, "# TYPE guest_integrity_{} {}", name, kind)?;
    writeln!(f, "# HELP guest_integrity_{} {}.", name, help)
}
