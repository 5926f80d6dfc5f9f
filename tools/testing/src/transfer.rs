// SPDX-License-Identifier: GPL-2.0

//! The host's end of a TCP transfer, on the loopback address, which a guest reaches as 10.0.2.2.

use anyhow::{
    anyhow,
    bail,
    ensure,
    Result, //
};
use sha2::{
    Digest,
    Sha256, //
};
use std::{
    io::{
        ErrorKind,
        Read,
        Write, //
    },
    net::{
        Ipv4Addr,
        TcpListener,
        TcpStream, //
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

const CHUNK: usize = 1 << 16;

/// A server for one connection.
pub struct Transfer {
    port: u16,
    thread: JoinHandle<Result<Digested>>,
}

/// What went over a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Digested {
    /// Number of bytes.
    pub length: u64,
    /// Their SHA-256, as `sha256sum` prints it.
    pub sha256: String,
}

impl Transfer {
    /// Waits for a client and sends it `length` bytes of noise.
    pub fn send(length: u64, limit: Duration) -> Result<Self> {
        Self::serve(limit, move |mut stream| {
            let mut noise = Noise(0x9e37_79b9_7f4a_7c15 ^ length);
            let mut hash = Sha256::new();
            let mut chunk = vec![0; CHUNK];
            let mut left = length;

            while left > 0 {
                let now = left.min(CHUNK as u64) as usize;
                noise.fill(&mut chunk);
                hash.update(&chunk[..now]);
                stream.write_all(&chunk[..now])?;
                left -= now as u64;
            }
            Ok(Digested::new(length, hash))
        })
    }

    /// Waits for a client and takes what it sends until it closes.
    pub fn receive(limit: Duration) -> Result<Self> {
        Self::serve(limit, |mut stream| {
            let mut hash = Sha256::new();
            let mut chunk = vec![0; CHUNK];
            let mut length = 0;

            loop {
                match stream.read(&mut chunk)? {
                    0 => return Ok(Digested::new(length, hash)),
                    now => {
                        hash.update(&chunk[..now]);
                        length += now as u64;
                    }
                }
            }
        })
    }

    /// The port that the client connects to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the end of the connection.
    pub fn finish(self) -> Result<Digested> {
        self.thread
            .join()
            .map_err(|_| anyhow!("the host's end of the transfer panicked"))?
    }

    fn serve(
        limit: Duration,
        body: impl FnOnce(TcpStream) -> Result<Digested> + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();

        listener.set_nonblocking(true)?;
        let thread = thread::spawn(move || {
            let stream = accept(&listener, limit)?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            body(stream)
        });
        Ok(Transfer { port, thread })
    }
}

/// Accepts a connection, but does not wait for ever for a guest that may be gone.
fn accept(listener: &TcpListener, limit: Duration) -> Result<TcpStream> {
    let start = Instant::now();

    while start.elapsed() < limit {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the guest did not connect")
}

impl Digested {
    fn new(length: u64, hash: Sha256) -> Self {
        Digested {
            length,
            sha256: format!("{:x}", hash.finalize()),
        }
    }

    /// Compares with the other side.
    pub fn ensure_is(&self, length: u64, sha256: &str) -> Result<()> {
        ensure!(
            self.length == length,
            "{} of {length} bytes arrived",
            self.length
        );
        ensure!(self.sha256 == sha256, "the {length} bytes arrived damaged");
        Ok(())
    }
}

/// Numbers without a pattern that a device or a driver could happen to produce (xorshift64).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, data: &mut [u8]) {
        for word in data.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_ne_bytes()[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_received() -> Result<()> {
        let limit = Duration::from_secs(10);
        let source = Transfer::send(300_001, limit)?;
        let sink = Transfer::receive(limit)?;

        let mut from = TcpStream::connect((Ipv4Addr::LOCALHOST, source.port()))?;
        let mut to = TcpStream::connect((Ipv4Addr::LOCALHOST, sink.port()))?;
        std::io::copy(&mut from, &mut to)?;
        drop(to);

        let sent = source.finish()?;
        sink.finish()?.ensure_is(300_001, &sent.sha256)?;
        assert!(sent.ensure_is(300_001, &"0".repeat(64)).is_err());
        Ok(())
    }

    #[test]
    fn a_client_that_does_not_come_is_an_error() -> Result<()> {
        assert!(Transfer::receive(Duration::from_millis(20))?
            .finish()
            .is_err());
        Ok(())
    }
}
