// SPDX-License-Identifier: GPL-2.0

//! Time: what [`kernel::time`] lacks.
//!
//! C header: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h)

use crate::bindings;

/// Nanoseconds of the monotonic clock, for stamps in records; [`kernel::time::Instant`] tells only differences.
///
/// May be called in any context but that of an NMI.
#[inline]
pub fn ktime_get_ns() -> u64 {
    // CAST: The monotonic clock begins with 0 and does not get to the end of `i64`.
    // SAFETY: No requirements but the context.
    unsafe { bindings::ktime_get() as u64 }
}
