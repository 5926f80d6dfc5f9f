// SPDX-License-Identifier: GPL-2.0

//! Tests of what the balloon gets of what the device asks for: whatever happens and however the clock runs, never more than any limit
//! allows, all of it when nothing is against it, and never for ever.

// Only a part of each file is used here.
#![allow(dead_code)]

use proptest::prelude::*;

#[path = "../../../../drivers/virtio/virtio_balloon/limits.rs"]
mod limits;
#[path = "../../../../drivers/virtio/virtio_balloon/pace.rs"]
mod pace;
#[path = "../../../../drivers/virtio/virtio_balloon/target.rs"]
mod target;

use limits::{Limits, Meter, Reason, Settings};
use pace::Moment;
use target::Units;

const FREE: Settings = Settings {
    total: Units(u32::MAX),
    floor: Units::ZERO,
    cap: Units(u32::MAX),
};

/// Longer than any hold.
const EVER: u64 = 601_000;

#[derive(Clone, Copy, Debug)]
enum Event {
    OutOfMemory(u32, u32),
    Felt(u64, u64, u32),
    Unfelt,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (any::<u32>(), any::<u32>()).prop_map(|(held, relief)| Event::OutOfMemory(held, relief)),
        3 => (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(all, limit, at)| Event::Felt(all, limit, at)),
        1 => Just(Event::Unfelt),
        3 => (0u64..100_000).prop_map(Event::Pass),
    ]
}

proptest! {
    #[test]
    fn no_limit_is_exceeded(
        events in prop::collection::vec(event(), 0..60),
        start in any::<u64>(),
        wanted in any::<u32>(),
        total in any::<u32>(),
        floor in any::<u32>(),
        cap in any::<u32>(),
    ) {
        let settings = Settings { total: Units(total), floor: Units(floor), cap: Units(cap) };
        let fixed = wanted.min(total.saturating_sub(floor)).min(cap);
        let mut limits = Limits::new();
        let mut now = start;

        for event in events {
            match event {
                Event::OutOfMemory(held, relief) => {
                    limits.out_of_memory(Units(held), Units(relief), Moment(now));
                    let (allowed, _) = limits.allow(Units(wanted), &settings, Moment(now));
                    prop_assert!(allowed.0 <= held.saturating_sub(relief));
                    prop_assert!(limits.left(Moment(now)) >= Some(30_000));
                }
                Event::Felt(all, limit, at) => {
                    let held = limits.felt(all, limit, Units(at), Moment(now));
                    let (allowed, _) = limits.allow(Units(wanted), &settings, Moment(now));
                    prop_assert!(!held || allowed.0 <= at);
                }
                Event::Unfelt => limits.unfelt(),
                Event::Pass(ms) => now = now.wrapping_add(ms),
            }

            let (allowed, reason) = limits.allow(Units(wanted), &settings, Moment(now));
            prop_assert!(allowed.0 <= fixed);
            prop_assert_eq!(allowed.0 == wanted, reason == Reason::None);
            if limits.left(Moment(now)).is_none() {
                prop_assert_eq!(allowed.0, fixed);
            }
        }
        let (allowed, _) = limits.allow(Units(wanted), &settings, Moment(now.wrapping_add(EVER)));
        prop_assert_eq!(allowed.0, fixed, "held for ever");
    }
}

#[test]
fn inflating_and_deflating_do_not_fight() {
    let mut limits = Limits::new();
    let mut now = 0;
    let mut pauses = Vec::new();

    // Each time the balloon is let go it grows, and there is no memory left again.
    for _ in 0..8 {
        limits.out_of_memory(Units(1000), Units(100), Moment(now));
        let (allowed, reason) = limits.allow(Units(1000), &FREE, Moment(now));
        assert_eq!((allowed, reason), (Units(900), Reason::OutOfMemory));
        let pause = limits.left(Moment(now)).unwrap();
        pauses.push(pause / 1000);
        now += pause + 1;
    }
    assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600, 600]);
    // A long time of peace makes the next one a short one again.
    now += 2 * EVER;
    limits.out_of_memory(Units(1000), Units(100), Moment(now));
    assert_eq!(limits.left(Moment(now)), Some(30_000));
}

#[test]
fn calls_of_one_emergency_count_once_and_add_up() {
    let mut limits = Limits::new();

    for (call, held) in [(0, 1000), (10, 900), (20, 800)] {
        limits.out_of_memory(Units(held), Units(100), Moment(call));
    }
    assert_eq!(limits.left(Moment(20)), Some(30_000));
    let (allowed, _) = limits.allow(Units(1000), &FREE, Moment(20));
    assert_eq!(allowed, Units(700));
    // What is felt later does not let it grow again.
    assert!(!limits.felt(0, 10, Units(950), Moment(1000)));
    assert!(limits.felt(1_000_000, 10, Units(950), Moment(2000)));
    let (allowed, reason) = limits.allow(Units(1000), &FREE, Moment(2000));
    assert_eq!((allowed, reason), (Units(700), Reason::OutOfMemory));
}

#[test]
fn what_comes_back_is_measured_by_the_second() {
    const MIB: u64 = 1 << 20;
    let mut limits = Limits::new();

    assert!(!limits.felt(500 * MIB, 32 * MIB, Units(7), Moment(0)));
    // Too short to tell.
    assert!(!limits.felt(600 * MIB, 32 * MIB, Units(7), Moment(100)));
    assert!(limits.felt(600 * MIB, 32 * MIB, Units(7), Moment(1000)));
    assert_eq!(limits.left(Moment(1000)), Some(5_000));
    let mut limits = Limits::new();
    assert!(!limits.felt(0, 32 * MIB, Units(7), Moment(0)));
    assert!(!limits.felt(32 * MIB, 32 * MIB, Units(7), Moment(1000)));
    // What came back while the balloon stood still does not count.
    limits.unfelt();
    assert!(!limits.felt(1000 * MIB, 32 * MIB, Units(7), Moment(2000)));
}

#[test]
fn a_meter_shows_the_last_second() {
    let mut meter = Meter::new(Moment(0));

    assert_eq!(meter.add(10, Moment(100)), 10);
    assert_eq!(meter.add(10, Moment(900)), 20);
    assert_eq!(meter.add(5, Moment(1100)), 20);
    assert_eq!(meter.add(0, Moment(2200)), 5);
    assert_eq!(meter.add(0, Moment(9000)), 0);
}
