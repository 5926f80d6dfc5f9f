// SPDX-License-Identifier: GPL-2.0

//! Ethernet addresses.
//!
//! C header: [`include/linux/etherdevice.h`](srctree/include/linux/etherdevice.h)

use crate::bindings;
use kernel::fmt;

/// An address that an interface can have: neither multicast nor all zeros.
///
/// # Invariants
///
/// `is_valid_ether_addr()` holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Checks an address that came from outside.
    pub fn new(bytes: [u8; 6]) -> Option<Self> {
        // C reads the address as a 32-bit and a 16-bit word, for which the alignment of bytes is enough.
        // SAFETY: `bytes` is readable for six bytes.
        let valid = unsafe { bindings::is_valid_ether_addr(bytes.as_ptr()) };

        // INVARIANT: It has just been checked.
        valid.then_some(Self(bytes))
    }

    /// Returns the bytes, in the order of transmission.
    pub fn to_bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
