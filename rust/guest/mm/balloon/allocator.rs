// SPDX-License-Identifier: GPL-2.0

//! Taking pages from the page allocator for a balloon.

use super::{
    Fresh,
    Pages,
    MAX_PFNS,
    PFNS_PER_PAGE, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// The most pages that [`Allocator::take`] gives: as many as one [`PfnList`](super::PfnList) can name.
const MAX_PAGES: usize = MAX_PFNS / PFNS_PER_PAGE;

/// After memory had no block, how often single pages are taken before another block is asked for.
const BLOCK_PAUSE: u32 = 32;

/// How C drivers ask for a balloon page: page cache is reclaimed for it, but nothing is retried, no reserve is touched and
/// nobody is killed.
const SINGLE: bindings::gfp_t = bindings::GFP_HIGHUSER_MOVABLE
    | bindings::__GFP_NOMEMALLOC
    | bindings::__GFP_NORETRY
    | bindings::__GFP_NOWARN;

/// For a block nothing is reclaimed or compacted: single pages do as well.
const BLOCK: bindings::gfp_t = SINGLE & !bindings::__GFP_RECLAIM;

/// Takes pages from the page allocator, in ascending runs where memory has them.
///
/// A host that merges neighbouring pages, or backs the guest with huge pages, gains from runs. So a full batch is first asked
/// for as one block; the page allocator's next block usually follows the last one.
pub struct Allocator {
    scratch: KBox<[*mut bindings::page; MAX_PAGES]>,
    /// The order of the largest block that is worth a try.
    order: u32,
    pause: u32,
}

// SAFETY: `scratch` holds no pages between calls.
unsafe impl Send for Allocator {}

impl Allocator {
    /// Allocates what is needed to allocate, mostly for lists of `pfns` page frame numbers.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(pfns: usize) -> Result<Self> {
        let pages = (pfns / PFNS_PER_PAGE).clamp(1, MAX_PAGES);

        Ok(Self {
            order: pages.checked_ilog2().unwrap_or(0),
            scratch: KBox::new([core::ptr::null_mut(); MAX_PAGES], GFP_KERNEL)?,
            pause: 0,
        })
    }

    /// Takes up to `count` pages, but no more than a [`PfnList`](super::PfnList) can name. Sleeps.
    ///
    /// Fewer than that are given only when there are no more.
    pub fn take(&mut self, count: usize) -> Pages<Fresh> {
        if count == 1 << self.order && self.pause == 0 {
            if let Some(pages) = Self::take_block(self.order) {
                return pages;
            }
            self.pause = BLOCK_PAUSE;
        }
        self.pause = self.pause.saturating_sub(1);

        self.take_single(count.min(MAX_PAGES))
    }

    fn take_block(order: u32) -> Option<Pages<Fresh>> {
        // SAFETY: May be called in any context that these flags allow.
        let block = NonNull::new(unsafe { bindings::alloc_pages(BLOCK, order) })?;
        // SAFETY: `block` has just been allocated with this order, and is not compound.
        unsafe { bindings::split_page(block.as_ptr(), order) };

        // SAFETY: It has just been split, and its references are ours.
        Some(unsafe { Pages::from_block(block, order) })
    }

    fn take_single(&mut self, count: usize) -> Pages<Fresh> {
        let scratch = &mut self.scratch[..count];
        scratch.fill(core::ptr::null_mut());

        // Under pressure the allocator gives one page a call.
        let mut got = 0;
        while got < count {
            // SAFETY: `scratch` has `count` elements, of which the first `got` are pages and the others null.
            let now = unsafe { bindings::alloc_pages_bulk(SINGLE, count, scratch.as_mut_ptr()) };
            if now <= got {
                break;
            }
            got = now;
        }

        let scratch = &mut scratch[..got.min(count)];
        sort(scratch);

        let mut pages = Pages::new();
        for page in scratch.iter().filter_map(|page| NonNull::new(*page)) {
            // SAFETY: `page` has just been allocated with order 0; its one reference is ours.
            unsafe { pages.push(page) };
        }
        pages
    }
}

/// Sorts in ascending order, by Shell's method: there are few elements, mostly in runs already.
///
/// The sort of `core` is larger, and panics when an order contradicts itself.
fn sort<T: Copy + Ord>(list: &mut [T]) {
    for gap in [57, 23, 10, 4, 1] {
        for i in gap..list.len() {
            let mut at = i;
            while at >= gap && list[at - gap] > list[at] {
                list.swap(at - gap, at);
                at -= gap;
            }
        }
    }
}
