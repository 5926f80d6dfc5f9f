// SPDX-License-Identifier: GPL-2.0

//! Feature bits as a typed set (VirtIO 1.3, 2.2).
//!
//! A driver lists the bits that it implements in one enum, with [`virtio_features!`]. From that list comes the table that the
//! virtio core offers to the device, and only members of the enum can be asked about. In C, `virtio_has_feature()` of a bit
//! that is not in the table is a `BUG()`; here it does not compile.
//!
//! [`virtio_features!`]: crate::virtio_features
//!
//! C header: [`include/linux/virtio_features.h`](srctree/include/linux/virtio_features.h)

use crate::bindings;
use core::marker::PhantomData;

/// Bits that the virtio core keeps whether or not a driver lists them.
const VERSION_1: u32 = bindings::VIRTIO_F_VERSION_1;
const ANY_LAYOUT: u32 = bindings::VIRTIO_F_ANY_LAYOUT;
const ACCESS_PLATFORM: u32 = bindings::VIRTIO_F_ACCESS_PLATFORM;
const RING_PACKED: u32 = bindings::VIRTIO_F_RING_PACKED;
const RING_RESET: u32 = bindings::VIRTIO_F_RING_RESET;

/// A driver's feature bits. Implemented by [`virtio_features!`](crate::virtio_features).
pub trait Feature: Copy + 'static {
    /// Every bit number of the enum.
    const TABLE: &'static [u32];

    /// Returns the bit number.
    fn bit(self) -> u32;
}

/// Declares the enum of the feature bits that a driver implements.
///
/// Each number is the bit's in the specification.
///
/// # Examples
///
/// ```ignore
/// guest::virtio_features! {
///     /// What the driver implements.
///     pub(crate) enum Feature {
///         /// The device has given a MAC address.
///         Mac = 5,
///         /// The configuration has a link status.
///         Status = 16,
///     }
/// }
/// ```
#[macro_export]
macro_rules! virtio_features {
    (
        $(#[$attr:meta])*
        $vis:vis enum $name:ident { $( $(#[$bit_attr:meta])* $bit:ident = $number:literal ),* $(,)? }
    ) => {
        $(#[$attr])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $( $(#[$bit_attr])* $bit ),* }

        impl $crate::virtio::Feature for $name {
            const TABLE: &'static [u32] = &[$( $number ),*];

            fn bit(self) -> u32 {
                match self {
                    $( Self::$bit => $number, )*
                }
            }
        }
    };
}

/// A set of negotiated features: what the device offered and the driver implements.
///
/// It is the driver's own copy: nothing that the device does later changes it.
pub struct Features<F: Feature> {
    bits: u128,
    _driver: PhantomData<F>,
}

impl<F: Feature> Clone for Features<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Feature> Copy for Features<F> {}

impl<F: Feature> Features<F> {
    pub(super) fn new(array: [u64; 2]) -> Self {
        Self {
            bits: u128::from(array[0]) | u128::from(array[1]) << 64,
            _driver: PhantomData,
        }
    }

    /// Returns whether `feature` was negotiated.
    #[inline]
    pub fn contains(&self, feature: F) -> bool {
        self.has(feature.bit())
    }

    /// Returns whether one of `features` was negotiated, or more.
    pub fn contains_any(&self, features: &[F]) -> bool {
        features.iter().any(|&feature| self.contains(feature))
    }

    /// Gives `feature` up. Only [`Driver::validate`](super::Driver::validate) and
    /// [`Driver::renegotiate`](super::Driver::renegotiate) have a set that still can be changed.
    pub fn remove(&mut self, feature: F) {
        if let Some(mask) = 1u128.checked_shl(feature.bit()) {
            self.bits &= !mask;
        }
    }

    /// Gives all of `features` up, as [`remove`](Self::remove) does.
    pub fn remove_all(&mut self, features: &[F]) {
        for &feature in features {
            self.remove(feature);
        }
    }

    /// Returns whether the device follows VirtIO 1.0 or later; otherwise it is a legacy device.
    #[inline]
    pub fn is_modern(&self) -> bool {
        self.has(VERSION_1)
    }

    /// Returns whether a buffer's first bytes need no descriptor of their own, whatever they hold (VirtIO 1.3, 2.7.4.3).
    #[inline]
    pub fn any_layout(&self) -> bool {
        self.is_modern() || self.has(ANY_LAYOUT)
    }

    /// Returns whether rings are packed (VirtIO 1.3, 2.8); the number of entries of one that is not is a power of two.
    pub fn is_packed(&self) -> bool {
        self.has(RING_PACKED)
    }

    /// Returns whether [`Queue::resize`](super::Queue::resize) can work.
    pub fn can_reset_queues(&self) -> bool {
        self.has(RING_RESET)
    }

    /// Returns whether the device wants memory mapped for it: it may be behind an IOMMU, or reach only part of the memory.
    pub fn maps_memory(&self) -> bool {
        self.has(ACCESS_PLATFORM)
    }

    /// Returns whether bit number `bit` is in the set.
    pub(super) fn has(&self, bit: u32) -> bool {
        self.bits.checked_shr(bit).is_some_and(|bits| bits & 1 != 0)
    }
}
