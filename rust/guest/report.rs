// SPDX-License-Identifier: GPL-2.0

//! Ways to tell the user: the log of the kernel under another name than the module's, the audit trail, and an end of it all.
//!
//! C headers: [`include/linux/printk.h`](srctree/include/linux/printk.h), [`include/linux/audit.h`](srctree/include/linux/audit.h),
//! [`include/linux/panic.h`](srctree/include/linux/panic.h)

use crate::bindings;

use kernel::{
    fmt,
    prelude::*,
    print::{
        call_printk,
        format_strings, //
    },
};

/// What lines in the log of the kernel begin with.
///
/// # Invariants
///
/// Ends with a NUL.
pub struct Tag<const N: usize>([u8; N]);

impl<const N: usize> Tag<N> {
    /// Makes a tag of `text`, or of as much of it as there is room for.
    pub fn new(text: &str) -> Self {
        let mut tag = [0; N];
        let room = N.saturating_sub(1);

        for (to, from) in tag.iter_mut().take(room).zip(text.bytes()) {
            *to = from;
        }
        // INVARIANT: The last byte is not written to.
        Tag(tag)
    }

    /// Prints a line that somebody should look at now.
    pub fn crit(&self, args: fmt::Arguments<'_>) {
        // SAFETY: The format is one of the fixed ones, and by the type invariants, the tag ends with a NUL.
        unsafe { call_printk(&format_strings::CRIT, &self.0, args) };
    }

    /// Prints a line that is worth to be known.
    pub fn notice(&self, args: fmt::Arguments<'_>) {
        // SAFETY: The format is one of the fixed ones, and by the type invariants, the tag ends with a NUL.
        unsafe { call_printk(&format_strings::NOTICE, &self.0, args) };
    }
}

/// Writes a record of the kind `AUDIT_KERNEL_OTHER` with `text` into the audit trail, if that is on. Sleeps.
pub fn audit(text: &CStr) {
    // SAFETY: The variable may be read at any time.
    if unsafe { (&raw const bindings::audit_enabled).read_volatile() } == 0 {
        return;
    }
    // SAFETY: The format takes one string, which the function copies.
    unsafe {
        bindings::audit_log(
            core::ptr::null_mut(),
            bindings::GFP_KERNEL,
            // CAST: A small number.
            bindings::AUDIT_KERNEL_OTHER as c_int,
            c"%s".as_char_ptr(),
            text.as_char_ptr(),
        )
    };
}

/// Stops the system with a message. For users who have asked for that.
pub fn stop(text: &CStr) -> ! {
    // SAFETY: The format takes one string.
    unsafe { bindings::panic(c"%s".as_char_ptr(), text.as_char_ptr()) }
}
