// SPDX-License-Identifier: GPL-2.0

//! What the user is told of a request that is refused.
//!
//! C header: [`include/linux/netlink.h`](srctree/include/linux/netlink.h)

use crate::bindings;
use kernel::prelude::*;

/// Why a request is refused, for the user.
pub struct Refusal {
    /// What the request fails with.
    pub error: Error,
    /// What is wrong and what to do, in one line without an end.
    pub message: Option<&'static CStr>,
}

impl Refusal {
    /// Refuses for a reason that `message` gives.
    pub fn new(error: Error, message: &'static CStr) -> Self {
        Self {
            error,
            message: Some(message),
        }
    }

    /// Tells the user, and returns what a callback of the stack returns then.
    ///
    /// # Safety
    ///
    /// `extack` is null, or valid and for this request.
    pub(super) unsafe fn tell(self, extack: *mut bindings::netlink_ext_ack) -> c_int {
        if let Some(message) = self.message.filter(|_| !extack.is_null()) {
            // SAFETY: It is valid; the message is as long as this module is loaded, which the stack has read it before.
            unsafe { (*extack)._msg = message.as_char_ptr() };
        }
        self.error.to_errno()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            error,
            message: None,
        }
    }
}
