// SPDX-License-Identifier: GPL-2.0

//! Live migration of a guest, from its QEMU to a new one on this machine.

use super::{
    agent::{
        self,
        Agent, //
    },
    is_up,
    Guest,
    Lab,
    BOOT, //
};
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

/// How long the state may be under way.
const MOVE: Duration = Duration::from_secs(60);

impl Guest {
    /// Moves the guest while it runs. Its tap interface, if it has one, is called `tap` there and is in the same namespace; the old
    /// QEMU has ended when this returns.
    pub fn migrate(&mut self, lab: &Lab, tap: &str) -> Result<()> {
        let spec = self.spec.incoming(self.process.id(), tap);
        let directory = tempfile::tempdir_in(lab.image.directory())?;
        let errors = directory.path().join("stderr");
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
        self.wait_for("the migration", MOVE, |guest| {
            up()?;
            let info = guest.qmp(qmp::query_migrate {})?;
            match info.status {
                Some(MigrationStatus::completed) => Ok(Some(())),
                Some(MigrationStatus::failed | MigrationStatus::cancelled) => {
                    bail!("the migration has failed: {info:?}")
                }
                _ => Ok(None),
            }
        })?;

        // The old connection to the agent has ended with what was under way on it.
        let channel = agent::connect(&directory.path().join("agent"), lab.slow, up)?;
        let agent = Agent::new(channel, BOOT * lab.slow)?;
        self.qmp = qmp;
        self.agent = agent;
        drop(mem::replace(&mut self.process, process));
        self._directory = directory;
        Ok(())
    }
}
