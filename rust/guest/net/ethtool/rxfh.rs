// SPDX-License-Identifier: GPL-2.0

//! Receive flow hashes, by which a device spreads packets over its receive queues: `ethtool -x`, `-X` and `-N rx-flow-hash`.

use super::{
    Callbacks,
    Device,
    NetDevice,
    Operations, //
};
use crate::bindings;
use kernel::{
    error::from_result,
    prelude::*, //
};

/// The longest key.
pub const MAX_KEY: usize = bindings::NETDEV_RSS_KEY_LEN as usize;

/// How large a device's table and key are; 0 where it has none.
#[derive(Clone, Copy, Default)]
pub struct Sizes {
    /// Number of entries of the table, which the lower bits of a hash select from.
    pub table: u32,
    /// Number of bytes of the key.
    pub key: u32,
}

/// A kind of packets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// TCP over IPv4.
    TcpV4,
    /// UDP over IPv4.
    UdpV4,
    /// Other packets of IPv4.
    IpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over IPv6.
    UdpV6,
    /// Other packets of IPv6.
    IpV6,
}

impl Flow {
    fn from_raw(flow_type: u32) -> Option<Self> {
        Some(match flow_type {
            bindings::TCP_V4_FLOW => Self::TcpV4,
            bindings::UDP_V4_FLOW => Self::UdpV4,
            bindings::IPV4_FLOW => Self::IpV4,
            bindings::TCP_V6_FLOW => Self::TcpV6,
            bindings::UDP_V6_FLOW => Self::UdpV6,
            bindings::IPV6_FLOW => Self::IpV6,
            _ => return None,
        })
    }
}

/// What the hash of a packet is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fields {
    /// There is none.
    Nothing,
    /// Both addresses.
    Addresses,
    /// Both addresses and both ports.
    AddressesAndPorts,
}

impl Fields {
    const ADDRESSES: u32 = bindings::RXH_IP_SRC | bindings::RXH_IP_DST;
    const PORTS: u32 = bindings::RXH_L4_B_0_1 | bindings::RXH_L4_B_2_3;

    fn into_raw(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Addresses => Self::ADDRESSES,
            Self::AddressesAndPorts => Self::ADDRESSES | Self::PORTS,
        }
    }

    fn from_raw(data: u32) -> Option<Self> {
        if data == 0 || data & bindings::RXH_DISCARD != 0 {
            return Some(Self::Nothing);
        }

        [Self::Addresses, Self::AddressesAndPorts]
            .into_iter()
            .find(|fields| fields.into_raw() == data)
    }
}

/// Returns a key that is random and the same for all devices of the system, of which `key` gets the beginning. The rest is 0 if
/// `key` is longer than [`MAX_KEY`].
pub fn fill_key(key: &mut [u8]) {
    let (filled, rest) = key.split_at_mut(key.len().min(MAX_KEY));

    rest.fill(0);
    // SAFETY: There is room for so many bytes, which are not more than the kernel has.
    unsafe { bindings::netdev_rss_key_fill(filled.as_mut_ptr().cast(), filled.len()) };
}

impl<T: Operations> Device<T> {
    /// Returns whether the user has said to which queues received packets are to go. Under the device's lock.
    pub fn is_rxfh_configured(&self) -> bool {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netif_is_rxfh_configured(self.as_raw()) }
    }
}

/// # Safety
///
/// `len` values are at `data`, or it is null.
unsafe fn optional<'a, T>(data: *const T, len: u32) -> Option<&'a [T]> {
    // CAST: From 32 bits.
    // SAFETY: By the safety requirements.
    (!data.is_null()).then(|| unsafe { core::slice::from_raw_parts(data, len as usize) })
}

/// # Safety
///
/// There is room for `len` values at `data`, or it is null. Nobody else uses it.
unsafe fn optional_mut<'a, T>(data: *mut T, len: u32) -> &'a mut [T] {
    if data.is_null() {
        return &mut [];
    }

    // CAST: From 32 bits.
    // SAFETY: By the safety requirements.
    unsafe { core::slice::from_raw_parts_mut(data, len as usize) }
}

impl<T: Operations> Callbacks<T> {
    /// # Safety
    ///
    /// The stack calls it with a device that was made for `T`.
    pub(super) unsafe extern "C" fn get_rx_ring_count(dev: *mut NetDevice) -> u32 {
        // SAFETY: The stack calls with a valid device of this type.
        unsafe { Device::<T>::from_raw(dev.cast()) }
            .channels()
            .active
    }

    /// # Safety
    ///
    /// The stack calls it with a device that was made for `T`.
    pub(super) unsafe extern "C" fn get_rxfh_key_size(dev: *mut NetDevice) -> u32 {
        // SAFETY: The stack calls with a valid device of this type.
        T::rxfh_sizes(unsafe { Device::<T>::from_raw(dev.cast()) }).key
    }

    /// # Safety
    ///
    /// The stack calls it with a device that was made for `T`.
    pub(super) unsafe extern "C" fn get_rxfh_indir_size(dev: *mut NetDevice) -> u32 {
        // SAFETY: The stack calls with a valid device of this type.
        T::rxfh_sizes(unsafe { Device::<T>::from_raw(dev.cast()) }).table
    }

    /// # Safety
    ///
    /// The stack calls it under the lock of the device's hashes, with a device that was made for `T` and a valid `param`.
    pub(super) unsafe extern "C" fn get_rxfh(
        dev: *mut NetDevice,
        param: *mut bindings::ethtool_rxfh_param,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };
        // SAFETY: The stack calls with a valid structure.
        let param = unsafe { &mut *param };
        let sizes = T::rxfh_sizes(dev);
        // SAFETY: The stack makes room for as many entries as it was told of.
        let table = unsafe { optional_mut(param.indir, sizes.table) };
        // SAFETY: As above, of bytes.
        let key = unsafe { optional_mut(param.key, sizes.key) };

        T::rxfh(dev, table, key);
        // CAST: The constant is 1.
        param.hfunc = bindings::ETH_RSS_HASH_TOP as u8;
        0
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock and the lock of the device's hashes, with a device that was made for `T` and a
    /// valid `param`.
    pub(super) unsafe extern "C" fn set_rxfh(
        dev: *mut NetDevice,
        param: *mut bindings::ethtool_rxfh_param,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };
        // SAFETY: The stack calls with a valid structure.
        let param = unsafe { &*param };

        from_result(|| {
            // No other function than Toeplitz's.
            if ![bindings::ETH_RSS_HASH_NO_CHANGE, bindings::ETH_RSS_HASH_TOP]
                .contains(&u32::from(param.hfunc))
            {
                return Err(EOPNOTSUPP);
            }

            let sizes = T::rxfh_sizes(dev);
            // SAFETY: The stack gives as many entries as it was told of.
            let table = unsafe { optional(param.indir, sizes.table) };
            // SAFETY: As above, of bytes.
            let key = unsafe { optional(param.key, sizes.key) };
            if table.is_some() || key.is_some() {
                T::set_rxfh(dev, table, key)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// The stack calls it under the lock of the device's hashes, with a device that was made for `T` and valid `fields`.
    pub(super) unsafe extern "C" fn get_rxfh_fields(
        dev: *mut NetDevice,
        fields: *mut bindings::ethtool_rxfh_fields,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };
        // SAFETY: The stack calls with a valid structure.
        let fields = unsafe { &mut *fields };

        fields.data = match Flow::from_raw(fields.flow_type) {
            Some(flow) => T::hash_fields(dev, flow).into_raw(),
            None => 0,
        };
        0
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock and the lock of the device's hashes, with a device that was made for `T` and
    /// valid `fields`.
    pub(super) unsafe extern "C" fn set_rxfh_fields(
        dev: *mut NetDevice,
        fields: *const bindings::ethtool_rxfh_fields,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };
        // SAFETY: The stack calls with a valid structure.
        let wanted = unsafe { &*fields };

        from_result(|| {
            let flow = Flow::from_raw(wanted.flow_type).ok_or(EINVAL)?;
            let fields = Fields::from_raw(wanted.data).ok_or(EINVAL)?;

            T::set_hash_fields(dev, flow, fields)?;
            Ok(0)
        })
    }
}
