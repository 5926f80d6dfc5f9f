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
    /// # Safety
    ///
    /// `dev` is a device that was made for `T`, and `raw` is valid. The rtnl lock is held.
    unsafe fn get(
        dev: *mut NetDevice,
        queue: Option<u32>,
        raw: *mut bindings::ethtool_coalesce,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };

        from_result(|| {
            let settings = T::coalescing(dev, Self::scope(dev, queue)?)?;

            // SAFETY: By the safety requirements.
            settings.write(unsafe { &mut *raw });
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`get`](Self::get).
    unsafe fn set(
        dev: *mut NetDevice,
        queue: Option<u32>,
        raw: *mut bindings::ethtool_coalesce,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        let dev = unsafe { Device::<T>::from_raw(dev.cast()) };
        // SAFETY: By the safety requirements.
        let settings = Settings::from_raw(unsafe { &*raw });

        from_result(|| T::set_coalescing(dev, Self::scope(dev, queue)?, settings).map(|()| 0))
    }

    /// Returns which queues are meant: those of the pair `queue`, if the device has it, or all.
    fn scope(dev: &Device<T>, queue: Option<u32>) -> Result<Scope> {
        match queue {
            None => Ok(Scope::All),
            Some(queue) if queue < dev.channels().max => Ok(Scope::Pair(u16::try_from(queue)?)),
            Some(_) => Err(EINVAL),
        }
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and a valid `raw`.
    pub(super) unsafe extern "C" fn get_coalesce(
        dev: *mut NetDevice,
        raw: *mut bindings::ethtool_coalesce,
        _kernel: *mut bindings::kernel_ethtool_coalesce,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { Self::get(dev, None, raw) }
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and a valid `raw`.
    pub(super) unsafe extern "C" fn set_coalesce(
        dev: *mut NetDevice,
        raw: *mut bindings::ethtool_coalesce,
        _kernel: *mut bindings::kernel_ethtool_coalesce,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { Self::set(dev, None, raw) }
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and a valid `raw`.
    pub(super) unsafe extern "C" fn get_per_queue_coalesce(
        dev: *mut NetDevice,
        queue: u32,
        raw: *mut bindings::ethtool_coalesce,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { Self::get(dev, Some(queue), raw) }
    }

    /// # Safety
    ///
    /// The stack calls it under the device's lock, with a device that was made for `T` and a valid `raw`.
    pub(super) unsafe extern "C" fn set_per_queue_coalesce(
        dev: *mut NetDevice,
        queue: u32,
        raw: *mut bindings::ethtool_coalesce,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { Self::set(dev, Some(queue), raw) }
    }
}
