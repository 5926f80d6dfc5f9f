// SPDX-License-Identifier: GPL-2.0

//! The module: what it is made of, and in which order it comes and goes.

use crate::{
    debugfs,
    listing::{
        Listings,
        Submission, //
    },
    loaded::Loaded,
    params,
    report::{
        Log,
        Reader, //
    },
    scan::{
        Probing,
        Rearm,
        Scanner,
        Watching, //
    },
    snapshot::Snapshot,
    uplink::{
        Redial,
        Uplink, //
    },
    views::Sources, //
};

use guest::{
    chardev::Registration,
    module::notifier::Notifier,
    param::Watched,
    report::Tag,
    sched::{
        kthread::Kthreads,
        rq::RunQueues,
        switch::Suspects,
        Misfit, //
    },
    text::FUNCTIONS,
};

use kernel::{
    debugfs::Scope,
    prelude::*,
    sync::Arc, //
};

/// The module. Fields are dropped in this order: first all ways by which a scan could begin, then what scans need.
pub(crate) struct Checker {
    _device: Pin<KBox<Registration<Reader>>>,
    _snapshot: Pin<KBox<Registration<Snapshot>>>,
    _listing: Pin<KBox<Registration<Submission>>>,
    _debugfs: Pin<KBox<Scope<Arc<Scanner>>>>,
    _interval: Watched<u32>,
    _port: Watched<u32>,
    _beating: Beating,
    _probing: Watched<u32>,
    _watching: Pin<KBox<Notifier<Watching>>>,
    _periodic: Periodic,
}

/// Ends periodic scanning when it is dropped.
struct Periodic(Arc<Scanner>);

impl Drop for Periodic {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Ends heartbeats when it is dropped.
struct Beating(Arc<Uplink>);

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl kernel::Module for Checker {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let refused = |misfit: Misfit| {
            pr_err!("not loaded: {}; {}\n", misfit, misfit.remedy());
            EOPNOTSUPP
        };
        if let Some(function) = FUNCTIONS.iter().find(|function| !function.is_of_kernel()) {
            pr_err!(
                "not loaded: {} does not lead to the kernel's own function; somebody has changed the table of exports\n",
                function.name
            );
            return Err(EOPNOTSUPP);
        }
        let run_queues = RunQueues::find().map_err(refused)?;
        let kthreads = Kthreads::find().map_err(refused)?;

        let tag = params::tag.with(module, Tag::new);
        let log = Arc::pin_init(Log::new(tag), GFP_KERNEL)?;
        let listings = Listings::new()?;
        let sources = Sources {
            suspects: Suspects::new(&run_queues)?,
            kthreads,
            loaded: Loaded::new(module)?,
            listings: listings.clone(),
            run_queues,
        };
        let scanner = Scanner::new(sources, log.clone())?;
        let periodic = Periodic(scanner.clone());

        let uplink = Uplink::new(log.clone(), scanner.clone())?;
        let beating = Beating(uplink.clone());

        let checker = Checker {
            _port: params::vsock_port.watch(module, Arc::new(Redial(uplink), GFP_KERNEL)?)?,
            _beating: beating,
            _interval: params::interval_ms
                .watch(module, Arc::new(Rearm(scanner.clone()), GFP_KERNEL)?)?,
            _probing: params::switch_probe.watch(module, Probing::new(scanner.clone())?)?,
            _watching: Watching::begin(scanner.clone())?,
            _debugfs: KBox::pin_init(debugfs::directory(scanner.clone()), GFP_KERNEL)?,
            _device: KBox::pin_init(
                Registration::new(c"guest_integrity", 0o400, log),
                GFP_KERNEL,
            )?,
            _snapshot: KBox::pin_init(
                Registration::new(c"guest_integrity_snapshot", 0o400, scanner.clone()),
                GFP_KERNEL,
            )?,
            _listing: KBox::pin_init(
                Registration::new(c"guest_integrity_listing", 0o200, listings),
                GFP_KERNEL,
            )?,
            _periodic: periodic,
        };

        scanner.start();
        Ok(checker)
    }
}
