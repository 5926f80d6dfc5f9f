// SPDX-License-Identifier: GPL-2.0

//! Crate guest


#[path = "../bindings/lib.rs"]
#[doc(hidden)]
mod bindings;

/// f
pub fn f() -> usize {
    core::mem::size_of::<bindings::net_device>() + core::mem::size_of::<bindings::virtio_device>() 
}
