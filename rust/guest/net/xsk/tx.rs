// SPDX-License-Identifier: GPL-2.0

//! Sending from frames of a pool.

use super::{
    order::Order,
    Pool, //
};
use crate::{
    bindings,
    net::{
        buffer::TxFrame,
        device::Operations,
        transmit::TxQueue, //
    },
    virtio::{
        buffer::{
            Buffer,
            MappedSegments,
            Premapped,
            Rejected, //
        },
        Virtqueue, //
    }, //
};
use core::{
    ffi::c_void,
    ptr::NonNull, //
};
use kernel::{
    device,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// Zeros that a device can read: a header that leaves nothing to it.
///
/// # Invariants
///
/// `cpu` and `dma` are one page of memory for `dev`, which the value owns, and has a reference to.
struct Zeros {
    dev: NonNull<bindings::device>,
    _reference: ARef<device::Device>,
    cpu: NonNull<c_void>,
    dma: bindings::dma_addr_t,
}

impl Zeros {
    /// # Safety
    ///
    /// `dev` is valid.
    unsafe fn new(dev: NonNull<bindings::device>) -> Result<Self> {
        let mut dma = 0;
        // SAFETY: By the safety requirements.
        let cpu = unsafe {
            bindings::dma_alloc_attrs(
                dev.as_ptr(),
                PAGE_SIZE,
                &mut dma,
                bindings::GFP_KERNEL | bindings::__GFP_ZERO,
                0,
            )
        };
        let cpu = NonNull::new(cpu).ok_or(ENOMEM)?;

        // SAFETY: By the safety requirements.
        let reference: &device::Device = unsafe { device::Device::from_raw(dev.as_ptr()) };
        // INVARIANT: It has just been allocated.
        Ok(Self {
            dev,
            _reference: reference.into(),
            cpu,
            dma,
        })
    }
}

impl Drop for Zeros {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe {
            bindings::dma_free_attrs(self.dev.as_ptr(), PAGE_SIZE, self.cpu.as_ptr(), self.dma, 0)
        };
    }
}

/// What the lock of a transmit queue protects of a pool.
///
/// # Invariants
///
/// Only whoever has the lock of the queue that the pool is bound to uses the value, or the pool to send.
pub(in crate::net) struct Tx {
    zeros: Zeros,
    header: u32,
    order: Order<KVec<u8>>,
    pool: Arc<Pool>,
}

// SAFETY: The value is bound to no thread.
unsafe impl Send for Tx {}

impl Tx {
    /// Makes what sends from frames of `pool`, by a queue of at most `ring` entries, for the device `dev`, which wants `header` bytes
    /// before each packet. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `dev` is valid. The value belongs to the lock of the queue that the pool is bound to.
    pub(super) unsafe fn new(
        pool: Arc<Pool>,
        dev: NonNull<bindings::device>,
        ring: u32,
        header: u32,
    ) -> Result<Self> {
        Ok(Self {
            // SAFETY: By the safety requirements.
            zeros: unsafe { Zeros::new(dev) }?,
            header,
            order: Order::new(KVec::from_elem(0, ring as usize, GFP_KERNEL)?),
            pool,
        })
    }

    /// Takes at most `max` descriptors of the user's, and gives them to the device. Returns how many packets it has got.
    fn send(&mut self, vq: &mut Virtqueue<'_, TxFrame>, max: u32) -> u32 {
        let pool = self.pool.as_ptr();
        // CAST: A ring has at most 32768 entries.
        let max = max.min(self.order.free() as u32);
        let count = if max == 0 {
            0
        } else {
            // SAFETY: By its type invariant the pool is valid; the lock is held.
            unsafe { bindings::xsk_tx_peek_release_desc_batch(pool, max) }
        };
        let mut sent = 0u32;
        let mut done = 0u32;
        let mut begin = 0;

        for index in 0..count {
            // SAFETY: The pool has this array, so many entries of which were just filled in, with what the core has checked.
            let desc = unsafe { (*pool).tx_descs.add(index as usize) };
            // SAFETY: As above.
            if index.wrapping_add(1) < count && !unsafe { bindings::xsk_is_eop_desc(desc) } {
                continue;
            }
            // SAFETY: As above: `begin` is not beyond `index`.
            let first = unsafe { (*pool).tx_descs.add(begin as usize) };
            let len = index.wrapping_sub(begin).wrapping_add(1) as usize;
            begin = index.wrapping_add(1);
            // SAFETY: As above. Nobody writes to them while the lock is held.
            let descs = unsafe { core::slice::from_raw_parts(first, len) };
            let Some(slot) = self.order.begin(len) else {
                // There is room for all, and the core allows no more descriptors in a packet than fit.
                continue;
            };
            let frame = Outbound {
                tx: self,
                descs,
                slot,
            };
            match vq.add_outbuf_premapped(frame) {
                Ok(()) => sent = sent.wrapping_add(1),
                // Lost, but the user gets it back, when it is its turn.
                Err(Rejected { .. }) => done = done.wrapping_add(self.order.end(slot)),
            }
        }
        self.give_back(done);
        if self.pool.uses_need_wakeup() {
            // It always is set: the other half of the word is the receive queue's, which has another lock.
            // SAFETY: By its type invariant the pool is valid.
            unsafe { bindings::xsk_set_tx_need_wakeup(pool) };
        }
        sent
    }

    /// Lets the user have descriptors back.
    fn give_back(&mut self, descriptors: u32) {
        if descriptors > 0 {
            // SAFETY: By its type invariant the pool is valid; the lock is held.
            unsafe { bindings::xsk_tx_completed(self.pool.as_ptr(), descriptors) };
        }
    }

    /// Nothing that was sent is in flight any more.
    pub(in crate::net) fn reset(&mut self) {
        let descriptors = self.order.end_all();

        self.give_back(descriptors);
    }
}

/// A packet to be sent.
struct Outbound<'a> {
    tx: &'a Tx,
    descs: &'a [bindings::xdp_desc],
    slot: usize,
}

impl Outbound<'_> {
    /// Returns how many bytes there are.
    fn len(&self) -> u32 {
        self.descs
            .iter()
            .fold(0, |sum, desc| sum.wrapping_add(desc.len))
    }
}

// SAFETY:
// - The number restores what says which packet it is; the memory is the user's, and stays mapped until all packets of the pool are done.
// - The user can write to it, which surprises nobody else.
// - No segment can be written.
unsafe impl Premapped<TxFrame> for Outbound<'_> {
    fn into_raw(self) -> NonNull<c_void> {
        TxFrame::of_socket(Descriptors {
            slot: self.slot,
            len: self.len(),
        })
        .into_raw()
    }

    fn segments(&self, list: &mut MappedSegments<'_>) -> Result {
        let pool = self.tx.pool.as_ptr();

        list.push_out(self.tx.zeros.dma, self.tx.header)?;
        for desc in self.descs {
            // SAFETY: By its type invariant the pool is valid and mapped; the core has checked the descriptor.
            let dma = unsafe { bindings::xsk_buff_raw_get_dma(pool, desc.addr) };
            // SAFETY: As above.
            unsafe { bindings::xsk_buff_raw_dma_sync_for_device(pool, dma, desc.len as usize) };
            list.push_out(dma, desc.len)?;
        }
        Ok(())
    }
}

/// A packet of a socket's that the device has, or has had.
///
/// The user gets its descriptors back by [`TxQueue::frames_sent`].
pub struct Descriptors {
    slot: usize,
    len: u32,
}

impl Descriptors {
    /// How far the slot is from the end of a number: for those who mark numbers.
    const SHIFT: u32 = 2;

    /// Returns what the packet is as a number, of which the last two bits are zero.
    pub(in crate::net) fn into_number(self) -> usize {
        // CAST: Widens. A slot is the number of a ring's entry.
        (self.len as usize) << 32 | self.slot << Self::SHIFT
    }

    /// Restores the value, whatever the last two bits are.
    pub(in crate::net) fn from_number(number: usize) -> Self {
        Self {
            // CAST: The lower half.
            slot: (number as u32 >> Self::SHIFT) as usize,
            // CAST: The upper half.
            len: (number >> 32) as u32,
        }
    }

    /// Returns the length in bytes.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        self.len
    }
}

impl<D: Operations> TxQueue<'_, D> {
    /// Returns whether a socket is bound to the queue.
    #[inline]
    pub fn has_frames(&self) -> bool {
        self.with_frames(|_| ()).is_some()
    }

    /// Sends what a socket has to send, if one is bound to the queue: at most `max` descriptors. Returns how many packets the device has
    /// got, which does not know of them yet.
    pub fn send_frames(&self, vq: &mut Virtqueue<'_, TxFrame>, max: u32) -> u32 {
        self.with_frames(|tx| tx.send(vq, max)).unwrap_or(0)
    }

    /// Gives a packet that was sent back to its socket.
    pub fn frames_sent(&self, packet: Descriptors) {
        self.with_frames(|tx| {
            let descriptors = tx.order.end(packet.slot);
            tx.give_back(descriptors);
        });
    }
}
