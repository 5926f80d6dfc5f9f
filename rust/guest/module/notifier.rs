// SPDX-License-Identifier: GPL-2.0

//! Modules that come and go.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use super::ModuleId;
use crate::bindings;

use core::pin::Pin;

use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// Is told of modules that come and go.
pub trait Watch: Send + Sync + 'static {
    /// A module is in use from now on. It stays at least until this returns. May sleep.
    fn live(&self, module: ModuleId);

    /// A module will be gone: it was in use, or could not be brought into use. May sleep.
    fn going(&self, module: ModuleId);
}

/// Has the kernel tell a [`Watch`] of modules while the value lives.
///
/// # Invariants
///
/// `block` is registered, once the value has been made.
#[pin_data(PinnedDrop)]
pub struct Notifier<T: Watch> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    watch: T,
}

// SAFETY: The C core has its own lock, and who is told is `Send`.
unsafe impl<T: Watch> Send for Notifier<T> {}
// SAFETY: What can be done with a shared one is what can be done with a shared `T`, which is `Sync`.
unsafe impl<T: Watch> Sync for Notifier<T> {}

impl<T: Watch> Notifier<T> {
    /// Begins. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(watch: T) -> Result<Pin<KBox<Self>>> {
        let this = KBox::pin_init(
            pin_init!(Self {
                block <- Opaque::ffi_init(|block: *mut bindings::notifier_block| {
                    let value = bindings::notifier_block {
                        notifier_call: Some(Self::notify),
                        ..pin_init::zeroed()
                    };
                    // SAFETY: `block` is valid for writing.
                    unsafe { block.write(value) };
                }),
                watch,
            }),
            GFP_KERNEL,
        )?;

        // SAFETY: `block` is filled in and pinned, and stays so until it is unregistered.
        to_result(unsafe { bindings::register_module_notifier(this.block.get()) })?;
        Ok(this)
    }

    /// Who is told.
    pub fn watch(&self) -> &T {
        &self.watch
    }

    /// # Safety
    ///
    /// Called by the kernel for what was registered, with a module.
    unsafe extern "C" fn notify(
        block: *mut bindings::notifier_block,
        state: c_ulong,
        module: *mut c_void,
    ) -> c_int {
        let block: *mut Opaque<bindings::notifier_block> = block.cast();
        // SAFETY: By the safety requirements, this is the field of a `Notifier`.
        let this: *mut Self = unsafe { container_of!(block, Self, block) };
        // SAFETY: It is not dropped before it is unregistered, which waits for this call.
        let this = unsafe { &*this };
        let module = ModuleId(module as usize);

        // CAST: States are small numbers.
        match state as bindings::module_state {
            bindings::module_state_MODULE_STATE_LIVE => this.watch.live(module),
            bindings::module_state_MODULE_STATE_GOING => this.watch.going(module),
            _ => {}
        }
        // CAST: 1.
        bindings::NOTIFY_OK as c_int
    }
}

#[pinned_drop]
impl<T: Watch> PinnedDrop for Notifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // Waits for a call that is under way. That of one that is not registered does nothing.
        // SAFETY: `block` is valid.
        unsafe { bindings::unregister_module_notifier(self.block.get()) };
    }
}
