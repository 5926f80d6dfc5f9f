// SPDX-License-Identifier: GPL-2.0

//! Tests of programs that see packets before the stack does: with a card whose other end is an interface of this machine's
//! kernel, and the programs of `tools/testing/fixtures/bpf`. The C driver passes the same tests, but for what is said there.

use super::{
    net::{
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload::{
        is_on,
        packet_size,
        renegotiated,
        up,
        FRAME,
        LENGTH,
        MOVE, //
    },
    Driver,
    Test, //
};
use crate::guest::{
    Guest,
    Spec, //
};
use anyhow::{
    ensure,
    Result, //
};
use std::time::Duration;

/// Longest time for a few packets.
const SHORT: Duration = Duration::from_secs(20);

/// The port that datagrams are sent back from.
const ECHO: u16 = 7;

/// A device that merges nothing, so that it need not be told not to.
pub const PLAIN: &str =
    "guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_uso4=off,guest_uso6=off,guest_ufo=off";

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/xdp/{subject}", driver.module);
        let tap = |properties: &str| Spec::q35().tap(1, &format!("{MODERN}{properties}"));

        let small = format!(",mrg_rxbuf=off,{PLAIN}");
        for (subject, properties) in [
            ("verdicts", ""),
            ("verdicts-small", small.as_str()),
            ("verdicts-big", ",mrg_rxbuf=off"),
            ("verdicts-packed", ",packed=on"),
        ] {
            // In big mode the C driver accepts programs and never runs them.
            if driver == RUST || subject != "verdicts-big" {
                tests.push(Test::guest(
                    name(subject),
                    120,
                    tap(properties),
                    move |guest, _| verdicts(guest, driver),
                ));
            }
        }
        for (subject, properties) in [
            ("returned", ""),
            ("returned-small", small.as_str()),
            ("returned-big", ",mrg_rxbuf=off"),
        ] {
            // The C driver takes a page for each.
            if driver == RUST {
                tests.push(
                    Test::guest(name(subject), 60, tap(properties), |guest, _| {
                        returned(guest)
                    })
                    .stock_only("the kernel does not count what is taken from page pools"),
                );
            }
        }
        for (suffix, properties) in [("", ""), ("-big", ",mrg_rxbuf=off")] {
            // As above.
            if driver == C && !properties.is_empty() {
                continue;
            }
            tests.push(Test::guest(
                name(&format!("merged{suffix}")),
                180,
                tap(properties),
                move |guest, _| merged(guest, driver),
            ));
            tests.push(Test::guest(
                name(&format!("fragments{suffix}")),
                60,
                tap(properties),
                move |guest, _| fragments(guest, driver),
            ));
        }
        for (subject, properties) in [
            ("redirect", ""),
            ("redirect-small", small.as_str()),
            ("redirect-big", ",mrg_rxbuf=off"),
        ] {
            // As above.
            if driver == C && subject == "redirect-big" {
                continue;
            }
            let mergeable = properties.is_empty();
            tests.push(Test::guest(
                name(subject),
                60,
                tap(properties).arguments(&[
                    "-netdev",
                    "tap,id=net1,ifname=tap1,script=no,downscript=no,vhost=off",
                    "-device",
                    &format!("virtio-net-pci,netdev=net1,id=n1,disable-legacy=on{properties}"),
                ]),
                move |guest, _| redirect(guest, driver, mergeable),
            ));
        }
        tests.push(Test::guest(
            name("fixed"),
            60,
            tap(&format!(",ctrl_guest_offloads=off,{PLAIN}")),
            move |guest, _| fixed(guest, driver),
        ));
        for (suffix, properties) in [("", ""), ("-big", ",mrg_rxbuf=off")] {
            // In both the C driver refuses for the same reason.
            if driver == C && !properties.is_empty() {
                continue;
            }
            tests.push(Test::guest(
                name(&format!("negotiated{suffix}")),
                180,
                tap(&format!(",ctrl_guest_offloads=off{properties}")),
                move |guest, _| negotiated(guest, driver),
            ));
        }
    }
    tests
}

/// Attaches a program, or fails with what `ip` says.
pub fn attach(guest: &mut Guest, interface: &str, program: &str) -> Result<()> {
    guest
        .sh(&format!(
            "{IP} -force link set dev {interface} xdpdrv object /lib/xdp.bpf.o program {program}"
        ))
        .map(drop)
}

pub fn detach(guest: &mut Guest, interface: &str) -> Result<()> {
    guest
        .sh(&format!("{IP} link set dev {interface} xdpdrv off"))
        .map(drop)
}

/// The sum of a counter over all queues.
pub fn sum(guest: &mut Guest, interface: &str, direction: &str, counter: &str) -> Result<u64> {
    guest.number(&format!(
        "ethtool -S {interface} | sed -n 's/^ *{direction}_\\?[a-z]*_\\?[0-9]\\+_{counter}: //p' | awk '{{n += $1}} END {{print n + 0}}'"
    ))
}

/// Sends pings from outside, one after the other, waits so many seconds for each, and returns how many are answered.
fn pings_for(guest: &Guest, count: u32, size: u32, wait: u32) -> Result<u32> {
    let text = guest.outside().sh(
        SHORT,
        &format!(
            "n=0; for i in $(seq {count}); do \
             busybox ping -q -c 1 -W {wait} -s {size} 10.0.2.15 >/dev/null && n=$((n + 1)); done; echo $n"
        ),
    )?;
    Ok(text.trim().parse()?)
}

/// As [`pings_for`], of pings that are to be answered.
pub fn pings(guest: &Guest, count: u32, size: u32) -> Result<u32> {
    pings_for(guest, count, size, 10)
}

/// Longest time for some hundred datagrams and their answers, beside other guests.
const ECHOES: Duration = Duration::from_secs(60);

/// Sends `count` datagrams of `size` bytes to a port of the guest's, one after the other, waits so many seconds for each, and
/// returns how many come back as they were.
pub fn echoes(guest: &Guest, port: u16, count: u32, size: u32, wait: f32) -> Result<u32> {
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.settimeout({wait})\n\
         s.connect(('10.0.2.15', {port}))\n\
         n = 0\n\
         for i in range({count}):\n\
         \x20   data = bytes((i + j) % 251 for j in range({size}))\n\
         \x20   s.send(data)\n\
         \x20   try:\n\
         \x20       n += s.recv(65536) == data\n\
         \x20   except (TimeoutError, ConnectionError):\n\
         \x20       pass\n\
         print(n)\n"
    );
    let text = guest
        .outside()
        .sh(ECHOES, &format!("python3 - <<'END'\n{script}END"))?;
    Ok(text.trim().parse()?)
}

/// All of them do.
pub fn ensure_echoes(guest: &Guest, count: u32, size: u32) -> Result<()> {
    let back = echoes(guest, ECHO, count, size, 5.0)?;

    ensure!(
        back == count,
        "{back} of {count} echoes of {size} bytes come back"
    );
    Ok(())
}

/// What a program decides is done, and counted.
fn verdicts(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;

    attach(guest, "eth0", "pass")?;
    let answered = pings(guest, 20, 1400)?;
    ensure!(answered == 20, "{answered} pings are answered");
    let seen = sum(guest, "eth0", "rx", "xdp_packets")?;
    ensure!(seen >= 20, "the program has seen {seen} packets");

    for program in ["drop", "abort_", "invent"] {
        let before = sum(guest, "eth0", "rx", "xdp_drops")?;
        attach(guest, "eth0", program)?;
        ensure!(
            pings_for(guest, 3, 56, 1)? == 0,
            "{program}: pings are answered"
        );
        let drops = sum(guest, "eth0", "rx", "xdp_drops")? - before;
        ensure!(drops == 3, "{program}: {drops} drops");
    }

    attach(guest, "eth0", "room")?;
    ensure!(
        pings(guest, 20, 1400)? == 20,
        "pings are lost, for want of room"
    );
    attach(guest, "eth0", "shorten")?;
    ensure!(
        pings_for(guest, 3, 56, 1)? == 0,
        "pings are answered that are too short"
    );

    attach(guest, "eth0", "echo")?;
    let before = sum(guest, "eth0", "rx", "xdp_tx")?;
    ensure_echoes(guest, 100, 1400)?;
    let sent = sum(guest, "eth0", "rx", "xdp_tx")? - before;
    ensure!(sent == 100, "{sent} echoes are counted");

    detach(guest, "eth0")?;
    ensure!(
        echoes(guest, ECHO, 1, 10, 1.0)? == 0,
        "an echo without a program"
    );
    ensure!(pings(guest, 20, 1400)? == 20, "pings are lost at the end");
    guest.sh("ping -c 3 -W 5 10.0.2.2")?;
    driver.unload(guest)
}

/// Sends as many pings as a ring has buffers several times, some at once, and waits until a program has dropped most of them. Returns
/// how many it has dropped, and how many pages were taken from the page pool meanwhile.
fn flood(guest: &mut Guest) -> Result<(u64, u64)> {
    const PINGS: u64 = 1000;
    let pages = "pools eth0 pages | awk '{n += $3} END {print n + 0}'";

    let before = (sum(guest, "eth0", "rx", "xdp_drops")?, guest.number(pages)?);
    guest.outside().sh(
        SHORT,
        &format!(
            "python3 - <<'END'\n\
             import socket, time\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\n\
             for i in range({PINGS}):\n\
             \x20   s.sendto(b'\\x08' + bytes(63), ('10.0.2.15', 0))\n\
             \x20   if i % 20 == 0:\n\
             \x20       time.sleep(0.01)\n\
             END"
        ),
    )?;
    let dropped = guest.wait_for("packets to be dropped", SHORT, |guest| {
        let dropped = sum(guest, "eth0", "rx", "xdp_drops")? - before.0;
        // Some may be lost on the way, where there is no room for so many.
        Ok((dropped > PINGS / 2).then_some(dropped))
    })?;
    Ok((dropped, guest.number(pages)? - before.1))
}

/// What a program drops is received into again: nothing is taken from the page pool for it. And what is kept for that is given back.
fn returned(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    attach(guest, "eth0", "drop")?;
    ensure!(pings_for(guest, 1, 56, 1)? == 0, "a ping is answered");
    // There is no room for a program in what the device has got until now.
    flood(guest)?;

    let (dropped, pages) = flood(guest)?;
    ensure!(
        pages < dropped / 10,
        "{pages} pages were taken for {dropped} packets"
    );
    detach(guest, "eth0")?;
    ensure!(pings(guest, 20, 1400)? == 20, "pings are lost");
    RUST.unload(guest)?;
    // One that misses pages would stay.
    guest.wait_for("the end of the page pool", MOVE, |guest| {
        let left = guest.run("pools lo | grep detached")?;
        Ok((left.status != 0).then_some(()))
    })
}

/// A device merges packets, but not while there is a program; and programs come and go under traffic.
fn merged(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    ensure!(packet_size(guest, true, "10.0.2.15")? > 2 * FRAME, "before");

    attach(guest, "eth0", "pass")?;
    if driver == RUST {
        // The C driver says that it is on.
        ensure!(!is_on(guest, "rx-gro-hw")?, "rx-gro-hw is on");
    }
    let size = packet_size(guest, true, "10.0.2.15")?;
    ensure!(size <= FRAME, "{size} bytes a packet, with a program");
    let refused = guest.run("ethtool -K eth0 rx-gro-hw on")?;
    ensure!(
        driver == C || !is_on(guest, "rx-gro-hw")?,
        "{}",
        refused.stderr
    );

    come_and_go(guest)?;

    // What the interface was before a program came it is again, up or down.
    guest.sh(&format!(
        "{IP} link set eth0 down && {IP} link set eth0 up && ping -c 3 -W 5 10.0.2.2"
    ))?;
    detach(guest, "eth0")?;
    ensure!(is_on(guest, "rx-gro-hw")?, "rx-gro-hw is off");
    ensure!(packet_size(guest, true, "10.0.2.15")? > 2 * FRAME, "after");
    attach(guest, "eth0", "pass")?;
    driver.unload(guest)
}

/// Programs are attached and detached while data moves in both directions. In the end there is one that lets packets pass.
fn come_and_go(guest: &mut Guest) -> Result<()> {
    // Another program, the other way round, and one after the other.
    guest.sh("(for i in 1 2 3 4 5 6 7 8 9 10; do \
         /bin/ip link set dev eth0 xdpdrv off; sleep 0.1; \
         /bin/ip -force link set dev eth0 xdpdrv object /lib/xdp.bpf.o program room; sleep 0.1; \
         done; echo done >/run/changes) >/dev/null 2>&1 </dev/null &")?;
    packet_size(guest, true, "10.0.2.15")?;
    packet_size(guest, false, "10.0.2.2")?;
    guest.wait_for("ten changes", MOVE, |guest| {
        Ok((guest.run("grep -q done /run/changes")?.status == 0).then_some(()))
    })
}

/// A device that merges packets and has no command to tell it not to. It is reset when a program comes or goes, so that the program
/// sees each packet as it was on the wire, and none passes by it. The C driver refuses.
fn negotiated(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    ensure!(packet_size(guest, true, "10.0.2.15")? > 2 * FRAME, "before");
    if driver == C {
        ensure!(attach(guest, "eth0", "pass").is_err(), "it is attached");
        ensure!(pings(guest, 10, 1000)? == 10, "pings are lost");
        return Ok(());
    }

    attach(guest, "eth0", "drop")?;
    ensure!(pings_for(guest, 3, 56, 1)? == 0, "pings pass by a program");
    attach(guest, "eth0", "pass")?;
    renegotiated(guest, false)?;
    ensure!(!is_on(guest, "rx-gro-hw")?, "rx-gro-hw is on");
    let before = sum(guest, "eth0", "rx", "xdp_packets")?;
    let size = packet_size(guest, true, "10.0.2.15")?;
    ensure!(size <= FRAME, "{size} bytes a packet, with a program");
    let seen = sum(guest, "eth0", "rx", "xdp_packets")? - before;
    ensure!(
        seen > LENGTH / FRAME,
        "the program has seen {seen} packets of a stream"
    );
    attach(guest, "eth0", "echo")?;
    ensure_echoes(guest, 100, 1399)?;

    come_and_go(guest)?;
    renegotiated(guest, false)?;
    detach(guest, "eth0")?;
    renegotiated(guest, true)?;
    ensure!(is_on(guest, "rx-gro-hw")?, "rx-gro-hw is off");
    ensure!(packet_size(guest, true, "10.0.2.15")? > 2 * FRAME, "after");
    attach(guest, "eth0", "pass")?;
    driver.unload(guest)
}

/// A program has packets sent by another interface.
fn redirect(guest: &mut Guest, driver: Driver, mergeable: bool) -> Result<()> {
    up(guest, driver)?;
    guest.sh(&format!("{IP} link set eth1 up"))?;
    guest.outside().sh(
        SHORT,
        &format!("{IP} link set tap1 up && sysctl -q -w net.ipv6.conf.tap1.disable_ipv6=1"),
    )?;
    let arrived = |guest: &Guest| -> Result<u64> {
        let text = guest.outside().sh(
            SHORT,
            &format!("{IP} -s link show tap1 | awk '/RX:/ {{ getline; print $2 }}'"),
        )?;
        Ok(text.trim().parse()?)
    };

    if driver == C {
        // It sends nothing for others unless it has a program itself.
        attach(guest, "eth1", "pass")?;
    }
    attach(guest, "eth0", "next")?;
    let before = arrived(guest)?;
    echoes(guest, ECHO, 20, 1000, 0.1)?;
    let count = arrived(guest)? - before;
    ensure!((20..40).contains(&count), "{count} packets arrive");
    ensure!(
        sum(guest, "eth0", "rx", "xdp_redirects")? == 20,
        "redirects are not counted"
    );
    ensure!(
        sum(guest, "eth1", "tx", "xdp_tx")? == 20,
        "what is sent is not counted"
    );

    if mergeable {
        redirect_fragments(guest, arrived)?;
    }

    // Where nobody takes them they are lost, and nothing else.
    guest.sh(&format!("{IP} link set eth1 down"))?;
    echoes(guest, ECHO, 5, 1000, 0.1)?;
    ensure!(pings(guest, 10, 1000)? == 10, "pings are lost");
    Ok(())
}

/// The same of packets in several pieces.
fn redirect_fragments(guest: &mut Guest, arrived: impl Fn(&Guest) -> Result<u64>) -> Result<()> {
    guest.sh(&format!(
        "{IP} link set dev eth0 xdpdrv off && {IP} link set eth0 mtu 9000 && {IP} link set eth1 mtu 9000"
    ))?;
    guest.outside().sh(
        SHORT,
        &format!("{IP} link set tap0 mtu 9000 && {IP} link set tap1 mtu 9000"),
    )?;
    attach(guest, "eth0", "next_fragments")?;
    // The C driver loses packets in buffers from before the program came.
    echoes(guest, ECHO, 300, 100, 0.01)?;

    let before = (arrived(guest)?, sum(guest, "eth1", "tx", "xdp_tx")?);
    echoes(guest, ECHO, 20, 8000, 0.1)?;
    let count = arrived(guest)? - before.0;
    ensure!((20..40).contains(&count), "{count} large packets arrive");
    let sent = sum(guest, "eth1", "tx", "xdp_tx")? - before.1;
    ensure!(sent == 20, "{sent} large packets are sent");
    Ok(())
}

/// Packets in several pieces, for programs that take them, and only those.
fn fragments(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    guest.sh(&format!("{IP} link set eth0 mtu 9000"))?;
    guest
        .outside()
        .sh(SHORT, &format!("{IP} link set tap0 mtu 9000"))?;
    ensure!(pings(guest, 20, 8900)? == 20, "without a program");

    ensure!(
        attach(guest, "eth0", "pass").is_err(),
        "a program gets packets that it does not take"
    );
    attach(guest, "eth0", "pass_fragments")?;
    ensure!(pings(guest, 20, 8900)? == 20, "large pings are lost");
    ensure!(pings(guest, 20, 100)? == 20, "small pings are lost");
    attach(guest, "eth0", "echo_fragments")?;
    ensure_echoes(guest, 50, 100)?;
    if driver == C {
        // It loses packets in buffers from before the program came.
        echoes(guest, ECHO, 50, 8900, 0.1)?;
    }
    ensure_echoes(guest, 50, 8900)?;

    if driver == RUST {
        detach(guest, "eth0")?;
        guest.sh(&format!("{IP} link set eth0 mtu 1500"))?;
        attach(guest, "eth0", "pass")?;
        // The C driver loses what is too large from here on.
        ensure!(
            guest.run(&format!("{IP} link set eth0 mtu 9000"))?.status != 0,
            "the MTU becomes too large for the program"
        );
    }
    Ok(())
}

/// A device that merges nothing but leaves out checksums, and cannot be told not to: programs see them right all the same. The C
/// driver refuses.
fn fixed(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    if driver == C {
        ensure!(attach(guest, "eth0", "echo").is_err(), "it is attached");
        return Ok(());
    }
    attach(guest, "eth0", "echo")?;
    ensure_echoes(guest, 50, 1399)?;

    guest.sh(&format!("{IP} link set eth0 mtu 9000 || true"))?;
    detach(guest, "eth0")?;
    guest.sh(&format!("{IP} link set eth0 mtu 9000"))?;
    guest
        .outside()
        .sh(SHORT, &format!("{IP} link set tap0 mtu 9000"))?;
    attach(guest, "eth0", "echo_fragments")?;
    ensure_echoes(guest, 50, 8899)?;
    Ok(())
}
