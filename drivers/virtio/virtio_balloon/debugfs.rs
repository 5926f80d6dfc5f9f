// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/virtio_balloon_rust/virtioN/`: what the driver is doing with device N. Amounts are in pages of 4 KiB,
//! but for `moved`, which counts pages of the guest.

use crate::{
    resize::Resizer,
    view::State, //
};
use core::pin::Pin;
use guest::{
    debugfs::module_directory,
    virtio, //
};
use kernel::{
    debugfs::{
        Scope,
        ScopedDir, //
    },
    fmt,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// The directory of a device. It lives as long as the value.
pub(crate) type Directory = Pin<KBox<Scope<Arc<Resizer>>>>;

/// Makes the directory of `dev`.
///
/// # Errors
///
/// [`ENOMEM`]. That debugfs has no directory is no error.
pub(crate) fn directory(dev: &virtio::Device, resizer: Arc<Resizer>) -> Result<Directory> {
    let parent = module_directory().ok_or(ENODEV)?;
    let name = CString::try_from_fmt(fmt!("virtio{}", dev.index()))?;

    KBox::pin_init(
        parent.scope(Ok::<_, Error>(resizer), &name, files),
        GFP_KERNEL,
    )
}

fn files<'data>(resizer: &'data Arc<Resizer>, dir: &ScopedDir<'data, '_>) {
    type Owner = Arc<Resizer>;

    dir.read_callback_file(c"target", resizer, &|r: &Owner, f| {
        line(f, &r.view().target)
    });
    dir.read_callback_file(c"actual", resizer, &|r: &Owner, f| {
        line(f, &r.view().actual)
    });
    dir.read_callback_file(c"inflating", resizer, &|r: &Owner, f| {
        line(f, &r.view().inflating)
    });
    dir.read_callback_file(c"deflating", resizer, &|r: &Owner, f| {
        line(f, &r.view().deflating)
    });
    dir.read_callback_file(c"shortages", resizer, &|r: &Owner, f| {
        line(f, &r.view().shortages)
    });
    dir.read_callback_file(c"moved", resizer, &|r: &Owner, f| {
        writeln!(f, "{}", r.view().moved.load(Relaxed))
    });
    dir.read_callback_file(c"state", resizer, &|r: &Owner, f| {
        writeln!(f, "{}", name(r.view().state.load(Relaxed)))
    });
}

fn line(f: &mut fmt::Formatter<'_>, value: &Atomic<u32>) -> fmt::Result {
    writeln!(f, "{}", value.load(Relaxed))
}

fn name(state: u32) -> &'static str {
    const NAMES: [(State, &str); 6] = [
        (State::Resting, "resting"),
        (State::Inflating, "inflating"),
        (State::Deflating, "deflating"),
        (State::Waiting, "waiting for the host"),
        (State::BackingOff, "backing off: no memory to spare"),
        (State::Broken, "broken: the host cannot be told anything"),
    ];

    NAMES
        .iter()
        .find(|(known, _)| *known as u32 == state)
        .map_or("unknown", |(_, name)| name)
}
