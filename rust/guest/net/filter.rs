// SPDX-License-Identifier: GPL-2.0

//! What an interface is to receive.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use crate::bindings;
use core::ptr::addr_of;

/// What an interface is to receive, besides what goes to its own address and to all.
pub struct RxMode<'a> {
    /// Everything.
    pub promiscuous: bool,
    /// Every multicast packet.
    pub all_multicast: bool,
    /// Packets to these addresses.
    pub unicast: AddressList<'a>,
    /// Packets to these groups.
    pub multicast: AddressList<'a>,
}

/// A list of Ethernet addresses of the stack.
///
/// # Invariants
///
/// The list is valid and nobody changes it. All its addresses are Ethernet addresses.
#[derive(Clone, Copy)]
pub struct AddressList<'a>(&'a bindings::netdev_hw_addr_list);

impl<'a> AddressList<'a> {
    /// # Safety
    ///
    /// `list` is a valid list of an Ethernet device, which nobody changes during `'a`.
    pub(super) unsafe fn from_raw(list: *const bindings::netdev_hw_addr_list) -> Self {
        // INVARIANT: By the safety requirements.
        // SAFETY: As above.
        Self(unsafe { &*list })
    }

    /// Returns the addresses.
    pub fn iter(self) -> impl Iterator<Item = [u8; 6]> + 'a {
        let head = addr_of!(self.0.list);
        let mut entry = self.0.list.next.cast_const();

        core::iter::from_fn(move || {
            if core::ptr::eq(entry, head) {
                return None;
            }
            // SAFETY: By the type invariant each entry that is not the head is the `list` of a `struct netdev_hw_addr`.
            let addr = unsafe { kernel::container_of!(entry, bindings::netdev_hw_addr, list) };
            // SAFETY: As above.
            entry = unsafe { (*addr).list.next };
            // SAFETY: As above; an Ethernet address is six bytes of the array, which is longer.
            Some(unsafe { addr_of!((*addr).addr).cast::<[u8; 6]>().read() })
        })
    }
}
