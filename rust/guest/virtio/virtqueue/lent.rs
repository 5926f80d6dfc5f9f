// SPDX-License-Identifier: GPL-2.0

//! Queues with another lock than their own.

use super::{
    Buffer,
    Inner,
    Life,
    Queue,
    Virtqueue, //
};
use crate::bottom_half;
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        MutexGuard, //
    }, //
};

/// A queue's life, held.
pub(super) type Guard<'a> = MutexGuard<'a, Life>;

/// A lock that stands in for a queue's own. It is taken in softirq context, or with softirqs off.
///
/// # Safety
///
/// While [`with`](Self::with) calls its argument the current context holds the lock, which only one can at a time.
pub(crate) unsafe trait Substitute: Send + Sync {
    /// Calls `f` once with the lock held. Process context.
    fn with(&self, f: &mut dyn FnMut());
}

/// A queue whose lock is another one, as long as this exists. The queue itself stays inert for those who do not hold that.
///
/// # Invariants
///
/// The queue has a substitute, and its own lock says so.
pub(crate) struct Lent<B: Buffer>(Arc<Queue<B>>);

impl<B: Buffer> Lent<B> {
    /// Has `substitute` be the queue's lock. Sleeps.
    ///
    /// # Errors
    ///
    /// [`EBUSY`]: it has another one already.
    pub(crate) fn new(queue: Arc<Queue<B>>, substitute: Arc<dyn Substitute>) -> Result<Self> {
        let life = queue.life.lock();

        // SAFETY: The queue's life is held.
        let stored = unsafe { &mut *queue.substitute.get() };
        if stored.is_some() {
            return Err(EBUSY);
        }
        // INVARIANT: The life is held, and both locks are when the queue's own says so.
        substitute.with(&mut || queue.lock.lock().0 = false);
        *stored = Some(substitute);

        drop(life);
        // INVARIANT: As has just been said.
        Ok(Self(queue))
    }

    /// Returns the queue.
    pub(crate) fn queue(&self) -> &Queue<B> {
        &self.0
    }

    /// Returns the queue as one that is locked, or [`None`] when the device is gone.
    ///
    /// # Safety
    ///
    /// The substitute is held for as long as the value exists, and there is no other such value of this queue.
    #[inline]
    pub(crate) unsafe fn locked(&self) -> Option<Virtqueue<'_, B>> {
        // SAFETY: By the type invariants and the safety requirements nobody else reaches it.
        let inner = unsafe { &mut *self.0.inner.get() };

        // INVARIANT: The substitute is held, so `vq` stays what it is.
        Some(Virtqueue {
            vq: inner.vq?,
            inner,
            _guard: None,
            _off: None,
            _buffers: PhantomData,
        })
    }
}

impl<B: Buffer> Drop for Lent<B> {
    fn drop(&mut self) {
        let life = self.0.life.lock();

        // SAFETY: The queue's life is held.
        let stored = unsafe { &mut *self.0.substitute.get() };
        if let Some(substitute) = stored.take() {
            // INVARIANT: The life is held, and so are both locks.
            substitute.with(&mut || self.0.lock.lock().0 = true);
        }
        drop(life);
    }
}

impl<B: Buffer> Queue<B> {
    /// Calls `f` with what the queue's lock protects, whichever lock that is.
    pub(super) fn with_inner(&self, _life: &Guard<'_>, f: impl FnOnce(&mut Inner)) {
        let mut f = Some(f);
        let mut once = || {
            if let Some(f) = f.take() {
                // SAFETY: The lock is held that it is reached with.
                f(unsafe { &mut *self.inner.get() });
            }
        };

        // SAFETY: The queue's life is held.
        match unsafe { &*self.substitute.get() } {
            Some(substitute) => substitute.with(&mut once),
            None => {
                let _off = bottom_half::disable();
                let guard = self.lock.lock();

                once();
                // Ends before softirqs come back on.
                drop(guard);
            }
        }
    }
}
