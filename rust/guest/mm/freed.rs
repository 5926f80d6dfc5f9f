// SPDX-License-Identifier: GPL-2.0

//! What is in memory that nobody uses, and whose it is.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h), [`include/linux/poison.h`](srctree/include/linux/poison.h)

use crate::bindings;

/// What is in free pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// Whatever their last user has left: nobody relies on it.
    Anything,

    /// Zeroes, which the page allocator relies on (`init_on_free=1`).
    Zeroes,

    /// This byte everywhere, which the page allocator checks (`page_poison=1`).
    Poison(u8),
}

/// Returns whether the guest's memory is kept from the host, so that a page which the host has taken cannot just be used again.
pub fn is_protected() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::cc_guest_mem_encrypt() }
}

impl Freed {
    /// Asks the kernel. The answer stays the same.
    pub fn pages() -> Self {
        // SAFETY: No requirements.
        if unsafe { bindings::want_init_on_free() } {
            return Self::Zeroes;
        }
        // SAFETY: No requirements.
        if unsafe { bindings::page_poisoning_enabled_static() } {
            return Self::Poison(bindings::PAGE_POISON);
        }
        Self::Anything
    }
}
