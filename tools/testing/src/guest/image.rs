// SPDX-License-Identifier: GPL-2.0

//! What guests boot: the kernel, and one initramfs for all of them.

use super::{
    archive::Archive,
    modules::ModuleTree, //
};
use crate::env::Environment;
use anyhow::{
    Context,
    Result, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};
use tempfile::TempDir;

const INIT: &str = include_str!("init.sh");
const DHCP: &str = include_str!("dhcp.sh");
const SHELL: &str = include_str!("shell.sh");

/// Programs of the build tree that guests have besides busybox.
const PROGRAMS: &[&str] = &[
    "bash", "bridge", "chrt", "ethtool", "ip", "iperf3", "kmod", "qemu-ga", "tcpdump",
];

/// Libraries that programs ask for by name while they run: threads of iperf3 end with this one.
const LIBRARIES: &[&str] = &["lib/x86_64-linux-gnu/libgcc_s.so.1"];

/// The kernel's own modules that guests have, if this kernel has them as modules.
const STOCK: &[&str] = &[
    "8021q",
    "dummy",
    "netconsole",
    "pktgen",
    "virtio_balloon",
    "virtio_blk",
    "virtio_mmio",
    "virtio_net",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
    "vmxnet3",
    "vsock_loopback",
    "vxlan",
    "zram",
];

/// What a user runs in a checkout, and guests have in `/tenon`.
const SCRIPTS: &[&str] = &[
    "balloon-pressure",
    "install",
    "integrity-listing",
    "interface.sh",
    "kernel-check.sh",
    "lib.sh",
    "load",
    "uninstall",
];

/// The tools for modules that distributions have: `/kmod` in front of the path puts them in the place of busybox's.
const KMOD: &[&str] = &["depmod", "insmod", "lsmod", "modinfo", "modprobe", "rmmod"];

/// A kernel and an initramfs, and the directory for everything that guests need while they run.
pub struct Image {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    directory: TempDir,
}

impl Image {
    /// Collects the programs and modules of guests.
    ///
    /// Our modules are in `/modules`, as far as they are built: a test that needs one that is missing fails by itself.
    /// `extra` are more files for the guests, as pairs of a path here and a path there.
    pub fn build(env: &Environment, extra: &[(PathBuf, String)]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("tenon-").tempdir()?;
        let initramfs = directory.path().join("initramfs");

        fs::write(&initramfs, contents(env, extra)?)?;
        Ok(Image {
            kernel: env.kernel_image.clone(),
            initramfs,
            directory,
        })
    }

    /// The kernel of a distribution, with an initial RAM disk of its own.
    pub fn installed(kernel: &Path, initramfs: &Path) -> Result<Self> {
        Ok(Image {
            kernel: kernel.to_owned(),
            initramfs: initramfs.to_owned(),
            directory: tempfile::Builder::new().prefix("tenon-").tempdir()?,
        })
    }

    /// A directory that goes away with the image.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn contents(env: &Environment, extra: &[(PathBuf, String)]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();

    for directory in [
        "dev", "proc", "sys", "run", "tmp", "root", "var", "etc", "modules",
    ] {
        archive.directory(directory)?;
    }
    // Where some programs look for others.
    archive.link("sbin", "bin")?;
    archive.link("usr/bin", "../bin")?;
    archive.link("usr/sbin", "../bin")?;
    archive.link("var/run", "../run")?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("etc/shell", 0o755, SHELL.as_bytes())?;
    archive.file("etc/dhcp", 0o755, DHCP.as_bytes())?;
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    archive.file("etc/group", 0o644, b"root:x:0:\n")?;

    for name in PROGRAMS {
        archive.program(&find(name)?, name)?;
    }
    for path in LIBRARIES {
        archive.copy(&Path::new("/").join(path), path)?;
    }
    busybox(&mut archive)?;

    let stock = ModuleTree::read(&env.stock_modules)?;
    for (path, contents) in stock.files(STOCK)? {
        let path = format!("lib/modules/{}/{path}", env.kernel_release);
        archive.file(&path, 0o644, &contents)?;
    }
    for module in built_modules(&env.modules)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.copy(&module, &format!("modules/{name}"))?;
    }
    checkout(&mut archive, env)?;
    for (from, to) in extra {
        archive.copy(from, to)?;
    }
    archive.finish()
}

/// Adds what there is of a checkout after `make modules`, as far as the scripts need it.
fn checkout(archive: &mut Archive, env: &Environment) -> Result<()> {
    for script in SCRIPTS {
        let from = env.top.join("scripts").join(script);
        archive.copy(&from, &format!("tenon/scripts/{script}"))?;
    }
    for tool in KMOD {
        archive.link(&format!("kmod/{tool}"), "../bin/kmod")?;
    }
    let id = env.modules.join("kernel-id");
    if id.exists() {
        archive.copy(&id, "modules/kernel-id")?;
    }
    archive.link(
        &format!("tenon/build/{}", env.kernel_release),
        "../../modules",
    )
}

/// Adds busybox under all its names that no program has taken.
fn busybox(archive: &mut Archive) -> Result<()> {
    let path = find("busybox")?;
    let list = Command::new(&path)
        .arg("--list")
        .output()
        .context("busybox --list")?;

    archive.copy(&path, "bin/busybox")?;
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// The modules in a directory, or none when there is no directory.
fn built_modules(directory: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(Vec::new());
    };
    let mut modules = Vec::new();

    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ko") {
            modules.push(path);
        }
    }
    modules.sort();
    Ok(modules)
}

/// Where a program of the build tree is.
fn find(name: &str) -> Result<PathBuf> {
    ["/usr/bin", "/usr/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
        .with_context(|| format!("the build tree lacks {name}: is it up to date?"))
}
