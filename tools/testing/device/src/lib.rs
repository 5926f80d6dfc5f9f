// SPDX-License-Identifier: GPL-2.0

//! Virtio devices of our own.
//!
//! QEMU's `vhost-user-test-device` lends a guest a virtio device whose queues, configuration space and feature bits are those of
//! another process: of this crate. So a device can offer what QEMU does not have, be looked into while it works, and be bent: see
//! [`net::Net`].
//!
//! - [`server`] connects a [`Model`](server::Model) with QEMU; the device's status and resets stay QEMU's.
//! - [`net`] is a network card, with a [`peer`] at the other end of its cable.
//! - [`balloon`] is a memory balloon.
//! - [`script`] says what a device does wrong.

pub mod balloon;
pub mod net;
mod peer;
mod relay;
pub mod script;
pub mod server;
