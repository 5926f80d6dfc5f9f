// SPDX-License-Identifier: GPL-2.0

//! Standby interfaces: each takes over while another one with the same address is away.
//!
//! The kernel's module `net_failover` makes a third interface of the two, which sends by the primary one while there is one. It
//! is loaded when a device asks for it, and not linked to: a module that uses this needs nothing but what it is itself.
//!
//! C header: [`include/net/net_failover.h`](srctree/include/net/net_failover.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

type Create = unsafe extern "C" fn(*mut bindings::net_device) -> *mut bindings::failover;
type Destroy = unsafe extern "C" fn(*mut bindings::failover);

// That these are their types.
const _: Option<Create> = Some(bindings::net_failover_create);
const _: Option<Destroy> = Some(bindings::net_failover_destroy);

/// A function of a module.
///
/// # Invariants
///
/// `address` is that of the symbol `name`, whose module is held for this value.
struct Symbol {
    name: &'static CStr,
    address: NonNull<c_void>,
}

// SAFETY: A symbol is bound to no thread.
unsafe impl Send for Symbol {}

impl Symbol {
    fn get(name: &'static CStr) -> Option<Self> {
        // SAFETY: The name is a string.
        let address = unsafe { bindings::__symbol_get(name.as_char_ptr()) };

        // INVARIANT: If it was found, a reference to its module has been taken.
        Some(Self {
            name,
            address: NonNull::new(address)?,
        })
    }
}

impl Drop for Symbol {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is such a symbol, and a reference to give back.
        unsafe { bindings::__symbol_put(self.name.as_char_ptr()) };
    }
}

/// The module `net_failover`, which stays as long as the value lives.
///
/// # Invariants
///
/// The symbols are `net_failover_create` and `net_failover_destroy`.
pub struct Module {
    create: Symbol,
    destroy: Symbol,
}

impl Module {
    /// Returns it if it is there or can be loaded. Sleeps.
    pub fn load() -> Option<Self> {
        Self::get().or_else(|| {
            // Whether that has worked, the symbols show.
            // SAFETY: The name is a string without anything to be replaced.
            let _ = unsafe { bindings::__request_module(true, c"net_failover".as_char_ptr()) };
            Self::get()
        })
    }

    fn get() -> Option<Self> {
        // INVARIANT: By their names.
        Some(Self {
            create: Symbol::get(c"net_failover_create")?,
            destroy: Symbol::get(c"net_failover_destroy")?,
        })
    }
}

/// The interface that is made of a standby and a primary one.
///
/// # Invariants
///
/// `failover` has been made by `module`.
pub(super) struct Failover {
    failover: NonNull<bindings::failover>,
    module: Module,
}

// SAFETY: It is bound to no thread.
unsafe impl Send for Failover {}

impl Failover {
    /// Makes it for the standby interface `dev`. Takes the rtnl lock.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], and what registering a device says.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device with a parent. It is registered after this, and unregistered before the value is dropped.
    pub(super) unsafe fn new(module: Module, dev: *mut bindings::net_device) -> Result<Self> {
        // SAFETY: By the type invariant of `Module` the symbol is this function.
        let create =
            unsafe { core::mem::transmute::<*mut c_void, Create>(module.create.address.as_ptr()) };

        // SAFETY: By the safety requirements.
        let failover = from_err_ptr(unsafe { create(dev) })?;
        // INVARIANT: It has just been made.
        Ok(Self {
            failover: NonNull::new(failover).ok_or(EINVAL)?,
            module,
        })
    }
}

impl Drop for Failover {
    fn drop(&mut self) {
        // SAFETY: By the type invariant of `Module` the symbol is this function.
        let destroy = unsafe {
            core::mem::transmute::<*mut c_void, Destroy>(self.module.destroy.address.as_ptr())
        };

        // SAFETY: By the type invariant it was made by the same module, and this is the only time.
        unsafe { destroy(self.failover.as_ptr()) };
    }
}
