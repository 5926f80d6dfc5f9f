// SPDX-License-Identifier: GPL-2.0

//! Tests of single feature bits: a card that has all but one of them is plugged into a guest that runs, and something that can be
//! seen at one end or the other is different. The C driver passes the same test.

use super::{
    net::{
        appears,
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload::MOVE,
    plug::{
        has,
        replace,
        PLUG, //
    },
    Driver,
    Test, //
};
use crate::{
    fixtures,
    guest::{
        Guest,
        Lab,
        Spec, //
    },
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
/// What a packet is, for the program `segment`.
pub type Kind = &'static str;

/// A feature, and how it shows.
struct Row {
    bit: u32,
    /// The properties of QEMU's card that take it away.
    off: &'static str,
    /// Whether it is about what the guest receives.
    inward: bool,
    /// A packet that is in one piece only with this feature, and otherwise in four; if there is none, the feature is about
    /// checksums.
    whole: Option<Kind>,
}

const ROWS: [Row; 10] = [
    Row {
        bit: 0,
        off: "csum=off",
        inward: false,
        whole: None,
    },
    Row {
        bit: 1,
        off: "guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_uso4=off,guest_uso6=off",
        inward: true,
        whole: None,
    },
    Row {
        bit: 7,
        off: "guest_tso4=off",
        inward: true,
        whole: Some("tcp4"),
    },
    Row {
        bit: 8,
        off: "guest_tso6=off",
        inward: true,
        whole: Some("tcp6"),
    },
    Row {
        bit: 9,
        off: "guest_ecn=off",
        inward: true,
        whole: Some("ecn4"),
    },
    Row {
        bit: 11,
        off: "host_tso4=off",
        inward: false,
        whole: Some("tcp4"),
    },
    Row {
        bit: 12,
        off: "host_tso6=off",
        inward: false,
        whole: Some("tcp6"),
    },
    Row {
        bit: 13,
        off: "host_ecn=off",
        inward: false,
        whole: Some("ecn4"),
    },
    // A tap interface has both or none.
    Row {
        bit: 54,
        off: "guest_uso4=off,guest_uso6=off",
        inward: true,
        whole: Some("udp4"),
    },
    Row {
        bit: 56,
        off: "host_uso=off",
        inward: false,
        whole: Some("udp4"),
    },
];

pub fn tests() -> Vec<Test> {
    [RUST, C]
        .map(|driver| {
            Test::guest(
                format!("net/{}/bits", driver.module),
                300,
                Spec::q35().port().tap(1, &format!("{MODERN},bus=port0")),
                move |guest, lab| bits(guest, lab, driver),
            )
        })
        .into()
}

/// Has the interface receive, in pieces as they come.
pub fn up(guest: &mut Guest) -> Result<()> {
    appears(guest)?;
    guest.sh(&format!("ethtool -K eth0 gro off && {IP} link set eth0 up"))?;
    guest.wait_for("the link", PLUG, |guest| {
        Ok((guest.sh("cat /sys/class/net/eth0/carrier")? == "1").then_some(()))
    })
}

/// What arrives when a packet to be cut is sent, and then a small one without a checksum: how many packets the first has become, and
/// whether the checksum of the other one is still missing.
pub fn arrives(guest: &mut Guest, lab: &Lab, inward: bool, kind: Kind) -> Result<(usize, bool)> {
    const CAPTURE: &str = "tcpdump -Z root -vv -n -l -c 9 port 9";
    // A line of each packet has this.
    const LINE: &str = ".9: ";
    // The beginning of no other length: those are 1000 and 4000.
    const SMALL: &str = "UDP, length 64";

    let mac = guest.sh("cat /sys/class/net/eth0/address")?;
    let seen = lab.log.with_extension("seen");
    let seen = seen.display();
    let (capture, send) = if inward {
        let program = fixtures::program(&lab.env, "segment");
        (
            format!("rm -f /tmp/seen; {CAPTURE} -Q in -i eth0 >/tmp/seen 2>/tmp/says & echo $! >/run/tcpdump"),
            format!("{} tap0 {mac} {kind}", program.display()),
        )
    } else {
        (
            format!("rm -f {seen}; timeout 60 {CAPTURE} -Q in -i tap0 >{seen} 2>{seen}.says & echo $! >{seen}.pid"),
            format!("segment eth0 52:54:00:00:00:99 {kind}"),
        )
    };
    let read = |guest: &mut Guest, file: &str| -> Result<String> {
        let (inside, outside) = match file {
            "says" => ("/tmp/says".to_owned(), format!("{seen}.says")),
            _ => ("/tmp/seen".to_owned(), seen.to_string()),
        };
        if inward {
            guest.sh(&format!("cat {inside}"))
        } else {
            guest.outside().sh(MOVE, &format!("cat {outside}"))
        }
    };

    if inward {
        guest.sh(&capture)?;
    } else {
        guest.outside().sh(MOVE, &capture)?;
    }
    guest.wait_for("tcpdump", PLUG, |guest| {
        Ok(read(guest, "says")?.contains("listening on").then_some(()))
    })?;
    if inward {
        guest.outside().sh(MOVE, &send)?;
    } else {
        guest.sh(&send)?;
    }
    let text = guest.wait_for("the packets", PLUG, |guest| {
        let text = read(guest, "seen")?;
        Ok(text.contains(SMALL).then_some(text))
    })?;
    if inward {
        guest.sh("kill $(cat /run/tcpdump)")?;
    } else {
        guest.outside().sh(
            MOVE,
            &format!("kill $(cat {seen}.pid); rm -f {seen} {seen}.says {seen}.pid"),
        )?;
    }

    let packets: Vec<_> = text.lines().filter(|line| line.contains(LINE)).collect();
    let small = packets
        .iter()
        .find(|line| line.contains(SMALL))
        .with_context(|| text.clone())?;
    Ok((packets.len() - 1, small.contains("bad udp cksum")))
}

/// Each feature shows, and its lack as well.
fn bits(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    up(guest)?;
    for Row {
        bit, inward, whole, ..
    } in &ROWS
    {
        let (packets, open) = arrives(guest, lab, *inward, whole.unwrap_or("tcp4"))?;
        ensure!(
            (packets, open) == (1, true),
            "with bit {bit}: {packets} packets, checksum missing: {open}"
        );
    }
    for Row {
        bit,
        off,
        inward,
        whole,
    } in &ROWS
    {
        replace(guest, &format!("{MODERN},{off}"))?;
        up(guest)?;
        ensure!(!has(guest, *bit)?, "bit {bit} is there");
        let (packets, open) = arrives(guest, lab, *inward, whole.unwrap_or("tcp4"))?;
        ensure!(
            (packets, open) == (4, whole.is_some()),
            "without bit {bit}: {packets} packets, checksum missing: {open}"
        );
    }
    driver.unload(guest)
}
