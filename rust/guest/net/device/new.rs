// SPDX-License-Identifier: GPL-2.0

//! Making network devices.

use super::{
    priv_of,
    Device,
    Features,
    Operations,
    Private, //
};
use crate::{
    bindings,
    net::{
        address::MacAddr,
        dim::Profiles,
        napi::{
            Direction,
            Handler,
            Napi, //
        },
        operations::Callbacks,
        page_pool,
        qstats,
        queue_mgmt,
        transmit::{
            Of,
            Reclaim,
            Side,
            TransmitQueue, //
        },
        xdp::RX_HASH, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::Atomic,
        Refcount, //
    }, //
};

/// A receive queue to be made.
pub struct ReceiveQueue<H: Handler> {
    /// What polls it.
    pub handler: H,
    /// What the poll shares with others.
    pub shared: H::Shared,
    /// The page pool that the poll allocates from.
    pub pool: Option<page_pool::Params>,
}

/// A device that nobody else knows of yet.
///
/// # Invariants
///
/// There is no other reference to the device, and it is not registered.
pub struct NewDevice<T: Operations>(NonNull<Device<T>>);

/// An allocated `struct net_device` without private data.
struct Allocation(NonNull<bindings::net_device>);

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: The device is valid, and not registered or not any more.
        unsafe { bindings::free_netdev(self.0.as_ptr()) };
    }
}

impl<T: Operations> NewDevice<T> {
    /// Makes an Ethernet device with one receive queue per element of `rx` and one transmit queue per element of `tx`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], what `data` fails with, [`EINVAL`] for no queues or too many, [`EBUSY`] when another device sends by one of the rings.
    pub fn new(
        rx: KVec<ReceiveQueue<T::Receive>>,
        tx: KVec<TransmitQueue<T::Transmit>>,
        data: impl PinInit<T, Error>,
    ) -> Result<Self> {
        // `____cacheline_aligned`
        const { assert!(align_of::<Private<T>>() <= 64) };

        let rx_count = u16::try_from(rx.len())?;
        let tx_count = u16::try_from(tx.len())?;
        if rx_count == 0 || tx_count == 0 {
            return Err(EINVAL);
        }

        // SAFETY: The counts are not zero.
        let dev = unsafe {
            bindings::alloc_etherdev_mqs(
                // CAST: The size of a structure.
                size_of::<Private<T>>() as c_int,
                u32::from(tx_count),
                u32::from(rx_count),
            )
        };
        let allocation = Allocation(NonNull::new(dev).ok_or(ENOMEM)?);

        let mut receive = KVec::with_capacity(rx.len(), GFP_KERNEL)?;
        for (index, queue) in (0..rx_count).zip(rx) {
            // SAFETY: What is made here is dropped before `allocation`, and so it is by `from_raw()`'s drop.
            let napi = unsafe {
                Napi::new(
                    dev,
                    Direction::Receive,
                    index,
                    queue.handler,
                    queue.shared,
                    queue.pool,
                )
            };
            receive.push(KBox::pin_init(napi, GFP_KERNEL)?, GFP_KERNEL)?;
        }

        let mut transmit = KVec::with_capacity(tx.len(), GFP_KERNEL)?;
        for (index, queue) in (0..tx_count).zip(tx) {
            // SAFETY: The NAPI instance, which has this, is dropped before the device.
            let of = unsafe { Of::new(allocation.0.cast(), index) };
            // SAFETY: As above.
            let napi =
                unsafe { Napi::new(dev, Direction::Transmit, index, Reclaim::new(), of, None) };
            // SAFETY: The device was made with as many, in an array that is never null.
            let txq = unsafe { NonNull::new_unchecked((*dev)._tx).add(usize::from(index)) };
            // SAFETY: As above.
            let side = unsafe { Side::new(queue, txq, napi) };
            transmit.push(KBox::pin_init(side, GFP_KERNEL)?, GFP_KERNEL)?;
        }

        let private = try_pin_init!(Private {
            rx: receive,
            tx: transmit,
            profiles: None,
            refs: Refcount::new(1),
            registered: Atomic::new(0),
            statistics: Atomic::new(0),
            attached: Atomic::new(0),
            data <- data,
        }? Error);
        // SAFETY: The private area is valid for a `Private<T>`, suitably aligned, and does not move.
        unsafe { pin_init::raw_try_init(priv_of::<T>(dev), private) }?;

        // SAFETY: The device is valid and nobody else has it.
        let raw = unsafe { &mut *dev };
        raw.netdev_ops = &Callbacks::<T>::OPS;
        raw.request_ops_lock = true;
        raw.ethtool_ops = T::ETHTOOL.as_ptr();
        if T::HAS_RECEIVE_STATISTICS {
            raw.stat_ops = &qstats::Callbacks::<T>::OPS;
        }
        // A `TxSkBuff` is its packet's only owner; with this flag, pktgen would send one several times at once.
        // SAFETY: The other view of this union is a mark of the same bits.
        let flags = unsafe { &mut raw.__bindgen_anon_1.__bindgen_anon_1 };
        let old = flags.priv_flags();
        flags.set_priv_flags(old & !(bindings::netdev_priv_flags_IFF_TX_SKB_SHARING as c_ulong));

        // INVARIANT: The private data is there, and nobody else has the device.
        Ok(Self(core::mem::ManuallyDrop::new(allocation).0.cast()))
    }

    /// # Safety
    ///
    /// There is no other reference to the device, and it is not registered.
    pub(super) unsafe fn from_raw(dev: NonNull<Device<T>>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(dev)
    }

    fn raw(&mut self) -> &mut bindings::net_device {
        // SAFETY: By the type invariant the device is valid and nobody else has it.
        unsafe { &mut *self.0.as_ptr().cast() }
    }

    /// Sets what the device can do: `active` from the beginning, `changeable` by the user.
    pub fn set_features(&mut self, active: Features, changeable: Features) {
        let raw = self.raw();

        raw.features = active.0;
        raw.hw_features = changeable.0;
        raw.vlan_features = active.0;
    }

    /// Sets what the device can do with packets that are in a tunnel.
    pub fn set_tunnel_features(&mut self, features: Features) {
        self.raw().hw_enc_features = features.0;
    }

    /// Lets interrupts of receive queues adapt to the traffic, by [`Handler::sample`] and [`Handler::tune`].
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`EBUSY`] the second time.
    pub fn set_adaptive(&mut self) -> Result {
        let dev: NonNull<bindings::net_device> = self.0.cast();
        // SAFETY: By the type invariants the private data is initialised and nobody else has it.
        let private = unsafe { &mut *priv_of::<T>(dev.as_ptr()) };
        if private.profiles.is_some() {
            return Err(EBUSY);
        }

        // SAFETY: The device has none, is not registered, and is freed after its private data.
        let profiles = unsafe { Profiles::new(dev, Napi::<T::Receive>::tune_callback) }?;
        private.profiles = Some(profiles);
        for napi in &private.rx {
            // SAFETY: The NAPI instances are dropped before the profiles; this is done once, by the only user.
            unsafe { napi.as_ref().set_adaptive(dev) };
        }
        Ok(())
    }

    /// Says that programs can see what is received ([`Operations::check_program`]), in `fragments` if they take that, and have
    /// packets sent if the device `sends` them.
    pub fn set_programs(&mut self, fragments: bool, sends: bool) {
        use bindings::*;

        let mut able = netdev_xdp_act_NETDEV_XDP_ACT_BASIC | netdev_xdp_act_NETDEV_XDP_ACT_REDIRECT;
        if fragments {
            able |= netdev_xdp_act_NETDEV_XDP_ACT_RX_SG;
        }
        if sends {
            able |=
                netdev_xdp_act_NETDEV_XDP_ACT_NDO_XMIT | netdev_xdp_act_NETDEV_XDP_ACT_NDO_XMIT_SG;
        }
        self.raw().xdp_features = able;
    }

    /// Says that programs can ask for the hash of a packet, which the driver sets ([`Buff::set_hash`](crate::net::xdp::Buff::set_hash)).
    pub fn set_hash_for_programs(&mut self) {
        self.raw().xdp_metadata_ops = &RX_HASH;
    }

    /// Says that sockets can have packets received into their own memory, and sent from it
    /// ([`Operations::socket_queues`]), each in at most so many pieces.
    pub fn set_zero_copy(&mut self, pieces: u32) {
        let raw = self.raw();

        raw.xdp_features |= bindings::netdev_xdp_act_NETDEV_XDP_ACT_XSK_ZEROCOPY;
        raw.xdp_zc_max_segs = pieces;
    }

    /// Says that the device can forget a receive queue ([`Operations::reset_receive_queue`]), so that the stack can restart it.
    pub fn set_queue_management(&mut self) {
        self.raw().queue_mgmt_ops = &queue_mgmt::Callbacks::<T>::OPS;
    }

    /// Sets the range of the MTU and what it is to begin with.
    pub fn set_mtu(&mut self, min: u32, max: u32, mtu: u32) {
        let raw = self.raw();

        raw.min_mtu = min;
        raw.max_mtu = max;
        raw.mtu = mtu;
    }

    /// Asks the stack to leave so many bytes before each packet.
    pub fn set_needed_headroom(&mut self, bytes: u16) {
        self.raw().needed_headroom = bytes;
    }

    /// Lets the user change the address while the interface is up, and the stack send packets without a linear part.
    pub fn set_flexible(&mut self) {
        let raw: *mut bindings::net_device = self.raw();

        // SAFETY: The device is valid, and the other view of this union is a mark of the same bits.
        let flags = unsafe { &mut (*raw).__bindgen_anon_1.__bindgen_anon_1 };
        let old = flags.priv_flags();
        flags.set_priv_flags(
            old | bindings::netdev_priv_flags_IFF_LIVE_ADDR_CHANGE as c_ulong
                | bindings::netdev_priv_flags_IFF_UNICAST_FLT as c_ulong
                | bindings::netdev_priv_flags_IFF_TX_SKB_NO_LINEAR as c_ulong,
        );
    }

    /// Sets the address.
    pub fn set_address(&mut self, addr: MacAddr) {
        // SAFETY: By the type invariant the device is valid and nobody else has it.
        unsafe { bindings::eth_hw_addr_set(self.raw(), addr.to_bytes().as_ptr()) };
    }

    /// Sets a random address, and lets user space know that it is one.
    pub fn set_random_address(&mut self) {
        // SAFETY: By the type invariant the device is valid and nobody else has it.
        unsafe { bindings::eth_hw_addr_random(self.raw()) };
    }

    /// Says that the link is down, until [`Device::carrier_on`]. Without this it counts as up.
    pub fn set_carrier_off(&mut self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netif_carrier_off(self.raw()) };
    }

    /// Ends the configuration.
    pub fn share(self) -> ARef<Device<T>> {
        let this = core::mem::ManuallyDrop::new(self);

        // SAFETY: The reference that the count begins with passes to the `ARef`.
        unsafe { ARef::from_raw(this.0) }
    }
}

impl<T: Operations> Drop for NewDevice<T> {
    fn drop(&mut self) {
        let dev: NonNull<bindings::net_device> = self.0.cast();

        // SAFETY: By the type invariants the private data is initialised and nobody else has it. Its fields go in their order:
        // the NAPI instances first.
        unsafe { core::ptr::drop_in_place(priv_of::<T>(dev.as_ptr())) };
        drop(Allocation(dev));
    }
}
