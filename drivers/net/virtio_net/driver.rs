// SPDX-License-Identifier: GPL-2.0

//! The driver's side of the virtio bus.

use crate::{
    affinity::{
        Notice,
        Spreader, //
    },
    coalesce::Coalescing,
    config::{
        self,
        Feature,
        MAC, //
    },
    control::Control,
    hash::Hashing,
    header::Rules,
    interface::{
        Interface,
        Link, //
    },
    link::Monitor,
    pairs::{
        self,
        Pair,
        Queues, //
    },
    peers::Peers,
    recovery::{
        Recovery,
        Watch, //
    },
    rings::ring,
    rx::{
        Receiver,
        Shared, //
    },
    statistics::DeviceStats,
    supply::Supply,
    told::{
        self,
        Told, //
    },
    tx::{
        Framing,
        Sender, //
    },
    xsk, //
};
use core::pin::Pin;
use guest::{
    cpu::hotplug::{
        Hotplug,
        Instance, //
    },
    net::{
        address::MacAddr,
        device::{
            Device,
            NewDevice,
            ReceiveQueue,
            Registration, //
        },
        failover,
        page_pool,
        stats::Writer,
        transmit::TransmitQueue, //
    },
    virtio::{
        self,
        Adapter,
        Features,
        Interrupt, //
    }, //
};
use kernel::{
    device::{
        Bound,
        Core, //
    },
    driver::Registration as DriverRegistration,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    InPlaceModule,
    ModuleMetadata, //
};

guest::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(virtio::id::NET)]);

/// The module. Fields are dropped in this order.
#[pin_data]
pub(crate) struct Module {
    #[pin]
    _driver: DriverRegistration<Adapter<Driver>>,
    _hotplug: Hotplug,
}

impl InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // Before the driver: devices may be bound at once.
            _hotplug: Hotplug::new(crate::NAME)?,
            _driver <- DriverRegistration::new(Self::NAME, module),
        })
    }
}

/// The most pages that the pool of a queue keeps for reuse.
const MAX_ENTRIES: u32 = 8192;

/// Implementation of the virtio driver.
pub(crate) struct Driver;

/// What the driver keeps per device.
#[pin_data]
pub(crate) struct Data {
    #[pin]
    registration: Mutex<Option<Registration<Interface>>>,
    monitor: Arc<Monitor>,
    spreader: Arc<Spreader>,
    #[pin]
    hotplug: Mutex<Option<Pin<KBox<Instance>>>>,
    dev: ARef<Device<Interface>>,
}

impl virtio::Driver for Driver {
    type Feature = Feature;
    type Data<'bound> = Data;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    fn validate(dev: &virtio::Device<Core<'_>>, features: &mut Features<Feature>) -> Result {
        config::validate(dev, features)
    }

    fn probe<'bound>(
        dev: &'bound virtio::Device<Core<'_>>,
        features: Features<Feature>,
    ) -> impl PinInit<Data, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let mtu = config::mtu(dev, &features)?;
            let segments = 1 + config::sizing(&features, mtu).more();
            let mut queues = dev.virtqueues();
            let pairs = pairs::add(&mut queues, config::pairs(dev, &features)?, segments)?;
            let control = if features.contains(Feature::CtrlVq) {
                Some(Control::new(pairs::add_control(&mut queues)?)?)
            } else {
                None
            };
            queues.find()?;

            let net = interface(dev, features, mtu, pairs, control)?;
            let monitor = Monitor::new(dev.into(), net.clone())?;
            let spreader = Spreader::new(net.clone())?;

            Ok(try_pin_init!(Data {
                registration <- new_mutex!(None, "virtio_net_rust::Data::registration"),
                monitor,
                spreader,
                hotplug <- new_mutex!(None, "virtio_net_rust::Data::hotplug"),
                dev: net,
            }))
        })
    }

    fn init<'bound>(dev: &'bound virtio::Device<Core<'_>>, data: Pin<&'bound Data>) -> Result {
        let active = pairs::start(&data.dev)?;
        told::random_address(&data.dev);
        let failover = if data.dev.data().features.contains(Feature::Standby) {
            Some(failover::Module::load().ok_or(ENOENT)?)
        } else {
            None
        };
        data.dev.data().device_stats.find(&data.dev.data());
        data.dev.data().recovery.start(data.dev.clone());
        *data.registration.lock() = Some(Registration::new(
            data.dev.clone(),
            dev.as_ref(),
            active,
            failover,
        )?);
        pairs::spread(&data.dev, active)?;
        let notice = Arc::new(Notice(data.spreader.clone()), GFP_KERNEL)?;
        *data.hotplug.lock() = Some(KBox::pin_init(Instance::new(notice), GFP_KERNEL)?);
        data.monitor.check_soon();
        Ok(())
    }

    #[inline]
    fn vq_callback(data: Pin<&Data>, vq: &Interrupt<'_>) {
        let disarm = || vq.disable_cb();
        // The queues to receive have even numbers, those to send odd ones, and the control queue comes after all pairs.
        // CAST: A device has fewer than 65,536 queues.
        let pair = (vq.index() / 2) as u16;

        if vq.index() % 2 == 1 {
            if let Some(napi) = data.dev.reclaim(pair) {
                napi.schedule(disarm);
            }
        } else if let Some(napi) = data.dev.receive().get(usize::from(pair)) {
            napi.schedule(disarm);
        } else if let Some(control) = &data.dev.data().control {
            control.interrupt();
        }
    }

    fn config_changed(_dev: &virtio::Device<Bound>, data: Pin<&Data>) {
        data.monitor.check_soon();
    }

    fn suspend(_dev: &virtio::Device<Core<'_>>, data: Pin<&Data>) -> Result {
        data.monitor.flush();
        data.dev.suspend();
        Ok(())
    }

    fn renegotiate(data: Pin<&Data>, features: &mut Features<Feature>) {
        if !data.dev.data().recovery.negotiate() {
            config::forbid_merging(features);
        }
    }

    /// The device is told again what it has forgotten; if it does not take that over the interface stays stopped.
    fn resume(dev: &virtio::Device<Core<'_>>, data: Pin<&Data>) -> Result {
        if let Some(control) = &data.dev.data().control {
            control.forget();
        }
        data.dev
            .resume(|| told::again(&data.dev))
            .inspect_err(|error| {
                dev_err!(dev, "not resumed: {error:?}; bind the driver again\n")
            })?;
        data.monitor.check_soon();
        Ok(())
    }

    fn unbind<'bound>(_dev: &'bound virtio::Device<Core<'_>>, data: Pin<&Data>) {
        let hotplug = data.hotplug.lock().take();
        drop(hotplug);
        data.spreader.stop();
        data.monitor.stop();
        data.dev.data().recovery.stop();
        let registration = data.registration.lock().take();
        drop(registration);
    }
}

/// Makes the network device.
fn interface(
    dev: &virtio::Device<Core<'_>>,
    features: Features<Feature>,
    mtu: Option<u32>,
    queues: KVec<Queues>,
    control: Option<Arc<Control>>,
) -> Result<ARef<Device<Interface>>> {
    let mergeable = features.contains(Feature::MrgRxbuf);
    let format = config::format(&features);
    let sizing = config::sizing(&features, mtu);

    let mut receivers = KVec::with_capacity(queues.len(), GFP_KERNEL)?;
    let mut senders = KVec::with_capacity(queues.len(), GFP_KERNEL)?;
    let mut pairs = KVec::with_capacity(queues.len(), GFP_KERNEL)?;
    let peers = if features.contains(Feature::Rss) {
        Some(Peers::new(queues.iter().map(|pair| &pair.frames))?)
    } else {
        None
    };
    let coalescing = Coalescing::new(queues.len(), &features, control.as_ref())?;
    let can_adapt = coalescing.can_adapt();
    for (index, queues) in (0u16..).zip(queues) {
        let rx_stats = Writer::new()?;
        let tx_stats = Writer::new()?;
        let (rx_counters, tx_counters) = (rx_stats.counters(), tx_stats.counters());
        let (rx_size, tx_size) = (ring(&queues.rx)?.size, ring(&queues.tx)?.size);
        let rules = Rules {
            missing_checksums: features.contains(Feature::GuestCsum),
            mergeable,
            max_buffers: u16::try_from(rx_size).unwrap_or(u16::MAX),
            segments: config::segments(&features),
        };

        receivers.push(
            ReceiveQueue {
                handler: Receiver::new(
                    format,
                    rules,
                    Supply::new(sizing, format)?,
                    peers.clone(),
                    rx_stats,
                ),
                shared: Shared {
                    index,
                    queue: queues.rx.clone(),
                    frames: queues.frames.clone(),
                    coalescing: coalescing.clone(),
                },
                pool: Some(page_pool::Params {
                    order: sizing.order(),
                    entries: rx_size.saturating_mul(1 + sizing.more()).min(MAX_ENTRIES),
                }),
            },
            GFP_KERNEL,
        )?;
        senders.push(
            TransmitQueue {
                state: Sender::new(
                    tx_size,
                    Framing::new(
                        format,
                        features.any_layout(),
                        features.contains(Feature::GuestHdrlen),
                    ),
                    tx_stats,
                ),
                ring: queues.tx.clone(),
            },
            GFP_KERNEL,
        )?;
        pairs.push(
            Pair {
                queues,
                rx: rx_counters,
                tx: tx_counters,
                watch: Watch::new()?,
            },
            GFP_KERNEL,
        )?;
    }
    let hashing = match config::hashes(dev, &features)? {
        Some(limits) => Some(Hashing::new(limits)?),
        None => None,
    };
    let told = Told::new(hashing)?;
    let data = try_pin_init!(Interface {
        vdev: dev.into(),
        features,
        control,
        pairs,
        link: Link::new(),
        coalescing,
        recovery: Recovery::new(dev.into())?,
        device_stats: DeviceStats::new(),
        told <- new_mutex!(told, "virtio_net_rust::Interface::told"),
    }? Error);

    let mut net = NewDevice::new(receivers, senders, data)?;
    let (active, changeable) = config::abilities(&features);
    net.set_features(active, changeable);
    if features.contains(Feature::HostUdpTunnelGso) {
        net.set_tunnel_features(changeable);
    }
    net.set_flexible();
    net.set_programs(mergeable, features.any_layout());
    if features.contains(Feature::HashReport) {
        net.set_hash_for_programs();
    }
    if features.can_reset_queues() {
        net.set_queue_management();
    }
    if xsk::is_possible(&features) {
        net.set_zero_copy(1);
    }
    if can_adapt {
        net.set_adaptive()?;
    }
    let max_mtu = config::MAX_MTU.min(sizing.max_mtu());
    net.set_mtu(
        config::MIN_MTU,
        mtu.unwrap_or(max_mtu),
        mtu.unwrap_or(config::DEFAULT_MTU),
    );
    if features.any_layout() {
        // CAST: At most 20.
        net.set_needed_headroom(format.len() as u16);
    }
    net.set_carrier_off();
    set_address(dev, &features, &mut net);

    Ok(net.share())
}

/// Gives the interface the device's address, or a random one.
fn set_address(
    dev: &virtio::Device<Core<'_>>,
    features: &Features<Feature>,
    net: &mut NewDevice<Interface>,
) {
    let addr = features.contains(Feature::Mac).then(|| dev.read(MAC));

    match addr.and_then(MacAddr::new) {
        Some(addr) => net.set_address(addr),
        None => {
            if addr.is_some() {
                dev_warn!(
                    dev,
                    "the device has an invalid address; a random one is used\n"
                );
            }
            net.set_random_address();
        }
    }
}
