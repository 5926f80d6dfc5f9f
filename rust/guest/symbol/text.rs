// SPDX-License-Identifier: GPL-2.0

//! The text of an address with a symbol: `name+0xoffset/0xsize [module]`, or `0xaddress` without one.
//!
//! The names of a module's symbols are the module's own affair, so the text is taken apart from its end.
//!
//! The file imports only `core`; the host tests run it.

/// What such a text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// There is a symbol.
    Known {
        /// Its name.
        name: &'a [u8],
        /// Bytes from where it begins to the address.
        offset: usize,
        /// The module that has it; the kernel itself has the others.
        module: Option<&'a [u8]>,
    },
    /// There is none.
    Unknown,
}

impl<'a> Text<'a> {
    /// Takes `text` apart.
    pub fn parse(text: &'a [u8]) -> Self {
        Self::known(text).unwrap_or(Text::Unknown)
    }

    fn known(text: &'a [u8]) -> Option<Self> {
        let (symbol, module) = match text.strip_suffix(b"]") {
            Some(rest) => {
                let at = rest.windows(2).rposition(|pair| pair == b" [")?;
                (rest.get(..at)?, Some(rest.get(at + 2..)?))
            }
            None => (text, None),
        };
        let slash = symbol.iter().rposition(|&byte| byte == b'/')?;
        hex(symbol.get(slash + 1..)?)?;
        let symbol = symbol.get(..slash)?;
        let plus = symbol.iter().rposition(|&byte| byte == b'+')?;

        Some(Text::Known {
            name: symbol.get(..plus)?,
            offset: hex(symbol.get(plus + 1..)?)?,
            module,
        })
    }
}

/// Reads a number as the kernel writes it: `0x` and digits, or 0.
fn hex(text: &[u8]) -> Option<usize> {
    let digits = text.strip_prefix(b"0x").unwrap_or(text);

    usize::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}
