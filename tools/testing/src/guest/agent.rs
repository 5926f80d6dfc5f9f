// SPDX-License-Identifier: GPL-2.0

//! Runs commands in a guest through the QEMU guest agent.

use anyhow::{
    bail,
    Context,
    Result, //
};
use qapi::{
    qga,
    Command,
    Qga,
    Stream, //
};
use std::{
    io::{
        BufReader,
        BufWriter, //
    },
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// A blocking connection to a socket of QEMU.
pub type Channel = Stream<BufReader<UnixStream>, BufWriter<UnixStream>>;

/// How long an answer of QEMU or of the agent may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Where a command in the guest leaves its output, and its errors.
///
/// The agent could hand them over by itself. But when the last writer of a pipe writes and goes at once, `poll` may say that it has
/// gone and not that there is something to read (`pipe_poll` in `fs/pipe.c` takes no lock; 67 of 4.8 million pipes on an idle
/// machine), and the agent then throws that away (`guest_exec_output_watch` in QEMU's `qga/commands.c`).
const STDOUT: &str = "/run/agent.stdout";
const STDERR: &str = "/run/agent.stderr";

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// Exit status; 128 plus the signal for a command that was killed.
    pub status: i64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Connects to a socket that QEMU is about to create, and gives up when `alive` fails.
pub fn connect(path: &Path, slow: u32, mut alive: impl FnMut() -> Result<()>) -> Result<Channel> {
    let stream = loop {
        match UnixStream::connect(path) {
            Ok(stream) => break stream,
            Err(_) => alive()?,
        }
        thread::sleep(Duration::from_millis(10));
    };

    stream.set_read_timeout(Some(ANSWER * slow))?;
    stream.set_write_timeout(Some(ANSWER * slow))?;
    Ok(Stream::new(
        BufReader::new(stream.try_clone()?),
        BufWriter::new(stream),
    ))
}

/// The agent of one guest.
pub struct Agent(Qga<Channel>);

impl Agent {
    /// Waits until the agent answers: the guest is up then.
    pub fn new(channel: Channel, boot: Duration) -> Result<Self> {
        let answer = channel.get_ref_read().get_ref().read_timeout()?;
        let mut qga = Qga::new(channel);

        // The request waits in QEMU until the agent opens its end.
        qga.inner()
            .get_ref_read()
            .get_ref()
            .set_read_timeout(Some(boot))?;
        qga.guest_sync(1).context("the agent does not answer")?;
        qga.inner()
            .get_ref_read()
            .get_ref()
            .set_read_timeout(answer)?;
        Ok(Agent(qga))
    }

    /// Runs a shell command, which is killed after `limit`.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Output> {
        let start = Instant::now();
        let seconds = limit.as_secs().max(1);
        let script = format!("exec >{STDOUT} 2>{STDERR}\n{command}");
        let arguments = [
            "timeout",
            "-s",
            "KILL",
            &seconds.to_string(),
            "sh",
            "-c",
            &script,
        ];
        let started = self.execute(&qga::guest_exec {
            path: "/bin/busybox".to_owned(),
            arg: Some(arguments.map(str::to_owned).to_vec()),
            env: Some(vec![
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
                "HOME=/root".to_owned(),
            ]),
            input_data: None,
            capture_output: None,
        })?;
        let mut pause = Duration::from_millis(2);

        let status = loop {
            let status = self.execute(&qga::guest_exec_status { pid: started.pid })?;
            if status.exited {
                break status;
            }
            if start.elapsed() > limit + ANSWER {
                bail!(
                    "`{command}` is not over after {} s",
                    start.elapsed().as_secs()
                );
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        let status_code = match (status.exitcode, status.signal) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => bail!("the agent does not say how `{command}` ended"),
        };
        if status_code == 128 + 9 && start.elapsed() >= limit {
            bail!("`{command}` took longer than {seconds} s");
        }

        Ok(Output {
            status: status_code,
            stdout: self.file(STDOUT)?,
            stderr: self.file(STDERR)?,
        })
    }

    /// What a file of the guest contains.
    fn file(&mut self, path: &str) -> Result<String> {
        const AT_ONCE: i64 = 1 << 20;

        let handle = self.execute(&qga::guest_file_open {
            path: path.to_owned(),
            mode: None,
        })?;
        let mut bytes = Vec::new();
        loop {
            let read = self.execute(&qga::guest_file_read {
                handle,
                count: Some(AT_ONCE),
            })?;
            bytes.extend(read.buf_b64);
            if read.eof {
                break;
            }
        }
        self.execute(&qga::guest_file_close { handle })?;

        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn execute<C: Command>(&mut self, command: &C) -> Result<C::Ok> {
        self.0
            .execute(command)
            .with_context(|| format!("agent: {}", C::NAME))
    }
}
