// SPDX-License-Identifier: GPL-2.0

//! Checksums of packets that are a program's to see.

use crate::bindings;
use kernel::prelude::*;

/// Fills in a checksum that is missing: over everything from `start` in the linear part, at `start` plus `offset`.
///
/// # Errors
///
/// [`EINVAL`] when the place is not in the linear part.
///
/// # Safety
///
/// `raw` is a valid packet that nobody else has, with what describes its fragments if it has some.
pub(in crate::net) unsafe fn fill_checksum(
    raw: *mut bindings::xdp_buff,
    start: u16,
    offset: u16,
) -> Result {
    let (start, offset) = (usize::from(start), usize::from(offset));
    // SAFETY: By the safety requirements.
    let linear = unsafe { &*raw };
    let data: *mut u8 = linear.data.cast();
    let len = (linear.data_end as usize).wrapping_sub(data as usize);
    if start + offset + size_of::<u16>() > len {
        return Err(EINVAL);
    }

    // SAFETY: `start` is within the linear part, as has just been checked.
    let from = unsafe { data.add(start) };
    // CAST: The linear part is smaller than 2 GiB.
    // SAFETY: The linear part ends `len - start` bytes later.
    let mut sum = unsafe { bindings::csum_partial(from.cast(), (len - start) as c_int, 0) };
    let mut position = len - start;
    // SAFETY: By the safety requirements.
    if unsafe { bindings::xdp_buff_has_frags(raw) } {
        // SAFETY: With fragments this has been filled in.
        let info = unsafe { &*bindings::xdp_get_shared_info_from_buff(raw) };
        for frag in info.frags.iter().take(usize::from(info.nr_frags)) {
            // SAFETY: The fragment is one of the packet's.
            let at = unsafe { bindings::skb_frag_address(frag) };
            // CAST: As above.
            // SAFETY: The fragment is this long.
            let part = unsafe { bindings::csum_partial(at, frag.len as c_int, 0) };
            // CAST: As above.
            // SAFETY: No requirements.
            sum = unsafe { bindings::csum_block_add(sum, part, position as c_int) };
            position = position.wrapping_add(frag.len as usize);
        }
    }

    // SAFETY: No requirements.
    let folded = match unsafe { bindings::csum_fold(sum) } {
        0 => bindings::CSUM_MANGLED_0,
        folded => folded,
    };
    // SAFETY: The two bytes are within the linear part, as has been checked above.
    unsafe { from.add(offset).cast::<u16>().write_unaligned(folded) };
    Ok(())
}
