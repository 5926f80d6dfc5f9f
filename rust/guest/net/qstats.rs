// SPDX-License-Identifier: GPL-2.0

//! What single queues have counted: what user space asks for with `NETDEV_CMD_QSTATS_GET` of the netlink family `netdev`.
//!
//! C header: [`include/net/netdev_queues.h`](srctree/include/net/netdev_queues.h)

use super::{
    device::Device,
    operations::Operations, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::prelude::*;

/// Whose statistics are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of one queue that is in use.
    Queue(u16),

    /// What belongs to the device, but to no queue that is in use. Only what is set here has a sum for the device, so what all
    /// queues count is at least 0.
    Base,
}

/// Makes a structure of statistics of one of C's.
macro_rules! statistics {
    ($(#[$doc:meta])* $name:ident, $raw:ident, $($field:ident),*) => {
        $(#[$doc])*
        ///
        /// `Documentation/netlink/specs/netdev.yaml` says what each means. [`None`]: it is not counted.
        #[derive(Clone, Copy, Default)]
        #[expect(missing_docs)]
        pub struct $name {
            $(pub $field: Option<u64>,)*
        }

        impl $name {
            /// Stores what is counted, and leaves the rest as it is.
            fn store(&self, to: &mut bindings::$raw) {
                $(if let Some(value) = self.$field {
                    to.$field = value;
                })*
            }
        }
    };
}

statistics!(
    /// What a receive queue has counted.
    Receive,
    netdev_queue_stats_rx,
    bytes,
    packets,
    alloc_fail,
    hw_drops,
    hw_drop_overruns,
    csum_unnecessary,
    csum_none,
    csum_bad,
    hw_gro_packets,
    hw_gro_bytes,
    hw_gro_wire_packets,
    hw_gro_wire_bytes,
    hw_drop_ratelimits
);

statistics!(
    /// What a transmit queue has counted.
    Transmit,
    netdev_queue_stats_tx,
    bytes,
    packets,
    hw_drops,
    hw_drop_errors,
    csum_none,
    needs_csum,
    hw_gso_packets,
    hw_gso_bytes,
    hw_gso_wire_packets,
    hw_gso_wire_bytes,
    hw_drop_ratelimits,
    stop,
    wake
);

/// The operations as C has them.
pub(super) struct Callbacks<T: Operations>(PhantomData<T>);

impl<T: Operations> Callbacks<T> {
    pub(super) const OPS: bindings::netdev_stat_ops = bindings::netdev_stat_ops {
        get_queue_stats_rx: Some(Self::get_queue_stats_rx),
        get_queue_stats_tx: Some(Self::get_queue_stats_tx),
        get_base_stats: Some(Self::get_base_stats),
    };

    /// # Safety
    ///
    /// The stack calls it, with a device that was made for `T`, the number of one of its queues, and valid `stats`.
    unsafe extern "C" fn get_queue_stats_rx(
        dev: *mut bindings::net_device,
        queue: c_int,
        stats: *mut bindings::netdev_queue_stats_rx,
    ) {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev) };

        // CAST: A device has at most `u16::MAX` queues.
        // SAFETY: The stack calls with a valid structure of its own.
        T::receive_statistics(dev, Scope::Queue(queue as u16)).store(unsafe { &mut *stats });
    }

    /// # Safety
    ///
    /// As [`get_queue_stats_rx`](Self::get_queue_stats_rx).
    unsafe extern "C" fn get_queue_stats_tx(
        dev: *mut bindings::net_device,
        queue: c_int,
        stats: *mut bindings::netdev_queue_stats_tx,
    ) {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev) };

        // CAST: A device has at most `u16::MAX` queues.
        // SAFETY: The stack calls with a valid structure of its own.
        T::transmit_statistics(dev, Scope::Queue(queue as u16)).store(unsafe { &mut *stats });
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that was made for `T`, and valid `rx` and `tx`.
    unsafe extern "C" fn get_base_stats(
        dev: *mut bindings::net_device,
        rx: *mut bindings::netdev_queue_stats_rx,
        tx: *mut bindings::netdev_queue_stats_tx,
    ) {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev) };

        // SAFETY: The stack calls with a valid structure of its own.
        T::receive_statistics(dev, Scope::Base).store(unsafe { &mut *rx });
        // SAFETY: As above.
        T::transmit_statistics(dev, Scope::Base).store(unsafe { &mut *tx });
    }
}
