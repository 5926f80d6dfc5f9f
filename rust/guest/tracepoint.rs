// SPDX-License-Identifier: GPL-2.0

//! Trace events of the kernel itself, and the functions that are called when one happens: its probes.
//!
//! Whoever uses an event registers a probe with it: the kernel's own tracing, BPF programs, and modules. The table of the probes of an event
//! is replaced as a whole whenever one comes or goes, and freed some time after that.
//!
//! Events of modules cannot be enumerated: the function for that is not exported.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)

use crate::{
    bindings,
    sched::peek::word, //
};

use core::{
    mem::{
        offset_of,
        size_of, //
    },
    ptr::NonNull, //
};

use kernel::{
    prelude::*,
    sync::{
        barrier::{
            smp_mb,
            Read, //
        },
        rcu, //
    },
};

/// Most probes that an event is believed to have.
const MAX_PROBES: usize = 1 << 8;

/// A trace event of the kernel itself.
///
/// # Invariants
///
/// It points to one of the kernel's own events, which never go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracepoint(NonNull<bindings::tracepoint>);

impl Tracepoint {
    /// Calls `f` with each event.
    pub fn for_each<F: FnMut(Self)>(mut f: F) {
        /// # Safety
        ///
        /// `event` must be one of the kernel's own events, and `data` point to an `F` that nobody else uses.
        unsafe extern "C" fn call<F: FnMut(Tracepoint)>(
            event: *mut bindings::tracepoint,
            data: *mut c_void,
        ) {
            // SAFETY: By the safety requirements.
            let f = unsafe { &mut *data.cast::<F>() };

            if let Some(event) = NonNull::new(event) {
                // INVARIANT: By the safety requirements.
                f(Tracepoint(event));
            }
        }

        // SAFETY: `call` is called with each of the kernel's own events and `f`, before the function returns.
        unsafe { bindings::for_each_kernel_tracepoint(Some(call::<F>), (&raw mut f).cast()) };
    }

    /// Looks an event up by its name.
    pub fn find(name: &CStr) -> Option<Self> {
        let mut found = None;

        Self::for_each(|event| {
            if event.name() == name {
                found = Some(event);
            }
        });
        found
    }

    /// What tells it from other events.
    pub fn id(self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Its name.
    pub fn name(self) -> &'static CStr {
        // SAFETY: By the type invariants, it is an event, whose name is a string and stays.
        unsafe { CStr::from_char_ptr((*self.0.as_ptr()).name) }
    }

    /// Calls `f` with the address of each probe that the event has now. The table is read as what may not be there: while it is
    /// being replaced, `f` may be called with anything, and the result is `false`; so it is if the table has no end.
    pub fn probes(self, _guard: &rcu::Guard, mut f: impl FnMut(usize)) -> bool {
        let at = self.id() + offset_of!(bindings::tracepoint, funcs);
        let table = match word(at) {
            Some(0) => return true,
            Some(table) => table,
            None => return false,
        };

        for i in 0..MAX_PROBES {
            let entry = table.wrapping_add(i * size_of::<bindings::tracepoint_func>());
            let entry = entry.wrapping_add(offset_of!(bindings::tracepoint_func, func));

            match word(entry) {
                Some(0) => {
                    // A table is freed after another one has taken its place.
                    smp_mb(Read);
                    return word(at) == Some(table);
                }
                Some(probe) => f(probe),
                None => return false,
            }
        }
        false
    }

    /// The kernel's structure.
    pub(crate) fn as_ptr(self) -> *mut bindings::tracepoint {
        self.0.as_ptr()
    }
}
