// SPDX-License-Identifier: GPL-2.0

//! Shares the memory of this host between guests until it is stopped:
//!
//!     balloon-policy --total 1024 /run/guest1/qmp /run/guest2/qmp

use anyhow::Result;
use clap::Parser;
use std::{
    path::PathBuf,
    thread,
    time::Duration, //
};
use tenon_balloon_policy::{
    policy::Host,
    Guests, //
};

const MIB: u64 = 1 << 20;

/// Shares memory between guests: whoever has too little gets what others can spare.
#[derive(Parser)]
#[command(name = "balloon-policy")]
struct Arguments {
    /// MiB for all guests together
    #[arg(long)]
    total: u64,
    /// No guest is made smaller than so many MiB
    #[arg(long, default_value_t = 256)]
    least: u64,
    /// How many MiB a guest gives or gets at once
    #[arg(long, default_value_t = 64)]
    step: u64,
    /// The balloon's id
    #[arg(long, default_value = "balloon0")]
    id: String,
    /// The monitor of each guest, a socket of QEMU
    #[arg(required = true)]
    monitors: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let host = Host {
        total: arguments.total.saturating_mul(MIB),
        least: arguments.least.saturating_mul(MIB),
        step: arguments.step.saturating_mul(MIB),
    };
    let mut guests = Guests::open(host, &arguments.monitors, &arguments.id)?;

    loop {
        let line: Vec<_> = guests
            .share()?
            .iter()
            .map(|guest| {
                format!(
                    "{} of {} MiB available, to have {}",
                    guest.available / MIB,
                    guest.size / MIB,
                    guest.target / MIB
                )
            })
            .collect();
        println!("{}", line.join("; "));
        thread::sleep(Duration::from_secs(1));
    }
}
