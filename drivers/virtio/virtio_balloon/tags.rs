// SPDX-License-Identifier: GPL-2.0

//! The statistics that the device gets (VirtIO 1.3, 5.5.6.4).
//!
//! Pure: it turns figures into the bytes of one message.

/// What a figure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum Tag {
    /// Bytes read from swap.
    SwapIn = 0,
    /// Bytes written to swap.
    SwapOut = 1,
    /// Page faults that needed I/O.
    MajorFaults = 2,
    /// Page faults that did not. Linux has always reported all page faults here.
    MinorFaults = 3,
    /// Bytes that nobody uses.
    FreeMemory = 4,
    /// Bytes that the guest has.
    TotalMemory = 5,
    /// Bytes that a new program could have without swapping.
    AvailableMemory = 6,
    /// Bytes of the page cache.
    DiskCaches = 7,
    /// Huge pages for hugetlb taken from the page allocator.
    HugetlbAllocations = 8,
    /// Huge pages for hugetlb that the page allocator did not have.
    HugetlbFailures = 9,
    /// Processes killed for want of memory.
    OomKills = 10,
    /// How often an allocation had to reclaim memory itself.
    AllocationStalls = 11,
    /// Bytes that the background reclaim has looked at.
    AsyncScans = 12,
    /// Bytes that allocations in need have looked at.
    DirectScans = 13,
    /// Bytes that the background reclaim has freed.
    AsyncReclaims = 14,
    /// Bytes that allocations in need have freed.
    DirectReclaims = 15,
}

impl Tag {
    /// Returns whether a device that knows the first `count` kinds of figures knows this one.
    pub(crate) fn is_known(self, count: u32) -> bool {
        // CAST: The enum is `repr(u16)`.
        u32::from(self as u16) < count
    }
}

/// Bytes of one figure: a 16-bit tag and a 64-bit value, both little endian, without padding.
pub(crate) const RECORD: usize = 10;

/// Writes one record per figure into `message`, and returns how many there was room for.
pub(crate) fn write(message: &mut [u8], figures: impl Iterator<Item = (Tag, u64)>) -> usize {
    let records = message.chunks_exact_mut(RECORD);

    records
        .zip(figures)
        .map(|(record, (tag, value))| {
            let (head, tail) = record.split_at_mut(2);
            // CAST: The enum is `repr(u16)`.
            head.copy_from_slice(&(tag as u16).to_le_bytes());
            tail.copy_from_slice(&value.to_le_bytes());
        })
        .count()
}
