// SPDX-License-Identifier: GPL-2.0

//! Free page reporting (VirtIO 1.3, 5.5.6.7): the page allocator names free memory to the device, which may take it until it is
//! used again.
//!
//! The pages are in custody of the queue meanwhile. A device that does not answer keeps what it was lent, at most 32 blocks of
//! 2 or 4 MiB, until its queue or the device is reset; nobody waits for it but a work item of the kernel that has nothing else to do.

use core::pin::Pin;
use guest::{
    mm::page_reporting::{
        FreePages,
        Reporter,
        Reporting,
        MAX_BLOCKS, //
    },
    trace::virtio_balloon as trace,
    virtio::{
        self,
        Queue, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// The most segments of a buffer of the queue.
pub(crate) const SEGMENTS: usize = MAX_BLOCKS;

/// Tells the device of free pages.
pub(crate) struct Reports {
    dev: ARef<virtio::Device>,
    vq: Arc<Queue<FreePages>>,
    can_reset: bool,
    closed: Atomic<bool>,
    reported: Atomic<u64>,
}

/// What keeps the page allocator reporting.
pub(crate) struct Registration {
    reporting: Pin<KBox<Reporting>>,
}

impl Reports {
    /// Prepares to report in the queue `vq`, which can be reset by itself if `can_reset`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(
        dev: ARef<virtio::Device>,
        vq: Arc<Queue<FreePages>>,
        can_reset: bool,
    ) -> Result<Arc<Self>> {
        let this = Self {
            dev,
            vq,
            can_reset,
            closed: Atomic::new(false),
            reported: Atomic::new(0),
        };

        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Has the page allocator report. The device must be live some moments later.
    ///
    /// [`None`]: another device is reported to already.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`ENODEV`] when the device is gone.
    pub(crate) fn register(self: &Arc<Self>) -> Result<Option<Registration>> {
        // No more blocks than the ring has room for.
        // CAST: A ring has at most 32768 entries.
        let room = self.vq.lock_bh().ok_or(ENODEV)?.size() as usize;

        match Reporting::new(self.clone(), room) {
            Ok(reporting) => Ok(Some(Registration { reporting })),
            Err(error) if error == EBUSY => {
                dev_info!(
                    self.dev,
                    "free pages are reported to another device already, not to this one\n"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns how many bytes the device has been told of.
    pub(crate) fn reported(&self) -> u64 {
        self.reported.load(Relaxed)
    }

    /// Tells the device of nothing more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Ends [`close`](Self::close).
    pub(crate) fn open(&self) {
        self.closed.store(false, Relaxed);
    }
}

impl Registration {
    /// The device has answered. Any context.
    pub(crate) fn answered(&self) {
        self.reporting.wake();
    }
}

impl Reporter for Reports {
    fn lend(&self, pages: FreePages) {
        if self.closed.load(Relaxed) {
            return;
        }
        let Some(mut vq) = self.vq.lock_bh() else {
            return;
        };

        // What is refused is dropped, after the lock.
        let refused = vq.add_inbuf(pages).err();
        if refused.is_none() {
            vq.kick();
        }
        drop(vq);
        drop(refused);
    }

    fn collect(&self) {
        // At most one buffer is under way: it comes now, or has come meanwhile, or an interrupt will tell.
        for _ in 0..2 {
            let used = self.vq.lock_bh().and_then(|mut vq| vq.get_buf());
            if let Some(used) = used {
                let buffer = used.into_buffer();
                let bytes = buffer.bytes();
                self.reported.fetch_add(bytes, Relaxed);
                trace::report(self.dev.index(), bytes);
                buffer.known();
            }
            // The interrupt that led here has turned itself off.
            if self.vq.lock_bh().is_none_or(|mut vq| vq.enable_cb()) {
                break;
            }
        }
    }

    fn overdue(&self) {
        self.close();
        let taken_back = self.can_reset && self.vq.reset().is_ok();

        dev_warn!(
            self.dev,
            "the device does not answer a report of free pages; no more are made until the driver is bound again{}\n",
            if taken_back { "" } else { ", and it keeps these" }
        );
    }
}
