// SPDX-License-Identifier: GPL-2.0

//! Driver for the virtio network device (VirtIO 1.3, 5.1).
//!
//! # Limitations
//!
//! - Without mergeable receive buffers the largest MTU is what one buffer holds.
//!
//! `Documentation/admin-guide/virtio-net.md` says how to use it.

#![deny(unsafe_code)]

mod affinity;
mod coalesce;
mod config;
mod control;
mod counters;
mod device_stats;
mod driver;
mod escalation;
mod hash;
mod header;
mod interface;
mod link;
mod offloads;
mod pairs;
mod peers;
mod qstats;
mod recovery;
mod rings;
mod rss;
mod rx;
mod sizing;
mod statistics;
mod supply;
mod told;
mod tunnel;
mod tx;
mod xdp;
mod xsk;

use kernel::prelude::*;

/// What the driver calls itself towards the user.
const NAME: &CStr = c"virtio_net_rust";

module! {
    type: driver::Module,
    name: "virtio_net_rust",
    authors: ["The Tenon developers"],
    description: "Virtio network driver",
    license: "GPL",
}
