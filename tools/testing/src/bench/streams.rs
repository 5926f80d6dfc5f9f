// SPDX-License-Identifier: GPL-2.0

//! How fast TCP is over the network drivers, and how fast they drop packets, by the clock on the wall, with QEMU's device as people have it and this machine's kernel
//! at the other end. How busy this machine is counts too, hence the turns.

use super::{
    packets::PAIR,
    rows::Row,
    Bench,
    Benchmark,
    Findings, //
};
use crate::{
    fixtures,
    guest::{
        Background,
        Guest,
        Spec, //
    },
    tests::{
        net::{
            appears,
            MODERN, //
        },
        xdp::sum,
        Driver, //
    }, //
};
use anyhow::{
    bail,
    Context,
    Result, //
};
use serde_json::Value;
use std::{
    str::FromStr,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// How long each measurement takes.
const SECONDS: u32 = 4;

const LIMIT: Duration = Duration::from_secs(60);

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "net/streams",
        "by the clock on the wall: streams of TCP, requests with answers, datagrams that a program drops",
        streams,
    )]
}

/// Loads the driver and gives the card its address by hand.
pub fn up(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    appears(guest)?;
    guest
        .sh("ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0 && ping -c 1 -W 5 10.0.2.2")
        .map(drop)
}

fn streams(bench: &Bench) -> Result<Findings> {
    let spec = Spec::q35().tap(1, MODERN);
    let mut guest = Guest::boot(&bench.lab, &spec)?;
    let mut send = Row::new("TCP stream to the host", "Mbit/s").more_is_better();
    let mut receive = Row::new("TCP stream from the host", "Mbit/s").more_is_better();
    let mut requests = Row::new("TCP requests of a byte", "answers/s").more_is_better();
    let mut drops = Row::new("datagrams that a program drops", "1/s").more_is_better();

    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            up(&mut guest, driver)?;
            send.push(side, stream(&mut guest, SECONDS, "")?);
            receive.push(side, stream(&mut guest, SECONDS, "--reverse")?);
            requests.push(side, answers(bench, &mut guest)?.rate);
            drops.push(side, dropped(&mut guest)?);
            driver.unload(&mut guest)?;
        }
    }
    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows: vec![send, receive, requests, drops],
        ..Findings::default()
    })
}

/// Starts the other end, which is there soon.
fn server(guest: &Guest, command: &str) -> Background {
    let server = guest.outside().start(LIMIT, command.to_owned());

    thread::sleep(Duration::from_millis(500));
    server
}

/// Runs a stream and returns how many megabits arrived in a second.
pub fn stream(guest: &mut Guest, seconds: u32, options: &str) -> Result<f64> {
    let server = server(guest, "iperf3 --server --one-off >/dev/null");
    let report = guest.sh_for(
        LIMIT,
        &format!("iperf3 --client 10.0.2.2 --time {seconds} --json {options}"),
    )?;
    server.finish()?;
    let report: Value = serde_json::from_str(&report).context("what iperf3 prints")?;

    report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .map(|bits| bits / 1e6)
        .context("iperf3 does not say how fast it was")
}

/// How many datagrams a program drops in a second when more come than it can.
fn dropped(guest: &mut Guest) -> Result<f64> {
    let server = server(guest, "iperf3 --server --one-off >/dev/null");
    // For longer than they are counted: the first one says that there is a stream.
    guest.sh(&format!(
        "iperf3 --client 10.0.2.2 --udp --bitrate 0 --length 1400 --reverse --time {} >/dev/null 2>&1 </dev/null & sleep 1",
        3 * SECONDS
    ))?;
    guest.sh(
        "/bin/ip -force link set dev eth0 xdpdrv object /lib/xdp.bpf.o program drop_datagrams",
    )?;
    let before = sum(guest, "eth0", "rx", "xdp_drops")?;
    let start = Instant::now();
    thread::sleep(Duration::from_secs(SECONDS.into()));
    let count = sum(guest, "eth0", "rx", "xdp_drops")? - before;
    let seconds = start.elapsed().as_secs_f64();

    guest.sh("/bin/ip link set dev eth0 xdpdrv off")?;
    server.finish()?;
    Ok(count as f64 / seconds)
}

/// How requests are answered.
pub struct Answers {
    /// In a second.
    pub rate: f64,
    /// Milliseconds that 99 of a hundred take at most.
    pub late: f64,
    /// Milliseconds of the slowest.
    pub latest: f64,
}

impl FromStr for Answers {
    type Err = anyhow::Error;

    /// What `pingpong` prints.
    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();

        match numbers.as_slice() {
            &[rate, late, latest] => Ok(Answers { rate, late, latest }),
            _ => bail!("pingpong printed {text:?}"),
        }
    }
}

/// How requests are answered for some seconds.
fn answers(bench: &Bench, guest: &mut Guest) -> Result<Answers> {
    let program = fixtures::program(&bench.lab.env, "pingpong");
    let server = server(guest, &format!("{} 7000", program.display()));
    let answers = guest.sh_for(LIMIT, &format!("pingpong 7000 10.0.2.2 {SECONDS}"))?;
    server.finish()?;

    answers.parse()
}
