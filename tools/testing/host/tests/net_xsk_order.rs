// SPDX-License-Identifier: GPL-2.0

//! Tests of the order in which a socket gets back what it has sent.

use proptest::prelude::*;
use std::collections::VecDeque;

#[path = "../../../../rust/guest/net/xsk/order.rs"]
mod order;

use order::Order;

#[test]
fn what_is_done_early_waits_for_what_came_before() {
    let mut order = Order::new(vec![0; 4]);
    let first = order.begin(1).unwrap();
    let second = order.begin(3).unwrap();
    let third = order.begin(2).unwrap();

    assert_eq!(order.end(second), 0);
    assert_eq!(order.end(first), 4);
    assert_eq!(order.free(), 3);
    assert_eq!(order.end(third), 2);
    assert_eq!(order.free(), 4);
}

#[test]
fn there_is_no_room_for_more_than_there_are_slots() {
    let mut order = Order::new(vec![0; 2]);
    let first = order.begin(1).unwrap();

    assert!(order.begin(1).is_some());
    assert_eq!(order.begin(1), None);
    assert_eq!(order.end(first), 1);
    assert!(order.begin(1).is_some());
    assert_eq!(order.end_all(), 2);
}

#[test]
fn packets_of_no_descriptors_and_slots_that_there_are_not_change_nothing() {
    let mut order = Order::new(vec![0; 2]);

    assert_eq!(order.begin(0), None);
    assert_eq!(order.begin(128), None);
    assert_eq!(order.end(7), 0);
    assert_eq!(order.end_all(), 0);
    assert_eq!(Order::new(vec![]).begin(1), None);
}

proptest! {
    /// Whatever the order in which a device is done, what the user gets back are the descriptors of the longest run of packets from the
    /// first on that are done.
    #[test]
    fn the_user_gets_back_what_is_done_from_the_first_on(
        steps in prop::collection::vec((any::<bool>(), 1usize..20, any::<prop::sample::Index>()), 0..200),
    ) {
        let mut order = Order::new(vec![0; 8]);
        // The slot of each packet in flight, its descriptors, and whether it is done.
        let mut model: VecDeque<(usize, u32, bool)> = VecDeque::new();

        for (send, descriptors, which) in steps {
            prop_assert_eq!(order.free(), 8 - model.len());
            if send {
                match order.begin(descriptors) {
                    Some(slot) => model.push_back((slot, descriptors as u32, false)),
                    None => prop_assert_eq!(model.len(), 8),
                }
                continue;
            }
            let open: Vec<usize> = (0..model.len()).filter(|&at| !model[at].2).collect();
            if open.is_empty() {
                continue;
            }
            let at = open[which.index(open.len())];
            model[at].2 = true;
            let back = order.end(model[at].0);
            let mut wanted = 0;
            while let Some(&(_, descriptors, true)) = model.front() {
                wanted += descriptors;
                model.pop_front();
            }
            prop_assert_eq!(back, wanted);
        }
        let left: u32 = model.iter().map(|packet| packet.1).sum();
        prop_assert_eq!(order.end_all(), left);
        prop_assert_eq!(order.free(), 8);
    }
}
