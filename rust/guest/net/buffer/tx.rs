// SPDX-License-Identifier: GPL-2.0

//! Packets to be sent.

use crate::{
    bindings,
    net::{
        skbuff::{
            TxSkBuff,
            MAX_FRAGS, //
        },
        xdp::Frame,
        xsk::Descriptors, //
    },
    virtio::buffer::{
        Buffer,
        Segments, //
    }, //
};
use core::{
    ffi::c_void,
    mem::offset_of,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};
use kernel::prelude::*;

/// The longest header that a [`TxFrame`] can have.
pub const MAX_HEADER: usize = 24;

/// A packet with a header of the device's before it, ready to be sent.
///
/// The header goes into the packet's headroom when the device and the packet allow it: the device then needs one segment
/// fewer. Otherwise it lies in the packet's control block.
///
/// # Invariants
///
/// - The control block of a packet of the stack holds a `Control`; if that says so, the header is in the headroom, which nobody
///   else uses.
/// - A packet of a program begins with the header.
pub struct TxFrame(Outgoing);

/// Who wants a packet sent.
pub enum Outgoing {
    /// The stack.
    Stack(TxSkBuff),
    /// A program.
    Program(Frame),
    /// A socket, from memory of its own.
    Socket(Descriptors),
}

/// Marks the pointer to a packet of a program. What it points to is aligned better.
const PROGRAM: usize = 1;

/// Marks the number that says which packet of a socket it is.
const SOCKET: usize = 2;

/// What a [`TxFrame`] keeps in the packet's control block, which is the driver's as long as it has the packet.
#[repr(C)]
struct Control {
    header: [u8; MAX_HEADER],
    len: u8,
    in_headroom: bool,
}

const _: () = assert!(
    size_of::<Control>()
        <= offset_of!(bindings::sk_buff, __bindgen_anon_3) - offset_of!(bindings::sk_buff, cb)
);

impl TxFrame {
    /// The most segments that a frame has.
    pub const MAX_SEGMENTS: usize = MAX_FRAGS + 2;

    /// Puts `N` zeros before a packet of a program: a header that leaves nothing to a device, which does not mind where the
    /// header ends and the data begins.
    ///
    /// # Errors
    ///
    /// The packet comes back when there is no room before it.
    #[inline]
    pub fn of_program<const N: usize>(mut frame: Frame) -> core::result::Result<Self, Frame> {
        if !frame.push::<N>() {
            return Err(frame);
        }
        // INVARIANT: It has just been put there.
        Ok(Self(Outgoing::Program(frame)))
    }

    /// Makes what says that this packet of a socket's is in flight. It is not lent itself.
    #[inline]
    pub(in crate::net) fn of_socket(packet: Descriptors) -> Self {
        // INVARIANT: There is nothing to say about those.
        Self(Outgoing::Socket(packet))
    }

    /// Returns the packet; that of a program still has its header.
    #[inline]
    pub fn into_inner(self) -> Outgoing {
        self.0
    }
}

/// A packet whose header is being written.
///
/// # Invariants
///
/// `at` is valid for `len` bytes, at least [`MIN_HEADER`](Self::MIN_HEADER), which nobody else uses: those before the packet's data with
/// `in_headroom`, and otherwise those of the `Control` in its control block.
pub struct Unsent {
    skb: TxSkBuff,
    at: *mut u8,
    len: u8,
    in_headroom: bool,
}

impl Unsent {
    /// The shortest header that one can have.
    pub const MIN_HEADER: usize = 10;

    /// Puts `len` zeros before a packet, at least [`MIN_HEADER`](Self::MIN_HEADER) and at most [`MAX_HEADER`]: a header that leaves
    /// nothing to a device. With `any_layout` the device does not mind where the header ends and the data begins.
    #[inline]
    pub fn new(skb: TxSkBuff, len: u8, any_layout: bool) -> Self {
        const WORD: usize = size_of::<u64>();
        const { assert!(MAX_HEADER == 3 * WORD) };
        // CAST: Small constants.
        let len = len.clamp(Self::MIN_HEADER as u8, MAX_HEADER as u8);

        let raw = skb.as_ptr();
        let in_headroom = any_layout && skb.head_is_ours(len.into());
        let at: *mut u8 = if in_headroom {
            // SAFETY: The packet is valid.
            let data = unsafe { (*raw).data };
            // SAFETY: There are at least `len` bytes before the data.
            unsafe { data.sub(len.into()) }
        } else {
            // SAFETY: The packet is valid, and its control block is the driver's.
            let control = unsafe { addr_of_mut!((*raw).cb).cast::<Control>() };
            // SAFETY: As above.
            unsafe { addr_of_mut!((*control).header).cast() }
        };

        let last = usize::from(len) - WORD;
        // Whatever their number is, these reach all of them.
        for start in [0, last.min(WORD), last] {
            // SAFETY: There is room for `len` bytes, and this word ends there at the latest.
            let word = unsafe { at.add(start) }.cast::<u64>();
            // SAFETY: As above; nobody else uses it.
            unsafe { word.write_unaligned(0) };
        }

        // INVARIANT: As just chosen.
        Self {
            skb,
            at,
            len,
            in_headroom,
        }
    }

    /// Returns the packet.
    #[inline]
    pub fn skb(&self) -> &TxSkBuff {
        &self.skb
    }

    /// Writes bytes of the header from `AT` on, none of them after the first [`MIN_HEADER`](Self::MIN_HEADER).
    #[inline]
    pub fn put<const AT: usize, const N: usize>(&mut self, bytes: [u8; N]) {
        const { assert!(AT + N <= Self::MIN_HEADER) };

        // SAFETY: By the type invariant there are so many.
        let at = unsafe { self.at.add(AT) }.cast::<[u8; N]>();
        // SAFETY: As above; nobody else uses them.
        unsafe { at.write_unaligned(bytes) };
    }

    /// Writes the last bytes of the header.
    #[inline]
    pub fn put_last<const N: usize>(&mut self, bytes: [u8; N]) {
        const { assert!(N <= Self::MIN_HEADER) };

        // SAFETY: By the type invariant there are so many.
        let at = unsafe { self.at.add(usize::from(self.len) - N) }.cast::<[u8; N]>();
        // SAFETY: As above; nobody else uses them.
        unsafe { at.write_unaligned(bytes) };
    }

    /// Takes the packet back.
    #[inline]
    pub fn into_skb(self) -> TxSkBuff {
        self.skb
    }

    /// Ends the header.
    // What is noted is written after it, so that it is still at hand when the packet is lent.
    #[inline]
    pub fn finish(self) -> TxFrame {
        // SAFETY: The packet is valid, and its control block is the driver's.
        let control = unsafe { addr_of_mut!((*self.skb.as_ptr()).cb).cast::<Control>() };

        // SAFETY: As above.
        unsafe { addr_of_mut!((*control).len).write(self.len) };
        // SAFETY: As above.
        unsafe { addr_of_mut!((*control).in_headroom).write(self.in_headroom) };
        // INVARIANT: The header has been written, and where it is.
        TxFrame(Outgoing::Stack(self.skb))
    }
}

/// Adds the fragments of a packet.
// Inlined, so that the list of a packet without any is never more than a few registers.
#[inline(always)]
fn push_fragments(info: &bindings::skb_shared_info, list: &mut Segments<'_>) -> Result {
    for frag in info.frags.iter().take(usize::from(info.nr_frags)) {
        // As `skb_frag_page()`: what is marked is memory that the kernel cannot read, of which a device without
        // `NETMEM_TX` gets none.
        if frag.netmem & bindings::NET_IOV as bindings::netmem_ref != 0 {
            return Err(EINVAL);
        }
        list.push_out_page(frag.netmem as *mut bindings::page, frag.offset, frag.len)?;
    }
    Ok(())
}

/// Adds a packet of a program.
fn push_frame(frame: &Frame, list: &mut Segments<'_>) -> Result {
    let (data, len) = frame.head();

    list.push_out(NonNull::new(data).ok_or(EINVAL)?, len)?;
    frame
        .fragments()
        .map_or(Ok(()), |info| push_fragments(info, list))
}

// SAFETY:
// - The pointer is the packet's, which is unique while it lives.
// - Nobody else has the packet or writes to its data: the stack leaves what it shares with a driver's packet alone until
//   that is freed.
// - No segment can be written.
unsafe impl Buffer for TxFrame {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        match self.0 {
            Outgoing::Stack(skb) => skb.into_raw().cast(),
            Outgoing::Program(frame) => frame.into_raw().cast().map_addr(|addr| addr | PROGRAM),
            Outgoing::Socket(packet) => {
                let number = packet.into_number() | SOCKET;
                // SAFETY: With the mark it is not zero.
                unsafe { NonNull::new_unchecked(number as *mut c_void) }
            }
        }
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // INVARIANT: Neither a control block nor a header has been touched since.
        let number = ptr.as_ptr() as usize;
        if number & (PROGRAM | SOCKET) == 0 {
            // SAFETY: By the safety requirements the pointer comes from `into_raw()`.
            return Self(Outgoing::Stack(unsafe { TxSkBuff::from_raw(ptr.cast()) }));
        }
        if number & SOCKET != 0 {
            return Self(Outgoing::Socket(Descriptors::from_number(number)));
        }
        let ptr = ptr.cast::<u8>().as_ptr().wrapping_sub(PROGRAM);
        // SAFETY: Without the mark it is what a frame has given.
        let ptr = unsafe { NonNull::new_unchecked(ptr) };
        // SAFETY: By the safety requirements the pointer comes from `into_raw()`.
        Self(Outgoing::Program(unsafe { Frame::from_raw(ptr.cast()) }))
    }

    // Where it was just made, it is known which it is, and what its control block says.
    #[inline(always)]
    fn segments(&self, list: &mut Segments<'_>) -> Result {
        let skb = match &self.0 {
            Outgoing::Stack(skb) => skb,
            Outgoing::Program(frame) => return push_frame(frame, list),
            Outgoing::Socket(_) => return Err(EINVAL),
        };
        let raw = skb.as_ptr();
        // SAFETY: The packet is valid.
        let data = unsafe { NonNull::new((*raw).data) }.ok_or(EINVAL)?;
        // SAFETY: By the type invariant the control block holds a `Control`.
        let control = unsafe { addr_of_mut!((*raw).cb).cast::<Control>() };
        // SAFETY: As above.
        let len = u32::from(unsafe { (*control).len });
        let head_len = skb.head_len();

        // SAFETY: As above.
        if unsafe { (*control).in_headroom } {
            // SAFETY: By the type invariant the header lies right before the data.
            let header = unsafe { data.sub(len as usize) };
            list.push_out(header, len.wrapping_add(head_len))?;
        } else {
            // SAFETY: As above.
            let header = unsafe { NonNull::new_unchecked(addr_of_mut!((*control).header)) };
            list.push_out(header.cast(), len)?;
            if head_len > 0 {
                list.push_out(data, head_len)?;
            }
        }

        let info = skb.shared_info();
        if info.nr_frags == 0 && info.frag_list.is_null() {
            return Ok(());
        }
        if !info.frag_list.is_null() {
            // The stack makes such packets linear for a device without `NETIF_F_FRAGLIST`.
            return Err(EINVAL);
        }
        push_fragments(info, list)
    }

    #[inline]
    fn capacity(&self) -> u32 {
        0
    }
}
