// SPDX-License-Identifier: GPL-2.0

//! What each queue has counted, under the names that all network devices have for it, with what the device has
//! (VIRTIO_NET_F_DEVICE_STATS).

use crate::{
    counters::{
        rx,
        tx, //
    },
    device_stats::{
        self,
        Class, //
    },
    interface::Interface,
    pairs::Pair,
    statistics::Sums, //
};
use core::ops::Range;
use guest::net::{
    device::Device,
    qstats::{
        Receive,
        Scope,
        Transmit, //
    }, //
};

/// The pairs whose queues `scope` is about: one, or those that are not in use.
fn pairs(dev: &Device<Interface>, scope: Scope) -> Range<u16> {
    let channels = dev.channels();

    match scope {
        Scope::Queue(pair) => pair..pair.saturating_add(1),
        // CAST: Both have been made of 16-bit numbers.
        Scope::Base => channels.active as u16..channels.max as u16,
    }
}

/// Calls `each` with the names and sums of what the device has counted of `queues`, of which each can have `known` classes.
fn of_device(
    interface: &Interface,
    queues: impl Iterator<Item = u16> + Clone,
    known: &'static [Class],
    mut each: impl FnMut(&'static str, u64),
) {
    let stats = &interface.device_stats;
    let answer = stats.read(interface, queues.clone().map(|queue| (queue, known)));

    if answer.is_empty() && queues.clone().next().is_some() {
        return;
    }
    for (name, value) in stats.classes().sums(&answer, known, queues) {
        each(name, value);
    }
}

/// Returns what has been counted of these pairs.
fn of_driver(interface: &Interface, pairs: &Range<u16>) -> Sums {
    let range = usize::from(pairs.start)..usize::from(pairs.end);
    let none: &[Pair] = &[];

    Sums::of(interface.pairs.get(range).unwrap_or(none))
}

/// Returns what a receive queue has counted.
pub(crate) fn receive(dev: &Device<Interface>, scope: Scope) -> Receive {
    let data = dev.data().get_ref();
    let pairs = pairs(dev, scope);
    let own = of_driver(data, &pairs).rx;
    let mut stats = Receive {
        bytes: Some(own[rx::BYTES]),
        packets: Some(own[rx::PACKETS]),
        alloc_fail: Some(own[rx::NO_MEMORY].wrapping_add(own[rx::REFILL_FAILURES])),
        ..Receive::default()
    };

    let queues = pairs.map(|pair| 2 * pair);
    of_device(data, queues, device_stats::RX, |name, value| {
        let slot = match name {
            "drops" => &mut stats.hw_drops,
            "drop_overruns" => &mut stats.hw_drop_overruns,
            "csum_valid" => &mut stats.csum_unnecessary,
            "csum_none" => &mut stats.csum_none,
            "csum_bad" => &mut stats.csum_bad,
            "gso_packets" => &mut stats.hw_gro_packets,
            "gso_bytes" => &mut stats.hw_gro_bytes,
            "gso_packets_coalesced" => &mut stats.hw_gro_wire_packets,
            "gso_bytes_coalesced" => &mut stats.hw_gro_wire_bytes,
            "ratelimit_packets" => &mut stats.hw_drop_ratelimits,
            _ => return,
        };
        *slot = Some(value);
    });
    stats
}

/// Returns what a transmit queue has counted.
pub(crate) fn transmit(dev: &Device<Interface>, scope: Scope) -> Transmit {
    let data = dev.data().get_ref();
    let pairs = pairs(dev, scope);
    let own = of_driver(data, &pairs).tx;
    let mut stats = Transmit {
        bytes: Some(own[tx::BYTES]),
        packets: Some(own[tx::PACKETS]),
        stop: Some(own[tx::STOPS]),
        wake: Some(own[tx::WAKES]),
        ..Transmit::default()
    };

    let queues = pairs.map(|pair| 2 * pair + 1);
    of_device(data, queues, device_stats::TX, |name, value| {
        let slot = match name {
            "drops" => &mut stats.hw_drops,
            "drop_malformed" => &mut stats.hw_drop_errors,
            "csum_none" => &mut stats.csum_none,
            "needs_csum" => &mut stats.needs_csum,
            "gso_packets" => &mut stats.hw_gso_packets,
            "gso_bytes" => &mut stats.hw_gso_bytes,
            "gso_segments" => &mut stats.hw_gso_wire_packets,
            "gso_segments_bytes" => &mut stats.hw_gso_wire_bytes,
            "ratelimit_packets" => &mut stats.hw_drop_ratelimits,
            _ => return,
        };
        *slot = Some(value);
    });
    stats
}
