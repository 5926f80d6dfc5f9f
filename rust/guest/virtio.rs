// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the virtio bus (VirtIO 1.3, section 3 and 4).
//!
//! A driver implements [`Driver`] and declares itself by [`module_virtio_driver!`](crate::module_virtio_driver). It wraps the
//! C virtio core, so every transport and ring format that the kernel knows comes with it.
//!
//! # Order of events
//!
//! The bus adapter keeps this order, whatever a driver does:
//!
//! 1. Features: what the device offers and the driver's [`Feature`] enum lists. [`Driver::validate`] may give some up.
//! 2. [`Driver::probe`] makes the queues and the private data. The device may not use the queues yet.
//! 3. The data is published to the callbacks, then DRIVER_OK is set. An interrupt that a device raises before is ignored.
//! 4. [`Driver::init`] starts the activity: the queues are live.
//! 5. [`Driver::unbind`] stops it.
//! 6. The device is reset, the callbacks are cut off, what is in flight is dropped, the queues are deleted. [`Queue::lock`]
//!    returns [`None`] from here on.
//! 7. The private data is dropped.
//!
//! A failure in 2 to 4 goes on at 5, or at 6 when there is no data yet.
//!
//! When the system is suspended, or a PCI function is reset, [`Driver::suspend`] is called in place of 5, and 6 follows, but the
//! queues' handles and the data stay. Afterwards features are negotiated again, of which [`Driver::renegotiate`] may give some up, the
//! queues are made again, 3 follows, and [`Driver::resume`] in place of 4.
//!
//! # What is not bounded
//!
//! A reset waits in the transport's C code until the device shows status 0. A device that never does keeps the unbinding task
//! there, with this driver as with any other.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

mod adapter;
pub mod buffer;
pub mod config;
mod features;
pub mod id;
mod queues;
mod virtqueue;

pub use self::{
    adapter::Adapter,
    features::{
        Feature,
        Features, //
    },
    queues::Virtqueues,
    virtqueue::{
        Callback,
        Interrupt,
        Queue,
        Virtqueue, //
    }, //
};

pub(crate) use self::virtqueue::{
    Lent,
    Substitute, //
};

use self::queues::{
    RawCallback,
    Set, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::offset_of,
    pin::Pin,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};
use kernel::{
    device,
    device_id::RawDeviceId,
    error::to_result,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Mutex, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

/// Declares a kernel module that exposes a single virtio driver.
///
/// # Examples
///
/// ```ignore
/// guest::module_virtio_driver! {
///     type: MyDriver,
///     name: "my_driver",
///     authors: ["Author name"],
///     description: "My driver",
///     license: "GPL",
/// }
/// ```
#[macro_export]
macro_rules! module_virtio_driver {
    ($($f:tt)*) => {
        ::kernel::module_driver!(<T>, $crate::virtio::Adapter<T>, { $($f)* });
    };
}

/// Abstraction for `bindings::virtio_device_id`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Matches devices of the type `device`, one of [`id`], of any vendor.
    pub const fn new(device: u32) -> Self {
        Self(bindings::virtio_device_id {
            device,
            vendor: bindings::VIRTIO_DEV_ANY_ID,
        })
    }
}

// SAFETY: `DeviceId` is a `#[repr(transparent)]` wrapper of `virtio_device_id` and does not add additional invariants, so it's
// safe to transmute to `RawType`.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// IdTable type for virtio drivers. A virtio id carries no data of the driver.
pub type IdTable = &'static dyn kernel::device_id::IdTable<DeviceId, ()>;

/// Create a virtio `IdTable` with its alias for modpost.
#[macro_export]
macro_rules! virtio_device_table {
    ($table_name:ident, [$($id:expr),* $(,)?]) => {
        ::kernel::module_device_table!(
            "virtio", $crate::virtio::DeviceId, $table_name, @none, [$($id),*]
        );
    };
}

/// The virtio driver trait.
///
/// The module documentation tells when each function is called. The functions that get a [`Device<Core>`](device::Core) run
/// in process context under the device lock.
pub trait Driver {
    /// The feature bits that the driver implements, made by [`virtio_features!`](crate::virtio_features).
    type Feature: Feature;

    /// The type of the driver's bus device private data.
    type Data<'bound>: Send + Sync + 'bound;

    /// The table of device ids supported by the driver.
    const ID_TABLE: IdTable;

    /// Checks the configuration and gives up features that it makes unusable, before the set is final.
    ///
    /// An error refuses the device.
    fn validate(dev: &Device<device::Core<'_>>, features: &mut Features<Self::Feature>) -> Result {
        let _ = (dev, features);
        Ok(())
    }

    /// Makes the queues, by [`Device::virtqueues`], and the private data.
    ///
    /// Buffers may be added to the queues, but not notified.
    fn probe<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        features: Features<Self::Feature>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Starts the activity: the device is live.
    fn init<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        data: Pin<&'bound Self::Data<'bound>>,
    ) -> Result {
        let _ = (dev, data);
        Ok(())
    }

    /// A queue with [`Callback::Enabled`] has used buffers. Hard interrupt context.
    fn vq_callback(data: Pin<&Self::Data<'_>>, vq: &Interrupt<'_>) {
        let _ = (data, vq);
    }

    /// The device's configuration has changed. May be called in hard interrupt context, where the configuration must not be
    /// read: leave that to a work item.
    fn config_changed(dev: &Device<device::Bound>, data: Pin<&Self::Data<'_>>) {
        let _ = (dev, data);
    }

    /// Stops the activity. Called once, also when [`init`](Self::init) has failed.
    ///
    /// The device is live until this returns. Memory in flight is not the driver's concern.
    fn unbind<'bound>(dev: &'bound Device<device::Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        let _ = (dev, data);
    }

    /// The system is about to be suspended, or the device to be reset by its bus. Stops the activity; the device is live until
    /// this returns, then it is reset, what is in flight is dropped, and [`Queue::lock`] returns [`None`].
    ///
    /// An error refuses.
    fn suspend(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data<'_>>) -> Result {
        let _ = data;
        dev_err!(
            dev,
            "this driver does not support suspend; unload its module first\n"
        );
        Err(EOPNOTSUPP)
    }

    /// After [`suspend`](Self::suspend): gives up features for the time until the device is suspended or reset again. They are
    /// those that were negotiated when the driver was bound, whatever was given up here before.
    ///
    /// What the driver has from [`probe`](Self::probe) on is that set, in which there may be more than the device knows of now.
    fn renegotiate(data: Pin<&Self::Data<'_>>, features: &mut Features<Self::Feature>) {
        let _ = (data, features);
    }

    /// The device is back, with nothing in its queues and none of what the driver had told it. Goes on.
    ///
    /// After an error the queues may work, but the device counts as failed until it is bound again.
    fn resume(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data<'_>>) -> Result {
        let _ = (dev, data);
        Ok(())
    }

    /// The machine shuts down or another kernel is started. The queues are broken and the device is reset afterwards; the
    /// driver stays bound.
    fn shutdown(dev: &Device<device::Core<'_>>, data: Pin<&Self::Data<'_>>) {
        let _ = (dev, data);
    }
}

/// What the adapter keeps per bound device, in `virtio_device.priv`.
#[pin_data]
struct State {
    /// The callback of all queues.
    callback: RawCallback,

    /// The features that were negotiated when the driver was bound.
    features: [u64; 2],

    /// The driver's private data while callbacks may use it.
    data: Atomic<*mut c_void>,

    /// The queues that the driver has asked for.
    #[pin]
    queues: Mutex<Set>,
}

impl State {
    fn new(callback: RawCallback, features: [u64; 2]) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            callback,
            features,
            data: Atomic::new(core::ptr::null_mut()),
            queues <- new_mutex!(Set::new(), "guest::virtio::State::queues"),
        })
    }
}

/// The virtio device representation.
///
/// This structure represents the Rust abstraction for a C `struct virtio_device`. The implementation abstracts the usage of an
/// already existing C `struct virtio_device` within Rust code that we get passed from the C side.
///
/// # Invariants
///
/// A [`Device`] instance represents a valid `struct virtio_device` created by the C portion of the kernel. While it is bound
/// to a driver of this crate, `priv` is null or a pinned `State`.
#[repr(transparent)]
pub struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::virtio_device>,
    PhantomData<Ctx>,
);

impl<Ctx: device::DeviceContext> Device<Ctx> {
    pub(crate) fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// Returns the device's number on the virtio bus: N of `virtioN`.
    pub fn index(&self) -> i32 {
        // SAFETY: By the type invariant `self.as_raw()` is valid; the index is set before registration.
        unsafe { (*self.as_raw()).index }
    }

    /// Returns the device that the transport sits on, such as the PCI function, which stands for this device towards user
    /// space.
    pub fn parent(&self) -> Option<&device::Device> {
        // SAFETY: By the type invariant `self.as_raw()` is valid; the parent is set before registration.
        let parent = unsafe { (*self.as_raw()).dev.parent };

        if parent.is_null() {
            None
        } else {
            // SAFETY: A device holds a reference to its parent.
            Some(unsafe { device::Device::from_raw(parent) })
        }
    }

    /// Returns the device status (VirtIO 1.3, 2.1). Process context.
    pub fn status(&self) -> u8 {
        match self.config_ops().get_status {
            // SAFETY: By the type invariant `self.as_raw()` is valid.
            Some(get_status) => unsafe { get_status(self.as_raw()) },
            None => 0,
        }
    }

    /// Has the device reset, with its driver [suspended](Driver::suspend) before and [resumed](Driver::resume) after that.
    /// Sleeps; in a work item that is frozen while the system sleeps, and that does not run any more once the driver has been
    /// unbound.
    ///
    /// # Errors
    ///
    /// [`EBUSY`]: it is being bound, unbound, suspended, resumed or reset. What the driver's functions fail with, and what a
    /// device that does not come back does: then it counts as failed until it is bound again.
    pub fn reset(&self) -> Result {
        // SAFETY: By the type invariant `self.as_raw()` is valid.
        let dev = unsafe { addr_of_mut!((*self.as_raw()).dev) };
        // SAFETY: As above. Who waited here could be waited for by whoever has the lock.
        if unsafe { bindings::device_trylock(dev) } == 0 {
            return Err(EBUSY);
        }

        // SAFETY: As above; the lock is held, so the device stays with its driver, if it has one.
        let result = to_result(unsafe { bindings::virtio_device_reset_prepare(self.as_raw()) })
            .and_then(|()| {
                // SAFETY: As above.
                to_result(unsafe { bindings::virtio_device_reset_done(self.as_raw()) })
            });

        // SAFETY: Locked above.
        unsafe { bindings::device_unlock(dev) };
        result
    }

    /// Returns whether the device is where it was, as far as its bus can tell: a PCI function can be taken away at any moment,
    /// and reads as all ones from then on. Any context.
    pub fn is_present(&self) -> bool {
        // SAFETY: By the type invariant `self.as_raw()` is valid.
        unsafe { is_present(self.as_raw()) }
    }

    fn state(&self) -> Option<&State> {
        // SAFETY: By the type invariant `self.as_raw()` is valid.
        let state = unsafe { (*self.as_raw()).priv_ };

        // SAFETY: By the type invariant it is null or a pinned `State`, which outlives the callbacks and the binding.
        unsafe { state.cast::<State>().as_ref() }
    }
}

impl Device<device::Core<'_>> {
    /// Begins a list of the queues to make.
    pub fn virtqueues(&self) -> Virtqueues<'_> {
        Virtqueues::new(self)
    }
}

impl<'a> Device<device::CoreInternal<'a>> {
    /// Returns the negotiated set. Only while the device is probed.
    fn features(&self) -> [u64; 2] {
        // SAFETY: By the type invariant `self.as_raw()` is valid, and nobody writes the set while the device is probed.
        let array = unsafe { addr_of_mut!((*self.as_raw()).__bindgen_anon_1) };

        // SAFETY: Both members of the union are made of 64-bit words, the array being the longer one.
        unsafe { array.cast::<[u64; 2]>().read() }
    }

    /// Has these of the driver's features negotiated, and no others: all have been offered. Before the device is told, in the
    /// validate callback or after a reset.
    fn set_features<F: Feature>(&self, features: &Features<F>) {
        for &bit in F::TABLE {
            if features.has(bit) {
                // SAFETY: By the type invariant `self.as_raw()` is valid; `bit` is in the driver's table, so it is below 128.
                unsafe { bindings::__virtio_set_bit(self.as_raw(), bit) };
            } else {
                // SAFETY: As above.
                unsafe { bindings::__virtio_clear_bit(self.as_raw(), bit) };
            }
        }
    }

    fn set_state(&self, state: Pin<KBox<State>>) {
        // SAFETY: By the type invariant `self.as_raw()` is valid, and there are no callbacks yet.
        unsafe { (*self.as_raw()).priv_ = state.into_foreign().cast() };
    }

    /// Sets DRIVER_OK.
    fn ready(&self) {
        // SAFETY: By the type invariant `self.as_raw()` is valid; the status has FEATURES_OK and not yet DRIVER_OK.
        unsafe { bindings::virtio_device_ready(self.as_raw()) };
    }

    /// Returns the driver's data if callbacks may use it.
    ///
    /// `T` is the driver's data type.
    fn published<T>(&self) -> Option<Pin<&T>> {
        let data = self.state()?.data.load(Acquire);

        // SAFETY: The adapter stores null or its driver's pinned data, which it drops only after the callbacks are cut off.
        unsafe { data.cast::<T>().as_ref() }.map(|data| {
            // SAFETY: It was pinned when it was stored.
            unsafe { Pin::new_unchecked(data) }
        })
    }

    /// Ends the device's access to memory, cuts the callbacks off, takes back all that the device has, and deletes the queues.
    fn quiesce(&self) {
        // SAFETY: By the type invariant `self.as_raw()` is valid. Kicks that are still under way find a reset device.
        unsafe { bindings::virtio_break_device(self.as_raw()) };
        self.reset_present();

        if let Some(state) = self.state() {
            state.data.store(core::ptr::null_mut(), Release);
            // SAFETY: The device has just been reset.
            unsafe { state.queues.lock().delete(self) };
        }
    }

    /// Resets the device, whose queues are broken. One that is gone has no access to memory any more, and would never be seen
    /// to be reset: the core waits for that without end.
    fn reset_present(&self) {
        if self.is_present() {
            // SAFETY: By the type invariant `self.as_raw()` is valid.
            unsafe { bindings::virtio_reset_device(self.as_raw()) };
        } else {
            dev_warn!(self, "the device is gone\n");
        }
    }

    /// Ends the binding, but for the driver's data.
    fn tear_down(&self) {
        self.quiesce();

        // SAFETY: By the type invariant `self.as_raw()` is valid; with the queues the last callbacks are gone.
        let state =
            unsafe { core::mem::replace(&mut (*self.as_raw()).priv_, core::ptr::null_mut()) };
        if !state.is_null() {
            // SAFETY: By the type invariant it is a `State`, stored by `set_state()`.
            drop(unsafe { Pin::<KBox<State>>::from_foreign(state.cast()) });
        }
    }
}

/// Returns whether a device is [present](Device::is_present).
///
/// # Safety
///
/// `vdev` is valid.
unsafe fn is_present(vdev: *mut bindings::virtio_device) -> bool {
    // SAFETY: By the safety requirements.
    unsafe { bindings::virtio_device_is_present(vdev) }
}

// SAFETY: `virtio::Device` is a transparent wrapper of `struct virtio_device`.
// The offset is guaranteed to point to a valid device field inside `virtio::Device`.
unsafe impl<Ctx: device::DeviceContext> device::AsBusDevice<Ctx> for Device<Ctx> {
    const OFFSET: usize = offset_of!(bindings::virtio_device, dev);
}

// SAFETY: `Device` is a transparent wrapper of a type that doesn't depend on `Device`'s generic
// argument.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

// SAFETY: Instances of `Device` are always reference-counted.
unsafe impl kernel::sync::aref::AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: The existence of a shared reference guarantees that the refcount is non-zero.
        unsafe { bindings::get_device(addr_of_mut!((*self.as_raw()).dev)) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // CAST: `Self` a transparent wrapper of `bindings::virtio_device`.
        let vdev: *mut bindings::virtio_device = obj.cast().as_ptr();

        // SAFETY: By the type invariant of `Self`, `vdev` is a pointer to a valid `struct virtio_device`.
        let dev = unsafe { addr_of_mut!((*vdev).dev) };

        // SAFETY: The safety requirements guarantee that the refcount is non-zero.
        unsafe { bindings::put_device(dev) }
    }
}

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariant of `Self`, `self.as_raw()` is a pointer to a valid `struct virtio_device`.
        let dev = unsafe { addr_of_mut!((*self.as_raw()).dev) };

        // SAFETY: `dev` points to a valid `struct device`.
        unsafe { device::Device::from_raw(dev) }
    }
}

// SAFETY: A `Device` is always reference-counted and can be released from any thread.
unsafe impl Send for Device {}

// SAFETY: `Device` can be shared among threads because all methods of `Device`
// (i.e. `Device<Normal>) are thread safe.
unsafe impl Sync for Device {}

// SAFETY: Same as `Device<Normal>` -- the underlying `struct virtio_device` is the same;
// `Bound` is a zero-sized type-state marker that does not affect thread safety.
unsafe impl Sync for Device<device::Bound> {}
