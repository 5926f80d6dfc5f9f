// SPDX-License-Identifier: GPL-2.0

//! The virtio bus's callbacks, and the order in which a driver's functions are called; see the [`virtio`](super) module.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    Device,
    Driver,
    Feature,
    Features,
    Interrupt,
    State, //
};
use crate::bindings;
use core::{
    mem::offset_of,
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    device,
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::atomic::Release,
    types::Opaque,
    ThisModule, //
};

/// An adapter for the registration of virtio drivers.
pub struct Adapter<T: Driver>(T);

// SAFETY:
// - `bindings::virtio_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct virtio_driver` embeds a `struct device_driver`.
// - `DEVICE_DRIVER_OFFSET` is the correct byte offset to the embedded `struct device_driver`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is guaranteed to be valid if
// a preceding call to `register` has been successful.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        vdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let features = <T::Feature as Feature>::TABLE;

        // SAFETY: It's safe to set the fields of `struct virtio_driver` on initialization.
        unsafe {
            let vdrv = vdrv.get();
            (*vdrv).driver.name = name.as_char_ptr();
            (*vdrv).id_table = T::ID_TABLE.as_ptr();
            (*vdrv).feature_table = features.as_ptr();
            // CAST: There are 128 feature bits.
            (*vdrv).feature_table_size = features.len() as u32;
            (*vdrv).validate = Some(Self::validate_callback);
            (*vdrv).probe = Some(Self::probe_callback);
            (*vdrv).remove = Some(Self::remove_callback);
            (*vdrv).config_changed = Some(Self::config_changed_callback);
            (*vdrv).freeze = Some(Self::freeze_callback);
            (*vdrv).restore = Some(Self::restore_callback);
            (*vdrv).reset_prepare = Some(Self::freeze_callback);
            (*vdrv).reset_done = Some(Self::restore_callback);
            (*vdrv).shutdown = Some(Self::shutdown_callback);
        }

        // SAFETY: `vdrv` is guaranteed to be a valid `DriverType`.
        to_result(unsafe { bindings::__register_virtio_driver(vdrv.get(), module.as_ptr()) })
    }

    unsafe fn unregister(vdrv: &Opaque<Self::DriverType>) {
        // SAFETY: `vdrv` is guaranteed to be a valid `DriverType`.
        unsafe { bindings::unregister_virtio_driver(vdrv.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus only ever calls the validate callback with a valid pointer to a `struct virtio_device`.
        //
        // INVARIANT: `vdev` is valid for the duration of `validate_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            let mut features = Features::new(dev.features());
            T::validate(dev, &mut features)?;
            dev.set_features(&features);
            Ok(0)
        })
    }

    extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus only ever calls the probe callback with a valid pointer to a `struct virtio_device`.
        //
        // INVARIANT: `vdev` is valid for the duration of `probe_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            let state = State::new(Self::vq_callback, dev.features());
            dev.set_state(KBox::pin_init(state, GFP_KERNEL)?);

            let bound = Self::bring_up(dev);
            if bound.is_err() {
                dev.tear_down();
            }
            bound.map(|()| 0)
        })
    }

    fn bring_up(dev: &Device<device::CoreInternal<'_>>) -> Result {
        let data = T::probe(dev, Features::new(dev.features()));
        dev.as_ref().set_drvdata(data)?;

        // SAFETY: `set_drvdata()` has just stored a `Pin<KBox<T::Data<'_>>>`.
        let data = unsafe { dev.as_ref().drvdata_borrow::<T::Data<'_>>() };
        Self::publish(dev, data);
        dev.ready();

        T::init(dev, data).inspect_err(|_| T::unbind(dev, data))
    }

    /// Lets the callbacks use the driver's data.
    fn publish(dev: &Device<device::CoreInternal<'_>>, data: Pin<&T::Data<'_>>) {
        if let Some(state) = dev.state() {
            let data: *const T::Data<'_> = data.get_ref();
            state.data.store(data.cast_mut().cast(), Release);
        }
    }

    extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio bus only ever calls the remove callback with a valid pointer to a `struct virtio_device`.
        //
        // INVARIANT: `vdev` is valid for the duration of `remove_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: `remove_callback` is only ever called after a successful call to `probe_callback`, hence it's guaranteed
        // that `Device::set_drvdata()` has been called and stored a `Pin<KBox<T::Data<'_>>>`.
        let data = unsafe { dev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        T::unbind(dev, data);
        dev.tear_down();
    }

    extern "C" fn vq_callback(vq: *mut bindings::virtqueue) {
        let Some(vq) = NonNull::new(vq) else {
            return;
        };
        // SAFETY: The core calls with a valid queue, which belongs to a valid device.
        let dev = unsafe {
            &*(*vq.as_ptr())
                .vdev
                .cast::<Device<device::CoreInternal<'_>>>()
        };
        let Some(data) = dev.published::<T::Data<'_>>() else {
            return;
        };
        // SAFETY: `vq` is valid for the duration of the callback.
        let interrupt = unsafe { Interrupt::new(vq) };

        T::vq_callback(data, &interrupt);
    }

    extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio core only ever calls with a valid pointer to a `struct virtio_device`.
        //
        // INVARIANT: `vdev` is bound for the duration of the callback: the core turns it off before `remove`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        if let Some(data) = dev.published::<T::Data<'_>>() {
            T::config_changed(dev, data);
        }
    }

    /// The system is about to be suspended, or the function to be reset: after that the device has forgotten its queues.
    extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio core only ever calls with a valid pointer to a `struct virtio_device`, and holds the device lock.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            if let Some(data) = dev.published::<T::Data<'_>>() {
                T::suspend(dev, data)?;
                dev.quiesce();
                Self::renegotiate(dev, data);
            }
            Ok(0)
        })
    }

    /// Says which features the device is to have when it is there again.
    fn renegotiate(dev: &Device<device::CoreInternal<'_>>, data: Pin<&T::Data<'_>>) {
        let Some(state) = dev.state() else {
            return;
        };
        let mut features = Features::new(state.features);

        T::renegotiate(data, &mut features);
        dev.set_features(&features);
    }

    /// The device is there again, reset, with the features that it was to have.
    extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: As above.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            let state = dev.state().ok_or(ENODEV)?;
            state.queues.lock().make(dev, state.callback)?;

            // SAFETY: The device is bound, so `probe_callback` has stored a `Pin<KBox<T::Data<'_>>>`.
            let data = unsafe { dev.as_ref().drvdata_borrow::<T::Data<'_>>() };
            Self::publish(dev, data);
            dev.ready();
            T::resume(dev, data)?;
            Ok(0)
        })
    }

    extern "C" fn shutdown_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio bus only ever calls with a valid pointer to a `struct virtio_device`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        if let Some(data) = dev.published::<T::Data<'_>>() {
            T::shutdown(dev, data);
        }
        // Resetting what is gone would take forever.
        if dev.is_present() {
            // SAFETY: By the type invariant `vdev` is valid.
            unsafe { bindings::virtio_device_shutdown(vdev) };
        } else {
            // SAFETY: As above.
            unsafe { bindings::virtio_break_device(vdev) };
        }
    }
}
