// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/guest_integrity/`: scans on demand, and what scans have seen.

use crate::scan::Scanner;

use kernel::{
    debugfs::{
        Scope,
        ScopedDir, //
    },
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    uaccess::UserSliceReader, //
};

/// Most bytes that a request for a scan has.
const REQUEST_LEN: usize = 16;

/// Makes the directory. It lives as long as the value.
pub(crate) fn directory(scanner: Arc<Scanner>) -> impl PinInit<Scope<Arc<Scanner>>, Error> {
    Scope::dir(Ok::<_, Error>(scanner), c"guest_integrity", files)
}

fn files<'data>(scanner: &'data Arc<Scanner>, dir: &ScopedDir<'data, '_>) {
    type Owner = Arc<Scanner>;

    dir.write_only_callback_file(c"scan", scanner, &|s: &Owner, request| scan(s, request));
    dir.read_callback_file(c"scans", scanner, &|s: &Owner, f| {
        line(f, &s.counts().scans)
    });
    dir.read_callback_file(c"clean", scanner, &|s: &Owner, f| {
        line(f, &s.counts().clean)
    });
    dir.read_callback_file(c"truncated", scanner, &|s: &Owner, f| {
        line(f, &s.counts().truncated)
    });
    dir.read_callback_file(c"findings", scanner, &|s: &Owner, f| {
        line(f, &s.counts().findings)
    });
    dir.read_callback_file(c"observations", scanner, &|s: &Owner, f| {
        line(f, &s.counts().observations)
    });
    dir.read_callback_file(c"sightings", scanner, &|s: &Owner, f| {
        line(f, &s.counts().sightings)
    });
    dir.read_callback_file(c"exiting", scanner, &|s: &Owner, f| {
        line(f, &s.counts().exiting)
    });
    dir.read_callback_file(c"cleared", scanner, &|s: &Owner, f| {
        line(f, &s.counts().cleared)
    });
    dir.read_callback_file(c"suspected", scanner, &|s: &Owner, f| {
        writeln!(f, "{}", s.suspects().seen())
    });
    dir.read_callback_file(c"unsuspected", scanner, &|s: &Owner, f| {
        writeln!(f, "{}", s.suspects().lost())
    });
    dir.read_callback_file(c"views", scanner, &|s: &Owner, f| s.show_views(f));
    dir.read_callback_file(c"metrics", scanner, &|s: &Owner, f| s.show_metrics(f));
    dir.read_callback_file(c"last", scanner, &|s: &Owner, f| s.show_last(f));
}

fn line(f: &mut fmt::Formatter<'_>, value: &Atomic<u64>) -> fmt::Result {
    writeln!(f, "{}", value.load(Relaxed))
}

/// `1` asks for a scan, and returns when it is done.
fn scan(scanner: &Scanner, request: &mut UserSliceReader) -> Result {
    let mut buf = [0; REQUEST_LEN];
    let text = buf.get_mut(..request.len()).ok_or(EINVAL)?;

    request.read_slice(text)?;
    match text.trim_ascii() {
        b"1" => scanner.scan(),
        _ => Err(EINVAL),
    }
}
