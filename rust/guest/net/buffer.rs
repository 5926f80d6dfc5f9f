// SPDX-License-Identifier: GPL-2.0

//! Packets and receive memory that a virtio device can be lent.

mod rx;
mod tx;

pub(super) use self::rx::List;
pub use self::{
    rx::{
        Head,
        Room,
        RxBuffer, //
    },
    tx::{
        Outgoing,
        TxFrame,
        Unsent,
        MAX_HEADER, //
    }, //
};
