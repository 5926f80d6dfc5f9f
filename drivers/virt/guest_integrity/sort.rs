// SPDX-License-Identifier: GPL-2.0

//! Sorting in place.
//!
//! Heapsort: it needs no memory, and its time is bounded whatever the order that an attacker gives the items. That of `core` has
//! ways out that panic, which the kernel's `objtool` does not know.
//!
//! The file imports nothing; the host tests run it.

/// Sorts `items`, so that no item precedes the one before it.
pub(crate) fn sort<T>(items: &mut [T], precedes: impl Fn(&T, &T) -> bool) {
    for root in (0..items.len() / 2).rev() {
        sift_down(items, root, &precedes);
    }
    let mut heap = items;
    while let Some(last) = heap.len().checked_sub(1) {
        heap.swap(0, last);
        heap = heap.split_at_mut(last).0;
        sift_down(heap, 0, &precedes);
    }
}

/// Moves the item at `root` down until none below it comes after it.
fn sift_down<T>(heap: &mut [T], mut root: usize, precedes: &impl Fn(&T, &T) -> bool) {
    loop {
        let left = 2 * root + 1;
        let child = match (heap.get(left), heap.get(left + 1)) {
            (Some(one), Some(other)) if precedes(one, other) => left + 1,
            _ => left,
        };

        match (heap.get(root), heap.get(child)) {
            (Some(item), Some(below)) if precedes(item, below) => heap.swap(root, child),
            _ => return,
        }
        root = child;
    }
}
