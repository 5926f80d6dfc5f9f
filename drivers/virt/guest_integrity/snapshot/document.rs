// SPDX-License-Identifier: GPL-2.0

//! The text of a snapshot: one JSON document in ASCII.
//!
//! `Documentation/admin-guide/guest-integrity-snapshot.schema.json` says what is in it. Names of tasks and modules are any bytes;
//! in a string, the character U+00NN stands for the byte NN, so that nothing is lost and the text is always valid.
//!
//! The file imports only `core`; the host tests run it.

use core::fmt::{
    self,
    Write, //
};

/// Number of the schema. It changes when a program that reads documents of the one before would be misled.
const VERSION: u32 = 1;

/// Bytes up to the first NUL, as a string.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for &byte in self.0.iter().take_while(|&&byte| byte != 0) {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                0x20..=0x7e => f.write_char(byte.into())?,
                _ => write!(f, "\\u{byte:04x}")?,
            }
        }
        f.write_char('"')
    }
}

/// The names of the bits that are set, as an array.
struct Bits<'a>(u32, &'a [&'a str]);

impl fmt::Display for Bits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";

        f.write_char('[')?;
        for (_, name) in (0..u32::BITS)
            .zip(self.1)
            .filter(|(i, _)| (self.0 >> i) & 1 != 0)
        {
            write!(f, "{comma}{}", Bytes(name.as_bytes()))?;
            comma = ",";
        }
        f.write_char(']')
    }
}

/// What comes before all else.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// The release of the kernel.
    pub(crate) kernel: &'a [u8],
    pub(crate) time_ns: u64,
    /// How many scans there have been.
    pub(crate) scans: u64,
    /// Possible CPUs whose run queues were copied, and those of them in use.
    pub(crate) cpus: u32,
    pub(crate) cpus_online: u32,
    /// Failed attempts at the lock of a run queue, and run queues that were given up.
    pub(crate) retries: u64,
    pub(crate) skipped: u32,
    /// Lists that had no end.
    pub(crate) cut: u32,
    /// There were more tasks than the document may have, or than there was memory for.
    pub(crate) truncated: bool,
}

/// A view.
pub(crate) struct View {
    pub(crate) name: &'static str,
    pub(crate) state: &'static str,
    /// How many tasks it has, if it names any.
    pub(crate) tasks: Option<usize>,
}

/// A task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) pid: i32,
    pub(crate) tgid: i32,
    pub(crate) comm: [u8; 16],
    pub(crate) start_ns: u64,
    pub(crate) cpu: u32,
    pub(crate) state: u32,
    pub(crate) flags: u32,
    pub(crate) exit_state: u32,
    /// It idles for a CPU.
    pub(crate) idle: bool,
    /// The places that have it, and the parts of run queues.
    pub(crate) places: u16,
    pub(crate) queues: u8,
}

/// A module.
pub(crate) struct Module<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) state: &'static str,
    /// The places that have it.
    pub(crate) places: u8,
}

/// A document in the making.
pub(crate) struct Document<'a, W> {
    to: &'a mut W,
    /// What the next item is written behind.
    comma: &'static str,
}

impl<'a, W: Write> Document<'a, W> {
    /// Begins a document.
    ///
    /// # Errors
    ///
    /// Here and below: those of `to`.
    pub(crate) fn begin(to: &'a mut W, head: &Head<'_>) -> Result<Self, fmt::Error> {
        write!(
            to,
            "{{\"version\":{},\"kernel\":{},\"time_ns\":{},\"scans\":{},\"cpus\":{},\"cpus_online\":{},\
             \"retries\":{},\"skipped\":{},\"cut\":{},\"truncated\":{}",
            VERSION,
            Bytes(head.kernel),
            head.time_ns,
            head.scans,
            head.cpus,
            head.cpus_online,
            head.retries,
            head.skipped,
            head.cut,
            head.truncated
        )?;
        Ok(Document { to, comma: "" })
    }

    /// Writes all `items` as the section `name`.
    pub(crate) fn section<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T) -> fmt::Result,
    ) -> fmt::Result {
        self.comma = "";
        write!(self.to, ",\n\"{name}\":[")?;
        for one in items {
            writeln!(self.to, "{}", self.comma)?;
            self.comma = ",";
            item(self, one)?;
        }
        self.to.write_char(']')
    }

    pub(crate) fn view(&mut self, view: &View) -> fmt::Result {
        write!(
            self.to,
            "{{\"name\":\"{}\",\"state\":\"{}\",\"tasks\":",
            view.name, view.state
        )?;
        match view.tasks {
            Some(tasks) => write!(self.to, "{tasks}}}"),
            None => self.to.write_str("null}"),
        }
    }

    /// `places` and `queues` are the names of the bits.
    pub(crate) fn task(&mut self, task: &Task, places: &[&str], queues: &[&str]) -> fmt::Result {
        write!(
            self.to,
            "{{\"pid\":{},\"tgid\":{},\"comm\":{},\"start_ns\":{},\"cpu\":{},\"state\":{},\"flags\":{},\
             \"exit_state\":{},\"idle\":{},\"places\":{},\"queues\":{}}}",
            task.pid,
            task.tgid,
            Bytes(&task.comm),
            task.start_ns,
            task.cpu,
            task.state,
            task.flags,
            task.exit_state,
            task.idle,
            Bits(task.places.into(), places),
            Bits(task.queues.into(), queues)
        )
    }

    pub(crate) fn module(&mut self, module: &Module<'_>, places: &[&str]) -> fmt::Result {
        write!(
            self.to,
            "{{\"name\":{},\"state\":\"{}\",\"places\":{}}}",
            Bytes(module.name),
            module.state,
            Bits(module.places.into(), places)
        )
    }

    /// A function, how it begins, and the symbol that this leads to, or nothing.
    pub(crate) fn function(&mut self, name: &str, entry: &str, target: &str) -> fmt::Result {
        write!(
            self.to,
            "{{\"name\":\"{}\",\"entry\":\"{}\",\"target\":{}}}",
            name,
            entry,
            Bytes(target.as_bytes())
        )
    }

    /// A directory, whether its operations are the kernel's own, and the symbol that they lead to if not.
    pub(crate) fn directory(&mut self, path: &[u8], state: &str, target: &str) -> fmt::Result {
        write!(
            self.to,
            "{{\"path\":{},\"operations\":\"{}\",\"target\":{}}}",
            Bytes(path),
            state,
            Bytes(target.as_bytes())
        )
    }

    /// Ends the document.
    pub(crate) fn end(self) -> fmt::Result {
        self.to.write_str("}\n")
    }
}
