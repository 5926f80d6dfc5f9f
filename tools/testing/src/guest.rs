// SPDX-License-Identifier: GPL-2.0

//! A running guest: QEMU, its monitor, and the agent inside.

mod agent;
mod archive;
mod hibernation;
mod image;
mod migration;
mod modules;
mod qemu;
mod ring;

pub use agent::Output;
pub use image::Image;
pub use qemu::Spec;
pub use ring::Chain;

use crate::{
    env::Environment,
    process::{
        Group,
        Process, //
    }, //
};
use agent::Agent;
use anyhow::{
    anyhow,
    bail,
    ensure,
    Context,
    Result, //
};
use qapi::{
    qmp::{
        self,
        QmpCommand, //
    },
    Qmp, //
};
use std::{
    fs::{
        self,
        File, //
    },
    path::{
        Path,
        PathBuf, //
    },
    process::Command,
    sync::{
        Arc,
        Mutex,
        MutexGuard, //
    },
    thread::{
        self,
        JoinHandle, //
    },
    time::{
        Duration,
        Instant, //
    },
};
use tempfile::TempDir;
use tenon_device::{
    balloon::Balloon,
    net::Net,
    server, //
};

/// How long a guest may take until its agent answers.
const BOOT: Duration = Duration::from_secs(90);
/// How often a guest is started at most.
const BOOTS: u32 = 3;
/// How long a command in a guest may take when the test does not say.
const COMMAND: Duration = Duration::from_secs(30);
/// Where what QEMU says goes, in the directory of the sockets.
const ERRORS: &str = "stderr";
/// Written to the kernel's log last: whatever the guest reported before is in the console log when this is.
const END: &str = "tenon: end of test";

/// What the kernel says when the emulator executes a breakpoint that was taken away again: see [`Spec::in_turn`].
pub const STALE: &str = "Oops: int3";

/// What the kernel says when it starts the first process.
const INIT: &str = "Run /init as init process";

/// What a test works with besides its guest.
pub struct Lab {
    /// The kernel under test.
    pub env: Environment,
    /// What guests boot.
    pub image: Arc<Image>,
    /// All processes of the test.
    pub group: Group,
    /// How many times slower than the stock kernel this one is.
    pub slow: u32,
    /// Whether the kernel has KASAN, kmemleak and the like.
    pub sanitizer: bool,
    /// The console log of the guest.
    pub log: PathBuf,
}

impl Lab {
    /// Returns one whose guests find `files` in their image: each a file of this machine, and where it is there.
    pub fn with_image(&self, files: &[(PathBuf, String)]) -> Result<Self> {
        Ok(Lab {
            env: self.env.clone(),
            image: Arc::new(Image::build(&self.env, files)?),
            group: Group::new(),
            log: self.log.clone(),
            ..*self
        })
    }

    /// Runs a command of this machine, whose output becomes the test's log, and returns whether it succeeded and the output.
    pub fn run(&self, command: &mut Command, limit: Duration) -> Result<(bool, String)> {
        let output = File::create(&self.log)?;
        command.stdout(output.try_clone()?).stderr(output);

        let status = self.group.spawn(command)?.wait(limit)?;
        let text = fs::read_to_string(&self.log).context("the output of the command")?;
        Ok((status.success(), text))
    }
}

/// Fails with what a program has written to the file `errors` when it has ended.
fn is_up(name: &str, process: &Process, errors: &Path) -> Result<()> {
    match process.ended() {
        None => Ok(()),
        Some(status) => {
            let errors = fs::read_to_string(errors).unwrap_or_default();
            bail!("{name} ended ({status}) {}", errors.trim())
        }
    }
}

/// A guest that is up.
pub struct Guest {
    spec: Spec,
    slow: u32,
    sanitizer: bool,
    agent_is_away: bool,
    log: PathBuf,
    qmp: Qmp<agent::Channel>,
    agent: Agent,
    process: Process,
    card: Option<Arc<Mutex<Net>>>,
    balloon: Option<Arc<Mutex<Balloon>>>,
    _beside: Vec<Process>,
    // Holds the sockets; removed last.
    directory: TempDir,
}

impl Guest {
    /// Starts a guest and waits until it is up.
    ///
    /// Now and then (one of a hundred or two, and more on a busy machine) an emulated boot stands still where the kernel stops
    /// all CPUs to change its clock, long before anything of ours. Such a guest is started again, up to [`BOOTS`] times in all.
    pub fn boot(lab: &Lab, spec: &Spec) -> Result<Self> {
        for _ in 1..BOOTS {
            let error = match Self::boot_once(lab, spec) {
                Ok(guest) => return Ok(guest),
                Err(error) => error,
            };
            let log = fs::read(&lab.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let last = log.lines().last().unwrap_or_default();

            let is_reported = crate::check::first_report(&log).is_some() && !log.contains(STALE);

            if log.is_empty() || log.contains(INIT) || is_reported || lab.group.stopped().is_some()
            {
                return Err(error);
            }
            println!("note  the kernel stopped after `{last}` and is booted once more");
        }
        Self::boot_once(lab, spec)
    }

    fn boot_once(lab: &Lab, spec: &Spec) -> Result<Self> {
        // identify_cpu() forgets for a moment that the page table has five levels, and KASAN with it what is memory: an
        // interrupt just then is reported. Without the fifth level there is nothing to forget.
        let spec = if lab.sanitizer {
            spec.clone().append("no5lvl")
        } else {
            spec.clone()
        };
        let directory = tempfile::tempdir_in(lab.image.directory())?;
        let errors = directory.path().join(ERRORS);
        let card = spec
            .own_card()
            .map(|card| server::serve(card.build(), &Spec::card_socket(directory.path())))
            .transpose()
            .context("the card")?;
        let balloon = spec
            .own_balloon()
            .map(|balloon| server::serve(balloon.clone(), &Spec::balloon_socket(directory.path())))
            .transpose()
            .context("the balloon")?;
        let said = directory.path().join("beside");
        let beside = spec
            .companions(&lab.env.top, directory.path())
            .iter_mut()
            .map(|command| {
                let output = File::options().create(true).append(true).open(&said)?;
                lab.group
                    .spawn(command.stdout(output.try_clone()?).stderr(output))
            })
            .collect::<Result<Vec<_>>>()?;
        let beside_is_up = || {
            beside
                .iter()
                .try_for_each(|program| is_up("the program beside QEMU", program, &said))
        };
        let start = Instant::now();
        while !spec
            .crates()
            .all(|(_, socket)| directory.path().join(socket).exists())
        {
            beside_is_up()?;
            ensure!(
                start.elapsed() < BOOT * lab.slow,
                "the program beside QEMU does not wait for it"
            );
            thread::sleep(Duration::from_millis(50));
        }
        spec.make_disk(directory.path()).context("the disk")?;
        let mut command = spec.driven(&lab.image, &lab.log, directory.path());
        let process = lab.group.spawn(command.stderr(File::create(&errors)?))?;
        let up = || {
            is_up("QEMU", &process, &errors)?;
            beside_is_up()
        };

        let connected = || -> Result<_> {
            let mut qmp = Qmp::new(agent::connect(&directory.path().join("qmp"), lab.slow, up)?);
            qmp.handshake().context("QMP")?;
            let channel = agent::connect(&directory.path().join("agent"), lab.slow, up)?;
            Ok((qmp, Agent::new(channel, BOOT * lab.slow)?))
        };
        // A guest that went down is the better explanation than that it does not answer.
        let (qmp, agent) = connected()
            .map_err(|error| {
                // The process takes a moment to be gone after its sockets.
                let _ = process.wait(Duration::from_millis(500));
                up().err().unwrap_or(error)
            })
            .context("the guest does not come up")?;

        Ok(Guest {
            spec,
            slow: lab.slow,
            sanitizer: lab.sanitizer,
            agent_is_away: false,
            log: lab.log.clone(),
            qmp,
            agent,
            process,
            card,
            balloon,
            _beside: beside,
            directory,
        })
    }

    /// Runs a shell command, whatever its exit status.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_for(COMMAND, command)
    }

    /// Runs a shell command that may take longer than usual, whatever its exit status.
    ///
    /// A process that the command leaves behind must not hold on to its output.
    pub fn run_for(&mut self, limit: Duration, command: &str) -> Result<Output> {
        self.agent
            .run(command, limit * self.slow)
            .map_err(|error| self.explain(error))
    }

    /// The standard output, without the last line end, of a shell command that must succeed.
    pub fn sh(&mut self, command: &str) -> Result<String> {
        self.sh_for(COMMAND, command)
    }

    /// As [`Guest::sh`], for a command that may take longer.
    pub fn sh_for(&mut self, limit: Duration, command: &str) -> Result<String> {
        let output = self.run_for(limit, command)?;

        ensure!(
            output.status == 0,
            "`{command}` failed with {}: {}{}",
            output.status,
            output.stdout,
            output.stderr
        );
        Ok(output.stdout.trim_end().to_owned())
    }

    /// A number that a command in the guest prints.
    pub fn number(&mut self, command: &str) -> Result<u64> {
        let text = self.sh(command)?;

        text.trim()
            .parse()
            .with_context(|| format!("`{command}` printed {text:?}"))
    }

    /// Executes a command of QEMU's monitor.
    pub fn qmp<C: QmpCommand>(&mut self, command: C) -> Result<C::Ok> {
        self.qmp
            .execute(&command)
            .with_context(|| format!("QMP: {}", C::NAME))
            .map_err(|error| self.explain(error))
    }

    /// Executes a command as QEMU's monitor for people takes it, and returns what it says: nothing, of most that succeed.
    pub fn monitor(&mut self, command: &str) -> Result<String> {
        self.qmp(qmp::human_monitor_command {
            cpu_index: None,
            command_line: command.to_owned(),
        })
    }

    /// Repeats `attempt` until it gives a value. Fails with `what` when that takes too long.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut attempt: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let start = Instant::now();

        loop {
            if let Some(value) = attempt(self)? {
                return Ok(value);
            }
            ensure!(
                start.elapsed() < limit * self.slow,
                "{what}: not within {} s",
                (limit * self.slow).as_secs()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Loads a module that came with the kernel.
    pub fn modprobe(&mut self, module: &str) -> Result<()> {
        self.sh(&format!("modprobe {module}")).map(drop)
    }

    /// Loads one of the modules under test.
    pub fn insmod(&mut self, module: &str, parameters: &str) -> Result<()> {
        self.sh(&format!(
            "test -e /modules/{module}.ko || {{ echo {module}.ko is not built >&2; exit 1; }}; \
             insmod /modules/{module}.ko {parameters}"
        ))
        .map(drop)
    }

    /// Starts a script on whose account the agent cannot be reached any more: its port does not survive a suspend. The script
    /// speaks by `/dev/kmsg`, and says so when it has succeeded.
    pub fn leave_alone(&mut self, script: &str) -> Result<()> {
        self.sh(&format!(
            "(sleep 1; {script} && echo '{END}' >/dev/kmsg) >/dev/null 2>&1 </dev/null &"
        ))?;
        self.agent_is_away = true;
        Ok(())
    }

    /// What the machine was asked to be.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Memory of the guest that the host holds, in bytes.
    pub fn resident(&self) -> Result<u64> {
        self.memory("status", "RssAnon:")
    }

    /// How much of it is on huge pages that the host has made by itself.
    pub fn huge(&self) -> Result<u64> {
        self.memory("smaps_rollup", "AnonHugePages:")
    }

    /// How much of it the host has merged with like pages, and holds once.
    pub fn merged(&self) -> Result<u64> {
        let path = format!("/proc/{}/ksm_merging_pages", self.process.id());
        let text = fs::read_to_string(&path).context(path)?;

        Ok(text.trim().parse::<u64>()? * 4096)
    }

    /// The number of QEMU's process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A line of a file that the host has about QEMU, in bytes.
    fn memory(&self, file: &str, key: &str) -> Result<u64> {
        let path = format!("/proc/{}/{file}", self.process.id());
        let text = fs::read_to_string(&path).context(path)?;

        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.trim().strip_suffix("kB"))
            .and_then(|number| number.trim().parse::<u64>().ok())
            .map(|kibibytes| kibibytes << 10)
            .with_context(|| format!("no {key} of QEMU"))
    }

    /// The console log so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Waits until everything that the kernel reported is in the console log, and returns that.
    pub fn finish(&mut self) -> Result<String> {
        if !self.agent_is_away {
            if self.sanitizer {
                self.look_for_leaks()?;
            }
            self.sh(&format!("echo '{END}' >/dev/kmsg"))?;
        }
        self.wait_for("the end of the console log", COMMAND, |guest| {
            let log = guest.log();
            Ok(log.contains(END).then_some(log))
        })
    }

    /// Shuts the guest down, and returns its log.
    pub fn power_off(&mut self) -> Result<String> {
        let log = self.finish()?;

        // Nothing can be asked of it any more.
        self.agent_is_away = true;
        // The first process of the small guests is a shell, which does not do it.
        self.sh(
            "(sleep 1; if test -d /run/systemd/system; then poweroff; else sync; poweroff -f; fi) \
             >/dev/null 2>&1 &",
        )?;
        self.process
            .wait(COMMAND * self.slow)
            .context("the guest does not shut down")?;
        Ok(log)
    }

    /// Lets kmemleak scan. It reports to the kernel's log, and only what has been unreachable for some seconds.
    ///
    /// Fails when kmemleak or lockdep has turned itself off, as both do when they run out of memory: a log without reports
    /// means nothing then.
    fn look_for_leaks(&mut self) -> Result<()> {
        // A line at a time: the kernel's log takes no long ones.
        self.sh_for(
            Duration::from_secs(60),
            "grep -Eq '^ debug_locks: +1$' /proc/lockdep_stats || \
             { echo lockdep has turned itself off >&2; exit 1; }; sleep 6; \
             for i in 1 2; do echo scan >/sys/kernel/debug/kmemleak || exit; done; \
             while IFS= read -r line; do echo \"$line\" >/dev/kmsg; done </sys/kernel/debug/kmemleak",
        )
        .map(drop)
    }

    /// An error with what the guest says about it, if it went away meanwhile.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        // The process takes a moment to be gone after its sockets.
        let Ok(status) = self.process.wait(Duration::from_secs(3)) else {
            return error;
        };
        let log = self.log();
        let errors = self.directory.path().join(ERRORS);
        let errors = fs::read_to_string(errors).unwrap_or_default();
        let last = crate::check::first_report(&log)
            .or_else(|| errors.lines().last())
            .or_else(|| log.lines().last())
            .unwrap_or_default();
        error.context(format!(
            "the guest went down (QEMU: {status}): {}",
            last.trim()
        ))
    }

    /// A socket of QEMU's that was named `SOCKETS/name` in its arguments.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The other end of a card that [`Spec::tap`] has made.
    pub fn outside(&self) -> Outside {
        Outside {
            namespace: format!("--net=/proc/{}/ns/net", self.process.id()),
            slow: self.slow,
        }
    }

    /// The network card of our own, as it is now. It stands still as long as the value lives.
    pub fn card(&self) -> Result<MutexGuard<'_, Net>> {
        let card = self
            .card
            .as_ref()
            .context("the guest has no card of ours")?;

        card.lock().map_err(|_| anyhow!("the card has panicked"))
    }

    /// The same of the balloon of our own.
    pub fn balloon(&self) -> Result<MutexGuard<'_, Balloon>> {
        let balloon = self
            .balloon
            .as_ref()
            .context("the guest has no balloon of ours")?;

        balloon
            .lock()
            .map_err(|_| anyhow!("the balloon has panicked"))
    }

    /// Path of a device of the guest in QEMU's object tree, from its id.
    pub fn qom_path(id: &str) -> String {
        format!("/machine/peripheral/{id}")
    }

    /// A property of a device.
    pub fn qom_get(&mut self, id: &str, property: &str) -> Result<serde_json::Value> {
        self.qmp(qmp::qom_get {
            path: Self::qom_path(id),
            property: property.to_owned(),
        })
    }

    /// Sets a property of a device.
    pub fn qom_set(&mut self, id: &str, property: &str, value: serde_json::Value) -> Result<()> {
        self.qmp(qmp::qom_set {
            path: Self::qom_path(id),
            property: property.to_owned(),
            value,
        })
        .map(drop)
    }
}

/// This machine, in the network namespace of a guest.
pub struct Outside {
    namespace: String,
    slow: u32,
}

impl Outside {
    /// What the arguments are a command of, which then runs there.
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");

        command.arg(&self.namespace);
        command
    }

    /// Begins what [`sh`](Self::sh) does, to be [finished](Background::finish) later.
    pub fn start(self, limit: Duration, command: String) -> Background {
        Background(thread::spawn(move || self.sh(limit, &command)))
    }

    /// The standard output, without the last line end, of a shell command that must succeed, and within `limit`.
    pub fn sh(&self, limit: Duration, command: &str) -> Result<String> {
        let limit = limit * self.slow;
        let output = self
            .command()
            .args(["timeout", "-s", "KILL", &limit.as_secs().to_string()])
            .args(["bash", "-c", command])
            .output()
            .context("nsenter")?;

        ensure!(
            output.status.success(),
            "outside, `{command}` failed with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }
}

/// A command that runs meanwhile.
pub struct Background(JoinHandle<Result<String>>);

impl Background {
    /// Waits for its end, and returns its standard output.
    pub fn finish(self) -> Result<String> {
        self.0
            .join()
            .map_err(|_| anyhow!("the thread of a command outside panicked"))?
    }
}
