// SPDX-License-Identifier: GPL-2.0

//! The modules that are in use, as the kernel has told while they came and went: a place that no module can be taken out of.
//!
//! # Locking
//!
//! A module is taken out of the table by [`Watch::going`], before its memory is freed, so what is in it is there as long as it is
//! locked. Within the lock, RCU and the kernel's lock of the set of modules may be taken, not the other way round.

use guest::{
    module::{
        notifier::Watch,
        ModuleId,
        Modules,
        State, //
    },
    symbol::{
        Place,
        Symbol, //
    },
};

use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc,
        Mutex,
        MutexGuard,
        SpinLock, //
    },
};

/// Parts of code of modules that were unloaded last which are remembered.
const GONE: usize = 64;
/// Addresses in the kernel's own text that need not be looked up again.
const KNOWN: usize = 64;
/// Most modules that there can be at the start.
const MAX_MODULES: usize = 1 << 12;

/// Where code of modules was that are gone.
struct Gone {
    texts: [(usize, usize); GONE],
    next: usize,
}

/// The modules that are in use.
#[pin_data]
pub(crate) struct Loaded {
    pub(crate) modules: Modules,
    #[pin]
    live: Mutex<KVVec<ModuleId>>,
    #[pin]
    gone: SpinLock<Gone>,
    known: [Atomic<usize>; KNOWN],
}

impl Loaded {
    /// Begins with none.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if the kernel's own places for modules cannot be found, [`ENOMEM`].
    pub(crate) fn new(module: &'static ThisModule) -> Result<Arc<Self>> {
        let modules = Modules::find(module)?;

        Arc::pin_init(
            pin_init!(Self {
                modules,
                live <- new_mutex!(KVVec::new()),
                gone <- new_spinlock!(Gone {
                    texts: [(0, 0); GONE],
                    next: 0,
                }),
                known: [const { Atomic::new(0) }; KNOWN],
            }),
            GFP_KERNEL,
        )
    }

    /// Adds what is on the kernel's list. The kernel must tell of those that go already.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn seed(&self) -> Result {
        let mut live = self.live.lock();
        live.reserve(MAX_MODULES, GFP_KERNEL)?;

        let guard = rcu::read_lock();
        // A list without an end is for scans to report.
        let _ = self.modules.listed(&guard, |module| {
            // Who is live now will be told of when it goes, which waits for the lock.
            if module.state(&guard) == State::Live && !live.contains(&module) {
                // There is no room for more than there can be; the others are seen by other means.
                let _ = live.push_within_capacity(module);
            }
        });
        Ok(())
    }

    /// The modules in use. While this is held, none of them goes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, KVVec<ModuleId>> {
        self.live.lock()
    }

    /// Returns whether a module is on the kernel's list now, or is not live any more.
    pub(crate) fn is_listed(&self, module: ModuleId) -> bool {
        let guard = rcu::read_lock();
        let mut listed = false;

        // As above.
        let _ = self
            .modules
            .listed(&guard, |other| listed |= other == module);
        listed || module.state(&guard) != State::Live
    }

    /// Returns whether the kernel knows what `address` belongs to, or it belonged to a module that is gone. Does not sleep.
    pub(crate) fn knows(&self, address: usize) -> bool {
        let Some(slot) = self.known.get((address >> 4) % KNOWN) else {
            return false;
        };

        if slot.load(Relaxed) == address {
            return true;
        }
        match Symbol::of(address).place() {
            // It never goes.
            Place::Kernel => slot.store(address, Relaxed),
            Place::Module | Place::Made => {}
            Place::Unknown => return self.was_text(address),
        }
        true
    }

    /// Returns whether `address` was in the code of a module that is gone.
    fn was_text(&self, address: usize) -> bool {
        let gone = self.gone.lock();

        gone.texts
            .iter()
            .any(|(start, end)| (*start..*end).contains(&address))
    }
}

impl Watch for Loaded {
    fn live(&self, module: ModuleId) {
        let mut live = self.live.lock();

        if !live.contains(&module) {
            // Without memory for it, it is seen by other means.
            let _ = live.push(module, GFP_KERNEL);
        }
        drop(live);

        // What was there before it is no excuse any more.
        let mut gone = self.gone.lock();
        for (start, end) in module.texts() {
            for slot in gone.texts.iter_mut() {
                if slot.0 < end && start < slot.1 {
                    *slot = (0, 0);
                }
            }
        }
    }

    fn going(&self, module: ModuleId) {
        self.live.lock().retain(|other| *other != module);

        let mut gone = self.gone.lock();
        for text in module.texts() {
            let next = gone.next;
            if let Some(slot) = gone.texts.get_mut(next) {
                *slot = text;
            }
            gone.next = (next + 1) % GONE;
        }
    }
}
