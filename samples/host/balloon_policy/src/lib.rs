// SPDX-License-Identifier: GPL-2.0

//! Shares memory between guests: whoever has too little gets what others can spare. A sample of what a host does with the balloon, to
//! start from; what it decides is in [`policy`].
//!
//! Each guest is a QEMU with a monitor of its own for this (`-qmp unix:PATH,server=on,wait=off`) and a balloon
//! (`-device virtio-balloon-pci,id=balloon0`).

pub mod policy;

use anyhow::{
    Context,
    Result, //
};
use policy::Host;
use qapi::{
    qmp,
    Qmp,
    Stream, //
};
use std::{
    io::{
        BufReader,
        BufWriter, //
    },
    os::unix::net::UnixStream,
    path::Path,
    time::Duration, //
};

/// How long a monitor may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The guests of a host.
pub struct Guests {
    host: Host,
    monitors: Vec<Monitor>,
}

impl Guests {
    /// Connects to the monitor of each guest, whose balloon has the id `id`, and has QEMU ask the guests for their figures each
    /// second.
    pub fn open(host: Host, paths: &[impl AsRef<Path>], id: &str) -> Result<Self> {
        let monitors = paths
            .iter()
            .map(AsRef::as_ref)
            .map(|path| Monitor::open(path, id).with_context(|| path.display().to_string()))
            .collect::<Result<_>>()?;

        Ok(Guests { host, monitors })
    }

    /// Looks at all guests, and asks them for the sizes that they are to have now. Returns what was seen, with these sizes as
    /// targets.
    pub fn share(&mut self) -> Result<Vec<policy::Guest>> {
        let mut guests = self
            .monitors
            .iter_mut()
            .map(Monitor::look)
            .collect::<Result<Vec<_>>>()?;
        let targets = self.host.share(&guests);

        for ((monitor, guest), target) in self.monitors.iter_mut().zip(&mut guests).zip(targets) {
            monitor.ask(target)?;
            guest.target = target;
        }
        Ok(guests)
    }
}

/// A guest's monitor.
struct Monitor {
    qmp: Qmp<Stream<BufReader<UnixStream>, BufWriter<UnixStream>>>,
    balloon: String,
    most: u64,
    target: u64,
    /// When the last figures were sent, and how much had been read from swap by then.
    last: (u64, Option<u64>),
}

impl Monitor {
    fn open(path: &Path, id: &str) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut qmp = Qmp::new(Stream::new(
            BufReader::new(stream.try_clone()?),
            BufWriter::new(stream),
        ));
        qmp.handshake()?;

        let balloon = format!("/machine/peripheral/{id}");
        qmp.execute(&qmp::qom_set {
            path: balloon.clone(),
            property: "guest-stats-polling-interval".to_owned(),
            value: 1.into(),
        })?;
        let most = qmp.execute(&qmp::query_memory_size_summary {})?.base_memory;
        let size = qmp.execute(&qmp::query_balloon {})?.actual;

        Ok(Monitor {
            qmp,
            balloon,
            most,
            target: u64::try_from(size)?,
            last: (0, None),
        })
    }

    /// What is known of the guest now.
    fn look(&mut self) -> Result<policy::Guest> {
        let figures = self.qmp.execute(&qmp::qom_get {
            path: self.balloon.clone(),
            property: "guest-stats".to_owned(),
        })?;
        let size = u64::try_from(self.qmp.execute(&qmp::query_balloon {})?.actual)?;
        let figure = |name: &str| figures["stats"][name].as_u64().filter(|n| *n != u64::MAX);
        let sent = figures["last-update"].as_u64().unwrap_or(0);
        let mut guest = policy::Guest {
            most: self.most,
            target: self.target,
            size,
            // Who has told nothing new is taken neither for needy nor for rich.
            available: size / 4,
            swaps: false,
        };

        if let Some(available) = figure("stat-available-memory").filter(|_| sent != self.last.0) {
            let swapped_in = figure("stat-swap-in");
            let (_, before) = core::mem::replace(&mut self.last, (sent, swapped_in));

            guest.available = available;
            guest.swaps = before.is_some() && before != swapped_in;
        }
        Ok(guest)
    }

    /// Asks for a guest of this size.
    fn ask(&mut self, size: u64) -> Result<()> {
        if size != self.target {
            self.qmp.execute(&qmp::balloon {
                value: i64::try_from(size)?,
            })?;
            self.target = size;
        }
        Ok(())
    }
}
