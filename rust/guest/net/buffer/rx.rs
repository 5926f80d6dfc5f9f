// SPDX-License-Identifier: GPL-2.0

//! Memory to receive into.

use crate::{
    bindings,
    net::{
        page_pool::{
            Fragment,
            TAG, //
        },
        skbuff::MAX_FRAGS, //
    },
    virtio::buffer::{
        Buffer,
        Segments, //
    }, //
};
use core::{
    ffi::c_void,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

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
    pub const fn overhead(self) -> u32 {
        self.headroom() + RxBuffer::TAILROOM
    }
}

/// Memory for a device to write a packet, or a part of one, into.
///
/// At the beginning is [`Room`], and at the end of the first fragment for what a `struct sk_buff` needs: any buffer can become a
/// packet without a copy. Whole pages can follow; that room holds their list.
///
/// # Invariants
///
/// The fragment is larger than the [overhead](Room::overhead).
pub struct RxBuffer {
    // Before the memory that the list lies in.
    pages: Option<Pages>,
    fragment: Fragment,
    room: Room,
}

impl RxBuffer {
    /// The bytes at the end of the first fragment that the device does not get.
    pub const TAILROOM: u32 = bindings::SKB_SHINFO_SIZE;

    /// The most pages that can follow the first fragment.
    pub const MAX_PAGES: usize = MAX_FRAGS;

    /// Makes a buffer of a fragment. Returns [`None`], and frees the fragment, when it is too small.
    #[inline]
    pub fn new(fragment: Fragment, room: Room) -> Option<Self> {
        // INVARIANT: It is checked here.
        (fragment.size() > room.overhead()).then_some(Self {
            pages: None,
            fragment,
            room,
        })
    }

    /// Adds a page.
    ///
    /// # Errors
    ///
    /// The fragment comes back when it is not just a page, or there are [too many](Self::MAX_PAGES).
    pub fn push_page(&mut self, page: Fragment) -> core::result::Result<(), Fragment> {
        let list = self.list();
        // INVARIANT: None is in it yet.
        let pages = self.pages.get_or_insert(Pages {
            list,
            next: 0,
            count: 0,
        });

        pages.push(page)
    }

    /// Takes the last page if the first `len` bytes do not reach it.
    pub fn pop_page(&mut self, len: u32) -> Option<Fragment> {
        let unused = self.capacity().wrapping_sub(len);
        let pages = self.pages.as_mut()?;

        // CAST: A page is far smaller than 4 GiB.
        if unused < PAGE_SIZE as u32 {
            return None;
        }
        pages.pop()
    }

    /// Returns where the list of pages is.
    fn list(&self) -> NonNull<bindings::skb_shared_info> {
        let at = self.fragment.size().wrapping_sub(Self::TAILROOM) as usize;

        // SAFETY: By the type invariant this is within the fragment.
        unsafe { self.fragment.as_ptr().add(at) }.cast()
    }

    /// Returns how many bytes the device can write.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.head_capacity()
            .wrapping_add(self.pages.as_ref().map_or(0, Pages::capacity))
    }

    /// Returns how many of them are in the first fragment.
    #[inline]
    pub(in crate::net) fn head_capacity(&self) -> u32 {
        // By the type invariant this does not wrap.
        self.fragment.size().wrapping_sub(self.room.overhead())
    }

    /// Copies the first `N` bytes that the device wrote. Returns [`None`] when the buffer is smaller.
    ///
    /// A device that breaks the rules can write at any time; what was copied is the driver's own.
    #[inline]
    pub fn read<const N: usize>(&self) -> Option<[u8; N]> {
        if self.head_capacity() as usize <= N {
            return None;
        }
        // SAFETY: The length has been checked. Bytes have no alignment and no invalid values.
        Some(unsafe { self.data().as_ptr().cast::<[u8; N]>().read_volatile() })
    }

    /// Copies `len` bytes of another buffer, from `start` on. Returns [`None`] when the first fragment of one of the two is smaller.
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

    #[inline]
    pub(in crate::net) fn room(&self) -> Room {
        self.room
    }

    /// Returns how many bytes at the beginning the device does not get.
    #[inline]
    pub(in crate::net) fn headroom(&self) -> u32 {
        self.room.headroom()
    }

    #[inline]
    pub(in crate::net) fn fragment(&self) -> &Fragment {
        &self.fragment
    }

    /// Returns the first fragment, and the pages that follow. Their list lies in that fragment.
    #[inline]
    pub(in crate::net) fn into_parts(self) -> (Fragment, Option<Pages>) {
        (self.fragment, self.pages)
    }

    #[inline]
    pub(in crate::net) fn data(&self) -> NonNull<u8> {
        // SAFETY: By the type invariant this is within the fragment.
        unsafe { self.fragment.as_ptr().add(self.headroom() as usize) }
    }
}

/// Marks the number of a buffer with room for a program.
const ROOM_TAG: usize = TAG;

/// Marks the number of a buffer with pages.
const PAGES_TAG: usize = TAG / 2;

const fn max(a: u32, b: u32) -> u32 {
    if a > b {
        a
    } else {
        b
    }
}

/// Pages that follow the first fragment of a buffer.
///
/// # Invariants
///
/// - `list` is valid, and nobody writes to those of its entries that are owned.
/// - The entries from `next` to `count` describe fragments of a page each, which this value owns.
pub(in crate::net) struct Pages {
    list: NonNull<bindings::skb_shared_info>,
    next: u8,
    count: u8,
}

// SAFETY: Pages are memory, bound to no thread.
unsafe impl Send for Pages {}

impl Pages {
    /// Takes over the pages of a list.
    ///
    /// # Safety
    ///
    /// `list` is where [`into_list`](Self::into_list) has left the pages that are taken over, and stays valid.
    #[inline]
    unsafe fn from_list(list: NonNull<bindings::skb_shared_info>) -> Self {
        // SAFETY: By the safety requirements.
        let count = unsafe { (*list.as_ptr()).nr_frags };

        // INVARIANT: By the safety requirements.
        Self {
            list,
            next: 0,
            count,
        }
    }

    /// Leaves the pages in their list.
    #[inline]
    fn into_list(self) {
        let this = core::mem::ManuallyDrop::new(self);

        // SAFETY: By the type invariant the list is valid.
        unsafe { (*this.list.as_ptr()).nr_frags = this.count };
    }

    #[inline]
    fn capacity(&self) -> u32 {
        // CAST: A page is far smaller than 4 GiB.
        u32::from(self.count.wrapping_sub(self.next)).wrapping_mul(PAGE_SIZE as u32)
    }

    /// Returns an entry of the list.
    #[inline]
    fn entry(&self, index: u8) -> NonNull<bindings::skb_frag_t> {
        // SAFETY: By the type invariant the list is valid.
        let first = unsafe { addr_of_mut!((*self.list.as_ptr()).frags) };

        // SAFETY: The callers give the number of one, of which there are `MAX_FRAGS`.
        unsafe { NonNull::new_unchecked(first.cast()).add(usize::from(index)) }
    }

    fn push(&mut self, page: Fragment) -> core::result::Result<(), Fragment> {
        if page.size() as usize != PAGE_SIZE || usize::from(self.count) >= MAX_FRAGS {
            return Err(page);
        }

        let (head, offset) = page.page();
        let entry = bindings::skb_frag_t {
            // SAFETY: `head` is a valid page.
            netmem: unsafe { bindings::page_to_netmem(head) },
            len: page.size(),
            offset,
        };
        // SAFETY: The list is valid, and this entry is nobody's.
        unsafe { self.entry(self.count).write(entry) };
        let _ = page.forget();
        // INVARIANT: The entry describes a page that is owned now.
        self.count += 1;
        Ok(())
    }

    /// Returns the fragment that an entry describes.
    ///
    /// # Safety
    ///
    /// The entry is owned, and the caller's from now on.
    #[inline]
    unsafe fn page_at(&self, index: u8) -> Option<Fragment> {
        let entry = self.entry(index);
        // SAFETY: By the type invariant the entry is valid.
        let at = NonNull::new(unsafe { bindings::skb_frag_address(entry.as_ptr()) })?;

        // SAFETY: By the type invariant that is a fragment of a page; the ownership passes on.
        Some(unsafe { Fragment::from_raw(at.cast(), PAGE_SIZE as u32) })
    }

    /// Returns the last page.
    fn pop(&mut self) -> Option<Fragment> {
        if self.count == self.next {
            return None;
        }

        // INVARIANT: The entry is given out here.
        self.count -= 1;
        // SAFETY: It was owned until now.
        unsafe { self.page_at(self.count) }
    }
}

impl Iterator for Pages {
    type Item = Fragment;

    /// Returns the next page, from the first on.
    #[inline]
    fn next(&mut self) -> Option<Fragment> {
        if self.next == self.count {
            return None;
        }

        let index = self.next;
        // INVARIANT: The entry is given out here.
        self.next += 1;
        // SAFETY: It was owned until now.
        unsafe { self.page_at(index) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

// SAFETY:
// - A packed fragment is its address with its size, and a mark, in bits that are zero otherwise: unique while it lives, and never
//   null.
// - The fragment owns its memory, and the value is not there while it is in flight.
// - `capacity()` is the sum of the segments' lengths.
unsafe impl Buffer for RxBuffer {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        let mut tags = match self.room {
            Room::Stack => 0,
            Room::Program => ROOM_TAG,
        };
        if let Some(pages) = self.pages {
            pages.into_list();
            tags |= PAGES_TAG;
        }

        // SAFETY: A fragment's address is not null.
        unsafe { NonNull::new_unchecked((self.fragment.into_packed() | tags) as *mut c_void) }
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        let packed = ptr.as_ptr() as usize;

        // INVARIANT: The fragment was large enough when it was lent.
        let mut this = Self {
            pages: None,
            // SAFETY: By the safety requirements the pointer comes from `into_raw()` and is restored once.
            fragment: unsafe { Fragment::from_packed(packed & !(ROOM_TAG | PAGES_TAG)) },
            room: if packed & ROOM_TAG == 0 {
                Room::Stack
            } else {
                Room::Program
            },
        };
        if packed & PAGES_TAG != 0 {
            // SAFETY: `into_raw()` has left the pages there, which is not the device's to write.
            this.pages = Some(unsafe { Pages::from_list(this.list()) });
        }
        this
    }

    #[inline]
    fn segments(&self, list: &mut Segments<'_>) -> Result {
        list.push_in(self.data(), self.head_capacity())?;
        let Some(pages) = &self.pages else {
            return Ok(());
        };
        for index in pages.next..pages.count {
            // SAFETY: By the type invariant the entry is valid.
            let at = unsafe { bindings::skb_frag_address(pages.entry(index).as_ptr()) };
            // CAST: A page is far smaller than 4 GiB.
            list.push_in(NonNull::new(at.cast()).ok_or(EINVAL)?, PAGE_SIZE as u32)?;
        }
        Ok(())
    }

    #[inline]
    fn capacity(&self) -> u32 {
        self.capacity()
    }
}
