// SPDX-License-Identifier: GPL-2.0

//! Tests of what a balloon remembers of the pages that compaction has replaced.
//!
//! It is run against a model of all pages: whatever compaction asks for, and in whatever order the device serves its two queues,
//! no page that the device may take is the guest's, and none is lost.

use proptest::prelude::*;
use std::collections::BTreeSet;

#[path = "../../../../rust/guest/mm/balloon/moves.rs"]
mod moves;

use moves::{Moves, Refusal, Replacement};

type Slots = Vec<Option<Replacement<u32>>>;

fn slots(len: usize) -> Moves<Slots> {
    let mut moves = Moves::new(vec![None; len]);

    moves.set_open(true);
    moves
}

fn give(moves: &mut Moves<Slots>) -> Vec<u32> {
    moves.give().collect()
}

fn ask(moves: &mut Moves<Slots>) -> Vec<u32> {
    moves.ask().collect()
}

fn freed(moves: &mut Moves<Slots>) -> Vec<u32> {
    let mut pages = Vec::new();

    moves.freed(|page| pages.push(page));
    pages
}

#[test]
fn a_replacement_takes_its_steps_in_order() {
    let mut moves = slots(4);
    assert!(moves.is_settled() && moves.is_taken());

    assert_eq!(moves.make(10, 1), Ok(()));
    assert!(!moves.is_taken());
    // The device has not got the new page: it is not asked for the old one.
    assert_eq!(ask(&mut moves), []);
    assert_eq!(give(&mut moves), [10]);
    assert_eq!(ask(&mut moves), []);
    assert!(!moves.is_taken());
    moves.taken();
    assert!(moves.is_taken() && !moves.is_settled());

    assert_eq!(ask(&mut moves), [1]);
    assert_eq!(moves.count(), 0);
    assert_eq!(freed(&mut moves), [1]);
    assert!(moves.is_settled());
    assert_eq!(moves.count(), 1);
    assert_eq!(freed(&mut moves), []);
}

#[test]
fn one_group_is_under_way_in_each_direction() {
    let mut moves = slots(8);

    moves.make(10, 1).unwrap();
    moves.make(11, 2).unwrap();
    assert_eq!(give(&mut moves), [10, 11]);
    moves.make(12, 3).unwrap();
    assert_eq!(give(&mut moves), []);
    moves.taken();
    assert_eq!(give(&mut moves), [12]);
    assert_eq!(ask(&mut moves), [1, 2]);
    moves.taken();
    assert_eq!(ask(&mut moves), []);
    assert_eq!(freed(&mut moves), [1, 2]);
    assert_eq!(ask(&mut moves), [3]);
}

#[test]
fn what_cannot_be_replaced_is_refused() {
    let mut moves = slots(2);

    moves.set_open(false);
    assert_eq!(moves.make(10, 1), Err(Refusal::Closed));
    moves.set_open(true);
    moves.make(10, 1).unwrap();
    // The device may serve the queue of the old pages first.
    assert_eq!(moves.make(20, 10), Err(Refusal::Untaken));
    give(&mut moves);
    assert_eq!(moves.make(20, 10), Err(Refusal::Untaken));
    moves.taken();
    moves.make(20, 10).unwrap();
    assert_eq!(moves.make(21, 2), Err(Refusal::Full));
    ask(&mut moves);
    assert_eq!(moves.make(21, 2), Err(Refusal::Full));
    freed(&mut moves);
    moves.make(21, 2).unwrap();

    assert_eq!(
        Moves::<Slots>::new(Vec::new()).make(1, 2),
        Err(Refusal::Closed)
    );
    assert_eq!(slots(0).make(1, 2), Err(Refusal::Full));
}

#[test]
fn after_a_reset_every_old_page_comes_back_once() {
    let mut moves = slots(4);
    let mut pages = Vec::new();

    moves.make(10, 1).unwrap();
    give(&mut moves);
    moves.taken();
    moves.make(11, 2).unwrap();
    ask(&mut moves);
    moves.forget(|page| pages.push(page));
    moves.forget(|page| pages.push(page));
    assert_eq!(pages, [1, 2]);
    assert!(moves.is_settled());
}

#[derive(Clone, Debug)]
enum Event {
    /// Compaction wants this page of the balloon, by its place, to be replaced by that free one.
    Replace(usize, usize),
    /// The driver tells the device.
    Relay,
    /// The device serves the queue of new pages, or that of old ones.
    Inflate,
    Deflate,
    /// The driver takes in the answers.
    Collect,
    /// The driver wants to take this page out of the balloon.
    Dequeue(usize),
    Open(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<usize>(), any::<usize>()).prop_map(|(old, new)| Event::Replace(old, new)),
        3 => Just(Event::Relay),
        3 => Just(Event::Inflate),
        3 => Just(Event::Deflate),
        3 => Just(Event::Collect),
        1 => any::<usize>().prop_map(Event::Dequeue),
        1 => any::<bool>().prop_map(Event::Open),
    ]
}

/// A list in a queue, and whether the device has served it.
type InFlight = Option<(Vec<u32>, bool)>;

proptest! {
    #[test]
    fn no_page_is_lost_or_used_by_two(events in prop::collection::vec(event(), 0..400), size in 1usize..20) {
        const PAGES: u32 = 64;
        let mut moves = slots(size);
        let mut guest: BTreeSet<u32> = (32..PAGES).collect();
        let mut balloon: BTreeSet<u32> = (0..32).collect();
        // Old pages that compaction has done with.
        let mut kept = BTreeSet::new();
        // What the host has taken away.
        let mut host = balloon.clone();
        let (mut inflate, mut deflate): (InFlight, InFlight) = (None, None);

        for event in events {
            match event {
                Event::Replace(old, new) => {
                    let old = balloon.iter().copied().nth(old % 64);
                    let new = guest.iter().copied().nth(new % 64);
                    if let (Some(old), Some(new)) = (old, new) {
                        if moves.make(new, old).is_ok() {
                            guest.remove(&new);
                            balloon.remove(&old);
                            balloon.insert(new);
                            prop_assert!(kept.insert(old));
                        }
                    }
                }
                Event::Relay => {
                    let new = give(&mut moves);
                    if !new.is_empty() {
                        prop_assert!(inflate.is_none() && new.len() <= size);
                        inflate = Some((new, false));
                    }
                    let old = ask(&mut moves);
                    if !old.is_empty() {
                        prop_assert!(deflate.is_none() && old.len() <= size);
                        deflate = Some((old, false));
                    }
                }
                Event::Inflate => {
                    if let Some((pages, served @ false)) = &mut inflate {
                        for page in pages.iter() {
                            // The host never takes a page from under the guest.
                            prop_assert!(!guest.contains(page));
                            prop_assert!(host.insert(*page), "{page} was taken twice");
                        }
                        *served = true;
                    }
                }
                Event::Deflate => {
                    if let Some((pages, served @ false)) = &mut deflate {
                        for page in pages.iter() {
                            prop_assert!(host.remove(page), "{page} was not the host's");
                        }
                        *served = true;
                    }
                }
                Event::Collect => {
                    if matches!(inflate, Some((_, true))) {
                        inflate = None;
                        moves.taken();
                    }
                    if let Some((pages, true)) = &deflate {
                        let back = freed(&mut moves);
                        prop_assert_eq!(&back, pages);
                        for page in back {
                            prop_assert!(kept.remove(&page));
                            prop_assert!(guest.insert(page));
                        }
                        deflate = None;
                    }
                }
                Event::Dequeue(at) => {
                    if moves.is_taken() {
                        if let Some(page) = balloon.iter().copied().nth(at % 64) {
                            // By the driver's own way of deflating.
                            balloon.remove(&page);
                            prop_assert!(host.remove(&page), "{page} leaves before the host has it");
                            guest.insert(page);
                        }
                    }
                }
                Event::Open(open) => moves.set_open(open),
            }

            prop_assert!(guest.is_disjoint(&host), "the guest uses what the host has");
            prop_assert_eq!(guest.len() + balloon.len() + kept.len(), PAGES as usize);
            prop_assert!(balloon.is_disjoint(&kept) && kept.is_disjoint(&guest));
        }

        moves.forget(|page| {
            kept.remove(&page);
            guest.insert(page);
        });
        prop_assert!(kept.is_empty() && moves.is_settled());
        prop_assert_eq!(guest.len() + balloon.len(), PAGES as usize);
    }
}
