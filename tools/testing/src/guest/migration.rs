// SPDX-License-Identifier: GPL-2.0

//! Live migration of a guest, from its QEMU to a new one on this machine.

use super::{
    agent::{
        self,
        Agent,
        Channel, //
    },
    is_up,
    Guest,
    Lab,
    BOOT,
    ERRORS, //
};
use crate::process::Process;
use anyhow::{
    bail,
    Context,
    Result, //
};
use qapi::{
    qmp::{
        self,
        MigrationStatus, //
    },
    Qmp, //
};
use std::{
    fs::File,
    mem,
    time::Duration, //
};
use tempfile::TempDir;

/// How long the state may be under way.
const MOVE: Duration = Duration::from_secs(60);

impl Guest {
    /// Moves the guest while it runs. Its tap interface, if it has one, is called `tap` there and is in the same namespace; the old
    /// QEMU has ended when this returns.
    pub fn migrate(&mut self, lab: &Lab, tap: &str) -> Result<()> {
        let spec = self.spec.incoming(self.process.id(), tap);
        let directory = tempfile::tempdir_in(lab.image.directory())?;
        let errors = directory.path().join(ERRORS);
        let mut command = spec.driven(&lab.image, &lab.log, directory.path());
        let process = lab.group.spawn(command.stderr(File::create(&errors)?))?;
        let up = || is_up("the destination", &process, &errors);

        let mut qmp = Qmp::new(agent::connect(&directory.path().join("qmp"), lab.slow, up)?);
        qmp.handshake().context("QMP of the destination")?;
        let uri = format!("unix:{}", directory.path().join("state").display());
        qmp.execute(&qmp::migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: Some(uri.clone()),
        })
        .context("QMP: migrate-incoming")?;
        self.qmp(qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some(uri),
        })?;
        self.sent(up)?;
        self.become_the_other(lab, directory, process, qmp)
    }

    /// Moves the guest through a file: its state is written while it runs, and read by a new QEMU after that. Returns how many bytes of
    /// memory were written; the guest is the one that was read, and the old QEMU has ended.
    pub fn migrate_by_file(&mut self, lab: &Lab) -> Result<u64> {
        let spec = self.spec.incoming(self.process.id(), "tap0");
        let directory = tempfile::tempdir_in(lab.image.directory())?;
        let uri = format!("file:{}", directory.path().join("state").display());
        self.qmp(qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some(uri.clone()),
        })?;
        let written = self.sent(|| Ok(()))?;

        let errors = directory.path().join(ERRORS);
        let mut command = spec.driven(&lab.image, &lab.log, directory.path());
        let process = lab.group.spawn(command.stderr(File::create(&errors)?))?;
        let up = || is_up("the destination", &process, &errors);
        let mut qmp = Qmp::new(agent::connect(&directory.path().join("qmp"), lab.slow, up)?);
        qmp.handshake().context("QMP of the destination")?;
        qmp.execute(&qmp::migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: Some(uri),
        })
        .context("QMP: migrate-incoming")?;
        self.become_the_other(lab, directory, process, qmp)?;
        self.wait_for("the state to be read", MOVE, |guest| {
            let status = guest.qmp(qmp::query_status {})?.status;
            Ok((status == qmp::RunState::running).then_some(()))
        })?;
        Ok(written)
    }

    /// Waits until the state has been sent. Returns how many bytes of memory that were.
    fn sent(&mut self, mut up: impl FnMut() -> Result<()>) -> Result<u64> {
        self.wait_for("the migration", MOVE, |guest| {
            up()?;
            let info = guest.qmp(qmp::query_migrate {})?;
            match info.status {
                Some(MigrationStatus::completed) => {
                    let sent = info.ram.map_or(0, |ram| ram.transferred);
                    Ok(Some(u64::try_from(sent)?))
                }
                Some(MigrationStatus::failed | MigrationStatus::cancelled) => {
                    bail!("the migration has failed: {info:?}")
                }
                _ => Ok(None),
            }
        })
    }

    /// Goes on with another QEMU, which has the guest now.
    fn become_the_other(
        &mut self,
        lab: &Lab,
        directory: TempDir,
        process: Process,
        qmp: Qmp<Channel>,
    ) -> Result<()> {
        let errors = directory.path().join(ERRORS);
        let up = || is_up("the destination", &process, &errors);

        // The old connection to the agent has ended with what was under way on it.
        let channel = agent::connect(&directory.path().join("agent"), lab.slow, up)?;
        let agent = Agent::new(channel, BOOT * lab.slow)?;
        self.qmp = qmp;
        self.agent = agent;
        drop(mem::replace(&mut self.process, process));
        self.directory = directory;
        Ok(())
    }
}
