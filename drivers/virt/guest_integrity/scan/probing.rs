// SPDX-License-Identifier: GPL-2.0

//! The probe of the view `switch`, as long as the parameter wants it.

use super::Scanner;
use crate::params;

use guest::{
    param::Watch,
    sched::switch::Probe, //
};

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Registers the probe of the view `switch`, and unregisters it, as the parameter says.
#[pin_data]
pub(crate) struct Probing {
    scanner: Arc<Scanner>,
    #[pin]
    probe: Mutex<Option<Pin<KBox<Probe<Scanner>>>>>,
}

impl Probing {
    /// Begins with what the parameter says now.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(scanner: Arc<Scanner>) -> Result<Arc<Self>> {
        let this = Arc::pin_init(
            pin_init!(Self {
                scanner,
                probe <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )?;

        this.set(params::switch_probe.get())?;
        Ok(this)
    }

    fn set(&self, on: u32) -> Result {
        let mut probe = self.probe.lock();

        if on == 0 {
            *probe = None;
        } else if probe.is_none() {
            let suspects = self.scanner.sources.suspects.clone();
            *probe = Some(Probe::new(suspects, self.scanner.clone())?);
        }
        Ok(())
    }
}

impl Watch<u32> for Probing {
    fn changed(&self, on: u32) {
        if let Err(err) = self.set(on) {
            pr_err!(
                "sched_switch cannot be probed ({:?}): write 1 to switch_probe again\n",
                err
            );
        }
    }
}
