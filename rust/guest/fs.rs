// SPDX-License-Identifier: GPL-2.0

//! Files: what [`kernel::fs`] lacks.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::{
    bindings,
    sched::read_nofault, //
};

use core::{
    mem::{
        offset_of,
        size_of, //
    },
    ptr::NonNull, //
};

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
};

/// The number of the kind of file system that `/proc` is.
pub const PROC_SUPER_MAGIC: usize = bindings::PROC_SUPER_MAGIC as usize;

/// Most entries that a directory is believed to have: one for each number of a process, and some more.
const MAX_ENTRIES: usize = (1 << 22) + (1 << 12);

const FILE_OPERATIONS: &str = "file_operations_replaced";
const INODE_OPERATIONS: &str = "inode_operations_replaced";

/// An open directory.
///
/// # Invariants
///
/// `file` is an open file, of which this owns a reference, and nobody else uses it.
pub struct Directory {
    file: NonNull<kernel::bindings::file>,
}

/// The kernel's part of a reader comes first, so that a pointer to it is one to the whole.
#[repr(C)]
struct Context<'a> {
    context: kernel::bindings::dir_context,
    entry: &'a mut dyn FnMut(&[u8]) -> Result,
    entries: usize,
    /// How many more there may be.
    left: usize,
    result: Result,
}

impl Directory {
    /// Opens the directory at `path`, as the root of the calling thread sees it. Sleeps.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`.
    pub fn open(path: &CStr) -> Result<Self> {
        let flags = bindings::O_RDONLY | bindings::O_DIRECTORY;

        // CAST: Flags are small.
        let flags = flags as c_int;
        // SAFETY: `path` is a string.
        let file = from_err_ptr(unsafe { bindings::filp_open(path.as_char_ptr(), flags, 0) })?;
        // INVARIANT: It has just been opened.
        Ok(Directory {
            file: NonNull::new(file).ok_or(ENOENT)?,
        })
    }

    /// The number of the kind of file system that the directory is of.
    pub fn magic(&self) -> usize {
        // SAFETY: By the type invariants, the file is open, and hence has an inode, which has a superblock.
        unsafe { (*(*(*self.file.as_ptr()).f_inode).i_sb).s_magic }
    }

    /// The tables of operations of the directory, and all functions in them: what the table is called if it is not the one that
    /// the file system has made, and the address.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        // SAFETY: By the type invariants, the file is open.
        let file = unsafe { (*self.file.as_ptr()).f_op };
        // SAFETY: By the type invariants, the file is open, and hence has an inode.
        let inode = unsafe { (*self.file.as_ptr()).f_inode };
        // SAFETY: As above.
        let own = unsafe { (&raw const (*inode).i_op).read_volatile() };
        // SAFETY: As above.
        let default = unsafe { (&raw const (*inode).__bindgen_anon_3.i_fop).read_volatile() };
        // The owner and the flags are no functions.
        let first = offset_of!(kernel::bindings::file_operations, llseek);

        [
            (
                FILE_OPERATIONS,
                file as usize,
                first,
                size_of::<kernel::bindings::file_operations>(),
            ),
            (
                FILE_OPERATIONS,
                default as usize,
                first,
                size_of::<kernel::bindings::file_operations>(),
            ),
            (
                INODE_OPERATIONS,
                own as usize,
                0,
                size_of::<kernel::bindings::inode_operations>(),
            ),
        ]
        .into_iter()
        .flat_map(|(what, table, first, size)| {
            let functions = (first..size)
                .step_by(size_of::<usize>())
                .filter_map(move |offset| {
                    let at = core::ptr::without_provenance(table.wrapping_add(offset));
                    // SAFETY: Any bits are an address.
                    let function = unsafe { read_nofault::<usize>(at) }?;
                    (function != 0).then_some((what, function))
                });
            Iterator::chain(core::iter::once((what, table)), functions)
        })
    }

    /// Calls `entry` with the name of each entry, in the order of the directory, from where it was read to. Sleeps.
    ///
    /// # Errors
    ///
    /// What `entry` returns, which ends it, those of `getdents(2)`, and [`E2BIG`] if the directory has no end, as one may have whose
    /// operations somebody has replaced.
    pub fn read(&mut self, entry: &mut dyn FnMut(&[u8]) -> Result) -> Result {
        let mut context = Context {
            context: kernel::bindings::dir_context {
                actor: Some(actor),
                ..Default::default()
            },
            entry,
            entries: 0,
            left: MAX_ENTRIES,
            result: Ok(()),
        };

        loop {
            context.entries = 0;
            // SAFETY: The file is open and used by nobody else; `actor` is called with this context only.
            to_result(unsafe {
                bindings::iterate_dir(self.file.as_ptr(), (&raw mut context).cast())
            })?;
            context.result?;
            if context.entries == 0 {
                return Ok(());
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this owns a reference to the file.
        unsafe { bindings::fput(self.file.as_ptr()) };
    }
}

/// Called with each entry.
///
/// # Safety
///
/// `context` must point to that of a [`Context`], and `name` to `len` bytes.
unsafe extern "C" fn actor(
    context: *mut kernel::bindings::dir_context,
    name: *const c_char,
    len: c_int,
    _offset: kernel::bindings::loff_t,
    _ino: u64,
    _kind: c_uint,
) -> bool {
    // SAFETY: By the safety requirements; the context comes first.
    let context = unsafe { &mut *context.cast::<Context<'_>>() };
    // CAST: A length.
    // SAFETY: By the safety requirements.
    let name = unsafe { core::slice::from_raw_parts(name.cast::<u8>(), len.max(0) as usize) };

    context.entries += 1;
    context.result = match context.left.checked_sub(1) {
        Some(left) => {
            context.left = left;
            (context.entry)(name)
        }
        None => Err(E2BIG),
    };
    context.result.is_ok()
}
