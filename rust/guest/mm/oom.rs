// SPDX-License-Identifier: GPL-2.0

//! The last resort before the kernel kills a process for want of memory.
//!
//! C header: [`include/linux/oom.h`](srctree/include/linux/oom.h)

use crate::bindings;
use core::pin::Pin;
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// Among those who are asked, the order in which balloons are.
const PRIORITY: c_int = 80;

/// Has memory that it can give back when there is none left.
pub trait Relief: Send + Sync {
    /// Gives back pages, and returns how many these were. May sleep, for a moment; must not allocate memory.
    fn relieve(&self) -> usize;
}

/// Has the kernel ask a [`Relief`] while the value lives.
///
/// # Invariants
///
/// `block` is registered, once the value has been made.
#[pin_data(PinnedDrop)]
pub struct Notifier {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    relief: Arc<dyn Relief>,
}

// SAFETY: The C core has its own lock, and the relief is `Send`.
unsafe impl Send for Notifier {}

// SAFETY: Nothing can be done with a shared one.
unsafe impl Sync for Notifier {}

impl Notifier {
    /// Begins. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(relief: Arc<dyn Relief>) -> Result<Pin<KBox<Self>>> {
        let this = KBox::pin_init(
            pin_init!(Self {
                block <- Opaque::ffi_init(|block: *mut bindings::notifier_block| {
                    let value = bindings::notifier_block {
                        notifier_call: Some(notify),
                        priority: PRIORITY,
                        ..pin_init::zeroed()
                    };
                    // SAFETY: `block` is valid for writing.
                    unsafe { block.write(value) };
                }),
                relief,
            }),
            GFP_KERNEL,
        )?;

        // SAFETY: `block` is filled in and pinned, and stays so until it is unregistered.
        to_result(unsafe { bindings::register_oom_notifier(this.block.get()) })?;
        Ok(this)
    }
}

#[pinned_drop]
impl PinnedDrop for Notifier {
    fn drop(self: Pin<&mut Self>) {
        // Waits for a call that is under way. That of one that is not registered does nothing.
        // SAFETY: `block` is valid.
        unsafe { bindings::unregister_oom_notifier(self.block.get()) };
    }
}

/// There is no memory left. `freed` is a count of pages to add to.
extern "C" fn notify(
    block: *mut bindings::notifier_block,
    _unused: c_ulong,
    freed: *mut c_void,
) -> c_int {
    let block: *mut Opaque<bindings::notifier_block> = block.cast();
    // SAFETY: The C core calls with what was registered, which is the field of a `Notifier`.
    let this: *mut Notifier = unsafe { container_of!(block, Notifier, block) };
    // SAFETY: It is not dropped before it is unregistered, which waits for this call.
    let pages = unsafe { &*this }.relief.relieve();

    let freed: *mut c_ulong = freed.cast();
    // SAFETY: The C core passes the address of its count.
    unsafe { *freed = (*freed).saturating_add(pages) };
    // CAST: 1.
    bindings::NOTIFY_OK as c_int
}
