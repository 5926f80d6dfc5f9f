// SPDX-License-Identifier: GPL-2.0

//! Memory management.

pub mod balloon;
pub mod freed;
pub mod hint;
pub mod oom;
pub(crate) mod page;
#[cfg(CONFIG_PAGE_REPORTING)]
pub mod page_reporting;
pub mod shrinker;
pub mod stats;
