// SPDX-License-Identifier: GPL-2.0

//! `/dev/guest_integrity_listing`: takes what a program has read from the directory `/proc`, see `scripts/integrity-listing`.
//!
//! A program opens the device, then reads `/proc`, then writes down which numbers it has seen (`parse`). When the last line comes, the
//! module reads `/proc` itself, where the program is. Somebody is missing from the listing who
//!
//! - had a number when the device was opened, and has the same one now: so was there all the time;
//! - is in the directory, by the kernel's own reading: so is hidden from the program neither by the way `/proc` is mounted, nor by what
//!   the view `proc` is for;
//! - and is not in the listing.
//!
//! Who is missing from two listings, one submitted after the other, is reported. Programs of other PID namespaces, where
//! numbers mean others, are not listened to. What root submits is believed: root can make the module report honest processes, but not
//! hide anybody from another view.
//!
//! # Locking
//!
//! The lock of a file is taken before that of [`Listings`].

mod parse;

use self::parse::{
    Bad,
    Parser,
    Set, //
};
use crate::{
    params,
    sort::sort,
    views::proc::{
        is_still,
        listing,
        processes,
        Process, //
    },
};

use guest::{
    chardev::CharDevice,
    sched::pids::{
        is_in_first_namespace,
        MAX_NUMBERS, //
    },
    time::ktime_get_ns, //
};

use kernel::{
    fs::File,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        MutexGuard, //
    },
    uaccess::UserSliceReader, //
};

/// Most that is copied from a program at once.
const PIECE: usize = 4096;

/// What the listings of programs lack.
#[pin_data]
pub(crate) struct Listings {
    #[pin]
    last: Mutex<Last>,
}

/// What the last two listings were like.
#[derive(Default)]
pub(crate) struct Last {
    /// When the program began to read the last one, if there was one.
    begun_ns: Option<u64>,
    /// Who is missing from the last one.
    suspects: KVVec<Process>,
    /// Who is missing from both.
    missing: KVVec<Process>,
}

impl Last {
    /// Returns whether there was one lately.
    pub(crate) fn are_fresh(&self) -> bool {
        let max_ns = u64::from(params::listing_max_ms.get()) * 1_000_000;

        self.begun_ns
            .is_some_and(|begun| ktime_get_ns().saturating_sub(begun) < max_ns)
    }

    /// Who is missing.
    pub(crate) fn missing(&self) -> &[Process] {
        &self.missing
    }
}

impl Listings {
    /// Begins without any.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                last <- new_mutex!(Last::default()),
            }),
            GFP_KERNEL,
        )
    }

    /// What the last listings lack.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock()
    }
}

/// An open file: one listing.
#[pin_data]
pub(crate) struct Submission {
    listings: Arc<Listings>,
    #[pin]
    draft: Mutex<Draft>,
}

/// A listing in the making.
struct Draft {
    /// When the device was opened, and who was there.
    begun_ns: u64,
    before: KVVec<Process>,
    parser: Parser,
    /// Who is in the listing, see [`Set`].
    listed: KVVec<u64>,
}

#[vtable]
impl CharDevice for Submission {
    type Shared = Listings;

    fn open(listings: Arc<Listings>) -> Result<Pin<KBox<Self>>> {
        if !is_in_first_namespace() {
            return Err(EPERM);
        }
        let begun_ns = ktime_get_ns();
        let draft = Draft {
            begun_ns,
            before: processes()?.ok_or(EAGAIN)?,
            parser: Parser::new(MAX_NUMBERS),
            listed: KVVec::from_elem(0, Set::words(MAX_NUMBERS), GFP_KERNEL)?,
        };

        KBox::pin_init(
            pin_init!(Self {
                listings,
                draft <- new_mutex!(draft),
            }),
            GFP_KERNEL,
        )
    }

    fn write(&self, _file: &File, from: &mut UserSliceReader) -> Result {
        let mut piece = KVec::from_elem(0_u8, PIECE, GFP_KERNEL)?;
        let mut draft = self.draft.lock();

        while !from.is_empty() {
            let len = from.len().min(PIECE);
            let piece = piece.get_mut(..len).ok_or(EINVAL)?;

            from.read_slice(piece)?;
            draft.read(piece)?;
        }
        if draft.parser.is_done() {
            draft.submit(&self.listings)?;
        }
        Ok(())
    }
}

impl Draft {
    /// Reads a piece of the text.
    fn read(&mut self, piece: &[u8]) -> Result {
        let mut listed = Set(&mut self.listed);

        self.parser
            .read(piece, |number| listed.add(number))
            .map_err(|bad| match bad {
                Bad::Malformed => EINVAL,
                Bad::TooLong => E2BIG,
            })
    }

    /// Compares the listing with what there is.
    fn submit(&mut self, listings: &Listings) -> Result {
        let listed = Set(&mut self.listed);
        let mut shown = listing().ok_or(ENOENT)?;
        let mut suspects = KVVec::new();
        let mut missing = KVVec::new();

        // Somebody may have tampered with the order.
        sort(&mut shown, i32::lt);
        for &process in self.before.iter() {
            let number = process.0;
            let is_missing =
                !listed.has(number) && shown.binary_search(&number).is_ok() && is_still(process);
            if is_missing {
                suspects.push(process, GFP_KERNEL)?;
            }
        }

        let mut last = listings.lock();
        // Both are in the order of their numbers.
        for &process in suspects.iter() {
            if last.suspects.binary_search(&process).is_ok() {
                missing.push(process, GFP_KERNEL)?;
            }
        }
        *last = Last {
            begun_ns: Some(self.begun_ns),
            suspects,
            missing,
        };
        Ok(())
    }
}
