// SPDX-License-Identifier: GPL-2.0

//! The link's status.
//!
//! The device tells of a change by an interrupt, in which its configuration must not be read: a work item does that.

use crate::{
    config::{
        Feature,
        ANNOUNCE,
        DUPLEX,
        LINK_UP,
        SPEED,
        STATUS, //
    },
    interface::Interface, //
};
use guest::{
    net::{
        device::Device,
        ethtool, //
    },
    virtio,
    workqueue::{
        disable_sync,
        flush,
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

    /// Waits for a look that is under way. The caller sees to it that nobody asks for another one.
    pub(crate) fn flush(self: &Arc<Self>) {
        flush(self);
    }

    /// Looks at the link now, and no more when it is told to later.
    pub(crate) fn stop(self: &Arc<Self>) {
        disable_sync(self);
    }

    /// Tells the stack of the link's status, and the neighbours where the device is if it asks for that (VirtIO 1.3,
    /// 5.1.6.5.4). A device that does not know its link has one that is always up.
    fn check(&self) {
        let data = self.dev.data();
        let status = if data.features.contains(Feature::Status) {
            self.vdev.read(STATUS)
        } else {
            LINK_UP
        };

        if status & ANNOUNCE != 0 {
            if let Some(control) = data.control(Feature::GuestAnnounce) {
                self.dev.notify_peers();
                if let Err(error) = control.acknowledge_announcement() {
                    dev_warn!(
                        self.vdev,
                        "the device does not know that it was announced: {error:?}\n"
                    );
                }
            }
        }
        if status & LINK_UP != 0 {
            if data.features.contains(Feature::SpeedDuplex) {
                data.link.set(ethtool::Link {
                    speed: self.vdev.read(SPEED),
                    duplex: self.vdev.read(DUPLEX),
                });
            }
            self.dev.carrier_on();
        } else {
            self.dev.carrier_off();
        }
    }
}
