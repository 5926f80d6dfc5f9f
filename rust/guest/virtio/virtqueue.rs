// SPDX-License-Identifier: GPL-2.0

//! Virtqueues (VirtIO 1.3, 2.6).
//!
//! A [`Queue`] wraps a queue of the C virtio core, with its lock. Every operation needs the lock's guard, a [`Virtqueue`], so
//! that the rule of the C API, "one caller at a time", is a matter of types.
//!
//! # Life
//!
//! A driver makes its queues in `probe`, by [`Device::virtqueues`](super::Device::virtqueues), and keeps them in [`Arc`](kernel::sync::Arc)s, wherever it needs them. When
//! the device is unbound the bus adapter resets it, drops every buffer that is still in flight and deletes the queues; from
//! then on [`Queue::lock`] returns [`None`]. While the system is suspended it does so too; then the same [`Queue`] is given a
//! queue of the core again. So a handle that outlives the device is inert, however a driver came to keep it,
//! and a driver that forgets to drain a queue leaks nothing.
//!
//! # Locking
//!
//! Softirq context takes the lock by [`Queue::lock`], process context by [`Queue::lock_bh`]. Hard interrupts never take it: a
//! queue's callback gets an [`Interrupt`], which can turn further interrupts off and no more.
//!
//! What the transport does with a queue can sleep ([`Queue::set_affinity`]). It holds the queue's life instead, a mutex that
//! the end of the queue has to take as well. The order is: life, then the lock.
//!
//! What sends packets holds a lock already, that of the network's transmit queue. It can stand in for the queue's own, which is then not
//! taken at all ([`Lent`]).
//!
//! # Two kinds of buffers
//!
//! A queue can have a second handle, for buffers of another type ([`Virtqueues::add_alternate`](super::Virtqueues::add_alternate)).
//! One of the two has the queue, and the other is inert; [`Queue::hand_over`] changes that, when nothing is in flight any more.
//!
//! # What the device can do
//!
//! The C core keeps its own copy of the descriptors and breaks a queue on a used id that is out of range or not in flight. It
//! does not check lengths; [`Virtqueue::get_buf`] does, once for all drivers.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

mod interrupt;
mod lent;
mod premapped;
mod reset;

pub use interrupt::Interrupt;
pub(crate) use lent::{
    Lent,
    Substitute, //
};

use super::buffer::{
    Batch,
    Buffer,
    LengthFault,
    Rejected,
    Segments,
    Used, //
};
use crate::{
    bindings,
    bottom_half, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    cpumask::Cpumask,
    error::to_result,
    new_mutex,
    new_spinlock,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex,
        SpinLock,
        SpinLockGuard, //
    }, //
};

/// Whether the device interrupts when it has used a buffer of a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    /// [`Driver::vq_callback`](super::Driver::vq_callback) is called.
    Enabled,

    /// The driver polls.
    Disabled,
}

/// A virtqueue whose buffers are of type `B`.
///
/// # Invariants
///
/// - `inner` is reached only with `lock` held, while that says that it is the queue's lock, and otherwise with `substitute`. Both are
///   held when that changes.
/// - `substitute` is reached only with the queue's life held.
#[pin_data]
pub struct Queue<B: Buffer> {
    /// For the C core, which keeps the pointer as long as it has the queue.
    name: CString,
    /// While it is held, nobody else takes `inner.vq` away. All handles of the queue have the same.
    life: Arc<Mutex<Life>>,
    #[pin]
    lock: SpinLock<Own>,
    substitute: UnsafeCell<Option<Arc<dyn Substitute>>>,
    inner: UnsafeCell<Inner>,
    _buffers: PhantomData<fn(B) -> B>,
}

// SAFETY: What is in it is `Send`, and bound to no thread.
unsafe impl<B: Buffer> Send for Queue<B> {}

// SAFETY: By the type invariants nobody has two references to what is in the cells.
unsafe impl<B: Buffer> Sync for Queue<B> {}

/// Whether a queue's own lock is the one to take.
struct Own(bool);

impl Own {
    /// Makes a lock that is.
    ///
    /// Like [`Life::new`] it is compiled once.
    #[inline(never)]
    fn new() -> impl PinInit<SpinLock<Self>> {
        new_spinlock!(Own(true), "guest::virtio::Queue")
    }
}

/// What the life of a queue protects.
///
/// # Invariants
///
/// `vq` is [`None`] or a valid queue of the C core, which one of the handles has, or who holds the life.
struct Life {
    vq: Option<NonNull<bindings::virtqueue>>,
}

// SAFETY: A queue of the C core is bound to no thread.
unsafe impl Send for Life {}

impl Life {
    /// Makes one without a queue.
    ///
    /// It is compiled once, whatever the buffers are: lockdep takes the lock of one key for several if the
    /// addresses of its name differ.
    #[inline(never)]
    fn new() -> Result<Arc<Mutex<Self>>> {
        // INVARIANT: There is no queue yet.
        let life = new_mutex!(Life { vq: None }, "guest::virtio::Queue::life");

        Arc::pin_init(life, GFP_KERNEL)
    }
}

/// What a queue's lock protects.
///
/// # Invariants
///
/// `vq` is [`None`] or a valid queue of the C core, all of whose tokens come from `B::into_raw()` of the one [`Queue`] that
/// this belongs to.
struct Inner {
    vq: Option<NonNull<bindings::virtqueue>>,
    sg: KVec<bindings::scatterlist>,
}

impl<B: Buffer> Queue<B> {
    pub(super) fn new(name: CString, segments: usize) -> impl PinInit<Self, Error> {
        Self::with_life(name, segments, Life::new())
    }

    /// Makes another handle of the same queue, which is inert.
    pub(super) fn alternate<C: Buffer>(
        &self,
        segments: usize,
    ) -> impl PinInit<Queue<C>, Error> + use<'_, B, C> {
        pin_init::pin_init_scope(move || {
            let name = CString::try_from(&*self.name)?;

            Ok(Queue::with_life(name, segments, Ok(self.life.clone())))
        })
    }

    fn with_life(
        name: CString,
        segments: usize,
        life: Result<Arc<Mutex<Life>>>,
    ) -> impl PinInit<Self, Error> {
        let sg = (|| {
            let mut sg = KVec::with_capacity(segments, GFP_KERNEL)?;
            for _ in 0..segments {
                sg.push(pin_init::zeroed(), GFP_KERNEL)?;
            }
            Ok::<_, Error>(sg)
        })();

        try_pin_init!(Self {
            name,
            life: life?,
            lock <- Own::new(),
            substitute: UnsafeCell::new(None),
            // INVARIANT: There is no queue yet.
            inner: UnsafeCell::new(Inner { vq: None, sg: sg? }),
            _buffers: PhantomData,
        })
    }

    /// Locks the queue, where softirqs cannot interfere: in softirq context or with them off.
    ///
    /// Returns [`None`] when the device is gone, and while another lock stands in for the queue's own.
    #[inline]
    pub fn lock(&self) -> Option<Virtqueue<'_, B>> {
        self.lock_with(None)
    }

    /// Locks the queue in process context, and turns softirqs off meanwhile.
    ///
    /// Returns [`None`] when the device is gone, and while another lock stands in for the queue's own.
    pub fn lock_bh(&self) -> Option<Virtqueue<'_, B>> {
        self.lock_with(Some(bottom_half::disable()))
    }

    /// Locks the queue; what is given goes when it has been unlocked.
    #[inline]
    fn lock_with(&self, off: Option<bottom_half::Disabled>) -> Option<Virtqueue<'_, B>> {
        let guard = self.lock.lock();
        if !guard.0 {
            // Softirqs come back on after that.
            drop(guard);
            return None;
        }
        // SAFETY: By the type invariant it is reached with this lock.
        let inner = unsafe { &mut *self.inner.get() };
        let Some(vq) = inner.vq else {
            drop(guard);
            return None;
        };

        // INVARIANT: The lock is held, so `vq` stays what it is.
        Some(Virtqueue {
            vq,
            inner,
            _guard: Some(guard),
            _off: off,
            _buffers: PhantomData,
        })
    }

    /// Has the queue's interrupt come on one of `cpus` from now on, where the transport can arrange that. Sleeps.
    ///
    /// Does nothing when the device is gone.
    pub fn set_affinity(&self, cpus: &Cpumask) {
        let life = self.life.lock();
        let Some(vq) = life.vq else {
            return;
        };

        // It is a wish: a transport without an interrupt for each queue does nothing.
        // SAFETY: `vq` is valid as long as the queue's life is held, which also makes this the only caller; the mask is copied.
        let _ = unsafe { bindings::virtqueue_set_affinity(vq.as_ptr(), cpus.as_raw()) };
    }
}

/// A queue as the bus adapter sees it.
pub(super) trait AnyQueue: Send + Sync {
    /// Begins the queue's life.
    ///
    /// # Safety
    ///
    /// `vq` is a valid queue without buffers, and stays valid until [`detach`](Self::detach).
    unsafe fn attach(&self, vq: NonNull<bindings::virtqueue>);

    /// Ends the queue's life and drops all buffers in flight. The device has been reset.
    fn detach(&self);

    /// Returns the queue's name.
    fn name(&self) -> &CStr;
}

impl<B: Buffer> AnyQueue for Queue<B> {
    unsafe fn attach(&self, vq: NonNull<bindings::virtqueue>) {
        let mut life = self.life.lock();

        // INVARIANT: By the safety requirements `vq` is valid until `detach()`; only this type's guards add buffers to it.
        life.vq = Some(vq);
        self.put(&life, vq);
    }

    fn detach(&self) {
        let mut life = self.life.lock();
        let Some(vq) = self.take(&life) else {
            return;
        };
        life.vq = None;

        // Each call removes one, so the loop ends.
        loop {
            // SAFETY: `vq` was valid by the type invariant, and nobody else can reach it any more.
            let token = unsafe { bindings::virtqueue_detach_unused_buf(vq.as_ptr()) };
            let Some(token) = NonNull::new(token) else {
                return;
            };
            // SAFETY: By the type invariant of `Inner`, `token` comes from `B::into_raw()`; the core returns it once.
            drop(unsafe { B::from_raw(token) });
        }
    }

    fn name(&self) -> &CStr {
        &self.name
    }
}

/// What the core says of a buffer. Without a call where it has taken it.
#[inline]
fn taken(status: c_int) -> Result {
    if status == 0 {
        return Ok(());
    }
    to_result(status)
}

/// A locked queue.
///
/// # Invariants
///
/// `vq` is the valid queue that `inner` holds.
pub struct Virtqueue<'a, B: Buffer> {
    vq: NonNull<bindings::virtqueue>,
    inner: &'a mut Inner,
    // Unless another lock stands in for it.
    _guard: Option<SpinLockGuard<'a, Own>>,
    // After that: softirqs come back on when the lock has been released.
    _off: Option<bottom_half::Disabled>,
    _buffers: PhantomData<B>,
}

impl<B: Buffer> Virtqueue<'_, B> {
    /// Lends the device a buffer that it only reads. The device learns of it by [`kick`](Self::kick).
    ///
    /// # Errors
    ///
    /// The buffer comes back, see [`Rejected`].
    // What kind of buffer it is, its maker knows: the rest of what `B` can be is then no code at all.
    #[inline(always)]
    pub fn add_outbuf(&mut self, buffer: B) -> Result<(), Rejected<B>> {
        self.add(buffer, |vq, out, inp, token| {
            if out.is_empty() || !inp.is_empty() {
                return Err(EINVAL);
            }
            // SAFETY: `vq` is valid and locked, `out` is a terminated list, which the core copies; by the contract of
            // `Buffer` its memory lives until `token` is returned.
            taken(unsafe {
                bindings::virtqueue_add_outbuf(
                    vq,
                    out.as_mut_ptr(),
                    // CAST: The list's length was made from a count of segments.
                    out.len() as u32,
                    token,
                    bindings::GFP_ATOMIC,
                )
            })
        })
    }

    /// Lends the device a buffer that it only writes. The device learns of it by [`kick`](Self::kick).
    ///
    /// # Errors
    ///
    /// The buffer comes back, see [`Rejected`].
    #[inline(always)]
    pub fn add_inbuf(&mut self, buffer: B) -> Result<(), Rejected<B>> {
        self.add(buffer, |vq, out, inp, token| {
            if inp.is_empty() || !out.is_empty() {
                return Err(EINVAL);
            }
            // SAFETY: `vq` is valid and locked, `inp` is a terminated list, which the core copies; by the contract of
            // `Buffer` its memory lives until `token` is returned.
            taken(unsafe {
                bindings::virtqueue_add_inbuf(
                    vq,
                    inp.as_mut_ptr(),
                    // CAST: The list's length was made from a count of segments.
                    inp.len() as u32,
                    token,
                    bindings::GFP_ATOMIC,
                )
            })
        })
    }

    /// Lends the device a buffer of which it reads the first segments and writes the others.
    ///
    /// # Errors
    ///
    /// The buffer comes back, see [`Rejected`].
    pub fn add_sgs(&mut self, buffer: B) -> Result<(), Rejected<B>> {
        self.add(buffer, |vq, out, inp, token| {
            let mut sgs = [core::ptr::null_mut(); 2];
            let mut lists = 0;
            for list in [&mut *out, &mut *inp] {
                if !list.is_empty() {
                    sgs[lists] = list.as_mut_ptr();
                    lists += 1;
                }
            }
            if lists == 0 {
                return Err(EINVAL);
            }
            // SAFETY: `vq` is valid and locked, each list in `sgs` is terminated and copied by the core; by the contract of
            // `Buffer` the memory lives until `token` is returned.
            taken(unsafe {
                bindings::virtqueue_add_sgs(
                    vq,
                    sgs.as_mut_ptr(),
                    u32::from(!out.is_empty()),
                    u32::from(!inp.is_empty()),
                    token,
                    bindings::GFP_ATOMIC,
                )
            })
        })
    }

    #[inline(always)]
    fn add(
        &mut self,
        buffer: B,
        add: impl FnOnce(
            *mut bindings::virtqueue,
            &mut [bindings::scatterlist],
            &mut [bindings::scatterlist],
            *mut c_void,
        ) -> Result,
    ) -> Result<(), Rejected<B>> {
        let vq = self.vq.as_ptr();
        let mut list = Segments::new(&mut self.inner.sg);
        if let Err(error) = buffer.segments(&mut list) {
            return Err(Rejected { buffer, error });
        }
        let (out, inp) = list.finish();

        let token = buffer.into_raw();
        add(vq, out, inp, token.as_ptr()).map_err(|error| Rejected {
            // SAFETY: The core has not taken the token, which comes from `into_raw()` just above.
            buffer: unsafe { B::from_raw(token) },
            error,
        })
    }

    /// Takes back the next buffer that the device has used, if there is one.
    ///
    /// A device that claims to have written more than it was lent has broken the queue: it is marked so, the buffer is
    /// dropped, and nothing more comes from this queue.
    #[inline]
    pub fn get_buf(&mut self) -> Option<Used<B>> {
        let mut len = 0;
        // SAFETY: By the type invariant `vq` is valid, and it is locked.
        let token = unsafe { bindings::virtqueue_get_buf(self.vq.as_ptr(), &mut len) };
        let token = NonNull::new(token)?;
        // SAFETY: By the type invariant of `Inner`, `token` comes from `B::into_raw()`; the core returns it once.
        let buffer = unsafe { B::from_raw(token) };

        Used::new(buffer, len)
            .map_err(|fault| self.length_fault(fault))
            .ok()
    }

    /// Takes back as many buffers as an empty batch has room for. As with [`get_buf`](Self::get_buf), a device that claims to have
    /// written more than it was lent has broken the queue; [`Batch::pop`] looks.
    pub fn get_bufs<const N: usize>(&mut self, batch: &mut Batch<B, N>) {
        let vq = self.vq.as_ptr();

        // SAFETY: By the type invariant of `Inner`, the tokens come from `B::into_raw()`; the core returns each once.
        let filled = unsafe {
            batch.fill(|| {
                let mut len = 0;
                // SAFETY: By the type invariant `vq` is valid, and it is locked.
                let token = bindings::virtqueue_get_buf(vq, &mut len);
                Some((NonNull::new(token)?, len))
            })
        };
        if let Err(fault) = filled {
            self.length_fault(fault);
        }
    }

    #[cold]
    fn length_fault(&mut self, LengthFault { len, capacity }: LengthFault) {
        pr_warn!(
            "virtio queue {}: the device wrote {} bytes into a buffer of {}; the queue is out of use\n",
            self.index(),
            len,
            capacity
        );
        self.mark_broken();
    }

    /// Marks the queue broken, after the device has broken the rules: no buffer can be added, none comes back, and the device
    /// is not notified any more.
    pub fn mark_broken(&mut self) {
        // SAFETY: By the type invariant `vq` is valid.
        unsafe { bindings::__virtqueue_break(self.vq.as_ptr()) };
    }

    /// Returns whether the queue is broken: by the device's doing, or because the device has vanished.
    pub fn is_broken(&self) -> bool {
        // SAFETY: By the type invariant `vq` is valid.
        unsafe { bindings::virtqueue_is_broken(self.vq.as_ptr()) }
    }

    /// Tells the device of the added buffers, if it wants to know.
    ///
    /// Returns whether all is well; `false` means that the queue is broken.
    pub fn kick(&mut self) -> bool {
        // SAFETY: By the type invariant `vq` is valid, and it is locked.
        unsafe { bindings::virtqueue_kick(self.vq.as_ptr()) }
    }

    /// Makes the added buffers visible and returns whether the device wants a [`notify`](Self::notify).
    #[inline]
    pub fn kick_prepare(&mut self) -> bool {
        // SAFETY: By the type invariant `vq` is valid, and it is locked.
        unsafe { bindings::virtqueue_kick_prepare(self.vq.as_ptr()) }
    }

    /// Notifies the device. Returns `false` when the queue is broken.
    #[inline]
    pub fn notify(&self) -> bool {
        // SAFETY: By the type invariant `vq` is valid.
        unsafe { bindings::virtqueue_notify(self.vq.as_ptr()) }
    }

    /// Asks the device not to interrupt. A hint: interrupts can still come.
    #[inline]
    pub fn disable_cb(&mut self) {
        // SAFETY: By the type invariant `vq` is valid, and it is locked.
        unsafe { bindings::virtqueue_disable_cb(self.vq.as_ptr()) };
    }

    /// Asks the device to interrupt again. Returns `false` when buffers have come back meanwhile: poll again.
    #[inline]
    pub fn enable_cb(&mut self) -> bool {
        // SAFETY: By the type invariant `vq` is valid, and it is locked.
        unsafe { bindings::virtqueue_enable_cb(self.vq.as_ptr()) }
    }

    /// Asks the device to interrupt again, and returns what [`poll`](Self::poll) needs to see whether buffers came meanwhile.
    #[inline]
    pub fn enable_cb_prepare(&mut self) -> u32 {
        // SAFETY: By the type invariant `vq` is valid, and it is locked.
        unsafe { bindings::virtqueue_enable_cb_prepare(self.vq.as_ptr()) }
    }

    /// Returns whether buffers have come back since [`enable_cb_prepare`](Self::enable_cb_prepare) returned `since`.
    #[inline]
    pub fn poll(&self, since: u32) -> bool {
        // SAFETY: By the type invariant `vq` is valid.
        unsafe { bindings::virtqueue_poll(self.vq.as_ptr(), since) }
    }

    /// As [`enable_cb`](Self::enable_cb), but asks for the interrupt only when most of the buffers in flight have been used.
    #[inline]
    pub fn enable_cb_delayed(&mut self) -> bool {
        // SAFETY: By the type invariant `vq` is valid, and it is locked.
        unsafe { bindings::virtqueue_enable_cb_delayed(self.vq.as_ptr()) }
    }

    /// Returns how many more segments fit; with indirect descriptors, how many more buffers.
    #[inline]
    pub fn num_free(&self) -> u32 {
        // SAFETY: By the type invariant `vq` is valid, and it is locked.
        unsafe { (*self.vq.as_ptr()).num_free }
    }

    /// Returns whether all buffers have come back: no other one does until one is added.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.num_free() == self.size()
    }

    /// Returns the number of entries of the ring.
    #[inline]
    pub fn size(&self) -> u32 {
        // SAFETY: By the type invariant `vq` is valid.
        unsafe { bindings::virtqueue_get_vring_size(self.vq.as_ptr()) }
    }

    /// Returns the most entries that the device allows for the ring.
    pub fn max_size(&self) -> u32 {
        // SAFETY: By the type invariant `vq` is valid; the number never changes.
        unsafe { (*self.vq.as_ptr()).num_max }
    }

    /// Returns the queue's number in the device.
    pub fn index(&self) -> u32 {
        // SAFETY: By the type invariant `vq` is valid; its index never changes.
        unsafe { (*self.vq.as_ptr()).index }
    }
}
