// SPDX-License-Identifier: GPL-2.0

//! What the device has been told and forgets when it is reset: kept, so that it can be told again.

use crate::{
    config::{
        self,
        Feature, //
    },
    control::Control,
    hash::Hashing,
    interface::Interface,
    pairs,
    rings::{
        self,
        Sizes, //
    }, //
};
use guest::net::{
    address::MacAddr,
    device::{
        self,
        Device, //
    },
    filter::RxMode, //
};
use kernel::{
    bitmap::BitmapVec,
    prelude::*, //
};

/// How many VLANs there can be.
const VLANS: usize = 4096;

/// What was told last. The number of queues, the address and whether packets may be merged are the stack's to remember.
pub(crate) struct Told {
    /// How large the rings are, if anything was said about it.
    pub(crate) rings: Option<Sizes>,
    /// What is received, if anything was said about it.
    pub(crate) filter: Option<Filter>,
    /// The VLANs that are received.
    vlans: BitmapVec,
    /// How packets are hashed, if they are.
    pub(crate) hashing: Option<Hashing>,
}

impl Told {
    /// Begins with nothing told but what `hashing` says.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(hashing: Option<Hashing>) -> Result<Self> {
        Ok(Self {
            rings: None,
            filter: None,
            vlans: BitmapVec::new(VLANS, GFP_KERNEL)?,
            hashing,
        })
    }

    /// Notes whether a VLAN is received.
    pub(crate) fn set_vlan(&mut self, vid: u16, member: bool) {
        let vid = usize::from(vid);

        if vid >= VLANS {
            return;
        }
        if member {
            self.vlans.set_bit(vid);
        } else {
            self.vlans.clear_bit(vid);
        }
    }

    /// Returns the VLANs that are received.
    fn vlans(&self) -> impl Iterator<Item = u16> + '_ {
        let mut start = 0;

        core::iter::from_fn(move || {
            let vid = (start < VLANS).then(|| self.vlans.next_bit(start))??;
            start = vid + 1;
            // CAST: Less than `VLANS`.
            Some(vid as u16)
        })
    }
}

/// What an interface is to receive.
pub(crate) struct Filter {
    promiscuous: bool,
    all_multicast: bool,
    unicast: KVec<[u8; 6]>,
    multicast: KVec<[u8; 6]>,
}

impl Filter {
    /// Copies what the stack says.
    pub(crate) fn new(mode: &RxMode<'_>) -> Result<Self> {
        let mut filter = Self {
            promiscuous: mode.promiscuous,
            all_multicast: mode.all_multicast,
            unicast: KVec::new(),
            multicast: KVec::new(),
        };

        for addr in mode.unicast.iter() {
            filter.unicast.push(addr, GFP_KERNEL)?;
        }
        for addr in mode.multicast.iter() {
            filter.multicast.push(addr, GFP_KERNEL)?;
        }
        Ok(filter)
    }

    /// Tells the device.
    pub(crate) fn tell(&self, control: &Control) -> Result {
        control.set_promiscuous(self.promiscuous)?;
        control.set_all_multicast(self.all_multicast)?;
        control.set_mac_table(&self.unicast, &self.multicast)
    }
}

/// Tells a device that has no address of its own the one that chance has given to the interface.
pub(crate) fn random_address(dev: &Device<Interface>) {
    let data = dev.data();

    if data.features.contains(Feature::Mac) {
        return;
    }
    if let (Some(control), Some(addr)) = (
        data.control(Feature::CtrlMacAddr),
        MacAddr::new(dev.address()),
    ) {
        if let Err(error) = control.set_mac(addr) {
            data.complain("its address", error);
        }
    }
}

/// Tells a device that has been reset everything again. Under the rtnl lock and the device's.
pub(crate) fn again(dev: &Device<Interface>) -> Result {
    let data = dev.data();

    let sizes = data.told.lock().rings;
    rings::again(&data, sizes)?;
    // CAST: It has been made of a 16-bit number.
    pairs::restart(dev, dev.channels().active as u16)?;
    if let (Some(control), Some(addr)) = (
        data.control(Feature::CtrlMacAddr),
        MacAddr::new(dev.address()),
    ) {
        control.set_mac(addr)?;
    }

    let told = data.told.lock();
    if let Some(control) = data.control(Feature::CtrlVlan) {
        for vid in told.vlans() {
            control.set_vlan(vid, true)?;
        }
    }
    data.coalescing.again()?;
    // A device begins with all that was negotiated.
    let merge = dev.features().contains(device::Features::GRO_HW);
    let offloads = config::guest_offloads(&data.features, merge);
    if offloads != config::guest_offloads(&data.features, true) {
        if let Some(control) = data.control(Feature::CtrlGuestOffloads) {
            control.set_guest_offloads(offloads)?;
        }
    }
    if let (Some(control), Some(filter)) = (data.control(Feature::CtrlRx), &told.filter) {
        filter.tell(control)?;
    }
    Ok(())
}
