// SPDX-License-Identifier: GPL-2.0

//! Tests of where the headers of a tunnel are, on packets that are put together header by header.

#![allow(dead_code)]

use proptest::{collection::vec, prelude::*};

#[path = "../../../../drivers/net/virtio_net/header.rs"]
mod header;
#[path = "../../../../drivers/net/virtio_net/tunnel.rs"]
mod tunnel;

use header::{GSO_TCPV4, GSO_TCPV6, GSO_TUNNEL_IPV4, GSO_TUNNEL_IPV6, GSO_UDP, GSO_UDP_L4};
use tunnel::{locate, Place, MAX_LEN};

/// An IP header: of version 4 with so many words of options, or of version 6 with extensions that are so many times eight bytes long.
#[derive(Clone, Debug)]
enum Ip {
    V4 { options: u8, noise: Vec<u8> },
    V6 { extensions: Vec<u8>, noise: Vec<u8> },
}

impl Ip {
    fn is_v6(&self) -> bool {
        matches!(self, Ip::V6 { .. })
    }

    /// Appends the header, before that of a protocol.
    fn put(&self, packet: &mut Vec<u8>, protocol: u8) {
        let at = packet.len();

        match self {
            Ip::V4 { options, noise } => {
                packet.extend(&noise[..20 + usize::from(*options) * 4]);
                packet[at] = 0x45 + options;
                // It may say that it must not be cut; it is no fragment.
                packet[at + 6] &= 0x40;
                packet[at + 7] = 0;
                packet[at + 9] = protocol;
            }
            Ip::V6 { extensions, noise } => {
                packet.extend(&noise[..40]);
                packet[at] = 0x60 | packet[at] & 15;
                let mut says = at + 6;
                for (kind, &length) in [0u8, 43, 60].iter().zip(extensions) {
                    packet[says] = *kind;
                    says = packet.len();
                    packet.extend(&noise[..usize::from(length) * 8]);
                    packet[says + 1] = length - 1;
                }
                packet[says] = protocol;
            }
        }
    }
}

fn any_ip() -> impl Strategy<Value = Ip> {
    prop_oneof![
        (0u8..=10, vec(any::<u8>(), 60)).prop_map(|(options, noise)| Ip::V4 { options, noise }),
        (vec(1u8..=4, 0..=3), vec(any::<u8>(), 40))
            .prop_map(|(extensions, noise)| Ip::V6 { extensions, noise }),
    ]
}

/// A packet, and what is said of it and where its headers are.
#[derive(Clone, Debug)]
struct Packet {
    bytes: Vec<u8>,
    gso_type: u8,
    inner_transport: u16,
    place: Place,
}

prop_compose! {
    /// One in a tunnel whose own header is so long.
    fn any_packet()(
        addresses in vec(any::<u8>(), 12),
        tags in vec(prop_oneof![Just([0x81, 0x00]), Just([0x88, 0xa8])], 0..=2),
        outer in any_ip(),
        inner in any_ip(),
        own in prop_oneof![Just(8usize), Just(8 + 14), (0usize..60).prop_map(|words| 8 + 14 + 4 * words)],
        udp in any::<bool>(),
        payload in vec(any::<u8>(), 20..200),
    ) -> Packet {
        let mut bytes = addresses;
        let kind = |ip: &Ip| if ip.is_v6() { [0x86, 0xdd] } else { [0x08, 0x00] };

        for tag in tags {
            bytes.extend(tag);
            bytes.extend([0, 7]);
        }
        bytes.extend(kind(&outer));
        outer.put(&mut bytes, 17);
        let outer_transport = bytes.len() as u16;
        // What is in there cannot be taken for an IP header.
        bytes.extend(vec![0xff; 8 + own]);
        let inner_network = bytes.len() as u16;
        inner.put(&mut bytes, if udp { 17 } else { 6 });
        let inner_transport = bytes.len() as u16;
        bytes.extend(payload);

        let kind = match (udp, inner.is_v6()) {
            (true, _) => GSO_UDP_L4,
            (false, false) => GSO_TCPV4,
            (false, true) => GSO_TCPV6,
        };
        Packet {
            bytes,
            gso_type: kind | if outer.is_v6() { GSO_TUNNEL_IPV6 } else { GSO_TUNNEL_IPV4 },
            inner_transport,
            place: Place { outer_transport, inner_network },
        }
    }
}

fn within(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(MAX_LEN)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn headers_are_found_where_they_were_put(packet in any_packet()) {
        let Packet { bytes, gso_type, inner_transport, place } = packet;
        let found = locate(within(&bytes), gso_type, inner_transport);

        // Options are noise, which can look like a shorter header with the same end; nothing else can.
        if let Some(found) = found {
            prop_assert_eq!(found.outer_transport, place.outer_transport);
            prop_assert!(found.inner_network >= place.inner_network);
            prop_assert!(found.inner_network < inner_transport);
        }
        prop_assert!(found.is_some());
    }

    #[test]
    fn what_is_said_has_to_be_so(packet in any_packet(), off in 1u16..4) {
        let Packet { bytes, gso_type, inner_transport, .. } = packet;
        let bytes = within(&bytes);
        let other = gso_type ^ (GSO_TUNNEL_IPV4 | GSO_TUNNEL_IPV6);
        let fragments = gso_type & !7 | GSO_UDP;

        prop_assert_eq!(locate(bytes, other, inner_transport), None);
        prop_assert_eq!(locate(bytes, fragments, inner_transport), None);
        // No header ends at an address that is no multiple of its unit away.
        if let Some(place) = locate(bytes, gso_type, inner_transport - off) {
            prop_assert!(place.inner_network >= place.outer_transport + 16);
        }
    }

    #[test]
    fn whatever_the_bytes_are_what_is_found_is_in_order(
        mut packet in any_packet(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        len in any::<prop::sample::Index>(),
        inner_transport in prop_oneof![any::<u16>(), 0u16..600],
        gso_type in any::<u8>(),
        as_it_was in any::<bool>(),
    ) {
        for (at, value) in changes {
            *at.get_mut(&mut packet.bytes) = value;
        }
        let bytes = within(&packet.bytes);
        let bytes = &bytes[..len.index(bytes.len() + 1)];
        let (gso_type, inner_transport) = if as_it_was {
            (packet.gso_type, packet.inner_transport)
        } else {
            (gso_type, inner_transport)
        };

        if let Some(place) = locate(bytes, gso_type, inner_transport) {
            // As the kernel has it, which looks no further: an Ethernet and an IP header, one of UDP, and one of IP.
            prop_assert!(place.outer_transport >= 14 + 20);
            prop_assert!(place.inner_network >= place.outer_transport + 8);
            prop_assert!(inner_transport >= place.inner_network + 20);
        }
    }
}

/// A packet of VXLAN over IPv4 as it was captured: TCP over IPv4 inside, without options.
#[test]
fn vxlan_is_found() {
    let mut bytes = vec![0; 12];
    bytes.extend([0x08, 0x00]);
    bytes.extend([
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15,
    ]);
    bytes.extend([0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0]);
    bytes.extend([8, 0, 0, 0, 0, 0, 1, 0]);
    bytes.extend([0; 12]);
    bytes.extend([0x08, 0x00]);
    bytes.extend([
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 9, 1, 2, 10, 9, 1, 15,
    ]);
    bytes.extend([0; 20]);

    assert_eq!(
        locate(&bytes, GSO_TCPV4 | GSO_TUNNEL_IPV4, 84),
        Some(Place {
            outer_transport: 34,
            inner_network: 64
        })
    );
    // It is not over IPv6, nor is there IPv6 in it.
    assert_eq!(locate(&bytes, GSO_TCPV4 | GSO_TUNNEL_IPV6, 84), None);
    assert_eq!(locate(&bytes, GSO_TCPV6 | GSO_TUNNEL_IPV4, 84), None);
    assert_eq!(locate(&bytes, GSO_UDP_L4 | GSO_TUNNEL_IPV4, 84), None);
    // A fragment has no UDP header.
    bytes[21] = 1;
    assert_eq!(locate(&bytes, GSO_TCPV4 | GSO_TUNNEL_IPV4, 84), None);
}
