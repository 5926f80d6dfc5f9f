// SPDX-License-Identifier: GPL-2.0

//! What benchmarks have found, as pictures.

use super::{
    profile::Class,
    rows::{
        Row,
        Verdict, //
    },
    Benchmark,
    Findings,
    Workload, //
};
use anyhow::{
    anyhow,
    Result, //
};
use plotters::prelude::*;
use std::path::Path;

/// Of pictures, in points.
const WIDTH: u32 = 1100;

/// Of a bar, with what is around it.
const BAR: u32 = 26;

/// Of a picture without its bars.
const FRAME: u32 = 110;

const FONT: &str = "sans-serif";

/// Draws all pictures into a directory.
pub fn draw(output: &Path, results: &[(&Benchmark, Findings)]) -> Result<()> {
    let rows: Vec<&Row> = results
        .iter()
        .flat_map(|(_, findings)| &findings.rows)
        .filter(|row| row.ratio().is_some())
        .collect();
    let workloads: Vec<&Workload> = results
        .iter()
        .flat_map(|(_, findings)| &findings.workloads)
        .filter(|workload| !workload.theirs.0.is_empty() && !workload.ours.0.is_empty())
        .collect();

    // What plotters reports depends on the picture that it borrows.
    if !rows.is_empty() {
        ratios(&output.join("ratios.svg"), &rows)
            .map_err(|error| anyhow!("ratios.svg: {error}"))?;
    }
    for workload in workloads {
        let name = format!("{}.svg", file_name(&workload.name));
        split(&output.join(&name), workload).map_err(|error| anyhow!("{name}: {error}"))?;
    }
    Ok(())
}

fn file_name(name: &str) -> String {
    name.split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
        .to_lowercase()
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Ours by theirs: a bar for each row, from one on.
fn ratios(path: &Path, rows: &[&Row]) -> Drawn {
    let count = i32::try_from(rows.len())?;
    let root =
        SVGBackend::new(path, (WIDTH, FRAME + BAR * u32::try_from(count)?)).into_drawing_area();
    let ratio = |row: &Row| row.ratio().unwrap_or(1.0);
    let high = rows.iter().map(|row| ratio(row)).fold(1.2, f64::max) * 1.08;
    let subjects: Vec<_> = rows
        .iter()
        .map(|row| format!("{} ({})", row.subject, row.unit))
        .collect();

    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "Rust driver by C driver (green is better, red worse, grey within the spread)",
            (FONT, 18),
        )
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(430)
        .build_cartesian_2d(0.0..high, (0..count).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows.len())
        .y_label_formatter(&|value| match value {
            SegmentValue::CenterOf(index) => usize::try_from(count - 1 - index)
                .ok()
                .and_then(|index| subjects.get(index))
                .cloned()
                .unwrap_or_default(),
            _ => String::new(),
        })
        .draw()?;
    for (index, row) in (0..count).rev().zip(rows) {
        let colour = match row.verdict() {
            Verdict::Better => RGBColor(60, 150, 70),
            Verdict::Worse => RGBColor(200, 60, 50),
            Verdict::Within | Verdict::Once | Verdict::None => RGBColor(150, 150, 150),
        };
        let mut bar = Rectangle::new(
            [
                (0.0, SegmentValue::Exact(index)),
                (ratio(row), SegmentValue::Exact(index + 1)),
            ],
            colour.filled(),
        );
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series([bar])?;
        chart.draw_series([Text::new(
            format!("{:.2}", ratio(row)),
            (ratio(row) + high / 100.0, SegmentValue::CenterOf(index)),
            (FONT, 13),
        )])?;
    }
    chart.draw_series([PathElement::new(
        vec![
            (1.0, SegmentValue::Exact(0)),
            (1.0, SegmentValue::Exact(count)),
        ],
        BLACK.stroke_width(2),
    )])?;
    root.present()?;
    Ok(())
}

/// Where the instructions of a load are: without a driver, with theirs, with ours.
fn split(path: &Path, workload: &Workload) -> Drawn {
    let colours = [
        RGBColor(200, 90, 40),
        RGBColor(230, 170, 60),
        RGBColor(190, 190, 190),
        RGBColor(90, 130, 190),
        RGBColor(120, 120, 120),
    ];
    let bars = [
        ("with Rust", &workload.ours),
        ("with C", &workload.theirs),
        ("alone", &workload.alone),
    ];
    let high = bars
        .iter()
        .map(|(_, profile)| profile.total())
        .fold(1.0, f64::max)
        * 1.05;
    let root = SVGBackend::new(path, (WIDTH, 320)).into_drawing_area();

    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            format!("{}: instructions/{}", workload.name, workload.unit),
            (FONT, 18),
        )
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..high, (0..3i32).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_formatter(&|value| match value {
            SegmentValue::CenterOf(index) => usize::try_from(*index)
                .ok()
                .and_then(|index| bars.get(index))
                .map_or_else(String::new, |(name, _)| (*name).to_owned()),
            _ => String::new(),
        })
        .draw()?;
    let mut from = [0.0; 3];
    for (class, colour) in Class::ALL.into_iter().zip(colours) {
        let mut parts = Vec::new();
        for (index, (from, (_, profile))) in (0..).zip(from.iter_mut().zip(bars)) {
            let to = *from + profile.of(class);
            let mut part = Rectangle::new(
                [
                    (*from, SegmentValue::Exact(index)),
                    (to, SegmentValue::Exact(index + 1)),
                ],
                colour.filled(),
            );
            part.set_margin(8, 8, 0, 0);
            parts.push(part);
            *from = to;
        }
        chart
            .draw_series(parts)?
            .label(class.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}
