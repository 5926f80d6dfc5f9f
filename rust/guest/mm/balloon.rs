// SPDX-License-Identifier: GPL-2.0

//! Memory balloons.
//!
//! A page on its way through a balloon is in one of three states, each a type:
//!
//! - [`Pages<Fresh>`](Pages): taken from the page allocator. Dropping them gives them back.
//! - in a [`Balloon`]: nobody has a value. The pages are marked offline, compaction knows them, and the machine's memory
//!   counts as smaller.
//! - [`Pages<Removed>`](Pages): taken out of the balloon. They can only be given back to the page allocator, by dropping them.
//!
//! While a device is told of pages, a [`PfnList`] owns them. It is a buffer that is lent to a queue, so pages of which the
//! device has not answered cannot be used by anybody, whatever becomes of the driver.
//!
//! # Accounting
//!
//! The same figures move as with C drivers: `Balloon` of `/proc/meminfo`, `balloon_inflate` and `balloon_deflate` of
//! `/proc/vmstat`, and, if the balloon is made so, `MemTotal`. The last is adjusted once per run of pages instead of once per
//! page, because each adjustment makes the kernel compute the reserves of all zones.
//!
//! # Locking
//!
//! The list of pages is protected by a lock of the C core, taken with interrupts off and once per call here.
//!
//! C header: [`include/linux/balloon.h`](srctree/include/linux/balloon.h)

mod allocator;
mod pages;
mod pfns;

pub use self::allocator::Allocator;
pub use self::pages::{
    Fresh,
    Pages,
    Removed, //
};
pub use self::pfns::{
    PfnBuffer,
    PfnList,
    MAX_PFNS,
    PFNS_PER_PAGE, //
};

use crate::bindings;
use core::pin::Pin;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    types::Opaque, //
};

/// How many pages are taken out of a balloon under one lock when it is dropped.
const DROP_BATCH: usize = 256;

/// Whether `MemTotal` shrinks by what is in a balloon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Accounting {
    /// It does: the pages are the host's.
    Managed,

    /// It does not: the guest may take the pages back when it needs them.
    Unmanaged,
}

/// Pages that the machine has given up.
///
/// # Invariants
///
/// `info` is initialised and pinned. Every page in its list, or isolated from it by compaction, was a [`Pages<Fresh>`](Pages),
/// and `len` is their number.
#[pin_data(PinnedDrop)]
pub struct Balloon {
    #[pin]
    info: Opaque<bindings::balloon_dev_info>,
    len: Atomic<usize>,
    accounting: Accounting,
}

// SAFETY: The list is protected by a lock of the C core, which is bound to no thread.
unsafe impl Send for Balloon {}

// SAFETY: As above; all methods may be called by several threads at once.
unsafe impl Sync for Balloon {}

impl Balloon {
    /// Makes an empty balloon.
    pub fn new(accounting: Accounting) -> impl PinInit<Self> {
        // INVARIANT: The list is empty.
        pin_init!(Self {
            info <- Opaque::ffi_init(|info: *mut bindings::balloon_dev_info| {
                // SAFETY: `info` is valid for writing.
                unsafe { bindings::balloon_devinfo_init(info) };
                // SAFETY: As above. The C core calls this whenever compaction meets a page, so it must be set.
                unsafe { (*info).migratepage = Some(refuse_migration) };
            }),
            len: Atomic::new(0),
            accounting,
        })
    }

    /// Returns how many pages are in the balloon.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Returns whether the balloon is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts pages into the balloon.
    pub fn enqueue(&self, pages: Pages<Fresh>) {
        let len = pages.len();

        self.adjust(&pages, |count| -count);
        self.len.fetch_add(len, Relaxed);
        pages.give(|list| {
            // SAFETY: `info` is valid by the type invariant; `list` holds pages that nobody else uses.
            unsafe { bindings::balloon_page_list_enqueue(self.info.get(), list) };
        });
    }

    /// Takes up to `max` pages out of the balloon.
    ///
    /// It can give fewer, or none, though there are more, because compaction is looking at them; a little later it gives them.
    pub fn dequeue(&self, max: usize) -> Pages<Removed> {
        let pages = Pages::take(|list| {
            // SAFETY: `info` is valid by the type invariant; `list` is an empty list.
            unsafe { bindings::balloon_page_list_dequeue(self.info.get(), list, max) }
        });

        self.len.fetch_sub(pages.len(), Relaxed);
        self.adjust(&pages, |count| count);
        pages
    }

    /// Adds `change` of each run's length to the machine's memory.
    fn adjust<S>(&self, pages: &Pages<S>, change: impl Fn(isize) -> isize) {
        if self.accounting == Accounting::Unmanaged {
            return;
        }
        pages.for_each_zone(|page, count| {
            // SAFETY: `page` is a valid page. May be called in any context that may take no sleeping lock.
            unsafe { bindings::adjust_managed_page_count(page.as_ptr(), change(count)) };
        });
    }
}

#[pinned_drop]
impl PinnedDrop for Balloon {
    fn drop(self: Pin<&mut Self>) {
        // Pages that compaction has isolated name this balloon. They come back when it has been refused, which is soon: it
        // waits for nobody.
        while !self.is_empty() {
            if self.dequeue(DROP_BATCH).is_empty() {
                fsleep(Delta::from_millis(1));
            }
        }
    }
}

/// Tells compaction that the page stays where it is.
///
/// A new page must not be put in the place of an old one before the device has answered, which is not to be waited for here.
extern "C" fn refuse_migration(
    _info: *mut bindings::balloon_dev_info,
    _new: *mut bindings::page,
    _old: *mut bindings::page,
    _mode: bindings::migrate_mode,
) -> c_int {
    EBUSY.to_errno()
}
