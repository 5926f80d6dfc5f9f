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
//! # Compaction
//!
//! Compaction may put another page in the place of one in a balloon. The device must take the new one and give back the old
//! one, but whoever needs memory is not to wait for the device: compaction only leaves a note, and a [`Watcher`] has the
//! device told later. Until the device has answered for both,
//!
//! - the old page belongs to the balloon, so that nobody can use it, though compaction has done with it;
//! - no page leaves the balloon, because it could be the new one: the device might serve its queues in another order;
//! - the new page is not replaced in turn.
//!
//! # Locking
//!
//! The list of pages is protected by a lock of the C core, taken with interrupts off and once per call here. The notes of
//! compaction have a lock of their own, in process context only; the list's is taken inside it.
//!
//! C header: [`include/linux/balloon.h`](srctree/include/linux/balloon.h)

mod allocator;
mod moves;
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
    COMMON_PFNS,
    MAX_PFNS,
    PFNS_PER_PAGE, //
};

use self::moves::{
    Moves,
    Refusal,
    Replacement, //
};
use crate::bindings;
use core::{
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        CondVar,
        CondVarTimeoutResult,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Msecs, //
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

/// How many replacements are remembered: as many as one list should name.
const MOVES: usize = COMMON_PFNS / PFNS_PER_PAGE;

/// The longest time that compaction waits for the device to make room for one more, in milliseconds.
const MOVE_PATIENCE: Msecs = 100;

/// Hears of what compaction does to a [`Balloon`].
pub trait Watcher: Send + Sync {
    /// Pages were replaced: [`Balloon::list_new`] has something to tell the device of. Must not sleep.
    fn moved(&self);
}

type Page = NonNull<bindings::page>;

/// What compaction has done.
///
/// # Invariants
///
/// The balloon has a reference to each old page that `moves` has not freed.
struct Compaction {
    moves: Moves<KVec<Option<Replacement<Page>>>>,
    watcher: Option<Arc<dyn Watcher>>,
    /// Somebody has waited in vain, and the device has answered for nothing since.
    silent: bool,
}

// SAFETY: Pages are bound to no thread.
unsafe impl Send for Compaction {}

/// Pages that the machine has given up.
///
/// # Invariants
///
/// `info` is initialised and pinned. Every page in its list, or isolated from it by compaction, was a [`Pages<Fresh>`](Pages)
/// or has replaced one, and `len` is their number.
#[pin_data(PinnedDrop)]
pub struct Balloon {
    #[pin]
    info: Opaque<bindings::balloon_dev_info>,
    len: Atomic<usize>,
    accounting: Accounting,
    #[pin]
    compaction: SpinLock<Compaction>,
    #[pin]
    room: CondVar,
}

// SAFETY: The list is protected by a lock of the C core, which is bound to no thread.
unsafe impl Send for Balloon {}

// SAFETY: As above; all methods may be called by several threads at once.
unsafe impl Sync for Balloon {}

impl Balloon {
    /// Makes an empty balloon, whose pages stay where they are until [`watch`](Self::watch).
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(accounting: Accounting) -> impl PinInit<Self, Error> {
        // INVARIANT: The list is empty, and nothing has been replaced.
        try_pin_init!(Self {
            info <- Opaque::ffi_init(|info: *mut bindings::balloon_dev_info| {
                // SAFETY: `info` is valid for writing.
                unsafe { bindings::balloon_devinfo_init(info) };
                // SAFETY: As above. The C core calls this whenever compaction meets a page, so it must be set.
                unsafe { (*info).migratepage = Some(migrate_page) };
            }),
            len: Atomic::new(0),
            accounting,
            compaction <- new_spinlock!(
                Compaction {
                    moves: Moves::new(KVec::from_elem(None, MOVES, GFP_KERNEL)?),
                    watcher: None,
                    silent: false,
                },
                "guest::Balloon::compaction"
            ),
            room <- new_condvar!("guest::Balloon::room"),
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
    /// It can give fewer, or none, though there are more, because compaction is looking at them, or the device has not answered
    /// for what compaction has put in; a little later it gives them. To be sure to come to an end, first
    /// [`keep_still`](Self::keep_still).
    pub fn dequeue(&self, max: usize) -> Pages<Removed> {
        let pages = {
            // Held meanwhile, so that no page comes in that the device has not taken.
            let compaction = self.compaction.lock();
            if !compaction.moves.is_taken() {
                return Pages::new();
            }
            self.take(max)
        };

        self.adjust(&pages, |count| count);
        pages
    }

    fn take(&self, max: usize) -> Pages<Removed> {
        let pages = Pages::take(|list| {
            // SAFETY: `info` is valid by the type invariant; `list` is an empty list.
            unsafe { bindings::balloon_page_list_dequeue(self.info.get(), list, max) }
        });

        self.len.fetch_sub(pages.len(), Relaxed);
        pages
    }

    /// Lets compaction replace pages. `watcher` hears of it until [`unwatch`](Self::unwatch).
    pub fn watch(&self, watcher: Arc<dyn Watcher>) {
        let mut compaction = self.compaction.lock();

        compaction.moves.set_open(true);
        let before = compaction.watcher.replace(watcher);
        drop(compaction);
        // Not under the lock: it may be the last reference.
        drop(before);
    }

    /// Has all pages stay where they are for good. Nobody hears of anything after that.
    pub fn unwatch(&self) {
        let mut compaction = self.compaction.lock();

        compaction.moves.set_open(false);
        let before = compaction.watcher.take();
        drop(compaction);
        drop(before);
        self.room.notify_all();
    }

    /// Has all pages stay where they are while `still`.
    pub fn keep_still(&self, still: bool) {
        let mut compaction = self.compaction.lock();
        let open = !still && compaction.watcher.is_some();

        compaction.moves.set_open(open);
    }

    /// Takes all pages back, of a device that was reset and knows of none any more. They stay where they are from now on. Sleeps.
    pub fn empty(&self) {
        {
            let mut compaction = self.compaction.lock();
            compaction.moves.set_open(false);
            // INVARIANT: The references go as the pages are freed.
            compaction.moves.forget(free);
        }
        self.room.notify_all();

        // Pages that compaction has isolated name this balloon. They come back when it has been refused, which is soon: it
        // waits for nobody.
        while !self.is_empty() {
            let pages = self.dequeue(DROP_BATCH);
            if pages.is_empty() {
                fsleep(Delta::from_millis(1));
            }
        }
    }

    /// Returns whether the device has answered for all that compaction has replaced.
    pub fn is_settled(&self) -> bool {
        self.compaction.lock().moves.is_settled()
    }

    /// Returns how many pages have been replaced, of which the device has given back the old ones.
    pub fn moved(&self) -> u64 {
        self.compaction.lock().moves.count()
    }

    /// Names the pages that compaction has put in and that the device is to be given now, for the inflate queue.
    ///
    /// # Errors
    ///
    /// The memory comes back when there are none, or the device has not answered for the last ones.
    pub fn list_new(&self, buffer: PfnBuffer) -> Result<PfnList<Fresh>, PfnBuffer> {
        let mut compaction = self.compaction.lock();

        // SAFETY: The pages are in the balloon, which they do not leave before the device has answered.
        unsafe { buffer.name(compaction.moves.give()) }
    }

    /// Names the pages that compaction has replaced and that the device is to give back now, for the deflate queue.
    ///
    /// # Errors
    ///
    /// The memory comes back when there are none, or the device has not answered for the last ones.
    pub fn list_old(&self, buffer: PfnBuffer) -> Result<PfnList<Removed>, PfnBuffer> {
        let mut compaction = self.compaction.lock();

        // SAFETY: By the type invariant of `Compaction` there is a reference to each of the pages.
        unsafe { buffer.name(compaction.moves.ask()) }
    }

    /// Takes note that the device has answered for `list`.
    ///
    /// # Errors
    ///
    /// The list comes back if it is not from [`list_new`](Self::list_new).
    pub fn settle_new(&self, list: PfnList<Fresh>) -> Result<PfnBuffer, PfnList<Fresh>> {
        if !list.is_moved() {
            return Err(list);
        }

        let mut compaction = self.compaction.lock();
        compaction.moves.taken();
        compaction.silent = false;
        Ok(list.unload().0)
    }

    /// Takes note that the device has answered for `list`, and gives the pages back to the page allocator.
    ///
    /// # Errors
    ///
    /// The list comes back if it is not from [`list_old`](Self::list_old).
    pub fn settle_old(&self, list: PfnList<Removed>) -> Result<PfnBuffer, PfnList<Removed>> {
        if !list.is_moved() {
            return Err(list);
        }

        let mut compaction = self.compaction.lock();
        // INVARIANT: The references go as the pages are freed.
        compaction.moves.freed(free);
        compaction.silent = false;
        drop(compaction);
        self.room.notify_all();
        Ok(list.unload().0)
    }

    /// Puts `new` in the place of `old`. With `may_wait`, waits a little for room to note that.
    ///
    /// # Errors
    ///
    /// [`EBUSY`]: `old` stays where it is. [`EAGAIN`]: it might be movable soon.
    ///
    /// # Safety
    ///
    /// `old` is isolated from this balloon, and `new` is not in use.
    unsafe fn replace(&self, new: Page, old: Page, may_wait: bool) -> Result {
        // SAFETY: By the safety requirements `new` is a valid page.
        if unsafe { pfns::first_pfn(new, 1) }.is_none() {
            return Err(EBUSY);
        }

        let mut patience = msecs_to_jiffies(MOVE_PATIENCE);
        let mut compaction = self.compaction.lock();
        while let Err(refusal) = compaction.moves.make(new, old) {
            match refusal {
                Refusal::Closed | Refusal::Untaken => return Err(EBUSY),
                Refusal::Full if compaction.silent => return Err(EBUSY),
                Refusal::Full if !may_wait => return Err(EAGAIN),
                Refusal::Full => {}
            }
            match self
                .room
                .wait_interruptible_timeout(&mut compaction, patience)
            {
                CondVarTimeoutResult::Woken { jiffies } => patience = jiffies,
                CondVarTimeoutResult::Signal { .. } => return Err(EBUSY),
                CondVarTimeoutResult::Timeout => {
                    compaction.silent = true;
                    return Err(EBUSY);
                }
            }
        }
        // INVARIANT: This is the reference. Compaction drops that of the balloon, and its own.
        // SAFETY: By the safety requirements `old` is in the balloon, which has a reference to it.
        unsafe { bindings::get_page(old.as_ptr()) };
        if let Some(watcher) = &compaction.watcher {
            watcher.moved();
        }
        drop(compaction);

        if self.accounting == Accounting::Managed {
            // SAFETY: `old` is a valid page, of which compaction holds a reference meanwhile.
            let from = unsafe { bindings::page_zone(old.as_ptr()) };
            // SAFETY: By the safety requirements `new` is a valid page.
            let to = unsafe { bindings::page_zone(new.as_ptr()) };
            if from != to {
                // SAFETY: `old` is valid, as above.
                unsafe { bindings::adjust_managed_page_count(old.as_ptr(), 1) };
                // SAFETY: `new` is valid; as above.
                unsafe { bindings::adjust_managed_page_count(new.as_ptr(), -1) };
            }
        }
        Ok(())
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
        self.unwatch();
        self.empty();
    }
}

/// Drops the reference to a page that was replaced. Compaction may have another one for a moment.
fn free(page: Page) {
    // SAFETY: By the type invariant of `Compaction` there is a reference, which the caller gives up.
    unsafe { bindings::__free_pages(page.as_ptr(), 0) };
}

/// Compaction asks for `old`, which it has isolated from the balloon, to be replaced by `new`. Both are locked.
extern "C" fn migrate_page(
    info: *mut bindings::balloon_dev_info,
    new: *mut bindings::page,
    old: *mut bindings::page,
    mode: bindings::migrate_mode,
) -> c_int {
    let (Some(new), Some(old)) = (NonNull::new(new), NonNull::new(old)) else {
        return EINVAL.to_errno();
    };
    let info: *mut Opaque<bindings::balloon_dev_info> = info.cast();
    // SAFETY: The C core calls with the `info` of a balloon.
    let balloon: *mut Balloon = unsafe { kernel::container_of!(info, Balloon, info) };
    // SAFETY: The balloon is valid, as it is not dropped before all pages that are isolated from it are back.
    let balloon = unsafe { &*balloon };
    let may_wait = mode != bindings::migrate_mode_MIGRATE_ASYNC;

    // SAFETY: `old` is isolated and `new` is the page that compaction has taken to replace it.
    match unsafe { balloon.replace(new, old, may_wait) } {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}
