// SPDX-License-Identifier: GPL-2.0

//! A device's side of vhost-user.

use crate::relay::{
    relay,
    Notifier, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    io,
    os::fd::AsRawFd,
    path::Path,
    sync::{
        atomic::Ordering,
        Arc,
        Mutex,
        MutexGuard, //
    },
    thread,
    time::Duration, //
};
use vhost::vhost_user::{
    message::{
        VhostUserProtocolFeatures,
        VhostUserVirtioFeatures, //
    },
    Listener, //
};
use vhost_user_backend::{
    VhostUserBackend,
    VhostUserDaemon,
    VringRwLock,
    VringT, //
};
use virtio_queue::{
    QueueOwnedT,
    QueueT, //
};
use vm_memory::{
    Bytes,
    GuestAddress,
    GuestAddressSpace,
    GuestMemoryAtomic,
    GuestMemoryLoadGuard,
    GuestMemoryMmap, //
};
use vmm_sys_util::{
    epoll::EventSet,
    event::{
        new_event_consumer_and_notifier,
        EventConsumer,
        EventFlag,
        EventNotifier, //
    },
    timerfd::TimerFd, //
};

/// The most entries that a queue can have.
const MAX_QUEUE_SIZE: usize = 1024;

/// How often a device may do something without being asked to.
const TICK: Duration = Duration::from_millis(5);

/// What needs nothing of a device here: QEMU and the rings that are used see to it.
pub const TRANSPORT: u64 = (1 << 28) | (1 << 29) | (1 << 32);

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// A chain of buffers of the driver's.
pub type Chain = virtio_queue::DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// A queue as a model sees it.
pub struct Ring<'a> {
    vring: &'a VringRwLock,
    memory: &'a Memory,
}

impl Ring<'_> {
    /// Whether a driver has set the queue up.
    fn is_live(&self) -> bool {
        self.vring.get_ref().get_queue().ready()
    }

    /// Takes the next chain that the driver has made available. If there is none, the driver kicks when there is.
    pub fn pop(&self) -> Option<Chain> {
        let mut vring = self.vring.get_mut();

        if !vring.is_enabled() {
            return None;
        }
        loop {
            let memory = self.memory.memory();
            let chain = vring.get_queue_mut().iter(memory).ok()?.next();

            if chain.is_some() || !vring.enable_notification().unwrap_or(false) {
                return chain;
            }
        }
    }

    /// Gives the last chain back as if it had not been taken.
    pub fn unpop(&self) {
        self.vring
            .get_mut()
            .get_queue_mut()
            .go_to_previous_position();
    }

    /// Gives a chain back as used, of which `len` bytes were written. There need not be one with this number.
    pub fn push(&self, head: u32, len: u32) {
        self.push_all(&[(head, len)]);
    }

    /// Gives the chains of one packet back, as [`Ring::push`] does: the driver finds all of them or none (VirtIO 1.3, 5.1.6.4).
    pub fn push_all(&self, chains: &[(u32, u32)]) {
        // In the used ring: the number of the next entry, the first entry, and each.
        const INDEX: u64 = 2;
        const START: u64 = 4;
        const ENTRY: u64 = 8;

        let Some((&(last, len), others)) = chains.split_last() else {
            return;
        };
        let mut vring = self.vring.get_mut();
        let queue = vring.get_queue_mut();
        let memory = self.memory.memory();
        let size = queue.size();
        // The driver may take its queue away at any time.
        let mut write = |head: u32, len: u32| {
            let next = queue.next_used();
            let place = queue.used_ring() + START + ENTRY * u64::from(next % queue.size());
            let _ = memory.write_obj([head.to_le(), len.to_le()], GuestAddress(place));
            queue.set_next_used(next.wrapping_add(1));
        };

        for &(head, len) in others {
            write(head, len);
        }
        match u16::try_from(last) {
            Ok(head) if head < size => {
                let _ = vring.add_used(head, len);
            }
            // The crate gives no such chain back, and does not count it: the driver is told of it at once.
            _ => {
                write(last, len);
                let index = GuestAddress(queue.used_ring() + INDEX);
                let _ = memory.store(queue.next_used().to_le(), index, Ordering::Release);
                let _ = vring.signal_used_queue();
            }
        }
    }

    /// Interrupts the driver if it wants that or must be interrupted, and returns whether it is.
    pub fn interrupt(&self, must: bool) -> bool {
        let wants = self.vring.needs_notification().unwrap_or(true);

        (wants || must) && self.vring.signal_used_queue().is_ok()
    }
}

/// A device without its transport.
pub trait Model: Send + 'static {
    /// How many queues it has.
    fn queues(&self) -> usize;

    /// The feature bits, [`TRANSPORT`] among them unless one of those is to be missing.
    fn features(&self) -> u64;

    /// The configuration space.
    fn config(&mut self) -> Vec<u8>;

    /// The driver has written to the configuration space, which is now this, but for what has changed meanwhile.
    fn set_config(&mut self, _config: &[u8]) {}

    /// Whether the configuration space has changed since this was last asked, and the driver is to be told.
    fn config_has_changed(&mut self) -> bool {
        false
    }

    /// The driver has accepted these features: the device begins anew.
    fn begin(&mut self, features: u64);

    /// The driver has made buffers available in a queue.
    fn kicked(&mut self, queue: usize, rings: &[Ring<'_>]);

    /// Some time has passed.
    fn tick(&mut self, rings: &[Ring<'_>]);
}

struct Backend<M> {
    model: Arc<Mutex<M>>,
    memory: Memory,
    notifier: Notifier,
    timer: Arc<Mutex<TimerFd>>,
    exit: Mutex<Option<(EventConsumer, EventNotifier)>>,
    queues: usize,
}

impl<M: Model> Backend<M> {
    fn model(&self) -> MutexGuard<'_, M> {
        lock(&self.model)
    }
}

/// Whoever panicked is reported as such; what it left behind can still be looked at.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl<M: Model> VhostUserBackend for Backend<M> {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        self.queues
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        self.model().features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        self.model().begin(features);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::BACKEND_REQ
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.model().config();

        (offset..offset.saturating_add(size))
            .map(|at| config.get(at as usize).copied().unwrap_or(0))
            .collect()
    }

    fn set_config(&self, offset: u32, config: &[u8]) -> io::Result<()> {
        // QEMU always writes all of it.
        if offset == 0 {
            self.model().set_config(config);
        }
        Ok(())
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![u64::MAX]
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        lock(&self.exit).take()
    }

    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let rings: Vec<_> = vrings
            .iter()
            .map(|vring| Ring {
                vring,
                memory: &self.memory,
            })
            .collect();

        if usize::from(event) < self.queues {
            self.model().kicked(event.into(), &rings);
        } else {
            let _ = lock(&self.timer).wait();
            let mut model = self.model();
            model.tick(&rings);
            // QEMU 11.1 dies of this message when no driver is there; one that comes reads the configuration anyway.
            if rings.iter().any(Ring::is_live) && model.config_has_changed() {
                self.notifier.config_changed();
            }
        }
        Ok(())
    }
}

/// Begins to serve a device at a socket, for one QEMU, until that ends. The model can be looked at and bent meanwhile.
pub fn serve<M: Model>(model: M, socket: &Path) -> Result<Arc<Mutex<M>>> {
    let queues = model.queues();
    let model = Arc::new(Mutex::new(model));
    let memory = Memory::new(GuestMemoryMmap::new());
    let mut timer = TimerFd::new().context("a timer")?;
    timer.reset(TICK, Some(TICK)).context("a timer")?;
    let timer = Arc::new(Mutex::new(timer));
    let library = socket.with_extension("library");
    let mut listener =
        Listener::new(&library, true).with_context(|| format!("{}", library.display()))?;
    let exit = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)
        .context("an event")?;

    let backend = Arc::new(Backend {
        model: model.clone(),
        memory: memory.clone(),
        notifier: relay(socket, &library)?,
        timer: timer.clone(),
        exit: Mutex::new(Some(exit)),
        queues,
    });
    let mut daemon = VhostUserDaemon::new("tenon-device".to_owned(), backend, memory)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    for handler in daemon.get_epoll_handlers() {
        // The number after those of the queues is the exit event's.
        handler
            .register_listener(lock(&timer).as_raw_fd(), EventSet::IN, queues as u64 + 1)
            .context("a timer")?;
    }
    thread::Builder::new()
        .name("device".to_owned())
        .spawn(move || {
            // QEMU's end shows in the guest's.
            if daemon.start(&mut listener).is_ok() {
                let _ = daemon.wait();
            }
            for handler in daemon.get_epoll_handlers() {
                handler.send_exit_event();
            }
        })
        .context("a thread")?;
    Ok(model)
}
