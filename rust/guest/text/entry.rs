// SPDX-License-Identifier: GPL-2.0

//! How a function begins, on x86-64.
//!
//! The compiler begins a function with an `endbr64`, which the kernel replaces by a no-operation where nobody may jump to it through a
//! pointer, and, if it can be traced, with five bytes of no-operation. Tracing puts a call, or a jump, over the latter; a breakpoint
//! or a jump may be put over any instruction.
//!
//! The file imports only `core`; the host tests run it.

/// How a function begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// As the compiler has made it.
    Plain,
    /// With a breakpoint.
    Breakpoint,
    /// With a call or a jump to this address.
    Redirected(usize),
}

/// `endbr64`.
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// What the kernel makes of it where nobody may jump to (`gen_endbr_poison()`).
const ENDBR_POISON: [u8; 4] = [0x0f, 0x1f, 0x40, 0xd6];

const INT3: u8 = 0xcc;
const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;

impl Entry {
    /// Bytes that are looked at.
    pub const LEN: usize = 24;

    /// Says how the function at `address` begins, of which `bytes` are the first.
    pub fn of(address: usize, bytes: &[u8; Self::LEN]) -> Self {
        let mut at = 0;

        // Anybody may have put it over this already.
        if let Some(entry) = redirection(address, bytes) {
            return entry;
        }
        if bytes.starts_with(&ENDBR) || bytes.starts_with(&ENDBR_POISON) {
            at = ENDBR.len();
        }
        redirection(
            address.wrapping_add(at),
            bytes.get(at..).unwrap_or_default(),
        )
        .unwrap_or(Entry::Plain)
    }
}

/// Says where the first instruction of `code`, at `address`, leads to, if it leads away.
fn redirection(address: usize, code: &[u8]) -> Option<Entry> {
    match code {
        [INT3, ..] => Some(Entry::Breakpoint),
        [CALL | JUMP, a, b, c, d, ..] => {
            let distance = i32::from_le_bytes([*a, *b, *c, *d]);

            // CAST: With its sign, as an address wraps.
            Some(Entry::Redirected(
                address.wrapping_add(5).wrapping_add(distance as usize),
            ))
        }
        // A jump through a pointer in memory: what lies there is not read.
        [0xff, 0x25, a, b, c, d, ..] => {
            let distance = i32::from_le_bytes([*a, *b, *c, *d]);

            // CAST: As above.
            Some(Entry::Redirected(
                address.wrapping_add(6).wrapping_add(distance as usize),
            ))
        }
        // A 64-bit number into `rax`, and a jump there or a return to it.
        [0x48, 0xb8, a, b, c, d, e, f, g, h, 0xff, 0xe0, ..]
        | [0x48, 0xb8, a, b, c, d, e, f, g, h, 0x50, 0xc3, ..] => {
            let number = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);

            // CAST: An address.
            Some(Entry::Redirected(number as usize))
        }
        _ => None,
    }
}
