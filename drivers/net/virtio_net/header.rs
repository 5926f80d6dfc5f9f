// SPDX-License-Identifier: GPL-2.0

//! The header before each packet (VirtIO 1.3, 5.1.6).
//!
//! On transmit it tells the device what the stack leaves to it; on receive it tells the stack what the device has left
//! undone, or done already. What a device says is checked in one place, [`Header::received`], against the packet it
//! belongs to.
//!
//! This file uses nothing but `core`.

/// The header is this long when it counts buffers: with VIRTIO_F_VERSION_1 or VIRTIO_NET_F_MRG_RXBUF.
pub(crate) const LEN: usize = 12;

/// The header of a legacy device without mergeable buffers.
pub(crate) const LEGACY_LEN: usize = 10;

/// The header is this long when it has a hash: with VIRTIO_NET_F_HASH_REPORT.
pub(crate) const HASH_LEN: usize = 20;

/// The header is this long when it says where a tunnel's headers are: with VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO or
/// VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO.
pub(crate) const TUNNEL_LEN: usize = 24;

/// No header is longer.
pub(crate) const MAX_LEN: usize = TUNNEL_LEN;

/// `flags`: a checksum is missing, at `csum_start` plus `csum_offset`.
pub(crate) const NEEDS_CSUM: u8 = 1;

/// `flags`: the device has verified the checksums.
pub(crate) const DATA_VALID: u8 = 2;

/// `flags`: the UDP header of the tunnel has a checksum. With [`DATA_VALID`]: and those in the tunnel are verified too.
pub(crate) const TUNNEL_CSUM: u8 = 8;

/// The `flags` that say more of a packet than whether it is verified.
pub(crate) const UNUSUAL: u8 = NEEDS_CSUM | TUNNEL_CSUM;

/// `gso_type`: an ordinary packet.
pub(crate) const GSO_NONE: u8 = 0;

/// `gso_type`: TCP over IPv4.
pub(crate) const GSO_TCPV4: u8 = 1;

/// `gso_type`: UDP, cut into IP fragments.
pub(crate) const GSO_UDP: u8 = 3;

/// `gso_type`: TCP over IPv6.
pub(crate) const GSO_TCPV6: u8 = 4;

/// `gso_type`: UDP, each segment a packet of its own.
pub(crate) const GSO_UDP_L4: u8 = 5;

/// `gso_type`, added to one of TCP: the CWR bit is set.
pub(crate) const GSO_ECN: u8 = 0x80;

/// `gso_type`, added to one of TCP or UDP: it is in a UDP tunnel over IPv4.
pub(crate) const GSO_TUNNEL_IPV4: u8 = 0x20;

/// `gso_type`, added to one of TCP or UDP: it is in a UDP tunnel over IPv6.
pub(crate) const GSO_TUNNEL_IPV6: u8 = 0x40;

/// `gso_type`: the bits that say that it is in a tunnel.
pub(crate) const GSO_TUNNEL: u8 = GSO_TUNNEL_IPV4 | GSO_TUNNEL_IPV6;

/// The length of an IPv4 header without options: no transport header begins before that.
const MIN_NETWORK_HEADER: u16 = 20;

/// The length of a checksum.
const CHECKSUM_LEN: u32 = 2;

/// What a header has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// What packets need that are left to the device in part: [`LEGACY_LEN`].
    Short,
    /// It counts buffers as well: [`LEN`].
    Long,
    /// And it has a hash: [`HASH_LEN`].
    Hash,
    /// And it says where a tunnel's headers are: [`TUNNEL_LEN`].
    Tunnel,
}

/// How a device wants and writes headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    /// What a header has.
    pub(crate) layout: Layout,
    /// The fields are big endian: a legacy device's are the guest's.
    pub(crate) big_endian: bool,
}

impl Format {
    /// Returns the format for a device: `modern` with VIRTIO_F_VERSION_1, `mergeable` with VIRTIO_NET_F_MRG_RXBUF, `hash` with
    /// VIRTIO_NET_F_HASH_REPORT, and `tunnel` with VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO or VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO, all of
    /// which only a modern one has.
    pub(crate) const fn new(modern: bool, mergeable: bool, hash: bool, tunnel: bool) -> Self {
        Self {
            layout: if modern && tunnel {
                Layout::Tunnel
            } else if modern && hash {
                Layout::Hash
            } else if modern || mergeable {
                Layout::Long
            } else {
                Layout::Short
            },
            big_endian: !modern && cfg!(target_endian = "big"),
        }
    }

    /// Returns whether there is a place for a hash.
    #[inline]
    pub(crate) const fn has_hash(self) -> bool {
        matches!(self.layout, Layout::Hash | Layout::Tunnel)
    }

    /// Returns the length of a header.
    pub(crate) const fn len(&self) -> usize {
        match self.layout {
            Layout::Short => LEGACY_LEN,
            Layout::Long => LEN,
            Layout::Hash => HASH_LEN,
            Layout::Tunnel => TUNNEL_LEN,
        }
    }
}

/// Where a checksum is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checksum {
    /// Where the bytes to sum begin.
    pub(crate) start: u16,
    /// Where the sum goes, from `start`.
    pub(crate) offset: u16,
}

/// A tunnel that a packet is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tunnel {
    /// It is one over IPv6, not IPv4.
    pub(crate) ipv6: bool,
    /// Its UDP header has a checksum.
    pub(crate) checksum: bool,
    /// Where its UDP header begins.
    pub(crate) outer_transport: u16,
    /// Where the IP header inside of it begins.
    pub(crate) inner_network: u16,
}

/// What the device has to say about the checksums of a received packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing.
    Unknown,
    /// They are right.
    Verified,
    /// That of a tunnel and those of the packet in it are right.
    VerifiedInTunnel,
    /// One is missing, and the packet never was on a wire.
    Missing(Checksum),
}

/// A received packet's header, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    /// What is known of its checksums.
    pub(crate) verdict: Verdict,
    /// Over how many buffers the packet is spread: at least 1.
    pub(crate) buffers: u16,
    /// It is several packets in one, which the header describes further.
    pub(crate) segmented: bool,
}

/// What is wrong with a received header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It asks for something that was not negotiated, or that there is not.
    NotNegotiated,
    /// The checksum would lie outside the packet.
    Checksum,
    /// It counts no buffers, or more than the ring has.
    Buffers,
}

/// What was negotiated, as far as received headers are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rules {
    /// Packets may lack a checksum: VIRTIO_NET_F_GUEST_CSUM.
    pub(crate) missing_checksums: bool,
    /// Packets may be spread over buffers: VIRTIO_NET_F_MRG_RXBUF.
    pub(crate) mergeable: bool,
    /// The most buffers that the ring holds.
    pub(crate) max_buffers: u16,
    /// What a packet may consist of.
    pub(crate) segments: Segments,
}

/// Which packets may come several in one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Segments {
    /// TCP over IPv4: VIRTIO_NET_F_GUEST_TSO4.
    pub(crate) tcp4: bool,
    /// TCP over IPv6: VIRTIO_NET_F_GUEST_TSO6.
    pub(crate) tcp6: bool,
    /// TCP with the CWR bit: VIRTIO_NET_F_GUEST_ECN.
    pub(crate) ecn: bool,
    /// UDP in IP fragments: VIRTIO_NET_F_GUEST_UFO.
    pub(crate) fragments: bool,
    /// UDP: VIRTIO_NET_F_GUEST_USO4 or VIRTIO_NET_F_GUEST_USO6, which the header does not tell apart.
    pub(crate) udp: bool,
    /// These but fragments, in UDP tunnels: VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO.
    pub(crate) tunnel: bool,
    /// The tunnels can have checksums: VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM.
    pub(crate) tunnel_checksum: bool,
}

impl Segments {
    /// Returns whether a packet may come with this `gso_type` and these `flags`.
    fn allow(&self, gso_type: u8, flags: u8) -> bool {
        let ecn = gso_type & GSO_ECN != 0;
        let tunnel = gso_type & GSO_TUNNEL;

        if tunnel != 0 {
            // Its headers are found from where a checksum is missing.
            let open = flags & (NEEDS_CSUM | DATA_VALID) == NEEDS_CSUM;
            let known = self.tunnel && (self.tunnel_checksum || flags & TUNNEL_CSUM == 0);

            if !open || !known || tunnel == GSO_TUNNEL || gso_type & !GSO_TUNNEL == GSO_UDP {
                return false;
            }
        }
        match gso_type & !(GSO_ECN | GSO_TUNNEL) {
            GSO_TCPV4 => self.tcp4 && (!ecn || self.ecn),
            GSO_TCPV6 => self.tcp6 && (!ecn || self.ecn),
            GSO_UDP => self.fragments && !ecn,
            GSO_UDP_L4 => self.udp && !ecn,
            _ => false,
        }
    }
}

/// What the device has computed over the headers of a received packet (5.1.6.4.3): each flow has its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hash {
    pub(crate) value: u32,
    /// It is over addresses of IPv6, not IPv4.
    pub(crate) ipv6: bool,
    /// It is over what an extension header says.
    pub(crate) extended: bool,
    /// Whose ports it is over as well.
    pub(crate) ports: Option<Transport>,
}

/// What has ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Hash {
    /// Reads what follows [`LEN`] bytes of header. A device may well have none.
    #[inline]
    pub(crate) fn from_bytes(&[a, b, c, d, report_0, report_1, _, _]: &[u8; 8]) -> Option<Self> {
        let kind = u16::from_le_bytes([report_0, report_1])
            .checked_sub(1)
            .filter(|&kind| kind < 9)?;

        Some(Self {
            value: u32::from_le_bytes([a, b, c, d]),
            ipv6: kind >= 3,
            extended: kind >= 6,
            ports: match kind % 3 {
                0 => None,
                1 => Some(Transport::Tcp),
                _ => Some(Transport::Udp),
            },
        })
    }
}

/// A header.
// In whole words: with twelve bytes receiving a packet takes 20 instructions more (`scripts/harness bench net/receive-small`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(align(8))]
pub(crate) struct Header {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) hdr_len: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
    pub(crate) num_buffers: u16,
}

/// The memory that the header of a packet to send lies in: zeros to begin with, of which the device gets as many as the
/// [format](Format::len) says.
pub(crate) trait Place {
    /// Writes bytes from `AT` on, none of them after the first [`LEGACY_LEN`].
    fn put<const AT: usize, const N: usize>(&mut self, bytes: [u8; N]);

    /// Writes the last bytes.
    fn put_last<const N: usize>(&mut self, bytes: [u8; N]);
}

/// The header of a packet to send, field by field, as soon as they are known. With `BIG_ENDIAN` its numbers are.
pub(crate) struct Draft<'a, P, const BIG_ENDIAN: bool> {
    place: &'a mut P,
    flags: u8,
    gso_type: u8,
}

impl<'a, P: Place, const BIG_ENDIAN: bool> Draft<'a, P, BIG_ENDIAN> {
    /// Begins one that leaves nothing to the device.
    #[inline]
    pub(crate) fn new(place: &'a mut P) -> Self {
        Self {
            place,
            flags: 0,
            gso_type: GSO_NONE,
        }
    }

    /// Returns where it lies.
    #[inline]
    pub(crate) fn place(&self) -> &P {
        self.place
    }

    #[inline]
    fn put_number<const AT: usize>(&mut self, number: u16) {
        self.place.put::<AT, 2>(if BIG_ENDIAN {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        });
    }

    /// Leaves a checksum to the device: over the bytes from `start` on, to be put `offset` after that.
    #[inline]
    pub(crate) fn leave_checksum(&mut self, start: u16, offset: u16) {
        self.flags = NEEDS_CSUM;
        self.place.put::<0, 1>([self.flags]);
        self.put_number::<6>(start);
        self.put_number::<8>(offset);
    }

    /// Leaves it to the device to cut the packet: `gso_type` is one of the `GSO_` constants, `size` the payload of each segment, and
    /// `header_len` how long the headers are that each gets. The last may be too much where a device does not rely on it, which is
    /// without VIRTIO_NET_F_GUEST_HDRLEN.
    #[inline]
    pub(crate) fn leave_cutting(&mut self, gso_type: u8, size: u16, header_len: u16) {
        self.gso_type = gso_type;
        self.place.put::<1, 1>([gso_type]);
        self.put_number::<2>(header_len);
        self.put_number::<4>(size);
    }

    /// Says that a packet that is left to be cut is in a tunnel, in a [layout](Layout::Tunnel) that has the place for that.
    #[inline]
    pub(crate) fn put_into(self, tunnel: Tunnel) {
        let kind = if tunnel.ipv6 {
            GSO_TUNNEL_IPV6
        } else {
            GSO_TUNNEL_IPV4
        };
        let checksum = if tunnel.checksum { TUNNEL_CSUM } else { 0 };
        // Only a modern device knows tunnels, and its numbers are little endian.
        let [a, b] = tunnel.outer_transport.to_le_bytes();
        let [c, d] = tunnel.inner_network.to_le_bytes();

        self.place
            .put::<0, 2>([self.flags | checksum, self.gso_type | kind]);
        self.place.put_last([a, b, c, d]);
    }
}

impl Header {
    /// Returns the bytes for a device. A [short](Layout::Short) layout uses the first [`LEGACY_LEN`]; after them comes the
    /// room for a hash, which means nothing in this direction.
    #[inline]
    pub(crate) fn to_bytes(self, format: Format) -> [u8; LEN] {
        let Self {
            flags,
            gso_type,
            hdr_len,
            gso_size,
            csum_start,
            csum_offset,
            num_buffers,
        } = if format.big_endian {
            self.swapped()
        } else {
            self
        };
        // Two numbers are two stores, where twelve bytes would be twelve.
        let first = u64::from(flags)
            | (u64::from(gso_type) << 8)
            | (u64::from(hdr_len) << 16)
            | (u64::from(gso_size) << 32)
            | (u64::from(csum_start) << 48);
        let second = u32::from(csum_offset) | (u32::from(num_buffers) << 16);
        let mut bytes = [0; LEN];
        let (head, tail) = bytes.split_at_mut(size_of::<u64>());

        head.copy_from_slice(&first.to_le_bytes());
        tail.copy_from_slice(&second.to_le_bytes());
        bytes
    }

    /// The header for a device that reads numbers from the other end.
    #[cold]
    fn swapped(self) -> Self {
        Self {
            flags: self.flags,
            gso_type: self.gso_type,
            hdr_len: self.hdr_len.swap_bytes(),
            gso_size: self.gso_size.swap_bytes(),
            csum_start: self.csum_start.swap_bytes(),
            csum_offset: self.csum_offset.swap_bytes(),
            num_buffers: self.num_buffers.swap_bytes(),
        }
    }

    /// Reads the bytes of a device. Of a [short](Layout::Short) layout the last two are not the device's and are ignored.
    #[inline]
    pub(crate) fn from_bytes(bytes: &[u8; LEN], format: Format) -> Self {
        let [flags, gso_type, a0, a1, b0, b1, c0, c1, d0, d1, e0, e1] = *bytes;
        let mut header = Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([a0, a1]),
            gso_size: u16::from_le_bytes([b0, b1]),
            csum_start: u16::from_le_bytes([c0, c1]),
            csum_offset: u16::from_le_bytes([d0, d1]),
            num_buffers: u16::from_le_bytes([e0, e1]),
        };

        if format.big_endian {
            header = header.swapped();
        }
        if format.layout == Layout::Short {
            header.num_buffers = 0;
        }
        header
    }

    /// Returns whether a header that begins with these says nothing of a packet but whether it was verified, and over how many
    /// buffers it is spread: then the rest of its bytes are to be taken as 0.
    #[inline]
    pub(crate) const fn is_plain(flags: u8, gso_type: u8) -> bool {
        gso_type == GSO_NONE && flags & UNUSUAL == 0
    }

    /// Checks the header of a received packet, of which `len` bytes lie in the first buffer, without the header.
    ///
    /// Of a packet that is several in one, this says no more than that it may come; whether its segments are what the header
    /// says is seen when the packet's own headers are looked at.
    // Called, it takes 48 instructions more (`scripts/harness bench net/receive-small`).
    #[inline(always)]
    pub(crate) fn received(&self, len: u32, rules: &Rules) -> Result<Received, Fault> {
        let segmented = self.gso_type != GSO_NONE;
        if segmented && !rules.segments.allow(self.gso_type, self.flags) {
            return Err(Fault::NotNegotiated);
        }

        let buffers = match (rules.mergeable, self.num_buffers) {
            (false, _) => 1,
            (true, buffers) if (1..=rules.max_buffers).contains(&buffers) => buffers,
            (true, _) => return Err(Fault::Buffers),
        };

        let verdict = if self.flags & NEEDS_CSUM != 0 {
            if !rules.missing_checksums {
                return Err(Fault::NotNegotiated);
            }
            let end = u32::from(self.csum_start) + u32::from(self.csum_offset) + CHECKSUM_LEN;
            if self.csum_start < MIN_NETWORK_HEADER || (buffers == 1 && end > len) {
                return Err(Fault::Checksum);
            }
            Verdict::Missing(Checksum {
                start: self.csum_start,
                offset: self.csum_offset,
            })
        } else if self.flags & DATA_VALID != 0 {
            // Flags that mean nothing are ignored (5.1.6.4.2).
            if self.flags & TUNNEL_CSUM != 0 && rules.segments.tunnel_checksum {
                Verdict::VerifiedInTunnel
            } else {
                Verdict::Verified
            }
        } else {
            Verdict::Unknown
        };

        Ok(Received {
            verdict,
            buffers,
            segmented,
        })
    }
}
