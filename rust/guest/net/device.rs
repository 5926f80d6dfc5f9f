// SPDX-License-Identifier: GPL-2.0

//! Network devices.
//!
//! # Life
//!
//! 1. [`NewDevice::new`] makes a device with its private data, its queues and their NAPI instances. It can still be
//!    configured.
//! 2. [`NewDevice::share`] ends that: from here on there are only shared references.
//! 3. [`Registration::new`] makes it known to the stack, which may call the [`Operations`] from then on.
//! 4. Dropping the [`Registration`] stops the device and takes it from the stack, which does not call any more after that.
//! 5. With the last [`ARef`], the NAPI instances go, then the private data, then the device.
//!
//! A registration holds a reference, so 5 cannot come before 4.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

pub use super::{
    features::Features,
    operations::Operations,
    stats::Stats, //
};

use super::{
    address::MacAddr,
    ethtool::Channels,
    napi::{
        Direction,
        Handler,
        Napi, //
    },
    operations::Callbacks,
    page_pool,
    transmit::{
        Of,
        Reclaim,
        Side, //
    }, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::{
        addr_of,
        addr_of_mut,
        NonNull, //
    },
};
use kernel::{
    cpumask::Cpumask,
    device,
    error::to_result,
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        atomic::{
            Atomic,
            Relaxed, //
        },
        Refcount, //
    },
    types::Opaque, //
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

/// What lies in the private area of a `struct net_device`.
#[pin_data]
struct Private<T: Operations> {
    // The NAPI instances go first.
    rx: KVec<Pin<KBox<Napi<T::Receive>>>>,
    tx: KVec<Pin<KBox<Side<T>>>>,
    refs: Refcount,
    registered: Atomic<i32>,
    #[pin]
    data: T,
}

/// A network device whose private data is a `T`.
///
/// # Invariants
///
/// It is a valid `struct net_device` with a pinned, initialised `Private<T>` in its private area.
#[repr(transparent)]
pub struct Device<T: Operations>(Opaque<bindings::net_device>, PhantomData<T>);

// SAFETY: A device is bound to no thread, and neither is its data.
unsafe impl<T: Operations> Send for Device<T> {}

// SAFETY: All methods may be called from any thread at once, and the data is `Sync`.
unsafe impl<T: Operations> Sync for Device<T> {}

impl<T: Operations> Device<T> {
    /// # Safety
    ///
    /// `dev` is a device that [`NewDevice::<T>::new`] has made, valid for `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(dev: *mut bindings::net_device) -> &'a Self {
        // CAST: `Self` is a transparent wrapper.
        // SAFETY: By the safety requirements.
        unsafe { &*dev.cast() }
    }

    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::net_device {
        self.0.get()
    }

    #[inline]
    fn private(&self) -> &Private<T> {
        // SAFETY: By the type invariant the private area holds it.
        unsafe { &*priv_of::<T>(self.as_raw()) }
    }

    /// Returns the private data.
    #[inline]
    pub fn data(&self) -> Pin<&T> {
        // SAFETY: By the type invariant it is pinned.
        unsafe { Pin::new_unchecked(&self.private().data) }
    }

    /// Returns the name, `eth0` for example. It can change while nobody holds the rtnl lock.
    pub fn name(&self) -> &CStr {
        // SAFETY: By the type invariant the device is valid; the name is always terminated within its array.
        unsafe { CStr::from_char_ptr(addr_of!((*self.as_raw()).name).cast()) }
    }

    /// Returns whether the interface is up.
    pub fn is_running(&self) -> bool {
        // SAFETY: By the type invariant the device is valid; other bits of the word change at any time.
        let state = unsafe { addr_of!((*self.as_raw()).state).read_volatile() };

        state & (1 << bindings::netdev_state_t___LINK_STATE_START) != 0
    }

    /// Returns the NAPI instances of the receive queues.
    #[inline]
    pub fn receive(&self) -> &[Pin<KBox<Napi<T::Receive>>>] {
        &self.private().rx
    }

    /// Returns the NAPI instance of a transmit queue.
    #[inline]
    pub fn reclaim(&self, queue: u16) -> Option<&Napi<Reclaim<T>>> {
        self.side(queue).map(|side| &side.napi)
    }

    /// Returns how many receive and transmit queues there are.
    pub fn queues(&self) -> (usize, usize) {
        let private = self.private();

        (private.rx.len(), private.tx.len())
    }

    /// Returns how many pairs of queues there are, and how many the stack uses.
    pub fn channels(&self) -> Channels {
        let private = self.private();
        // SAFETY: By the type invariant the device is valid; the number changes under the rtnl lock and is a hint without it.
        let active = unsafe { addr_of!((*self.as_raw()).real_num_tx_queues).read_volatile() };

        Channels {
            // CAST: `NewDevice::new()` has checked that the numbers are 16 bits wide.
            max: private.rx.len().min(private.tx.len()) as u32,
            active,
        }
    }

    /// Has the stack send what CPUs in `cpus` send by transmit queue `queue`. Sleeps.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when there is no such queue; [`ENOMEM`].
    pub fn set_xps_queue(&self, cpus: &Cpumask, queue: u16) -> Result {
        if usize::from(queue) >= self.private().tx.len() {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariant the device is valid, and it has the queue; the mask is copied.
        to_result(unsafe { bindings::netif_set_xps_queue(self.as_raw(), cpus.as_raw(), queue) })
    }

    /// Has the stack use the first `pairs` pairs of queues.
    ///
    /// # Safety
    ///
    /// The rtnl lock is held, or the device is not registered and nobody is registering it. There are so many queues.
    pub(super) unsafe fn set_active_queues(&self, pairs: u16) -> Result {
        // SAFETY: By the safety requirements.
        to_result(unsafe {
            bindings::netif_set_real_num_queues(self.as_raw(), u32::from(pairs), u32::from(pairs))
        })
    }

    #[inline]
    pub(super) fn side(&self, queue: u16) -> Option<&Side<T>> {
        self.private()
            .tx
            .get(usize::from(queue))
            .map(|side| &**side)
    }

    /// Returns a transmit queue of C. `queue` is one that [`side`](Self::side) knows.
    #[inline]
    pub(super) fn txq(&self, queue: u16) -> NonNull<bindings::netdev_queue> {
        // SAFETY: By the type invariant the device is valid; the array is never null.
        let first = unsafe { NonNull::new_unchecked((*self.as_raw())._tx) };

        // SAFETY: The device was made with as many queues as there are sides.
        unsafe { first.add(usize::from(queue)) }
    }

    /// Enables all NAPI instances; for [`Operations::open`].
    pub fn enable(&self) {
        let private = self.private();

        for napi in &private.rx {
            napi.enable();
        }
        for side in &private.tx {
            side.napi.enable();
        }
    }

    /// Disables all NAPI instances; for [`Operations::stop`].
    pub fn disable(&self) {
        let private = self.private();

        for side in &private.tx {
            side.napi.disable();
        }
        for napi in &private.rx {
            napi.disable();
        }
    }

    /// Lets the neighbours know that the device is reached here, after it was moved. Process context, takes the rtnl lock.
    pub fn notify_peers(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netdev_notify_peers(self.as_raw()) };
    }

    /// Returns what the device can do now. It changes under the rtnl lock.
    pub fn features(&self) -> Features {
        // SAFETY: By the type invariant the device is valid.
        unsafe { Features::of(self.as_raw()) }
    }

    /// Returns the address. It changes under the rtnl lock.
    pub fn address(&self) -> [u8; 6] {
        // SAFETY: By the type invariant the device is valid.
        let addr = unsafe { addr_of!((*self.as_raw()).dev_addr).read() };

        // SAFETY: An Ethernet device's address has six bytes, and stays where it is.
        unsafe { addr.cast::<[u8; 6]>().read_volatile() }
    }

    /// Stops the interface for the time that its device is away: the stack sends nothing and asks nothing. Whether it is up does
    /// not change. Takes the rtnl lock.
    pub fn suspend(&self) {
        let _rtnl = Rtnl::lock();

        if self.is_running() {
            T::stop(self);
        }
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netif_device_detach(self.as_raw()) };
    }

    /// Ends [`suspend`](Self::suspend). Nothing that was sent before is in flight any more. `configure` tells the device what it
    /// has forgotten. Takes the rtnl lock.
    ///
    /// # Errors
    ///
    /// What `configure` and [`Operations::open`] fail with; the interface stays stopped then.
    pub fn resume(&self, configure: impl FnOnce() -> Result) -> Result {
        let _rtnl = Rtnl::lock();

        // CAST: There are at most `u16::MAX` queues.
        for queue in 0..self.private().tx.len() as u16 {
            // SAFETY: The queue exists; nothing is in flight, and nobody sends while the interface is detached.
            unsafe { bindings::netdev_tx_reset_queue(self.txq(queue).as_ptr()) };
        }
        configure()?;
        if self.is_running() {
            T::open(self)?;
        }
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netif_device_attach(self.as_raw()) };
        Ok(())
    }

    /// Tells the stack that the link is up: packets can be sent. Any context.
    pub fn carrier_on(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netif_carrier_on(self.as_raw()) };
        // SAFETY: As above.
        unsafe { bindings::netif_tx_wake_all_queues(self.as_raw()) };
    }

    /// Tells the stack that the link is down. Not in hard interrupts.
    pub fn carrier_off(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netif_carrier_off(self.as_raw()) };
        // SAFETY: As above.
        unsafe { bindings::netif_tx_stop_all_queues(self.as_raw()) };
    }
}

/// The rtnl lock, held.
struct Rtnl;

impl Rtnl {
    fn lock() -> Self {
        // SAFETY: No requirements but that it is not held already, which would be a deadlock and no more.
        unsafe { bindings::rtnl_lock() };
        Self
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // SAFETY: A value of this type is made by locking.
        unsafe { bindings::rtnl_unlock() };
    }
}

/// Returns the private area of a device that has a `Private<T>` there.
#[inline]
fn priv_of<T: Operations>(dev: *mut bindings::net_device) -> *mut Private<T> {
    // As `netdev_priv()`.
    // SAFETY: The callers give a valid device; the area lies at its end.
    unsafe { addr_of_mut!((*dev).priv_).cast() }
}

// SAFETY: The count is one per reference, and `dec_ref()` frees at zero only; `NewDevice::share()` gives out the first one.
unsafe impl<T: Operations> AlwaysRefCounted for Device<T> {
    fn inc_ref(&self) {
        self.private().refs.inc();
    }

    /// Sleeps when it is the last reference.
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The safety requirements guarantee that the reference count is not zero.
        if unsafe { obj.as_ref() }.private().refs.dec_and_test() {
            // SAFETY: This was the last reference.
            drop(unsafe { NewDevice::from_raw(obj) });
        }
    }
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
    /// [`ENOMEM`], what `data` fails with, [`EINVAL`] for no queues or too many.
    pub fn new(
        rx: KVec<ReceiveQueue<T::Receive>>,
        tx: KVec<T::Transmit>,
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
        for (index, state) in (0..tx_count).zip(tx) {
            // SAFETY: The NAPI instance, which has this, is dropped before the device.
            let of = unsafe { Of::new(allocation.0.cast(), index) };
            // SAFETY: As above.
            let napi =
                unsafe { Napi::new(dev, Direction::Transmit, index, Reclaim::new(), of, None) };
            transmit.push(
                KBox::pin_init(Side::new(state, napi), GFP_KERNEL)?,
                GFP_KERNEL,
            )?;
        }

        let private = try_pin_init!(Private {
            rx: receive,
            tx: transmit,
            refs: Refcount::new(1),
            registered: Atomic::new(0),
            data <- data,
        }? Error);
        // SAFETY: The private area is valid for a `Private<T>`, suitably aligned, and does not move.
        unsafe { pin_init::raw_try_init(priv_of::<T>(dev), private) }?;

        // SAFETY: The device is valid and nobody else has it.
        let raw = unsafe { &mut *dev };
        raw.netdev_ops = &Callbacks::<T>::OPS;
        raw.ethtool_ops = T::ETHTOOL.as_ptr();
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
    unsafe fn from_raw(dev: NonNull<Device<T>>) -> Self {
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

/// A registered device.
///
/// # Invariants
///
/// The device is registered.
pub struct Registration<T: Operations>(ARef<Device<T>>);

impl<T: Operations> Registration<T> {
    /// Makes a device known to the stack, as a child of `parent`, with the first `pairs` pairs of its queues in use. Takes the
    /// rtnl lock.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] when the device has been registered before; [`EINVAL`] when it does not have so many queues; what
    /// `register_netdev()` says.
    pub fn new(
        dev: ARef<Device<T>>,
        parent: &device::Device<device::Bound>,
        pairs: u16,
    ) -> Result<Self> {
        if pairs == 0 || u32::from(pairs) > dev.channels().max {
            return Err(EINVAL);
        }
        if dev.private().registered.xchg(1, Relaxed) != 0 {
            return Err(EBUSY);
        }
        // SAFETY: Nobody but this function registers a device, and it does so once; the number has just been checked.
        unsafe { dev.set_active_queues(pairs) }?;

        let parent: *const device::Device<device::Bound> = parent;
        // As `SET_NETDEV_DEV()`.
        // CAST: `device::Device` is a transparent wrapper.
        // SAFETY: The device is valid; nobody reads the field before it is registered, which happens once.
        unsafe { (*dev.as_raw()).dev.parent = parent.cast_mut().cast() };
        // SAFETY: The device is valid and has not been registered before; it takes a reference to its parent.
        to_result(unsafe { bindings::register_netdev(dev.as_raw()) })?;

        // INVARIANT: It has just been registered.
        Ok(Self(dev))
    }
}

impl<T: Operations> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the device is registered. When this returns the stack does not call any more.
        unsafe { bindings::unregister_netdev(self.0.as_raw()) };
    }
}
