// SPDX-License-Identifier: GPL-2.0

//! The part of QEMU's interface for plugins that is needed here, version 7.
//!
//! QEMU header: `include/plugins/qemu-plugin.h`

use std::{
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    ptr,
};

/// `QEMU_PLUGIN_INLINE_ADD_U64`.
const ADD: c_int = 0;

/// `QEMU_PLUGIN_CB_NO_REGS`.
const NO_REGISTERS: c_int = 0;

extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: u64,
        callback: extern "C" fn(Block, *mut c_void),
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: Block,
        operation: c_int,
        counter: Counter,
        operand: u64,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: Instruction,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_tb_vaddr(block: Block) -> u64;
    fn qemu_plugin_tb_n_insns(block: Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: Block, index: usize) -> Instruction;
    fn qemu_plugin_insn_data(instruction: Instruction, to: *mut c_void, len: usize) -> usize;
    fn qemu_plugin_scoreboard_new(size: usize) -> Scoreboard;
    fn qemu_plugin_scoreboard_find(scoreboard: Scoreboard, cpu: c_uint) -> *mut c_void;
}

/// A block of code that is being translated: valid in the callback.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Block(*mut c_void);

/// One of its instructions: valid as long as the block.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Instruction(*mut c_void);

/// Memory of each CPU for counters. It is never freed.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Scoreboard(*mut c_void);

/// A number in a scoreboard.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Counter {
    scoreboard: Scoreboard,
    offset: usize,
}

// SAFETY: QEMU protects what is behind the pointer.
unsafe impl Send for Scoreboard {}
// SAFETY: As above.
unsafe impl Sync for Scoreboard {}

/// Asks for a call before each block of code is executed for the first time.
pub fn on_translation(id: u64, callback: extern "C" fn(Block, *mut c_void)) {
    // SAFETY: `id` is the plugin's, and the callback lives as long as QEMU.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, callback, ptr::null_mut()) };
}

impl Block {
    /// Where it begins.
    pub fn address(self) -> u64 {
        // SAFETY: The block is valid.
        unsafe { qemu_plugin_tb_vaddr(self) }
    }

    /// How many instructions it has.
    pub fn len(self) -> usize {
        // SAFETY: The block is valid.
        unsafe { qemu_plugin_tb_n_insns(self) }
    }

    /// Its instructions.
    pub fn instructions(self) -> impl Iterator<Item = Instruction> {
        // SAFETY: The block is valid and has as many instructions.
        (0..self.len()).map(move |index| unsafe { qemu_plugin_tb_get_insn(self, index) })
    }

    /// Adds `number` to a counter each time that the block is entered.
    pub fn count(self, counter: Counter, number: u64) {
        // SAFETY: The block is valid, and scoreboards live as long as QEMU.
        unsafe { qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(self, ADD, counter, number) };
    }
}

impl Instruction {
    /// Copies its first bytes and returns how many there were.
    pub fn read(self, to: &mut [u8]) -> usize {
        // SAFETY: The instruction is valid, and there is as much room.
        unsafe { qemu_plugin_insn_data(self, to.as_mut_ptr().cast(), to.len()) }
    }

    /// Asks for a call each time before it is executed.
    pub fn on_execution(self, callback: extern "C" fn(c_uint, *mut c_void)) {
        // SAFETY: The instruction is valid, and the callback lives as long as QEMU.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_cb(self, callback, NO_REGISTERS, ptr::null_mut())
        };
    }
}

impl Scoreboard {
    /// Makes one with `size` bytes for each CPU, all zero.
    pub fn new(size: usize) -> Self {
        // SAFETY: Any size is fine.
        unsafe { qemu_plugin_scoreboard_new(size) }
    }

    /// The memory of a CPU.
    pub fn of(self, cpu: c_uint) -> *mut c_void {
        // SAFETY: The scoreboard is valid, and whoever asks knows the CPU from QEMU.
        unsafe { qemu_plugin_scoreboard_find(self, cpu) }
    }
}

impl Counter {
    /// The number at a place of each CPU's memory.
    pub fn new(scoreboard: Scoreboard, offset: usize) -> Self {
        Counter { scoreboard, offset }
    }
}
