// SPDX-License-Identifier: GPL-2.0

//! Runs tests side by side, each within its time, and says how they ended.

use crate::{
    check,
    env::Environment,
    guest::{
        Guest,
        Image,
        Lab,
        Spec,
        STALE, //
    },
    process::{
        self,
        Group, //
    },
    tests::{
        Body,
        Tally,
        Test, //
    }, //
};
use anyhow::{
    anyhow,
    bail,
    Result, //
};
use std::{
    fmt::{
        self,
        Display,
        Formatter, //
    },
    fs,
    path::PathBuf,
    sync::{
        mpsc::{
            self,
            RecvTimeoutError, //
        },
        Arc, //
    },
    thread,
    time::{
        Duration,
        Instant,
        SystemTime, //
    },
};

/// Time for a guest to come up, at its last attempt, and to be looked through at the end, on top of what the test itself may take,
/// twice.
const OVERHEAD: Duration = Duration::from_secs(330);

/// How tests are run.
pub struct Options {
    /// How many guests of two CPUs run at once.
    pub jobs: u32,
    /// No test is started after this.
    pub until: Option<SystemTime>,
}

/// How many tests ended in which way.
#[derive(Default)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Not started, as the time was over.
    late: usize,
}

impl Totals {
    /// Where there was no time for any test, nothing is known.
    fn all_well(&self) -> bool {
        self.failed == 0 && (self.passed != 0 || self.late == 0)
    }
}

impl Display for Totals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        for (number, what) in [(self.skipped, "skipped"), (self.late, "not started")] {
            if number != 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        Ok(())
    }
}

/// A test that is running.
struct Running {
    index: usize,
    group: Group,
    start: Instant,
    limit: Duration,
}

/// Runs the tests and returns whether all passed.
pub fn run(
    env: &Environment,
    image: Arc<Image>,
    tests: &[Test],
    options: &Options,
) -> Result<bool> {
    let sanitizer = env.is_sanitizer();
    let slow = if sanitizer { 4 } else { 1 };
    let width = tests.iter().map(|test| test.name.len()).max().unwrap_or(0);
    let mut totals = Totals::default();
    let mut waiting: Vec<usize> = Vec::new();

    for (index, test) in tests.iter().enumerate() {
        let not_for = if sanitizer {
            test.stock_only
        } else {
            test.sanitizer_only
        };
        match test.impossible.or(not_for) {
            Some(reason) => {
                println!("skip  {:width$}  {reason}", test.name);
                totals.skipped += 1;
            }
            None => waiting.push(index),
        }
    }
    waiting.reverse();
    fs::create_dir_all(log_path(env, "").parent().unwrap_or(&env.top))?;

    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let mut running: Vec<Running> = Vec::new();

        loop {
            if options.until.is_some_and(|until| SystemTime::now() > until) {
                for index in waiting.drain(..).rev() {
                    println!("late  {:width$}  no time was left", tests[index].name);
                    totals.late += 1;
                }
            }
            // The next test that fits; one that is larger than everything runs alone.
            while let Some(&index) = waiting.last() {
                let busy: u32 = running.iter().map(|run| tests[run.index].weight()).sum();
                let fits = busy + tests[index].weight() <= 2 * options.jobs;
                if process::interrupted() || !(fits || running.is_empty()) {
                    break;
                }
                waiting.pop();

                let test = &tests[index];
                let lab = Lab {
                    env: env.clone(),
                    image: image.clone(),
                    group: Group::new(),
                    slow,
                    sanitizer,
                    log: log_path(env, &test.name),
                };
                let sender = sender.clone();
                running.push(Running {
                    index,
                    group: lab.group.clone(),
                    start: Instant::now(),
                    limit: (2 * test.limit + OVERHEAD) * slow,
                });
                scope.spawn(move || {
                    let result = run_one(test, &lab);
                    // The receiver outlives the threads.
                    let _ = sender.send((index, result, lab.log));
                });
            }
            if running.is_empty() {
                break;
            }

            match receiver.recv_timeout(Duration::from_millis(200)) {
                Ok((index, result, log)) => {
                    let position = running.iter().position(|run| run.index == index);
                    if let Some(position) = position {
                        let run = running.swap_remove(position);
                        report(
                            &tests[index],
                            result,
                            run.start.elapsed(),
                            &log,
                            width,
                            &mut totals,
                        );
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    for run in running.iter().filter(|run| run.start.elapsed() > run.limit) {
                        run.group
                            .stop(&format!("took longer than {} s", run.limit.as_secs()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });

    if process::interrupted() {
        bail!("interrupted");
    }
    println!("{totals}");
    Ok(totals.all_well())
}

fn log_path(env: &Environment, name: &str) -> PathBuf {
    let kernel = if env.is_sanitizer() {
        "sanitizer"
    } else {
        "stock"
    };

    env.log_dir()
        .join(kernel)
        .join(format!("{}.log", name.replace('/', "-")))
}

/// Runs one test to its end.
fn run_one(test: &Test, lab: &Lab) -> Result<Tally> {
    let result = match &test.body {
        Body::Host(body) => body(lab),
        Body::Guest(spec, body) => run_in_guest(test, lab, spec, body).map(|()| Tally {
            passed: 1,
            failed: Vec::new(),
        }),
    };

    // What the test saw of being stopped is not the reason.
    match lab.group.stopped() {
        Some(reason) => result
            .and_then(|_| bail!("stopped"))
            .map_err(|error| error.context(reason)),
        None => result,
    }
}

/// Runs one test in a guest, and in another one if the emulator was at fault.
fn run_in_guest(
    test: &Test,
    lab: &Lab,
    spec: &Spec,
    body: &impl Fn(&mut Guest, &Lab) -> Result<()>,
) -> Result<()> {
    let result = try_in_guest(test, lab, spec, body);

    match &result {
        Err(error) if spec.is_at_once() && format!("{error:#}").contains(STALE) => {
            println!("note  {}: the emulator executed a breakpoint that was gone, once more with CPUs in turn", test.name);
            try_in_guest(test, lab, &spec.clone().in_turn(), body)
        }
        _ => result,
    }
}

fn try_in_guest(
    test: &Test,
    lab: &Lab,
    spec: &Spec,
    body: &impl Fn(&mut Guest, &Lab) -> Result<()>,
) -> Result<()> {
    let mut guest = Guest::boot(lab, spec)?;
    let start = Instant::now();
    let result = body(&mut guest, lab);
    let taken = start.elapsed();

    // A guest that is gone has said all that it will say, and a checker that is off has said why.
    let log = match guest.finish() {
        Ok(log) => log,
        Err(error) => {
            let log = guest.log();
            let clean = check::first_report_but(&log, test.headlines, test.message).is_none();
            if result.is_ok() && test.report.is_none() && clean {
                return Err(error);
            }
            log
        }
    };
    if result.is_ok() && taken > test.limit * lab.slow {
        bail!(
            "took {} s, {} s are allowed",
            taken.as_secs(),
            (test.limit * lab.slow).as_secs()
        );
    }

    let report = check::first_report_but(&log, test.headlines, test.message);
    match (report, test.report) {
        (Some(report), Some(expected)) if report.contains(expected) => result,
        (report, Some(expected)) => {
            let found = report.unwrap_or("none");
            result.and(Err(anyhow!(
                "the kernel was to report `{expected}`, it reported: {found}"
            )))
        }
        (Some(report), None) => {
            let reported = anyhow!("the kernel reports: {}", report.trim());
            Err(match result {
                Ok(()) => reported,
                Err(error) => error.context(reported),
            })
        }
        (None, None) => result,
    }
}

/// Prints how a test ended, and keeps its log if it failed.
fn report(
    test: &Test,
    result: Result<Tally>,
    time: Duration,
    log: &std::path::Path,
    width: usize,
    totals: &mut Totals,
) {
    let name = &test.name;
    let seconds = time.as_secs_f32();

    let failed = match result {
        Ok(tally) => {
            totals.passed += tally.passed;
            totals.failed += tally.failed.len();
            let state = if tally.failed.is_empty() {
                "ok  "
            } else {
                "FAIL"
            };
            print!("{state}  {name:width$}  {seconds:6.1} s");
            if tally.passed + tally.failed.len() == 1 {
                println!();
            } else {
                println!("  ({} tests)", tally.passed + tally.failed.len());
            }
            for failed in &tally.failed {
                println!("      {failed}");
            }
            !tally.failed.is_empty()
        }
        Err(error) => {
            totals.failed += 1;
            println!("FAIL  {name:width$}  {seconds:6.1} s");
            println!("      {error:#}");
            true
        }
    };

    if !failed {
        // A test without a guest has no log.
        let _ = fs::remove_file(log);
    } else if log.exists() {
        println!("      log: {}", log.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_leaves_nothing_out() {
        let totals = Totals {
            passed: 3,
            failed: 1,
            skipped: 0,
            late: 2,
        };
        assert_eq!(totals.to_string(), "3 passed, 1 failed, 2 not started");
        assert!(!totals.all_well());
    }

    #[test]
    fn no_time_for_any_test_is_a_failure() {
        let totals = |passed, late| Totals {
            passed,
            failed: 0,
            skipped: 5,
            late,
        };
        assert!(totals(4, 9).all_well());
        assert!(!totals(0, 9).all_well());
        // Those of a filter may all be for another kernel.
        assert!(totals(0, 0).all_well());
        assert_eq!(totals(0, 0).to_string(), "0 passed, 0 failed, 5 skipped");
    }
}
