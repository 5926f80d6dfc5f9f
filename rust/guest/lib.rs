// SPDX-License-Identifier: GPL-2.0

//! Crate `guest`: what drivers for virtual machines need of the kernel and the `kernel` crate lacks.
//!
//! Each file is written as the file that would be added to `rust/kernel/`. All code of Tenon that is `unsafe` or names C
//! bindings is here; a driver that seems to need either lacks an abstraction, which then belongs here.
//!
//! The crate is compiled once and linked into every module.

#[path = "../bindings/lib.rs"]
mod bindings;

pub mod bottom_half;
pub mod btf;
pub mod chardev;
pub mod completion;
pub mod cpu;
pub mod debugfs;
pub mod fs;
pub mod hw_random;
pub mod mm;
pub mod module;
pub mod net;
pub mod param;
pub mod report;
pub mod sched;
pub mod symbol;
pub mod text;
pub mod time;
pub mod trace;
pub mod tracepoint;
pub mod utsname;
pub mod virtio;
pub mod workqueue;

/// What the `kernel` crate's print macros put before a line of this crate.
const __LOG_PREFIX: &[u8] = b"guest\0";
