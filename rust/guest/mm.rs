// SPDX-License-Identifier: GPL-2.0

//! Memory management.

pub mod balloon;
#[cfg(CONFIG_PAGE_REPORTING)]
pub mod page_reporting;
pub mod stats;
