// SPDX-License-Identifier: GPL-2.0

//! The network device: what the stack and `ethtool` ask of it.

use crate::{
    coalesce::Coalescing,
    config::{
        self,
        Feature,
        MAC, //
    },
    control::Control,
    counters::{
        rx,
        tx, //
    },
    hash::Hashing,
    pairs::{
        self,
        Pair, //
    },
    qstats,
    recovery::{
        self,
        Recovery, //
    },
    rings,
    rx::Receiver,
    statistics::{
        self,
        DeviceStats,
        Sums, //
    },
    told::{
        Filter,
        Told, //
    },
    tx::Sender,
    xdp,
    xsk, //
};
use guest::{
    net::{
        address::MacAddr,
        device::{
            self,
            Device,
            Locked,
            Stats, //
        },
        ethtool::{
            self,
            coalesce::{
                Scope,
                Settings, //
            },
            rxfh,
            statistics::Statistics, //
        },
        filter::RxMode,
        qstats::{
            Receive,
            Scope as QueueScope,
            Transmit, //
        },
        refusal::Refusal,
        xdp::Attached,
        xsk::Queues, //
    },
    virtio::{
        self,
        Features, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// What the device's operations need.
#[pin_data]
pub(crate) struct Interface {
    pub(crate) vdev: ARef<virtio::Device>,
    pub(crate) features: Features<Feature>,
    pub(crate) control: Option<Arc<Control>>,
    pub(crate) pairs: KVec<Pair>,
    pub(crate) link: Link,
    pub(crate) coalescing: Arc<Coalescing>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) device_stats: DeviceStats,
    #[pin]
    pub(crate) told: Mutex<Told>,
}

impl Interface {
    /// Returns the control queue if the device has the commands of `feature`.
    pub(crate) fn control(&self, feature: Feature) -> Option<&Control> {
        let control = self.control.as_deref();

        control.filter(|_| self.features.contains(feature))
    }

    /// Has packets of a VLAN received, or not.
    fn set_vlan(&self, vid: u16, member: bool) -> Result {
        let Some(control) = self.control(Feature::CtrlVlan) else {
            return Ok(());
        };

        control
            .set_vlan(vid, member)
            .inspect_err(|error| self.complain("a VLAN", *error))?;
        self.told.lock().set_vlan(vid, member);
        Ok(())
    }

    /// Says that the device has not taken something over.
    pub(crate) fn complain(&self, what: &str, error: Error) {
        if guest::net::ratelimit() {
            dev_warn!(
                self.vdev,
                "the device has not taken over {what}: {error:?}\n"
            );
        }
    }
}

/// The link's settings, which only `ethtool` looks at.
pub(crate) struct Link {
    speed: Atomic<u32>,
    duplex: Atomic<u32>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self {
            speed: Atomic::new(ethtool::SPEED_UNKNOWN),
            duplex: Atomic::new(u32::from(ethtool::DUPLEX_UNKNOWN)),
        }
    }

    /// Takes over new settings, if they mean anything.
    pub(crate) fn set(&self, new: ethtool::Link) {
        if new.is_valid() {
            self.speed.store(new.speed, Relaxed);
            self.duplex.store(u32::from(new.duplex), Relaxed);
        }
    }
}

#[vtable]
impl device::Operations for Interface {
    type Transmit = Sender;
    type Receive = Receiver;

    const ETHTOOL: ethtool::Table<Self> = ethtool::Table::new();

    fn open(dev: &Locked<Self>) -> Result {
        dev.enable();
        Ok(())
    }

    fn stop(dev: &Locked<Self>) {
        dev.disable();
    }

    fn stats(dev: &Device<Self>) -> Stats {
        let Sums { rx, tx, timeouts } = Sums::of(&dev.data().pairs);

        Stats {
            rx_packets: rx[rx::PACKETS],
            rx_bytes: rx[rx::BYTES],
            rx_errors: rx[rx::SHORT] + rx[rx::BAD_HEADER] + rx[rx::MISSING_BUFFERS],
            rx_dropped: rx[rx::DROPS],
            rx_length_errors: rx[rx::SHORT] + rx[rx::MISSING_BUFFERS],
            rx_frame_errors: rx[rx::BAD_HEADER],
            tx_packets: tx[tx::PACKETS],
            tx_bytes: tx[tx::BYTES],
            tx_errors: tx[tx::DROPS].wrapping_add(timeouts),
            tx_dropped: tx[tx::DROPS],
            tx_fifo_errors: tx[tx::DROPS],
        }
    }

    fn receive_statistics(dev: &Device<Self>, scope: QueueScope) -> Receive {
        qstats::receive(dev, scope)
    }

    fn transmit_statistics(dev: &Device<Self>, scope: QueueScope) -> Transmit {
        qstats::transmit(dev, scope)
    }

    fn reset_receive_queue(dev: &Device<Self>, queue: u16) -> Result {
        rings::reset(dev, queue)
    }

    /// Tells the device of its new address: by a command, or a legacy device by its configuration.
    fn set_address(dev: &Device<Self>, addr: MacAddr) -> Result {
        let data = dev.data();

        match data.control(Feature::CtrlMacAddr) {
            Some(control) => control.set_mac(addr),
            None => {
                if data.features.contains(Feature::Mac) && !data.features.is_modern() {
                    data.vdev.write(MAC, addr.to_bytes());
                }
                Ok(())
            }
        }
    }

    /// Has the device leave out what nobody wants. One that cannot delivers everything.
    fn set_rx_mode(dev: &Device<Self>, mode: &RxMode<'_>) -> Result {
        let data = dev.data();
        let Some(control) = data.control(Feature::CtrlRx) else {
            return Ok(());
        };
        let filter = Filter::new(mode)?;

        filter
            .tell(control)
            .inspect_err(|error| data.complain("what it is to receive", *error))?;
        data.told.lock().filter = Some(filter);
        Ok(())
    }

    /// Has the device merge packets of a stream, or not: by a command, or else by a reset that comes soon.
    fn set_features(dev: &Device<Self>, old: device::Features, new: device::Features) -> Result {
        let data = dev.data();
        let merge = new.contains(device::Features::GRO_HW);

        if merge == old.contains(device::Features::GRO_HW) {
            return Ok(());
        }
        match data.control(Feature::CtrlGuestOffloads) {
            Some(control) => control
                .set_guest_offloads(config::guest_offloads(&data.features, merge))
                .inspect_err(|error| data.complain("what it may merge", *error)),
            None => {
                data.recovery.set_merging(merge);
                Ok(())
            }
        }
    }

    fn fix_features(dev: &Device<Self>, features: device::Features) -> device::Features {
        xdp::fix_features(dev, features)
    }

    fn check_mtu(dev: &Device<Self>, mtu: u32) -> Result {
        rings::check_mtu(dev, mtu)?;
        xdp::check_mtu(dev, mtu)
    }

    fn check_program(dev: &Device<Self>, program: Attached) -> core::result::Result<(), Refusal> {
        xdp::check(dev, program)
    }

    fn socket_queues(&self, queue: u16) -> Result<Queues<'_>> {
        xsk::queues(self, queue)
    }

    fn queue_kept(dev: &Device<Self>, _queue: u16) {
        rings::keep(&dev.data());
    }

    fn add_vlan(dev: &Device<Self>, vid: u16) -> Result {
        dev.data().set_vlan(vid, true)
    }

    fn remove_vlan(dev: &Device<Self>, vid: u16) -> Result {
        dev.data().set_vlan(vid, false)
    }

    fn phys_port_name(dev: &Device<Self>) -> Option<&'static CStr> {
        let standby = dev.data().features.contains(Feature::Standby);

        standby.then_some(c"sby")
    }

    /// The stack has logged it already.
    fn tx_timeout(dev: &Device<Self>, queue: u32) {
        // CAST: A device has few queues.
        recovery::expire(dev, queue as u16);
    }
}

#[vtable]
impl ethtool::Operations for Interface {
    fn driver_info(dev: &Device<Self>, info: &mut ethtool::DriverInfo<'_>) {
        info.set_driver(crate::NAME);
        if let Some(parent) = dev.data().vdev.parent() {
            info.set_bus_info(parent.name());
        }
    }

    fn link(dev: &Device<Self>) -> ethtool::Link {
        let link = &dev.data().get_ref().link;

        ethtool::Link {
            speed: link.speed.load(Relaxed),
            // CAST: It was a `u8`.
            duplex: link.duplex.load(Relaxed) as u8,
        }
    }

    fn set_link(dev: &Device<Self>, new: ethtool::Link) {
        dev.data().link.set(new);
    }

    fn rings(dev: &Device<Self>) -> ethtool::Rings {
        // Those of a device that is gone are empty.
        rings::rings(&dev.data()).unwrap_or_default()
    }

    fn set_rings(dev: &Locked<Self>, rx: u32, tx: u32) -> core::result::Result<(), Refusal> {
        rings::set(dev, rx, tx)
    }

    fn set_channels(dev: &Device<Self>, pairs: u16) -> Result {
        pairs::set(dev, pairs)
    }

    fn coalescing(dev: &Device<Self>, scope: Scope) -> Result<Settings> {
        dev.data().coalescing.get(scope)
    }

    fn set_coalescing(dev: &Device<Self>, scope: Scope, settings: Settings) -> Result {
        dev.data().coalescing.set(scope, settings)
    }

    fn rxfh_sizes(dev: &Device<Self>) -> rxfh::Sizes {
        let told = dev.data().get_ref().told.lock();

        told.hashing
            .as_ref()
            .map(Hashing::sizes)
            .unwrap_or_default()
    }

    fn rxfh(dev: &Device<Self>, table: &mut [u32], key: &mut [u8]) {
        if let Some(hashing) = &dev.data().get_ref().told.lock().hashing {
            hashing.show(table, key);
        }
    }

    fn set_rxfh(dev: &Device<Self>, table: Option<&[u32]>, key: Option<&[u8]>) -> Result {
        rehash(dev, |hashing| hashing.set(table, key))
    }

    fn hash_fields(dev: &Device<Self>, flow: rxfh::Flow) -> rxfh::Fields {
        match &dev.data().get_ref().told.lock().hashing {
            Some(hashing) => hashing.fields(flow),
            None => rxfh::Fields::Nothing,
        }
    }

    fn set_hash_fields(dev: &Device<Self>, flow: rxfh::Flow, fields: rxfh::Fields) -> Result {
        rehash(dev, |hashing| hashing.set_fields(flow, fields))
    }

    fn statistics(dev: &Device<Self>, list: &mut Statistics<'_>) {
        statistics::list(dev, list);
    }
}

/// Changes how packets are hashed, if the device takes it over. Under the device's lock.
fn rehash(dev: &Device<Interface>, change: impl FnOnce(&mut Hashing) -> Result) -> Result {
    let data = dev.data();
    let mut told = data.told.lock();
    let mut hashing = told.hashing.as_ref().ok_or(EOPNOTSUPP)?.copy()?;

    change(&mut hashing)?;
    hashing
        // CAST: It has been made of a 16-bit number.
        .tell(&data, dev.channels().active as u16)
        .inspect_err(|error| data.complain("how packets are hashed", *error))?;
    told.hashing = Some(hashing);
    Ok(())
}
