// SPDX-License-Identifier: GPL-2.0

//! Runs the modules in guests: `make test`, `make bench`, `make demo` and `make shell`.
//!
//! A guest is the kernel under test with an initramfs made of programs of the build tree. QEMU is driven through QMP, the
//! guest through the QEMU guest agent, and the kernel's log is read for reports of trouble whatever a test finds.
//!
//! See `Documentation/testing.md`.

mod bench;
mod check;
mod demo;
mod env;
mod fixtures;
mod guest;
mod mutants;
mod process;
mod runner;
mod selftests;
mod shell;
mod tests;
mod transfer;

use anyhow::{
    bail,
    Result, //
};
use clap::{
    Parser,
    Subcommand, //
};
use env::Environment;
use guest::Image;
use std::{
    process::ExitCode,
    sync::Arc,
    time::{
        Duration,
        SystemTime,
        UNIX_EPOCH, //
    }, //
};

/// Runs the modules in guests.
#[derive(Parser)]
#[command(name = "tenon")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the tests; the last line says how many passed and failed
    Test(TestArguments),
    /// Builds, installs, uses and uninstalls the modules in a Debian guest, as its user would
    TestInstall,
    /// Measures our drivers beside the kernel's own; what comes out is in build/bench/
    Bench(BenchArguments),
    /// Tests the network drivers with what several hypervisors offer, and makes a table of it
    Backends,
    /// Runs the kernel's own tests of network drivers with both drivers, and says where they differ
    Selftests(SelftestsArguments),
    /// Shows the three modules at work in a guest, with figures
    Demo,
    /// A guest in this terminal, with the modules at hand and its network up; leave it with exit
    Shell,
}

#[derive(clap::Args)]
struct TestArguments {
    /// Only tests whose names contain one of these
    filter: Vec<String>,
    /// Only print the names of the tests
    #[arg(long)]
    list: bool,
    /// How many guests with two CPUs run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// Start no test later than this many minutes from now
    #[arg(long)]
    minutes: Option<u64>,
    /// Count them from this time, in seconds since 1970
    #[arg(long, value_name = "SECONDS", requires = "minutes")]
    since: Option<u64>,
}

#[derive(clap::Args)]
struct SelftestsArguments {
    /// Only tests whose names contain one of these
    filter: Vec<String>,
    /// Only with this driver
    #[arg(long, value_parser = ["virtio_net", "virtio_net_rust"])]
    driver: Option<String>,
    /// Only cases with such a name, of tests written in Python; `*` stands for any text
    #[arg(long = "case", value_name = "PATTERN")]
    cases: Vec<String>,
    /// Only print the names of the tests
    #[arg(long)]
    list: bool,
}

#[derive(clap::Args)]
struct BenchArguments {
    /// Only benchmarks whose names contain one of these
    filter: Vec<String>,
    /// How often each driver runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only print what there is
    #[arg(long)]
    list: bool,
}

impl TestArguments {
    /// Returns after when no test is started, if there is a limit.
    fn until(&self) -> Option<SystemTime> {
        let since = self.since.map_or(Some(SystemTime::now()), |seconds| {
            UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        });
        let minutes = self.minutes?;

        since?.checked_add(Duration::from_secs(minutes.checked_mul(60)?))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Test(arguments) => test(&arguments),
        Command::TestInstall => test_install(),
        Command::Bench(arguments) => bench(&arguments),
        Command::Backends => backends(),
        Command::Selftests(arguments) => selftests(&arguments),
        Command::Demo => demo(),
        Command::Shell => shell(),
    };

    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tenon: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test(arguments: &TestArguments) -> Result<bool> {
    let mut tests = tests::all();

    if !arguments.filter.is_empty() {
        tests.retain(|test| {
            arguments
                .filter
                .iter()
                .any(|filter| test.name.contains(filter))
        });
    }
    if tests.is_empty() {
        bail!("no test has such a name; --list prints them all");
    }
    if arguments.list {
        tests.iter().for_each(|test| println!("{}", test.name));
        return Ok(true);
    }

    let (env, image) = prepare()?;
    for test in &tests {
        if let tests::Body::Guest(spec, _) = &test.body {
            spec.crates()
                .try_for_each(|(program, _)| program.install(&env))?;
        }
    }
    let options = runner::Options {
        jobs: arguments.jobs,
        until: arguments.until(),
    };
    runner::run(&env, image, &tests, &options)
}

fn test_install() -> Result<bool> {
    let (env, image) = prepare()?;
    let options = runner::Options {
        jobs: 2,
        until: None,
    };
    runner::run(&env, image, &tests::debian::tests(), &options)
}

fn bench(arguments: &BenchArguments) -> Result<bool> {
    if arguments.list {
        bench::list();
        return Ok(true);
    }

    let (env, image) = prepare()?;
    bench::run(env, image, &arguments.filter, arguments.runs)
}

fn backends() -> Result<bool> {
    let (env, image) = prepare()?;
    let options = runner::Options {
        jobs: 1,
        until: None,
    };

    tests::backends::clear(&env)?;
    let passed = runner::run(&env, image, &tests::backends::comparison(), &options)?;
    let (table, path) = tests::backends::table(&env)?;
    println!("\n{table}\nThe table is in {}.", path.display());
    Ok(passed)
}

fn selftests(arguments: &SelftestsArguments) -> Result<bool> {
    if arguments.list {
        selftests::list();
        return Ok(true);
    }

    let (env, image) = prepare()?;
    selftests::run(
        &env,
        &image,
        &arguments.filter,
        arguments.driver.as_deref(),
        &arguments.cases,
    )
}

fn demo() -> Result<bool> {
    let (env, image) = prepare()?;
    let log = env.log_dir().join("demo.log");

    std::fs::create_dir_all(env.log_dir())?;
    demo::run(&guest::Lab {
        env,
        image,
        group: process::Group::new(),
        slow: 1,
        sanitizer: false,
        log,
    })
}

fn shell() -> Result<bool> {
    let (_, image) = prepare()?;
    shell::run(&image)
}

/// What every subcommand that starts guests needs.
fn prepare() -> Result<(Environment, Arc<Image>)> {
    let env = Environment::from_env()?;

    ctrlc::set_handler(process::interrupt)?;
    let image = Arc::new(Image::build(&env, &fixtures::build(&env)?)?);
    Ok((env, image))
}
