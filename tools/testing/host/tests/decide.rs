// SPDX-License-Identifier: GPL-2.0

//! The rule that decides whether a task is hidden, against a model of the kernel.
//!
//! The model has the run queues, the list of processes and the lists of threads, with links that behave as lists under RCU do:
//! what is taken off keeps its way to the next. Its steps are those of `fork`, `exec` by a thread other than the first, exit,
//! reaping and scheduling, in the order that `kernel/fork.c`, `fs/exec.c` and `kernel/exit.c` have them. Between any two steps of
//! a scan, any number of them happens, chosen by proptest. In a kernel of three tasks, `every` tries all there are.
//!
//! Three properties: nobody honest is ever found; somebody hidden always is; and three weaker rules, each without one of
//! the things that the rule rests on, do find honest tasks, so that the model is hard enough to tell.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "../../../../drivers/virt/guest_integrity/decide.rs"]
mod decide;
#[path = "decide/every.rs"]
mod every;
#[path = "../../../../drivers/virt/guest_integrity/sort.rs"]
mod sort;

use decide::{Entry, Search, Suspect, Unlisted};

const CPUS: usize = 2;

/// The address of a task, and the number of a process.
type Id = usize;

/// A list under RCU: entries keep their way to the next when they are taken off.
#[derive(Clone, Default, Hash)]
struct List {
    /// `None` is the head.
    next: BTreeMap<Option<Id>, Option<Id>>,
}

impl List {
    fn new() -> Self {
        List {
            next: BTreeMap::from([(None, None)]),
        }
    }

    fn after(&self, at: Option<Id>) -> Option<Id> {
        self.next[&at]
    }

    fn before(&self, id: Option<Id>) -> Option<Id> {
        let mut at = None;
        while self.after(at) != id {
            at = self.after(at);
            assert!(at.is_some(), "not on the list");
        }
        at
    }

    fn add_tail(&mut self, id: Id) {
        let last = self.before(None);
        self.next.insert(Some(id), None);
        self.next.insert(last, Some(id));
    }

    fn del(&mut self, id: Id) {
        let before = self.before(Some(id));
        self.next.insert(before, self.after(Some(id)));
    }

    /// Forgets the way on from all that is neither on the list nor on the way from `at`.
    fn forget(&mut self, at: Option<Id>) {
        let mut kept = BTreeMap::new();
        for mut place in [None, at] {
            while kept.insert(place, self.after(place)).is_none() {
                place = self.after(place);
            }
        }
        self.next = kept;
    }

    fn replace(&mut self, old: Id, new: Id) {
        let before = self.before(Some(old));
        self.next.insert(Some(new), self.after(Some(old)));
        self.next.insert(before, Some(new));
    }
}

#[derive(Clone, Copy, PartialEq, Debug, Hash)]
enum Life {
    /// Linked, not yet woken.
    New,
    Running,
    /// The exit state is set, it may be taken off the lists.
    Exited,
    /// Off the lists; may be on a run queue still.
    Released,
}

#[derive(Clone, Debug, Hash)]
struct Task {
    process: Id,
    leader: Id,
    life: Life,
    cpu: Option<usize>,
    /// Has done its last switch.
    gone: bool,
    /// Belongs to the attacker: always on its run queue, and not touched.
    victim: bool,
}

/// The kernel: tasks are never forgotten, as the scan holds references to those that it knows.
#[derive(Clone, Hash)]
struct Kernel {
    /// How many tasks there may be.
    most: usize,
    tasks: Vec<Task>,
    processes: List,
    threads: Vec<List>,
}

impl Kernel {
    fn new() -> Self {
        let mut kernel = Kernel {
            most: 40,
            tasks: Vec::new(),
            processes: List::new(),
            threads: Vec::new(),
        };
        // The idle tasks, which are on no list, and the first process.
        for cpu in 0..CPUS {
            kernel.threads.push(List::new());
            kernel.tasks.push(Task {
                process: cpu,
                leader: cpu,
                life: Life::Running,
                cpu: Some(cpu),
                gone: false,
                victim: false,
            });
        }
        kernel.fork(None);
        kernel.tasks[CPUS].life = Life::Running;
        kernel
    }

    /// Links a new task: a process, or a thread of the process of `of`.
    fn fork(&mut self, of: Option<Id>) -> Id {
        let id = self.tasks.len();
        let (process, leader) = match of {
            Some(of) => (self.tasks[of].process, self.tasks[of].leader),
            None => {
                self.threads.push(List::new());
                (self.threads.len() - 1, id)
            }
        };

        if of.is_none() {
            self.processes.add_tail(id);
        }
        self.threads[process].add_tail(id);
        self.tasks.push(Task {
            process,
            leader,
            life: Life::New,
            cpu: None,
            gone: false,
            victim: false,
        });
        id
    }

    /// Makes a process, or one with a second thread, that runs on `cpu`, and takes it or that thread off the list. Returns who is
    /// missing from where.
    fn hide(&mut self, thread: bool, cpu: usize) -> (Id, Unlisted) {
        let id = self.fork(None);
        let victim = if thread { self.fork(Some(id)) } else { id };

        for id in [id, victim] {
            let task = &mut self.tasks[id];
            (task.life, task.victim, task.cpu) = (Life::Running, true, Some(cpu));
        }
        if thread {
            let process = self.tasks[victim].process;
            self.threads[process].del(victim);
            (victim, Unlisted::Thread)
        } else {
            self.processes.del(victim);
            (victim, Unlisted::Process)
        }
    }

    fn others(&self, id: Id) -> impl Iterator<Item = (Id, &Task)> + '_ {
        let process = self.tasks[id].process;
        self.tasks
            .iter()
            .enumerate()
            .filter(move |(other, task)| *other != id && task.process == process)
    }

    /// Does step `what` to task `id`, if the kernel could do that now.
    fn step(&mut self, id: Id, what: u8, cpu: usize) {
        let id = CPUS + id % (self.tasks.len() - CPUS);
        let task = self.tasks[id].clone();
        if task.victim || task.gone {
            return;
        }

        match (what, task.life) {
            (0, Life::Running) if self.tasks.len() < self.most => {
                self.fork(None);
            }
            (1, Life::Running) if self.tasks.len() < self.most => {
                self.fork(Some(id));
            }
            // The first wake-up.
            (2 | 3, Life::New) => {
                self.tasks[id].life = Life::Running;
                self.tasks[id].cpu = Some(cpu);
            }
            // Wakes, sleeps, is moved.
            (2, Life::Running) => self.tasks[id].cpu = Some(cpu),
            (3, Life::Running) => self.tasks[id].cpu = None,
            (2, Life::Exited | Life::Released) if task.cpu.is_some() => {
                self.tasks[id].cpu = Some(cpu);
            }
            // Exits; the first process does not.
            (4, Life::Running) if id != CPUS => {
                self.tasks[id].life = Life::Exited;
                self.tasks[id].cpu = Some(cpu);
            }
            // Is reaped, by itself or by the parent: a leader only after the other threads.
            (5, Life::Exited) => {
                let leads = task.leader == id;
                if leads && self.others(id).any(|(_, t)| t.life != Life::Released) {
                    return;
                }
                if leads {
                    self.processes.del(id);
                }
                self.threads[task.process].del(id);
                self.tasks[id].life = Life::Released;
            }
            // Switches for the last time.
            (6, Life::Exited | Life::Released) => {
                self.tasks[id].cpu = None;
                self.tasks[id].gone = true;
            }
            // Executes a program: takes the place of the leader when all other threads have been reaped.
            (7, Life::Running) if task.leader != id => {
                let leader = task.leader;
                let alone = self
                    .others(id)
                    .all(|(t, task)| t == leader || task.life == Life::Released);
                if alone && self.tasks[leader].life == Life::Exited {
                    self.processes.replace(leader, id);
                    self.tasks[id].leader = id;
                    self.tasks[leader].leader = id;
                }
            }
            _ => {}
        }
    }

    fn run_queue(&self, cpu: usize) -> impl Iterator<Item = (Id, &Task)> {
        self.tasks
            .iter()
            .enumerate()
            .filter(move |(_, task)| task.cpu == Some(cpu))
    }
}

/// What a rule lacks.
#[derive(Clone, Copy, PartialEq, Debug, Hash)]
enum Rule {
    Whole,
    NoExitState,
    WalkFirst,
    KeyedOnLeader,
}

/// What happens meanwhile: each number is a task, a step and a CPU; a scan takes one at each of its own steps, and more.
struct Meanwhile<'a> {
    events: std::slice::Iter<'a, Vec<(u8, u8, bool)>>,
}

impl Meanwhile<'_> {
    fn happens(&mut self, kernel: &mut Kernel) {
        for &(id, what, cpu) in self.events.next().into_iter().flatten() {
            kernel.step(id.into(), what, cpu.into());
        }
    }
}

/// Step 1: the run queues.
fn snapshot(kernel: &mut Kernel, rule: Rule, meanwhile: &mut Meanwhile<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for cpu in 0..CPUS {
        meanwhile.happens(kernel);
        entries.extend(kernel.run_queue(cpu).map(|(id, task)| {
            let key = match rule {
                Rule::KeyedOnLeader => task.leader,
                _ => task.process,
            };
            Entry::new(key, id, id == cpu, id as u32)
        }));
    }
    entries
}

/// Step 2: the lists, one link at a time. `met` is told of each process, and says whether its threads are walked.
fn walk(
    kernel: &mut Kernel,
    rule: Rule,
    meanwhile: &mut Meanwhile<'_>,
    mut met: impl FnMut(usize, Option<Id>) -> bool,
) {
    let mut at = None;
    loop {
        meanwhile.happens(kernel);
        at = kernel.processes.after(at);
        let Some(id) = at else { break };

        let process = kernel.tasks[id].process;
        let key = match rule {
            Rule::KeyedOnLeader => id,
            _ => process,
        };
        if !met(key, None) {
            continue;
        }
        let mut thread = None;
        loop {
            meanwhile.happens(kernel);
            thread = kernel.threads[process].after(thread);
            let Some(id) = thread else { break };
            met(key, Some(id));
        }
    }
}

/// One pass of a scan.
fn scan(kernel: &mut Kernel, rule: Rule, meanwhile: &mut Meanwhile<'_>) -> Vec<Suspect> {
    let mut early = Vec::new();
    if rule == Rule::WalkFirst {
        walk(kernel, rule, meanwhile, |process, task| {
            early.push((process, task));
            true
        });
    }

    let mut entries = snapshot(kernel, rule, meanwhile);
    let mut search = Search::new(&mut entries);
    let mut note = |process, task| match task {
        None => search.process(process),
        Some(task) => {
            search.thread(process, task);
            true
        }
    };
    if rule == Rule::WalkFirst {
        for (process, task) in early {
            note(process, task);
        }
    } else {
        walk(kernel, rule, meanwhile, note);
    }

    let mut suspects = Vec::new();
    search.finish(
        |id| {
            meanwhile.happens(kernel);
            let life = kernel.tasks[id as usize].life;
            rule != Rule::NoExitState && matches!(life, Life::Exited | Life::Released)
        },
        |suspect| suspects.push(suspect),
    );
    suspects
}

type Events = Vec<Vec<(u8, u8, bool)>>;

/// Some events before the scan, and some at each of its steps.
fn events() -> impl Strategy<Value = (Vec<(u8, u8, bool)>, Events)> {
    let event = || (any::<u8>(), 0..8_u8, any::<bool>());
    (
        prop::collection::vec(event(), 0..80),
        prop::collection::vec(prop::collection::vec(event(), 0..6), 0..120),
    )
}

/// A kernel in which the events before a scan have happened.
fn kernel(before: &[(u8, u8, bool)]) -> Kernel {
    let mut kernel = Kernel::new();
    for &(id, what, cpu) in before {
        kernel.step(id.into(), what, cpu.into());
    }
    kernel
}

fn honest(rule: Rule, (before, during): &(Vec<(u8, u8, bool)>, Events)) -> Vec<Suspect> {
    let mut meanwhile = Meanwhile {
        events: during.iter(),
    };
    scan(&mut kernel(before), rule, &mut meanwhile)
}

proptest! {
    #![proptest_config(Config { cases: 10_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn nobody_honest_is_found(events in events()) {
        prop_assert_eq!(honest(Rule::Whole, &events), vec![]);
    }

    /// Each entry is told from all others, however many there are.
    #[test]
    fn each_entry_is_its_own(tasks in prop::collection::vec((0..20_usize, 0..20_usize), 0..60),
                             met in prop::collection::vec((0..20_usize, 0..20_usize), 0..60)) {
        let entry = |(i, &(process, task)): (usize, &(usize, usize))| {
            Entry::new(process, process * 100 + task, false, i as u32)
        };
        let mut entries: Vec<_> = tasks.iter().enumerate().map(entry).collect();
        let mut search = Search::new(&mut entries);
        for &(process, task) in &met {
            prop_assert_eq!(search.process(process), tasks.iter().any(|t| t.0 == process));
            search.thread(process, process * 100 + task);
        }

        let mut found = std::collections::BTreeMap::new();
        search.finish(|_| false, |s| { found.insert(tasks[s.origin as usize], s.unlisted); });
        let expected = tasks.iter().filter(|t| !met.contains(t)).map(|t| {
            let process = met.iter().any(|m| m.0 == t.0);
            (*t, if process { Unlisted::Thread } else { Unlisted::Process })
        });
        prop_assert_eq!(found, expected.collect());
    }

    /// A process or a thread is taken off its list while it runs, at some point before the scan.
    #[test]
    fn somebody_hidden_is_found((before, during) in events(), thread: bool, cpu: bool,
                                between in prop::collection::vec((any::<u8>(), 0..8_u8, any::<bool>()), 0..40)) {
        let mut kernel = kernel(&before);
        let (victim, unlisted) = kernel.hide(thread, cpu.into());
        for (id, what, cpu) in between {
            kernel.step(id.into(), what, cpu.into());
        }

        let mut meanwhile = Meanwhile { events: during.iter() };
        let suspects = scan(&mut kernel, Rule::Whole, &mut meanwhile);
        prop_assert_eq!(suspects, vec![Suspect { origin: victim as u32, unlisted }]);
    }
}

/// Runs `rule` over random events until it finds somebody honest.
fn is_too_weak(rule: Rule) {
    let mut runner = TestRunner::deterministic();

    for tries in 0..20_000 {
        let tree = events().new_tree(&mut runner).unwrap();
        if !honest(rule, &tree.current()).is_empty() {
            println!("{rule:?}: somebody honest found in run {tries}");
            return;
        }
    }
    panic!("{rule:?} was not told from the whole rule: the model is too weak");
}

use proptest::strategy::ValueTree;

#[test]
fn the_exit_state_must_be_read_again() {
    is_too_weak(Rule::NoExitState);
}

#[test]
fn the_run_queues_must_come_first() {
    is_too_weak(Rule::WalkFirst);
}

#[test]
fn the_leader_does_not_stand_for_the_process() {
    is_too_weak(Rule::KeyedOnLeader);
}

#[test]
fn an_idle_task_is_excused_on_its_own_cpu_only() {
    let mut entries = [Entry::new(1, 10, true, 0), Entry::new(1, 10, false, 1)];
    let mut found = Vec::new();

    Search::new(&mut entries).finish(|_| false, |suspect| found.push(suspect.origin));
    assert_eq!(found, [1]);
    assert!(entries[0].is_suspected() && !entries[1].is_suspected());
}

#[test]
fn a_task_with_several_entries_is_found_once() {
    let mut entries = [3, 1, 2].map(|origin| Entry::new(1, 10, false, origin));
    let mut found = Vec::new();

    let mut search = Search::new(&mut entries);
    assert!(search.process(1));
    assert!(!search.process(2));
    search.finish(|_| false, |suspect| found.push(suspect));
    assert_eq!(
        found,
        [Suspect {
            origin: 1,
            unlisted: Unlisted::Thread
        }]
    );
}
