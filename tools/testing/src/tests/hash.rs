// SPDX-License-Identifier: GPL-2.0

//! Tests of hashes over received packets: by them the card spreads packets over its queues, and reports them. The C driver
//! passes the same tests, but for what is said there.

use super::{
    net::{
        appears,
        counter,
        ping,
        reset_function,
        C,
        IP,
        MODERN,
        RUST, //
    },
    offload::{
        up,
        MOVE, //
    },
    queues::activity,
    xsk::{
        self,
        CAPABLE, //
    },
    Driver,
    Test, //
};
use crate::guest::{
    Guest,
    Spec, //
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};

/// How many flows are sent: that all of them go to one of two queues by chance is out of the question.
const FLOWS: u16 = 64;

/// The ports of connections whose hashes are known: the guest's kernel chooses among a few.
const SERVER: u16 = 4000;
const CLIENTS: [u16; 4] = [1234, 1235, 1236, 1237];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/hash/{subject}", driver.module);
        let tap = |properties: &str| Spec::q35().tap(2, &format!("{MODERN},mq=on,{properties}"));

        tests.push(Test::guest(
            name("spread"),
            120,
            tap("vectors=6,rss=on"),
            move |guest, _| spread(guest, driver),
        ));
        tests.push(Test::guest(
            name("report"),
            60,
            Spec::q35().tap(1, &format!("{MODERN},hash=on")),
            move |guest, _| report(guest, driver),
        ));
        for (subject, properties) in [("program", ""), ("program-socket", CAPABLE)] {
            tests.push(Test::guest(
                name(subject),
                90,
                Spec::q35().tap(1, &format!("{MODERN},hash=on{properties}")),
                move |guest, _| program(guest, driver, !properties.is_empty()),
            ));
        }
        // The C driver does not pass these: packets get stuck in QEMU, for the reason that `Peers` in `peers.rs` gives, and after a
        // reset the device is not told again.
        if driver == RUST {
            tests.push(Test::guest(
                name("both"),
                120,
                tap("vectors=6,rss=on,hash=on"),
                move |guest, _| both(guest),
            ));
            tests.push(Test::guest(
                name("early"),
                60,
                tap("vectors=6,rss=on,hash=on"),
                move |guest, _| early(guest),
            ));
            tests.push(Test::guest(
                name("kept"),
                120,
                Spec::q35().port().tap(
                    2,
                    &format!("{MODERN},mq=on,vectors=6,rss=on,hash=on,bus=port0"),
                ),
                move |guest, _| kept(guest),
            ));
        }
    }
    tests
}

/// The key as numbers, and the queues of the table.
fn table(guest: &mut Guest) -> Result<(Vec<u8>, Vec<u32>)> {
    let text = guest.sh("ethtool -x eth0")?;
    let mut lines = text.lines();
    let entries = lines
        .by_ref()
        .take_while(|line| !line.starts_with("RSS hash key"))
        .filter_map(|line| line.trim().split_once(':'))
        .flat_map(|(_, entries)| entries.split_whitespace())
        .filter_map(|entry| entry.parse().ok())
        .collect();
    let key = lines
        .next()
        .with_context(|| text.clone())?
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .with_context(|| text.clone())?;

    Ok((key, entries))
}

/// Sends one packet of each of many flows of UDP to the guest, one after the other, so that each causes an interrupt. All have
/// the same addresses.
fn send(guest: &mut Guest) -> Result<()> {
    let last = 3000 + FLOWS - 1;

    guest
        .outside()
        .sh(
            MOVE,
            &format!(
                "for port in $(seq 3000 {last}); do echo x >/dev/udp/10.0.2.15/$port; sleep 0.02; done; sleep 0.5"
            ),
        )
        .map(drop)
}

/// Which of the two queues get packets of many flows.
fn reached(guest: &mut Guest, driver: Driver) -> Result<[bool; 2]> {
    let before = activity(guest, driver)?;
    send(guest)?;
    let after = activity(guest, driver)?;

    // The guest answers that nobody listens; answers to that, and the neighbours' talk, are few.
    Ok([0, 1].map(|queue| after[queue] - before[queue] > 8))
}

/// The card puts packets where the user wants them.
fn spread(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    let (key, entries) = table(guest)?;
    ensure!(
        key.len() == 40 && key.iter().any(|&byte| byte != 0),
        "{key:?}"
    );
    ensure!(
        entries.len() == 128
            && entries
                .iter()
                .zip([0, 1].iter().cycle())
                .all(|(a, b)| a == b),
        "{entries:?}"
    );
    let both = reached(guest, driver)?;
    ensure!(both == [true, true], "with the first table: {both:?}");

    for (weights, expected) in [("1 0", [true, false]), ("0 1", [false, true])] {
        guest.sh(&format!("ethtool -X eth0 weight {weights}"))?;
        let found = reached(guest, driver)?;
        ensure!(found == expected, "with weights {weights}: {found:?}");
    }
    // Packets would go to a queue that is not in use.
    let refused = guest.run("ethtool -L eth0 combined 1")?;
    ensure!(refused.status != 0, "a queue is taken away from the table");
    guest.sh("ethtool -X eth0 default")?;
    let (_, entries) = table(guest)?;
    ensure!(entries.contains(&0) && entries.contains(&1), "{entries:?}");

    // By the addresses alone, all flows are one.
    let fields = guest.sh("ethtool -n eth0 rx-flow-hash udp4")?;
    ensure!(fields.contains("L4 bytes 0 & 1"), "{fields}");
    guest.sh("ethtool -N eth0 rx-flow-hash udp4 sd")?;
    let fields = guest.sh("ethtool -n eth0 rx-flow-hash udp4")?;
    ensure!(
        fields.contains("IP SA") && !fields.contains("L4 bytes"),
        "{fields}"
    );
    // The C driver tells the device only where that reports hashes as well.
    if driver == RUST {
        let one = reached(guest, driver)?;
        ensure!(one[0] != one[1], "by the addresses alone: {one:?}");
    }
    guest.sh("ethtool -N eth0 rx-flow-hash udp4 sdfn")?;
    let both = reached(guest, driver)?;
    ensure!(both == [true, true], "by the ports again: {both:?}");
    for wrong in ["udp4 s", "sctp4 sdfn", "udp4 v"] {
        let refused = guest.run(&format!("ethtool -N eth0 rx-flow-hash {wrong}"))?;
        ensure!(refused.status != 0, "a hash of {wrong} is accepted");
    }

    guest.sh("ethtool -L eth0 combined 1")?;
    let (_, entries) = table(guest)?;
    ensure!(entries.iter().all(|&entry| entry == 0), "{entries:?}");
    let first = reached(guest, driver)?;
    ensure!(first == [true, false], "with one queue: {first:?}");
    guest.sh("ethtool -L eth0 combined 2")?;
    let both = reached(guest, driver)?;
    ensure!(both == [true, true], "with two queues again: {both:?}");
    ping(guest, 3)
}

/// Packets that come before the interface is up, for all queues, hold up none that come later.
fn early(guest: &mut Guest) -> Result<()> {
    RUST.load(guest, "")?;
    appears(guest)?;
    let addr = guest.sh("cat /sys/class/net/eth0/address")?;
    guest.outside().sh(
        MOVE,
        &format!("ip neighbour add 10.0.2.15 lladdr {addr} dev tap0"),
    )?;
    for _ in 0..4 {
        send(guest)?;
        guest.sh(&format!(
            "{IP} address replace 10.0.2.15/24 dev eth0 && {IP} link set eth0 up"
        ))?;
        let before = counter(guest, "rx_packets")?;
        send(guest)?;
        let received = counter(guest, "rx_packets")? - before;
        ensure!(
            received >= u64::from(FLOWS),
            "{received} of {FLOWS} packets arrive"
        );
        guest.sh("ip link set eth0 down")?;
    }
    Ok(())
}

/// The hashes of the packets that come to the port range of [`send`], as the stack sees them, with whether they are over ports.
pub fn traced(
    guest: &mut Guest,
    provoke: impl FnOnce(&mut Guest) -> Result<()>,
) -> Result<Vec<(u32, bool)>> {
    const EVENTS: &str = "/sys/kernel/tracing/events/net";

    guest.sh(&format!(
        "mount -t tracefs none /sys/kernel/tracing 2>/dev/null; echo >/sys/kernel/tracing/trace && \
         echo 'name == \"eth0\"' >{EVENTS}/napi_gro_receive_entry/filter; \
         echo 1 >{EVENTS}/napi_gro_receive_entry/enable"
    ))?;
    provoke(guest)?;
    let text = guest.sh(&format!(
        "echo 0 >{EVENTS}/napi_gro_receive_entry/enable; \
         sed -n 's/.* protocol=0x0800.* hash=0x\\([0-9a-f]*\\) l4_hash=\\([01]\\) .*/\\1 \\2/p' /sys/kernel/tracing/trace"
    ))?;
    text.lines()
        .map(|line| {
            let (hash, level) = line.split_once(' ').with_context(|| text.clone())?;
            Ok((u32::from_str_radix(hash, 16)?, level == "1"))
        })
        .collect()
}

/// Toeplitz's hash, as the specification refers to it: for each bit of the data that is set, the 32 bits of the key that
/// begin there.
fn toeplitz(key: &[u8], data: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| (bytes[at / 8] >> (7 - at % 8)) & 1;

    (0..data.len() * 8)
        .filter(|&at| bit(data, at) == 1)
        .fold(0, |hash, at| {
            hash ^ (at..at + 32).fold(0, |window, at| (window << 1) | u32::from(bit(key, at)))
        })
}

/// The hashes that packets from the other end can have, which are over the ports as well.
fn expected(key: &[u8]) -> [(u32, bool); CLIENTS.len()] {
    CLIENTS.map(|client| {
        let mut data = vec![10, 0, 2, 2, 10, 0, 2, 15];
        data.extend(SERVER.to_be_bytes());
        data.extend(client.to_be_bytes());
        (toeplitz(key, &data), true)
    })
}

/// Opens a connection to the other end, from which packets come back.
fn connect(guest: &mut Guest) -> Result<()> {
    let listener = guest
        .outside()
        .start(MOVE, format!("echo x | busybox nc -l -p {SERVER}"));

    guest.wait_for("the other end", MOVE, |guest| {
        let answer = guest.run(&format!("nc -w 5 10.0.2.2 {SERVER} </dev/null"))?;
        Ok((answer.stdout == "x\n").then_some(()))
    })?;
    listener.finish().map(drop)
}

/// The card spreads packets, and reports the hash by which it does.
fn both(guest: &mut Guest) -> Result<()> {
    // The key with which the hash's inventors show what it is to give.
    const KEY: &str = "6d:5a:56:da:25:5b:0e:c2:41:67:25:3d:43:a3:8f:b0:d0:ca:2b:cb:ae:7b:30:b4:77:cb:2d:a3:80:30:f2:0c:6a:42:b7:3b:be:ac:01:fa";

    up(guest, RUST)?;
    guest.sh(&format!(
        "echo {} {} >/proc/sys/net/ipv4/ip_local_port_range && ethtool -K eth0 rxhash on && ethtool -X eth0 hkey {KEY}",
        CLIENTS[0],
        CLIENTS[CLIENTS.len() - 1]
    ))?;
    let (key, _) = table(guest)?;
    let both = reached(guest, RUST)?;
    ensure!(both == [true, true], "{both:?}");

    let hashes = expected(&key);
    let seen = traced(guest, connect)?;
    ensure!(
        seen.iter().any(|hash| hashes.contains(hash)),
        "none of {hashes:x?}: {seen:x?}"
    );

    // The key decides: with another one the hashes are others.
    guest.sh(&format!(
        "ethtool -X eth0 hkey {}",
        KEY.replace("6d:", "01:").replace("da:", "02:")
    ))?;
    let (key, _) = table(guest)?;
    let others = expected(&key);
    let seen = traced(guest, connect)?;
    ensure!(
        seen.iter().any(|hash| others.contains(hash))
            && !seen.iter().any(|hash| hashes.contains(hash)),
        "none of {others:x?}, or some of {hashes:x?}: {seen:x?}"
    );

    // The user has no use for hashes: packets have none, and are spread as before.
    guest.sh("ethtool -K eth0 rxhash off")?;
    let none = traced(guest, send)?;
    ensure!(
        none.len() >= usize::from(FLOWS) && none.iter().all(|&(hash, _)| hash == 0),
        "{none:x?}"
    );
    let both = reached(guest, RUST)?;
    ensure!(both == [true, true], "without hashes: {both:?}");
    ping(guest, 3)
}

/// The card has one queue and reports hashes.
fn report(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    guest.sh("ethtool -K eth0 rxhash on")?;
    let (key, entries) = table(guest)?;
    ensure!(key.len() == 40 && entries.is_empty(), "{key:?} {entries:?}");
    let pinged = |guest: &mut Guest| ping(guest, 3);
    let data = [10, 0, 2, 2, 10, 0, 2, 15];
    let hash = toeplitz(&key, &data);
    let seen = traced(guest, pinged)?;
    ensure!(seen.contains(&(hash, false)), "no {hash:08x}: {seen:x?}");

    guest.sh("ethtool -K eth0 rxhash off")?;
    let none = traced(guest, pinged)?;
    ensure!(
        none.len() >= 3 && none.iter().all(|&(hash, _)| hash == 0),
        "{none:x?}"
    );
    guest.sh("ethtool -K eth0 rxhash on && ip link set eth0 down && ip link set eth0 up")?;
    let seen = traced(guest, pinged)?;
    ensure!(seen.contains(&(hash, false)), "no {hash:08x}: {seen:x?}");
    driver.unload(guest)
}

/// A program learns the hash of a packet, and what it is over (`bpf_xdp_metadata_rx_hash()`), also from what lies in the memory of a
/// `socket`.
fn program(guest: &mut Guest, driver: Driver, socket: bool) -> Result<()> {
    // IPv4, ports, TCP.
    const KIND: &str = "19";
    const ENODATA: &str = "61";

    up(guest, driver)?;
    guest.sh(&format!(
        "echo {} {} >/proc/sys/net/ipv4/ip_local_port_range && ethtool -K eth0 rxhash on && mkfifo /run/ask && \
         {{ sleep 600 >/run/ask 2>&1 </dev/null & echo $! >/run/pids; \
         xdphash /lib/hash.bpf.o eth0 </run/ask >/run/answers 2>&1 & echo $! >>/run/pids; }}",
        CLIENTS[0],
        CLIENTS[CLIENTS.len() - 1]
    ))?;
    guest.wait_for("the program", MOVE, |guest| {
        let said = guest.sh("cat /run/answers 2>/dev/null || true")?;
        ensure!(!said.contains("xdphash:"), "{said}");
        Ok(said.contains("on").then_some(()))
    })?;
    if socket {
        xsk::start(guest, "")?;
    }
    let ask = |guest: &mut Guest, answers: usize| {
        // Nobody listens, which the other end says in a packet.
        guest.wait_for("an answer of the other end", MOVE, |guest| {
            let answer = guest.run(&format!("nc -w 5 10.0.2.2 {SERVER} </dev/null"))?;
            Ok(answer.stderr.contains("refused").then_some(()))
        })?;
        guest.sh("echo >/run/ask")?;
        guest.wait_for("the answer", MOVE, |guest| {
            let lines = guest.sh("cat /run/answers")?;
            let answer = lines.lines().nth(answers);
            Ok(answer.map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>()))
        })
    };

    let (key, _) = table(guest)?;
    let hashes = expected(&key).map(|(hash, _)| format!("{hash:x}"));
    let [error, hash, kind] = &ask(guest, 1)?[..] else {
        bail!("no answer");
    };
    ensure!(
        error == "0" && kind == KIND && hashes.contains(hash),
        "error {error}, {hash} of kind {kind}, not one of {hashes:?}"
    );

    guest.sh("ethtool -K eth0 rxhash off")?;
    let answer = ask(guest, 2)?;
    ensure!(answer[0] == ENODATA, "{answer:?} where there are no hashes");
    guest.sh("ethtool -K eth0 rxhash on")?;
    let answer = ask(guest, 3)?;
    ensure!(
        answer[0] == "0" && hashes.contains(&answer[1]),
        "{answer:?}, not one of {hashes:?}"
    );
    if socket {
        xsk::end(guest)?;
    }
    // The program stays, and goes with the interface.
    guest.sh("kill $(cat /run/pids)")?;
    driver.unload(guest)
}

/// What the user has set is told again after a reset.
fn kept(guest: &mut Guest) -> Result<()> {
    up(guest, RUST)?;
    guest.sh("ethtool -X eth0 weight 0 1 && ethtool -N eth0 rx-flow-hash tcp4 sd")?;
    let before = guest.sh("ethtool -x eth0; ethtool -n eth0 rx-flow-hash tcp4")?;
    reset_function(guest)?;
    ping(guest, 3)?;
    let after = guest.sh("ethtool -x eth0; ethtool -n eth0 rx-flow-hash tcp4")?;
    ensure!(after == before, "{before}\nhas become\n{after}");
    let second = reached(guest, RUST)?;
    ensure!(second == [false, true], "{second:?}");
    let seen = traced(guest, send)?;
    ensure!(seen.iter().any(|&(hash, _)| hash != 0), "{seen:x?}");

    RUST.unload(guest)?;
    up(guest, RUST)?;
    let both = reached(guest, RUST)?;
    ensure!(both == [true, true], "{both:?}");
    ping(guest, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the table of examples that comes with the description of the hash.
    #[test]
    fn the_hash_is_the_one_that_is_known() {
        let key: Vec<u8> = [
            0x6d5a_56da_255b_0ec2_u64,
            0x4167_253d_43a3_8fb0,
            0xd0ca_2bcb_ae7b_30b4,
            0x77cb_2da3_8030_f20c,
            0x6a42_b73b_beac_01fa,
        ]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
        // 66.9.149.187:2794 to 161.142.100.80:1766.
        let addresses = [66, 9, 149, 187, 161, 142, 100, 80];
        let mut data = addresses.to_vec();
        data.extend(2794u16.to_be_bytes());
        data.extend(1766u16.to_be_bytes());

        assert_eq!(toeplitz(&key, &addresses), 0x323e_8fc2);
        assert_eq!(toeplitz(&key, &data), 0x51cc_c178);
    }
}
