// SPDX-License-Identifier: GPL-2.0

//! One direction of the balloon's traffic: a queue, and the lists of pages that are under way in it.

use guest::{
    mm::balloon::PfnList,
    virtio::Queue, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The device is notified once per so many lists, so that it has something to do while the next ones are made.
const BURST: u32 = 16;

/// A queue whose lists hold pages in the state `State`.
pub(crate) struct Lane<State: 'static> {
    queue: Arc<Queue<PfnList<State>>>,
    in_flight: u32,
    silent: u32,
}

impl<State: 'static> Lane<State> {
    /// Begins with nothing under way.
    pub(crate) fn new(queue: Arc<Queue<PfnList<State>>>) -> Self {
        Self {
            queue,
            in_flight: 0,
            silent: 0,
        }
    }

    /// Returns how many lists the ring has room for.
    pub(crate) fn size(&self) -> u32 {
        self.queue.lock_bh().map_or(0, |queue| queue.size())
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
