// SPDX-License-Identifier: GPL-2.0

//! Builds `tools/testing/mutants`: guest_integrity as it would be without one of the things that its rule rests on. A storm that such
//! a module raises no alarm in says nothing about the module as it is.

use crate::env::Environment;
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    fs,
    fs::File,
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};

/// What modules are built from.
const SOURCES: [&str; 4] = ["Kbuild", "drivers", "rust", "samples"];

/// A module that was built with a change.
pub struct Mutant {
    /// The name of the change.
    pub name: String,
    pub module: PathBuf,
}

/// Builds one for each change.
pub fn build(env: &Environment, progress: impl Fn(&str)) -> Result<Vec<Mutant>> {
    let output = env
        .top
        .join("build")
        .join(&env.kernel_release)
        .join("mutants");
    let source = output.join("source");

    fs::create_dir_all(&source).with_context(|| output.display().to_string())?;
    patches(&env.top.join("tools/testing/mutants"))?
        .into_iter()
        .map(|patch| {
            let name = patch.file_stem().unwrap_or_default().to_string_lossy();

            progress(&format!("building {name}"));
            copy(&env.top, &source)?;
            run(Command::new("patch")
                .args(["--strip=1", "--no-backup-if-mismatch", "--directory"])
                .arg(&source)
                .stdin(File::open(&patch)?))
            .with_context(|| format!("{} does not fit any more", patch.display()))?;
            let objects = output.join("obj");
            fs::create_dir_all(&objects)?;
            run(&mut env.kbuild(&source, Some(&objects), "guest_integrity.ko"))
                .with_context(|| format!("building {name}"))?;
            let module = output.join(format!("{name}.ko"));
            run(Command::new("objcopy")
                .arg("--strip-debug")
                .arg(objects.join("guest_integrity.ko"))
                .arg(&module))?;
            Ok(Mutant {
                name: name.into_owned(),
                module,
            })
        })
        .collect()
}

/// The changes, in the order of their names.
fn patches(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut patches = Vec::new();

    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "patch")
        {
            patches.push(path);
        }
    }
    ensure!(!patches.is_empty(), "no changes in {}", directory.display());
    patches.sort();
    Ok(patches)
}

/// Copies the sources as they are. What is the same already keeps its time and is not compiled again; what differs gets a new one.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let sources = SOURCES.map(|name| from.join(name));

    run(Command::new("rsync")
        .args(["--recursive", "--checksum", "--delete"])
        .args(sources)
        .arg(to))
}

fn run(command: &mut Command) -> Result<()> {
    let done = command
        .output()
        .with_context(|| command.get_program().to_string_lossy().into_owned())?;

    ensure!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}
