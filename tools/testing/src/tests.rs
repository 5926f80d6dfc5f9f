// SPDX-License-Identifier: GPL-2.0

//! The tests. `Documentation/testing.md` says how to add one.

pub mod backends;
pub mod balloon;
mod balloon_free;
mod balloon_host;
mod balloon_limits;
mod balloon_load;
mod balloon_own;
mod balloon_reset;
mod bent;
mod bits;
mod build;
mod capture;
mod card;
mod control;
pub mod debian;
mod failover;
mod faults;
mod features;
mod harness;
mod hash;
mod host;
pub mod integrity;
mod memory;
mod migration;
pub mod net;
mod offload;
mod plug;
mod polling;
mod qstats;
mod queues;
mod refusals;
mod restart;
mod restricted;
mod rings;
mod samples;
mod scripts;
pub mod several;
mod sriov;
mod tunnel;
mod unplug;
pub mod xdp;
mod xsk;

use crate::guest::{
    Guest,
    Lab,
    Spec, //
};
use anyhow::Result;
use std::time::Duration;

/// What a test finds out beyond having passed: the host's test programs bring many results at once.
#[derive(Debug, Default)]
pub struct Tally {
    /// Number of tests that passed.
    pub passed: usize,
    /// Names of those that failed.
    pub failed: Vec<String>,
}

type GuestBody = Box<dyn Fn(&mut Guest, &Lab) -> Result<()> + Send + Sync>;
type HostBody = Box<dyn Fn(&Lab) -> Result<Tally> + Send + Sync>;

/// A driver under test: one of ours, or the kernel's own for the same device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The name of the module.
    pub module: &'static str,
    stock: bool,
}

impl Driver {
    /// One of our drivers.
    pub const fn ours(module: &'static str) -> Self {
        Driver {
            module,
            stock: false,
        }
    }

    /// A driver that came with the kernel.
    pub const fn stock(module: &'static str) -> Self {
        Driver {
            module,
            stock: true,
        }
    }

    /// Loads the module.
    pub fn load(self, guest: &mut Guest, parameters: &str) -> Result<()> {
        if self.stock {
            guest
                .sh(&format!("modprobe {} {parameters}", self.module))
                .map(drop)
        } else {
            guest.insmod(self.module, parameters)
        }
    }

    /// Removes the module.
    pub fn unload(self, guest: &mut Guest) -> Result<()> {
        guest.sh(&format!("rmmod {}", self.module)).map(drop)
    }
}

/// Where a test runs.
pub enum Body {
    /// In a guest of its own, which is up when the body begins.
    Guest(Spec, GuestBody),
    /// On the host.
    Host(HostBody),
}

/// One test.
pub struct Test {
    /// Component, module and subject, separated by slashes.
    pub name: String,
    /// Longest time that the body may take on the stock kernel.
    pub limit: Duration,
    /// Why the test does not apply to the sanitizer kernel, if it does not.
    pub stock_only: Option<&'static str>,
    /// Why the test applies to the sanitizer kernel only, if it does.
    pub sanitizer_only: Option<&'static str>,
    /// What this machine lacks for the test, if it lacks something.
    pub impossible: Option<&'static str>,
    /// A report of the kernel that the test provokes and that must be found.
    pub report: Option<&'static str>,
    /// A message of the kernel that counts as a report elsewhere, and which the test provokes.
    pub message: Option<&'static str>,
    /// Lines below which the kernel prints a stack, and which the test provokes, though it need not.
    pub headlines: &'static [&'static str],
    /// How many guests like its own it has at work at once.
    pub guests: u32,
    /// What the test does.
    pub body: Body,
}

impl Test {
    /// A test that needs a guest.
    pub fn guest(
        name: impl Into<String>,
        seconds: u64,
        spec: Spec,
        body: impl Fn(&mut Guest, &Lab) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, seconds, Body::Guest(spec, Box::new(body)))
    }

    /// A test that runs on the host.
    pub fn host(
        name: impl Into<String>,
        seconds: u64,
        body: impl Fn(&Lab) -> Result<Tally> + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, seconds, Body::Host(Box::new(body))).stock_only("it uses no guest")
    }

    fn new(name: impl Into<String>, seconds: u64, body: Body) -> Self {
        Test {
            name: name.into(),
            limit: Duration::from_secs(seconds),
            stock_only: None,
            sanitizer_only: None,
            impossible: None,
            report: None,
            message: None,
            headlines: &[],
            guests: 1,
            body,
        }
    }

    /// Leaves the test out on the sanitizer kernel.
    pub fn stock_only(mut self, reason: &'static str) -> Self {
        self.stock_only = Some(reason);
        self
    }

    /// Leaves the test out on other kernels than the sanitizer one.
    pub fn sanitizer_only(mut self, reason: &'static str) -> Self {
        self.sanitizer_only = Some(reason);
        self
    }

    /// Leaves the test out on a machine on which it cannot be run.
    pub fn where_possible(mut self, possible: bool, reason: &'static str) -> Self {
        self.impossible = (!possible).then_some(reason);
        self
    }

    /// Makes the test pass only if the kernel's log has a report that contains `text`.
    pub fn expect_report(mut self, text: &'static str) -> Self {
        self.report = Some(text);
        self
    }

    /// Lets the kernel print lines that contain `text`.
    pub fn allow_message(mut self, text: &'static str) -> Self {
        self.message = Some(text);
        self
    }

    /// Lets the kernel print stacks below lines that contain one of these.
    pub fn allow_stacks(mut self, headlines: &'static [&'static str]) -> Self {
        self.headlines = headlines;
        self
    }

    /// Says that the test starts more guests like its own, so many in all.
    pub fn guests(mut self, number: u32) -> Self {
        self.guests = number;
        self
    }

    /// How many CPUs the test keeps busy.
    pub fn weight(&self) -> u32 {
        match &self.body {
            Body::Guest(spec, _) => spec.weight() * self.guests,
            Body::Host(_) => 2,
        }
    }
}

/// The modules of the kernel that tests are run with as well as with ours.
const STOCK: [&str; 3] = ["virtio_net", "virtio_balloon", "virtio_rng"];

/// All tests, in the order in which they are started.
pub fn all() -> Vec<Test> {
    let mut tests: Vec<_> = [
        host::tests(),
        harness::tests(),
        build::tests(),
        // What only the sanitizer kernel shows comes before what it shows once more.
        faults::tests(),
        restricted::tests(),
        integrity::tests(),
        integrity::uplink::tests(),
        net::tests(),
        polling::tests(),
        control::tests(),
        offload::tests(),
        bits::tests(),
        features::tests(),
        queues::tests(),
        qstats::tests(),
        rings::tests(),
        restart::tests(),
        hash::tests(),
        migration::tests(),
        failover::tests(),
        sriov::tests(),
        unplug::tests(),
        tunnel::tests(),
        backends::tests(),
        card::tests(),
        bent::tests(),
        balloon::tests(),
        balloon_free::tests(),
        balloon_host::tests(),
        balloon_limits::tests(),
        balloon_load::tests(),
        balloon_own::tests(),
        balloon_reset::tests(),
        refusals::tests(),
        samples::tests(),
        scripts::tests(),
        xdp::tests(),
        xsk::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();

    for test in &mut tests {
        let stock = test.name.split('/').any(|part| STOCK.contains(&part));
        if stock && test.sanitizer_only.is_none() {
            test.stock_only = Some("it shows that the test asks for nothing unusual");
        }
    }
    tests
}
