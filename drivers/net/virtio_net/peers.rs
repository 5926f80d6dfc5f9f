// SPDX-License-Identifier: GPL-2.0

//! Receive queues that wait for each other.

use guest::net::xsk::RxQueue;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The receive queues of a device that spreads packets by their hash.
///
/// QEMU reads from as many sources as there are queues. A packet whose hash puts it into a ring that is empty stops the source
/// that it came from, until the ring of the same number is kicked, which has no need of that. So when a device wants to know
/// that one ring has buffers again, it is told of all.
pub(crate) struct Peers(KVec<RxQueue>);

impl Peers {
    /// Collects the queues.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new<'a>(queues: impl Iterator<Item = &'a RxQueue>) -> Result<Arc<Self>> {
        let mut peers = KVec::new();

        for queue in queues {
            peers.push(queue.clone(), GFP_KERNEL)?;
        }
        Ok(Arc::new(Self(peers), GFP_KERNEL)?)
    }

    /// Kicks all queues. The caller has no lock of any.
    #[cold]
    pub(crate) fn kick(&self) {
        for queue in &self.0 {
            queue.notify();
        }
    }
}
