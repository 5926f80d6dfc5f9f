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

use super::{
    buffer::RxBuffer,
    napi::Context, //
};
use crate::bindings;
use core::{
    mem::ManuallyDrop,
    ptr::{
        addr_of,
        addr_of_mut,
        NonNull, //
    },
};
use kernel::{
    error::to_result,
    prelude::*, //
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
    /// The TCP header has the CWR bit set, which only the first segment may have.
    pub ecn: bool,
}

/// Where a checksum is missing.
#[derive(Clone, Copy)]
pub struct PartialChecksum {
    /// Where the bytes to sum begin, counted from the Ethernet header.
    pub start: u16,
    /// Where the sum goes, counted from `start`.
    pub offset: u16,
}

/// Which headers a hash of a packet is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HashLevel {
    /// The addresses.
    Network,
    /// The addresses and the ports.
    Transport,
}

/// A packet that the stack wants sent.
#[must_use = "a packet is sent or freed with a reason"]
pub struct TxSkBuff(Owned);

// SAFETY: A packet is bound to no thread, and this value is its only owner.
unsafe impl Send for TxSkBuff {}

impl TxSkBuff {
    /// Takes over a packet.
    ///
    /// # Safety
    ///
    /// `skb` is valid, comes from the stack to be sent, and ownership of it passes to the value.
    #[inline]
    pub(super) unsafe fn from_raw(skb: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(Owned { skb })
    }

    /// Gives up the value; ownership is the caller's to pass on.
    #[inline]
    pub(super) fn into_raw(self) -> NonNull<bindings::sk_buff> {
        self.0.into_raw()
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    #[inline]
    pub(super) fn shared_info(&self) -> &bindings::skb_shared_info {
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
            ecn: has(bindings::SKB_GSO_TCP_ECN),
        }))
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
    pub(super) fn head_is_ours(&self, len: usize) -> bool {
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

    /// Frees a packet that is not sent. Any context.
    pub fn free(self, reason: DropReason) {
        self.0.free(reason as u32);
    }
}

/// A packet that the driver has received.
///
/// # Invariants
///
/// - The linear part holds at least an Ethernet header.
/// - All data lies in fragments of page pools.
/// - `tail` is the packet or the last one in its fragment list.
#[must_use = "a packet is handed to the stack or freed with a reason"]
pub struct RxSkBuff {
    head: Owned,
    tail: *mut bindings::sk_buff,
}

impl RxSkBuff {
    /// Makes a packet of what a device wrote into `buffer`: `len` bytes, the first `skip` of which are not part of it. No
    /// data is copied.
    ///
    /// # Errors
    ///
    /// The buffer comes back when there is no memory, when `len` is more than it holds, or the packet is shorter than an
    /// Ethernet header.
    #[inline]
    pub fn build(
        buffer: RxBuffer,
        skip: u32,
        len: u32,
        _cx: &Context<'_>,
    ) -> core::result::Result<Self, RxBuffer> {
        let Some(data_len) = len.checked_sub(skip) else {
            return Err(buffer);
        };
        if data_len < ETH_HLEN || len > buffer.capacity() {
            return Err(buffer);
        }
        let fragment = buffer.fragment();
        // SAFETY: The fragment is valid memory of this size, with room for the shared info at its end, see `RxBuffer`; the
        // poll that `_cx` stands for runs in softirq context.
        let skb =
            unsafe { bindings::napi_build_skb(fragment.as_ptr().as_ptr().cast(), fragment.size()) };
        let Some(skb) = NonNull::new(skb) else {
            return Err(buffer);
        };

        // The packet has taken the reference over.
        let _ = buffer.into_fragment().forget();
        let reserve = RxBuffer::HEADROOM.wrapping_add(skip);

        // INVARIANT: The packet has just been made, of a page pool's memory; the length has been checked.
        let this = Self {
            head: Owned { skb },
            tail: skb.as_ptr(),
        };
        // SAFETY: The packet is valid and nobody else has it.
        let raw = unsafe { &mut *skb.as_ptr() };
        // As `skb_reserve()` and `skb_put()`; the bounds have been checked above.
        // SAFETY: The sum is within the fragment.
        raw.data = unsafe { raw.data.add(reserve as usize) };
        #[cfg(CONFIG_64BIT)]
        {
            raw.tail = raw.tail.wrapping_add(reserve.wrapping_add(data_len));
        }
        #[cfg(not(CONFIG_64BIT))]
        {
            raw.tail = raw
                .tail
                .wrapping_add(reserve.wrapping_add(data_len) as usize);
        }
        raw.len = data_len;
        this.mark_for_recycle(skb.as_ptr());
        Ok(this)
    }

    /// Appends the `len` bytes that a device wrote into `buffer`. No data is copied.
    ///
    /// # Errors
    ///
    /// The buffer comes back when there is no memory or `len` is more than it holds.
    pub fn append(&mut self, buffer: RxBuffer, len: u32) -> core::result::Result<(), RxBuffer> {
        if len > buffer.capacity() {
            return Err(buffer);
        }

        // SAFETY: By the type invariant `tail` is valid.
        let skb = unsafe { NonNull::new_unchecked(self.tail) };
        // It is borrowed, not owned.
        let tail = ManuallyDrop::new(Owned { skb });
        // SAFETY: The shared info of a valid packet is valid.
        let mut index = usize::from(unsafe { (*tail.shared_info()).nr_frags });
        if index >= MAX_FRAGS {
            if self.extend().is_err() {
                return Err(buffer);
            }
            index = 0;
        }

        let fragment = buffer.into_fragment();
        let size = fragment.size();
        let (page, offset) = fragment.page();
        let _ = fragment.forget();
        // SAFETY: `tail` is valid and has a free slot; the page's reference passes to the packet.
        unsafe {
            bindings::skb_add_rx_frag(
                self.tail,
                // CAST: At most `MAX_FRAGS`.
                index as c_int,
                page,
                // CAST: Both lie within the fragment.
                offset.wrapping_add(RxBuffer::HEADROOM) as c_int,
                len as c_int,
                size,
            )
        };

        if self.tail != self.head.as_ptr() {
            // SAFETY: By the type invariant the packet is valid and nobody else has it.
            let head = unsafe { &mut *self.head.as_ptr() };
            head.len = head.len.wrapping_add(len);
            head.data_len = head.data_len.wrapping_add(len);
            head.truesize = head.truesize.wrapping_add(size);
        }
        Ok(())
    }

    /// Begins another packet in the fragment list, because the last one has no more room.
    #[cold]
    fn extend(&mut self) -> Result {
        // SAFETY: May be called in any context but hard interrupts.
        let next = unsafe { bindings::alloc_skb(0, bindings::GFP_ATOMIC) };
        if next.is_null() {
            return Err(ENOMEM);
        }
        self.mark_for_recycle(next);

        if self.tail == self.head.as_ptr() {
            // SAFETY: The shared info of a valid packet is valid.
            unsafe { (*self.head.shared_info()).frag_list = next };
        } else {
            // SAFETY: By the type invariant `tail` is valid; the first member is the link.
            unsafe { (*self.tail).__bindgen_anon_1.__bindgen_anon_1.next = next };
        }
        // SAFETY: `next` is valid.
        let truesize = unsafe { (*next).truesize };
        // SAFETY: By the type invariant the packet is valid and nobody else has it.
        let head = unsafe { &mut *self.head.as_ptr() };
        head.truesize = head.truesize.wrapping_add(truesize);

        // INVARIANT: `next` is the last one of the list now.
        self.tail = next;
        Ok(())
    }

    fn mark_for_recycle(&self, skb: *mut bindings::sk_buff) {
        // SAFETY: The callers give a valid packet that is part of this one.
        unsafe { bindings::sk_buff::set_pp_recycle_raw(skb, 1) };
    }

    /// Returns the length in bytes, with the Ethernet header.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        self.head.len()
    }

    /// Gives the packet the hash that the device has computed, over what `level` says, with a key that few know.
    #[inline]
    pub fn set_hash(&mut self, hash: u32, level: HashLevel) {
        let headers = self.head.headers();

        // As `skb_set_hash()` of a packet that has none.
        // SAFETY: `headers` is valid.
        unsafe { (*headers).hash = hash };
        // SAFETY: As above.
        unsafe { Headers::set_l4_hash_raw(headers, u8::from(level == HashLevel::Transport)) };
    }

    /// Says that the device has verified the checksums.
    #[inline]
    pub fn set_checksum_verified(&mut self) {
        let headers = self.head.headers();

        // SAFETY: `headers` is valid.
        unsafe {
            Headers::set_ip_summed_raw(
                headers,
                // CAST: The constant is 1.
                bindings::CHECKSUM_UNNECESSARY as u8,
            )
        };
    }

    /// Says that a checksum is still missing, and where. The stack takes the data as intact.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the place is outside the packet. The packet may have been changed; it is good for nothing but to be
    /// freed.
    pub fn set_partial_checksum(&mut self, sum: PartialChecksum) -> Result {
        let needed = u32::from(sum.start) + u32::from(sum.offset) + 2;

        // SAFETY: By the type invariant the packet is valid and nobody else has it.
        if !unsafe { bindings::pskb_may_pull(self.head.as_ptr(), needed) } {
            return Err(EINVAL);
        }
        // SAFETY: As above.
        if !unsafe { bindings::skb_partial_csum_set(self.head.as_ptr(), sum.start, sum.offset) } {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Says what a device's header says of a packet that is several in one: how it is cut, and where a checksum is missing
    /// (VirtIO 1.3, 5.1.6.4). `header` is a `struct virtio_net_hdr`, of which the device can change nothing any more.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the header does not fit the packet. The packet may have been changed; it is good for nothing but to be
    /// freed.
    pub fn set_offloads(&mut self, header: [u8; 10], little_endian: bool) -> Result {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = header;
        let header = bindings::virtio_net_hdr {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        };

        // SAFETY: By the type invariant the packet is valid, holds an Ethernet header, and nobody else has it.
        to_result(unsafe {
            bindings::virtio_net_hdr_to_skb(self.head.as_ptr(), &header, little_endian)
        })
    }

    /// Hands the packet to the stack, as one that came by receive queue `queue` of the device that `cx` polls for.
    #[inline]
    pub fn receive(self, queue: u16, cx: &mut Context<'_>) {
        let napi = cx.as_ptr();
        let headers = self.head.headers();
        let skb = self.head.into_raw().as_ptr();

        // SAFETY: A NAPI instance that is polled belongs to a valid device.
        let dev = unsafe { (*napi).dev };
        // SAFETY: By the type invariant the packet is valid and holds an Ethernet header.
        let protocol = unsafe { bindings::eth_type_trans(skb, dev) };
        // As `skb_record_rx_queue()`: zero means that none was recorded.
        // SAFETY: The packet is valid.
        unsafe { (*skb).queue_mapping = queue.wrapping_add(1) };
        // SAFETY: `headers` is valid.
        unsafe { (*headers).protocol = protocol };

        // SAFETY: The instance is being polled, which `cx` stands for; the packet is passed on.
        unsafe { bindings::gro_receive_skb(addr_of_mut!((*napi).gro), skb) };
    }

    /// Frees a packet that is not handed on. Any context.
    pub fn free(self, reason: DropReason) {
        self.head.free(reason as u32);
    }
}
