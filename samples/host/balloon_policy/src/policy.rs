// SPDX-License-Identifier: GPL-2.0

//! Who gets memory, and who gives it.
//!
//! Pure: it knows no host and no clock. All amounts are bytes.
//!
//! What all guests have and are promised is never more than there is for them: a guest is promised more only when another one has
//! given it, not when it was asked to.

/// What is known of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// How much it can have.
    pub most: u64,
    /// How much it is to have.
    pub target: u64,
    /// How much it has, as it says.
    pub size: u64,
    /// How much of that a new program could have.
    pub available: u64,
    /// Whether it has read memory back from swap since the last look.
    pub swaps: bool,
}

impl Guest {
    /// What it has or may take at any moment.
    fn committed(&self) -> u64 {
        self.size.max(self.target)
    }

    /// It has not enough, or soon will not.
    fn is_needy(&self) -> bool {
        self.swaps || self.available < self.size / 8
    }

    /// What it can give and still have a quarter of its memory to spare.
    fn spare(&self, least: u64) -> u64 {
        // What it was asked for before and has not given yet is not to be asked for twice.
        let asked = self.size.saturating_sub(self.target);
        let spare = self
            .available
            .saturating_sub(self.size / 4)
            .saturating_sub(asked);

        spare.min(self.target.saturating_sub(least))
    }
}

/// What there is to be shared.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// For all guests together.
    pub total: u64,
    /// No guest is made smaller.
    pub least: u64,
    /// The most that a guest gives or gets at once.
    pub step: u64,
}

impl Host {
    /// Returns what each guest is to have now, in their order.
    pub fn share(&self, guests: &[Guest]) -> Vec<u64> {
        let mut guests = guests.to_vec();

        self.fit(&mut guests);
        let promised: u64 = guests.iter().map(Guest::committed).sum();
        let mut free = self.total.saturating_sub(promised);
        let mut wanted = 0u64;
        for guest in guests.iter_mut().filter(|guest| guest.is_needy()) {
            let wish = self.step.min(guest.most.saturating_sub(guest.target));
            let gets = wish.min(free);

            guest.target += gets;
            free -= gets;
            wanted += wish - gets;
        }
        // What was asked for already is on its way.
        let coming: u64 = guests
            .iter()
            .map(|guest| guest.size.saturating_sub(guest.target))
            .sum();
        self.take(&mut guests, wanted.saturating_sub(coming));

        guests.iter().map(|guest| guest.target).collect()
    }

    /// Asks those who have most for what `wanted` says, as far as they can spare it.
    fn take(&self, guests: &mut [Guest], mut wanted: u64) {
        while wanted > 0 {
            let richest = guests
                .iter_mut()
                .filter(|guest| !guest.is_needy())
                .max_by_key(|guest| guest.spare(self.least));
            let Some((guest, gives)) = richest
                .map(|guest| {
                    let gives = guest.spare(self.least).min(self.step).min(wanted);
                    (guest, gives)
                })
                .filter(|(_, gives)| *gives > 0)
            else {
                return;
            };

            guest.target -= gives;
            wanted -= gives;
        }
    }

    /// Makes all targets together no more than there is, whatever that costs whom.
    fn fit(&self, guests: &mut [Guest]) {
        let promised: u64 = guests.iter().map(|guest| guest.target).sum();
        let mut over = promised.saturating_sub(self.total);

        while over > 0 {
            let Some(guest) = guests
                .iter_mut()
                .filter(|guest| guest.target > self.least)
                .max_by_key(|guest| guest.target)
            else {
                return;
            };
            let gives = over.min(self.step).min(guest.target - self.least);

            guest.target -= gives;
            over -= gives;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host {
        total: 1000,
        least: 200,
        step: 50,
    };

    fn guest(size: u64, available: u64) -> Guest {
        Guest {
            most: 800,
            target: size,
            size,
            available,
            swaps: false,
        }
    }

    #[test]
    fn who_has_enough_is_left_alone() {
        assert_eq!(HOST.share(&[guest(500, 300), guest(500, 100)]), [500, 500]);
    }

    #[test]
    fn the_rich_are_asked_first_and_the_needy_get_what_was_given() {
        let mut guests = [guest(500, 300), guest(500, 40)];

        let targets = HOST.share(&guests);
        assert_eq!(targets, [450, 500]);
        guests[0].target = targets[0];
        // Not given yet: nobody gets it, and nobody is asked again.
        assert_eq!(HOST.share(&guests), [450, 500]);
        guests[0].size = 450;
        assert_eq!(HOST.share(&guests), [450, 550]);
    }

    #[test]
    fn nobody_is_made_needy_for_another() {
        let guests = [guest(500, 130), guest(500, 40)];

        assert_eq!(HOST.share(&guests), [495, 500]);
        assert_eq!(HOST.share(&[guest(500, 100), guest(500, 40)]), [500, 500]);
    }

    #[test]
    fn guests_that_are_too_large_together_are_made_smaller_but_not_below_the_least() {
        assert_eq!(HOST.share(&[guest(800, 700), guest(800, 700)]), [500, 500]);
        let crowd = [guest(400, 300); 6];
        assert_eq!(HOST.share(&crowd), [200; 6]);
    }

    #[test]
    fn promises_are_never_more_than_there_is() {
        // Numbers that look random, the same ones each time.
        let mut state = 88_172_645_463_325_252u64;
        let mut dice = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut guests = [guest(500, 250), guest(300, 100), guest(200, 50)];

        for _ in 0..10_000 {
            for guest in &mut guests {
                // It goes some of its way.
                guest.size = match dice(3) {
                    0 => guest.size,
                    1 => guest.target,
                    _ => (guest.size + guest.target) / 2,
                };
                guest.available = dice(guest.size);
                guest.swaps = dice(8) == 0;
            }
            let targets = HOST.share(&guests);
            for (guest, target) in guests.iter_mut().zip(targets) {
                assert!(target <= guest.most && target >= HOST.least);
                guest.target = target;
            }
            let committed: u64 = guests.iter().map(Guest::committed).sum();
            assert!(committed <= HOST.total, "{guests:?}");
        }
    }
}
