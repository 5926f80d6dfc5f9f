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
        let arguments = [
            "timeout",
            "-s",
            "KILL",
            &seconds.to_string(),
            "sh",
            "-c",
            command,
        ];
        let started = self.execute(&qga::guest_exec {
            path: "/bin/busybox".to_owned(),
            arg: Some(arguments.map(str::to_owned).to_vec()),
            env: Some(vec![
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
                "HOME=/root".to_owned(),
            ]),
            input_data: None,
            capture_output: Some(qga::GuestExecCaptureOutput::flag(true)),
        })?;
        let mut pause = Duration::from_millis(2);

        let status = loop {
            let status = self.execute(&qga::guest_exec_status { pid: started.pid })?;
            if status.exited {
                break status;
            }
            // A command that leaves a process behind with its output open is not over for the agent.
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
            stdout: text(status.out_data),
            stderr: text(status.err_data),
        })
    }

    fn execute<C: Command>(&mut self, command: &C) -> Result<C::Ok> {
        self.0
            .execute(command)
            .with_context(|| format!("agent: {}", C::NAME))
    }
}

fn text(data: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&data.unwrap_or_default()).into_owned()
}
