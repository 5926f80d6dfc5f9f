// SPDX-License-Identifier: GPL-2.0

//! An initramfs in the making: a cpio archive in the `newc` format.

use anyhow::{
    ensure,
    Context,
    Result, //
};
use cpio::newc::{
    self,
    ModeFileType, //
};
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command, //
};

/// Collects files, each name once, with the directories above them.
#[derive(Default)]
pub struct Archive {
    data: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory. Paths have no leading slash.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, ModeFileType::Directory, 0o755, &[])
    }

    /// Adds a file with these contents.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.entry(path, ModeFileType::Regular, mode, contents)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, ModeFileType::Symlink, 0o777, target.as_bytes())
    }

    /// Adds a copy of a file of this machine.
    pub fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        let contents = fs::read(from).with_context(|| from.display().to_string())?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;

        self.file(to, mode, &contents)
    }

    /// Adds a copy of a program of this machine as `/bin/NAME`, and the shared libraries it needs where it looks for them.
    pub fn program(&mut self, from: &Path, name: &str) -> Result<()> {
        self.copy(from, &format!("bin/{name}"))?;
        for library in shared_libraries(from)? {
            self.copy(Path::new(&library), library.trim_start_matches('/'))?;
        }
        Ok(())
    }

    /// The finished archive.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(newc::trailer(self.data)?)
    }

    fn entry(&mut self, path: &str, kind: ModeFileType, mode: u32, contents: &[u8]) -> Result<()> {
        // What was added first stays, so that a program can take the place of a busybox applet.
        if self.names.contains(path) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent)?;
        }

        let number = u32::try_from(self.names.len())? + 1;
        let size = u32::try_from(contents.len()).with_context(|| format!("{path} is too large"))?;
        let mut writer = newc::Builder::new(path)
            .ino(number)
            .nlink(1)
            .mode(mode)
            .set_mode_file_type(kind)
            .write(&mut self.data, size);

        writer.write_all(contents)?;
        writer.finish()?;
        self.names.insert(path.to_owned());
        Ok(())
    }
}

/// What the dynamic linker would load for a program, itself included; nothing for a static one.
fn shared_libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);

    ensure!(
        !text.contains("not found"),
        "{} lacks a library:\n{text}",
        program.display()
    );
    Ok(libraries(&text))
}

/// The paths in the output of `ldd`: lines of the form `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`.
fn libraries(ldd: &str) -> Vec<String> {
    ldd.lines()
        .filter_map(|line| line.trim().split(" (").next())
        .map(|line| line.rsplit(" => ").next().unwrap_or(line))
        .filter(|path| path.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_both_forms_of_line() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f7f05e37000)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f7f0587e000)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f7f05e39000)\n";

        assert_eq!(
            libraries(ldd),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn a_name_is_added_once_and_its_parents_before_it() -> Result<()> {
        let mut archive = Archive::default();
        archive.file("a/b/c", 0o644, b"first")?;
        archive.file("a/b/c", 0o644, b"second")?;
        archive.link("a/d", "b/c")?;

        let data = archive.finish()?;
        let mut names = Vec::new();
        let mut rest = &data[..];
        loop {
            let reader = newc::Reader::new(rest)?;
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().file_size()));
            rest = reader.finish()?;
        }

        assert_eq!(
            names,
            [("a", 0), ("a/b", 0), ("a/b/c", 5), ("a/d", 3)]
                .map(|(name, size)| (name.to_owned(), size))
        );
        Ok(())
    }
}
