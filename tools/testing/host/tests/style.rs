// SPDX-License-Identifier: GPL-2.0

//! The rules of the tree that a program can check.
//!
//! That each unsafe block in `rust/` has its SAFETY comment is for clippy, which the kernel's flags ask for it: the test
//! `build/clippy`.

use proc_macro2::{TokenStream, TokenTree};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// No file is longer.
const MAX_LINES: usize = 600;

/// Returns the files below the folder `dir` of the tree that end in one of `endings`, without generated ones.
fn files(dir: &str, endings: &[&str]) -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut found = Vec::new();
    let mut todo = vec![top.join(dir)];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(&path).expect("a folder of the tree can be read") {
            let path = entry.expect("a folder of the tree can be read").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    todo.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending))
                && !name.ends_with(".mod.c")
                && !name.contains("generated")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the lines of `source` that use `unsafe`, or a path through `bindings`. Comments and strings do not count, and
/// neither do lints by the name of `unsafe_code`.
fn trespasses(source: &str) -> Vec<(usize, String)> {
    fn walk(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => walk(group.stream(), found),
                TokenTree::Ident(ident) => {
                    let path = matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
                    if ident == "unsafe" || (ident == "bindings" && path) {
                        found.push((ident.span().start().line, ident.to_string()));
                    }
                }
                _ => {}
            }
        }
    }

    let mut found = Vec::new();
    walk(source.parse().expect("the file is Rust"), &mut found);
    found
}

#[test]
fn drivers_and_samples_are_safe() {
    let files: Vec<_> = ["drivers", "samples"]
        .iter()
        .flat_map(|dir| files(dir, &[".rs"]))
        .collect();
    assert!(files.len() > 4, "the drivers were not found");

    let bad: Vec<_> = files
        .iter()
        .flat_map(|path| {
            trespasses(&read(path))
                .into_iter()
                .map(move |(line, what)| format!("{}:{line}: {what}", path.display()))
        })
        .collect();
    assert!(
        bad.is_empty(),
        "unsafe code and C bindings belong into rust/guest:\n{}",
        bad.join("\n")
    );
}

#[test]
fn driver_crates_deny_unsafe_code() {
    for path in ["drivers", "samples"]
        .iter()
        .flat_map(|dir| files(dir, &[".rs"]))
    {
        let source = read(&path);
        if source.contains("\nmodule!") || source.contains("module_virtio_driver!") {
            assert!(
                source.contains("#![deny(unsafe_code)]"),
                "{} lacks deny(unsafe_code)",
                path.display()
            );
        }
    }
}

#[test]
fn the_check_sees_what_it_should() {
    assert_eq!(trespasses("fn f() { unsafe { g() } }").len(), 1);
    assert_eq!(trespasses("use crate::bindings::page;").len(), 1);
    assert_eq!(
        trespasses("fn f() { let s = \"unsafe\"; } // unsafe, bindings::x").len(),
        0
    );
    assert_eq!(
        trespasses("#![deny(unsafe_code)] fn bindings() {}").len(),
        0
    );
}

#[test]
fn files_are_short_and_say_their_licence() {
    let mut bad = Vec::new();
    for dir in ["drivers", "rust", "samples", "scripts", "tools/testing"] {
        for path in files(dir, &[".rs", ".c", ".h", ".sh", ".awk"]) {
            let source = read(&path);
            if !source
                .lines()
                .take(2)
                .any(|line| line.contains("SPDX-License-Identifier: GPL-2.0"))
            {
                bad.push(format!("{}: no SPDX line at the top", path.display()));
            }
            let lines = source.lines().count();
            if lines > MAX_LINES {
                bad.push(format!(
                    "{}: {lines} lines, at most {MAX_LINES}",
                    path.display()
                ));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
