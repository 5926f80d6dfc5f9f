// SPDX-License-Identifier: GPL-2.0

//! What the queues count. `ethtool -S` shows it by these names, after the queue's.

/// Of a receive queue. The constants are positions.
pub(crate) mod rx {
    /// Packets handed to the stack.
    pub(crate) const PACKETS: usize = 0;
    /// Their bytes.
    pub(crate) const BYTES: usize = 1;
    /// Packets lost, for whatever reason; the counters from [`SHORT`] to [`NO_MEMORY`] say for which.
    pub(crate) const DROPS: usize = 2;
    /// Notifications of the device.
    pub(crate) const KICKS: usize = 3;
    /// Too short for a header and an Ethernet header, or without data where there should be some.
    pub(crate) const SHORT: usize = 4;
    /// The header breaks the rules.
    pub(crate) const BAD_HEADER: usize = 5;
    /// The device said that there are more buffers than there are.
    pub(crate) const MISSING_BUFFERS: usize = 6;
    /// There was no memory for the packet's administration.
    pub(crate) const NO_MEMORY: usize = 7;
    /// Times that there was no memory to refill the ring.
    pub(crate) const REFILL_FAILURES: usize = 8;
    /// Packets that a program has seen.
    pub(crate) const XDP_PACKETS: usize = 9;
    /// Packets that it has had sent by this interface.
    pub(crate) const XDP_TX: usize = 10;
    /// Packets that it has redirected to another one, or to a socket.
    pub(crate) const XDP_REDIRECTS: usize = 11;
    /// Packets that went nowhere: it wanted that, or it was not possible what it wanted.
    pub(crate) const XDP_DROPS: usize = 12;

    /// Packets that came in frames of a socket's, whoever got them.
    pub(crate) const XSK_PACKETS: usize = 13;

    /// How many there are.
    pub(crate) const COUNT: usize = 14;

    /// Their names, in this order.
    pub(crate) const NAMES: [&str; COUNT] = [
        "packets",
        "bytes",
        "drops",
        "kicks",
        "short",
        "bad_header",
        "missing_buffers",
        "no_memory",
        "refill_failures",
        "xdp_packets",
        "xdp_tx",
        "xdp_redirects",
        "xdp_drops",
        "xsk_packets",
    ];
}

/// Of a transmit queue. The constants are positions.
pub(crate) mod tx {
    /// Packets that the device has sent.
    pub(crate) const PACKETS: usize = 0;
    /// Their bytes.
    pub(crate) const BYTES: usize = 1;
    /// Packets that the device never got.
    pub(crate) const DROPS: usize = 2;
    /// Notifications of the device.
    pub(crate) const KICKS: usize = 3;
    /// Times that the queue was stopped because the ring was full.
    pub(crate) const STOPS: usize = 4;
    /// Times that it was woken.
    pub(crate) const WAKES: usize = 5;
    /// Packets of programs, this interface's or others'.
    pub(crate) const XDP_TX: usize = 6;
    /// Those of them that did not fit into the ring.
    pub(crate) const XDP_TX_DROPS: usize = 7;

    /// Packets of sockets, from frames of theirs.
    pub(crate) const XSK_PACKETS: usize = 8;

    /// How many there are.
    pub(crate) const COUNT: usize = 9;

    /// Their names, in this order.
    pub(crate) const NAMES: [&str; COUNT] = [
        "packets",
        "bytes",
        "drops",
        "kicks",
        "stops",
        "wakes",
        "xdp_tx",
        "xdp_tx_drops",
        "xsk_packets",
    ];
}
