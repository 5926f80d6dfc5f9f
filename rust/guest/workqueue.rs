// SPDX-License-Identifier: GPL-2.0

//! Work queues: what [`kernel::workqueue`] lacks.
//!
//! A work item of the `kernel` crate is a reference-counted object, and while it is queued the queue owns one reference.
//! Nothing there takes it back, so a driver cannot be sure that no work runs after it was unbound. The functions here do:
//! they cancel the work, wait for a run that is under way, and drop the reference that the queue held.
//!
//! # Examples
//!
//! ```ignore
//! let queue = OwnedQueue::new(c"my_driver")?;
//! let _ = queue.enqueue(work.clone());
//! // In `unbind`:
//! workqueue::disable_sync(&work);
//! ```
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    workqueue::{
        HasDelayedWork,
        HasWork,
        Queue,
        Work,
        WorkItem, //
    }, //
};

/// A work queue of a driver's own, not bound to a CPU.
///
/// Dropping it waits for the work that it still has. It must not be dropped by a work item that runs on it.
///
/// # Invariants
///
/// `wq` is a valid work queue, owned by this value.
pub struct OwnedQueue {
    wq: NonNull<bindings::workqueue_struct>,
}

// SAFETY: A work queue is bound to no thread.
unsafe impl Send for OwnedQueue {}

// SAFETY: Work may be queued from any thread at once.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Makes a work queue that is stopped while the system is suspended, before drivers hear of that. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(name: &CStr) -> Result<Self> {
        Self::with_flags(name, bindings::wq_flags_WQ_FREEZABLE)
    }

    /// Makes a work queue that is not: for a driver that still needs it when it is to be suspended, and stops its work itself.
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new_unfrozen(name: &CStr) -> Result<Self> {
        Self::with_flags(name, 0)
    }

    fn with_flags(name: &CStr, flags: u32) -> Result<Self> {
        // SAFETY: `name` is a string for the format `%s`; the kernel copies it.
        let wq = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_UNBOUND | flags,
                0,
                name.as_char_ptr(),
            )
        };

        // INVARIANT: A work queue has just been made.
        Ok(Self {
            wq: NonNull::new(wq).ok_or(ENOMEM)?,
        })
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariant `wq` is valid as long as `self`.
        unsafe { Queue::from_raw(self.wq.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant `wq` is valid and owned; it is not used again.
        unsafe { bindings::destroy_workqueue(self.wq.as_ptr()) };
    }
}

/// Returns the system's work queue for work that is not bound to a CPU; the kernel warns of the one that
/// [`kernel::workqueue::system`] returns.
pub fn system_dfl() -> &'static Queue {
    // SAFETY: The system's work queues are made at boot and never go.
    let wq = unsafe { bindings::system_dfl_wq };

    // SAFETY: As above.
    unsafe { Queue::from_raw(wq) }
}

/// Cancels `work`, waits for a run that is under way, and lets nobody queue it: until it was [enabled](enable) as often
/// [`Queue::enqueue`] gives it back.
pub fn disable_sync<T, const ID: u64>(work: &Arc<T>)
where
    T: HasWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    // SAFETY: `raw_work()` returns an initialised work item, which lives as long as `work`.
    let pending = unsafe { bindings::disable_work_sync(raw_work::<T, ID>(work)) };

    drop_reference(work, pending);
}

/// Ends [`disable_sync`].
pub fn enable<T, const ID: u64>(work: &Arc<T>)
where
    T: HasWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    // SAFETY: `raw_work()` returns an initialised work item, which lives as long as `work`.
    unsafe { bindings::enable_work(raw_work::<T, ID>(work)) };
}

/// Ends [`disable_delayed_sync`].
pub fn enable_delayed<T, const ID: u64>(work: &Arc<T>)
where
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    // SAFETY: `raw_delayed_work()` returns an initialised delayed work item, which lives as long as `work`.
    unsafe { bindings::enable_delayed_work(raw_delayed_work::<T, ID>(work)) };
}

/// Waits for the run of `work` that is queued or under way, if there is one.
pub fn flush<T, const ID: u64>(work: &Arc<T>)
where
    T: HasWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    // SAFETY: `raw_work()` returns an initialised work item, which lives as long as `work`.
    unsafe { bindings::flush_work(raw_work::<T, ID>(work)) };
}

/// Cancels the delayed `work`, waits for a run that is under way, and lets nobody queue it: until it was
/// [enabled](enable_delayed) as often [`Queue::enqueue_delayed`] gives it back.
pub fn disable_delayed_sync<T, const ID: u64>(work: &Arc<T>)
where
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    // SAFETY: `raw_delayed_work()` returns an initialised delayed work item, which lives as long as `work`.
    let pending = unsafe { bindings::disable_delayed_work_sync(raw_delayed_work::<T, ID>(work)) };

    drop_reference(work, pending);
}

/// Cancels the delayed `work` if it has not begun, so that it can be queued with another delay. Does not sleep.
pub fn cancel_delayed<T, const ID: u64>(work: &Arc<T>)
where
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    // SAFETY: `raw_delayed_work()` returns an initialised delayed work item, which lives as long as `work`.
    let pending = unsafe { bindings::cancel_delayed_work(raw_delayed_work::<T, ID>(work)) };

    drop_reference(work, pending);
}

/// Drops the reference that a work queue held, if the work was still `pending` when it was cancelled.
fn drop_reference<T>(work: &Arc<T>, pending: bool) {
    if pending {
        // SAFETY: Queueing the work gave away a reference made by `Arc::into_raw()`, for `run` to take back. The work was
        // cancelled before `run` was called, so it is taken back here, once.
        drop(unsafe { Arc::from_raw(Arc::as_ptr(work)) });
    }
}

fn raw_work<T, const ID: u64>(work: &Arc<T>) -> *mut bindings::work_struct
where
    T: HasWork<T, ID>,
{
    // SAFETY: An `Arc` points to a valid value.
    let work = unsafe { T::raw_get_work(Arc::as_ptr(work).cast_mut()) };

    // SAFETY: `raw_get_work()` returns a valid pointer.
    unsafe { Work::raw_get(work) }
}

fn raw_delayed_work<T, const ID: u64>(work: &Arc<T>) -> *mut bindings::delayed_work
where
    T: HasDelayedWork<T, ID>,
{
    let work = raw_work::<T, ID>(work);

    // SAFETY: By the contract of `HasDelayedWork` this is the `work` field of a `delayed_work`.
    unsafe { kernel::container_of!(work, bindings::delayed_work, work) }
}
