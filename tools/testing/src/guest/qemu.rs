// SPDX-License-Identifier: GPL-2.0

//! How QEMU is started: the machine that a test asks for, as command line arguments.

use super::image::Image;
use crate::fixtures::Crate;
use std::{
    fs,
    fs::OpenOptions,
    io,
    path::{
        Path,
        PathBuf, //
    },
    process::{
        Command,
        Stdio, //
    },
};
use tenon_device::{
    balloon::{
        self,
        Balloon, //
    },
    net::Net, //
};

/// Where the devices sit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// An ordinary PC with PCI Express.
    Q35,
    /// A machine without PCI, whose devices are virtio-mmio ones that ACPI describes.
    Microvm,
}

impl Machine {
    /// The name of a virtio device on this machine, from what all its forms have in common, such as `virtio-net`.
    fn device(self, kind: &str) -> String {
        match self {
            Machine::Q35 => format!("{kind}-pci"),
            Machine::Microvm => format!("{kind}-device"),
        }
    }

    /// What the kernel cannot find out about the clock. Without PIT, HPET and ACPI timer nothing tells it how fast the CPU's
    /// counter runs, and the emulated counter is this machine's.
    fn clock(self) -> String {
        match self {
            Machine::Q35 => String::new(),
            Machine::Microvm => format!(" tsc_early_khz={}", counter_khz()),
        }
    }
}

/// The frequency of this machine's cycle counter, as far as it is known here.
fn counter_khz() -> u64 {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();

    cpuinfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("cpu MHz")?
                .split_once(':')?
                .1
                .trim()
                .parse::<f64>()
                .ok()
        })
        .map_or(2_000_000, |megahertz| (megahertz * 1000.0) as u64)
}

/// Prepares the network namespace of a guest with a tap interface, whose kind is `$0`, and runs `$@` in it.
const NAMESPACE: &str = "
ip link set lo up
ip tuntap add dev tap0 mode tap vnet_hdr $0
ip address add 10.0.2.2/24 dev tap0
ip address add fd00::2/64 dev tap0 nodad
ip link set tap0 up
exec \"$@\"";

/// Where QEMU finds the tap interfaces.
#[derive(Clone, Copy, Debug)]
enum Namespace {
    /// It needs none.
    Any,
    /// One of its own, with a `tap0` that has so many pairs of queues.
    Own { queues: u32 },
    /// That of another process.
    Of { pid: u32 },
}

/// The machine that a test asks for. Start with [`Spec::q35`] or [`Spec::microvm`].
#[derive(Clone, Debug)]
pub struct Spec {
    machine: Machine,
    memory: u32,
    cpus: u32,
    counted: bool,
    in_turn: bool,
    append: String,
    arguments: Vec<String>,
    beside: Vec<Companion>,
    shared: bool,
    namespace: Namespace,
    incoming: bool,
    /// Whether the guest was in another QEMU before.
    again: bool,
    /// The size of the disk, if there is one.
    disk: Option<u64>,
    card: Option<Card>,
    balloon: Option<Balloon>,
}

/// A program that runs beside QEMU.
#[derive(Clone, Debug)]
struct Companion {
    /// The crate that it comes from, if it is none of the distribution's, and the socket at which it waits for QEMU.
    from: Option<(Crate, &'static str)>,
    words: Vec<String>,
}

/// A network card of our own: see [`tenon_device::net`].
#[derive(Clone, Debug)]
pub struct Card {
    /// How many pairs of queues it has.
    pub pairs: u16,
    /// Which features it does not offer.
    pub without: Vec<u32>,
    /// Which it offers beyond the usual ones.
    pub with: Vec<u32>,
}

impl Card {
    /// Makes the card.
    pub fn build(&self) -> Net {
        let net = self
            .without
            .iter()
            .fold(Net::new(self.pairs), |net, &feature| net.without(feature));

        self.with
            .iter()
            .fold(net, |net, &feature| net.with(feature))
    }
}

impl Spec {
    /// A PC with two CPUs and 512 MiB of memory, and no device but the agent's.
    pub fn q35() -> Self {
        Self::new(Machine::Q35)
    }

    /// The same without PCI.
    pub fn microvm() -> Self {
        Self::new(Machine::Microvm)
    }

    fn new(machine: Machine) -> Self {
        Spec {
            machine,
            memory: 512,
            cpus: 2,
            counted: false,
            in_turn: false,
            append: String::new(),
            arguments: Vec::new(),
            beside: Vec::new(),
            shared: false,
            namespace: Namespace::Any,
            incoming: false,
            again: false,
            disk: None,
            card: None,
            balloon: None,
        }
    }

    /// Sets the size of the memory.
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// Has one CPU, emulated, for which a nanosecond passes with each instruction: times that the guest measures count
    /// instructions, however busy this machine is.
    pub fn counted(mut self) -> Self {
        self.cpus = 1;
        self.counted = true;
        self
    }

    /// Has emulated CPUs run in turn. Where they run at once, one can translate an instruction again while another is about to
    /// change it, and then execute what it was ever after: a guest that keeps changing its code (tracing, static keys) dies of an
    /// `Oops: int3` some day.
    pub fn in_turn(mut self) -> Self {
        self.in_turn = true;
        self
    }

    /// Whether emulated CPUs run at once.
    pub fn is_at_once(&self) -> bool {
        !self.counted && !self.in_turn
    }

    /// Adds to the kernel's command line.
    pub fn append(mut self, text: &str) -> Self {
        self.append.push(' ');
        self.append.push_str(text);
        self
    }

    /// Adds a virtio device of a kind such as `virtio-balloon`, with properties such as `id=b0`.
    pub fn device(mut self, kind: &str, properties: &str) -> Self {
        let mut device = self.machine.device(kind);

        if !properties.is_empty() {
            device.push(',');
            device.push_str(properties);
        }
        self.arguments.extend(["-device".to_owned(), device]);
        self
    }

    /// Adds a port for a device with the property `bus=port0`: only a function behind a port can be reset by itself.
    pub fn port(self) -> Self {
        self.arguments(&["-device", "pcie-root-port,id=port0"])
    }

    /// Adds the same, whose slot is driven by its own registers (PCI Express), not by ACPI.
    pub fn express_port(self) -> Self {
        // A kernel without ASPM, as the sanitizer one is, does not ask the firmware whether it may.
        self.append("pcie_ports=native").port().arguments(&[
            "-global",
            "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
        ])
    }

    /// Adds a network card `n0` on a network where QEMU itself answers as 10.0.2.2.
    pub fn network(mut self, properties: &str) -> Self {
        self.arguments
            .extend(["-netdev", "user,id=net0"].map(str::to_owned));
        let separator = if properties.is_empty() { "" } else { "," };
        self.device(
            "virtio-net",
            &format!("id=n0,netdev=net0{separator}{properties}"),
        )
    }

    /// Adds a network card `n0` whose other end is a network interface of this machine's kernel, `tap0` with the address
    /// 10.0.2.2, in a network namespace that is QEMU's own: see [`Guest::outside`](super::Guest::outside). All offloads are
    /// possible there. `queues` is the number of pairs of queues.
    pub fn tap(mut self, queues: u32, properties: &str) -> Self {
        self.namespace = Namespace::Own { queues };
        self.arguments.extend([
            "-netdev".to_owned(),
            format!("tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off,queues={queues}"),
        ]);
        self.device("virtio-net", &format!("id=n0,netdev=net0,{properties}"))
    }

    /// Adds a network card of our own to a PC, on a network where its peer answers as 10.0.2.2: see
    /// [`Guest::card`](super::Guest::card).
    pub fn card(mut self, pairs: u16, without: &[u32]) -> Self {
        self.card = Some(Card {
            pairs,
            without: without.to_vec(),
            with: Vec::new(),
        });
        self
    }

    /// Adds one with a pair of queues, and with features that are not the usual ones.
    pub fn card_with(mut self, with: &[u32]) -> Self {
        self.card = Some(Card {
            pairs: 1,
            without: Vec::new(),
            with: with.to_vec(),
        });
        self
    }

    /// The network card of our own, if there is one.
    pub fn own_card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// Adds a balloon of our own to a PC: see [`Guest::balloon`](super::Guest::balloon).
    pub fn balloon(mut self, balloon: Balloon) -> Self {
        self.balloon = Some(balloon);
        self
    }

    /// The balloon of our own, if there is one, as it is before there is a guest.
    pub fn own_balloon(&self) -> Option<&Balloon> {
        self.balloon.as_ref()
    }

    /// Has a program run beside QEMU, which sees the guest's memory (vhost-user). In its arguments and in QEMU's, `SOCKETS` is the
    /// directory for what both connect to.
    pub fn beside(self, command: &[&str]) -> Self {
        self.companion(None, command)
    }

    /// The same with the program of a crate, which waits for QEMU at `SOCKETS/socket`.
    pub fn beside_crate(self, program: Crate, socket: &'static str, arguments: &[&str]) -> Self {
        self.companion(Some((program, socket)), arguments)
    }

    fn companion(mut self, from: Option<(Crate, &'static str)>, words: &[&str]) -> Self {
        let words = words.iter().map(|&word| word.to_owned()).collect();

        self.beside.push(Companion { from, words });
        self.shared_memory()
    }

    /// The crates whose programs run beside QEMU, and the socket at which each waits for it.
    pub fn crates(&self) -> impl Iterator<Item = (Crate, &'static str)> + '_ {
        self.beside.iter().filter_map(|companion| companion.from)
    }

    /// Lets other processes have the guest's memory, for vhost-user.
    pub fn shared_memory(mut self) -> Self {
        self.shared = true;
        self
    }

    /// The commands that run beside QEMU. `top` is the directory of the sources.
    pub fn companions(&self, top: &Path, sockets: &Path) -> Vec<Command> {
        self.beside
            .iter()
            .map(|Companion { from, words }| {
                let words = words.iter().map(|word| with_sockets(word, sockets));
                let mut command = Command::new("nice");
                command.args(from.map(|(program, _)| program.path(top)));
                command.args(words).stdin(Stdio::null());
                command
            })
            .collect()
    }

    /// Adds a disk that is empty at first, `/dev/nvme0n1`, for which the kernel needs no module. The kernel looks there for a guest
    /// that has been suspended to disk.
    pub fn disk(mut self, mebibytes: u64) -> Self {
        self.disk = Some(mebibytes << 20);
        self.arguments(&[
            "-drive",
            "file=SOCKETS/disk,format=raw,if=none,id=disk",
            "-device",
            "nvme,drive=disk,serial=disk",
        ])
        .append("resume=/dev/nvme0n1 resumewait")
    }

    /// Makes the file of the disk, of which only what is written takes space.
    pub fn make_disk(&self, sockets: &Path) -> io::Result<()> {
        match self.disk {
            Some(size) => fs::File::create(sockets.join("disk"))?.set_len(size),
            None => Ok(()),
        }
    }

    /// The same machine, in a QEMU that comes after another one.
    pub fn again(mut self) -> Self {
        self.again = true;
        self
    }

    /// The same machine, whose state will come from the QEMU of process `pid`: see [`Guest::migrate`](super::Guest::migrate).
    /// Its tap interface is the one called `tap`, in the same namespace.
    pub fn incoming(&self, pid: u32, tap: &str) -> Self {
        let mut spec = self.clone();

        if !matches!(spec.namespace, Namespace::Any) {
            spec.namespace = Namespace::Of { pid };
        }
        spec.incoming = true;
        for argument in &mut spec.arguments {
            *argument = argument.replace("ifname=tap0", &format!("ifname={tap}"));
        }
        spec
    }

    /// Adds arguments of QEMU as they are.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// How many CPUs the guest has: what it costs to run it beside others.
    pub fn weight(&self) -> u32 {
        self.cpus
    }

    /// Memory of the machine in bytes.
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.memory) << 20
    }

    /// The command without its consoles.
    fn base(&self, image: &Image, append: &str, sockets: &Path) -> Command {
        const QEMU: &str = "qemu-system-x86_64";
        // Each becomes the next one, so the process stays the same.
        let mut command = match self.namespace {
            Namespace::Any => Command::new(QEMU),
            Namespace::Own { queues } => {
                let mut command = Command::new("unshare");
                let kind = if queues > 1 { "multi_queue" } else { "" };
                command.args(["--net", "sh", "-euc", NAMESPACE, kind, QEMU]);
                command
            }
            Namespace::Of { pid } => {
                let mut command = Command::new("nsenter");
                command.args([&format!("--net=/proc/{pid}/ns/net"), QEMU]);
                command
            }
        };

        // Where what it starts leaves its files.
        command.env("TMPDIR", sockets);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command.args(["-run-with", "exit-with-parent=on"]);
        // The memory of guests that are not about it would keep this machine's KSM from those that are.
        let machine = match self.machine {
            Machine::Q35 => "q35,mem-merge=off",
            // PCI is off by default, the serial port and the clock are not.
            Machine::Microvm => "microvm,acpi=on,mem-merge=off",
        };
        if self.shared || self.card.is_some() || self.balloon.is_some() {
            command.arg("-object").arg(format!(
                "memory-backend-memfd,id=memory,share=on,size={}M",
                self.memory
            ));
            command.args(["-machine", &format!("{machine},memory-backend=memory")]);
        } else {
            command.args(["-machine", machine]);
        }
        if self.counted {
            command.args(["-accel", "tcg", "-cpu", "max"]);
            command.args(["-icount", "shift=0,sleep=off"]);
        } else {
            command.args(acceleration(self.in_turn));
        }
        command.args([
            "-m",
            &self.memory.to_string(),
            "-smp",
            &self.cpus.to_string(),
        ]);
        command.arg("-kernel").arg(&image.kernel);
        command.arg("-initrd").arg(&image.initramfs);
        // Whatever happens to the guest, QEMU ends: a panic reboots at once, and a reboot ends QEMU.
        // On a busy host an emulated timer can tick too late for the kernel's check of it, which then panics; under KVM the kernel
        // leaves that check out by itself.
        command.arg("-append").arg(format!(
            "console=ttyS0 no_timer_check panic=-1 oops=panic sysctl.kernel.hung_task_timeout_secs=60{}{} {append}",
            self.machine.clock(),
            self.append
        ));
        let arguments = self.arguments.iter();
        command.args(arguments.map(|word| with_sockets(word, sockets)));
        if self.incoming {
            command.args(["-incoming", "defer"]);
        }
        command
    }

    /// The command for a guest that the program drives: its console goes to `log`, QMP and the agent are sockets in `sockets`.
    pub fn driven(&self, image: &Image, log: &Path, sockets: &Path) -> Command {
        let mut command = self.base(image, "", sockets);

        // What a guest said before it came here stays.
        let append = if self.incoming || self.again {
            "on"
        } else {
            "off"
        };
        command.arg("-chardev").arg(format!(
            "file,id=console,append={append},path={}",
            log.display()
        ));
        command.args(["-serial", "chardev:console"]);
        command.arg("-qmp").arg(format!(
            "unix:{},server=on,wait=off",
            sockets.join("qmp").display()
        ));
        command.arg("-chardev").arg(format!(
            "socket,id=agent,server=on,wait=off,path={}",
            sockets.join("agent").display()
        ));
        command.args(["-device", &self.machine.device("virtio-serial")]);
        command.args([
            "-device",
            "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        ]);
        if let Some(card) = &self.card {
            command.arg("-chardev").arg(format!(
                "socket,id=card,path={}",
                Self::card_socket(sockets).display()
            ));
            // A function behind a port can be reset by itself.
            command.args(["-device", "pcie-root-port,id=card-port"]);
            command.arg("-device").arg(format!(
                "vhost-user-test-device-pci,bus=card-port,virtio-id=1,num_vqs={},vq_size=256,config_size=10,chardev=card",
                2 * card.pairs + 1
            ));
        }
        if self.balloon.is_some() {
            command.arg("-chardev").arg(format!(
                "socket,id=balloon,path={}",
                Self::balloon_socket(sockets).display()
            ));
            command.arg("-device").arg(format!(
                "vhost-user-test-device-pci,virtio-id=5,num_vqs={},vq_size=128,config_size={},chardev=balloon",
                balloon::QUEUES,
                balloon::CONFIG
            ));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Where the card of our own is connected.
    pub fn card_socket(sockets: &Path) -> PathBuf {
        sockets.join("card")
    }

    /// Where the balloon of our own is.
    pub fn balloon_socket(sockets: &Path) -> PathBuf {
        sockets.join("balloon")
    }

    /// The command for a guest that a person uses: its console is the terminal.
    pub fn interactive(&self, image: &Image) -> Command {
        let mut command = self.base(image, "quiet tenon.shell", image.directory());

        command.args(["-chardev", "stdio,id=console,signal=off,mux=off"]);
        command.args(["-serial", "chardev:console"]);
        command
    }
}

fn with_sockets(word: &str, sockets: &Path) -> String {
    word.replace("SOCKETS", &sockets.to_string_lossy())
}

/// KVM where it can be trusted. A machine that is itself virtual can have `/dev/kvm` and hang guests; it does not show the
/// CPU's virtualisation flags then.
fn acceleration(in_turn: bool) -> [&'static str; 4] {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let capable = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        });
    let usable = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();

    if capable && usable {
        ["-accel", "kvm", "-cpu", "host"]
    } else if in_turn {
        ["-accel", "tcg,thread=single", "-cpu", "max"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", "max"]
    }
}
