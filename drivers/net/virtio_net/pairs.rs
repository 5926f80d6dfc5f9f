// SPDX-License-Identifier: GPL-2.0

//! Pairs of a receive and a transmit queue (VirtIO 1.3, 5.1.2 and 5.1.6.5.5).
//!
//! All that the device has are made; how many are in use follows from the number of CPUs and the user's wish. Each pair in use
//! has CPUs of its own, whose packets it sends and which get its interrupts.

use crate::{
    config::Feature,
    counters::{
        rx,
        tx, //
    },
    hash::Hashing,
    interface::Interface,
    recovery::Watch, //
};
use guest::{
    cpu,
    net::{
        buffer::{
            RxBuffer,
            TxFrame, //
        },
        device::Device,
        stats::Counters,
        xsk, //
    },
    virtio::{
        buffer::Exchange,
        Callback,
        Queue,
        Virtqueues, //
    }, //
};
use kernel::{
    cpumask::CpumaskVar,
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// The queues of one pair.
pub(crate) struct Queues {
    pub(crate) rx: Arc<Queue<RxBuffer>>,
    /// The receive queue while it is filled with a socket's frames; [`rx`](Self::rx) is inert then.
    pub(crate) frames: xsk::RxQueue,
    pub(crate) tx: Arc<Queue<TxFrame>>,
}

/// What is kept of one pair.
pub(crate) struct Pair {
    pub(crate) queues: Queues,
    pub(crate) rx: Arc<Counters<{ rx::COUNT }>>,
    pub(crate) tx: Arc<Counters<{ tx::COUNT }>>,
    pub(crate) watch: Arc<Watch>,
}

impl Pair {
    /// Returns how many packets the device has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.tx.read()[tx::PACKETS]
    }
}

/// Asks for all queues of `pairs` pairs, in the order of their numbers. A buffer to receive into has at most so many segments.
pub(crate) fn add(queues: &mut Virtqueues<'_>, pairs: u16, segments: u32) -> Result<KVec<Queues>> {
    let mut list = KVec::with_capacity(usize::from(pairs), GFP_KERNEL)?;

    for pair in 0..pairs {
        let rx = CString::try_from_fmt(fmt!("input.{pair}"))?;
        let tx = CString::try_from_fmt(fmt!("output.{pair}"))?;
        let rx = queues.add(&rx, Callback::Enabled, segments as usize)?;
        list.push(
            Queues {
                frames: xsk::RxQueue::new(queues, rx.clone())?,
                rx,
                tx: queues.add(&tx, Callback::Enabled, TxFrame::MAX_SEGMENTS)?,
            },
            GFP_KERNEL,
        )?;
    }
    Ok(list)
}

/// Asks for the control queue, which comes after all pairs.
pub(crate) fn add_control(queues: &mut Virtqueues<'_>) -> Result<Arc<Queue<Exchange>>> {
    queues.add(c"control", Callback::Enabled, Exchange::MAX_SEGMENTS)
}

/// Has the device use as many pairs as there are CPUs, or all, and returns how many that are. They are to be [spread] when the
/// stack knows the device: what it keeps of that is only freed when it forgets the device.
pub(crate) fn start(dev: &Device<Interface>) -> Result<u16> {
    let data = dev.data();
    let cpus = u16::try_from(cpu::online().count()).unwrap_or(u16::MAX);
    let wanted = u16::try_from(data.pairs.len())?.min(cpus).max(1);

    if choose(&data, wanted, false).is_ok() {
        return Ok(wanted);
    }
    // A device begins with one pair, and without hashes.
    data.told.lock().hashing = None;
    Ok(1)
}

/// Has a device that was reset use `active` pairs, and hash, as before.
pub(crate) fn restart(dev: &Device<Interface>, active: u16) -> Result {
    let data = dev.data();

    tell(&data, active, data.told.lock().hashing.as_ref())?;
    spread(dev, active)
}

/// Has the device use `pairs` pairs.
pub(crate) fn set(dev: &Device<Interface>, pairs: u16) -> Result {
    // The stack has seen to it that the user's table fits.
    choose(&dev.data(), pairs, dev.is_rxfh_configured())?;
    spread(dev, pairs)
}

/// Has the device use `pairs` pairs, and put packets into all of them unless its table is to stay.
fn choose(data: &Interface, pairs: u16, keep_table: bool) -> Result {
    let mut told = data.told.lock();
    let mut hashing = told.hashing.as_ref().map(Hashing::copy).transpose()?;

    if let Some(hashing) = &mut hashing {
        if !keep_table {
            hashing.spread(pairs);
        }
    }
    tell(data, pairs, hashing.as_ref())
        .inspect_err(|error| data.complain("the number of queues", *error))?;
    told.hashing = hashing;
    Ok(())
}

/// Tells the device how many pairs to use and how to hash.
fn tell(interface: &Interface, pairs: u16, hashing: Option<&Hashing>) -> Result {
    // With a table its command says the number as well, and the other one would end its use.
    if hashing.is_none() || !interface.features.contains(Feature::Rss) {
        match interface.control(Feature::Mq) {
            Some(control) => control.set_pairs(pairs)?,
            None if pairs > 1 => return Err(EOPNOTSUPP),
            None => {}
        }
    }
    match hashing {
        Some(hashing) => hashing.tell(interface, pairs),
        None => Ok(()),
    }
}

/// Gives each of the first `active` pairs its share of the CPUs: neighbours, which often share a cache.
pub(crate) fn spread(dev: &Device<Interface>, active: u16) -> Result {
    let active = usize::from(active);
    let cpus = cpu::online().count();

    for (index, pair) in dev.data().pairs.iter().take(active).enumerate() {
        let mut mask = CpumaskVar::new_zero(GFP_KERNEL)?;
        for (position, cpu) in cpu::online().enumerate() {
            let mine = if cpus >= active {
                // CPUs may come and go meanwhile; a few may then be in another group than they should.
                position.saturating_mul(active) / cpus == index
            } else {
                index % cpus.max(1) == position
            };
            if mine {
                mask.set(cpu);
            }
        }

        pair.queues.rx.set_affinity(&mask);
        pair.queues.tx.set_affinity(&mask);
        // CAST: There are at most `u16::MAX` pairs.
        dev.set_xps_queue(&mask, index as u16)?;
    }
    Ok(())
}
