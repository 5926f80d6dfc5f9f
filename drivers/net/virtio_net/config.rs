// SPDX-License-Identifier: GPL-2.0

//! The device's configuration (VirtIO 1.3, 5.1.3 and 5.1.4), and what follows from it for the interface.

use crate::{
    header::{
        Format,
        Segments, //
    },
    offloads,
    rss::Limits,
    supply::Sizing, //
};
use guest::{
    net::{
        device,
        failover, //
    },
    virtio::{
        self,
        config::Field,
        Feature as _,
        Features, //
    }, //
};
use kernel::{
    device::Core,
    prelude::*, //
};

guest::virtio_features! {
    /// Feature bits that the driver implements.
    pub(crate) enum Feature {
        /// The device computes checksums.
        Csum = 0,
        /// Packets for the guest may lack a checksum.
        GuestCsum = 1,
        /// There is a command for what the device may leave to the guest.
        CtrlGuestOffloads = 2,
        /// The configuration has an MTU.
        Mtu = 3,
        /// The configuration has an address.
        Mac = 5,
        /// A legacy device cuts any packet of TCP.
        Gso = 6,
        /// Packets of TCP over IPv4 can come several in one.
        GuestTso4 = 7,
        /// Packets of TCP over IPv6 can come several in one.
        GuestTso6 = 8,
        /// They can have the CWR bit.
        GuestEcn = 9,
        /// Fragments of UDP can come several in one.
        GuestUfo = 10,
        /// The device cuts packets of TCP over IPv4.
        HostTso4 = 11,
        /// The device cuts packets of TCP over IPv6.
        HostTso6 = 12,
        /// The device cuts packets of TCP that have the CWR bit.
        HostEcn = 13,
        /// A received packet can lie in several buffers.
        MrgRxbuf = 15,
        /// The configuration has the link's status.
        Status = 16,
        /// There is a control queue.
        CtrlVq = 17,
        /// It has commands for what is received.
        CtrlRx = 18,
        /// It has commands for VLANs.
        CtrlVlan = 19,
        /// The device asks to be announced, and is answered by a command.
        GuestAnnounce = 21,
        /// There can be several pairs of queues.
        Mq = 22,
        /// There is a command for the address.
        CtrlMacAddr = 23,
        /// A legacy device does not mind where the header ends.
        AnyLayout = 27,
        /// The device keeps statistics and tells them.
        DeviceStats = 50,
        /// When a queue interrupts can be said for each.
        VqNotfCoal = 52,
        /// When queues interrupt can be said for all.
        NotfCoal = 53,
        /// Packets of UDP over IPv4 can come several in one.
        GuestUso4 = 54,
        /// Packets of UDP over IPv6 can come several in one.
        GuestUso6 = 55,
        /// The device cuts packets of UDP.
        HostUso = 56,
        /// Received packets come with a hash.
        HashReport = 57,
        /// A packet that is to be cut says how long its headers are.
        GuestHdrlen = 59,
        /// The device spreads packets over the receive queues by their hash.
        Rss = 60,
        /// The device stands in for another one with the same address.
        Standby = 62,
        /// The configuration has the link's speed and duplex mode.
        SpeedDuplex = 63,
        /// Packets of UDP tunnels can come several in one.
        GuestUdpTunnelGso = 65,
        /// Their tunnels can have checksums.
        GuestUdpTunnelGsoCsum = 66,
        /// The device cuts packets of UDP tunnels.
        HostUdpTunnelGso = 67,
        /// Their tunnels can have checksums.
        HostUdpTunnelGsoCsum = 68,
    }
}

/// The address.
pub(crate) const MAC: Field<[u8; 6]> = Field::new(0);

/// The link's status.
pub(crate) const STATUS: Field<u16> = Field::new(6);

/// The number of pairs of queues.
const MAX_VIRTQUEUE_PAIRS: Field<u16> = Field::new(8);

/// The most pairs of queues that are driven. The specification allows 32768, of which the rings alone would take more memory
/// than a device should be able to ask for.
const MAX_PAIRS: u16 = 256;

/// The MTU.
pub(crate) const MTU: Field<u16> = Field::new(10);

/// The link's speed, in Mbit/s.
pub(crate) const SPEED: Field<u32> = Field::new(12);

/// The link's duplex mode.
pub(crate) const DUPLEX: Field<u8> = Field::new(16);

/// `STATUS`: the link is up.
pub(crate) const LINK_UP: u16 = 1;

/// `STATUS`: the neighbours are to be told where the device is.
pub(crate) const ANNOUNCE: u16 = 2;

/// The range of the MTU that IP and the stack can work with.
pub(crate) const MIN_MTU: u32 = 68;
pub(crate) const MAX_MTU: u32 = 65535;

/// The MTU of a device that does not say.
pub(crate) const DEFAULT_MTU: u32 = 1500;

/// The features by which a packet can be several in one when it is received.
const RECEIVE_SEGMENTS: [Feature; 8] = [
    Feature::GuestTso4,
    Feature::GuestTso6,
    Feature::GuestEcn,
    Feature::GuestUfo,
    Feature::GuestUso4,
    Feature::GuestUso6,
    Feature::GuestUdpTunnelGso,
    Feature::GuestUdpTunnelGsoCsum,
];

/// The features by which a packet in a tunnel can be several in one.
const TUNNELED_SEGMENTS: [Feature; 4] = [
    Feature::GuestTso4,
    Feature::GuestTso6,
    Feature::GuestUso4,
    Feature::GuestUso6,
];

/// The features by which a header has room for where a tunnel's headers are.
const TUNNELS: [Feature; 2] = [Feature::GuestUdpTunnelGso, Feature::HostUdpTunnelGso];

/// The features by which a device has a number of pairs.
const SEVERAL_PAIRS: [Feature; 2] = [Feature::Mq, Feature::Rss];

/// The features by which a device hashes packets.
const HASHES: [Feature; 2] = [Feature::HashReport, Feature::Rss];

/// Returns what a received packet may consist of.
pub(crate) fn segments(features: &Features<Feature>) -> Segments {
    Segments {
        tcp4: features.contains(Feature::GuestTso4),
        tcp6: features.contains(Feature::GuestTso6),
        ecn: features.contains(Feature::GuestEcn),
        fragments: features.contains(Feature::GuestUfo),
        udp: features.contains_any(&[Feature::GuestUso4, Feature::GuestUso6]),
        tunnel: features.contains(Feature::GuestUdpTunnelGso),
        tunnel_checksum: features.contains(Feature::GuestUdpTunnelGsoCsum),
    }
}

/// Returns whether the device may merge received packets.
pub(crate) fn can_merge(features: &Features<Feature>) -> bool {
    features.contains_any(&RECEIVE_SEGMENTS)
}

/// Gives up that the device merges received packets.
pub(crate) fn forbid_merging(features: &mut Features<Feature>) {
    features.remove_all(&RECEIVE_SEGMENTS);
}

/// Returns the mask of what the device may leave to the guest (5.1.6.5.6.1): of checksums, and of segments if so wanted.
pub(crate) fn guest_offloads(features: &Features<Feature>, segments: bool) -> u64 {
    let merged = RECEIVE_SEGMENTS.into_iter().filter(|_| segments);
    let negotiated = Iterator::chain(merged, [Feature::GuestCsum])
        .filter(|&feature| features.contains(feature))
        .map(|feature| feature.bit());

    offloads::mask(negotiated)
}

/// Gives up what the device's configuration makes unusable.
pub(crate) fn validate(dev: &virtio::Device<Core<'_>>, features: &mut Features<Feature>) -> Result {
    if features.contains(Feature::Mtu) {
        let mtu = u32::from(dev.read(MTU));

        if mtu < MIN_MTU {
            dev_warn!(
                dev,
                "the device asks for an MTU of {mtu}, which is too small; ignored\n"
            );
            features.remove(Feature::Mtu);
        }
    }

    if features.contains(Feature::Standby) {
        let refused = if !features.contains(Feature::Mac) {
            Some("the device has no address")
        } else if failover::Module::load().is_none() {
            Some("the module net_failover cannot be loaded")
        } else {
            None
        };

        if let Some(reason) = refused {
            dev_warn!(dev, "{reason}; it is no standby for another one\n");
            features.remove(Feature::Standby);
        }
    }

    // What needs the control queue (5.1.3.1).
    if !features.contains(Feature::CtrlVq) {
        features.remove_all(&[
            Feature::CtrlGuestOffloads,
            Feature::CtrlRx,
            Feature::CtrlVlan,
            Feature::GuestAnnounce,
            Feature::Mq,
            Feature::CtrlMacAddr,
            Feature::DeviceStats,
            Feature::VqNotfCoal,
            Feature::NotfCoal,
            Feature::HashReport,
            Feature::Rss,
        ]);
    }
    if features.contains_any(&SEVERAL_PAIRS) {
        let pairs = dev.read(MAX_VIRTQUEUE_PAIRS);

        if !(1..=MAX_PAIRS).contains(&pairs) {
            dev_warn!(
                dev,
                "the device has {pairs} pairs of queues, 1 to {MAX_PAIRS} can be driven; one is used\n"
            );
            features.remove_all(&SEVERAL_PAIRS);
        }
    }
    if features.contains_any(&HASHES) && Limits::read(dev, features).is_none() {
        dev_warn!(
            dev,
            "the device hashes nothing, or takes too short a key or table; hashes are not used\n"
        );
        features.remove_all(&HASHES);
    }

    // A packet of several lacks a checksum (5.1.3.1).
    if !features.contains(Feature::GuestCsum) {
        features.remove_all(&RECEIVE_SEGMENTS);
    }
    if !features.contains_any(&[Feature::GuestTso4, Feature::GuestTso6]) {
        features.remove(Feature::GuestEcn);
    }
    // Tunnels without any of these come one by one.
    if !features.contains_any(&TUNNELED_SEGMENTS) {
        features.remove(Feature::GuestUdpTunnelGso);
    }
    if !features.contains(Feature::GuestUdpTunnelGso) {
        features.remove(Feature::GuestUdpTunnelGsoCsum);
    }

    // A device that computes no checksums cannot cut packets either (5.1.3.1).
    if !features.contains(Feature::Csum) {
        features.remove_all(&[
            Feature::Gso,
            Feature::HostTso4,
            Feature::HostTso6,
            Feature::HostEcn,
            Feature::HostUso,
            Feature::GuestHdrlen,
            Feature::HostUdpTunnelGso,
        ]);
    }
    if !features.contains(Feature::HostUdpTunnelGso) {
        features.remove(Feature::HostUdpTunnelGsoCsum);
    }
    Ok(())
}

/// Returns the device's MTU, if it has one.
///
/// # Errors
///
/// [`EINVAL`]: it is another one than [`validate`] has seen.
pub(crate) fn mtu(
    dev: &virtio::Device<Core<'_>>,
    features: &Features<Feature>,
) -> Result<Option<u32>> {
    if !features.contains(Feature::Mtu) {
        return Ok(None);
    }

    let mtu = u32::from(dev.read(MTU));
    if mtu < MIN_MTU {
        dev_err!(
            dev,
            "the device has changed its MTU to {mtu} meanwhile; not driven\n"
        );
        return Err(EINVAL);
    }
    Ok(Some(mtu))
}

/// Returns how many pairs of queues the device has.
///
/// # Errors
///
/// [`EINVAL`]: it is another number than [`validate`] has seen.
pub(crate) fn pairs(dev: &virtio::Device<Core<'_>>, features: &Features<Feature>) -> Result<u16> {
    if !features.contains_any(&SEVERAL_PAIRS) {
        return Ok(1);
    }

    let pairs = dev.read(MAX_VIRTQUEUE_PAIRS);
    if !(1..=MAX_PAIRS).contains(&pairs) {
        dev_err!(
            dev,
            "the device has changed its number of queues to {pairs} meanwhile; not driven\n"
        );
        return Err(EINVAL);
    }
    Ok(pairs)
}

/// Returns what the device can do with hashes, if it has any.
///
/// # Errors
///
/// [`EINVAL`]: it can do less than [`validate`] has seen.
pub(crate) fn hashes(
    dev: &virtio::Device<Core<'_>>,
    features: &Features<Feature>,
) -> Result<Option<Limits>> {
    if !features.contains_any(&HASHES) {
        return Ok(None);
    }

    let limits = Limits::read(dev, features);
    if limits.is_none() {
        dev_err!(
            dev,
            "the device has changed meanwhile what it can hash; not driven\n"
        );
        return Err(EINVAL);
    }
    Ok(limits)
}

/// Returns what comes before each packet.
pub(crate) fn format(features: &Features<Feature>) -> Format {
    Format::new(
        features.is_modern(),
        features.contains(Feature::MrgRxbuf),
        features.contains(Feature::HashReport),
        features.contains_any(&TUNNELS),
    )
}

/// Returns how large receive buffers are.
pub(crate) fn sizing(features: &Features<Feature>, mtu: Option<u32>) -> Sizing {
    Sizing::new(
        features.contains(Feature::MrgRxbuf),
        can_merge(features),
        mtu.unwrap_or(DEFAULT_MTU),
    )
}

/// Returns how many entries a receive ring has at least at that MTU: it can hold the longest packet. A device waits for as many buffers
/// as a packet takes, for ever where there are never so many.
pub(crate) fn smallest_receive_ring(features: &Features<Feature>, mtu: u32) -> u32 {
    sizing(features, Some(mtu)).descriptors(can_merge(features), mtu)
}

/// Returns what the interface can do: from the beginning, and what the user can change.
pub(crate) fn abilities(features: &Features<Feature>) -> (device::Features, device::Features) {
    let mut changeable = device::Features::default();
    let mut active = device::Features::RXCSUM;

    if cfg!(CONFIG_64BIT) {
        active |= device::Features::HIGHDMA;
    }
    if features.contains(Feature::Csum) {
        changeable |= device::Features::HW_CSUM | device::Features::SG;
        if features.contains(Feature::Gso) {
            changeable |=
                device::Features::TSO | device::Features::TSO6 | device::Features::TSO_ECN;
        }
        for (feature, ability) in [
            (Feature::HostTso4, device::Features::TSO),
            (Feature::HostTso6, device::Features::TSO6),
            (Feature::HostEcn, device::Features::TSO_ECN),
            (Feature::HostUso, device::Features::GSO_UDP_L4),
            (Feature::HostUdpTunnelGso, device::Features::GSO_UDP_TUNNEL),
            (
                Feature::HostUdpTunnelGsoCsum,
                device::Features::GSO_UDP_TUNNEL_CSUM,
            ),
        ] {
            if features.contains(feature) {
                changeable |= ability;
            }
        }
        active |= device::Features::GSO_ROBUST | changeable;
    }
    if can_merge(features) {
        active |= device::Features::GRO_HW;
        changeable |= device::Features::GRO_HW;
    }
    if features.contains(Feature::HashReport) {
        changeable |= device::Features::RXHASH;
        active |= device::Features::RXHASH;
    }
    if features.contains(Feature::CtrlVlan) {
        active |= device::Features::VLAN_FILTER;
    }
    (active, changeable)
}
