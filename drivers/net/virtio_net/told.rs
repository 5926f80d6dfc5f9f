// SPDX-License-Identifier: GPL-2.0

//! What the device has been told and forgets when it is reset: kept, so that it can be told again.

use crate::{
    config::{
        self,
        Feature, //
    },
    control::Control,
    interface::Interface,
    pairs, //
};
use guest::net::{
    address::MacAddr,
    device::Device,
    filter::RxMode, //
};
use kernel::prelude::*;

/// What was told last. The numbers of queues and the address are the stack's to remember.
pub(crate) struct Told {
    /// What is received, if anything was said about it.
    pub(crate) filter: Option<Filter>,
    /// The VLANs that are received.
    pub(crate) vlans: Vlans,
    /// Packets of a stream may be merged.
    pub(crate) merge: bool,
}

impl Told {
    /// What a device takes for granted.
    pub(crate) const fn new() -> Self {
        Self {
            filter: None,
            vlans: Vlans([0; VLAN_WORDS]),
            merge: true,
        }
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

/// How many words the set of all VLANs has.
const VLAN_WORDS: usize = 4096 / 64;

/// A set of VLANs.
pub(crate) struct Vlans([u64; VLAN_WORDS]);

impl Vlans {
    /// Puts a VLAN into the set, or takes it out.
    pub(crate) fn set(&mut self, vid: u16, member: bool) {
        if let Some(word) = self.0.get_mut(usize::from(vid / 64)) {
            let bit = 1 << (vid % 64);

            *word = if member { *word | bit } else { *word & !bit };
        }
    }

    /// Returns the members.
    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(&self.0).flat_map(|(index, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| index.wrapping_mul(64).wrapping_add(bit))
        })
    }
}

/// Tells a device that has been reset everything again. Under the rtnl lock.
pub(crate) fn again(dev: &Device<Interface>) -> Result {
    let data = dev.data();

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
        for vid in told.vlans.iter() {
            control.add_vlan(vid)?;
        }
    }
    if let (Some(control), false) = (data.control(Feature::CtrlGuestOffloads), told.merge) {
        control.set_guest_offloads(config::guest_offloads(&data.features, false))?;
    }
    if let (Some(control), Some(filter)) = (data.control(Feature::CtrlRx), &told.filter) {
        filter.tell(control)?;
    }
    Ok(())
}
