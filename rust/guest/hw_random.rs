// SPDX-License-Identifier: GPL-2.0

//! Hardware random number generators.
//!
//! C header: [`include/linux/hw_random.h`](srctree/include/linux/hw_random.h)

use crate::bindings;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    str::CString,
    sync::Arc,
    types::Opaque, //
};

/// A source of entropy.
pub trait Operations: Send + Sync + 'static {
    /// Puts random bytes into `buf` and returns how many. Process context; calls do not overlap.
    ///
    /// Without `wait` it must not sleep for the device, and may return 0. With `wait`, it should sleep for a bounded time only.
    ///
    /// # Errors
    ///
    /// Become those of a read of `/dev/hwrng`.
    fn read(&self, buf: &mut [u8], wait: bool) -> Result<usize>;
}

/// The registration of a random number generator with the hwrng core.
///
/// # Invariants
///
/// `rng` is registered; its `name` points into `name`, and its `priv` to what `source`
/// holds.
#[pin_data(PinnedDrop)]
pub struct Registration<T: Operations> {
    #[pin]
    rng: Opaque<bindings::hwrng>,
    name: CString,
    source: Arc<T>,
}

// SAFETY: Registration and removal are bound to no thread, and `T` is `Send`.
unsafe impl<T: Operations> Send for Registration<T> {}

// SAFETY: Nothing can be done with a shared reference.
unsafe impl<T: Operations> Sync for Registration<T> {}

impl<T: Operations> Registration<T> {
    /// Registers `source` by `name`, which is what `rng_current` says. Reads can begin before this returns. Sleeps.
    ///
    /// # Errors
    ///
    /// [`EEXIST`]: the name is taken. [`ENOMEM`].
    pub fn new(name: CString, source: Arc<T>) -> impl PinInit<Self, Error> {
        // INVARIANT: The last field's initializer registers.
        try_pin_init!(&this in Self {
            name,
            source,
            rng <- Opaque::try_ffi_init(move |rng: *mut bindings::hwrng| {
                // SAFETY: `this` is being initialised in place, and `name` and `source` already are.
                let (name, source) = unsafe {
                    ((*this.as_ptr()).name.as_char_ptr(), Arc::as_ptr(&(*this.as_ptr()).source))
                };

                // SAFETY: `rng` is valid for writes.
                unsafe {
                    rng.write(bindings::hwrng {
                        name,
                        read: Some(Self::read_callback),
                        priv_: source as usize,
                        ..Default::default()
                    })
                };
                // SAFETY: All that `rng` points to is pinned with it and lives until `hwrng_unregister()`.
                to_result(unsafe { bindings::hwrng_register(rng) })
            }),
        })
    }

    extern "C" fn read_callback(
        rng: *mut bindings::hwrng,
        data: *mut c_void,
        max: usize,
        wait: bool,
    ) -> c_int {
        // SAFETY: By the type invariant `priv` points to `source`, which lives while the core makes calls.
        let source = unsafe { &*((*rng).priv_ as *const T) };
        // SAFETY: The core gives a buffer of `max` bytes, which it has written before.
        let buf = unsafe { core::slice::from_raw_parts_mut(data.cast::<u8>(), max) };

        // CAST: The core's buffer is at most a page long.
        from_result(|| Ok(source.read(buf, wait)?.min(max) as c_int))
    }
}

#[pinned_drop]
impl<T: Operations> PinnedDrop for Registration<T> {
    /// Waits for a read that is under way: end its wait first.
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant `rng` is registered.
        unsafe { bindings::hwrng_unregister(self.rng.get()) };
    }
}
