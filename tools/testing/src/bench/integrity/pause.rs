// SPDX-License-Identifier: GPL-2.0

//! How long a guest stands still to be looked at from outside, beside the longest time for which a scan stops one CPU from anything else.

use crate::{
    bench::{
        rows::{
            Row,
            Side, //
        },
        Bench,
        Benchmark,
        Findings, //
    },
    guest::{
        Guest,
        Spec, //
    },
    tests::integrity::{
        last,
        scan,
        MODULE,
        ON_DEMAND, //
    },
};
use anyhow::{
    ensure,
    Result, //
};
use qapi::qmp;
use std::{
    fs,
    time::{
        Duration,
        Instant, //
    },
};

/// Sizes of guests, in MiB.
const SIZES: [u32; 2] = [1024, 4096];

/// Longest time for a guest to write to its memory.
const LIMIT: Duration = Duration::from_secs(300);

/// Scans of each run, of which the longest lock counts.
const SCANS: u32 = 20;

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "integrity/pause",
        "by the clock on the wall: how long a guest is stopped for its memory to be written to a file (C), and the longest lock of a scan",
        pause,
    )]
}

fn pause(bench: &Bench) -> Result<Findings> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("memory");
    let mut rows = Vec::new();

    for size in SIZES {
        let mut guest = Guest::boot(&bench.lab, &Spec::q35().memory(size))?;
        let mut row = Row::new(format!("nothing else can happen, {size} MiB"), "ms");

        MODULE.load(&mut guest, ON_DEMAND)?;
        // All memory is the guest's own, not the host's page of zeroes. The kernel clears what it hands out.
        guest.sh_for(
            LIMIT,
            &format!(
                "mkdir -p /mnt && mount -t tmpfs -o size={size}M t /mnt && head -c 16777216 /dev/urandom >/tmp/part && \
                 for i in $(seq {}); do cat /tmp/part; done >/mnt/all",
                size * 3 / 64
            ),
        )?;
        for run in 1..=bench.runs {
            bench.progress(&format!("{size} MiB, run {run} of {}", bench.runs));
            let start = Instant::now();
            guest.qmp(qmp::stop {})?;
            guest.qmp(qmp::dump_guest_memory {
                begin: None,
                detach: None,
                format: None,
                length: None,
                paging: false,
                protocol: format!("file:{}", file.display()),
            })?;
            guest.qmp(qmp::cont {})?;
            row.push(Side::Theirs, start.elapsed().as_secs_f64() * 1e3);
            let written = fs::metadata(&file)?.len();
            ensure!(
                written >= u64::from(size) << 20,
                "{written} bytes were written"
            );
            fs::remove_file(&file)?;

            let mut longest = 0;
            for _ in 0..SCANS {
                scan(&mut guest)?;
                ensure!(last(&mut guest, "complete")? == 1);
                longest = longest.max(last(&mut guest, "held_ns")?);
            }
            row.push(Side::Ours, longest as f64 / 1e6);
        }
        rows.push(row);
        bench.check_log(&mut guest)?;
    }
    Ok(Findings {
        rows,
        ..Findings::default()
    })
}
