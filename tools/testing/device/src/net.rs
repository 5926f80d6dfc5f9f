// SPDX-License-Identifier: GPL-2.0

//! A network card (VirtIO 1.3, 5.1) with the features that QEMU's does not have.

mod control;
mod datagram;

pub use control::Command;
pub use datagram::LENGTH as DATAGRAM;

use crate::{
    peer::Peer,
    script::{
        Point,
        Script, //
    },
    server::{
        Model,
        Ring,
        TRANSPORT, //
    }, //
};
use std::{
    collections::VecDeque,
    io::{
        Read,
        Write, //
    },
    mem,
    time::{
        Duration,
        Instant, //
    },
};

/// Numbers of feature bits.
pub mod feature {
    pub const CSUM: u32 = 0;
    pub const GUEST_CSUM: u32 = 1;
    pub const MAC: u32 = 5;
    pub const GUEST_UFO: u32 = 10;
    pub const HOST_TSO4: u32 = 11;
    pub const MRG_RXBUF: u32 = 15;
    pub const STATUS: u32 = 16;
    pub const CTRL_VQ: u32 = 17;
    pub const CTRL_RX: u32 = 18;
    pub const CTRL_VLAN: u32 = 19;
    pub const MQ: u32 = 22;
    pub const CTRL_MAC_ADDR: u32 = 23;
    pub const EVENT_IDX: u32 = 29;
    pub const DEVICE_STATS: u32 = 50;
    pub const VQ_NOTF_COAL: u32 = 52;
    pub const NOTF_COAL: u32 = 53;
    pub const GUEST_HDRLEN: u32 = 59;
}

/// What a card offers unless a test says otherwise.
const OFFERED: [u32; 14] = [
    feature::CSUM,
    feature::MAC,
    feature::HOST_TSO4,
    feature::MRG_RXBUF,
    feature::STATUS,
    feature::CTRL_VQ,
    feature::CTRL_RX,
    feature::CTRL_VLAN,
    feature::MQ,
    feature::CTRL_MAC_ADDR,
    feature::DEVICE_STATS,
    feature::VQ_NOTF_COAL,
    feature::NOTF_COAL,
    feature::GUEST_HDRLEN,
];

/// What no card offers that has no control queue (5.1.3.1).
const NEED_CONTROL: [u32; 7] = [
    feature::CTRL_RX,
    feature::CTRL_VLAN,
    feature::MQ,
    feature::CTRL_MAC_ADDR,
    feature::DEVICE_STATS,
    feature::VQ_NOTF_COAL,
    feature::NOTF_COAL,
];

/// The length of the header before each packet: a device here is a modern one.
const HEADER: usize = 12;

/// Where the header says whether a packet is to be cut.
const GSO_TYPE: usize = 1;

/// Where it says how long the packet's own headers are.
const HDR_LEN: usize = 2;

/// Where it says what payload each segment gets.
const GSO_SIZE: usize = 4;

/// How many packets that are to be cut are remembered.
const NOTED: usize = 100;

/// Where the header counts the buffers of a received packet.
const NUM_BUFFERS: usize = 10;

/// How many frames wait for buffers; the ones after that are lost.
const WAITING: usize = 1024;

/// When a queue interrupts (5.1.6.5.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalescing {
    /// How many buffers are used before, if that counts.
    pub max_packets: u32,
    /// How many microseconds a used buffer waits at most.
    pub max_usecs: u32,
}

/// A packet that the card was to cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segmented {
    /// What the driver says of the length of the headers that each segment gets.
    pub header_len: u16,
    /// What it says of the payload of each segment.
    pub size: u16,
    /// The packet.
    pub frame: Vec<u8>,
}

/// A queue as the card keeps it.
#[derive(Clone, Debug, Default)]
pub struct QueueState {
    /// When it interrupts.
    pub coalescing: Coalescing,
    /// How many buffers were used.
    pub used: u64,
    /// How many notifications there were.
    pub kicks: u64,
    /// How many packets there were, and their bytes.
    pub packets: u64,
    pub bytes: u64,
    /// How many interrupts it has asked for.
    pub interrupts: u64,
    /// How many used buffers the driver has not been told of, and since when.
    pending: u32,
    since: Option<Instant>,
    /// Whether some were used at once, of which the ring does not say whether the driver waits for them.
    together: bool,
}

/// A network card.
pub struct Net {
    offered: u64,
    negotiated: u64,
    pairs: u16,
    /// Its address, as far as it knows that.
    pub address: [u8; 6],
    peer: Peer,
    /// Packets for the driver, each with its header.
    waiting: VecDeque<Vec<u8>>,
    /// All queues in the order of their numbers, the control queue last.
    pub queues: Vec<QueueState>,
    /// How often a driver has begun.
    pub begins: u32,
    /// What the driver has asked for since it began.
    pub commands: Vec<Command>,
    /// The first packets that it has left to the card to be cut.
    pub segmented: Vec<Segmented>,
    /// What the card does wrong.
    pub script: Script,
}

impl Net {
    /// A card with as many pairs of queues.
    pub fn new(pairs: u16) -> Self {
        Net {
            offered: OFFERED
                .iter()
                .fold(TRANSPORT, |bits, bit| bits | (1 << bit)),
            negotiated: 0,
            pairs,
            address: [0x52, 0x54, 0, 0, 0, 0x15],
            peer: Peer::new(),
            waiting: VecDeque::new(),
            queues: vec![QueueState::default(); usize::from(pairs) * 2 + 1],
            begins: 0,
            commands: Vec::new(),
            segmented: Vec::new(),
            script: Script::default(),
        }
    }

    /// The same with a feature more.
    pub fn with(mut self, feature: u32) -> Self {
        self.offered |= 1 << feature;
        self
    }

    /// The same without a feature, and without those that need it.
    pub fn without(mut self, feature: u32) -> Self {
        self.offered &= !(1 << feature);
        if feature == feature::CTRL_VQ {
            NEED_CONTROL
                .iter()
                .fold(self, |net, &feature| net.without(feature))
        } else {
            self
        }
    }

    /// Whether the driver has accepted a feature.
    pub fn has(&self, feature: u32) -> bool {
        self.negotiated & (1 << feature) != 0
    }

    /// The number of the control queue: after all pairs, if the driver knows of more than one.
    fn control_queue(&self) -> usize {
        if self.has(feature::MQ) {
            usize::from(self.pairs) * 2
        } else {
            2
        }
    }

    /// Counts buffers that were used at once, and interrupts if it is time.
    fn used(&mut self, queue: usize, buffers: u32, rings: &[Ring<'_>]) {
        let state = &mut self.queues[queue];

        state.used += u64::from(buffers);
        state.pending += buffers;
        state.together |= buffers > 1;
        state.since.get_or_insert_with(Instant::now);
        self.interrupt_if_due(queue, rings);
    }

    fn interrupt_if_due(&mut self, queue: usize, rings: &[Ring<'_>]) {
        let state = &mut self.queues[queue];
        let Some(since) = state.since else {
            return;
        };
        let Coalescing {
            max_packets,
            max_usecs,
        } = state.coalescing;

        // Without a number of packets the time alone counts.
        let enough = max_packets > 0 && state.pending >= max_packets;
        let late = since.elapsed() >= Duration::from_micros(max_usecs.into());
        if enough || late {
            state.pending = 0;
            state.since = None;
            if rings[queue].interrupt(mem::take(&mut state.together)) {
                state.interrupts += 1;
            }
        }
    }

    /// Sends what the driver has made available.
    fn transmit(&mut self, queue: usize, rings: &[Ring<'_>]) {
        while let Some(chain) = rings[queue].pop() {
            let head = chain.head_index();
            let mut packet = Vec::new();

            if let Ok(mut reader) = chain.clone().reader(chain.memory()) {
                // What cannot be read is not the guest's memory.
                let _ = reader.read_to_end(&mut packet);
            }
            if packet.len() > HEADER {
                let frame = packet.split_off(HEADER);
                self.count(queue, &frame);
                self.note(&packet, &frame);
                match datagram::answer(&frame, self.has(feature::GUEST_UFO)) {
                    Some(packets) => packets.into_iter().for_each(|packet| self.wait(packet)),
                    // The peer takes a packet of any length, whole.
                    None => self.peer.receive(frame),
                }
            }
            if self.script.bend(Point::TxUsed, 1) != 0 {
                let head = self.script.bend(Point::TxUsedId, head.into());
                rings[queue].push(head as u32, 0);
                self.used(queue, 1, rings);
            }
        }
        self.exchange(rings);
    }

    fn count(&mut self, queue: usize, frame: &[u8]) {
        self.queues[queue].packets += 1;
        self.queues[queue].bytes += frame.len() as u64;
    }

    /// Remembers a packet that is to be cut.
    fn note(&mut self, header: &[u8], frame: &[u8]) {
        if header[GSO_TYPE] != 0 && self.segmented.len() < NOTED {
            self.segmented.push(Segmented {
                header_len: u16::from_le_bytes([header[HDR_LEN], header[HDR_LEN + 1]]),
                size: u16::from_le_bytes([header[GSO_SIZE], header[GSO_SIZE + 1]]),
                frame: frame.to_vec(),
            });
        }
    }

    /// Keeps a packet for the driver, unless there are too many.
    fn wait(&mut self, packet: Vec<u8>) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back(packet);
        }
    }

    /// Lets the peer work, and delivers what it has sent.
    fn exchange(&mut self, rings: &[Ring<'_>]) {
        self.peer.work();
        while let Some(frame) = self.peer.send() {
            for _ in 0..self.script.bend(Point::RxCopies, 1) {
                self.wait([&[0; HEADER], &frame[..]].concat());
            }
        }
        // The peer is one flow, more or less: the first queue has it.
        while let Some(mut packet) = self.waiting.pop_front() {
            if !self.deliver(0, &mut packet, rings) {
                self.waiting.push_front(packet);
                break;
            }
        }
    }

    /// Puts a packet into a receive queue. Returns `false` if that has too few buffers.
    fn deliver(&mut self, queue: usize, packet: &mut [u8], rings: &[Ring<'_>]) -> bool {
        let ring = &rings[queue];
        let mut buffers = Vec::new();
        let mut room = 0;

        while room < packet.len() {
            let Some(chain) = ring.pop() else {
                break;
            };
            room += chain
                .clone()
                .writable()
                .map(|descriptor| descriptor.len() as usize)
                .sum::<usize>();
            buffers.push(chain);
            if !self.has(feature::MRG_RXBUF) {
                break;
            }
        }
        if room < packet.len() {
            buffers.iter().for_each(|_| ring.unpop());
            return false;
        }

        self.count(queue, &packet[HEADER..]);
        packet[NUM_BUFFERS..HEADER].copy_from_slice(&(buffers.len() as u16).to_le_bytes());
        for (at, byte) in packet[..HEADER].iter_mut().enumerate() {
            *byte = self.script.bend(Point::RxHeader(at), (*byte).into()) as u8;
        }
        let mut rest = &packet[..];
        let mut used = Vec::new();
        for chain in buffers {
            let head = chain.head_index();
            let mut written = 0;
            if let Ok(mut writer) = chain.clone().writer(chain.memory()) {
                let part = rest.len().min(writer.available_bytes());
                if writer.write_all(&rest[..part]).is_ok() {
                    written = part;
                }
            }
            rest = &rest[written..];
            let head = self.script.bend(Point::RxUsedId, head.into());
            let len = self.script.bend(Point::RxUsedLen, written as u64);
            used.push((head as u32, len as u32));
        }
        ring.push_all(&used);
        self.used(queue, used.len() as u32, rings);
        true
    }

    /// Answers commands.
    fn control(&mut self, queue: usize, rings: &[Ring<'_>]) {
        while let Some(chain) = rings[queue].pop() {
            let head = chain.head_index();
            let mut request = Vec::new();
            let mut written = 0;

            if let Ok(mut reader) = chain.clone().reader(chain.memory()) {
                let _ = reader.read_to_end(&mut request);
            }
            if let Ok(mut writer) = chain.clone().writer(chain.memory()) {
                let mut reply = self.command(&request, writer.available_bytes());
                if let Some(status) = reply.first_mut() {
                    *status = self.script.bend(Point::ControlStatus, (*status).into()) as u8;
                }
                if writer.write_all(&reply).is_ok() {
                    written = reply.len();
                }
            }
            if self.script.bend(Point::ControlUsed, 1) != 0 {
                rings[queue].push(head.into(), written as u32);
                self.used(queue, 1, rings);
            }
        }
    }
}

impl Model for Net {
    fn queues(&self) -> usize {
        self.queues.len()
    }

    fn features(&self) -> u64 {
        self.offered
    }

    fn config(&mut self) -> Vec<u8> {
        let mut config = self.address.to_vec();

        // The link is up.
        config.extend(1u16.to_le_bytes());
        config.extend(self.pairs.to_le_bytes());
        config
    }

    fn begin(&mut self, features: u64) {
        self.negotiated = features;
        self.begins += 1;
        self.waiting.clear();
        self.commands.clear();
        self.segmented.clear();
        self.queues.fill(QueueState::default());
    }

    fn kicked(&mut self, queue: usize, rings: &[Ring<'_>]) {
        self.queues[queue].kicks += 1;
        if queue == self.control_queue() {
            self.control(queue, rings);
        } else if queue % 2 == 1 {
            if self.script.bend(Point::TxKick, 1) != 0 {
                self.transmit(queue, rings);
            }
        } else {
            self.exchange(rings);
        }
    }

    fn tick(&mut self, rings: &[Ring<'_>]) {
        self.exchange(rings);
        for queue in 0..self.queues.len() {
            self.interrupt_if_due(queue, rings);
        }
    }
}
