// SPDX-License-Identifier: GPL-2.0

//! Packets in a UDP tunnel.

use super::{
    Headers,
    Owned,
    RxSkBuff,
    Segmentation, //
};
use crate::bindings;
use core::{
    mem::ManuallyDrop,
    ptr::{
        from_ref,
        NonNull, //
    },
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// The bytes of a device's header that has room for where a tunnel's headers are.
#[repr(C, align(8))]
struct Bytes([u8; size_of::<bindings::virtio_net_hdr_v1_hash_tunnel>()]);

/// The UDP tunnel that a packet to be cut is in: each segment gets the tunnel's headers too.
#[derive(Clone, Copy)]
pub struct Tunnel {
    /// It is one over IPv6, not IPv4.
    pub ipv6: bool,
    /// Its own UDP headers have checksums.
    pub checksum: bool,
    /// Where its UDP header begins.
    pub outer_transport: u16,
    /// Where the IP header inside of it begins.
    pub inner_network: u16,
}

impl Segmentation<'_> {
    /// Returns the tunnel that the packet is in, if it is in one.
    #[inline]
    pub fn tunnel(self) -> Option<Tunnel> {
        let checksum = self.has(bindings::SKB_GSO_UDP_TUNNEL_CSUM);
        if !checksum && !self.has(bindings::SKB_GSO_UDP_TUNNEL) {
            return None;
        }

        let skb = &self.0 .0;
        // SAFETY: By the type invariant the packet is valid, and nobody writes its headers while it is sent.
        let headers = unsafe { &*skb.headers() };
        // CAST: The offsets are 16 bits wide, and the headers lie behind the headroom.
        let headroom = skb.headroom() as u16;
        Some(Tunnel {
            // CAST: The constant is 16 bits wide.
            ipv6: headers.protocol == (bindings::ETH_P_IPV6 as u16).to_be(),
            checksum,
            outer_transport: headers.transport_header.wrapping_sub(headroom),
            inner_network: headers.inner_network_header.wrapping_sub(headroom),
        })
    }
}

impl RxSkBuff {
    /// As [`set_offloads`](Self::set_offloads), for a packet in a UDP tunnel, whose UDP header and the IP header inside begin there.
    /// The tunnel can have a checksum with `checksums` (VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM). Only a modern device has such
    /// packets.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the header does not fit the packet. The packet may have been changed; it is good for nothing but to be
    /// freed.
    pub fn set_tunnel_offloads(
        &mut self,
        header: [u8; 10],
        outer_transport: u16,
        inner_network: u16,
        checksums: bool,
    ) -> Result {
        let mut bytes = Bytes([0; size_of::<Bytes>()]);
        let [a, b] = outer_transport.to_le_bytes();
        let [c, d] = inner_network.to_le_bytes();
        if let Some((head, rest)) = bytes.0.split_first_chunk_mut() {
            *head = header;
            if let Some(last) = rest.last_chunk_mut() {
                *last = [a, b, c, d];
            }
        }

        // SAFETY: By the type invariant the packet is valid, holds an Ethernet header, and nobody else has it; the bytes are as many and
        // as aligned as the header's, which are numbers.
        to_result(unsafe {
            bindings::virtio_net_hdr_tnl_to_skb(
                self.head.as_ptr(),
                from_ref(&bytes).cast(),
                true,
                checksums,
                true,
            )
        })
    }
}

/// Whether a packet is in a tunnel and will not be cut by the device: it would have to be told where the checksum is that is
/// inside.
///
/// # Safety
///
/// `skb` is valid, and nobody else writes it meanwhile.
pub(in crate::net) unsafe fn has_hidden_checksum(
    skb: *mut bindings::sk_buff,
    features: bindings::netdev_features_t,
) -> bool {
    let Some(skb) = NonNull::new(skb) else {
        return false;
    };
    // It is borrowed, not owned.
    let skb = ManuallyDrop::new(Owned { skb });

    // SAFETY: By the safety requirements the packet is valid.
    if unsafe { Headers::encapsulation_raw(skb.headers()) } == 0 {
        return false;
    }
    // SAFETY: The shared info of a valid packet is valid.
    let gso_size = unsafe { (*skb.shared_info()).gso_size };
    // SAFETY: By the safety requirements the packet is valid.
    gso_size == 0 || unsafe { bindings::netif_needs_gso(skb.as_ptr(), features) }
}
