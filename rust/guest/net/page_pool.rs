// SPDX-License-Identifier: GPL-2.0

//! Page pools: memory to receive into, recycled by the stack.
//!
//! A pool belongs to one NAPI instance, which owns it: only the instance's poll allocates from it, which the C API demands
//! and does not check, and what the stack frees on the same CPU goes back to the pool without a lock.
//!
//! C header: [`include/net/page_pool/helpers.h`](srctree/include/net/page_pool/helpers.h)

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// The size of the smallest [`Fragment`], and what each size is a multiple of.
///
/// A power of two that divides a page, so that a fragment's address is a multiple of it too.
pub const UNIT: usize = 2048;

const _: () = assert!(PAGE_SIZE % UNIT == 0);

/// A fragment has fewer units. In [`Fragment::into_packed`]'s number the bits from this one on are zero, below [`UNIT`], for its user.
pub(super) const MAX_UNITS: usize = 64;

/// What a pool is made for.
#[derive(Clone, Copy)]
pub struct Params {
    /// The order of the pool's pages: no fragment is larger than one of them.
    pub order: u32,

    /// How many pages the pool keeps for reuse.
    pub entries: u32,
}

/// A page pool.
///
/// # Invariants
///
/// - `pool` is valid and owned by this value; nobody else allocates from it, and always whole pages.
/// - `max` is the size of its pages, less than [`UNIT`] times [`MAX_UNITS`] bytes.
/// - `rxq` is registered, with this pool.
pub(super) struct Pool {
    pool: NonNull<bindings::page_pool>,
    max: usize,
    rest: Rest,
    rxq: KBox<bindings::xdp_rxq_info>,
}

/// The pieces of a page that have not been handed out; none to begin with.
///
/// `page_pool_alloc_frag()` and its kin count for each piece; here a page is cut once.
///
/// # Invariants
///
/// There are `count` pieces of `size` bytes, which are multiples of [`UNIT`], and not zero if there is a piece, from `next` on, each of
/// which this value owns one reference of the page for.
struct Rest {
    next: *mut u8,
    size: u32,
    count: u32,
    /// Of how many units they were wanted.
    wanted: u32,
    /// How many of them a page is cut into, which is large enough.
    pieces: u32,
}

impl Rest {
    const NONE: Self = Self {
        next: core::ptr::null_mut(),
        size: 0,
        count: 0,
        wanted: 0,
        pieces: 0,
    };

    /// Says how pages of `max` bytes are cut into as many pieces as there can be of at least `units`. Returns [`None`] when there is none.
    fn of(units: u32, max: u32) -> Option<Self> {
        let pieces = max.checked_div(units.checked_mul(UNIT as u32)?)?;

        Some(Self {
            size: max.checked_div(pieces)? / UNIT as u32 * UNIT as u32,
            wanted: units,
            pieces,
            ..Self::NONE
        })
    }

    /// Returns the next piece.
    #[inline]
    fn pop(&mut self) -> Option<Fragment> {
        let left = self.count.checked_sub(1)?;
        let ptr = NonNull::new(self.next)?;

        self.next = self.next.wrapping_add(self.size as usize);
        // INVARIANT: This piece is given out here, with its reference.
        self.count = left;
        // INVARIANT: By the type invariant it is one, and its reference passes on. Pages begin at multiples of `UNIT`, and so do pieces.
        Some(Fragment {
            ptr,
            size: self.size,
            _owned: PhantomData,
        })
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

// SAFETY: A pool is bound to no thread, only to one user at a time.
unsafe impl Send for Pool {}

impl Pool {
    /// Makes a pool for receive queue `queue` of the device `dev`. Sleeps.
    ///
    /// # Safety
    ///
    /// `dev` is valid as long as the pool, and is unregistered while it still is valid.
    pub(super) unsafe fn new(
        dev: *mut bindings::net_device,
        queue: u32,
        params: Params,
    ) -> Result<Self> {
        let max = PAGE_SIZE.checked_shl(params.order).ok_or(EINVAL)?;
        if max / UNIT >= MAX_UNITS {
            // The number of units would not fit into the bits that are zero in an address.
            return Err(EINVAL);
        }
        let mut raw = bindings::page_pool_params::default();

        {
            // SAFETY: The two views of this union have the same fields.
            let fast = unsafe { raw.__bindgen_anon_1.fast.as_mut() };
            fast.order = params.order;
            fast.pool_size = params.entries;
            fast.nid = bindings::NUMA_NO_NODE;
        }
        raw.__bindgen_anon_2.slow.netdev = dev;

        let rxq = KBox::new(bindings::xdp_rxq_info::default(), GFP_KERNEL)?;
        // SAFETY: `raw` is initialised; C copies it. By the safety requirements `dev` lives long enough.
        let pool = from_err_ptr(unsafe { bindings::page_pool_create(&raw) })?;
        let pool = NonNull::new(pool).ok_or(ENOMEM)?;

        // INVARIANT: It has just been made. If it cannot be registered, `drop()` finds that.
        let mut this = Self {
            pool,
            max,
            rest: Rest::NONE,
            rxq,
        };
        // SAFETY: `rxq` is zeroed memory, unregistered when it is freed; `dev` lives long enough.
        to_result(unsafe { bindings::xdp_rxq_info_reg(&mut *this.rxq, dev, queue, 0) })?;
        // SAFETY: `rxq` has been registered; the pool is valid, and gets a user by this.
        to_result(unsafe {
            bindings::xdp_rxq_info_reg_mem_model(
                &mut *this.rxq,
                bindings::xdp_mem_type_MEM_TYPE_PAGE_POOL,
                pool.as_ptr().cast(),
            )
        })?;
        Ok(this)
    }

    /// Lets what is freed in the polls of `napi` go back without a lock.
    ///
    /// # Safety
    ///
    /// `napi` is disabled, it alone uses the pool from now on, and it is disabled again and valid when the pool is dropped, or
    /// [belongs to nobody](Self::belong_to_nobody) any more.
    pub(super) unsafe fn belong_to(&self, napi: *mut bindings::napi_struct) {
        // SAFETY: By the type invariant the pool is valid; the rest are the safety requirements.
        unsafe { bindings::page_pool_enable_direct_recycling(self.pool.as_ptr(), napi) };
    }

    /// Ends what [`belong_to`](Self::belong_to) has begun. The instance is disabled.
    pub(super) fn belong_to_nobody(&self) {
        // SAFETY: By the type invariant the pool is valid.
        unsafe { bindings::page_pool_disable_direct_recycling(self.pool.as_ptr()) };
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.rxq.reg_state != 0 {
            // SAFETY: It has been registered, and its user is gone.
            unsafe { bindings::xdp_rxq_info_unreg(&mut *self.rxq) };
        }
        self.rest = Rest::NONE;
        // SAFETY: By the type invariant the pool is valid and owned. C keeps it until the last fragment has been freed.
        unsafe { bindings::page_pool_destroy(self.pool.as_ptr()) };
    }
}

/// Whether an allocation may sleep for memory to become free.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// In process context.
    Yes,
    /// In a poll.
    No,
}

/// The pool of a NAPI instance, in its hands.
pub struct PoolRef<'a>(&'a mut Pool);

impl<'a> PoolRef<'a> {
    pub(super) fn new(pool: &'a mut Pool) -> Self {
        Self(pool)
    }

    /// Returns what programs are told of the queue.
    #[inline]
    pub(super) fn rxq(&mut self) -> *mut bindings::xdp_rxq_info {
        &mut *self.0.rxq
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> NonNull<bindings::page_pool> {
        self.0.pool
    }

    /// Allocates a fragment of at least `units` times [`UNIT`] bytes. Returns [`None`] when there is no memory, or the size is
    /// zero or more than a page of the pool.
    ///
    /// A fragment is larger than asked when the rest of its page is of no use to anybody else.
    #[inline]
    pub fn alloc(&mut self, units: u32, wait: Wait) -> Option<Fragment> {
        if self.0.rest.wanted == units {
            if let Some(fragment) = self.0.rest.pop() {
                return Some(fragment);
            }
        }
        self.cut(units, wait)
    }

    /// Allocates a page, and returns the first of the pieces of at least `units` that it is cut into. There is none left of the last
    /// one that was cut so.
    #[inline(never)]
    fn cut(&mut self, units: u32, wait: Wait) -> Option<Fragment> {
        if self.0.rest.wanted != units || self.0.rest.pieces == 0 {
            // CAST: A page is far smaller than 4 GiB.
            self.0.rest = Rest::of(units, self.0.max as u32)?;
        }

        let gfp = match wait {
            Wait::Yes => bindings::GFP_KERNEL,
            Wait::No => bindings::GFP_ATOMIC,
        };
        // SAFETY: By the type invariant the pool is valid, and the exclusive reference makes this its only user.
        let page = unsafe {
            bindings::page_pool_alloc_pages(self.0.pool.as_ptr(), gfp | bindings::__GFP_NOWARN)
        };
        if page.is_null() {
            return None;
        }

        let rest = &mut self.0.rest;
        if rest.pieces > 1 {
            // CAST: A page is far smaller than 2 GiB.
            // SAFETY: The page is valid, has just been allocated, and nobody else has a reference.
            unsafe { bindings::page_pool_fragment_page(page, rest.pieces as c_long) };
        }
        // INVARIANT: There was none left. The page is at least so large, and has as many references.
        // SAFETY: `page` is valid, and not in high memory: that was not asked for.
        rest.next = unsafe { bindings::page_address(page) }.cast();
        rest.count = rest.pieces;
        rest.pop()
    }
}

/// A piece of a page of a pool.
///
/// It can be freed in any context, also after the pool's owner is gone.
///
/// # Invariants
///
/// - `ptr` is valid for `size` bytes, which this value owns one reference of its page for.
/// - Both are multiples of [`UNIT`], and not zero.
pub struct Fragment {
    ptr: NonNull<u8>,
    size: u32,
    _owned: PhantomData<u8>,
}

// SAFETY: A fragment is memory, bound to no thread.
unsafe impl Send for Fragment {}

impl Fragment {
    /// Returns where it begins.
    #[inline]
    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Returns the size in bytes.
    #[inline]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Returns the page, or the first of the pages, that the fragment is a piece of, and where in it it begins.
    #[inline]
    pub(super) fn page(&self) -> (*mut bindings::page, u32) {
        // SAFETY: By the type invariant `ptr` is in the linear map.
        let page = unsafe { bindings::virt_to_head_page(self.ptr.as_ptr().cast()) };
        // SAFETY: `page` is valid.
        let base = unsafe { bindings::page_address(page) };

        // CAST: A pool's page is far smaller than 4 GiB.
        (
            page,
            (self.ptr.as_ptr() as usize).wrapping_sub(base as usize) as u32,
        )
    }

    /// Returns whether a pool would hand it out again: not when the system was short of memory, or had it on another node, when it was
    /// allocated.
    #[inline]
    pub(super) fn is_reusable(&self) -> bool {
        // SAFETY: By the type invariant `ptr` is in the linear map.
        let page = unsafe { bindings::virt_to_head_page(self.ptr.as_ptr().cast()) };

        // SAFETY: `page` is valid.
        unsafe { bindings::dev_page_is_reusable(page) }
    }

    /// Gives up the value; the reference is the caller's to pass on.
    #[inline]
    pub(super) fn forget(self) -> NonNull<u8> {
        core::mem::ManuallyDrop::new(self).ptr
    }

    /// Restores the value.
    ///
    /// # Safety
    ///
    /// The value that these are of was given up by [`forget`](Self::forget), and the owner passes on the reference.
    #[inline]
    pub(super) unsafe fn from_raw(ptr: NonNull<u8>, size: u32) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            ptr,
            size,
            _owned: PhantomData,
        }
    }

    /// Gives up the value for a number, which is not zero, and in which some bits are, see [`MAX_UNITS`].
    #[inline]
    pub(super) fn into_packed(self) -> usize {
        let units = self.size as usize / UNIT;

        // By the type invariant of `Pool` the number is below `MAX_UNITS`, where the address has zeros.
        self.forget().as_ptr() as usize | units
    }

    /// Restores the value.
    ///
    /// # Safety
    ///
    /// `packed` comes from [`into_packed`](Self::into_packed) and is restored once.
    #[inline]
    pub(super) unsafe fn from_packed(packed: usize) -> Self {
        let ptr = (packed & !(UNIT - 1)) as *mut u8;

        // INVARIANT: By the safety requirements these are the parts of a fragment.
        Self {
            // SAFETY: The pointer of a fragment is not null.
            ptr: unsafe { NonNull::new_unchecked(ptr) },
            // CAST: A fragment's size fits, see `into_packed()`.
            size: ((packed & (MAX_UNITS - 1)) * UNIT) as u32,
            _owned: PhantomData,
        }
    }
}

impl Drop for Fragment {
    fn drop(&mut self) {
        let (page, _) = self.page();

        // SAFETY: By the type invariant `page` is valid, comes from a page pool, and one reference is owned, which is given up.
        unsafe { put(page) };
    }
}

/// Gives a page's reference back to its pool.
///
/// # Safety
///
/// `page` is valid and comes from a page pool, and the caller owns a reference, which ends.
unsafe fn put(page: *mut bindings::page) {
    // SAFETY: By the safety requirements.
    let desc = unsafe { bindings::pp_page_to_nmdesc(page) };
    // SAFETY: As above; a pool lives at least as long as its pages.
    let pool = unsafe { (*desc).pp };

    // SAFETY: By the safety requirements.
    unsafe { bindings::page_pool_put_full_page(pool, page, false) };
}

/// A [`Fragment`] as packets list it: by its page instead of its address.
///
/// # Invariants
///
/// The value describes memory of a page of a page pool, which it owns one reference of the page for.
#[repr(transparent)]
pub struct Listed(bindings::skb_frag_t);

// SAFETY: A fragment is memory, bound to no thread.
unsafe impl Send for Listed {}

impl Listed {
    /// Returns the size in bytes.
    #[inline]
    pub fn size(&self) -> u32 {
        self.0.len
    }

    /// Returns the page, or the first of the pages, that the fragment is a piece of, and where in it it begins.
    #[inline]
    pub(super) fn page(&self) -> (*mut bindings::page, u32) {
        (self.0.netmem as *mut bindings::page, self.0.offset)
    }

    /// Takes over an entry of a packet's list.
    ///
    /// # Safety
    ///
    /// The entry comes from [`into_raw`](Self::into_raw), and the owner passes on the reference.
    #[inline]
    pub(super) unsafe fn from_raw(entry: bindings::skb_frag_t) -> Self {
        // INVARIANT: By the safety requirements.
        Self(entry)
    }

    /// Gives up the value; the reference is the caller's to pass on.
    #[inline]
    pub(super) fn into_raw(self) -> bindings::skb_frag_t {
        core::mem::ManuallyDrop::new(self).0
    }
}

impl From<Fragment> for Listed {
    #[inline]
    fn from(fragment: Fragment) -> Self {
        let (page, offset) = fragment.page();
        let len = fragment.size();
        let _ = fragment.forget();

        // INVARIANT: The reference passes to the value.
        Self(bindings::skb_frag_t {
            // As `page_to_netmem()`.
            netmem: page as bindings::netmem_ref,
            len,
            offset,
        })
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let (page, _) = self.page();

        // SAFETY: By the type invariant `page` is valid, comes from a page pool, and one reference is owned, which is given up.
        unsafe { put(page) };
    }
}
