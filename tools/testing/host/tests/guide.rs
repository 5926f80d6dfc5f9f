// SPDX-License-Identifier: GPL-2.0

//! The guide of guest_integrity says of each view what it finds and proves, and has each parameter and file of the module.

use std::{fs, path::Path};

const GUIDE: &str = include_str!("../../../../Documentation/admin-guide/guest-integrity.md");

/// A file of the module, or of the crate that it is made with.
fn source(path: &str) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let path = top.join(path);

    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the views: that of the file of each, and what it calls itself.
fn views() -> Vec<(String, String)> {
    let table = source("drivers/virt/guest_integrity/views.rs");
    let table = table.split("VIEWS: [View; ").nth(1).expect("the table");
    let table = &table[..table.find("];").expect("the end of the table")];

    table
        .lines()
        .filter_map(|line| line.trim().strip_suffix("::VIEW,"))
        .map(|file| {
            let view = source(&format!("drivers/virt/guest_integrity/views/{file}.rs"));
            let name = view.split("View::named(\"").nth(1).expect("its name");
            (file.to_owned(), name[..name.find('"').unwrap()].to_owned())
        })
        .collect()
}

/// The section with this heading.
fn section(heading: &str) -> &'static str {
    let at = GUIDE
        .find(&format!("\n## {heading}"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let section = &GUIDE[at + 4..];

    &section[..section.find("\n## ").unwrap_or(section.len())]
}

/// The points of a list, each with the lines that belong to it.
fn points(section: &str) -> impl Iterator<Item = String> + '_ {
    section
        .split("\n- ")
        .skip(1)
        .map(|point| point.split("\n\n").next().unwrap_or_default())
        .map(|point| point.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn each_view_is_a_file_of_its_name() {
    let views = views();

    assert!(views.len() >= 10, "{views:?}");
    assert!(views.iter().all(|(file, name)| file == name), "{views:?}");
}

#[test]
fn each_view_says_what_it_finds() {
    let table = section("What is found");

    for (_, view) in views() {
        assert!(
            table.contains(&format!("\n| `{view}` | ")),
            "the table of what is found lacks {view}"
        );
    }
}

#[test]
fn each_view_says_what_it_proves_and_how_it_is_evaded() {
    let points: Vec<_> = points(section("What each view proves")).collect();

    for (_, view) in views() {
        let point = points
            .iter()
            .find(|point| point.starts_with(&format!("`{view}` proves ")))
            .unwrap_or_else(|| panic!("nothing is said of what {view} proves"));
        assert!(point.contains("evade"), "{point}");
    }
}

#[test]
fn each_reason_of_the_guide_is_one_of_the_module() {
    let mut code = source("rust/guest/fs.rs") + &source("drivers/virt/guest_integrity/look.rs");
    for (file, _) in views() {
        code += &source(&format!("drivers/virt/guest_integrity/views/{file}.rs"));
    }

    let mut reasons = 0;
    for row in section("What is found")
        .lines()
        .filter(|line| line.starts_with('|'))
    {
        let reason = row.split('|').nth(2).unwrap_or_default();
        for reason in reason.split(',').filter_map(|reason| {
            let reason = reason.trim();
            reason.strip_prefix('`')?.strip_suffix('`')
        }) {
            assert!(
                code.contains(&format!("\"{reason}\"")),
                "no view says {reason}"
            );
            reasons += 1;
        }
    }
    assert!(reasons > 15, "{reasons}");
}

#[test]
fn each_parameter_and_each_file_is_there() {
    let parameters = source("drivers/virt/guest_integrity/params.rs");
    let parameters = parameters.split("module_params! {").nth(1).unwrap();
    let files = source("drivers/virt/guest_integrity/debugfs.rs");

    let mut names: Vec<_> = parameters
        .lines()
        .filter(|line| line.contains("::new("))
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    names.extend(
        files
            .split("callback_file(c\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next()),
    );
    assert!(names.len() >= 24, "{names:?}");
    for name in names {
        assert!(
            GUIDE.contains(&format!("\n| `{name}` | ")),
            "the guide lacks {name}"
        );
    }
}
