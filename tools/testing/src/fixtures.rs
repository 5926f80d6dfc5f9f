// SPDX-License-Identifier: GPL-2.0

//! Builds `tools/testing/fixtures`: what an attacker, a bad host or the kernel itself would do, and programs for it to work on. And
//! compiles programs of others that tests run beside a guest.

use crate::env::Environment;
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::{
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};

/// What is built, and where guests find it.
const FILES: &[(&str, &str)] = &[
    ("bend_list/bend_list.ko", "modules/bend_list.ko"),
    ("bpf/hash.bpf.o", "lib/hash.bpf.o"),
    ("bpf/sched.bpf.o", "lib/sched.bpf.o"),
    ("bpf/trace.bpf.o", "lib/trace.bpf.o"),
    ("bpf/xdp.bpf.o", "lib/xdp.bpf.o"),
    ("empty_probe/empty_probe.ko", "modules/empty_probe.ko"),
    ("forge_export/forge_export.ko", "modules/forge_export.ko"),
    ("forge_task/forge_task.ko", "modules/forge_task.ko"),
    ("hide_dirent/hide_dirent.ko", "modules/hide_dirent.ko"),
    ("hide_module/hide_module.ko", "modules/hide_module.ko"),
    ("hide_proc/hide_proc.ko", "modules/hide_proc.ko"),
    ("hide_task/hide_task.ko", "modules/hide_task.ko"),
    (
        "kthread_victim/kthread_victim.ko",
        "modules/kthread_victim.ko",
    ),
    ("live_patch/live_patch.ko", "modules/live_patch.ko"),
    ("mute_balloon/mute_balloon.ko", "modules/mute_balloon.ko"),
    ("null_card/null_card.ko", "modules/null_card.ko"),
    ("restart_queue/restart_queue.ko", "modules/restart_queue.ko"),
    ("restrict_dma/restrict_dma.ko", "modules/restrict_dma.ko"),
    ("spoil_btf/spoil_btf.ko", "modules/spoil_btf.ko"),
    ("stop_walk/stop_walk.ko", "modules/stop_walk.ko"),
    ("stray_probe/stray_probe.ko", "modules/stray_probe.ko"),
    ("take_probe/take_probe.ko", "modules/take_probe.ko"),
    ("user/attach", "bin/attach"),
    ("user/badread", "bin/badread"),
    ("user/crowd", "bin/crowd"),
    ("user/frames", "bin/frames"),
    ("user/load", "bin/load"),
    ("user/mark", "bin/mark"),
    ("user/pingpong", "bin/pingpong"),
    ("user/pipes", "bin/pipes"),
    ("user/pools", "bin/pools"),
    ("user/qstats", "bin/qstats"),
    ("user/scans", "bin/scans"),
    ("user/segment", "bin/segment"),
    ("user/storm", "bin/storm"),
    ("user/victim", "bin/victim"),
    ("user/vsink", "bin/vsink"),
    ("user/xdphash", "bin/xdphash"),
    ("user/xsk", "bin/xsk"),
];

/// A program for this machine that comes from the registry of crates, where no distribution has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crate {
    pub name: &'static str,
    pub version: &'static str,
}

/// The host's end of a guest's virtio-vsock device, of the rust-vmm project.
pub const VSOCK: Crate = Crate {
    name: "vhost-device-vsock",
    version: "0.3.0",
};

impl Crate {
    fn root(&self, top: &Path) -> PathBuf {
        top.join("build/host/crates")
            .join(format!("{}-{}", self.name, self.version))
    }

    /// Where the program is when it has been compiled.
    pub fn path(&self, top: &Path) -> PathBuf {
        self.root(top).join("bin").join(self.name)
    }

    /// Compiles the program, once.
    pub fn install(&self, env: &Environment) -> Result<()> {
        if self.path(&env.top).exists() {
            return Ok(());
        }
        println!("compiling {} (a minute or two)", self.name);
        let built = Command::new("cargo")
            .args(["install", "--quiet", "--debug", "--locked"])
            .args(["--version", self.version, self.name, "--root"])
            .arg(self.root(&env.top))
            .arg("--target-dir")
            .arg(env.top.join("build/host"))
            .output()
            .context("cargo")?;

        ensure!(
            built.status.success(),
            "{} {} cannot be compiled:\n{}",
            self.name,
            self.version,
            String::from_utf8_lossy(&built.stderr).trim()
        );
        Ok(())
    }
}

/// Where a program for guests is on this machine.
pub fn program(env: &Environment, name: &str) -> PathBuf {
    directory(env).join("user").join(name)
}

fn directory(env: &Environment) -> PathBuf {
    env.top
        .join("build")
        .join(&env.kernel_release)
        .join("fixtures")
}

/// Builds the fixtures for the kernel under test.
pub fn build(env: &Environment) -> Result<Vec<(PathBuf, String)>> {
    let output = directory(env);

    std::fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let made = env
        .kbuild(
            &env.top.join("tools/testing/fixtures"),
            Some(&output),
            "modules",
        )
        .output()
        .context("make")?;
    ensure!(
        made.status.success(),
        "the fixtures of tools/testing/fixtures cannot be built:\n{}",
        String::from_utf8_lossy(&made.stderr).trim()
    );

    Ok(FILES
        .iter()
        .map(|&(from, to)| (output.join(from), to.to_owned()))
        .collect())
}
