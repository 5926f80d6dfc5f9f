// SPDX-License-Identifier: GPL-2.0

//! Memory that is lent to a device.
//!
//! A buffer is in one of three states, each a type:
//!
//! - *owned*: a value of a [`Buffer`] type, the driver's to read, write and free;
//! - *in flight*: moved into the queue by [`Virtqueue::add_inbuf`] and its kin. No value exists, so the driver cannot touch
//!   the memory while the device may;
//! - *returned*: a [`Used`] from [`Virtqueue::get_buf`], owned again.
//!
//! What is in flight when the device goes away is dropped by the bus adapter, after the reset that ends the device's access. A
//! driver cannot forget it.
//!
//! [`Virtqueue::add_inbuf`]: super::Virtqueue::add_inbuf
//! [`Virtqueue::get_buf`]: super::Virtqueue::get_buf

mod used;

use crate::{
    bindings,
    mm::page, //
};
use core::{
    ffi::c_void,
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

pub(super) use used::LengthFault;
pub use used::{
    Batch,
    Used, //
};

/// A value that owns memory which a device may be lent.
///
/// # Safety
///
/// - [`into_raw`](Buffer::into_raw) gives a pointer from which [`from_raw`](Buffer::from_raw) restores the value, and no two
///   buffers that are in flight at once give the same pointer.
/// - Between the two, the memory described by [`segments`](Buffer::segments) stays allocated and is not accessed through
///   anything but the device, except that device-readable memory may be read.
/// - [`capacity`](Buffer::capacity) is at most the number of device-writable bytes that `segments` describes.
pub unsafe trait Buffer: Send + Sized + 'static {
    /// Gives up the value for a pointer.
    fn into_raw(self) -> NonNull<c_void>;

    /// Restores the value.
    ///
    /// # Safety
    ///
    /// `ptr` comes from [`into_raw`](Buffer::into_raw), and is restored once.
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self;

    /// Describes the memory, device-readable parts first.
    ///
    /// # Errors
    ///
    /// What `list` returns when it is full.
    fn segments(&self, list: &mut Segments<'_>) -> Result;

    /// Returns how many bytes the device may write.
    fn capacity(&self) -> u32;
}

/// What owns memory that is mapped for the device already, and can be lent by a queue of `B`s.
///
/// # Safety
///
/// - [`into_raw`](Premapped::into_raw) gives a pointer from which [`Buffer::from_raw`] of `B` restores a value that owns the same
///   memory, as that trait demands it.
/// - Until then the memory described by [`segments`](Premapped::segments) stays mapped for the queue's device, and is not accessed
///   through anything but the device, except that device-readable memory may be read. What the device does to the memory can
///   surprise nobody but those who the memory is shared with.
/// - [`Buffer::capacity`] of that value is at most the number of device-writable bytes that `segments` describes.
pub unsafe trait Premapped<B: Buffer>: Sized {
    /// Gives up the value for a pointer.
    fn into_raw(self) -> NonNull<c_void>;

    /// Describes the memory, device-readable parts first.
    ///
    /// # Errors
    ///
    /// What `list` returns when it is full.
    fn segments(&self, list: &mut MappedSegments<'_>) -> Result;
}

/// A buffer that a queue did not take, and why.
pub struct Rejected<B> {
    /// The buffer, still the caller's.
    pub buffer: B,

    /// [`ENOSPC`]: the queue is full. [`ENOMEM`]: no memory for an indirect table. [`EIO`]: the queue is broken. [`EINVAL`]:
    /// the buffer has no segments, too many, or of the wrong direction.
    pub error: Error,
}

/// The scatter list of one buffer, being filled in.
///
/// It lies in the queue, so that nothing is allocated or cleared per buffer.
pub struct Segments<'a> {
    list: &'a mut [bindings::scatterlist],
    out: usize,
    total: usize,
}

impl<'a> Segments<'a> {
    #[inline]
    pub(super) fn new(list: &'a mut [bindings::scatterlist]) -> Self {
        Self {
            list,
            out: 0,
            total: 0,
        }
    }

    /// Adds `len` bytes at `ptr` that the device reads.
    ///
    /// `ptr` is an address in the kernel's linear map.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the list is full, or something device-writable was added before.
    #[inline]
    pub fn push_out(&mut self, ptr: NonNull<u8>, len: u32) -> Result {
        let (page, offset) = page::of(ptr.as_ptr());

        self.push_out_page(page, offset, len)
    }

    /// As [`push_out`](Self::push_out), of bytes that begin `offset` bytes after the beginning of a page.
    #[inline]
    pub(crate) fn push_out_page(
        &mut self,
        page: *mut bindings::page,
        offset: u32,
        len: u32,
    ) -> Result {
        if self.out != self.total {
            return Err(EINVAL);
        }
        self.push(page, offset, len)?;
        self.out = self.total;
        Ok(())
    }

    /// Adds `len` bytes at `ptr` that the device writes.
    ///
    /// `ptr` is an address in the kernel's linear map.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the list is full.
    #[inline]
    pub fn push_in(&mut self, ptr: NonNull<u8>, len: u32) -> Result {
        let (page, offset) = page::of(ptr.as_ptr());

        self.push(page, offset, len)
    }

    /// As [`push_in`](Self::push_in), of bytes that begin `offset` bytes after the beginning of a page.
    #[inline]
    pub(crate) fn push_in_page(
        &mut self,
        page: *mut bindings::page,
        offset: u32,
        len: u32,
    ) -> Result {
        self.push(page, offset, len)
    }

    #[inline]
    fn push(&mut self, page: *mut bindings::page, offset: u32, len: u32) -> Result {
        let entry = self.list.get_mut(self.total).ok_or(EINVAL)?;

        // As `sg_set_page()`; a flag of an earlier buffer would end the list here.
        entry.page_link = page as c_ulong;
        entry.offset = offset;
        entry.length = len;
        self.total += 1;
        Ok(())
    }

    /// Ends both lists and returns them: device-readable and device-writable.
    #[inline]
    pub(super) fn finish(
        self,
    ) -> (
        &'a mut [bindings::scatterlist],
        &'a mut [bindings::scatterlist],
    ) {
        // Both numbers are within: no code is made for what would happen otherwise.
        let used = self.list.get_mut(..self.total).unwrap_or_default();
        let (out, inp) = used.split_at_mut_checked(self.out).unwrap_or_default();

        for list in [&mut *out, &mut *inp] {
            if let Some(last) = list.last_mut() {
                last.page_link |= SG_END;
            }
        }

        (out, inp)
    }
}

/// As [`Segments`], of memory that is mapped already.
pub struct MappedSegments<'a>(Segments<'a>);

impl<'a> MappedSegments<'a> {
    #[inline]
    pub(super) fn new(list: &'a mut [bindings::scatterlist]) -> Self {
        Self(Segments::new(list))
    }

    /// Adds `len` bytes at `addr` that the device reads.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the list is full, or something device-writable was added before.
    #[inline]
    pub fn push_out(&mut self, addr: bindings::dma_addr_t, len: u32) -> Result {
        if self.0.out != self.0.total {
            return Err(EINVAL);
        }
        self.push_in(addr, len)?;
        self.0.out = self.0.total;
        Ok(())
    }

    /// Adds `len` bytes at `addr` that the device writes.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the list is full.
    #[inline]
    pub fn push_in(&mut self, addr: bindings::dma_addr_t, len: u32) -> Result {
        let entry = self.0.list.get_mut(self.0.total).ok_or(EINVAL)?;

        // A flag of an earlier buffer would end the list here.
        entry.page_link = 0;
        // SAFETY: `entry` is an initialised scatter list entry.
        unsafe { bindings::sg_fill_dma(entry, addr, len) };
        self.0.total += 1;
        Ok(())
    }

    /// Ends both lists and returns them, as [`Segments::finish`] does.
    #[inline]
    pub(super) fn finish(
        self,
    ) -> (
        &'a mut [bindings::scatterlist],
        &'a mut [bindings::scatterlist],
    ) {
        self.0.finish()
    }
}

/// Marks the last entry of a scatter list, in `page_link`.
const SG_END: usize = bindings::SG_END as usize;

/// Plain memory for small messages: one segment, which the device either reads or writes.
pub struct Message(KBox<Inner>);

/// # Invariants
///
/// `data` is one kmalloc allocation of 1 to [`PAGE_SIZE`] bytes, whose length never changes.
struct Inner {
    data: KVec<u8>,
    writable: bool,
}

impl Message {
    /// Allocates `len` zeroed bytes for the device to write. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`EINVAL`] for a length of 0 or more than a page.
    pub fn new_in(len: usize) -> Result<Self> {
        Self::new(len, true)
    }

    /// Allocates `len` zeroed bytes for the device to read. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`EINVAL`] for a length of 0 or more than a page.
    pub fn new_out(len: usize) -> Result<Self> {
        Self::new(len, false)
    }

    fn new(len: usize, writable: bool) -> Result<Self> {
        if len == 0 || len > PAGE_SIZE {
            return Err(EINVAL);
        }

        // INVARIANT: `KVec` is kmalloc'ed; the length has just been checked.
        let data = KVec::from_elem(0, len, GFP_KERNEL)?;
        Ok(Self(KBox::new(Inner { data, writable }, GFP_KERNEL)?))
    }
}

impl core::ops::Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.data
    }
}

impl core::ops::DerefMut for Message {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0.data
    }
}

// SAFETY:
// - `into_raw()` gives the address of the box, which is unique while it lives, and `from_raw()` takes it back.
// - The box is not reachable in between, and it owns what `segments()` describes.
// - By the type invariant of `Inner`, the capacity is the length of the one segment.
unsafe impl Buffer for Message {
    fn into_raw(self) -> NonNull<c_void> {
        // SAFETY: A box is never null.
        unsafe { NonNull::new_unchecked(KBox::into_raw(self.0).cast()) }
    }

    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // SAFETY: By the safety requirements `ptr` comes from `KBox::into_raw()` and is restored once.
        Self(unsafe { KBox::from_raw(ptr.as_ptr().cast()) })
    }

    fn segments(&self, list: &mut Segments<'_>) -> Result {
        let data = NonNull::from(self.0.data.as_slice()).cast();
        // CAST: At most `PAGE_SIZE`, by the type invariant.
        let len = self.0.data.len() as u32;

        if self.0.writable {
            list.push_in(data, len)
        } else {
            list.push_out(data, len)
        }
    }

    fn capacity(&self) -> u32 {
        if self.0.writable {
            // CAST: At most `PAGE_SIZE`, by the type invariant.
            self.0.data.len() as u32
        } else {
            0
        }
    }
}

/// A command and room for its answer: two parts that the device reads, and one that it writes.
///
/// The command's fixed head has a descriptor of its own, as devices without VIRTIO_F_ANY_LAYOUT expect it.
pub struct Exchange(KBox<Parts>);

/// # Invariants
///
/// Each part is empty or one kmalloc allocation, of at most [`Exchange::MAX_LEN`] bytes, whose length never changes; `head`
/// and `reply` are not empty.
struct Parts {
    head: KVec<u8>,
    data: KVec<u8>,
    reply: KVec<u8>,
}

impl Exchange {
    /// The most segments that one has.
    pub const MAX_SEGMENTS: usize = 3;

    /// The most bytes of a part: what kmalloc can reasonably be asked for.
    pub const MAX_LEN: usize = 1 << 18;

    /// Makes a command of `head` and `data`, with `reply` bytes for the device's answer, each of which is `filler` until the
    /// device writes it. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`EINVAL`] for an empty head or reply, or a part of more than [`MAX_LEN`](Self::MAX_LEN) bytes.
    pub fn new(head: &[u8], data: KVec<u8>, reply: usize, filler: u8) -> Result<Self> {
        if head.is_empty() || reply == 0 {
            return Err(EINVAL);
        }
        if [head.len(), data.len(), reply]
            .iter()
            .any(|&len| len > Self::MAX_LEN)
        {
            return Err(EINVAL);
        }

        let mut own = KVec::with_capacity(head.len(), GFP_KERNEL)?;
        own.extend_from_slice(head, GFP_KERNEL)?;
        // INVARIANT: `KVec` is kmalloc'ed; the lengths have just been checked.
        let parts = Parts {
            head: own,
            data,
            reply: KVec::from_elem(filler, reply, GFP_KERNEL)?,
        };
        Ok(Self(KBox::new(parts, GFP_KERNEL)?))
    }

    /// Returns the answer, of which the device has written as much as [`Used::written`] says.
    pub fn reply(&self) -> &[u8] {
        &self.0.reply
    }

    /// Returns the answer, as [`reply`](Self::reply) does.
    pub fn into_reply(self) -> KVec<u8> {
        KBox::into_inner(self.0).reply
    }
}

// SAFETY:
// - `into_raw()` gives the address of the box, which is unique while it lives, and `from_raw()` takes it back.
// - The box is not reachable in between, and it owns what `segments()` describes.
// - By the type invariant of `Parts`, the capacity is the length of the one writable segment.
unsafe impl Buffer for Exchange {
    fn into_raw(self) -> NonNull<c_void> {
        // SAFETY: A box is never null.
        unsafe { NonNull::new_unchecked(KBox::into_raw(self.0).cast()) }
    }

    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // SAFETY: By the safety requirements `ptr` comes from `KBox::into_raw()` and is restored once.
        Self(unsafe { KBox::from_raw(ptr.as_ptr().cast()) })
    }

    fn segments(&self, list: &mut Segments<'_>) -> Result {
        let Parts { head, data, reply } = &*self.0;

        for part in [head, data] {
            if !part.is_empty() {
                // CAST: At most `MAX_LEN`, by the type invariant.
                list.push_out(NonNull::from(part.as_slice()).cast(), part.len() as u32)?;
            }
        }
        // CAST: As above.
        list.push_in(NonNull::from(reply.as_slice()).cast(), reply.len() as u32)
    }

    fn capacity(&self) -> u32 {
        // CAST: At most `MAX_LEN`, by the type invariant.
        self.0.reply.len() as u32
    }
}
