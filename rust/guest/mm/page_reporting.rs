// SPDX-License-Identifier: GPL-2.0

//! Free page reporting: telling a device of memory that nobody uses.
//!
//! The page allocator sets blocks of free pages aside, has a [`Reporter`] tell a device of them, and takes them back. Meanwhile
//! they are a value, [`FreePages`], which is a buffer for a queue: the page allocator does not get them back before that value
//! is gone, because the device has returned it or because it has been reset. So a device cannot be slow enough to have a page
//! that is in use again.
//!
//! Whoever waits for the value is a work item of the kernel, in a sleep that disturbs nobody. When the device is silent for long,
//! [`Reporter::overdue`] may have the queue reset.
//!
//! C header: [`include/linux/page_reporting.h`](srctree/include/linux/page_reporting.h)

use crate::{
    bindings,
    completion::Completion,
    virtio::buffer::{
        Buffer,
        Segments, //
    }, //
};
use core::{
    ffi::c_void,
    mem::ManuallyDrop,
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    error::to_result,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    time::Msecs,
    types::Opaque, //
};

/// The most blocks that are reported at once.
pub const MAX_BLOCKS: usize = bindings::PAGE_REPORTING_CAPACITY as usize;

/// How long a device may be silent before [`Reporter::overdue`] is called.
const PATIENCE: Msecs = 5_000;

/// Tells a device of free pages.
pub trait Reporter: Send + Sync {
    /// Lends `pages` to the device. To drop them says that the device does not know of them.
    fn lend(&self, pages: FreePages);

    /// Takes back what the device has returned. Called after [`Reporting::wake`], and now and then.
    fn collect(&self);

    /// The device has been silent for some seconds. The pages stay away from the guest until their value is gone.
    fn overdue(&self);
}

/// Blocks of free pages, set aside by the page allocator.
pub struct FreePages {
    place: NonNull<Place>,
    blocks: Blocks,
}

// SAFETY: Pages are bound to no thread.
unsafe impl Send for FreePages {}

/// # Invariants
///
/// `sg` is an array of `count` entries, each of which describes a block of free pages; together they are `bytes`.
#[derive(Clone, Copy)]
struct Blocks {
    sg: NonNull<bindings::scatterlist>,
    count: usize,
    bytes: u64,
}

impl Blocks {
    fn for_each(&self, mut f: impl FnMut(NonNull<bindings::scatterlist>, u32)) {
        for i in 0..self.count {
            // SAFETY: By the type invariant there are `count` entries.
            let entry = unsafe { self.sg.add(i) };
            // SAFETY: By the type invariant the entry is valid.
            let len = unsafe { (*entry.as_ptr()).length };
            f(entry, len);
        }
    }
}

/// What has become of the pages.
///
/// # Invariants
///
/// `blocks` is [`Some`] exactly while there is a value of [`FreePages`] for them, or a queue has it.
struct State {
    blocks: Option<Blocks>,
    known: bool,
}

// SAFETY: Pages are bound to no thread.
unsafe impl Send for State {}

/// Where the page allocator waits for its pages.
#[pin_data]
struct Place {
    #[pin]
    state: SpinLock<State>,
    /// Something has happened.
    #[pin]
    event: Completion,
}

impl Place {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: There is no value.
            state <- new_spinlock!(
                State { blocks: None, known: false },
                "guest::page_reporting::Place"
            ),
            event <- Completion::new(),
        })
    }
}

impl FreePages {
    /// Returns how many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.blocks.bytes
    }

    /// The device has been told of the pages. Until somebody uses them, it is not told again.
    pub fn known(self) {
        // SAFETY: By the type invariant of `State` the page allocator waits at the place for this value.
        let place = unsafe { self.place.as_ref() };

        place.state.lock().known = true;
    }
}

impl Drop for FreePages {
    fn drop(&mut self) {
        // SAFETY: By the type invariant of `State` the page allocator waits at the place for this value.
        let place = unsafe { self.place.as_ref() };

        let mut state = place.state.lock();
        // INVARIANT: The value is about to be gone.
        state.blocks = None;
        // Under the lock: as soon as it is released, the place may go.
        place.event.complete();
    }
}

// SAFETY:
// - `into_raw()` gives the address of the place, which has one value at a time, and `from_raw()` makes the same value again.
// - The page allocator leaves the pages alone until the value is dropped.
// - All of it is for the device to write, and its length is counted.
unsafe impl Buffer for FreePages {
    fn into_raw(self) -> NonNull<c_void> {
        ManuallyDrop::new(self).place.cast()
    }

    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        let place: NonNull<Place> = ptr.cast();
        // SAFETY: By the safety requirements a value has been given up for this address, so its place is there.
        let blocks = unsafe { place.as_ref() }.state.lock().blocks;
        // It is there, by the type invariant of `State`; no blocks are a value, too.
        let blocks = blocks.unwrap_or(Blocks {
            sg: NonNull::dangling(),
            count: 0,
            bytes: 0,
        });

        Self { place, blocks }
    }

    fn segments(&self, list: &mut Segments<'_>) -> Result {
        let mut result = Ok(());

        self.blocks.for_each(|entry, len| {
            // SAFETY: The entry is one of the blocks'; free memory is in the linear map, where it has an address.
            let address = unsafe { bindings::sg_virt(entry.as_ptr()) };
            if let (Ok(()), Some(address)) = (result, NonNull::new(address.cast())) {
                result = list.push_in(address, len);
            }
        });
        result
    }

    fn capacity(&self) -> u32 {
        // Nobody reads what the device writes, nor how much.
        u32::try_from(self.bytes()).unwrap_or(u32::MAX)
    }
}

/// Has the page allocator report free pages while the value lives. There can be one in a machine.
///
/// # Invariants
///
/// While `registered`, the C core knows `info`.
#[pin_data(PinnedDrop)]
pub struct Reporting {
    #[pin]
    info: Opaque<bindings::page_reporting_dev_info>,
    #[pin]
    place: Place,
    reporter: Arc<dyn Reporter>,
}

// SAFETY: The C core has its own locks, the place has one, and reporters are `Send`.
unsafe impl Send for Reporting {}

// SAFETY: As above.
unsafe impl Sync for Reporting {}

impl Reporting {
    /// Begins to report, at most `blocks` blocks at once. The first reports come after a pause of some seconds.
    ///
    /// # Errors
    ///
    /// [`EBUSY`]: somebody else is being reported to. [`ENOMEM`].
    pub fn new(reporter: Arc<dyn Reporter>, blocks: usize) -> Result<Pin<KBox<Self>>> {
        let capacity = blocks.clamp(1, MAX_BLOCKS);
        let this = KBox::pin_init(
            pin_init!(Self {
                info <- Opaque::ffi_init(move |info: *mut bindings::page_reporting_dev_info| {
                    let value = bindings::page_reporting_dev_info {
                        report: Some(report),
                        // CAST: "Unspecified" is -1 in C, too.
                        order: bindings::PAGE_REPORTING_ORDER_UNSPECIFIED as u32,
                        // CAST: A small number.
                        capacity: capacity as u32,
                        ..pin_init::zeroed()
                    };
                    // SAFETY: `info` is valid for writing.
                    unsafe { info.write(value) };
                }),
                place <- Place::new(),
                reporter,
            }),
            GFP_KERNEL,
        )?;

        // SAFETY: `info` is filled in and pinned, and stays so until it is unregistered.
        to_result(unsafe { bindings::page_reporting_register(this.info.get()) })?;
        Ok(this)
    }

    /// Has [`Reporter::collect`] called. Any context.
    pub fn wake(&self) {
        self.place.event.complete();
    }

    /// Reports the blocks, and returns when they belong to the page allocator again.
    fn report(&self, blocks: Blocks) -> Result {
        {
            let mut state = self.place.state.lock();
            state.known = false;
            // INVARIANT: The value is made just below.
            state.blocks = Some(blocks);
        }
        self.reporter.lend(FreePages {
            place: NonNull::from(&self.place),
            blocks,
        });

        let mut warned = false;
        loop {
            {
                let state = self.place.state.lock();
                if state.blocks.is_none() {
                    return if state.known { Ok(()) } else { Err(EIO) };
                }
            }
            // No signal comes here: this is a thread of the kernel.
            let silent = self
                .place
                .event
                .wait_interruptible_timeout(PATIENCE)
                .is_err();
            self.reporter.collect();
            if silent && !warned {
                warned = true;
                self.reporter.overdue();
            }
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Reporting {
    fn drop(self: Pin<&mut Self>) {
        // If it was not registered, this does nothing. Waits until the last pages are back.
        // SAFETY: `info` is valid.
        unsafe { bindings::page_reporting_unregister(self.info.get()) };
    }
}

/// The page allocator has set pages aside. Process context; one call at a time.
extern "C" fn report(
    info: *mut bindings::page_reporting_dev_info,
    sg: *mut bindings::scatterlist,
    count: c_uint,
) -> c_int {
    let Some(sg) = NonNull::new(sg) else {
        return EINVAL.to_errno();
    };
    let info: *mut Opaque<bindings::page_reporting_dev_info> = info.cast();
    // SAFETY: The C core calls with what was registered, which is the field of a `Reporting`.
    let this: *mut Reporting = unsafe { container_of!(info, Reporting, info) };
    // SAFETY: It is not dropped before it is unregistered, which waits for this call.
    let this = unsafe { &*this };
    // INVARIANT: The C core passes an array with so many blocks, whose sum is just below.
    let mut blocks = Blocks {
        sg,
        // CAST: A small number.
        count: count as usize,
        bytes: 0,
    };
    let mut bytes = 0u64;
    blocks.for_each(|_, len| bytes = bytes.wrapping_add(u64::from(len)));
    blocks.bytes = bytes;

    match this.report(blocks) {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}
