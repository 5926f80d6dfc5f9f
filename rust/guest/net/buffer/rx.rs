// SPDX-License-Identifier: GPL-2.0

//! Memory to receive into.

use crate::{
    bindings,
    net::{
        page_pool::{
            Fragment,
            Listed,
            MAX_UNITS,
            UNIT, //
        },
        skbuff::MAX_FRAGS, //
    },
    virtio::buffer::{
        Buffer,
        Segments,
        Used, //
    }, //
};
use core::{
    ffi::c_void,
    mem::ManuallyDrop,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};
use kernel::prelude::*;

/// What a buffer leaves room for, before what the device writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// The headers that the stack may put there.
    Stack,
    /// Those that a program may put there.
    Program,
}

impl Room {
    /// Returns how many bytes at the beginning the device does not get.
    #[inline]
    pub const fn headroom(self) -> u32 {
        match self {
            Room::Stack => max(32, bindings::L1_CACHE_BYTES) + bindings::NET_IP_ALIGN,
            Room::Program => bindings::XDP_PACKET_HEADROOM + bindings::NET_IP_ALIGN,
        }
    }

    /// Returns how many bytes the device does not get.
    #[inline]
    pub const fn overhead(self) -> u32 {
        self.headroom() + RxBuffer::TAILROOM
    }
}

/// The beginning of what a device has written.
pub trait Head {
    /// Copies `N` of the bytes that the device wrote, from `START` on. Returns [`None`] when there are not so many.
    ///
    /// A device that breaks the rules can write at any time; what was copied is the driver's own.
    fn read<const START: usize, const N: usize>(&self) -> Option<[u8; N]>;
}

/// Memory for a device to write a packet, or a part of one, into.
///
/// At the beginning is [`Room`], and at the end of the first fragment for what a `struct sk_buff` needs: any buffer can become a
/// packet without a copy. Other fragments can follow, all of one size, of which the device gets every byte; that room holds
/// their list.
///
/// All that is known of a buffer is one number, which is what a device's queue keeps of it, and is handed on in a register.
///
/// # Invariants
///
/// - The number comes from `Fragment::into_packed`, with the [headroom](Room::headroom), and a mark if there is a list; the fragment is
///   owned.
/// - With `LIST`, the list has as many entries as it says, each of which comes from `Listed::into_raw` and is owned, and all
///   of which have the same length.
pub struct RxBuffer(NonNull<c_void>);

// SAFETY: A buffer is memory, bound to no thread.
unsafe impl Send for RxBuffer {}

/// Where the number of a buffer has the headroom, so that it is nearly the address that the device writes to.
// CAST: Both are smaller than a page.
const HEADROOM: usize = (Room::Stack.headroom() | Room::Program.headroom()) as usize;

/// Marks the number of a buffer with a list.
const LIST: usize = UNIT / 4;

const _: () = assert!(HEADROOM < UNIT && HEADROOM & (LIST | (MAX_UNITS - 1)) == 0);

/// The least that a device can write into the first fragment, which is one unit or more.
const LEAST: usize = UNIT - Room::Program.overhead() as usize;

impl RxBuffer {
    /// The bytes at the end of the first fragment that the device does not get.
    pub const TAILROOM: u32 = bindings::SKB_SHINFO_SIZE;

    /// The most fragments that can follow the first one.
    pub const MAX_LIST: usize = MAX_FRAGS;

    /// Makes a buffer of a fragment.
    #[inline]
    pub fn new(fragment: Fragment, room: Room) -> Self {
        // CAST: Smaller than a page.
        let number = fragment.into_packed() | room.headroom() as usize;
        // INVARIANT: The bits of the headroom are zero in a fragment's number.
        // SAFETY: A fragment's number is not zero.
        Self(unsafe { NonNull::new_unchecked(number as *mut c_void) })
    }

    #[inline]
    fn number(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Returns where the first fragment begins.
    #[inline]
    pub(in crate::net) fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: A fragment's address is not null.
        unsafe { NonNull::new_unchecked((self.number() & !(UNIT - 1)) as *mut u8) }
    }

    /// Returns the size of the first fragment.
    #[inline]
    pub(in crate::net) fn size(&self) -> u32 {
        // CAST: A fragment's size fits, see `Fragment::into_packed()`.
        ((self.number() & (MAX_UNITS - 1)) * UNIT) as u32
    }

    /// Returns how many bytes at the beginning the device does not get.
    #[inline]
    pub(in crate::net) fn headroom(&self) -> u32 {
        // CAST: Smaller than a page.
        (self.number() & HEADROOM) as u32
    }

    /// Returns where the device writes.
    #[inline]
    pub(in crate::net) fn data(&self) -> NonNull<u8> {
        // SAFETY: By the type invariant this is within the fragment.
        unsafe { self.as_ptr().add(self.headroom() as usize) }
    }

    /// Returns how many bytes the device can write.
    #[inline]
    pub fn capacity(&self) -> u32 {
        match self.listed() {
            0 => self.head_capacity(),
            // A fragment is far smaller than 4 GiB, and there are few.
            count => self
                .head_capacity()
                .wrapping_add(u32::from(count).wrapping_mul(self.listed_size())),
        }
    }

    /// Returns how many of them are in the first fragment.
    #[inline]
    pub(in crate::net) fn head_capacity(&self) -> u32 {
        // This does not wrap, see `LEAST`.
        self.size()
            .wrapping_sub(self.headroom())
            .wrapping_sub(Self::TAILROOM)
    }

    /// Returns where the list is.
    #[inline]
    fn list(&self) -> NonNull<bindings::skb_shared_info> {
        let at = self.size().wrapping_sub(Self::TAILROOM) as usize;

        // SAFETY: By the type invariant this is within the fragment.
        unsafe { self.as_ptr().add(at) }.cast()
    }

    /// Returns whether fragments may follow the first one.
    #[inline]
    pub fn has_list(&self) -> bool {
        self.number() & LIST != 0
    }

    /// Returns how many fragments follow.
    #[inline]
    fn listed(&self) -> u8 {
        if !self.has_list() {
            return 0;
        }
        // SAFETY: By the type invariant there is a list.
        unsafe { (*self.list().as_ptr()).nr_frags }
    }

    /// Returns the size of each of the fragments that follow, of which there is one at least.
    #[inline]
    fn listed_size(&self) -> u32 {
        // SAFETY: The callers know that there is one.
        let first = unsafe { entry_of(self.list(), 0) };

        // SAFETY: As above.
        unsafe { (*first.as_ptr()).len }
    }

    /// Says how many fragments follow.
    ///
    /// # Safety
    ///
    /// So many entries of the list are owned, and of the same length.
    #[inline]
    unsafe fn set_listed(&mut self, count: u8) {
        // SAFETY: By the type invariant this is within the fragment, and not the device's.
        unsafe { (*self.list().as_ptr()).nr_frags = count };
        // INVARIANT: By the safety requirements.
        self.0 = self.0.map_addr(|number| number | LIST);
    }

    /// Adds a fragment behind the others.
    ///
    /// # Errors
    ///
    /// The fragment comes back when it is not as large as those before it, or there are [too many](Self::MAX_LIST).
    #[inline]
    pub fn push(&mut self, fragment: Listed) -> core::result::Result<(), Listed> {
        let count = self.listed();
        if usize::from(count) >= Self::MAX_LIST
            || (count > 0 && fragment.size() != self.listed_size())
        {
            return Err(fragment);
        }

        // SAFETY: The list has more entries than that, and this one is nobody's.
        unsafe { entry_of(self.list(), count).write(fragment.into_raw()) };
        // SAFETY: This fragment is one more, as large as the others.
        unsafe { self.set_listed(count.wrapping_add(1)) };
        Ok(())
    }

    /// Takes the last fragment behind the first if the first `len` bytes do not reach it.
    #[inline]
    pub fn pop(&mut self, len: u32) -> Option<Listed> {
        let last = self.listed().checked_sub(1)?;
        if self.capacity().wrapping_sub(len) < self.listed_size() {
            return None;
        }

        // SAFETY: Those before it are owned.
        unsafe { self.set_listed(last) };
        // SAFETY: It was owned until now.
        Some(unsafe { listed_at(self.list(), last) })
    }

    /// Copies `len` bytes from elsewhere to where the device would write.
    ///
    /// # Safety
    ///
    /// `from` is valid for `len` bytes, at most [`head_capacity`](Self::head_capacity).
    pub(in crate::net) unsafe fn fill(&mut self, from: NonNull<u8>, len: u32) {
        // SAFETY: By the safety requirements; the buffer is the value's own.
        unsafe {
            core::ptr::copy_nonoverlapping(from.as_ptr(), self.data().as_ptr(), len as usize)
        };
    }

    /// Copies `len` bytes of another buffer, from `start` on. Returns [`None`] when the first fragment of one of the two is
    /// smaller.
    pub(in crate::net) fn copy_from(&mut self, other: &Self, start: u32, len: u32) -> Option<()> {
        if len > self.head_capacity() || start.checked_add(len)? > other.head_capacity() {
            return None;
        }

        // SAFETY: `start` is within the other one, as has just been checked.
        let from = unsafe { other.data().add(start as usize) };
        // SAFETY: Both are long enough, as has just been checked, and different.
        unsafe {
            core::ptr::copy_nonoverlapping(from.as_ptr(), self.data().as_ptr(), len as usize)
        };
        Some(())
    }

    /// Returns the first fragment, and those that follow. Their list lies in that fragment.
    #[inline]
    pub(in crate::net) fn into_parts(self) -> (Fragment, Option<List>) {
        let this = ManuallyDrop::new(self);
        let count = this.listed();
        let list = this.list();
        let packed = this.number() & !(HEADROOM | LIST);

        // SAFETY: By the type invariant this comes from a fragment, which is the caller's now.
        let fragment = unsafe { Fragment::from_packed(packed) };
        let rest = if count > 0 {
            // INVARIANT: By the type invariant these are owned, now by this value.
            Some(List {
                list,
                next: 0,
                count,
            })
        } else {
            None
        };
        (fragment, rest)
    }
}

impl Used<RxBuffer> {
    /// Takes the last fragment behind the first if the device has not written to it.
    #[inline]
    pub fn pop(&mut self) -> Option<Listed> {
        let len = self.written();

        // SAFETY: What is left holds as many bytes.
        unsafe { self.buffer_mut() }.pop(len)
    }
}

impl Head for RxBuffer {
    /// Both numbers are even.
    #[inline]
    fn read<const START: usize, const N: usize>(&self) -> Option<[u8; N]> {
        const { assert!(START % 2 == 0 && N % 2 == 0 && bindings::NET_IP_ALIGN % 2 == 0) };
        const { assert!(START + N <= LEAST) };

        let mut bytes = [0; N];
        for (index, pair) in bytes.chunks_exact_mut(size_of::<u16>()).enumerate() {
            // SAFETY: Every buffer has so many bytes there.
            let at = unsafe { self.data().cast::<u16>().add(START / 2 + index) };
            // SAFETY: As above. The address is even, and numbers have no invalid values.
            let value = unsafe { at.read_volatile() };
            pair.copy_from_slice(&value.to_ne_bytes());
        }
        Some(bytes)
    }
}

impl Drop for RxBuffer {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: The value is not used any more.
        unsafe { free(self.0) };
    }
}

/// Frees the buffer with this number. It is given by its value, so that no buffer has to lie in memory only as it might be dropped.
///
/// # Safety
///
/// The number is that of a buffer, which is not used any more.
#[inline(never)]
unsafe fn free(number: NonNull<c_void>) {
    // INVARIANT: By the safety requirements.
    let this = RxBuffer(number);

    // The list goes first: it lies in the fragment.
    let (_fragment, _list) = this.into_parts();
}

const fn max(a: u32, b: u32) -> u32 {
    if a > b {
        a
    } else {
        b
    }
}

/// Returns an entry of a list.
///
/// # Safety
///
/// `list` is valid, and has more than `index` entries' room.
#[inline]
unsafe fn entry_of(
    list: NonNull<bindings::skb_shared_info>,
    index: u8,
) -> NonNull<bindings::skb_frag_t> {
    // SAFETY: By the safety requirements.
    let first = unsafe { addr_of_mut!((*list.as_ptr()).frags) };

    // SAFETY: As above.
    unsafe { NonNull::new_unchecked(first.cast()).add(usize::from(index)) }
}

/// Returns the fragment that an entry of a list describes.
///
/// # Safety
///
/// `list` is valid, the entry is one that [`RxBuffer::push`] has written, and its fragment the caller's from now on.
#[inline]
unsafe fn listed_at(list: NonNull<bindings::skb_shared_info>, index: u8) -> Listed {
    // SAFETY: By the safety requirements.
    let entry = unsafe { entry_of(list, index) };
    // SAFETY: As above.
    let entry = unsafe { entry.read() };

    // SAFETY: As above.
    unsafe { Listed::from_raw(entry) }
}

/// The fragments that followed the first one of a buffer.
///
/// # Invariants
///
/// - `list` is valid, and nobody writes to those of its entries that are owned.
/// - The entries from `next` to `count` describe fragments that this value owns.
pub(in crate::net) struct List {
    list: NonNull<bindings::skb_shared_info>,
    next: u8,
    count: u8,
}

impl Iterator for List {
    type Item = Listed;

    /// Returns the next fragment, from the first on.
    #[inline]
    fn next(&mut self) -> Option<Listed> {
        if self.next >= self.count {
            return None;
        }

        let index = self.next;
        // INVARIANT: The entry is given out here.
        self.next = index.wrapping_add(1);
        // SAFETY: It was owned until now.
        Some(unsafe { listed_at(self.list, index) })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

// SAFETY:
// - The number has the fragment's address in it, which is unique while it lives, and is never null.
// - The fragment owns its memory, as the list does what it lists, and the value is not there while it is in flight.
// - `capacity()` is the sum of the segments' lengths.
unsafe impl Buffer for RxBuffer {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        ManuallyDrop::new(self).0
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // INVARIANT: By the safety requirements it comes from `into_raw()` and is restored once; the list is not the device's to
        // write.
        Self(ptr)
    }

    #[inline]
    fn segments(&self, list: &mut Segments<'_>) -> Result {
        list.push_in(self.data(), self.head_capacity())?;
        for index in 0..self.listed() {
            // SAFETY: By the type invariant there are so many.
            let entry = unsafe { entry_of(self.list(), index) };
            // SAFETY: As above.
            let entry = unsafe { entry.read() };
            list.push_in_page(entry.netmem as *mut bindings::page, entry.offset, entry.len)?;
        }
        Ok(())
    }

    #[inline]
    fn capacity(&self) -> u32 {
        self.capacity()
    }
}
