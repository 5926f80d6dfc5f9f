// SPDX-License-Identifier: GPL-2.0

//! The control queue (VirtIO 1.3, 5.1.6.5).
//!
//! One command is under way at a time. Who sent it sleeps until the device answers, for a few seconds at most. A command that
//! was given up stays the queue's, so a late answer meets memory that is still there; until it comes, further commands fail
//! at once: the stack, which holds its configuration lock around most of them, is held up once and not for each.

use crate::device_stats::Classes;
use guest::{
    completion::Completion,
    net::{
        address::MacAddr,
        ethtool::coalesce::Moderation, //
    },
    virtio::{
        buffer::{
            Exchange,
            Used, //
        },
        Queue, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc,
        Mutex, //
    },
    time::{
        Delta,
        Instant,
        Monotonic,
        Msecs, //
    }, //
};

/// How long a command may take.
const PATIENCE: Delta = Delta::from_secs(5);

/// How often a command is looked for without an interrupt: a device that has vanished gives none.
const SLICE: Msecs = 100;

/// The device's answer to a command that it has carried out.
const OK: u8 = 0;

/// What the answer is until there is one.
const NO_ANSWER: u8 = !0;

/// A command's class and number.
#[derive(Clone, Copy)]
struct Command(u8, u8);

impl Command {
    const RX_PROMISC: Self = Self(0, 0);
    const RX_ALLMULTI: Self = Self(0, 1);
    const MAC_TABLE_SET: Self = Self(1, 0);
    const MAC_ADDR_SET: Self = Self(1, 1);
    const VLAN_ADD: Self = Self(2, 0);
    const VLAN_DEL: Self = Self(2, 1);
    const ANNOUNCE_ACK: Self = Self(3, 0);
    const MQ_VQ_PAIRS_SET: Self = Self(4, 0);
    const MQ_RSS_CONFIG: Self = Self(4, 1);
    const MQ_HASH_CONFIG: Self = Self(4, 2);
    const NOTF_COAL_TX_SET: Self = Self(6, 0);
    const NOTF_COAL_RX_SET: Self = Self(6, 1);
    const NOTF_COAL_VQ_SET: Self = Self(6, 2);
    const GUEST_OFFLOADS_SET: Self = Self(5, 0);
    const STATS_QUERY: Self = Self(8, 0);
    const STATS_GET: Self = Self(8, 1);
}

/// The control queue of a device.
#[pin_data]
pub(crate) struct Control {
    queue: Arc<Queue<Exchange>>,
    /// Somebody waits for the next interrupt; others are ignored, so that they do not add up.
    awaited: Atomic<i32>,
    #[pin]
    answered: Completion,
    #[pin]
    turn: Mutex<Turn>,
}

/// Whoever has this may send a command.
struct Turn {
    /// A command was given up and its answer is still to come.
    unanswered: bool,
}

impl Control {
    pub(crate) fn new(queue: Arc<Queue<Exchange>>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                queue,
                awaited: Atomic::new(0),
                answered <- Completion::new(),
                turn <- new_mutex!(Turn { unanswered: false }, "virtio_net_rust::Control::turn"),
            }),
            GFP_KERNEL,
        )
    }

    /// The device has been reset: what it had not answered is not the queue's any more.
    pub(crate) fn forget(&self) {
        self.turn.lock().unanswered = false;
    }

    /// The device may have answered. Any context.
    pub(crate) fn interrupt(&self) {
        if self.awaited.xchg(0, Full) != 0 {
            self.answered.complete();
        }
    }

    /// Receives everything, or not.
    pub(crate) fn set_promiscuous(&self, on: bool) -> Result {
        self.send_bytes(Command::RX_PROMISC, &[u8::from(on)])
    }

    /// Receives all multicast packets, or not.
    pub(crate) fn set_all_multicast(&self, on: bool) -> Result {
        self.send_bytes(Command::RX_ALLMULTI, &[u8::from(on)])
    }

    /// Sets the addresses and groups to receive, instead of those before.
    pub(crate) fn set_mac_table(&self, unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Result {
        let mut table = KVec::new();

        push_addresses(&mut table, unicast)?;
        push_addresses(&mut table, multicast)?;
        self.send(Command::MAC_TABLE_SET, table)
    }

    /// Sets the device's own address.
    pub(crate) fn set_mac(&self, addr: MacAddr) -> Result {
        self.send_bytes(Command::MAC_ADDR_SET, &addr.to_bytes())
    }

    /// Receives packets of a VLAN, or not.
    pub(crate) fn set_vlan(&self, vid: u16, member: bool) -> Result {
        let command = if member {
            Command::VLAN_ADD
        } else {
            Command::VLAN_DEL
        };

        self.send_bytes(command, &vid.to_le_bytes())
    }

    /// Tells the device that the neighbours know.
    pub(crate) fn acknowledge_announcement(&self) -> Result {
        self.send_bytes(Command::ANNOUNCE_ACK, &[])
    }

    /// Has the device use the first `pairs` pairs of queues.
    pub(crate) fn set_pairs(&self, pairs: u16) -> Result {
        self.send_bytes(Command::MQ_VQ_PAIRS_SET, &pairs.to_le_bytes())
    }

    /// Has the device spread packets by their hash: `message` is a `struct virtio_net_rss_config`.
    pub(crate) fn set_rss(&self, message: KVec<u8>) -> Result {
        self.send(Command::MQ_RSS_CONFIG, message)
    }

    /// Has the device report hashes: `message` is a `struct virtio_net_hash_config`.
    pub(crate) fn set_hash(&self, message: KVec<u8>) -> Result {
        self.send(Command::MQ_HASH_CONFIG, message)
    }

    /// Sets when transmit queues interrupt.
    pub(crate) fn set_tx_coalescing(&self, moderation: Moderation) -> Result {
        self.send_bytes(
            Command::NOTF_COAL_TX_SET,
            coalescing(moderation).as_flattened(),
        )
    }

    /// Sets when receive queues interrupt.
    pub(crate) fn set_rx_coalescing(&self, moderation: Moderation) -> Result {
        self.send_bytes(
            Command::NOTF_COAL_RX_SET,
            coalescing(moderation).as_flattened(),
        )
    }

    /// Sets when the queue with the number `index` interrupts.
    pub(crate) fn set_queue_coalescing(&self, index: u16, moderation: Moderation) -> Result {
        let [packets, usecs] = coalescing(moderation);
        let index = u32::from(index).to_le_bytes();

        self.send_bytes(
            Command::NOTF_COAL_VQ_SET,
            [index, packets, usecs].as_flattened(),
        )
    }

    /// Sets what the device may leave to the guest: bits of feature numbers.
    pub(crate) fn set_guest_offloads(&self, mask: u64) -> Result {
        self.send_bytes(Command::GUEST_OFFLOADS_SET, &mask.to_le_bytes())
    }

    /// Returns which classes of statistics the device has.
    pub(crate) fn statistics_classes(&self) -> Result<Classes> {
        let answer = self.ask(Command::STATS_QUERY, KVec::new(), size_of::<u64>())?;
        let mask = answer.first_chunk().ok_or(EIO)?;

        Ok(Classes(u64::from_le_bytes(*mask)))
    }

    /// Returns the statistics that `request` asks for, an array of `struct virtio_net_ctrl_queue_stats`, in at most `len` bytes.
    pub(crate) fn statistics(&self, request: KVec<u8>, len: usize) -> Result<KVec<u8>> {
        self.ask(Command::STATS_GET, request, len)
    }

    fn send_bytes(&self, command: Command, data: &[u8]) -> Result {
        let mut own = KVec::new();

        own.extend_from_slice(data, GFP_KERNEL)?;
        self.send(command, own)
    }

    /// Sends a command that is not to return anything.
    fn send(&self, command: Command, data: KVec<u8>) -> Result {
        self.ask(command, data, 0).map(drop)
    }

    /// Sends a command and returns what the device says to it, but for whether it has carried it out: at most `len` bytes.
    ///
    /// # Errors
    ///
    /// [`EINVAL`]: the device has refused it. [`ETIMEDOUT`]: it does not answer. [`EIO`]: the queue is broken.
    /// [`ENODEV`]: the device is gone. [`ERESTARTSYS`]: the task is being killed. [`ENOMEM`].
    fn ask(&self, Command(class, number): Command, data: KVec<u8>, len: usize) -> Result<KVec<u8>> {
        let exchange = Exchange::new(&[class, number], data, 1 + len, NO_ANSWER)?;
        let mut turn = self.turn.lock();

        if turn.unanswered {
            self.answer()?.ok_or(ETIMEDOUT)?;
            turn.unanswered = false;
        }

        {
            let mut vq = self.queue.lock_bh().ok_or(ENODEV)?;
            vq.add_sgs(exchange).map_err(|rejected| rejected.error)?;
            if !vq.kick() {
                return Err(EIO);
            }
        }

        let start = Instant::<Monotonic>::now();
        loop {
            self.awaited.xchg(1, Full);
            if let Some(used) = self.answer()? {
                let (buffer, len) = used.into_parts();
                let mut reply = buffer.into_reply();
                if reply.first() != Some(&OK) {
                    return Err(EINVAL);
                }
                // CAST: From 32 bits.
                reply.truncate(len as usize);
                let _ = reply.remove(0);
                return Ok(reply);
            }
            match self.answered.wait_killable_timeout(SLICE) {
                Err(error) if error != ETIMEDOUT => {
                    turn.unanswered = true;
                    return Err(error);
                }
                _ if start.elapsed() > PATIENCE => {
                    turn.unanswered = true;
                    return Err(ETIMEDOUT);
                }
                _ => {}
            }
        }
    }

    /// Returns the answer to the command under way, if there is one.
    fn answer(&self) -> Result<Option<Used<Exchange>>> {
        let mut vq = self.queue.lock_bh().ok_or(ENODEV)?;

        match vq.get_buf() {
            Some(used) => Ok(Some(used)),
            None if vq.is_broken() => Err(EIO),
            None => Ok(None),
        }
    }
}

/// Returns the number of packets and of microseconds as a device reads them.
fn coalescing(moderation: Moderation) -> [[u8; 4]; 2] {
    [
        moderation.frames.to_le_bytes(),
        moderation.usecs.to_le_bytes(),
    ]
}

/// Appends the number of addresses and the addresses.
fn push_addresses(table: &mut KVec<u8>, addrs: &[[u8; 6]]) -> Result {
    table.extend_from_slice(&u32::try_from(addrs.len())?.to_le_bytes(), GFP_KERNEL)?;
    table.extend_from_slice(addrs.as_flattened(), GFP_KERNEL)?;
    Ok(())
}
