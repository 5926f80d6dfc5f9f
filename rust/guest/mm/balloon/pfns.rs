// SPDX-License-Identifier: GPL-2.0

//! Telling a device of pages (VirtIO 1.3, 5.5.6).

use super::Pages;
use crate::{
    bindings,
    virtio::buffer::{
        Buffer,
        Segments, //
    }, //
};
use core::{
    ffi::c_void,
    marker::PhantomData,
    mem::size_of,
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// How many page frame numbers one buffer holds. There are devices that ignore a larger buffer.
pub const MAX_PFNS: usize = 256;

/// How many of the device's page frames, which have 4 KiB, make up one page.
pub const PFNS_PER_PAGE: usize = 1 << (PAGE_SHIFT - bindings::VIRTIO_BALLOON_PFN_SHIFT as usize);

/// State of the pages in [`Storage`], which serves all states in turn.
enum Any {}

struct Storage {
    /// Little endian. Only this array is lent to the device, which is not to be trusted to leave it alone; nothing is read
    /// from it. It is an allocation of its own, because its size is one that kmalloc has.
    pfns: KBox<[u32; MAX_PFNS]>,

    /// How many of them are in use.
    used: usize,

    /// The pages that they name, if they are to be kept.
    pages: Pages<Any>,
}

/// Memory for a [`PfnList`], allocated beforehand and used over and over, so that telling the device needs no memory.
pub struct PfnBuffer(KBox<Storage>);

impl PfnBuffer {
    /// Allocates the memory.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new() -> Result<Self> {
        let storage = Storage {
            pfns: KBox::init(pin_init::init_zeroed(), GFP_KERNEL)?,
            used: 0,
            pages: Pages::new(),
        };

        Ok(Self(KBox::new(storage, GFP_KERNEL)?))
    }

    /// Writes down the frame numbers of `pages`, in order, and takes them into custody.
    ///
    /// # Errors
    ///
    /// Both come back when there are no pages, or too many, or one lies beyond the device's 44 bits of addresses.
    pub fn load<State>(
        mut self,
        pages: Pages<State>,
    ) -> Result<PfnList<State>, (Self, Pages<State>)> {
        let storage = &mut *self.0;
        let count = pages.len();
        if count == 0 || count > MAX_PFNS / PFNS_PER_PAGE {
            return Err((self, pages));
        }

        let mut slots = storage.pfns.iter_mut();
        let mut fits = true;
        pages.for_each(|page| {
            // SAFETY: `page` is a valid page.
            let first = unsafe { bindings::page_to_pfn(page.as_ptr()) }.wrapping_mul(PFNS_PER_PAGE);
            for (i, slot) in slots.by_ref().take(PFNS_PER_PAGE).enumerate() {
                let pfn = u32::try_from(first.wrapping_add(i));
                fits &= pfn.is_ok();
                *slot = pfn.unwrap_or(0).to_le();
            }
        });
        if !fits {
            return Err((self, pages));
        }

        storage.used = count * PFNS_PER_PAGE;
        storage.pages = pages.cast();
        Ok(PfnList {
            storage: self.0,
            _state: PhantomData,
        })
    }
}

/// Frame numbers for the device, and the pages that they name.
///
/// In flight, it keeps the pages from being used. Dropped, as when the device has been reset, it gives them back to the page
/// allocator.
pub struct PfnList<State> {
    storage: KBox<Storage>,
    _state: PhantomData<State>,
}

impl<State> PfnList<State> {
    /// Returns how many frame numbers there are.
    pub fn pfns(&self) -> u32 {
        // CAST: At most `MAX_PFNS`.
        self.storage.used as u32
    }

    /// Takes the pages out of custody: the device is still told of them, but they need not wait for its answer.
    pub fn take_pages(&mut self) -> Pages<State> {
        core::mem::replace(&mut self.storage.pages, Pages::new()).cast()
    }

    /// Ends the custody of the pages and returns the memory for the next list.
    pub fn unload(mut self) -> (PfnBuffer, Pages<State>) {
        let pages = self.take_pages();

        (PfnBuffer(self.storage), pages)
    }
}

// SAFETY:
// - `into_raw()` gives the address of the box, which is unique while it lives, and `from_raw()` takes it back.
// - The box, which owns what `segments()` describes, is not reachable in between.
// - The device may write nothing.
unsafe impl<State: 'static> Buffer for PfnList<State> {
    fn into_raw(self) -> NonNull<c_void> {
        // SAFETY: A box is never null.
        unsafe { NonNull::new_unchecked(KBox::into_raw(self.storage).cast()) }
    }

    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        Self {
            // SAFETY: By the safety requirements `ptr` comes from `KBox::into_raw()` and is restored once.
            storage: unsafe { KBox::from_raw(ptr.as_ptr().cast()) },
            _state: PhantomData,
        }
    }

    fn segments(&self, list: &mut Segments<'_>) -> Result {
        // CAST: At most `MAX_PFNS` numbers.
        let len = (self.storage.used * size_of::<u32>()) as u32;

        list.push_out(NonNull::from(&*self.storage.pfns).cast(), len)
    }

    fn capacity(&self) -> u32 {
        0
    }
}

// SAFETY: The pages and the memory are bound to no thread.
unsafe impl<State> Send for PfnList<State> {}
