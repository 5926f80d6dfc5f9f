// SPDX-License-Identifier: GPL-2.0

//! Modules that come and go, between the scans.

use super::Scanner;

use guest::{
    module::{
        notifier::{
            Notifier,
            Watch, //
        },
        ModuleId, //
    },
    sched::switch::Alarm, //
};

use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Keeps the table of modules that are in use, and has a scan made when one is not on the kernel's list at the moment it comes.
pub(crate) struct Watching(Arc<Scanner>);

impl Watching {
    /// Begins.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn begin(scanner: Arc<Scanner>) -> Result<Pin<KBox<Notifier<Self>>>> {
        let notifier = Notifier::new(Watching(scanner))?;

        // Whoever goes from now on is told of.
        notifier.watch().0.sources.loaded.seed()?;
        Ok(notifier)
    }
}

impl Watch for Watching {
    fn live(&self, module: ModuleId) {
        let loaded = &self.0.sources.loaded;

        Watch::live(&**loaded, module);
        if !loaded.is_listed(module) {
            self.0.suspected();
        }
    }

    fn going(&self, module: ModuleId) {
        Watch::going(&*self.0.sources.loaded, module);
    }
}
