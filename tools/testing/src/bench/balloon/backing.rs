// SPDX-License-Identifier: GPL-2.0

//! A guest on huge pages that the host has set aside (hugetlbfs), of which the host gets back only what one list of page frames
//! covers wholly.

use super::{
    resize,
    AMOUNT,
    MIB,
    PAIR, //
};
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
    tests::balloon::SIZE, //
};
use anyhow::{
    Context,
    Result, //
};
use std::fs;

/// A huge page.
const HUGE: u64 = 2 * MIB;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

pub fn benchmarks() -> Vec<Benchmark> {
    vec![Benchmark::new(
        "balloon/hugetlb",
        "memory on 2 MiB pages of hugetlbfs that the host gets back",
        hugetlb,
    )]
}

fn pool(file: &str) -> Result<u64> {
    let path = format!("{POOL}/{file}");
    let text = fs::read_to_string(&path).context(path.clone())?;

    text.trim().parse().context(path)
}

/// Huge pages that are set aside while the value lives.
struct Pages {
    before: u64,
}

impl Pages {
    /// Sets more of them aside; [`None`] if this machine has not so many, or does not let us.
    fn more(number: u64) -> Result<Option<Self>> {
        let this = Pages {
            before: pool("nr_hugepages")?,
        };
        let written = fs::write(
            format!("{POOL}/nr_hugepages"),
            (this.before + number).to_string(),
        );

        Ok((written.is_ok() && pool("free_hugepages")? >= number).then_some(this))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // What cannot be undone here was not done before.
        let _ = fs::write(format!("{POOL}/nr_hugepages"), self.before.to_string());
    }
}

fn hugetlb(bench: &Bench) -> Result<Findings> {
    let mut short = Row::new("got back, lists of 256 page frames", "MiB").more_is_better();
    let mut long = Row::new("got back, lists of 512 where they can be had", "MiB").more_is_better();
    let Some(_pages) = Pages::more(SIZE / HUGE)? else {
        let why = format!("this machine has not {} MiB of huge pages", SIZE / MIB);
        short.note = Some(why.clone());
        return Ok(Findings {
            rows: vec![short],
            unsupported: Some(why),
            ..Findings::default()
        });
    };
    let size = SIZE / MIB;
    let spec = Spec::q35()
        // CAST: A small number.
        .memory(size as u32)
        .arguments(&[
            "-object",
            &format!(
                "memory-backend-memfd,id=ram,size={size}M,share=on,prealloc=on,hugetlb=on,hugetlbsize=2M"
            ),
            "-machine",
            "memory-backend=ram",
        ])
        .device("virtio-balloon", "id=b0");
    let mut guest = Guest::boot(&bench.lab, &spec)?;

    for run in 1..=bench.runs {
        for (side, driver) in PAIR.both() {
            for (parameters, row) in [("", &mut short), ("list_pfns=512", &mut long)] {
                bench.progress(&format!("{}, run {run} of {}", driver.module, bench.runs));
                super::touch(&mut guest)?;
                let before = pool("free_hugepages")?;
                driver.load(
                    &mut guest,
                    match side {
                        Side::Theirs => "",
                        Side::Ours => parameters,
                    },
                )?;
                resize(&mut guest, SIZE - AMOUNT)?;
                let back = pool("free_hugepages")?.saturating_sub(before);
                row.push(side, (back * HUGE) as f64 / MIB as f64);
                resize(&mut guest, SIZE)?;
                driver.unload(&mut guest)?;
            }
        }
    }
    bench.check_log(&mut guest)?;
    Ok(Findings {
        rows: vec![short, long],
        ..Findings::default()
    })
}
