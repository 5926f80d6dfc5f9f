// SPDX-License-Identifier: GPL-2.0

//! When queues interrupt: `ethtool -c`, `-C` and `-Q`.

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

/// What of `struct ethtool_coalesce` there is; the stack refuses the rest.
pub(super) const SUPPORTED: u32 = bindings::ETHTOOL_COALESCE_USECS
    | bindings::ETHTOOL_COALESCE_MAX_FRAMES
    | bindings::ETHTOOL_COALESCE_USE_ADAPTIVE_RX;

/// When one queue interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Moderation {
    /// How many microseconds the first packet waits at most.
    pub usecs: u32,
    /// After how many packets at the latest.
    pub frames: u32,
}

/// When the queues of a pair interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// The receive queue.
    pub rx: Moderation,
    /// The transmit queue.
    pub tx: Moderation,
    /// The receive queue's adapts to the traffic.
    pub adaptive_rx: bool,
}

impl Settings {
    fn from_raw(raw: &bindings::ethtool_coalesce) -> Self {
        Self {
            rx: Moderation {
                usecs: raw.rx_coalesce_usecs,
                frames: raw.rx_max_coalesced_frames,
            },
            tx: Moderation {
                usecs: raw.tx_coalesce_usecs,
                frames: raw.tx_max_coalesced_frames,
            },
            adaptive_rx: raw.use_adaptive_rx_coalesce != 0,
        }
    }

    fn write(&self, raw: &mut bindings::ethtool_coalesce) {
        raw.rx_coalesce_usecs = self.rx.usecs;
        raw.rx_max_coalesced_frames = self.rx.frames;
        raw.tx_coalesce_usecs = self.tx.usecs;
        raw.tx_max_coalesced_frames = self.tx.frames;
        raw.use_adaptive_rx_coalesce = self.adaptive_rx.into();
    }
}

/// Which queues are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those of one pair.
    Pair(u16),
}

impl<T: Operations> Callbacks<T> {
    fn get(dev: &Device<T>, scope: Scope, raw: *mut bindings::ethtool_coalesce) -> c_int {
        from_result(|| {
            let settings = T::coalescing(dev, scope)?;

            // SAFETY: The callers are called with a valid structure.
            settings.write(unsafe { &mut *raw });
            Ok(0)
        })
    }

    fn set(dev: &Device<T>, scope: Scope, raw: *mut bindings::ethtool_coalesce) -> c_int {
        from_result(|| {
            // SAFETY: The callers are called with a valid structure.
            T::set_coalescing(dev, scope, Settings::from_raw(unsafe { &*raw }))?;
            Ok(0)
        })
    }

    /// Returns the pair of queue `queue`, if the device has it.
    fn pair(dev: &Device<T>, queue: u32) -> Result<Scope> {
        if queue >= dev.channels().max {
            return Err(EINVAL);
        }
        Ok(Scope::Pair(u16::try_from(queue)?))
    }

    /// # Safety
    ///
    /// The stack calls it under the rtnl lock, with a device that was made for `T` and a valid `raw`.
    pub(super) unsafe extern "C" fn get_coalesce(
        dev: *mut NetDevice,
        raw: *mut bindings::ethtool_coalesce,
        _kernel: *mut bindings::kernel_ethtool_coalesce,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };

        Self::get(dev, Scope::All, raw)
    }

    /// # Safety
    ///
    /// The stack calls it under the rtnl lock, with a device that was made for `T` and a valid `raw`.
    pub(super) unsafe extern "C" fn set_coalesce(
        dev: *mut NetDevice,
        raw: *mut bindings::ethtool_coalesce,
        _kernel: *mut bindings::kernel_ethtool_coalesce,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };

        Self::set(dev, Scope::All, raw)
    }

    /// # Safety
    ///
    /// The stack calls it under the rtnl lock, with a device that was made for `T` and a valid `raw`.
    pub(super) unsafe extern "C" fn get_per_queue_coalesce(
        dev: *mut NetDevice,
        queue: u32,
        raw: *mut bindings::ethtool_coalesce,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };

        match Self::pair(dev, queue) {
            Ok(pair) => Self::get(dev, pair, raw),
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// The stack calls it under the rtnl lock, with a device that was made for `T` and a valid `raw`.
    pub(super) unsafe extern "C" fn set_per_queue_coalesce(
        dev: *mut NetDevice,
        queue: u32,
        raw: *mut bindings::ethtool_coalesce,
    ) -> c_int {
        // SAFETY: The stack calls with a valid device of this type.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };

        match Self::pair(dev, queue) {
            Ok(pair) => Self::set(dev, pair, raw),
            Err(error) => error.to_errno(),
        }
    }
}
