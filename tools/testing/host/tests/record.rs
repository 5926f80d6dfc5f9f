// SPDX-License-Identifier: GPL-2.0

//! The text of records: no name of a task can forge a pair, a record or a line.

use proptest::prelude::*;

#[path = "../../../../drivers/virt/guest_integrity/record.rs"]
mod record;

use record::{Comm, Finding, Limiter, Line, Subject, COMM_LEN, LINE_LEN, NAME_LEN, WORD_LEN};

fn line(comm: &[u8]) -> String {
    let finding = Finding {
        subject: Subject::Task {
            pid: i32::MIN,
            tgid: i32::MIN,
            comm,
            cpu: u32::MAX,
        },
        view: "runqueue",
        reason: "process_unlisted",
    };
    let max = u64::MAX;
    let line = Line::<LINE_LEN>::of(format_args!(
        "seq={max} time_ns={max} type=finding {finding}\n"
    ));
    String::from_utf8(line.as_bytes().to_vec()).unwrap()
}

/// What a reader makes of an escaped name.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'\\' {
            let hex = std::str::from_utf8(&tail[1..3]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    bytes
}

#[test]
fn a_name_cannot_forge_a_record() {
    assert_eq!(
        Comm(b"x pid=1 view=").to_string(),
        "x\\x20pid\\x3d1\\x20view\\x3d"
    );
    assert_eq!(Comm(b"a\n\"b\\").to_string(), "a\\x0a\\x22b\\x5c");
    assert_eq!(Comm("ä".as_bytes()).to_string(), "\\xc3\\xa4");
}

proptest! {
    #[test]
    fn any_name_is_one_value(comm in any::<[u8; 16]>()) {
        let name: Vec<u8> = comm[..15].iter().copied().take_while(|&b| b != 0).collect();
        let line = line(&comm);

        // Each word is one pair, and they are the ones that were meant.
        let pairs: Vec<_> = line.trim_end_matches('\n').split(' ').map(|w| w.split_once('=').unwrap()).collect();
        let keys: Vec<_> = pairs.iter().map(|(key, _)| *key).collect();
        prop_assert_eq!(keys, ["seq", "time_ns", "type", "pid", "tgid", "comm", "cpu", "view", "reason"]);
        prop_assert!(pairs.iter().all(|(_, value)| !value.contains('=')));
        prop_assert_eq!(unescape(pairs[5].1), name);
        // It is a whole line.
        prop_assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        prop_assert!(pairs[5].1.len() < COMM_LEN);
    }
}

proptest! {
    #[test]
    fn any_name_of_an_object_is_one_value(name in any::<[u8; 56]>(), target in any::<[u8; 80]>()) {
        let [name, target] = [&name[..], &target[..]].map(Line::<NAME_LEN>::escaped);
        let finding = Finding {
            subject: Subject::Object { kind: "function", name: name.as_str(), target: target.as_str() },
            view: "runqueue",
            reason: "module_state_forged",
        };
        let max = u64::MAX;
        let line = Line::<LINE_LEN>::of(format_args!(
            "seq={max} time_ns={max} type=observation {finding}\n"
        ));
        let line = std::str::from_utf8(line.as_bytes()).unwrap();

        let pairs: Vec<_> = line.trim_end_matches('\n').split(' ').map(|w| w.split_once('=').unwrap()).collect();
        let keys: Vec<_> = pairs.iter().map(|(key, _)| *key).filter(|key| *key != "target").collect();
        prop_assert_eq!(keys, ["seq", "time_ns", "type", "function", "view", "reason"]);
        prop_assert!(pairs.iter().all(|(_, value)| !value.contains('=')));
        prop_assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
    }

    #[test]
    fn a_long_name_has_whole_bytes_only(name in prop::collection::vec(1_u8.., 0..100)) {
        let escaped = Line::<NAME_LEN>::escaped(&name);
        let shown = unescape(escaped.as_str());

        prop_assert!(name.starts_with(&shown));
        prop_assert!(shown.len() == name.len() || escaped.as_bytes().len() + 4 > NAME_LEN);
    }
}

#[test]
fn a_line_is_cut_at_its_end() {
    assert_eq!(Line::<4>::of(format_args!("abcdef")).as_bytes(), b"abcd");
    assert_eq!(
        Line::<4>::of(format_args!("ab{}", "cdef")).as_bytes(),
        b"abcd"
    );
    assert_eq!(Line::<4>::EMPTY.as_bytes(), b"");
}

#[test]
fn messages_are_limited() {
    let mut limiter = Limiter::new();
    let start = 7 * Limiter::PERIOD_NS;

    for _ in 0..Limiter::BURST {
        assert_eq!(limiter.pass(start), Some(0));
    }
    assert_eq!(limiter.pass(start + 1), None);
    assert_eq!(limiter.pass(start + 2), None);
    assert_eq!(limiter.pass(start + Limiter::PERIOD_NS), Some(2));
    assert_eq!(limiter.pass(start + Limiter::PERIOD_NS), Some(0));
}

/// No word that is used as one is longer than there is room for, and a text without an end is none.
#[test]
fn a_word_is_a_string_up_to_its_end() {
    let word = Line::<WORD_LEN>::of(format_args!("process_unlisted\0"));
    assert_eq!(word.as_c_str(), c"process_unlisted");
    assert_eq!(Line::<4>::of(format_args!("long\0")).as_c_str(), c"");
}
