// SPDX-License-Identifier: GPL-2.0

//! The tests that need no guest: those of the modules' pure logic in `tools/testing/host`, and this program's own.

use super::{
    Tally,
    Test, //
};
use crate::guest::Lab;
use anyhow::{
    ensure,
    Result, //
};
use std::{
    process::Command,
    time::Duration, //
};

const LIMIT: Duration = Duration::from_secs(600);

pub fn tests() -> Vec<Test> {
    vec![Test::host("host", LIMIT.as_secs(), cargo_test)]
}

/// Runs the tests of all packages and counts them.
fn cargo_test(lab: &Lab) -> Result<Tally> {
    let testing = lab.env.top.join("tools/testing");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));

    command
        .args([
            "test",
            "--release",
            "--locked",
            "--no-fail-fast",
            "--workspace",
        ])
        .arg("--manifest-path")
        .arg(testing.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(lab.env.top.join("build/host"));
    // Type information of a real kernel, for the tests that read it.
    let vmlinux = lab.env.kdir.join("vmlinux");
    if vmlinux.exists() {
        command.env("TENON_VMLINUX", vmlinux);
    }

    let (success, text) = lab.run(&mut command, LIMIT)?;
    let tally = tally(&text);
    judge(success, &tally, &text)?;
    Ok(tally)
}

/// Whether the results are all that there is to say: a program that could not be built, or went down, has none.
fn judge(success: bool, tally: &Tally, text: &str) -> Result<()> {
    ensure!(
        success || !tally.failed.is_empty(),
        "cargo failed, but no test did: {}",
        text.lines()
            .rfind(|line| line.starts_with("error"))
            .unwrap_or_default()
    );
    ensure!(tally.passed + tally.failed.len() > 0, "there are no tests");
    Ok(())
}

/// The results in the output of test programs.
fn tally(text: &str) -> Tally {
    let mut tally = Tally::default();

    for line in text.lines().filter_map(|line| line.strip_prefix("test ")) {
        match line.rsplit_once(" ... ") {
            Some((_, "ok")) => tally.passed += 1,
            Some((name, "FAILED")) => tally.failed.push(name.to_owned()),
            _ => {}
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_and_failures_named() {
        let text = "running 3 tests\ntest a::one ... ok\ntest two - should panic ... ok\n\
                    test three ... FAILED\n\ntest result: FAILED. 2 passed; 1 failed; 0 ignored\n";
        let tally = tally(text);

        assert_eq!(tally.passed, 2);
        assert_eq!(tally.failed, ["three"]);
        assert!(judge(false, &tally, text).is_ok());
    }

    #[test]
    fn a_program_that_went_down_is_a_failure() {
        let text = "test a::one ... ok\nerror: test failed, to rerun pass `--test two`\n";
        let tally = tally(text);

        assert!(judge(true, &tally, text).is_ok());
        let error = judge(false, &tally, text).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("`--test two`")));
        assert!(judge(true, &Tally::default(), "").is_err());
    }
}
