// SPDX-License-Identifier: GPL-2.0

//! Receiving into frames of a pool.

use super::{
    queue::{
        Control,
        Frame,
        RxQueue, //
    },
    Packet,
    Pool, //
};
use crate::{
    bindings,
    net::{
        napi::Context,
        xdp::RxHash, //
    },
    virtio::buffer::{
        Batch,
        Used, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        barrier::{
            smp_mb,
            Full, //
        },
        Arc, //
    }, //
};

/// How many frames are taken from a queue, or from a pool, at a time.
const BATCH: usize = 16;

/// What the poll of a receive queue has of a pool.
///
/// # Invariants
///
/// - `rxq` is registered, and all frames of the pool refer to it.
/// - Only the poll of the queue's instance uses the value, or whoever has disabled that.
pub(in crate::net) struct Rx {
    // Frames go before their pool.
    taken: Batch<Frame, BATCH>,
    queue: RxQueue,
    rxq: KBox<bindings::xdp_rxq_info>,
    pool: Arc<Pool>,
}

// SAFETY: The value is bound to no thread.
unsafe impl Send for Rx {}

impl Rx {
    /// Makes what receives into frames of `pool` by queue number `index` of `dev`, whose packets come with `header` bytes before
    /// them. Sleeps.
    ///
    /// # Errors
    ///
    /// [`EINVAL`]: the frames have no room for that. [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// - `dev` and its instance `napi` are valid as long as the value, which belongs to the poll of that instance.
    /// - Nobody else uses the pool's frames yet.
    pub(super) unsafe fn new(
        pool: Arc<Pool>,
        queue: RxQueue,
        dev: *mut bindings::net_device,
        napi: *mut bindings::napi_struct,
        index: u16,
        header: u32,
    ) -> Result<Self> {
        let raw = pool.as_ptr();
        // There are as many bytes before a packet that are not the user's, and perhaps more.
        if header > bindings::XDP_PACKET_HEADROOM {
            return Err(EINVAL);
        }
        let mut rxq = KBox::new(bindings::xdp_rxq_info::default(), GFP_KERNEL)?;
        // SAFETY: By the safety requirements `napi` is valid; its number does not change while its device is there.
        let id = unsafe { (*napi).napi_id };
        // SAFETY: `rxq` is zeroed memory, unregistered when it is freed; `dev` lives long enough.
        to_result(unsafe { bindings::xdp_rxq_info_reg(&mut *rxq, dev, u32::from(index), id) })?;

        // INVARIANT: It has just been registered, and what is missing follows.
        let mut this = Self {
            taken: Batch::default(),
            queue,
            rxq,
            pool,
        };
        // SAFETY: `rxq` has been registered; there is no allocator of this kind.
        to_result(unsafe {
            bindings::xdp_rxq_info_reg_mem_model(
                &mut *this.rxq,
                bindings::xdp_mem_type_MEM_TYPE_XSK_BUFF_POOL,
                core::ptr::null_mut(),
            )
        })?;
        // SAFETY: By its type invariant the pool is valid, and nobody uses its frames.
        unsafe { bindings::xsk_pool_set_rxq_info(raw, &mut *this.rxq) };
        let mut control = Control {
            hash: RxHash::NONE,
            header,
            // SAFETY: By its type invariant the pool is valid.
            capacity: unsafe { bindings::xsk_pool_get_rx_frame_size(raw) }.wrapping_add(header),
        };
        let mut desc = bindings::xsk_cb_desc {
            src: (&raw mut control).cast(),
            off: 0,
            // CAST: A few bytes.
            bytes: size_of::<Control>() as u8,
        };
        // SAFETY: As above; `desc` describes a value that fits.
        unsafe { bindings::xsk_pool_fill_cb(raw, &mut desc) };
        Ok(this)
    }

    pub(super) fn queue(&self) -> &RxQueue {
        &self.queue
    }

    /// The frames that the device had are not its any more: those that it had used before go back too.
    pub(in crate::net) fn forget(&mut self) {
        self.taken = Batch::default();
    }

    /// Returns the next frame that the device has used.
    #[inline]
    fn next(&mut self) -> Option<Used<Frame>> {
        if let Some(used) = self.taken.pop() {
            return Some(used);
        }
        self.queue.frames.lock()?.get_bufs(&mut self.taken);
        self.taken.pop()
    }

    /// Takes at most `max` frames that the user has made available.
    fn alloc(&mut self, max: u32) -> Frames {
        let mut frames = Frames {
            list: [core::ptr::null_mut(); BATCH],
            next: 0,
            end: 0,
        };
        // CAST: A small constant.
        let max = max.min(BATCH as u32);

        // SAFETY: By the type invariants the pool is valid and nobody else takes frames from it; there is room for so many.
        let count = unsafe {
            bindings::xsk_buff_alloc_batch(self.pool.as_ptr(), frames.list.as_mut_ptr(), max)
        };
        // INVARIANT: These have just been filled in.
        frames.end = (count as usize).min(BATCH);
        frames
    }

    /// Fills the ring with what the user has made available, if a good part of it is empty.
    fn lend(&mut self, budget: u32) -> Option<Lent> {
        let queue = self.queue.frames.clone();
        let mut vq = queue.lock()?;
        let mut waiting = false;
        let mut added = false;

        if vq.num_free() <= budget.min(vq.size()) / 2 {
            return Some(Lent {
                notified: false,
                enough: true,
            });
        }

        while vq.num_free() > 0 {
            let mut frames = self.alloc(vq.num_free());
            if frames.end == 0 {
                if waiting || !self.pool.uses_need_wakeup() {
                    break;
                }
                // The user sees this and wakes the driver, or has made frames available before, which are seen now.
                self.set_waiting(true);
                waiting = true;
                smp_mb(Full);
                continue;
            }
            if waiting {
                self.set_waiting(false);
                waiting = false;
            }
            let Ok(()) = frames.try_for_each(|frame| vq.add_inbuf_premapped(frame)) else {
                break;
            };
            added = true;
        }
        if added && !waiting {
            self.set_waiting(false);
        }

        Some(Lent {
            notified: vq.kick_prepare() && vq.notify(),
            enough: waiting || vq.num_free() < vq.size() - vq.size() / 4,
        })
    }

    /// Lets the user know whether the driver waits for frames.
    fn set_waiting(&mut self, waiting: bool) {
        let pool = self.pool.as_ptr();

        if waiting {
            // SAFETY: By the type invariants the pool is valid, and only the poll says this.
            unsafe { bindings::xsk_set_rx_need_wakeup(pool) };
        } else {
            // SAFETY: As above.
            unsafe { bindings::xsk_clear_rx_need_wakeup(pool) };
        }
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the pool is valid, and nobody uses its frames: the instance is disabled.
        unsafe { bindings::xsk_pool_set_rxq_info(self.pool.as_ptr(), core::ptr::null_mut()) };
        // SAFETY: By the type invariant it is registered.
        unsafe { bindings::xdp_rxq_info_unreg(&mut *self.rxq) };
    }
}

/// Frames that were just taken from a pool.
///
/// # Invariants
///
/// The entries from `next` to `end` are frames that the value owns.
struct Frames {
    list: [*mut bindings::xdp_buff; BATCH],
    next: usize,
    end: usize,
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.next >= self.end {
            return None;
        }

        let frame = NonNull::new(*self.list.get(self.next)?)?;
        // INVARIANT: The entry is given out here.
        self.next = self.next.wrapping_add(1);
        // INVARIANT: It was owned until now; `Rx::new()` has filled in the control blocks.
        Some(Frame(frame))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        for frame in self {
            drop(frame);
        }
    }
}

/// What came of filling a ring with frames.
pub struct Lent {
    /// The device was notified.
    pub notified: bool,
    /// There is no need to poll for more: the ring has frames, or the user wakes the driver.
    pub enough: bool,
}

impl<'a> Context<'a> {
    /// Returns the next frame that the device has used, if the queue has a pool.
    #[inline]
    pub fn next_frame(&mut self) -> Option<Packet<'a>> {
        let rx = self.frames()?;
        let (frame, len) = rx.next()?.into_parts();

        // It may have been written elsewhere until now.
        // SAFETY: By its type invariants the frame is valid and mapped for this device, from there on for as many bytes.
        unsafe {
            bindings::dma_sync_single_for_cpu(
                rx.pool.dev(),
                frame.dma(),
                len as usize,
                bindings::dma_data_direction::DMA_BIDIRECTIONAL,
            )
        };
        let data_len = len.saturating_sub(frame.control().header);
        // SAFETY: The frame is valid; a frame's capacity is its size and the header's.
        unsafe { bindings::xsk_buff_set_size(frame.as_raw(), data_len) };
        Some(Packet::new(frame, len))
    }

    /// Lends the device frames that the user has made available, if the queue has a pool: as many as the ring holds.
    pub fn lend_frames(&mut self) -> Option<Lent> {
        // CAST: A budget is not negative.
        let budget = self.budget() as u32;

        self.frames()?.lend(budget)
    }
}
