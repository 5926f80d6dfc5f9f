// SPDX-License-Identifier: GPL-2.0

//! XDP: programs of the user's that see received packets before the stack does.
//!
//! A device has at most one program for all its receive queues. A poll finds it by [`Context::program`] and makes a [`Buff`] of
//! each packet that it receives meanwhile; [`Buff::run`] says what is to become of it.
//!
//! # What a driver sees to
//!
//! - A program sees one packet at a time, as it was on the wire: the device merges none
//!   ([`Features::GRO_HW`](super::features::Features::GRO_HW) is off), and checksums that are missing are filled in
//!   ([`Buff::fill_checksum`]).
//! - A program can put headers before a packet: buffers have [`Room::Program`] while there is one.
//!   Those that the device already has when a program comes are copied ([`Buff::new`] does).
//! - [`Frame`]s, the packets of programs, go out by [`Transmit::xdp_xmit`](super::transmit::Transmit::xdp_xmit).
//!
//! C header: [`include/net/xdp.h`](srctree/include/net/xdp.h)

mod attach;
mod checksum;
mod frame;
mod metadata;

pub(super) use self::{
    attach::bpf_callback,
    checksum::fill_checksum,
    frame::xdp_xmit_callback,
    metadata::RX_HASH, //
};
pub use self::{
    attach::Attached,
    frame::{
        Bulk,
        Frame,
        Frames, //
    },
    metadata::{
        Ports,
        RxHash, //
    }, //
};

use super::{
    buffer::{
        List,
        Room,
        RxBuffer, //
    },
    napi::Context,
    page_pool::{
        Fragment,
        Listed,
        PoolRef,
        Wait,
        UNIT, //
    },
    skbuff::ETH_HLEN, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    types::NotThreadSafe, //
};

/// A program, in a poll.
///
/// # Invariants
///
/// `prog` is a valid program for packets, at least until the poll is over.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    prog: NonNull<bindings::bpf_prog>,
    _poll: PhantomData<&'a NotThreadSafe>,
}

impl Program<'_> {
    /// # Safety
    ///
    /// `prog` is a valid program for packets, as long as the value exists.
    #[inline]
    pub(super) unsafe fn from_raw(prog: NonNull<bindings::bpf_prog>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            prog,
            _poll: PhantomData,
        }
    }

    /// Returns whether the program understands packets in several fragments. One that does not sees only their first.
    #[inline]
    pub fn takes_fragments(&self) -> bool {
        // SAFETY: By the type invariant `prog` is valid.
        let aux = unsafe { (*self.prog.as_ptr()).aux };

        // SAFETY: A program has this as long as it is valid, and it does not change.
        unsafe { (*aux).xdp_has_frags }
    }

    /// A packet that it wants sent cannot be.
    #[cold]
    pub(super) fn fail_to_transmit(&self, cx: &Context<'_>) -> Verdict {
        // SAFETY: By the type invariants all are valid.
        unsafe {
            bindings::trace_xdp_exception(cx.dev(), self.prog.as_ptr(), bindings::xdp_action_XDP_TX)
        };
        Verdict::Dropped
    }
}

/// What is to become of a packet.
pub enum Verdict {
    /// The stack gets it, by [`RxSkBuff::from_buff`](super::skbuff::RxSkBuff::from_buff).
    Pass,
    /// It goes out by the device that it came from.
    Transmit(Frame),
    /// It is another device's, or a socket's, as soon as [`Context::flush_redirects`] is called.
    Redirected,
    /// It is to be dropped.
    Dropped,
}

const _: () = assert!(offset_of!(Buff<'_>, hash) == size_of::<bindings::xdp_buff>());

/// A received packet, for a program.
///
/// # Invariants
///
/// - `raw` describes memory of the page pool of the instance that is being polled, which the value owns; or its `data` is null,
///   and the packet has gone elsewhere.
/// - The linear part holds at least an Ethernet header, and has room for the shared info behind it.
/// - `pool` is that page pool.
#[repr(C)]
pub struct Buff<'a> {
    raw: bindings::xdp_buff,
    /// Where [`RX_HASH`] looks for it.
    hash: RxHash,
    pool: NonNull<bindings::page_pool>,
    _poll: PhantomData<&'a NotThreadSafe>,
}

impl<'a> Buff<'a> {
    /// Makes a packet for `program` of what a device wrote into `buffer`: `len` bytes, the first `skip` of which are not part of
    /// it. It is copied if there is too little room before it, or as much of it as there is room for then.
    ///
    /// Returns [`None`] when there is no memory, when `len` is more than the buffer holds, or the packet is shorter than an
    /// Ethernet header.
    #[inline(always)]
    pub fn new(
        buffer: RxBuffer,
        skip: u32,
        len: u32,
        program: Program<'a>,
        cx: &mut Context<'a>,
    ) -> Option<Self> {
        if len > buffer.capacity() || len.checked_sub(skip)? < ETH_HLEN {
            return None;
        }
        let mut pool = cx.pool()?;

        let head = len.min(buffer.head_capacity());
        if buffer.headroom() == Room::Stack.headroom() {
            return Self::copy(buffer, skip, head, len, program, &mut pool);
        }
        let headroom = buffer.headroom();
        match buffer.into_parts() {
            (first, None) => Some(Self::wrap(first, headroom, skip, head, &mut pool)),
            (first, Some(rest)) => {
                // On an error the list goes first: it lies in the packet's memory.
                let mut this = Self::wrap(first, headroom, skip, head, &mut pool);
                this.append_list(rest, len.wrapping_sub(head), program)
                    .ok()?;
                Some(this)
            }
        }
    }

    /// Appends as many fragments as `len` bytes take.
    fn append_list(&mut self, mut list: List, mut len: u32, program: Program<'a>) -> Result {
        if len > 0 && !program.takes_fragments() {
            return Err(E2BIG);
        }
        // Their list lies where the fragments are listed: an entry is read before it is written.
        while len > 0 {
            let fragment = list.next().ok_or(EINVAL)?;
            let part = len.min(fragment.size());
            self.append_fragment(fragment, 0, part)?;
            len = len.wrapping_sub(part);
        }
        Ok(())
    }

    /// Makes a packet of the first `len` bytes of a buffer, which has no pages: of none, if they are more than it holds or fewer than an
    /// Ethernet header.
    pub(super) fn of_copy(buffer: RxBuffer, len: u32, cx: &mut Context<'a>) -> Option<Self> {
        if len > buffer.head_capacity() || len < ETH_HLEN {
            return None;
        }

        let headroom = buffer.headroom();
        let (first, _) = buffer.into_parts();
        Some(Self::wrap(first, headroom, 0, len, &mut cx.pool()?))
    }

    /// Makes a packet of the first fragment of a buffer: of the bytes from `skip` to `len`, which there are, behind `headroom` bytes.
    #[inline]
    fn wrap(
        fragment: Fragment,
        headroom: u32,
        skip: u32,
        len: u32,
        pool: &mut PoolRef<'_>,
    ) -> Self {
        let frame_sz = fragment.size();
        let start = fragment.forget().as_ptr();
        // SAFETY: The sum is at most the buffer's size.
        let data = unsafe { start.add(headroom.wrapping_add(skip) as usize) };
        // SAFETY: As above: `len` is at most the capacity, and not less than `skip`.
        let end = unsafe { data.add(len.wrapping_sub(skip) as usize) };

        let mut raw: bindings::xdp_buff = pin_init::zeroed();
        raw.data_hard_start = start.cast();
        raw.data = data.cast();
        raw.data_meta = data.cast();
        raw.data_end = end.cast();
        raw.rxq = pool.rxq();
        raw.__bindgen_anon_1.__bindgen_anon_1.frame_sz = frame_sz;
        // INVARIANT: The fragment is a pool's; its owner is the value now. The callers have checked the lengths.
        Self {
            raw,
            hash: RxHash::NONE,
            pool: pool.as_ptr(),
            _poll: PhantomData,
        }
    }

    /// Copies the first `head` bytes of a buffer into a page, with room before them; what does not fit becomes a fragment. The
    /// rest of the `len` bytes are in the fragments that follow.
    #[cold]
    fn copy(
        buffer: RxBuffer,
        skip: u32,
        head: u32,
        len: u32,
        program: Program<'a>,
        pool: &mut PoolRef<'_>,
    ) -> Option<Self> {
        // CAST: A page is a few units.
        const PAGE: u32 = (PAGE_SIZE / UNIT) as u32;

        let mut copy = RxBuffer::new(pool.alloc(PAGE, Wait::No)?, Room::Program);
        let first = head.min(copy.head_capacity());
        copy.copy_from(&buffer, 0, first)?;
        let headroom = copy.headroom();
        let (fragment, _) = copy.into_parts();
        let mut this = Self::wrap(fragment, headroom, skip, first, pool);

        if first < head {
            if !program.takes_fragments() {
                return None;
            }
            let mut copy = RxBuffer::new(pool.alloc(PAGE, Wait::No)?, Room::Stack);
            copy.copy_from(&buffer, first, head.wrapping_sub(first))?;
            this.append(copy, head.wrapping_sub(first)).ok()?;
        }
        // The first fragment holds the list of the others, which go first.
        let (_first, rest) = buffer.into_parts();
        if let Some(rest) = rest {
            this.append_list(rest, len.wrapping_sub(head), program)
                .ok()?;
        }
        Some(this)
    }

    /// Appends the `len` bytes that a device wrote into `buffer`, as a fragment: only for a program that
    /// [takes them](Program::takes_fragments).
    ///
    /// # Errors
    ///
    /// [`EINVAL`]: `len` is 0 or more than the buffer holds. [`E2BIG`]: there are too many fragments.
    pub fn append(&mut self, buffer: RxBuffer, len: u32) -> Result {
        if len > buffer.head_capacity() {
            return Err(EINVAL);
        }

        let headroom = buffer.headroom();
        let (fragment, _) = buffer.into_parts();
        self.append_fragment(fragment.into(), headroom, len)
    }

    /// Appends the `len` bytes from `start` of a fragment, in which they are.
    fn append_fragment(&mut self, fragment: Listed, start: u32, len: u32) -> Result {
        if len == 0 || self.is_gone() {
            return Err(EINVAL);
        }

        let (page, offset) = fragment.page();
        // SAFETY: `page` is valid.
        let netmem = unsafe { bindings::page_to_netmem(page) };
        // SAFETY: By the type invariant `raw` has room for the shared info. The page's reference passes to it on success.
        let added = unsafe {
            bindings::xdp_buff_add_frag(
                &mut self.raw,
                netmem,
                offset.wrapping_add(start),
                len,
                fragment.size(),
            )
        };
        if !added {
            return Err(E2BIG);
        }
        let _ = fragment.into_raw();
        Ok(())
    }

    /// Appends the `len` bytes that a device wrote into `buffer` to the linear part, by a copy.
    ///
    /// # Errors
    ///
    /// [`EINVAL`]: `len` is 0 or more than the buffer holds, or there are fragments already. [`E2BIG`]: they do not fit.
    pub fn append_copy(&mut self, buffer: &RxBuffer, len: u32) -> Result {
        if self.is_gone() || len == 0 || len > buffer.head_capacity() || self.fragments().is_some()
        {
            return Err(EINVAL);
        }
        let end: *mut u8 = self.raw.data_end.cast();
        // SAFETY: The fields of both views are in use at any time.
        let frame_sz = unsafe { self.raw.__bindgen_anon_1.__bindgen_anon_1.frame_sz };
        let used = (end as usize).wrapping_sub(self.raw.data_hard_start as usize);
        let room = (frame_sz as usize)
            .saturating_sub(RxBuffer::TAILROOM as usize)
            .saturating_sub(used);
        if len as usize > room {
            return Err(E2BIG);
        }

        // SAFETY: There is room for `len` bytes, as has just been checked, and the buffer holds as many.
        unsafe { core::ptr::copy_nonoverlapping(buffer.data().as_ptr(), end, len as usize) };
        // SAFETY: As above.
        self.raw.data_end = unsafe { end.add(len as usize) }.cast();
        Ok(())
    }

    /// Returns the length in bytes of the linear part.
    #[inline]
    fn head_len(&self) -> usize {
        (self.raw.data_end as usize).wrapping_sub(self.raw.data as usize)
    }

    /// Returns what describes the fragments, if there are any.
    #[inline]
    fn fragments(&self) -> Option<&bindings::skb_shared_info> {
        // As `xdp_buff_has_frags()`, without the call.
        // SAFETY: The fields of both views are in use at any time.
        let flags = unsafe { self.raw.__bindgen_anon_1.__bindgen_anon_1.flags };
        if flags & bindings::xdp_buff_flags_XDP_FLAGS_HAS_FRAGS == 0 {
            return None;
        }
        // SAFETY: By the type invariant there is room for it; with fragments it has been filled in.
        Some(unsafe { &*bindings::xdp_get_shared_info_from_buff(&self.raw) })
    }

    /// Returns the length in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        let more = self.fragments().map_or(0, |info| {
            // SAFETY: With fragments this member of the union is the one in use.
            unsafe { info.__bindgen_anon_2.__bindgen_anon_1.xdp_frags_size }
        });

        // CAST: A packet lies in buffers that together are far smaller.
        more.wrapping_add(self.head_len() as u32)
    }

    /// Fills in a checksum that is missing: over everything from `start`, at `start` plus `offset`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the place is not in the linear part.
    pub fn fill_checksum(&mut self, start: u16, offset: u16) -> Result {
        if self.is_gone() {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariants the packet is valid.
        unsafe { fill_checksum(&mut self.raw, start, offset) }
    }

    /// Has programs find this hash, if they ask for one.
    #[inline]
    pub fn set_hash(&mut self, hash: RxHash) {
        self.hash = hash;
    }

    /// Runs a program on the packet, which must not have gone elsewhere before: once. What goes elsewhere now leaves nothing here.
    #[inline]
    pub fn run(&mut self, program: Program<'a>, cx: &Context<'a>) -> Verdict {
        if self.is_gone() {
            return Verdict::Dropped;
        }

        // With what is behind it.
        let raw = core::ptr::from_mut(self).cast();
        // SAFETY: By the type invariants the packet is valid.
        match unsafe { run_on(raw, program, cx) } {
            Action::Pass => Verdict::Pass,
            Action::Drop => Verdict::Dropped,
            Action::Redirected => {
                self.leave();
                Verdict::Redirected
            }
            Action::Transmit => {
                Frame::new(self).map_or_else(|| program.fail_to_transmit(cx), Verdict::Transmit)
            }
        }
    }

    /// Takes the memory of a packet that goes nowhere, to receive into it again: what a pool would do with it, without the way there
    /// and back. The packet has gone then.
    ///
    /// Returns [`None`] when it has gone elsewhere before, has fragments, or had better go back to the pool, which knows when to give
    /// memory back to the system.
    #[inline]
    pub fn take_buffer(&mut self) -> Option<RxBuffer> {
        if self.is_gone() || self.fragments().is_some() {
            return None;
        }
        let start = NonNull::new(self.raw.data_hard_start.cast())?;
        // SAFETY: The fields of both views are in use at any time; a program cannot change this one.
        let size = unsafe { self.raw.__bindgen_anon_1.__bindgen_anon_1.frame_sz };

        self.leave();
        // SAFETY: By the type invariant this was the packet's, made of a fragment in `wrap()`, and the packet has just left it.
        let fragment = unsafe { Fragment::from_raw(start, size) };
        if !fragment.is_reusable() {
            return None;
        }
        Some(RxBuffer::new(fragment, Room::Program))
    }

    /// The memory is another's now.
    #[inline]
    pub(super) fn leave(&mut self) {
        // INVARIANT: That is what null means. There is no linear part and there are no fragments.
        self.raw.data = core::ptr::null_mut();
        self.raw.data_end = core::ptr::null_mut();
        self.raw.__bindgen_anon_1.__bindgen_anon_1.flags = 0;
    }

    /// Returns whether the packet has gone elsewhere.
    #[inline]
    pub(super) fn is_gone(&self) -> bool {
        self.raw.data.is_null()
    }

    #[inline]
    pub(super) fn as_raw(&mut self) -> &mut bindings::xdp_buff {
        &mut self.raw
    }
}

impl Drop for Buff<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.is_gone() {
            return;
        }
        if self.fragments().is_some() {
            // SAFETY: By the type invariant the memory is owned, and of the pool of the instance that is being polled.
            return unsafe { bindings::xdp_return_buff(&mut self.raw) };
        }

        // The usual case, with nothing that has to be found out.
        let start = self.raw.data_hard_start;
        // SAFETY: As above: the poll may give it back without a lock.
        unsafe { bindings::page_pool_free_va(self.pool.as_ptr(), start, true) };
    }
}

/// What a program wants done with a packet.
pub(super) enum Action {
    Pass,
    Drop,
    Transmit,
    /// It has been done: the packet is not the caller's any more.
    Redirected,
}

/// Runs a program on a packet.
///
/// # Safety
///
/// `raw` is a valid packet, of the queue that is being polled.
#[inline]
pub(super) unsafe fn run_on<'a>(
    raw: *mut bindings::xdp_buff,
    program: Program<'a>,
    cx: &Context<'a>,
) -> Action {
    // SAFETY: By the safety requirements and the type invariant both are valid; a poll runs with softirqs off, as programs need it.
    let action = unsafe { bindings::bpf_prog_run_xdp(program.prog.as_ptr(), raw) };

    match action {
        bindings::xdp_action_XDP_DROP => Action::Drop,
        bindings::xdp_action_XDP_PASS => Action::Pass,
        bindings::xdp_action_XDP_TX => Action::Transmit,
        // SAFETY: By the safety requirements.
        _ => unsafe { go_elsewhere(raw, action, program, cx) },
    }
}

/// # Safety
///
/// As [`run_on`].
#[inline(never)]
unsafe fn go_elsewhere(
    raw: *mut bindings::xdp_buff,
    action: u32,
    program: Program<'_>,
    cx: &Context<'_>,
) -> Action {
    let prog = program.prog.as_ptr();

    match action {
        bindings::xdp_action_XDP_REDIRECT => {
            // SAFETY: By the safety requirements and the type invariants all are valid.
            let errno = unsafe { bindings::xdp_do_redirect(cx.dev(), raw, prog) };
            if to_result(errno).is_err() {
                // The kernel has traced why.
                return Action::Drop;
            }
            return Action::Redirected;
        }
        bindings::xdp_action_XDP_ABORTED => {}
        _ => {
            // SAFETY: As above.
            unsafe { bindings::bpf_warn_invalid_xdp_action(cx.dev(), prog, action) };
        }
    }

    // SAFETY: As above.
    unsafe { bindings::trace_xdp_exception(cx.dev(), prog, action) };
    Action::Drop
}
