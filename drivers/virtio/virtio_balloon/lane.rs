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

/// The most lists under way. The device answers for all of them before there are more, so that it gets around to other things.
const MAX_IN_FLIGHT: u32 = 64;

/// When the device is notified of lists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kick {
    /// When the guest has made all lists that it can: a host that takes memory away page by page interrupts all processors that run
    /// the guest for each page, which costs both of them more than taking turns.
    InTurn,
    /// After some lists, which the device works on while the guest makes more.
    Early,
}

impl Kick {
    /// The most lists that the device is not notified of.
    fn most_silent(self) -> u32 {
        match self {
            Kick::InTurn => MAX_IN_FLIGHT,
            Kick::Early => MAX_IN_FLIGHT / 4,
        }
    }
}

/// A queue whose lists hold pages in the state `State`.
///
/// Each direction has lists of its own, so that a device which leaves one queue alone does not stop the other.
pub(crate) struct Lane<State: 'static> {
    queue: Arc<Queue<PfnList<State>>>,
    kick: Kick,
    spare: KVec<PfnBuffer>,
    in_flight: u32,
    /// Made since the device was notified.
    silent: u32,
    /// It is the device's turn.
    full: bool,
}

impl<State: 'static> Lane<State> {
    /// Begins with nothing under way.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`ENODEV`] when the device is gone.
    pub(crate) fn new(queue: Arc<Queue<PfnList<State>>>, kick: Kick) -> Result<Self> {
        // No more than the ring has room for, so that a list is never refused for want of room.
        let size = queue.lock_bh().ok_or(ENODEV)?.size();
        let lists = size.min(MAX_IN_FLIGHT) as usize;

        let mut spare = KVec::with_capacity(lists, GFP_KERNEL)?;
        for _ in 0..lists {
            spare.push(PfnBuffer::new()?, GFP_KERNEL)?;
        }

        Ok(Self {
            queue,
            kick,
            spare,
            in_flight: 0,
            silent: 0,
            full: false,
        })
    }

    /// Returns the queue.
    pub(crate) fn queue(&self) -> &Arc<Queue<PfnList<State>>> {
        &self.queue
    }

    /// Takes memory for a list; [`None`] when all of it is under way, and from then on until the device has answered for all.
    pub(crate) fn buffer(&mut self) -> Option<PfnBuffer> {
        self.full = self.spare.is_empty() || (self.full && self.in_flight != 0);
        if self.full {
            return None;
        }
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

    /// Tells the device of a list, at the next [`flush`](Self::flush) at the latest.
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
        if self.silent >= self.kick.most_silent() {
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
        Some(used.into_buffer())
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
