// SPDX-License-Identifier: GPL-2.0

//! Turning softirqs off.
//!
//! C header: [`include/linux/bottom_half.h`](srctree/include/linux/bottom_half.h)

use crate::bindings;
use kernel::types::NotThreadSafe;

/// Softirqs are off on this CPU as long as the value lives.
///
/// # Invariants
///
/// `local_bh_disable()` was called once for it.
#[must_use]
pub struct Disabled {
    _not_send: NotThreadSafe,
}

/// Turns softirqs off on this CPU. Calls nest.
#[inline]
pub fn disable() -> Disabled {
    // SAFETY: May be called in any context but hard interrupts; the value returned undoes it, on the same CPU.
    unsafe { bindings::local_bh_disable() };

    // INVARIANT: Called just above.
    Disabled {
        _not_send: NotThreadSafe,
    }
}

impl Drop for Disabled {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant this undoes one `local_bh_disable()`.
        unsafe { bindings::local_bh_enable() };
    }
}
