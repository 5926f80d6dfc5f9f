// SPDX-License-Identifier: GPL-2.0

//! Where findings go: the kernel's log, a trace event, and `/dev/guest_integrity`.
//!
//! What is reported, and when again, is decided in `finding`.

use crate::{
    coverage::Damage,
    finding::{
        Found,
        Subject,
        Weight, //
    },
    params,
    record::{
        Comm,
        Finding,
        Limiter,
        Line,
        COMM_LEN,
        LINE_LEN,
        NAME_LEN,
        WORD_LEN, //
    },
};

use guest::{
    chardev::{
        is_nonblocking,
        CharDevice,
        Events, //
    },
    report::{
        audit,
        stop,
        Tag, //
    },
    sched::list::Cut,
    time::ktime_get_ns, //
};

use kernel::{
    fmt,
    fs::File,
    new_mutex, new_poll_condvar,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        poll::{
            PollCondVar,
            PollTable, //
        },
        Arc,
        Mutex, //
    },
    uaccess::UserSliceWriter,
};

/// Records that are kept for readers that are slow or not there yet.
const RECORDS: u64 = 256;

/// Most that is copied to a reader at once.
const CHUNK: usize = 16 * LINE_LEN;

/// The records, numbered from 1, of which the last few are kept.
struct Records {
    lines: KVVec<Line<LINE_LEN>>,
    next: u64,
    limiter: Limiter,
}

impl Records {
    /// Number of the oldest record that is kept.
    fn first(&self) -> u64 {
        self.next.saturating_sub(RECORDS).max(1)
    }

    /// Returns whether the kernel's log may have another line, after having said there how many it did not get.
    fn may_print(&mut self, tag: &LogTag, now_ns: u64) -> bool {
        let held = self.limiter.pass(now_ns);

        if let Some(held @ 1..) = held {
            tag.crit(fmt!(
                "{} messages were held back before the next one\n",
                held
            ));
        }
        held.is_some()
    }

    /// Adds the record that `line` makes of its number.
    fn add(&mut self, line: impl FnOnce(u64) -> Line<LINE_LEN>) {
        let seq = self.next;

        if let Some(slot) = self.lines.get_mut((seq % RECORDS) as usize) {
            *slot = line(seq);
            self.next += 1;
        }
    }

    /// Appends whole lines from record `from` on to `text`, as far as there is room, and returns the number of the next one.
    ///
    /// Records that are gone are replaced by one line that has the number of the first of them and says how many they are.
    fn copy(&self, mut from: u64, text: &mut Text) -> u64 {
        if from < self.first() {
            let lost = self.first() - from;
            let line =
                Line::<LINE_LEN>::of(::core::format_args!("seq={from} type=lost count={lost}\n"));
            if !text.add(line.as_bytes()) {
                return from;
            }
            from = self.first();
        }
        while from < self.next {
            let Some(line) = self.lines.get((from % RECORDS) as usize) else {
                break;
            };
            if !text.add(line.as_bytes()) {
                break;
            }
            from += 1;
        }
        from
    }
}

/// Text on its way to a reader.
struct Text {
    bytes: KVec<u8>,
    room: usize,
}

impl Text {
    /// Allocates `room` bytes.
    fn new(room: usize) -> Result<Self> {
        Ok(Text {
            bytes: KVec::with_capacity(room, GFP_KERNEL)?,
            room,
        })
    }

    /// Appends `line`, if there is room for all of it.
    fn add(&mut self, line: &[u8]) -> bool {
        if line.len() > self.room || self.bytes.extend_from_slice(line, GFP_KERNEL).is_err() {
            return false;
        }
        self.room -= line.len();
        true
    }
}

/// What lines in the log of the kernel begin with.
type LogTag = Tag<{ params::TAG_LEN + 1 }>;

/// Takes findings.
#[pin_data]
pub(crate) struct Log {
    tag: LogTag,
    #[pin]
    records: Mutex<Records>,
    #[pin]
    added: PollCondVar,
}

impl Log {
    /// Makes an empty log.
    pub(crate) fn new(tag: LogTag) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            tag,
            records <- new_mutex!(Records {
                lines: KVVec::from_elem(Line::EMPTY, RECORDS as usize, GFP_KERNEL)?,
                next: 1,
                limiter: Limiter::new(),
            }),
            added <- new_poll_condvar!(),
        })
    }

    /// Returns the records from number `from` on that `room` bytes hold, and the number of the next one.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn copy(&self, from: u64, room: usize) -> Result<(u64, KVec<u8>)> {
        let mut text = Text::new(room)?;
        let next = self.records.lock().copy(from, &mut text);

        Ok((next, text.bytes))
    }

    /// Reports what was found.
    pub(crate) fn found(&self, found: &Found) {
        let finding = found.record();
        let kind = match found.weight {
            Weight::Finding => "finding",
            Weight::Observation => "observation",
        };
        let now = ktime_get_ns();

        let mut records = self.records.lock();
        if records.may_print(&self.tag, now) {
            match found.weight {
                Weight::Finding => self.tag.crit(fmt!("{} {}\n", kind, finding)),
                Weight::Observation => self.tag.notice(fmt!("{} {}\n", kind, finding)),
            }
        }
        records.add(|seq| {
            Line::of(::core::format_args!(
                "seq={seq} time_ns={now} type={kind} {finding}\n"
            ))
        });
        drop(records);
        self.added.notify_all();

        trace(found, kind, &finding);
        if found.weight == Weight::Observation {
            return;
        }
        let line = Line::<LINE_LEN>::of(::core::format_args!("op=guest_integrity {finding}\0"));
        audit(line.as_c_str());
        if params::on_finding.get() == params::PANIC {
            stop(line.as_c_str());
        }
    }

    /// Reports that a list cannot be walked to its end, so that nobody can be said to be missing from it.
    pub(crate) fn damage(&self, damage: Damage) {
        let (list, cut) = match damage {
            Damage::RunQueue(cut) => ("runqueue", cut),
            Damage::Processes(cut) => ("processes", cut),
            Damage::Threads(cut) => ("threads", cut),
            Damage::Modules(cut) => ("modules", cut),
            Damage::ModuleSet(cut) => ("module_set", cut),
        };
        let reason = match cut {
            Cut::Cycle => "cycle",
            Cut::TooLong => "too_long",
            Cut::Unreadable => "unreadable",
        };
        let now = ktime_get_ns();

        let mut records = self.records.lock();
        if records.may_print(&self.tag, now) {
            self.tag.crit(fmt!(
                "damage list={} reason={}: scans are incomplete until it is mended\n",
                list,
                reason
            ));
        }
        records.add(|seq| {
            Line::of(::core::format_args!(
                "seq={seq} time_ns={now} type=damage list={list} reason={reason}\n"
            ))
        });
        drop(records);
        self.added.notify_all();
    }
}

/// Emits the trace event for something that was found.
fn trace(found: &Found, kind: &str, finding: &Finding<'_>) {
    let view = Line::<WORD_LEN>::of(::core::format_args!("{}\0", finding.view));
    let reason = Line::<WORD_LEN>::of(::core::format_args!("{}\0", finding.reason));

    match &found.subject {
        Subject::Task(who) => guest::trace::guest_integrity::finding(
            who.pid,
            who.tgid,
            Line::<COMM_LEN>::of(::core::format_args!("{}\0", Comm(&who.comm))).as_c_str(),
            who.cpu,
            view.as_c_str(),
            reason.as_c_str(),
        ),
        Subject::Object(object) => guest::trace::guest_integrity::object(
            Line::<WORD_LEN>::of(::core::format_args!("{kind}\0")).as_c_str(),
            // With a NUL.
            Line::<{ WORD_LEN + NAME_LEN }>::of(::core::format_args!(
                "{}={}\0",
                object.kind,
                object.name.as_str()
            ))
            .as_c_str(),
            Line::<{ NAME_LEN + 1 }>::of(::core::format_args!("{}\0", object.target.as_str()))
                .as_c_str(),
            view.as_c_str(),
            reason.as_c_str(),
        ),
    }
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ::core::fmt::Display::fmt(self, f)
    }
}

/// An open file of `/dev/guest_integrity`: reads records from the oldest that is kept.
pub(crate) struct Reader {
    log: Arc<Log>,
    /// Number of the record to read next. Threads that read from one file at the same time may get the same records.
    next: Atomic<u64>,
}

#[vtable]
impl CharDevice for Reader {
    type Shared = Log;

    fn open(log: Arc<Log>) -> Result<Pin<KBox<Self>>> {
        let first = log.records.lock().first();
        let reader = Reader {
            log,
            next: Atomic::new(first),
        };

        Ok(KBox::pin(reader, GFP_KERNEL)?)
    }

    fn read(&self, file: &File, to: &mut UserSliceWriter) -> Result<usize> {
        let mut text = Text::new(to.len().min(CHUNK))?;
        let mut records = self.log.records.lock();

        while self.next.load(Relaxed) == records.next {
            if is_nonblocking(file) {
                return Err(EAGAIN);
            }
            if self.log.added.wait_interruptible(&mut records) {
                return Err(ERESTARTSYS);
            }
        }

        let next = records.copy(self.next.load(Relaxed), &mut text);
        // Copying to a reader may take as long as the reader likes.
        drop(records);

        if text.bytes.is_empty() {
            // Not even one line has room.
            return Err(EINVAL);
        }
        to.write_slice(&text.bytes)?;
        // Only now: what a reader did not get is read again.
        self.next.store(next, Relaxed);
        Ok(text.bytes.len())
    }

    fn poll(&self, file: &File, table: &PollTable<'_>) -> Events {
        table.register_wait(file, &self.log.added);

        if self.next.load(Relaxed) == self.log.records.lock().next {
            Events::NONE
        } else {
            Events::READABLE
        }
    }
}
