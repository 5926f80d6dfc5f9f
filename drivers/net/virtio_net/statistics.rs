// SPDX-License-Identifier: GPL-2.0

//! What `ethtool -S` shows: what the driver has counted, and what the device has (VIRTIO_NET_F_DEVICE_STATS), whose names have
//! `hw_` in them.

use crate::{
    config::Feature,
    counters::{
        rx,
        tx, //
    },
    device_stats::{
        self,
        Class,
        Classes, //
    },
    escalation::Step,
    interface::Interface,
    pairs::Pair, //
};
use guest::net::{
    device::Device,
    ethtool::statistics::Statistics, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// What all queues have counted.
pub(crate) struct Sums {
    pub(crate) rx: [u64; rx::COUNT],
    pub(crate) tx: [u64; tx::COUNT],
    /// How often the watchdog found a transmit queue stopped for too long.
    pub(crate) timeouts: u64,
}

impl Sums {
    /// Adds up what the queues of these pairs have counted.
    pub(crate) fn of(pairs: &[Pair]) -> Self {
        let mut sums = Self {
            rx: [0; rx::COUNT],
            tx: [0; tx::COUNT],
            timeouts: 0,
        };

        for pair in pairs {
            add(&mut sums.rx, &pair.rx.read());
            add(&mut sums.tx, &pair.tx.read());
            sums.timeouts = sums.timeouts.wrapping_add(pair.watch.timeouts());
        }
        sums
    }
}

fn add(sums: &mut [u64], values: &[u64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.wrapping_add(*value);
    }
}

/// The name of what the watchdog counts, by which the C driver has it too.
const TIMEOUTS: &str = "tx_timeouts";

/// Which statistics the device has. They do not change.
pub(crate) struct DeviceStats(Atomic<u64>);

impl DeviceStats {
    /// Begins with none.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(crate) fn classes(&self) -> Classes {
        Classes(self.0.load(Relaxed))
    }

    /// Asks the device, before it is registered.
    pub(crate) fn find(&self, interface: &Interface) {
        let Some(control) = interface.control(Feature::DeviceStats) else {
            return;
        };

        match control.statistics_classes() {
            Ok(Classes(mask)) => self.0.store(mask, Relaxed),
            Err(error) => dev_warn!(
                interface.vdev,
                "the device does not say which statistics it has: {error:?}\n"
            ),
        }
    }

    /// Asks the device for what these queues, of which each can have some classes, have. Returns nothing if it does not answer.
    pub(crate) fn read(
        &self,
        interface: &Interface,
        queues: impl Iterator<Item = (u16, &'static [Class])>,
    ) -> KVec<u8> {
        if self.classes() == Classes::NONE {
            return KVec::new();
        }
        self.try_read(interface, queues).unwrap_or_else(|error| {
            if guest::net::ratelimit() {
                dev_warn!(
                    interface.vdev,
                    "the device does not tell its statistics: {error:?}\n"
                );
            }
            KVec::new()
        })
    }

    fn try_read(
        &self,
        interface: &Interface,
        queues: impl Iterator<Item = (u16, &'static [Class])>,
    ) -> Result<KVec<u8>> {
        let control = interface.control(Feature::DeviceStats).ok_or(EOPNOTSUPP)?;
        let mut request = KVec::new();
        let mut room = 0;

        for (index, known) in queues {
            if let Some((bytes, len)) = self.classes().request(index, known) {
                request.extend_from_slice(&bytes, GFP_KERNEL)?;
                room += len;
            }
        }
        if request.is_empty() {
            return Ok(KVec::new());
        }
        control.statistics(request, room)
    }
}

/// Lists what all queues have counted together, and each.
pub(crate) fn list(dev: &Device<Interface>, list: &mut Statistics<'_>) {
    let data = dev.data().get_ref();
    let pairs = &data.pairs;
    let classes = data.device_stats.classes();
    // CAST: There are at most 256 pairs.
    let count = pairs.len() as u16;
    let answer = if list.want_values() {
        // CAST: It has been made of a 16-bit number.
        let active = dev.channels().active as u16;
        let queues = (0..active).flat_map(|pair| {
            [
                (2 * pair, device_stats::RX),
                (2 * pair + 1, device_stats::TX),
            ]
        });
        let control = core::iter::once((2 * count, device_stats::CONTROL));
        data.device_stats
            .read(data, Iterator::chain(queues, control))
    } else {
        KVec::new()
    };
    let sums = Sums::of(pairs);

    for (name, value) in rx::NAMES.iter().zip(sums.rx) {
        list.add(fmt!("rx_{name}"), value);
    }
    for (name, value) in classes.sums(&answer, device_stats::RX, (0..count).map(|pair| 2 * pair)) {
        list.add(fmt!("rx_hw_{name}"), value);
    }
    for (name, value) in tx::NAMES.iter().zip(sums.tx) {
        list.add(fmt!("tx_{name}"), value);
    }
    list.add(fmt!("tx_{TIMEOUTS}"), sums.timeouts);
    let mut recoveries = [0; Step::COUNT];
    for pair in pairs {
        add(&mut recoveries, &pair.watch.recoveries(pair.sent()));
    }
    for (name, value) in Step::NAMES.iter().zip(recoveries) {
        list.add(fmt!("tx_{name}"), value);
    }
    let queues = (0..count).map(|pair| 2 * pair + 1);
    for (name, value) in classes.sums(&answer, device_stats::TX, queues) {
        list.add(fmt!("tx_hw_{name}"), value);
    }
    for (name, value) in classes.values(&answer, device_stats::CONTROL, 2 * count) {
        list.add(fmt!("cq_hw_{name}"), value);
    }

    for (pair, index) in pairs.iter().zip(0u16..) {
        for (name, value) in rx::NAMES.iter().zip(pair.rx.read()) {
            list.add(fmt!("rx{index}_{name}"), value);
        }
        for (name, value) in classes.values(&answer, device_stats::RX, 2 * index) {
            list.add(fmt!("rx{index}_hw_{name}"), value);
        }
    }
    for (pair, index) in pairs.iter().zip(0u16..) {
        for (name, value) in tx::NAMES.iter().zip(pair.tx.read()) {
            list.add(fmt!("tx{index}_{name}"), value);
        }
        list.add(fmt!("tx{index}_{TIMEOUTS}"), pair.watch.timeouts());
        let recoveries = pair.watch.recoveries(pair.sent());
        for (name, value) in Step::NAMES.iter().zip(recoveries) {
            list.add(fmt!("tx{index}_{name}"), value);
        }
        for (name, value) in classes.values(&answer, device_stats::TX, 2 * index + 1) {
            list.add(fmt!("tx{index}_hw_{name}"), value);
        }
    }
}
