// SPDX-License-Identifier: GPL-2.0

//! The text of the kernel: whether somebody has changed how a function begins.
//!
//! Tracing attaches to a function by writing over what the compiler left room for at its beginning (ftrace, and with it function
//! tracing, fprobes, BPF programs and live patches), or over its first instruction (kprobes). Whoever hooks a function for
//! other ends does one or the other. [`FUNCTIONS`] are those that this crate calls, and whose answers it believes.
//!
//! C headers: [`include/linux/ftrace.h`](srctree/include/linux/ftrace.h),
//! [`include/linux/kprobes.h`](srctree/include/linux/kprobes.h)

pub mod entry;

use self::entry::Entry;

use crate::{
    bindings,
    sched::read_nofault,
    symbol::{
        text::Text,
        Place,
        Symbol, //
    },
};

/// A function of the kernel.
#[derive(Clone, Copy)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    address: fn() -> usize,
}

impl Function {
    /// Where it begins.
    pub fn address(&self) -> usize {
        (self.address)()
    }

    /// Returns whether a function of the kernel itself begins there. Where it leads to was decided when this module was linked to the
    /// kernel, by the kernel's table of exports.
    pub fn is_of_kernel(&self) -> bool {
        let symbol = Symbol::of(self.address());

        symbol.place() == Place::Kernel && matches!(symbol.text(), Text::Known { offset: 0, .. })
    }

    /// Returns how it begins now, or [`None`] if that cannot be read, or is not known of this kind of CPU.
    pub fn entry(&self) -> Option<Entry> {
        let address = self.address();

        if !cfg!(CONFIG_X86_64) {
            return None;
        }
        let at = core::ptr::without_provenance(address);
        // SAFETY: Any bytes are some bytes.
        let bytes = unsafe { read_nofault::<[u8; Entry::LEN]>(at) }?;
        Some(Entry::of(address, &bytes))
    }
}

macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        [$(Function {
            name: stringify!($name),
            address: || bindings::$name as *const () as usize,
        }),*]
    };
}

/// The functions that this crate calls to see what there is, and to say it.
pub const FUNCTIONS: &[Function] = &functions![
    _printk,
    _raw_spin_trylock,
    audit_log,
    bpf_find_btf_id,
    btf_type_by_id,
    copy_from_kernel_nofault,
    filp_open,
    find_pid_ns,
    for_each_kernel_tracepoint,
    fput,
    idr_get_next,
    irq_work_queue,
    iterate_dir,
    ktime_get,
    sprint_symbol,
    synchronize_rcu,
    tracepoint_probe_register,
    tracepoint_probe_unregister,
];
