// SPDX-License-Identifier: GPL-2.0

//! Statistics, and 64-bit counters with one writer.
//!
//! A [`Writer`] is unique: it is kept where only one context reaches it, in the state of a queue. Readers see each counter
//! whole, also where a 64-bit access is two, by the sequence count of `struct u64_stats_sync`; on 64-bit machines counting
//! costs an addition.
//!
//! C header: [`include/linux/u64_stats_sync.h`](srctree/include/linux/u64_stats_sync.h)

use crate::bindings;
use core::cell::UnsafeCell;
use kernel::{
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// A set of `N` counters.
#[pin_data]
pub struct Counters<const N: usize> {
    #[pin]
    sync: Opaque<bindings::u64_stats_sync>,
    values: [UnsafeCell<u64>; N],
}

// SAFETY: The counters are numbers.
unsafe impl<const N: usize> Send for Counters<N> {}

// SAFETY: There is one `Writer`; readers use volatile accesses, with the sequence count where one does not suffice.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            sync <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes and pinned from here on.
                unsafe { bindings::u64_stats_init(slot) };
            }),
            values: [const { UnsafeCell::new(0) }; N],
        })
    }

    /// Returns all counters, each as it was at some moment of the call.
    pub fn read(&self) -> [u64; N] {
        loop {
            // SAFETY: `sync` is initialised and pinned.
            let start = unsafe { bindings::u64_stats_fetch_begin(self.sync.get()) };
            // SAFETY: The pointer is valid; the accesses are volatile, like the writer's, and checked below.
            let values = core::array::from_fn(|i| unsafe { self.values[i].get().read_volatile() });
            // SAFETY: `sync` is initialised and pinned.
            if !unsafe { bindings::u64_stats_fetch_retry(self.sync.get(), start) } {
                return values;
            }
        }
    }
}

/// The right to count. There is one per set.
pub struct Writer<const N: usize>(Arc<Counters<N>>);

impl<const N: usize> Writer<N> {
    /// Makes a set of counters that are zero.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::pin_init(Counters::new(), GFP_KERNEL)?))
    }

    /// Returns the set, to read.
    pub fn counters(&self) -> Arc<Counters<N>> {
        self.0.clone()
    }

    /// Returns the counter at `position`; 0 if there is none.
    #[inline]
    pub fn get(&self, position: usize) -> u64 {
        match self.0.values.get(position) {
            // SAFETY: The pointer is valid, and `self` is the only writer.
            Some(counter) => unsafe { counter.get().read() },
            None => 0,
        }
    }

    /// Adds `values`, position by position. Softirqs are off.
    #[inline]
    pub fn add_all(&mut self, values: &[u64; N]) {
        self.update(|this| {
            for (position, value) in values.iter().enumerate() {
                if *value != 0 {
                    this.bump(position, *value);
                }
            }
        });
    }

    /// Adds `value` to the counter at `position`. Softirqs are off.
    #[inline]
    pub fn add(&mut self, position: usize, value: u64) {
        self.update(|this| this.bump(position, value));
    }

    /// Runs `f` so that readers see all or nothing of what it writes.
    #[inline]
    fn update(&mut self, f: impl FnOnce(&mut Self)) {
        #[cfg(not(CONFIG_64BIT))]
        // SAFETY: `sync` is initialised and pinned; `self` is the only writer.
        unsafe {
            bindings::u64_stats_update_begin(self.0.sync.get())
        };

        f(self);

        #[cfg(not(CONFIG_64BIT))]
        // SAFETY: Paired with the call above.
        unsafe {
            bindings::u64_stats_update_end(self.0.sync.get())
        };
    }

    #[inline]
    fn bump(&mut self, position: usize, value: u64) {
        let Some(counter) = self.0.values.get(position) else {
            return;
        };

        // SAFETY: The pointer is valid, and `self` is the only writer.
        let old = unsafe { counter.get().read() };
        // SAFETY: As above; volatile because of the readers.
        unsafe { counter.get().write_volatile(old.wrapping_add(value)) };
    }
}

/// What `ip -s link` shows.
#[derive(Clone, Copy, Default)]
#[expect(missing_docs)]
pub struct Stats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub rx_length_errors: u64,
    pub rx_frame_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
    pub tx_fifo_errors: u64,
}
