// SPDX-License-Identifier: GPL-2.0

//! View `probes`: the functions that are called when a trace event of the kernel happens.
//!
//! Tracing, BPF programs and modules register functions that are in code which the kernel knows, and a module takes its own back before
//! it goes. So one that is in no such code was put there by somebody whose code is hidden.
//!
//! The table of an event may be replaced, and the old one freed, while it is read: what is not known then may be anything. It is
//! reported if three looks, each at the table of that time, find it.

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
    loaded::Loaded,
    record::Line, //
};

use guest::{
    sched::grace_period,
    tracepoint::Tracepoint, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::rcu, //
};

/// Most probes that one scan can report.
const MAX_SUSPECTS: usize = 64;

const REASON: &str = "probe_unknown";

pub(super) const VIEW: View = View {
    examine: Some(examine),
    ..View::named("probes")
};

/// A probe of an event, by its address.
type Probe = (Tracepoint, usize);

fn examine(sources: &Sources, found: &mut KVVec<Found>, view: u8) -> Result<Examined, AllocError> {
    let mut suspects: KVVec<Probe> = KVVec::with_capacity(MAX_SUSPECTS, GFP_KERNEL)?;

    collect(&sources.loaded, &mut suspects);
    for _ in 1..View::LOOKS {
        if suspects.is_empty() {
            return Ok(Examined::Whole);
        }
        grace_period();
        suspects.retain(|probe| is_still_unknown(&sources.loaded, *probe));
    }

    for &(event, address) in suspects.iter() {
        let one = Found::of_object(
            view,
            Weight::Finding,
            REASON,
            (address, event.id()),
            Object {
                kind: "event",
                name: Line::escaped(event.name().to_bytes()),
                target: Line::escaped(b"unknown"),
            },
        );
        found.push(one, GFP_KERNEL)?;
    }
    Ok(Examined::Whole)
}

/// Adds each probe that is in no code which the kernel knows.
fn collect(loaded: &Loaded, suspects: &mut KVVec<Probe>) {
    let guard = rcu::read_lock();

    Tracepoint::for_each(|event| {
        // Of a table that is just being replaced, the next scan sees the new one.
        event.probes(&guard, |address| {
            if !loaded.knows(address) {
                // There is room for more than a rootkit needs; the next scan finds the others.
                let _ = suspects.push_within_capacity((event, address));
            }
        });
    });
}

/// Returns whether the event still has the probe, and nobody has come to know its code.
fn is_still_unknown(loaded: &Loaded, (event, address): Probe) -> bool {
    let guard = rcu::read_lock();
    let mut there = false;

    event.probes(&guard, |other| there |= other == address);
    there && !loaded.knows(address)
}
