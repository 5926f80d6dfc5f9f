// SPDX-License-Identifier: GPL-2.0

//! What the stack asks of a network device.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::{
    address::MacAddr,
    device::{
        Device,
        Locked, //
    },
    ethtool,
    features::Features,
    filter::{
        AddressList,
        RxMode, //
    },
    napi::Handler,
    qstats,
    refusal::Refusal,
    skbuff,
    stats::Stats,
    transmit::{
        start_xmit_callback,
        Transmit, //
    },
    xdp::{
        self,
        Attached, //
    },
    xsk, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::{
        addr_of,
        addr_of_mut, //
    },
};
use kernel::{
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    prelude::*, //
};

/// A driver's private data and its operations.
///
/// The value lies in the device's allocation, pinned, and all callbacks get shared references. Those under the device's lock may be
/// under the rtnl lock too, or not; see [`Locked`].
#[vtable]
pub trait Operations: Send + Sync + Sized + 'static {
    /// The state of a transmit queue.
    type Transmit: Transmit<Device = Self>;

    /// The poll of a receive queue.
    type Receive: Handler;

    /// What `ethtool` can ask.
    const ETHTOOL: ethtool::Table<Self>;

    /// The interface is brought up. Process context, under the device's lock.
    fn open(dev: &Locked<Self>) -> Result;

    /// The interface is brought down. Process context, under the device's lock.
    fn stop(dev: &Locked<Self>);

    /// Returns the statistics. Any context but hard interrupts.
    fn stats(dev: &Device<Self>) -> Stats;

    /// Returns what a receive queue has counted. Process context, under the device's lock.
    fn receive_statistics(_dev: &Device<Self>, _scope: qstats::Scope) -> qstats::Receive {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns what a transmit queue has counted. Process context, under the device's lock. A device has this if it has
    /// [`receive_statistics`](Self::receive_statistics).
    fn transmit_statistics(_dev: &Device<Self>, _scope: qstats::Scope) -> qstats::Transmit {
        qstats::Transmit::default()
    }

    /// The device is to forget receive queue `queue`, which is empty after that and goes on. Its instance is disabled meanwhile.
    /// Process context, under the device's lock. After an error the queue goes on as before, if it can.
    ///
    /// Only for a device with [`set_queue_management`](super::device::NewDevice::set_queue_management).
    fn reset_receive_queue(_dev: &Device<Self>, _queue: u16) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The address is about to become `addr`. Process context, under the device's lock. An error refuses it.
    fn set_address(_dev: &Device<Self>, _addr: MacAddr) -> Result {
        Ok(())
    }

    /// What the interface is to receive has changed, or it was brought up. Process context, under the device's lock.
    ///
    /// After an error the stack calls again, a limited number of times.
    fn set_rx_mode(_dev: &Device<Self>, _mode: &RxMode<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The user changes what the device can do, from `old` to `new`. Process context, under the device's lock. An error refuses it.
    fn set_features(_dev: &Device<Self>, _old: Features, _new: Features) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns which of `features` the device can have now. Process context, under the device's lock.
    fn fix_features(_dev: &Device<Self>, features: Features) -> Features {
        features
    }

    /// The MTU is about to become `mtu`, which is in the device's range. Process context, under the device's lock. An error refuses
    /// it.
    fn check_mtu(_dev: &Device<Self>, _mtu: u32) -> Result {
        Ok(())
    }

    /// A program is to be attached. Process context, under the device's lock.
    fn check_program(_dev: &Device<Self>, _program: Attached) -> core::result::Result<(), Refusal> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the queues that a socket is bound to with this number, to have packets received into its own memory and sent from it;
    /// the same for the same number. Process context, under the device's lock. An error refuses it.
    ///
    /// Only for a device with [`set_zero_copy`](super::device::NewDevice::set_zero_copy).
    fn socket_queues(&self, _queue: u16) -> Result<xsk::Queues<'_>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device does not forget a queue, or does not take it back, as a socket comes or goes. The queue is out of use until the device
    /// is reset. Process context, under the device's lock.
    fn queue_kept(_dev: &Device<Self>, _queue: u16) {}

    /// Packets of the VLAN `vid` are to be received too; only with [`Features::VLAN_FILTER`]. Process context, under the rtnl
    /// lock. An error refuses the VLAN.
    fn add_vlan(_dev: &Device<Self>, _vid: u16) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Packets of the VLAN `vid` are not to be received any more. Process context, under the rtnl lock.
    fn remove_vlan(_dev: &Device<Self>, _vid: u16) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the name of the port that the interface is of its device, if that has any: user space makes the interface's name
    /// of it.
    fn phys_port_name(_dev: &Device<Self>) -> Option<&'static CStr> {
        None
    }

    /// A transmit queue has been stopped for longer than five seconds.
    fn tx_timeout(_dev: &Device<Self>, _queue: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The operations as C has them.
pub(super) struct Callbacks<T: Operations>(PhantomData<T>);

impl<T: Operations> Callbacks<T> {
    pub(super) const OPS: bindings::net_device_ops = bindings::net_device_ops {
        ndo_open: Some(Self::open_callback),
        ndo_stop: Some(Self::stop_callback),
        ndo_start_xmit: Some(start_xmit_callback::<T>),
        ndo_get_stats64: Some(Self::get_stats64_callback),
        ndo_set_mac_address: Some(Self::set_mac_address_callback),
        ndo_validate_addr: Some(bindings::eth_validate_addr),
        ndo_set_rx_mode_async: if T::HAS_SET_RX_MODE {
            Some(Self::set_rx_mode_callback)
        } else {
            None
        },
        ndo_set_features: if T::HAS_SET_FEATURES {
            Some(Self::set_features_callback)
        } else {
            None
        },
        ndo_fix_features: Some(Self::fix_features_callback),
        ndo_features_check: Some(features_check_callback),
        ndo_change_mtu: Some(Self::change_mtu_callback),
        ndo_bpf: if T::HAS_CHECK_PROGRAM {
            Some(xdp::bpf_callback::<T>)
        } else {
            None
        },
        ndo_xdp_xmit: Some(xdp::xdp_xmit_callback::<T>),
        ndo_xsk_wakeup: if T::HAS_SOCKET_QUEUES {
            Some(xsk::wakeup_callback::<T>)
        } else {
            None
        },
        ndo_vlan_rx_add_vid: if T::HAS_ADD_VLAN {
            Some(Self::vlan_rx_add_vid_callback)
        } else {
            None
        },
        ndo_vlan_rx_kill_vid: if T::HAS_REMOVE_VLAN {
            Some(Self::vlan_rx_kill_vid_callback)
        } else {
            None
        },
        ndo_get_phys_port_name: Some(Self::get_phys_port_name_callback),
        ndo_tx_timeout: if T::HAS_TX_TIMEOUT {
            Some(Self::tx_timeout_callback)
        } else {
            None
        },
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`, under the device's lock.
    unsafe extern "C" fn open_callback(dev: *mut bindings::net_device) -> c_int {
        // SAFETY: The stack calls with a valid device of this type, and its lock held.
        let dev = unsafe { Locked::<T>::from_raw(dev) };

        from_result(|| T::open(dev).map(|()| 0))
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`, under the device's lock.
    unsafe extern "C" fn stop_callback(dev: *mut bindings::net_device) -> c_int {
        // SAFETY: The stack calls with a valid device of this type, and its lock held.
        T::stop(unsafe { Locked::<T>::from_raw(dev) });
        0
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T` and a valid `storage`.
    unsafe extern "C" fn get_stats64_callback(
        dev: *mut bindings::net_device,
        storage: *mut bindings::rtnl_link_stats64,
    ) {
        // SAFETY: The stack calls with a valid device of this type.
        let stats = T::stats(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The stack calls with a valid structure of its own.
        let storage = unsafe { &mut *storage };

        storage.rx_packets = stats.rx_packets;
        storage.rx_bytes = stats.rx_bytes;
        storage.rx_errors = stats.rx_errors;
        storage.rx_dropped = stats.rx_dropped;
        storage.rx_length_errors = stats.rx_length_errors;
        storage.rx_frame_errors = stats.rx_frame_errors;
        storage.tx_packets = stats.tx_packets;
        storage.tx_bytes = stats.tx_bytes;
        storage.tx_errors = stats.tx_errors;
        storage.tx_dropped = stats.tx_dropped;
        storage.tx_fifo_errors = stats.tx_fifo_errors;
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T` and a `struct sockaddr` in `addr`, under the device's lock.
    unsafe extern "C" fn set_mac_address_callback(
        raw: *mut bindings::net_device,
        addr: *mut c_void,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The stack calls with a valid device and a `struct sockaddr`, under the device's lock.
            to_result(unsafe { bindings::eth_prepare_mac_addr_change(raw, addr) })?;

            // SAFETY: As above; an Ethernet address is six bytes long, fewer than the data.
            let bytes = unsafe {
                addr_of!((*addr.cast::<bindings::sockaddr>()).sa_data)
                    .cast::<[u8; 6]>()
                    .read()
            };
            // SAFETY: As above.
            let dev = unsafe { Device::<T>::from_raw(raw) };
            T::set_address(dev, MacAddr::new(bytes).ok_or(EADDRNOTAVAIL)?)?;

            // SAFETY: As above.
            unsafe { bindings::eth_commit_mac_addr_change(raw, addr) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T` and two valid lists that nobody changes meanwhile, under
    /// the device's lock.
    unsafe extern "C" fn set_rx_mode_callback(
        raw: *mut bindings::net_device,
        unicast: *mut bindings::netdev_hw_addr_list,
        multicast: *mut bindings::netdev_hw_addr_list,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device, and the device's lock protects the flags.
        let flags = unsafe { (*raw).flags };

        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(raw) };
        let mode = RxMode {
            promiscuous: flags & bindings::net_device_flags_IFF_PROMISC != 0,
            all_multicast: flags & bindings::net_device_flags_IFF_ALLMULTI != 0,
            // SAFETY: The stack calls with a valid list that is its own copy.
            unicast: unsafe { AddressList::from_raw(unicast) },
            // SAFETY: As above.
            multicast: unsafe { AddressList::from_raw(multicast) },
        };

        from_result(|| T::set_rx_mode(dev, &mode).map(|()| 0))
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`, under the device's lock.
    unsafe extern "C" fn set_features_callback(
        raw: *mut bindings::net_device,
        features: bindings::netdev_features_t,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device, and the device's lock protects the features.
        let old = Features(unsafe { (*raw).features });

        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(raw) };
        from_result(|| T::set_features(dev, old, Features(features)).map(|()| 0))
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`, under the device's lock.
    unsafe extern "C" fn fix_features_callback(
        dev: *mut bindings::net_device,
        features: bindings::netdev_features_t,
    ) -> bindings::netdev_features_t {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev) };

        T::fix_features(dev, Features(features)).0
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`, under the device's lock.
    unsafe extern "C" fn change_mtu_callback(raw: *mut bindings::net_device, mtu: c_int) -> c_int {
        from_result(|| {
            // CAST: The stack has checked that it is not negative.
            let mtu = mtu as u32;
            // SAFETY: The stack calls with a valid device of this type.
            T::check_mtu(unsafe { Device::<T>::from_raw(raw) }, mtu)?;

            // SAFETY: The device is valid, and the device's lock protects the field; who reads it without expects one write.
            unsafe { addr_of_mut!((*raw).mtu).write_volatile(mtu) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`, under the rtnl lock.
    unsafe extern "C" fn vlan_rx_add_vid_callback(
        dev: *mut bindings::net_device,
        _proto: bindings::__be16,
        vid: u16,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev) };

        from_result(|| T::add_vlan(dev, vid).map(|()| 0))
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`, under the rtnl lock.
    unsafe extern "C" fn vlan_rx_kill_vid_callback(
        dev: *mut bindings::net_device,
        _proto: bindings::__be16,
        vid: u16,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev) };

        from_result(|| T::remove_vlan(dev, vid).map(|()| 0))
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`, and room for `len` bytes in
    /// `name`.
    unsafe extern "C" fn get_phys_port_name_callback(
        dev: *mut bindings::net_device,
        name: *mut c_char,
        len: usize,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The stack calls with a valid device of this type.
            let port = T::phys_port_name(unsafe { Device::<T>::from_raw(dev) });
            let bytes = port.ok_or(EOPNOTSUPP)?.to_bytes_with_nul();
            if bytes.len() > len {
                return Err(EOPNOTSUPP);
            }
            // SAFETY: The stack calls with room for `len` bytes, which are no fewer than these.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), name.cast(), bytes.len()) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// The stack calls it, with a device that [`NewDevice`](super::device::NewDevice) made for `T`.
    unsafe extern "C" fn tx_timeout_callback(dev: *mut bindings::net_device, queue: u32) {
        // SAFETY: The stack calls with a valid device of this type.
        T::tx_timeout(unsafe { Device::<T>::from_raw(dev) }, queue);
    }
}

/// Says what a device can do with a packet. The checksum inside of a tunnel is filled in by the device only when it cuts the
/// packet: otherwise it would have to know where the tunnel ends.
///
/// # Safety
///
/// The stack calls it, with a packet that it is about to give to the device.
unsafe extern "C" fn features_check_callback(
    skb: *mut bindings::sk_buff,
    _dev: *mut bindings::net_device,
    features: bindings::netdev_features_t,
) -> bindings::netdev_features_t {
    // SAFETY: The stack calls with a valid packet, and keeps it meanwhile.
    if unsafe { skbuff::has_hidden_checksum(skb, features) } {
        features & !Features::CHECKSUMS.0
    } else {
        features
    }
}
