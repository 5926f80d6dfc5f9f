// SPDX-License-Identifier: GPL-2.0

//! All that can happen in a small kernel: each order of the steps of a scan and of a few tasks, none left out.
//!
//! A state is the kernel and how far the scan has come. Each step of the kernel and the next one of the scan lead from it to others. Those
//! that have been there are known by their hashes: of some 35,000, two have the same once in ten thousand million times.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::decide::{Entry, Search, Suspect};
use super::{Id, Kernel, Life, Rule, CPUS};

/// Between which steps a scan is.
#[derive(Clone, Copy, Hash)]
enum Stage {
    /// Run queues are copied, this one next.
    Copy(usize),
    /// The processes are walked, and that after this one is next.
    Processes(Option<Id>),
    /// The threads of the process of the first are walked, and that after the second is next.
    Threads(Id, Option<Id>),
    /// Nothing is left but to ask who has exited.
    Ask,
}

/// A scan under way: the same steps as `super::scan` has.
#[derive(Clone, Hash)]
struct Scan {
    rule: Rule,
    stage: Stage,
    /// Process, task, and whether it idles.
    entries: BTreeSet<(usize, Id, bool)>,
    /// Processes, and tasks of them.
    met: BTreeSet<(usize, Option<Id>)>,
}

impl Scan {
    fn new(rule: Rule) -> Self {
        Scan {
            rule,
            stage: match rule {
                Rule::WalkFirst => Stage::Processes(None),
                _ => Stage::Copy(0),
            },
            entries: BTreeSet::new(),
            met: BTreeSet::new(),
        }
    }

    fn key(&self, kernel: &Kernel, task: Id) -> usize {
        match self.rule {
            Rule::KeyedOnLeader => kernel.tasks[task].leader,
            _ => kernel.tasks[task].process,
        }
    }

    /// Notes what the walk has met, if an entry needs it. Returns whether one does.
    fn note(&mut self, process: usize, task: Option<Id>) -> bool {
        let wanted = self.rule == Rule::WalkFirst
            || self
                .entries
                .iter()
                .any(|entry| entry.0 == process && task.is_none_or(|task| task == entry.1));
        if wanted {
            self.met.insert((process, task));
        }
        wanted
    }

    /// Does the next step.
    fn step(&mut self, kernel: &Kernel) {
        let first = self.rule == Rule::WalkFirst;

        self.stage = match self.stage {
            Stage::Copy(cpu) => {
                for (id, _) in kernel.run_queue(cpu) {
                    self.entries.insert((self.key(kernel, id), id, id == cpu));
                }
                match cpu + 1 {
                    CPUS if first => Stage::Ask,
                    CPUS => Stage::Processes(None),
                    next => Stage::Copy(next),
                }
            }
            Stage::Processes(at) => match kernel.processes.after(at) {
                Some(id) => {
                    let process = match self.rule {
                        Rule::KeyedOnLeader => id,
                        _ => kernel.tasks[id].process,
                    };
                    if self.note(process, None) {
                        Stage::Threads(id, None)
                    } else {
                        Stage::Processes(Some(id))
                    }
                }
                None if first => Stage::Copy(0),
                None => Stage::Ask,
            },
            Stage::Threads(leader, at) => {
                let process = kernel.tasks[leader].process;
                match kernel.threads[process].after(at) {
                    Some(id) => {
                        let key = match self.rule {
                            Rule::KeyedOnLeader => leader,
                            _ => process,
                        };
                        self.note(key, Some(id));
                        Stage::Threads(leader, Some(id))
                    }
                    None => Stage::Processes(Some(leader)),
                }
            }
            Stage::Ask => Stage::Ask,
        };
    }

    /// Asks the rule. Who has exited stays so: more would be excused if time went by between one question and the next.
    fn suspects(&self, kernel: &Kernel) -> Vec<Suspect> {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|&(process, task, idle)| Entry::new(process, task, idle, task as u32))
            .collect();
        let mut search = Search::new(&mut entries);
        for &(process, task) in &self.met {
            match task {
                None => drop(search.process(process)),
                Some(task) => search.thread(process, task),
            }
        }

        let mut suspects = Vec::new();
        search.finish(
            |id| {
                let life = kernel.tasks[id as usize].life;
                self.rule != Rule::NoExitState && matches!(life, Life::Exited | Life::Released)
            },
            |suspect| suspects.push(suspect),
        );
        suspects
    }

    /// Where the walk is in the list of processes, and in that of the threads of one.
    fn places(&self, kernel: &Kernel) -> (Option<Id>, Option<(usize, Id)>) {
        match self.stage {
            Stage::Processes(at) => (at, None),
            Stage::Threads(leader, at) => {
                let process = kernel.tasks[leader].process;
                (Some(leader), at.map(|at| (process, at)))
            }
            Stage::Copy(_) | Stage::Ask => (None, None),
        }
    }
}

/// A kernel, and a scan that may have begun.
#[derive(Clone, Hash)]
struct State {
    kernel: Kernel,
    scan: Scan,
}

impl State {
    /// Forgets the way on from what is off the lists and no walk can come to any more.
    fn settle(&mut self) {
        let (process, thread) = self.scan.places(&self.kernel);

        self.kernel.processes.forget(process);
        for (i, threads) in self.kernel.threads.iter_mut().enumerate() {
            threads.forget(thread.filter(|at| at.0 == i).map(|at| at.1));
        }
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

/// Calls `found` with what each possible scan ends with, until it returns true. Returns how many states there are, or [`None`] if it did.
fn every(kernel: Kernel, rule: Rule, mut found: impl FnMut(Vec<Suspect>) -> bool) -> Option<usize> {
    let mut known = HashSet::new();
    let mut open = vec![State {
        kernel,
        scan: Scan::new(rule),
    }];

    while let Some(state) = open.pop() {
        let mut reach = |mut state: State| {
            state.settle();
            if known.insert(state.hash()) {
                open.push(state);
            }
        };

        if matches!(state.scan.stage, Stage::Ask) {
            if found(state.scan.suspects(&state.kernel)) {
                return None;
            }
        } else {
            let mut next = state.clone();
            next.scan.step(&next.kernel);
            reach(next);
        }
        for id in 0..state.kernel.tasks.len() - CPUS {
            for what in 0..8 {
                let mut next = state.clone();
                next.kernel.step(id, what, 0);
                reach(next);
            }
        }
    }
    Some(known.len())
}

/// The first process and two tasks more: enough for a thread that takes the place of its leader.
fn small() -> Kernel {
    Kernel {
        most: CPUS + 3,
        ..Kernel::new()
    }
}

#[test]
fn nobody_honest_is_found() {
    let states = every(small(), Rule::Whole, |suspects| {
        assert_eq!(suspects, []);
        false
    });
    println!("{states:?} states");
    assert!(states.is_some_and(|states| states > 10_000));
}

/// From any state on, a process or a thread that has been taken off its list is found, and nobody else.
#[test]
fn somebody_hidden_is_found() {
    for thread in [false, true] {
        let mut kernel = small();
        let (victim, unlisted) = kernel.hide(thread, 0);
        let expected = Suspect {
            origin: victim as u32,
            unlisted,
        };

        kernel.most = kernel.tasks.len() + 1;
        every(kernel, Rule::Whole, |suspects| {
            assert_eq!(suspects, [expected]);
            false
        });
    }
}

#[test]
fn each_weaker_rule_finds_somebody_honest() {
    for rule in [Rule::NoExitState, Rule::WalkFirst, Rule::KeyedOnLeader] {
        let states = every(small(), rule, |suspects| !suspects.is_empty());
        assert_eq!(states, None, "{rule:?}");
    }
}
