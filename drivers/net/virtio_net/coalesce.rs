// SPDX-License-Identifier: GPL-2.0

//! When the device interrupts (VirtIO 1.3, 5.1.6.5, notifications coalescing): for all queues of a direction
//! (VIRTIO_NET_F_NOTF_COAL), for each by itself (VIRTIO_NET_F_VQ_NOTF_COAL), or both.

use crate::{
    config::Feature,
    interface::Interface, //
};
use guest::{
    net::ethtool::coalesce::{
        Moderation,
        Scope,
        Settings, //
    },
    virtio::Features, //
};
use kernel::prelude::*;

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
};

/// What is said of a device that has not been told yet. It does the same; who then sets a time alone means that packets are not
/// counted, but for those that were sent, as the C driver has it.
const UNTOLD: Settings = Settings {
    rx: Moderation {
        usecs: 0,
        frames: 0,
    },
    tx: FIXED.tx,
};

/// What the device has been told.
pub(crate) struct Coalescing {
    /// What it does after a reset.
    initial: Settings,
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
    pub(crate) fn new(pairs: usize, features: &Features<Feature>) -> Result<Self> {
        let able = features.contains(Feature::NotfCoal) || features.contains(Feature::VqNotfCoal);
        let initial = if able { UNTOLD } else { FIXED };

        Ok(Self {
            initial,
            all: initial,
            pairs: KVec::from_elem(initial, pairs, GFP_KERNEL)?,
        })
    }

    /// Returns when the queues interrupt.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`]: the device cannot be told for one pair.
    pub(crate) fn get(&self, interface: &Interface, scope: Scope) -> Result<Settings> {
        match scope {
            Scope::All => Ok(self.all),
            Scope::Pair(_) if !interface.features.contains(Feature::VqNotfCoal) => Err(EOPNOTSUPP),
            Scope::Pair(pair) => self.pairs.get(usize::from(pair)).copied().ok_or(EINVAL),
        }
    }

    /// Tells the device when queues are to interrupt.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`]: the device cannot be told that. Those of [`Control`](crate::control::Control).
    pub(crate) fn set(
        &mut self,
        interface: &Interface,
        scope: Scope,
        settings: Settings,
    ) -> Result {
        match scope {
            Scope::All => self.set_all(interface, settings),
            Scope::Pair(pair) => self.set_pair(interface, pair, settings),
        }
    }

    fn set_all(&mut self, interface: &Interface, settings: Settings) -> Result {
        if let Some(control) = interface.control(Feature::NotfCoal) {
            control.set_tx_coalescing(settings.tx)?;
            self.all.tx = settings.tx;
            control.set_rx_coalescing(settings.rx)?;
            self.all.rx = settings.rx;
            self.pairs.fill(settings);
        } else if interface.control(Feature::VqNotfCoal).is_some() {
            for pair in 0..self.pairs.len() {
                self.set_pair(interface, u16::try_from(pair)?, settings)?;
            }
            self.all = settings;
        } else if settings != self.initial {
            return Err(EOPNOTSUPP);
        }
        Ok(())
    }

    fn set_pair(&mut self, interface: &Interface, pair: u16, settings: Settings) -> Result {
        let control = interface.control(Feature::VqNotfCoal).ok_or(EOPNOTSUPP)?;
        let known = self.pairs.get_mut(usize::from(pair)).ok_or(EINVAL)?;
        let rx = pair.checked_mul(2).ok_or(EINVAL)?;

        control.set_queue_coalescing(rx, settings.rx)?;
        known.rx = settings.rx;
        control.set_queue_coalescing(rx | 1, settings.tx)?;
        known.tx = settings.tx;
        Ok(())
    }

    /// Tells a device that was reset everything again.
    pub(crate) fn again(&self, interface: &Interface) -> Result {
        let mut now = self.initial;

        if let Some(control) = interface.control(Feature::NotfCoal) {
            if self.all != now {
                control.set_tx_coalescing(self.all.tx)?;
                control.set_rx_coalescing(self.all.rx)?;
                now = self.all;
            }
        }
        if let Some(control) = interface.control(Feature::VqNotfCoal) {
            for (settings, pair) in self.pairs.iter().zip(0u16..) {
                if *settings != now {
                    control.set_queue_coalescing(pair.wrapping_mul(2), settings.rx)?;
                    control.set_queue_coalescing(pair.wrapping_mul(2) | 1, settings.tx)?;
                }
            }
        }
        Ok(())
    }
}
