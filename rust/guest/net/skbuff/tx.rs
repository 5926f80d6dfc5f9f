// SPDX-License-Identifier: GPL-2.0

//! Packets to be sent.

use super::{
    DropReason,
    Headers,
    Owned,
    PartialChecksum,
    Tunnel, //
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

/// How a packet is to be cut.
#[derive(Clone, Copy)]
pub struct Segmentation {
    /// The kind of the segments.
    pub kind: SegmentKind,
    /// The payload of each segment.
    pub size: u16,
    /// How long the headers are that each segment gets, up to the end of TCP's or UDP's.
    pub header_len: u16,
    /// The TCP header has the CWR bit set, which only the first segment may have.
    pub ecn: bool,
    /// The tunnel that it is in.
    pub tunnel: Option<Tunnel>,
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
    #[inline]
    pub fn partial_checksum(&self) -> Option<PartialChecksum> {
        let headers = self.0.headers();

        // SAFETY: `headers` is valid.
        let summed = unsafe { Headers::ip_summed_raw(headers) };
        if u32::from(summed) != bindings::CHECKSUM_PARTIAL {
            return None;
        }

        // SAFETY: `headers` is valid, and with a partial checksum this member of the union is the one in use.
        let sum = unsafe { (*headers).__bindgen_anon_1.__bindgen_anon_1 };
        Some(PartialChecksum {
            // CAST: An offset in the linear part, which is far below 64 KiB where `csum_start` can hold it.
            start: sum.csum_start.wrapping_sub(self.0.headroom() as u16),
            offset: sum.csum_offset,
        })
    }

    /// Returns whether the device has nothing to do to the packet: no checksum to fill in, and not to cut it.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.partial_checksum().is_none() && self.shared_info().gso_size == 0
    }

    /// Returns how the device is to cut the packet, if it is.
    ///
    /// # Errors
    ///
    /// [`EPROTO`] for a kind that a driver of this crate cannot have asked for.
    #[inline]
    pub fn segmentation(&self) -> Result<Option<Segmentation>> {
        let info = self.shared_info();
        if info.gso_size == 0 {
            return Ok(None);
        }

        // CAST: A mask of bits.
        let has = |bit: c_int| info.gso_type & bit as u32 != 0;
        let kind = if has(bindings::SKB_GSO_TCPV4) {
            SegmentKind::TcpV4
        } else if has(bindings::SKB_GSO_TCPV6) {
            SegmentKind::TcpV6
        } else if has(bindings::SKB_GSO_UDP_L4) {
            SegmentKind::Udp
        } else {
            return Err(EPROTO);
        };
        Ok(Some(Segmentation {
            kind,
            size: info.gso_size,
            header_len: self.header_len(kind),
            ecn: has(bindings::SKB_GSO_TCP_ECN),
            tunnel: self.tunnel(info.gso_type),
        }))
    }

    /// Returns how long the headers are of a packet that is to be cut. The stack sees to it that they are in the linear part, all
    /// of which counts where they are not.
    #[inline]
    fn header_len(&self, kind: SegmentKind) -> u16 {
        const UDP: u16 = 8;
        const TCP_DATA_OFFSET: u16 = 12;

        let end = self.partial_checksum().and_then(|sum| match kind {
            SegmentKind::Udp => sum.start.checked_add(UDP),
            SegmentKind::TcpV4 | SegmentKind::TcpV6 => {
                let words = self.linear_byte(sum.start.checked_add(TCP_DATA_OFFSET)?)? >> 4;
                sum.start.checked_add(u16::from(words) * 4)
            }
        });
        let linear = u16::try_from(self.head_len()).unwrap_or(u16::MAX);

        end.map_or(linear, |end| end.min(linear))
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
