// SPDX-License-Identifier: GPL-2.0

//! What of a packet is hashed, and where its hash puts it: the types, the table and the key of the commands for receive-side scaling
//! and hash reports (VirtIO 1.3, 5.1.6.5.6.4 and 5.1.6.5.7).
//!
//! This file uses nothing but `core`.

use core::num::TryFromIntError;

/// What the hash of a packet can be over. The variants for IPv6 with extension headers are not used: no other driver has
/// them, and the programs that show and set such things have no name for them.
const IPV4: u32 = 1 << 0;
const TCPV4: u32 = 1 << 1;
const UDPV4: u32 = 1 << 2;
const IPV6: u32 = 1 << 3;
const TCPV6: u32 = 1 << 4;
const UDPV6: u32 = 1 << 5;
const ALL: u32 = IPV4 | TCPV4 | UDPV4 | IPV6 | TCPV6 | UDPV6;

/// The shortest key that a device must take: as long as the addresses and ports of IPv6, and the hash.
const MIN_KEY: u8 = 40;

/// The largest table that is used: far more entries than queues spread well.
const MAX_TABLE: u16 = 1024;

/// What the device can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Which packets it can hash.
    pub(crate) types: u32,
    /// Number of entries of the table, a power of two; 0 if it does not spread packets by their hash.
    pub(crate) table: u16,
    /// Number of bytes of the key.
    pub(crate) key: u8,
}

impl Limits {
    /// Returns what is used of what a device says: the types, the longest key, and the largest table if it has one. Returns [`None`] if
    /// that is nothing, or less than the specification asks for.
    pub(crate) fn new(types: u32, key: u8, table: Option<u16>) -> Option<Self> {
        let types = types & ALL;
        let table = match table {
            Some(max) => 1 << max.min(MAX_TABLE).checked_ilog2()?,
            None => 0,
        };

        (types != 0 && key >= MIN_KEY).then_some(Self { types, table, key })
    }
}

/// A kind of packets: the type that hashes their addresses, and the one that hashes their ports too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    addresses: u32,
    ports: Option<u32>,
}

impl Kind {
    pub(crate) const IP_V4: Self = Self::new(IPV4, None);
    pub(crate) const TCP_V4: Self = Self::new(IPV4, Some(TCPV4));
    pub(crate) const UDP_V4: Self = Self::new(IPV4, Some(UDPV4));
    pub(crate) const IP_V6: Self = Self::new(IPV6, None);
    pub(crate) const TCP_V6: Self = Self::new(IPV6, Some(TCPV6));
    pub(crate) const UDP_V6: Self = Self::new(IPV6, Some(UDPV6));

    const fn new(addresses: u32, ports: Option<u32>) -> Self {
        Self { addresses, ports }
    }

    /// Returns whether the addresses of such packets are hashed with these types, and whether their ports are too.
    pub(crate) fn fields(self, types: u32) -> (bool, bool) {
        let ports = types & self.ports.unwrap_or(0) != 0;

        (ports || types & self.addresses != 0, ports)
    }

    /// Returns these types changed so that the addresses of such packets are hashed or not, and their ports as well, or [`None`] if
    /// they have none. The addresses of all packets of an IP version are hashed or none are: to leave out those of TCP leaves out the
    /// others that have no type of their own.
    pub(crate) fn select(self, types: u32, addresses: bool, ports: bool) -> Option<u32> {
        Some(if ports {
            types | self.ports?
        } else {
            let types = types & !self.ports.unwrap_or(0);

            if addresses {
                types | self.addresses
            } else {
                types & !self.addresses
            }
        })
    }
}

/// Spreads packets over the first `pairs` queues, as evenly as can be.
pub(crate) fn spread(table: &mut [u16], pairs: u16) {
    for (entry, queue) in table.iter_mut().zip((0..pairs).cycle()) {
        *entry = queue;
    }
}

/// Copies a table that the user gives, as far as there is room for it.
///
/// # Errors
///
/// A number is none of a queue.
pub(crate) fn set_table(table: &mut [u16], from: &[u32]) -> Result<(), TryFromIntError> {
    for (to, from) in table.iter_mut().zip(from) {
        *to = u16::try_from(*from)?;
    }
    Ok(())
}

/// Has the message of both commands put, piece by piece: for the one without a table there are zeros instead, as if it had one entry.
/// The table has at most 1024 entries, the key 255 bytes.
pub(crate) fn message<E>(
    types: u32,
    table: &[u16],
    pairs: u16,
    key: &[u8],
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    // CAST: There are at most `MAX_TABLE` entries.
    let mask = table.len().saturating_sub(1) as u16;

    put(&types.to_le_bytes())?;
    put(&mask.to_le_bytes())?;
    // Packets without a hash go to the first queue.
    put(&[0; 2])?;
    if table.is_empty() {
        put(&[0; 2])?;
    }
    for queue in table {
        put(&queue.to_le_bytes())?;
    }
    put(&pairs.to_le_bytes())?;
    // CAST: A key's length is a byte.
    put(&[key.len() as u8])?;
    put(key)
}
