// SPDX-License-Identifier: GPL-2.0

//! Module parameters that can be seen and changed under `/sys/module/<module>/parameters`.
//!
//! The parameters of [`kernel::module_param`] are set when a module is loaded, and invisible after that. Those here have a
//! mode, are shown, and may be set while the module runs; a value is checked before it is taken, and whoever depends on it can
//! be told at once ([`Number::watch`]). A value that is refused leaves one line in the kernel's log that says what was
//! expected, and the old value in place.
//!
//! The kernel sets and shows the parameters of a module under that module's parameter lock (`kernel_param_lock()`).
//!
//! # Examples
//!
//! ```ignore
//! guest::module_params! {
//!     /// Milliseconds from one look to the next.
//!     interval_ms: Number<u32> = Number::new(1000, 0, 3_600_000), 0o644,
//!         "Milliseconds from one look to the next, 0 for never";
//!     /// What messages begin with.
//!     tag: Text<32> = Text::new("my_driver"), 0o444, "What messages begin with";
//! }
//!
//! let period = interval_ms.get();
//! ```
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

pub mod names;

use crate::bindings;

use core::{
    cell::UnsafeCell,
    fmt::Write,
    marker::PhantomData, //
};

use kernel::{
    fmt,
    prelude::*,
    str::{
        parse_int::ParseInt,
        BStr,
        Formatter, //
    },
    sync::{
        atomic::{
            Atomic,
            AtomicType,
            Relaxed, //
        },
        Arc, //
    },
};

/// Room that the kernel gives for showing a parameter.
const SHOW_LEN: usize = 4096;

/// A parameter: how it is set and shown.
pub trait Param: Sync {
    /// Sets the value.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the value is refused; it is then unchanged.
    ///
    /// # Safety
    ///
    /// The parameter lock of the module must be held.
    unsafe fn set(&self, value: &BStr) -> Result;

    /// Shows the value, as [`Param::set`] takes it.
    ///
    /// # Safety
    ///
    /// The parameter lock of the module must be held.
    unsafe fn show(&self, f: &mut dyn fmt::Write) -> fmt::Result;

    /// Says which values are taken, for a message that begins with "expected".
    fn expected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Integers that a parameter can have.
pub trait Integer:
    AtomicType + ParseInt + core::fmt::Display + PartialOrd + Send + Sync + 'static
{
    /// Reads the value.
    fn load(from: &Atomic<Self>) -> Self;

    /// Writes the value.
    fn store(to: &Atomic<Self>, value: Self);
}

macro_rules! impl_integer {
    ($($ty:ty)*) => {$(
        impl Integer for $ty {
            #[inline]
            fn load(from: &Atomic<Self>) -> Self {
                from.load(Relaxed)
            }

            #[inline]
            fn store(to: &Atomic<Self>, value: Self) {
                to.store(value, Relaxed)
            }
        }
    )*};
}

impl_integer!(i32 i64 u32 u64);

/// Told of the new value of a parameter.
pub trait Watch<T>: Send + Sync {
    /// The parameter has got the value `new`. Called with the parameter lock of the module held; may sleep.
    fn changed(&self, new: T);
}

/// A number within bounds.
pub struct Number<T: Integer> {
    value: Atomic<T>,
    min: T,
    max: T,
    /// Guarded by the parameter lock of the module that the parameter belongs to.
    watcher: UnsafeCell<Option<Arc<dyn Watch<T>>>>,
}

// SAFETY: `watcher` is only touched under the parameter lock of the module; what it points to may be shared and sent.
unsafe impl<T: Integer> Sync for Number<T> {}

impl<T: Integer> Number<T> {
    /// Makes a number with the value `default`, which may be set to values from `min` to `max`.
    pub const fn new(default: T, min: T, max: T) -> Self {
        Number {
            value: Atomic::new(default),
            min,
            max,
            watcher: UnsafeCell::new(None),
        }
    }

    /// Returns the value.
    #[inline]
    pub fn get(&self) -> T {
        T::load(&self.value)
    }

    /// Has `watcher` told of each new value, until the result is dropped. There can be one watcher at a time.
    ///
    /// `module` is the module that the parameter was declared in.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is a watcher.
    pub fn watch(
        &'static self,
        module: &'static ThisModule,
        watcher: Arc<dyn Watch<T>>,
    ) -> Result<Watched<T>> {
        let _lock = ParamLock::new(module);
        // SAFETY: The parameter lock is held.
        let slot = unsafe { &mut *self.watcher.get() };

        if slot.is_some() {
            return Err(EBUSY);
        }
        *slot = Some(watcher);
        Ok(Watched {
            number: self,
            module,
        })
    }
}

impl<T: Integer> Param for Number<T> {
    unsafe fn set(&self, value: &BStr) -> Result {
        let value = T::from_str(value).map_err(|_| EINVAL)?;
        if value < self.min || value > self.max {
            return Err(EINVAL);
        }

        T::store(&self.value, value);

        // SAFETY: The caller holds the parameter lock.
        if let Some(watcher) = unsafe { &*self.watcher.get() } {
            watcher.changed(value);
        }
        Ok(())
    }

    unsafe fn show(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        write!(f, "{}", self.get())
    }

    fn expected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {} to {}", self.min, self.max)
    }
}

/// Keeps the watcher of a number; dropping it ends the watch.
#[must_use = "dropping it ends the watch"]
pub struct Watched<T: Integer> {
    number: &'static Number<T>,
    module: &'static ThisModule,
}

impl<T: Integer> Drop for Watched<T> {
    fn drop(&mut self) {
        let watcher = {
            let _lock = ParamLock::new(self.module);
            // SAFETY: The parameter lock is held.
            unsafe { (*self.number.watcher.get()).take() }
        };

        drop(watcher);
    }
}

/// Yes or no, as `kstrtobool()` reads it.
pub struct Flag(Atomic<bool>);

impl Flag {
    /// Makes a flag with the value `default`.
    pub const fn new(default: bool) -> Self {
        Flag(Atomic::new(default))
    }

    /// Returns the value.
    #[inline]
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Param for Flag {
    unsafe fn set(&self, value: &BStr) -> Result {
        self.0.store(kernel::str::kstrtobool_bytes(value)?, Relaxed);
        Ok(())
    }

    unsafe fn show(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str(if self.get() { "Y" } else { "N" })
    }

    fn expected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("y or n")
    }
}

/// A printable ASCII string of at most `N` characters.
pub struct Text<const N: usize> {
    /// The characters and how many there are, guarded by the parameter lock of the module.
    value: UnsafeCell<([u8; N], usize)>,
}

// SAFETY: The value is only touched under the parameter lock of the module.
unsafe impl<const N: usize> Sync for Text<N> {}

impl<const N: usize> Text<N> {
    /// Makes a string with the value `default`, which must not be longer than `N`.
    pub const fn new(default: &str) -> Self {
        let mut value = [0; N];
        let mut i = 0;

        while i < default.len() {
            value[i] = default.as_bytes()[i];
            i += 1;
        }
        Text {
            value: UnsafeCell::new((value, default.len())),
        }
    }

    /// Calls `f` with the value. `module` is the module that the parameter was declared in.
    pub fn with<R>(&self, module: &'static ThisModule, f: impl FnOnce(&str) -> R) -> R {
        let _lock = ParamLock::new(module);

        // SAFETY: The parameter lock is held.
        f(unsafe { self.as_str() })
    }

    /// # Safety
    ///
    /// The parameter lock of the module must be held as long as the result is used.
    unsafe fn as_str(&self) -> &str {
        // SAFETY: By the safety requirements, nobody changes the value.
        let (value, len) = unsafe { &*self.value.get() };
        let value = value.get(..*len).unwrap_or_default();

        core::str::from_utf8(value).unwrap_or_default()
    }
}

impl<const N: usize> Param for Text<N> {
    unsafe fn set(&self, value: &BStr) -> Result {
        if value.len() > N || !value.iter().all(|c| c.is_ascii_graphic() || *c == b' ') {
            return Err(EINVAL);
        }

        // SAFETY: The caller holds the parameter lock.
        let (bytes, len) = unsafe { &mut *self.value.get() };
        if let Some(to) = bytes.get_mut(..value.len()) {
            to.copy_from_slice(value);
            *len = value.len();
        }
        Ok(())
    }

    unsafe fn show(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        // SAFETY: The caller holds the parameter lock.
        f.write_str(unsafe { self.as_str() })
    }

    fn expected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {N} printable characters")
    }
}

/// The parameter lock of a module, held.
struct ParamLock(&'static ThisModule);

impl ParamLock {
    fn new(module: &'static ThisModule) -> Self {
        // SAFETY: The module is valid.
        unsafe { bindings::kernel_param_lock(module.as_ptr()) };
        ParamLock(module)
    }
}

impl Drop for ParamLock {
    fn drop(&mut self) {
        // SAFETY: The lock was taken when this was made.
        unsafe { bindings::kernel_param_unlock(self.0.as_ptr()) };
    }
}

/// `struct kernel_param`, as a `static` can hold it.
#[doc(hidden)]
#[repr(transparent)]
pub struct KernelParam(kernel::bindings::kernel_param);

// SAFETY: The structure is only read.
unsafe impl Sync for KernelParam {}

impl KernelParam {
    /// Describes `param`, which is shown in a file of mode `mode`.
    ///
    /// # Safety
    ///
    /// `module` must point to the module that the description is a part of.
    pub const unsafe fn new<P: Param + 'static>(
        name: &'static CStr,
        param: &'static P,
        mode: u16,
        module: *mut kernel::bindings::module,
    ) -> Self {
        let ops: &'static kernel::bindings::kernel_param_ops = &Ops::<P>::OPS;

        KernelParam(kernel::bindings::kernel_param {
            name: kernel::str::as_char_ptr_in_const_context(name),
            mod_: module,
            ops,
            perm: mode,
            level: -1,
            flags: 0,
            __bindgen_anon_1: kernel::bindings::kernel_param__bindgen_ty_1 {
                arg: core::ptr::from_ref(param).cast_mut().cast(),
            },
        })
    }
}

/// Callbacks for parameters of type `P`.
struct Ops<P>(PhantomData<P>);

impl<P: Param + 'static> Ops<P> {
    const OPS: kernel::bindings::kernel_param_ops = kernel::bindings::kernel_param_ops {
        flags: 0,
        set: Some(Self::set),
        get: Some(Self::get),
        free: None,
    };

    /// # Safety
    ///
    /// Called by the kernel, for a description made by [`KernelParam::new`] with a parameter of type `P`.
    unsafe extern "C" fn set(
        value: *const c_char,
        desc: *const kernel::bindings::kernel_param,
    ) -> c_int {
        if value.is_null() {
            // A parameter without `=`. The kernel allows that only where a flag says so.
            return EINVAL.to_errno();
        }
        // SAFETY: By the safety requirements, `desc` is valid, and `arg` points to a parameter of type `P`.
        let param = unsafe { &*(*desc).__bindgen_anon_1.arg.cast::<P>() };
        // SAFETY: The kernel passes a string.
        let value = unsafe { CStr::from_char_ptr(value) };
        let value = BStr::from_bytes(value.to_bytes());

        // SAFETY: The kernel holds the parameter lock when it sets a parameter.
        match unsafe { param.set(BStr::from_bytes(value.trim_ascii())) } {
            Ok(()) => 0,
            Err(err) => {
                // SAFETY: By the safety requirements, `desc` is valid, and its name is a string.
                let name = unsafe { CStr::from_char_ptr((*desc).name) };
                // SAFETY: As above; a parameter of a module has a module, whose name is a string within it.
                let module = unsafe { &(*(*desc).mod_).name };
                refuse(
                    module,
                    name,
                    BStr::from_bytes(value.trim_ascii()),
                    &Expected(param),
                );
                err.to_errno()
            }
        }
    }

    /// # Safety
    ///
    /// Called by the kernel, for a description made by [`KernelParam::new`] with a parameter of type `P`.
    unsafe extern "C" fn get(
        buffer: *mut c_char,
        desc: *const kernel::bindings::kernel_param,
    ) -> c_int {
        // SAFETY: By the safety requirements, `desc` is valid, and `arg` points to a parameter of type `P`.
        let param = unsafe { &*(*desc).__bindgen_anon_1.arg.cast::<P>() };
        // SAFETY: The kernel passes a buffer of that length for the parameter's text.
        let buffer = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), SHOW_LEN) };
        let mut f = Formatter::new(buffer);

        // SAFETY: The kernel holds the parameter lock when it shows a parameter.
        match unsafe { param.show(&mut f) }.and_then(|()| f.write_char('\n')) {
            // CAST: At most `SHOW_LEN`.
            Ok(()) => f.bytes_written() as c_int,
            Err(_) => EINVAL.to_errno(),
        }
    }
}

/// Displays what a parameter expects.
struct Expected<'a, P>(&'a P);

impl<P: Param> fmt::Display for Expected<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expected(f)
    }
}

/// Says in the log of the kernel that a value was refused. `module` is a name that ends with a NUL.
fn refuse(module: &[u8], name: &CStr, value: &BStr, expected: &dyn fmt::Display) {
    // SAFETY: The format is one of the fixed ones, and `module` ends with a NUL.
    unsafe {
        kernel::print::call_printk(
            &kernel::print::format_strings::ERR,
            module,
            fmt!("parameter {name}: '{value}' refused, expected {expected}\n"),
        )
    };
}

/// Copies a string into an array, for `modinfo`.
#[doc(hidden)]
pub const fn modinfo<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut i = 0;

    while i < N {
        bytes[i] = text.as_bytes()[i];
        i += 1;
    }
    bytes
}

/// Declares the parameters of a module: a `static` for each, with its type and default, the mode of its file (0 for none) and a
/// description for `modinfo`.
///
/// See the [module documentation](crate::param) for an example.
#[macro_export]
macro_rules! module_params {
    (
        $(
            $(#[$attr:meta])*
            $name:ident : $type:ty = $default:expr, $mode:literal, $description:literal;
        )+
    ) => {$(
        $(#[$attr])*
        #[allow(non_upper_case_globals)]
        pub(crate) static $name: $type = $default;

        const _: () = {
            // As `VERIFY_OCTAL_PERMISSIONS()`: nobody else may write what others may not read.
            assert!($mode & !0o664 == 0, "mode of a parameter");
            assert!(($mode & 0o200) == 0 || ($mode & 0o400) != 0, "mode of a parameter");

            const INFO: &str = concat!("parm=", stringify!($name), ":", $description, "\0");
            #[link_section = ".modinfo"]
            #[used(compiler)]
            static PARM: [u8; INFO.len()] = $crate::param::modinfo(INFO);

            extern "C" {
                static __this_module: ::kernel::types::Opaque<::kernel::bindings::module>;
            }

            #[link_section = "__param"]
            #[used(compiler)]
            static DESCRIPTION: $crate::param::KernelParam =
                // SAFETY: The kernel makes `__this_module` for the module that this is linked into.
                unsafe {
                    $crate::param::KernelParam::new(
                        $crate::param::name(concat!(stringify!($name), "\0")),
                        &$name,
                        $mode,
                        __this_module.get(),
                    )
                };
        };
    )+};
}

/// Makes the name of a parameter a C string.
#[doc(hidden)]
pub const fn name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        // Evaluated while the module is compiled.
        Err(_) => panic!("name of a parameter"),
    }
}
