// SPDX-License-Identifier: GPL-2.0

//! The storm: whatever honest tasks do, guest_integrity raises no alarm.

use super::{
    count,
    findings,
    MODULE, //
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
use std::{
    collections::HashMap,
    time::Duration, //
};

/// Longest time of one round, in seconds.
const ROUND: u64 = 60;

/// What changes the machine meanwhile, each for ever.
const LOOPS: [(&str, &str); 7] = [
    // A group that has used up its time within a moment, with a storm of its own.
    (
        "throttle",
        "(echo 0 >/run/cg/small/cgroup.procs; while :; do storm -s 1000 -w 2 >/dev/null; done) & \
         while sleep 1; do grep -q \"^nr_throttled [1-9]\" /run/cg/small/cpu.stat && echo; done",
    ),
    (
        "modules",
        "while modprobe virtio_balloon && rmmod virtio_balloon; do echo; done",
    ),
    // A CPU that goes meanwhile makes the kernel take the scheduler away.
    (
        "sched_ext",
        "attach /lib/sched.bpf.o tenon 500 500",
    ),
    // Tracing of functions that the views call, by what writes over how they begin.
    (
        "tracing",
        "cd /sys/kernel/tracing; echo find_pid_ns >set_ftrace_filter; echo p:tenon iterate_dir >kprobe_events; \
         while sleep 0.1; do echo function >current_tracer; echo 1 >events/kprobes/tenon/enable; \
         echo nop >current_tracer; echo 0 >events/kprobes/tenon/enable; echo; done",
    ),
    (
        "bpf",
        "attach /lib/trace.bpf.o enter 300 300",
    ),
    // It can go when each task has been seen outside what it changes. While a program of BPF attaches, the kernel wants it to be tried again.
    (
        LIVE_PATCH,
        "cd /sys/kernel/livepatch; while :; do until insmod /modules/live_patch.ko; do sleep 0.1; done; \
         until [ $(cat live_patch/transition) = 0 ]; do sleep 0.1; done; \
         echo 0 >live_patch/enabled; while test -e live_patch; do sleep 0.1; done; rmmod live_patch; echo; done",
    ),
    // The probe, and views that come and go.
    (
        "parameters",
        "cd /sys/module/guest_integrity/parameters; while sleep 0.2; do \
         echo 0 >switch_probe; echo pid,switch >views; echo 1 >switch_probe; echo all >views; echo; done",
    ),
];

const HOTPLUG: (&str, &str) = (
    "hotplug",
    "while echo 0 && sleep 0.3 && echo 1 >&3 && sleep 0.3; do echo >&4; done \
     4>&1 >/sys/devices/system/cpu/cpu1/online 3>/sys/devices/system/cpu/cpu1/online",
);

const LIVE_PATCH: &str = "live_patch";

/// What changes code of the kernel all the time.
const TRACING: [&str; 3] = ["tracing", "bpf", LIVE_PATCH];

/// How long the storm of the test lasts.
pub const SECONDS: u64 = 60;

/// How long it lasts: `TENON_STORM_SECONDS`, or that.
pub fn seconds(default: u64) -> u64 {
    std::env::var("TENON_STORM_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(default)
}

/// The guest that it is in.
pub fn spec() -> Spec {
    Spec::q35().memory(768)
}

/// What all scans of a storm have said of themselves.
pub struct Scans(HashMap<String, u64>);

impl Scans {
    fn parse(line: &str) -> Result<Self> {
        let pairs = line.split_whitespace().map(|pair| {
            let (key, value) = pair.split_once('=').with_context(|| line.to_owned())?;
            Ok((key.to_owned(), value.parse()?))
        });

        Ok(Scans(pairs.collect::<Result<_>>()?))
    }

    /// A number, by its name in what the program `scans` prints.
    pub fn get(&self, key: &str) -> Result<u64> {
        self.0
            .get(key)
            .copied()
            .with_context(|| format!("no {key} of the scans"))
    }
}

/// A storm under way.
pub struct Storm<'a> {
    guest: &'a mut Guest,
    /// What is reserved for deadline tasks, and was before there were any.
    reserved: u64,
    loops: Vec<&'static str>,
}

impl<'a> Storm<'a> {
    /// Begins to scan with that nice value, and whatever changes the machine but `without`. guest_integrity has been loaded.
    pub fn begin(guest: &'a mut Guest, nice: i32, without: &[&str]) -> Result<Self> {
        guest.sh(
            "mkdir -p /run/cg && mount -t cgroup2 none /run/cg && echo +cpu >/run/cg/cgroup.subtree_control && \
             mkdir /run/cg/small && echo '1000 50000' >/run/cg/small/cpu.max && \
             { test -e /sys/kernel/tracing/trace || mount -t tracefs t /sys/kernel/tracing; }",
        )?;
        let mut storm = Storm {
            reserved: reserved(guest)?,
            guest,
            loops: Vec::new(),
        };

        // With a real-time priority it would keep threads of the kernel that hold RCU up from running.
        storm.guest.sh(&format!(
            "scans -p {nice} >/run/scans 2>&1 </dev/null & echo $! >/run/scans.pid"
        ))?;
        // The sanitizer kernel has no live patches.
        let patches = storm.guest.run("test -e /sys/kernel/livepatch")?.status == 0;
        for each in LOOPS.iter().filter(|(name, _)| !without.contains(name)) {
            if patches || each.0 != LIVE_PATCH {
                storm.start(each)?;
            }
        }
        Ok(storm)
    }

    fn start(&mut self, (name, command): &(&'static str, &str)) -> Result<()> {
        self.guest.sh(&format!(
            "sh -c '{command}' >>/run/loop-{name} 2>/run/loop-{name}.err </dev/null & \
             echo $! >/run/loop-{name}.pid"
        ))?;
        if !self.loops.contains(name) {
            self.loops.push(name);
        }
        Ok(())
    }

    /// Rages for so many seconds, a minute at most at a time. On a kernel that is so many times slower each takes so much longer, as
    /// else too little would happen in it. `after` is called after each.
    pub fn rage(
        &mut self,
        mut seconds: u64,
        slow: u32,
        mut after: impl FnMut(&mut Guest) -> Result<()>,
    ) -> Result<()> {
        while seconds > 0 {
            let round = seconds.min(ROUND);

            self.round(round * u64::from(slow))?;
            after(self.guest)?;
            seconds -= round;
        }
        Ok(())
    }

    fn round(&mut self, seconds: u64) -> Result<()> {
        // The kernel divides by the number of CPUs that are left of a deadline task's when its last one has gone: with such tasks, all
        // CPUs stay. One that took more time than it may is there for seconds after its parent has waited for it.
        let before = self.reserved;
        self.guest.wait_for(
            "the end of deadline tasks",
            Duration::from_secs(60),
            |guest| Ok((reserved(guest)? <= before).then_some(())),
        )?;
        self.start(&HOTPLUG)?;
        self.tasks((seconds * 3).div_ceil(4), "")?;
        self.guest.sh(
            "kill -KILL $(cat /run/loop-hotplug.pid) 2>/dev/null; sleep 1; \
             [ $(cat /sys/devices/system/cpu/cpu1/online) = 1 ] || echo 1 >/sys/devices/system/cpu/cpu1/online",
        )?;
        self.tasks(seconds / 4, "-d")
    }

    /// Tasks that come and go.
    fn tasks(&mut self, seconds: u64, options: &str) -> Result<()> {
        let done = self.guest.sh_for(
            Duration::from_secs(seconds + 45),
            &format!("storm -s {seconds} -w $((2 * $(nproc))) {options}"),
        )?;

        for kind in done.split(' ') {
            let (name, number) = kind.split_once('=').with_context(|| done.clone())?;
            ensure!(
                number.parse::<u64>()? > 3,
                "too little of a storm: {name}={number}"
            );
        }
        println!("{}", done.trim());
        Ok(())
    }

    /// Ends scanning, and returns what the scans were like.
    pub fn scans(&mut self) -> Result<Scans> {
        self.guest.sh("kill $(cat /run/scans.pid)")?;
        let line =
            self.guest
                .wait_for("the end of scanning", Duration::from_secs(20), |guest| {
                    let line = guest.sh("cat /run/scans")?;
                    Ok((!line.is_empty()).then_some(line))
                })?;

        Scans::parse(&line)
    }

    /// Ends it all, and fails if it was too little of a storm.
    pub fn end(mut self) -> Result<Scans> {
        let scans = self.scans()?;

        for name in &self.loops {
            let rounds = self.guest.number(&format!("wc -l </run/loop-{name}"))?;
            let error = self.guest.sh(&format!("cat /run/loop-{name}.err"))?;
            ensure!(rounds >= 3, "{name}: {rounds} rounds only, {error}");
        }
        Ok(scans)
    }
}

/// What is reserved for deadline tasks on all CPUs.
fn reserved(guest: &mut Guest) -> Result<u64> {
    guest.number("sed -n \"s/.*dl_bw->total_bw *: *//p\" /sys/kernel/debug/sched/debug | head -n 1")
}

/// Fails if anything was found, or if no scan met what the storm is for, which may be tracing.
pub fn check(guest: &mut Guest, traced: bool) -> Result<()> {
    let scans = count(guest, "scans")?;
    let found = count(guest, "findings")?;
    ensure!(
        found == 0,
        "{found} findings in {scans} scans: {:?}",
        findings(guest)?
    );
    let [suspected, exiting, cleared, observed] =
        ["suspected", "exiting", "cleared", "observations"].map(|name| count(guest, name));
    let (exiting, observed) = (exiting?, observed?);
    println!(
        "{scans} scans, {} suspects of the probe, {exiting} tasks were exiting, {} cleared, {observed} observations",
        suspected?, cleared?
    );
    ensure!(exiting > 0, "no scan met a task that was exiting");
    ensure!(
        (observed > 0) == traced,
        "{observed} times a scan met a function that was traced"
    );
    Ok(())
}

/// However fast honest tasks come and go, none is taken for a hidden one, and each scan is complete.
pub fn storm(guest: &mut Guest, lab: &Lab) -> Result<()> {
    raging(guest, lab, &TRACING)
}

/// Nor is what is traced meanwhile.
pub fn traced(guest: &mut Guest, lab: &Lab) -> Result<()> {
    raging(guest, lab, &[])
}

fn raging(guest: &mut Guest, lab: &Lab, without: &[&str]) -> Result<()> {
    // Each honest suspect of the probe has another scan made.
    MODULE.load(guest, "interval_ms=0")?;
    let mut storm = Storm::begin(guest, 0, without)?;
    storm.rage(seconds(SECONDS), lab.slow, |_| Ok(()))?;
    let scans = storm.end()?.get("scans")?;

    ensure!(scans > 500, "{scans} scans only");
    check(guest, without.is_empty())?;
    let scans = count(guest, "scans")?;
    let clean = count(guest, "clean")?;
    let truncated = count(guest, "truncated")?;
    ensure!(
        clean == scans && truncated == 0,
        "{clean} of {scans} scans are clean, {truncated} truncated"
    );
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::Scans;

    #[test]
    fn scans_are_read_by_name() {
        let scans = Scans::parse("scans=12 complete=11 cpus_min=2\n").unwrap();

        assert_eq!(scans.get("complete").unwrap(), 11);
        assert!(scans.get("cpus").is_err() && Scans::parse("scans=").is_err());
    }
}
