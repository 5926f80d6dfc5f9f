// SPDX-License-Identifier: GPL-2.0

//! Driver for the traditional virtio memory balloon (VirtIO 1.3, 5.5).
//!
//! The host asks for memory; the driver takes it from the page allocator, whose own reclaim chooses what the guest can spare,
//! and names it to the host, which takes it away. When the host asks for less the way is gone back.
//!
//! No task waits for the host, but for the one that removes the driver, and compaction if it is faster than the host, both
//! within bounds: answers come by interrupt, and each makes a work item take the next steps.
//!
//! `Documentation/admin-guide/virtio-balloon.md` says how to use it.

#![deny(unsafe_code)]

mod debugfs;
mod driver;
mod hint;
mod hinting;
mod lane;
mod limits;
mod pace;
mod params;
mod reporting;
mod resize;
mod stats;
mod tags;
mod target;
mod view;
mod worker;

use kernel::prelude::module;

module! {
    type: driver::Module,
    name: "virtio_balloon_rust",
    authors: ["The Tenon developers"],
    description: "Virtio memory balloon driver",
    license: "GPL",
}
