// SPDX-License-Identifier: GPL-2.0

//! A minimal virtio driver: the entropy device (VirtIO 1.3, 5.4).
//!
//! The device fills buffers with random bytes; the driver hands them to the hwrng core. One buffer is in flight as long as
//! there is nothing left of the last one.
//!
//! To try it: `qemu-system-x86_64 ... -device virtio-rng-pci`, then `insmod rust_virtio_rng.ko` and read `/dev/hwrng`.

#![deny(unsafe_code)]

use core::{
    ops::Range,
    pin::Pin, //
};
use guest::{
    completion::Completion,
    hw_random,
    virtio::{
        self,
        buffer::Message,
        Callback,
        Features,
        Interrupt,
        Queue, //
    }, //
};
use kernel::{
    device::Core,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// How many bytes are asked for at a time.
const REQUEST: usize = 64;

/// How long a reader waits for the device, in milliseconds.
const PATIENCE: u32 = 10_000;

guest::virtio_features! {
    /// The device has no feature bits of its own.
    enum Feature {}
}

guest::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(virtio::id::RNG)]);

struct Driver;

/// What the driver and the hwrng core share.
#[pin_data]
struct Source {
    queue: Arc<Queue<Message>>,
    #[pin]
    arrived: Completion,
    #[pin]
    left: Mutex<Option<Left>>,
}

/// A buffer that the device has filled, and which bytes of it nobody has had yet.
struct Left {
    buffer: Message,
    bytes: Range<usize>,
}

#[pin_data]
struct Data {
    source: Arc<Source>,
    #[pin]
    registration: Mutex<Option<Pin<KBox<hw_random::Registration<Source>>>>>,
}

impl virtio::Driver for Driver {
    type Feature = Feature;
    type Data<'bound> = Data;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    fn probe<'bound>(
        dev: &'bound virtio::Device<Core<'_>>,
        _features: Features<Feature>,
    ) -> impl PinInit<Data, Error> + 'bound {
        pin_init::pin_init_scope(|| {
            let mut queues = dev.virtqueues();
            let queue = queues.add(c"input", Callback::Enabled, 1)?;
            queues.find()?;

            Ok(try_pin_init!(Data {
                source: Arc::pin_init(Source::new(queue), GFP_KERNEL)?,
                registration <- new_mutex!(None),
            }))
        })
    }

    fn init<'bound>(dev: &'bound virtio::Device<Core<'_>>, data: Pin<&'bound Data>) -> Result {
        data.source.request(Message::new_in(REQUEST)?)?;

        let name = CString::try_from_fmt(fmt!("rust_virtio_rng.{}", dev.index()))?;
        let registration = hw_random::Registration::new(name, data.source.clone());
        *data.registration.lock() = Some(KBox::pin_init(registration, GFP_KERNEL)?);
        Ok(())
    }

    fn vq_callback(data: Pin<&Data>, _queue: &Interrupt<'_>) {
        data.source.arrived.complete();
    }

    fn unbind<'bound>(_dev: &'bound virtio::Device<Core<'_>>, data: Pin<&Data>) {
        data.source.arrived.complete_all();
        *data.registration.lock() = None;
    }
}

impl Source {
    fn new(queue: Arc<Queue<Message>>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            queue,
            arrived <- Completion::new(),
            left <- new_mutex!(None),
        })
    }

    /// Lends the device a buffer to fill.
    fn request(&self, buffer: Message) -> Result {
        let mut queue = self.queue.lock_bh().ok_or(ENODEV)?;

        queue.add_inbuf(buffer).map_err(|rejected| rejected.error)?;
        queue.kick().then_some(()).ok_or(EIO)
    }

    /// Takes back the buffer in flight, if the device has filled it.
    fn collect(&self) -> Result<Option<Left>> {
        let mut queue = self.queue.lock_bh().ok_or(ENODEV)?;

        match queue.get_buf() {
            Some(used) if used.written() == 0 => Err(EIO),
            Some(used) => {
                let (buffer, len) = used.into_parts();
                Ok(Some(Left {
                    buffer,
                    bytes: 0..len as usize,
                }))
            }
            None if queue.is_broken() => Err(EIO),
            None => Ok(None),
        }
    }
}

impl hw_random::Operations for Source {
    fn read(&self, buf: &mut [u8], wait: bool) -> Result<usize> {
        let mut left = self.left.lock();

        let mut now = loop {
            if let Some(now) = left.take() {
                break now;
            }
            *left = self.collect()?;
            if left.is_none() {
                if !wait {
                    return Ok(0);
                }
                self.arrived.wait_killable_timeout(PATIENCE)?;
            }
        };

        let len = buf.len().min(now.bytes.len());
        let taken = now.bytes.start..now.bytes.start.saturating_add(len);
        if let (Some(to), Some(from)) = (buf.get_mut(..len), now.buffer.get_mut(taken.clone())) {
            to.copy_from_slice(from);
            // Nobody shall find what somebody else was given.
            from.fill(0);
        }
        now.bytes.start = taken.end;

        if now.bytes.is_empty() {
            self.request(now.buffer)?;
        } else {
            *left = Some(now);
        }
        Ok(len)
    }
}

guest::module_virtio_driver! {
    type: Driver,
    name: "rust_virtio_rng",
    authors: ["The Tenon authors"],
    description: "Virtio entropy device, a sample in Rust",
    license: "GPL",
}
