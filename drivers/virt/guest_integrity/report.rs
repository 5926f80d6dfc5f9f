// SPDX-License-Identifier: GPL-2.0

//! Where findings go: the kernel's log, a trace event, and `/dev/guest_integrity`.
//!
//! A hidden task is reported when it is first seen, not again each second: it is remembered, with a reference, until it has
//! exited or is back on the lists. How often it was seen since shows in the counters.

use crate::{
    collect::Damage,
    decide::Unlisted,
    record::{
        Comm,
        Finding,
        Limiter,
        Line,
        COMM_LEN,
        LINE_LEN, //
    },
};

use guest::{
    chardev::{
        is_nonblocking,
        CharDevice,
        Events, //
    },
    sched::{
        list::Cut,
        rq::QueuedTask,
        TaskExt, //
    },
    time::ktime_get_ns, //
};

use kernel::{
    fmt,
    fs::File,
    new_mutex, new_poll_condvar,
    prelude::*,
    sync::{
        aref::ARef,
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
    task::Task,
    uaccess::UserSliceWriter,
};

/// The view that findings come from.
const VIEW: &CStr = c"runqueue";

/// Records that are kept for readers that are slow or not there yet.
const RECORDS: u64 = 256;

/// Most that is copied to a reader at once.
const CHUNK: usize = 16 * LINE_LEN;

impl Unlisted {
    fn reason(self) -> &'static CStr {
        match self {
            Unlisted::Process => c"process_unlisted",
            Unlisted::Thread => c"thread_unlisted",
        }
    }
}

/// A task that was seen, and where.
pub(crate) struct Sighting<'a> {
    pub(crate) task: &'a Task,
    pub(crate) cpu: u32,
    /// It was reported before.
    pub(crate) known: bool,
}

/// The tasks that are known to be hidden, each known by its place.
pub(crate) struct Hidden(KVVec<HiddenTask>);

struct HiddenTask {
    task: ARef<Task>,
    /// Where it was seen first.
    cpu: u32,
    /// It was seen in the scan that is being reported.
    seen: bool,
}

impl Hidden {
    /// Begins with none.
    pub(crate) fn new() -> Self {
        Hidden(KVVec::new())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        // CAST: As many as there can be tasks.
        self.0.len() as u32
    }

    /// The tasks, in the order of their places.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.0.iter().map(|hidden| &*hidden.task)
    }

    /// The task at place `i`.
    pub(crate) fn get(&self, i: u32) -> Option<Sighting<'_>> {
        self.0.get(i as usize).map(|hidden| Sighting {
            task: &hidden.task,
            cpu: hidden.cpu,
            known: true,
        })
    }

    /// Notes that the task at place `i` is still hidden.
    pub(crate) fn seen(&mut self, i: u32) {
        if let Some(hidden) = self.0.get_mut(i as usize) {
            hidden.seen = true;
        }
    }

    /// After a scan: forgets those that it did not see, if it was `complete`. The places change.
    pub(crate) fn keep_seen(&mut self, complete: bool) {
        self.0
            .retain(|hidden| core::mem::take(&mut hidden.seen) || !complete);
    }

    /// Adds a task.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub(crate) fn add(&mut self, queued: &QueuedTask) -> Result<(), kernel::alloc::AllocError> {
        let hidden = HiddenTask {
            task: queued.task.clone(),
            cpu: queued.cpu,
            seen: false,
        };

        self.0.push(hidden, GFP_KERNEL)
    }
}

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
    fn may_print(&mut self, now_ns: u64) -> bool {
        let held = self.limiter.pass(now_ns);

        if let Some(held @ 1..) = held {
            pr_crit!("{} messages were held back before the next one\n", held);
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

/// Takes findings.
#[pin_data]
pub(crate) struct Log {
    #[pin]
    records: Mutex<Records>,
    #[pin]
    added: PollCondVar,
}

impl Log {
    /// Makes an empty log.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            records <- new_mutex!(Records {
                lines: KVVec::from_elem(Line::EMPTY, RECORDS as usize, GFP_KERNEL)?,
                next: 1,
                limiter: Limiter::new(),
            }),
            added <- new_poll_condvar!(),
        })
    }

    /// Reports a hidden task.
    pub(crate) fn finding(&self, sighting: &Sighting<'_>, unlisted: Unlisted) {
        let task = sighting.task;
        let comm = task.comm();
        let finding = Finding {
            pid: task.pid(),
            tgid: task.tgid(),
            comm: &comm,
            cpu: sighting.cpu,
            view: VIEW.to_str().unwrap_or_default(),
            reason: unlisted.reason().to_str().unwrap_or_default(),
        };
        let now = ktime_get_ns();

        let mut records = self.records.lock();
        if records.may_print(now) {
            pr_crit!("finding {}\n", finding);
        }
        records.add(|seq| {
            Line::of(::core::format_args!(
                "seq={seq} time_ns={now} type=finding {finding}\n"
            ))
        });
        drop(records);
        self.added.notify_all();

        // The name has at most `COMM_LEN` characters with its NUL, which the line is then followed by.
        let comm = Line::<COMM_LEN>::of(::core::format_args!("{}\0", Comm(&comm)));
        if let Ok(comm) = CStr::from_bytes_with_nul(comm.as_bytes()) {
            guest::trace::guest_integrity::finding(
                finding.pid,
                finding.tgid,
                comm,
                finding.cpu,
                VIEW,
                unlisted.reason(),
            );
        }
    }

    /// Reports that a list cannot be walked to its end, so that nobody can be said to be missing from it.
    pub(crate) fn damage(&self, damage: Damage) {
        let (list, cut) = match damage {
            Damage::RunQueue => ("runqueue", Cut::TooLong),
            Damage::Processes(cut) => ("processes", cut),
            Damage::Threads(cut) => ("threads", cut),
        };
        let reason = match cut {
            Cut::Cycle => "cycle",
            Cut::TooLong => "too_long",
            Cut::Unreadable => "unreadable",
        };
        let now = ktime_get_ns();

        let mut records = self.records.lock();
        if records.may_print(now) {
            pr_crit!(
                "damage list={} reason={}: scans are incomplete until it is mended\n",
                list,
                reason
            );
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

    fn open(log: Arc<Log>) -> Result<Self> {
        let first = log.records.lock().first();

        Ok(Reader {
            log,
            next: Atomic::new(first),
        })
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
