// SPDX-License-Identifier: GPL-2.0

//! The module, and the driver's side of the virtio bus.

use crate::{
    debugfs::{
        self,
        Directory,
        Shown, //
    },
    hinting::Hinting,
    reporting::{
        self,
        Registration,
        Reports, //
    },
    resize::{
        Resizer,
        Watches, //
    },
    stats::Stats,
    target::Release, //
};
use core::pin::Pin;
use guest::{
    debugfs::ModuleDirectory,
    mm::{
        balloon::Accounting,
        freed::{
            is_protected,
            Freed, //
        },
        oom::Notifier,
        shrinker::Shrinker, //
    },
    virtio::{
        self,
        config::Field,
        Adapter,
        Callback,
        Features,
        Interrupt, //
    },
    workqueue::OwnedQueue, //
};
use kernel::{
    device::{
        Bound,
        Core, //
    },
    driver,
    prelude::*,
    sync::{
        Arc,
        SetOnce, //
    },
    InPlaceModule,
    ModuleMetadata, //
};

/// The module. Fields are dropped in this order.
#[pin_data]
pub(crate) struct Module {
    #[pin]
    _driver: driver::Registration<Adapter<Driver>>,
    _directory: ModuleDirectory,
}

impl InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // Before the driver: devices may be bound at once.
            _directory: ModuleDirectory::new(Self::NAME)?,
            _driver <- driver::Registration::new(Self::NAME, module),
        })
    }
}

guest::virtio_features! {
    /// Feature bits that the driver knows.
    pub(crate) enum Feature {
        /// Pages may be used again only when the device has answered that it knows.
        MustTellHost = 0,
        /// The device asks for statistics.
        StatsQueue = 1,
        /// The guest may take pages back when it has no memory left.
        DeflateOnOom = 2,
        /// The device copies memory now and then, and need not copy what is free.
        FreePageHint = 3,
        /// The device can be told what free pages hold, and puts that back when it gives them back.
        PagePoison = 4,
        /// The device takes free pages until they are used again.
        Reporting = 5,
        /// Listed to be given up, see [`Driver::validate`].
        IndirectDescriptors = 28,
        /// The device reaches the queues as the platform decides, see [`Driver::validate`].
        AccessPlatform = 33,
    }
}

guest::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(virtio::id::BALLOON)]);

/// What free pages hold, for the device.
const POISON: Field<u32> = Field::new(12);

/// Tells the device what the page allocator expects of free pages.
fn tell_poison(dev: &virtio::Device) {
    let byte = match Freed::pages() {
        Freed::Anything | Freed::Zeroes => 0,
        Freed::Poison(byte) => byte,
    };

    dev.write(POISON, u32::from_ne_bytes([byte; 4]));
}

/// What a queue is for.
#[derive(Clone, Copy)]
enum Duty {
    Resize,
    Stats,
    Hint,
    Reporting,
}

/// The queues of a device in the order of their numbers. A queue that is not there has no number, as with the C driver: the next
/// one has it.
#[derive(Clone, Copy)]
struct Duties([Option<Duty>; 5]);

impl Duties {
    /// Gives the next number to a queue for `duty`.
    fn add(&mut self, duty: Duty) {
        if let Some(next) = self.0.iter_mut().find(|duty| duty.is_none()) {
            *next = Some(duty);
        }
    }

    fn of(&self, number: u32) -> Option<Duty> {
        // CAST: Does not truncate.
        *self.0.get(number as usize)?
    }
}

/// Implementation of the virtio driver.
pub(crate) struct Driver;

/// What the driver keeps per device.
#[pin_data]
pub(crate) struct Data {
    _debugfs: Directory,
    _last_resort: Option<Pin<KBox<Notifier>>>,
    _watches: Watches,
    duties: Duties,
    poison: bool,
    resizer: Arc<Resizer>,
    stats: Option<Arc<Stats>>,
    _shrinker: Option<Shrinker<Hinting>>,
    hinting: Option<Arc<Hinting>>,
    reports: Option<Arc<Reports>>,
    /// Dropped after the device has been reset, when it has given back all pages.
    reporting: SetOnce<Registration>,
}

impl virtio::Driver for Driver {
    type Feature = Feature;
    type Data<'bound> = Data;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    /// Settles what the guest can do.
    ///
    /// The protocol names pages by guest physical addresses, whatever stands between the device and the queues. So access by platform
    /// rules can be agreed upon for the queues, where the C driver gives it up and a device that insists on it has no balloon. Two
    /// things do not go with it: what is free is named by the addresses of buffers, which the platform translates; and in a guest whose
    /// memory is kept from the host, a page that the host has taken could not be used again. Indirect descriptors are of no use.
    fn validate(_dev: &virtio::Device<Core<'_>>, features: &mut Features<Feature>) -> Result {
        match (Freed::pages(), features.contains(Feature::PagePoison)) {
            // There is nothing to tell.
            (Freed::Anything, _) => features.remove(Feature::PagePoison),
            // The page allocator would miss what the device wipes out.
            (_, false) => features.remove(Feature::Reporting),
            (_, true) => {}
        }
        features.remove(Feature::IndirectDescriptors);
        if is_protected() {
            features.remove(Feature::AccessPlatform);
        }
        if features.contains(Feature::AccessPlatform) {
            features.remove_all(&[Feature::Reporting, Feature::FreePageHint]);
        }
        Ok(())
    }

    fn probe<'bound>(
        dev: &'bound virtio::Device<Core<'_>>,
        features: Features<Feature>,
    ) -> impl PinInit<Data, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let mut queues = dev.virtqueues();
            let mut duties = Duties([None; 5]);

            let inflate = queues.add(c"inflate", Callback::Enabled, 1)?;
            duties.add(Duty::Resize);
            let deflate = queues.add(c"deflate", Callback::Enabled, 1)?;
            duties.add(Duty::Resize);
            let stats = if features.contains(Feature::StatsQueue) {
                duties.add(Duty::Stats);
                Some(queues.add(c"stats", Callback::Enabled, 1)?)
            } else {
                None
            };
            let hints = if features.contains(Feature::FreePageHint) {
                duties.add(Duty::Hint);
                Some(queues.add(c"free_page", Callback::Enabled, 1)?)
            } else {
                None
            };
            let reports = if features.contains(Feature::Reporting) {
                duties.add(Duty::Reporting);
                Some(queues.add(c"reporting", Callback::Enabled, reporting::SEGMENTS)?)
            } else {
                None
            };
            queues.find()?;

            let poison = features.contains(Feature::PagePoison);
            if poison {
                tell_poison(dev);
            }
            let release = if features.contains(Feature::MustTellHost) {
                Release::Answered
            } else {
                Release::Told
            };
            let work = Arc::new(
                OwnedQueue::new_unfrozen(c"virtio_balloon_rust")?,
                GFP_KERNEL,
            )?;
            let lends = features.contains(Feature::DeflateOnOom);
            let accounting = if lends {
                Accounting::Unmanaged
            } else {
                Accounting::Managed
            };
            let resizer = Resizer::new(
                dev.into(),
                inflate,
                deflate,
                release,
                accounting,
                work.clone(),
            )?;
            let stats = stats
                .map(|queue| Stats::new(queue, work.clone()))
                .transpose()?;
            let hinting = hints
                .map(|queue| Hinting::new(dev.into(), queue, work))
                .transpose()?;
            let reports = reports
                .map(|queue| Reports::new(dev.into(), queue, features.can_reset_queues()))
                .transpose()?;

            Ok(try_pin_init!(Data {
                _debugfs: debugfs::directory(
                    dev,
                    Shown {
                        resizer: resizer.clone(),
                        reports: reports.clone(),
                        hinting: hinting.clone(),
                    }
                )?,
                _last_resort: lends.then(|| resizer.last_resort()).transpose()?,
                _watches: resizer.watch_parameters()?,
                duties,
                poison,
                resizer,
                stats,
                _shrinker: hinting.as_ref().map(Hinting::shrinker).transpose()?,
                hinting,
                reports,
                reporting: SetOnce::new(),
            }))
        })
    }

    fn init<'bound>(_dev: &'bound virtio::Device<Core<'_>>, data: Pin<&'bound Data>) -> Result {
        if let Some(stats) = &data.stats {
            stats.prime();
        }
        if let Some(hinting) = &data.hinting {
            hinting.start()?;
        }
        if let Some(reports) = &data.reports {
            if let Some(registration) = reports.register()? {
                data.reporting.populate(registration);
            }
        }
        data.resizer.start()
    }

    fn vq_callback(data: Pin<&Data>, vq: &Interrupt<'_>) {
        vq.disable_cb();
        match data.duties.of(vq.index()) {
            Some(Duty::Resize) => data.resizer.step_soon(),
            Some(Duty::Stats) => data.stats.iter().for_each(Stats::answer_soon),
            Some(Duty::Hint) => data.hinting.iter().for_each(Hinting::go_on_soon),
            Some(Duty::Reporting) => {
                if let Some(registration) = data.reporting.as_ref() {
                    registration.answered();
                }
            }
            None => {}
        }
    }

    fn config_changed(_dev: &virtio::Device<Bound>, data: Pin<&Data>) {
        data.resizer.target_changed();
        data.hinting.iter().for_each(Hinting::command_changed);
    }

    fn unbind<'bound>(_dev: &'bound virtio::Device<Core<'_>>, data: Pin<&Data>) {
        data.stats.iter().for_each(Stats::stop);
        data.hinting.iter().for_each(Hinting::stop);
        data.reports.iter().for_each(|reports| reports.close());
        data.resizer.drain();
        data.resizer.stop();
    }

    /// The device is reset, so all of its pages have to come back first. As they are free while the system sleeps, an image on
    /// disk does not have them.
    fn suspend(_dev: &virtio::Device<Core<'_>>, data: Pin<&Data>) -> Result {
        data.stats.iter().for_each(Stats::stop);
        data.hinting.iter().for_each(Hinting::stop);
        data.reports.iter().for_each(|reports| reports.close());
        data.resizer.suspend();
        Ok(())
    }

    fn resume(dev: &virtio::Device<Core<'_>>, data: Pin<&Data>) -> Result {
        if data.poison {
            tell_poison(dev);
        }
        data.stats
            .iter()
            .try_for_each(Stats::resume)
            .and_then(|()| data.hinting.iter().try_for_each(Hinting::resume))
            .and_then(|()| data.resizer.resume())
            .inspect(|()| data.reports.iter().for_each(|reports| reports.open()))
            .inspect_err(|error| dev_err!(dev, "not resumed: {error:?}; bind the driver again\n"))
    }

    fn shutdown(_dev: &virtio::Device<Core<'_>>, data: Pin<&Data>) {
        data.stats.iter().for_each(Stats::stop);
        data.hinting.iter().for_each(Hinting::stop);
        data.reports.iter().for_each(|reports| reports.close());
        data.resizer.stop();
    }
}
