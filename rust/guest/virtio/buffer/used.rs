// SPDX-License-Identifier: GPL-2.0

//! Buffers that a device has given back.

use super::Buffer;
use core::{
    ffi::c_void,
    marker::PhantomData,
    ptr::NonNull, //
};

/// A buffer that the device has given back.
///
/// # Invariants
///
/// `written` is at most the buffer's capacity.
pub struct Used<B> {
    buffer: B,
    written: u32,
}

impl<B: Buffer> Used<B> {
    /// Takes a buffer of which the device says that it wrote `len` bytes. Fails when that is more than it holds.
    ///
    /// Of one that the device only reads there is no length to claim. Devices from before VirtIO 1.0 put anything there (VirtIO 1.3,
    /// 2.7.8.1), so what they put is not looked at.
    #[inline]
    pub(crate) fn new(buffer: B, len: u32) -> core::result::Result<Self, LengthFault> {
        let capacity = buffer.capacity();

        if len <= capacity {
            // INVARIANT: The length has just been checked.
            Ok(Self {
                buffer,
                written: len,
            })
        } else if capacity == 0 {
            // INVARIANT: Nothing is at most nothing.
            Ok(Self { buffer, written: 0 })
        } else {
            Err(LengthFault { len, capacity })
        }
    }

    /// Returns the buffer.
    #[inline]
    pub fn buffer(&self) -> &B {
        &self.buffer
    }

    /// Returns the buffer, to be changed.
    ///
    /// # Safety
    ///
    /// Its capacity does not become less than [`written`](Self::written).
    #[inline]
    pub(crate) unsafe fn buffer_mut(&mut self) -> &mut B {
        &mut self.buffer
    }

    /// Returns how many bytes the device says that it wrote: never more than the buffer's capacity.
    #[inline]
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Returns the buffer, the driver's own again.
    #[inline]
    pub fn into_buffer(self) -> B {
        self.buffer
    }

    /// Returns the buffer, and how many bytes the device says that it wrote.
    #[inline]
    pub fn into_parts(self) -> (B, u32) {
        (self.buffer, self.written)
    }
}

/// Up to `N` buffers that the device has given back, taken from their queue together; none to begin with.
///
/// # Invariants
///
/// The entries from `next` to the first with a null pointer, or to the last, are what [`Buffer::into_raw`] of buffers gave that this
/// value owns, and how many bytes the device says that it wrote.
pub struct Batch<B: Buffer, const N: usize> {
    entries: [(*mut c_void, u32); N],
    next: usize,
    fault: Option<LengthFault>,
    _buffers: PhantomData<B>,
}

/// The device says that it wrote more than there was room for.
#[derive(Clone, Copy)]
pub(crate) struct LengthFault {
    /// What it says.
    pub(in crate::virtio) len: u32,
    /// The room that there was.
    pub(in crate::virtio) capacity: u32,
}

// SAFETY: What the value owns is `Send`, because `Buffer` is.
unsafe impl<B: Buffer, const N: usize> Send for Batch<B, N> {}

impl<B: Buffer, const N: usize> Default for Batch<B, N> {
    fn default() -> Self {
        Self {
            entries: [(core::ptr::null_mut(), 0); N],
            next: 0,
            fault: None,
            _buffers: PhantomData,
        }
    }
}

impl<B: Buffer, const N: usize> Batch<B, N> {
    /// Returns the next buffer. None comes after one of which the device says that it wrote more than it holds; the queue is out
    /// of use then, from the next [`get_bufs`](crate::virtio::Virtqueue::get_bufs) on.
    #[inline]
    pub fn pop(&mut self) -> Option<Used<B>> {
        let (buffer, len) = self.take()?;

        Used::new(buffer, len)
            .map_err(|fault| self.fail(fault))
            .ok()
    }

    /// Returns the next buffer, with what the device says.
    #[inline]
    fn take(&mut self) -> Option<(B, u32)> {
        let &(token, len) = self.entries.get(self.next)?;
        let token = NonNull::new(token)?;

        // INVARIANT: The entry is given out here.
        self.next = self.next.wrapping_add(1);
        // SAFETY: By the type invariant this comes from `into_raw()`, and it is restored once.
        let buffer = unsafe { B::from_raw(token) };
        Some((buffer, len))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.entries
            .get(self.next)
            .is_none_or(|(token, _)| token.is_null())
    }

    #[cold]
    fn fail(&mut self, fault: LengthFault) {
        self.fault = Some(fault);
        while self.take().is_some() {}
    }

    /// Fills an empty batch with what `next` gives, until that is [`None`]. What was wrong with the one before comes back.
    ///
    /// # Safety
    ///
    /// `next` gives pointers that come from [`Buffer::into_raw`], each once.
    #[inline]
    pub(in crate::virtio) unsafe fn fill(
        &mut self,
        mut next: impl FnMut() -> Option<(NonNull<c_void>, u32)>,
    ) -> core::result::Result<(), LengthFault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if !self.is_empty() {
            return Ok(());
        }

        // INVARIANT: Those before the first null pointer are filled in here.
        self.next = 0;
        for entry in &mut self.entries {
            let Some((token, len)) = next() else {
                *entry = (core::ptr::null_mut(), 0);
                break;
            };
            *entry = (token.as_ptr(), len);
        }
        Ok(())
    }
}

impl<B: Buffer, const N: usize> Drop for Batch<B, N> {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}
