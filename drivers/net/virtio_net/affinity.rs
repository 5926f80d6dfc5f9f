// SPDX-License-Identifier: GPL-2.0

//! Which CPUs the queues belong to, when CPUs come and go.

use crate::{
    interface::Interface,
    pairs, //
};
use guest::{
    cpu::hotplug::{
        settle,
        Watcher, //
    },
    net::device::Device,
    workqueue::disable_sync, //
};
use kernel::{
    impl_has_work,
    new_work,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    workqueue::{
        system_freezable,
        Work,
        WorkItem, //
    }, //
};

/// What spreads the queues of one device over the CPUs that there are.
#[pin_data]
pub(crate) struct Spreader {
    dev: ARef<Device<Interface>>,
    #[pin]
    work: Work<Spreader>,
}

impl_has_work! {
    impl HasWork<Self> for Spreader { self.work }
}

impl WorkItem for Spreader {
    type Pointer = Arc<Spreader>;

    fn run(this: Arc<Spreader>) {
        settle();
        let spread = this.dev.with_lock(|dev| {
            // CAST: It has been made of a 16-bit number.
            pairs::spread(dev, dev.channels().active as u16)
        });
        if let Err(error) = spread {
            this.dev
                .data()
                .complain("which CPUs its queues belong to", error);
        }
    }
}

/// Passes on what happens, as long as there is somebody to pass it on to.
pub(crate) struct Notice(pub(crate) Arc<Spreader>);

impl Watcher for Notice {
    /// That takes locks of whom the CPU may wait for, so it is done later.
    fn changed(&self) {
        let _ = system_freezable().enqueue(self.0.clone());
    }
}

impl Spreader {
    /// Makes what spreads the queues of `dev`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(dev: ARef<Device<Interface>>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                dev,
                work <- new_work!("virtio_net_rust::Spreader::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Ends all activity.
    pub(crate) fn stop(self: &Arc<Self>) {
        disable_sync(self);
    }
}
