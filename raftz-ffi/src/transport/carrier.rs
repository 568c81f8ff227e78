//! A program's transport behind the trait: the loop's side, which decides by the account and never calls the program,
//! and the lane, a thread that does nothing but call it.
#![allow(
    clippy::disallowed_methods,
    reason = "a transport lives in real time, and the lane is a thread"
)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raftz_core::node;
use raftz_core::transport::frame::FrameLimits;
use raftz_core::transport::handshake::Identity;
use raftz_core::transport::{OutFrame, PeerSpec, SendError, Transport, TransportEvent, Wake};
use raftz_core::types::NodeId;

use super::account::{Account, Order};
use super::message::{OutMessage, rank};
use super::shared::{Arrival, Context, Job, Shared};
use super::{raftz_links, raftz_message, raftz_transport};
use crate::bytes::{raftz_slice, random};
use crate::guard::panic_text;
use crate::machine::raftz_sink;
use crate::status::raftz_status;

/// The program's transport, ended with the last that holds it.
struct Open {
    table: raftz_transport,
    transport: *mut c_void,
}

// SAFETY: the contract of raftz_transport: its functions are called from any thread, and which of them at once is said
// there.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: the user's function, called once, and nothing after it.
            node::run_callback("the transport's destroy", || unsafe { destroy(self.transport) });
        }
    }
}

/// A callback that has words for its failure.
fn with_words(
    name: &'static str,
    call: impl FnOnce(*mut raftz_sink) -> raftz_status,
) -> Result<(), String> {
    raftz_sink::of(name, call).map(drop).map_err(|words| format!("{name}: {words}"))
}

impl Open {
    fn of(table: raftz_transport, shared: &Arc<Shared>) -> Result<Self, String> {
        let open = table.open.ok_or("the transport's open: there is none")?;
        let links = raftz_links::give(Arc::clone(shared));
        let mut transport = std::ptr::null_mut();
        let opened = with_words("the transport's open", |why| {
            // SAFETY: the user's function, with the user's data, links that are its own if it succeeds, and places
            // for words and for the transport.
            unsafe { open(table.user_data, links, why, &raw mut transport) }
        });
        if let Err(words) = opened {
            shared.close();
            // SAFETY: given away above, and taken back as the failure promises.
            drop(unsafe { raftz_links::take(links) });
            return Err(words);
        }
        Ok(Self { table, transport })
    }

    fn dial(&self, peer: NodeId, address: &str) {
        let Some(dial) = self.table.dial else { return };
        let address = raftz_slice::of(address.as_bytes());
        // SAFETY: the user's function, with its transport and an address that lives meanwhile.
        node::run_callback("the transport's dial", || unsafe {
            dial(self.transport, peer.get(), address)
        });
    }

    /// How many messages the program took.
    fn send(&self, context: Context, batch: &[OutMessage]) -> Result<usize, String> {
        let send = self.table.send.ok_or("the transport's send: there is none")?;
        let mut parts: Vec<raftz_slice> = Vec::new();
        let mut ends = Vec::with_capacity(batch.len());
        for message in batch {
            parts.extend(message.parts().map(raftz_slice::of));
            ends.push(parts.len());
        }
        let mut from = 0;
        let place = |(message, end): (&OutMessage, usize)| {
            let of_it = &parts[from..end];
            from = end;
            raftz_message {
                urgency: rank(message.inside.class) as u32,
                reserved: 0,
                len: message.len(),
                parts: of_it.as_ptr(),
                part_count: of_it.len(),
            }
        };
        let messages: Vec<raftz_message> = batch.iter().zip(ends).map(place).collect();
        let count = messages.len();
        let mut taken = count;
        with_words("the transport's send", |why| {
            let messages = messages.as_ptr();
            // SAFETY: the user's function, with its transport, its own end of the link, and messages and places that
            // live meanwhile.
            unsafe { send(self.transport, context.0, messages, count, &raw mut taken, why) }
        })?;
        if taken > count {
            return Err(format!("the transport's send took {taken} of {count} messages"));
        }
        Ok(taken)
    }

    fn end(&self, context: Context, reason: &str) {
        let Some(end) = self.table.end else { return };
        let reason = raftz_slice::of(reason.as_bytes());
        // SAFETY: the user's function, with its transport, and its own end of the link for the last time.
        node::run_callback("the transport's end", || unsafe {
            end(self.transport, context.0, reason)
        });
    }

    /// What the lane does until the loop has ended.
    fn serve(&self, shared: &Shared) {
        loop {
            match shared.next() {
                Job::Dial { peer, address } => self.dial(peer, &address),
                Job::Send { link, context, batch } => match self.send(context, &batch) {
                    Ok(count) => shared.taken(link, batch, count),
                    Err(words) => shared.send_failed(link, &words),
                },
                Job::End { context, reason } => self.end(context, &reason),
                Job::Stop => return,
            }
        }
    }
}

/// Starts the lane. It takes no signals: they belong to the program's own threads.
fn start_lane(
    name: String,
    open: Arc<Open>,
    shared: Arc<Shared>,
) -> Result<JoinHandle<()>, String> {
    let body = move || {
        let served = catch_unwind(AssertUnwindSafe(|| open.serve(&shared)));
        if let Err(payload) = served {
            let text = panic_text(payload.as_ref());
            // A payload may panic when it is dropped.
            std::mem::forget(payload);
            shared.fail(format!("the transport's lane failed inside: {text}"));
        }
    };
    let failed = |error: io::Error| format!("no thread for the transport: {error}");
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: places for two sets; the first is filled before it is read. A thread inherits its maker's mask.
    let errno = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    if errno != 0 {
        return Err(failed(io::Error::from_raw_os_error(errno)));
    }
    let thread = std::thread::Builder::new().name(name).spawn(body);
    // SAFETY: filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    thread.map_err(failed)
}

/// The side of the loop.
pub(crate) struct Carrier {
    account: Account,
    shared: Arc<Shared>,
    queue_bytes_max: usize,
    /// Something was queued that the lane has not been woken for.
    is_dirty: bool,
    started: Instant,
    /// Kept for its room.
    arrivals: Vec<Arrival>,
    open: Arc<Open>,
    lane: Option<JoinHandle<()>>,
}

/// Opens a program's transport for a node.
pub(crate) fn connect(
    table: raftz_transport,
    hello: Identity,
    queue_bytes_max: u64,
) -> Result<Box<dyn Transport>, String> {
    let drawn = random().map_err(|error| format!("drawing a number: {error}"))?;
    // Two numbers: the one that tells processes apart, which is not 0, and the one behind the names of links.
    let (instance, tag) = ((drawn as u64).max(1), (drawn >> 64) as u64);
    let largest = hello.frame_bytes_max as usize;
    let frames = FrameLimits { data_bytes_max: largest, ..FrameLimits::default() };
    let shared = Arc::new(Shared::new(frames).map_err(|failure| failure.message)?);
    let open = Arc::new(Open::of(table, &shared)?);
    let node = hello.from.map_or(0, NodeId::get);
    let mut carrier = Carrier {
        account: Account::new(Identity { instance, ..hello }, tag),
        shared: Arc::clone(&shared),
        queue_bytes_max: usize::try_from(queue_bytes_max).unwrap_or(usize::MAX).max(largest),
        is_dirty: false,
        started: Instant::now(),
        arrivals: Vec::new(),
        open: Arc::clone(&open),
        lane: None,
    };
    carrier.lane = Some(start_lane(format!("raftz-{node}-send"), open, shared)?);
    Ok(Box::new(carrier))
}

impl Carrier {
    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Hands what the account decided to the lane.
    fn carry_out(&mut self) {
        if self.account.orders.is_empty() {
            return;
        }
        for order in std::mem::take(&mut self.account.orders) {
            match order {
                // Only a sign of life finds no room, and what fills it is one, too.
                Order::Send { link, message } => {
                    self.is_dirty = true;
                    let _ = self.shared.send(link, message, self.queue_bytes_max);
                }
                Order::Dial { peer, address } => {
                    self.is_dirty = true;
                    self.shared.dial(peer, address);
                }
                Order::Proven { link } => self.shared.prove(link),
                Order::End { link, reason, drains } => self.shared.end(link, reason, drains),
            }
        }
        self.flush();
    }

    fn take_in(&mut self, unreachable: BTreeMap<NodeId, String>) {
        for arrival in self.arrivals.drain(..) {
            match arrival {
                Arrival::Up { link, dialled } => self.account.opened(link, dialled),
                Arrival::Message { link, message } => self.account.received(link, message),
                Arrival::Down { link, words } => self.account.closed(link, &words),
                Arrival::Garbled { link, words } => self.account.garbled(link, &words),
            }
        }
        for (peer, words) in unreachable {
            self.account.unreachable(peer, words);
        }
    }
}

impl Transport for Carrier {
    fn set_peers(&mut self, peers: &[PeerSpec]) {
        self.account.at(self.now_us());
        self.account.set_peers(peers);
        self.carry_out();
    }

    fn send(&mut self, to: NodeId, frame: OutFrame) -> Result<(), SendError> {
        let (link, message) = self.account.send(to, frame)?;
        let bytes_max = self.account.queue_bytes_max(to, self.queue_bytes_max);
        self.is_dirty = true;
        self.shared.send(link, message, bytes_max)
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        events: &mut Vec<TransportEvent>,
    ) -> io::Result<()> {
        self.flush();
        let now_us = self.now_us();
        let due_us = self.account.next_deadline_us();
        let own = due_us.map(|due_us| Duration::from_micros(due_us.saturating_sub(now_us)));
        let told = (!self.account.told.is_empty()).then_some(Duration::ZERO);
        let patience = [timeout, own, told].into_iter().flatten().min();
        let unreachable = self.shared.take(patience, &mut self.arrivals)?;
        self.account.at(self.now_us());
        self.take_in(unreachable);
        // Deaths are judged after what arrived: were this thread itself held up, that shows that the peers are alive.
        let shared = &self.shared;
        self.account.tick(|link| shared.progress(link));
        self.carry_out();
        events.append(&mut self.account.told);
        Ok(())
    }

    fn flush(&mut self) {
        // Nobody is woken for nothing.
        if std::mem::take(&mut self.is_dirty) {
            self.shared.flush();
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.shared) as Arc<dyn Wake>
    }

    fn local_address(&self) -> Option<String> {
        None
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.shared.close();
        // The loop has ended, so this keeps nobody waiting but who stops the node, and that has a limit.
        if let Some(stop) = self.open.table.stop {
            // SAFETY: the user's function, with its transport, once, before the lane destroys it.
            node::run_callback("the transport's stop", || unsafe { stop(self.open.transport) });
        }
        if let Some(lane) = self.lane.take() {
            // A lane that panicked has said so.
            let _ = lane.join();
        }
    }
}
