// SPDX-License-Identifier: GPL-2.0

//! CPUs: what [`kernel::cpu`] lacks.
//!
//! C header: [`include/linux/cpumask.h`](srctree/include/linux/cpumask.h)

pub mod hotplug;

use crate::bindings;
use kernel::cpu::{
    nr_cpu_ids,
    CpuId, //
};

/// Returns whether a CPU is online now. It may not be any more when this returns.
pub fn is_online(cpu: CpuId) -> bool {
    // SAFETY: A number below `nr_cpu_ids`, as that of a `CpuId` is, can be asked about.
    unsafe { bindings::cpu_online(cpu.as_u32()) }
}

/// Returns the CPUs that are online while this is asked.
pub fn online() -> impl Iterator<Item = CpuId> {
    (0..nr_cpu_ids())
        .filter_map(CpuId::from_u32)
        .filter(|cpu| is_online(*cpu))
}
