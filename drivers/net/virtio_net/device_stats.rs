// SPDX-License-Identifier: GPL-2.0

//! Statistics that the device keeps (VirtIO 1.3, 5.1.6.5, device statistics): what there are, and what its answers mean.
//!
//! This file uses nothing but `core`.

/// Values that a device has all or none of.
pub(crate) struct Class {
    /// Its bit in masks, and its type in answers.
    pub(crate) number: u8,
    /// The names of the values, in their order.
    pub(crate) names: &'static [&'static str],
}

/// Of a receive queue.
pub(crate) const RX: &[Class] = &[
    Class {
        number: 0,
        names: &[
            "notifications",
            "packets",
            "bytes",
            "interrupts",
            "drops",
            "drop_overruns",
        ],
    },
    Class {
        number: 1,
        names: &["csum_valid", "needs_csum", "csum_none", "csum_bad"],
    },
    Class {
        number: 2,
        names: &[
            "gso_packets",
            "gso_bytes",
            "gso_packets_coalesced",
            "gso_bytes_coalesced",
        ],
    },
    Class {
        number: 3,
        names: &["ratelimit_packets", "ratelimit_bytes"],
    },
];

/// Of a transmit queue.
pub(crate) const TX: &[Class] = &[
    Class {
        number: 16,
        names: &[
            "notifications",
            "packets",
            "bytes",
            "interrupts",
            "drops",
            "drop_malformed",
        ],
    },
    Class {
        number: 17,
        names: &["csum_none", "needs_csum"],
    },
    Class {
        number: 18,
        names: &[
            "gso_packets",
            "gso_bytes",
            "gso_segments",
            "gso_segments_bytes",
            "gso_packets_noseg",
            "gso_bytes_noseg",
        ],
    },
    Class {
        number: 19,
        names: &["ratelimit_packets", "ratelimit_bytes"],
    },
];

/// Of the control queue.
pub(crate) const CONTROL: &[Class] = &[Class {
    number: 32,
    names: &["command_num", "ok_num"],
}];

/// The length of a value.
const VALUE: usize = 8;

/// The length of what comes before the values of a class in an answer.
const HEAD: usize = 8;

/// What a device has, as a mask of class numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Classes(pub(crate) u64);

impl Classes {
    /// No statistics.
    pub(crate) const NONE: Self = Self(0);

    /// Returns those of `known` that the device has.
    fn of(self, known: &'static [Class]) -> impl Iterator<Item = &'static Class> {
        known
            .iter()
            .filter(move |class| self.0 & (1 << class.number) != 0)
    }

    /// Returns what is asked for of the queue `index`, which can have `known` classes, and how long the answer is; [`None`] if
    /// the device has none of them.
    pub(crate) fn request(self, index: u16, known: &'static [Class]) -> Option<([u8; 16], usize)> {
        let mut mask = 0u64;
        let mut len = 0;

        for class in self.of(known) {
            mask |= 1 << class.number;
            len += HEAD + class.names.len() * VALUE;
        }
        if mask == 0 {
            return None;
        }

        let [a, b] = index.to_le_bytes();
        let [c, d, e, f, g, h, i, j] = mask.to_le_bytes();
        Some(([a, b, 0, 0, 0, 0, 0, 0, c, d, e, f, g, h, i, j], len))
    }

    /// Returns the names and values of the queue `index`, which can have `known` classes: 0 for what is not in the answer.
    pub(crate) fn values<'a>(
        self,
        answer: &'a [u8],
        known: &'static [Class],
        index: u16,
    ) -> impl Iterator<Item = (&'static str, u64)> + 'a {
        self.sums(answer, known, core::iter::once(index))
    }

    /// Returns the names, and what the values of the queues `indices` add up to.
    pub(crate) fn sums<'a>(
        self,
        answer: &'a [u8],
        known: &'static [Class],
        indices: impl Iterator<Item = u16> + Clone + 'a,
    ) -> impl Iterator<Item = (&'static str, u64)> + 'a {
        let named = self.of(known).flat_map(|class| {
            (0..)
                .zip(class.names)
                .map(move |(at, name)| (class, at, *name))
        });

        named.map(move |(class, at, name)| {
            let sum = indices
                .clone()
                .map(|index| value(answer, index, class.number, at))
                .fold(0u64, u64::wrapping_add);
            (name, sum)
        })
    }
}

/// Values in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry<'a> {
    class: u8,
    index: u16,
    values: &'a [u8],
}

/// Returns what is in an answer, as far as it makes sense.
fn entries(answer: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = answer;

    core::iter::from_fn(move || {
        let [class, _, i, j, _, _, s, t] = *rest.first_chunk::<HEAD>()?;
        // An entry is no shorter than this, so there is an end.
        let values = rest.get(HEAD..usize::from(u16::from_le_bytes([s, t])))?;

        rest = rest.get(HEAD + values.len()..)?;
        Some(Entry {
            class,
            index: u16::from_le_bytes([i, j]),
            values,
        })
    })
}

/// Returns the value number `at` of a class of a queue; 0 if the answer has none.
fn value(answer: &[u8], index: u16, class: u8, at: usize) -> u64 {
    entries(answer)
        .find(|entry| entry.class == class && entry.index == index)
        .and_then(|entry| entry.values.get(at * VALUE..)?.first_chunk())
        .map_or(0, |value| u64::from_le_bytes(*value))
}
