// SPDX-License-Identifier: GPL-2.0

//! The text of a listing: read in any pieces it is the same, and nothing but numbers is taken.

use proptest::prelude::*;
use std::collections::BTreeSet;

#[path = "../../../../drivers/virt/guest_integrity/listing/parse.rs"]
mod parse;

use parse::{Bad, Parser, Set};

const MAX: u32 = 1000;

/// Reads all pieces: the numbers, and whether the end has come.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u32>, bool), Bad> {
    let mut parser = Parser::new(MAX);
    let mut numbers = Vec::new();

    for piece in pieces {
        parser.read(piece, |number| numbers.push(number))?;
    }
    Ok((numbers, parser.is_done()))
}

#[test]
fn what_is_not_a_listing_is_refused() {
    for bad in [
        "x",
        "\n",
        "0\n",
        "01\n",
        "-1\n",
        "+1\n",
        " 1\n",
        "1 \n",
        "1001\n",
        "4294967297\n",
        "en\n",
        "end\n\n",
        "end\nend\n",
        "1end\n",
        "1\0",
    ] {
        assert_eq!(read([bad.as_bytes()]), Err(Bad::Malformed), "{bad:?}");
    }
    assert_eq!(read([&b"1\n".repeat(1001)[..]]), Err(Bad::TooLong));
    assert_eq!(read([&b"end\n"[..]]), Ok((vec![], true)));
    assert_eq!(read([&b"1\n1000"[..]]), Ok((vec![1], false)));
}

/// What was bad stays bad.
#[test]
fn nothing_is_taken_after_something_bad() {
    let mut parser = Parser::new(MAX);

    assert!(parser.read(b"x", |_| ()).is_err());
    assert!(parser
        .read(b"1\nend\n", |_| panic!("it is read on"))
        .is_err());
    assert!(!parser.is_done());
}

proptest! {
    #[test]
    fn the_pieces_do_not_matter(
        numbers in prop::collection::vec(1..=MAX, 0..100),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut lines: Vec<_> = numbers.iter().map(|number| format!("{number}\n")).collect();
        lines.push("end\n".to_owned());
        let text = lines.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort();

        let pieces = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]);
        prop_assert_eq!(read(pieces), Ok((numbers, true)));
    }

    /// Whatever comes, a number that is taken stands in the text as it is.
    #[test]
    fn only_numbers_are_taken(text in "[0-9en\n x]{0,40}") {
        let mut parser = Parser::new(MAX);
        let mut numbers = Vec::new();
        let result = parser.read(text.as_bytes(), |number| numbers.push(number));

        let lines: Vec<_> = text.split('\n').collect();
        for (number, line) in numbers.iter().zip(&lines) {
            prop_assert_eq!(&number.to_string(), line);
        }
        if result.is_ok() && parser.is_done() {
            prop_assert_eq!(lines.len(), numbers.len() + 2);
            prop_assert_eq!(&lines[numbers.len()..], &["end", ""]);
        }
    }

    #[test]
    fn a_set_has_what_was_added(numbers in prop::collection::btree_set(1..=MAX, 0..100)) {
        let mut words = vec![0; Set::words(MAX)];
        let mut set = Set(&mut words);

        numbers.iter().for_each(|number| set.add(*number));
        let has: BTreeSet<_> = (1..=MAX).filter(|number| set.has(*number as i32)).collect();
        prop_assert_eq!(has, numbers);
        prop_assert!(!set.has(0) && !set.has(-1) && !set.has(i32::MAX));
    }
}
