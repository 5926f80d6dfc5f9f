// SPDX-License-Identifier: GPL-2.0

//! What benchmarks have found, as text.

use super::{
    counted::is_near,
    picture,
    profile::{
        Class,
        Count,
        Function,
        Profile, //
    },
    rows::{
        Row,
        Side,
        Verdict, //
    },
    Bench,
    Benchmark,
    Findings,
    Workload, //
};
use anyhow::{
    Context,
    Result, //
};
use comfy_table::{
    presets::ASCII_MARKDOWN,
    CellAlignment,
    Table, //
};
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::Path, //
};

/// How many functions a table shows.
const TOP: usize = 30;

fn new_table<const N: usize>(header: [&str; N], words: &[usize]) -> Table {
    let mut table = Table::new();

    table.load_preset(ASCII_MARKDOWN).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        if !words.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A number with as many places as make sense.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    let places = match value.abs() {
        large if large >= 1000.0 => 0,
        medium if medium >= 10.0 => 1,
        0.0 => 0,
        _ => 4,
    };
    let text = format!("{value:.places$}");

    // What is left of a difference may be less than nothing by less than is shown.
    if text
        .trim_start_matches('-')
        .trim_matches(['0', '.'])
        .is_empty()
    {
        "0".to_owned()
    } else {
        text
    }
}

/// The figures of both drivers.
pub fn table(rows: &[Row]) -> String {
    let mut table = new_table(
        [
            "what",
            "unit",
            "C",
            "spread",
            "Rust",
            "spread",
            "Rust/C",
            "the difference is",
        ],
        &[0, 1, 7],
    );

    for row in rows {
        table.add_row([
            row.subject.clone(),
            row.unit.clone(),
            number(row.theirs.median()),
            number(row.theirs.spread()),
            number(row.ours.median()),
            number(row.ours.spread()),
            row.ratio()
                .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
            match (row.verdict(), &row.note) {
                (Verdict::None, Some(note)) => note.clone(),
                (verdict, _) => verdict.name().to_owned(),
            },
        ]);
    }
    table.to_string()
}

/// Where the instructions of a load are: by part of the system.
fn split(workload: &Workload) -> String {
    let mut table = new_table(["part", "alone", "with C", "with Rust", "Rust - C"], &[0]);
    let mut line = |name: &str, figure: &dyn Fn(&Profile) -> f64| {
        let (theirs, ours) = (figure(&workload.theirs), figure(&workload.ours));
        table.add_row([
            name.to_owned(),
            number(figure(&workload.alone)),
            number(theirs),
            number(ours),
            number(ours - theirs),
        ]);
    };

    for class in Class::ALL {
        line(class.name(), &|profile| profile.of(class));
    }
    line("all", &Profile::total);
    table.to_string()
}

/// The functions that most instructions are in, of those that `which` accepts.
fn functions(workload: &Workload, which: impl Fn(&Function) -> bool, order: Order) -> String {
    let mut table = new_table(["function", "part", "C", "calls", "Rust", "calls"], &[0, 1]);
    let all: BTreeSet<&Function> = [&workload.theirs, &workload.ours]
        .iter()
        .flat_map(|profile| profile.0.keys())
        .filter(|function| which(function))
        .collect();
    let count = |profile: &Profile, function| -> Count {
        profile.0.get(function).copied().unwrap_or_default()
    };
    let mut lines: Vec<_> = all
        .into_iter()
        .map(|function| {
            let theirs = count(&workload.theirs, function);
            let ours = count(&workload.ours, function);
            (function, theirs, ours)
        })
        .collect();
    let key = |(_, theirs, ours): &(&Function, Count, Count)| match order {
        Order::Size => theirs.instructions.max(ours.instructions),
        Order::Difference => (theirs.instructions - ours.instructions).abs(),
    };
    lines.sort_by(|a, b| key(b).total_cmp(&key(a)));

    for (function, theirs, ours) in lines.into_iter().take(TOP) {
        if theirs.instructions.max(ours.instructions) < 0.5 {
            continue;
        }
        table.add_row([
            format!("`{function}`"),
            function.class().name().to_owned(),
            number(theirs.instructions),
            number(theirs.calls),
            number(ours.instructions),
            number(ours.calls),
        ]);
    }
    table.to_string()
}

/// Which functions come first.
#[derive(Clone, Copy)]
enum Order {
    /// Those that cost most.
    Size,
    /// Those whose costs differ most.
    Difference,
}

/// Writes everything to a directory.
pub fn write(output: &Path, bench: &Bench, results: &[(&Benchmark, Findings)]) -> Result<()> {
    let mut text = format!(
        "# Benchmarks\n\nKernel {}, emulated, {} runs of each driver in turns. The value is the median, the spread the largest less \
         the smallest. A difference within the spread of both says nothing. How to read this: Documentation/benchmarks.md.\n",
        bench.lab.env.kernel_release, bench.runs
    );
    let mut details = String::from(
        "# Instructions by function\n\nFor one packet or MiB, the mean of all runs. `alone` is the load without the driver.\n",
    );
    let mut rows = String::from("benchmark,what,unit,driver,run,value\n");
    let mut raw = String::from("load,unit,driver,part,module,function,calls,instructions\n");

    for (benchmark, findings) in results {
        writeln!(
            text,
            "\n## {}\n\n{}.\n\n{}",
            benchmark.name,
            benchmark.about,
            table(&findings.rows)
        )?;
        for row in &findings.rows {
            csv_row(&mut rows, benchmark.name, row)?;
        }
        for workload in &findings.workloads {
            writeln!(
                text,
                "\n{}, instructions/{} by part:\n\n{}",
                workload.name,
                workload.unit,
                split(workload)
            )?;
            writeln!(
                details,
                "\n## {}, for each {}\n\n{}\n\nThe driver and the virtio core:\n\n{}\n\nWhere the whole kernel differs most:\n\n{}",
                workload.name,
                workload.unit,
                split(workload),
                functions(workload, is_near, Order::Size),
                functions(workload, |_| true, Order::Difference),
            )?;
            csv_functions(&mut raw, workload)?;
        }
    }
    for (name, contents) in [
        ("bench.md", text),
        ("functions.md", details),
        ("bench.csv", rows),
        ("functions.csv", raw),
    ] {
        let path = output.join(name);
        fs::write(&path, contents).with_context(|| path.display().to_string())?;
    }
    picture::draw(output, results)
}

fn csv_row(to: &mut String, benchmark: &str, row: &Row) -> Result<()> {
    for (side, values) in [(Side::Theirs, &row.theirs), (Side::Ours, &row.ours)] {
        for (run, value) in values.0.iter().enumerate() {
            writeln!(
                to,
                "{benchmark},\"{}\",{},{},{},{value}",
                row.subject,
                row.unit,
                language(side),
                run + 1
            )?;
        }
    }
    Ok(())
}

fn csv_functions(to: &mut String, workload: &Workload) -> Result<()> {
    for (driver, profile) in [
        ("none", &workload.alone),
        (language(Side::Theirs), &workload.theirs),
        (language(Side::Ours), &workload.ours),
    ] {
        for (function, count) in &profile.0 {
            writeln!(
                to,
                "\"{}\",{},{driver},{},{},\"{function}\",{:.4},{:.4}",
                workload.name,
                workload.unit,
                function.class().name(),
                function.module.as_deref().unwrap_or_default(),
                count.calls,
                count.instructions
            )?;
        }
    }
    Ok(())
}

/// What a driver is written in.
fn language(side: Side) -> &'static str {
    match side {
        Side::Theirs => "C",
        Side::Ours => "Rust",
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_as_many_places_as_make_sense() {
        assert_eq!(number(12345.678), "12346");
        assert_eq!(number(12.345), "12.3");
        assert_eq!(number(0.01234), "0.0123");
        assert_eq!(number(-0.00001), "0");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(f64::NAN), "-");
    }
}
