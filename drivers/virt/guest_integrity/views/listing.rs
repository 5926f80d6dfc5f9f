// SPDX-License-Identifier: GPL-2.0

//! View `listing`: what a program sees of `/proc` through the system call, if one says so.
//!
//! The kernel's own reading, which the view `proc` relies on, does not pass by the system call `getdents64` and by `filldir64`,
//! which writes an entry to a program. So a hook there is seen only by a program, and only by comparing. See
//! [`listing`](crate::listing) for why no honest process is reported.

use super::{
    proc::missing,
    Examined,
    Sources,
    View, //
};
use crate::finding::Found;

use kernel::{
    alloc::AllocError,
    prelude::*, //
};

pub(super) const VIEW: View = View {
    examine: Some(examine),
    ..View::named("listing")
};

fn examine(sources: &Sources, found: &mut KVVec<Found>, view: u8) -> Result<Examined, AllocError> {
    let listings = sources.listings.lock();

    if !listings.are_fresh() {
        return Ok(Examined::NotCovered);
    }
    for &process in listings.missing() {
        if let Some(one) = missing(process, view, "getdents_unlisted") {
            found.push(one, GFP_KERNEL)?;
        }
    }
    Ok(Examined::Whole)
}
