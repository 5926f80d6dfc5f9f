// SPDX-License-Identifier: GPL-2.0

//! How functions begin: what the compiler makes is plain, what is written over it is seen.

use proptest::prelude::*;

#[path = "../../../../rust/guest/text/entry.rs"]
pub mod entry;

use entry::Entry;

const AT: usize = 0xffff_ffff_8100_0000;
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const POISON: [u8; 4] = [0x0f, 0x1f, 0x40, 0xd6];

fn entry(parts: &[&[u8]]) -> Entry {
    let mut bytes = [0x90; Entry::LEN];
    for (to, from) in bytes.iter_mut().zip(parts.concat()) {
        *to = from;
    }
    Entry::of(AT, &bytes)
}

#[test]
fn what_the_compiler_makes_is_plain() {
    const NOP: &[u8] = &[0x0f, 0x1f, 0x44, 0x00, 0x00];
    // push %rbp, and a call later.
    const BODY: &[u8] = &[0x55, 0xe8, 0, 0, 0, 0];

    for parts in [
        &[&ENDBR, NOP, BODY][..],
        &[&POISON, NOP, BODY],
        &[NOP, BODY],
        &[&ENDBR, BODY],
        &[BODY],
        &[],
    ] {
        assert_eq!(entry(parts), Entry::Plain, "{parts:02x?}");
    }
}

#[test]
fn what_is_written_over_it_is_seen() {
    // mov $number, %rax; jmp *%rax.
    let far = [0x48, 0xb8, 1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xe0];
    assert_eq!(entry(&[&far]), Entry::Redirected(0xffff_0000_0000_0001));
    assert_eq!(
        entry(&[&ENDBR, &far]),
        Entry::Redirected(0xffff_0000_0000_0001)
    );
    // jmp *0(%rip): what lies behind it.
    assert_eq!(
        entry(&[&[0xff, 0x25, 0, 0, 0, 0]]),
        Entry::Redirected(AT + 6)
    );
    for before in [&[][..], &ENDBR, &POISON] {
        assert_eq!(entry(&[before, &[0xcc]]), Entry::Breakpoint);
    }
}

proptest! {
    #[test]
    fn a_call_or_a_jump_leads_where_the_cpu_goes(
        opcode in prop::sample::select(vec![0xe8_u8, 0xe9]),
        before in prop::sample::select(vec![&[][..], &ENDBR, &POISON]),
        distance in any::<i32>(),
    ) {
        let target = AT as i64 + before.len() as i64 + 5 + i64::from(distance);
        prop_assert_eq!(
            entry(&[before, &[opcode], &distance.to_le_bytes()]),
            Entry::Redirected(target as usize)
        );
    }

    #[test]
    fn any_bytes_are_looked_at_without_harm(bytes in any::<[u8; Entry::LEN]>(), address in any::<usize>()) {
        Entry::of(address, &bytes);
    }
}
