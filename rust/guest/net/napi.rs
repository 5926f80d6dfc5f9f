// SPDX-License-Identifier: GPL-2.0

//! NAPI: polling in softirq context.
//!
//! A [`Napi`] instance owns a [`Handler`], and calls [`Handler::poll`] with an exclusive reference: the kernel never polls an
//! instance on two CPUs at once, so what only the poll uses needs no lock. What others use as well is [`Handler::Shared`].
//!
//! # The end of a poll
//!
//! When [`Handler::poll`] says that it is [`Done`](Progress::Done), the instance
//!
//! 1. calls [`Handler::arm`], which turns the device's interrupt on and looks for work once more;
//! 2. leaves the polling state. An interrupt that came in between is remembered by the kernel and begins another poll;
//! 3. calls [`Handler::disarm`] when the kernel wants the interrupt off: because it polls again by itself.
//!
//! In step 3 the instance may be polled on another CPU already, so `disarm` gets no exclusive reference.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

mod pause;

use super::{
    dim::{
        Dim,
        Sample, //
    },
    ethtool::coalesce::Moderation,
    features::Features,
    page_pool::{
        Params,
        Pool,
        PoolRef, //
    },
    xdp::Program,
    xsk::Rx, //
};
use crate::{
    bindings,
    bottom_half, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::{
        addr_of,
        NonNull, //
    },
};
use kernel::{
    container_of,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        Mutex, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// What a poll has achieved.
pub enum Progress {
    /// There is no work left; so many packets were processed, fewer than the budget.
    Done(u32),

    /// There is more to do: poll again.
    Again,
}

/// What a NAPI instance runs.
pub trait Handler: Send + 'static {
    /// What contexts other than the poll use as well.
    type Shared: Send + Sync + 'static;

    /// The instance is about to be enabled. With `program` there is one that sees packets. Process context.
    fn start(&mut self, shared: &Self::Shared, pool: Option<PoolRef<'_>>, program: bool) {
        let _ = (shared, pool, program);
    }

    /// All that the device had of the queue has been dropped: what was taken from it before may be half of a packet, and goes too.
    /// The instance is disabled. Process context.
    fn forget(&mut self) {}

    /// Processes at most [`Context::budget`] received packets.
    ///
    /// With a budget of 0 it may be called in hard interrupt context, by netpoll, to make room in the transmit ring; nothing
    /// may be received then.
    fn poll(&mut self, shared: &Self::Shared, cx: &mut Context<'_>) -> Progress;

    /// Turns the device's interrupt on, unless the poll has done that already. Returns `false` when there is work after all.
    fn arm(&mut self, shared: &Self::Shared) -> bool {
        let _ = shared;
        true
    }

    /// Turns the device's interrupt off.
    fn disarm(shared: &Self::Shared);

    /// Returns what the queue has done, if it is to interrupt as often as the traffic asks for. At the end of a poll.
    ///
    /// Only for a device with [`set_adaptive`](super::device::NewDevice::set_adaptive).
    fn sample(&mut self, shared: &Self::Shared) -> Option<Sample> {
        let _ = shared;
        None
    }

    /// The queue had better interrupt like this: an answer to samples, some time later. Process context;
    /// taking the interface down waits for it.
    fn tune(shared: &Self::Shared, moderation: Moderation) {
        let _ = (shared, moderation);
    }
}

/// The proof of being in a poll.
///
/// # Invariants
///
/// - `napi` is valid and being polled on this CPU.
/// - `program` is valid until the poll is over.
pub struct Context<'a> {
    napi: NonNull<bindings::napi_struct>,
    budget: c_int,
    pool: Option<&'a mut Pool>,
    frames: Option<&'a mut Rx>,
    program: Option<NonNull<bindings::bpf_prog>>,
    _not_send: NotThreadSafe,
}

impl<'a> Context<'a> {
    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::napi_struct {
        self.napi.as_ptr()
    }

    /// Returns the device that the instance belongs to, which is valid as long as it is polled.
    #[inline]
    pub(super) fn dev(&self) -> *mut bindings::net_device {
        // SAFETY: By the type invariant `napi` is valid; its device never changes.
        unsafe { (*self.napi.as_ptr()).dev }
    }

    /// Returns how many packets may be processed.
    #[inline]
    pub fn budget(&self) -> c_int {
        self.budget
    }

    /// Returns the instance's page pool.
    #[inline]
    pub fn pool(&mut self) -> Option<PoolRef<'_>> {
        self.pool.as_deref_mut().map(PoolRef::new)
    }

    /// Returns what receives into a socket's frames, if one is bound to the queue.
    #[inline]
    pub(super) fn frames(&mut self) -> Option<&mut Rx> {
        self.frames.as_deref_mut()
    }

    /// Returns the program that sees what is received, if there is one: the same during the whole poll.
    #[inline]
    pub fn program(&self) -> Option<Program<'a>> {
        let program = self.program?;

        // SAFETY: By the type invariant.
        Some(unsafe { Program::from_raw(program) })
    }

    /// Hands over what programs have [redirected](super::xdp::Verdict::Redirected): once before the poll ends.
    pub fn flush_redirects(&self) {
        // SAFETY: This is a poll.
        unsafe { bindings::xdp_do_flush() };
    }

    /// Returns what the device can do now.
    #[inline]
    pub fn features(&self) -> Features {
        // SAFETY: `dev()` is a valid device.
        unsafe { Features::of(self.dev()) }
    }

    /// Returns the MTU that the device has now.
    #[inline]
    pub fn mtu(&self) -> u32 {
        // SAFETY: `dev()` is a valid device; this can change at any time, as C's `READ_ONCE()` expects.
        unsafe { addr_of!((*self.dev()).mtu).read_volatile() }
    }
}

/// Which queue of the device an instance is for; the kernel tells user space.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Receive,
    Transmit,
}

/// A NAPI instance. A [`Device`](super::device::Device) makes and owns it.
///
/// # Invariants
///
/// - `napi` is added to a device that outlives this value; it is enabled exactly while `enabled` holds `true`.
/// - `handler`, `pool` and `frames` are reached only by the poll, and with the instance disabled and `enabled` locked.
/// - `program` is null or a valid program; when it is replaced the old one stays valid for the polls under way.
#[pin_data(PinnedDrop)]
pub struct Napi<H: Handler> {
    #[pin]
    napi: Opaque<bindings::napi_struct>,
    #[pin]
    enabled: Mutex<bool>,
    handler: UnsafeCell<H>,
    pool: UnsafeCell<Option<Pool>>,
    pool_params: Option<Params>,
    frames: UnsafeCell<Option<Rx>>,
    program: Atomic<*mut bindings::bpf_prog>,
    #[pin]
    dim: Dim,
    shared: H::Shared,
    direction: Direction,
    queue: u16,
}

// SAFETY: A NAPI instance is bound to no thread; `handler` and `shared` are `Send`.
unsafe impl<H: Handler> Send for Napi<H> {}

// SAFETY: By the type invariant nobody has two references to `handler`; `shared` is `Sync`, and C synchronises the rest.
unsafe impl<H: Handler> Sync for Napi<H> {}

impl<H: Handler> Napi<H> {
    /// Makes an instance, disabled, for queue `queue` of `dev`.
    ///
    /// # Safety
    ///
    /// `dev` is valid, and stays so until the instance has been dropped.
    pub(super) unsafe fn new(
        dev: *mut bindings::net_device,
        direction: Direction,
        queue: u16,
        handler: H,
        shared: H::Shared,
        pool: Option<Params>,
    ) -> impl PinInit<Self, Error> {
        let init = try_pin_init!(Self {
            napi: Opaque::zeroed(),
            enabled <- new_mutex!(false, "guest::net::Napi::enabled"),
            handler: UnsafeCell::new(handler),
            pool_params: pool,
            pool: UnsafeCell::new(match pool {
                // SAFETY: By the safety requirements `dev` outlives the pool, which the instance drops.
                Some(params) => Some(unsafe { Pool::new(dev, u32::from(queue), params)? }),
                None => None,
            }),
            frames: UnsafeCell::new(None),
            program: Atomic::new(core::ptr::null_mut()),
            dim <- Dim::new(),
            shared,
            direction,
            queue,
        }? Error);

        init.pin_chain(move |this| {
            let napi = this.napi.get();

            // INVARIANT: Added here, and disabled.
            match direction {
                // SAFETY: `napi` is zeroed and pinned; `drop()` removes it, before `dev` goes.
                Direction::Receive => unsafe {
                    bindings::netif_napi_add(dev, napi, Some(Self::poll_callback))
                },
                // SAFETY: As above.
                Direction::Transmit => unsafe {
                    bindings::netif_napi_add_tx(dev, napi, Some(Self::poll_callback))
                },
            }
            // SAFETY: Nobody has a reference to `pool` yet.
            if let Some(pool) = unsafe { &*this.pool.get() } {
                // SAFETY: The instance is disabled now and when it drops the pool.
                unsafe { pool.belong_to(napi) };
            }
            Ok(())
        })
    }

    /// Lets interrupts adapt to what the queue does, if the handler says.
    ///
    /// # Safety
    ///
    /// The device has [`Profiles`](super::dim::Profiles) with [`tune_callback`](Self::tune_callback), which stay valid until the
    /// instance has been dropped. Nobody else uses the instance, and this is called once.
    pub(super) unsafe fn set_adaptive(self: Pin<&Self>, dev: NonNull<bindings::net_device>) {
        // SAFETY: `dim` is pinned as `self` is.
        let dim = unsafe { self.map_unchecked(|this| &this.dim) };

        // SAFETY: By the safety requirements.
        unsafe { dim.begin(dev) };
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::napi_struct {
        self.napi.get()
    }

    /// Returns what the handler shares.
    #[inline]
    pub fn shared(&self) -> &H::Shared {
        &self.shared
    }

    /// Enables the instance and lets it poll once. Under the device's lock.
    ///
    /// Does nothing when it is enabled already.
    pub(super) fn enable(&self) {
        self.enable_locked(&mut self.enabled.lock());
    }

    fn enable_locked(&self, enabled: &mut bool) {
        if *enabled {
            return;
        }

        {
            // SAFETY: By the type invariant nobody else uses it: the instance is disabled.
            let handler = unsafe { &mut *self.handler.get() };
            // SAFETY: As above.
            let pool = unsafe { &mut *self.pool.get() };
            let program = !self.program.load(Acquire).is_null();
            handler.start(&self.shared, pool.as_mut().map(PoolRef::new), program);
        }

        *enabled = true;
        // SAFETY: The instance is added and disabled.
        unsafe { bindings::napi_enable_locked(self.napi.get()) };
        self.tell(self.napi.get());

        // What the device used before now has raised no interrupt that anybody saw.
        let _off = bottom_half::disable();
        self.schedule(|| H::disarm(&self.shared));
    }

    /// Disables the instance, and waits for a poll that is under way. Under the device's lock.
    ///
    /// Does nothing when it is disabled already.
    pub(super) fn disable(&self) {
        self.disable_locked(&mut self.enabled.lock());
    }

    fn disable_locked(&self, enabled: &mut bool) {
        if !*enabled {
            return;
        }

        self.tell(core::ptr::null_mut());
        // SAFETY: The instance is added and enabled.
        unsafe { bindings::napi_disable_locked(self.napi.get()) };
        self.dim.stop();
        *enabled = false;
    }

    /// Replaces the program, and returns the old one: polls under way still use that.
    pub(super) fn set_program(&self, program: *mut bindings::bpf_prog) -> *mut bindings::bpf_prog {
        self.program.xchg(program, Full)
    }

    /// Tells the device which instance polls its queue.
    fn tell(&self, napi: *mut bindings::napi_struct) {
        let kind = match self.direction {
            Direction::Receive => bindings::netdev_queue_type_NETDEV_QUEUE_TYPE_RX,
            Direction::Transmit => bindings::netdev_queue_type_NETDEV_QUEUE_TYPE_TX,
        };

        // SAFETY: By the type invariant the instance belongs to a valid device.
        let dev = unsafe { (*self.napi.get()).dev };
        // SAFETY: As above; the device has this queue.
        unsafe { bindings::netif_queue_set_napi(dev, u32::from(self.queue), kind, napi) };
    }

    /// Has the instance polled soon, after calling `disarm` to turn the interrupt off. Any context.
    ///
    /// Does nothing when the instance is disabled or about to be polled anyway.
    #[inline]
    pub fn schedule(&self, disarm: impl FnOnce()) {
        let napi = self.napi.get();

        // SAFETY: The instance is added.
        if unsafe { bindings::napi_schedule_prep(napi) } {
            disarm();
            // SAFETY: `napi_schedule_prep()` has given the right to call this.
            unsafe { bindings::__napi_schedule(napi) };
        }
    }

    /// # Safety
    ///
    /// The kernel calls it, with the `napi_struct` of a [`Napi`] for `H`, on one CPU at a time, with softirqs off.
    unsafe extern "C" fn poll_callback(napi: *mut bindings::napi_struct, budget: c_int) -> c_int {
        let ptr: *mut Opaque<bindings::napi_struct> = napi.cast();
        // SAFETY: The kernel calls with the `napi_struct` of a `Napi`, which is dropped only after the last poll.
        let this = unsafe { &*container_of!(ptr, Self, napi) };

        let progress = {
            // SAFETY: By the type invariant nobody else uses it: one CPU polls an instance.
            let handler = unsafe { &mut *this.handler.get() };
            // SAFETY: As above.
            let pool = unsafe { &mut *this.pool.get() };
            // SAFETY: As above.
            let frames = unsafe { &mut *this.frames.get() };
            // INVARIANT: This is a poll.
            let mut cx = Context {
                // SAFETY: The kernel does not call with a null pointer.
                napi: unsafe { NonNull::new_unchecked(napi) },
                budget,
                pool: pool.as_mut(),
                frames: frames.as_mut(),
                program: NonNull::new(this.program.load(Acquire)),
                _not_send: PhantomData,
            };

            match handler.poll(&this.shared, &mut cx) {
                // CAST: A budget is a small positive number.
                Progress::Done(work) if budget > 0 && work < budget as u32 => {
                    if handler.arm(&this.shared) {
                        if let Some(sample) = handler.sample(&this.shared) {
                            this.dim.measure(&sample);
                        }
                        Some(work)
                    } else {
                        H::disarm(&this.shared);
                        None
                    }
                }
                _ => None,
            }
        };

        let Some(work) = progress else {
            return budget;
        };
        // CAST: Less than the budget.
        let work = work as c_int;
        // SAFETY: This is the poll of the instance, and it has done less than its budget.
        if !unsafe { bindings::napi_complete_done(napi, work) } {
            // The instance cannot be freed before this softirq is over.
            H::disarm(&this.shared);
        }
        work
    }

    /// # Safety
    ///
    /// The kernel calls it, with the work item of the [`Dim`] of a [`Napi`] for `H`, in process context.
    pub(super) unsafe extern "C" fn tune_callback(work: *mut bindings::work_struct) {
        // SAFETY: The kernel calls with the work item of a `Dim`, which waits for it before it goes.
        let dim: *const Dim = unsafe { Dim::of_work(work) };
        // SAFETY: That is a `Napi`'s.
        let this = unsafe { &*container_of!(dim, Self, dim) };
        // SAFETY: By the type invariant the instance belongs to a valid device.
        let dev = unsafe { (*this.napi.get()).dev };

        // SAFETY: The instance belongs to the device that its `Dim` was begun with.
        H::tune(&this.shared, unsafe { this.dim.wanted(dev) });
        this.dim.again();
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Napi<H> {
    fn drop(self: Pin<&mut Self>) {
        // The device's lock is taken for this, so it comes first.
        let enabled = *self.enabled.lock();
        if enabled {
            // SAFETY: The instance is added and enabled.
            unsafe { bindings::napi_disable(self.napi.get()) };
            self.dim.stop();
        }

        // What is kept of the pool's goes before the pool, and that before the instance, which it refers to.
        // SAFETY: The instance is disabled, so nobody else uses it.
        unsafe { (*self.handler.get()).forget() };
        // SAFETY: As above.
        drop(unsafe { (*self.pool.get()).take() });
        // SAFETY: The instance is added and disabled.
        unsafe { bindings::netif_napi_del(self.napi.get()) };
    }
}
