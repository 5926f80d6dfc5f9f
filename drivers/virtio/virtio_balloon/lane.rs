// SPDX-License-Identifier: GPL-2.0

//! One direction of the balloon's traffic: a queue, and the lists of pages that are under way in it.

use guest::{
    mm::balloon::{
        PfnBuffer,
        PfnList, //
    },
    virtio::Queue, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The most lists under way.
const MAX_IN_FLIGHT: u32 = 64;

/// The device is notified once per so many lists, so that it has something to do while the next ones are made.
const BURST: u32 = 16;

/// A queue whose lists hold pages in the state `State`.
///
/// Each direction has lists of its own, so that a device which leaves one queue alone does not stop the other.
pub(crate) struct Lane<State: 'static> {
    queue: Arc<Queue<PfnList<State>>>,
    spare: KVec<PfnBuffer>,
    in_flight: u32,
    silent: u32,
}

impl<State: 'static> Lane<State> {
    /// Begins with nothing under way.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`ENODEV`] when the device is gone.
    pub(crate) fn new(queue: Arc<Queue<PfnList<State>>>) -> Result<Self> {
        // No more than the ring has room for, so that a list is never refused for want of room.
        let size = queue.lock_bh().ok_or(ENODEV)?.size();
        let lists = size.min(MAX_IN_FLIGHT) as usize;

        let mut spare = KVec::with_capacity(lists, GFP_KERNEL)?;
        for _ in 0..lists {
            spare.push(PfnBuffer::new()?, GFP_KERNEL)?;
        }

        Ok(Self {
            queue,
            spare,
            in_flight: 0,
            silent: 0,
        })
    }

    /// Returns the queue.
    pub(crate) fn queue(&self) -> &Arc<Queue<PfnList<State>>> {
        &self.queue
    }

    /// Takes memory for a list; [`None`] when all of it is under way.
    pub(crate) fn buffer(&mut self) -> Option<PfnBuffer> {
        self.spare.pop()
    }

    /// Puts back what [`buffer`](Self::buffer) gave.
    pub(crate) fn recycle(&mut self, buffer: PfnBuffer) {
        // There is room: it came from here.
        let _ = self.spare.push_within_capacity(buffer);
    }

    /// Returns whether the device can be told anything.
    pub(crate) fn is_usable(&self) -> bool {
        self.queue.lock_bh().is_some_and(|queue| !queue.is_broken())
    }

    /// Tells the device of a list, now or at the next [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// The list comes back when the device cannot be told.
    pub(crate) fn tell(&mut self, list: PfnList<State>) -> Result<(), PfnList<State>> {
        let Some(mut queue) = self.queue.lock_bh() else {
            return Err(list);
        };
        queue.add_outbuf(list).map_err(|rejected| rejected.buffer)?;

        self.in_flight += 1;
        self.silent += 1;
        if self.silent >= BURST {
            self.silent = 0;
            queue.kick();
        }
        Ok(())
    }

    /// Notifies the device of what it has not been notified of.
    pub(crate) fn flush(&mut self) {
        if self.silent == 0 {
            return;
        }
        self.silent = 0;
        if let Some(mut queue) = self.queue.lock_bh() {
            queue.kick();
        }
    }

    /// Returns the next list that the device has answered for.
    pub(crate) fn answered(&mut self) -> Option<PfnList<State>> {
        let used = self.queue.lock_bh()?.get_buf()?;

        self.in_flight = self.in_flight.saturating_sub(1);
        Some(used.buffer)
    }

    /// Asks for an interrupt when most of what is under way has been answered for. Returns `false` when that has happened
    /// already.
    pub(crate) fn listen(&mut self) -> bool {
        if self.in_flight == 0 {
            return true;
        }
        self.queue
            .lock_bh()
            .is_none_or(|mut queue| queue.enable_cb_delayed())
    }
}
