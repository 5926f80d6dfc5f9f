// SPDX-License-Identifier: GPL-2.0

//! Bindings of the C headers that the kernel crate's own bindings lack.
//!
//! A type that `kernel::bindings` defines in full is that type here too; a type that it only names (`net_device`,
//! `napi_struct`) or lacks (`virtio_device`) is generated from [`bindings_helper.h`]. Only the files of this crate may use
//! these items.
//!
//! [`bindings_helper.h`]: ../bindings/bindings_helper.h

#![allow(
    clippy::all,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    dead_code,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks
)]

mod bindings_raw {
    use ::kernel::ffi;
    use pin_init::MaybeZeroable;

    // What is defined in this module takes precedence over both globs.
    pub(crate) use super::bindings_helper::*;
    pub(crate) use ::kernel::bindings::*;

    // Types that `bindgen_parameters` blocks, defined by hand as in the kernel crate.
    type __kernel_size_t = usize;
    type __kernel_ssize_t = isize;
    type __kernel_ptrdiff_t = isize;

    include!(concat!(env!("GUEST_BINDINGS"), "/bindings_generated.rs"));
}

mod bindings_helper {
    use super::bindings_raw::*;
    use ::kernel::ffi;

    include!(concat!(
        env!("GUEST_BINDINGS"),
        "/bindings_helpers_generated.rs"
    ));
}

pub(crate) use self::bindings_raw::*;
