// SPDX-License-Identifier: GPL-2.0

//! The rings: their sizes, and beginning anew (VirtIO 1.3, 2.6.1, virtqueue reset).

use crate::{
    config,
    interface::Interface,
    pairs::Queues, //
};
use guest::{
    net::{
        buffer::TxFrame,
        device::{
            Device,
            Locked, //
        },
        ethtool::{
            Ring,
            Rings, //
        },
        refusal::Refusal, //
    },
    virtio::{
        buffer::Buffer,
        Queue, //
    }, //
};
use kernel::prelude::*;

/// What the user wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    rx: u32,
    tx: u32,
}

/// Returns the sizes of a ring.
pub(crate) fn ring<B: Buffer>(queue: &Queue<B>) -> Result<Ring> {
    let (size, max) = queue.sizes().ok_or(ENODEV)?;

    Ok(Ring { size, max })
}

/// Returns the sizes of the first pair's, which stand for all.
pub(crate) fn rings(interface: &Interface) -> Result<Rings> {
    let pair = interface.pairs.first().ok_or(EINVAL)?;

    Ok(Rings {
        rx: ring(&pair.queues.rx)?,
        tx: ring(&pair.queues.tx)?,
    })
}

/// Changes the sizes. Under the rtnl lock and the device's.
///
/// # Errors
///
/// [`EOPNOTSUPP`]: the device cannot reset a queue. [`EINVAL`]: there are no such rings, or one cannot hold a packet.
/// Those of [`Queue::resize`]; the rings are as large as before, at the latest when a device that keeps one has been reset.
pub(crate) fn set(dev: &Locked<Interface>, rx: u32, tx: u32) -> core::result::Result<(), Refusal> {
    let data = dev.data();
    let now = rings(&data)?;
    let before = Sizes {
        rx: now.rx.size,
        tx: now.tx.size,
    };
    let wanted = Sizes { rx, tx };
    let is_whole = |size: u32| data.features.is_packed() || size.is_power_of_two();

    if !data.features.can_reset_queues() {
        return Err(Refusal::new(EOPNOTSUPP, c"the device cannot reset a queue"));
    }
    if !is_whole(rx) || !is_whole(tx) {
        return Err(Refusal::new(
            EINVAL,
            c"not a power of two, as split rings are",
        ));
    }
    if rx < config::smallest_receive_ring(&data.features, dev.mtu()) && rx != before.rx {
        return Err(Refusal::new(
            EINVAL,
            c"the receive ring could not hold the longest packet",
        ));
    }
    // CAST: A small constant.
    if tx <= TxFrame::MAX_SEGMENTS as u32 && tx != before.tx {
        return Err(Refusal::new(
            EINVAL,
            c"the transmit ring could not hold the longest packet",
        ));
    }

    dev.interrupt(|| {
        begin(&data, wanted).inspect_err(|error| {
            failed(&data, *error);
            if let Err(error) = begin(&data, before) {
                failed(&data, error);
            }
        })
    })?;
    data.told.lock().rings = Some(wanted);
    // With the queues the device has reset this.
    data.coalescing.again_for_each()?;
    Ok(())
}

/// Whether the receive ring holds the packets of that MTU. One that is too small for any MTU refuses none.
///
/// # Errors
///
/// [`EINVAL`]: it does not.
pub(crate) fn check_mtu(dev: &Device<Interface>, mtu: u32) -> Result {
    let data = dev.data();
    let least = |mtu| config::smallest_receive_ring(&data.features, mtu);

    match rings(&data) {
        // A host may have made it so small that no MTU helps.
        Ok(Rings { rx, .. }) if rx.size < least(mtu) && least(dev.mtu()) < least(mtu) => {
            Err(EINVAL)
        }
        // That of a device that is gone does not matter.
        _ => Ok(()),
    }
}

/// Has the device forget the receive queue of a pair. Nobody polls it; it is empty afterwards. A device that does not give it back is
/// reset soon.
///
/// # Errors
///
/// [`EINVAL`]: there is no such pair. Those of [`Queue::reset`].
pub(crate) fn reset(dev: &Device<Interface>, index: u16) -> Result {
    let data = dev.data();
    let pair = data.pairs.get(usize::from(index)).ok_or(EINVAL)?;

    pair.queues
        .frames
        .reset()
        .inspect_err(|error| failed(&data, *error))?;
    interrupt_again(&data, index.wrapping_mul(2));
    Ok(())
}

/// Has the device forget the transmit queue of a pair, which is empty afterwards; other queues go on.
///
/// # Errors
///
/// As [`reset`].
pub(crate) fn reset_transmit(dev: &Device<Interface>, index: u16) -> Result {
    let data = dev.data();

    dev.restart_transmit_queue(index)?;
    interrupt_again(&data, index.wrapping_mul(2) | 1);
    Ok(())
}

/// With the queue of this number the device has reset when it interrupts. It works without that too.
fn interrupt_again(interface: &Interface, queue: u16) {
    if let Err(error) = interface.coalescing.again_for(queue) {
        interface.complain("when a queue interrupts", error);
    }
}

/// A queue could not begin anew. One that the device keeps is out of use until the device is reset, which it is soon.
fn failed(interface: &Interface, error: Error) {
    match error {
        EBUSY => keep(interface),
        error => interface.complain("that a queue begins anew", error),
    }
}

/// The device keeps a queue, and is reset soon.
pub(crate) fn keep(interface: &Interface) {
    interface.recovery.begin("keeps a queue");
}

/// Gives a device that was reset the rings that it had. Nothing is in flight.
pub(crate) fn again(interface: &Interface, sizes: Option<Sizes>) -> Result {
    sizes.map_or(Ok(()), |sizes| resize(interface, sizes))
}

/// Begins with rings of these sizes. All are empty afterwards or, with an error, out of use: what was in flight is dropped.
fn begin(interface: &Interface, Sizes { rx, tx }: Sizes) -> Result {
    let mut result = Ok(());

    for pair in &interface.pairs {
        let Queues {
            rx: own,
            frames,
            tx: out,
        } = &pair.queues;
        let received = anew(ring(own), rx, |size| frames.resize(size), || frames.reset());
        let sent = anew(ring(out), tx, |size| out.resize(size), || out.reset());

        result = result.and(received).and(sent);
    }
    result
}

/// Has one ring begin anew, with another size if it has not got that already.
fn anew(
    now: Result<Ring>,
    size: u32,
    resize: impl FnOnce(u32) -> Result,
    reset: impl FnOnce() -> Result,
) -> Result {
    if now?.size == size {
        return reset();
    }
    resize(size).inspect_err(|_| {
        // The size may be what was wrong, and nothing have been dropped.
        let _ = reset();
    })
}

fn resize(interface: &Interface, Sizes { rx, tx }: Sizes) -> Result {
    for pair in &interface.pairs {
        pair.queues.frames.resize(rx)?;
        pair.queues.tx.resize(tx)?;
    }
    Ok(())
}
