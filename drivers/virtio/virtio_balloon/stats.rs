// SPDX-License-Identifier: GPL-2.0

//! The statistics queue (VirtIO 1.3, 5.5.6.3).
//!
//! It works the other way round: the driver lends the device a buffer with figures, and the device gives it back when it wants
//! new ones. Collecting them sleeps, so a work item does it.

use crate::{
    params::stat_tags,
    tags::{
        self,
        Tag, //
    }, //
};
use guest::{
    mm::stats::{
        available,
        Event,
        Events,
        MemInfo,
        NodeItem, //
    },
    virtio::{
        buffer::Message,
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
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic, //
    },
    workqueue::{
        DelayedWork,
        WorkItem, //
    }, //
};

/// How many figures there are.
const FIGURES: usize = 14 + if cfg!(CONFIG_HUGETLB_PAGE) { 2 } else { 0 };

/// The least time between two answers, in milliseconds: the host must not be able to keep a CPU busy.
const INTERVAL: u32 = 10;

/// The statistics of one device.
#[pin_data]
pub(crate) struct Stats {
    vq: Arc<Queue<Message>>,
    queue: Arc<OwnedQueue>,
    #[pin]
    collector: Mutex<Collector>,
    #[pin]
    work: DelayedWork<Self>,
}

struct Collector {
    events: Events,
    /// The first message, until it is lent.
    message: Option<Message>,
    last: Instant<Monotonic>,
    /// How many kinds of figures the device is taken to know.
    known: u32,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Stats { self.work }
}

impl WorkItem for Stats {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.answer();
    }
}

impl Stats {
    /// Makes what is needed to answer in the queue `vq`.
    pub(crate) fn new(vq: Arc<Queue<Message>>, queue: Arc<OwnedQueue>) -> Result<Arc<Self>> {
        let mut collector = Collector {
            events: Events::new()?,
            message: None,
            last: Instant::now(),
            known: stat_tags.get(),
        };
        collector.message = Some(collector.blank()?);

        Arc::pin_init(
            try_pin_init!(Self {
                vq,
                queue,
                collector <- new_mutex!(collector, "virtio_balloon::collector"),
                work <- new_delayed_work!("virtio_balloon::stats"),
            }),
            GFP_KERNEL,
        )
    }

    /// Lends the device the first figures.
    pub(crate) fn prime(&self) {
        let mut collector = self.collector.lock();

        if let Some(message) = collector.message.take() {
            self.lend(&mut collector, message);
        }
    }

    /// The device has given the buffer back. Any context.
    pub(crate) fn answer_soon(self: &Arc<Self>) {
        // Queued already is as good.
        let _ = self.queue.enqueue_delayed::<Arc<Self>, 0>(self.clone(), 0);
    }

    /// Begins anew after [`stop`](Self::stop): the device is live, and was reset, so that the buffer is lost.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn resume(self: &Arc<Self>) -> Result {
        let mut collector = self.collector.lock();
        let message = collector.blank()?;
        collector.message = Some(message);
        drop(collector);
        workqueue::enable_delayed::<_, 0>(self);
        self.prime();
        Ok(())
    }

    /// Ends all activity.
    pub(crate) fn stop(self: &Arc<Self>) {
        workqueue::disable_delayed_sync::<_, 0>(self);
    }

    fn answer(self: &Arc<Self>) {
        let mut collector = self.collector.lock();

        let passed = collector.last.elapsed().as_millis();
        let early = i64::from(INTERVAL).saturating_sub(passed);
        if early > 0 {
            // CAST: At most `INTERVAL`, as time does not run backwards.
            let delay = msecs_to_jiffies(early as u32);
            let _ = self
                .queue
                .enqueue_delayed::<Arc<Self>, 0>(self.clone(), delay);
            return;
        }

        let message = self.vq.lock_bh().and_then(|mut vq| vq.get_buf());
        if let Some(used) = message {
            self.lend(&mut collector, used.into_buffer());
        }

        // Also when there was nothing: the interrupt that led here has turned itself off.
        let heard = self.vq.lock_bh().is_none_or(|mut vq| vq.enable_cb());
        if !heard {
            self.answer_soon();
        }
    }

    /// Fills `message` with figures of now and lends it to the device.
    fn lend(&self, collector: &mut Collector, mut message: Message) {
        tags::write(&mut message, collector.figures());
        collector.last = Instant::now();

        if let Some(mut vq) = self.vq.lock_bh() {
            // A queue that is broken takes nothing any more; there is nobody to tell.
            if vq.add_outbuf(message).is_ok() {
                vq.kick();
            }
        }
    }
}

impl Collector {
    /// Makes a message with room for all figures of which the device knows.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    fn blank(&mut self) -> Result<Message> {
        Message::new_out(self.figures().count() * tags::RECORD)
    }

    /// Collects the figures of which the device knows.
    fn figures(&mut self) -> impl Iterator<Item = (Tag, u64)> {
        let known = self.known;

        self.collect()
            .into_iter()
            .filter(move |(tag, _)| tag.is_known(known))
    }

    fn collect(&mut self) -> [(Tag, u64); FIGURES] {
        self.events.refresh();
        let events = &self.events;
        let memory = MemInfo::now();

        [
            (Tag::SwapIn, events.bytes(Event::SwapIn)),
            (Tag::SwapOut, events.bytes(Event::SwapOut)),
            (Tag::MajorFaults, events.count(Event::MajorFault)),
            (Tag::MinorFaults, events.count(Event::Fault)),
            (Tag::OomKills, events.count(Event::OomKill)),
            (Tag::AllocationStalls, events.allocation_stalls()),
            (Tag::AsyncScans, NodeItem::ScannedByKswapd.bytes()),
            (Tag::DirectScans, NodeItem::ScannedDirectly.bytes()),
            (Tag::AsyncReclaims, NodeItem::ReclaimedByKswapd.bytes()),
            (Tag::DirectReclaims, NodeItem::ReclaimedDirectly.bytes()),
            #[cfg(CONFIG_HUGETLB_PAGE)]
            (
                Tag::HugetlbAllocations,
                events.count(Event::HugetlbAllocation),
            ),
            #[cfg(CONFIG_HUGETLB_PAGE)]
            (Tag::HugetlbFailures, events.count(Event::HugetlbFailure)),
            (Tag::FreeMemory, memory.free),
            (Tag::TotalMemory, memory.total),
            (Tag::AvailableMemory, available()),
            (Tag::DiskCaches, NodeItem::FilePages.bytes()),
        ]
    }
}
