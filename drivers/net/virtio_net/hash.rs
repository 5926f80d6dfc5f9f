// SPDX-License-Identifier: GPL-2.0

//! Hashes over the headers of received packets (VirtIO 1.3, 5.1.6.4.3, and 5.1.6.5: receive-side scaling, hash report).
//!
//! A device spreads packets over the receive queues by their hash (VIRTIO_NET_F_RSS), tells the driver the hash
//! (VIRTIO_NET_F_HASH_REPORT), or both. Where the hash of a packet goes is a table's business, which it selects from by its
//! lower bits.

use crate::{
    config::Feature,
    interface::Interface, //
};
use guest::{
    net::ethtool::rxfh::{
        self,
        Fields,
        Flow,
        Sizes, //
    },
    virtio::{
        self,
        config::Field,
        Features, //
    }, //
};
use kernel::{
    device::Core,
    prelude::*, //
};

/// The longest key that the device takes.
const RSS_MAX_KEY_SIZE: Field<u8> = Field::new(17);

/// The largest table.
const RSS_MAX_INDIRECTION_TABLE_LENGTH: Field<u16> = Field::new(18);

/// Which packets the device can hash.
const SUPPORTED_HASH_TYPES: Field<u32> = Field::new(20);

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
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Which packets it can hash.
    types: u32,
    /// Number of entries of the table, a power of two; 0 if it does not spread packets by their hash.
    table: u16,
    /// Number of bytes of the key.
    key: u8,
}

impl Limits {
    /// Reads what the device can do. Returns [`None`] if that is nothing, or less than the specification asks for.
    pub(crate) fn read(
        dev: &virtio::Device<Core<'_>>,
        features: &Features<Feature>,
    ) -> Option<Self> {
        let types = dev.read(SUPPORTED_HASH_TYPES) & ALL;
        let key = dev.read(RSS_MAX_KEY_SIZE);
        let table = if features.contains(Feature::Rss) {
            let max = dev.read(RSS_MAX_INDIRECTION_TABLE_LENGTH).min(MAX_TABLE);
            1 << max.checked_ilog2()?
        } else {
            0
        };

        (types != 0 && key >= MIN_KEY).then_some(Self { types, table, key })
    }
}

/// How the device hashes, and where it puts packets.
pub(crate) struct Hashing {
    limits: Limits,
    types: u32,
    table: KVec<u16>,
    key: KVec<u8>,
}

impl Hashing {
    /// Everything that can be hashed is, with the system's key; all packets go to the first queue.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(limits: Limits) -> Result<Self> {
        let mut key = KVec::from_elem(0, usize::from(limits.key), GFP_KERNEL)?;

        rxfh::fill_key(&mut key);
        Ok(Self {
            limits,
            types: limits.types,
            table: KVec::from_elem(0, usize::from(limits.table), GFP_KERNEL)?,
            key,
        })
    }

    /// Returns a copy, to be changed and told to the device first.
    pub(crate) fn copy(&self) -> Result<Self> {
        let mut copy = Self {
            limits: self.limits,
            types: self.types,
            table: KVec::new(),
            key: KVec::new(),
        };

        copy.table.extend_from_slice(&self.table, GFP_KERNEL)?;
        copy.key.extend_from_slice(&self.key, GFP_KERNEL)?;
        Ok(copy)
    }

    /// Spreads packets over the first `pairs` queues, as evenly as can be.
    pub(crate) fn spread(&mut self, pairs: u16) {
        for (entry, queue) in self.table.iter_mut().zip((0..pairs).cycle()) {
            *entry = queue;
        }
    }

    /// Returns how large the table and the key are.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            table: self.limits.table.into(),
            key: self.limits.key.into(),
        }
    }

    /// Copies the table and the key, as far as there is room for them.
    pub(crate) fn show(&self, table: &mut [u32], key: &mut [u8]) {
        for (to, from) in table.iter_mut().zip(&self.table) {
            *to = u32::from(*from);
        }
        for (to, from) in key.iter_mut().zip(&self.key) {
            *to = *from;
        }
    }

    /// Changes the table, the key, or both.
    pub(crate) fn set(&mut self, table: Option<&[u32]>, key: Option<&[u8]>) -> Result {
        for (to, from) in self.table.iter_mut().zip(table.unwrap_or_default()) {
            *to = u16::try_from(*from)?;
        }
        for (to, from) in self.key.iter_mut().zip(key.unwrap_or_default()) {
            *to = *from;
        }
        Ok(())
    }

    /// Returns the type that hashes the addresses of such packets, and the one that hashes their ports too.
    fn types(flow: Flow) -> (u32, Option<u32>) {
        match flow {
            Flow::IpV4 => (IPV4, None),
            Flow::TcpV4 => (IPV4, Some(TCPV4)),
            Flow::UdpV4 => (IPV4, Some(UDPV4)),
            Flow::IpV6 => (IPV6, None),
            Flow::TcpV6 => (IPV6, Some(TCPV6)),
            Flow::UdpV6 => (IPV6, Some(UDPV6)),
        }
    }

    /// Returns what the hash of such packets is over.
    pub(crate) fn fields(&self, flow: Flow) -> Fields {
        let (addresses, ports) = Self::types(flow);

        if ports.is_some_and(|ports| self.types & ports != 0) {
            Fields::AddressesAndPorts
        } else if self.types & addresses != 0 {
            Fields::Addresses
        } else {
            Fields::Nothing
        }
    }

    /// Changes what the hash of such packets is over. The addresses of all packets of an IP version are hashed or none are: to
    /// leave out those of TCP leaves out the others that have no type of their own.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`]: the device cannot do that.
    pub(crate) fn set_fields(&mut self, flow: Flow, fields: Fields) -> Result {
        let (addresses, ports) = Self::types(flow);
        let types = match (fields, ports) {
            (Fields::Nothing, _) => self.types & !(addresses | ports.unwrap_or(0)),
            (Fields::Addresses, _) => (self.types | addresses) & !ports.unwrap_or(0),
            (Fields::AddressesAndPorts, Some(ports)) => self.types | ports,
            (Fields::AddressesAndPorts, None) => return Err(EOPNOTSUPP),
        };

        if types & !self.limits.types != 0 {
            return Err(EOPNOTSUPP);
        }
        self.types = types;
        Ok(())
    }

    /// Tells the device all this; one that spreads packets is told as well to use `pairs` pairs of queues.
    pub(crate) fn tell(&self, interface: &Interface, pairs: u16) -> Result {
        if let Some(control) = interface.control(Feature::Rss) {
            control.set_rss(self.message(pairs)?)
        } else if let Some(control) = interface.control(Feature::HashReport) {
            control.set_hash(self.message(0)?)
        } else {
            Ok(())
        }
    }

    /// Returns the message of both commands: for the one without a table there are zeros instead, as if it had one entry.
    fn message(&self, pairs: u16) -> Result<KVec<u8>> {
        // CAST: There are at most `MAX_TABLE` entries.
        let mask = self.table.len().saturating_sub(1) as u16;
        let mut message = KVec::new();

        message.extend_from_slice(&self.types.to_le_bytes(), GFP_KERNEL)?;
        message.extend_from_slice(&mask.to_le_bytes(), GFP_KERNEL)?;
        // Packets without a hash go to the first queue.
        message.extend_from_slice(&[0; 2], GFP_KERNEL)?;
        if self.table.is_empty() {
            message.extend_from_slice(&[0; 2], GFP_KERNEL)?;
        }
        for queue in &self.table {
            message.extend_from_slice(&queue.to_le_bytes(), GFP_KERNEL)?;
        }
        message.extend_from_slice(&pairs.to_le_bytes(), GFP_KERNEL)?;
        message.push(self.limits.key, GFP_KERNEL)?;
        message.extend_from_slice(&self.key, GFP_KERNEL)?;
        Ok(message)
    }
}
