// SPDX-License-Identifier: GPL-2.0

//! Hashes over the headers of received packets (VirtIO 1.3, 5.1.6.4.3, and 5.1.6.5: receive-side scaling, hash report).
//!
//! A device spreads packets over the receive queues by their hash (VIRTIO_NET_F_RSS), tells the driver the hash
//! (VIRTIO_NET_F_HASH_REPORT), or both. Where the hash of a packet goes is a table's business, which it selects from by its
//! lower bits.

use crate::{
    config::Feature,
    interface::Interface,
    rss::{
        self,
        Kind,
        Limits, //
    }, //
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

impl Limits {
    /// Reads what the device can do. Returns [`None`] if that is nothing, or less than the specification asks for.
    pub(crate) fn read(
        dev: &virtio::Device<Core<'_>>,
        features: &Features<Feature>,
    ) -> Option<Self> {
        let table = features
            .contains(Feature::Rss)
            .then(|| dev.read(RSS_MAX_INDIRECTION_TABLE_LENGTH));

        Self::new(
            dev.read(SUPPORTED_HASH_TYPES),
            dev.read(RSS_MAX_KEY_SIZE),
            table,
        )
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
        rss::spread(&mut self.table, pairs);
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
        rss::set_table(&mut self.table, table.unwrap_or_default())?;
        for (to, from) in self.key.iter_mut().zip(key.unwrap_or_default()) {
            *to = *from;
        }
        Ok(())
    }

    /// Returns what the hash of such packets is over.
    pub(crate) fn fields(&self, flow: Flow) -> Fields {
        match kind(flow).fields(self.types) {
            (_, true) => Fields::AddressesAndPorts,
            (true, false) => Fields::Addresses,
            (false, false) => Fields::Nothing,
        }
    }

    /// Changes what the hash of such packets is over, see [`Kind::select`].
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`]: the device cannot do that.
    pub(crate) fn set_fields(&mut self, flow: Flow, fields: Fields) -> Result {
        let (addresses, ports) = match fields {
            Fields::Nothing => (false, false),
            Fields::Addresses => (true, false),
            Fields::AddressesAndPorts => (true, true),
        };
        let types = kind(flow)
            .select(self.types, addresses, ports)
            .ok_or(EOPNOTSUPP)?;

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

    /// Returns the message of both commands.
    fn message(&self, pairs: u16) -> Result<KVec<u8>> {
        let mut message = KVec::new();

        rss::message(self.types, &self.table, pairs, &self.key, |bytes| {
            message.extend_from_slice(bytes, GFP_KERNEL)
        })?;
        Ok(message)
    }
}

fn kind(flow: Flow) -> Kind {
    match flow {
        Flow::IpV4 => Kind::IP_V4,
        Flow::TcpV4 => Kind::TCP_V4,
        Flow::UdpV4 => Kind::UDP_V4,
        Flow::IpV6 => Kind::IP_V6,
        Flow::TcpV6 => Kind::TCP_V6,
        Flow::UdpV6 => Kind::UDP_V6,
    }
}
