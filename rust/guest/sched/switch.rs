// SPDX-License-Identifier: GPL-2.0

//! A look at each task at the moment it gets a CPU.
//!
//! [`Probe`] is a probe of the trace event `sched_switch`, which is registered by name. It checks in constant time that the neighbours of
//! the incoming task on the lists know it. Who fails the check is only a suspect, since an honest neighbour may be changing at
//! that moment: it is put into [`Suspects`], for somebody outside the scheduler to make sure.
//!
//! The check does not see tasks that are linked to each other only, nor whether a number leads to the task.
//!
//! # Locking
//!
//! The probe is called with the lock of a run queue held and interrupts off. It takes no lock, wakes nobody and allocates nothing;
//! whoever is to be told is told by an interrupt that the CPU sends itself (`struct irq_work`).
//!
//! C headers: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h),
//! [`include/linux/irq_work.h`](srctree/include/linux/irq_work.h)

use super::{
    rq::RunQueues,
    TaskId, //
};
use crate::{
    bindings,
    tracepoint::Tracepoint, //
};

use core::{
    marker::PhantomPinned,
    mem::offset_of,
    ptr, //
};

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::{
                Acquire,
                Full,
                Relaxed,
                Release, //
            },
            Atomic,
        },
        barrier::{
            smp_mb,
            Read, //
        },
        rcu,
        Arc, //
    },
    task::Task,
    types::Opaque,
};

/// What the probe is registered with.
const EVENT: &CStr = c"sched_switch";

/// Suspects that are kept at a time.
const SLOTS: usize = 64;

/// Nobody is in the slot.
const FREE: usize = 0;
/// Somebody is about to be put into it, or out of it.
const BUSY: usize = 1;
/// Added to the address of a task that was taken out, and is kept so that it is not put in again.
const TAKEN: usize = 2;

/// Tasks that a probe suspects, each with a reference.
///
/// # Invariants
///
/// A slot that is neither `FREE` nor `BUSY` has the address of a task, and perhaps `TAKEN` added to it, and owns a reference to it.
/// Only who has set a slot to `BUSY` changes what it owns.
pub struct Suspects {
    slots: [Atomic<usize>; SLOTS],
    /// The idle task of each CPU, which is on no list.
    idle: KVec<usize>,
    seen: Atomic<u64>,
    lost: Atomic<u64>,
    /// How often a probe that suspects for this one was registered and unregistered: odd while one is.
    turns: Atomic<u32>,
}

impl Suspects {
    /// Begins with none. `queues` say which tasks are idle tasks.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(queues: &RunQueues) -> Result<Arc<Self>> {
        let mut idle = KVec::new();

        for queue in queues.iter() {
            // CPUs that are not possible leave gaps.
            while idle.len() <= queue.cpu() as usize {
                idle.push(0, GFP_KERNEL)?;
            }
            if let Some(slot) = idle.last_mut() {
                *slot = queue.idle().0;
            }
        }
        // INVARIANT: All are free.
        Ok(Arc::new(
            Suspects {
                slots: [const { Atomic::new(FREE) }; SLOTS],
                idle,
                seen: Atomic::new(0),
                lost: Atomic::new(0),
                turns: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// How many times a task was suspected that was not known.
    pub fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }

    /// How many of them there was no room for; each is suspected again when it gets a CPU again.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// The trace event, if the probe of a living [`Probe<T>`](Probe) is not among those of the event: somebody else took it off.
    /// [`None`] too while a probe comes or goes, or the table of the event is being replaced.
    pub fn unprobed<T: Alarm>(&self, guard: &rcu::Guard) -> Option<Tracepoint> {
        let turns = self.turns.load(Acquire);
        if turns & 1 == 0 {
            return None;
        }
        let event = Tracepoint::find(EVENT)?;
        let mut there = false;
        let whole = event.probes(guard, |probe| there |= probe == Probe::<T>::address());

        // The table is read before the number is looked at again.
        smp_mb(Read);
        (whole && !there && self.turns.load(Relaxed) == turns).then_some(event)
    }

    /// Notes that a probe has been registered, or is about to be unregistered.
    fn turn(&self) {
        self.turns.fetch_add(1, Full);
    }

    /// Calls `f` with each suspect, known or not, and the CPU that it got. They are known from then on.
    pub fn take(&self, mut f: impl FnMut(&Task)) {
        for slot in &self.slots {
            let value = slot.load(Relaxed);
            if value == FREE || value == BUSY || slot.cmpxchg(value, BUSY, Full).is_err() {
                continue;
            }
            let task = value & !TAKEN;

            // SAFETY: By the type invariants, the slot owns a reference to this task, which nobody takes away while it is busy.
            let held = unsafe { &*ptr::with_exposed_provenance::<Task>(task) };
            let held: ARef<Task> = held.into();
            slot.store(task | TAKEN, Release);
            f(&held);
        }
    }

    /// Lets go of the suspects that were taken and that `keep` does not want to be known any longer.
    pub fn settle(&self, mut keep: impl FnMut(TaskId) -> bool) {
        for slot in &self.slots {
            let value = slot.load(Acquire);
            let task = value & !TAKEN;

            if value & TAKEN == 0 || keep(TaskId(task)) {
                continue;
            }
            if slot.cmpxchg(value, BUSY, Full).is_ok() {
                // SAFETY: By the type invariants, the slot owned a reference to this task, which this function owns now.
                drop(unsafe {
                    ARef::<Task>::from_raw(ptr::NonNull::new_unchecked(
                        ptr::with_exposed_provenance_mut(task),
                    ))
                });
                slot.store(FREE, Release);
            }
        }
    }

    /// Returns whether `task` is the idle task of the CPU that it is on.
    fn is_idle(&self, task: *const bindings::task_struct) -> bool {
        // SAFETY: The task is about to run, and hence valid.
        let cpu = unsafe { (*task).thread_info.cpu };

        self.idle.get(cpu as usize) == Some(&(task as usize))
    }

    /// Adds a task that is about to run. Returns whether it was not known.
    fn add(&self, task: *mut bindings::task_struct) -> bool {
        let address = task.expose_provenance();

        for slot in &self.slots {
            if slot.load(Relaxed) & !TAKEN == address {
                return false;
            }
        }
        self.seen.add(1, Relaxed);
        for slot in &self.slots {
            if slot.load(Relaxed) != FREE || slot.cmpxchg(FREE, BUSY, Full).is_err() {
                continue;
            }
            // SAFETY: The task is about to run, and hence valid.
            unsafe { bindings::get_task_struct(task) };
            // INVARIANT: The reference has just been taken.
            slot.store(address, Release);
            return true;
        }
        self.lost.add(1, Relaxed);
        false
    }
}

impl Drop for Suspects {
    fn drop(&mut self) {
        // Nobody else uses it any more: all that are left can be taken.
        self.take(|_| ());
        self.settle(|_| false);
    }
}

/// Told that there is a suspect.
pub trait Alarm: Send + Sync + 'static {
    /// There is a suspect that was not known. Called in an interrupt.
    fn suspected(self: &Arc<Self>);
}

/// A probe that is registered as long as it lives.
///
/// # Invariants
///
/// `event` is the trace event `sched_switch`; if `registered`, `probe` is registered with it, with this as its data.
#[pin_data(PinnedDrop)]
pub struct Probe<T: Alarm> {
    suspects: Arc<Suspects>,
    alarm: Arc<T>,
    #[pin]
    work: Opaque<bindings::irq_work>,
    event: Tracepoint,
    registered: Atomic<bool>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A probe may be unregistered by any thread.
unsafe impl<T: Alarm> Send for Probe<T> {}
// SAFETY: What can be done through a shared reference can be done by any thread at once.
unsafe impl<T: Alarm> Sync for Probe<T> {}

impl<T: Alarm> Probe<T> {
    /// Registers a probe. Sleeps.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if the kernel has no such event, [`ENOMEM`].
    pub fn new(suspects: Arc<Suspects>, alarm: Arc<T>) -> Result<Pin<KBox<Self>>> {
        let event = Tracepoint::find(EVENT).ok_or(ENOENT)?;
        let init = pin_init!(Self {
            suspects,
            alarm,
            work <- Opaque::ffi_init(|slot: *mut bindings::irq_work| {
                let mut work: bindings::irq_work = pin_init::zeroed();
                work.func = Some(Self::raise);
                // SAFETY: `slot` is valid for writing. Zeros are what else the kernel's initialiser sets.
                unsafe { slot.write(work) };
            }),
            event,
            registered: Atomic::new(false),
            _pin: PhantomPinned,
        });
        let this = KBox::pin_init(init, GFP_KERNEL)?;
        let data = ptr::from_ref::<Self>(&this).cast_mut();

        // SAFETY: The event is one of the kernel's own, which never go; `probe` has the arguments of its probes, and `data` stays
        // valid until it is unregistered.
        to_result(unsafe {
            bindings::tracepoint_probe_register(
                event.as_ptr(),
                Self::probe as *mut c_void,
                data.cast(),
            )
        })?;
        // INVARIANT: It has just been registered.
        this.registered.store(true, Relaxed);
        this.suspects.turn();
        Ok(this)
    }

    /// Where the code of the probe is.
    fn address() -> usize {
        Self::probe as *const c_void as usize
    }

    /// # Safety
    ///
    /// Called by the kernel for a registered probe, with `next` about to run.
    unsafe extern "C" fn probe(
        data: *mut c_void,
        _preempt: bool,
        _prev: *mut bindings::task_struct,
        next: *mut bindings::task_struct,
        _prev_state: c_uint,
    ) {
        // SAFETY: By the safety requirements, `next` is valid.
        if unsafe { is_linked(next) } {
            return;
        }

        // SAFETY: `data` is what was registered, and valid until it is unregistered.
        unsafe { &*data.cast::<Self>() }.suspect(next);
    }

    /// Suspects a task that is about to run, unless it is idle.
    #[cold]
    #[inline(never)]
    fn suspect(&self, task: *mut bindings::task_struct) {
        if !self.suspects.is_idle(task) && self.suspects.add(task) {
            // SAFETY: The work was initialised, and is not freed before it is done.
            unsafe { bindings::irq_work_queue(self.work.get()) };
        }
    }

    /// # Safety
    ///
    /// Called by the kernel for the work of a probe.
    unsafe extern "C" fn raise(work: *mut bindings::irq_work) {
        // SAFETY: By the safety requirements, `work` is the field of a probe, which waits for it before it goes.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, work) };

        this.alarm.suspected();
    }
}

#[pinned_drop]
impl<T: Alarm> PinnedDrop for Probe<T> {
    fn drop(self: Pin<&mut Self>) {
        if !self.registered.load(Relaxed) {
            return;
        }
        self.suspects.turn();
        let data = ptr::from_ref(&*self).cast_mut();

        // SAFETY: The event is always there, and by the type invariants, the probe is registered with this data.
        unsafe {
            bindings::tracepoint_probe_unregister(
                self.event.as_ptr(),
                Self::probe as *mut c_void,
                data.cast(),
            )
        };
        // SAFETY: No requirements but that the caller may sleep.
        unsafe { bindings::tracepoint_synchronize_unregister() };
        // SAFETY: The work was initialised, and nobody queues it any more.
        unsafe { bindings::irq_work_sync(self.work.get()) };
    }
}

/// Returns whether the neighbours of a task on the lists know it, or the task has begun to exit as an honest one does.
///
/// # Safety
///
/// `task` must be valid.
#[inline(always)]
unsafe fn is_linked(task: *const bindings::task_struct) -> bool {
    // SAFETY: The task is valid.
    let leader = unsafe { (*task).group_leader }.cast_const();
    let node = leader.wrapping_byte_add(offset_of!(bindings::task_struct, tasks));

    // SAFETY: The leader of a task is valid as long as the task. The links are read as what may lead nowhere.
    if unsafe { !bindings::list_node_is_linked(node.cast()) } {
        // SAFETY: The task is valid.
        return unsafe { exits(task) };
    }
    if ptr::eq(leader, task) {
        return true;
    }

    let node = task.wrapping_byte_add(offset_of!(bindings::task_struct, thread_node));
    // SAFETY: The task is valid. The links are read as what may lead nowhere.
    if unsafe { bindings::list_node_is_linked(node.cast()) } {
        return true;
    }
    // SAFETY: The task is valid.
    unsafe { exits(task) }
}

/// Returns whether a task has begun to exit and given up its memory.
///
/// # Safety
///
/// `task` must be valid.
unsafe fn exits(task: *const bindings::task_struct) -> bool {
    // SAFETY: The task is valid.
    let state = unsafe { (&raw const (*task).exit_state).read_volatile() };
    // SAFETY: The task is valid.
    let mm = unsafe { (&raw const (*task).mm).read_volatile() };

    state != 0 && mm.is_null()
}
