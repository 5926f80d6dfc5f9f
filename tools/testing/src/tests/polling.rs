// SPDX-License-Identifier: GPL-2.0

//! Polls that do not come the usual way: of netpoll, with interrupts off and a budget of 0, as for messages of the kernel that leave by
//! the card; of sockets that wait for data (busy polling); in threads; and by a timer in place of an interrupt.

use super::{
    capture::Capture,
    net::{
        ping,
        transfer,
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload::{
        up,
        MOVE, //
    },
    Driver,
    Test, //
};
use crate::guest::{
    Guest,
    Lab,
    Spec, //
};
use anyhow::{
    ensure,
    Result, //
};
use std::{
    collections::BTreeSet,
    time::Duration, //
};

/// How many messages there are with nothing else to send, and with much.
const QUIET: usize = 100;
const BUSY: usize = 100;

/// The card looks into its ring every 50 ms, so that it is full nearly all the time when there is much to send.
const SLOW: &str = "tx=timer,x-txtimer=50000000";

/// How much data the other tests move each way.
const DATA: u64 = 4 << 20;

const TARGET: &str = "/sys/kernel/config/netconsole/tenon";

/// Has `netpoll_poll_dev` counted, which has drivers empty their rings.
const PROBE: &str = "cd /sys/kernel/tracing && echo p:polled netpoll_poll_dev >kprobe_events && \
                     echo 1 >events/kprobes/polled/enable";
const POLLED: &str = "awk '$1 == \"polled\" { print $2 }' /sys/kernel/tracing/kprobe_profile";

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/polling/{subject}", driver.module);

        tests.push(Test::guest(
            name("netpoll"),
            120,
            Spec::q35().tap(1, &format!("{MODERN},{SLOW}")),
            move |guest, lab| netpoll(guest, lab, driver),
        ));
        for (subject, body) in [
            ("busy", busy as fn(&mut Guest, &Lab) -> Result<()>),
            ("threads", threads),
            ("timer", timer),
        ] {
            tests.push(Test::guest(
                name(subject),
                120,
                Spec::q35().network(MODERN),
                move |guest, lab| {
                    up(guest, driver)?;
                    body(guest, lab)?;
                    ping(guest, 3)?;
                    driver.unload(guest)
                },
            ));
        }
    }
    tests
}

/// How many different messages of this name have arrived.
fn arrived(capture: &Capture, name: &str) -> Result<usize> {
    let text = capture.text()?;
    let numbers: BTreeSet<_> = text
        .split(&format!("tenon-{name}-"))
        .skip(1)
        .filter_map(|rest| rest.split('.').next())
        .collect();

    Ok(numbers.len())
}

/// Has the kernel print messages with numbers, each of which a dot ends.
fn print(guest: &mut Guest, name: &str, count: usize) -> Result<()> {
    guest
        .sh_for(
            MOVE,
            &format!("for i in $(seq {count}); do echo tenon-{name}-$i. >/dev/kmsg; done"),
        )
        .map(drop)
}

fn netpoll(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let capture = Capture::new(guest, lab, "tap0", &["-A", "udp port 6666"])?;
    guest.modprobe("netconsole")?;
    guest.modprobe("pktgen")?;
    guest.sh(&format!(
        "mount -t configfs none /sys/kernel/config && mkdir {TARGET} && cd {TARGET} && echo eth0 >dev_name && \
         echo 10.0.2.15 >local_ip && echo 10.0.2.2 >remote_ip && echo 6666 >remote_port && \
         {IP} neighbour show 10.0.2.2 | sed -n 's/.*lladdr \\([^ ]*\\).*/\\1/p' >remote_mac && echo 1 >enabled"
    ))?;

    print(guest, "quiet", QUIET)?;
    guest.wait_for("all messages", Duration::from_secs(20), |_| {
        Ok((arrived(&capture, "quiet")? == QUIET).then_some(()))
    })?;

    guest.sh(PROBE)?;
    guest.sh(
        "cd /proc/net/pktgen && echo 'add_device eth0' >kpktgend_1 && \
         for set in 'count 0' 'pkt_size 1000' 'dst 10.0.2.2'; do echo \"$set\" >eth0; done && \
         (echo start >pgctrl) >/dev/null 2>&1 </dev/null & sleep 1",
    )?;
    // How soon the ring is full depends on how fast this machine is.
    let polled = guest.wait_for("messages that meet a full ring", MOVE, |guest| {
        print(guest, "busy", BUSY)?;
        let polled = guest.number(POLLED)?;
        Ok((polled > 0).then_some(polled))
    })?;
    guest.sh("echo stop >/proc/net/pktgen/pgctrl")?;
    // What cannot be sent at once is sent later, up to a limit.
    guest.wait_for("most messages", Duration::from_secs(20), |_| {
        Ok((arrived(&capture, "busy")? > BUSY / 2).then_some(()))
    })?;
    println!(
        "netpoll looked after the card {polled} times, {} of {BUSY} messages arrived",
        arrived(&capture, "busy")?
    );
    ping(guest, 5)?;

    // The driver goes before those that print by it.
    driver.unload(guest)?;
    guest.sh(&format!(
        "test $(cat {TARGET}/enabled) = 0 && rmdir {TARGET}"
    ))?;
    up(guest, driver)
}

/// A socket that waits for data polls the card itself.
fn busy(guest: &mut Guest, lab: &Lab) -> Result<()> {
    const WAIT: &str = "/proc/sys/net/core/busy_read";
    const POLLED: &str = "awk '$1 == \"TcpExt:\" { if (n) print $n; else for (i = 2; i <= NF; i++) if ($i == \"BusyPollRxPackets\") n = i }' \
                          /proc/net/netstat";
    const LIMIT: Duration = Duration::from_secs(30);

    transfer(guest, lab, DATA)?;
    ensure!(guest.number(POLLED)? == 0);
    // For 0.1 s, and more than once: data that are there already are waited for by nobody.
    guest.sh(&format!("echo 100000 >{WAIT}"))?;
    let polled = guest.wait_for("a socket that polls", LIMIT, |guest| {
        transfer(guest, lab, DATA)?;
        let polled = guest.number(POLLED)?;
        Ok((polled > 0).then_some(polled))
    })?;

    guest.sh(&format!("echo 0 >{WAIT}"))?;
    transfer(guest, lab, DATA)?;
    ensure!(guest.number(POLLED)? == polled);
    Ok(())
}

/// A thread for each queue polls it.
fn threads(guest: &mut Guest, lab: &Lab) -> Result<()> {
    const THREADED: &str = "/sys/class/net/eth0/threaded";
    const RUNS: &str = "for status in $(grep -l '^Name:.napi/eth0-' /proc/[0-9]*/status); do \
                        sed -n 's/^voluntary_ctxt_switches:.//p' $status; done | awk '{ n += $1 } END { print n + 0 }'";

    transfer(guest, lab, DATA)?;
    guest.sh(&format!("echo 1 >{THREADED}"))?;
    let before = guest.number(RUNS)?;
    transfer(guest, lab, DATA)?;
    let runs = guest.number(RUNS)? - before;
    ensure!(runs > 10, "the threads have run {runs} times");

    guest.sh(&format!("echo 0 >{THREADED}"))?;
    transfer(guest, lab, DATA)
}

/// While packets come a timer has the queue polled, and no interrupt.
fn timer(guest: &mut Guest, lab: &Lab) -> Result<()> {
    const INTERRUPTS: &str =
        "awk '/virtio[0-9]*-input/ { n += $2 + $3 } END { print n }' /proc/interrupts";
    let interrupts = |guest: &mut Guest| -> Result<u64> {
        let before = guest.number(INTERRUPTS)?;
        transfer(guest, lab, DATA)?;
        Ok(guest.number(INTERRUPTS)? - before)
    };

    let usually = interrupts(guest)?;
    guest.sh("cd /sys/class/net/eth0 && echo 20 >napi_defer_hard_irqs && echo 10000000 >gro_flush_timeout")?;
    let deferred = interrupts(guest)?;
    ensure!(
        deferred < usually / 2,
        "{usually} interrupts, and {deferred} with a timer"
    );

    guest.sh(
        "cd /sys/class/net/eth0 && echo 0 >napi_defer_hard_irqs && echo 0 >gro_flush_timeout",
    )?;
    let usually = interrupts(guest)?;
    ensure!(usually > deferred * 2, "{usually} interrupts without it");
    println!("{usually} interrupts, and {deferred} with a timer");
    Ok(())
}
