// SPDX-License-Identifier: GPL-2.0

//! A queue of a device of QEMU's, as the driver has laid it out in the guest's memory (VirtIO 1.3, 2.7 and 2.8).

use super::Guest;
use anyhow::{
    Context,
    Result, //
};
use qapi::qmp;
use std::fs;

/// The length of a descriptor, in split rings and in packed ones.
const DESCRIPTOR: usize = 16;

/// `flags` of a descriptor in a split ring: another one follows.
const NEXT: u16 = 1;

/// `flags` of a descriptor in a packed ring: the device has used it. Only in the ring's first round.
const USED: u16 = 1 << 15;

/// A queue at some moment.
pub struct Ring {
    /// How many buffers the device has used, modulo 2^16.
    pub used: u16,
    /// Where its parts lie in the memory that the device sees.
    parts: [u64; 3],
    descriptors: Vec<u8>,
    available: Vec<u8>,
}

/// What the driver has made available at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its first descriptor.
    pub head: u16,
    /// How many descriptors of the ring it has.
    pub descriptors: u32,
    /// How long the buffers of these are together.
    pub len: u32,
}

impl Ring {
    fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    }

    fn size(&self) -> usize {
        self.descriptors.len() / DESCRIPTOR
    }

    /// The chain in a split ring that begins with a descriptor.
    fn chain(&self, head: u16) -> Option<Chain> {
        let mut chain = Chain {
            head,
            descriptors: 0,
            len: 0,
        };
        let mut at = usize::from(head) * DESCRIPTOR;

        for _ in 0..self.size() {
            let len = self.descriptors.get(at + 8..at + 12)?.try_into().ok()?;
            chain.len = chain.len.saturating_add(u32::from_le_bytes(len));
            chain.descriptors += 1;
            if Self::u16_at(&self.descriptors, at + 12)? & NEXT == 0 {
                return Some(chain);
            }
            at = usize::from(Self::u16_at(&self.descriptors, at + 14)?) * DESCRIPTOR;
        }
        None
    }

    /// The chains of a split ring that the driver has made available last, `count` at most, the newest one last.
    pub fn newest(&self, count: u16) -> Result<Vec<Chain>> {
        let end = Self::u16_at(&self.available, 2).context("the index")?;

        (end.saturating_sub(count)..end)
            .map(|index| {
                let at = 4 + usize::from(index) % self.size().max(1) * 2;
                let head = Self::u16_at(&self.available, at)?;
                self.chain(head)
            })
            .collect::<Option<_>>()
            .context("a chain that is none")
    }

    /// Where its parts and all buffers lie of which its descriptors have told the device.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        let buffers = self
            .descriptors
            .chunks_exact(DESCRIPTOR)
            .filter_map(|descriptor| Some(u64::from_le_bytes(descriptor[..8].try_into().ok()?)))
            .filter(|&address| address != 0);

        self.parts.into_iter().chain(buffers)
    }

    /// How many descriptors say themselves that they are used, as they do in a packed ring.
    pub fn used_marks(&self) -> usize {
        self.descriptors
            .chunks(DESCRIPTOR)
            .filter(|descriptor| {
                Self::u16_at(descriptor, 14).is_some_and(|flags| flags & USED != 0)
            })
            .count()
    }
}

impl Guest {
    /// A queue of a device of QEMU's, now. The driver may go on meanwhile.
    pub fn ring(&mut self, id: &str, queue: u16) -> Result<Ring> {
        let status = self.qmp(qmp::x_query_virtio_queue_status {
            path: format!("{}/virtio-backend", Self::qom_path(id)),
            queue,
        })?;
        let size = u64::from(status.vring_num);

        Ok(Ring {
            parts: [status.vring_desc, status.vring_avail, status.vring_used],
            descriptors: self.physical(status.vring_desc, size * DESCRIPTOR as u64)?,
            available: self.physical(status.vring_avail, 4 + size * 2)?,
            used: status.used_idx,
        })
    }

    /// What lies in the guest's memory.
    fn physical(&mut self, address: u64, size: u64) -> Result<Vec<u8>> {
        let file = self.socket("memory");

        self.qmp(qmp::pmemsave {
            filename: file.display().to_string(),
            size,
            val: address,
        })?;
        let bytes = fs::read(&file).context("what QEMU has saved")?;
        fs::remove_file(&file)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A split ring of four, of whose descriptors `(len, flags, next)` some are available.
    fn ring(descriptors: [(u32, u16, u16); 4], end: u16, available: [u16; 4]) -> Ring {
        let words = |words: &[u16]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };

        Ring {
            used: 0,
            parts: [0x1000, 0x2000, 0x3000],
            descriptors: descriptors
                .iter()
                .flat_map(|(len, flags, next)| {
                    let address = u64::from(*len) << 32;
                    [
                        &address.to_le_bytes()[..],
                        &len.to_le_bytes(),
                        &words(&[*flags, *next]),
                    ]
                    .concat()
                })
                .collect(),
            available: [words(&[0, end]), words(&available)].concat(),
        }
    }

    fn chain(head: u16, descriptors: u32, len: u32) -> Chain {
        Chain {
            head,
            descriptors,
            len,
        }
    }

    #[test]
    fn chains_are_followed_to_their_ends() -> Result<()> {
        let descriptors = [(12, NEXT, 3), (60, 0, 2), (70, 0, 3), (100, 0, 0)];
        let ring = ring(descriptors, 5, [2, 1, 0, 1]);

        // The fifth one is where the first one was.
        assert_eq!(
            ring.newest(3)?,
            [chain(0, 2, 112), chain(1, 1, 60), chain(2, 1, 70)]
        );
        assert_eq!(ring.newest(9)?.len(), 5);
        assert_eq!(ring.used_marks(), 0);
        Ok(())
    }

    #[test]
    fn addresses_are_those_of_parts_and_buffers() {
        let ring = ring([(1, NEXT, 1), (2, 0, 0), (0, 0, 0), (0, 0, 0)], 1, [0; 4]);
        let addresses: Vec<_> = ring.addresses().collect();

        // The last two descriptors were never used.
        assert_eq!(addresses, [0x1000, 0x2000, 0x3000, 1 << 32, 2 << 32]);
    }

    #[test]
    fn what_is_no_chain_is_an_error() {
        assert!(ring([(1, NEXT, 0); 4], 1, [0; 4]).newest(1).is_err());
        assert!(ring([(1, NEXT, 4); 4], 1, [0; 4]).newest(1).is_err());
        assert!(ring([(1, 0, 0); 4], 1, [4; 4]).newest(1).is_err());
    }

    #[test]
    fn marks_of_a_packed_ring_are_counted() {
        let ring = ring(
            [(1, 0, 0x8080), (1, 1, 0x8080), (1, 2, 0x0080), (1, 0, 0)],
            0,
            [0; 4],
        );

        assert_eq!(ring.used_marks(), 2);
    }
}
