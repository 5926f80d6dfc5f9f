// SPDX-License-Identifier: GPL-2.0

//! Shrinkers: what the kernel asks for memory when it is short of it.
//!
//! C header: [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Has pages that it can do without. The functions are called while somebody waits for memory: they must not allocate any, nor take
/// a lock under which somebody does.
pub trait Shrink: Send + Sync + 'static {
    /// Returns how many pages there are.
    fn count(&self) -> usize;

    /// Gives back about so many pages, and returns how many these were.
    fn scan(&self, pages: usize) -> usize;
}

/// Has the kernel ask a [`Shrink`] for memory while the value lives.
///
/// # Invariants
///
/// `shrinker` is registered, and its `private_data` is `owner`.
pub struct Shrinker<T: Shrink> {
    shrinker: NonNull<bindings::shrinker>,
    _owner: Arc<T>,
    _callbacks: PhantomData<T>,
}

// SAFETY: A shrinker is bound to no thread.
unsafe impl<T: Shrink> Send for Shrinker<T> {}

// SAFETY: Nothing can be done with a shared one.
unsafe impl<T: Shrink> Sync for Shrinker<T> {}

impl<T: Shrink> Shrinker<T> {
    /// Begins. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(name: &CStr, owner: Arc<T>) -> Result<Self> {
        // SAFETY: `name` is a string for the format `%s`; the kernel copies it.
        let shrinker =
            unsafe { bindings::shrinker_alloc(0, c"%s".as_char_ptr(), name.as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;
        let raw = shrinker.as_ptr();

        // SAFETY: `shrinker` has just been allocated, and nobody knows it yet.
        unsafe { (*raw).count_objects = Some(Self::count) };
        // SAFETY: As above.
        unsafe { (*raw).scan_objects = Some(Self::scan) };
        // SAFETY: As above.
        unsafe { (*raw).private_data = Arc::as_ptr(&owner).cast_mut().cast() };
        // SAFETY: It is filled in.
        unsafe { bindings::shrinker_register(raw) };

        // INVARIANT: As just arranged.
        Ok(Self {
            shrinker,
            _owner: owner,
            _callbacks: PhantomData,
        })
    }

    extern "C" fn count(
        shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: The C core calls with what was registered.
        let owner = unsafe { (*shrinker).private_data }.cast::<T>();
        // SAFETY: By the type invariant this is the owner, which lives until the shrinker has been freed.
        let count = unsafe { &*owner }.count();

        match count {
            // CAST: -2 is the value in C, too.
            0 => bindings::SHRINK_EMPTY as c_ulong,
            _ => count,
        }
    }

    extern "C" fn scan(
        shrinker: *mut bindings::shrinker,
        control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: The C core calls with what was registered.
        let owner = unsafe { (*shrinker).private_data }.cast::<T>();
        // SAFETY: The C core passes a valid request.
        let wanted = unsafe { (*control).nr_to_scan };
        // SAFETY: By the type invariant this is the owner, which lives until the shrinker has been freed.
        let freed = unsafe { &*owner }.scan(wanted);

        match freed {
            // CAST: -1 is the value in C, too.
            0 => bindings::SHRINK_STOP as c_ulong,
            _ => freed,
        }
    }
}

impl<T: Shrink> Drop for Shrinker<T> {
    fn drop(&mut self) {
        // Waits for calls that are under way.
        // SAFETY: By the type invariant it is registered.
        unsafe { bindings::shrinker_free(self.shrinker.as_ptr()) };
    }
}
