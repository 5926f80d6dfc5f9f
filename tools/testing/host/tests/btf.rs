// SPDX-License-Identifier: GPL-2.0

//! Tests of the BTF reader and of the run-queue layout that is looked up with it.
//!
//! A small image is written by hand, so that what the reader must find is known without the reader. The type information
//! of a real kernel is read when `TENON_VMLINUX` names a file that holds it: an ELF file, or a copy of
//! `/sys/kernel/btf/vmlinux`.

use proptest::prelude::*;

#[path = "../../../../rust/guest/sched/layout.rs"]
mod layout;
#[path = "../../../../rust/guest/btf/reader.rs"]
mod reader;

/// As in crate `guest`.
mod btf {
    pub(crate) use crate::reader;
}

use layout::{Misfit, RqLayout};
use reader::{Field, Header, Image, Kind, Malformed, Source, Type};

/// A source that knows where each type begins.
struct Indexed<'a> {
    image: Image<'a>,
    offsets: Vec<usize>,
}

impl<'a> Indexed<'a> {
    fn new(data: &'a [u8]) -> Result<Self, Malformed> {
        let image = Image::parse(data)?;
        let offsets = image.types().map(|(offset, _)| offset).collect();

        Ok(Indexed { image, offsets })
    }
}

impl<'a> Source<'a> for Indexed<'a> {
    fn image(&self) -> &Image<'a> {
        &self.image
    }

    fn by_id(&self, id: u32) -> Option<Type<'a>> {
        let index = (id as usize).checked_sub(1)?;

        self.image.type_at(*self.offsets.get(index)?)
    }

    fn find(&self, name: &str, kind: Kind) -> Option<Type<'a>> {
        self.image
            .types()
            .map(|(_, ty)| ty)
            .find(|ty| ty.kind() == kind && self.is_named(ty.name_off(), name))
    }
}

/// Writes BTF. Types get their ids in the order in which they are added, from 1.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    ids: u32,
}

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const VAR: u32 = 14;
const DATASEC: u32 = 15;

impl Writer {
    fn new() -> Self {
        Writer {
            strings: vec![0],
            ..Self::default()
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
    }

    fn add(&mut self, name: &str, kind: u32, vlen: usize, size_or_type: u32) -> u32 {
        let name = self.name(name);
        self.words(&[name, (kind << 24) | vlen as u32, size_or_type]);
        self.ids += 1;
        self.ids
    }

    fn int(&mut self, name: &str, size: u32) -> u32 {
        let id = self.add(name, INT, 0, size);
        self.words(&[size * 8]);
        id
    }

    fn array(&mut self, element: u32, count: u32) -> u32 {
        let id = self.add("", ARRAY, 0, 0);
        self.words(&[element, element, count]);
        id
    }

    /// `members`: name, type, offset in bits.
    fn composite(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let id = self.add(name, kind, members.len(), size);
        for &(name, ty, bits) in members {
            let name = self.name(name);
            self.words(&[name, ty, bits]);
        }
        id
    }

    fn finish(self) -> Vec<u8> {
        let mut image = Vec::new();
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);

        image.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
        image.extend_from_slice(&[1, 0]);
        for word in [24, 0, types, types, strings] {
            image.extend_from_slice(&u32::to_ne_bytes(word));
        }
        image.extend(self.types);
        image.extend(self.strings);
        image
    }
}

/// Offsets that [`kernel`] writes, and that the layout must therefore hold.
const CURR: u32 = 24;
const LOCK: u32 = 72;

/// Writes the type information of a made-up kernel; `lock` is the size of its `raw_spinlock_t`, `extra` a further member of
/// `struct rq`.
fn kernel(lock: u32, extra: Option<&str>) -> Vec<u8> {
    let mut w = Writer::new();

    let int = w.int("int", 4);
    let long = w.int("long", 8);
    let task = w.composite(STRUCT, "task_struct", 64, &[]);
    let task_ptr = w.add("", PTR, 0, task);
    let list = w.composite(
        STRUCT,
        "list_head",
        16,
        &[("next", task_ptr, 0), ("prev", task_ptr, 64)],
    );
    let raw = w.composite(STRUCT, "raw_spinlock", lock, &[]);
    let lock = w.add("raw_spinlock_t", TYPEDEF, 0, raw);
    let constant = w.add("", CONST, 0, int);
    let bitmap = w.array(long, 2);
    let queue = w.array(list, 100);
    let prio = w.composite(
        STRUCT,
        "rt_prio_array",
        1616,
        &[("bitmap", bitmap, 0), ("queue", queue, 128)],
    );
    let rt = w.composite(STRUCT, "rt_rq", 1616, &[("active", prio, 0)]);
    let root = w.composite(
        STRUCT,
        "rb_root_cached",
        16,
        &[("rb_root", long, 0), ("rb_leftmost", task_ptr, 64)],
    );
    let dl = w.composite(STRUCT, "dl_rq", 16, &[("root", root, 0)]);
    let scx = w.composite(STRUCT, "scx_rq", 24, &[("runnable_list", list, 64)]);
    let either = w.composite(
        UNION,
        "",
        8,
        &[("donor", task_ptr, 0), ("curr", task_ptr, 0)],
    );

    let cfs = w.composite(
        STRUCT,
        "cfs_rq",
        48,
        &[
            ("rq", task_ptr, 0),
            ("tg", task_ptr, 64),
            ("throttled_limbo_list", list, 128),
        ],
    );
    w.composite(
        STRUCT,
        "task_group",
        48,
        &[
            ("cfs_rq", task_ptr, 0),
            ("parent", task_ptr, 64),
            ("children", list, 128),
            ("siblings", list, 256),
        ],
    );

    let mut members = vec![
        ("nr_running", int, 0),
        ("", either, CURR * 8),
        ("idle", task_ptr, 32 * 8),
        ("__lock", lock, LOCK * 8),
        ("cfs", cfs, 96 * 8),
        ("rt", rt, 256 * 8),
        ("dl", dl, 2000 * 8),
        ("scx", scx, 2100 * 8),
        ("stop", task_ptr, 2200 * 8),
        ("cpu", constant, 2208 * 8),
        ("cfs_tasks", list, 2216 * 8),
    ];
    if let Some(name) = extra {
        members.push((name, task_ptr, 2232 * 8));
    }
    let rq = w.composite(STRUCT, "rq", 2240, &members);

    let anchor = w.add("kstat", VAR, 0, long);
    w.words(&[1]);
    let runqueues = w.add("runqueues", VAR, 0, rq);
    w.words(&[1]);
    w.add(".data..percpu", DATASEC, 2, 8192);
    w.words(&[anchor, 4096, 8, runqueues, 1024, 2240]);

    w.finish()
}

fn layout(image: &[u8]) -> Result<RqLayout, Misfit> {
    RqLayout::find(&Indexed::new(image).unwrap(), "kstat", 4)
}

#[test]
fn finds_the_layout() {
    let layout = layout(&kernel(4, None)).unwrap();

    assert_eq!(layout.from_anchor, 1024 - 4096);
    assert_eq!(layout.size, 2240);
    assert_eq!(layout.curr, CURR as usize);
    assert_eq!(layout.lock, LOCK as usize);
    assert_eq!(layout.cpu, 2208);
    assert_eq!((layout.idle, layout.stop), (32, 2200));
    assert_eq!(layout.rt_bitmap, 256);
    assert_eq!(layout.rt_queue, 272);
    assert_eq!(layout.dl_leftmost, 2008);
    assert_eq!(layout.scx_runnable, Some(2108));

    let groups = layout.groups.unwrap();
    assert_eq!((groups.root_cfs_rq, groups.root), (96, 104));
    assert_eq!((groups.cfs_rq, groups.parent), (0, 8));
    assert_eq!((groups.children, groups.siblings), (16, 32));
    assert_eq!((groups.rq, groups.throttled), (0, 16));
}

#[test]
fn refuses_another_lock() {
    assert_eq!(
        layout(&kernel(64, None)).unwrap_err(),
        Misfit::Size {
            what: "__lock",
            want: 4,
            have: 64
        }
    );
}

#[test]
fn a_refusal_says_what_differs() {
    let misfit = layout(&kernel(64, None)).unwrap_err();
    assert_eq!(misfit.to_string(), "size of __lock is 64, built for 4");

    let (what, want, have) = ("task_struct.tasks", 8, 16);
    assert_eq!(
        Misfit::Offset { what, want, have }.to_string(),
        "offset of task_struct.tasks is 16, built for 8"
    );
    for misfit in [Misfit::NoBtf, Misfit::Contents("idle task")] {
        assert!(!misfit.remedy().is_empty() && !misfit.remedy().contains('\n'));
        assert!(!misfit.to_string().contains('\n'));
    }
}

#[test]
fn refuses_core_scheduling() {
    assert_eq!(
        layout(&kernel(4, Some("core"))).unwrap_err(),
        Misfit::Option("CONFIG_SCHED_CORE")
    );
}

#[test]
fn names_what_is_missing() {
    let mut w = Writer::new();
    w.int("int", 4);
    assert_eq!(
        layout(&w.finish()).unwrap_err(),
        Misfit::Missing("section .data..percpu")
    );
}

#[test]
fn a_bit_field_is_no_field() {
    let mut w = Writer::new();
    let int = w.int("int", 4);
    let name = w.name("flag");
    // A structure with the flag for bit fields: one bit at offset 8.
    w.add("s", STRUCT | 0x80, 1, 4);
    w.words(&[name, int, (1 << 24) | 8]);
    let image = w.finish();
    let source = Indexed::new(&image).unwrap();
    let ty = source.find("s", Kind::Struct).unwrap();

    assert_eq!(source.field(&ty, "flag"), None);
}

#[test]
fn types_that_refer_to_themselves_end() {
    let mut w = Writer::new();
    w.add("loop", TYPEDEF, 0, 1);
    w.array(2, 1 << 30);
    // Anonymous members of its own type, many times over.
    let members: Vec<_> = (0..64).map(|i| ("", 3, i * 8)).collect();
    w.composite(STRUCT, "s", 1024, &members);
    let image = w.finish();
    let source = Indexed::new(&image).unwrap();
    let ty = source.find("s", Kind::Struct).unwrap();

    assert!(source.resolve(1).is_none());
    assert_eq!(source.size_of(2), None);
    assert_eq!(source.field(&ty, "x"), None);
}

#[test]
fn refuses_what_is_not_btf() {
    assert_eq!(Image::parse(&[]).err(), Some(Malformed::Short));
    assert_eq!(Image::parse(&[0; 64]).err(), Some(Malformed::Header));

    let whole = kernel(4, None);
    assert_eq!(
        Header::parse(&whole).unwrap().image_len(),
        Some(whole.len())
    );
    for len in 0..whole.len() {
        assert_eq!(Image::parse(&whole[..len]).err(), Some(Malformed::Short));
    }
}

/// Asks everything of an image; only that it returns is of interest.
fn ask_everything(data: &[u8]) {
    let _ = Header::parse(data).map(|header| header.image_len());
    let Ok(source) = Indexed::new(data) else {
        return;
    };
    let _ = RqLayout::find(&source, "kstat", 4);
    for (id, (_, ty)) in (1..).zip(source.image().types()) {
        let _ = (ty.size(), ty.target(), ty.array(), ty.kind(), ty.vlen());
        let _ = (source.size_of(id), source.image().string(ty.name_off()));
        let _ = source.field(&ty, "a.b");
        let _ = source.variable(&ty, "x");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..512)) {
        ask_everything(&data);
    }

    /// Noise behind a header that fits, so that the types are reached.
    #[test]
    fn any_types(types in proptest::collection::vec(any::<u8>(), 0..512),
                 strings in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut w = Writer::new();
        w.types = types;
        w.strings = strings;
        ask_everything(&w.finish());
    }

    /// A good image with some words replaced: each answer is right or none at all.
    #[test]
    fn damaged(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 1..6)) {
        let mut data = kernel(4, None);
        for (at, word) in edits {
            let at = at.index(data.len() / 4) * 4;
            data[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        ask_everything(&data);
        if let Ok(source) = Indexed::new(&data) {
            if let Ok(layout) = RqLayout::find(&source, "kstat", 4) {
                // What is found lies within `struct rq`, whatever the damage.
                prop_assert!(layout.curr + 8 <= layout.size);
                prop_assert!(layout.rt_queue + 1600 <= layout.size);
                prop_assert!(layout.cfs_tasks + 16 <= layout.size);
            }
        }
    }
}

/// The `.BTF` section of a 64-bit ELF file, or the whole file if it is BTF itself.
fn section_of(file: &[u8]) -> &[u8] {
    if !file.starts_with(b"\x7fELF") {
        return file;
    }
    let word = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&file[at..at + len]);
        u64::from_le_bytes(bytes) as usize
    };
    let (sections, count, names) = (word(40, 8), word(60, 2), word(62, 2));
    let header = |i: usize| sections + i * 64;
    let strings = word(header(names) + 24, 8);

    (0..count)
        .map(header)
        .find(|&at| file[strings + word(at, 4)..].starts_with(b".BTF\0"))
        .map(|at| &file[word(at + 24, 8)..][..word(at + 32, 8)])
        .expect("no .BTF section")
}

#[test]
fn a_real_kernel() {
    let Some(path) = std::env::var_os("TENON_VMLINUX") else {
        eprintln!("TENON_VMLINUX is not set: no real kernel read");
        return;
    };
    let file = std::fs::read(path).unwrap();
    let source = Indexed::new(section_of(&file)).unwrap();
    let layout = RqLayout::find(&source, "kstat", 4).unwrap();
    let task = source.find("task_struct", Kind::Struct).unwrap();

    println!("{layout:?}");
    assert_eq!(layout.nr_running, 0);
    assert!(layout.groups.is_some());
    assert!(source.image().types().count() > 10_000);
    assert_eq!(
        source.field(&task, "se.group_node").map(|field| field.size),
        Some(16)
    );
    assert!(matches!(
        source.field(&task, "comm"),
        Some(Field { size: 16, .. })
    ));
    assert_eq!(source.field(&task, "no_such_member"), None);
}
