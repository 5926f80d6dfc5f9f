// SPDX-License-Identifier: GPL-2.0

//! Virtio device ids (VirtIO 1.3, section 5).
//!
//! C header: [`include/uapi/linux/virtio_ids.h`](srctree/include/uapi/linux/virtio_ids.h)

use crate::bindings;

/// Network card (VirtIO 1.3, 5.1).
pub const NET: u32 = bindings::VIRTIO_ID_NET;

/// Entropy source (VirtIO 1.3, 5.4).
pub const RNG: u32 = bindings::VIRTIO_ID_RNG;

/// Traditional memory balloon (VirtIO 1.3, 5.5).
pub const BALLOON: u32 = bindings::VIRTIO_ID_BALLOON;
