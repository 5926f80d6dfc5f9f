// SPDX-License-Identifier: GPL-2.0

//! How long TCP requests wait while the balloon moves without a pause.

use super::{
    resize,
    spec,
    AMOUNT,
    LIMIT,
    MIB,
    PAIR, //
};
use crate::{
    bench::{
        packets,
        rows::Row,
        streams::{
            self,
            Answers, //
        },
        Bench,
        Benchmark,
        Findings, //
    },
    fixtures,
    guest::Guest,
    tests::{
        balloon::SIZE,
        net::MODERN, //
    },
};
use anyhow::Result;
use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// How long each measurement takes, in seconds.
const SECONDS: u64 = 8;

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "balloon/latency",
        "TCP requests of a byte to the host while the balloon moves without a pause",
        latency,
    )]
}

fn latency(bench: &Bench) -> Result<Findings> {
    let mut guest = Guest::boot(&bench.lab, &spec("").tap(1, MODERN))?;
    let mut rate = Row::new("answers while the balloon moves", "answers/s").more_is_better();
    let mut late = Row::new("the slowest answer of a hundred", "ms");
    let mut latest = Row::new("the slowest answer", "ms");
    let mut moved = Row::new("what moves meanwhile", "GiB/s").more_is_better();

    streams::up(&mut guest, packets::PAIR.theirs)?;
    let still = requests(bench, &mut guest, |_| Ok(()))?;
    bench.progress(&format!(
        "without a balloon: {:.0} answers/s, {:.2} ms of a hundred, {:.2} ms",
        still.rate, still.late, still.latest
    ));
    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            driver.load(&mut guest, "")?;
            let mut moves = 0u64;
            let start = Instant::now();
            let answers = requests(bench, &mut guest, |guest| {
                let size = if moves % 2 == 0 { SIZE - AMOUNT } else { SIZE };
                moves += 1;
                resize(guest, size).map(drop)
            })?;
            let gibibytes = (moves * AMOUNT / MIB) as f64 / 1024.0;
            moved.push(side, gibibytes / start.elapsed().as_secs_f64());
            rate.push(side, answers.rate);
            late.push(side, answers.late);
            latest.push(side, answers.latest);
            driver.unload(&mut guest)?;
        }
    }
    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows: vec![rate, late, latest, moved],
        ..Findings::default()
    })
}

/// Has the guest send requests for some seconds, and does something over and over meanwhile.
fn requests(
    bench: &Bench,
    guest: &mut Guest,
    mut meanwhile: impl FnMut(&mut Guest) -> Result<()>,
) -> Result<Answers> {
    let server = fixtures::program(&bench.lab.env, "pingpong");
    let server = guest
        .outside()
        .start(LIMIT, format!("{} 7000", server.display()));
    thread::sleep(Duration::from_millis(500));
    guest.sh(&format!(
        "rm -f /run/answers; (pingpong 7000 10.0.2.2 {SECONDS} >/run/part && mv /run/part /run/answers) >/dev/null 2>&1 &"
    ))?;

    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(SECONDS) {
        meanwhile(guest)?;
        thread::sleep(Duration::from_millis(5));
    }
    server.finish()?;
    let answers = guest.wait_for("answers", LIMIT, |guest| {
        let output = guest.run("cat /run/answers")?;
        Ok((output.status == 0).then_some(output.stdout))
    })?;
    answers.parse()
}
