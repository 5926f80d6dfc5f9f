// SPDX-License-Identifier: GPL-2.0

//! What the kernel says to be.
//!
//! C header: [`include/linux/utsname.h`](srctree/include/linux/utsname.h)

use crate::bindings;

/// Length of the longest release, with a NUL.
pub const RELEASE_LEN: usize = bindings::__NEW_UTS_LEN as usize + 1;

/// The release of the running kernel, as `uname -r` prints it, up to the first NUL.
pub fn release() -> [u8; RELEASE_LEN] {
    // SAFETY: The first namespace is always there, and the release in it never changes.
    unsafe { (&raw const bindings::init_uts_ns.name.release).read() }
}
