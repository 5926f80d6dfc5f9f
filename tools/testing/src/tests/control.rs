// SPDX-License-Identifier: GPL-2.0

//! Tests of what the network driver tells its device by the control queue, and tells it again after a reset. The C driver
//! passes the same tests, but for what is said there.

use super::{
    balloon,
    net::{
        ping,
        reset_function,
        transfer,
        up,
        C,
        IP,
        MODERN,
        RUST, //
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
    Context,
    Result, //
};
use qapi::qmp;
use std::time::Duration;

const MIB: u64 = 1 << 20;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();

    for driver in [RUST, C] {
        let name = |subject: &str| format!("net/{}/{subject}", driver.module);
        let plain = || Spec::q35().network(MODERN);

        tests.push(Test::guest(name("filter"), 60, plain(), move |guest, _| {
            filter(guest, driver)
        }));
        let without = "ctrl_rx=off,ctrl_vlan=off,ctrl_mac_addr=off,guest_announce=off";
        tests.push(Test::guest(
            name("no-filter"),
            60,
            Spec::q35().network(&format!("{MODERN},{without}")),
            move |guest, _| no_filter(guest, driver),
        ));
        tests.push(Test::guest(
            name("announce"),
            60,
            plain(),
            move |guest, _| announce(guest, driver),
        ));
        tests.push(Test::guest(
            name("suspend"),
            120,
            plain(),
            move |guest, lab| suspend(guest, lab, driver),
        ));
        tests.push(
            Test::guest(
                name("hibernate"),
                300,
                balloon::spec(plain().disk(1024), ""),
                move |guest, lab| hibernate(guest, lab, driver),
            )
            .stock_only("its kernel has no driver for the disk"),
        );
        // The C driver does not come back from this.
        if driver == RUST {
            tests.push(Test::guest(
                name("function-reset"),
                120,
                Spec::q35().port().network(&format!("{MODERN},bus=port0")),
                function_reset,
            ));
        }
    }
    tests
}

/// What the device thinks that the guest wants to receive.
fn rx_filter(guest: &mut Guest) -> Result<qmp::RxFilterInfo> {
    let filters = guest.qmp(qmp::query_rx_filter {
        name: Some("n0".to_owned()),
    })?;
    filters.into_iter().next().context("n0 has no filter")
}

/// Waits until the device's filter is as it should be.
fn filter_is(
    guest: &mut Guest,
    what: &str,
    check: impl Fn(&qmp::RxFilterInfo) -> bool,
) -> Result<()> {
    guest
        .wait_for(what, Duration::from_secs(5), |guest| {
            Ok(check(&rx_filter(guest)?).then_some(()))
        })
        .map_err(|error| match rx_filter(guest) {
            Ok(filter) => error.context(format!("{filter:?}")),
            Err(_) => error,
        })
}

/// The device filters by what the guest asks for.
fn filter(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    filter_is(guest, "a quiet beginning", |filter| {
        !filter.promiscuous && filter.multicast != qmp::RxState::all
    })?;

    for (on, off, what) in [
        ("promisc on", "promisc off", "promiscuous"),
        ("allmulticast on", "allmulticast off", "all multicast"),
    ] {
        let is_on = |filter: &qmp::RxFilterInfo| match what {
            "promiscuous" => filter.promiscuous,
            _ => filter.multicast == qmp::RxState::all,
        };
        guest.sh(&format!("{IP} link set eth0 {on}"))?;
        filter_is(guest, what, is_on)?;
        guest.sh(&format!("{IP} link set eth0 {off}"))?;
        filter_is(guest, &format!("{what} no more"), |filter| !is_on(filter))?;
    }

    let has = |table: &[String], address: &str| table.iter().any(|entry| entry == address);
    let group = "33:33:00:00:00:99";
    guest.sh(&format!("{IP} maddress add {group} dev eth0"))?;
    filter_is(guest, "a group", |filter| {
        has(&filter.multicast_table, group)
    })?;
    guest.sh(&format!("{IP} maddress del {group} dev eth0"))?;
    filter_is(guest, "a group less", |filter| {
        !has(&filter.multicast_table, group)
    })?;
    let second = "52:54:00:00:00:99";
    guest.sh(&format!("bridge fdb add {second} dev eth0 self"))?;
    filter_is(guest, "a second address", |filter| {
        has(&filter.unicast_table, second)
    })?;

    guest.modprobe("8021q")?;
    guest.sh(&format!(
        "{IP} link add link eth0 name vlan5 type vlan id 5"
    ))?;
    filter_is(guest, "a VLAN", |filter| filter.vlan_table.contains(&5))?;
    guest.sh(&format!("{IP} link del vlan5"))?;
    filter_is(guest, "a VLAN less", |filter| {
        !filter.vlan_table.contains(&5)
    })?;

    let own = "52:54:00:00:00:42";
    guest.sh(&format!("{IP} link set eth0 address {own}"))?;
    filter_is(guest, "an address", |filter| filter.main_mac == own)?;
    ping(guest, 3)
}

/// A device without these commands delivers everything, and the same requests of the user succeed.
fn no_filter(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    guest.modprobe("8021q")?;
    guest.sh(&format!(
        "{IP} link set eth0 promisc on && {IP} link set eth0 promisc off && \
         {IP} maddress add 33:33:00:00:00:99 dev eth0 && {IP} link set eth0 address 52:54:00:00:00:42 && \
         {IP} link add link eth0 name vlan5 type vlan id 5 && {IP} link del vlan5",
    ))?;
    let filter = rx_filter(guest)?;
    ensure!(filter.promiscuous, "{filter:?}");
    ping(guest, 3)
}

/// The host asks the guest to say where it is, as after a migration.
fn announce(guest: &mut Guest, driver: Driver) -> Result<()> {
    up(guest, driver)?;
    guest.sh(
        "tcpdump -Z root -l -n -i eth0 arp >/tmp/seen 2>/dev/null & echo $! >/run/tcpdump; sleep 2",
    )?;
    for round in 1..=2 {
        guest.qmp(qmp::announce_self(qmp::AnnounceParameters {
            initial: 50,
            max: 100,
            rounds: 1,
            step: 50,
            interfaces: None,
            id: None,
        }))?;
        // The second one comes only if the device knows that the first was carried out.
        guest.wait_for("an announcement", Duration::from_secs(10), |guest| {
            let seen = guest.number(
                "grep -c 'who-has 10.0.2.15 tell 10.0.2.15\\|Announcement 10.0.2.15' /tmp/seen || true",
            )?;
            Ok((seen >= round).then_some(()))
        })?;
    }
    guest.sh("kill $(cat /run/tcpdump)").map(drop)
}

/// Sets things that a device forgets when it is reset.
fn configure(guest: &mut Guest, driver: Driver) -> Result<()> {
    guest.modprobe("8021q")?;
    // The C driver does not tell the device of its address again, and gets nothing any more.
    if driver == RUST {
        guest.sh(&format!("{IP} link set eth0 address 52:54:00:00:00:42"))?;
    }
    guest.sh(&format!(
        "{IP} maddress add 33:33:00:00:00:99 dev eth0 && \
         {IP} link add link eth0 name vlan5 type vlan id 5"
    ))?;
    ping(guest, 3)
}

/// The device knows what [`configure`] has set.
fn is_configured(guest: &mut Guest) -> Result<()> {
    filter_is(guest, "all as before", |filter| {
        filter.main_mac == "52:54:00:00:00:42"
            && filter.vlan_table.contains(&5)
            && filter
                .multicast_table
                .iter()
                .any(|entry| entry == "33:33:00:00:00:99")
            && !filter.promiscuous
    })
}

/// The machine is suspended to memory, as a user does it, and woken up, as a host does it: with the interface up, twice, and
/// with the interface down. Where the kernel can turn back on its way (`pm_test`) it does that before, once after each step.
fn suspend(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    const ALIVE: &str = "ping -c 3 -i 0.2 -W 5 10.0.2.2";
    const TURN_BACK: &str = "/sys/power/pm_test";
    const LAST: &str = "core";
    const STEPS: [&str; 5] = ["freezer", "devices", "platform", "processors", LAST];

    up(guest, driver)?;
    configure(guest, driver)?;
    let turns_back = guest.run(&format!("test -e {TURN_BACK}"))?.status == 0;
    ensure!(turns_back || !lab.sanitizer, "there is no {TURN_BACK}");
    let steps = if turns_back { &STEPS[..] } else { &[] };
    guest.leave_alone(&format!(
        "for step in {}; do echo 1 >/sys/module/suspend/parameters/pm_test_delay && echo $step >{TURN_BACK} && \
         echo mem >/sys/power/state && echo none >{TURN_BACK} && {ALIVE} && echo tenon: back from $step >/dev/kmsg || exit 1; done; \
         for round in 1 2; do echo mem >/sys/power/state && {ALIVE} && echo tenon: alive $round >/dev/kmsg || exit 1; sleep 2; done; \
         ip link set eth0 down && echo mem >/sys/power/state && ip link set eth0 up && {ALIVE} && \
         echo tenon: alive 3 >/dev/kmsg && rmmod {}",
        steps.join(" "),
        driver.module
    ))?;
    for &step in steps {
        guest.wait_for(
            &format!("life after the step {step}"),
            Duration::from_secs(20),
            |guest| {
                Ok(guest
                    .log()
                    .contains(&format!("tenon: back from {step}"))
                    .then_some(()))
            },
        )?;
        // The C driver does not tell the device again. After the last step the machine is about to sleep.
        if driver == RUST && step != LAST {
            is_configured(guest)?;
        }
    }
    for round in 1..=3 {
        // The machine may wake up by itself, too soon to be seen asleep.
        guest.wait_for(
            &format!("life after sleep {round}"),
            Duration::from_secs(40),
            |guest| {
                if guest.qmp(qmp::query_status {})?.status == qmp::RunState::suspended {
                    guest.qmp(qmp::system_wakeup {})?;
                }
                Ok(guest
                    .log()
                    .contains(&format!("tenon: alive {round}"))
                    .then_some(()))
            },
        )?;
        // The C driver does not tell the device again.
        if driver == RUST && round < 3 {
            is_configured(guest)?;
        }
    }
    let log = guest.log();
    let asleep = log
        .split_once(&format!("tenon: back from {LAST}"))
        .map_or(log.as_str(), |(_, after)| after);
    let sleeps = asleep
        .matches("Waking up from system sleep state S3")
        .count();
    ensure!(sleeps == 3, "the machine has slept {sleeps} times");
    Ok(())
}

/// The machine is suspended to its disk, and goes on in another QEMU: with the network as it was, and a balloon that follows the
/// new host's wishes.
fn hibernate(guest: &mut Guest, lab: &Lab, driver: Driver) -> Result<()> {
    const SIZE: u64 = 300 << 20;

    up(guest, driver)?;
    configure(guest, driver)?;
    let balloon = if driver == RUST {
        balloon::RUST
    } else {
        balloon::C
    };
    balloon.load(guest, "")?;
    balloon::resize(guest, 400 << 20)?;
    guest.sh("mkswap /dev/nvme0n1 && swapon /dev/nvme0n1")?;
    guest.leave_alone(
        "echo shutdown >/sys/power/disk && echo 0 >/sys/power/image_size && echo disk >/sys/power/state && \
         ping -c 3 -i 0.2 -W 5 10.0.2.2 && echo tenon: alive >/dev/kmsg",
    )?;
    guest.wake_from_disk(lab)?;
    guest.wait_for("life after the disk", Duration::from_secs(120), |guest| {
        Ok(guest.log().contains("tenon: alive").then_some(()))
    })?;
    // The C driver does not tell the device again.
    if driver == RUST {
        is_configured(guest)?;
    }
    balloon::resize(guest, SIZE)?;
    let all = guest.spec().memory_bytes();
    balloon::resize(guest, all)
}

/// The card is reset by its PCI function.
fn function_reset(guest: &mut Guest, lab: &Lab) -> Result<()> {
    up(guest, RUST)?;
    configure(guest, RUST)?;
    for _ in 0..2 {
        reset_function(guest)?;
        ping(guest, 3)?;
        transfer(guest, lab, 4 * MIB)?;
        is_configured(guest)?;
    }
    guest.sh("ip link set eth0 down")?;
    reset_function(guest)?;
    guest.sh("ip link set eth0 up")?;
    ping(guest, 3)
}
