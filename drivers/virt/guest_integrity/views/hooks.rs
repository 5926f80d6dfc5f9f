// SPDX-License-Identifier: GPL-2.0

//! View `hooks`: what somebody has put between the views and what they look at.
//!
//! The operations of the directories of `/proc` that the kernel lists tasks by are the kernel's own, and no tracing changes them: those
//! that lead elsewhere are a finding. A function of the kernel that the views call and that begins with a jump, a call or a breakpoint
//! is an observation only: function tracing, kprobes, BPF programs and live patches look like a rootkit's hook, and are the
//! affair of whoever administers the system.

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
    record::{
        Line,
        NAME_LEN, //
    },
};

use guest::{
    fs::{
        Directory,
        PROC_SUPER_MAGIC, //
    },
    symbol::{
        text::Text,
        Place,
        Symbol, //
    },
    text::{
        entry::Entry,
        FUNCTIONS, //
    },
};

use kernel::{
    alloc::AllocError,
    prelude::*, //
};

/// The directories whose operations are looked at: the one of all processes, and those of the first one.
pub(crate) const DIRECTORIES: [&CStr; 3] = [c"/proc", c"/proc/1", c"/proc/1/task"];

pub(super) const VIEW: View = View {
    examine: Some(examine),
    ..View::named("hooks")
};

fn examine(_sources: &Sources, found: &mut KVVec<Found>, view: u8) -> Result<Examined, AllocError> {
    let functions = examine_functions(found, view)?;
    let directories = examine_directories(found, view)?;

    Ok((functions && directories).into())
}

/// Returns the symbol that a function which begins in this way leads to, or [`None`] if it is as the kernel has made it.
pub(crate) fn target<const N: usize>(entry: Entry) -> Option<Line<N>> {
    match entry {
        Entry::Plain => None,
        Entry::Breakpoint => Some(Line::escaped(b"breakpoint")),
        Entry::Redirected(address) => Some(name(&Symbol::of(address))),
    }
}

/// Looks at how the functions begin. Returns whether it could.
fn examine_functions(found: &mut KVVec<Found>, view: u8) -> Result<bool, AllocError> {
    let mut all = true;

    for function in FUNCTIONS {
        let Some(entry) = function.entry() else {
            all = false;
            continue;
        };
        let Some(target) = target(entry) else {
            continue;
        };
        const REASON: &str = "entry_patched";
        let one = Found::of_object(
            view,
            Weight::Observation,
            REASON,
            (function.address(), 0),
            Object {
                kind: "function",
                name: Line::escaped(function.name.as_bytes()),
                target,
            },
        );
        found.push(one, GFP_KERNEL)?;
    }
    Ok(all)
}

/// What of the operations of a directory is not the kernel's own.
pub(crate) struct Replaced {
    table: &'static str,
    address: usize,
    /// The symbol that it leads to.
    pub(crate) target: Line<NAME_LEN>,
}

/// Returns what of the operations of the directory at `path` is not the kernel's own, or [`None`] if it cannot be told.
pub(crate) fn replaced(path: &CStr) -> Option<Option<Replaced>> {
    let directory = Directory::open(path).ok()?;

    if directory.magic() != PROC_SUPER_MAGIC {
        return None;
    }
    let replaced = directory.operations().find_map(|(table, address)| {
        let symbol = Symbol::of(address);

        (symbol.place() != Place::Kernel).then(|| Replaced {
            table,
            address,
            target: name(&symbol),
        })
    });
    Some(replaced)
}

/// Looks at the operations of the directories. Returns whether it could.
fn examine_directories(found: &mut KVVec<Found>, view: u8) -> Result<bool, AllocError> {
    let mut all = true;

    for (i, path) in DIRECTORIES.into_iter().enumerate() {
        let Some(replaced) = replaced(path) else {
            all = false;
            continue;
        };
        let Some(replaced) = replaced else {
            continue;
        };
        let one = Found::of_object(
            view,
            Weight::Finding,
            replaced.table,
            (i, replaced.address),
            Object {
                kind: "file",
                name: Line::escaped(path.to_bytes()),
                target: replaced.target,
            },
        );
        found.push(one, GFP_KERNEL)?;
    }
    Ok(all)
}

/// The name of what an address leads to, without addresses, which the kernel's log does not show.
fn name<const N: usize>(symbol: &Symbol) -> Line<N> {
    match symbol.text() {
        Text::Unknown => Line::escaped(b"unknown"),
        Text::Known { name, module, .. } => {
            let mut line = Line::escaped(name);
            if let Some(module) = module {
                line.append(b"@");
                line.append(module);
            }
            line
        }
    }
}
