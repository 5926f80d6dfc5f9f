// SPDX-License-Identifier: GPL-2.0

//! How fast the device itself is: a QEMU without a processor, whose balloon is driven from outside through QEMU's test protocol. All
//! that is timed is the device taking, or giving back, the same number of page frames in ascending order.

use super::{
    worked,
    AMOUNT,
    LIMIT,
    MIB, //
};
use crate::{
    bench::Bench,
    tests::balloon::SIZE, //
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use std::{
    fmt::Write as _,
    io::{
        BufRead,
        BufReader,
        Write, //
    },
    os::unix::net::UnixStream,
    path::Path,
    process::{
        Command,
        Stdio, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// How long the device takes for [`AMOUNT`].
#[derive(Clone, Copy, Default)]
pub struct Ceiling {
    /// By the clock on the wall.
    pub took: Duration,
    /// Of a CPU.
    pub worked: Duration,
}

/// How many buffers the queue has, and how many page frames are named in each.
const BUFFERS: u64 = 128;
const PFNS: u64 = 256;

/// Where in the guest's memory things are: a queue, the buffers, and the memory that goes to the host.
const QUEUE: u64 = MIB;
const LISTS: u64 = 2 * MIB;
const GIVEN: u64 = 128 * MIB;

/// The devices of a microvm: where they are, how far apart, and how many.
const MMIO: u64 = 0xfeb0_0000;
const STRIDE: u64 = 512;
const DEVICES: u64 = 24;

/// Registers of a virtio device (VirtIO 1.3, 4.2.2).
const DEVICE_ID: u64 = 0x08;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SEL: u64 = 0x24;
const QUEUE_SEL: u64 = 0x30;
const QUEUE_NUM: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const STATUS: u64 = 0x70;
const QUEUE_DESC: u64 = 0x80;
const QUEUE_DRIVER: u64 = 0x90;
const QUEUE_DEVICE: u64 = 0xa0;

const BALLOON: u64 = 5;

/// A QEMU that is driven through its test protocol.
struct Test {
    pid: u32,
    stream: BufReader<UnixStream>,
}

impl Test {
    /// Sends a command and returns what is answered.
    fn command(&mut self, command: &str) -> Result<String> {
        let mut answer = String::new();

        self.stream.get_mut().write_all(command.as_bytes())?;
        self.stream.get_mut().write_all(b"\n")?;
        self.stream.read_line(&mut answer)?;
        match answer.trim_end().strip_prefix("OK") {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => bail!("QEMU answers {answer:?} to {command:?}"),
        }
    }

    fn read(&mut self, address: u64) -> Result<u64> {
        let answer = self.command(&format!("readl {address:#x}"))?;

        u64::from_str_radix(answer.trim_start_matches("0x"), 16).context(answer)
    }

    fn write(&mut self, address: u64, value: u64) -> Result<()> {
        self.command(&format!("writel {address:#x} {value:#x}"))
            .map(drop)
    }

    /// Puts bytes into the guest's memory.
    fn fill(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let mut text = format!("write {address:#x} {:#x} 0x", bytes.len());

        for byte in bytes {
            write!(text, "{byte:02x}")?;
        }
        self.command(&text).map(drop)
    }
}

/// Measures both directions, in their order.
pub fn measure(bench: &Bench) -> Result<[Ceiling; 2]> {
    let directory = tempfile::tempdir_in(bench.lab.image.directory())?;
    let socket = directory.path().join("test");
    let size = SIZE / MIB;
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-run-with", "exit-with-parent=on", "-accel", "qtest"])
        .args(["-machine", "microvm,memory-backend=ram"])
        .args(["-m", &format!("{size}M")])
        .arg("-object")
        .arg(format!(
            "memory-backend-ram,id=ram,size={size}M,prealloc=on"
        ))
        .args(["-global", "virtio-mmio.force-legacy=false"])
        // So that a notification is over when the device has done.
        .args(["-global", "virtio-mmio.ioeventfd=off"])
        .args(["-device", "virtio-balloon-device"])
        .arg("-qtest")
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .args(["-qtest-log", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let process = bench.lab.group.spawn(&mut command)?;
    let mut test = Test {
        pid: process.id(),
        stream: BufReader::new(connect(&socket, || process.ended().is_some())?),
    };

    let device = (0..DEVICES)
        .map(|number| MMIO + number * STRIDE)
        .find_map(|base| match test.read(base + DEVICE_ID) {
            Ok(BALLOON) => Some(Ok(base)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .context("the machine has no balloon")??;
    // Acknowledged and driven, with the modern interface and nothing else.
    for status in [0, 1, 3] {
        test.write(device + STATUS, status)?;
    }
    for (half, features) in [(0, 0), (1, 1)] {
        test.write(device + DRIVER_FEATURES_SEL, half)?;
        test.write(device + DRIVER_FEATURES, features)?;
    }
    test.write(device + STATUS, 0xb)?;
    for queue in 0..2 {
        prepare(&mut test, device, queue)?;
    }
    test.write(device + STATUS, 0xf)?;

    Ok([drive(&mut test, device, 0)?, drive(&mut test, device, 1)?])
}

fn connect(socket: &Path, has_ended: impl Fn() -> bool) -> Result<UnixStream> {
    let start = Instant::now();

    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(error) => ensure!(
                !has_ended() && start.elapsed() < LIMIT,
                "a QEMU without a processor does not come up: {error}"
            ),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Where the parts of a queue are: descriptors, what the driver offers, what the device has used.
fn parts(queue: u64) -> [u64; 3] {
    let base = QUEUE + queue * 0x1_0000;

    [base, base + 0x4000, base + 0x8000]
}

/// Sets a queue up, with one descriptor for each buffer.
fn prepare(test: &mut Test, device: u64, queue: u64) -> Result<()> {
    let mut descriptors = Vec::new();
    for buffer in 0..BUFFERS {
        descriptors.extend((LISTS + buffer * 4 * PFNS).to_le_bytes());
        // CAST: A small number.
        descriptors.extend((4 * PFNS as u32).to_le_bytes());
        // No flags, no next one.
        descriptors.extend([0; 4]);
    }

    test.write(device + QUEUE_SEL, queue)?;
    test.write(device + QUEUE_NUM, BUFFERS)?;
    let registers = [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE];
    for (register, address) in registers.into_iter().zip(parts(queue)) {
        test.write(device + register, address)?;
        test.write(device + register + 4, 0)?;
    }
    test.fill(parts(queue)[0], &descriptors)?;
    test.write(device + QUEUE_READY, 1)
}

/// Has the device take or give back all page frames, and returns how long it is at work.
fn drive(test: &mut Test, device: u64, queue: u64) -> Result<Ceiling> {
    let [_, offered, used] = parts(queue);
    let rounds = AMOUNT / 4096 / PFNS / BUFFERS;
    let mut ceiling = Ceiling::default();

    for round in 0..rounds {
        let first = GIVEN / 4096 + round * BUFFERS * PFNS;
        let lists: Vec<u8> = (first..first + BUFFERS * PFNS)
            // CAST: Below 2^20.
            .flat_map(|pfn| (pfn as u32).to_le_bytes())
            .collect();
        test.fill(LISTS, &lists)?;
        // CAST: A small number.
        let index = ((round + 1) * BUFFERS) as u16;
        let mut ring: Vec<u8> = [0, index].into_iter().flat_map(u16::to_le_bytes).collect();
        // CAST: A small number.
        ring.extend((0..BUFFERS as u16).flat_map(u16::to_le_bytes));
        test.fill(offered, &ring)?;

        let (start, before) = (Instant::now(), worked(test.pid)?);
        test.write(device + QUEUE_NOTIFY, queue)?;
        ceiling.took += start.elapsed();
        ceiling.worked += worked(test.pid)? - before;
        let done = test.read(used)? >> 16;
        ensure!(
            done == u64::from(index),
            "the device has used {done} buffers of {index}"
        );
    }
    Ok(ceiling)
}
