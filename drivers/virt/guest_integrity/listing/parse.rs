// SPDX-License-Identifier: GPL-2.0

//! The text of a listing: a number a line, and a last line that says `end`.
//!
//! Whoever submits one may write anything, in pieces of any length: nothing is kept but where in a line the text is.
//!
//! The file imports nothing; the host tests run it.

/// The line at the end.
const END: &[u8] = b"end\n";

/// Why a text is not a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It has something else than numbers, which are above 0 and not too high.
    Malformed,
    /// It has more lines than there can be numbers.
    TooLong,
}

/// Where in a text a parser is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    /// Behind digits of a number, which are this so far.
    Number(u32),
    /// Behind so many bytes of the last line.
    End(usize),
    /// Behind something bad.
    Nowhere(Bad),
}

/// Reads a listing piece by piece.
pub(crate) struct Parser {
    at: At,
    /// The highest number, and how many there may be.
    max: u32,
    lines: u32,
}

impl Parser {
    /// Begins to read a listing of numbers up to `max`.
    pub(crate) fn new(max: u32) -> Self {
        Parser {
            at: At::Start,
            max,
            lines: 0,
        }
    }

    /// Reads `piece`, and passes each number to `add`.
    ///
    /// # Errors
    ///
    /// The first thing that is bad, at that piece and all that come after it.
    pub(crate) fn read(&mut self, piece: &[u8], mut add: impl FnMut(u32)) -> Result<(), Bad> {
        for &byte in piece {
            self.at = match self.at {
                At::Number(number) if byte == b'\n' => {
                    add(number);
                    At::Start
                }
                at => self.next(at, byte),
            };
        }
        match self.at {
            At::Nowhere(bad) => Err(bad),
            _ => Ok(()),
        }
    }

    /// Returns whether all of the listing has been read.
    pub(crate) fn is_done(&self) -> bool {
        self.at == At::End(END.len())
    }

    /// Where the text is after one more byte.
    fn next(&mut self, at: At, byte: u8) -> At {
        let (before, at_end) = match at {
            At::Nowhere(_) => return at,
            At::End(len) => (0, Some(len)),
            At::Start if byte == b'e' => (0, Some(0)),
            At::Start if self.lines == self.max => return At::Nowhere(Bad::TooLong),
            At::Start if byte == b'0' => return At::Nowhere(Bad::Malformed),
            At::Start => {
                self.lines += 1;
                (0, None)
            }
            At::Number(number) => (number, None),
        };

        let next = match (at_end, byte) {
            (Some(len), byte) if END.get(len) == Some(&byte) => Some(At::End(len + 1)),
            (None, b'0'..=b'9') => before
                .checked_mul(10)
                .and_then(|number| number.checked_add((byte - b'0').into()))
                .filter(|number| *number <= self.max)
                .map(At::Number),
            _ => None,
        };
        next.unwrap_or(At::Nowhere(Bad::Malformed))
    }
}

/// A set of numbers: a bit each.
pub(crate) struct Set<'a>(pub(crate) &'a mut [u64]);

impl Set<'_> {
    /// How many words a set of numbers up to `max` has.
    pub(crate) const fn words(max: u32) -> usize {
        // CAST: It fits.
        (max / u64::BITS) as usize + 1
    }

    /// Adds a number.
    pub(crate) fn add(&mut self, number: u32) {
        // CAST: It fits.
        if let Some(word) = self.0.get_mut((number / u64::BITS) as usize) {
            *word |= 1 << (number % u64::BITS);
        }
    }

    /// Returns whether a number is there.
    pub(crate) fn has(&self, number: i32) -> bool {
        let Ok(number) = u32::try_from(number) else {
            return false;
        };

        // CAST: It fits.
        let word = self.0.get((number / u64::BITS) as usize);
        word.is_some_and(|word| (word >> (number % u64::BITS)) & 1 != 0)
    }
}
