// SPDX-License-Identifier: GPL-2.0

//! Who is at the other end of the cable: a small host, 10.0.2.2, that answers pings and sends back what it gets on port 7.

use smoltcp::{
    iface::{
        Config,
        Interface,
        SocketHandle,
        SocketSet, //
    },
    phy::{
        Checksum,
        Device,
        DeviceCapabilities,
        Medium,
        RxToken,
        TxToken, //
    },
    socket::tcp,
    time::Instant,
    wire::{
        EthernetAddress,
        IpAddress,
        IpCidr, //
    }, //
};
use std::collections::VecDeque;

/// The address of the peer's card.
const ADDRESS: EthernetAddress = EthernetAddress([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

/// What comes here is sent back.
const ECHO: u16 = 7;

/// How many connections there can be at once.
const CONNECTIONS: usize = 4;

/// How much of a connection is kept in each direction.
const BUFFER: usize = 256 << 10;

/// Frames on their way.
#[derive(Default)]
struct Cable {
    inward: VecDeque<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);

        self.0.push_back(frame);
        result
    }
}

impl Device for Cable {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.inward.pop_front()?;

        Some((Received(frame), Sent(&mut self.outward)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();

        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        // A driver may leave the checksum to the card, so what comes in can lack it.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities.checksum.icmpv4 = Checksum::Tx;
        capabilities
    }
}

/// The host at the other end.
pub struct Peer {
    cable: Cable,
    interface: Interface,
    sockets: SocketSet<'static>,
    echoes: Vec<SocketHandle>,
}

impl Peer {
    pub fn new() -> Self {
        let mut cable = Cable::default();
        let mut interface = Interface::new(Config::new(ADDRESS.into()), &mut cable, Instant::now());
        interface.update_ip_addrs(|addresses| {
            // There is room for the first one.
            let _ = addresses.push(IpCidr::new(IpAddress::v4(10, 0, 2, 2), 24));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let echoes = (0..CONNECTIONS)
            .map(|_| {
                let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
                sockets.add(tcp::Socket::new(buffer(), buffer()))
            })
            .collect();

        Peer {
            cable,
            interface,
            sockets,
            echoes,
        }
    }

    /// A frame arrives.
    pub fn receive(&mut self, frame: Vec<u8>) {
        self.cable.inward.push_back(frame);
    }

    /// Works on what has arrived, and on what time has brought.
    pub fn work(&mut self) {
        loop {
            self.interface
                .poll(Instant::now(), &mut self.cable, &mut self.sockets);
            if !self.echo() && self.cable.inward.is_empty() {
                break;
            }
        }
    }

    /// The next frame for the guest.
    pub fn send(&mut self) -> Option<Vec<u8>> {
        self.cable.outward.pop_front()
    }

    /// Moves data from each connection to where it came from, and returns whether there was any.
    fn echo(&mut self) -> bool {
        let mut moved = false;

        for &handle in &self.echoes {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);

            if !socket.is_open() {
                // It is closed, and the port is not 0.
                let _ = socket.listen(ECHO);
            }
            let room = socket.send_capacity() - socket.send_queue();
            if room > 0 && socket.can_recv() && socket.can_send() {
                let data = socket.recv(|data| {
                    let len = data.len().min(room);
                    (len, data[..len].to_vec())
                });
                if let Ok(data) = data {
                    moved |= socket.send_slice(&data).is_ok_and(|len| len > 0);
                }
            }
            if socket.may_send() && !socket.may_recv() && !socket.can_recv() {
                socket.close();
            }
        }
        moved
    }
}
