// SPDX-License-Identifier: GPL-2.0

//! Suspend to disk: a guest writes itself to its disk and is off, and a new QEMU finds it there.

use super::{
    agent,
    is_up,
    Guest,
    Lab,
    ERRORS, //
};
use anyhow::{
    Context,
    Result, //
};
use qapi::Qmp;
use std::{
    fs::File,
    time::Duration, //
};

/// How long a guest may take to write itself.
const WRITE: Duration = Duration::from_secs(120);

impl Guest {
    /// Waits until the guest has gone to its disk, and starts a QEMU with the same machine, which reads it. The agent, which does not
    /// survive that, has been [left alone](Self::leave_alone).
    pub fn wake_from_disk(&mut self, lab: &Lab) -> Result<()> {
        self.process
            .wait(WRITE * self.slow)
            .context("the guest does not go to its disk")?;

        let errors = self.directory.path().join(ERRORS);
        let sockets = self.directory.path();
        let mut command = self
            .spec
            .clone()
            .again()
            .driven(&lab.image, &lab.log, sockets);
        let process = lab.group.spawn(command.stderr(File::create(&errors)?))?;
        let up = || is_up("QEMU", &process, &errors);
        let mut qmp = Qmp::new(agent::connect(&sockets.join("qmp"), lab.slow, up)?);
        qmp.handshake().context("QMP of the second QEMU")?;

        self.qmp = qmp;
        self.process = process;
        Ok(())
    }
}
