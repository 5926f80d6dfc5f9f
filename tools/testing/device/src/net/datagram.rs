// SPDX-License-Identifier: GPL-2.0

//! A datagram that is larger than a frame: whoever sends one of UDP over IPv4 to port 19 gets it.

use super::HEADER;

/// How many bytes it has.
pub const LENGTH: usize = 4000;

/// Where it is asked for.
const PORT: [u8; 2] = [0, 19];

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// What a frame holds at most, in units in which fragments are counted.
const FRAGMENT: usize = 1480;
const UNIT: usize = 8;

/// IPv4: more fragments follow.
const MORE: u16 = 0x2000;

/// The protocol number of UDP.
const PROTOCOL: u8 = 17;

/// The header's `flags` and `gso_type`: a checksum is missing, and it is UDP to be cut into fragments.
const NEEDS_CSUM: u8 = 1;
const GSO_UDP: u8 = 3;

/// Where the checksum is in UDP's header.
const CHECKSUM: usize = 6;

/// Adds 16-bit words as IP does.
fn sum(first: u32, bytes: &[u8]) -> u16 {
    let mut sum = bytes.chunks_exact(2).fold(first, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
    });

    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame with a part of the datagram, and with the addresses of the one that has asked, which are exchanged.
fn frame(asked: &[u8], payload: &[u8], place: u16) -> Vec<u8> {
    let length = (IPV4 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];

    ip.extend(length.to_be_bytes());
    // All parts have the same number.
    ip.extend([0, 1]);
    ip.extend(place.to_be_bytes());
    ip.extend([64, PROTOCOL, 0, 0]);
    ip.extend(&asked[ETHERNET + 16..ETHERNET + 20]);
    ip.extend(&asked[ETHERNET + 12..ETHERNET + 16]);
    let checksum = !sum(0, &ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&asked[6..12], &asked[..6], &asked[12..14], &ip, payload].concat()
}

/// The packets with which a frame is answered that asks for the datagram, each with the header for the driver: one if that takes it
/// whole.
pub(super) fn answer(asked: &[u8], whole: bool) -> Option<Vec<Vec<u8>>> {
    let ip = asked.get(ETHERNET..ETHERNET + IPV4)?;
    let udp = asked.get(ETHERNET + IPV4..ETHERNET + IPV4 + UDP)?;

    if asked[12..14] != [8, 0] || ip[0] != 0x45 || ip[9] != PROTOCOL || udp[2..4] != PORT {
        return None;
    }

    let length = (UDP + LENGTH) as u16;
    let mut datagram = [&PORT, &udp[..2], &length.to_be_bytes(), &[0, 0]].concat();
    datagram.resize(UDP + LENGTH, b'x');
    if whole {
        // Who fills it in begins with the sum of what is not in the datagram itself.
        let pseudo = sum(u32::from(PROTOCOL) + u32::from(length), &ip[12..]);
        datagram[CHECKSUM..CHECKSUM + 2].copy_from_slice(&pseudo.to_be_bytes());
        let mut packet = vec![NEEDS_CSUM, GSO_UDP];
        for field in [ETHERNET + IPV4 + UDP, FRAGMENT, ETHERNET + IPV4, CHECKSUM] {
            packet.extend((field as u16).to_le_bytes());
        }
        packet.resize(HEADER, 0);
        packet.extend(frame(asked, &datagram, 0));
        return Some(vec![packet]);
    }

    // Without a checksum, which IPv4 allows.
    let parts = datagram.chunks(FRAGMENT);
    let last = parts.len() - 1;
    Some(
        parts
            .enumerate()
            .map(|(number, part)| {
                let more = if number < last { MORE } else { 0 };
                let place = (number * FRAGMENT / UNIT) as u16;
                let mut packet = vec![0; HEADER];
                packet.extend(frame(asked, part, place | more));
                packet
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame to a port.
    fn asked(port: u8) -> Vec<u8> {
        let mut frame = vec![1; 12];
        frame.extend([8, 0, 0x45, 0, 0, 29, 0, 0, 0, 0, 64, PROTOCOL, 0, 0]);
        frame.extend([10, 0, 2, 15, 10, 0, 2, 2]);
        frame.extend([9, 8, 0, port, 0, 9, 0, 0, b'y']);
        frame
    }

    #[test]
    fn nothing_else_is_answered() {
        assert!(answer(&asked(20), true).is_none());
        assert!(answer(&asked(19)[..40], true).is_none());
        assert!(answer(&[], false).is_none());
    }

    #[test]
    fn it_comes_whole_or_in_parts() {
        let whole = answer(&asked(19), true).unwrap_or_default();
        let parts = answer(&asked(19), false).unwrap_or_default();
        let payload = |packet: &[u8]| packet[HEADER + ETHERNET + IPV4..].to_vec();

        assert_eq!((whole.len(), parts.len()), (1, 3));
        let joined: Vec<_> = parts.iter().flat_map(|part| payload(part)).collect();
        let mut first = payload(&whole[0]);
        first[CHECKSUM..UDP].fill(0);
        assert_eq!(joined, first);
        assert_eq!(joined[..4], [0, 19, 9, 8]);

        for packet in whole.iter().chain(&parts) {
            let ip = &packet[HEADER + ETHERNET..HEADER + ETHERNET + IPV4];
            assert_eq!(sum(0, ip), 0xffff);
            assert_eq!(ip[12..], [10, 0, 2, 2, 10, 0, 2, 15]);
        }
        let places: Vec<_> = parts
            .iter()
            .map(|part| [part[HEADER + ETHERNET + 6], part[HEADER + ETHERNET + 7]])
            .collect();
        assert_eq!(places, [[0x20, 0], [0x20, 185], [1, 114]]);
    }
}
