// SPDX-License-Identifier: GPL-2.0

//! The mask of what a device may leave to the guest (VirtIO 1.3, 5.1.6.5.6.1).
//!
//! This file uses nothing but `core`.

/// Returns the mask that has the features with these bit numbers, which are some of VIRTIO_NET_F_GUEST_.
pub(crate) fn mask(features: impl IntoIterator<Item = u32>) -> u64 {
    features
        .into_iter()
        .fold(0, |mask, bit| mask | offload(bit))
}

/// Returns the bit in the mask, which is the feature's own if the mask has so many.
fn offload(bit: u32) -> u64 {
    const GUEST_UDP_TUNNEL_GSO: u32 = 65;
    const GUEST_UDP_TUNNEL_GSO_CSUM: u32 = 66;

    match bit {
        GUEST_UDP_TUNNEL_GSO => 1 << 46,
        GUEST_UDP_TUNNEL_GSO_CSUM => 1 << 47,
        bit => 1u64.checked_shl(bit).unwrap_or(0),
    }
}
