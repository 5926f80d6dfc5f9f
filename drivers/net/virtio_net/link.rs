// SPDX-License-Identifier: GPL-2.0

//! The link's status.
//!
//! The device tells of a change by an interrupt, in which its configuration must not be read: a work item does that.

use crate::{
    config::{
        Feature,
        LINK_UP,
        STATUS, //
    },
    interface::Interface, //
};
use guest::{
    net::device::Device,
    virtio,
    workqueue::{
        disable_sync,
        system_dfl, //
    }, //
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
        Work,
        WorkItem, //
    }, //
};

/// What follows the link of one device.
#[pin_data]
pub(crate) struct Monitor {
    vdev: ARef<virtio::Device>,
    dev: ARef<Device<Interface>>,
    #[pin]
    work: Work<Monitor>,
}

impl_has_work! {
    impl HasWork<Self> for Monitor { self.work }
}

impl WorkItem for Monitor {
    type Pointer = Arc<Monitor>;

    fn run(this: Arc<Monitor>) {
        this.check();
    }
}

impl Monitor {
    pub(crate) fn new(
        vdev: ARef<virtio::Device>,
        dev: ARef<Device<Interface>>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                vdev,
                dev,
                work <- new_work!("virtio_net_rust::Monitor::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Looks at the link soon. Any context.
    pub(crate) fn check_soon(self: &Arc<Self>) {
        let _ = system_dfl().enqueue(self.clone());
    }

    /// Looks at the link now, and no more when it is told to later.
    pub(crate) fn stop(self: &Arc<Self>) {
        disable_sync(self);
    }

    /// Tells the stack of the link's status. A device that does not know its link has one that is always up.
    fn check(&self) {
        let up = !self.dev.data().features.contains(Feature::Status)
            || self.vdev.read(STATUS) & LINK_UP != 0;

        if up {
            self.dev.carrier_on();
        } else {
            self.dev.carrier_off();
        }
    }
}
