// SPDX-License-Identifier: GPL-2.0

//! Dynamic interrupt moderation: the kernel's library finds out by trial when a receive queue had better interrupt.
//!
//! A poll says what its queue has done, and the library sometimes queues a work item that says what to try next. While that is
//! to be done it measures nothing.
//!
//! C header: [`include/linux/dim.h`](srctree/include/linux/dim.h)

use super::{
    device::Rtnl,
    ethtool::coalesce::Moderation, //
};
use crate::bindings;
use core::ptr::{
    addr_of_mut,
    NonNull, //
};
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque, //
};

/// The mode that all drivers of virtual devices use: the time runs from the first packet after an interrupt.
const MODE: u32 = bindings::dim_cq_period_mode_DIM_CQ_PERIOD_MODE_START_FROM_EQE;

/// What a queue has done since it was made. Only differences count, so these sums may wrap.
#[derive(Clone, Copy)]
pub struct Sample {
    /// How often it has interrupted.
    pub events: u16,
    /// How many packets it has received.
    pub packets: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// The work that [`Dim::measure`] queues.
pub(super) type Callback = unsafe extern "C" fn(*mut bindings::work_struct);

/// What a device lets the library choose from, for all its queues; the user can change it.
///
/// # Invariants
///
/// The device is valid, and has the profiles.
pub(super) struct Profiles(NonNull<bindings::net_device>);

impl Profiles {
    /// Gives a device the library's own profiles.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `dev` has none, is not registered, and stays valid until the value has been dropped. `callback` takes the work items of
    /// all of its [`Dim`]s.
    pub(super) unsafe fn new(
        dev: NonNull<bindings::net_device>,
        callback: Callback,
    ) -> Result<Self> {
        // CAST: Small numbers.
        // SAFETY: By the safety requirements.
        to_result(unsafe {
            bindings::net_dim_init_irq_moder(
                dev.as_ptr(),
                bindings::DIM_PROFILE_RX as u8,
                (bindings::DIM_COALESCE_USEC | bindings::DIM_COALESCE_PKTS) as u8,
                MODE as u8,
                0,
                Some(callback),
                None,
            )
        })?;

        // INVARIANT: It has them now.
        Ok(Self(dev))
    }
}

impl Drop for Profiles {
    /// Takes the rtnl lock.
    fn drop(&mut self) {
        let _rtnl = Rtnl::lock();

        // SAFETY: By the type invariant; the lock is held.
        unsafe { bindings::net_dim_free_irq_moder(self.0.as_ptr()) };
        // SAFETY: As above.
        unsafe { (*self.0.as_ptr()).irq_moder = core::ptr::null_mut() };
    }
}

/// The library's state for one queue.
///
/// # Invariants
///
/// With `in_use`, `raw` is initialised, and its work item's callback is that of the device's [`Profiles`].
#[pin_data]
pub(super) struct Dim {
    #[pin]
    raw: Opaque<bindings::dim>,
    in_use: Atomic<bool>,
}

impl Dim {
    /// Makes a value that is not in use.
    pub(super) fn new() -> impl PinInit<Self> {
        // INVARIANT: It is not in use.
        pin_init!(Self {
            raw: Opaque::zeroed(),
            in_use: Atomic::new(false),
        })
    }

    /// Begins with the smallest moderation.
    ///
    /// # Safety
    ///
    /// `dev` has [`Profiles`]. Nobody else uses the value, and this is called once.
    pub(super) unsafe fn begin(self: Pin<&Self>, dev: NonNull<bindings::net_device>) {
        // SAFETY: By the safety requirements; zeroes are what the library begins with, but for the work item.
        unsafe { bindings::net_dim_setting(dev.as_ptr(), self.raw.get(), false) };
        // INVARIANT: It is initialised, and pinned.
        self.in_use.store(true, Relaxed);
    }

    /// Returns the value whose work item `work` is.
    ///
    /// # Safety
    ///
    /// It is one's, and valid for `'a`.
    pub(super) unsafe fn of_work<'a>(work: *mut bindings::work_struct) -> &'a Self {
        // SAFETY: By the safety requirements.
        let raw = unsafe { container_of!(work, bindings::dim, work) };
        // CAST: `Opaque` is a transparent wrapper.
        let raw = raw.cast::<Opaque<bindings::dim>>();

        // SAFETY: By the safety requirements.
        unsafe { &*container_of!(raw, Self, raw) }
    }

    /// Takes note of what the queue has done. One call at a time, with softirqs off.
    pub(super) fn measure(&self, sample: &Sample) {
        if !self.in_use.load(Relaxed) {
            return;
        }
        let sample = bindings::dim_sample {
            // SAFETY: No requirements.
            time: unsafe { bindings::ktime_get() },
            // CAST: Only differences count.
            pkt_ctr: sample.packets as u32,
            // CAST: As above.
            byte_ctr: sample.bytes as u32,
            event_ctr: sample.events,
            comp_ctr: 0,
        };

        // SAFETY: By the type invariant `raw` is initialised. While the work item uses it, this changes nothing.
        unsafe { bindings::net_dim(self.raw.get(), &sample) };
    }

    /// Returns what is to be tried. In the work item.
    ///
    /// # Safety
    ///
    /// `dev` is the device that the value was [begun](Self::begin) with, and has its [`Profiles`].
    pub(super) unsafe fn wanted(&self, dev: *mut bindings::net_device) -> Moderation {
        // SAFETY: By the safety requirements and the type invariant.
        let wanted = unsafe { bindings::net_dim_get_rx_irq_moder(dev, self.raw.get()) };

        Moderation {
            usecs: wanted.usec.into(),
            frames: wanted.pkts.into(),
        }
    }

    /// What was wanted has been tried: measures again. At the end of the work item, or when there is none.
    pub(super) fn again(&self) {
        // CAST: A small number.
        let state = bindings::dim_state_DIM_START_MEASURE as u8;

        // SAFETY: This is a valid place, which the library leaves alone until now.
        unsafe { addr_of_mut!((*self.raw.get()).state).write_volatile(state) };
    }

    /// Cancels the work item, and waits for one that runs. Nothing may be measured meanwhile. Sleeps.
    pub(super) fn stop(&self) {
        if !self.in_use.load(Relaxed) {
            return;
        }
        // SAFETY: By the type invariant `raw` is initialised.
        unsafe { bindings::net_dim_work_cancel(self.raw.get()) };
        // As the work would have done.
        self.again();
    }
}
