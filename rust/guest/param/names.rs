// SPDX-License-Identifier: GPL-2.0

//! Parameters whose values are names out of a table.

use super::Param;

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

/// Some of at most 32 names, written with commas between them; `all`, or nothing.
pub struct Set {
    /// One bit for each name.
    value: Atomic<u32>,
    names: &'static [&'static str],
}

impl Set {
    /// Makes a set of all `names` but those of `without`, a bit for each.
    pub const fn new(names: &'static [&'static str], without: u32) -> Self {
        assert!(names.len() < 32, "too many names");

        Set {
            value: Atomic::new(((1 << names.len()) - 1) & !without),
            names,
        }
    }

    /// Returns whether the name at place `i` of the table is in the set.
    #[inline]
    pub fn has(&self, i: usize) -> bool {
        self.value.load(Relaxed) & (1 << (i & 31)) != 0
    }
}

impl Param for Set {
    unsafe fn set(&self, value: &BStr) -> Result {
        let mut bits = 0;

        for word in value.split(|&byte| byte == b',') {
            match word {
                b"" => {}
                b"all" => bits |= (1 << self.names.len()) - 1,
                _ => {
                    let place = self.names.iter().position(|name| name.as_bytes() == word);
                    bits |= 1 << place.ok_or(EINVAL)?;
                }
            }
        }
        self.value.store(bits, Relaxed);
        Ok(())
    }

    unsafe fn show(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let mut first = true;

        for (i, name) in self.names.iter().enumerate() {
            if self.has(i) {
                f.write_str(if first { "" } else { "," })?;
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }

    fn expected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all, or some of")?;
        for name in self.names {
            write!(f, " {name}")?;
        }
        f.write_str(" with commas between them")
    }
}

/// One of some names.
pub struct Choice {
    /// The place of the name.
    value: Atomic<u32>,
    names: &'static [&'static str],
}

impl Choice {
    /// Makes a choice between `names`, of which the first one is the default.
    pub const fn new(names: &'static [&'static str]) -> Self {
        Choice {
            value: Atomic::new(0),
            names,
        }
    }

    /// Returns the place of the name that was chosen.
    #[inline]
    pub fn get(&self) -> usize {
        self.value.load(Relaxed) as usize
    }
}

impl Param for Choice {
    unsafe fn set(&self, value: &BStr) -> Result {
        let mut names = (0..).zip(self.names);
        let (place, _) = names
            .find(|(_, name)| name.as_bytes() == &**value)
            .ok_or(EINVAL)?;

        self.value.store(place, Relaxed);
        Ok(())
    }

    unsafe fn show(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str(self.names.get(self.get()).unwrap_or(&""))
    }

    fn expected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of")?;
        for name in self.names {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}
