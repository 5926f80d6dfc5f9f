// SPDX-License-Identifier: GPL-2.0

//! What tcpdump sees at the other end of a guest's card.

use crate::{
    guest::{
        Guest,
        Lab, //
    },
    process::Process, //
};
use anyhow::Result;
use std::{
    fs::{
        self,
        File, //
    },
    path::PathBuf,
    process::Stdio, //
};

/// What an interface outside of the guest sees, from its making on.
pub struct Capture {
    file: PathBuf,
    _process: Process,
}

impl Capture {
    /// Begins, with further arguments for tcpdump.
    pub fn new(guest: &Guest, lab: &Lab, interface: &str, arguments: &[&str]) -> Result<Self> {
        let file = lab.log.with_extension(format!("{interface}.capture"));
        let mut command = guest.outside().command();
        command
            .args(["tcpdump", "-Z", "root", "-n", "-l", "-i", interface])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&file)?)
            .stderr(Stdio::null());
        let process = lab.group.spawn(&mut command)?;

        Ok(Capture {
            file,
            _process: process,
        })
    }

    /// What tcpdump has said so far.
    pub fn text(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.file)?).into_owned())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It is only missing if somebody else has removed it.
        let _ = fs::remove_file(&self.file);
    }
}
