// SPDX-License-Identifier: GPL-2.0

//! Whether the storm is strong enough: it must raise alarms when the rule is weaker.

use crate::{
    bench::{
        rows::{
            Row,
            Side, //
        },
        Bench,
        Benchmark,
        Findings, //
    },
    fixtures,
    guest::Guest,
    mutants,
    tests::integrity::{
        count,
        storm::{
            self,
            Storm, //
        },
        MODULE, //
    },
};
use anyhow::{
    ensure,
    Result, //
};

/// How long each storm lasts.
const SECONDS: u64 = 40;

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "integrity/mutants",
        "false alarms in the same storm of the module, and of the module with a weaker rule, which must have some",
        mutants,
    )]
}

fn mutants(bench: &Bench) -> Result<Findings> {
    let mutants = mutants::build(&bench.lab.env, |what| bench.progress(what))?;
    let mut extra = fixtures::build(&bench.lab.env)?;
    extra.extend(mutants.iter().map(|mutant| {
        let to = format!("modules/{}.ko", mutant.name);
        (mutant.module.clone(), to)
    }));
    let lab = bench.lab.with_image(&extra)?;
    let mut findings = Findings::default();

    for name in [MODULE.module]
        .into_iter()
        .chain(mutants.iter().map(|mutant| mutant.name.as_str()))
    {
        let mut guest = Guest::boot(&lab, &storm::spec())?;
        let mut row = Row::new(name, "false alarms");

        guest.insmod(name, "interval_ms=0 switch_probe=0")?;
        let mut storm = Storm::begin(
            &mut guest,
            0,
            &[
                "parameters",
                "modules",
                "sched_ext",
                "tracing",
                "bpf",
                "live_patch",
            ],
        )?;
        storm.rage(SECONDS, bench.lab.slow, |_| Ok(()))?;
        let scans = storm.end()?.get("scans")?;
        let found = count(&mut guest, "findings")?;
        bench.progress(&format!("{name}: {found} false alarms in {scans} scans"));
        ensure!(
            (found == 0) == (name == MODULE.module),
            "{name}: {found} false alarms in {scans} scans"
        );
        row.push(Side::Ours, found as f64);
        findings.rows.push(row);
    }
    Ok(findings)
}
