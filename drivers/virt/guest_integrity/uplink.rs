// SPDX-License-Identifier: GPL-2.0

//! Tells the host, without a program of the guest: records as `/dev/guest_integrity` has them, and a heartbeat.
//!
//! Both are numbered, so that what is missing is seen, and silence says something as well. What could not be sent is sent again when
//! the host is there again: a record may come twice then, after a stream has ended, but none is left out without being counted.

use crate::{
    params,
    report::Log,
    scan::Scanner, //
};

use guest::{
    net::vsock::Stream,
    param::Watch,
    time::ktime_get_ns,
    workqueue::{
        cancel_delayed,
        disable_delayed_sync,
        OwnedQueue, //
    },
};

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc,
        Mutex, //
    },
    time::msecs_to_jiffies,
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    },
};

/// Most bytes of records that go with one heartbeat.
const ROOM: usize = 16 * 1024;

/// What is sent to the host, and where it stands.
#[pin_data]
pub(crate) struct Uplink {
    log: Arc<Log>,
    scanner: Arc<Scanner>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    work: DelayedWork<Uplink>,
    queue: OwnedQueue,
}

struct State {
    stream: Option<Stream>,
    /// The text that is being sent, and how much of it has been.
    text: KVec<u8>,
    sent: usize,
    /// Number of the first record that has not been sent, and of the first one after the text.
    next: u64,
    after: u64,
    /// Number of the last heartbeat.
    beat: u64,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Uplink { self.work }
}

impl Uplink {
    /// Begins with what the parameters say now.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(log: Arc<Log>, scanner: Arc<Scanner>) -> Result<Arc<Self>> {
        let queue = OwnedQueue::new(c"guest_integrity_uplink")?;
        let state = State {
            stream: None,
            text: KVec::new(),
            sent: 0,
            next: 1,
            after: 1,
            beat: 0,
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                log,
                scanner,
                state <- new_mutex!(state),
                work <- new_delayed_work!(),
                queue,
            }),
            GFP_KERNEL,
        )?;

        if params::vsock_port.get() != 0 {
            this.beat_in(0);
        }
        Ok(this)
    }

    /// Ends it for good.
    pub(crate) fn stop(self: &Arc<Self>) {
        disable_delayed_sync(self);
    }

    fn beat_in(self: &Arc<Self>, ms: u32) {
        // If it is queued already, or may not be any more, that is as well.
        let _ = self
            .queue
            .enqueue_delayed(self.clone(), msecs_to_jiffies(ms));
    }

    /// Sends what there is to send, if the host listens.
    fn beat(&self, state: &mut State, port: u32) -> Result {
        if state.stream.is_none() {
            // A new stream begins with a whole line.
            state.text.clear();
            state.sent = 0;
            state.stream = Some(Stream::connect(params::vsock_cid.get(), port)?);
        }
        if state.text.is_empty() {
            self.compose(state)?;
        }

        let State {
            stream: Some(stream),
            text,
            sent,
            ..
        } = state
        else {
            return Ok(());
        };
        while let Some(rest) = text.get(*sent..).filter(|rest| !rest.is_empty()) {
            *sent += stream.send(rest)?;
        }
        text.clear();
        *sent = 0;
        state.next = state.after;
        Ok(())
    }

    /// Writes the records that have not been sent, and a heartbeat.
    fn compose(&self, state: &mut State) -> Result {
        let counts = self.scanner.counts();

        (state.after, state.text) = self.log.copy(state.next, ROOM)?;
        state.beat += 1;
        let line = crate::record::Line::<{ crate::record::LINE_LEN }>::of(::core::format_args!(
            "beat={} time_ns={} type=heartbeat next_seq={} scans={} clean={} truncated={} findings={}\n",
            state.beat,
            ktime_get_ns(),
            state.after,
            counts.scans.load(Relaxed),
            counts.clean.load(Relaxed),
            counts.truncated.load(Relaxed),
            counts.findings.load(Relaxed),
        ));
        state.text.extend_from_slice(line.as_bytes(), GFP_KERNEL)?;
        Ok(())
    }
}

impl WorkItem for Uplink {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let port = params::vsock_port.get();
        let mut state = this.state.lock();

        if port == 0 {
            state.stream = None;
            return;
        }
        match this.beat(&mut state, port) {
            Ok(()) | Err(EAGAIN) | Err(ENOMEM) => {}
            // Nobody listens, or not any more.
            Err(_) => state.stream = None,
        }
        drop(state);
        this.beat_in(params::heartbeat_ms.get());
    }
}

/// Passes a new port on.
pub(crate) struct Redial(pub(crate) Arc<Uplink>);

impl Watch<u32> for Redial {
    fn changed(&self, _port: u32) {
        let mut state = self.0.state.lock();

        // The next beat goes to the new port, or there is none.
        state.stream = None;
        drop(state);
        cancel_delayed(&self.0);
        self.0.beat_in(0);
    }
}
