// SPDX-License-Identifier: GPL-2.0

//! Packets of programs, on their way out.

use super::Buff;
use crate::{
    bindings,
    net::{
        device::{
            Device,
            Operations, //
        },
        napi::Context, //
    }, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::prelude::*;

/// A packet that a program wants sent.
///
/// # Invariants
///
/// The pointer is valid and owned by the value.
pub struct Frame(NonNull<bindings::xdp_frame>);

// SAFETY: A frame is memory, bound to no thread.
unsafe impl Send for Frame {}

impl Frame {
    /// Makes a frame of a packet, which owns nothing then. Returns [`None`] if the program has left no room before it.
    #[inline]
    pub(in crate::net) fn new(buff: &mut Buff<'_>) -> Option<Self> {
        // SAFETY: By the type invariants the packet is valid.
        let frame = unsafe { bindings::xdp_convert_buff_to_frame(buff.as_raw()) };
        let frame = NonNull::new(frame)?;

        buff.leave();
        // INVARIANT: It lies in the packet's memory, which it owns now.
        Some(Self(frame))
    }

    /// Takes over a frame.
    ///
    /// # Safety
    ///
    /// `frame` is valid, and ownership of it passes to the value.
    #[inline]
    pub(in crate::net) unsafe fn from_raw(frame: NonNull<bindings::xdp_frame>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(frame)
    }

    /// Gives up the value; ownership is the caller's to pass on.
    #[inline]
    pub(in crate::net) fn into_raw(self) -> NonNull<bindings::xdp_frame> {
        ManuallyDrop::new(self).0
    }

    /// Returns the length in bytes, with the header that has been put before it.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        // SAFETY: By the type invariant the frame is valid.
        unsafe { bindings::xdp_get_frame_len(self.0.as_ptr()) }
    }

    /// Puts `N` zeros before the packet: a header that leaves nothing to the device. Returns whether there was room.
    #[inline]
    #[must_use]
    pub(in crate::net) fn push<const N: usize>(&mut self) -> bool {
        // SAFETY: By the type invariant the frame is valid and nobody else has it.
        let raw = unsafe { self.0.as_mut() };
        // CAST: A small constant.
        let Some(headroom) = raw.headroom.checked_sub(N as u32) else {
            return false;
        };

        // SAFETY: There are at least `N` bytes between the frame's description and its data.
        let at = unsafe { raw.data.cast::<u8>().sub(N) };
        // SAFETY: As above; nobody else uses them.
        unsafe { core::ptr::write_bytes(at, 0, N) };
        raw.data = at.cast();
        raw.headroom = headroom;
        // CAST: As above.
        raw.len = raw.len.wrapping_add(N as u32);
        true
    }

    /// Returns the linear part.
    #[inline]
    pub(in crate::net) fn head(&self) -> (*mut u8, u32) {
        // SAFETY: By the type invariant the frame is valid.
        let raw = unsafe { self.0.as_ref() };

        (raw.data.cast(), raw.len)
    }

    /// Returns what describes the fragments, if there are any.
    #[inline]
    pub(in crate::net) fn fragments(&self) -> Option<&bindings::skb_shared_info> {
        // SAFETY: By the type invariant the frame is valid.
        if !unsafe { bindings::xdp_frame_has_frags(self.0.as_ptr()) } {
            return None;
        }
        // SAFETY: As above: a frame with fragments has this.
        Some(unsafe { &*bindings::xdp_get_shared_info_from_frame(self.0.as_ptr()) })
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the frame is valid and owned; it may be another device's memory, and this any context
        // but a hard interrupt.
        unsafe { bindings::xdp_return_frame(self.0.as_ptr()) };
    }
}

/// Frames to be sent.
///
/// # Invariants
///
/// The first `taken` of the frames have been given out; the others are valid and belong to the caller.
pub struct Frames<'a> {
    list: &'a [*mut bindings::xdp_frame],
    taken: usize,
}

impl Frames<'_> {
    /// Returns how many have not been taken.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.list.len().saturating_sub(self.taken)
    }

    /// Takes the next frame.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let frame = NonNull::new(*self.list.get(self.taken)?)?;

        // INVARIANT: It is given out here.
        self.taken += 1;
        // SAFETY: By the type invariant it is valid, and given out once.
        Some(unsafe { Frame::from_raw(frame) })
    }

    /// Gives back the frame that was taken last: it and those that follow are not sent.
    #[inline]
    pub fn give_back(&mut self, frame: Frame) {
        let raw = frame.into_raw().as_ptr();
        let last = self.taken.wrapping_sub(1);

        if self.list.get(last) == Some(&raw) {
            // INVARIANT: It has been taken and comes back as it was.
            self.taken = last;
        } else if let Some(raw) = NonNull::new(raw) {
            // SAFETY: It was a `Frame` just now.
            drop(unsafe { Frame::from_raw(raw) });
        }
    }
}

/// Frames that wait to be sent together; none to begin with.
///
/// # Invariants
///
/// The first `count` of the frames are valid and owned by the value.
pub struct Bulk {
    frames: [*mut bindings::xdp_frame; Bulk::SIZE],
    count: usize,
}

// SAFETY: Frames are bound to no thread.
unsafe impl Send for Bulk {}

impl Default for Bulk {
    fn default() -> Self {
        Self {
            frames: [core::ptr::null_mut(); Self::SIZE],
            count: 0,
        }
    }
}

impl Bulk {
    /// How many frames there can be.
    const SIZE: usize = 16;

    /// Adds a frame. Returns whether it is time to [`flush`](Self::flush).
    #[inline]
    pub fn push(&mut self, frame: Frame) -> bool {
        if let Some(slot) = self.frames.get_mut(self.count) {
            *slot = frame.into_raw().as_ptr();
            // INVARIANT: The frame has been owned until now.
            self.count += 1;
        }
        self.count == Self::SIZE
    }

    /// Sends the frames by the device that `cx` polls for. Returns how many could not be sent, and are lost.
    pub fn flush(&mut self, cx: &Context<'_>) -> usize {
        // INVARIANT: The frames are given out below.
        let count = core::mem::replace(&mut self.count, 0);
        if count == 0 {
            return 0;
        }
        let dev = cx.dev();
        // SAFETY: The device of a poll is valid.
        let operations = unsafe { (*dev).netdev_ops };

        // SAFETY: A device's operations are valid as long as it is.
        let sent = match unsafe { (*operations).ndo_xdp_xmit } {
            // CAST: At most `SIZE`.
            // SAFETY: The device and the frames are valid; those that are sent pass to it. Softirqs are off.
            Some(xmit) => unsafe {
                xmit(
                    dev,
                    count as c_int,
                    self.frames.as_mut_ptr(),
                    bindings::XDP_XMIT_FLUSH,
                )
            },
            None => 0,
        };
        let sent = usize::try_from(sent).unwrap_or(0).min(count);
        for &frame in self.frames.iter().take(count).skip(sent) {
            // SAFETY: The frame is still ours, and of memory of the instance that is being polled.
            unsafe { bindings::xdp_return_frame_rx_napi(frame) };
        }
        count - sent
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        for &frame in self.frames.iter().take(self.count) {
            // SAFETY: By the type invariant the frame is valid and owned.
            unsafe { bindings::xdp_return_frame(frame) };
        }
    }
}

/// `ndo_xdp_xmit`.
///
/// # Safety
///
/// Called with softirqs off, for a device of this type and `n` valid frames; those that are sent pass to the device.
pub(in crate::net) unsafe extern "C" fn xdp_xmit_callback<T: Operations>(
    dev: *mut bindings::net_device,
    n: c_int,
    frames: *mut *mut bindings::xdp_frame,
    flags: u32,
) -> c_int {
    if flags & !bindings::XDP_XMIT_FLAGS_MASK != 0 {
        return EINVAL.to_errno();
    }
    // SAFETY: The caller gives a valid device of this type.
    let dev = unsafe { Device::<T>::from_raw(dev) };
    if !dev.is_running() {
        return ENETDOWN.to_errno();
    }

    // SAFETY: The caller gives so many valid frames.
    let list = unsafe { core::slice::from_raw_parts(frames, usize::try_from(n).unwrap_or(0)) };
    // INVARIANT: None has been given out; they are the caller's.
    let mut frames = Frames { list, taken: 0 };
    dev.xdp_xmit(&mut frames, flags & bindings::XDP_XMIT_FLUSH != 0);
    // CAST: At most `n`.
    frames.taken as c_int
}
