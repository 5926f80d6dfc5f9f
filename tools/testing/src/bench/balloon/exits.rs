// SPDX-License-Identifier: GPL-2.0

//! How often driver and device disturb each other, as QEMU's trace has it, and that the device, the driver and its queue agree
//! about how much went where.

use super::{
    resize,
    spec,
    touch,
    AMOUNT,
    GIB,
    PAIR, //
};
use crate::{
    bench::{
        rows::Row,
        Bench,
        Benchmark,
        Findings, //
    },
    guest::Guest,
    tests::balloon::SIZE, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    collections::HashSet,
    fs, //
};

/// What QEMU writes down. That of the queues names queues of all devices.
const EVENTS: [&str; 7] = [
    "virtio_queue_notify",
    "virtio_notify",
    "virtio_balloon_get_config",
    "virtio_balloon_set_config",
    "virtio_balloon_handle_output",
    "virtqueue_pop",
    "virtqueue_flush",
];

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "balloon/exits",
        "notifications, interrupts and accesses to the configuration for a GiB, from QEMU's trace",
        exits,
    )]
}

/// What the balloon has done since the trace began.
#[derive(Clone, Copy, Debug, Default)]
struct Events {
    notifications: u64,
    interrupts: u64,
    accesses: u64,
    pages: u64,
    taken: u64,
    returned: u64,
}

/// The word that follows `key` in a line of the trace.
fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace().skip_while(|word| *word != key);

    words.nth(1)
}

/// Reads a trace, without what is about devices that are in `others`.
fn events(trace: &str, others: &HashSet<String>) -> Events {
    let mut events = Events::default();
    let mut queues = HashSet::new();

    for line in trace.lines() {
        let mine = word(line, "vdev").is_some_and(|device| !others.contains(device));
        if mine {
            queues.extend(word(line, "vq"));
        }
        let queue_is_mine = || word(line, "vq").is_some_and(|queue| queues.contains(queue));

        match line.split_whitespace().next() {
            Some("virtio_queue_notify") if mine => events.notifications += 1,
            Some("virtio_notify") if mine => events.interrupts += 1,
            Some("virtio_balloon_get_config" | "virtio_balloon_set_config") => events.accesses += 1,
            Some("virtio_balloon_handle_output") => events.pages += 1,
            Some("virtqueue_pop") if queue_is_mine() => events.taken += 1,
            Some("virtqueue_flush") if queue_is_mine() => events.returned += 1,
            _ => {}
        }
    }
    events
}

fn exits(bench: &Bench) -> Result<Findings> {
    let directory = tempfile::tempdir_in(bench.lab.image.directory())?;
    let trace = directory.path().join("trace");
    let path = trace.display().to_string();
    let mut arguments: Vec<&str> = EVENTS.iter().flat_map(|event| ["-trace", event]).collect();
    arguments.extend(["-D", &path]);
    let mut guest = Guest::boot(&bench.lab, &spec("").arguments(&arguments))?;
    let read = || fs::read_to_string(&trace).context(path.clone());
    // No driver of the balloon is there yet: what is in the trace is the agent's.
    let others: HashSet<String> = read()?
        .lines()
        .filter_map(|line| word(line, "vdev"))
        .map(str::to_owned)
        .collect();
    let mut rows = Vec::new();

    for name in ["inflate", "deflate"] {
        for what in [
            "notifications",
            "interrupts",
            "configuration",
            "all of them",
        ] {
            rows.push(Row::new(format!("{name}: {what}"), "/GiB"));
        }
    }
    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
            touch(&mut guest)?;
            driver.load(&mut guest, "")?;
            for (size, rows) in [SIZE - AMOUNT, SIZE].into_iter().zip(rows.chunks_mut(4)) {
                let before = events(&read()?, &others);
                resize(&mut guest, size)?;
                let after = events(&read()?, &others);

                let pages = after.pages - before.pages;
                ensure!(
                    pages == AMOUNT / 4096,
                    "the driver says {} pages, the device {pages}",
                    AMOUNT / 4096
                );
                ensure!(
                    after.taken - before.taken == after.returned - before.returned,
                    "buffers are under way: {before:?}, {after:?}"
                );
                let figures = [
                    after.notifications - before.notifications,
                    after.interrupts - before.interrupts,
                    after.accesses - before.accesses,
                ];
                let all: u64 = figures.iter().sum();
                for (row, figure) in rows.iter_mut().zip(figures.into_iter().chain([all])) {
                    row.push(side, figure as f64 * GIB as f64 / AMOUNT as f64);
                }
            }
            driver.unload(&mut guest)?;
        }
    }
    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows,
        ..Findings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_belong_to_the_devices_that_they_were_named_with() {
        let others = HashSet::from(["0x1".to_owned()]);
        let events = events(
            "virtio_queue_notify vdev 0x1 n 0 vq 0x2\nvirtqueue_pop vq 0x2 elem 0x9 in_num 0 out_num 1\n\
             virtio_queue_notify vdev 0x5 n 0 vq 0x6\nvirtqueue_pop vq 0x6 elem 0x9 in_num 0 out_num 1\n\
             virtio_balloon_handle_output section name: ram gpa: 0x1000\n\
             virtqueue_flush vq 0x6 count 1\nvirtio_notify vdev 0x5 vq 0x6\n\
             virtio_balloon_set_config actual: 4096 oldactual: 0\n",
            &others,
        );

        assert_eq!((events.notifications, events.interrupts), (1, 1));
        assert_eq!((events.accesses, events.pages), (1, 1));
        assert_eq!((events.taken, events.returned), (1, 1));
    }
}
