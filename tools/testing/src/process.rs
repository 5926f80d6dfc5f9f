// SPDX-License-Identifier: GPL-2.0

//! Child processes that never outlive their purpose.
//!
//! Each belongs to a [`Group`], one per test. A group is stopped when its time is over or when a person interrupts the program;
//! whoever waits for one of its processes then sees the process end, so that no wait needs a time limit for this alone.

use anyhow::{
    bail,
    Context,
    Result, //
};
use std::{
    process::{
        Child,
        Command,
        ExitStatus, //
    },
    sync::{
        Arc,
        Mutex,
        MutexGuard,
        PoisonError,
        Weak, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// All groups, for [`interrupt`].
static GROUPS: Mutex<Vec<Weak<Mutex<State>>>> = Mutex::new(Vec::new());
/// Whether the program is being interrupted: no group starts anything any more.
static INTERRUPTED: Mutex<bool> = Mutex::new(false);

/// Processes that are stopped together.
#[derive(Clone)]
pub struct Group(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    stopped: Option<String>,
    children: Vec<Arc<Mutex<Child>>>,
}

/// A process that is killed when this is dropped.
pub struct Process(Arc<Mutex<Child>>);

/// A thread that panicked while it held a lock left nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    /// A group without processes.
    pub fn new() -> Self {
        let state = Arc::new(Mutex::new(State::default()));

        let mut groups = lock(&GROUPS);
        groups.retain(|group| group.strong_count() > 0);
        groups.push(Arc::downgrade(&state));
        Group(state)
    }

    /// Starts a process in the group.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        let mut state = lock(&self.0);

        // Taken for as long as the process is not in the list, so that `interrupt` either sees it or prevents it.
        let interrupted = lock(&INTERRUPTED);
        if *interrupted {
            bail!("interrupted");
        }
        if let Some(reason) = &state.stopped {
            bail!("{reason}");
        }
        let child = command
            .spawn()
            .with_context(|| command.get_program().to_string_lossy().into_owned())?;
        let child = Arc::new(Mutex::new(child));
        state.children.push(child.clone());
        Ok(Process(child))
    }

    /// Kills all processes of the group and lets no more be started.
    pub fn stop(&self, reason: &str) {
        let mut state = lock(&self.0);

        state.stopped.get_or_insert_with(|| reason.to_owned());
        for child in state.children.drain(..) {
            kill(&child);
        }
    }

    /// Why the group was stopped, if it was.
    pub fn stopped(&self) -> Option<String> {
        lock(&self.0).stopped.clone()
    }
}

/// Stops all groups, for good.
pub fn interrupt() {
    *lock(&INTERRUPTED) = true;
    let groups: Vec<_> = lock(&GROUPS).iter().filter_map(Weak::upgrade).collect();

    for state in groups {
        Group(state).stop("interrupted");
    }
}

/// Whether [`interrupt`] was called.
pub fn interrupted() -> bool {
    *lock(&INTERRUPTED)
}

impl Process {
    /// The process's number.
    pub fn id(&self) -> u32 {
        lock(&self.0).id()
    }

    /// How the process ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        lock(&self.0).try_wait().ok().flatten()
    }

    /// Waits until the process ends by itself.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();

        // The lock must not be held while waiting, or the process could not be killed.
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("still running after {} s", limit.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill(&self.0);
    }
}

/// Kills a process that may have ended already, and waits for it: by then neither call can fail for a reason that matters.
fn kill(child: &Mutex<Child>) {
    let mut child = lock(child);

    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleep() -> Command {
        let mut command = Command::new("sleep");
        command.arg("1000");
        command
    }

    #[test]
    fn a_stopped_group_has_no_process_and_starts_none() -> Result<()> {
        let group = Group::new();
        let process = group.spawn(&mut sleep())?;
        assert!(process.ended().is_none());

        group.stop("over");
        assert!(process.ended().is_some());
        assert!(group.spawn(&mut sleep()).is_err());
        assert_eq!(group.stopped().as_deref(), Some("over"));
        Ok(())
    }

    #[test]
    fn a_process_ends_with_its_handle() -> Result<()> {
        let group = Group::new();
        let process = group.spawn(&mut sleep())?;
        let path = format!("/proc/{}", process.id());

        drop(process);
        assert!(!std::path::Path::new(&path).exists());
        Ok(())
    }
}
