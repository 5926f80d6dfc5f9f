// SPDX-License-Identifier: GPL-2.0

//! What a device has written into frames.

use super::queue::Frame;
use crate::{
    bindings,
    net::{
        buffer::{
            Head,
            Room,
            RxBuffer, //
        },
        napi::Context,
        page_pool::{
            Wait,
            UNIT, //
        },
        skbuff::{
            RxSkBuff,
            ETH_HLEN, //
        },
        xdp::{
            self,
            fill_checksum,
            run_on,
            Action,
            Buff,
            Program,
            RxHash,
            Verdict, //
        }, //
    },
    virtio::buffer::Buffer, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    types::NotThreadSafe, //
};

/// The units of a page.
// CAST: They are a few.
const PAGE: u32 = (PAGE_SIZE / UNIT) as u32;

/// What a device has written into a frame, in a poll.
pub struct Packet<'a> {
    /// Gone when the packet is elsewhere.
    frame: Option<Frame>,
    /// How much the device has written, at most the frame's capacity.
    len: u32,
    _poll: PhantomData<&'a NotThreadSafe>,
}

impl<'a> Packet<'a> {
    /// Makes a packet of a frame into which the device has written so many bytes, which it holds.
    #[inline]
    pub(super) fn new(frame: Frame, len: u32) -> Self {
        Self {
            frame: Some(frame),
            len,
            _poll: PhantomData,
        }
    }

    /// Returns how many bytes the device has written.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns where the device has begun to write.
    #[inline]
    fn begin(&self) -> Option<NonNull<u8>> {
        let header = self.frame.as_ref()?.control().header;
        let offset = bindings::XDP_PACKET_HEADROOM.wrapping_sub(header);

        // SAFETY: The device's part of the frame is that far from its beginning.
        NonNull::new(unsafe {
            self.raw()?
                .data_hard_start
                .cast::<u8>()
                .add(offset as usize)
        })
    }

    /// Returns where the packet is in its frame.
    #[inline]
    fn raw(&self) -> Option<&bindings::xdp_buff> {
        let frame = self.frame.as_ref()?;

        // SAFETY: By its type invariants the frame is valid and owned.
        Some(unsafe { &*frame.as_raw() })
    }

    /// Has programs find this hash, if they ask for one, or none.
    pub fn set_hash(&mut self, hash: Option<RxHash>) {
        if let Some(frame) = &mut self.frame {
            frame.set_hash(hash.unwrap_or(RxHash::NONE));
        }
    }

    /// Runs a program on the packet, which came in one frame, and has not gone elsewhere before: once. What goes elsewhere now leaves
    /// nothing here.
    pub fn run(&mut self, program: Program<'a>, cx: &mut Context<'a>) -> Verdict {
        let Some(frame) = self.frame.as_ref() else {
            return Verdict::Dropped;
        };

        // SAFETY: By its type invariants the frame is a valid packet; this is the poll of its queue.
        match unsafe { run_on(frame.as_raw(), program, cx) } {
            Action::Pass => Verdict::Pass,
            Action::Drop => Verdict::Dropped,
            Action::Redirected => {
                // A socket has it, or a copy was made and it is back in the pool.
                let _ = self.frame.take().map(Buffer::into_raw);
                Verdict::Redirected
            }
            Action::Transmit => match self.to_transmit(cx) {
                Some(frame) => Verdict::Transmit(frame),
                None => program.fail_to_transmit(cx),
            },
        }
    }

    /// Makes a packet to be sent of this one, by a copy with room before it. Returns [`None`] when there is no memory.
    fn to_transmit(&self, cx: &mut Context<'a>) -> Option<xdp::Frame> {
        let raw = self.raw()?;
        // CAST: A frame is at most a page.
        let len = (raw.data_end as usize).wrapping_sub(raw.data as usize) as u32;

        let mut copy = RxBuffer::new(cx.pool()?.alloc(PAGE, Wait::No)?, Room::Program);
        if len > copy.head_capacity() {
            return None;
        }
        // SAFETY: The packet is as long, and fits.
        unsafe { copy.fill(NonNull::new(raw.data.cast())?, len) };
        xdp::Frame::new(&mut Buff::of_copy(copy, len, cx)?)
    }

    /// Fills in a checksum that is missing: over everything from `start`, at `start` plus `offset`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the place is not in the packet.
    pub fn fill_checksum(&mut self, start: u16, offset: u16) -> Result {
        let frame = self.frame.as_ref().ok_or(EINVAL)?;

        // SAFETY: By its type invariants the frame is a valid packet without fragments.
        unsafe { fill_checksum(frame.as_raw(), start, offset) }
    }

    /// Makes a packet of the stack's of this one, by a copy.
    ///
    /// Returns [`None`] when there is no memory, when it is shorter than an Ethernet header, or has gone elsewhere.
    pub fn copy(&self, cx: &mut Context<'a>) -> Option<RxSkBuff> {
        let raw = self.raw()?;
        let meta = raw.data_meta;
        // CAST: A frame is at most a page.
        let meta_len = (raw.data as usize).wrapping_sub(meta as usize) as u32;
        // CAST: As above.
        let len = (raw.data_end as usize).wrapping_sub(meta as usize) as u32;
        if len.saturating_sub(meta_len) < ETH_HLEN {
            return None;
        }

        let mut skb: Option<RxSkBuff> = None;
        copy_out(
            NonNull::new(meta.cast())?,
            len,
            cx,
            |buffer, part, cx| match &mut skb {
                Some(skb) => skb.append(buffer, part).map_err(|_| ENOMEM),
                None => {
                    skb = Some(RxSkBuff::build(buffer, meta_len, part, cx).ok_or(ENOMEM)?);
                    Ok(())
                }
            },
        )
        .ok()?;
        let mut skb = skb?;
        // CAST: A program can have as much metadata as fits into a byte.
        skb.set_metadata(meta_len as u8);
        Some(skb)
    }

    /// Appends what the device has written, all of which is data, to a packet of the stack's, by a copy.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn append_to(&self, skb: &mut RxSkBuff, cx: &mut Context<'a>) -> Result {
        let begin = self.begin().ok_or(EINVAL)?;

        copy_out(begin, self.len, cx, |buffer, part, _| {
            skb.append(buffer, part).map_err(|_| ENOMEM)
        })
    }
}

impl Head for Packet<'_> {
    /// The user can write at any time, too.
    #[inline]
    fn read<const START: usize, const N: usize>(&self) -> Option<[u8; N]> {
        if (self.len as usize) < START + N {
            return None;
        }
        let mut bytes = [0; N];
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: The device has written as many bytes, which are in the frame.
            let at = unsafe { self.begin()?.add(START + index) };
            // SAFETY: As above; numbers have no invalid values.
            *byte = unsafe { at.read_volatile() };
        }
        Some(bytes)
    }
}

/// Copies `len` bytes into as many buffers as they take, each of which `each` gets, with how many are in it.
fn copy_out<'a>(
    mut from: NonNull<u8>,
    mut len: u32,
    cx: &mut Context<'a>,
    mut each: impl FnMut(RxBuffer, u32, &Context<'a>) -> Result,
) -> Result {
    while len > 0 {
        // CAST: A small constant.
        let units = if len.saturating_add(Room::Stack.overhead()) <= UNIT as u32 {
            1
        } else {
            PAGE
        };
        let fragment = cx
            .pool()
            .ok_or(EINVAL)?
            .alloc(units, Wait::No)
            .ok_or(ENOMEM)?;
        let mut buffer = RxBuffer::new(fragment, Room::Stack);
        let part = len.min(buffer.head_capacity());

        // SAFETY: The callers give as many bytes as there are, which belong to the packet that they have.
        unsafe { buffer.fill(from, part) };
        // SAFETY: As above.
        from = unsafe { from.add(part as usize) };
        len = len.wrapping_sub(part);
        each(buffer, part, cx)?;
    }
    Ok(())
}
