// SPDX-License-Identifier: GPL-2.0

//! Network devices.
//!
//! - [`device`]: a network device with its private data, its operations and its registration.
//! - [`transmit`]: transmit queues, whose state the transmit lock protects.
//! - [`napi`]: polling in softirq context, with state that only the poll reaches.
//! - [`dim`]: interrupts that adapt to the traffic.
//! - [`skbuff`]: packets, as two types: one for each direction, because the ownership differs.
//! - [`page_pool`]: memory to receive into.
//! - [`buffer`]: packets and receive memory as something that can be lent to a virtio device.
//! - [`xdp`]: programs that see packets before the stack does.
//! - [`xsk`]: sockets whose packets are received into, and sent from, memory of user space.
//! - [`filter`]: what an interface is to receive.
//! - [`failover`]: interfaces that stand in for others.
//! - [`qstats`]: what single queues have counted.
//! - `queue_mgmt`: receive queues that are restarted, each by itself.
//! - [`refusal`]: what the user is told of a request that is refused.
//! - [`ethtool`], [`stats`], [`address`]: what their names say.
//!
//! # How earlier attempts were judged, and what is different here
//!
//! - *Private data that is dropped before the device is unregistered.* A [`Registration`] holds a reference to the
//!   [`Device`]; the private data goes with the last reference. There is no order that a driver could get wrong.
//! - *The pointer to the private data as an invariant of the registration.* It is one of [`Device`]: the data lies in the
//!   device's own allocation and is made with it. A device without data does not exist.
//! - *`&mut` to private data from two callbacks at once.* Callbacks get shared references. What must be exclusive is a type
//!   of its own: [`Transmit`] under the transmit lock, [`Handler`] for a NAPI instance.
//! - *One packet type whose `Drop` frees, whatever the packet's state.* [`TxSkBuff`] and [`RxSkBuff`] are different types;
//!   each way in which a packet can leave a driver is a method that consumes it, and what is left for `Drop` is a packet
//!   that went nowhere: it is freed, in any context, and counted as dropped by the kernel's drop monitor.
//! - *A packet that stays usable after the stack has it.* [`RxSkBuff::receive`] consumes it.
//! - *NAPI instances that can be copied and moved, or outlive the device.* The device owns them and pins them.
//!
//! [`Device`]: device::Device
//! [`Registration`]: device::Registration
//! [`Handler`]: napi::Handler
//! [`Transmit`]: transmit::Transmit
//! [`TxSkBuff`]: skbuff::TxSkBuff
//! [`RxSkBuff`]: skbuff::RxSkBuff
//! [`RxSkBuff::receive`]: skbuff::RxSkBuff::receive
//!
//! C headers: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h),
//! [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

pub mod address;
pub mod buffer;
pub mod device;
pub mod dim;
pub mod ethtool;
pub mod failover;
mod features;
pub mod filter;
pub mod napi;
mod operations;
pub mod page_pool;
pub mod qstats;
mod queue_mgmt;
pub mod refusal;
pub mod skbuff;
pub mod stats;
pub mod transmit;
pub mod vsock;
pub mod xdp;
pub mod xsk;

/// Returns whether a message about what comes from the network, or from a device, may be logged now: not if there have been many.
pub fn ratelimit() -> bool {
    // SAFETY: No requirements.
    unsafe { crate::bindings::net_ratelimit() != 0 }
}
