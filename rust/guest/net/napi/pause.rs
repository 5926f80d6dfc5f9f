// SPDX-License-Identifier: GPL-2.0

//! Instances that are disabled for a while, so that what only their poll uses can change.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::{
    Handler,
    Napi, //
};
use crate::net::{
    page_pool::Pool,
    xsk::Rx, //
};
use kernel::prelude::*;

/// What only the poll of an instance uses, while that is disabled.
pub(in crate::net) struct Paused<'a, H: Handler> {
    handler: &'a mut H,
    pool: &'a mut Option<Pool>,
    /// What receives into a socket's frames.
    pub(in crate::net) frames: &'a mut Option<Rx>,
}

impl<H: Handler> Paused<'_, H> {
    /// All that the device had of the queue has been dropped.
    pub(in crate::net) fn forget(&mut self) {
        self.handler.forget();
        if let Some(frames) = self.frames {
            frames.forget();
        }
    }
}

impl<H: Handler> Napi<H> {
    /// Disables the instance, if it is enabled, for as long as `change` runs. Under the device's lock.
    pub(in crate::net) fn pause<R>(&self, change: impl FnOnce(Paused<'_, H>) -> R) -> R {
        let mut enabled = self.enabled.lock();
        let before = *enabled;

        self.disable_locked(&mut enabled);
        // SAFETY: The instance is disabled, and nobody enables it before `change` returns.
        let result = change(unsafe { self.paused() });
        if before {
            self.enable_locked(&mut enabled);
        }
        result
    }

    /// Returns what only the poll uses.
    ///
    /// # Safety
    ///
    /// The instance is disabled, and `enabled` is locked until the value is gone. There is one at a time.
    unsafe fn paused(&self) -> Paused<'_, H> {
        Paused {
            // SAFETY: By the type invariant and the safety requirements nobody else uses it.
            handler: unsafe { &mut *self.handler.get() },
            // SAFETY: As above.
            pool: unsafe { &mut *self.pool.get() },
            // SAFETY: As above.
            frames: unsafe { &mut *self.frames.get() },
        }
    }

    /// Makes a page pool like the one that the instance was made with.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`]: it was made without one. [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// The pool is dropped before the device, or [`start`](Self::start)s the instance.
    pub(in crate::net) unsafe fn another_pool(&self) -> Result<Pool> {
        let params = self.pool_params.ok_or(EOPNOTSUPP)?;
        // SAFETY: By the type invariant the instance belongs to a valid device.
        let dev = unsafe { (*self.napi.get()).dev };

        // SAFETY: By the safety requirements; the instance drops what it is started with before the device goes.
        unsafe { Pool::new(dev, u32::from(self.queue), params) }
    }

    /// Disables the instance and takes its page pool away, when `reset` has dropped all that the device had of the queue. Until
    /// [`start`](Self::start) it stays disabled. Under the device's lock.
    ///
    /// # Errors
    ///
    /// [`ENETDOWN`]: the instance is disabled already. [`EOPNOTSUPP`]: it has no pool. What `reset` fails with; then the instance
    /// goes on with its pool.
    pub(in crate::net) fn stop(&self, reset: impl FnOnce() -> Result) -> Result<Pool> {
        let mut enabled = self.enabled.lock();
        if !*enabled {
            return Err(ENETDOWN);
        }

        self.disable_locked(&mut enabled);
        let stopped = reset().and_then(|()| {
            // SAFETY: The instance is disabled, and `enabled` is locked.
            let mut paused = unsafe { self.paused() };
            paused.forget();
            paused.pool.take().ok_or(EOPNOTSUPP)
        });
        match &stopped {
            Ok(pool) => pool.belong_to_nobody(),
            Err(_) => self.enable_locked(&mut enabled),
        }
        stopped
    }

    /// Enables the instance, with another page pool than it had. Under the device's lock.
    pub(in crate::net) fn start(&self, pool: Pool) {
        let mut enabled = self.enabled.lock();

        self.disable_locked(&mut enabled);
        // SAFETY: The instance is disabled now and when it drops the pool, or gives it away.
        unsafe { pool.belong_to(self.napi.get()) };
        // SAFETY: The instance is disabled, and `enabled` is locked.
        *unsafe { self.paused() }.pool = Some(pool);
        self.enable_locked(&mut enabled);
    }
}
