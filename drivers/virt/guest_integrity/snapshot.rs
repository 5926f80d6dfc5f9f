// SPDX-License-Identifier: GPL-2.0

//! `/dev/guest_integrity_snapshot`: all that the views see, as one document, for programs that compare what they like.
//!
//! A file has one document, which is made when it is first read. Nothing is compared for it, and it is no scan. Every place names
//! the tasks that it has; the lists come last, as in a scan, so a task that a view has and the lists lack has exited, or is hidden. Tasks
//! are told apart by number and the time of their start, not by addresses, which are nobody's business.
//!
//! Memory is allocated before what it is for is read, and there is a limit to it: see [`MAX_SIGHTINGS`] and [`MAX_TASKS`].

mod document;
mod sighting;

use self::{
    document::{
        Document,
        Head,
        Module,
        Task, //
    },
    sighting::{
        merge,
        Sighting, //
    },
};
use crate::{
    finding::{
        Known,
        Who, //
    },
    params,
    record::{
        Line,
        NAME_LEN, //
    },
    scan::Scanner,
    sort::sort,
    views::{
        hooks,
        modules,
        views,
        Examined,
        Sources,
        View,
        NAMES,
        VIEWS, //
    },
    witness::Witnesses, //
};

use guest::{
    chardev::CharDevice,
    module::{
        ModuleId,
        State,
        NAME_LEN as MODULE_NAME_LEN, //
    },
    sched::{
        list::{
            Processes,
            Threads, //
        },
        peek::Peek,
        rq::Queue,
        TaskId, //
    },
    text::{
        entry::Entry,
        FUNCTIONS, //
    },
    time::ktime_get_ns,
    utsname, //
};

use kernel::{
    alloc::AllocError,
    fs::File,
    new_mutex,
    prelude::*,
    sync::{
        atomic::Relaxed,
        rcu,
        Arc,
        Mutex, //
    },
    uaccess::UserSliceWriter, //
};

/// Most tasks of one document.
const MAX_TASKS: usize = 1 << 15;
/// Most sightings that room is made for: several of each task.
const MAX_SIGHTINGS: usize = 1 << 18;
/// Most modules of one document.
const MAX_MODULES: usize = 1 << 10;
/// Attempts to find room for all sightings.
const ATTEMPTS: u32 = 8;

/// The places that may have a task: the views, and the two lists.
const PLACES: [&str; VIEWS.len() + 2] = {
    let mut places = [""; VIEWS.len() + 2];
    let mut i = 0;

    while i < NAMES.len() {
        places[i] = NAMES[i];
        i += 1;
    }
    places[i] = "processes";
    places[i + 1] = "threads";
    places
};
// There is a bit for each.
const _: () = assert!(PLACES.len() <= u16::BITS as usize);
const PROCESSES: usize = VIEWS.len();
const THREADS: usize = PROCESSES + 1;

/// The parts of a run queue, in the order of [`Queue`].
const QUEUES: [&str; Queue::Stop as usize + 1] = [
    "current",
    "fair",
    "realtime",
    "deadline",
    "ext",
    "throttled",
    "stop",
];

/// The places that may have a module.
const MODULE_PLACES: [&str; 4] = ["list", "sysfs", "tree", "told"];

/// An open file.
#[pin_data]
pub(crate) struct Snapshot {
    scanner: Arc<Scanner>,
    #[pin]
    text: Mutex<Option<Text>>,
}

/// The document, and how much of it has been read.
struct Text {
    bytes: KVVec<u8>,
    read: usize,
}

impl core::fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.bytes
            .extend_from_slice(s.as_bytes(), GFP_KERNEL)
            .map_err(|_| core::fmt::Error)
    }
}

#[vtable]
impl CharDevice for Snapshot {
    type Shared = Scanner;

    fn open(scanner: Arc<Scanner>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                scanner,
                text <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )
    }

    fn read(&self, _file: &File, to: &mut UserSliceWriter) -> Result<usize> {
        let mut text = self.text.lock();

        if text.is_none() {
            *text = Some(take(&self.scanner)?);
        }
        let Some(text) = &mut *text else {
            return Ok(0);
        };
        let rest = text.bytes.get(text.read..).unwrap_or_default();
        let part = rest.get(..to.len()).unwrap_or(rest);

        to.write_slice(part)?;
        text.read += part.len();
        Ok(part.len())
    }
}

/// Makes a document. Sleeps.
fn take(scanner: &Scanner) -> Result<Text> {
    let sources = scanner.sources();
    let mut tasks = Tasks::default();

    tasks.collect(sources)?;
    let modules = Modules::collect(sources)?;
    let mut text = Text {
        bytes: KVVec::new(),
        read: 0,
    };

    // There is no other reason than that there is no memory.
    write(&mut text, scanner, &tasks, &modules).map_err(|_| ENOMEM)?;
    Ok(text)
}

fn write(to: &mut Text, scanner: &Scanner, tasks: &Tasks, modules: &Modules) -> core::fmt::Result {
    let coverage = &tasks.witnesses.coverage;
    let head = Head {
        kernel: &utsname::release(),
        time_ns: tasks.time_ns,
        scans: scanner.counts().scans.load(Relaxed),
        cpus: coverage.cpus,
        cpus_online: coverage.online,
        retries: coverage.cost.retries,
        skipped: coverage.skipped,
        cut: coverage.cut,
        truncated: tasks.truncated || modules.truncated,
    };
    let mut document = Document::begin(to, &head)?;

    document.section("views", VIEWS.iter().enumerate(), |document, (i, view)| {
        document.view(&tasks.view(scanner, i, view))
    })?;
    document.section("tasks", tasks.tasks.iter(), |document, task| {
        document.task(task, &PLACES, &QUEUES)
    })?;
    document.section("modules", modules.list.iter(), |document, module| {
        let (name, state, places) = module;
        document.module(
            &Module {
                name,
                state,
                places: *places,
            },
            &MODULE_PLACES,
        )
    })?;
    document.section("functions", FUNCTIONS, |document, function| {
        let entry = function.entry();
        let target: Option<Line<NAME_LEN>> = entry.and_then(hooks::target);
        let entry = match entry {
            Some(Entry::Plain) => "plain",
            Some(Entry::Breakpoint | Entry::Redirected(_)) => "patched",
            None => "unknown",
        };
        document.function(function.name, entry, target.unwrap_or(Line::EMPTY).as_str())
    })?;
    document.section("directories", hooks::DIRECTORIES, |document, path| {
        let replaced = hooks::replaced(path);
        let (operations, target) = match &replaced {
            Some(Some(replaced)) => ("replaced", replaced.target.as_str()),
            Some(None) => ("own", ""),
            None => ("unknown", ""),
        };
        document.directory(path.to_bytes(), operations, target)
    })?;
    document.end()
}

/// Tasks, and who has seen them.
#[derive(Default)]
struct Tasks {
    witnesses: Witnesses,
    tasks: KVVec<Task>,
    time_ns: u64,
    /// Views that could not be taken, a bit each.
    uncovered: u32,
    truncated: bool,
}

impl Tasks {
    /// Asks all places for their tasks.
    fn collect(&mut self, sources: &Sources) -> Result<(), AllocError> {
        let mut shown = KVVec::new();
        let mut sightings = KVVec::new();

        self.time_ns = ktime_get_ns();
        self.witnesses.begin(&Known::new())?;
        for (i, view) in views() {
            self.witnesses.of_view(i);
            if let Some(collect) = view.collect.filter(|_| !view.once) {
                collect(sources, &mut self.witnesses)?;
            }
            match view.shows.map(|shows| shows()) {
                Some(Some(mut numbers)) => {
                    sort(&mut numbers, i32::lt);
                    shown.push((i, numbers), GFP_KERNEL)?;
                }
                Some(None) => self.uncovered |= 1 << i,
                None => {}
            }
        }

        let collected = self.witnesses.len();
        for attempt in 1.. {
            let room = self.witnesses.capacity();
            sightings.reserve(room, GFP_KERNEL)?;
            self.tasks.reserve(room.min(MAX_TASKS), GFP_KERNEL)?;

            let guard = rcu::read_lock();
            for (i, view) in views() {
                self.witnesses.of_view(i);
                if let Some(witness) = view.witness {
                    witness(&guard, &mut self.witnesses);
                }
            }
            self.walk(&guard);
            let all = self.witnesses.are_all();
            let wanted = room.saturating_add(self.witnesses.missing());
            if all || attempt == ATTEMPTS || wanted > MAX_SIGHTINGS {
                self.truncated = !all;
                self.read(&guard, &mut sightings);
                break;
            }
            drop(guard);
            self.witnesses.retry(collected)?;
        }

        for &(place, ref numbers) in shown.iter() {
            for task in self.tasks.iter_mut().filter(|task| task.pid == task.tgid) {
                if numbers.binary_search(&task.pid).is_ok() {
                    task.places |= 1 << place;
                }
            }
        }
        // Nobody needs the references any more.
        self.witnesses.end();
        Ok(())
    }

    /// Walks the lists.
    fn walk(&mut self, guard: &rcu::Guard) {
        let mut processes = Processes::new(guard);
        let mut cut = 0;

        for process in processes.by_ref() {
            self.witnesses.of_view(PROCESSES);
            self.witnesses.add(Peek::new(guard, process.task));

            self.witnesses.of_view(THREADS);
            let mut threads = Threads::of(guard, process.process);
            for thread in threads.by_ref() {
                self.witnesses.add(Peek::new(guard, thread.task));
            }
            cut += u32::from(threads.cut().is_some());
        }
        cut += u32::from(processes.cut().is_some());
        self.witnesses.coverage.cut = cut;
    }

    /// Reads each task that was seen, once.
    fn read(&mut self, guard: &rcu::Guard, sightings: &mut KVVec<Sighting>) {
        for witness in self.witnesses.iter() {
            let queue = self.witnesses.queue(witness);
            let sighting = Sighting {
                task: witness.task.0,
                places: 1 << witness.view,
                // CAST: One of few.
                queues: queue.map_or(0, |queue| 1 << queue as u8),
                idle: witness.idle,
            };
            // There is room for all.
            let _ = sightings.push_within_capacity(sighting);
        }
        for seen in merge(sightings) {
            let task = Peek::new(guard, TaskId(seen.task));
            let who = Who::of(task);
            let (state, flags, exit_state) = task.raw_states();
            let one = Task {
                pid: who.pid,
                tgid: who.tgid,
                comm: who.comm,
                start_ns: task.start_time(),
                cpu: who.cpu,
                state,
                flags,
                exit_state,
                idle: seen.idle,
                places: seen.places,
                queues: seen.queues,
            };

            if self.tasks.push_within_capacity(one).is_err() {
                self.truncated = true;
                break;
            }
        }
    }

    /// What is said of the view at place `i` of the table.
    fn view(&self, scanner: &Scanner, i: usize, view: &View) -> document::View {
        let on = params::views.has(i);
        let uncovered = ((self.uncovered | scanner.uncovered()) >> i) & 1 != 0;
        let names = view.collect.is_some() || view.witness.is_some() || view.shows.is_some();
        let has = |task: &&Task| (task.places >> i) & 1 != 0;

        document::View {
            name: view.name,
            state: match (on, uncovered) {
                (false, _) => "off",
                (true, false) => "on",
                (true, true) => "not_covered",
            },
            tasks: (on && names && !view.once).then(|| self.tasks.iter().filter(has).count()),
        }
    }
}

/// Modules: the name of each, how far it has come, and the places that have it.
struct Modules {
    list: KVVec<([u8; MODULE_NAME_LEN], &'static str, u8)>,
    truncated: bool,
}

impl Modules {
    /// Asks all places for their modules.
    fn collect(sources: &Sources) -> Result<Self, AllocError> {
        let mut list = KVVec::with_capacity(MAX_MODULES, GFP_KERNEL)?;
        let mut known = KVVec::<(ModuleId, u8)>::with_capacity(MAX_MODULES, GFP_KERNEL)?;
        let mut truncated = false;

        let looked = modules::look(sources, |guard, told, places| {
            let [on_list, in_set, in_tree] = places.each();

            for (place, modules) in [on_list, in_set, in_tree, told].into_iter().enumerate() {
                for &module in modules {
                    let bit = 1 << place;
                    match known.iter_mut().find(|(other, _)| *other == module) {
                        Some((_, places)) => *places |= bit,
                        None => truncated |= known.push_within_capacity((module, bit)).is_err(),
                    }
                }
            }
            for &(module, places) in known.iter() {
                let state = match module.state(guard) {
                    State::Live => "live",
                    State::Going => "going",
                    State::Other => "other",
                };
                // As much room as for the others.
                let _ = list.push_within_capacity((module.name(guard), state, places));
            }
        })?;
        Ok(Modules {
            list,
            truncated: truncated || !matches!(looked, Examined::Whole),
        })
    }
}
