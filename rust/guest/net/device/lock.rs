// SPDX-License-Identifier: GPL-2.0

//! The lock of a network device, and what is done under it.
//!
//! C header: [`include/net/netdev_lock.h`](srctree/include/net/netdev_lock.h)

use super::{
    Device,
    Operations, //
};
use crate::bindings;
use core::ops::Deref;
use kernel::prelude::*;

/// The rtnl lock, held.
pub(in crate::net) struct Rtnl;

impl Rtnl {
    pub(in crate::net) fn lock() -> Self {
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

/// A device's lock, held.
struct Guard<'a, T: Operations>(&'a Device<T>);

impl<'a, T: Operations> Guard<'a, T> {
    fn lock(dev: &'a Device<T>) -> Self {
        // SAFETY: By the type invariant the device is valid. The lock is not held already, which would be a deadlock and no more.
        unsafe { bindings::netdev_lock(dev.as_raw()) };
        Self(dev)
    }
}

impl<T: Operations> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: A value of this type is made by locking.
        unsafe { bindings::netdev_unlock(self.0.as_raw()) };
    }
}

impl<T: Operations> Deref for Guard<'_, T> {
    type Target = Locked<T>;

    fn deref(&self) -> &Locked<T> {
        // SAFETY: The device is valid, and its lock is held as long as the value lives.
        unsafe { Locked::from_raw(self.0.as_raw()) }
    }
}

/// A network device whose lock is held.
///
/// # Invariants
///
/// The lock is held as long as the value is borrowed.
#[repr(transparent)]
pub struct Locked<T: Operations>(Device<T>);

impl<T: Operations> Deref for Locked<T> {
    type Target = Device<T>;

    #[inline]
    fn deref(&self) -> &Device<T> {
        &self.0
    }
}

impl<T: Operations> Locked<T> {
    /// # Safety
    ///
    /// `dev` is a device that [`NewDevice::<T>::new`](super::NewDevice::new) has made, valid for `'a`; its lock is held as long.
    #[inline]
    pub(in crate::net) unsafe fn from_raw<'a>(dev: *mut bindings::net_device) -> &'a Self {
        // CAST: `Self` and `Device` are transparent wrappers.
        // INVARIANT: By the safety requirements.
        // SAFETY: By the safety requirements.
        unsafe { &*dev.cast() }
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

    /// Stops the interface as [`suspend`](Device::suspend) does, for as long as `change` runs, which drops all that is in flight. In
    /// process context, under the rtnl lock too: others take an interface that is stopped for one that is gone.
    ///
    /// # Errors
    ///
    /// What `change` fails with; the interface goes on nevertheless. What [`Operations::open`] fails with; it stays stopped then.
    pub fn interrupt(&self, change: impl FnOnce() -> Result) -> Result {
        let mut changed = Ok(());

        self.halt();
        self.go_on(|| {
            changed = change();
            Ok(())
        })?;
        changed
    }

    fn halt(&self) {
        if self.is_running() {
            T::stop(self);
        }
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netif_device_detach(self.as_raw()) };
        // Waits for who is sending.
        // SAFETY: As above.
        unsafe { bindings::netif_tx_disable(self.as_raw()) };
    }

    fn go_on(&self, configure: impl FnOnce() -> Result) -> Result {
        configure()?;
        self.receive_again();
        // CAST: There are at most `u16::MAX` queues.
        for queue in 0..self.private().tx.len() as u16 {
            // SAFETY: The queue exists; nothing is in flight, and nobody sends while the interface is detached.
            unsafe { bindings::netdev_tx_reset_queue(self.txq(queue).as_ptr()) };
        }
        if self.is_running() {
            T::open(self)?;
        }
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::netif_device_attach(self.as_raw()) };
        Ok(())
    }
}

impl<T: Operations> Device<T> {
    /// Runs `f` with the rtnl lock and the device's, which protect the configuration. Sleeps.
    pub fn with_lock<R>(&self, f: impl FnOnce(&Locked<T>) -> R) -> R {
        let _rtnl = Rtnl::lock();
        let guard = Guard::lock(self);

        f(&guard)
    }

    /// Stops the interface for the time that its device is away: the stack sends nothing and asks nothing. Whether it is up does
    /// not change. Takes the rtnl lock and the device's.
    pub fn suspend(&self) {
        self.with_lock(Locked::halt);
    }

    /// Ends [`suspend`](Self::suspend). Nothing that was sent before is in flight any more. `configure` tells the device what it
    /// has forgotten. Takes the rtnl lock and the device's.
    ///
    /// # Errors
    ///
    /// What `configure` and [`Operations::open`] fail with; the interface stays stopped then.
    pub fn resume(&self, configure: impl FnOnce() -> Result) -> Result {
        self.with_lock(|dev| dev.go_on(configure))
    }
}
