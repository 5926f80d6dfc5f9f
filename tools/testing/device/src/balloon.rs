// SPDX-License-Identifier: GPL-2.0

//! A memory balloon (VirtIO 1.3, 5.5) that takes the driver at its word: what it is given it overwrites, so that it shows if the guest
//! goes on using that, and it notes what no driver may do.

use crate::{
    script::{
        Point,
        Script, //
    },
    server::{
        Chain,
        Model,
        Ring,
        TRANSPORT, //
    },
};
use std::{
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    io::Read,
    mem,
};
use vm_memory::{
    Bytes,
    GuestAddress, //
};

/// Numbers of feature bits.
pub mod feature {
    pub const MUST_TELL_HOST: u32 = 0;
    pub const STATS_VQ: u32 = 1;
    pub const DEFLATE_ON_OOM: u32 = 2;
    pub const FREE_PAGE_HINT: u32 = 3;
    pub const PAGE_POISON: u32 = 4;
    pub const REPORTING: u32 = 5;
}

/// What a balloon offers unless a test says otherwise: all but [`feature::MUST_TELL_HOST`].
const OFFERED: [u32; 5] = [
    feature::STATS_VQ,
    feature::DEFLATE_ON_OOM,
    feature::FREE_PAGE_HINT,
    feature::PAGE_POISON,
    feature::REPORTING,
];

/// How many queues there are if the driver knows them all.
pub const QUEUES: usize = 5;

/// Where pages leave the balloon. A page may be free as soon as it is in this queue, so that comes before what is said of free pages.
const DEFLATE: usize = 1;

/// How long the configuration space is.
pub const CONFIG: usize = 16;

/// The unit of the balloon, in bytes.
const PAGE: usize = 4096;

/// A page that is in the balloon.
const TAKEN: [u8; PAGE] = [0xb5; PAGE];

/// The length of a statistic: what it is, and its value.
const STATISTIC: usize = 10;

/// No hints are wanted any more, and the pages may be used again (5.5.6.6).
const HINT_DONE: u32 = 1;

/// How many faults are noted.
const NOTED: usize = 20;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Statistics,
    Hint,
    Report,
}

/// A memory balloon.
#[derive(Clone, Debug)]
pub struct Balloon {
    offered: u64,
    negotiated: u64,
    target: u32,
    hint: u32,
    /// How often hints were asked for.
    hints: u32,
    config_has_changed: bool,
    statistics_are_wanted: bool,
    /// The buffer that statistics came in, which goes back when some are wanted again.
    kept: Option<u16>,
    /// What the driver says of the size of the balloon.
    pub actual: u32,
    /// What it says that free pages are filled with.
    poison: u32,
    /// The pages in the balloon, by their numbers.
    pub pages: BTreeSet<u32>,
    /// The last statistics, by their tags (5.5.6.4).
    pub statistics: BTreeMap<u16, u64>,
    /// How often there were some.
    pub answers: u32,
    /// How many bytes were reported as free.
    pub reported: u64,
    /// How many bytes were hinted at since that was last asked for.
    pub hinted: u64,
    /// Whether the driver is hinting at pages, for the last that were asked for.
    pub is_hinting: bool,
    /// What the driver has done that none may, the first of it.
    pub faults: Vec<String>,
    /// What the balloon does wrong.
    pub script: Script,
}

impl Default for Balloon {
    fn default() -> Self {
        Balloon {
            offered: OFFERED
                .iter()
                .fold(TRANSPORT, |bits, bit| bits | (1 << bit)),
            negotiated: 0,
            target: 0,
            hint: 0,
            hints: 0,
            config_has_changed: false,
            statistics_are_wanted: false,
            kept: None,
            actual: 0,
            poison: 0,
            pages: BTreeSet::new(),
            statistics: BTreeMap::new(),
            answers: 0,
            reported: 0,
            hinted: 0,
            is_hinting: false,
            faults: Vec::new(),
            script: Script::default(),
        }
    }
}

impl Balloon {
    /// The same with a feature more.
    pub fn with(mut self, feature: u32) -> Self {
        self.offered |= 1 << feature;
        self
    }

    /// Whether the driver has accepted a feature.
    fn has(&self, feature: u32) -> bool {
        self.negotiated & (1 << feature) != 0
    }

    /// Asks for so many pages.
    pub fn resize(&mut self, pages: u32) {
        self.target = pages;
        self.config_has_changed = true;
    }

    /// Asks for statistics.
    pub fn ask(&mut self) {
        self.statistics_are_wanted = true;
    }

    /// Asks for hints at free pages.
    pub fn hint(&mut self) {
        self.hints += 1;
        self.hint = HINT_DONE + self.hints;
        self.hinted = 0;
        self.is_hinting = false;
        self.config_has_changed = true;
    }

    /// Lets the guest use the pages again that it has hinted at.
    pub fn end_hints(&mut self) {
        self.hint = HINT_DONE;
        self.is_hinting = false;
        self.config_has_changed = true;
    }

    /// What a queue is for: those of features that the driver does not know do not exist for it, and are not counted.
    fn role(&self, queue: usize) -> Option<Role> {
        let roles = [
            (Role::Inflate, true),
            (Role::Deflate, true),
            (Role::Statistics, self.has(feature::STATS_VQ)),
            (Role::Hint, self.has(feature::FREE_PAGE_HINT)),
            (Role::Report, self.has(feature::REPORTING)),
        ];
        let mut there = roles.iter().filter(|(_, is_there)| *is_there);

        there.nth(queue).map(|(role, _)| *role)
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < NOTED {
            self.faults.push(what);
        }
    }

    /// Takes a page.
    fn inflate(&mut self, page: u32, chain: &Chain) {
        if chain.memory().write_slice(&TAKEN, address(page)).is_err() {
            self.fault(format!("page {page:#x} is none"));
        } else if !self.pages.insert(page) {
            self.fault(format!("page {page:#x} is in the balloon already"));
        }
    }

    /// Gives a page back.
    fn deflate(&mut self, page: u32, chain: &Chain) {
        if !self.pages.remove(&page) {
            self.fault(format!("page {page:#x} was not in the balloon"));
        } else if self.has(feature::MUST_TELL_HOST) {
            let mut now = [0; PAGE];
            let is_read = chain.memory().read_slice(&mut now, address(page)).is_ok();
            if !is_read || now != TAKEN {
                self.fault(format!("page {page:#x} was used before it was given back"));
            }
        }
    }

    /// Overwrites pages that are reported as free with what such ones are filled with.
    fn take_report(&mut self, chain: &Chain) {
        let poison = if self.has(feature::PAGE_POISON) {
            self.poison
        } else {
            0
        };
        let filled: Vec<_> = poison.to_le_bytes().repeat(PAGE / 4);

        for (start, len) in self.ranges(chain) {
            for page in pages(start, len) {
                if chain.memory().write_slice(&filled, address(page)).is_err() {
                    self.fault(format!("page {page:#x}, reported, is none"));
                }
            }
            self.reported += len;
        }
    }

    /// Follows hints: a number begins or ends them, everything else are free pages.
    fn take_hint(&mut self, chain: &Chain) {
        let numbers = numbers(chain);

        if let [id] = numbers[..] {
            self.is_hinting = id == self.hint;
        }
        if self.is_hinting {
            self.hinted += self.ranges(chain).iter().map(|(_, len)| len).sum::<u64>();
        }
    }

    /// The ranges of pages that a chain consists of, in bytes. None of them is in the balloon.
    fn ranges(&mut self, chain: &Chain) -> Vec<(u64, u64)> {
        let ranges: Vec<_> = chain
            .clone()
            .writable()
            .map(|descriptor| (descriptor.addr().0, u64::from(descriptor.len())))
            .collect();

        for &(start, len) in &ranges {
            if start % PAGE as u64 != 0 || len % PAGE as u64 != 0 {
                self.fault(format!("{start:#x}, {len:#x} bytes, are no whole pages"));
            }
            if let Some(page) = self.pages.range(pages(start, len)).next() {
                self.fault(format!("page {page:#x} is in the balloon and free"));
            }
        }
        ranges
    }

    /// Notes statistics, and keeps the buffer that they came in.
    fn take_statistics(&mut self, chain: &Chain) {
        self.statistics = bytes(chain)
            .chunks_exact(STATISTIC)
            .map(|entry| {
                let (tag, value) = entry.split_at(2);
                let number = |bytes: &[u8]| {
                    bytes
                        .iter()
                        .rev()
                        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
                };
                (number(tag) as u16, number(value))
            })
            .collect();
        self.answers += 1;
        if self.kept.replace(chain.head_index()).is_some() {
            self.fault("statistics came twice".to_owned());
        }
    }

    /// Gives a chain back, if a script does not keep that from happening.
    fn give_back(&mut self, ring: &Ring<'_>, head: u16, used: Point, id: Point) {
        if self.script.bend(used, 1) != 0 {
            let head = self.script.bend(id, head.into());
            ring.push(head as u32, 0);
            ring.interrupt(false);
        }
    }
}

/// Where a page is.
fn address(page: u32) -> GuestAddress {
    GuestAddress(u64::from(page) * PAGE as u64)
}

/// The pages that a range of bytes touches.
fn pages(start: u64, len: u64) -> std::ops::Range<u32> {
    let number = |address: u64| (address / PAGE as u64) as u32;

    number(start)..number(start + len)
}

/// What the driver has written into a chain. What cannot be read is not the guest's memory.
fn bytes(chain: &Chain) -> Vec<u8> {
    let mut bytes = Vec::new();

    if let Ok(mut reader) = chain.clone().reader(chain.memory()) {
        let _ = reader.read_to_end(&mut bytes);
    }
    bytes
}

/// The same as numbers.
fn numbers(chain: &Chain) -> Vec<u32> {
    bytes(chain)
        .chunks_exact(4)
        .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect()
}

impl Model for Balloon {
    fn queues(&self) -> usize {
        QUEUES
    }

    fn features(&self) -> u64 {
        self.offered
    }

    fn config(&mut self) -> Vec<u8> {
        let target = self.script.bend(Point::Target, self.target.into()) as u32;
        let hint = self.script.bend(Point::HintId, self.hint.into()) as u32;

        [target, self.actual, hint, self.poison]
            .map(u32::to_le_bytes)
            .concat()
    }

    fn set_config(&mut self, config: &[u8]) {
        let word = |at: usize| match config.get(at..at + 4) {
            Some(bytes) => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            None => 0,
        };

        // The others are the device's.
        self.actual = word(4);
        self.poison = word(12);
    }

    fn config_has_changed(&mut self) -> bool {
        mem::take(&mut self.config_has_changed)
    }

    fn begin(&mut self, features: u64) {
        self.negotiated = features;
        self.pages.clear();
        self.kept = None;
        self.is_hinting = false;
    }

    fn kicked(&mut self, queue: usize, rings: &[Ring<'_>]) {
        let Some(role) = self.role(queue) else {
            return;
        };

        while let Some(chain) = rings[queue].pop() {
            let (used, id) = match role {
                Role::Inflate => {
                    for page in numbers(&chain) {
                        self.inflate(page, &chain);
                    }
                    (Point::InflateUsed, Point::InflateUsedId)
                }
                Role::Deflate => {
                    for page in numbers(&chain) {
                        self.deflate(page, &chain);
                    }
                    (Point::DeflateUsed, Point::DeflateUsedId)
                }
                Role::Statistics => {
                    self.take_statistics(&chain);
                    continue;
                }
                Role::Hint => {
                    self.kicked(DEFLATE, rings);
                    self.take_hint(&chain);
                    (Point::HintUsed, Point::HintUsedId)
                }
                Role::Report => {
                    self.kicked(DEFLATE, rings);
                    self.take_report(&chain);
                    (Point::ReportUsed, Point::ReportUsedId)
                }
            };
            self.give_back(&rings[queue], chain.head_index(), used, id);
        }
    }

    fn tick(&mut self, rings: &[Ring<'_>]) {
        let statistics = (0..QUEUES).find(|&queue| self.role(queue) == Some(Role::Statistics));

        if let (true, Some(queue), Some(head)) = (self.statistics_are_wanted, statistics, self.kept)
        {
            let head = self.script.bend(Point::StatisticsUsedId, head.into());
            self.statistics_are_wanted = false;
            self.kept = None;
            rings[queue].push(head as u32, 0);
            rings[queue].interrupt(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_features_that_are_not_known_are_not_counted() {
        let roles = |features: &[u32]| {
            let mut balloon = Balloon::default();
            balloon.begin(
                features
                    .iter()
                    .fold(TRANSPORT, |bits, bit| bits | (1 << bit)),
            );
            [0, 1, 2, 3, 4].map(|queue| balloon.role(queue))
        };
        let (inflate, deflate) = (Some(Role::Inflate), Some(Role::Deflate));

        assert_eq!(roles(&[]), [inflate, deflate, None, None, None]);
        assert_eq!(
            roles(&[feature::REPORTING]),
            [inflate, deflate, Some(Role::Report), None, None]
        );
        assert_eq!(
            roles(&OFFERED)[2..],
            [Role::Statistics, Role::Hint, Role::Report].map(Some)
        );
    }

    #[test]
    fn a_range_touches_whole_pages() {
        assert_eq!(pages(0x1000, 0x2000), 1..3);
        assert_eq!(pages(0x5000, 0), 5..5);
    }

    #[test]
    fn only_what_is_the_drivers_can_be_written() {
        let mut balloon = Balloon::default();
        balloon.resize(7);
        assert!(balloon.config_has_changed() && !balloon.config_has_changed());

        balloon.set_config(&[0xff; CONFIG]);
        assert_eq!(
            balloon.config(),
            [7, u32::MAX, 0, u32::MAX].map(u32::to_le_bytes).concat()
        );
    }
}
