// SPDX-License-Identifier: GPL-2.0

//! Owned pages on the way into or out of a balloon.

use crate::bindings;
use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};

/// State of [`Pages`]: from the page allocator, never in a balloon.
pub enum Fresh {}

/// State of [`Pages`]: taken out of a balloon.
pub enum Removed {}

/// Offset of a page's list entry.
const LRU: usize = offset_of!(
    bindings::page,
    __bindgen_anon_1.__bindgen_anon_1.__bindgen_anon_1.lru
);

/// Single pages, in an order that is kept, each with one reference. Dropping the value gives them back to the page allocator.
///
/// # Invariants
///
/// With a `len` of 0, `first` dangles. Otherwise it is the first of `len` pages that are linked by their `lru` entries in a
/// circle. One reference to each page belongs to the value, and nobody else uses the entries. With `is_block` they were allocated
/// as one block, and are in ascending order: neighbours, in one zone.
pub struct Pages<State> {
    first: NonNull<bindings::page>,
    len: usize,
    is_block: bool,
    _state: PhantomData<State>,
}

// SAFETY: Pages are bound to no thread.
unsafe impl<State> Send for Pages<State> {}

impl<State> Pages<State> {
    pub(super) const fn new() -> Self {
        // INVARIANT: There are no pages.
        Self {
            first: NonNull::dangling(),
            len: 0,
            is_block: false,
            _state: PhantomData,
        }
    }

    /// Returns how many pages there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no pages.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `f` with the first page and the length of each run of neighbours, or of as much of one as is known to be one.
    #[inline]
    pub(super) fn for_each_run(&self, mut f: impl FnMut(NonNull<bindings::page>, usize)) {
        if self.is_block {
            f(self.first, self.len);
        } else {
            self.for_each(|page| f(page, 1));
        }
    }

    /// Calls `f` with each page.
    #[inline]
    pub(super) fn for_each(&self, mut f: impl FnMut(NonNull<bindings::page>)) {
        let mut page = self.first;

        for left in (0..self.len).rev() {
            let this = page;
            if left != 0 {
                // SAFETY: By the type invariant `this` is a page whose entry leads to the next one.
                page = unsafe { next(this) };
            }
            // From here on `f` may give the page away.
            f(this);
        }
    }

    /// Calls `f` with the first page and the length of each run of pages that are in one zone.
    pub(super) fn for_each_zone(&self, mut f: impl FnMut(NonNull<bindings::page>, isize)) {
        let mut run: Option<(NonNull<bindings::page>, *mut bindings::zone, isize)> = None;

        self.for_each_run(|page, len| {
            // CAST: Memory has fewer pages.
            let len = len as isize;
            // SAFETY: By the type invariant `page` is a valid page.
            let zone = unsafe { bindings::page_zone(page.as_ptr()) };
            match &mut run {
                Some((_, of, count)) if *of == zone => *count += len,
                _ => {
                    if let Some((first, _, count)) = run.replace((page, zone, len)) {
                        f(first, count);
                    }
                }
            }
        });
        if let Some((first, _, count)) = run {
            f(first, count);
        }
    }

    /// Changes the state.
    pub(super) fn cast<T>(self) -> Pages<T> {
        let this = ManuallyDrop::new(self);

        // INVARIANT: As that of `self`, which is not dropped.
        Pages {
            first: this.first,
            len: this.len,
            is_block: this.is_block,
            _state: PhantomData,
        }
    }

    /// Links the pages to a list head, for C code to take all of them.
    pub(super) fn give(self, take: impl FnOnce(*mut bindings::list_head)) {
        let this = ManuallyDrop::new(self);
        if this.len == 0 {
            return;
        }

        let mut head = bindings::list_head::default();
        let head: *mut bindings::list_head = addr_of_mut!(head);
        let first = lru(this.first);
        // SAFETY: By the type invariant `first` is in a circle of valid entries that only this value uses.
        let last = unsafe { (*first).prev };
        // SAFETY: `head` is local, `first` as above.
        unsafe { link(head, first) };
        // SAFETY: `last` is in the circle as well.
        unsafe { link(last, head) };

        take(head);
    }

    /// Gets pages from C code, which adds them to an empty list and returns how many.
    pub(super) fn take(give: impl FnOnce(*mut bindings::list_head) -> usize) -> Self {
        let mut head = bindings::list_head::default();
        let head: *mut bindings::list_head = addr_of_mut!(head);
        // SAFETY: `head` is local.
        unsafe { link(head, head) };

        let len = give(head);
        if len == 0 {
            return Self::new();
        }

        // SAFETY: `head` is a valid list of pages.
        let (first, last) = unsafe { ((*head).next, (*head).prev) };
        // SAFETY: Both are entries of the list, which without the head is a circle.
        unsafe { link(last, first) };

        // INVARIANT: The list has `len` pages, which now belong to this value.
        Self {
            // SAFETY: Every entry of the list is the `lru` of a page.
            first: unsafe { page(first) },
            len,
            is_block: false,
            _state: PhantomData,
        }
    }
}

impl Pages<Fresh> {
    /// Takes the `1 << order` pages from `block` on.
    ///
    /// # Safety
    ///
    /// They were allocated as one block, which was split. One reference to each passes to this value. Nobody else uses their
    /// `lru`.
    pub(super) unsafe fn from_block(block: NonNull<bindings::page>, order: u32) -> Self {
        let mut pages = Self::new();

        for i in 0..1 << order {
            // SAFETY: The pages of a block lie in a row.
            let page = unsafe { block.add(i) };
            // SAFETY: By the safety requirements; after the split the page has order 0.
            unsafe { pages.push(page) };
        }
        // INVARIANT: By the safety requirements, and they were added in this order.
        pages.is_block = true;
        pages
    }

    /// Adds `page` at the end.
    ///
    /// # Safety
    ///
    /// The page has order 0, and one reference to it passes to this value. Nobody else uses its `lru`.
    #[inline]
    pub(super) unsafe fn push(&mut self, page: NonNull<bindings::page>) {
        let entry = lru(page);

        // INVARIANT: By the safety requirements, and the links that are made here.
        if self.len == 0 {
            self.first = page;
            // SAFETY: `entry` is valid by the safety requirements.
            unsafe { link(entry, entry) };
        } else {
            let first = lru(self.first);
            // SAFETY: By the type invariant `first` is in a circle of valid entries.
            let last = unsafe { (*first).prev };
            // SAFETY: `last` as above, `entry` by the safety requirements.
            unsafe { link(last, entry) };
            // SAFETY: As above.
            unsafe { link(entry, first) };
        }
        self.len += 1;
        self.is_block = false;
    }
}

impl<State> Drop for Pages<State> {
    fn drop(&mut self) {
        let mut run: Option<(usize, usize)> = None;

        self.for_each(|page| {
            // SAFETY: By the type invariant `page` is a valid page.
            let pfn = unsafe { bindings::page_to_pfn(page.as_ptr()) };
            match &mut run {
                Some((start, len)) if start.wrapping_add(*len) == pfn => *len += 1,
                _ => {
                    if let Some((start, len)) = run.replace((pfn, 1)) {
                        // SAFETY: By the type invariant one reference to each of the pages is this value's to drop, and
                        // `for_each()` has left them behind.
                        unsafe { put(start, len) };
                    }
                }
            }
        });
        if let Some((start, len)) = run {
            // SAFETY: As above.
            unsafe { put(start, len) };
        }
    }
}

/// Drops one reference to each of the `len` pages from frame `pfn` on. The page allocator gets whole blocks back where it can.
///
/// # Safety
///
/// They are single pages, and the references are the caller's.
unsafe fn put(pfn: usize, len: usize) {
    #[cfg(CONFIG_CONTIG_ALLOC)]
    if len > 1 {
        // SAFETY: By the safety requirements.
        unsafe { bindings::free_contig_range(pfn, len) };
        return;
    }

    for pfn in pfn..pfn.wrapping_add(len) {
        // SAFETY: By the safety requirements the frame has a page.
        let page = unsafe { bindings::pfn_to_page(pfn) };
        // SAFETY: By the safety requirements the reference is the caller's.
        unsafe { bindings::__free_pages(page, 0) };
    }
}

/// Returns the list entry of `page`.
#[inline]
fn lru(page: NonNull<bindings::page>) -> *mut bindings::list_head {
    page.as_ptr().wrapping_byte_add(LRU).cast()
}

/// Returns the page whose list entry is `entry`.
///
/// # Safety
///
/// `entry` is the `lru` of a page.
#[inline]
unsafe fn page(entry: *mut bindings::list_head) -> NonNull<bindings::page> {
    // SAFETY: By the safety requirements this is a page, whose address is not null.
    unsafe { NonNull::new_unchecked(entry.wrapping_byte_sub(LRU).cast()) }
}

/// Returns the page that follows `this` in a circle.
///
/// # Safety
///
/// `this` is in a circle of pages.
#[inline]
unsafe fn next(this: NonNull<bindings::page>) -> NonNull<bindings::page> {
    // SAFETY: By the safety requirements `this` has a valid entry.
    let entry = unsafe { (*lru(this)).next };

    // SAFETY: By the safety requirements the next entry is a page's.
    unsafe { page(entry) }
}

/// Makes `b` follow `a`.
///
/// # Safety
///
/// Both are valid entries that the caller may change.
#[inline]
unsafe fn link(a: *mut bindings::list_head, b: *mut bindings::list_head) {
    // SAFETY: By the safety requirements.
    unsafe { (*a).next = b };
    // SAFETY: By the safety requirements.
    unsafe { (*b).prev = a };
}
