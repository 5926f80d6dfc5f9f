// SPDX-License-Identifier: GPL-2.0

//! The commands of the control queue (VirtIO 1.3, 5.1.6.5).

use super::{
    feature,
    Coalescing,
    Net,
    Point, //
};

/// Classes of statistics: those that a card here has.
const RX_BASIC: u8 = 0;
const RX_SPEED: u8 = 3;
const TX_BASIC: u8 = 16;
const TX_GSO: u8 = 18;
const CONTROL: u8 = 32;
const STATISTICS: [u8; 5] = [RX_BASIC, RX_SPEED, TX_BASIC, TX_GSO, CONTROL];

const OK: u8 = 0;
const ERR: u8 = 1;

/// A command of the driver's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its class.
    pub class: u8,
    /// Its number in that.
    pub number: u8,
    /// What came with it.
    pub data: Vec<u8>,
    /// Whether it was carried out.
    pub done: bool,
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn coalescing_at(data: &[u8], at: usize) -> Option<Coalescing> {
    Some(Coalescing {
        max_packets: u32_at(data, at)?,
        max_usecs: u32_at(data, at + 4)?,
    })
}

impl Net {
    /// Carries out a command, and returns the answer, for which there is so much `room`: how it went, and what was asked for.
    pub(super) fn command(&mut self, request: &[u8], room: usize) -> Vec<u8> {
        let Some(([class, number], data)) = request.split_first_chunk() else {
            return vec![ERR; room.min(1)];
        };
        let result = self.carry_out(*class, *number, data);

        self.commands.push(Command {
            class: *class,
            number: *number,
            data: data.to_vec(),
            done: result.is_some(),
        });
        let status = if result.is_some() { OK } else { ERR };
        let mut reply = vec![status];
        reply.extend(result.unwrap_or_default());
        reply.truncate(room);
        reply
    }

    /// Carries out a command, and returns what was asked for; [`None`] if the driver cannot have that.
    fn carry_out(&mut self, class: u8, number: u8, data: &[u8]) -> Option<Vec<u8>> {
        let needed = match class {
            0 => feature::CTRL_RX,
            1 if number == 1 => feature::CTRL_MAC_ADDR,
            1 => feature::CTRL_RX,
            2 => feature::CTRL_VLAN,
            4 => feature::MQ,
            6 if number < 2 => feature::NOTF_COAL,
            6 => feature::VQ_NOTF_COAL,
            8 => feature::DEVICE_STATS,
            _ => return None,
        };
        if !self.has(needed) {
            return None;
        }

        match (class, number) {
            (0, 0..=5) if data.len() == 1 => {}
            (1, 0) => {}
            (1, 1) => self.address = data.try_into().ok()?,
            (2, 0 | 1) if u16_at(data, 0)? < 4096 => {}
            (4, 0) if (1..=self.pairs).contains(&u16_at(data, 0)?) => {}
            // Of all queues that send, or all that receive.
            (6, 0 | 1) => {
                let coalescing = coalescing_at(data, 0)?;
                let first = usize::from(number == 0);
                let pairs = usize::from(self.pairs);
                for queue in self.queues[..pairs * 2].iter_mut().skip(first).step_by(2) {
                    queue.coalescing = coalescing;
                }
            }
            (6, 2) => self.queue_at(data)?.coalescing = coalescing_at(data, 4)?,
            (6, 3) => {
                let coalescing = self.queue_at(data)?.coalescing;
                let mut reply = data.get(..4)?.to_vec();
                reply.extend(coalescing.max_packets.to_le_bytes());
                reply.extend(coalescing.max_usecs.to_le_bytes());
                return Some(reply);
            }
            (8, 0) => {
                let classes = STATISTICS
                    .iter()
                    .fold(0u64, |mask, class| mask | (1 << class));
                return Some(classes.to_le_bytes().to_vec());
            }
            (8, 1) => return self.statistics(data),
            _ => return None,
        }
        Some(Vec::new())
    }

    /// What a request for statistics asks for.
    fn statistics(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let control = self.control_queue();
        let mut reply = Vec::new();

        for request in data.chunks(16) {
            let index = u16_at(request, 0)?;
            let mask = u64::from_le_bytes(request.get(8..16)?.try_into().ok()?);
            let of_queue = match usize::from(index) {
                queue if queue == control => [CONTROL, CONTROL],
                queue if queue > control => return None,
                queue if queue % 2 == 0 => [RX_BASIC, RX_SPEED],
                _ => [TX_BASIC, TX_GSO],
            };

            for class in of_queue.iter().filter(|&class| mask & (1 << class) != 0) {
                let values = self.values(*class, &self.queues[usize::from(index)]);
                let size = self
                    .script
                    .bend(Point::StatsSize, 8 + values.len() as u64 * 8);
                let index = self.script.bend(Point::StatsQueue, index.into());
                reply.extend([*class, 0]);
                reply.extend((index as u16).to_le_bytes());
                reply.extend([0, 0]);
                reply.extend((size as u16).to_le_bytes());
                reply.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                if of_queue[0] == of_queue[1] {
                    break;
                }
            }
        }
        Some(reply)
    }

    /// The values of a class of statistics, in their order.
    fn values(&self, class: u8, queue: &super::QueueState) -> Vec<u64> {
        match class {
            RX_BASIC | TX_BASIC => {
                vec![
                    queue.kicks,
                    queue.packets,
                    queue.bytes,
                    queue.interrupts,
                    0,
                    0,
                ]
            }
            // What it could have been and is not here.
            RX_SPEED => vec![11, 22],
            TX_GSO => vec![31, 32, 33, 34, 35, 36],
            _ => {
                let done = self.commands.iter().filter(|command| command.done).count();
                vec![self.commands.len() as u64, done as u64]
            }
        }
    }

    /// The queue that a command names, which is one for packets.
    fn queue_at(&mut self, data: &[u8]) -> Option<&mut super::QueueState> {
        let pairs = usize::from(self.pairs);

        self.queues[..pairs * 2].get_mut(usize::from(u16_at(data, 0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Model;

    /// A card of two pairs whose driver has accepted everything.
    fn card() -> Net {
        let mut net = Net::new(2);
        net.begin(u64::MAX);
        net
    }

    #[test]
    fn an_answer_ends_where_the_room_does() {
        let mut net = card();

        assert_eq!(net.command(&[0, 0, 1], 1), [OK]);
        assert_eq!(net.command(&[0, 0], 1), [ERR]);
        assert_eq!(net.command(&[0], 1), [ERR]);
        assert_eq!(net.command(&[], 0), []);
        assert_eq!(net.command(&[99, 0], 1), [ERR]);
        assert_eq!(net.commands.len(), 3);
        assert!(net.commands[0].done && !net.commands[1].done);
    }

    #[test]
    fn coalescing_is_for_one_queue_or_for_all_of_a_direction() {
        let mut net = card();
        let message =
            |packets: u32, usecs: u32| [packets.to_le_bytes(), usecs.to_le_bytes()].concat();
        let of = |net: &Net| -> Vec<_> {
            net.queues
                .iter()
                .map(|queue| queue.coalescing.max_packets)
                .collect()
        };

        assert_eq!(
            net.command(&[&[6, 0][..], &message(5, 50)].concat(), 1),
            [OK]
        );
        assert_eq!(of(&net), [0, 5, 0, 5, 0]);
        assert_eq!(
            net.command(&[&[6, 1][..], &message(7, 70)].concat(), 1),
            [OK]
        );
        assert_eq!(of(&net), [7, 5, 7, 5, 0]);
        assert_eq!(
            net.command(&[&[6, 2, 3, 0, 0, 0][..], &message(9, 90)].concat(), 1),
            [OK]
        );
        assert_eq!(of(&net), [7, 5, 7, 9, 0]);
        assert_eq!(
            net.command(&[6, 3, 3, 0, 0, 0], 20),
            [OK, 3, 0, 0, 0, 9, 0, 0, 0, 90, 0, 0, 0]
        );
        // The control queue has none.
        assert_eq!(
            net.command(&[&[6, 2, 4, 0, 0, 0][..], &message(1, 1)].concat(), 1),
            [ERR]
        );
    }

    #[test]
    fn nothing_is_done_that_was_not_negotiated() {
        let mut net = Net::new(2);

        net.begin(1 << feature::CTRL_VQ);
        assert_eq!(net.command(&[4, 0, 2, 0], 1), [ERR]);
        net.begin((1 << feature::CTRL_VQ) | (1 << feature::MQ));
        assert_eq!(net.command(&[4, 0, 2, 0], 1), [OK]);
        assert_eq!(net.command(&[4, 0, 3, 0], 1), [ERR]);
        assert_eq!(net.command(&[4, 0, 0, 0], 1), [ERR]);
    }
}
