// SPDX-License-Identifier: GPL-2.0

//! Tests of the conversation about free page hints: whatever numbers the device comes up with, hints are made only for the number that
//! was announced last, and each announcement ends.

use proptest::prelude::*;

#[path = "../../../../drivers/virtio/virtio_balloon/hint.rs"]
mod hint;

use hint::{Act, Protocol, DONE, STOP};

#[derive(Clone, Copy, Debug)]
enum Event {
    Heard(u32),
    Exhausted,
    Steps(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => prop_oneof![0u32..6, any::<u32>()].prop_map(Event::Heard),
        1 => Just(Event::Exhausted),
        4 => (0usize..5).prop_map(Event::Steps),
    ]
}

/// What the device has been told, as it would understand it.
#[derive(Default)]
struct Device {
    wanted: u32,
    current: Option<u32>,
    announced: Vec<u32>,
}

impl Device {
    fn step(&mut self, protocol: &mut Protocol) -> Act {
        let act = protocol.next();
        match act {
            Act::Say(STOP) => {
                assert!(self.current.take().is_some(), "an end without a beginning");
            }
            Act::Say(number) => {
                assert_ne!(number, DONE);
                assert_eq!(number, self.wanted, "an old number");
                assert_eq!(self.current, None, "no end between two beginnings");
                self.current = Some(number);
                self.announced.push(number);
            }
            Act::Hint => assert_eq!(self.current, Some(self.wanted), "a hint for nobody"),
            Act::Rest => assert_eq!(self.current, None, "rest before the end"),
        }
        act
    }
}

proptest! {
    #[test]
    fn hints_are_for_the_number_announced_last(events in prop::collection::vec(event(), 0..200)) {
        let mut protocol = Protocol::new();
        let mut device = Device::default();

        for event in events {
            match event {
                Event::Heard(number) => {
                    device.wanted = number;
                    protocol.heard(number);
                    prop_assert_eq!(protocol.is_over(), number == DONE);
                }
                Event::Exhausted => protocol.exhausted(),
                Event::Steps(steps) => {
                    for _ in 0..steps {
                        device.step(&mut protocol);
                    }
                }
            }
        }
        // Without a new word of the device it comes to an end.
        protocol.exhausted();
        let acts: Vec<_> = (0..8).map(|_| {
            protocol.exhausted();
            device.step(&mut protocol)
        }).collect();
        prop_assert_eq!(acts.last(), Some(&Act::Rest));
        // The same number is not announced twice in a row.
        prop_assert!(device.announced.windows(2).all(|pair| pair[0] != pair[1]));
    }
}

#[test]
fn a_migration_of_two_rounds() {
    let mut protocol = Protocol::new();
    assert_eq!(protocol.next(), Act::Rest);

    for number in [0x8000_0000, 0x8000_0001] {
        protocol.heard(number);
        assert_eq!(protocol.next(), Act::Say(number));
        assert_eq!(protocol.next(), Act::Hint);
        assert_eq!(protocol.next(), Act::Hint);
        // The device looks at what has changed.
        protocol.heard(STOP);
        assert_eq!(protocol.next(), Act::Say(STOP));
        assert_eq!(protocol.next(), Act::Rest);
        assert!(!protocol.is_over());
    }
    protocol.heard(DONE);
    assert_eq!(protocol.next(), Act::Rest);
    assert!(protocol.is_over());
}

#[test]
fn a_guest_without_free_memory_says_so_once() {
    let mut protocol = Protocol::new();
    protocol.heard(7);
    assert_eq!(protocol.next(), Act::Say(7));
    protocol.exhausted();
    assert_eq!(protocol.next(), Act::Say(STOP));
    assert_eq!(protocol.next(), Act::Rest);
    protocol.heard(7);
    assert_eq!(protocol.next(), Act::Rest);
}
