// SPDX-License-Identifier: GPL-2.0

//! Text of what is reported: `key=value` pairs in one line, of a bounded length.
//!
//! The name of a task is chosen by the task, that of a module by whoever wrote it. Names are escaped so that each is one value,
//! whatever it holds: no name can look like another pair, another record or the end of a line.
//!
//! The file imports only `core`; the host tests run it.

use core::{
    ffi::CStr,
    fmt::{
        self,
        Write, //
    },
};

/// Length of the longest line, which holds two names of the longest kind.
pub(crate) const LINE_LEN: usize = 320;

/// Length of the longest escaped name of something that is no task. What is longer is cut off.
pub(crate) const NAME_LEN: usize = 64;

/// Length of the longest escaped name, with a NUL.
pub(crate) const COMM_LEN: usize = 64;

/// Length of the longest name of a view or reason, with a NUL.
pub(crate) const WORD_LEN: usize = 32;

/// A name as a value: bytes that are not visible ASCII, and those with a meaning in records, are written as `\xNN`.
pub(crate) struct Comm<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Comm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.iter().take_while(|&&byte| byte != 0).take(15);

        name.copied().try_for_each(|byte| escape(byte, f))
    }
}

/// Writes one byte of a name.
fn escape(byte: u8, to: &mut impl Write) -> fmt::Result {
    match byte {
        b'=' | b'"' | b'\'' | b'\\' => write!(to, "\\x{byte:02x}"),
        0x21..=0x7e => to.write_char(byte.into()),
        _ => write!(to, "\\x{byte:02x}"),
    }
}

/// Text of at most `N` bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Line<N> {
    pub(crate) const EMPTY: Self = Line {
        bytes: [0; N],
        len: 0,
    };

    /// Writes `args`, as far as there is room.
    pub(crate) fn of(args: fmt::Arguments<'_>) -> Self {
        let mut line = Self::EMPTY;

        // What does not fit is cut off, which the length of a line is chosen to exclude.
        let _ = line.write_fmt(args);
        line
    }

    /// Writes a name, up to the first NUL, as a value.
    pub(crate) fn escaped(name: &[u8]) -> Self {
        let mut line = Self::EMPTY;

        line.append(name);
        line
    }

    /// Appends a name in the same way, as far as there is room.
    pub(crate) fn append(&mut self, name: &[u8]) {
        for &byte in name.iter().take_while(|&&byte| byte != 0) {
            let before = self.len;
            // Of a byte that is escaped there is all or nothing.
            if escape(byte, self).is_err() {
                self.len = before;
                break;
            }
        }
    }

    /// Returns the text, as far as it is UTF-8.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Returns the text before the first NUL, or nothing if there is none.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(self.as_bytes()).unwrap_or_default()
    }
}

impl<const N: usize> Write for Line<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let len = s.len().min(room.len());

        for (to, from) in room.iter_mut().zip(s.bytes()) {
            *to = from;
        }
        self.len += len;
        if len == s.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// What a record is about.
pub(crate) enum Subject<'a> {
    /// A task.
    Task {
        pid: i32,
        tgid: i32,
        comm: &'a [u8],
        cpu: u32,
    },
    /// Something else. Its names are escaped; `target` is where it leads to, if it leads anywhere.
    Object {
        kind: &'a str,
        name: &'a str,
        target: &'a str,
    },
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Task {
                pid,
                tgid,
                comm,
                cpu,
            } => {
                let comm = Comm(comm);
                write!(f, "pid={pid} tgid={tgid} comm={comm} cpu={cpu}")
            }
            Subject::Object {
                kind,
                name,
                target: "",
            } => write!(f, "{kind}={name}"),
            Subject::Object { kind, name, target } => write!(f, "{kind}={name} target={target}"),
        }
    }
}

/// What is reported, behind the number and the type of the record.
pub(crate) struct Finding<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) view: &'a str,
    pub(crate) reason: &'a str,
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} view={} reason={}",
            self.subject, self.view, self.reason
        )
    }
}

/// Lets a bounded number of messages through in each period, and counts the others.
pub(crate) struct Limiter {
    since_ns: u64,
    passed: u32,
    held: u64,
}

impl Limiter {
    /// Messages in one period.
    pub(crate) const BURST: u32 = 10;
    /// Length of a period.
    pub(crate) const PERIOD_NS: u64 = 5_000_000_000;

    pub(crate) const fn new() -> Self {
        Limiter {
            since_ns: 0,
            passed: 0,
            held: 0,
        }
    }

    /// Asks whether a message may go out at `now_ns`; if so, with the number that were held back since the last one.
    pub(crate) fn pass(&mut self, now_ns: u64) -> Option<u64> {
        if now_ns.wrapping_sub(self.since_ns) >= Self::PERIOD_NS {
            self.since_ns = now_ns;
            self.passed = 0;
        }
        if self.passed == Self::BURST {
            self.held = self.held.saturating_add(1);
            return None;
        }
        self.passed += 1;
        Some(core::mem::take(&mut self.held))
    }
}
