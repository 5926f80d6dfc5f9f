// SPDX-License-Identifier: GPL-2.0

//! Tests of the snapshot of guest_integrity: one document, valid whatever goes on, that says where each task is.

use super::{
    count,
    interfaces::for_root_only,
    Victim,
    MODULE,
    ON_DEMAND, //
};
use crate::guest::Guest;
use anyhow::{
    anyhow,
    ensure,
    Context,
    Result, //
};
use jsonschema::Validator;
use serde_json::Value;
use std::time::Duration;

const DEVICE: &str = "/dev/guest_integrity_snapshot";
const SCHEMA: &str =
    include_str!("../../../../../Documentation/admin-guide/guest-integrity-snapshot.schema.json");

/// Bytes that mean something to JSON, or are no text at all.
const NAME: &[u8] = b"a\"\\\x01\xff\xc3,";

/// The document of a snapshot.
struct Snapshot(Value);

impl Snapshot {
    /// Reads one with `command`. It must be valid.
    fn take(guest: &mut Guest, validator: &Validator, command: &str) -> Result<Self> {
        let text = guest.sh(command)?;
        let document = serde_json::from_str(&text).with_context(|| text.clone())?;

        if let Err(error) = validator.validate(&document) {
            let at = error.instance_path().to_string();
            return Err(anyhow!("{error} at {at}: {text}"));
        }
        Ok(Snapshot(document))
    }

    /// The one of `name` in the list `of`.
    fn named(&self, of: &str, name: &str) -> Result<&Value> {
        let all = self.0[of].as_array().map(Vec::as_slice);

        all.unwrap_or_default()
            .iter()
            .find(|one| one["name"] == name)
            .with_context(|| format!("no {name} in {of}"))
    }

    fn task(&self, pid: u64) -> Result<&Value> {
        let all = self.0["tasks"].as_array().map(Vec::as_slice);
        let mut of_pid = all
            .unwrap_or_default()
            .iter()
            .filter(|task| task["pid"] == pid);
        let task = of_pid.next().with_context(|| format!("no task {pid}"))?;

        ensure!(of_pid.next().is_none(), "there are two tasks {pid}");
        Ok(task)
    }
}

/// The words of an array.
fn words(array: &Value) -> Vec<&str> {
    let all = array.as_array().map(Vec::as_slice).unwrap_or_default();

    all.iter().filter_map(Value::as_str).collect()
}

/// A snapshot is valid, shows tasks and modules where they are, and a hidden task where it is not.
pub fn snapshot(guest: &mut Guest) -> Result<()> {
    let schema = serde_json::from_str(SCHEMA)?;
    let validator = jsonschema::draft202012::new(&schema).map_err(|error| anyhow!("{error}"))?;
    let read = format!("cat {DEVICE}");

    MODULE.load(guest, ON_DEMAND)?;
    for_root_only(guest, &format!("<{DEVICE}"))?;
    let name: Vec<_> = NAME.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let victim = Victim::start(guest, &format!("-c 1 -n \"$(printf '{}')\"", name.concat()))?;

    let taken = Snapshot::take(guest, &validator, &read)?;
    ensure!(
        taken.0["kernel"] == guest.sh("uname -r")?.trim()
            && taken.0["truncated"] == false
            && taken.0["cut"] == 0
            && taken.0["skipped"] == 0
            && taken.0["cpus"] == 2,
        "{}",
        taken.0
    );
    let task = taken.task(victim.pid)?;
    ensure!(
        words(&task["places"]) == ["runqueue", "pid", "family", "proc", "processes", "threads"]
            && !words(&task["queues"]).is_empty()
            && task["tgid"] == victim.pid
            && task["comm"] == "tenon-victim"
            && task["exit_state"] == 0,
        "{task}"
    );
    let module = taken.named("modules", "guest_integrity")?;
    ensure!(
        module["state"] == "live" && words(&module["places"]) == ["list", "sysfs", "tree", "told"],
        "{module}"
    );
    ensure!(taken.named("functions", "iterate_dir")?["entry"] == "plain");
    ensure!(taken.named("views", "proc")?["state"] == "on");

    // Hidden by what is no scan, so that nothing is reported. The name is whatever the task likes.
    guest.insmod("hide_task", &format!("pid={}", victim.pid))?;
    guest.sh(&format!("kill -USR1 {}", victim.pid))?;
    guest.wait_for("the new name", Duration::from_secs(10), |guest| {
        let name = guest.sh(&format!("head -c 2 /proc/{}/comm", victim.pid))?;
        Ok((name == "a\"").then_some(()))
    })?;
    let taken = Snapshot::take(guest, &validator, &format!("dd if={DEVICE} bs=100"))?;
    let task = taken.task(victim.pid)?;
    let comm = task["comm"].as_str().unwrap_or_default();
    ensure!(
        words(&task["places"]) == ["runqueue", "pid", "family", "proc"],
        "{task}"
    );
    ensure!(
        comm.chars()
            .map(u32::from)
            .eq(NAME.iter().copied().map(u32::from)),
        "{task}"
    );
    ensure!(count(guest, "scans")? == 0 && count(guest, "findings")? == 0);

    // A view that is off is not taken.
    let views = "/sys/module/guest_integrity/parameters/views";
    guest.sh(&format!("echo pid >{views}"))?;
    let taken = Snapshot::take(guest, &validator, &read)?;
    ensure!(taken.named("views", "runqueue")?["state"] == "off");
    ensure!(words(&taken.task(victim.pid)?["places"]) == ["pid"]);
    guest.sh(&format!("echo all >{views}; rmmod hide_task"))?;

    // However much goes on.
    guest.sh("storm -s 5 -w 4 >/dev/null 2>&1 </dev/null &")?;
    for _ in 0..5 {
        let taken = Snapshot::take(guest, &validator, &read)?;
        let task = taken.task(victim.pid)?;
        ensure!(words(&task["places"]).contains(&"processes"), "{task}");
        ensure!(taken.0["truncated"] == false && taken.0["cut"] == 0);
    }
    victim.end(guest)
}

/// A document of more tasks than it can have says so, and has as many as it can.
pub fn full(guest: &mut Guest) -> Result<()> {
    const MOST: u64 = 32_768;
    const LIMIT: Duration = Duration::from_secs(120);

    MODULE.load(guest, ON_DEMAND)?;
    guest.sh("echo 100000 >/proc/sys/kernel/threads-max; echo 100000 >/proc/sys/kernel/pid_max")?;
    let head = |guest: &mut Guest, number: u64| {
        // It goes back to the group that it came from to end its own. That of a guest's commands is the kernel's, without a number.
        guest.sh_for(
            LIMIT,
            &format!("setsid sh -c 'crowd -n {number} -t cp {DEVICE} /run/snapshot && true'"),
        )?;
        // A line each.
        let tasks = guest.number("grep -c '^{\"pid\":' /run/snapshot")?;
        let truncated = guest
            .run("grep -q '\"truncated\":true' /run/snapshot")?
            .status
            == 0;
        let end = guest.sh("tail -c 4 /run/snapshot")?;
        ensure!(end.trim_end().ends_with("]}"), "it ends with {end:?}");
        Ok((tasks, truncated))
    };

    let (tasks, truncated) = head(guest, 1_000)?;
    ensure!(
        !truncated && tasks > 1_000 && tasks < MOST,
        "{tasks} tasks, truncated: {truncated}"
    );
    let (tasks, truncated) = head(guest, MOST)?;
    ensure!(
        truncated && tasks == MOST,
        "{tasks} tasks, truncated: {truncated}"
    );
    ensure!(count(guest, "scans")? == 0);
    Ok(())
}
