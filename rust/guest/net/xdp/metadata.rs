// SPDX-License-Identifier: GPL-2.0

//! What programs can ask about a packet.
//!
//! A program that is bound to its device calls functions of the kernel, which end here with the program's context: the packet's
//! `struct xdp_buff`, behind which the driver has put the answers.

use crate::bindings;
use kernel::prelude::*;

/// The hash that a device has computed over a packet's headers.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RxHash {
    value: u32,
    /// `enum xdp_rss_hash_type`; none of its bits if there is no hash.
    over: bindings::xdp_rss_hash_type,
}

/// What a hash can be over beside the addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Nothing.
    Without,
    /// The ports of TCP.
    Tcp,
    /// The ports of UDP.
    Udp,
}

impl RxHash {
    /// There is none.
    pub(in crate::net) const NONE: Self = Self { value: 0, over: 0 };

    /// Makes the hash of a packet of IPv6 or IPv4. `extended` is one over what an extension header of IPv6 says.
    pub const fn new(value: u32, ipv6: bool, extended: bool, ports: Ports) -> Self {
        use bindings::*;

        let mut over = if ipv6 {
            xdp_rss_hash_type_XDP_RSS_L3_IPV6
        } else {
            xdp_rss_hash_type_XDP_RSS_L3_IPV4
        };
        if extended {
            over |= xdp_rss_hash_type_XDP_RSS_L3_DYNHDR;
        }
        over |= match ports {
            Ports::Without => 0,
            Ports::Tcp => xdp_rss_hash_type_XDP_RSS_L4 | xdp_rss_hash_type_XDP_RSS_L4_TCP,
            Ports::Udp => xdp_rss_hash_type_XDP_RSS_L4 | xdp_rss_hash_type_XDP_RSS_L4_UDP,
        };
        Self { value, over }
    }
}

/// The functions of a device whose driver puts a [`RxHash`] behind each packet.
pub(in crate::net) static RX_HASH: bindings::xdp_metadata_ops = bindings::xdp_metadata_ops {
    xmo_rx_timestamp: None,
    xmo_rx_hash: Some(rx_hash_callback),
    xmo_rx_vlan_tag: None,
};

/// `xmo_rx_hash`. Fails with [`ENODATA`] for a packet that has none.
///
/// # Safety
///
/// A program calls it with its own context while it runs on a packet that has a [`RxHash`] behind it, and with valid pointers.
unsafe extern "C" fn rx_hash_callback(
    ctx: *const bindings::xdp_md,
    value: *mut u32,
    over: *mut bindings::xdp_rss_hash_type,
) -> c_int {
    let packet: *const bindings::xdp_buff = ctx.cast();
    // SAFETY: By the safety requirements there is one.
    let hash = unsafe { packet.add(1).cast::<RxHash>().read() };
    if hash.over == RxHash::NONE.over {
        return ENODATA.to_errno();
    }

    // SAFETY: By the safety requirements.
    unsafe { value.write(hash.value) };
    // SAFETY: As above.
    unsafe { over.write(hash.over) };
    0
}
