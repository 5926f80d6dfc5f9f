// SPDX-License-Identifier: GPL-2.0

//! Packets that were received.

use super::{
    DropReason,
    Headers,
    Owned,
    PartialChecksum,
    ETH_HLEN,
    MAX_FRAGS, //
};
use crate::{
    bindings,
    net::{
        buffer::{
            List,
            RxBuffer, //
        },
        napi::Context,
        page_pool::{
            Fragment,
            Listed, //
        },
        xdp::Buff, //
    },
    virtio::buffer::Used, //
};
use core::{
    mem::ManuallyDrop,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Which headers a hash of a packet is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HashLevel {
    /// The addresses.
    Network,
    /// The addresses and the ports.
    Transport,
}

/// How far into a packet its checksums have been verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The first one of a transport header.
    Outer,
    /// The first two: that of a tunnel, and that in it.
    Inner,
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
    pub(super) head: Owned,
    tail: *mut bindings::sk_buff,
}

impl RxSkBuff {
    /// Makes a packet of what a device wrote into `buffer`: `len` bytes, the first `skip` of which are not part of it. No
    /// data is copied.
    ///
    /// Returns [`None`], and frees the buffer, when there is no memory, when `len` is more than it holds, or the packet is shorter
    /// than an Ethernet header.
    #[inline]
    pub fn build(buffer: RxBuffer, skip: u32, len: u32, cx: &Context<'_>) -> Option<Self> {
        Self::of_used(Used::new(buffer, len).ok()?, skip, cx)
    }

    /// Makes a packet of what a device wrote, the first `skip` bytes of which are not part of it. No data is copied.
    ///
    /// Returns [`None`], and frees the buffer, when there is no memory, or the packet is shorter than an Ethernet header.
    #[inline(always)]
    pub fn of_used(used: Used<RxBuffer>, skip: u32, _cx: &Context<'_>) -> Option<Self> {
        let (buffer, len) = used.into_parts();
        if buffer.has_list() {
            // SAFETY: This is a poll, which `_cx` stands for; by the type invariant of `Used` the device has written `len` bytes.
            return unsafe { Self::of_many(buffer, skip, len) };
        }
        if len < skip.saturating_add(ETH_HLEN) {
            return None;
        }

        let data_len = len.wrapping_sub(skip);
        let reserve = buffer.headroom().wrapping_add(skip);
        let (fragment, _) = buffer.into_parts();
        // SAFETY: As above; `reserve` and `data_len` are what the device wrote to, as has been checked.
        unsafe { Self::around(fragment, reserve, data_len) }.ok()
    }

    /// Makes a packet of a buffer that may have several fragments, as [`of_used`](Self::of_used) does.
    ///
    /// # Safety
    ///
    /// In a poll. The device has written `len` bytes, which is at most the capacity.
    // Apart, so that nothing is kept for it where there is one fragment.
    #[inline(never)]
    unsafe fn of_many(buffer: RxBuffer, skip: u32, len: u32) -> Option<Self> {
        let head_len = len.min(buffer.head_capacity());
        let data_len = head_len.checked_sub(skip)?;
        if data_len < ETH_HLEN {
            return None;
        }

        let reserve = buffer.headroom().wrapping_add(skip);
        let (fragment, rest) = buffer.into_parts();
        // SAFETY: By the safety requirements this is a poll; `reserve` and `data_len` are what the device wrote to, as has been checked.
        match unsafe { Self::around(fragment, reserve, data_len) } {
            Ok(mut this) => {
                if let Some(rest) = rest {
                    this.append_list(rest, len.wrapping_sub(head_len));
                }
                Some(this)
            }
            Err(fragment) => {
                // The list goes first: it lies in the fragment.
                drop(rest);
                drop(fragment);
                None
            }
        }
    }

    /// Makes a packet of the first fragment of a buffer, of `data_len` bytes, which begin after `reserve`. The fragment comes back when
    /// there is no memory.
    ///
    /// # Safety
    ///
    /// In a poll. There are at least [`ETH_HLEN`] bytes, all of them before the room for the shared info.
    #[inline(always)]
    unsafe fn around(
        fragment: Fragment,
        reserve: u32,
        data_len: u32,
    ) -> core::result::Result<Self, Fragment> {
        // SAFETY: The fragment is valid memory of this size, with room for the shared info at its end, see `RxBuffer`; by the safety
        // requirements this is softirq context.
        let skb =
            unsafe { bindings::napi_build_skb(fragment.as_ptr().as_ptr().cast(), fragment.size()) };
        let Some(skb) = NonNull::new(skb) else {
            return Err(fragment);
        };

        // The packet has taken the reference over.
        let _ = fragment.forget();

        // INVARIANT: The packet has just been made, of a page pool's memory; by the safety requirements it is long enough.
        let this = Self {
            head: Owned { skb },
            tail: skb.as_ptr(),
        };
        // SAFETY: The packet is valid and nobody else has it.
        let raw = unsafe { &mut *skb.as_ptr() };
        // As `skb_reserve()` and `skb_put()`.
        // SAFETY: By the safety requirements the sum is within the fragment.
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

    /// Appends as many fragments as `len` bytes take, to a packet that has only a linear part. Their list lies where the packet
    /// has its own, from the first on.
    fn append_list(&mut self, mut list: List, mut len: u32) {
        let mut index = 0;

        while len > 0 {
            let Some(fragment) = list.next() else {
                return;
            };
            let part = len.min(fragment.size());
            self.add_frag(index, fragment, 0, part);
            index += 1;
            len = len.wrapping_sub(part);
        }
    }

    /// Appends `len` bytes of a fragment, from `start` on, to the last packet of the list, whose slot `index` is the first that
    /// is free.
    fn add_frag(&mut self, index: usize, fragment: Listed, start: u32, len: u32) {
        let size = fragment.size();
        let (page, offset) = fragment.page();
        let _ = fragment.into_raw();

        // SAFETY: By the type invariant `tail` is valid, and has this free slot; the page's reference passes to the packet.
        unsafe {
            bindings::skb_add_rx_frag(
                self.tail,
                // CAST: Less than `MAX_FRAGS`.
                index as c_int,
                page,
                // CAST: Both lie within the fragment.
                offset.wrapping_add(start) as c_int,
                len as c_int,
                size,
            )
        };
    }

    /// Makes a packet of one that a program lets pass, which owns nothing then. No data is copied.
    ///
    /// Returns [`None`] when there is no memory.
    pub fn from_buff<'a>(buff: &mut Buff<'a>, _cx: &Context<'a>) -> Option<Self> {
        if buff.is_gone() {
            return None;
        }
        // SAFETY: By its type invariants the packet is valid; the poll that `_cx` stands for runs in softirq context.
        let skb = unsafe { bindings::xdp_build_skb_from_buff(buff.as_raw()) };
        let skb = NonNull::new(skb)?;
        buff.leave();

        // Its Ethernet header has been looked at already; `receive()` will do that.
        // SAFETY: That header lies before the data.
        unsafe { bindings::skb_push(skb.as_ptr(), ETH_HLEN) };
        // INVARIANT: The packet has just been made, of a page pool's memory.
        Some(Self {
            head: Owned { skb },
            tail: skb.as_ptr(),
        })
    }

    /// Appends the `len` bytes that a device wrote into `buffer`. No data is copied.
    ///
    /// # Errors
    ///
    /// The buffer comes back when there is no memory or `len` is more than it holds.
    pub fn append(&mut self, buffer: RxBuffer, len: u32) -> core::result::Result<(), RxBuffer> {
        if len > buffer.head_capacity() {
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

        let headroom = buffer.headroom();
        let (fragment, _) = buffer.into_parts();
        let size = fragment.size();
        self.add_frag(index, fragment.into(), headroom, len);

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

    #[inline]
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

    /// Says that the last so many bytes before the packet are metadata.
    pub(in crate::net) fn set_metadata(&mut self, len: u8) {
        // SAFETY: By the type invariant the packet is valid and nobody else has it.
        unsafe { bindings::skb_metadata_set(self.head.as_ptr(), len) };
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
    pub fn set_checksum_verified(&mut self, depth: Depth) {
        let headers = self.head.headers();

        // SAFETY: `headers` is valid.
        unsafe {
            Headers::set_ip_summed_raw(
                headers,
                // CAST: The constant is 1.
                bindings::CHECKSUM_UNNECESSARY as u8,
            )
        };
        if depth == Depth::Inner {
            // SAFETY: As above.
            unsafe { Headers::set_csum_level_raw(headers, 1) };
        }
    }

    /// Copies the packet's beginning, from the Ethernet header on, and returns as much as there is of it.
    pub fn copy_head<'a>(&self, into: &'a mut [u8]) -> &'a [u8] {
        let len = into.len().min(self.len() as usize);
        let part = &mut into[..len];

        // SAFETY: By the type invariant the packet is valid, and there is room for `len` bytes.
        let copied = unsafe {
            // CAST: The packet's length is an `int` as well.
            bindings::skb_copy_bits(
                self.head.as_ptr(),
                0,
                part.as_mut_ptr().cast(),
                len as c_int,
            )
        };
        if copied == 0 {
            part
        } else {
            &[]
        }
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
