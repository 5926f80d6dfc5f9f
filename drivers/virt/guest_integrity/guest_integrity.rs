// SPDX-License-Identifier: GPL-2.0

//! Finds tasks that run although the kernel's lists do not have them, modules that hide, and hooks on what it relies on, while the
//! guest runs.
//!
//! A rootkit that changes the kernel's data can take a task off the lists by which tasks are found, but not off the run queues, or
//! it would not run. From time to time, and when asked, the run queues are compared with the lists. Nothing is stopped for that,
//! and nothing honest is reported: see `decide`.
//!
//! - `views`: what is compared with the lists, a file for each view.
//! - `listing`: what a program lists through the system call; `loaded`: the modules that came and have not gone.
//! - `witness`: what views say; `decide`: the rule, on recorded views; `departed`: who goes on running after he has exited;
//!   `look`: one scan, from the views to what was found.
//! - `snapshot`: all that views see, as a document.
//! - `scan`: when scans are made, and by whom; `coverage`: what one has looked at.
//! - `finding`: what was found, and what of it is new; `report`: where it goes; `record`: its text;
//!   `uplink`: the way to the host.
//! - `params`, `debugfs`, `driver`: what users see, and the module itself.
//!
//! # Limitations
//!
//! - A task that sleeps, is nobody's child and has no number is in no view: it is found when it runs.
//! - Whoever may write to the kernel's memory, and knows this module, can evade it.
//!
//! `Documentation/admin-guide/guest-integrity.md` says how to use it.

#![deny(unsafe_code)]

mod coverage;
mod debugfs;
mod decide;
mod departed;
mod driver;
mod finding;
mod listing;
mod loaded;
mod look;
mod params;
mod record;
mod report;
mod scan;
mod snapshot;
mod sort;
mod uplink;
mod views;
mod witness;

use kernel::prelude::module;

module! {
    type: driver::Checker,
    name: "guest_integrity",
    authors: ["The Tenon developers"],
    description: "Finds tasks that run although the kernel's lists do not have them",
    license: "GPL",
}
