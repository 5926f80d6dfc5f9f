// SPDX-License-Identifier: GPL-2.0

//! Tests of what tells a task that goes on living from one on its way out: whatever the clock says of an honest one, and however many
//! there are.

use proptest::prelude::*;

#[path = "../../../../drivers/virt/guest_integrity/departed.rs"]
mod departed;

use departed::{Departed, STEPS, STEP_NS};

const ONE: (usize, u64) = (0xffff_8880_0000_1000, 17);

#[test]
fn one_that_goes_on_is_known_after_so_many_steps() {
    let mut departed = Departed::default();

    for step in 0..u64::from(STEPS) {
        assert!(!departed.lives(ONE, step * STEP_NS), "{step}");
    }
    assert!(departed.lives(ONE, u64::from(STEPS) * STEP_NS));
    // Also when it sleeps.
    assert!(departed.lives(ONE, u64::from(STEPS) * STEP_NS));
}

#[test]
fn who_is_forgotten_begins_anew() {
    let mut departed = Departed::default();

    for step in 0..=u64::from(STEPS) {
        departed.lives(ONE, step * STEP_NS);
    }
    departed.keep(|id| id != ONE);
    assert!(!departed.lives(ONE, u64::MAX));
}

proptest! {
    /// A host that lets the guest stand still makes an honest task's time jump, but not as often as it takes.
    #[test]
    fn an_honest_one_is_not_known(jumps in prop::collection::vec(any::<u64>(), 0..STEPS as usize)) {
        let mut departed = Departed::default();
        let mut runtime = 0_u64;

        for jump in jumps {
            runtime = runtime.wrapping_add(jump);
            prop_assert!(!departed.lives(ONE, runtime));
        }
    }

    /// Nor is one that waits for long, seen again and again.
    #[test]
    fn a_little_time_does_not_count(moments in prop::collection::vec(0..STEP_NS / 100, 0..1000)) {
        let mut departed = Departed::default();
        let mut runtime = 0;

        for moment in moments {
            runtime += moment;
            prop_assert!(!departed.lives(ONE, runtime));
        }
    }

    /// Others that exit at the same time do not hide one that has been seen to go on.
    #[test]
    fn others_do_not_displace_it(others in 0..64_usize) {
        let mut departed = Departed::default();

        departed.lives(ONE, 0);
        departed.lives(ONE, STEP_NS);
        for step in 2..=u64::from(STEPS) {
            for other in 0..others {
                prop_assert!(!departed.lives((other, step), 0));
            }
            let lives = departed.lives(ONE, step * STEP_NS);
            prop_assert_eq!(lives, step == u64::from(STEPS));
        }
    }
}
