// SPDX-License-Identifier: GPL-2.0

//! Free page hints: while the device copies the guest's memory, as for a migration, the driver takes free memory and names it, so
//! that the device need not copy it, and gives it back when the device has done or the guest needs it.
//!
//! A work item does it, some blocks at a time; it does not wait for the device, but looks again after a pause, because there are
//! devices that do not interrupt for this queue. A device that does not answer keeps at most [`IN_FLIGHT`] blocks.
//!
//! # Locking
//!
//! `conversation` is held throughout a run. Inside it: the queue's lock, and that of `held`, one after the other. The latter is all
//! that the shrinker takes.

use crate::{
    hint::{
        Act,
        Protocol, //
    },
    params::reserve_mib,
    target::{
        Reserve,
        Units, //
    }, //
};
use guest::{
    mm::{
        hint::{
            Block,
            Hint, //
        },
        shrinker::{
            Shrink,
            Shrinker, //
        },
        stats::{
            available,
            MemInfo, //
        }, //
    },
    virtio::{
        self,
        config::Field,
        Queue, //
    },
    workqueue::{
        self,
        OwnedQueue, //
    }, //
};
use kernel::{
    impl_has_delayed_work,
    new_delayed_work,
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock, //
    },
    time::msecs_to_jiffies,
    workqueue::{
        DelayedWork,
        WorkItem, //
    }, //
};

/// What the device wants to hear of.
const COMMAND: Field<u32> = Field::new(8);

/// The most blocks under way: what a device that never answers keeps.
const IN_FLIGHT: u32 = 32;

/// The device is notified once per so many blocks.
const BURST: u32 = 8;

/// The first pause when the device owes answers, in milliseconds. Each is twice as long as the one before.
const FIRST_PAUSE: u32 = 1;

/// There is no longer one: a device that was silent for so long has to interrupt, or say something new.
const LAST_PAUSE: u32 = 32_768;

/// The most that is done in one run.
const STEPS: usize = 64;

/// Hints at the free memory of one guest.
#[pin_data]
pub(crate) struct Hinting {
    dev: ARef<virtio::Device>,
    vq: Arc<Queue<Hint>>,
    queue: Arc<OwnedQueue>,
    changed: Atomic<bool>,
    /// The guest has taken blocks back since the last run.
    pressed: Atomic<bool>,
    hinted: Atomic<u64>,
    #[pin]
    conversation: Mutex<Conversation>,
    #[pin]
    held: SpinLock<KVec<Block>>,
    #[pin]
    work: DelayedWork<Self>,
}

struct Conversation {
    protocol: Protocol,
    /// How many messages may be under way.
    room: u32,
    in_flight: u32,
    silent: u32,
    pause: u32,
    /// What could not be said for want of memory.
    unsaid: Option<u32>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Hinting { self.work }
}

impl WorkItem for Hinting {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.run();
    }
}

impl Shrink for Hinting {
    fn count(&self) -> usize {
        self.held.lock().len().saturating_mul(Block::PAGES)
    }

    fn scan(&self, pages: usize) -> usize {
        self.pressed.store(true, Relaxed);

        let mut freed = 0usize;
        while freed < pages {
            // Dropped when the lock has been released.
            let block = self.held.lock().pop();
            if block.is_none() {
                break;
            }
            freed = freed.saturating_add(Block::PAGES);
        }
        freed
    }
}

impl Hinting {
    /// Makes what is needed to hint in the queue `vq`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(
        dev: ARef<virtio::Device>,
        vq: Arc<Queue<Hint>>,
        queue: Arc<OwnedQueue>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                dev,
                vq,
                queue,
                changed: Atomic::new(true),
                pressed: Atomic::new(false),
                hinted: Atomic::new(0),
                conversation <- new_mutex!(Conversation::new(), "virtio_balloon::conversation"),
                held <- new_spinlock!(KVec::new(), "virtio_balloon::held"),
                work <- new_delayed_work!("virtio_balloon::hint"),
            }),
            GFP_KERNEL,
        )
    }

    /// Lets the guest take back what it needs, as long as the value lives.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn shrinker(self: &Arc<Self>) -> Result<Shrinker<Self>> {
        Shrinker::new(c"virtio_balloon_rust", self.clone())
    }

    /// Returns how much the device has had hints at, in bytes.
    pub(crate) fn hinted(&self) -> u64 {
        self.hinted.load(Relaxed)
    }

    /// The device's configuration has changed. Any context.
    pub(crate) fn command_changed(self: &Arc<Self>) {
        self.changed.store(true, Relaxed);
        self.go_on_soon();
    }

    /// The device has answered. Any context.
    pub(crate) fn go_on_soon(self: &Arc<Self>) {
        // A pause ends here.
        workqueue::cancel_delayed::<_, 0>(self);
        self.go_on_in(0);
    }

    fn go_on_in(self: &Arc<Self>, ms: u32) {
        // What is queued already is more urgent.
        let _ = self
            .queue
            .enqueue_delayed::<Arc<Self>, 0>(self.clone(), msecs_to_jiffies(ms));
    }

    /// Begins: the device is live.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] when the device is gone.
    pub(crate) fn start(self: &Arc<Self>) -> Result {
        let size = self.vq.lock_bh().ok_or(ENODEV)?.size();

        self.conversation.lock().room = size.min(IN_FLIGHT);
        self.command_changed();
        Ok(())
    }

    /// Ends all activity, and gives back what the device has returned.
    pub(crate) fn stop(self: &Arc<Self>) {
        workqueue::disable_delayed_sync::<_, 0>(self);
        self.release();
    }

    /// Begins anew after [`stop`](Self::stop): the device is live, and was reset.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] when the device is gone.
    pub(crate) fn resume(self: &Arc<Self>) -> Result {
        *self.conversation.lock() = Conversation::new();
        workqueue::enable_delayed::<_, 0>(self);
        self.start()
    }

    fn release(&self) {
        // Dropped when the lock has been released.
        let blocks = core::mem::replace(&mut *self.held.lock(), KVec::new());
        drop(blocks);
    }

    fn run(self: &Arc<Self>) {
        let mut conversation = self.conversation.lock();

        if self.collect(&mut conversation) {
            conversation.pause = FIRST_PAUSE;
        }
        if self.changed.xchg(false, Full) {
            conversation.protocol.heard(self.dev.read(COMMAND));
        }
        if self.pressed.xchg(false, Full) {
            conversation.protocol.exhausted();
        }

        let mut again = true;
        for _ in 0..STEPS {
            again = self.step(&mut conversation);
            if !again {
                break;
            }
        }

        if conversation.protocol.is_over() {
            self.release();
        }
        let heard = self.vq.lock_bh().is_none_or(|mut vq| {
            vq.kick();
            conversation.silent = 0;
            vq.enable_cb()
        });
        if again || !heard {
            self.go_on_soon();
        } else if conversation.in_flight > 0 && conversation.pause <= LAST_PAUSE {
            self.go_on_in(conversation.pause);
            conversation.pause = conversation.pause.saturating_mul(2);
        }
    }

    /// Takes in what the device has returned. Returns whether that was something.
    fn collect(&self, conversation: &mut Conversation) -> bool {
        let before = conversation.in_flight;

        for _ in 0..=IN_FLIGHT {
            let Some(used) = self.vq.lock_bh().and_then(|mut vq| vq.get_buf()) else {
                break;
            };
            conversation.in_flight = conversation.in_flight.saturating_sub(1);
            if let Hint::Block(block) = used.into_buffer() {
                self.hinted.fetch_add(Block::BYTES as u64, Relaxed);
                // Without room the block is free again at once: what the device does not copy nobody has written to before.
                let _ = self.held.lock().push(block, GFP_NOWAIT);
            }
        }
        conversation.in_flight != before
    }

    /// Takes one step. Returns whether to take another.
    fn step(&self, conversation: &mut Conversation) -> bool {
        if conversation.in_flight >= conversation.room {
            return false;
        }
        let said = match conversation.unsaid.take() {
            Some(word) => Act::Say(word),
            None => conversation.protocol.next(),
        };

        match said {
            Act::Rest => false,
            Act::Say(word) => match Hint::word(word) {
                Ok(hint) => self.lend(conversation, hint),
                Err(_) => {
                    conversation.unsaid = Some(word);
                    false
                }
            },
            Act::Hint => match self.take_block() {
                Some(block) => self.lend(conversation, Hint::Block(block)),
                None => {
                    conversation.protocol.exhausted();
                    true
                }
            },
        }
    }

    /// Takes a block, if the guest keeps its reserve.
    fn take_block(&self) -> Option<Block> {
        let total = Units::from_bytes(MemInfo::now().total);
        let spare = Reserve::of(total, reserve_mib.get()).leaves(Units::from_bytes(available()));

        if spare < Units::from_bytes(Block::BYTES as u64) {
            return None;
        }
        Block::take()
    }

    /// Tells the device. Returns whether it could be told.
    fn lend(&self, conversation: &mut Conversation, hint: Hint) -> bool {
        let Some(mut vq) = self.vq.lock_bh() else {
            return false;
        };
        // Refused when the ring is short, or broken: the hint is dropped after the lock.
        let refused = vq.add_sgs(hint).err();
        if refused.is_none() {
            conversation.in_flight += 1;
            conversation.silent += 1;
            if conversation.silent >= BURST {
                conversation.silent = 0;
                vq.kick();
            }
        }
        drop(vq);
        refused.is_none()
    }
}

impl Conversation {
    fn new() -> Self {
        Self {
            protocol: Protocol::new(),
            room: 0,
            in_flight: 0,
            silent: 0,
            pause: FIRST_PAUSE,
            unsaid: None,
        }
    }
}
