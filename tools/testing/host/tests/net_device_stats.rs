// SPDX-License-Identifier: GPL-2.0

//! Tests of what the network driver makes of a device's statistics.

use proptest::prelude::*;

#[allow(dead_code)]
#[path = "../../../../drivers/net/virtio_net/device_stats.rs"]
mod device_stats;

use device_stats::{
    Class,
    Classes,
    CONTROL,
    RX,
    TX, //
};

/// An entry of an answer.
fn entry(class: u8, index: u16, size: u16, values: &[u64]) -> Vec<u8> {
    let mut bytes = vec![class, 0];
    bytes.extend(index.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(size.to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The same, with the size that it has.
fn whole(class: u8, index: u16, values: &[u64]) -> Vec<u8> {
    entry(class, index, 8 + 8 * values.len() as u16, values)
}

/// What a device has that has these classes.
fn with(numbers: &[u8]) -> Classes {
    Classes(numbers.iter().fold(0, |mask, number| mask | (1 << number)))
}

fn all_classes() -> impl Iterator<Item = &'static Class> {
    RX.iter().chain(TX).chain(CONTROL)
}

#[test]
fn a_request_names_the_queue_and_what_it_can_have() {
    let classes = with(&[0, 3, 16]);

    let (bytes, len) = classes.request(0x0102, RX).unwrap();
    assert_eq!(bytes, [2, 1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(len, (8 + 6 * 8) + (8 + 2 * 8));
    assert!(classes.request(1, CONTROL).is_none());
    assert!(Classes::NONE.request(1, RX).is_none());
}

#[test]
fn values_are_those_of_the_class_and_the_queue() {
    let classes = with(&[3, 19]);
    let answer = [
        whole(3, 0, &[1, 2]),
        whole(19, 1, &[3, 4]),
        whole(3, 2, &[5, 6]),
    ]
    .concat();

    let of = |known, index| -> Vec<_> { classes.values(&answer, known, index).collect() };
    assert_eq!(
        of(RX, 2),
        [("ratelimit_packets", 5), ("ratelimit_bytes", 6)]
    );
    assert_eq!(
        of(TX, 1),
        [("ratelimit_packets", 3), ("ratelimit_bytes", 4)]
    );
    assert_eq!(
        of(RX, 4),
        [("ratelimit_packets", 0), ("ratelimit_bytes", 0)]
    );
    let sums: Vec<_> = classes
        .sums(&answer, RX, [0, 2, 4].into_iter())
        .map(|(_, sum)| sum)
        .collect();
    assert_eq!(sums, [6, 8]);
}

#[test]
fn what_is_too_short_is_zero_and_ends_there() {
    let classes = with(&[3]);
    let first = |answer: &[u8], index| -> Vec<_> {
        classes
            .values(answer, RX, index)
            .map(|(_, value)| value)
            .collect()
    };

    // A device that has less.
    assert_eq!(first(&whole(3, 0, &[7]), 0), [7, 0]);
    for size in [0, 7, 25, u16::MAX] {
        let answer = [entry(3, 0, size, &[7, 8]), whole(3, 2, &[9, 9])].concat();
        assert_eq!(first(&answer, 2), [0, 0], "size {size}");
    }
}

proptest! {
    #[test]
    fn anything_is_as_many_values_as_names(
        answer in prop::collection::vec(any::<u8>(), 0..300),
        mask: u64,
        index: u16,
    ) {
        for known in [RX, TX, CONTROL] {
            let names: usize = known
                .iter()
                .filter(|class| mask & (1 << class.number) != 0)
                .map(|class| class.names.len())
                .sum();
            prop_assert_eq!(Classes(mask).values(&answer, known, index).count(), names);
        }
    }

    #[test]
    fn what_a_device_says_arrives(values in prop::collection::vec(any::<u64>(), 6), queues in 1u16..5) {
        let mut answer = Vec::new();
        for index in 0..queues {
            for class in all_classes() {
                answer.extend(whole(class.number, index, &values[..class.names.len()]));
            }
        }

        for class in all_classes() {
            for known in [RX, TX, CONTROL] {
                for index in 0..queues {
                    let got = with(&[class.number]).values(&answer, known, index);
                    let got: Vec<_> = got.map(|(_, value)| value).collect();
                    let is_known = known.iter().any(|it| it.number == class.number);
                    let expected = if is_known { &values[..class.names.len()] } else { &[] };
                    prop_assert_eq!(&got[..], expected);
                }
            }
        }
    }
}
