// SPDX-License-Identifier: GPL-2.0

//! `make bench`: our drivers beside the kernel's own, on the same device, in turns. `Documentation/benchmarks.md` says how to read
//! what comes out, and how to add a benchmark.

mod balloon;
mod counted;
mod integrity;
mod memory;
mod notifications;
mod packets;
mod picture;
mod profile;
mod report;
mod rig;
mod rows;
mod streams;

use crate::{
    check,
    env::Environment,
    guest::{
        Guest,
        Image,
        Lab, //
    },
    process::Group, //
};
use anyhow::{
    bail,
    ensure,
    Result, //
};
use profile::{
    List,
    Profile, //
};
use rows::Row;
use std::{cell::OnceCell, fs, path::PathBuf, rc::Rc, sync::Arc, time::Instant};

type Body = Box<dyn Fn(&Bench) -> Result<Findings>>;

/// Something that is measured in a guest of its own.
pub struct Benchmark {
    /// Component and subject, separated by a slash.
    pub name: &'static str,
    /// What it measures and how, in a sentence.
    pub about: &'static str,
    /// Measures it.
    pub body: Body,
}

impl Benchmark {
    fn new(
        name: &'static str,
        about: &'static str,
        body: impl Fn(&Bench) -> Result<Findings> + 'static,
    ) -> Self {
        Benchmark {
            name,
            about,
            body: Box::new(body),
        }
    }
}

/// All of them.
fn all() -> Vec<Benchmark> {
    [
        packets::benchmarks(),
        notifications::benchmarks(),
        streams::benchmarks(),
        memory::benchmarks(),
        balloon::benchmarks(),
        integrity::benchmarks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a benchmark has found.
#[derive(Default)]
pub struct Findings {
    pub rows: Vec<Row>,
    /// What was executed, where instructions were counted.
    pub workloads: Vec<Workload>,
    /// Why there are no figures of our driver, if there are none.
    pub unsupported: Option<String>,
}

/// What both drivers have executed for one load.
pub struct Workload {
    pub name: String,
    /// What it is the share of.
    pub unit: String,
    /// Without a driver.
    pub alone: Profile,
    pub theirs: Profile,
    pub ours: Profile,
}

/// What benchmarks work with.
pub struct Bench {
    pub lab: Lab,
    /// How often each driver runs.
    pub runs: u32,
    /// The plugin that counts.
    pub counter: PathBuf,
    /// The functions of the kernel, once a guest has told them.
    pub symbols: OnceCell<Rc<List>>,
    start: Instant,
}

impl Bench {
    /// Says what is going on.
    pub fn progress(&self, what: &str) {
        let seconds = self.start.elapsed().as_secs();

        println!("[{:3}:{:02}]   {what}", seconds / 60, seconds % 60);
    }

    /// Fails when the guest's kernel has reported something.
    pub fn check_log(&self, guest: &mut Guest) -> Result<()> {
        let log = guest.finish()?;

        match check::first_report(&log) {
            None => Ok(()),
            Some(report) => bail!("the guest's kernel reports: {report}"),
        }
    }
}

/// Runs the benchmarks whose names contain one of `filter`, and writes what they have found.
pub fn run(env: Environment, image: Arc<Image>, filter: &[String], runs: u32) -> Result<bool> {
    let start = Instant::now();
    let mut benchmarks = all();
    if !filter.is_empty() {
        benchmarks.retain(|benchmark| filter.iter().any(|part| benchmark.name.contains(part)));
    }
    ensure!(
        !benchmarks.is_empty(),
        "no benchmark has such a name; --list prints them all"
    );

    let counter = rig::build_counter(&env)?;
    let output = env.top.join("build/bench");
    fs::create_dir_all(&output)?;
    let mut bench = Bench {
        lab: Lab {
            log: output.join("console.log"),
            env,
            image,
            group: Group::new(),
            slow: 1,
            sanitizer: false,
        },
        runs,
        counter,
        symbols: OnceCell::new(),
        start,
    };
    let mut results = Vec::new();
    let mut held = true;

    for benchmark in &benchmarks {
        println!("{}: {}", benchmark.name, benchmark.about);
        bench.lab.log = output.join(format!("{}.log", benchmark.name.replace('/', "-")));
        match (benchmark.body)(&bench) {
            Ok(findings) => {
                println!("{}\n", report::table(&findings.rows));
                // Nobody will want it.
                let _ = fs::remove_file(&bench.lab.log);
                results.push((benchmark, findings));
                // Each time: who interrupts the rest keeps what there is.
                report::write(&output, &bench, &results)?;
            }
            Err(error) => {
                println!(
                    "FAILED {}: {error:#}\nThe guest's log: {}\n",
                    benchmark.name,
                    bench.lab.log.display()
                );
                held = false;
            }
        }
        if crate::process::interrupted() {
            bail!("interrupted");
        }
    }

    println!(
        "{} in {} min: tables, raw figures and pictures are in {}",
        if held { "done" } else { "not all done" },
        start.elapsed().as_secs() / 60,
        output.display()
    );
    Ok(held)
}

/// Prints the names of all benchmarks, and what they are.
pub fn list() {
    let all = all();
    let width = all.iter().map(|benchmark| benchmark.name.len()).max();

    for benchmark in &all {
        println!(
            "{:1$}  {2}",
            benchmark.name,
            width.unwrap_or(0),
            benchmark.about
        );
    }
}
