// SPDX-License-Identifier: GPL-2.0

//! Trace events.
//!
//! `declare_trace!` of the `kernel` crate knows only the events of the kernel itself. Those of a module here are defined in C, in
//! `rust/trace/`, together with a function for each that emits it; the functions of this module call those. They are inlined, as
//! each event is a part of only the module that uses it.

use crate::bindings;

use kernel::prelude::*;

/// Events of `guest_integrity`.
pub mod guest_integrity {
    use super::*;

    /// A task that one view has and another lacks; `comm` is free of spaces.
    #[inline(always)]
    pub fn finding(pid: i32, tgid: i32, comm: &CStr, cpu: u32, view: &CStr, reason: &CStr) {
        // SAFETY: The strings are valid during the call; the event copies them.
        unsafe {
            bindings::guest_trace_integrity_finding(
                pid,
                tgid,
                comm.as_char_ptr(),
                cpu,
                view.as_char_ptr(),
                reason.as_char_ptr(),
            )
        }
    }

    /// Something that is no task: what it is and its name, where it leads to, and what is wrong with it. `kind` is that of the
    /// record.
    #[inline(always)]
    pub fn object(kind: &CStr, object: &CStr, target: &CStr, view: &CStr, reason: &CStr) {
        // SAFETY: The strings are valid during the call; the event copies them.
        unsafe {
            bindings::guest_trace_integrity_object(
                kind.as_char_ptr(),
                object.as_char_ptr(),
                target.as_char_ptr(),
                view.as_char_ptr(),
                reason.as_char_ptr(),
            )
        }
    }

    /// A scan is done.
    #[inline(always)]
    pub fn scan(
        scan: u64,
        duration_ns: u64,
        queued: u32,
        listed: u32,
        findings: u32,
        complete: bool,
    ) {
        // SAFETY: No requirements.
        unsafe {
            bindings::guest_trace_integrity_scan(
                scan,
                duration_ns,
                queued,
                listed,
                findings,
                complete,
            )
        }
    }
}

/// Events of `virtio_balloon_rust`. `device` is the number of the device on the virtio bus.
pub mod virtio_balloon {
    use super::*;

    /// The device was given so many page frames; `pending` is how many it has not answered for.
    #[inline(always)]
    pub fn inflate(device: i32, pages: u32, pending: u32) {
        // SAFETY: No requirements.
        unsafe { bindings::guest_trace_balloon_inflate(device, pages, pending) }
    }

    /// The device was told to give back so many page frames; `pending` is how many it has not answered for.
    #[inline(always)]
    pub fn deflate(device: i32, pages: u32, pending: u32) {
        // SAFETY: No requirements.
        unsafe { bindings::guest_trace_balloon_deflate(device, pages, pending) }
    }

    /// The device knows of so much free memory.
    #[inline(always)]
    pub fn report(device: i32, bytes: u64) {
        // SAFETY: No requirements.
        unsafe { bindings::guest_trace_balloon_report(device, bytes) }
    }

    /// The device asks for `wanted` page frames and may have `allowed`, because of `limit`.
    #[inline(always)]
    pub fn target(device: i32, wanted: u32, allowed: u32, limit: &CStr) {
        // SAFETY: The string is valid during the call; the event copies it.
        unsafe {
            bindings::guest_trace_balloon_target(device, wanted, allowed, limit.as_char_ptr())
        }
    }
}
