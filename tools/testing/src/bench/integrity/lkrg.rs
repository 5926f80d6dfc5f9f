// SPDX-License-Identifier: GPL-2.0

//! LKRG beside guest_integrity: another module that checks a running kernel, of which this project has no copy. `TENON_LKRG` says where
//! its sources are.

use crate::{
    bench::{
        rig::Rig,
        rows::{
            Row,
            Side, //
        },
        Bench,
        Benchmark,
        Findings, //
    },
    fixtures,
    guest::{
        Guest,
        Lab,
        Spec, //
    },
    tests::integrity::{
        count,
        scan,
        Victim,
        MODULE,
        ON_DEMAND, //
    },
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    cell::OnceCell,
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::Command,
    time::Duration, //
};

/// Where the sources of LKRG are.
const SOURCE: &str = "TENON_LKRG";

/// How it is loaded: it says what it finds and does nothing about it, and checks everything when it is told to.
const LKRG: &str =
    "kint_enforce=1 pint_enforce=1 umh_enforce=1 pcfi_enforce=1 smep_enforce=1 smap_enforce=1 \
                    interval=1800 heartbeat=1 log_level=3";

/// Rounds of the ping-pong, of two switches each.
const ROUNDS: u32 = 20_000;

const LIMIT: Duration = Duration::from_secs(150);

const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// The benchmark, if there is anything to compare with.
pub fn benchmarks() -> Vec<Benchmark> {
    std::env::var_os(SOURCE)
        .map(|_| {
            Benchmark::new(
                "integrity/lkrg",
                "what LKRG, from the directory TENON_LKRG, (C) and guest_integrity add to a switch, and what each finds",
                lkrg,
            )
        })
        .into_iter()
        .collect()
}

fn lkrg(bench: &Bench) -> Result<Findings> {
    let source = PathBuf::from(std::env::var_os(SOURCE).unwrap_or_default());
    bench.progress("building LKRG");
    let mut extra = fixtures::build(&bench.lab.env)?;
    extra.push((build(&bench.lab, &source)?, "modules/lkrg.ko".to_owned()));
    let bench = Bench {
        lab: bench.lab.with_image(&extra)?,
        counter: bench.counter.clone(),
        symbols: OnceCell::new(),
        ..*bench
    };

    let added = switch(&bench)?;
    let found = found(&bench)?;
    Ok(Findings {
        rows: vec![added, found],
        ..Findings::default()
    })
}

/// Builds it for the kernel under test, in a copy.
fn build(lab: &Lab, source: &Path) -> Result<PathBuf> {
    let env = &lab.env;
    let copy = env.top.join("build").join(&env.kernel_release).join("lkrg");

    ensure!(
        source.join("src/p_lkrg_main.c").exists(),
        "{SOURCE}={} has no LKRG in it: unpack its sources there",
        source.display()
    );
    fs::create_dir_all(&copy).with_context(|| copy.display().to_string())?;
    let mut from = source.as_os_str().to_owned();
    from.push("/");
    for command in [
        Command::new("rsync")
            .args(["--archive", "--exclude=.git"])
            .args([from.as_os_str(), copy.as_os_str()]),
        &mut env.kbuild(&copy, None, "modules"),
    ] {
        let (built, output) = lab.run(command, BUILD_LIMIT)?;
        ensure!(built, "LKRG cannot be built:\n{output}");
    }
    Ok(copy.join("lkrg.ko"))
}

/// What each adds to a switch in a ping-pong through pipes.
fn switch(bench: &Bench) -> Result<Row> {
    let mut rig = Rig::boot(bench, Spec::q35())?;
    let measure = |rig: &mut Rig| -> Result<f64> {
        let (profile, _) = rig.count(LIMIT, &format!("pipes {ROUNDS}"))?;
        Ok(profile.total() / f64::from(2 * ROUNDS))
    };
    let mut added = Row::new("added to a switch", "instructions/switch");

    bench.progress("the guest whose instructions are counted is up");
    // The guest has just come up.
    measure(&mut rig)?;
    for run in 1..=bench.runs {
        bench.progress(&format!("run {run} of {}", bench.runs));
        let bare = measure(&mut rig)?;
        rig.guest.insmod("lkrg", LKRG)?;
        added.push(Side::Theirs, measure(&mut rig)? - bare);
        rig.guest.sh("rmmod lkrg")?;
        MODULE.load(&mut rig.guest, "interval_ms=0")?;
        added.push(Side::Ours, measure(&mut rig)? - bare);
        MODULE.unload(&mut rig.guest)?;
    }
    bench.check_log(&mut rig.guest)?;
    Ok(added)
}

/// Of four tasks that are taken off the list of processes, how many each finds.
fn found(bench: &Bench) -> Result<Row> {
    let mut guest = Guest::boot(&bench.lab, &Spec::q35())?;
    let mut row = Row::new("hidden tasks found, of four", "tasks").more_is_better();

    bench.progress("the guest with hidden tasks is up");
    guest.insmod("lkrg", LKRG)?;
    let mut victims = Vec::new();
    for arguments in ["-c 0", "-c 1", "-s", "-s"] {
        victims.push(Victim::start(&mut guest, arguments)?.pid.to_string());
    }
    guest.insmod("hide_task", &format!("pid={}", victims.join(",")))?;

    // It says that the system is clean before it looks at tasks, and is through with those when it says so once more.
    for checks in 1..=2 {
        guest.sh("echo 1 >/proc/sys/lkrg/trigger")?;
        guest.wait_for("LKRG's check", LIMIT, |guest| {
            let ended = guest.number(
                "dmesg | grep -c -e 'ALIVE: System is clean' -e 'DETECT: Kernel:.*checksums' || true",
            )?;
            Ok((ended >= checks).then_some(()))
        })?;
    }
    guest.sh("rmmod lkrg")?;
    row.push(
        Side::Theirs,
        guest.number("dmesg | grep -c 'LKRG: ALERT: DETECT' || true")? as f64,
    );

    MODULE.load(&mut guest, ON_DEMAND)?;
    scan(&mut guest)?;
    row.push(Side::Ours, count(&mut guest, "findings")? as f64);
    guest.sh("rmmod hide_task")?;
    bench.check_log(&mut guest)?;
    Ok(row)
}
