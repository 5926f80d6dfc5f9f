// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/virtio_balloon_rust/virtioN/`: what the driver is doing with device N. Amounts are in pages of 4 KiB,
//! but for `moved`, which counts pages of the guest.

use crate::{
    hinting::Hinting,
    limits::Reason,
    reporting::Reports,
    resize::Resizer,
    view::{
        State,
        View, //
    }, //
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
        atomic::Relaxed,
        Arc, //
    }, //
};

/// What the files show.
pub(crate) struct Shown {
    pub(crate) resizer: Arc<Resizer>,
    pub(crate) reports: Option<Arc<Reports>>,
    pub(crate) hinting: Option<Arc<Hinting>>,
}

/// The directory of a device. It lives as long as the value.
pub(crate) type Directory = Pin<KBox<Scope<Shown>>>;

/// Makes the directory of `dev`.
///
/// # Errors
///
/// [`ENOMEM`]. That debugfs has no directory is no error.
pub(crate) fn directory(dev: &virtio::Device, shown: Shown) -> Result<Directory> {
    let parent = module_directory().ok_or(ENODEV)?;
    let name = CString::try_from_fmt(fmt!("virtio{}", dev.index()))?;

    KBox::pin_init(
        parent.scope(Ok::<_, Error>(shown), &name, files),
        GFP_KERNEL,
    )
}

/// Makes a file of each of these numbers of the [`View`].
macro_rules! numbers {
    ($dir:ident, $shown:ident, $($file:literal => $field:ident,)*) => {
        $($dir.read_callback_file($file, $shown, &|s: &Shown, f| {
            writeln!(f, "{}", s.resizer.view().$field.load(Relaxed))
        });)*
    };
}

fn files<'data>(shown: &'data Shown, dir: &ScopedDir<'data, '_>) {
    numbers!(
        dir,
        shown,
        c"target" => target,
        c"allowed" => allowed,
        c"relieved" => relieved,
        c"inflated" => inflated,
        c"deflated" => deflated,
        c"inflate_rate" => inflate_rate,
        c"deflate_rate" => deflate_rate,
        c"actual" => actual,
        c"inflating" => inflating,
        c"deflating" => deflating,
        c"shortages" => shortages,
        c"moved" => moved,
    );
    dir.read_callback_file(c"limit", shown, &|s: &Shown, f| limit(f, s.resizer.view()));
    dir.read_callback_file(c"hinted", shown, &|s: &Shown, f| {
        let bytes = s.hinting.as_ref().map_or(0, |hinting| hinting.hinted());
        writeln!(f, "{}", bytes / 4096)
    });
    dir.read_callback_file(c"reported", shown, &|s: &Shown, f| {
        let bytes = s.reports.as_ref().map_or(0, |reports| reports.reported());
        writeln!(f, "{}", bytes / 4096)
    });
    dir.read_callback_file(c"state", shown, &|s: &Shown, f| {
        writeln!(f, "{}", name(s.resizer.view().state.load(Relaxed)))
    });
}

/// Why the balloon is not as large as the host asks for.
fn limit(f: &mut fmt::Formatter<'_>, view: &View) -> fmt::Result {
    const NAMES: [(Reason, &str); 5] = [
        (Reason::None, "none"),
        (Reason::Floor, "floor_mib"),
        (Reason::Cap, "cap_mib"),
        (
            Reason::Pressure,
            "pressure: reclaimed memory is needed again",
        ),
        (Reason::OutOfMemory, "out of memory"),
    ];
    let reason = view.reason.load(Relaxed);
    let name = NAMES
        .iter()
        .find(|(known, _)| *known as u32 == reason)
        .map_or("unknown", |(_, name)| name);

    match view.hold.load(Relaxed) {
        0 => writeln!(f, "{name}"),
        ms => writeln!(f, "{name}; held for {} s", ms.div_ceil(1000)),
    }
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
