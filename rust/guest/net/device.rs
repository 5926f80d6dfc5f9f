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
//! # Locks
//!
//! Each device has a lock of its own for its configuration (`struct net_device::lock`, the instance lock). The stack holds it when
//! it asks something of a device, unless [`Operations`] says otherwise, and for most of that the rtnl lock as well, which is one for
//! all devices. A [`Locked`] device is one whose lock is held: what is only to be done then is a method of it.
//!
//! The rtnl lock comes first. So whoever may have been called with the device's lock alone takes neither of them.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

mod lock;
mod new;

pub(super) use self::lock::Rtnl;
pub use self::{
    lock::Locked,
    new::{
        NewDevice,
        ReceiveQueue, //
    }, //
};
pub use super::{
    features::Features,
    operations::Operations,
    stats::Stats, //
};

use super::{
    dim::Profiles,
    ethtool::Channels,
    failover::{
        self,
        Failover, //
    },
    napi::Napi,
    transmit::{
        Reclaim,
        Side, //
    },
    xdp::Attached, //
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

/// What lies in the private area of a `struct net_device`.
#[pin_data]
struct Private<T: Operations> {
    // The NAPI instances go first.
    rx: KVec<Pin<KBox<Napi<T::Receive>>>>,
    tx: KVec<Pin<KBox<Side<T>>>>,
    profiles: Option<Profiles>,
    refs: Refcount,
    registered: Atomic<i32>,
    // How many there are for `ethtool`; does not change once the device is registered.
    statistics: Atomic<usize>,
    // An `Attached`; changes under the device's lock.
    attached: Atomic<i32>,
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

    /// Returns how many statistics `ethtool` shows.
    pub(super) fn statistics(&self) -> usize {
        self.private().statistics.load(Relaxed)
    }

    /// Returns whether there is a program that sees packets. It changes under the device's lock.
    pub fn attached(&self) -> Attached {
        Attached::from_number(self.private().attached.load(Relaxed))
    }

    pub(super) fn set_attached(&self, attached: Attached) {
        // CAST: As `from_number()` reads it.
        self.private().attached.store(attached as i32, Relaxed);
    }

    /// Returns whether the device is known to the stack, and not about to go. It changes under the rtnl lock.
    pub(super) fn is_registered(&self) -> bool {
        // SAFETY: By the type invariant the device is valid; the byte is written under the rtnl lock.
        let state = unsafe { addr_of!((*self.as_raw()).reg_state).read_volatile() };

        u32::from(state) == bindings::netdev_reg_state_NETREG_REGISTERED
    }

    /// Returns the MTU. It changes under the device's lock.
    pub fn mtu(&self) -> u32 {
        // SAFETY: By the type invariant the device is valid; a change is one write.
        unsafe { addr_of!((*self.as_raw()).mtu).read_volatile() }
    }

    /// Returns how many pairs of queues there are, and how many the stack uses.
    pub fn channels(&self) -> Channels {
        let private = self.private();
        // SAFETY: By the type invariant the device is valid; the number changes under the device's lock and is a hint without it.
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
    /// The rtnl lock and the device's are held, or the device is not registered and nobody is registering it. There are so many queues.
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

    /// Lets the neighbours know that the device is reached here, after it was moved. Process context, takes the rtnl lock.
    pub fn notify_peers(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netdev_notify_peers(self.as_raw()) };
    }

    /// Returns what the device can do now. It changes under the device's lock.
    pub fn features(&self) -> Features {
        // SAFETY: By the type invariant the device is valid.
        unsafe { Features::of(self.as_raw()) }
    }

    /// Returns the address. It changes under the device's lock.
    pub fn address(&self) -> [u8; 6] {
        // SAFETY: By the type invariant the device is valid.
        let addr = unsafe { addr_of!((*self.as_raw()).dev_addr).read() };

        // SAFETY: An Ethernet device's address has six bytes, and stays where it is.
        unsafe { addr.cast::<[u8; 6]>().read_volatile() }
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

/// A registered device.
///
/// # Invariants
///
/// The device is registered.
pub struct Registration<T: Operations> {
    dev: ARef<Device<T>>,
    _failover: Option<Failover>,
}

impl<T: Operations> Registration<T> {
    /// Makes a device known to the stack, as a child of `parent`, with the first `pairs` pairs of its queues in use. With
    /// `failover` it is a standby one. Takes the rtnl lock.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] when the device has been registered before; [`EINVAL`] when it does not have so many queues; what
    /// `register_netdev()` says.
    pub fn new(
        dev: ARef<Device<T>>,
        parent: &device::Device<device::Bound>,
        pairs: u16,
        failover: Option<failover::Module>,
    ) -> Result<Self> {
        if pairs == 0 || u32::from(pairs) > dev.channels().max {
            return Err(EINVAL);
        }
        if dev.private().registered.xchg(1, Relaxed) != 0 {
            return Err(EBUSY);
        }
        let statistics = T::ETHTOOL.count_statistics(&dev);
        dev.private().statistics.store(statistics, Relaxed);
        // SAFETY: Nobody but this function registers a device, and it does so once; the number has just been checked.
        unsafe { dev.set_active_queues(pairs) }?;

        let parent: *const device::Device<device::Bound> = parent;
        // As `SET_NETDEV_DEV()`.
        // CAST: `device::Device` is a transparent wrapper.
        // SAFETY: The device is valid; nobody reads the field before it is registered, which happens once.
        unsafe { (*dev.as_raw()).dev.parent = parent.cast_mut().cast() };
        let failover = match failover {
            // SAFETY: The device is valid and has a parent; it is registered below, and by `drop()` unregistered first.
            Some(module) => Some(unsafe { Failover::new(module, dev.as_raw()) }?),
            None => None,
        };
        // SAFETY: The device is valid and has not been registered before; it takes a reference to its parent.
        to_result(unsafe { bindings::register_netdev(dev.as_raw()) })?;

        // INVARIANT: It has just been registered.
        Ok(Self {
            dev,
            _failover: failover,
        })
    }
}

impl<T: Operations> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the device is registered. When this returns the stack does not call any more.
        unsafe { bindings::unregister_netdev(self.dev.as_raw()) };
    }
}
