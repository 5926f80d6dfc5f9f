// SPDX-License-Identifier: GPL-2.0

//! What hypervisors offer, each on a card of one guest: QEMU's options make the feature sets of the others. Each card has to
//! move data both ways. `harness backends` does that with the C driver as well, and prints what came of it.

use super::{
    net::{
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload::MOVE,
    several::{
        self,
        address,
        interface,
        listens,
        moves, //
    },
    Driver,
    Test, //
};
use crate::{
    env::Environment,
    guest::{
        Guest,
        Lab,
        Spec, //
    }, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    fs,
    io::ErrorKind,
    path::PathBuf, //
};

/// How many bytes are moved each way.
const LENGTH: u64 = 1 << 20;

/// No frame on a wire is longer.
pub const FRAME: u64 = 1514;

/// The PCI slot of the first card.
const SLOT: usize = 8;

/// A host's network card.
struct Backend {
    name: &'static str,
    /// Properties of QEMU's card.
    properties: String,
    /// Whether packets that are several in one can be sent, and be received in several buffers.
    large: (bool, bool),
}

fn backends() -> Vec<Backend> {
    const NO_CONTROL: &str =
        "ctrl_vq=off,ctrl_rx=off,ctrl_rx_extra=off,ctrl_vlan=off,ctrl_mac_addr=off,\
                              guest_announce=off,ctrl_guest_offloads=off";
    const NO_USO: &str = "host_uso=off,guest_uso4=off,guest_uso6=off";
    const NO_OFFLOAD: &str =
        "csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,guest_csum=off,\
                              guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";
    const LEGACY: &str = "disable-modern=on,disable-legacy=off";
    let backend = |name, properties: &[&str], large| Backend {
        name,
        properties: properties.join(","),
        large,
    };

    vec![
        backend("QEMU, tap", &[MODERN], (true, true)),
        backend(
            "Cloud Hypervisor",
            &[
                MODERN,
                "host_mtu=1500,mrg_rxbuf=off,indirect_desc=off,ctrl_rx=off,ctrl_rx_extra=off,ctrl_vlan=off,ctrl_mac_addr=off",
                NO_USO,
            ],
            (true, false),
        ),
        backend("openvmm", &[MODERN, "mrg_rxbuf=off"], (true, false)),
        backend(
            "Firecracker",
            &[
                MODERN,
                "host_mtu=1500,status=off,indirect_desc=off,host_ecn=off,guest_ecn=off",
                NO_CONTROL,
                NO_USO,
            ],
            (true, true),
        ),
        backend(
            "crosvm",
            &[
                MODERN,
                "host_mtu=1500,mrg_rxbuf=off,packed=on,status=off,ctrl_rx=off,ctrl_rx_extra=off,ctrl_vlan=off,ctrl_mac_addr=off,\
                 guest_announce=off,host_tso6=off,guest_tso6=off,host_ecn=off,guest_ecn=off",
                NO_USO,
            ],
            (true, false),
        ),
        backend(
            "kvmtool",
            &[
                MODERN,
                "status=off,ctrl_rx=off,ctrl_rx_extra=off,ctrl_vlan=off,ctrl_mac_addr=off,guest_announce=off,ctrl_guest_offloads=off",
                NO_USO,
            ],
            (true, true),
        ),
        backend(
            "bhyve",
            &[LEGACY, "event_idx=off,any_layout=off", NO_CONTROL, NO_USO, NO_OFFLOAD],
            (false, false),
        ),
        backend(
            "VirtualBox",
            &[
                MODERN,
                "ctrl_rx_extra=off,ctrl_mac_addr=off,ctrl_guest_offloads=off,host_ecn=off,guest_ecn=off",
                NO_USO,
            ],
            (true, true),
        ),
        backend(
            "VirtualBox 6",
            &[
                LEGACY,
                "mrg_rxbuf=off,event_idx=off,any_layout=off,indirect_desc=off,ctrl_rx_extra=off,ctrl_mac_addr=off,\
                 ctrl_guest_offloads=off,guest_announce=off,host_ecn=off,guest_ecn=off",
                NO_USO,
            ],
            (true, false),
        ),
    ]
}

/// With our driver.
pub fn tests() -> Vec<Test> {
    with(RUST).into()
}

/// With our driver, and with the C driver.
pub fn comparison() -> Vec<Test> {
    [RUST, C].into_iter().flat_map(with).collect()
}

fn with(driver: Driver) -> [Test; 2] {
    let name = |subject: &str| format!("net/{}/backends/{subject}", driver.module);

    [
        Test::guest(name("emulated"), 180, emulated(), move |guest, lab| {
            all_emulated(guest, lab, driver)
        }),
        Test::guest(name("real"), 180, real(), move |guest, lab| {
            all_real(guest, lab, driver)
        }),
    ]
}

/// A card for each of [`backends`].
fn emulated() -> Spec {
    let mut spec = Spec::q35();

    for (number, backend) in backends().iter().enumerate() {
        let properties = format!("addr={:#x},{}", SLOT + number, backend.properties);
        spec = if number == 0 {
            spec.tap(1, &properties)
        } else {
            spec.arguments(&[
                "-netdev",
                &format!("tap,id=net{number},ifname=tap{number},script=no,downscript=no,vhost=off"),
            ])
            .device("virtio-net", &format!("netdev=net{number},{properties}"))
        };
    }
    spec
}

/// passt as QEMU starts it itself.
const PASST: &str = "passt";

/// passt as a process of its own, which reads and writes the guest's memory.
const PASST_VHOST: &str = "passt, vhost-user";

/// A host that is not made of QEMU's options: its network has the number that is its place here, and testpmd has one more.
const REAL: [&str; 4] = ["QEMU, user", PASST, PASST_VHOST, "DPDK testpmd, vhost-user"];

/// A card for each of [`REAL`] but [`PASST`], and the second one of testpmd, which moves packets between its two.
fn real() -> Spec {
    let vhost = |spec: Spec, number: u32, socket: &str| {
        spec.arguments(&[
            "-chardev",
            &format!("socket,id=vhost{number},path=SOCKETS/vhost{number},{socket}"),
            "-netdev",
            &format!("vhost-user,id=net{number},chardev=vhost{number}"),
        ])
    };
    const SERVER: &str = "server=on,wait=on";

    let mut spec = several::network(Spec::q35(), 0).port();
    // passt has to be there first, and begins when QEMU does.
    spec = vhost(spec, 2, "reconnect-ms=100").beside(&[
        "passt",
        "--foreground",
        "--vhost-user",
        "--socket",
        "SOCKETS/vhost2",
        "--address",
        "10.1.2.15",
        "--netmask",
        "255.255.255.0",
        "--gateway",
        "10.1.2.2",
        "--map-host-loopback",
        "10.1.2.2",
        "--ipv4-only",
    ]);
    spec = vhost(vhost(spec, 3, SERVER), 4, SERVER).beside(&[
        "dpdk-testpmd",
        "--no-huge",
        "-m",
        "128",
        "--no-pci",
        "--no-shconf",
        "--no-telemetry",
        // Any machine has the first CPU.
        "--lcores",
        "0@0,1@0",
        "--vdev",
        "net_vhost0,iface=SOCKETS/vhost3,client=1",
        "--vdev",
        "net_vhost1,iface=SOCKETS/vhost4,client=1",
        "--",
        "--auto-start",
        "--forward-mode=io",
        "--total-num-mbufs=4096",
        // Otherwise it waits for the return key.
        "--stats-period=3600",
    ]);
    for number in [0, 2, 3, 4] {
        spec = spec.device(
            "virtio-net",
            &format!(
                "{MODERN},romfile=,netdev=net{number},addr={:#x}",
                SLOT + number
            ),
        );
    }
    spec
}

/// Adds passt and its card, once the guest runs, and returns the card's place.
///
/// QEMU (`net/passt.c` of 11.1) closes the socket that it has given to passt once more. Its number can be that of a descriptor which
/// a thread of GLib's is about to close, and what QEMU opens next under this number is closed then: when it starts this is any of
/// its sockets or of a card's interrupts, later there is nothing that it opens.
fn plug_passt(guest: &mut Guest) -> Result<&'static str> {
    for command in [
        "netdev_add passt,id=net1,address=10.1.1.15,netmask=255.255.255.0,gateway=10.1.1.2,map-host-loopback=10.1.1.2,ipv6=off",
        &format!("device_add virtio-net-pci,{MODERN},romfile=,netdev=net1,bus=port0"),
    ] {
        let answer = guest.monitor(command)?;
        ensure!(answer.is_empty(), "{command}: {answer}");
    }
    // The port is the only bridge.
    Ok("0000:01:00.0")
}

fn function(number: usize) -> String {
    format!("0000:00:{:02x}.0", SLOT + number)
}

fn all_real(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    for (number, name) in REAL.into_iter().enumerate() {
        let place = if name == PASST {
            plug_passt(guest)?.to_owned()
        } else {
            function(number)
        };
        let interface = interface(guest, &place)?;
        // CAST: There are few.
        let network = number as u32;

        address(guest, &interface, network)?;
        let before = counters(guest, &interface)?;
        if number + 1 < REAL.len() {
            moves(
                guest,
                lab,
                &interface,
                network,
                ![PASST, PASST_VHOST].contains(&name),
            )
        } else {
            around(guest, &function(number + 1), network)
        }
        .context(name)?;
        let after = counters(guest, &interface)?;
        let grown = |index: usize| after[index] - before[index];
        let averages = (grown(0) / grown(1), grown(2) / grown(3));
        record(guest, lab, driver, (number, name), &interface, averages)?;
    }
    Ok(())
}

/// Sends data out of one card of testpmd's and back in by the other one, and the same data back.
fn around(guest: &mut Guest, other: &str, network: u32) -> Result<()> {
    let other = interface(guest, other)?;

    guest.sh(&format!(
        "{IP} netns add other && {IP} link set {other} netns other && \
         {IP} -n other address add 10.1.{network}.2/24 dev {other} && {IP} -n other link set {other} up && \
         ping -c 3 -W 5 10.1.{network}.2 && \
         ({IP} netns exec other nc -l -p 5000 -e cat >/dev/null 2>&1 </dev/null &)"
    ))?;
    let sums = guest.sh_for(
        MOVE,
        &format!(
            "head -c {LENGTH} /dev/urandom >/tmp/noise && sha256sum </tmp/noise && \
             nc 10.1.{network}.2 5000 </tmp/noise | sha256sum; rm /tmp/noise; {IP} netns del other"
        ),
    )?;
    let sums: Vec<_> = sums.lines().collect();
    ensure!(sums.len() == 2 && sums[0] == sums[1], "{sums:?}");
    Ok(())
}

/// Bytes and packets received, then those sent.
fn counters(guest: &mut Guest, interface: &str) -> Result<[u64; 4]> {
    let text = guest.sh(&format!(
        "cd /sys/class/net/{interface}/statistics && cat rx_bytes rx_packets tx_bytes tx_packets"
    ))?;
    let values: Vec<u64> = text.lines().map(str::parse).collect::<Result<_, _>>()?;

    values.try_into().ok().context("four counters")
}

fn all_emulated(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    let backends = backends();

    for number in 0..backends.len() {
        guest.outside().sh(
            MOVE,
            &format!(
                "ip address add 10.1.{number}.2/24 dev tap{number} && ip link set tap{number} up"
            ),
        )?;
    }
    driver.load(guest, "")?;
    (0u32..).zip(&backends).try_for_each(|(number, backend)| {
        one(guest, lab, driver, number, backend).context(backend.name)
    })
}

/// Moves data through one card.
fn one(guest: &mut Guest, lab: &Lab, driver: Driver, number: u32, backend: &Backend) -> Result<()> {
    let interface = interface(guest, &function(number as usize))?;

    address(guest, &interface, number)?;
    guest.sh(&format!("ping -c 1 -W 5 10.1.{number}.2"))?;
    let host = format!("10.1.{number}.2");
    let received = size(guest, &interface, &host, true)?;
    let sent = size(guest, &interface, &host, false)?;
    let (large_out, large_in) = backend.large;
    ensure!(
        (sent > FRAME) == large_out,
        "{sent} bytes a packet that was sent"
    );
    ensure!(
        !large_in || received > FRAME,
        "{received} bytes a packet that was received"
    );
    record(
        guest,
        lab,
        driver,
        (REAL.len() + number as usize, backend.name),
        &interface,
        (received, sent),
    )
}

/// Moves data over TCP from an address of the host to the guest (`inward`) or back, compares it, and returns how many bytes a
/// packet of the card had on average.
pub fn size(guest: &mut Guest, interface: &str, host: &str, inward: bool) -> Result<u64> {
    let data = format!("yes 0123456789abcdef-{host}-{inward} | head -c {LENGTH}");
    let direction = if inward { "rx" } else { "tx" };
    let counters = |guest: &mut Guest| -> Result<(u64, u64)> {
        let mut counter = |name| {
            guest.number(&format!(
                "cat /sys/class/net/{interface}/statistics/{direction}_{name}"
            ))
        };
        Ok((counter("bytes")?, counter("packets")?))
    };

    let listen = "busybox nc -l -p 5000";
    let other_end = guest.outside().start(
        MOVE,
        if inward {
            format!("{listen} -e sh -c '{data}'")
        } else {
            format!("{listen} | sha256sum")
        },
    );
    listens(guest, 5000)?;
    let (bytes, packets) = counters(guest)?;
    let other = format!("/dev/tcp/{host}/5000");
    let command = if inward {
        format!("sha256sum <{other}")
    } else {
        format!("{data} >{other}")
    };
    let sums = guest.sh_for(MOVE, &format!("bash -c '{data} | sha256sum && {command}'"))?;
    let heard = other_end.finish()?;
    let mut sums = sums.lines().chain(heard.lines());
    ensure!(
        sums.next().is_some_and(|sent| sums.next() == Some(sent)),
        "what arrived is not what was sent"
    );

    let (all_bytes, all_packets) = counters(guest)?;
    ensure!(all_bytes - bytes > LENGTH, "{} bytes", all_bytes - bytes);
    Ok((all_bytes - bytes) / (all_packets - packets))
}

/// Keeps a line of the table.
fn record(
    guest: &mut Guest,
    lab: &Lab,
    driver: Driver,
    (place, name): (usize, &str),
    interface: &str,
    (received, sent): (u64, u64),
) -> Result<()> {
    let features = guest.sh(&format!("cat /sys/class/net/{interface}/device/features"))?;
    let names: Vec<_> = NAMES
        .iter()
        .filter(|(bit, _)| features.as_bytes().get(*bit) == Some(&b'1'))
        .map(|(_, name)| *name)
        .collect();
    let directory = directory(&lab.env);

    fs::create_dir_all(&directory)?;
    fs::write(
        directory.join(format!("{place:02}-{}", u32::from(driver == C))),
        format!(
            "| {name} | `{}` | {received} | {sent} | {} |\n",
            driver.module,
            names.join(", ")
        ),
    )?;
    Ok(())
}

/// Where the lines of the table are until it is printed.
fn directory(env: &Environment) -> PathBuf {
    env.top.join("build/backends")
}

/// Forgets what earlier runs found.
pub fn clear(env: &Environment) -> Result<()> {
    match fs::remove_dir_all(directory(env)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes the table of what the tests have found, and returns it and where it is.
pub fn table(env: &Environment) -> Result<(String, PathBuf)> {
    let mut paths: Vec<_> = fs::read_dir(directory(env))
        .context("the tests have found nothing")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    let mut table = String::from(
        "Bytes are those of a packet on average, as the driver counts them, while TCP connections move data.\n\n\
         | host | driver | bytes received | bytes sent | features in use |\n\
         |---|---|---|---|---|\n",
    );

    paths.sort();
    for path in paths {
        table.push_str(&fs::read_to_string(path)?);
    }
    let path = env.top.join("build/backends.md");
    fs::write(&path, &table)?;
    Ok((table, path))
}

/// Feature bits, by number.
const NAMES: &[(usize, &str)] = &[
    (0, "CSUM"),
    (1, "GUEST_CSUM"),
    (2, "CTRL_GUEST_OFFLOADS"),
    (3, "MTU"),
    (5, "MAC"),
    (7, "GUEST_TSO4"),
    (8, "GUEST_TSO6"),
    (9, "GUEST_ECN"),
    (10, "GUEST_UFO"),
    (11, "HOST_TSO4"),
    (12, "HOST_TSO6"),
    (13, "HOST_ECN"),
    (14, "HOST_UFO"),
    (15, "MRG_RXBUF"),
    (16, "STATUS"),
    (17, "CTRL_VQ"),
    (18, "CTRL_RX"),
    (19, "CTRL_VLAN"),
    (21, "GUEST_ANNOUNCE"),
    (22, "MQ"),
    (23, "CTRL_MAC_ADDR"),
    (27, "ANY_LAYOUT"),
    (28, "INDIRECT_DESC"),
    (29, "EVENT_IDX"),
    (32, "VERSION_1"),
    (34, "RING_PACKED"),
    (35, "IN_ORDER"),
    (40, "RING_RESET"),
    (54, "GUEST_USO4"),
    (55, "GUEST_USO6"),
    (56, "HOST_USO"),
];
