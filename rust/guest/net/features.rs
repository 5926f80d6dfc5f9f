// SPDX-License-Identifier: GPL-2.0

//! What a network device can do.
//!
//! C header: [`include/linux/netdev_features.h`](srctree/include/linux/netdev_features.h)

use crate::bindings;
use core::{
    ops::{
        BitOr,
        BitOrAssign, //
    },
    ptr::addr_of, //
};

/// What a device can do: the `NETIF_F_` bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(pub(super) u64);

macro_rules! features {
    ($($(#[$attr:meta])* $name:ident = $bit:ident;)*) => {
        impl Features {
            $($(#[$attr])* pub const $name: Self = Self(1 << bindings::$bit);)*
        }
    };
}

features! {
    /// Packets that are not linear.
    SG = NETIF_F_SG_BIT;
    /// Any checksum, on transmit.
    HW_CSUM = NETIF_F_HW_CSUM_BIT;
    /// Memory above what the CPU maps.
    HIGHDMA = NETIF_F_HIGHDMA_BIT;
    /// Segmentation of TCP over IPv4.
    TSO = NETIF_F_TSO_BIT;
    /// Segmentation of TCP over IPv6.
    TSO6 = NETIF_F_TSO6_BIT;
    /// Segmentation of TCP with the CWR bit.
    TSO_ECN = NETIF_F_TSO_ECN_BIT;
    /// Segmentation of UDP.
    GSO_UDP_L4 = NETIF_F_GSO_UDP_L4_BIT;
    /// Segmentation of what is in a UDP tunnel without checksums of its own.
    GSO_UDP_TUNNEL = NETIF_F_GSO_UDP_TUNNEL_BIT;
    /// Segmentation of what is in a UDP tunnel with checksums.
    GSO_UDP_TUNNEL_CSUM = NETIF_F_GSO_UDP_TUNNEL_CSUM_BIT;
    /// The device checks what segmentation it is asked for.
    GSO_ROBUST = NETIF_F_GSO_ROBUST_BIT;
    /// Checksums, on receive.
    RXCSUM = NETIF_F_RXCSUM_BIT;
    /// The device merges received packets of a stream into one.
    GRO_HW = NETIF_F_GRO_HW_BIT;
    /// Received packets come with a hash of their addresses.
    RXHASH = NETIF_F_RXHASH_BIT;
    /// Packets of VLANs that nobody asked for are left out.
    VLAN_FILTER = NETIF_F_HW_VLAN_CTAG_FILTER_BIT;
}

impl Features {
    /// All checksums, on transmit.
    pub(super) const CHECKSUMS: Self = Self(
        1 << bindings::NETIF_F_HW_CSUM_BIT
            | 1 << bindings::NETIF_F_IP_CSUM_BIT
            | 1 << bindings::NETIF_F_IPV6_CSUM_BIT,
    );

    /// Returns what a device can do now. It changes under the device's lock.
    ///
    /// # Safety
    ///
    /// `dev` is valid.
    #[inline]
    pub(super) unsafe fn of(dev: *const bindings::net_device) -> Self {
        // SAFETY: By the safety requirements.
        let features = unsafe { addr_of!((*dev).features) };

        // SAFETY: As above; a change is one write.
        Self(unsafe { features.read_volatile() })
    }

    /// Returns whether all of `other` is in this.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns this without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
