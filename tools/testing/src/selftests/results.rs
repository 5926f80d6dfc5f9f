// SPDX-License-Identifier: GPL-2.0

//! What the kernel's tests print, case by case, and the tables that are made of it.

use std::{
    collections::BTreeMap,
    fmt::{
        self,
        Display,
        Formatter,
        Write as _, //
    },
};

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
    /// It failed, as the test says that it may.
    Expected,
    NotRun,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
            Verdict::Expected => "expected to fail",
            Verdict::NotRun => "not run",
        })
    }
}

/// A case's end, and the reason where the test gave one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    verdict: Verdict,
    reason: String,
}

impl End {
    fn new(verdict: Verdict, reason: &str) -> Self {
        End {
            verdict,
            reason: reason.trim().to_owned(),
        }
    }

    fn not_run() -> Self {
        Self::new(Verdict::NotRun, "")
    }
}

impl Display for End {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if !self.reason.is_empty() {
            // A bar would end the cell.
            write!(f, ": {}", self.reason.replace('|', "\\|"))?;
        }
        Ok(())
    }
}

/// The cases of a test by their names.
pub type Cases = BTreeMap<String, End>;

/// The cases of a test, from what it printed: lines as `ok 1 name # SKIP reason`, `TEST: name   [ OK ]` or `PASS: name`.
pub fn parse(output: &str) -> Cases {
    output.lines().filter_map(case).collect()
}

/// What stays of an earlier output of a test when some of its cases run again: all but that it printed no result. Of two lines about a
/// case the last counts.
pub fn earlier(output: &str) -> String {
    output
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("not ok 0 run"))
        .collect()
}

fn case(line: &str) -> Option<(String, End)> {
    if let Some((name, verdict)) = line
        .strip_prefix("TEST: ")
        .and_then(|rest| rest.trim_end().strip_suffix(']'))
        .and_then(|rest| rest.rsplit_once('['))
    {
        return Some((name.trim().to_owned(), End::new(word(verdict), "")));
    }
    if let Some((result, name)) = line.split_once(": ") {
        if matches!(result, "PASS" | "FAIL" | "SKIP" | "XFAIL") {
            return Some((name.trim().to_owned(), End::new(word(result), "")));
        }
    }
    // The whole test, as its shell or its Python says it.
    if let Some(reason) = line
        .strip_prefix("1..0 # SKIP")
        .or_else(|| line.strip_prefix("net.lib.py.ksft.KsftSkipEx:"))
    {
        return Some(("all".to_owned(), End::new(Verdict::Skipped, reason)));
    }

    let (verdict, rest) = if let Some(rest) = line.strip_prefix("ok ") {
        (Verdict::Passed, rest)
    } else {
        (Verdict::Failed, line.strip_prefix("not ok ")?)
    };
    let (_, rest) = rest.split_once(' ')?;
    let (name, note) = rest.split_once(" # ").unwrap_or((rest, ""));
    // The first word of a name is the test's own.
    let name = name.split_once('.').map_or(name, |(_, case)| case).trim();
    let end = match note.split_once(' ').unwrap_or((note, "")) {
        (mark @ ("SKIP" | "XFAIL"), reason) => End::new(word(mark), reason),
        _ => End::new(verdict, note),
    };
    Some((name.to_owned(), end))
}

fn word(word: &str) -> Verdict {
    match word.trim() {
        "OK" | "PASS" => Verdict::Passed,
        "SKIP" => Verdict::Skipped,
        "XFAIL" => Verdict::Expected,
        _ => Verdict::Failed,
    }
}

/// What one test did with the C driver, and with ours.
pub struct Compared {
    pub test: String,
    pub c: Cases,
    pub rust: Cases,
}

impl Compared {
    /// The cases that either had.
    fn ends(&self) -> impl Iterator<Item = (&str, End, End)> {
        let mut names: Vec<_> = self.c.keys().chain(self.rust.keys()).collect();
        let end = |cases: &Cases, name: &String| cases.get(name).cloned();

        names.sort();
        names.dedup();
        names.into_iter().map(move |name| {
            (
                name.as_str(),
                end(&self.c, name).unwrap_or_else(End::not_run),
                end(&self.rust, name).unwrap_or_else(End::not_run),
            )
        })
    }
}

/// Whether ours fails nowhere that the C driver does not.
pub fn all_well(tests: &[Compared]) -> bool {
    tests.iter().all(|test| {
        test.ends()
            .all(|(_, c, rust)| rust.verdict != Verdict::Failed || c.verdict == Verdict::Failed)
    })
}

/// The tables: how many cases of each test ended in which way, where the two differ, and what passes with neither.
pub fn tables(tests: &[Compared]) -> Result<String, fmt::Error> {
    let mut text = String::from("| test | `virtio_net` | `virtio_net_rust` |\n|---|---|---|\n");

    for test in tests {
        writeln!(
            text,
            "| `{}` | {} | {} |",
            test.test,
            counts(&test.c),
            counts(&test.rust)
        )?;
    }

    let mut differences = String::new();
    let mut neither = String::new();
    for test in tests {
        for (case, c, rust) in test.ends() {
            if c.verdict != rust.verdict {
                writeln!(differences, "| `{}` {case} | {c} | {rust} |", test.test)?;
            } else if c.verdict != Verdict::Passed {
                writeln!(neither, "| `{}` {case} | {rust} |", test.test)?;
            }
        }
    }
    if differences.is_empty() {
        text.push_str("\nNo case ends differently.\n");
    } else {
        text.push_str(
            "\n| case that ends differently | `virtio_net` | `virtio_net_rust` |\n|---|---|---|\n",
        );
        text.push_str(&differences);
    }
    if !neither.is_empty() {
        text.push_str("\n| case that passes with neither | with both |\n|---|---|\n");
        text.push_str(&neither);
    }
    Ok(text)
}

/// How many cases there are of each kind.
fn counts(cases: &Cases) -> String {
    let mut numbers: BTreeMap<Verdict, usize> = BTreeMap::new();

    for end in cases.values() {
        *numbers.entry(end.verdict).or_default() += 1;
    }
    if numbers.is_empty() {
        return Verdict::NotRun.to_string();
    }
    numbers
        .iter()
        .map(|(verdict, number)| format!("{number} {verdict}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_in_all_forms() {
        let cases = parse(
            "TAP version 13\n1..3\nok 1 ping.test_v4\nok 2 ping.test_v6 # SKIP no address\nnot ok 3 ping.test_tcp\n\
             TEST: ping simple                              [ OK ]\nTEST: mac feature   [FAIL]\n# ok 4 not a case\n\
             PASS: eth0: set interface up\nXFAIL: eth0: dump\nIgnored: this\n1..0 # SKIP no such thing\n",
        );
        let ends: Vec<_> = cases
            .iter()
            .map(|(name, end)| (name.as_str(), end.to_string()))
            .collect();
        assert_eq!(
            ends,
            [
                ("all", "skipped: no such thing"),
                ("eth0: dump", "expected to fail"),
                ("eth0: set interface up", "passed"),
                ("mac feature", "failed"),
                ("ping simple", "passed"),
                ("test_tcp", "failed"),
                ("test_v4", "passed"),
                ("test_v6", "skipped: no address"),
            ]
            .map(|(name, end)| (name, end.to_owned()))
        );
    }

    #[test]
    fn cases_that_run_again_replace_what_there_was() {
        let first = "ok 1 t.a\nnot ok 2 t.b\nnot ok 0 log # BUG: x\nnot ok 0 run # it was ended\n";
        let cases = parse(&(earlier(first) + "ok 1 t.b\n"));

        assert_eq!(cases, parse("ok 1 t.a\nok 1 t.b\nnot ok 0 log # BUG: x\n"));
    }

    fn compared(c: &str, rust: &str) -> [Compared; 1] {
        [Compared {
            test: "t".to_owned(),
            c: parse(c),
            rust: parse(rust),
        }]
    }

    #[test]
    fn only_what_ours_fails_alone_counts() {
        let c = "ok 1 t.a\nnot ok 2 t.b\nok 3 t.c # SKIP x\n";

        assert!(all_well(&compared(c, c)));
        assert!(all_well(&compared(c, "ok 1 t.a\nok 2 t.b\n")));
        assert!(!all_well(&compared(c, "not ok 1 t.a\n")));
        assert!(!all_well(&compared(c, "not ok 3 t.c\n")));
    }

    #[test]
    fn differences_are_listed() -> Result<(), fmt::Error> {
        let text = tables(&compared(
            "ok 1 t.a\nnot ok 2 t.b\nok 3 t.c # SKIP a|b\n",
            "ok 1 t.a\nok 2 t.b\nok 3 t.c # SKIP a|b\n",
        ))?;

        assert!(text.contains("| `t` | 1 passed, 1 failed, 1 skipped | 2 passed, 1 skipped |"));
        assert!(text.contains("| `t` b | failed | passed |"));
        assert!(text.contains("| `t` c | skipped: a\\|b |"));
        assert!(!text.contains("`t` a"));
        Ok(())
    }
}
