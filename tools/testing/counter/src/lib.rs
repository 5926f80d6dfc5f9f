// SPDX-License-Identifier: GPL-2.0

//! A plugin of QEMU's emulator that counts the instructions of a guest by the address of the code.
//!
//!     -plugin libtenon_counter.so,directory=DIR
//!
//! The counts start with the guest. When a program in it executes the instruction [`MARK`], they are written to a file of `DIR`, whose
//! name is the number of the mark: the difference of two is what was executed between two marks. A line is the address of a
//! block of code, how often it was entered, and the instructions in it that were executed because of that.
//!
//! The guest has one CPU and does not notice: it executes what it would execute without the plugin, and its clock stands still
//! while a file is written.

mod api;

use api::{
    Block,
    Counter,
    Instruction,
    Scoreboard, //
};
use std::{
    collections::HashMap,
    ffi::{
        c_char,
        c_int,
        c_uint,
        c_void,
        CStr, //
    },
    fmt::Write,
    fs,
    path::{
        Path,
        PathBuf, //
    },
    ptr, slice,
    sync::{
        Mutex,
        OnceLock,
        PoisonError, //
    },
};

/// The instruction that asks for the counts: one that does nothing, with an operand that no compiler makes. The program
/// `mark` of the fixtures has it.
const MARK: [u8; 7] = [0x0f, 0x1f, 0x80, b'T', b'N', b'O', b'N'];

/// Where the kernel's half of the addresses begins. What a program executes is counted together.
const KERNEL: u64 = 1 << 63;

/// How many blocks of code are told apart.
const SLOTS: usize = 1 << 18;

/// The slot of all programs.
const PROGRAMS: usize = 0;

/// The slot of blocks that are too many.
const REST: usize = 1;

/// What is counted of a block.
#[repr(C)]
#[derive(Clone, Copy)]
struct Slot {
    entries: u64,
    instructions: u64,
}

struct State {
    directory: PathBuf,
    scoreboard: Scoreboard,
    inner: Mutex<Inner>,
}

struct Inner {
    /// The slot of each block, by its address.
    slots: HashMap<u64, usize>,
    /// How many files there are.
    marks: usize,
}

static STATE: OnceLock<State> = OnceLock::new();

/// The version of the interface that this is made for.
#[no_mangle]
pub static qemu_plugin_version: c_int = 7;

/// Called by QEMU when it loads the plugin. Other than 0 is a failure.
///
/// # Safety
///
/// `argv` is an array of `argc` C strings.
#[expect(
    clippy::disallowed_methods,
    reason = "the C of this machine, not the kernel's"
)]
#[no_mangle]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments = if argv.is_null() {
        &[][..]
    } else {
        // SAFETY: By the safety requirements.
        unsafe { slice::from_raw_parts(argv, usize::try_from(argc).unwrap_or_default()) }
    };
    let directory = arguments.iter().find_map(|&argument| {
        // SAFETY: By the safety requirements.
        let argument = unsafe { CStr::from_ptr(argument) };
        argument.to_str().ok()?.strip_prefix("directory=")
    });
    let Some(directory) = directory else {
        eprintln!("tenon-counter: error: no directory is named: add directory=DIR");
        return 1;
    };
    let state = State {
        directory: directory.into(),
        scoreboard: Scoreboard::new(SLOTS * size_of::<Slot>()),
        inner: Mutex::new(Inner {
            slots: HashMap::new(),
            marks: 0,
        }),
    };

    if STATE.set(state).is_err() {
        eprintln!("tenon-counter: error: the plugin is loaded twice: name it once");
        return 1;
    }
    api::on_translation(id, translated);
    0
}

/// A block of code is about to be executed for the first time.
extern "C" fn translated(block: Block, _: *mut c_void) {
    let Some(state) = STATE.get() else {
        return;
    };
    let address = block.address();
    let slot = if address < KERNEL {
        for instruction in block.instructions() {
            if is_mark(instruction) {
                instruction.on_execution(marked);
            }
        }
        PROGRAMS
    } else {
        let mut inner = state.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let next = REST + 1 + inner.slots.len();

        match inner.slots.get(&address) {
            Some(&slot) => slot,
            None if next < SLOTS => {
                inner.slots.insert(address, next);
                next
            }
            None => REST,
        }
    };
    let at = slot * size_of::<Slot>();

    block.count(Counter::new(state.scoreboard, at), 1);
    block.count(
        Counter::new(state.scoreboard, at + size_of::<u64>()),
        block.len() as u64,
    );
}

fn is_mark(instruction: Instruction) -> bool {
    let mut bytes = [0; MARK.len()];

    instruction.read(&mut bytes) == MARK.len() && bytes == MARK
}

/// A program has executed the mark.
extern "C" fn marked(cpu: c_uint, _: *mut c_void) {
    let Some(state) = STATE.get() else {
        return;
    };
    let mut inner = state.inner.lock().unwrap_or_else(PoisonError::into_inner);
    let Inner { slots, marks } = &mut *inner;
    let counts = state.scoreboard.of(cpu).cast::<Slot>();
    let read = |slot: usize| {
        // SAFETY: There are `SLOTS` slots, and the one CPU, which writes them, is in this function.
        unsafe { ptr::read(counts.add(slot)) }
    };
    let mut text = String::new();

    let numbered = slots.iter().map(|(&address, &slot)| (address, slot));
    for (address, slot) in [(0, PROGRAMS), (1, REST)].into_iter().chain(numbered) {
        let Slot {
            entries,
            instructions,
        } = read(slot);
        if entries > 0 {
            // Nothing goes wrong in memory.
            let _ = writeln!(text, "{address:x} {entries} {instructions}");
        }
    }
    let path = state.directory.join(marks.to_string());
    if let Err(error) = write(&path, &text) {
        eprintln!("tenon-counter: error: {}: {error}", path.display());
    }
    *marks += 1;
}

/// Writes a file that is either not there or complete.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let partial = path.with_extension("partial");

    fs::write(&partial, text)?;
    fs::rename(partial, path)
}
