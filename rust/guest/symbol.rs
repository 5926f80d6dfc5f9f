// SPDX-License-Identifier: GPL-2.0

//! Symbols: what an address of the kernel belongs to.
//!
//! The kernel's tables of symbols are not exported, but the function is that writes an address as the kernel's log does. It asks the
//! kernel's own table, that of each module, and the programs that the kernel has compiled (BPF).
//!
//! C header: [`include/linux/kallsyms.h`](srctree/include/linux/kallsyms.h)

pub mod text;

use self::text::Text;

use crate::bindings;

/// Where an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into the kernel itself.
    Kernel,
    /// Into a module.
    Module,
    /// Into code that the kernel has made while it runs, and has a name for.
    Made,
    /// Nowhere that the kernel knows of.
    Unknown,
}

/// What the kernel says of an address.
pub struct Symbol {
    buf: [u8; bindings::KSYM_SYMBOL_LEN as usize],
    len: usize,
    address: usize,
}

impl Symbol {
    /// Asks the kernel what `address` belongs to.
    pub fn of(address: usize) -> Self {
        let mut buf = [0; bindings::KSYM_SYMBOL_LEN as usize];

        // SAFETY: The buffer is as long as the function may need. Any address may be asked for.
        let len = unsafe { bindings::sprint_symbol(buf.as_mut_ptr().cast(), address) };
        Symbol {
            buf,
            // CAST: Not negative, then.
            len: len.max(0) as usize,
            address,
        }
    }

    /// The parts of the text.
    pub fn text(&self) -> Text<'_> {
        Text::parse(self.buf.get(..self.len).unwrap_or_default())
    }

    /// Where the address leads to.
    pub fn place(&self) -> Place {
        match self.text() {
            Text::Unknown => Place::Unknown,
            Text::Known {
                module: Some(_), ..
            } => Place::Module,
            Text::Known { module: None, .. } => {
                // SAFETY: Any address may be asked for.
                if unsafe { bindings::module_may_be_at(self.address) } {
                    Place::Made
                } else {
                    Place::Kernel
                }
            }
        }
    }
}
