// SPDX-License-Identifier: GPL-2.0

//! Free page hints: blocks of memory that nobody uses, for a device that copies a guest's memory and may leave them out.
//!
//! A block is taken from the page allocator, so that nobody else has it, and lent to the device. It is free again when its value is
//! dropped, which is possible as soon as the device has returned it.

use crate::{
    bindings,
    virtio::buffer::{
        Buffer,
        Segments, //
    }, //
};
use core::{
    ffi::c_void,
    mem::{
        size_of,
        ManuallyDrop, //
    },
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Only what is free already: nothing is reclaimed or compacted, no reserve is touched.
const FLAGS: bindings::gfp_t =
    bindings::__GFP_NORETRY | bindings::__GFP_NOWARN | bindings::__GFP_NOMEMALLOC;

/// Memory that nobody uses, as large as the page allocator has it in one piece.
///
/// # Invariants
///
/// The value owns the block of the highest order that begins with this page.
pub struct Block(NonNull<bindings::page>);

// SAFETY: Pages are bound to no thread.
unsafe impl Send for Block {}

impl Block {
    /// How many pages a block has.
    pub const PAGES: usize = 1 << bindings::MAX_PAGE_ORDER;

    /// How many bytes a block has.
    pub const BYTES: usize = Self::PAGES * PAGE_SIZE;

    /// Takes a block, if there is one. Does not sleep.
    pub fn take() -> Option<Self> {
        // SAFETY: May be called in any context that these flags allow, which is any.
        let page = unsafe { bindings::alloc_pages(FLAGS, bindings::MAX_PAGE_ORDER) };

        // INVARIANT: It has just been allocated.
        NonNull::new(page).map(Self)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the block is this value's.
        unsafe { bindings::__free_pages(self.0.as_ptr(), bindings::MAX_PAGE_ORDER) };
    }
}

/// What a device is told in the queue for hints.
pub enum Hint {
    /// A number, which the device reads.
    Word(KBox<u32>),

    /// A block, which the device may write.
    Block(Block),
}

impl Hint {
    /// Makes a message of one number, which the device reads with its low byte first. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn word(word: u32) -> Result<Self> {
        Ok(Self::Word(KBox::new(word.to_le(), GFP_KERNEL)?))
    }
}

/// Set in the address of a block's page, which like that of a word is a multiple of four.
const BLOCK: usize = 1;

// SAFETY:
// - `into_raw()` gives the address of the word or of the block's page, of which each is owned by the value. That of a block is
//   marked, so it is told from that of a word, and `from_raw()` takes back the same.
// - What they own is not reachable in between.
// - Of a word the device may write nothing, of a block all.
unsafe impl Buffer for Hint {
    fn into_raw(self) -> NonNull<c_void> {
        match self {
            // SAFETY: A box is never null.
            Self::Word(word) => unsafe { NonNull::new_unchecked(KBox::into_raw(word).cast()) },
            Self::Block(block) => {
                let page = ManuallyDrop::new(block).0;
                page.map_addr(|address| address | BLOCK).cast()
            }
        }
    }

    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        if ptr.addr().get() & BLOCK == 0 {
            // SAFETY: By the safety requirements `ptr` comes from `into_raw()`, and without the mark from `KBox::into_raw()`.
            return Self::Word(unsafe { KBox::from_raw(ptr.as_ptr().cast()) });
        }

        let page = ptr.as_ptr().map_addr(|address| address & !BLOCK).cast();
        // SAFETY: The address of a page is not null.
        let page = unsafe { NonNull::new_unchecked(page) };
        // INVARIANT: By the safety requirements, `into_raw()` has given up the block.
        Self::Block(Block(page))
    }

    fn segments(&self, list: &mut Segments<'_>) -> Result {
        match self {
            // CAST: Four bytes.
            Self::Word(word) => {
                list.push_out(NonNull::from(&**word).cast(), size_of::<u32>() as u32)
            }
            Self::Block(block) => {
                // SAFETY: By the type invariant of `Block` this is a page; without `__GFP_HIGHMEM` it has an address.
                let address = unsafe { bindings::page_address(block.0.as_ptr()) };
                let address = NonNull::new(address.cast()).ok_or(EINVAL)?;
                list.push_in(address, self.capacity())
            }
        }
    }

    fn capacity(&self) -> u32 {
        match self {
            Self::Word(_) => 0,
            // CAST: A few MiB.
            Self::Block(_) => Block::BYTES as u32,
        }
    }
}
