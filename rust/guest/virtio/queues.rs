// SPDX-License-Identifier: GPL-2.0

//! The queues of a device: asked for once by its driver, made by the transport, and made again after a reset.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use super::{
    buffer::Buffer,
    virtqueue::AnyQueue,
    Callback,
    Device,
    Queue, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc, //
};

/// The callback of all queues, as C calls it.
pub(super) type RawCallback = unsafe extern "C" fn(*mut bindings::virtqueue);

struct Wanted {
    callback: Callback,
    queue: Arc<dyn AnyQueue>,
}

/// The queues that a driver has asked for, in the order of their numbers.
///
/// # Invariants
///
/// If `made` is set, the transport has made the queues that the elements of `wanted` are attached to, or `find` has failed on
/// the way to that.
pub(super) struct Set {
    wanted: KVec<Wanted>,
    /// Other handles of them, which have none to begin with.
    alternates: KVec<Arc<dyn AnyQueue>>,
    made: bool,
}

impl Set {
    pub(super) const fn new() -> Self {
        Self {
            wanted: KVec::new(),
            alternates: KVec::new(),
            made: false,
        }
    }

    /// Has the transport make the queues.
    ///
    /// # Errors
    ///
    /// [`ENOENT`]: the device lacks one of them. [`EBUSY`]: they have been made. [`ENOMEM`] and what the transport says.
    pub(super) fn make(&mut self, dev: &Device, callback: RawCallback) -> Result {
        if self.made {
            return Err(EBUSY);
        }

        let mut infos = KVec::with_capacity(self.wanted.len(), GFP_KERNEL)?;
        let mut vqs = KVec::with_capacity(self.wanted.len(), GFP_KERNEL)?;
        for wanted in &self.wanted {
            infos.push(
                bindings::virtqueue_info {
                    name: wanted.queue.name().as_char_ptr(),
                    callback: match wanted.callback {
                        Callback::Enabled => Some(callback),
                        Callback::Disabled => None,
                    },
                    ctx: false,
                },
                GFP_KERNEL,
            )?;
            vqs.push(core::ptr::null_mut(), GFP_KERNEL)?;
        }

        // SAFETY: The device has no queues and FEATURES_OK; both arrays have as many entries as said, and the core copies what
        // it keeps but for the names, which live in the queues of this set until `delete()`.
        to_result(unsafe {
            bindings::virtio_find_vqs(
                dev.as_raw(),
                // CAST: A driver asks for at most some hundred queues.
                vqs.len() as u32,
                vqs.as_mut_ptr(),
                infos.as_mut_ptr(),
                core::ptr::null_mut(),
            )
        })?;

        // From here on they are there to be deleted.
        self.made = !vqs.is_empty();
        for (wanted, vq) in self.wanted.iter().zip(&vqs) {
            let vq = NonNull::new(*vq).ok_or(ENOENT)?;
            // SAFETY: The core has just made `vq`; it lives until `delete()` has called `detach()`.
            unsafe { wanted.queue.attach(vq) };
        }
        Ok(())
    }

    /// Takes back what is in flight and deletes the queues. The driver's handles stay, and are inert.
    ///
    /// # Safety
    ///
    /// The device has been reset since it could last use the queues.
    pub(super) unsafe fn delete(&mut self, dev: &Device) {
        if !core::mem::take(&mut self.made) {
            return;
        }

        for queue in &self.alternates {
            queue.detach();
        }
        for wanted in &self.wanted {
            wanted.queue.detach();
        }
        if let Some(del_vqs) = dev.config_ops().del_vqs {
            // SAFETY: The queues have been made, nobody can reach them any more, and the device has been reset.
            unsafe { del_vqs(dev.as_raw()) };
        }
    }
}

/// A list of queues to make.
pub struct Virtqueues<'a> {
    dev: &'a Device,
    wanted: KVec<Wanted>,
    alternates: KVec<Arc<dyn AnyQueue>>,
}

impl<'a> Virtqueues<'a> {
    pub(super) fn new(dev: &'a Device) -> Self {
        Self {
            dev,
            wanted: KVec::new(),
            alternates: KVec::new(),
        }
    }

    /// Asks for the next queue. It gets the next number: a queue that the device does not have is not asked for, as the Linux
    /// transports number only those that exist.
    ///
    /// `segments` is the most segments that one of its buffers has. The queue can be used after [`find`](Self::find).
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn add<B: Buffer>(
        &mut self,
        name: &CStr,
        callback: Callback,
        segments: usize,
    ) -> Result<Arc<Queue<B>>> {
        let queue = Arc::pin_init(Queue::new(name.try_into()?, segments), GFP_KERNEL)?;

        self.wanted.push(
            Wanted {
                callback,
                queue: queue.clone(),
            },
            GFP_KERNEL,
        )?;
        Ok(queue)
    }

    /// Makes another handle of a queue that has been asked for, for other buffers, each of at most so many segments. It is inert
    /// until [`Queue::hand_over`] gives the queue to it; after a reset of the device the first handle has it again.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn add_alternate<B: Buffer, C: Buffer>(
        &mut self,
        queue: &Queue<B>,
        segments: usize,
    ) -> Result<Arc<Queue<C>>> {
        let alternate = Arc::pin_init(queue.alternate(segments), GFP_KERNEL)?;

        self.alternates.push(alternate.clone(), GFP_KERNEL)?;
        Ok(alternate)
    }

    /// Makes the queues known to the device.
    ///
    /// # Errors
    ///
    /// [`ENOENT`]: the device lacks one of them. [`EBUSY`]: they have been found before. [`ENOMEM`] and what the transport
    /// says.
    pub fn find(self) -> Result {
        let state = self.dev.state().ok_or(EINVAL)?;
        let mut set = state.queues.lock();
        if set.made {
            return Err(EBUSY);
        }

        set.wanted = self.wanted;
        set.alternates = self.alternates;
        set.make(self.dev, state.callback)
    }
}
