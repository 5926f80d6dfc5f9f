// SPDX-License-Identifier: GPL-2.0

//! `make shell`: the guest of the demonstration, for a person.

use crate::{
    guest::{
        Image,
        Spec, //
    },
    process::Group, //
};
use anyhow::{
    bail,
    Result, //
};
use std::{
    io::{
        self,
        IsTerminal, //
    },
    process::{
        Command,
        Stdio, //
    },
    time::Duration,
};

/// Runs a guest in this terminal until its shell is left.
pub fn run(image: &Image) -> Result<bool> {
    let spec = Spec::q35()
        .memory(1024)
        .network("disable-legacy=on")
        .device("virtio-balloon", "id=b0")
        .device("virtio-rng", "");
    let terminal = Terminal::save();

    // The guest's serial port does not know how large the terminal behind it is.
    let spec = match stty("size").as_deref().map(str::split_whitespace) {
        Some(mut size) => match (size.next(), size.next()) {
            (Some(rows), Some(columns)) => {
                spec.append(&format!("tenon.rows={rows} tenon.columns={columns}"))
            }
            _ => spec,
        },
        None => spec,
    };
    let process = Group::new().spawn(&mut spec.interactive(image))?;
    let status = process.wait(Duration::MAX)?;
    drop(terminal);
    if !status.success() {
        bail!("QEMU ended with {status}");
    }
    Ok(true)
}

/// What `stty` says about the terminal, if there is one.
fn stty(question: &str) -> Option<String> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let output = Command::new("stty")
        .arg(question)
        .stdin(Stdio::inherit())
        .output()
        .ok()?;

    String::from_utf8(output.stdout).ok()
}

/// The settings of the terminal, which QEMU changes, and cannot put back when it is killed.
struct Terminal(Option<String>);

impl Terminal {
    fn save() -> Self {
        Terminal(stty("-g"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            // There is nothing else to be done about a terminal that refuses.
            let _ = Command::new("stty").arg(settings.trim()).status();
        }
    }
}
