// SPDX-License-Identifier: GPL-2.0

//! Pages of the linear map.
//!
//! C header: [`arch/x86/include/asm/page.h`](srctree/arch/x86/include/asm/page.h)

use crate::bindings;
use kernel::page::PAGE_SIZE;

/// Returns the page that an address in the linear map lies in, and how far from the page's beginning it is, as C's
/// `virt_to_page()` and `offset_in_page()`.
///
/// A device is told of memory by its page, for each packet: a call would cost more than what is computed here.
#[inline]
pub(crate) fn of(ptr: *const u8) -> (*mut bindings::page, u32) {
    let address = ptr as usize;

    // CAST: Less than a page.
    (virt_to_page(address), (address & (PAGE_SIZE - 1)) as u32)
}

/// On this architecture the descriptors of all pages lie in one array, in the order of the linear map.
#[cfg(CONFIG_X86_64)]
#[inline]
fn virt_to_page(address: usize) -> *mut bindings::page {
    // SAFETY: The kernel sets it when it boots, and never again.
    let linear_map = unsafe { bindings::page_offset_base };
    // SAFETY: As above.
    let pages = unsafe { bindings::vmemmap_base };
    let number = address.wrapping_sub(linear_map) / PAGE_SIZE;

    (pages as *mut bindings::page).wrapping_add(number)
}

#[cfg(not(CONFIG_X86_64))]
#[inline]
fn virt_to_page(address: usize) -> *mut bindings::page {
    // SAFETY: No requirements: it is computed.
    unsafe { bindings::virt_to_page(address as *const _) }
}
