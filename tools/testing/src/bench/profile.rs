// SPDX-License-Identifier: GPL-2.0

//! What a guest has executed, by function.

use crate::guest::Guest;
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    collections::{
        BTreeMap,
        BTreeSet,
        HashMap, //
    },
    fmt::{
        self,
        Display,
        Formatter, //
    },
    rc::Rc,
    time::Duration, //
};

/// The part of the system that a function belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The driver under test, with the abstractions and the code of the kernel's Rust support that it calls.
    Driver,
    /// The kernel's virtio core and its transports.
    Virtio,
    /// What makes the load: pktgen, the card at the other end.
    Load,
    /// The rest of the kernel: the network stack, memory, interrupts.
    Kernel,
    /// Programs.
    Programs,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 5] = [
        Class::Driver,
        Class::Virtio,
        Class::Load,
        Class::Kernel,
        Class::Programs,
    ];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Class::Driver => "driver",
            Class::Virtio => "virtio core",
            Class::Load => "load",
            Class::Kernel => "rest of the kernel",
            Class::Programs => "programs",
        }
    }
}

/// A function of the guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The module that it is in, if it is in one.
    pub module: Option<String>,
}

impl Function {
    /// Which part of the system it belongs to.
    pub fn class(&self) -> Class {
        const VIRTIO: [&str; 9] = [
            "virtqueue_",
            "__virtqueue_",
            "vring_",
            "virtio_",
            "__virtio_",
            "detach_buf_",
            "vp_",
            "vm_notify",
            "more_used",
        ];

        match self.module.as_deref() {
            Some("virtio_net" | "virtio_net_rust" | "virtio_balloon" | "virtio_balloon_rust") => {
                Class::Driver
            }
            Some("guest_integrity") => Class::Driver,
            Some("pktgen" | "vmxnet3" | "dummy" | "null_card") => Class::Load,
            Some(module) if module.starts_with("virtio") => Class::Virtio,
            Some(_) => Class::Kernel,
            None if self.name == PROGRAMS => Class::Programs,
            None if VIRTIO.iter().any(|prefix| self.name.starts_with(prefix)) => Class::Virtio,
            None if self.name.starts_with("_R") || self.name.starts_with("rust_") => Class::Driver,
            None => Class::Kernel,
        }
    }
}

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Without the hashes of the crates.
        write!(f, "{:#}", rustc_demangle::demangle(&self.name))
    }
}

/// The name that stands for all programs.
const PROGRAMS: &str = "(programs)";

/// The functions of a guest's kernel, by their addresses.
pub struct Symbols {
    kernel: Rc<List>,
    modules: List,
}

/// Functions in the order of their addresses.
pub type List = Vec<(u64, Function)>;

impl Symbols {
    /// Reads those of the kernel itself, which do not change.
    pub fn of_kernel(guest: &mut Guest) -> Result<List> {
        Self::read(guest, "!/\\[/")
    }

    /// Those of a kernel without modules.
    pub fn new(kernel: Rc<List>) -> Self {
        Symbols {
            kernel,
            modules: Vec::new(),
        }
    }

    /// Reads those of the modules that are loaded now.
    pub fn read_modules(&mut self, guest: &mut Guest) -> Result<()> {
        self.modules = Self::read(guest, "/\\[/")?;
        Ok(())
    }

    /// Those in lines of a pattern. What is no code is left out.
    fn read(guest: &mut Guest, pattern: &str) -> Result<List> {
        let text = guest.sh_for(
            Duration::from_secs(60),
            &format!("awk '{pattern} && $2 ~ /[tTwW]/ {{ print $1, $3, $4 }}' /proc/kallsyms"),
        )?;
        let mut found = text
            .lines()
            .map(|line| Self::parse(line).with_context(|| format!("a symbol: {line}")))
            .collect::<Result<Vec<_>>>()?;

        ensure!(
            found.is_empty() || found.iter().any(|(address, _)| *address != 0),
            "the guest does not tell where its kernel's functions are"
        );
        found.sort();
        found.dedup_by_key(|(address, _)| *address);
        Ok(found)
    }

    fn parse(line: &str) -> Option<(u64, Function)> {
        let mut parts = line.split_whitespace();
        let address = u64::from_str_radix(parts.next()?, 16).ok()?;
        let name = parts.next()?.to_owned();
        let module = parts
            .next()
            .map(|module| module.trim_matches(['[', ']']).to_owned());

        Some((address, Function { name, module }))
    }

    /// The function that an address lies in, and where it begins.
    fn find(&self, address: u64) -> Option<&(u64, Function)> {
        // Modules lie above the kernel.
        [&self.modules, &*self.kernel].into_iter().find_map(|list| {
            let after = list.partition_point(|(start, _)| *start <= address);
            list.get(after.checked_sub(1)?)
        })
    }
}

/// How often a function was called, and the instructions in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub calls: f64,
    pub instructions: f64,
}

/// What a guest has executed, by function.
#[derive(Clone, Debug, Default)]
pub struct Profile(pub BTreeMap<Function, Count>);

impl Profile {
    /// What was executed between two counts.
    pub fn between(before: &str, after: &str, symbols: &Symbols) -> Result<Self> {
        let before: HashMap<u64, Count> = parse(before)?.into_iter().collect();
        let mut profile = Profile::default();

        for (address, count) in parse(after)? {
            let earlier = before.get(&address).copied().unwrap_or_default();
            let instructions = count.instructions - earlier.instructions;
            if instructions == 0.0 {
                continue;
            }
            let (start, function) = symbols
                .find(address)
                .filter(|_| address > REST)
                .cloned()
                .unwrap_or_else(|| {
                    let name = if address == 0 { PROGRAMS } else { "(unknown)" };
                    (
                        0,
                        Function {
                            name: name.to_owned(),
                            module: None,
                        },
                    )
                });
            let sum = profile.0.entry(function).or_default();
            sum.instructions += instructions;
            if address == start {
                sum.calls += count.calls - earlier.calls;
            }
        }
        Ok(profile)
    }

    /// The same for one of `number` packets or the like.
    pub fn each(mut self, number: f64) -> Self {
        for count in self.0.values_mut() {
            count.calls /= number;
            count.instructions /= number;
        }
        self
    }

    /// The mean of several.
    pub fn mean<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Self {
        let mut sum = Profile::default();
        let mut number = 0.0;

        for profile in profiles {
            number += 1.0;
            for (function, count) in &profile.0 {
                let entry = sum.0.entry(function.clone()).or_default();
                entry.calls += count.calls;
                entry.instructions += count.instructions;
            }
        }
        sum.each(number)
    }

    /// The instructions of a class of functions.
    pub fn of(&self, class: Class) -> f64 {
        self.0
            .iter()
            .filter(|(function, _)| function.class() == class)
            .map(|(_, count)| count.instructions)
            .sum()
    }

    /// The functions outside the virtio core in which a driver has more executed than another: its own, and those that differ by a
    /// fiftieth, and by `least` instructions.
    pub fn differing<'a>(&'a self, other: &'a Self, least: f64) -> BTreeSet<&'a Function> {
        let instructions =
            |profile: &Self, function| profile.0.get(function).map_or(0.0, |c| c.instructions);

        self.0
            .keys()
            .chain(other.0.keys())
            .filter(|function| match function.class() {
                Class::Driver => true,
                Class::Kernel => {
                    let (a, b) = (instructions(self, function), instructions(other, function));
                    (a - b).abs() >= least.max(a.max(b) / 50.0)
                }
                Class::Virtio | Class::Load | Class::Programs => false,
            })
            .collect()
    }

    /// The instructions of these functions.
    pub fn of_these(&self, functions: &BTreeSet<&Function>) -> f64 {
        functions
            .iter()
            .filter_map(|function| self.0.get(function))
            .map(|count| count.instructions)
            .sum()
    }

    /// All instructions.
    pub fn total(&self) -> f64 {
        self.0.values().map(|count| count.instructions).sum()
    }

    /// How often a function was called, wherever it is.
    pub fn calls(&self, name: &str) -> f64 {
        self.0
            .iter()
            .filter(|(function, _)| function.name == name)
            .map(|(_, count)| count.calls)
            .sum()
    }
}

/// The counter's number for blocks that were too many.
const REST: u64 = 1;

fn parse(text: &str) -> Result<Vec<(u64, Count)>> {
    text.lines()
        .map(|line| {
            let mut parts = line.split_whitespace();
            let mut next = || parts.next().with_context(|| format!("a count: {line}"));
            let address = u64::from_str_radix(next()?, 16)?;
            let calls = next()?.parse()?;
            let instructions = next()?.parse()?;

            Ok((
                address,
                Count {
                    calls,
                    instructions,
                },
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        let function = |line| Symbols::parse(line).expect("a symbol");

        Symbols {
            kernel: Rc::new(vec![
                function("ffffffff81000000 virtqueue_add_outbuf"),
                function("ffffffff81000100 kfree"),
            ]),
            modules: vec![function("ffffffffc0000000 start_xmit [virtio_net]")],
        }
    }

    fn count(calls: f64, instructions: f64) -> Count {
        Count {
            calls,
            instructions,
        }
    }

    #[test]
    fn blocks_belong_to_the_function_before_them() -> Result<()> {
        let profile = Profile::between(
            "0 5 50\nffffffff81000100 1 4\n",
            "0 6 70\nffffffff81000100 3 12\nffffffff81000110 2 6\nffffffffc0000004 1 3\n",
            &symbols(),
        )?;
        let found: Vec<_> = profile
            .0
            .iter()
            .map(|(function, count)| (function.name.as_str(), *count))
            .collect();

        assert_eq!(
            found,
            [
                (PROGRAMS, count(1.0, 20.0)),
                ("kfree", count(2.0, 14.0)),
                ("start_xmit", count(0.0, 3.0)),
            ]
        );
        assert_eq!(profile.of(Class::Driver), 3.0);
        assert_eq!(profile.total(), 37.0);
        Ok(())
    }

    #[test]
    fn what_is_executed_as_much_with_either_driver_is_not_the_drivers() {
        let profile = |counts: &[(&str, Option<&str>, f64)]| {
            Profile(
                counts
                    .iter()
                    .map(|(name, module, instructions)| {
                        let function = Function {
                            name: (*name).to_owned(),
                            module: module.map(str::to_owned),
                        };
                        (function, count(1.0, *instructions))
                    })
                    .collect(),
            )
        };
        let theirs = profile(&[
            ("start_xmit", Some("virtio_net"), 30.0),
            ("virtqueue_kick", None, 9.0),
            ("sg_init_table", None, 20.0),
            ("clear_page", None, 10_000.0),
            ("kfree", None, 10.0),
        ]);
        let ours = profile(&[
            ("xmit", Some("virtio_net_rust"), 40.0),
            ("virtqueue_kick", None, 19.0),
            ("clear_page", None, 10_100.0),
            ("kfree", None, 10.5),
        ]);

        let differing = theirs.differing(&ours, 1.0);
        assert_eq!(theirs.of_these(&differing), 50.0);
        assert_eq!(ours.of_these(&differing), 40.0);
    }

    #[test]
    fn the_part_of_the_system_is_known_from_module_and_name() {
        let class = |name: &str, module: Option<&str>| {
            Function {
                name: name.to_owned(),
                module: module.map(str::to_owned),
            }
            .class()
        };

        assert_eq!(class("virtqueue_kick", None), Class::Virtio);
        assert_eq!(class("start_xmit", Some("virtio_net")), Class::Driver);
        assert_eq!(class("rust_helper_kunmap", None), Class::Driver);
        assert_eq!(class("pktgen_xmit", Some("pktgen")), Class::Load);
        assert_eq!(class("kfree", None), Class::Kernel);
    }
}
