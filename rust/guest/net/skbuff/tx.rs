// SPDX-License-Identifier: GPL-2.0

//! Packets to be sent.

use super::{
    DropReason,
    Headers,
    Owned, //
};
use crate::{
    bindings,
    net::napi::Context, //
};
use core::ptr::{
    addr_of,
    NonNull, //
};
use kernel::prelude::*;

/// What kind of packets the device is to cut a packet into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP, either IP version.
    Udp,
}

/// Where the device is to fill in a packet's checksum.
///
/// # Invariants
///
/// The packet has a partial checksum.
#[derive(Clone, Copy)]
pub struct MissingChecksum<'a>(&'a TxSkBuff);

impl MissingChecksum<'_> {
    /// Returns where the bytes to sum begin, counted from the Ethernet header.
    #[inline]
    pub fn start(self) -> u16 {
        // SAFETY: By the type invariant `headers()` is valid, and this member of the union is the one in use.
        let start = unsafe { (*self.0 .0.headers()).__bindgen_anon_1.__bindgen_anon_1 }.csum_start;

        // CAST: An offset in the linear part, which is far below 64 KiB where `csum_start` can hold it.
        start.wrapping_sub(self.0 .0.headroom() as u16)
    }

    /// Returns where the sum goes, counted from [`start`](Self::start).
    #[inline]
    pub fn offset(self) -> u16 {
        // SAFETY: As above.
        unsafe { (*self.0 .0.headers()).__bindgen_anon_1.__bindgen_anon_1 }.csum_offset
    }
}

/// How the device is to cut a packet.
#[derive(Clone, Copy)]
pub struct Segmentation<'a>(pub(super) &'a TxSkBuff);

impl Segmentation<'_> {
    #[inline]
    pub(super) fn has(self, bit: c_int) -> bool {
        // CAST: A mask of bits.
        self.0.shared_info().gso_type & bit as u32 != 0
    }

    /// Returns the kind of the segments, or [`None`] for one that a driver of this crate cannot have asked for.
    #[inline]
    pub fn kind(self) -> Option<SegmentKind> {
        if self.has(bindings::SKB_GSO_TCPV4) {
            Some(SegmentKind::TcpV4)
        } else if self.has(bindings::SKB_GSO_TCPV6) {
            Some(SegmentKind::TcpV6)
        } else if self.has(bindings::SKB_GSO_UDP_L4) {
            Some(SegmentKind::Udp)
        } else {
            None
        }
    }

    /// Returns the payload of each segment, in bytes.
    #[inline]
    pub fn size(self) -> u16 {
        self.0.shared_info().gso_size
    }

    /// Returns whether the TCP header has the CWR bit set, which only the first segment may have.
    #[inline]
    pub fn ecn(self) -> bool {
        self.has(bindings::SKB_GSO_TCP_ECN)
    }

    /// Returns how long the headers are that each segment gets, up to the end of TCP's or UDP's. The stack sees to it that they are in
    /// the linear part, all of which counts where they are not.
    #[inline]
    pub fn header_len(self) -> u16 {
        const UDP: u16 = 8;
        const TCP_DATA_OFFSET: u16 = 12;

        let skb = self.0;
        let end = skb.missing_checksum().and_then(|sum| {
            let start = sum.start();
            if self.kind() == Some(SegmentKind::Udp) {
                return start.checked_add(UDP);
            }
            let words = skb.linear_byte(start.checked_add(TCP_DATA_OFFSET)?)? >> 4;
            start.checked_add(u16::from(words) * 4)
        });
        let linear = u16::try_from(skb.head_len()).unwrap_or(u16::MAX);

        end.map_or(linear, |end| end.min(linear))
    }
}

/// A packet that the stack wants sent.
#[must_use = "a packet is sent or freed with a reason"]
pub struct TxSkBuff(pub(super) Owned);

// SAFETY: A packet is bound to no thread, and this value is its only owner.
unsafe impl Send for TxSkBuff {}

impl TxSkBuff {
    /// Takes over a packet.
    ///
    /// # Safety
    ///
    /// `skb` is valid, comes from the stack to be sent, and ownership of it passes to the value.
    #[inline]
    pub(in crate::net) unsafe fn from_raw(skb: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(Owned { skb })
    }

    /// Gives up the value; ownership is the caller's to pass on.
    #[inline]
    pub(in crate::net) fn into_raw(self) -> NonNull<bindings::sk_buff> {
        self.0.into_raw()
    }

    #[inline]
    pub(in crate::net) fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    #[inline]
    pub(in crate::net) fn shared_info(&self) -> &bindings::skb_shared_info {
        // SAFETY: The shared info of a valid packet is valid, and nobody writes it while a driver has the packet but for its
        // reference count, which is atomic.
        unsafe { &*self.0.shared_info() }
    }

    /// Returns the length in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        self.0.len()
    }

    /// Returns the length of the linear part.
    #[inline]
    pub fn head_len(&self) -> u32 {
        self.0.head_len()
    }

    /// Returns where the device is to fill in a checksum, if it is.
    // This and `segmentation()` are no more than a pointer: what they say stays where it is until it is used.
    #[inline]
    pub fn missing_checksum(&self) -> Option<MissingChecksum<'_>> {
        // SAFETY: `headers()` is valid.
        let summed = unsafe { Headers::ip_summed_raw(self.0.headers()) };

        // INVARIANT: As has just been seen.
        (u32::from(summed) == bindings::CHECKSUM_PARTIAL).then_some(MissingChecksum(self))
    }

    /// Returns how the device is to cut the packet, if it is.
    #[inline]
    pub fn segmentation(&self) -> Option<Segmentation<'_>> {
        (self.shared_info().gso_size != 0).then_some(Segmentation(self))
    }

    /// Returns whether the device has nothing to do to the packet: no checksum to fill in, and not to cut it.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.missing_checksum().is_none() && self.segmentation().is_none()
    }

    /// Returns a byte of the linear part.
    #[inline]
    fn linear_byte(&self, at: u16) -> Option<u8> {
        if u32::from(at) >= self.head_len() {
            return None;
        }

        // SAFETY: By the type invariant the packet is valid.
        let data = unsafe { (*self.as_ptr()).data };
        // SAFETY: The linear part begins there and is longer; headers are not written while a packet is sent.
        Some(unsafe { data.add(usize::from(at)).read() })
    }

    /// Takes the transmit time stamp, if somebody asked for one. To be called right before the device gets the packet.
    #[inline]
    pub fn timestamp(&self) {
        if self.shared_info().tx_flags != 0 {
            // SAFETY: By the type invariant the packet is valid.
            unsafe { bindings::skb_tx_timestamp(self.as_ptr()) };
        }
    }

    /// Returns whether the driver may write into the bytes before the data: no clone of the packet uses them, and there are
    /// `len` of them.
    #[inline]
    pub(in crate::net) fn head_is_ours(&self, len: usize) -> bool {
        if self.0.headroom() < len {
            return false;
        }

        // SAFETY: By the type invariant the packet is valid.
        let cloned = unsafe { bindings::sk_buff::cloned_raw(self.as_ptr()) };
        if cloned == 0 {
            return true;
        }

        // As `skb_header_cloned()`: the upper half counts those users that do without the header.
        // SAFETY: The shared info is valid; the counter is read as C does, atomically.
        let dataref = unsafe { addr_of!((*self.0.shared_info()).dataref.counter).read_volatile() };
        (dataref & 0xffff).wrapping_sub(dataref >> 16) == 1
    }

    /// Frees a packet that the device has sent, in a poll.
    #[inline]
    pub fn consume(self, cx: &Context<'_>) {
        // SAFETY: By the type invariant the packet is valid and owned; `cx` proves softirq context, unless its budget is 0.
        unsafe { bindings::napi_consume_skb(self.into_raw().as_ptr(), cx.budget()) };
    }

    /// Frees a packet that the device has sent. Any context but hard interrupts.
    pub fn consume_any(self) {
        // SAFETY: By the type invariant the packet is valid and owned.
        unsafe {
            bindings::dev_kfree_skb_any_reason(
                self.into_raw().as_ptr(),
                bindings::skb_drop_reason_SKB_CONSUMED,
            )
        };
    }

    /// Frees a packet that is not sent. Any context.
    pub fn free(self, reason: DropReason) {
        self.0.free(reason as u32);
    }
}
