// SPDX-License-Identifier: GPL-2.0

//! Tests of what the network driver tries when a transmit queue sends nothing.

use proptest::prelude::*;

#[path = "../../../../drivers/net/virtio_net/escalation.rs"]
mod escalation;

use escalation::{Escalation, Step};

use Step::{Notify, ResetDevice, ResetQueue};

/// What is tried of a queue that never sends again.
fn steps(can_reset_queue: bool, count: usize) -> Vec<Step> {
    let mut escalation = Escalation::default();

    (0..count)
        .map(|_| escalation.expire(7, can_reset_queue))
        .collect()
}

#[test]
fn each_step_is_harder_than_the_one_before_and_resets_become_rare() {
    assert_eq!(
        steps(true, 10),
        [
            Notify,
            ResetQueue,
            ResetDevice,
            Notify,
            ResetDevice,
            Notify,
            Notify,
            Notify,
            ResetDevice,
            Notify
        ]
    );
    assert_eq!(
        steps(false, 6),
        [
            Notify,
            ResetDevice,
            ResetDevice,
            Notify,
            ResetDevice,
            Notify
        ]
    );
}

#[test]
fn the_step_that_helped_is_counted_once_and_the_mildest_comes_next() {
    let mut escalation = Escalation::default();

    assert_eq!(escalation.recoveries(0), [0, 0, 0]);
    assert_eq!(escalation.expire(5, true), Notify);
    assert_eq!(escalation.recoveries(5), [0, 0, 0]);
    assert_eq!(escalation.expire(5, true), ResetQueue);
    assert_eq!(escalation.recoveries(5), [0, 0, 0]);
    assert_eq!(escalation.recoveries(6), [0, 1, 0]);
    assert_eq!(Step::NAMES[1], "recoveries_by_queue_reset");
    assert_eq!(escalation.recoveries(60), [0, 1, 0]);
    assert_eq!(escalation.expire(60, true), Notify);
    assert_eq!(escalation.recoveries(60), [0, 1, 0]);
    assert_eq!(escalation.recoveries(61), [1, 1, 0]);
}

#[test]
fn what_took_the_place_of_a_step_gets_the_credit() {
    let mut escalation = Escalation::default();

    escalation.replace(ResetDevice);
    assert_eq!(escalation, Escalation::default());
    escalation.expire(5, true);
    escalation.expire(5, true);
    escalation.replace(ResetDevice);
    assert_eq!(escalation.recoveries(6), [0, 0, 1]);
}

proptest! {
    /// Whatever the queue sends between: nothing is counted that was not tried, there is no reset before something milder has been
    /// tried in vain, and a device that cannot reset a queue is not asked to.
    #[test]
    fn steps_follow_from_what_was_sent(
        can_reset_queue: bool,
        sent in prop::collection::vec(0u64..3, 1..60),
    ) {
        let mut escalation = Escalation::default();
        let mut total = 0u64;
        let mut tried = [0u64; Step::COUNT];
        let mut before = None;

        for more in sent {
            total += more;
            let step = escalation.expire(total, can_reset_queue);
            if before.is_none() || more > 0 {
                prop_assert_eq!(step, Notify);
            }
            if step == ResetDevice && can_reset_queue {
                prop_assert!(before != Some(Notify) || more == 0);
            }
            prop_assert!(can_reset_queue || step != ResetQueue);
            tried[match step { Notify => 0, ResetQueue => 1, ResetDevice => 2 }] += 1;
            before = Some(step);

            for (count, tried) in escalation.recoveries(total + 1).iter().zip(tried) {
                prop_assert!(*count <= tried);
            }
        }
    }
}
