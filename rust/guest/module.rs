// SPDX-License-Identifier: GPL-2.0

//! Modules: where the kernel knows them from.
//!
//! A module is in three places that are kept by different code: the list of modules, which lsmod shows, the set of objects below
//! `/sys/module`, and the tree in which the kernel looks addresses up. None is exported; each is found from the entry of the module
//! that asks. A module is put into the list first, into the tree next, and into the set before it is called; it begins to go
//! ([`State::Going`]) before it is taken out of any, and is out of the set first. So a module that is [`State::Live`] is in all.
//!
//! All is read under RCU, and as what may not be there: the memory of a module is not freed before those who have met it in one of
//! the places have left their critical sections.
//!
//! C headers: [`include/linux/module.h`](srctree/include/linux/module.h),
//! [`include/linux/rbtree_latch.h`](srctree/include/linux/rbtree_latch.h)

pub mod notifier;

use crate::{
    bindings,
    sched::{
        list::Cut,
        peek::{
            half,
            word, //
        },
        read_nofault, //
    },
    symbol::{
        text::Text,
        Symbol, //
    },
};

use core::mem::{
    offset_of,
    size_of, //
};

use kernel::{
    prelude::*,
    sync::{
        barrier::{
            smp_mb,
            Read, //
        },
        rcu, //
    },
    ThisModule, //
};

/// Most entries that a place is believed to have.
const MAX_ENTRIES: usize = 1 << 14;
/// Most levels that the tree is believed to have.
const MAX_DEPTH: usize = 64;
/// Bytes of the longest name, with its NUL.
pub const NAME_LEN: usize = 64 - size_of::<usize>();

/// Kinds of memory that a module has its code in.
const TEXTS: [bindings::mod_mem_type; 2] = [
    bindings::mod_mem_type_MOD_TEXT,
    bindings::mod_mem_type_MOD_INIT_TEXT,
];

/// Identity of a module, as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleId(pub usize);

/// How far a module has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in use.
    Live,
    /// It is on its way out. It may be that for as long as it likes.
    Going,
    /// Anything else: it is not in use yet, or about to be freed.
    Other,
}

impl ModuleId {
    /// How far it has come. What was read before this call was read before the state.
    pub fn state(self, _guard: &rcu::Guard) -> State {
        smp_mb(Read);
        match half(self.0.wrapping_add(offset_of!(bindings::module, state))) {
            Some(bindings::module_state_MODULE_STATE_LIVE) => State::Live,
            Some(bindings::module_state_MODULE_STATE_GOING) => State::Going,
            _ => State::Other,
        }
    }

    /// Its name, up to the first NUL.
    pub fn name(self, _guard: &rcu::Guard) -> [u8; NAME_LEN] {
        let at = self.0.wrapping_add(offset_of!(bindings::module, name));

        // SAFETY: Any bytes are some bytes.
        unsafe { read_nofault(core::ptr::without_provenance(at)) }.unwrap_or([0; NAME_LEN])
    }

    /// Where its code is: the beginning and the end of each part.
    pub fn texts(self) -> [(usize, usize); TEXTS.len()] {
        TEXTS.map(|kind| {
            let memory = self.memory(kind);
            let base = word(memory.wrapping_add(offset_of!(bindings::module_memory, base)));
            let size = half(memory.wrapping_add(offset_of!(bindings::module_memory, size)));

            match (base, size) {
                // CAST: A size fits.
                (Some(base), Some(size)) => (base, base.saturating_add(size as usize)),
                _ => (0, 0),
            }
        })
    }

    /// Returns whether the kernel's way from an address to its module leads to this one.
    pub fn is_found(self, guard: &rcu::Guard) -> bool {
        let name = self.name(guard);
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();

        matches!(
            Symbol::of(self.0).text(),
            Text::Known { module: Some(module), .. } if module == name
        )
    }

    /// The address of what is known of one kind of its memory.
    fn memory(self, kind: bindings::mod_mem_type) -> usize {
        let mem = self.0.wrapping_add(offset_of!(bindings::module, mem));

        // CAST: A small number.
        mem.wrapping_add(kind as usize * size_of::<bindings::module_memory>())
    }
}

/// The places.
pub struct Modules {
    own: ModuleId,
    /// The head of the list.
    head: usize,
    /// The set.
    kset: *mut bindings::kset,
}

// SAFETY: All is the kernel's, and read by whoever likes.
unsafe impl Send for Modules {}
// SAFETY: As for `Send`.
unsafe impl Sync for Modules {}

impl Modules {
    /// Finds the places from the entries of `module`.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if one of them cannot be found.
    pub fn find(module: &'static ThisModule) -> Result<Self> {
        let own = ModuleId(module.as_ptr() as usize);
        let guard = rcu::read_lock();
        let entry = own.0.wrapping_add(offset_of!(bindings::module, list));
        let mut head = None;

        // Begun anywhere, the way round the list comes by its head, which has a name.
        let whole = around(entry, |node| {
            if let Text::Known {
                name: b"modules",
                offset: 0,
                module: None,
            } = Symbol::of(node).text()
            {
                head = Some(node);
            }
        });
        whole.map_err(|_| ENOENT)?;
        drop(guard);

        // SAFETY: The module is the one that calls.
        let kset = unsafe { (*module.as_ptr()).mkobj.kobj.kset };
        if kset.is_null() {
            return Err(ENOENT);
        }
        Ok(Modules {
            own,
            head: head.ok_or(ENOENT)?,
            kset,
        })
    }

    /// Calls `f` with the modules on the list.
    ///
    /// # Errors
    ///
    /// Why it was not walked to its end.
    pub fn listed(
        &self,
        _guard: &rcu::Guard,
        mut f: impl FnMut(ModuleId),
    ) -> core::result::Result<(), Cut> {
        around(self.head, |node| {
            f(ModuleId(
                node.wrapping_sub(offset_of!(bindings::module, list)),
            ));
        })
    }

    /// Calls `f` with the modules in the set. `f` must not sleep.
    ///
    /// # Errors
    ///
    /// Why it was not walked to its end.
    pub fn in_set(
        &self,
        _guard: &rcu::Guard,
        mut f: impl FnMut(ModuleId),
    ) -> core::result::Result<(), Cut> {
        // SAFETY: The set of modules is always there.
        let lock = unsafe { &raw mut (*self.kset).list_lock };
        let head = self.kset as usize + offset_of!(bindings::kset, list);

        // SAFETY: The lock is initialised, and not taken in interrupts.
        unsafe { bindings::spin_lock(lock) };
        let all = around(head, |node| {
            let object = node.wrapping_sub(offset_of!(bindings::kobject, entry));
            let owner = object.wrapping_sub(offset_of!(bindings::module_kobject, kobj));

            // What is built in has an object, and is no module.
            match word(owner.wrapping_add(offset_of!(bindings::module_kobject, mod_))) {
                Some(0) | None => {}
                Some(module) => f(ModuleId(module)),
            }
        });
        // SAFETY: It was taken above.
        unsafe { bindings::spin_unlock(lock) };
        all
    }

    /// Calls `f` with modules in the tree, with each several times. While the tree is changed, some may be left out.
    pub fn in_tree(&self, _guard: &rcu::Guard, f: impl FnMut(ModuleId)) {
        let node = self
            .own
            .memory(bindings::mod_mem_type_MOD_TEXT)
            .wrapping_add(NODE);

        // A walk that leads astray ends, and has seen what it has seen.
        let _ = in_order(node, f);
    }
}

/// Calls `f` with each node on the way around a list, but the one at which it begins. Fails if the way does not lead back.
fn around(start: usize, mut f: impl FnMut(usize)) -> core::result::Result<(), Cut> {
    let mut node = start;

    for _ in 0..MAX_ENTRIES {
        node = match word(node.wrapping_add(offset_of!(bindings::list_head, next))) {
            Some(next) if next != start => next,
            Some(_) => return Ok(()),
            None => return Err(Cut::Unreadable),
        };
        f(node);
    }
    Err(Cut::TooLong)
}

/// Where in what is known of memory of a module the node of the tree is, of which there are two trees.
const NODE: usize = offset_of!(bindings::module_memory, mtn)
    + offset_of!(bindings::mod_tree_node, node)
    + offset_of!(bindings::latch_tree_node, node);

fn left(node: usize) -> Option<usize> {
    word(node.wrapping_add(offset_of!(bindings::rb_node, rb_left)))
}

fn right(node: usize) -> Option<usize> {
    word(node.wrapping_add(offset_of!(bindings::rb_node, rb_right)))
}

fn parent(node: usize) -> Option<usize> {
    // Two bits are the colour.
    let at = node.wrapping_add(offset_of!(bindings::rb_node, __rb_parent_color));

    word(at).map(|word| word & !3)
}

/// The node that is reached by `step` from `node` as often as there is one.
fn last(mut node: usize, step: fn(usize) -> Option<usize>) -> Option<usize> {
    for _ in 0..MAX_DEPTH {
        match step(node)? {
            0 => return Some(node),
            next => node = next,
        }
    }
    None
}

/// Calls `f` with the module of each node of the tree that `node` is in, in their order. [`None`] says that it did not come to the
/// end.
fn in_order(node: usize, mut f: impl FnMut(ModuleId)) -> Option<()> {
    let back = NODE.wrapping_sub(offset_of!(bindings::module_memory, mtn));
    let mut node = last(last(node, parent)?, left)?;

    for _ in 0..MAX_ENTRIES {
        let owner = node.wrapping_sub(back);
        let module = word(owner.wrapping_add(offset_of!(bindings::mod_tree_node, mod_)))?;

        f(ModuleId(module));
        node = match right(node)? {
            0 => match following(node)? {
                0 => return Some(()),
                node => node,
            },
            right => last(right, left)?,
        };
    }
    None
}

/// The first node above `node` that comes after it, or 0 if none does.
fn following(mut node: usize) -> Option<usize> {
    for _ in 0..MAX_DEPTH {
        let above = parent(node)?;

        if above == 0 || left(above)? == node {
            return Some(above);
        }
        node = above;
    }
    None
}
