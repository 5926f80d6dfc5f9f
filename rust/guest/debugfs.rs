// SPDX-License-Identifier: GPL-2.0

//! The directory of a module in debugfs, which its devices share.
//!
//! Two directories of one name cannot be made, so each device has one of its own, below that of the module. The module makes
//! the latter before it registers its driver, and removes it after that.
//!
//! # Examples
//!
//! ```ignore
//! #[pin_data]
//! struct Module {
//!     // Dropped first.
//!     #[pin]
//!     driver: Registration<Adapter<Driver>>,
//!     directory: ModuleDirectory,
//! }
//!
//! // In `probe`:
//! let directory = debugfs::module_directory().ok_or(ENODEV)?;
//! let scope = KBox::pin_init(directory.scope(data, &name, files), GFP_KERNEL)?;
//! ```
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use kernel::{
    debugfs::Dir,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        global_lock, //
    },
};

global_lock! {
    // SAFETY: Initialised in `ModuleDirectory::new()`, before `READY` lets anybody use it.
    unsafe(uninit) static DIRECTORY: Mutex<Option<Dir>> = None;
}

/// Somebody has made, or is making, the directory.
static CLAIMED: Atomic<bool> = Atomic::new(false);

/// The lock is initialised.
static READY: Atomic<bool> = Atomic::new(false);

/// Keeps the directory of the module. It goes when this and all directories below it have been dropped.
pub struct ModuleDirectory(());

impl ModuleDirectory {
    /// Makes the directory. For the initialisation of a module.
    ///
    /// # Errors
    ///
    /// [`EBUSY`]: the module has made one before.
    pub fn new(name: &CStr) -> Result<Self> {
        if CLAIMED.xchg(true, Full) {
            return Err(EBUSY);
        }
        // SAFETY: Only the one who has set `CLAIMED` comes here.
        unsafe { DIRECTORY.init() };
        READY.store(true, Release);

        *DIRECTORY.lock() = Some(Dir::new(name));
        Ok(Self(()))
    }
}

impl Drop for ModuleDirectory {
    fn drop(&mut self) {
        let directory = DIRECTORY.lock().take();
        drop(directory);
    }
}

/// Returns the directory of the module, if it has one.
pub fn module_directory() -> Option<Dir> {
    if !READY.load(Acquire) {
        return None;
    }
    DIRECTORY.lock().clone()
}
