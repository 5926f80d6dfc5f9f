// SPDX-License-Identifier: GPL-2.0

//! Tests of what the network driver has hashed and where hashes go, and of the mask of what the device may leave to the guest.

#![allow(dead_code)]

use proptest::{collection::vec, prelude::*, sample::subsequence};
use std::convert::Infallible;

#[path = "../../../../drivers/net/virtio_net/offloads.rs"]
mod offloads;
#[path = "../../../../drivers/net/virtio_net/rss.rs"]
mod rss;

use rss::{message, set_table, spread, Kind, Limits};

const KINDS: [Kind; 6] = [
    Kind::IP_V4,
    Kind::TCP_V4,
    Kind::UDP_V4,
    Kind::IP_V6,
    Kind::TCP_V6,
    Kind::UDP_V6,
];

/// 5.1.6.5.6.1, and where the features that come after 63 are in the mask.
const OFFLOADS: [(u32, u32); 9] = [
    (1, 1),
    (7, 7),
    (8, 8),
    (9, 9),
    (10, 10),
    (54, 54),
    (55, 55),
    (65, 46),
    (66, 47),
];

/// Whether a packet of a kind is hashed over its addresses, and its ports, as 5.1.6.4.3 has it: the type with ports comes first.
fn hashed(index: usize, types: u32) -> (bool, bool) {
    let version = 3 * (index / 3);
    let ports = index % 3 != 0 && (types >> index) & 1 == 1;

    (ports || (types >> version) & 1 == 1, ports)
}

proptest! {
    #[test]
    fn the_mask_has_what_was_negotiated(pairs in subsequence(OFFLOADS.to_vec(), 0..=9)) {
        let expected: u64 = pairs.iter().map(|(_, offload)| 1 << offload).sum();

        prop_assert_eq!(offloads::mask(pairs.into_iter().map(|(feature, _)| feature)), expected);
    }

    #[test]
    fn limits_are_what_the_device_says_and_the_driver_can(
        types in any::<u32>(),
        key in any::<u8>(),
        table in proptest::option::of(prop_oneof![any::<u16>(), 0u16..2000]),
    ) {
        let limits = Limits::new(types, key, table);

        // 5.1.4.2: the key is at least 40 bytes long; a table has at least an entry.
        prop_assert_eq!(limits.is_some(), types & 0x3f != 0 && key >= 40 && table != Some(0));
        if let Some(limits) = limits {
            prop_assert_eq!(limits.types, types & 0x3f);
            prop_assert_eq!(limits.key, key);
            match table {
                Some(max) => {
                    prop_assert!(limits.table.is_power_of_two());
                    prop_assert!(limits.table <= max.min(1024) && max.min(1024) / 2 < limits.table);
                }
                None => prop_assert_eq!(limits.table, 0),
            }
        }
    }

    #[test]
    fn what_is_selected_is_hashed(
        types in 0u32..0x40,
        index in 0usize..6,
        (addresses, ports) in prop_oneof![Just((false, false)), Just((true, false)), Just((true, true))],
    ) {
        let kind = KINDS[index];

        prop_assert_eq!(kind.fields(types), hashed(index, types));
        match kind.select(types, addresses, ports) {
            Some(selected) => {
                prop_assert_eq!(hashed(index, selected), (addresses, ports));
                // Nothing changes for the other version, nor whether the ports of others are hashed.
                for other in (0..6).filter(|&other| other != index) {
                    let (before, after) = (hashed(other, types), hashed(other, selected));
                    prop_assert_eq!(before.1, after.1);
                    prop_assert!(other / 3 == index / 3 || before == after);
                }
            }
            None => prop_assert!(ports && index % 3 == 0),
        }
    }

    #[test]
    fn queues_get_as_much_as_one_another(len in 0usize..=1024, pairs in 1u16..=256) {
        let mut table = vec![u16::MAX; len];
        spread(&mut table, pairs);

        let count = |queue| table.iter().filter(|&&entry| entry == queue).count();
        let counts: Vec<_> = (0..pairs).map(count).collect();
        prop_assert_eq!(counts.iter().sum::<usize>(), len);
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
    }

    #[test]
    fn a_table_is_taken_as_it_is_given(given in vec(prop_oneof![0u32..300, any::<u32>()], 0..300), len in 0usize..300) {
        let mut table = vec![7; len];
        let used = given.len().min(len);
        let fits = given[..used].iter().all(|&queue| queue < 1 << 16);

        prop_assert_eq!(set_table(&mut table, &given).is_ok(), fits);
        if fits {
            prop_assert!(table.iter().zip(&given).all(|(&is, &was)| u32::from(is) == was));
            prop_assert!(table[used..].iter().all(|&entry| entry == 7));
        }
    }

    #[test]
    fn a_message_is_read_as_the_specification_says(
        types in any::<u32>(),
        bits in proptest::option::of(0u32..=10),
        entries in vec(any::<u16>(), 1024),
        pairs in any::<u16>(),
        key in vec(any::<u8>(), 0..=255),
    ) {
        let table = &entries[..bits.map_or(0, |bits| 1 << bits)];
        let mut bytes = Vec::new();
        let put = |piece: &[u8]| -> Result<(), Infallible> {
            bytes.extend(piece);
            Ok(())
        };
        message(types, table, pairs, &key, put).unwrap();

        // struct virtio_net_rss_config, and virtio_net_hash_config, which has four reserved numbers for the table.
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let rows = table.len().max(1);
        prop_assert_eq!(u32::from(number(0)) | (u32::from(number(2)) << 16), types);
        prop_assert_eq!(usize::from(number(4)) + 1, rows);
        prop_assert_eq!(number(6), 0);
        for row in 0..rows {
            prop_assert_eq!(number(8 + 2 * row), table.get(row).copied().unwrap_or(0));
        }
        let rest = 8 + 2 * rows;
        prop_assert_eq!(number(rest), pairs);
        prop_assert_eq!(usize::from(bytes[rest + 2]), key.len());
        prop_assert_eq!(&bytes[rest + 3..], &key[..]);
    }
}
