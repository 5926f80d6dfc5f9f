// SPDX-License-Identifier: GPL-2.0

//! A guest whose instructions are counted.
//!
//! It has one CPU, emulated, and its clock advances with the instructions: whatever is timed by that clock comes after the same
//! number of instructions each time. A plugin of QEMU, `tools/testing/counter`, counts them by the address of the code.

use super::{
    profile::{
        Profile,
        Symbols, //
    },
    Bench, //
};
use crate::{
    env::Environment,
    guest::{
        Guest,
        Spec, //
    }, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::Command,
    rc::Rc,
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use tempfile::TempDir;

/// Keeps the CPU busy until the agent has answered and is quiet: a wait would be over at once on a clock that does not wait.
const SETTLE: &str = "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done";

/// Compiles the plugin, and returns where it is.
pub fn build_counter(env: &Environment) -> Result<PathBuf> {
    let target = env.top.join("build/host");
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--package", "tenon-counter", "--manifest-path"])
        .arg(env.top.join("tools/testing/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .context("cargo")?;

    ensure!(
        built.status.success(),
        "tools/testing/counter cannot be compiled:\n{}",
        String::from_utf8_lossy(&built.stderr).trim()
    );
    Ok(target.join("release/libtenon_counter.so"))
}

/// A guest whose instructions are counted.
pub struct Rig {
    pub guest: Guest,
    symbols: Symbols,
    counts: TempDir,
    marks: usize,
}

impl Rig {
    /// Starts one.
    pub fn boot(bench: &Bench, spec: Spec) -> Result<Self> {
        let counts = tempfile::tempdir_in(bench.lab.image.directory())?;
        let plugin = format!(
            "{},directory={}",
            bench.counter.display(),
            counts.path().display()
        );
        // The kernel is at the same place each time, so its functions are looked up once.
        let spec = spec
            .counted()
            .append("nokaslr")
            .arguments(&["-plugin", &plugin])
            .arguments(&["-rtc", "clock=vm", "-seed", "1"]);
        let mut guest = Guest::boot(&bench.lab, &spec)?;
        let kernel = match bench.symbols.get() {
            Some(kernel) => kernel.clone(),
            None => {
                let kernel = Rc::new(Symbols::of_kernel(&mut guest)?);
                bench.symbols.get_or_init(|| kernel).clone()
            }
        };
        let symbols = Symbols::new(kernel);

        Ok(Rig {
            guest,
            symbols,
            counts,
            marks: 0,
        })
    }

    /// Runs a script that must succeed, undisturbed, and returns what was executed meanwhile, and what it printed.
    pub fn count(&mut self, limit: Duration, script: &str) -> Result<(Profile, String)> {
        self.count_while(limit, script, |_| Ok(()))
    }

    /// The same, and does something when the script has begun.
    pub fn count_while(
        &mut self,
        limit: Duration,
        script: &str,
        meanwhile: impl FnOnce(&mut Guest) -> Result<()>,
    ) -> Result<(Profile, String)> {
        self.symbols.read_modules(&mut self.guest)?;
        self.guest.sh(&format!(
            "cat >/tmp/script <<'EOF'\n{script}\nEOF\n\
             ({SETTLE}; mark; sh -e /tmp/script >/tmp/output 2>&1; echo $? >/tmp/status; mark) \
             >/dev/null 2>&1 </dev/null &"
        ))?;
        self.marks += 2;
        let (before, after) = (self.mark(self.marks - 2), self.mark(self.marks - 1));
        // The agent is left alone meanwhile: it would be counted.
        comes(&before, limit, script)?;
        meanwhile(&mut self.guest)?;
        comes(&after, limit, script)?;
        self.outcome(limit, script, "", self.marks - 2)
    }

    /// Does the same with several scripts, one after the other, in a shell that is an argument of `command`, which may set something up
    /// for them. The script `before` runs before them, and is not counted.
    pub fn count_within(
        &mut self,
        limit: Duration,
        command: &str,
        before: &str,
        scripts: &[&str],
    ) -> Result<Vec<(Profile, String)>> {
        let mut all = format!("{before}\n{SETTLE}\n");

        self.symbols.read_modules(&mut self.guest)?;
        for (i, script) in scripts.iter().enumerate() {
            self.guest
                .sh(&format!("cat >/tmp/script{i} <<'EOF'\n{script}\nEOF"))?;
            all.push_str(&format!(
                "mark; sh -e /tmp/script{i} >/tmp/output{i} 2>&1; echo $? >/tmp/status{i}; mark\n"
            ));
        }
        self.guest.sh(&format!(
            "cat >/tmp/counted <<'EOF'\n{all}EOF\n({SETTLE}; {command} sh /tmp/counted) >/dev/null 2>&1 </dev/null &"
        ))?;
        let first = self.marks;
        self.marks += 2 * scripts.len();
        comes(&self.mark(self.marks - 1), limit, command)?;

        scripts
            .iter()
            .enumerate()
            .map(|(i, script)| self.outcome(limit, script, &i.to_string(), first + 2 * i))
            .collect()
    }

    /// Reads what came of a script whose files end in `name`, and whose first mark is `mark`.
    fn outcome(
        &mut self,
        limit: Duration,
        script: &str,
        name: &str,
        mark: usize,
    ) -> Result<(Profile, String)> {
        // What was set up for it may still be in the way.
        let output = self
            .guest
            .sh_for(limit, &format!("cat /tmp/output{name}"))?;
        let status = self.guest.number(&format!("cat /tmp/status{name}"))?;
        ensure!(status == 0, "`{script}` failed with {status}: {output}");
        let profile = Profile::between(
            &fs::read_to_string(self.mark(mark))?,
            &fs::read_to_string(self.mark(mark + 1))?,
            &self.symbols,
        )?;
        Ok((profile, output))
    }

    fn mark(&self, number: usize) -> PathBuf {
        self.counts.path().join(number.to_string())
    }
}

/// Waits until the counts of a mark are there.
fn comes(mark: &Path, limit: Duration, script: &str) -> Result<()> {
    let start = Instant::now();

    while !mark.exists() {
        ensure!(
            start.elapsed() < limit,
            "`{script}` is not over after {} s",
            limit.as_secs()
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
