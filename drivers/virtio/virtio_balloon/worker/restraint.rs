// SPDX-License-Identifier: GPL-2.0

//! The steps that keep the balloon below what the device asks for; [`limits`](crate::limits) decides.

use super::{
    Context,
    Flow,
    Worker, //
};
use crate::{
    limits::Settings,
    params::{
        cap_mib,
        floor_mib,
        refault_mib, //
    },
    target::Units, //
};
use guest::{
    mm::stats::NodeItem,
    trace::virtio_balloon as trace,
    virtio, //
};
use kernel::prelude::*;

/// What is given back when there is no memory left.
const RELIEF: Units = Units(64 * 256);

/// How many runs that takes at most.
const RELIEF_RUNS: usize = 4;

/// The parameter `cap_mib` when there is no cap.
const CAP_NONE: u32 = 0xff_ffff;

impl Worker {
    /// The device asks for `wanted`.
    pub(crate) fn set_wanted(&mut self, wanted: Units) {
        if wanted != self.wanted {
            self.wanted = wanted;
            self.back_off.reset();
        }
    }

    /// Sets the target: what the device asks for, as far as the limits allow.
    pub(crate) fn limit(&mut self, dev: &virtio::Device) {
        let settings = Settings {
            total: self.total,
            floor: Units::from_mib(floor_mib.get()),
            cap: match cap_mib.get() {
                CAP_NONE => Units(u32::MAX),
                mib => Units::from_mib(mib),
            },
        };
        let (allowed, reason) = self.limits.allow(self.wanted, &settings, self.now());

        if self.books.set_target(allowed) {
            self.back_off.reset();
            trace::target(
                dev.index(),
                self.wanted.0,
                self.books.target().0,
                reason.name(),
            );
        }
        self.reason = reason;
    }

    /// Returns in how many milliseconds the limits will be others, if they will by themselves.
    pub(crate) fn limits_end(&self) -> Option<u64> {
        let left = self.limits.left(self.now())?;

        (self.wanted > self.books.target()).then_some(left.max(1))
    }

    /// There is no memory left: gives back [`RELIEF`], and does not take it again soon.
    pub(crate) fn relieve(&mut self, context: &Context<'_>) {
        let now = self.now();

        if self.books.actual() == Units::ZERO {
            return;
        }
        self.relieved = self.relieved.saturating_add(1);
        self.limits.out_of_memory(self.books.actual(), RELIEF, now);
        self.limit(context.dev);
        if self.voice.may_speak(now) {
            dev_info!(
                context.dev,
                "out of memory: the balloon gives back {} MiB and stays at {} MiB for now\n",
                RELIEF.mib(),
                self.books.target().mib()
            );
        }
        for _ in 0..RELIEF_RUNS {
            self.collect(context.balloon);
            if !matches!(self.resize(context), Flow::Continue) {
                break;
            }
        }
    }

    /// Returns whether the guest needs again what was reclaimed for the balloon.
    pub(super) fn is_pressed(&mut self) -> bool {
        let limit = u64::from(refault_mib.get()) << 20;
        if limit == 0 {
            return false;
        }
        let returned = NodeItem::RefaultedAnon
            .bytes()
            .wrapping_add(NodeItem::RefaultedFile.bytes());
        let promised = self.books.held().plus(self.books.inflating());

        self.limits.felt(returned, limit, promised, self.now())
    }

    /// Goes no further for now.
    pub(super) fn hold_on(&mut self, context: &Context<'_>) -> Flow {
        let now = self.now();

        self.limit(context.dev);
        if self.voice.may_speak(now) {
            dev_info!(
                context.dev,
                "the guest needs reclaimed memory again; the balloon stays at {} MiB of {} MiB for now\n",
                self.books.target().mib(),
                self.wanted.mib()
            );
        }
        Flow::Continue
    }
}
