// SPDX-License-Identifier: GPL-2.0

//! Reads BTF, the compact type information of a kernel, from a byte slice.
//!
//! The reader trusts nothing in the slice: every offset is checked before use, every chain of types is cut after a fixed
//! number of steps, so that any input gives a value or an error, never a panic, an endless loop or a read out of bounds.
//!
//! It imports only `core`: the kernel reads its own BTF with it, and the host tests run it over files and over noise.
//!
//! C header: [`include/uapi/linux/btf.h`](srctree/include/uapi/linux/btf.h)
//!
//! Reference: <https://docs.kernel.org/bpf/btf.html>

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;

/// `struct btf_type` without what follows it.
const TYPE_LEN: usize = 12;
/// `struct btf_member`.
const MEMBER_LEN: usize = 12;
/// `struct btf_array`.
const ARRAY_LEN: usize = 12;
/// `struct btf_var_secinfo`.
const SECINFO_LEN: usize = 12;

/// Longest chain of modifiers, array elements and anonymous members that is followed.
const MAX_DEPTH: usize = 16;
/// Most members looked at while one name is resolved.
const MAX_STEPS: usize = 1 << 16;

/// Why an image could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The image ends before its header or a section does.
    Short,
    /// The header is not that of BTF version 1 in this machine's byte order.
    Header,
}

/// Kinds of types (`BTF_KIND_*`), as far as the reader tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer type.
    Int,
    /// A pointer.
    Ptr,
    /// An array.
    Array,
    /// A structure.
    Struct,
    /// A union.
    Union,
    /// An enumeration of at most 32 bits.
    Enum,
    /// A typedef, a qualifier or a tag: another name for the type it refers to.
    Modifier,
    /// A variable.
    Var,
    /// A section of variables.
    Datasec,
    /// A floating point type.
    Float,
    /// An enumeration of 64 bits.
    Enum64,
    /// Anything else.
    Other,
}

/// A BTF image: its types and its strings.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// Lengths that the header of an image states.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Length of the header itself.
    pub hdr_len: usize,
    /// Start of the types, counted from the end of the header.
    pub type_off: usize,
    type_len: usize,
    str_off: usize,
    str_len: usize,
}

impl Header {
    /// Length of the part of the header that each version has.
    pub const LEN: usize = 24;

    /// Decodes the header at the start of `data`.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let word = |at| read_u32(data, at).ok_or(Malformed::Short);
        let magic = (word(0)? & 0xffff) as u16;
        let version = (word(0)? >> 16) as u8;
        let hdr_len = word(4)? as usize;

        if magic.to_le() != MAGIC.to_le() || version != VERSION || hdr_len < Self::LEN {
            return Err(Malformed::Header);
        }

        Ok(Header {
            hdr_len,
            type_off: word(8)? as usize,
            type_len: word(12)? as usize,
            str_off: word(16)? as usize,
            str_len: word(20)? as usize,
        })
    }

    /// Length of the image up to the end of its types and strings.
    pub fn image_len(&self) -> Option<usize> {
        let types = self.type_off.checked_add(self.type_len)?;
        let strings = self.str_off.checked_add(self.str_len)?;

        self.hdr_len.checked_add(types.max(strings))
    }
}

impl<'a> Image<'a> {
    /// Finds the sections of the image at the start of `data`.
    pub fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let header = Header::parse(data)?;
        let body = data.get(header.hdr_len..).ok_or(Malformed::Short)?;
        let section = |off: usize, len: usize| {
            let end = off.checked_add(len).ok_or(Malformed::Short)?;
            body.get(off..end).ok_or(Malformed::Short)
        };

        Ok(Image {
            types: section(header.type_off, header.type_len)?,
            strings: section(header.str_off, header.str_len)?,
        })
    }

    /// Returns the string at `offset`, without its NUL.
    pub fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        let len = rest.iter().position(|&b| b == 0)?;

        rest.get(..len)
    }

    /// Returns the type whose record begins `offset` bytes into the types.
    pub fn type_at(&self, offset: usize) -> Option<Type<'a>> {
        let record = self.types.get(offset..)?;

        Some(Type {
            name_off: read_u32(record, 0)?,
            info: read_u32(record, 4)?,
            size_or_type: read_u32(record, 8)?,
            rest: record.get(TYPE_LEN..)?,
        })
    }

    /// Returns the types in the order of their ids, which begin with 1.
    pub fn types(&self) -> Types<'a> {
        Types {
            image: *self,
            offset: 0,
        }
    }
}

/// Iterator over the types of an image, with the offset of each; ends at the first record that is cut off or unknown.
pub struct Types<'a> {
    image: Image<'a>,
    offset: usize,
}

impl<'a> Iterator for Types<'a> {
    type Item = (usize, Type<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let ty = self.image.type_at(offset)?;

        self.offset = offset.checked_add(TYPE_LEN)?.checked_add(ty.rest_len()?)?;
        Some((offset, ty))
    }
}

/// One type of an image.
#[derive(Clone, Copy)]
pub struct Type<'a> {
    name_off: u32,
    info: u32,
    size_or_type: u32,
    /// What follows the record; more than belongs to this type.
    rest: &'a [u8],
}

impl<'a> Type<'a> {
    /// Number of members, variables or values that follow the record.
    ///
    /// Older kernels have 16 bits for it and keep the others zero.
    pub fn vlen(&self) -> usize {
        (self.info & 0x00ff_ffff) as usize
    }

    /// The kind of the type.
    pub fn kind(&self) -> Kind {
        match self.kind_nr() {
            1 => Kind::Int,
            2 => Kind::Ptr,
            3 => Kind::Array,
            4 => Kind::Struct,
            5 => Kind::Union,
            6 => Kind::Enum,
            8..=11 | 18 => Kind::Modifier,
            14 => Kind::Var,
            15 => Kind::Datasec,
            16 => Kind::Float,
            19 => Kind::Enum64,
            _ => Kind::Other,
        }
    }

    /// Offset of the type's name in the strings.
    pub fn name_off(&self) -> u32 {
        self.name_off
    }

    /// Size in bytes, for the kinds that have one.
    pub fn size(&self) -> Option<u32> {
        match self.kind() {
            Kind::Int
            | Kind::Struct
            | Kind::Union
            | Kind::Enum
            | Kind::Datasec
            | Kind::Float
            | Kind::Enum64 => Some(self.size_or_type),
            _ => None,
        }
    }

    /// The id of the type that this one refers to, for the kinds that do.
    pub fn target(&self) -> Option<u32> {
        match self.kind() {
            Kind::Ptr | Kind::Modifier | Kind::Var => Some(self.size_or_type),
            _ => None,
        }
    }

    /// The members of a structure or union.
    pub fn members(&self) -> impl Iterator<Item = Member> + 'a {
        let bitfields = self.info >> 31 != 0;
        let count = match self.kind() {
            Kind::Struct | Kind::Union => self.vlen(),
            _ => 0,
        };

        let rest = self.rest;
        (0..count).map_while(move |i| {
            let member = rest.get(i.checked_mul(MEMBER_LEN)?..)?;
            let offset = read_u32(member, 8)?;

            Some(Member {
                name_off: read_u32(member, 0)?,
                ty: read_u32(member, 4)?,
                bit_offset: if bitfields {
                    offset & 0x00ff_ffff
                } else {
                    offset
                },
                bit_size: if bitfields { offset >> 24 } else { 0 },
            })
        })
    }

    /// The variables of a section.
    pub fn variables(&self) -> impl Iterator<Item = Variable> + 'a {
        let count = match self.kind() {
            Kind::Datasec => self.vlen(),
            _ => 0,
        };

        let rest = self.rest;
        (0..count).map_while(move |i| {
            let variable = rest.get(i.checked_mul(SECINFO_LEN)?..)?;

            Some(Variable {
                ty: read_u32(variable, 0)?,
                offset: read_u32(variable, 4)?,
                size: read_u32(variable, 8)?,
            })
        })
    }

    /// Element type and number of elements of an array.
    pub fn array(&self) -> Option<(u32, u32)> {
        match self.kind() {
            Kind::Array => Some((read_u32(self.rest, 0)?, read_u32(self.rest, 8)?)),
            _ => None,
        }
    }

    fn kind_nr(&self) -> u32 {
        (self.info >> 24) & 0x7f
    }

    /// Length of what belongs to this type after its record; [`None`] for a kind that is not known.
    fn rest_len(&self) -> Option<usize> {
        match self.kind_nr() {
            1 | 14 | 17 => Some(4),
            2 | 7..=12 | 16 | 18 => Some(0),
            3 => Some(ARRAY_LEN),
            4 | 5 => self.vlen().checked_mul(MEMBER_LEN),
            6 | 13 => self.vlen().checked_mul(8),
            15 => self.vlen().checked_mul(SECINFO_LEN),
            19 => self.vlen().checked_mul(12),
            _ => None,
        }
    }
}

/// A member of a structure or union.
#[derive(Clone, Copy)]
pub struct Member {
    name_off: u32,
    ty: u32,
    bit_offset: u32,
    bit_size: u32,
}

/// A variable of a section.
#[derive(Clone, Copy)]
pub struct Variable {
    /// The id of the variable, a type of kind [`Kind::Var`].
    pub ty: u32,
    /// Offset from the start of the section.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
}

/// Where a field lies within a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Offset in bytes from the start of the outermost structure.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// Type information that can be asked by id and by name.
pub trait Source<'a> {
    /// The image that the types belong to.
    fn image(&self) -> &Image<'a>;

    /// Returns the type with the given id.
    fn by_id(&self, id: u32) -> Option<Type<'a>>;

    /// Returns the first type of the given kind and name.
    fn find(&self, name: &str, kind: Kind) -> Option<Type<'a>>;

    /// Returns whether the string at `offset` is `name`.
    fn is_named(&self, offset: u32, name: &str) -> bool {
        self.image().string(offset) == Some(name.as_bytes())
    }

    /// Follows typedefs, qualifiers and tags to the type itself.
    fn resolve(&self, id: u32) -> Option<Type<'a>> {
        let mut ty = self.by_id(id)?;

        for _ in 0..MAX_DEPTH {
            if ty.kind() != Kind::Modifier {
                return Some(ty);
            }
            ty = self.by_id(ty.target()?)?;
        }
        None
    }

    /// Size in bytes of the type with the given id.
    fn size_of(&self, id: u32) -> Option<usize> {
        let mut ty = self.resolve(id)?;
        let mut count: usize = 1;

        for _ in 0..MAX_DEPTH {
            if let Some((element, elements)) = ty.array() {
                count = count.checked_mul(elements as usize)?;
                ty = self.resolve(element)?;
                continue;
            }
            let size = match ty.kind() {
                Kind::Ptr => core::mem::size_of::<usize>(),
                _ => ty.size()? as usize,
            };
            return count.checked_mul(size);
        }
        None
    }

    /// Finds a field of `outer` by its path, such as `rt.active.queue`.
    ///
    /// Members of anonymous structures and unions count as members of what contains them. A bit field is not found.
    fn field(&self, outer: &Type<'a>, path: &str) -> Option<Field> {
        let mut ty = *outer;
        let mut offset: usize = 0;
        let mut size = ty.size()? as usize;
        let mut steps = MAX_STEPS;

        for name in path.split('.') {
            let (at, id) = self.member(&ty, name, MAX_DEPTH, &mut steps)?;

            offset = offset.checked_add(at)?;
            size = self.size_of(id)?;
            ty = self.resolve(id)?;
        }

        // A field cannot reach beyond the structure that it is part of.
        let end = offset.checked_add(size)?;
        (end <= outer.size()? as usize).then_some(Field { offset, size })
    }

    /// Finds the member of that name: its offset in bytes and the id of its type.
    #[doc(hidden)]
    fn member(
        &self,
        ty: &Type<'a>,
        name: &str,
        depth: usize,
        steps: &mut usize,
    ) -> Option<(usize, u32)> {
        for member in ty.members() {
            *steps = steps.checked_sub(1)?;

            let offset = (member.bit_offset / 8) as usize;

            if self.is_named(member.name_off, name) {
                let whole = member.bit_size == 0 && member.bit_offset % 8 == 0;
                return whole.then_some((offset, member.ty));
            }
            if member.name_off == 0 && depth > 0 {
                let Some(inner) = self.resolve(member.ty) else {
                    continue;
                };
                if let Some((at, id)) = self.member(&inner, name, depth - 1, steps) {
                    return Some((offset.checked_add(at)?, id));
                }
            }
        }
        None
    }

    /// Finds a variable of the section `sec` by its name.
    fn variable(&self, sec: &Type<'a>, name: &str) -> Option<Variable> {
        sec.variables().find(|var| {
            self.by_id(var.ty)
                .is_some_and(|ty| ty.kind() == Kind::Var && self.is_named(ty.name_off(), name))
        })
    }
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;

    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
