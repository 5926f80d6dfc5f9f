// SPDX-License-Identifier: GPL-2.0

//! Transmit queues.
//!
//! The kernel takes a lock per transmit queue before it calls a driver's `ndo_start_xmit`. A [`Transmit`] value is what that
//! lock protects: the device keeps one per queue, and every method gets an exclusive reference, from `ndo_start_xmit` and
//! from the queue's NAPI instance alike, which takes the same lock. So
//!
//! - a driver needs no lock of its own between sending and reclaiming, and neither does the virtqueue by which it sends: this lock
//!   stands in for its own, see [`Ring`];
//! - stopping and waking the queue cannot race with each other: there is no need for the memory barriers by which drivers
//!   without that lock close the gap between "the ring is full" and "the queue is stopped";
//! - netpoll, which only tries to take the lock, cannot find the queue's state locked by whom it has interrupted.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::{
    buffer::TxFrame,
    device::{
        Device,
        Locked,
        Operations, //
    },
    napi::{
        Context,
        Handler,
        Napi,
        Progress, //
    },
    skbuff::{
        DropReason,
        TxSkBuff, //
    },
    xdp::Frames,
    xsk::Tx, //
};
use crate::{
    bindings,
    bottom_half,
    virtio::{
        Lent,
        Queue,
        Substitute,
        Virtqueue, //
    }, //
};
use core::{
    cell::UnsafeCell,
    ptr::{
        addr_of,
        NonNull, //
    },
};
use kernel::{
    cpu::CpuId,
    prelude::*,
    sync::Arc, //
};

/// What became of a packet.
pub enum Xmit {
    /// The driver has it, or has freed it.
    Taken,

    /// The stack is to try again later. A queue that is stopped in time never needs this.
    Busy(TxSkBuff),
}

/// A virtqueue to send by, locked as the transmit queue is. There is none when the device is gone, or is made to forget it.
pub type Ring<'a> = Virtqueue<'a, TxFrame>;

/// The state of one transmit queue.
pub trait Transmit: Send + Sized + 'static {
    /// The driver's device.
    type Device: Operations<Transmit = Self>;

    /// Sends a packet. Softirqs are off.
    fn xmit(
        &mut self,
        queue: &TxQueue<'_, Self::Device>,
        ring: Option<Ring<'_>>,
        skb: TxSkBuff,
    ) -> Xmit;

    /// Sends packets of programs, until there is no more room. The device can wait to be told unless it is to `flush`. Softirqs
    /// are off.
    fn xdp_xmit(
        &mut self,
        queue: &TxQueue<'_, Self::Device>,
        ring: Option<Ring<'_>>,
        frames: &mut Frames<'_>,
        flush: bool,
    ) {
        let _ = (queue, ring, frames, flush);
    }

    /// Reclaims what the device has sent, and wakes the queue. In the poll of the queue's NAPI instance.
    ///
    /// When there is nothing left to do it turns the device's interrupt on as well, so that the lock is taken once: with
    /// [`Progress::Done`] it is on, unless nothing is in flight. With a budget of 0 it leaves the interrupt as it is: it is netpoll
    /// that asks, no poll need follow, and one that is due turns it on by itself.
    fn complete(
        &mut self,
        queue: &TxQueue<'_, Self::Device>,
        ring: Option<Ring<'_>>,
        cx: &Context<'_>,
    ) -> Progress;
}

/// A transmit queue whose lock is held.
///
/// # Invariants
///
/// `txq` is the device's queue of number `index`, and its lock is held by the current context.
pub struct TxQueue<'a, D: Operations> {
    dev: &'a Device<D>,
    txq: NonNull<bindings::netdev_queue>,
    side: &'a Side<D>,
    index: u16,
}

impl<'a, D: Operations> TxQueue<'a, D> {
    /// Returns the device.
    #[inline]
    pub fn device(&self) -> &'a Device<D> {
        self.dev
    }

    /// Returns the queue's number.
    #[inline]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Returns whether the stack has another packet at hand, so that telling the device can wait. Only in
    /// [`Transmit::xmit`].
    #[inline]
    pub fn xmit_more(&self) -> bool {
        // SAFETY: Softirqs are off, so this stays on one CPU.
        unsafe { bindings::netdev_xmit_more() }
    }

    /// Counts a packet in flight of `bytes` bytes, for byte queue limits. Returns whether the device is to be told now;
    /// `more` is what [`xmit_more`](Self::xmit_more) returned.
    #[inline]
    pub fn sent(&self, bytes: u32, more: bool) -> bool {
        // SAFETY: By the type invariant `txq` is valid and locked.
        unsafe { bindings::__netdev_tx_sent_queue(self.txq.as_ptr(), bytes, more) }
    }

    /// Counts what has been reclaimed, for byte queue limits: to the byte what was [`sent`](Self::sent). May wake the queue
    /// if these limits had stopped it.
    #[inline]
    pub fn completed(&self, packets: u32, bytes: u32) {
        // SAFETY: By the type invariant `txq` is valid and locked.
        unsafe { bindings::netdev_tx_completed_queue(self.txq.as_ptr(), packets, bytes) };
    }

    /// Stops the queue: the stack keeps its packets until [`wake`](Self::wake). How long that lasts is counted from now.
    pub fn stop(&self) {
        // The packets of programs fill the ring too, and are no packets of the stack, which looks when it sent last.
        // SAFETY: By the type invariant `txq` is valid and locked.
        unsafe { bindings::txq_trans_cond_update(self.txq.as_ptr()) };
        // SAFETY: By the type invariant `txq` is valid.
        unsafe { bindings::netif_tx_stop_queue(self.txq.as_ptr()) };
    }

    /// Wakes the queue if it was stopped, and returns whether it was.
    pub fn wake(&self) -> bool {
        // SAFETY: By the type invariant `txq` is valid.
        let stopped = unsafe { bindings::netif_tx_queue_stopped(self.txq.as_ptr()) };

        if stopped {
            // SAFETY: By the type invariant `txq` is valid.
            unsafe { bindings::netif_tx_wake_queue(self.txq.as_ptr()) };
        }
        stopped
    }

    /// Calls `f` with what sends from a socket's frames, if one is bound to the queue.
    pub(super) fn with_frames<R>(&self, f: impl FnOnce(&mut Tx) -> R) -> Option<R> {
        // SAFETY: By the type invariants the lock is held, so this is the only reference: `f` is no driver's.
        unsafe { &mut *self.side.frames.get() }.as_mut().map(f)
    }

    /// Has the queue's NAPI instance polled, after calling `disarm` to turn the interrupt off.
    #[inline]
    pub fn schedule(&self, disarm: impl FnOnce()) {
        self.side.napi.schedule(disarm);
    }
}

/// What a device keeps for one transmit queue.
///
/// # Invariants
///
/// - `state` and `frames` are reached only with the lock of the queue held.
/// - `ring` has that lock for its own, and is reached as a locked one only by who gives that to the state's methods, once at a time.
#[pin_data]
pub(super) struct Side<D: Operations> {
    state: UnsafeCell<D::Transmit>,
    ring: Lent<TxFrame>,
    frames: UnsafeCell<Option<Tx>>,
    #[pin]
    pub(super) napi: Napi<Reclaim<D>>,
}

// SAFETY: By the type invariant nobody has two references to `state` or `frames`, which are `Send`.
unsafe impl<D: Operations> Sync for Side<D> {}

// SAFETY: The state is `Send`, and so is the NAPI instance.
unsafe impl<D: Operations> Send for Side<D> {}

impl<D: Operations> Side<D> {
    /// # Safety
    ///
    /// `txq` is the transmit queue that this is for, and stays valid until the value has been dropped.
    pub(super) unsafe fn new(
        queue: TransmitQueue<D::Transmit>,
        txq: NonNull<bindings::netdev_queue>,
        napi: impl PinInit<Napi<Reclaim<D>>, Error>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            state: UnsafeCell::new(queue.state),
            // INVARIANT: By the safety requirements `txq` is valid as long as it is the ring's lock.
            ring: Lent::new(queue.ring, Arc::new(TxLock(txq), GFP_KERNEL)?)?,
            frames: UnsafeCell::new(None),
            napi <- napi,
        }? Error)
    }

    /// Calls `f` with the state and the ring.
    ///
    /// # Safety
    ///
    /// The lock of the queue is held, and `f` does not come back here.
    #[inline(always)]
    unsafe fn enter<R>(&self, f: impl FnOnce(&mut D::Transmit, Option<Ring<'_>>) -> R) -> R {
        // SAFETY: By the type invariant and the safety requirements this is the only reference.
        let state = unsafe { &mut *self.state.get() };
        // SAFETY: As above.
        let ring = unsafe { self.ring.locked() };

        f(state, ring)
    }
}

/// A transmit queue to be made.
pub struct TransmitQueue<T> {
    /// What its lock protects.
    pub state: T,
    /// What it sends by. As long as the network device exists others reach it only to have the device forget it.
    pub ring: Arc<Queue<TxFrame>>,
}

/// The lock of a transmit queue.
///
/// # Invariants
///
/// The queue is valid as long as the value is in use.
struct TxLock(NonNull<bindings::netdev_queue>);

// SAFETY: A lock is for all threads.
unsafe impl Send for TxLock {}

// SAFETY: As above.
unsafe impl Sync for TxLock {}

impl TxLock {
    /// Takes the lock. Softirqs are off.
    #[inline]
    fn lock(&self) {
        // CAST: A CPU number is small.
        let cpu = CpuId::current().as_u32() as c_int;

        // SAFETY: By the type invariant the queue is valid; softirqs are off.
        unsafe { bindings::__netif_tx_lock(self.0.as_ptr(), cpu) };
    }

    /// Takes the lock if nobody has it, and returns whether that is so. Softirqs are off.
    #[inline]
    fn try_lock(&self) -> bool {
        // SAFETY: As above.
        unsafe { bindings::__netif_tx_trylock(self.0.as_ptr()) }
    }

    /// # Safety
    ///
    /// This CPU has taken the lock.
    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: By the type invariant and the safety requirements.
        unsafe { bindings::__netif_tx_unlock(self.0.as_ptr()) };
    }
}

// SAFETY: It is a spin lock, held during the call.
unsafe impl Substitute for TxLock {
    fn with(&self, f: &mut dyn FnMut()) {
        let _off = bottom_half::disable();

        self.lock();
        f();
        // SAFETY: Taken above, on this CPU.
        unsafe { self.unlock() };
    }
}

/// The NAPI handler of a transmit queue. It has no state: the lock of the queue protects that.
pub struct Reclaim<D: Operations>(core::marker::PhantomData<fn() -> D>);

impl<D: Operations> Reclaim<D> {
    pub(super) fn new() -> Self {
        Self(core::marker::PhantomData)
    }
}

/// Which queue a [`Reclaim`] is for.
///
/// # Invariants
///
/// `dev` is valid as long as the value is in use.
pub struct Of<D: Operations> {
    dev: NonNull<Device<D>>,
    index: u16,
}

// SAFETY: A `Device` may be shared between threads.
unsafe impl<D: Operations> Send for Of<D> {}

// SAFETY: As above.
unsafe impl<D: Operations> Sync for Of<D> {}

impl<D: Operations> Of<D> {
    /// # Safety
    ///
    /// `dev` stays valid as long as the value is in use.
    pub(super) unsafe fn new(dev: NonNull<Device<D>>, index: u16) -> Self {
        // INVARIANT: By the safety requirements.
        Self { dev, index }
    }

    /// Calls `f` with the lock of the queue held. Softirqs are off.
    #[inline]
    fn with_lock<R>(
        &self,
        f: impl FnOnce(&mut D::Transmit, &TxQueue<'_, D>, Option<Ring<'_>>) -> R,
    ) -> Option<R> {
        self.with_lock_if(false, f)
    }

    /// The same, but for a lock that is held by others if it is only to be tried.
    #[inline(always)]
    fn with_lock_if<R>(
        &self,
        try_only: bool,
        f: impl FnOnce(&mut D::Transmit, &TxQueue<'_, D>, Option<Ring<'_>>) -> R,
    ) -> Option<R> {
        // SAFETY: By the type invariant.
        let dev = unsafe { self.dev.as_ref() };
        let side = dev.side(self.index)?;
        let txq = dev.txq(self.index);
        // INVARIANT: The device is borrowed.
        let lock = TxLock(txq);

        if try_only {
            if !lock.try_lock() {
                return None;
            }
        } else {
            lock.lock();
        }

        // INVARIANT: The lock has just been taken.
        let queue = TxQueue {
            dev,
            txq,
            side,
            index: self.index,
        };
        // SAFETY: The lock is held; who has a `TxQueue` cannot come here by it.
        let result = unsafe { side.enter(|state, ring| f(state, &queue, ring)) };

        // SAFETY: The lock was taken above, on this CPU.
        unsafe { lock.unlock() };
        Some(result)
    }
}

impl<D: Operations> Device<D> {
    /// Sends packets of programs by this CPU's queue. Softirqs are off.
    pub(super) fn xdp_xmit(&self, frames: &mut Frames<'_>, flush: bool) {
        let queue = CpuId::current().as_u32() % self.channels().active.max(1);

        // CAST: There are at most `u16::MAX` queues.
        // SAFETY: The device is borrowed for longer than the value lives.
        let of = unsafe { Of::new(NonNull::from(self), queue as u16) };
        of.with_lock(|state, queue, ring| state.xdp_xmit(queue, ring, frames, flush));
    }
}

impl<D: Operations> Device<D> {
    /// Calls `f` with the lock of a transmit queue held. Process context.
    fn with_queue<R>(&self, index: u16, f: impl FnOnce(&TxQueue<'_, D>) -> R) -> Option<R> {
        // SAFETY: The device is borrowed for longer than the value lives.
        let of = unsafe { Of::new(NonNull::from(self), index) };

        let _off = bottom_half::disable();
        of.with_lock(|_, queue, _| f(queue))
    }

    /// Tells the device again of what transmit queue `index` has got, and has its NAPI instance polled. Softirqs are off.
    ///
    /// Does nothing when there is no such queue.
    pub fn kick_transmit_queue(&self, index: u16) {
        // SAFETY: The device is borrowed for longer than the value lives.
        let of = unsafe { Of::new(NonNull::from(self), index) };

        of.with_lock(|_, queue, ring| {
            if let Some(ring) = ring {
                ring.notify();
            }
            queue.schedule(|| {});
        });
    }

    /// Has a transmit queue send from these frames from now on, and returns what did that until now.
    pub(super) fn exchange_frames(&self, index: u16, frames: Option<Tx>) -> Option<Tx> {
        self.with_queue(index, |queue| {
            // SAFETY: By the type invariants the lock is held, so this is the only reference.
            core::mem::replace(unsafe { &mut *queue.side.frames.get() }, frames)
        })
        .flatten()
    }

    /// What a transmit queue has sent from frames is not in flight any more.
    pub(super) fn reset_frames(&self, index: u16) {
        self.with_queue(index, |queue| queue.with_frames(Tx::reset));
    }
}

impl<D: Operations> Device<D> {
    /// Has transmit queue `index` begin anew: the device forgets it, and all that is in flight is dropped.
    /// Other queues go on. Sleeps, for as long as the device takes, with none of the locks of the configuration.
    ///
    /// # Errors
    ///
    /// [`EINVAL`]: there is no such queue. Those of [`Queue::reset`].
    pub fn restart_transmit_queue(&self, index: u16) -> Result {
        let side = self.side(index).ok_or(EINVAL)?;

        self.with_queue(index, |queue| queue.stop());
        let result = side.ring.queue().reset_then(|| {
            self.with_queue(index, |queue| {
                queue.with_frames(Tx::reset);
                // SAFETY: The queue is valid and locked; nothing that was sent comes back, and nobody can send before this is over.
                unsafe { bindings::netdev_tx_reset_queue(queue.txq.as_ptr()) };
            });
        });

        // The poll wakes the queue. Where the interface is stopped there is none, until it is started.
        let _off = bottom_half::disable();
        side.napi.schedule(|| {});
        result
    }
}

impl<D: Operations> Locked<D> {
    /// Stops a transmit queue for as long as `change` runs, which drops all that is in flight. Under the rtnl lock and the device's.
    pub(super) fn interrupt_queue<R>(
        &self,
        index: u16,
        change: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let side = self.side(index).ok_or(EINVAL)?;

        let result = side.napi.pause(|_| {
            self.with_queue(index, |queue| queue.stop());
            let result = change();
            // SAFETY: The queue exists and is stopped, and nothing is in flight.
            unsafe { bindings::netdev_tx_reset_queue(self.txq(index).as_ptr()) };
            result
        });
        if self.is_running() {
            self.with_queue(index, |queue| queue.wake());
        }
        result
    }
}

impl<D: Operations> Handler for Reclaim<D> {
    type Shared = Of<D>;

    fn poll(&mut self, shared: &Of<D>, cx: &mut Context<'_>) -> Progress {
        // Netpoll may have interrupted who holds the lock.
        let is_netpoll = cx.budget() == 0;

        shared
            .with_lock_if(is_netpoll, |state, queue, ring| {
                state.complete(queue, ring, cx)
            })
            .unwrap_or(Progress::Done(0))
    }

    fn disarm(shared: &Of<D>) {
        shared.with_lock(|_, _, ring| {
            if let Some(mut ring) = ring {
                ring.disable_cb();
            }
        });
    }
}

/// `ndo_start_xmit`.
///
/// # Safety
///
/// Called by the stack, for a device of this type, with the lock of the packet's queue held.
pub(super) unsafe extern "C" fn start_xmit_callback<D: Operations>(
    skb: *mut bindings::sk_buff,
    dev: *mut bindings::net_device,
) -> bindings::netdev_tx_t {
    // SAFETY: The stack calls with a valid packet and passes it on.
    let skb = unsafe { TxSkBuff::from_raw(NonNull::new_unchecked(skb)) };
    // SAFETY: The packet is valid.
    let index = unsafe { addr_of!((*skb.as_ptr()).queue_mapping).read() };
    // SAFETY: The stack calls with a valid device of this type.
    let dev = unsafe { &*dev.cast::<Device<D>>() };

    let Some(side) = dev.side(index) else {
        skb.free(DropReason::NotSpecified);
        return bindings::netdev_tx_NETDEV_TX_OK;
    };
    // INVARIANT: The stack holds the lock of the queue that it sends to.
    let queue = TxQueue {
        dev,
        txq: dev.txq(index),
        side,
        index,
    };

    // SAFETY: The lock is held; who has a `TxQueue` cannot come here by it.
    match unsafe { side.enter(|state, ring| state.xmit(&queue, ring, skb)) } {
        Xmit::Taken => bindings::netdev_tx_NETDEV_TX_OK,
        Xmit::Busy(skb) => {
            let _ = skb.into_raw();
            bindings::netdev_tx_NETDEV_TX_BUSY
        }
    }
}
