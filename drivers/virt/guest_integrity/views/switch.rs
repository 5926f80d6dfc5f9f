// SPDX-License-Identifier: GPL-2.0

//! View `switch`: who got a CPU and is not linked as it should be.
//!
//! The probe sees each task at the moment it begins to run, also one that sleeps nearly all the time. A task that got a CPU was on the
//! lists before, like one on a run queue, so the same rule says whether the suspect is hidden. There are no suspects while the probe
//! is not registered: see the parameter `switch_probe`. Nor are there any when somebody has taken the probe off its event, so that is
//! reported.

use super::{
    Examined,
    Sources,
    View, //
};
use crate::{
    finding::{
        Found,
        Object,
        Weight, //
    },
    record::Line,
    scan::Scanner,
    witness::Witnesses, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::rcu, //
};

const REASON: &str = "probe_gone";

pub(super) const VIEW: View = View {
    collect: Some(collect),
    examine: Some(examine),
    once: true,
    ..View::named("switch")
};

fn collect(sources: &Sources, to: &mut Witnesses) -> Result<(), AllocError> {
    let mut result = Ok(());

    sources.suspects.take(|task| {
        let added = to.add_held(task);
        if added.is_err() {
            result = added;
        }
    });
    result
}

fn examine(sources: &Sources, found: &mut KVVec<Found>, view: u8) -> Result<Examined, AllocError> {
    if let Some(event) = sources.suspects.unprobed::<Scanner>(&rcu::read_lock()) {
        let one = Found::of_object(
            view,
            Weight::Finding,
            REASON,
            (0, event.id()),
            Object {
                kind: "event",
                name: Line::escaped(event.name().to_bytes()),
                target: Line::escaped(b"guest_integrity"),
            },
        );
        found.push(one, GFP_KERNEL)?;
    }
    Ok(Examined::Whole)
}
