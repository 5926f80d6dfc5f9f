// SPDX-License-Identifier: GPL-2.0

//! Where the headers of a received packet are that is in a UDP tunnel, and several in one.
//!
//! The device says that as well, in the header's last four bytes. It is read from the packet all the same: what the device says
//! would have to be compared with the packet anyway, and QEMU 11.1 says nothing: it copies the first ten bytes of what a tap interface
//! gives it.
//!
//! This file uses nothing but `core`.

use crate::header::{
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_TUNNEL,
    GSO_TUNNEL_IPV6,
    GSO_UDP_L4, //
};

/// All headers lie within so many bytes: those of Ethernet with two tags, of IPv6 with 128 bytes of extensions, of UDP, of Geneve with
/// all the options that there is room for, and of Ethernet and IPv6 again.
pub(crate) const MAX_LEN: usize = 22 + 168 + 8 + 260 + 14 + 168;

const ETH_ALEN: usize = 6;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// What says that a VLAN's tag follows.
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// The extension headers that have no effect on what follows: hop-by-hop options, routing, and options for the destination.
const EXTENSIONS: [u8; 3] = [0, 43, 60];

const UDP_HLEN: usize = 8;

/// Where two headers begin, counted from the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The tunnel's UDP header.
    pub(crate) outer_transport: u16,
    /// The IP header inside of the tunnel.
    pub(crate) inner_network: u16,
}

/// What follows an IP header, with its options or extensions.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Next {
    /// The header is one of IPv6.
    ipv6: bool,
    protocol: u8,
    /// Where that begins.
    at: usize,
}

fn number(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(
        packet.get(at..)?.first_chunk().copied()?,
    ))
}

/// Reads the IP header at `at`. Of fragments there is nothing that follows.
fn next(packet: &[u8], at: usize) -> Option<Next> {
    let header = packet.get(at..)?;

    match header.first()? >> 4 {
        4 => {
            let len = usize::from(header.first()? & 15) * 4;
            let is_fragment = number(header, 6)? & 0x3fff != 0;

            (len >= 20 && !is_fragment).then_some(Next {
                ipv6: false,
                protocol: *header.get(9)?,
                at: at + len,
            })
        }
        6 => {
            let mut protocol = *header.get(6)?;
            let mut len = 40;

            // Each is at least eight bytes long.
            while EXTENSIONS.contains(&protocol) {
                protocol = *header.get(len)?;
                len += (usize::from(*header.get(len + 1)?) + 1) * 8;
            }
            Some(Next {
                ipv6: true,
                protocol,
                at: at + len,
            })
        }
        _ => None,
    }
}

/// Returns where the outer IP header begins, and whether it is one of IPv6.
fn outer_network(packet: &[u8]) -> Option<(usize, bool)> {
    let mut at = 2 * ETH_ALEN;
    let mut kind = number(packet, at)?;

    for _ in 0..2 {
        if VLAN_TAGS.contains(&kind) {
            at += 4;
            kind = number(packet, at)?;
        }
    }
    match kind {
        ETH_P_IP => Some((at + 2, false)),
        ETH_P_IPV6 => Some((at + 2, true)),
        _ => None,
    }
}

/// Finds headers in the beginning of a packet, of which the device says this `gso_type`, with one bit of [`GSO_TUNNEL`], and that a
/// checksum is missing which begins at `inner_transport`. Returns [`None`] if the packet is something else.
///
/// What a tunnel puts before the packet in it can be anything, so the IP header inside is looked for from its end.
pub(crate) fn locate(packet: &[u8], gso_type: u8, inner_transport: u16) -> Option<Place> {
    let (inside, protocol): (&[bool], _) = match gso_type & !(GSO_ECN | GSO_TUNNEL) {
        GSO_TCPV4 => (&[false], IPPROTO_TCP),
        GSO_TCPV6 => (&[true], IPPROTO_TCP),
        GSO_UDP_L4 => (&[false, true], IPPROTO_UDP),
        _ => return None,
    };
    let inner_transport = usize::from(inner_transport);

    let (at, ipv6) = outer_network(packet)?;
    let outer = next(packet, at)?;
    let expected = Next {
        ipv6: gso_type & GSO_TUNNEL_IPV6 != 0,
        protocol: IPPROTO_UDP,
        ..outer
    };
    if outer != expected || outer.ipv6 != ipv6 {
        return None;
    }
    let first = outer.at + UDP_HLEN;

    for &ipv6 in inside {
        let (least, most, step) = if ipv6 { (40, 168, 8) } else { (20, 60, 4) };
        let expected = Next {
            ipv6,
            protocol,
            at: inner_transport,
        };
        for len in (least..=most).step_by(step) {
            let Some(at) = inner_transport.checked_sub(len).filter(|&at| at >= first) else {
                break;
            };
            if next(packet, at) == Some(expected) {
                return Some(Place {
                    outer_transport: u16::try_from(outer.at).ok()?,
                    inner_network: u16::try_from(at).ok()?,
                });
            }
        }
    }
    None
}
