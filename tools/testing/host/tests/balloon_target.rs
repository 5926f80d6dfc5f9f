// SPDX-License-Identifier: GPL-2.0

//! Tests of the balloon's books, its pace and its statistics records.
//!
//! The books are run against a model that moves every page by itself: whatever the device asks for, in whatever order it
//! answers and whenever the guest has no memory, both must agree, and `actual` must never say what is not so.

use proptest::prelude::*;
use std::collections::VecDeque;

#[path = "../../../../drivers/virtio/virtio_balloon/pace.rs"]
mod pace;
#[path = "../../../../drivers/virtio/virtio_balloon/tags.rs"]
mod tags;
#[path = "../../../../drivers/virtio/virtio_balloon/target.rs"]
mod target;

use pace::{BackOff, Moment, Told, Voice};
use tags::Tag;
use target::{Books, Release, Reserve, Step, Units};

/// What one buffer holds.
const LIST: Units = Units(256);

/// Where a page of the model is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// The guest's.
    Guest,
    /// The device was told to take it.
    Going,
    /// In the balloon.
    Balloon,
    /// The device was told to give it back.
    Coming,
}

#[derive(Clone, Debug)]
enum Event {
    /// The device wants so much.
    Target(u32),
    /// The driver takes up to so many steps, and the guest has so many pages to spare.
    Steps(usize, usize),
    /// The device answers for so many buffers of the inflate queue.
    Inflated(usize),
    /// The same for the deflate queue.
    Deflated(usize),
}

fn event(most: u32) -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => prop_oneof![4 => 0..=most, 1 => any::<u32>()].prop_map(Event::Target),
        4 => (0usize..40, prop_oneof![3 => Just(usize::MAX), 1 => 0usize..600])
            .prop_map(|(steps, spare)| Event::Steps(steps, spare)),
        3 => (0usize..20).prop_map(Event::Inflated),
        3 => (0usize..20).prop_map(Event::Deflated),
    ]
}

/// The driver and the device, page by page.
struct Model {
    books: Books,
    release: Release,
    page: u32,
    places: Vec<Place>,
    inflate: VecDeque<Vec<usize>>,
    deflate: VecDeque<Vec<usize>>,
}

impl Model {
    fn new(pages: usize, page: u32, release: Release) -> Self {
        Self {
            books: Books::new(page, release),
            release,
            page,
            places: vec![Place::Guest; pages],
            inflate: VecDeque::new(),
            deflate: VecDeque::new(),
        }
    }

    fn units(&self, place: Place) -> u32 {
        self.places.iter().filter(|at| **at == place).count() as u32 * self.page
    }

    /// Moves up to `count` pages, and says which.
    fn shift(&mut self, count: usize, from: Place, to: Place) -> Vec<usize> {
        let pages: Vec<_> = (0..self.places.len())
            .filter(|page| self.places[*page] == from)
            .take(count)
            .collect();
        for page in &pages {
            self.places[*page] = to;
        }
        pages
    }

    fn amount(&self, pages: &[usize]) -> Units {
        Units(pages.len() as u32 * self.page)
    }

    fn steps(&mut self, steps: usize, mut spare: usize) {
        for _ in 0..steps {
            match self.books.next(LIST) {
                Step::Inflate(amount) => {
                    assert!(amount > Units::ZERO && amount <= LIST);
                    assert_eq!(amount.0 % self.page, 0);
                    // What is on its way back might be what the page allocator gives.
                    assert_eq!(self.units(Place::Coming), 0);
                    let wanted = (amount.0 / self.page) as usize;
                    let pages = self.shift(wanted.min(spare), Place::Guest, Place::Going);
                    spare -= pages.len();
                    if pages.is_empty() {
                        return;
                    }
                    self.books.inflate_told(self.amount(&pages));
                    self.inflate.push_back(pages);
                }
                Step::Deflate(amount) => {
                    assert!(amount > Units::ZERO && amount <= LIST);
                    assert_eq!(amount.0 % self.page, 0);
                    let wanted = (amount.0 / self.page) as usize;
                    let pages = self.shift(wanted, Place::Balloon, Place::Coming);
                    assert_eq!(pages.len(), wanted, "more than is in the balloon");
                    self.books.deflate_told(self.amount(&pages));
                    self.deflate.push_back(pages);
                }
                Step::Wait => {
                    assert!(!self.inflate.is_empty() || !self.deflate.is_empty());
                    return;
                }
                Step::Rest => {
                    assert!(self.inflate.is_empty() && self.deflate.is_empty());
                    return;
                }
            }
        }
    }

    fn inflated(&mut self, buffers: usize) {
        for _ in 0..buffers.min(self.inflate.len()) {
            let pages = self.inflate.pop_front().unwrap();
            for page in &pages {
                self.places[*page] = Place::Balloon;
            }
            self.books.inflate_answered(self.amount(&pages));
        }
    }

    fn deflated(&mut self, buffers: usize) {
        for _ in 0..buffers.min(self.deflate.len()) {
            let pages = self.deflate.pop_front().unwrap();
            for page in &pages {
                self.places[*page] = Place::Guest;
            }
            self.books.deflate_answered(self.amount(&pages));
        }
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Target(target) => {
                self.books.set_target(Units(*target));
            }
            Event::Steps(steps, spare) => self.steps(*steps, *spare),
            Event::Inflated(buffers) => self.inflated(*buffers),
            Event::Deflated(buffers) => self.deflated(*buffers),
        }
    }

    fn check(&self) {
        let held = self.units(Place::Balloon);
        let coming = self.units(Place::Coming);

        assert_eq!(self.books.inflating().0, self.units(Place::Going));
        assert_eq!(self.books.held().0, held);
        assert_eq!(self.books.deflating().0, coming);
        assert_eq!(
            self.books.actual().0,
            match self.release {
                Release::Answered => held + coming,
                Release::Told => held,
            }
        );
        assert_eq!(
            self.books.is_empty(),
            self.places.iter().all(|at| *at == Place::Guest)
        );
    }

    /// Lets the device answer everything, and the driver do what it wants.
    fn settle(&mut self, spare: usize) {
        let mut rounds = 0;
        loop {
            self.steps(1_000, spare);
            if self.inflate.is_empty() && self.deflate.is_empty() {
                break;
            }
            self.inflated(usize::MAX);
            self.deflated(usize::MAX);
            self.check();
            rounds += 1;
            assert!(rounds < 1_000, "it never ends");
        }
    }
}

proptest! {
    /// No page is lost or doubled, and `actual` says what is so, in any sequence of events.
    #[test]
    fn books_agree_with_the_pages(
        events in prop::collection::vec(event(5_000), 0..120),
        shift in prop_oneof![Just(0u32), Just(2), Just(4)],
        must_tell in any::<bool>(),
    ) {
        let release = if must_tell { Release::Answered } else { Release::Told };
        let mut model = Model::new(4_000 >> shift, 1 << shift, release);

        for event in &events {
            model.handle(event);
            model.check();
        }
    }

    /// Whatever was before, a target that can be reached is reached, and nothing is left under way.
    #[test]
    fn a_target_is_reached(
        events in prop::collection::vec(event(5_000), 0..60),
        last in 0u32..4_000,
        shift in prop_oneof![Just(0u32), Just(4)],
        must_tell in any::<bool>(),
    ) {
        let release = if must_tell { Release::Answered } else { Release::Told };
        let mut model = Model::new(4_000 >> shift, 1 << shift, release);
        for event in &events {
            model.handle(event);
        }

        let last = last & !((1 << shift) - 1);
        model.books.set_target(Units(last));
        model.settle(usize::MAX);

        prop_assert_eq!(model.books.actual(), Units(last));
        prop_assert_eq!(model.books.next(LIST), Step::Rest);
        prop_assert_eq!(model.units(Place::Balloon), last);
    }

    /// Removing the driver: with the target 0 everything comes back.
    #[test]
    fn everything_comes_back(
        events in prop::collection::vec(event(5_000), 0..60),
        must_tell in any::<bool>(),
    ) {
        let release = if must_tell { Release::Answered } else { Release::Told };
        let mut model = Model::new(4_000, 1, release);
        for event in &events {
            model.handle(event);
        }

        model.books.set_target(Units::ZERO);
        model.settle(usize::MAX);

        prop_assert!(model.books.is_empty());
        prop_assert_eq!(model.units(Place::Guest), 4_000);
    }

    /// The device's number is rounded up to whole guest pages, without overflow.
    #[test]
    fn targets_are_whole_pages(target in any::<u32>(), shift in 0u32..=8) {
        let mut books = Books::new(1 << shift, Release::Told);
        books.set_target(Units(target));
        let taken = u64::from(books.target().0);

        prop_assert_eq!(taken % (1 << shift), 0);
        let exact = u64::from(target).next_multiple_of(1 << shift);
        let most = u64::from(u32::MAX) & !((1 << shift) - 1);
        prop_assert_eq!(taken, exact.min(most));
        prop_assert!(!books.set_target(Units(target)), "the same target is no change");
    }

    /// While the device is silent nothing more is taken out than there is.
    #[test]
    fn a_silent_device_gets_no_more_than_its_target(target in 0u32..4_000, silent in 1usize..200) {
        let mut model = Model::new(4_000, 1, Release::Told);
        model.books.set_target(Units(target));
        model.steps(silent, usize::MAX);

        prop_assert!(model.units(Place::Going) <= target);
        prop_assert_eq!(model.books.actual(), Units::ZERO);
    }

    /// Pauses grow from 200 ms to 6.4 s, end in time, and any moment will do as the first.
    #[test]
    fn pauses_double(start in any::<u64>()) {
        let mut back_off = BackOff::new();
        let mut now = start;
        prop_assert_eq!(back_off.pause(Moment(now)), None);

        for expected in [200, 400, 800, 1_600, 3_200, 6_400, 6_400, 6_400] {
            back_off.failed(Moment(now));
            prop_assert_eq!(back_off.pause(Moment(now)), Some(expected));
            let almost = now.wrapping_add(expected - 1);
            prop_assert_eq!(back_off.pause(Moment(almost)), Some(1));
            now = now.wrapping_add(expected);
            prop_assert_eq!(back_off.pause(Moment(now)), None);
        }

        back_off.succeeded();
        back_off.failed(Moment(now));
        prop_assert_eq!(back_off.pause(Moment(now)), Some(200));
        back_off.reset();
        prop_assert_eq!(back_off.pause(Moment(now)), None);
    }

    /// `actual` is told at once at rest or after 64 MiB, otherwise within 100 ms, and not twice.
    #[test]
    fn actual_is_told_in_time(
        first in any::<u32>(),
        second in any::<u32>(),
        start in any::<u64>(),
        passed in 0u64..1_000,
    ) {
        let mut told = Told::new();
        prop_assert_eq!(told.due(Units(first), false, Moment(start)), Some(0));
        told.told(Units(first), Moment(start));
        prop_assert_eq!(told.due(Units(first), true, Moment(start)), None);

        let now = Moment(start.wrapping_add(passed));
        let due = told.due(Units(second), false, now);
        if first == second {
            prop_assert_eq!(due, None);
        } else if first.abs_diff(second) >= 16_384 {
            prop_assert_eq!(due, Some(0));
        } else {
            prop_assert_eq!(due, Some(100u64.saturating_sub(passed)));
            prop_assert_eq!(told.due(Units(second), true, now), Some(0));
        }
    }

    /// However often the host provokes a message, there is one in 30 s at most.
    #[test]
    fn messages_are_rare(start in any::<u64>(), steps in prop::collection::vec(0u64..10_000, 1..200)) {
        let mut voice = Voice::new();
        let mut now = start;
        let mut last = None;

        for step in steps {
            now = now.wrapping_add(step);
            if voice.may_speak(Moment(now)) {
                if let Some(last) = last.replace(now) {
                    prop_assert!(now.wrapping_sub(last) >= 30_000);
                }
            }
        }
        prop_assert!(last.is_some(), "the first message is heard");
    }

    /// The reserve is left alone, and small enough to matter only when little is left.
    #[test]
    fn the_reserve_is_kept(total in any::<u32>(), available in any::<u32>(), mib in 1..=u32::MAX) {
        let reserve = Reserve::of(Units(total), 0);
        let leaves = reserve.leaves(Units(available)).0;
        let wished = Reserve::of(Units(total), mib).leaves(Units(available));

        prop_assert_eq!(wished.0, available.saturating_sub(mib.saturating_mul(256)));

        prop_assert!(leaves <= available.saturating_sub(16 * 256));
        prop_assert!(leaves >= available.saturating_sub(128 * 256));
    }

    /// A message is as many whole records as there is room for, and nothing behind them is touched.
    #[test]
    fn records_fill_the_message(room in 0usize..200, values in prop::collection::vec(any::<u64>(), 0..16)) {
        let figures: Vec<_> = values.iter().map(|value| (Tag::DiskCaches, *value)).collect();
        let mut message = vec![0xa5; room];
        let written = tags::write(&mut message, figures.iter().copied());

        prop_assert_eq!(written, figures.len().min(room / 10));
        for (i, value) in values.iter().take(written).enumerate() {
            prop_assert_eq!(&message[i * 10..i * 10 + 2], &7u16.to_le_bytes()[..]);
            prop_assert_eq!(&message[i * 10 + 2..i * 10 + 10], &value.to_le_bytes()[..]);
        }
        prop_assert!(message[written * 10..].iter().all(|byte| *byte == 0xa5));
    }
}

/// VirtIO 1.3, 5.5.6.4, and the tags that Linux has added.
#[test]
fn tags_have_the_numbers_of_the_specification() {
    let tags = [
        Tag::SwapIn,
        Tag::SwapOut,
        Tag::MajorFaults,
        Tag::MinorFaults,
        Tag::FreeMemory,
        Tag::TotalMemory,
        Tag::AvailableMemory,
        Tag::DiskCaches,
        Tag::HugetlbAllocations,
        Tag::HugetlbFailures,
        Tag::OomKills,
        Tag::AllocationStalls,
        Tag::AsyncScans,
        Tag::DirectScans,
        Tag::AsyncReclaims,
        Tag::DirectReclaims,
    ];

    for (number, tag) in (0..).zip(tags) {
        assert_eq!(tag as u32, number);
        assert!(tag.is_known(number + 1) && !tag.is_known(number));
    }
}

/// VirtIO 1.3, 5.5.6.2: without the feature, pages may be used as soon as the device has been told.
#[test]
fn actual_follows_the_release() {
    for (release, while_coming) in [(Release::Answered, 256), (Release::Told, 0)] {
        let mut books = Books::new(1, release);
        books.set_target(Units(256));
        books.inflate_told(Units(256));
        assert_eq!(books.actual(), Units(0), "the device has not answered");
        books.inflate_answered(Units(256));
        assert_eq!(books.actual(), Units(256));

        books.set_target(Units::ZERO);
        assert_eq!(books.next(LIST), Step::Deflate(Units(256)));
        books.deflate_told(Units(256));
        assert_eq!(books.actual(), Units(while_coming));
        assert_eq!(books.next(LIST), Step::Wait);

        books.set_target(Units(512));
        assert_eq!(
            books.next(LIST),
            Step::Wait,
            "one direction after the other"
        );
        books.deflate_answered(Units(256));
        assert_eq!(books.next(LIST), Step::Inflate(Units(256)));
        assert_eq!(books.actual(), Units::ZERO);
    }
}

#[test]
fn amounts_are_rounded_down_and_saturate() {
    assert_eq!(Units::from_bytes(4_095), Units(0));
    assert_eq!(Units::from_bytes(4_096), Units(1));
    assert_eq!(Units::from_bytes(u64::MAX), Units(u32::MAX));
    assert_eq!(Units(255).mib(), 0);
    assert_eq!(Units(256).mib(), 1);
    assert_eq!(Units(u32::MAX).mib(), 16_777_215);
}
