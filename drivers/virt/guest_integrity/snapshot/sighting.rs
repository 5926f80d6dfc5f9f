// SPDX-License-Identifier: GPL-2.0

//! Who was seen where: what several places say of one task, brought together.
//!
//! The file imports only the sorting; the host tests run it.

use crate::sort::sort;

/// A task, and the places that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Identity of the task.
    pub(crate) task: usize,
    /// A bit for each place.
    pub(crate) places: u16,
    /// A bit for each part of a run queue.
    pub(crate) queues: u8,
    /// A run queue names it as the idle task of its CPU.
    pub(crate) idle: bool,
}

/// Brings the sightings of each task together, and returns one for each task.
pub(crate) fn merge(sightings: &mut [Sighting]) -> &[Sighting] {
    sort(sightings, |one, other| one.task < other.task);

    let mut len = 0_usize;
    for i in 0..sightings.len() {
        let Some(&next) = sightings.get(i) else {
            break;
        };
        let last = len.checked_sub(1).and_then(|last| sightings.get_mut(last));

        match last {
            Some(last) if last.task == next.task => {
                last.places |= next.places;
                last.queues |= next.queues;
                last.idle |= next.idle;
            }
            _ => {
                if let Some(slot) = sightings.get_mut(len) {
                    *slot = next;
                }
                len += 1;
            }
        }
    }
    sightings.get(..len).unwrap_or_default()
}
