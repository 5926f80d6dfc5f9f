// SPDX-License-Identifier: GPL-2.0

//! The type information (BTF) of the running kernel.
//!
//! The kernel keeps its own BTF in read-only memory for as long as it runs; it is what `/sys/kernel/btf/vmlinux` shows. Types
//! can be looked up by name and by id through exported functions, but those for names of members are not exported. The
//! image itself tells them: its types are followed by its strings, and the record of the first type directly follows the
//! header that says where both are. [`Vmlinux::get`] goes from the first type to the header, checks it, and proves the
//! result by names that it knows.
//!
//! [`reader`] does the reading, and [`Source`] is what users of this module want.
//!
//! C headers: [`include/linux/btf.h`](srctree/include/linux/btf.h),
//! [`include/uapi/linux/btf.h`](srctree/include/uapi/linux/btf.h)

pub mod reader;

use crate::bindings;

use kernel::prelude::*;

use self::reader::{
    Header,
    Image,
    Kind,
    Source,
    Type, //
};

/// Lengths that the header may have: the first version's and what later fields may bring.
const HEADER_LENS: core::ops::RangeInclusive<usize> = Header::LEN..=256;

/// The BTF of the running kernel.
///
/// # Invariants
///
/// `btf` points to the kernel's own `struct btf`, which lives as long as the kernel, and `types` to the record of its first
/// type.
pub struct Vmlinux {
    btf: *const kernel::bindings::btf,
    types: *const u8,
    image: Image<'static>,
}

impl Vmlinux {
    /// Finds the type information of the running kernel.
    ///
    /// May sleep: the first user of BTF makes the kernel parse it.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if the kernel has none, [`EINVAL`] if it is not as expected.
    pub fn get() -> Result<Self> {
        let (btf, _) = find(c"task_struct", Kind::Struct)?;

        // SAFETY: `find` returned a valid `struct btf`. Each has a type with id 1.
        let types: *const u8 = unsafe { bindings::btf_type_by_id(btf, 1) }.cast();
        if types.is_null() {
            return Err(EINVAL);
        }

        let (start, len) = find_header(types).ok_or(EINVAL)?;

        // SAFETY: `find_header` checked that a header of BTF lies at `start`, followed by the first type of this `struct btf`.
        // The kernel accepted the image only after checking that the sections the header names, of which `len` is the end, lie
        // within it. An image with the type `task_struct` is the kernel's own, read-only and never freed.
        let data: &'static [u8] = unsafe { core::slice::from_raw_parts(start, len) };

        // INVARIANT: `btf` is the kernel's own, and `types` its first type.
        let this = Vmlinux {
            btf,
            types,
            image: Image::parse(data).map_err(|_| EINVAL)?,
        };

        // That names and types are read as the kernel reads them shows here.
        this.find("task_struct", Kind::Struct).ok_or(EINVAL)?;
        Ok(this)
    }
}

impl Source<'static> for Vmlinux {
    fn image(&self) -> &Image<'static> {
        &self.image
    }

    fn by_id(&self, id: u32) -> Option<Type<'static>> {
        if id == 0 {
            return None;
        }

        // SAFETY: By the type invariants, `btf` is valid, and it is not split BTF: an id that it does not have gives null.
        let ty: *const u8 = unsafe { bindings::btf_type_by_id(self.btf, id) }.cast();

        self.image
            .type_at((ty as usize).checked_sub(self.types as usize)?)
    }

    fn find(&self, name: &str, kind: Kind) -> Option<Type<'static>> {
        let mut buf = [0; 64];
        buf.get_mut(..name.len())?.copy_from_slice(name.as_bytes());

        let (btf, id) = find(CStr::from_bytes_until_nul(&buf).ok()?, kind).ok()?;
        if !core::ptr::eq(btf, self.btf) {
            // The type of a module.
            return None;
        }

        self.by_id(id)
            .filter(|ty| ty.kind() == kind && self.is_named(ty.name_off(), name))
    }
}

/// Looks a type up by name.
///
/// The reference to the `struct btf` that comes with the answer cannot be returned (`btf_put()` is not exported). For the
/// kernel's own BTF, which is what all names in use here belong to, that is of no effect.
fn find(name: &CStr, kind: Kind) -> Result<(*const kernel::bindings::btf, u32)> {
    let kind = match kind {
        Kind::Struct => bindings::BTF_KIND_STRUCT,
        Kind::Datasec => bindings::BTF_KIND_DATASEC,
        _ => return Err(EINVAL),
    };
    let mut btf = core::ptr::null_mut();

    // SAFETY: `name` is a valid string, and `btf` is valid for writing.
    let id = unsafe { bindings::bpf_find_btf_id(name.as_char_ptr(), kind, &mut btf) };
    let id = u32::try_from(id).map_err(|_| Error::from_errno(id))?;

    Ok((btf, id))
}

/// Goes back from the first type to the header of its image, and returns where the image begins and how long it is.
fn find_header(types: *const u8) -> Option<(*const u8, usize)> {
    HEADER_LENS.step_by(4).find_map(|hdr_len| {
        let start = types.wrapping_sub(hdr_len);
        let mut head = [0_u8; Header::LEN];

        // SAFETY: `head` is valid for writing its length; the source may be any address.
        let ret = unsafe {
            bindings::copy_from_kernel_nofault(head.as_mut_ptr().cast(), start.cast(), Header::LEN)
        };
        if ret != 0 {
            return None;
        }

        let header = Header::parse(&head).ok()?;
        (header.hdr_len == hdr_len && header.type_off == 0).then_some((start, header.image_len()?))
    })
}
