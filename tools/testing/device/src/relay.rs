// SPDX-License-Identifier: GPL-2.0

//! Stands between QEMU and the vhost crate, and sends QEMU what the crate cannot: that the configuration has changed.

use anyhow::{
    Context,
    Result, //
};
use rustix::{
    cmsg_space,
    net::{
        recvmsg,
        sendmsg,
        RecvAncillaryBuffer,
        RecvAncillaryMessage,
        RecvFlags,
        SendAncillaryBuffer,
        SendAncillaryMessage,
        SendFlags, //
    },
};
use std::{
    fs::File,
    io::{
        self,
        IoSlice,
        IoSliceMut,
        Write, //
    },
    mem::MaybeUninit,
    os::{
        fd::{
            AsFd,
            OwnedFd, //
        },
        unix::net::{
            UnixListener,
            UnixStream, //
        },
    },
    path::Path,
    sync::{
        Arc,
        Mutex,
        MutexGuard, //
    },
    thread,
};

/// The length of a message without its payload: what is asked for, flags, and how long the payload is.
const HEADER: usize = 12;

/// QEMU hands over a channel for requests to itself.
const SET_BACKEND_REQ_FD: u32 = 21;

/// The request that says that the configuration has changed: version 1, no answer, no payload.
const CONFIG_CHANGE_MSG: [u32; 3] = [2, 1, 0];

/// How many descriptors come with a message at most: the one of each region of memory.
const DESCRIPTORS: usize = 8;

/// Says to QEMU that the configuration has changed.
#[derive(Clone, Default)]
pub struct Notifier(Arc<Mutex<Option<File>>>);

impl Notifier {
    /// Has QEMU interrupt the driver, if there is a QEMU already.
    pub fn config_changed(&self) {
        if let Some(channel) = self.channel().as_mut() {
            // QEMU's end shows in the guest's.
            let _ = channel.write_all(&CONFIG_CHANGE_MSG.map(u32::to_ne_bytes).concat());
        }
    }

    fn channel(&self) -> MutexGuard<'_, Option<File>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Passes on what QEMU says.
    fn forward(&self, qemu: &UnixStream, library: &UnixStream) -> io::Result<()> {
        let mut descriptors = Vec::new();

        loop {
            let mut message = vec![0; HEADER];
            receive(qemu, &mut message, &mut descriptors)?;
            let word = |at: usize| {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(&message[at..at + 4]);
                u32::from_ne_bytes(bytes)
            };
            let (request, len) = (word(0), word(8) as usize);
            message.resize(HEADER + len, 0);
            receive(qemu, &mut message[HEADER..], &mut descriptors)?;

            if let (SET_BACKEND_REQ_FD, [channel, ..]) = (request, &descriptors[..]) {
                *self.channel() = Some(channel.try_clone()?.into());
            }
            send(library, &message, &descriptors)?;
            descriptors.clear();
        }
    }
}

/// Fills a part of a message, and keeps the descriptors that come with it.
fn receive(from: &UnixStream, part: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut filled = 0;

    while filled < part.len() {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            from,
            &mut [IoSliceMut::new(&mut part[filled..])],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += received.bytes;
    }
    Ok(())
}

/// Sends a message whole. What comes with it comes with its first bytes.
fn send(mut to: &UnixStream, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();

    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let sent = sendmsg(
        to,
        &[IoSlice::new(message)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    to.write_all(&message[sent..])
}

/// Passes on what QEMU, which connects to one socket, and the library, which waits at the other, have to say to each other.
pub fn relay(socket: &Path, library: &Path) -> Result<Notifier> {
    let listener = UnixListener::bind(socket).with_context(|| format!("{}", socket.display()))?;
    let library = library.to_owned();
    let notifier = Notifier::default();
    let same = notifier.clone();

    thread::Builder::new()
        .name("relay".to_owned())
        .spawn(move || -> io::Result<()> {
            let (qemu, _) = listener.accept()?;
            let library = UnixStream::connect(library)?;
            let (mut from, mut to) = (library.try_clone()?, qemu.try_clone()?);
            // What the library sends has nothing with it: no feature that would need it is offered.
            thread::Builder::new()
                .name("answers".to_owned())
                .spawn(move || io::copy(&mut from, &mut to))?;
            let ended = same.forward(&qemu, &library);
            library.shutdown(std::net::Shutdown::Both)?;
            ended
        })
        .context("a thread")?;
    Ok(notifier)
}
