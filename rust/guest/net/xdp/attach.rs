// SPDX-License-Identifier: GPL-2.0

//! Attaching programs to a device.

use crate::{
    bindings,
    net::{
        device::{
            Locked,
            Operations, //
        },
        features::Features,
        refusal::Refusal,
        xsk, //
    }, //
};
use core::ptr::{
    addr_of,
    NonNull, //
};
use kernel::prelude::*;

/// Whether a device has a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Attached {
    /// It has none.
    Nothing = 0,
    /// It has one that wants each packet in one piece.
    Linear = 1,
    /// It has one that takes packets in fragments.
    Fragments = 2,
}

impl Attached {
    pub(in crate::net) fn from_number(number: i32) -> Self {
        match number {
            0 => Self::Nothing,
            1 => Self::Linear,
            _ => Self::Fragments,
        }
    }
}

impl<T: Operations> Locked<T> {
    /// Attaches a program, or detaches the one there is, and drops that one's reference. Under the rtnl lock and the device's.
    ///
    /// # Safety
    ///
    /// `program` is null or a valid program, a reference of which passes to the device on success.
    unsafe fn set_program(
        &self,
        program: *mut bindings::bpf_prog,
    ) -> core::result::Result<(), Refusal> {
        let before = self.attached();

        if let Some(program) = NonNull::new(program) {
            // SAFETY: By the safety requirements; it stays valid while this runs.
            let attached = match unsafe { super::Program::from_raw(program) }.takes_fragments() {
                true => Attached::Fragments,
                false => Attached::Linear,
            };
            T::check_program(self, attached)?;

            // Before it runs: what comes merged is nothing for a program.
            self.set_attached(attached);
            self.update_features();
            if self.features().contains(Features::GRO_HW) {
                self.set_attached(before);
                self.update_features();
                return Err(Refusal::new(
                    EIO,
                    c"the device does not stop merging packets",
                ));
            }
        }

        let mut old = core::ptr::null_mut();
        for napi in self.receive() {
            old = napi.set_program(program);
        }
        if !old.is_null() {
            // SAFETY: All instances had the same program, with one reference, and none begins to use it any more. A poll that
            // still does is a reader that the end of the program waits for.
            unsafe { bindings::bpf_prog_put(old) };
        }
        if program.is_null() {
            self.set_attached(Attached::Nothing);
            if self.is_registered() {
                self.update_features();
            }
        }
        Ok(())
    }

    /// Has the stack work out anew what the device is to do. Under the rtnl lock and the device's.
    fn update_features(&self) {
        // SAFETY: The device is valid; the callers hold the lock.
        unsafe { bindings::netdev_update_features(self.as_raw()) };
    }
}

/// `ndo_bpf`.
///
/// # Safety
///
/// The stack calls it, with a device of this type and a valid command, under the rtnl lock and the device's.
pub(in crate::net) unsafe extern "C" fn bpf_callback<T: Operations>(
    dev: *mut bindings::net_device,
    command: *mut bindings::netdev_bpf,
) -> c_int {
    // SAFETY: The stack calls with a valid device of this type, and its lock held.
    let dev = unsafe { Locked::<T>::from_raw(dev) };
    // SAFETY: The stack calls with a valid command.
    match unsafe { (*command).command } {
        bindings::bpf_netdev_command_XDP_SETUP_PROG => {}
        bindings::bpf_netdev_command_XDP_SETUP_XSK_POOL if T::HAS_SOCKET_QUEUES => {
            // SAFETY: As above; with this command this member of the union is the one in use.
            let setup = unsafe { addr_of!((*command).__bindgen_anon_1.xsk).read() };
            // SAFETY: The stack calls under the rtnl lock and the device's, and unbinds a pool before it goes.
            return unsafe { xsk::setup_callback(dev, setup.pool, setup.queue_id) };
        }
        _ => return EINVAL.to_errno(),
    }

    // SAFETY: As above; with this command this member of the union is the one in use.
    let setup = unsafe { addr_of!((*command).__bindgen_anon_1.__bindgen_anon_1).read() };
    // SAFETY: The stack gives a reference to the program, if there is one, and takes it back after an error.
    match unsafe { dev.set_program(setup.prog) } {
        Ok(()) => 0,
        // SAFETY: The stack gives null, or what is valid while it waits.
        Err(refusal) => unsafe { refusal.tell(setup.extack) },
    }
}
