// SPDX-License-Identifier: GPL-2.0

//! `make selftests`: the kernel's own tests of network drivers, with the C driver and with ours, and where the two differ.
//!
//! The tests are those below `tools/testing/selftests` that one card and a peer are enough for. `scripts/selftests` makes the root
//! directory that they run in, and guests of the sanitizer kernel mount it. The peer is a card of another kind in a network namespace
//! of the guest; a bridge of this machine joins the two.

mod results;

use crate::{
    check,
    env::Environment,
    guest::{
        Guest,
        Image,
        Lab,
        Spec, //
    },
    process::{
        self,
        Group, //
    },
    tests::{
        net::{
            C,
            MODERN,
            RUST, //
        },
        several::interface,
        Driver, //
    }, //
};
use anyhow::{
    bail,
    Context,
    Result, //
};
use results::Compared;
use std::{
    fmt::Write as _,
    fs,
    path::{
        Path,
        PathBuf, //
    },
    sync::Arc,
    time::{
        Duration,
        Instant, //
    },
};

/// The tests, below `tools/testing/selftests`.
const TESTS: &[&str] = &[
    "drivers/net/gro.py",
    "drivers/net/hds.py",
    "drivers/net/napi_id.py",
    "drivers/net/napi_threaded.py",
    "drivers/net/netpoll_basic.py",
    "drivers/net/ping.py",
    "drivers/net/queues.py",
    "drivers/net/ring_reconfig.py",
    "drivers/net/shaper.py",
    "drivers/net/so_txtime.py",
    "drivers/net/stats.py",
    "drivers/net/xdp.py",
    "drivers/net/hw/csum.py",
    "drivers/net/hw/gro_hw.py",
    "drivers/net/hw/irq.py",
    "drivers/net/hw/nic_timestamp.py",
    "drivers/net/hw/ntuple.py",
    "drivers/net/hw/pp_alloc_fail.py",
    "drivers/net/hw/rss_api.py",
    "drivers/net/hw/rss_ctx.py",
    "drivers/net/hw/rss_drv.py",
    "drivers/net/hw/rss_flow_label.py",
    "drivers/net/hw/rss_input_xfrm.py",
    "drivers/net/hw/tso.py",
    "drivers/net/hw/uso.py",
    "drivers/net/hw/xdp_metadata.py",
    "drivers/net/hw/xsk_reconfig.py",
    BASIC,
    NETDEVICE,
];

/// The only one that joins two cards for the driver, and gives them their addresses.
const BASIC: &str = "drivers/net/virtio_net/basic_features.sh";
/// The only one that works on interfaces without address, and on all that are called `eth`.
const NETDEVICE: &str = "net/netdevice.sh";

/// The only ones for a card that spreads what it receives by a hash, and reports the hash.
const HASHES: &[&str] = &["drivers/net/hw/rss_", "drivers/net/hw/xdp_metadata"];

/// The only one for a card that is given addresses of the DMA layer, as XDP sockets without copies need it.
const XSK: &str = "drivers/net/hw/xsk_reconfig.py";

/// How many times slower than the stock kernel the sanitizer kernel is.
const SLOW: u32 = 4;
/// How long one of them may take, on the stock kernel, and how much longer it is waited for.
const LIMIT: Duration = Duration::from_secs(240);
const GRACE: Duration = Duration::from_secs(15);
/// How long a step of theirs may take, in seconds, where they wait for it for at most 1 to 20: they do not expect an emulated machine.
const STEP: u32 = 120;
/// How long other commands may take.
const SETUP: Duration = Duration::from_secs(120);
/// How long it may take until the peer answers.
const PEER_LIMIT: Duration = Duration::from_secs(20);

/// Where the tests are in the guest, below its second root directory.
const TESTS_AT: &str = "/selftests/tools/testing/selftests";

/// Stands in for `bpftrace`.
const BPFTRACE: &str = include_str!("selftests/bpftrace.sh");

/// Runs something in there.
const TOOLS: &str = "chroot /tree /usr/bin/env -i PATH=/usr/sbin:/usr/bin";

/// The slots of the card under test, of a second one, of one that spreads what it receives, and of the peer.
const TESTED: u32 = 8;
const SECOND: u32 = 9;
const SPREADING: u32 = 10;
const PEER: u32 = 11;

/// Prints the names of all tests.
pub fn list() {
    TESTS.iter().for_each(|test| println!("{test}"));
}

/// Runs the tests with names that contain one of `filter`, all their cases or those that match one of `cases`, with both drivers or the
/// one that is named, and returns whether ours fails nowhere that the C driver does not.
pub fn run(
    env: &Environment,
    image: &Arc<Image>,
    filter: &[String],
    only: Option<&str>,
    cases: &[String],
) -> Result<bool> {
    let root = std::env::var_os("SELFTESTS")
        .context("SELFTESTS is not set: run this through make selftests")?;
    let chosen: Vec<_> = TESTS
        .iter()
        .copied()
        .filter(|test| filter.is_empty() || filter.iter().any(|part| test.contains(part)))
        .collect();
    if chosen.is_empty() {
        bail!("no test has such a name; --list prints them all");
    }

    for driver in [C, RUST] {
        if only.is_some_and(|name| name != driver.module) {
            continue;
        }
        let bench = Bench {
            env,
            image,
            root: Path::new(&root),
            driver,
            cases,
            group: Group::new(),
        };
        fs::create_dir_all(directory(env, driver))?;
        bench.run(&chosen)?;
    }

    // What was found in earlier runs stays.
    let compared = TESTS
        .iter()
        .map(|&test| {
            let cases = |driver| {
                let output = fs::read_to_string(output(env, driver, test)).unwrap_or_default();
                results::parse(&output)
            };
            Compared {
                test: test.to_owned(),
                c: cases(C),
                rust: cases(RUST),
            }
        })
        .collect::<Vec<_>>();
    let tables = results::tables(&compared)?;
    let path = env.top.join("build/selftests.md");
    fs::write(&path, &tables)?;
    println!("\n{tables}\nThe tables are in {}.", path.display());
    Ok(results::all_well(&compared))
}

/// Where what the tests print is kept.
fn directory(env: &Environment, driver: Driver) -> PathBuf {
    env.top.join("build/selftests").join(driver.module)
}

fn output(env: &Environment, driver: Driver, test: &str) -> PathBuf {
    directory(env, driver).join(format!("{}.log", test.replace('/', "-")))
}

/// What tests are run with.
struct Bench<'a> {
    env: &'a Environment,
    image: &'a Arc<Image>,
    root: &'a Path,
    driver: Driver,
    cases: &'a [String],
    /// All processes of the guests.
    group: Group,
}

impl Bench<'_> {
    /// Runs the tests one after the other. One guest is enough for them, unless it goes down.
    fn run(&self, tests: &[&str]) -> Result<()> {
        let name = self.driver.module;
        let mut up = None;

        for test in tests {
            let start = Instant::now();
            let mut guest = match up.take() {
                Some(guest) => guest,
                None => {
                    println!("      {name}: starting a guest");
                    self.boot()?
                }
            };
            let reported = guest.log().len();
            let (mut said, usable) = match one(&mut guest, self.driver, test, self.cases) {
                Ok(said) => (said, true),
                Err(error) => (format!("not ok 0 run # {error:#}\n"), false),
            };
            if process::interrupted() {
                bail!("interrupted");
            }
            let log = guest.log();
            if let Some(report) = log.get(reported..).and_then(check::first_report) {
                writeln!(said, "not ok 0 log # {}", report.trim())?;
            }
            if results::parse(&said).is_empty() {
                let last = said.lines().rfind(|line| !line.trim().is_empty());
                let last = last.unwrap_or("it printed nothing").trim().to_owned();
                writeln!(said, "\nnot ok 0 run # {last}")?;
            }
            let path = output(self.env, self.driver, test);
            if !self.cases.is_empty() {
                let earlier = fs::read_to_string(&path).unwrap_or_default();
                said.insert_str(0, &results::earlier(&earlier));
            }
            fs::write(path, &said)?;
            println!(
                "      {name:15}  {test:42}  {:3} cases, {:4} s",
                results::parse(&said).len(),
                start.elapsed().as_secs()
            );
            up = usable.then_some(guest);
        }
        Ok(())
    }

    /// Starts a guest with the driver and the peer.
    fn boot(&self) -> Result<Guest> {
        let lab = Lab {
            env: self.env.clone(),
            image: self.image.clone(),
            group: self.group.clone(),
            slow: SLOW,
            sanitizer: true,
            log: directory(self.env, self.driver).join("console.log"),
        };
        let mut guest = Guest::boot(&lab, &machine(self.root, &self.env.stock_modules))?;

        join(&guest)?;
        enter(&mut guest, &self.env.kernel_release)?;
        // In this order, as the cards under test keep their names then when a test binds them anew.
        self.driver.load(&mut guest, "")?;
        interface(&mut guest, &function(SPREADING))?;
        guest.modprobe("vmxnet3")?;
        adapt(&mut guest, self.driver)?;
        Ok(guest)
    }
}

/// The cards, each on a tap interface with the number of its place here, and what the guest mounts.
///
/// One with `rss=on` is a card of its own: packets get stuck in QEMU with the C driver, for the reason that `Peers` in `peers.rs` gives.
fn machine(root: &Path, modules: &Path) -> Spec {
    let tap = |number: u32, queues: u32| {
        format!("tap,id=net{number},ifname=tap{number},script=no,downscript=no,vhost=off,queues={queues}")
    };
    let mount = |tag: &str, path: &Path| {
        format!(
            "local,path={},mount_tag={tag},security_model=none,readonly=on,multidevs=remap",
            path.display()
        )
    };

    Spec::q35()
        .memory(2048)
        .tap(4, &format!("addr={TESTED:#x},mq=on,vectors=10,{MODERN}"))
        .arguments(&[
            "-netdev",
            &tap(1, 1),
            "-netdev",
            &tap(2, 4),
            "-netdev",
            &tap(3, 1),
        ])
        .device(
            "virtio-net",
            &format!("addr={SECOND:#x},netdev=net1,iommu_platform=on,{MODERN}"),
        )
        .device(
            "virtio-net",
            &format!("addr={SPREADING:#x},netdev=net2,mq=on,vectors=10,rss=on,hash=on,{MODERN}"),
        )
        .arguments(&["-device", &format!("vmxnet3,addr={PEER:#x},netdev=net3")])
        .arguments(&["-virtfs", &mount("root", root)])
        .arguments(&["-virtfs", &mount("modules", modules)])
}

/// Joins the cards with a bridge that passes on packets with a wrong checksum, too: netfilter would drop them.
fn join(guest: &Guest) -> Result<()> {
    guest
        .outside()
        .sh(
            SETUP,
            "for i in /proc/sys/net/bridge/bridge-nf-call-*; do test ! -e $i || echo 0 >$i || exit; done; \
             ip link add bridge0 type bridge mcast_snooping 0 && \
             for i in 0 1 2 3; do ip address flush dev tap$i; ip link set tap$i mtu 9000 master bridge0 up || exit; done; \
             ip link set bridge0 up",
        )
        .map(drop)
        .context("this machine's kernel must be able to bridge")
}

/// Mounts the second root directory, where what is written stays in memory, and the kernel's modules.
fn enter(guest: &mut Guest, release: &str) -> Result<()> {
    const MOUNT: &str = "mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144";

    guest
        .sh_for(
            SETUP,
            &format!(
                "mkdir -p /lower /upper /tree && {MOUNT} root /lower && mount -t tmpfs upper /upper && \
                 mkdir /upper/files /upper/work && \
                 mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work tree /tree && \
                 mkdir -p /lib/modules/{release} && {MOUNT} modules /lib/modules/{release} && \
                 mount -t configfs config /sys/kernel/config && mount -t bpf bpf /sys/fs/bpf && \
                 for d in dev proc sys run tmp lib/modules; do mount --rbind /$d /tree/$d || exit; done && \
                 ln -sfn /proc/self/fd /dev/fd && \
                 {TOOLS} ip netns add remote"
            ),
        )
        .map(drop)
}

/// Puts the name of the driver into the tests that name the C driver. Has them wait longer, keep packets longer to merge them, be content
/// with fewer packets a second, and read the number of channels from what Debian's `ethtool` can print. One in `hw` cannot be executed
/// as it is, and what one wants of `bpftrace` a script does.
fn adapt(guest: &mut Guest, driver: Driver) -> Result<()> {
    guest
        .sh_for(
            SETUP,
            &format!(
                "cat >/tree/usr/bin/bpftrace <<'EOF'\n{BPFTRACE}EOF\n\
                 chmod +x /tree/usr/bin/bpftrace && \
                 cd /tree{TESTS_AT} && chmod +x drivers/net/hw/*.py && sed -i 's/\\<{}\\>/{}/g' drivers/net/virtio_net/*.sh && \
                 find . -name '*.py' -exec sed -E -i -e 's/(timeout|deadline|ksft_wait)=[0-9]+/\\1={STEP}/' \
                 -e 's/^(BPFTRACE_TIMEOUT: int =) 10/\\1 60/' -e 's/timeout \\+= 20/timeout += {STEP}/' \
                 -e 's/poll_ntf\\(duration=0.2\\)/poll_ntf(duration=10)/' -e 's/-T 2 /-T 10 /' -e 's/-W0\\.5/-W10/' \
                 -e 's/-n 100 .ip_args. -r 1 -R/-L 10 &/' -e 's/-L 1 -n/-L 10 -n/' -e 's/< 4000:/< 100:/' \
                 -e 's/flush_path, .200000./flush_path, \"20000000\"/' \
                 -e 's/(ethtool\\(f.-l [^,]*), json=True\\)\\[0\\]/dict(combined=int(\\1).stdout.split()[-1]))/' {{}} +",
                C.module, driver.module
            ),
        )
        .map(drop)
}

/// The function in a slot.
fn function(slot: u32) -> String {
    format!("0000:00:{slot:02x}.0")
}

/// Brings the cards into the state that a test begins with, and returns the name of the interface under test.
fn prepare(guest: &mut Guest, driver: Driver, test: &str) -> Result<String> {
    let slot = if HASHES.iter().any(|name| test.starts_with(name)) {
        SPREADING
    } else if test == XSK {
        SECOND
    } else {
        TESTED
    };
    let tested = interface(guest, &function(slot))?;
    let mut script = format!(
        "peer=$(ls /sys/bus/pci/devices/{}/net 2>/dev/null | head -n 1)
         [ -z \"$peer\" ] || ip link set $peer name peer0 netns remote
         ip -n remote link set peer0 down\n",
        function(PEER)
    );
    for slot in [TESTED, SECOND, SPREADING] {
        let interface = interface(guest, &function(slot))?;
        script +=
            &format!("ip address flush dev {interface}; ip link set {interface} mtu 1500 down\n");
    }
    let joined = test != BASIC && test != NETDEVICE;
    if joined {
        script += &format!(
            "ip -n remote link set peer0 mtu 1500 up
             ip -n remote address replace 192.0.2.2/24 dev peer0
             ip -n remote -6 address replace 2001:db8::2/64 dev peer0 nodad
             ip link set {tested} up
             ip address add 192.0.2.1/24 dev {tested}
             ip -6 address add 2001:db8::1/64 dev {tested} nodad"
        );
    }

    guest.sh_for(SETUP, &format!("{TOOLS} sh -ec '{script}'"))?;
    if joined && (slot != SPREADING || driver == RUST) {
        guest.wait_for("an answer of the peer", PEER_LIMIT, |guest| {
            let output = guest.run(&format!(
                "{TOOLS} sh -c 'ping -c 1 -W 3 192.0.2.2 && ping -c 1 -W 3 2001:db8::2'"
            ))?;
            Ok((output.status == 0).then_some(()))
        })?;
    }
    Ok(tested)
}

/// Runs one test, those of its cases that match one of `cases` where there are such, and returns what it has printed.
fn one(guest: &mut Guest, driver: Driver, test: &str, cases: &[String]) -> Result<String> {
    let interface = prepare(guest, driver, test)?;
    let chosen = if test.ends_with(".py") { cases } else { &[] };
    let chosen = chosen.iter().fold(String::new(), |chosen, case| {
        chosen + " -t \"" + case + "\""
    });
    let (folder, program) = test.rsplit_once('/').unwrap_or((".", test));
    let output = guest.run_for(
        LIMIT + GRACE,
        &format!(
            "{TOOLS} HOME=/root LC_ALL=C.UTF-8 KSFT_MACHINE_SLOW=yes \
             NETIF={interface} LOCAL_V4=192.0.2.1 REMOTE_V4=192.0.2.2 LOCAL_V6=2001:db8::1 REMOTE_V6=2001:db8::2 \
             REMOTE_TYPE=netns REMOTE_ARGS=remote sh -c 'cd {TESTS_AT}/{folder} && timeout -k 20 {} ./{program}{chosen} 2>&1'",
            (LIMIT * SLOW).as_secs()
        ),
    )?;

    Ok(output.stdout + &output.stderr)
}
