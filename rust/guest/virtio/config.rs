// SPDX-License-Identifier: GPL-2.0

//! Device configuration space (VirtIO 1.3, 2.5).
//!
//! A driver names each field once, as a [`Field`] constant with its type and offset, and reads it by
//! [`Device::read`](super::Device::read). All fields are little endian; so are a legacy device's on the architectures that
//! this crate supports.
//!
//! What is read is the device's word. It may change from one read to the next, so a driver reads once, checks, and keeps its
//! own copy.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use super::Device;
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    device::DeviceContext,
    prelude::*, //
};

/// How often a read of several fields is begun anew because the device changed its configuration meanwhile.
///
/// A device that changes its configuration faster than it can be read is broken or hostile; C drivers follow it for ever.
const GENERATION_RETRIES: usize = 64;

/// A type that a configuration field can have.
pub trait Value: Copy {
    /// The bytes of one value, zeroed.
    type Bytes: AsMut<[u8]> + AsRef<[u8]> + Default;

    /// How many bytes are accessed at a time: 1, 2, 4 or 8. Transports take no other width.
    const WIDTH: usize;

    /// Converts from what the device holds.
    fn from_bytes(bytes: Self::Bytes) -> Self;

    /// Converts to what the device holds.
    fn to_bytes(self) -> Self::Bytes;
}

macro_rules! impl_value {
    ($($int:ty),*) => {
        $(impl Value for $int {
            type Bytes = [u8; size_of::<$int>()];

            const WIDTH: usize = size_of::<$int>();

            fn from_bytes(bytes: Self::Bytes) -> Self {
                <$int>::from_le_bytes(bytes)
            }

            fn to_bytes(self) -> Self::Bytes {
                self.to_le_bytes()
            }
        })*
    };
}

impl_value!(u8, u16, u32, u64);

/// A MAC address.
impl Value for [u8; 6] {
    type Bytes = [u8; 6];

    const WIDTH: usize = 1;

    fn from_bytes(bytes: Self::Bytes) -> Self {
        bytes
    }

    fn to_bytes(self) -> Self::Bytes {
        self
    }
}

/// A field of the configuration space: a type and an offset in bytes.
pub struct Field<T: Value> {
    offset: u32,
    _type: PhantomData<T>,
}

impl<T: Value> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Value> Copy for Field<T> {}

impl<T: Value> Field<T> {
    /// Names the field at `offset`.
    pub const fn new(offset: u32) -> Self {
        Self {
            offset,
            _type: PhantomData,
        }
    }
}

impl<Ctx: DeviceContext> Device<Ctx> {
    /// Reads a field.
    ///
    /// Process context: some transports sleep. The value is what the device says now. A field of more than 32 bits can be torn
    /// by a change in the middle; read it by [`read_consistent`](Self::read_consistent).
    pub fn read<T: Value>(&self, field: Field<T>) -> T {
        let mut bytes = T::Bytes::default();

        if let Some(get) = self.config_ops().get {
            for (offset, part) in (field.offset..)
                .step_by(T::WIDTH)
                .zip(bytes.as_mut().chunks_mut(T::WIDTH))
            {
                // CAST: A part is at most 8 bytes long.
                let len = part.len() as u32;
                // SAFETY: By the type invariant `self.as_raw()` is valid; `part` is writable for `len` bytes.
                unsafe { get(self.as_raw(), offset, part.as_mut_ptr().cast(), len) };
            }
        }

        T::from_bytes(bytes)
    }

    /// Writes a field.
    ///
    /// Process context: some transports sleep.
    pub fn write<T: Value>(&self, field: Field<T>, value: T) {
        let bytes = value.to_bytes();

        if let Some(set) = self.config_ops().set {
            for (offset, part) in (field.offset..)
                .step_by(T::WIDTH)
                .zip(bytes.as_ref().chunks(T::WIDTH))
            {
                // CAST: A part is at most 8 bytes long.
                let len = part.len() as u32;
                // SAFETY: By the type invariant `self.as_raw()` is valid; `part` is readable for `len` bytes.
                unsafe { set(self.as_raw(), offset, part.as_ptr().cast(), len) };
            }
        }
    }

    /// Reads several fields that belong together: `read` is called again while the device's configuration generation changes
    /// (VirtIO 1.3, 2.5.3).
    ///
    /// # Errors
    ///
    /// [`EIO`] when the configuration does not stand still.
    pub fn read_consistent<R>(&self, mut read: impl FnMut(&Self) -> R) -> Result<R> {
        let mut generation = self.generation();

        for _ in 0..GENERATION_RETRIES {
            let value = read(self);
            let now = self.generation();
            if now == generation {
                return Ok(value);
            }
            generation = now;
        }

        Err(EIO)
    }

    /// Returns the configuration generation; transports without one count as never changing, as in C.
    fn generation(&self) -> u32 {
        match self.config_ops().generation {
            // SAFETY: By the type invariant `self.as_raw()` is valid.
            Some(generation) => unsafe { generation(self.as_raw()) },
            None => 0,
        }
    }

    /// Returns the transport's operations.
    pub(super) fn config_ops(&self) -> &bindings::virtio_config_ops {
        // SAFETY: By the type invariant `self.as_raw()` is valid, and a registered device's `config` is set and constant.
        unsafe { &*(*self.as_raw()).config }
    }
}
