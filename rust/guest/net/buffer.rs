// SPDX-License-Identifier: GPL-2.0

//! Packets and receive memory that a virtio device can be lent.

use super::{
    page_pool::Fragment,
    skbuff::{
        TxSkBuff,
        MAX_FRAGS, //
    }, //
};
use crate::{
    bindings,
    virtio::buffer::{
        Buffer,
        Segments, //
    }, //
};
use core::{
    ffi::c_void,
    mem::offset_of,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};
use kernel::prelude::*;

/// The longest header that a [`TxFrame`] can have.
pub const MAX_HEADER: usize = 40;

/// A packet with a header of the device's before it, ready to be sent.
///
/// The header goes into the packet's headroom when the device and the packet allow it: the device then needs one segment
/// fewer. Otherwise it lies in the packet's control block.
///
/// # Invariants
///
/// The packet's control block holds a `Control`; if that says so, the header is in the headroom, which nobody else uses.
pub struct TxFrame(TxSkBuff);

/// What a [`TxFrame`] keeps in the packet's control block, which is the driver's as long as it has the packet.
#[repr(C)]
struct Control {
    header: [u8; MAX_HEADER],
    len: u8,
    in_headroom: bool,
}

const _: () = assert!(
    size_of::<Control>()
        <= offset_of!(bindings::sk_buff, __bindgen_anon_3) - offset_of!(bindings::sk_buff, cb)
);

impl TxFrame {
    /// The most segments that a frame has.
    pub const MAX_SEGMENTS: usize = MAX_FRAGS + 2;

    /// Puts `header` before a packet. With `any_layout` the device does not mind where the header ends and the data begins.
    #[inline]
    pub fn new<const N: usize>(skb: TxSkBuff, header: &[u8; N], any_layout: bool) -> Self {
        const { assert!(N <= MAX_HEADER) };

        let raw = skb.as_ptr();
        // SAFETY: The packet is valid, and its control block is the driver's.
        let control = unsafe { addr_of_mut!((*raw).cb).cast::<Control>() };
        let in_headroom = any_layout && skb.head_is_ours(N);

        let at = if in_headroom {
            // SAFETY: The packet is valid.
            let data = unsafe { (*raw).data };
            // SAFETY: There are at least `N` bytes before the data.
            unsafe { data.sub(N) }
        } else {
            // SAFETY: `control` is valid.
            unsafe { addr_of_mut!((*control).header).cast() }
        };
        // SAFETY: There is room for `N` bytes, which nobody else uses.
        unsafe { core::ptr::copy_nonoverlapping(header.as_ptr(), at, N) };
        // SAFETY: `control` is valid.
        // CAST: At most `MAX_HEADER`.
        unsafe { addr_of_mut!((*control).len).write(N as u8) };
        // SAFETY: As above.
        unsafe { addr_of_mut!((*control).in_headroom).write(in_headroom) };

        // INVARIANT: It has just been written.
        Self(skb)
    }

    /// Returns the packet.
    #[inline]
    pub fn into_skb(self) -> TxSkBuff {
        self.0
    }
}

// SAFETY:
// - The pointer is the packet's, which is unique while it lives.
// - Nobody else has the packet or writes to its data: the stack leaves what it shares with a driver's packet alone until
//   that is freed.
// - No segment can be written.
unsafe impl Buffer for TxFrame {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        self.0.into_raw().cast()
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // INVARIANT: The control block has not been touched since.
        // SAFETY: By the safety requirements the pointer comes from `into_raw()`.
        Self(unsafe { TxSkBuff::from_raw(ptr.cast()) })
    }

    #[inline]
    fn segments(&self, list: &mut Segments<'_>) -> Result {
        let raw = self.0.as_ptr();
        // SAFETY: The packet is valid.
        let data = unsafe { NonNull::new((*raw).data) }.ok_or(EINVAL)?;
        // SAFETY: By the type invariant the control block holds a `Control`.
        let control = unsafe { addr_of_mut!((*raw).cb).cast::<Control>() };
        // SAFETY: As above.
        let len = u32::from(unsafe { (*control).len });
        let head_len = self.0.head_len();

        // SAFETY: As above.
        if unsafe { (*control).in_headroom } {
            // SAFETY: By the type invariant the header lies right before the data.
            let header = unsafe { data.sub(len as usize) };
            list.push_out(header, len.wrapping_add(head_len))?;
        } else {
            // SAFETY: As above.
            let header = unsafe { NonNull::new_unchecked(addr_of_mut!((*control).header)) };
            list.push_out(header.cast(), len)?;
            if head_len > 0 {
                list.push_out(data, head_len)?;
            }
        }

        let info = self.0.shared_info();
        if info.nr_frags == 0 && info.frag_list.is_null() {
            return Ok(());
        }
        if !info.frag_list.is_null() {
            // The stack makes such packets linear for a device without `NETIF_F_FRAGLIST`.
            return Err(EINVAL);
        }
        for frag in info.frags.iter().take(usize::from(info.nr_frags)) {
            // SAFETY: The fragment is one of the packet's.
            let at = unsafe { bindings::skb_frag_address(frag) };
            list.push_out(NonNull::new(at.cast()).ok_or(EINVAL)?, frag.len)?;
        }
        Ok(())
    }

    #[inline]
    fn capacity(&self) -> u32 {
        0
    }
}

/// Memory for a device to write a packet, or a part of one, into.
///
/// At the beginning is room for the headers that the stack may put before the packet, and at the end for what a `struct
/// sk_buff` needs: any buffer can become a packet without a copy.
///
/// # Invariants
///
/// The fragment is larger than [`HEADROOM`](Self::HEADROOM) and [`TAILROOM`](Self::TAILROOM) together.
pub struct RxBuffer(Fragment);

impl RxBuffer {
    /// The bytes at the beginning that the device does not get.
    pub const HEADROOM: u32 = max(32, bindings::L1_CACHE_BYTES) + bindings::NET_IP_ALIGN;

    /// The bytes at the end that the device does not get.
    pub const TAILROOM: u32 = bindings::SKB_SHINFO_SIZE;

    /// Makes a buffer of a fragment. Returns [`None`], and frees the fragment, when it is too small.
    #[inline]
    pub fn new(fragment: Fragment) -> Option<Self> {
        // INVARIANT: It is checked here.
        (fragment.size() > Self::HEADROOM + Self::TAILROOM).then_some(Self(fragment))
    }

    /// Returns how many bytes the device can write.
    #[inline]
    pub fn capacity(&self) -> u32 {
        // By the type invariant this does not wrap.
        self.0.size().wrapping_sub(Self::HEADROOM + Self::TAILROOM)
    }

    /// Copies the first `N` bytes that the device wrote. Returns [`None`] when the buffer is smaller.
    ///
    /// A device that breaks the rules can write at any time; what was copied is the driver's own.
    #[inline]
    pub fn read<const N: usize>(&self) -> Option<[u8; N]> {
        if self.capacity() as usize <= N {
            return None;
        }
        // SAFETY: The length has been checked. Bytes have no alignment and no invalid values.
        Some(unsafe { self.data().as_ptr().cast::<[u8; N]>().read_volatile() })
    }

    #[inline]
    pub(super) fn fragment(&self) -> &Fragment {
        &self.0
    }

    #[inline]
    pub(super) fn into_fragment(self) -> Fragment {
        self.0
    }

    #[inline]
    fn data(&self) -> NonNull<u8> {
        // SAFETY: By the type invariant this is within the fragment.
        unsafe { self.0.as_ptr().add(Self::HEADROOM as usize) }
    }
}

const fn max(a: u32, b: u32) -> u32 {
    if a > b {
        a
    } else {
        b
    }
}

// SAFETY:
// - A packed fragment is its address with its size in bits that are zero otherwise: unique while it lives, and never null.
// - The fragment owns its memory, and the value is not there while it is in flight.
// - `capacity()` is the length of the one segment.
unsafe impl Buffer for RxBuffer {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        // SAFETY: A fragment's address is not null.
        unsafe { NonNull::new_unchecked(self.0.into_packed() as *mut c_void) }
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // INVARIANT: The fragment was large enough when it was lent.
        // SAFETY: By the safety requirements the pointer comes from `into_raw()` and is restored once.
        Self(unsafe { Fragment::from_packed(ptr.as_ptr() as usize) })
    }

    #[inline]
    fn segments(&self, list: &mut Segments<'_>) -> Result {
        list.push_in(self.data(), self.capacity())
    }

    #[inline]
    fn capacity(&self) -> u32 {
        self.capacity()
    }
}
