// SPDX-License-Identifier: GPL-2.0

//! Character devices that are read, written and polled.
//!
//! [`kernel::miscdevice`] has neither `poll` nor a way to give the open files something to share. A [`Registration`] has a
//! value that all open files share, and each open file a value of its own, made by [`CharDevice::open`]. The latter keeps the
//! former alive, so that closing the last file may come after the registration has gone.
//!
//! An open file holds a reference to the module: it cannot be unloaded while a file is open.
//!
//! # Examples
//!
//! ```ignore
//! struct Reader {
//!     log: Arc<Log>,
//!     next: Atomic<u64>,
//! }
//!
//! #[vtable]
//! impl CharDevice for Reader {
//!     type Shared = Log;
//!
//!     fn open(log: Arc<Log>) -> Result<Pin<KBox<Self>>> {
//!         Ok(KBox::pin(Reader { log, next: Atomic::new(0) }, GFP_KERNEL)?)
//!     }
//!
//!     fn read(&self, file: &File, to: &mut UserSliceWriter) -> Result<usize> {
//!         // Copies what is there, or waits, or returns `EAGAIN` if `is_nonblocking(file)`.
//!     }
//!
//!     fn poll(&self, file: &File, table: &PollTable<'_>) -> Events {
//!         table.register_wait(file, &self.log.changed);
//!         // ...
//!     }
//! }
//!
//! let device = KBox::pin_init(Registration::<Reader>::new(c"my_log", 0o400, log), GFP_KERNEL)?;
//! ```
//!
//! C headers: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h),
//! [`include/linux/poll.h`](srctree/include/linux/poll.h)

use crate::bindings;

use core::marker::PhantomData;

use kernel::{
    error::{
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    fs::{
        file::flags::O_NONBLOCK,
        File, //
    },
    module::this_module,
    prelude::*,
    sync::{
        poll::PollTable,
        Arc, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    },
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    },
};

/// What a file is ready for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Events(bindings::__poll_t);

impl Events {
    /// Nothing.
    pub const NONE: Self = Events(0);
    /// There is something to read (`EPOLLIN | EPOLLRDNORM`).
    pub const READABLE: Self = Events(0x1 | 0x40);
}

/// An open file of a character device.
#[vtable]
pub trait CharDevice: Sized + Send + Sync + 'static {
    /// What all open files share.
    type Shared: Send + Sync + 'static;

    /// A file is opened. No other device is opened meanwhile, so this is to be short.
    fn open(shared: Arc<Self::Shared>) -> Result<Pin<KBox<Self>>>;

    /// A file is read: writes to `to`, which has room for something, and returns how many bytes. Called by several threads at
    /// once if they share the file.
    ///
    /// # Errors
    ///
    /// [`EAGAIN`] if there is nothing to read and the file [is not to wait](is_nonblocking); `ERESTARTSYS` if a signal ended
    /// the wait.
    fn read(&self, _file: &File, _to: &mut UserSliceWriter) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A file is written to: takes all of `from`, which has something. Called by several threads at once if they share the file.
    ///
    /// # Errors
    ///
    /// What was written up to there may have been taken.
    fn write(&self, _file: &File, _from: &mut UserSliceReader) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A file is polled: registers with `table` whatever announces that the answer changes, and gives the answer for now. Without
    /// this a file is always ready for everything.
    fn poll(&self, _file: &File, _table: &PollTable<'_>) -> Events {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Returns whether reading from `file` is not to wait.
pub fn is_nonblocking(file: &File) -> bool {
    file.flags() & O_NONBLOCK != 0
}

/// A character device under `/dev`.
///
/// # Invariants
///
/// `misc` is a registered `struct miscdevice` whose operations are `Operations<T>`.
#[pin_data(PinnedDrop)]
pub struct Registration<T: CharDevice> {
    #[pin]
    misc: Opaque<kernel::bindings::miscdevice>,
    shared: Arc<T::Shared>,
}

// SAFETY: A device may be unregistered by another thread than the one that registered it.
unsafe impl<T: CharDevice> Send for Registration<T> {}
// SAFETY: Nothing can be done through a shared reference.
unsafe impl<T: CharDevice> Sync for Registration<T> {}

impl<T: CharDevice> Registration<T> {
    /// Makes the device `/dev/<name>` with the given permissions.
    ///
    /// # Errors
    ///
    /// [`EEXIST`] if there is a device of that name, [`EBUSY`] if there are no more numbers.
    pub fn new(
        name: &'static CStr,
        mode: u16,
        shared: Arc<T::Shared>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // The shared value comes first: the device may be opened as soon as it is registered.
            shared,
            misc <- Opaque::try_ffi_init(move |slot: *mut kernel::bindings::miscdevice| {
                let ops: &'static kernel::bindings::file_operations = &Operations::<T>::OPS;
                let mut misc: kernel::bindings::miscdevice = pin_init::zeroed();
                // CAST: A small constant.
                misc.minor = bindings::MISC_DYNAMIC_MINOR as c_int;
                misc.name = name.as_char_ptr();
                misc.fops = ops;
                misc.mode = mode;

                // SAFETY: `slot` is valid for writing.
                unsafe { slot.write(misc) };
                // SAFETY: What `slot` points to is pinned, and unregistered before it goes.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
        })
    }
}

#[pinned_drop]
impl<T: CharDevice> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, the device is registered.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

/// The file operations of devices with files of type `T`.
struct Operations<T>(PhantomData<T>);

impl<T: CharDevice> Operations<T> {
    const OPS: kernel::bindings::file_operations = kernel::bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        read: if T::HAS_READ { Some(Self::read) } else { None },
        write: if T::HAS_WRITE {
            Some(Self::write)
        } else {
            None
        },
        poll: if T::HAS_POLL { Some(Self::poll) } else { None },
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the kernel to open a file of a device registered by [`Registration::new`].
    unsafe extern "C" fn open(
        inode: *mut kernel::bindings::inode,
        file: *mut kernel::bindings::file,
    ) -> c_int {
        // SAFETY: `file` is being opened, and not known to anybody else.
        let misc = unsafe { (*file).private_data };
        let misc = misc.cast::<Opaque<kernel::bindings::miscdevice>>();
        // SAFETY: `misc_open()` made the private data point to the device, which is part of a registration.
        let registration = unsafe { kernel::container_of!(misc, Registration<T>, misc) };
        // SAFETY: The registration cannot go before this function returns, as `misc_deregister()` waits for it.
        let shared = unsafe { &(*registration).shared };

        // There are no positions in what is read.
        // SAFETY: `inode` and `file` are those of a file being opened.
        unsafe { bindings::stream_open(inode, file) };

        match T::open(shared.clone()) {
            Ok(this) => {
                // SAFETY: As above.
                unsafe { (*file).private_data = this.into_foreign() };
                0
            }
            Err(err) => err.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the kernel, once, for a file that [`Self::open`] has opened.
    unsafe extern "C" fn release(
        _inode: *mut kernel::bindings::inode,
        file: *mut kernel::bindings::file,
    ) -> c_int {
        // SAFETY: `open` set the private data, and nobody else uses the file any more.
        drop(unsafe { Pin::<KBox<T>>::from_foreign((*file).private_data) });
        0
    }

    /// Returns what [`Self::open`] has made for a file, and the file.
    ///
    /// # Safety
    ///
    /// [`Self::open`] must have opened the file, which must stay open for `'a`.
    unsafe fn opened<'a>(file: *mut kernel::bindings::file) -> (Pin<&'a T>, &'a File) {
        // SAFETY: `open` set the private data, which stays until `release`.
        let this = unsafe { Pin::<KBox<T>>::borrow((*file).private_data) };
        // SAFETY: The file is valid, and a stream has no position that could be in use.
        let file = unsafe { File::from_raw_file(file) };

        (this, file)
    }

    /// # Safety
    ///
    /// Called by the kernel for a file that [`Self::open`] has opened.
    unsafe extern "C" fn read(
        file: *mut kernel::bindings::file,
        buf: *mut c_char,
        len: usize,
        _pos: *mut kernel::bindings::loff_t,
    ) -> isize {
        if len == 0 {
            return 0;
        }
        // SAFETY: By the safety requirements.
        let (this, file) = unsafe { Self::opened(file) };
        let mut to = UserSlice::new(UserPtr::from_ptr(buf.cast()), len).writer();

        match this.read(file, &mut to) {
            // CAST: Not more than `len`, which the kernel limits to `MAX_RW_COUNT`.
            Ok(len) => len as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Called by the kernel for a file that [`Self::open`] has opened.
    unsafe extern "C" fn write(
        file: *mut kernel::bindings::file,
        buf: *const c_char,
        len: usize,
        _pos: *mut kernel::bindings::loff_t,
    ) -> isize {
        if len == 0 {
            return 0;
        }
        // SAFETY: By the safety requirements.
        let (this, file) = unsafe { Self::opened(file) };
        let mut from = UserSlice::new(UserPtr::from_ptr(buf.cast_mut().cast()), len).reader();

        match this.write(file, &mut from) {
            // CAST: The kernel limits it to `MAX_RW_COUNT`.
            Ok(()) => len as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Called by the kernel for a file that [`Self::open`] has opened.
    unsafe extern "C" fn poll(
        file: *mut kernel::bindings::file,
        table: *mut kernel::bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: By the safety requirements.
        let (this, file) = unsafe { Self::opened(file) };
        // SAFETY: The kernel passes null or a table that is valid during the call.
        let table = unsafe { PollTable::from_raw(table) };

        this.poll(file, &table).0
    }
}
