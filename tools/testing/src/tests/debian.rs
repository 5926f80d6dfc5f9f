// SPDX-License-Identifier: GPL-2.0

//! The way of an ordinary user: a Debian guest with Debian's packages, in which the modules are built for the kernel that runs, and
//! installed, used from the next boot on, and uninstalled. `scripts/debian-guest` makes the contents of the guest.

use super::{
    Tally,
    Test, //
};
use crate::{
    check,
    guest::{
        Guest,
        Image,
        Lab,
        Spec, //
    }, //
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use std::{
    fs::{
        self,
        File, //
    },
    path::{
        Path,
        PathBuf, //
    },
    process::Command,
    sync::Arc,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// How long the build may take: an emulated processor needs half an hour, and far more beside other work.
const BUILD: Duration = Duration::from_secs(120 * 60);
/// How long everything else may take, in seconds.
const REST: u64 = 25 * 60;
/// How long one command may take that does not compile; this one is emulated, on a whole distribution.
const STEP: Duration = Duration::from_secs(240);
/// Size of the guest's disk, of which only what is written takes space.
const DISK: u64 = 10 << 30;
/// Room for the initial RAM disk on its way out of the guest.
const BOOT: u64 = 256 << 20;
/// How much slower a distribution is to boot than the small guests are.
const SLOW: u32 = 4;

pub fn tests() -> Vec<Test> {
    vec![Test::host(
        "debian/install",
        BUILD.as_secs() + REST,
        |lab| {
            Setup::new(lab)?.run()?;
            Ok(Tally {
                passed: 1,
                failed: Vec::new(),
            })
        },
    )]
}

/// Says which part is reached: the whole takes long.
fn progress(start: Instant, what: &str) {
    let seconds = start.elapsed().as_secs();
    println!("      {:3}:{:02}  {what}", seconds / 60, seconds % 60);
}

/// The guest's parts on this machine.
struct Setup<'a> {
    lab: &'a Lab,
    start: Instant,
    /// What `scripts/debian-guest` made.
    contents: PathBuf,
    /// The disk, and a second one that carries files in or out.
    directory: tempfile::TempDir,
}

impl<'a> Setup<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let contents = std::env::var_os("DEBIAN_GUEST")
            .context("DEBIAN_GUEST is not set: run this through make test-install")?;

        Ok(Setup {
            lab,
            start: Instant::now(),
            contents: contents.into(),
            // Gigabytes: not into what may be memory.
            directory: tempfile::Builder::new()
                .prefix("debian-")
                .tempdir_in(lab.env.top.join("build"))?,
        })
    }

    fn disk(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn run(&self) -> Result<()> {
        progress(self.start, "unpacking the guest");
        self.unpack()?;

        let mut guest = self.boot(&self.contents.join("initrd.img"), "stock")?;
        let before = installed(&mut guest)?;
        let interface = interface(&mut guest)?;
        drivers(&mut guest, &interface, "virtio_net", "virtio_balloon")?;

        progress(self.start, "make modules");
        self.build(&mut guest)?;
        progress(self.start, "make load");
        load(&mut guest, &interface)?;
        progress(self.start, "sudo make install");
        let said = user(&mut guest, "sudo make install")?;
        ensure!(said.contains("used from the next boot on"), "{said}");
        let initrd = self.power_off(guest)?;

        let mut guest = self.boot(&initrd, "installed")?;
        drivers(
            &mut guest,
            &interface,
            "virtio_net_rust",
            "virtio_balloon_rust",
        )?;
        network(&mut guest, &interface)?;
        progress(self.start, "sudo make uninstall");
        let said = user(&mut guest, "sudo make uninstall")?;
        ensure!(said.contains("uninstalled"), "{said}");
        let after = installed(&mut guest)?;
        ensure!(
            after == before,
            "left after uninstalling:\n{after}\nbefore:\n{before}"
        );
        let initrd = self.power_off(guest)?;

        let mut guest = self.boot(&initrd, "uninstalled")?;
        drivers(&mut guest, &interface, "virtio_net", "virtio_balloon")?;
        network(&mut guest, &interface)?;
        self.power_off(guest)?;
        progress(self.start, "done");
        Ok(())
    }

    /// Makes the disk, in a small guest, so that it needs neither root nor programs for file systems here.
    fn unpack(&self) -> Result<()> {
        let checkout = self.directory.path().join("checkout.tar");
        let packed = Command::new("tar")
            .arg("-C")
            .arg(&self.lab.env.top)
            .args([
                "--exclude=./build",
                "--exclude=./.git",
                "--exclude=./tools/testing/target",
            ])
            .arg("-cf")
            .arg(&checkout)
            .arg(".")
            .status()
            .context("tar")?;
        ensure!(packed.success(), "the checkout cannot be packed");
        File::create(self.disk())?.set_len(DISK)?;

        let spec = [&self.disk(), &self.contents.join("root.tar"), &checkout]
            .into_iter()
            .enumerate()
            .fold(Spec::q35().memory(2048), |spec, (index, file)| {
                drive(spec, index, file)
            });
        let mut guest = Guest::boot(&self.lab_for("unpack", self.lab.image.clone()), &spec)?;
        guest.modprobe("virtio_blk")?;
        guest.sh_for(
            STEP,
            "mke2fs /dev/vda >/dev/null && mkdir /mnt && mount -t ext2 /dev/vda /mnt && \
             tar -xpf /dev/vdb -C /mnt && \
             mkdir /mnt/home/user/tenon && tar -xf /dev/vdc -C /mnt/home/user/tenon && \
             chown -R 1000:1000 /mnt/home/user && umount /mnt",
        )?;
        self.power_off(guest).map(drop)
    }

    fn lab_for(&self, name: &str, image: Arc<Image>) -> Lab {
        Lab {
            env: self.lab.env.clone(),
            image,
            group: self.lab.group.clone(),
            slow: SLOW,
            sanitizer: false,
            log: self.lab.log.with_extension(format!("{name}.log")),
        }
    }

    /// Boots the distribution, and waits until it has found its devices.
    fn boot(&self, initrd: &Path, name: &str) -> Result<Guest> {
        progress(self.start, &format!("booting: {name}"));
        let image = Image::installed(&self.contents.join("vmlinuz"), initrd)?;
        let carrier = self.directory.path().join("carrier");
        File::create(&carrier)?.set_len(BOOT)?;
        let spec = Spec::q35()
            .memory(3072)
            .network("disable-legacy=on")
            .device("virtio-balloon", "id=b0")
            .append("root=/dev/vda rw");
        let spec = drive(drive(spec, 0, &self.disk()), 1, &carrier);
        let mut guest = Guest::boot(&self.lab_for(name, Arc::new(image)), &spec)?;

        guest.sh_for(
            STEP,
            "udevadm settle -t 120 && systemctl is-system-running --wait || true",
        )?;
        Ok(guest)
    }

    /// Runs `make modules` as the user does, and tells how far it is.
    fn build(&self, guest: &mut Guest) -> Result<()> {
        let start = Instant::now();
        let mut shown = 0;

        guest.sh(
            "(su - user -c 'cd tenon && make modules' >/run/build.log 2>&1; \
             echo $? >/run/build.status) </dev/null >/dev/null 2>&1 &",
        )?;
        loop {
            let status = guest.sh("cat /run/build.status 2>/dev/null || true")?;
            let log = guest.sh("grep '^tenon: ' /run/build.log || true")?;
            for line in log.lines().skip(shown) {
                progress(self.start, line);
                shown += 1;
            }
            match status.trim() {
                "" => {}
                "0" => break,
                _ => bail!("make modules: {}", guest.sh("tail -n 20 /run/build.log")?),
            }
            ensure!(
                start.elapsed() < BUILD,
                "make modules is not done after {} minutes: {}",
                BUILD.as_secs() / 60,
                guest.sh("tail -n 3 /run/build.log")?
            );
            thread::sleep(Duration::from_secs(5));
        }

        let warnings = guest.sh("grep -i warning /run/build.log || true")?;
        ensure!(warnings.is_empty(), "make modules warns: {warnings}");
        // Nothing was fetched: this is the kernel that runs.
        guest.sh("ls /home/user/tenon/build/$(uname -r)/kernel-id")?;
        let trees = guest.sh("ls -d /home/user/.cache/tenon/buildroot-* 2>/dev/null || true")?;
        ensure!(trees.is_empty(), "a build tree was made: {trees}");
        Ok(())
    }

    /// Ends the guest as its user would, after a look at its log, and returns its initial RAM disk.
    fn power_off(&self, mut guest: Guest) -> Result<PathBuf> {
        let initrd = self.directory.path().join("initrd");
        let size = guest.sh("f=/boot/initrd.img-$(uname -r); [ ! -e $f ] || \
             { cat $f >/dev/vdb && sync && stat -c %s $f; }")?;

        let log = guest.power_off()?;
        if let Some(report) = check::first_report(&log) {
            bail!("the kernel reports: {}", report.trim());
        }
        if !size.is_empty() {
            fs::copy(self.directory.path().join("carrier"), &initrd)?;
            File::options()
                .write(true)
                .open(&initrd)?
                .set_len(size.parse()?)?;
        }
        Ok(initrd)
    }
}

/// Adds a disk.
fn drive(spec: Spec, index: usize, file: &Path) -> Spec {
    spec.arguments(&[
        "-drive",
        &format!(
            "if=none,id=d{index},format=raw,cache=unsafe,file={}",
            file.display()
        ),
        "-device",
        &format!("virtio-blk-pci,drive=d{index}"),
    ])
}

/// Runs a command in the checkout as the user, and returns all that it says.
fn user(guest: &mut Guest, command: &str) -> Result<String> {
    let output = guest.run_for(STEP, &format!("su - user -c 'cd tenon && {command}' 2>&1"))?;

    ensure!(output.status == 0, "`{command}`: {}", output.stdout);
    Ok(output.stdout)
}

/// The name of the network card.
fn interface(guest: &mut Guest) -> Result<String> {
    guest.sh("ls /sys/class/net | grep -v '^lo$'")
}

/// The two devices are driven by these modules, without anybody having loaded one by hand.
fn drivers(guest: &mut Guest, interface: &str, net: &str, balloon: &str) -> Result<()> {
    let driver = guest.sh(&format!(
        "basename $(readlink /sys/class/net/{interface}/device/driver)"
    ))?;
    ensure!(
        driver == net,
        "{interface} is driven by {driver}, not {net}"
    );
    guest
        .sh(&format!(
            "ls -d /sys/bus/virtio/drivers/{balloon}/virtio[0-9]*"
        ))
        .with_context(|| format!("{balloon} drives no device"))
        .map(drop)
}

/// The network works.
fn network(guest: &mut Guest, interface: &str) -> Result<()> {
    guest
        .sh(&format!(
            "ip address replace 10.0.2.15/24 dev {interface} && ip link set {interface} up && \
             busybox ping -c 3 -W 10 10.0.2.2"
        ))
        .map(drop)
}

/// Loads the modules without installing them: first in vain, as the kernel's own drivers hold the devices.
fn load(guest: &mut Guest, interface: &str) -> Result<()> {
    let refused = guest.run_for(STEP, "su - user -c 'cd tenon && sudo make load' 2>&1")?;
    ensure!(
        refused.status != 0
            && refused.stdout.contains(&format!(
                "({interface}) by virtio_net: take it over with --replace"
            )),
        "{refused:?}"
    );
    drivers(guest, interface, "virtio_net", "virtio_balloon")?;

    user(guest, "sudo REPLACE=1 make load")?;
    drivers(guest, interface, "virtio_net_rust", "virtio_balloon_rust")?;
    network(guest, interface)?;
    user(guest, "sudo scripts/load --unload")?;
    drivers(guest, interface, "virtio_net", "virtio_balloon")?;
    network(guest, interface)
}

/// All that installing could leave behind.
fn installed(guest: &mut Guest) -> Result<String> {
    guest.sh_for(
        STEP,
        "cd /lib/modules && ls -A . $(uname -r); md5sum $(uname -r)/modules.*; \
         ls /etc/modprobe.d /etc/modules-load.d; \
         lsinitramfs /boot/initrd.img-$(uname -r) | grep -e rust -e tenon || true",
    )
}
