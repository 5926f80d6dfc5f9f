// SPDX-License-Identifier: GPL-2.0

//! The module: what it is made of, and in which order it comes and goes.

use crate::{
    debugfs, params,
    report::{
        Log,
        Reader, //
    },
    scan::{
        Rearm,
        Scanner, //
    },
};

use guest::{
    chardev::Registration,
    param::Watched,
    sched::rq::RunQueues, //
};

use kernel::{
    debugfs::Scope,
    prelude::*,
    sync::Arc, //
};

/// The module. Fields are dropped in this order: first all ways by which a scan could begin, then what scans need.
pub(crate) struct Checker {
    _device: Pin<KBox<Registration<Reader>>>,
    _debugfs: Pin<KBox<Scope<Arc<Scanner>>>>,
    _interval: Watched<u32>,
    _periodic: Periodic,
}

/// Ends periodic scanning when it is dropped.
struct Periodic(Arc<Scanner>);

impl Drop for Periodic {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl kernel::Module for Checker {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let queues = RunQueues::find().map_err(|misfit| {
            pr_err!("not loaded: {}; {}\n", misfit, misfit.remedy());
            EOPNOTSUPP
        })?;

        let log = Arc::pin_init(Log::new(), GFP_KERNEL)?;
        let scanner = Scanner::new(queues, log.clone())?;
        let periodic = Periodic(scanner.clone());

        let checker = Checker {
            _interval: params::interval_ms
                .watch(module, Arc::new(Rearm(scanner.clone()), GFP_KERNEL)?)?,
            _debugfs: KBox::pin_init(debugfs::directory(scanner.clone()), GFP_KERNEL)?,
            _device: KBox::pin_init(
                Registration::new(c"guest_integrity", 0o400, log),
                GFP_KERNEL,
            )?,
            _periodic: periodic,
        };

        scanner.start();
        Ok(checker)
    }
}
