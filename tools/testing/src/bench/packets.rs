// SPDX-License-Identifier: GPL-2.0

//! Instructions for each packet of the network drivers.
//!
//! The device completes at times that are the guest's own: it is told of packets in the CPU's thread (`ioeventfd=off`) and sends
//! them when a timer of the guest's clock is over (`tx=timer`). What the guest receives comes from a second card of another kind
//! in the same guest, over a hub that delivers at once. So each run executes the same.

use super::{
    counted::{
        measure,
        Load,
        Setup, //
    },
    rows::Pair,
    Benchmark, //
};
use crate::{
    guest::Spec,
    tests::net::{
        C,
        RUST, //
    }, //
};

/// The network drivers.
pub const PAIR: Pair = Pair {
    theirs: C,
    ours: RUST,
};

/// A device whose times are the guest's.
const DEVICE: &str = "tx=timer,ioeventfd=off,disable-legacy=on";

/// How many packets are sent for a figure.
const PACKETS: u32 = 20_000;

/// How many packets of 64 KiB, with headers.
const LARGE: u32 = 10_000;

/// Without what the kernel sends by itself.
const QUIET: &str =
    "for f in all default; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done\n";

/// The script of a guest that only sends.
const SENDER: &str = "modprobe pktgen && modprobe dummy && ip link set dummy0 up";

/// The script of a guest that sends packets to be cut.
const SENDER_OF_LARGE: &str = "insmod /modules/null_card.ko && ip link set null0 up";

/// The script of a guest that receives what its other card sends.
const RECEIVER: &str =
    "modprobe pktgen && modprobe vmxnet3 && sleep 1 && ip link set eth0 name source && \
                        ip link set source up && sleep 3";

/// Takes what is for others, too: the stack drops it early.
const UP: &str = "ip link set eth0 up promisc on && sleep 3";

/// The same with a program that drops all packets.
const UP_DROPPING: &str =
    "/bin/ip -force link set dev eth0 xdpdrv object /lib/xdp.bpf.o program drop_all && \
                           ip link set eth0 up promisc on && sleep 3";

/// Has this machine's kernel pass on what the second card sends, over two tap interfaces.
const ROUTER: &str = "ip link set tap1 address 52:54:00:99:99:99 && ip address add 10.9.8.1/32 dev tap1 && \
                      ip link set tap1 up && ip route add 10.9.9.8 dev tap1 && ip route add 10.9.9.9 dev tap0 && \
                      ip neighbour add 10.9.9.9 lladdr 52:54:00:99:99:99 dev tap0 && \
                      echo 1 >/proc/sys/net/ipv4/ip_forward";

const DOWN: &str = "echo rem_device_all >/proc/net/pktgen/kpktgend_0; ip link set eth0 down";

pub fn benchmarks() -> Vec<Benchmark> {
    let setup = |spec: Spec, prepare: &str, up: &'static str| Setup {
        pair: PAIR,
        spec,
        prepare: format!("{QUIET}{prepare}"),
        outside: "",
        up,
        down: DOWN,
    };
    let receiver = |properties: &str| hub(&format!("{DEVICE}{properties}"));

    vec![
        Benchmark::new(
            "net/transmit",
            "instructions for each packet that pktgen sends",
            move |bench| {
                let spec = Spec::q35().tap(1, DEVICE);
                let load = |name, size| transmit(name, size);
                measure(
                    bench,
                    setup(spec, SENDER, UP),
                    &[
                        load("transmit 60 B", 60),
                        load("transmit 1500 B", 1500),
                        sizes(),
                    ],
                )
            },
        ),
        Benchmark::new(
            "net/transmit-tso",
            "instructions for each MiB in packets of 64 KiB that the device cuts",
            move |bench| {
                let spec = Spec::q35().tap(1, DEVICE);
                measure(bench, setup(spec, SENDER_OF_LARGE, UP), &[segmented()])
            },
        ),
        Benchmark::new(
            "net/receive",
            "instructions for each packet received, mergeable buffers",
            move |bench| {
                measure(
                    bench,
                    setup(receiver(""), RECEIVER, UP),
                    &[receive("receive 60 B", 60), receive("receive 1500 B", 1500)],
                )
            },
        ),
        Benchmark::new(
            "net/receive-small",
            "the same, where a packet has one buffer",
            move |bench| {
                measure(
                    bench,
                    setup(receiver(",mrg_rxbuf=off"), RECEIVER, UP),
                    &[
                        receive("receive 60 B, small", 60),
                        receive("receive 1500 B, small", 1500),
                    ],
                )
            },
        ),
        Benchmark::new(
            "net/receive-big",
            "the same, where a packet has one buffer, of several pages as it may be several packets in one",
            move |bench| {
                measure(
                    bench,
                    routed(setup(
                        router("mrg_rxbuf=off"),
                        RECEIVER,
                        UP,
                    )),
                    &[
                        receive_routed("receive 60 B, big", 60),
                        receive_routed("receive 1500 B, big", 1500),
                    ],
                )
            },
        ),
        Benchmark::new(
            "net/receive-merged",
            "the same with mergeable buffers, where a packet may be several packets in one",
            move |bench| {
                measure(
                    bench,
                    routed(setup(
                        router("mrg_rxbuf=on"),
                        RECEIVER,
                        UP,
                    )),
                    &[
                        receive_routed("receive 60 B, guest offloads", 60),
                        receive_routed("receive 1500 B, guest offloads", 1500),
                    ],
                )
            },
        ),
        Benchmark::new(
            "net/xdp-drop",
            "instructions for each packet that a program drops",
            move |bench| {
                measure(
                    bench,
                    setup(receiver(""), RECEIVER, UP_DROPPING),
                    &[
                        receive("XDP_DROP 60 B", 60),
                        receive("XDP_DROP 1500 B", 1500),
                    ],
                )
            },
        ),
        Benchmark::new(
            "net/receive-gro",
            "instructions for each MiB of TCP that the stack merges",
            move |bench| measure(bench, setup(receiver(""), RECEIVER, UP), &[merged()]),
        ),
    ]
}

/// A guest with a second card, which sends to the first.
fn hub(properties: &str) -> Spec {
    Spec::q35().arguments(&[
        "-netdev",
        "hubport,id=net0,hubid=0",
        "-netdev",
        "hubport,id=net1,hubid=0",
        "-device",
        "vmxnet3,netdev=net1,mac=52:54:00:00:00:01",
        "-device",
        &format!("virtio-net-pci,id=n0,netdev=net0,{properties}"),
    ])
}

/// A guest with a second card, whose packets this machine's kernel passes on to the first. What has come in half a millisecond of
/// the guest's is given to it at once.
fn router(properties: &str) -> Spec {
    Spec::q35()
        .tap(1, &format!("{DEVICE},{properties}"))
        .arguments(&[
            "-netdev",
            "tap,id=net1,ifname=tap1,script=no,downscript=no,vhost=off",
            "-device",
            "vmxnet3,netdev=net1,mac=52:54:00:00:00:01",
            "-object",
            "filter-buffer,id=batch,netdev=net0,queue=tx,interval=500",
        ])
}

fn routed(setup: Setup) -> Setup {
    Setup {
        outside: ROUTER,
        ..setup
    }
}

/// Has pktgen send packets of a size, `burst` at a time.
fn pktgen(device: &str, size: u32, burst: u32) -> String {
    format!(
        "pg() {{ echo \"$2\" >/proc/net/pktgen/$1; }}\n\
         pg kpktgend_0 rem_device_all\n\
         pg kpktgend_0 'add_device {device}'\n\
         for option in 'count {PACKETS}' 'pkt_size {size}' 'burst {burst}' 'clone_skb 0' 'delay 0' \
             'src_min 10.9.9.8' 'src_max 10.9.9.8' 'dst 10.9.9.9' 'dst_mac 52:54:00:99:99:99'; do\n\
         \tpg {device} \"$option\"\n\
         done\n\
         pg pgctrl start\n\
         grep Result: /proc/net/pktgen/{device}"
    )
}

/// Packets of several sizes. Those of one size meet the device's timer at the same point of the driver's code each time, on which
/// depends whether it is in a position to interrupt.
fn sizes() -> Load {
    let script = |device| {
        format!(
            "{}\nfor size in $(seq 60 3 117); do\n\
             \tpg {device} \"pkt_size $size\"\n\
             \tpg {device} 'count {}'\n\
             \tpg pgctrl start\n\
             done",
            pktgen(device, 60, 1).replace("pg pgctrl start\n", ""),
            PACKETS / 20
        )
    };

    Load {
        name: "transmit 60 to 117 B",
        disturbs: true,
        alone: script("dummy0"),
        with: script("eth0"),
        ..transmit("", 60)
    }
}

fn transmit(name: &'static str, size: u32) -> Load {
    Load {
        name,
        unit: "packet",
        number: PACKETS.into(),
        packets: PACKETS.into(),
        counter: "tx_packets",
        // How they do with one size, see `sizes()`.
        disturbs: false,
        alone: pktgen("dummy0", size, 1),
        with: pktgen("eth0", size, 1),
    }
}

fn receive(name: &'static str, size: u32) -> Load {
    // As many come at a time as a busy link brings between two interrupts. The last ones may still be on their way.
    let script = format!("{}\nsleep 1", pktgen("source", size, 32));

    Load {
        name,
        unit: "packet",
        number: PACKETS.into(),
        packets: PACKETS.into(),
        counter: "rx_packets",
        disturbs: true,
        alone: script.clone(),
        with: script,
    }
}

/// The same for packets that come by way of this machine, at its times.
fn receive_routed(name: &'static str, size: u32) -> Load {
    Load {
        disturbs: false,
        ..receive(name, size)
    }
}

/// What is sent in [`LARGE`] packets, in MiB.
const MEBIBYTES: f64 = LARGE as f64 * 64_000.0 / (1 << 20) as f64;

fn segmented() -> Load {
    Load {
        name: "TSO transmit",
        unit: "MiB",
        number: MEBIBYTES,
        packets: LARGE.into(),
        counter: "tx_packets",
        disturbs: true,
        alone: format!("frames null0 {LARGE}"),
        with: format!("frames eth0 {LARGE}"),
    }
}

fn merged() -> Load {
    let script = format!("frames source {LARGE}");

    Load {
        name: "GRO receive",
        unit: "MiB",
        number: MEBIBYTES,
        packets: u64::from(LARGE) * 44,
        counter: "rx_packets",
        disturbs: true,
        alone: script.clone(),
        with: script,
    }
}
