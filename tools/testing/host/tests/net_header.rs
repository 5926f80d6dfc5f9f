// SPDX-License-Identifier: GPL-2.0

//! Tests of the network driver's headers and of the size of its buffers.
//!
//! What a device says in a header is compared with a second reading of the specification, written differently; whatever the
//! bytes are, nothing may panic, and what is accepted must keep the promises on which the driver builds.

#![allow(dead_code)]

use proptest::prelude::*;

#[path = "../../../../drivers/net/virtio_net/header.rs"]
mod header;
#[path = "../../../../drivers/net/virtio_net/sizing.rs"]
mod sizing;

use header::{
    Checksum, Draft, Fault, Format, Hash, Header, Layout, Place, Received, Rules, Segments,
    Transport, Tunnel, Verdict, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_TUNNEL_IPV4, GSO_TUNNEL_IPV6,
    GSO_UDP, GSO_UDP_L4, LEGACY_LEN, LEN, TUNNEL_LEN,
};
use sizing::{Memory, Mergeable, Single};

/// What the memory is on the machine that is driven most.
const MEMORY: Memory = Memory {
    unit: 2048,
    page: 4096,
    overhead: 64 + 320,
};

/// A place for a header with room for a tunnel.
#[derive(Default)]
struct Memo([u8; TUNNEL_LEN]);

impl Place for Memo {
    fn put<const AT: usize, const N: usize>(&mut self, bytes: [u8; N]) {
        self.0[..LEGACY_LEN][AT..AT + N].copy_from_slice(&bytes);
    }

    fn put_last<const N: usize>(&mut self, bytes: [u8; N]) {
        self.0[TUNNEL_LEN - N..].copy_from_slice(&bytes);
    }
}

/// Has a header written that leaves these to the device.
fn leave<const BIG_ENDIAN: bool>(
    place: &mut Memo,
    checksum: Option<(u16, u16)>,
    segmentation: Option<(u8, u16, u16)>,
    tunnel: Option<Tunnel>,
) {
    let mut header = Draft::<_, BIG_ENDIAN>::new(place);

    if let Some((start, offset)) = checksum {
        header.leave_checksum(start, offset);
    }
    if let Some((gso_type, size, header_len)) = segmentation {
        header.leave_cutting(gso_type, size, header_len);
    }
    if let Some(tunnel) = tunnel {
        header.put_into(tunnel);
    }
}

fn any_format() -> impl Strategy<Value = Format> {
    (0usize..4, any::<bool>()).prop_map(|(layout, big_endian)| Format {
        layout: [Layout::Short, Layout::Long, Layout::Hash, Layout::Tunnel][layout],
        big_endian,
    })
}

fn any_header() -> impl Strategy<Value = Header> {
    (
        (any::<u8>(), any::<u8>()),
        (
            any::<u16>(),
            any::<u16>(),
            any::<u16>(),
            any::<u16>(),
            any::<u16>(),
        ),
    )
        .prop_map(|((flags, gso_type), (a, b, c, d, e))| Header {
            flags,
            gso_type,
            hdr_len: a,
            gso_size: b,
            csum_start: c,
            csum_offset: d,
            num_buffers: e,
        })
}

/// Headers that are mostly in order, so that the checks behind the first one are reached.
fn likely_header() -> impl Strategy<Value = Header> {
    (0u8..8, 0u8..13, 0u16..2000, 0u16..100, 0u16..300).prop_map(
        |(flags, gso, csum_start, csum_offset, num_buffers)| Header {
            flags: (flags & 3) | ((flags & 4) << 1),
            gso_type: [
                0,
                0,
                0,
                GSO_TCPV4,
                GSO_TCPV6 | GSO_ECN,
                GSO_UDP,
                GSO_UDP_L4,
                GSO_TCPV4 | GSO_ECN,
                GSO_TCPV4 | GSO_TUNNEL_IPV4,
                GSO_TCPV6 | GSO_ECN | GSO_TUNNEL_IPV6,
                GSO_UDP_L4 | GSO_TUNNEL_IPV6,
                GSO_UDP | GSO_TUNNEL_IPV4,
                GSO_TCPV4 | GSO_TUNNEL_IPV4 | GSO_TUNNEL_IPV6,
            ][usize::from(gso)],
            csum_start,
            csum_offset,
            num_buffers,
            ..Header::default()
        },
    )
}

fn any_segments() -> impl Strategy<Value = Segments> {
    any::<[bool; 7]>().prop_map(
        |[tcp4, tcp6, ecn, fragments, udp, tunnel, tunnel_checksum]| Segments {
            tcp4,
            tcp6,
            ecn,
            fragments,
            udp,
            tunnel,
            tunnel_checksum,
        },
    )
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), any::<bool>(), 1u16..=1024, any_segments()).prop_map(
        |(missing_checksums, mergeable, max_buffers, segments)| Rules {
            missing_checksums,
            mergeable,
            max_buffers,
            segments,
        },
    )
}

/// VirtIO 1.3, 5.1.6.4, read again: the set of all complaints that there can be about a header.
fn complaints(header: &Header, len: u32, rules: &Rules) -> Vec<Fault> {
    let mut list = Vec::new();
    let wants_sum = header.flags & 0x01 == 0x01;
    let spread = rules.mergeable && header.num_buffers != 1;

    // 5.1.6.4.1: no segmentation but what was negotiated, written as the numbers that the specification gives.
    let segments = rules.segments;
    let negotiated = [
        (0, true),
        (1, segments.tcp4),
        (0x81, segments.tcp4 && segments.ecn),
        (3, segments.fragments),
        (4, segments.tcp6),
        (0x84, segments.tcp6 && segments.ecn),
        (5, segments.udp),
    ];
    // In a tunnel over IPv4 (0x20) or IPv6 (0x40) there is neither an ordinary packet nor a fragment.
    let in_tunnel = negotiated
        .into_iter()
        .filter(|(kind, _)| ![0, 3].contains(kind))
        .flat_map(|(kind, has)| [0x20, 0x40].map(|tunnel| (kind | tunnel, has && segments.tunnel)));
    if !negotiated
        .into_iter()
        .chain(in_tunnel)
        .any(|kind| kind == (header.gso_type, true))
    {
        list.push(Fault::NotNegotiated);
    }
    // Such a packet lacks a checksum, and is not verified; that the tunnel has one (0x08) has a feature of its own.
    if header.gso_type & 0x60 != 0
        && (header.flags & 0x03 != 0x01 || header.flags & 0x08 != 0 && !segments.tunnel_checksum)
    {
        list.push(Fault::NotNegotiated);
    }
    // 5.1.6.4.1: NEEDS_CSUM only with VIRTIO_NET_F_GUEST_CSUM.
    if wants_sum && !rules.missing_checksums {
        list.push(Fault::NotNegotiated);
    }
    // 5.1.6.4.1: num_buffers is the number of descriptors used.
    if rules.mergeable && !(1..=rules.max_buffers).contains(&header.num_buffers) {
        list.push(Fault::Buffers);
    }
    // The sum is in the packet, behind a network header.
    let last = u64::from(header.csum_start) + u64::from(header.csum_offset) + 1;
    if wants_sum && (header.csum_start < 20 || (!spread && last >= u64::from(len))) {
        list.push(Fault::Checksum);
    }
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_header_survives_the_wire(header in any_header(), format in any_format()) {
        let read = Header::from_bytes(&header.to_bytes(format), format);
        let expected = if format.layout != Layout::Short { header } else { Header { num_buffers: 0, ..header } };

        prop_assert_eq!(read, expected);
    }

    #[test]
    fn bytes_survive_being_read(bytes in any::<[u8; LEN]>(), format in any_format()) {
        let written = Header::from_bytes(&bytes, format).to_bytes(format);

        let own = format.len().min(LEN);
        prop_assert_eq!(&written[..own], &bytes[..own]);
    }

    #[test]
    fn the_last_bytes_are_ignored_where_there_are_none(
        mut bytes in any::<[u8; LEN]>(),
        tail in any::<[u8; 2]>(),
        big_endian in any::<bool>(),
    ) {
        let format = Format { layout: Layout::Short, big_endian };
        let before = Header::from_bytes(&bytes, format);

        bytes[LEGACY_LEN..].copy_from_slice(&tail);
        prop_assert_eq!(Header::from_bytes(&bytes, format), before);
    }

    #[test]
    fn a_received_header_is_judged_as_the_specification_says(
        header in prop_oneof![any_header(), likely_header()],
        len in 14u32..66_000,
        rules in any_rules(),
    ) {
        let complaints = complaints(&header, len, &rules);

        match header.received(len, &rules) {
            Ok(_) => prop_assert!(complaints.is_empty(), "accepted in spite of {complaints:?}"),
            Err(fault) => prop_assert!(complaints.contains(&fault), "{fault:?} not in {complaints:?}"),
        }
    }

    #[test]
    fn what_is_accepted_keeps_its_promises(
        bytes in any::<[u8; LEN]>(),
        len in any::<u32>(),
        rules in any_rules(),
        format in any_format(),
    ) {
        // Nearly all bytes name a segmentation that does not exist; these are for the others.
        let mut header = Header::from_bytes(&bytes, format);
        header.gso_type = (header.gso_type & 0x60) | (header.gso_type % 6);

        if let Ok(Received { verdict, buffers, segmented }) = header.received(len, &rules) {
            prop_assert_eq!(segmented, header.gso_type != 0);
            prop_assert!(buffers >= 1);
            prop_assert!(buffers == 1 || (rules.mergeable && buffers <= rules.max_buffers));
            if let Verdict::Missing(Checksum { start, offset }) = verdict {
                prop_assert!(rules.missing_checksums);
                prop_assert!(start >= 20);
                prop_assert!(buffers > 1 || u32::from(start) + u32::from(offset) + 2 <= len);
            }
            // What is looked for in a tunnel begins where the checksum does.
            prop_assert!(header.gso_type & 0x60 == 0 || matches!(verdict, Verdict::Missing(_)));
            prop_assert_eq!(
                verdict == Verdict::VerifiedInTunnel,
                header.flags & 0x0b == 0x0a && rules.segments.tunnel_checksum
            );
        }
    }

    #[test]
    fn what_the_stack_leaves_to_the_device_is_in_the_header(
        checksum in proptest::option::of((any::<u16>(), any::<u16>())),
        segmentation in proptest::option::of((
            prop_oneof![
                Just(GSO_TCPV4), Just(GSO_TCPV6), Just(GSO_UDP_L4), Just(GSO_TCPV4 | GSO_ECN)
            ],
            any::<u16>(),
            any::<u16>(),
        )),
        format in any_format(),
    ) {
        let mut memory = Memo::default();
        if format.big_endian {
            leave::<true>(&mut memory, checksum, segmentation, None);
        } else {
            leave::<false>(&mut memory, checksum, segmentation, None);
        }
        prop_assert_eq!(&memory.0[LEGACY_LEN..], [0; TUNNEL_LEN - LEGACY_LEN]);
        let mut head = [0; LEN];
        head.copy_from_slice(&memory.0[..LEN]);
        let header = Header::from_bytes(&head, format);

        prop_assert_eq!(header.flags, u8::from(checksum.is_some()));
        prop_assert_eq!((header.csum_start, header.csum_offset), checksum.unwrap_or((0, 0)));
        prop_assert_eq!(
            (header.gso_type, header.gso_size, header.hdr_len),
            segmentation.unwrap_or((0, 0, 0))
        );
        // 5.1.6.2.1: the driver sets num_buffers to zero.
        prop_assert_eq!(header.num_buffers, 0);
    }

    #[test]
    fn a_tunnel_is_added_to_what_is_in_it(
        checksum in (any::<u16>(), any::<u16>()),
        gso_type in prop_oneof![
            Just(GSO_TCPV4), Just(GSO_TCPV6), Just(GSO_UDP_L4), Just(GSO_TCPV4 | GSO_ECN)
        ],
        (size, header_len) in any::<(u16, u16)>(),
        (ipv6, sums) in any::<(bool, bool)>(),
        (outer_transport, inner_network) in any::<(u16, u16)>(),
    ) {
        let make = |tunnel| {
            let mut memory = Memo::default();
            leave::<false>(&mut memory, Some(checksum), Some((gso_type, size, header_len)), tunnel);
            memory.0
        };
        let plain = make(None);
        let bytes = make(Some(Tunnel { ipv6, checksum: sums, outer_transport, inner_network }));

        // The numbers that the specification gives for flags and gso_type; nothing else differs.
        prop_assert_eq!(bytes[0], plain[0] | if sums { 0x08 } else { 0 });
        prop_assert_eq!(bytes[1], plain[1] | if ipv6 { 0x40 } else { 0x20 });
        prop_assert_eq!(&bytes[2..20], &plain[2..20]);
        // outer_th_offset, then inner_nh_offset, both little endian.
        let number = |at: usize| u16::from(bytes[at]) | (u16::from(bytes[at + 1]) << 8);
        prop_assert_eq!((number(20), number(22)), (outer_transport, inner_network));
    }

    #[test]
    fn a_frame_fits_into_the_buffers_that_a_packet_can_have(
        mtu in 68u32..=65_535,
        seen in proptest::collection::vec(0u32..70_000, 0..200),
        page in prop_oneof![Just(4096u32), Just(16_384), Just(65_536)],
        buffers in 17u32..=45,
    ) {
        let memory = Memory { page, ..MEMORY };
        let mut sizing = Mergeable::new(memory);
        for len in seen {
            sizing.observe(len);
        }

        let frame = mtu + 18 + 12;
        let units = sizing.units(frame, buffers);
        prop_assert!(units == 1 || units == page / memory.unit);

        let capacity = units * memory.unit - memory.overhead;
        // The linear part takes one buffer, fragments the others.
        prop_assert!(frame <= capacity * (buffers + 1));

        // No matter which buffers a ring has, so many of them are enough; one less of the smallest ones is not.
        let least = memory.buffers(frame);
        let room = memory.unit - memory.overhead;
        prop_assert!(frame <= least * capacity && (least - 1) * room < frame);
    }

    #[test]
    fn the_average_is_one_of_what_was_seen(lens in proptest::collection::vec(any::<u32>(), 1..2000)) {
        // No overflow, which would be a panic here as in the kernel; and all large means large buffers.
        let mut sizing = Mergeable::new(MEMORY);
        for len in &lens {
            sizing.observe(*len);
        }
        if lens.len() > 500 && lens.iter().all(|len| *len > 3000) {
            prop_assert_eq!(sizing.units(1530, 17), 2);
        }
        if lens.iter().all(|len| *len <= 1514) {
            prop_assert_eq!(sizing.units(1530, 17), 1);
        }
    }

    #[test]
    fn a_single_buffer_holds_what_it_is_made_for(
        len in 0u32..200_000,
        page in prop_oneof![Just(4096u32), Just(16_384), Just(65_536)],
        order in 0u32..4,
        more in 0u32..512,
    ) {
        let stack = Memory { page, ..MEMORY };
        let program = Memory { overhead: stack.overhead + more, ..stack };
        let size = page << order;
        let single = Single::new(len, stack, program, size);

        for (units, memory) in [(single.stack, stack), (single.program, program)] {
            let first = units * memory.unit;
            prop_assert!(first <= page);
            prop_assert!(first - memory.overhead + single.more * size >= len);
        }
        prop_assert!(single.capacity(stack) >= len);
        if single.more > 0 {
            // Not one too many.
            prop_assert!(page - program.overhead + (single.more - 1) * size < len);
        } else {
            prop_assert!(single.stack * stack.unit < len + stack.overhead + stack.unit);
        }
    }
}

/// VirtIO 1.3, 5.1.6: the order of the fields, and their endianness.
#[test]
fn the_fields_are_where_they_belong() {
    let header = Header {
        flags: 0x01,
        gso_type: 0x02,
        hdr_len: 0x0304,
        gso_size: 0x0506,
        csum_start: 0x0708,
        csum_offset: 0x090a,
        num_buffers: 0x0b0c,
    };
    let modern = Format {
        layout: Layout::Long,
        big_endian: false,
    };
    let legacy = Format {
        layout: Layout::Long,
        big_endian: true,
    };

    assert_eq!(
        header.to_bytes(modern),
        [1, 2, 4, 3, 6, 5, 8, 7, 0xa, 9, 0xc, 0xb]
    );
    assert_eq!(
        header.to_bytes(legacy),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc]
    );
}

/// VirtIO 1.3, 5.1.6.1: when the header counts buffers.
#[test]
fn the_length_follows_from_the_features() {
    assert_eq!(Format::new(true, false, false, false).len(), 12);
    assert_eq!(Format::new(true, true, false, false).len(), 12);
    assert_eq!(Format::new(false, true, false, false).len(), 12);
    assert_eq!(Format::new(false, false, false, false).len(), 10);
    assert_eq!(Format::new(true, false, true, false).len(), 20);
    assert_eq!(Format::new(true, true, true, false).len(), 20);
    assert_eq!(Format::new(true, true, false, true).len(), 24);
    assert_eq!(Format::new(true, true, true, true).len(), 24);
    // A modern device is little endian everywhere; a legacy device is what this machine is.
    assert!(!Format::new(true, true, false, false).big_endian);
    assert_eq!(
        Format::new(false, true, false, false).big_endian,
        cfg!(target_endian = "big")
    );
}

/// VirtIO 1.3, 5.1.6.4.4: the hash and what it is over.
#[test]
fn a_hash_is_read_as_what_it_is() {
    let read = |report: u16| {
        let [low, high] = report.to_le_bytes();
        Hash::from_bytes(&[0x78, 0x56, 0x34, 0x12, low, high, 0xff, 0xff])
    };

    // IPv4, IPv6, and IPv6 with extension headers, and over each of them TCP and UDP.
    let kinds = [(false, false), (true, false), (true, true)];
    let expected: Vec<_> = kinds
        .into_iter()
        .flat_map(|(ipv6, extended)| {
            [None, Some(Transport::Tcp), Some(Transport::Udp)].map(|ports| Hash {
                value: 0x1234_5678,
                ipv6,
                extended,
                ports,
            })
        })
        .collect();

    for report in 0..=u16::MAX {
        let expected = report
            .checked_sub(1)
            .and_then(|kind| expected.get(usize::from(kind)));
        assert_eq!(read(report).as_ref(), expected, "{report}");
    }
}

/// The device that discards a ring of the C driver's with one frame.
#[test]
fn a_packet_in_no_buffers_is_refused() {
    let rules = Rules {
        missing_checksums: true,
        mergeable: true,
        max_buffers: 256,
        segments: Segments::default(),
    };

    for (num_buffers, expected) in [
        (0, Err(Fault::Buffers)),
        (1, Ok(1)),
        (256, Ok(256)),
        (257, Err(Fault::Buffers)),
        (u16::MAX, Err(Fault::Buffers)),
    ] {
        let header = Header {
            num_buffers,
            ..Header::default()
        };
        assert_eq!(
            header
                .received(1514, &rules)
                .map(|received| received.buffers),
            expected
        );
    }
}

/// Without mergeable buffers the count is not the device's to set.
#[test]
fn the_count_is_ignored_where_buffers_are_not_merged() {
    let rules = Rules {
        missing_checksums: false,
        mergeable: false,
        max_buffers: 256,
        segments: Segments::default(),
    };
    let header = Header {
        num_buffers: 7,
        ..Header::default()
    };

    assert_eq!(
        header.received(60, &rules),
        Ok(Received {
            verdict: Verdict::Unknown,
            buffers: 1,
            segmented: false,
        })
    );
}
