// SPDX-License-Identifier: GPL-2.0

//! The rings: their sizes, and beginning anew (VirtIO 1.3, 2.6.1, virtqueue reset).

use crate::interface::Interface;
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
        }, //
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
/// [`EOPNOTSUPP`]: the device cannot reset a queue. [`EINVAL`]: there are no such rings, or one cannot hold a packet that is
/// sent. Those of [`Queue::resize`]; the rings are as large as before if they can be.
pub(crate) fn set(dev: &Locked<Interface>, rx: u32, tx: u32) -> Result {
    let data = dev.data();
    let now = rings(&data)?;
    let before = Sizes {
        rx: now.rx.size,
        tx: now.tx.size,
    };
    let wanted = Sizes { rx, tx };
    let is_whole = |size: u32| data.features.is_packed() || size.is_power_of_two();
    // CAST: A small constant.
    let holds_packet = tx > TxFrame::MAX_SEGMENTS as u32 || tx == before.tx;

    if !data.features.can_reset_queues() {
        return Err(EOPNOTSUPP);
    }
    if !is_whole(rx) || !is_whole(tx) || !holds_packet {
        return Err(EINVAL);
    }

    dev.interrupt(|| {
        begin(&data, wanted).inspect_err(|error| {
            data.complain("the sizes of its rings", *error);
            // As far as it goes.
            let _ = begin(&data, before);
        })
    })?;
    data.told.lock().rings = Some(wanted);
    // With the queues the device has reset this.
    data.coalescing.again_for_each()
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
        .inspect_err(|error| match *error {
            EBUSY => data.recovery.begin("keeps a queue"),
            error => data.complain("that a queue begins anew", error),
        })?;
    // With the queue the device has reset this. It works without that too.
    if let Err(error) = data.coalescing.again_for(index) {
        data.complain("when a queue interrupts", error);
    }
    Ok(())
}

/// Gives a device that was reset the rings that it had. Nothing is in flight.
pub(crate) fn again(interface: &Interface, sizes: Option<Sizes>) -> Result {
    sizes.map_or(Ok(()), |sizes| resize(interface, sizes))
}

/// Begins with rings of these sizes, all of them empty.
fn begin(interface: &Interface, Sizes { rx, tx }: Sizes) -> Result {
    for pair in &interface.pairs {
        if ring(&pair.queues.rx)?.size == rx {
            pair.queues.frames.reset()?;
        }
        if ring(&pair.queues.tx)?.size == tx {
            pair.queues.tx.reset()?;
        }
    }
    resize(interface, Sizes { rx, tx })
}

fn resize(interface: &Interface, Sizes { rx, tx }: Sizes) -> Result {
    for pair in &interface.pairs {
        pair.queues.frames.resize(rx)?;
        pair.queues.tx.resize(tx)?;
    }
    Ok(())
}
