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

/// How many page frame numbers one buffer holds at most.
pub const MAX_PFNS: usize = 512;

/// How many it should hold if nobody knows better: there are devices that ignore a larger buffer.
pub const COMMON_PFNS: usize = 256;

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

    /// The list is about pages that compaction has replaced, which the balloon keeps.
    moved: bool,
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
            moved: false,
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
        let count = pages.len();
        if count == 0 || count > MAX_PFNS / PFNS_PER_PAGE {
            return Err((self, pages));
        }

        self.0.used = 0;
        let mut fits = true;
        pages.for_each_run(|page, len| {
            // SAFETY: By the type invariant of `pages` these are valid pages.
            fits &= unsafe { self.0.name(page, len) };
        });
        if !fits {
            return Err((self, pages));
        }

        self.0.pages = pages.cast();
        self.0.moved = false;
        Ok(PfnList {
            storage: self.0,
            _state: PhantomData,
        })
    }

    /// Writes down the frame numbers of pages that compaction has replaced, or put in their place. They are not in the list's
    /// custody.
    ///
    /// # Errors
    ///
    /// The memory comes back when there are no pages, or too many, or one lies beyond the device's 44 bits of addresses.
    ///
    /// # Safety
    ///
    /// The pages are valid.
    pub(super) unsafe fn name<State>(
        mut self,
        pages: impl Iterator<Item = NonNull<bindings::page>>,
    ) -> Result<PfnList<State>, Self> {
        self.0.used = 0;
        let mut fits = true;
        for page in pages {
            // SAFETY: By the safety requirements.
            fits &= unsafe { self.0.name(page, 1) };
        }
        if !fits || self.0.used == 0 {
            return Err(self);
        }

        self.0.moved = true;
        Ok(PfnList {
            storage: self.0,
            _state: PhantomData,
        })
    }
}

impl Storage {
    /// Adds the frame numbers of `len` neighbours, of which `page` is the first. Returns `false` if there is no room, or they do
    /// not fit.
    ///
    /// # Safety
    ///
    /// They are valid pages.
    #[inline]
    unsafe fn name(&mut self, page: NonNull<bindings::page>, len: usize) -> bool {
        let used = self.used.saturating_add(len.saturating_mul(PFNS_PER_PAGE));
        let Some(slots) = self.pfns.get_mut(self.used..used) else {
            return false;
        };
        // SAFETY: By the safety requirements.
        let Some(first) = (unsafe { first_pfn(page, len) }) else {
            return false;
        };

        for (i, slot) in (0..).zip(slots) {
            // Does not wrap: see `first_pfn()`.
            *slot = first.wrapping_add(i).to_le();
        }
        self.used = used;
        true
    }
}

/// Returns the device's number of the first of its page frames that make up `page` and the `len` - 1 pages that follow it. All of
/// them have a number, or none.
///
/// # Safety
///
/// `page` is a valid page.
#[inline]
pub(super) unsafe fn first_pfn(page: NonNull<bindings::page>, len: usize) -> Option<u32> {
    // SAFETY: By the safety requirements.
    let pfn = unsafe { bindings::page_to_pfn(page.as_ptr()) };
    let first = pfn.checked_mul(PFNS_PER_PAGE)?;
    let end = pfn.checked_add(len)?.checked_mul(PFNS_PER_PAGE)?;

    // The last one has 32 bits, so the first has.
    u32::try_from(end.checked_sub(1)?).ok()?;
    u32::try_from(first).ok()
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

    /// Returns whether the list is about pages that compaction has replaced.
    pub(super) fn is_moved(&self) -> bool {
        self.storage.moved
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
