// SPDX-License-Identifier: GPL-2.0

//! CPUs that come and go.
//!
//! A module that wants to hear of that has one [`Hotplug`], made before its drivers and dropped after them, and an [`Instance`] for
//! each of its devices.
//!
//! C header: [`include/linux/cpuhotplug.h`](srctree/include/linux/cpuhotplug.h)

use crate::bindings;
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// A place among the kernel's own: after all that other CPUs need to work.
const PLACE: bindings::cpuhp_state = bindings::cpuhp_state_CPUHP_AP_ONLINE_DYN;

/// The state that the module was given; 0 if it has none.
static STATE: Atomic<i32> = Atomic::new(0);

/// Hears of CPUs.
pub trait Watcher: Send + Sync {
    /// A CPU is coming or going: after [`settle`] it has. Process context; nothing that a CPU waits for may be waited for here.
    fn changed(&self);
}

/// The module's right to hear of CPUs.
///
/// # Invariants
///
/// `STATE` is a state that was set up with this module's callback.
pub struct Hotplug(());

impl Hotplug {
    /// Asks for it, under this name. Sleeps.
    ///
    /// # Errors
    ///
    /// [`EBUSY`]: the module has it already. [`ENOSPC`]: too many have it.
    pub fn new(name: &'static CStr) -> Result<Self> {
        if STATE.load(Relaxed) != 0 {
            return Err(EBUSY);
        }

        // SAFETY: C's `cpuhp_setup_state_multi()` casts in the same way: a state with instances calls with a node as well.
        let callback: unsafe extern "C" fn(c_uint) -> c_int =
            unsafe { core::mem::transmute(changed_callback as *const ()) };
        // SAFETY: The name is static, and the callback is that of a state with instances, as the last argument says.
        let state = unsafe {
            bindings::__cpuhp_setup_state(
                PLACE,
                name.as_char_ptr(),
                false,
                Some(callback),
                Some(callback),
                true,
            )
        };
        to_result(state.min(0))?;

        // INVARIANT: It has just been set up.
        STATE.store(state, Relaxed);
        Ok(Self(()))
    }
}

impl Drop for Hotplug {
    fn drop(&mut self) {
        // CAST: A state that was set up is not negative.
        let state = STATE.xchg(0, Relaxed) as bindings::cpuhp_state;

        // SAFETY: By the type invariant the state is this module's. The kernel leaves it alone if there are instances.
        unsafe { bindings::__cpuhp_remove_state(state, false) };
    }
}

/// Passes on to a [`Watcher`] what happens, until it is dropped.
///
/// # Invariants
///
/// `node` is an instance of `state`.
#[pin_data(PinnedDrop)]
pub struct Instance {
    #[pin]
    node: Opaque<bindings::hlist_node>,
    state: bindings::cpuhp_state,
    watcher: Arc<dyn Watcher>,
}

// SAFETY: The node is the C core's, which is bound to no thread.
unsafe impl Send for Instance {}

// SAFETY: As above; the watcher is `Sync`.
unsafe impl Sync for Instance {}

impl Instance {
    /// Begins. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENODEV`]: the module has no [`Hotplug`].
    pub fn new(watcher: Arc<dyn Watcher>) -> impl PinInit<Self, Error> {
        let init = try_pin_init!(Self {
            node: Opaque::zeroed(),
            // CAST: A state that was set up is not negative.
            state: match STATE.load(Relaxed) {
                0 => return Err(ENODEV),
                state => state as bindings::cpuhp_state,
            },
            watcher,
        }? Error);

        init.pin_chain(|this| {
            // INVARIANT: It is one now.
            // SAFETY: `node` is pinned and zeroed, and `drop()` takes it out before it goes.
            to_result(unsafe {
                bindings::__cpuhp_state_add_instance(this.state, this.node.get(), false)
            })
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Instance {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant.
        unsafe { bindings::__cpuhp_state_remove_instance(self.state, self.node.get(), false) };
    }
}

/// # Safety
///
/// The kernel calls it, with the node of an [`Instance`].
unsafe extern "C" fn changed_callback(_cpu: c_uint, node: *mut bindings::hlist_node) -> c_int {
    let node: *mut Opaque<bindings::hlist_node> = node.cast();
    // SAFETY: The kernel calls with the node of an `Instance`, which waits for it before it goes.
    let instance = unsafe { &*container_of!(node, Instance, node) };

    instance.watcher.changed();
    0
}

/// Waits until no CPU is coming or going. Sleeps; not in [`Watcher::changed`].
pub fn settle() {
    // SAFETY: No requirements but that no CPU waits for the caller.
    unsafe { bindings::cpus_read_lock() };
    // SAFETY: Locked above.
    unsafe { bindings::cpus_read_unlock() };
}
