// SPDX-License-Identifier: GPL-2.0

//! Packets.
//!
//! A `struct sk_buff` in a driver's hands is one of two things, and each is a type:
//!
//! - [`TxSkBuff`], from the stack: the data may be shared with a socket that will send it again, so it is read only; it
//!   must be given back as sent ([`consume`](TxSkBuff::consume)), or as lost, with a reason ([`free`](TxSkBuff::free)).
//! - [`RxSkBuff`], made by the driver: nobody else has the data; it must be handed to the stack
//!   ([`receive`](RxSkBuff::receive)) or freed with a reason ([`free`](RxSkBuff::free)).
//!
//! Each of these consumes the value. A value that is dropped without them is a packet that went nowhere. It is then freed as
//! such, by a function that may be called in any context, and the kernel's drop monitor shows it without a reason: visible as
//! a mistake, and neither a leak nor a free in the wrong context.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

mod rx;
mod tunnel;
mod tx;

pub(super) use self::tunnel::has_hidden_checksum;
pub use self::{
    rx::{
        Depth,
        HashLevel,
        RxSkBuff, //
    },
    tunnel::Tunnel,
    tx::{
        MissingChecksum,
        SegmentKind,
        Segmentation,
        TxSkBuff, //
    }, //
};

use crate::bindings;
use core::{
    mem::ManuallyDrop,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};

/// The most fragments that one packet has outside its linear part.
pub const MAX_FRAGS: usize = bindings::CONFIG_MAX_SKB_FRAGS as usize;

/// The length of an Ethernet header.
pub const ETH_HLEN: u32 = bindings::ETH_HLEN;

/// Why a packet is lost, for the drop monitor.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DropReason {
    /// The driver forgot to say.
    NotSpecified = bindings::skb_drop_reason_SKB_DROP_REASON_NOT_SPECIFIED,

    /// What the device says of the packet is wrong.
    DeviceHeader = bindings::skb_drop_reason_SKB_DROP_REASON_DEV_HDR,

    /// The device is gone or broken.
    DeviceReady = bindings::skb_drop_reason_SKB_DROP_REASON_DEV_READY,

    /// The ring is full.
    FullRing = bindings::skb_drop_reason_SKB_DROP_REASON_FULL_RING,

    /// There is no memory.
    NoMemory = bindings::skb_drop_reason_SKB_DROP_REASON_NOMEM,
}

type Headers = bindings::sk_buff__bindgen_ty_4__bindgen_ty_2;

/// What both directions have in common.
///
/// # Invariants
///
/// `skb` is valid and owned by this value.
struct Owned {
    skb: NonNull<bindings::sk_buff>,
}

impl Owned {
    #[inline]
    fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.skb.as_ptr()
    }

    #[inline]
    fn into_raw(self) -> NonNull<bindings::sk_buff> {
        ManuallyDrop::new(self).skb
    }

    #[inline]
    fn len(&self) -> u32 {
        // SAFETY: By the type invariant `skb` is valid.
        unsafe { (*self.as_ptr()).len }
    }

    #[inline]
    fn head_len(&self) -> u32 {
        // SAFETY: By the type invariant `skb` is valid.
        let data_len = unsafe { (*self.as_ptr()).data_len };

        self.len().wrapping_sub(data_len)
    }

    /// Returns how many bytes lie before the data.
    #[inline]
    fn headroom(&self) -> usize {
        // SAFETY: By the type invariant `skb` is valid.
        let skb = unsafe { &*self.as_ptr() };

        (skb.data as usize).wrapping_sub(skb.head as usize)
    }

    /// Returns the part of the packet that lies behind the linear data.
    #[inline]
    fn shared_info(&self) -> *mut bindings::skb_shared_info {
        // SAFETY: By the type invariant `skb` is valid.
        let skb = unsafe { &*self.as_ptr() };

        #[cfg(CONFIG_64BIT)]
        // SAFETY: `end` is the offset of the shared info in the allocation at `head`.
        let end = unsafe { skb.head.add(skb.end as usize) };
        #[cfg(not(CONFIG_64BIT))]
        let end = skb.end;

        end.cast()
    }

    /// Returns the fields that are copied with a packet's headers.
    #[inline]
    fn headers(&self) -> *mut Headers {
        // CAST: Both views of the union have the same fields.
        // SAFETY: By the type invariant `skb` is valid.
        unsafe { addr_of_mut!((*self.as_ptr()).__bindgen_anon_4).cast() }
    }

    fn free(self, reason: u32) {
        // SAFETY: By the type invariant `skb` is valid and owned; any context is allowed.
        unsafe { bindings::dev_kfree_skb_any_reason(self.into_raw().as_ptr(), reason) };
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: By the type invariant `skb` is valid and owned; any context is allowed.
        unsafe {
            bindings::dev_kfree_skb_any_reason(self.skb.as_ptr(), DropReason::NotSpecified as u32)
        };
    }
}

/// Where a checksum is missing.
#[derive(Clone, Copy)]
pub struct PartialChecksum {
    /// Where the bytes to sum begin, counted from the Ethernet header.
    pub start: u16,
    /// Where the sum goes, counted from `start`.
    pub offset: u16,
}
