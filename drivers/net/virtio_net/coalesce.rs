// SPDX-License-Identifier: GPL-2.0

//! When the device interrupts (VirtIO 1.3, 5.1.6.5, notifications coalescing): for all queues of a direction
//! (VIRTIO_NET_F_NOTF_COAL), for each by itself (VIRTIO_NET_F_VQ_NOTF_COAL), or both.
//!
//! A device that can be told for each queue can also be told again and again, as the traffic asks for it.

use crate::{
    config::Feature,
    control::Control, //
};
use guest::{
    net::ethtool::coalesce::{
        Moderation,
        Scope,
        Settings, //
    },
    virtio::Features, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// What is said of a device that cannot be told: it interrupts for each packet.
const FIXED: Settings = Settings {
    rx: Moderation {
        usecs: 0,
        frames: 1,
    },
    tx: Moderation {
        usecs: 0,
        frames: 1,
    },
    adaptive_rx: false,
};

/// What is said of a device that has not been told yet. It does the same; who then sets a time alone means that packets are not
/// counted, but for those that were sent, as the C driver has it.
const UNTOLD: Settings = Settings {
    rx: Moderation {
        usecs: 0,
        frames: 0,
    },
    ..FIXED
};

/// When the queues interrupt, which the interface and the receive queues decide.
#[pin_data]
pub(crate) struct Coalescing {
    /// Whom to tell, if the device has the commands for all queues of a direction.
    all: Option<Arc<Control>>,
    /// The same, for each queue.
    each: Option<Arc<Control>>,
    /// What the device does after a reset.
    initial: Settings,
    /// Which receive queues adapt to the traffic: a copy for the polls, which cannot wait for the lock.
    adaptive: KVec<Atomic<bool>>,
    #[pin]
    told: Mutex<Told>,
}

/// What the device has been told.
struct Told {
    /// For all pairs.
    all: Settings,
    /// For each pair.
    pairs: KVec<Settings>,
}

impl Coalescing {
    /// Begins with nothing told to a device of `pairs` pairs, which may not be able to be told.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(
        pairs: usize,
        features: &Features<Feature>,
        control: Option<&Arc<Control>>,
    ) -> Result<Arc<Self>> {
        let control = |feature| control.filter(|_| features.contains(feature)).cloned();
        let all = control(Feature::NotfCoal);
        let each = control(Feature::VqNotfCoal);
        let initial = if all.is_some() || each.is_some() {
            UNTOLD
        } else {
            FIXED
        };
        let mut adaptive = KVec::with_capacity(pairs, GFP_KERNEL)?;
        for _ in 0..pairs {
            adaptive.push(Atomic::new(false), GFP_KERNEL)?;
        }
        let told = Told {
            all: initial,
            pairs: KVec::from_elem(initial, pairs, GFP_KERNEL)?,
        };

        Arc::pin_init(
            pin_init!(Self {
                all,
                each,
                initial,
                adaptive,
                told <- new_mutex!(told, "virtio_net_rust::Coalescing::told"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns whether queues can adapt to the traffic.
    pub(crate) fn can_adapt(&self) -> bool {
        self.each.is_some()
    }

    /// Returns whether the receive queue of a pair adapts to the traffic.
    #[inline]
    pub(crate) fn is_adaptive(&self, pair: u16) -> bool {
        self.adaptive
            .get(usize::from(pair))
            .is_some_and(|adaptive| adaptive.load(Relaxed))
    }

    /// Returns when the queues interrupt.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`]: the device cannot be told for one pair.
    pub(crate) fn get(&self, scope: Scope) -> Result<Settings> {
        let told = self.told.lock();

        match scope {
            Scope::All => Ok(told.all),
            Scope::Pair(_) if self.each.is_none() => Err(EOPNOTSUPP),
            Scope::Pair(pair) => told.pairs.get(usize::from(pair)).copied().ok_or(EINVAL),
        }
    }

    /// Tells the device when queues are to interrupt.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`]: the device cannot be told that. [`EINVAL`]: a queue cannot do as it is told and adapt to the traffic. Those
    /// of [`Control`].
    pub(crate) fn set(&self, scope: Scope, wanted: Settings) -> Result {
        let mut told = self.told.lock();

        if wanted.adaptive_rx && self.each.is_none() {
            return Err(EOPNOTSUPP);
        }
        match scope {
            Scope::All if wanted.adaptive_rx && wanted.rx != told.all.rx => Err(EINVAL),
            Scope::All => self.set_all(&mut told, wanted),
            Scope::Pair(pair) => {
                let known = told.pairs.get_mut(usize::from(pair)).ok_or(EINVAL)?;

                // One that adapts already may have done so since the user looked.
                if wanted.adaptive_rx && !known.adaptive_rx && wanted.rx != known.rx {
                    return Err(EINVAL);
                }
                self.set_pair(pair, known, wanted)
            }
        }
    }

    fn set_all(&self, told: &mut Told, wanted: Settings) -> Result {
        if let Some(control) = &self.all {
            control.set_tx_coalescing(wanted.tx)?;
            told.all.tx = wanted.tx;
            told.all.adaptive_rx = wanted.adaptive_rx;
            for (known, pair) in told.pairs.iter_mut().zip(0u16..) {
                known.tx = wanted.tx;
                self.set_adaptive(pair, known, wanted.adaptive_rx);
            }
            if !wanted.adaptive_rx {
                control.set_rx_coalescing(wanted.rx)?;
                told.all.rx = wanted.rx;
                for known in &mut told.pairs {
                    known.rx = wanted.rx;
                }
            }
        } else if self.each.is_some() {
            for (known, pair) in told.pairs.iter_mut().zip(0u16..) {
                self.set_pair(pair, known, wanted)?;
            }
            told.all = wanted;
        } else if wanted != self.initial {
            return Err(EOPNOTSUPP);
        }
        Ok(())
    }

    fn set_pair(&self, pair: u16, known: &mut Settings, wanted: Settings) -> Result {
        let control = self.each.as_ref().ok_or(EOPNOTSUPP)?;
        let rx = pair.checked_mul(2).ok_or(EINVAL)?;

        control.set_queue_coalescing(rx | 1, wanted.tx)?;
        known.tx = wanted.tx;
        self.set_adaptive(pair, known, wanted.adaptive_rx);
        if !wanted.adaptive_rx {
            control.set_queue_coalescing(rx, wanted.rx)?;
            known.rx = wanted.rx;
        }
        Ok(())
    }

    fn set_adaptive(&self, pair: u16, known: &mut Settings, on: bool) {
        known.adaptive_rx = on;
        if let Some(adaptive) = self.adaptive.get(usize::from(pair)) {
            adaptive.store(on, Relaxed);
        }
    }

    /// Tells the device when a receive queue is to interrupt that adapts to the traffic.
    pub(crate) fn tune(&self, pair: u16, wanted: Moderation) {
        let mut told = self.told.lock();
        let (Some(control), Some(known)) = (&self.each, told.pairs.get_mut(usize::from(pair)))
        else {
            return;
        };

        // The user may have ended that meanwhile. What the device does not take over is tried again if it still seems better.
        if known.adaptive_rx
            && known.rx != wanted
            && control
                .set_queue_coalescing(pair.wrapping_mul(2), wanted)
                .is_ok()
        {
            known.rx = wanted;
        }
    }

    /// Tells a device that was reset everything again.
    pub(crate) fn again(&self) -> Result {
        if let Some(control) = &self.all {
            let Settings { rx, tx, .. } = self.told.lock().all;
            if (rx, tx) != (self.initial.rx, self.initial.tx) {
                control.set_tx_coalescing(tx)?;
                control.set_rx_coalescing(rx)?;
            }
        }
        self.again_for_each()
    }

    /// Tells a device whose queues were reset again when each of them interrupts. They do as all do now.
    pub(crate) fn again_for_each(&self) -> Result {
        let told = self.told.lock();
        let Settings { rx, tx, .. } = self.after_reset(&told);
        let now = (rx, tx);

        if let Some(control) = &self.each {
            for (known, pair) in told.pairs.iter().zip(0u16..) {
                if (known.rx, known.tx) != now {
                    control.set_queue_coalescing(pair.wrapping_mul(2), known.rx)?;
                    control.set_queue_coalescing(pair.wrapping_mul(2) | 1, known.tx)?;
                }
            }
        }
        Ok(())
    }

    /// Tells a device whose queue with this number was reset again when that interrupts.
    pub(crate) fn again_for(&self, queue: u16) -> Result {
        let told = self.told.lock();
        let (Some(control), Some(known)) = (&self.each, told.pairs.get(usize::from(queue / 2)))
        else {
            return Ok(());
        };
        let Settings { rx, tx, .. } = self.after_reset(&told);
        let (known, now) = if queue % 2 == 0 {
            (known.rx, rx)
        } else {
            (known.tx, tx)
        };

        if known == now {
            return Ok(());
        }
        control.set_queue_coalescing(queue, known)
    }

    /// Returns what queues do that were reset: as all do.
    fn after_reset(&self, told: &Told) -> Settings {
        if self.all.is_some() {
            told.all
        } else {
            self.initial
        }
    }
}
