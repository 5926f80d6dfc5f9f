// SPDX-License-Identifier: GPL-2.0

//! What is tried when a transmit queue sends nothing, and what has helped.
//!
//! This file uses nothing but `core`.

/// What can be tried, beginning with what costs least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The device is told of the queue again, and what it has sent without saying is looked for.
    Notify,
    /// The queue begins anew.
    ResetQueue,
    /// The device begins anew.
    ResetDevice,
}

impl Step {
    /// How many there are.
    pub(crate) const COUNT: usize = 3;

    /// What `ethtool -S` calls the times that each has helped, in their order.
    pub(crate) const NAMES: [&str; Self::COUNT] = [
        "recoveries_by_kick",
        "recoveries_by_queue_reset",
        "recoveries_by_device_reset",
    ];

    /// Returns its place in [`NAMES`](Self::NAMES).
    const fn position(self) -> usize {
        match self {
            Self::Notify => 0,
            Self::ResetQueue => 1,
            Self::ResetDevice => 2,
        }
    }
}

/// How far one queue has come.
///
/// A step has helped when more has been sent at the next look than when it was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Escalation {
    /// What was tried last, and how many packets had been sent then.
    last: Option<(Step, u64)>,
    /// How often nothing has helped since something did.
    in_vain: u32,
    /// How often each step has helped.
    recoveries: [u64; Step::COUNT],
}

impl Escalation {
    /// The queue has been stopped for too long, after `sent` packets. Returns what to try: of resets of the device, fewer and fewer.
    pub(crate) fn expire(&mut self, sent: u64, can_reset_queue: bool) -> Step {
        let recoveries = self.recoveries(sent);

        self.in_vain = if self.last.is_none() || recoveries != self.recoveries {
            0
        } else {
            self.in_vain.saturating_add(1)
        };
        self.recoveries = recoveries;
        let step = match self.in_vain {
            1 if can_reset_queue => Step::ResetQueue,
            times if times.is_power_of_two() => Step::ResetDevice,
            _ => Step::Notify,
        };
        self.last = Some((step, sent));
        step
    }

    /// What was tried last could not be done: `step` is tried in its place.
    pub(crate) fn replace(&mut self, step: Step) {
        if let Some((last, _)) = &mut self.last {
            *last = step;
        }
    }

    /// Returns how often each step has helped, when `sent` packets have been sent until now.
    pub(crate) fn recoveries(&self, sent: u64) -> [u64; Step::COUNT] {
        let mut recoveries = self.recoveries;

        if let Some((step, before)) = self.last {
            if let Some(count) = recoveries.get_mut(step.position()) {
                *count = count.wrapping_add(u64::from(before != sent));
            }
        }
        recoveries
    }
}
