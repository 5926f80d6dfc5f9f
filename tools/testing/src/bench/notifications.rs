// SPDX-License-Identifier: GPL-2.0

//! How often driver and device disturb each other while TCP flows, as QEMU sees it.

use super::{
    packets::PAIR,
    rows::Row,
    streams::{
        stream,
        up, //
    },
    Bench,
    Benchmark,
    Findings, //
};
use crate::guest::{
    Guest,
    Spec, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    collections::HashSet,
    fs, //
};

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "net/notifications",
        "notifications and interrupts for each packet of TCP, from QEMU's trace",
        notifications,
    )]
}

/// How many lines of QEMU's trace there are of each kind.
#[derive(Clone, Copy, Default)]
struct Events {
    notifications: u64,
    interrupts: u64,
}

fn notifications(bench: &Bench) -> Result<Findings> {
    let directory = tempfile::tempdir_in(bench.lab.image.directory())?;
    let trace = directory.path().join("trace");
    let path = trace.display().to_string();
    // With an event descriptor QEMU does not see each notification.
    let spec = Spec::q35()
        .tap(1, "ioeventfd=off,disable-legacy=on")
        .arguments(&[
            "-trace",
            "virtio_queue_notify",
            "-trace",
            "virtio_notify",
            "-D",
            &path,
        ]);
    let mut guest = Guest::boot(&bench.lab, &spec)?;
    let mut rows: Vec<Row> = Vec::new();
    // No driver of the network card is there yet: what is in the trace is the agent's.
    let others = devices(&fs::read_to_string(&trace).context(path.clone())?);

    for (direction, options) in [("to the host", ""), ("from the host", "--reverse")] {
        let mut notifications = Row::new(
            format!("TCP stream {direction}: notifications"),
            "notifications/packet",
        );
        let mut interrupts = Row::new(
            format!("TCP stream {direction}: interrupts"),
            "interrupts/packet",
        );
        for run in 1..=bench.runs {
            for (side, driver) in PAIR.both() {
                bench.progress(&format!(
                    "{direction}, {}, run {run} of {}",
                    driver.module, bench.runs
                ));
                up(&mut guest, driver)?;
                let read = || -> Result<Events> {
                    let text = fs::read_to_string(&trace).context(path.clone())?;
                    Ok(events(&text, &others))
                };
                let (before, packets) = (read()?, packets(&mut guest)?);
                stream(&mut guest, 2, options)?;
                let (after, packets) = (read()?, self::packets(&mut guest)? - packets);
                let each = |after: u64, before: u64| (after - before) as f64 / packets as f64;
                notifications.push(side, each(after.notifications, before.notifications));
                interrupts.push(side, each(after.interrupts, before.interrupts));
                driver.unload(&mut guest)?;
            }
        }
        rows.extend([notifications, interrupts]);
    }
    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows,
        ..Findings::default()
    })
}

/// Packets of both directions.
fn packets(guest: &mut Guest) -> Result<u64> {
    guest.number(
        "cd /sys/class/net/eth0/statistics; echo $(($(cat rx_packets) + $(cat tx_packets)))",
    )
}

/// The device that a line of the trace is about: `virtio_notify vdev ADDRESS vq ADDRESS`.
fn device(line: &str) -> Option<&str> {
    line.split_once(" vdev ")?.1.split_whitespace().next()
}

/// All devices in a trace.
fn devices(trace: &str) -> HashSet<String> {
    trace
        .lines()
        .filter_map(device)
        .map(str::to_owned)
        .collect()
}

/// Counts the events of all devices but some.
fn events(trace: &str, others: &HashSet<String>) -> Events {
    let mut events = Events::default();
    let lines = trace
        .lines()
        .filter(|line| device(line).is_some_and(|device| !others.contains(device)));

    for line in lines {
        if line.starts_with("virtio_queue_notify ") {
            events.notifications += 1;
        } else if line.starts_with("virtio_notify ") {
            events.interrupts += 1;
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_other_devices_do_not_count() {
        let others = devices("virtio_notify vdev 0x1 vq 0x2\n");
        let events = events(
            "virtio_notify vdev 0x1 vq 0x2\nvirtio_notify vdev 0x5 vq 0x6\n\
             virtio_queue_notify vdev 0x5 n 1 vq 0x7\nsomething else\n",
            &others,
        );

        assert_eq!((events.notifications, events.interrupts), (1, 1));
    }
}
