// SPDX-License-Identifier: GPL-2.0

//! What `ethtool` can ask of a network device.
//!
//! C header: [`include/linux/ethtool.h`](srctree/include/linux/ethtool.h)

pub mod coalesce;
pub mod rxfh;
pub mod statistics;

use super::{
    device::{
        self,
        Device,
        Locked, //
    },
    refusal::Refusal, //
};
use crate::bindings;
// The kernel crate knows no more of `net_device` than the name, but its `struct ethtool_ops` and functions name it.
use ::kernel::bindings::{
    ethtool_op_get_link,
    ethtool_op_get_ts_info,
    ethtool_virtdev_set_link_ksettings,
    net_device as NetDevice, //
};
use core::{
    marker::PhantomData,
    ptr::addr_of_mut, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*, //
};

/// Speed of a link that does not know its own.
pub const SPEED_UNKNOWN: u32 = u32::MAX;

/// Duplex mode of a link that does not know its own.
pub const DUPLEX_UNKNOWN: u8 = 0xff;

/// A virtual link's speed and duplex mode. They mean nothing to the device; some programs want to see them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// In Mbit/s.
    pub speed: u32,
    /// `DUPLEX_HALF`, `DUPLEX_FULL` or [`DUPLEX_UNKNOWN`].
    pub duplex: u8,
}

impl Link {
    /// Returns whether these are values that the kernel knows.
    pub fn is_valid(&self) -> bool {
        let speed = i32::try_from(self.speed).is_ok() || self.speed == SPEED_UNKNOWN;
        let duplex = [
            bindings::DUPLEX_HALF,
            bindings::DUPLEX_FULL,
            DUPLEX_UNKNOWN.into(),
        ];

        speed && duplex.contains(&u32::from(self.duplex))
    }
}

/// The number of entries of a ring.
#[derive(Clone, Copy, Default)]
pub struct Ring {
    /// Now.
    pub size: u32,
    /// At most.
    pub max: u32,
}

/// The rings, all of a direction alike.
#[derive(Clone, Copy, Default)]
pub struct Rings {
    /// Of the receive queues.
    pub rx: Ring,
    /// Of the transmit queues.
    pub tx: Ring,
}

/// How many pairs of a receive and a transmit queue there are.
#[derive(Clone, Copy)]
pub struct Channels {
    /// At most.
    pub max: u32,
    /// In use.
    pub active: u32,
}

/// What `ethtool -i` shows.
pub struct DriverInfo<'a>(&'a mut bindings::ethtool_drvinfo);

impl DriverInfo<'_> {
    /// Sets the driver's name.
    pub fn set_driver(&mut self, name: &CStr) {
        copy(&mut self.0.driver, name.to_bytes());
    }

    /// Sets the device's name on its bus.
    pub fn set_bus_info(&mut self, info: &CStr) {
        copy(&mut self.0.bus_info, info.to_bytes());
    }
}

/// Copies what fits and terminates it.
fn copy(to: &mut [c_char], from: &[u8]) {
    let room = to.len().saturating_sub(1);

    to.fill(0);
    for (to, from) in to.iter_mut().zip(from).take(room) {
        // CAST: C's `char` is a byte.
        *to = *from as c_char;
    }
}

/// What a driver answers. Unless said otherwise the device's lock is held, and no other one.
///
/// The link status and the time stamping abilities need no driver.
#[vtable]
pub trait Operations: device::Operations {
    /// Says which driver and device this is.
    fn driver_info(dev: &Device<Self>, info: &mut DriverInfo<'_>);

    /// Returns the link's settings.
    fn link(dev: &Device<Self>) -> Link;

    /// Takes over what the user has set. Under the device's lock.
    fn set_link(dev: &Device<Self>, link: Link);

    /// Returns the sizes of the rings.
    fn rings(dev: &Device<Self>) -> Rings;

    /// The user wants rings with `rx` and `tx` entries: not 0, and no more than there can be. Under the rtnl lock and the device's.
    fn set_rings(dev: &Locked<Self>, rx: u32, tx: u32) -> core::result::Result<(), Refusal> {
        let _ = (dev, rx, tx);
        Err(EOPNOTSUPP.into())
    }

    /// The user wants `pairs` pairs of queues in use: at least one, at most as many as the device was made with. The stack
    /// follows when this has succeeded. Under the rtnl lock and the device's.
    fn set_channels(dev: &Device<Self>, pairs: u16) -> Result {
        let _ = (dev, pairs);
        Err(EOPNOTSUPP)
    }

    /// Returns when queues interrupt. Under the device's lock.
    fn coalescing(dev: &Device<Self>, scope: coalesce::Scope) -> Result<coalesce::Settings> {
        let _ = (dev, scope);
        Err(EOPNOTSUPP)
    }

    /// The user wants queues to interrupt then. Under the device's lock.
    fn set_coalescing(
        dev: &Device<Self>,
        scope: coalesce::Scope,
        settings: coalesce::Settings,
    ) -> Result {
        let _ = (dev, scope, settings);
        Err(EOPNOTSUPP)
    }

    /// Returns how large the table and the key are by which packets are spread over the receive queues.
    fn rxfh_sizes(dev: &Device<Self>) -> rxfh::Sizes {
        let _ = dev;
        rxfh::Sizes::default()
    }

    /// Fills in the table, whose entries are numbers of queues, and the key. Either may be empty: nobody asks for it.
    fn rxfh(dev: &Device<Self>, table: &mut [u32], key: &mut [u8]) {
        let _ = (dev, table, key);
    }

    /// The user wants another table, of queues that are in use, or another key. Under the device's lock.
    fn set_rxfh(dev: &Device<Self>, table: Option<&[u32]>, key: Option<&[u8]>) -> Result {
        let _ = (dev, table, key);
        Err(EOPNOTSUPP)
    }

    /// Returns what the hash of such a packet is over.
    fn hash_fields(dev: &Device<Self>, flow: rxfh::Flow) -> rxfh::Fields {
        let _ = (dev, flow);
        rxfh::Fields::Nothing
    }

    /// The user wants the hash of such packets over these fields. Under the device's lock.
    fn set_hash_fields(dev: &Device<Self>, flow: rxfh::Flow, fields: rxfh::Fields) -> Result {
        let _ = (dev, flow, fields);
        Err(EOPNOTSUPP)
    }

    /// Lists the statistics: the same ones each time, in the same order. More than there were when the device was registered
    /// are left out.
    fn statistics(dev: &Device<Self>, list: &mut statistics::Statistics<'_>);
}

/// The operations as C has them.
pub struct Table<T: device::Operations> {
    ops: &'static bindings::ethtool_ops,
    count_statistics: fn(&Device<T>) -> usize,
}

impl<T: Operations> Table<T> {
    /// The table of a driver that implements [`Operations`].
    pub const fn new() -> Self {
        Self {
            ops: &Callbacks::<T>::OPS,
            count_statistics: Callbacks::<T>::count_statistics,
        }
    }
}

impl<T: Operations> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: device::Operations> Table<T> {
    pub(super) fn as_ptr(&self) -> *const bindings::ethtool_ops {
        self.ops
    }

    /// Returns how many statistics there are at the moment.
    pub(super) fn count_statistics(&self, dev: &Device<T>) -> usize {
        (self.count_statistics)(dev)
    }
}

struct Callbacks<T: Operations>(PhantomData<T>);

impl<T: Operations> Callbacks<T> {
    /// What changes the number of queues, stops the interface for a moment, changes the profiles of [`dim`](crate::net::dim), or
    /// has the stack find out about the link is for the rtnl lock too.
    const UNDER_RTNL: u32 = bindings::ETHTOOL_OP_NEEDS_RTNL_SCHANNELS
        | bindings::ETHTOOL_OP_NEEDS_RTNL_SRINGPARAM
        | bindings::ETHTOOL_OP_NEEDS_RTNL_SCOALESCE
        | bindings::ETHTOOL_OP_NEEDS_RTNL_GLINK;

    const OPS: bindings::ethtool_ops = bindings::ethtool_ops {
        op_needs_rtnl: Self::UNDER_RTNL,
        supported_coalesce_params: coalesce::SUPPORTED,
        get_drvinfo: Some(Self::get_drvinfo),
        get_link: Some(ethtool_op_get_link),
        get_ringparam: Some(Self::get_ringparam),
        set_ringparam: Some(Self::set_ringparam),
        get_channels: Some(Self::get_channels),
        set_channels: Some(Self::set_channels),
        get_coalesce: Some(Self::get_coalesce),
        set_coalesce: Some(Self::set_coalesce),
        get_per_queue_coalesce: Some(Self::get_per_queue_coalesce),
        set_per_queue_coalesce: Some(Self::set_per_queue_coalesce),
        get_strings: Some(Self::get_strings),
        get_sset_count: Some(Self::get_sset_count),
        get_ethtool_stats: Some(Self::get_ethtool_stats),
        get_rx_ring_count: Some(Self::get_rx_ring_count),
        get_rxfh_key_size: Some(Self::get_rxfh_key_size),
        get_rxfh_indir_size: Some(Self::get_rxfh_indir_size),
        get_rxfh: Some(Self::get_rxfh),
        set_rxfh: Some(Self::set_rxfh),
        get_rxfh_fields: Some(Self::get_rxfh_fields),
        set_rxfh_fields: Some(Self::set_rxfh_fields),
        get_ts_info: Some(ethtool_op_get_ts_info),
        get_link_ksettings: Some(Self::get_link_ksettings),
        set_link_ksettings: Some(Self::set_link_ksettings),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and a valid `info`.
    unsafe extern "C" fn get_drvinfo(dev: *mut NetDevice, info: *mut bindings::ethtool_drvinfo) {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };

        // SAFETY: The stack calls with a valid structure.
        T::driver_info(dev, &mut DriverInfo(unsafe { &mut *info }));
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and a valid `ring`.
    unsafe extern "C" fn get_ringparam(
        dev: *mut NetDevice,
        ring: *mut bindings::ethtool_ringparam,
        _kernel_ring: *mut bindings::kernel_ethtool_ringparam,
        _extack: *mut bindings::netlink_ext_ack,
    ) {
        // SAFETY: The stack calls with a valid device of this type.
        let rings = T::rings(unsafe { Device::<T>::from_raw(dev.cast()) });
        // SAFETY: The stack calls with a valid structure.
        let ring = unsafe { &mut *ring };

        ring.rx_max_pending = rings.rx.max;
        ring.rx_pending = rings.rx.size;
        ring.tx_max_pending = rings.tx.max;
        ring.tx_pending = rings.tx.size;
    }

    /// # Safety
    ///
    /// The stack calls it under the rtnl lock and the device's, with a device that was made for `T` and a valid `ring`.
    unsafe extern "C" fn set_ringparam(
        dev: *mut NetDevice,
        ring: *mut bindings::ethtool_ringparam,
        _kernel_ring: *mut bindings::kernel_ethtool_ringparam,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type, and its lock held.
        let dev = unsafe { Locked::<T>::from_raw(dev.cast()) };
        // SAFETY: The stack calls with a valid structure.
        let wanted = unsafe { &*ring };

        let Rings { rx, tx } = T::rings(dev);
        if !(1..=rx.max).contains(&wanted.rx_pending) || !(1..=tx.max).contains(&wanted.tx_pending)
        {
            return EINVAL.to_errno();
        }
        if (wanted.rx_pending, wanted.tx_pending) == (rx.size, tx.size) {
            return 0;
        }
        match T::set_rings(dev, wanted.rx_pending, wanted.tx_pending) {
            Ok(()) => 0,
            // SAFETY: The stack gives null, or what is valid while it waits.
            Err(refusal) => unsafe { refusal.tell(extack) },
        }
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and valid `channels`.
    unsafe extern "C" fn get_channels(
        dev: *mut NetDevice,
        channels: *mut bindings::ethtool_channels,
    ) {
        // SAFETY: The stack calls with a valid device of this type.
        let now = unsafe { Device::<T>::from_raw(dev.cast()) }.channels();
        // SAFETY: The stack calls with a valid structure.
        let channels = unsafe { &mut *channels };

        channels.max_combined = now.max;
        channels.combined_count = now.active;
    }

    /// # Safety
    ///
    /// The stack calls it under the rtnl lock and the device's, with a device that was made for `T` and valid `channels`.
    unsafe extern "C" fn set_channels(
        dev: *mut NetDevice,
        channels: *mut bindings::ethtool_channels,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };
        // SAFETY: The stack calls with a valid structure.
        let wanted = unsafe { &*channels };

        from_result(|| {
            if wanted.rx_count != 0 || wanted.tx_count != 0 || wanted.other_count != 0 {
                return Err(EINVAL);
            }
            let pairs = u16::try_from(wanted.combined_count)?;
            let now = dev.channels();
            if pairs == 0 || u32::from(pairs) > now.max {
                return Err(EINVAL);
            }
            if u32::from(pairs) != now.active {
                T::set_channels(dev, pairs)?;
                // SAFETY: The stack holds both locks, and the device has so many queues.
                unsafe { dev.set_active_queues(pairs) }?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and a valid `settings`.
    unsafe extern "C" fn get_link_ksettings(
        dev: *mut NetDevice,
        settings: *mut bindings::ethtool_link_ksettings,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let link = T::link(unsafe { Device::<T>::from_raw(dev.cast()) });
        // SAFETY: The stack calls with a valid structure.
        let base = unsafe { &mut *addr_of_mut!((*settings).base) };

        base.speed = link.speed;
        base.duplex = link.duplex;
        // CAST: The constant is 0xff.
        base.port = bindings::PORT_OTHER as u8;
        0
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and valid `settings`.
    unsafe extern "C" fn set_link_ksettings(
        raw: *mut NetDevice,
        settings: *const bindings::ethtool_link_ksettings,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(raw.cast()) };
        let Link {
            mut speed,
            mut duplex,
        } = T::link(dev);

        // SAFETY: The stack calls with valid pointers; the function checks what it copies.
        let ret = to_result(unsafe {
            ethtool_virtdev_set_link_ksettings(raw, settings, &mut speed, &mut duplex)
        });
        match ret {
            Ok(()) => {
                T::set_link(dev, Link { speed, duplex });
                0
            }
            Err(error) => error.to_errno(),
        }
    }
}
