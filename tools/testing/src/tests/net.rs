// SPDX-License-Identifier: GPL-2.0

//! Tests of the network driver on a network of QEMU's own, and the same ones of the C driver, which shows that a test asks for
//! nothing unusual.

use super::{
    Driver,
    Test, //
};
use crate::{
    guest::{
        Guest,
        Lab,
        Spec, //
    },
    transfer::Transfer, //
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use qapi::qmp;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Longest time for the large transfer, in one direction.
const TRANSFER: Duration = Duration::from_secs(120);

pub const RUST: Driver = Driver::ours("virtio_net_rust");
pub const C: Driver = Driver::stock("virtio_net");

/// iproute2's, not the one that busybox's shell takes from itself.
pub const IP: &str = "/bin/ip";

/// Where QEMU, or this machine, answers.
pub const HOST: &str = "10.0.2.2";

pub const MODERN: &str = "disable-legacy=on";

/// A way in which a host can present the device.
struct Variant {
    name: &'static str,
    spec: Spec,
    /// A command that succeeds when the driver uses what the host offers.
    proof: String,
}

impl Variant {
    /// One whose point is whether a feature bit is negotiated.
    fn new(name: &'static str, spec: Spec, bit: u32, negotiated: bool) -> Self {
        Variant {
            name,
            spec,
            proof: format!(
                "test $(cut -c{} /sys/class/net/eth0/device/features) = {}",
                bit + 1,
                u32::from(negotiated)
            ),
        }
    }

    fn proof(mut self, command: &str) -> Self {
        self.proof = format!("{} && {command}", self.proof);
        self
    }
}

/// The ways in which a host can present the device.
fn variants() -> Vec<Variant> {
    const MRG_RXBUF: u32 = 15;
    const RING_EVENT_IDX: u32 = 29;
    const VERSION_1: u32 = 32;
    const ACCESS_PLATFORM: u32 = 33;
    const RING_PACKED: u32 = 34;
    const IN_ORDER: u32 = 35;

    let modern_mmio = ["-global", "virtio-mmio.force-legacy=false"];
    let legacy = "disable-modern=on,disable-legacy=off";
    let q35 = |properties: &str| Spec::q35().network(properties);
    let modern = |properties: &str| q35(&format!("{MODERN},{properties}"));

    vec![
        Variant::new("modern", q35(MODERN), VERSION_1, true),
        Variant::new("transitional", q35("disable-legacy=off"), VERSION_1, true),
        Variant::new("legacy", q35(legacy), VERSION_1, false),
        Variant::new(
            "legacy-small",
            q35(&format!("{legacy},mrg_rxbuf=off")),
            MRG_RXBUF,
            false,
        ),
        Variant::new("small", modern("mrg_rxbuf=off"), MRG_RXBUF, false),
        Variant::new(
            "no-event-index",
            modern("event_idx=off"),
            RING_EVENT_IDX,
            false,
        ),
        Variant::new("packed", modern("packed=on"), RING_PACKED, true),
        Variant::new("in-order", modern("in_order=on"), IN_ORDER, true),
        Variant::new(
            "packed-in-order",
            modern("packed=on,in_order=on"),
            IN_ORDER,
            true,
        ),
        // All data is copied to and from memory that the kernel sets aside for devices.
        Variant::new(
            "bounced",
            modern("iommu_platform=on").append("swiotlb=force"),
            ACCESS_PLATFORM,
            true,
        )
        .proof("test $(cat /sys/kernel/debug/swiotlb/io_tlb_used) -gt 100"),
        // The device reaches nothing but what is mapped for it.
        Variant::new(
            "iommu",
            Spec::q35()
                .append("intel_iommu=on")
                .arguments(&["-device", "intel-iommu,intremap=off"])
                .network(&format!("{MODERN},iommu_platform=on")),
            ACCESS_PLATFORM,
            true,
        )
        .proof("grep -q ^DMA $(readlink -f /sys/class/net/eth0/device/..)/iommu_group/type"),
        Variant::new(
            "mmio",
            Spec::microvm().network("").arguments(&modern_mmio),
            VERSION_1,
            true,
        ),
        Variant::new("mmio-legacy", Spec::microvm().network(""), VERSION_1, false),
    ]
}

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/{subject}", driver.module);
        let plain = || Spec::q35().network(MODERN);
        let large = || plain().memory(1024);

        for Variant {
            name: variant,
            spec,
            proof,
        } in variants()
        {
            // The C driver shows that the variant works at all; one of each kind is enough for that.
            if driver == RUST
                || ["small", "mmio", "in-order", "bounced", "iommu"].contains(&variant)
            {
                let test = Test::guest(
                    name(&format!("device/{variant}")),
                    60,
                    spec,
                    move |guest, _| device(guest, driver, &proof),
                );
                tests.push(if variant == "iommu" {
                    test.stock_only("its kernel has no driver for an IOMMU")
                } else {
                    test
                });
            }
        }
        tests.push(Test::guest(
            name("transfer"),
            240,
            large(),
            move |guest, lab| {
                up(guest, driver)?;
                transfer(guest, lab, 200 * MIB)
            },
        ));
        tests.push(Test::guest(
            name("identity"),
            30,
            plain(),
            move |guest, _| identity(guest, driver),
        ));
        let spec = Spec::q35().network(&format!(
            "{MODERN},host_mtu=1400,mac=52:54:00:74:65:6e,speed=25000,duplex=full"
        ));
        tests.push(Test::guest(name("config"), 60, spec, move |guest, lab| {
            config(guest, lab, driver)
        }));
        tests.push(Test::guest(
            name("carrier"),
            60,
            plain(),
            move |guest, _| carrier(guest, driver),
        ));
        tests.push(Test::guest(
            name("statistics"),
            60,
            plain(),
            move |guest, lab| statistics(guest, lab, driver),
        ));
        tests.push(Test::guest(
            name("full-queue"),
            60,
            plain(),
            move |guest, _| full_queue(guest, driver),
        ));
        tests.push(Test::guest(
            name("reload"),
            120,
            plain(),
            move |guest, lab| reload(guest, lab, driver),
        ));
    }
    tests
}

/// Loads the driver and gets an address from QEMU.
pub fn up(guest: &mut Guest, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    address(guest)
}

/// Waits until the only network card is there.
pub fn appears(guest: &mut Guest) -> Result<()> {
    guest.wait_for("eth0", Duration::from_secs(5), |guest| {
        Ok((guest.run("test -e /sys/class/net/eth0")?.status == 0).then_some(()))
    })
}

/// Gets an address for the only network card, over DHCP.
pub fn address(guest: &mut Guest) -> Result<()> {
    appears(guest)?;
    guest.sh("ip link set eth0 up && udhcpc -i eth0 -n -q -t 5 -T 2 -s /etc/dhcp")?;
    let addresses = guest.sh("ip -4 address show dev eth0")?;
    ensure!(
        addresses.contains("inet 10.0.2.15/24"),
        "after DHCP: {addresses}"
    );
    Ok(())
}

/// Sends `count` pings to QEMU, of which none may get lost.
pub fn ping(guest: &mut Guest, count: u32) -> Result<()> {
    let output = guest.sh(&format!("ping -c {count} -i 0.1 -W 5 10.0.2.2"))?;

    ensure!(
        output.contains(&format!(" {count} packets received")),
        "{output}"
    );
    Ok(())
}

/// Has the card's PCI function reset, so that the device forgets everything.
pub fn reset_function(guest: &mut Guest) -> Result<()> {
    guest
        .sh("echo 1 >$(readlink -f /sys/class/net/eth0/device/..)/reset")
        .map(drop)
}

/// Has the guest read what the host, which has an address there, sends into a file.
///
/// It reads until the host closes, or to a `length` that is known: passt can overlook that the host has closed (its socket is in
/// CLOSE-WAIT), and tells the guest nothing.
pub fn download(
    guest: &mut Guest,
    host: &str,
    from: &Transfer,
    length: Option<u64>,
    limit: Duration,
    file: &str,
) -> Result<()> {
    let count = length.map_or(String::new(), |length| {
        format!("iflag=fullblock,count_bytes count={length}")
    });
    let command = format!(
        "dd bs=256k {count} </dev/tcp/{host}/{} >{file}",
        from.port()
    );
    guest
        .sh_for(limit, &format!("bash -c '{command}'"))
        .map(drop)
}

/// Has the guest send a file to the host.
pub fn upload(
    guest: &mut Guest,
    host: &str,
    to: &Transfer,
    limit: Duration,
    file: &str,
) -> Result<()> {
    let command = format!("cat {file} >/dev/tcp/{host}/{}", to.port());
    guest
        .sh_for(limit, &format!("bash -c '{command}'"))
        .map(drop)
}

/// Moves `length` bytes from the host into the guest and back, and compares them at each end.
pub fn transfer(guest: &mut Guest, lab: &Lab, length: u64) -> Result<()> {
    transfer_with(guest, lab, HOST, length, true)
}

/// As [`transfer`], with a host that has another address, and of which the guest may not learn that it `closes`.
pub fn transfer_with(
    guest: &mut Guest,
    lab: &Lab,
    host: &str,
    length: u64,
    closes: bool,
) -> Result<()> {
    let limit = TRANSFER * lab.slow;

    let download = Transfer::send(length, limit)?;
    let known = (!closes).then_some(length);
    self::download(guest, host, &download, known, TRANSFER, "/tmp/noise")?;
    let sent = download.finish()?;
    let received = guest.sh_for(TRANSFER, "sha256sum /tmp/noise | cut -d' ' -f1")?;
    let size = guest.number("stat -c %s /tmp/noise")?;
    sent.ensure_is(size, &received).context("from the host")?;
    ensure!(size == length);

    let upload = Transfer::receive(limit)?;
    self::upload(guest, host, &upload, TRANSFER, "/tmp/noise")?;
    upload
        .finish()?
        .ensure_is(length, &received)
        .context("to the host")?;
    guest.sh("rm /tmp/noise").map(drop)
}

/// The device works in the form in which the host presents it.
fn device(guest: &mut Guest, driver: Driver, proof: &str) -> Result<()> {
    up(guest, driver)?;
    guest.sh(proof).context("the driver does not use it")?;
    ping(guest, 3)?;
    // Frames of each size around those of the receive buffers and of the smallest frame.
    for size in [0, 1, 17, 18, 19, 100, 1000, 1471, 1472] {
        guest
            .sh(&format!("ping -c 1 -W 5 -s {size} 10.0.2.2"))
            .with_context(|| format!("a ping of {size} bytes"))?;
    }
    driver.unload(guest)?;
    ensure!(
        guest.run("test -e /sys/class/net/eth0")?.status != 0,
        "eth0 outlives the driver"
    );
    Ok(())
}

/// The driver is the one under test, and says so where people look.
fn identity(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let info = guest.sh("ethtool -i eth0")?;
    let expected = format!("driver: {}", driver.module);
    ensure!(info.lines().any(|line| line == expected), "{info}");
    let bus = guest.sh("basename $(readlink /sys/class/net/eth0/device)")?;
    ensure!(
        info.contains(&format!("bus-info: {bus}")) || info.contains("bus-info: 0000:"),
        "{info}"
    );

    let modules = guest.sh("lsmod")?;
    let others = modules.contains(if driver == C {
        "virtio_net_rust"
    } else {
        "virtio_net "
    });
    ensure!(modules.contains(driver.module) && !others, "{modules}");
    Ok(())
}

/// The address, the largest frame and the speed come from the device.
fn config(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    driver.load(guest, "")?;
    let address = guest.sh("cat /sys/class/net/eth0/address")?;
    ensure!(address == "52:54:00:74:65:6e", "the address is {address}");
    let mtu = guest.number("cat /sys/class/net/eth0/mtu")?;
    ensure!(mtu == 1400, "the MTU is {mtu}");
    let refused = guest.run("ip link set eth0 mtu 1401")?;
    ensure!(refused.status != 0, "an MTU above the device's is accepted");

    self::address(guest)?;
    let settings = guest.sh("ethtool eth0")?;
    ensure!(
        settings.contains("Speed: 25000Mb/s") && settings.contains("Duplex: Full"),
        "{settings}"
    );
    guest.sh("ping -c 1 -W 5 -s 1372 10.0.2.2")?;
    transfer(guest, lab, 4 * MIB)
}

/// The carrier follows the host's end of the cable.
fn carrier(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    for up in [false, true, false, true] {
        guest.qmp(qmp::set_link {
            name: "n0".to_owned(),
            up,
        })?;
        let expected = if up { "1" } else { "0" };
        guest.wait_for(
            &format!("carrier {expected}"),
            Duration::from_secs(5),
            |guest| {
                let carrier = guest.sh("cat /sys/class/net/eth0/carrier")?;
                Ok((carrier == expected).then_some(()))
            },
        )?;
    }
    ping(guest, 3)
}

/// One of the counters of the network card.
pub fn counter(guest: &mut Guest, name: &str) -> Result<u64> {
    guest.number(&format!("cat /sys/class/net/eth0/statistics/{name}"))
}

/// The counters agree with what was moved.
fn statistics(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    const LENGTH: u64 = 8 * MIB;
    const NAMES: [&str; 4] = ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets"];

    up(guest, driver)?;
    let mut before = [0; 4];
    for (value, name) in before.iter_mut().zip(NAMES) {
        *value = counter(guest, name)?;
    }
    transfer(guest, lab, LENGTH)?;
    for (value, name) in before.iter().zip(NAMES) {
        let moved = counter(guest, name)? - value;
        // Acknowledgements and headers come on top; a frame carries at most 64 KiB.
        let range = match name {
            "rx_bytes" | "tx_bytes" => LENGTH..LENGTH + LENGTH / 4,
            _ => LENGTH / 65536..LENGTH / 500,
        };
        ensure!(
            range.contains(&moved),
            "{name} grew by {moved}, not by {range:?}"
        );
    }

    for name in ["rx_errors", "tx_errors", "rx_dropped", "tx_dropped"] {
        let value = counter(guest, name)?;
        ensure!(value == 0, "{name} is {value}");
    }
    Ok(())
}

/// Many more frames than the ring holds are sent at once; each is counted, and the queue is awake afterwards.
fn full_queue(guest: &mut Guest, driver: Driver) -> Result<()> {
    const FRAMES: u64 = 30_000;

    up(guest, driver)?;
    guest.modprobe("pktgen")?;
    let before = counter(guest, "tx_packets")?;
    let log = guest.sh_for(
        Duration::from_secs(40),
        &format!(
            "cd /proc/net/pktgen && echo 'add_device eth0' >kpktgend_0 && \
             for line in 'count {FRAMES}' 'pkt_size 200' 'delay 0' 'dst 10.0.2.2' \
             'dst_mac 52:55:0a:00:02:02' 'udp_dst_min 9' 'udp_dst_max 9'; do \
             echo \"$line\" >eth0 || exit 1; done; echo start >pgctrl && cat eth0"
        ),
    )?;
    ensure!(log.contains("Result: OK"), "{log}");
    let sent = counter(guest, "tx_packets")? - before;
    ensure!(sent >= FRAMES, "{sent} of {FRAMES} frames are counted");
    guest.sh("rmmod pktgen")?;
    ping(guest, 3)
}

/// The driver goes and comes while frames are in flight in both directions.
fn reload(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    // Traffic that survives the loss of its interface.
    for traffic in [
        "ping -A -c 100 -s 1400 10.0.2.2",
        "dd if=/dev/zero bs=64k count=64 | nc -u -w 1 10.0.2.2 9",
    ] {
        guest.sh(&format!(
            "(while sleep 0.01; do {traffic}; done) >/dev/null 2>&1 & echo $! >>/run/traffic"
        ))?;
    }
    for _ in 0..6 {
        let before = counter(guest, "tx_packets")?;
        guest.wait_for("traffic", Duration::from_secs(10), |guest| {
            Ok((counter(guest, "tx_packets")? > before + 20).then_some(()))
        })?;
        driver.unload(guest)?;
        driver.load(guest, "")?;
        address(guest)?;
    }
    guest.sh("kill $(cat /run/traffic); killall -q dd nc ping; true")?;

    let references = guest.sh(&format!(
        "lsmod | awk '$1 == \"{}\" {{ print $3 }}'",
        driver.module
    ))?;
    if references != "0" {
        bail!("the module's use count is {references:?}");
    }
    ping(guest, 3)?;
    transfer(guest, lab, 4 * MIB)
}
