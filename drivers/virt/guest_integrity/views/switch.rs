// SPDX-License-Identifier: GPL-2.0

//! View `switch`: who got a CPU and is not linked as it should be.
//!
//! The probe sees each task at the moment it begins to run, also one that sleeps nearly all the time. A task that got a CPU was on the
//! lists before, like one on a run queue, so the same rule says whether the suspect is hidden. There are no suspects while the probe
//! is not registered: see the parameter `switch_probe`.

use super::{
    Sources,
    View, //
};
use crate::witness::Witnesses;

use kernel::{
    alloc::AllocError,
    prelude::*, //
};

pub(super) const VIEW: View = View {
    collect: Some(collect),
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
