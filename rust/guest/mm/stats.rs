// SPDX-License-Identifier: GPL-2.0

//! Figures about the machine's memory, as in `/proc/meminfo` and `/proc/vmstat`.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/vmstat.h`](srctree/include/linux/vmstat.h)

use crate::bindings;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// How many counters of events there are.
const EVENTS: usize = bindings::vm_event_item_NR_VM_EVENT_ITEMS as usize;

/// Converts a count of pages to bytes.
fn bytes(pages: usize) -> u64 {
    // CAST: `usize` is at most 64 bits wide.
    (pages as u64).wrapping_mul(PAGE_SIZE as u64)
}

/// A counter of `/proc/vmstat`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Pages read from swap.
    SwapIn,
    /// Pages written to swap.
    SwapOut,
    /// Page faults that needed I/O.
    MajorFault,
    /// All page faults.
    Fault,
    /// Processes killed for want of memory.
    OomKill,
    /// Huge pages for hugetlb taken from the page allocator.
    #[cfg(CONFIG_HUGETLB_PAGE)]
    HugetlbAllocation,
    /// Huge pages for hugetlb that the page allocator did not have.
    #[cfg(CONFIG_HUGETLB_PAGE)]
    HugetlbFailure,
}

impl Event {
    fn index(self) -> usize {
        let item = match self {
            Event::SwapIn => bindings::vm_event_item_PSWPIN,
            Event::SwapOut => bindings::vm_event_item_PSWPOUT,
            Event::MajorFault => bindings::vm_event_item_PGMAJFAULT,
            Event::Fault => bindings::vm_event_item_PGFAULT,
            Event::OomKill => bindings::vm_event_item_OOM_KILL,
            #[cfg(CONFIG_HUGETLB_PAGE)]
            Event::HugetlbAllocation => bindings::vm_event_item_HTLB_BUDDY_PGALLOC,
            #[cfg(CONFIG_HUGETLB_PAGE)]
            Event::HugetlbFailure => bindings::vm_event_item_HTLB_BUDDY_PGALLOC_FAIL,
        };
        item as usize
    }
}

/// A copy of all counters of events. Too large for a stack, so that it is made once and refreshed.
pub struct Events(KBox<[usize; EVENTS]>);

impl Events {
    /// Allocates a copy in which every counter is 0.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new() -> Result<Self> {
        Ok(Self(KBox::init(pin_init::init_zeroed(), GFP_KERNEL)?))
    }

    /// Copies the counters. Sleeps. They can change meanwhile, so they are only roughly of one moment.
    pub fn refresh(&mut self) {
        // SAFETY: The array has one element per counter, and nobody else uses it.
        unsafe { bindings::all_vm_events(self.0.as_mut_ptr()) };
    }

    /// Returns how often `event` had happened when the counters were copied.
    pub fn count(&self, event: Event) -> u64 {
        self.at(event.index())
    }

    /// Returns `event`, which counts pages, in bytes.
    pub fn bytes(&self, event: Event) -> u64 {
        self.count(event).wrapping_mul(PAGE_SIZE as u64)
    }

    /// Returns how often an allocation, in any zone, had to reclaim memory itself.
    pub fn allocation_stalls(&self) -> u64 {
        // One counter per zone, in the order of the zones.
        let first = bindings::vm_event_item_ALLOCSTALL_NORMAL as usize
            - bindings::zone_type_ZONE_NORMAL as usize;

        (0..bindings::zone_type___MAX_NR_ZONES as usize)
            .fold(0, |sum: u64, zone| sum.wrapping_add(self.at(first + zone)))
    }

    fn at(&self, index: usize) -> u64 {
        // CAST: `usize` is at most 64 bits wide.
        self.0.get(index).map_or(0, |count| *count as u64)
    }
}

/// Sums that the kernel keeps per NUMA node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NodeItem {
    /// The page cache.
    FilePages,
    /// Anonymous memory that was reclaimed and is needed again.
    RefaultedAnon,
    /// The same of the page cache.
    RefaultedFile,
    /// What the background reclaim has looked at.
    ScannedByKswapd,
    /// What allocations that needed memory at once have looked at.
    ScannedDirectly,
    /// What the background reclaim has freed.
    ReclaimedByKswapd,
    /// What allocations that needed memory at once have freed.
    ReclaimedDirectly,
}

impl NodeItem {
    /// Returns the item, summed over all nodes, in bytes.
    pub fn bytes(self) -> u64 {
        let item = match self {
            NodeItem::FilePages => bindings::node_stat_item_NR_FILE_PAGES,
            NodeItem::RefaultedAnon => bindings::node_stat_item_WORKINGSET_REFAULT_ANON,
            NodeItem::RefaultedFile => bindings::node_stat_item_WORKINGSET_REFAULT_FILE,
            NodeItem::ScannedByKswapd => bindings::node_stat_item_PGSCAN_KSWAPD,
            NodeItem::ScannedDirectly => bindings::node_stat_item_PGSCAN_DIRECT,
            NodeItem::ReclaimedByKswapd => bindings::node_stat_item_PGSTEAL_KSWAPD,
            NodeItem::ReclaimedDirectly => bindings::node_stat_item_PGSTEAL_DIRECT,
        };

        // SAFETY: `item` is an item of the enum. May be called in any context.
        bytes(unsafe { bindings::global_node_page_state(item) })
    }
}

/// How much memory the machine has.
#[derive(Clone, Copy)]
pub struct MemInfo {
    /// What the page allocator manages, in bytes.
    pub total: u64,

    /// What nobody uses, in bytes.
    pub free: u64,
}

impl MemInfo {
    /// Asks the kernel.
    pub fn now() -> Self {
        let mut info = bindings::sysinfo::default();
        // SAFETY: `info` is writable.
        unsafe { bindings::si_meminfo(&mut info) };
        let unit = u64::from(info.mem_unit);

        Self {
            total: (info.totalram as u64).wrapping_mul(unit),
            free: (info.freeram as u64).wrapping_mul(unit),
        }
    }
}

/// Returns how much memory a new program can have without swapping, in bytes: `MemAvailable` of `/proc/meminfo`.
pub fn available() -> u64 {
    // SAFETY: May be called in any context.
    let pages = unsafe { bindings::si_mem_available() };

    usize::try_from(pages).map_or(0, bytes)
}

/// Returns how much more can be swapped out, in bytes.
pub fn swap_free() -> u64 {
    // SAFETY: May be called in any context.
    let pages = unsafe { bindings::get_nr_swap_pages() };

    usize::try_from(pages).map_or(0, bytes)
}
