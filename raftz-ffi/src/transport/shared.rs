//! What stands between the program's threads, the node's loop and the lane that calls the program's functions: what
//! arrived and waits for the loop, and what is to be sent and waits for the lane. Both are bounded.
//!
//! Locks: the inbox, then the outbox, never the other way; no function of C is called under either.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use raftz_core::node;
use raftz_core::transport::frame::FrameLimits;
use raftz_core::transport::{Class, SendError, Wake};
use raftz_core::types::NodeId;

use super::account::Progress;
use super::message::{ENVELOPE_BYTES, InMessage, OutMessage, rank};
use crate::error::Failure;
use crate::fork::ForkMark;
use crate::guard::{Call, invalid};
use crate::status::{RAFTZ_BUSY, RAFTZ_CLOSED, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN};

/// Links at once, whoever is at their other ends.
const LINKS_MAX: usize = 1024;
/// What may wait for the loop of one link; one message always finds room.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// The same before the link has passed its handshake, where not even one large message does.
const UNPROVEN_BYTES_MAX: usize = 64 << 10;
/// What a message costs beside its bytes.
const MESSAGE_COST_BYTES: usize = 128;
/// Nodes that were said to be out of reach, and wait for the loop.
const UNREACHABLE_MAX: usize = 1024;
/// Room beyond the bound for control, so that heartbeats pass where data is refused.
const CONTROL_RESERVE_BYTES: usize = 256 << 10;
/// Longest words of the program's that are kept.
const WORDS_BYTES_MAX: usize = 512;
/// Most that is given to the program in one call.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_MESSAGES: usize = 256;

/// What a program calls its end of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context(pub(crate) *mut c_void);

// SAFETY: the contract of raftz_links_up(): it may be used on the lane's thread.
unsafe impl Send for Context {}

/// What the program tells, in its order.
#[derive(Debug)]
pub(crate) enum Arrival {
    Up { link: u64, dialled: Option<NodeId> },
    Message { link: u64, message: InMessage },
    Down { link: u64, words: String },
    Garbled { link: u64, words: String },
}

#[derive(Debug, Default)]
struct Inbox {
    is_closed: bool,
    is_woken: bool,
    /// How many links there ever were.
    count: u64,
    links: BTreeMap<u64, Waiting>,
    arrivals: Vec<Arrival>,
    unreachable: BTreeMap<NodeId, String>,
    /// Why the lane can do nothing any more.
    failed: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    bytes: usize,
    is_proven: bool,
}

impl Waiting {
    const fn takes(&self, bytes: usize) -> bool {
        let (bound, one) =
            if self.is_proven { (WAITING_BYTES_MAX, true) } else { (UNPROVEN_BYTES_MAX, false) };
        self.bytes.saturating_add(bytes) <= bound || (self.bytes == 0 && one)
    }
}

impl Inbox {
    fn is_quiet(&self) -> bool {
        let is_empty = self.arrivals.is_empty() && self.unreachable.is_empty();
        is_empty && !self.is_woken && self.failed.is_none()
    }

    /// A link that can be told of.
    fn link(&mut self, link: u64) -> Call<&mut Waiting> {
        if self.is_closed {
            return Err(closed());
        }
        let count = self.count;
        self.links.get_mut(&link).ok_or_else(|| {
            if link == 0 || link > count {
                invalid(format!("link is {link}; {count} links have been up"))
            } else {
                Failure::new(RAFTZ_CLOSED, format!("link {link} has ended"))
            }
        })
    }
}

fn closed() -> Failure {
    Failure::new(RAFTZ_SHUT_DOWN, "the node that this transport was opened for has ended")
}

/// What is to be done on one link, or with it.
#[derive(Debug)]
struct Outgoing {
    context: Context,
    /// By class.
    queues: [VecDeque<OutMessage>; 3],
    bytes: usize,
    /// How many messages were taken.
    taken: u64,
    /// The program took less than it was given, and has not asked for more since.
    is_held: bool,
    /// It has asked since the last call began.
    is_asked: bool,
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Ending {
    reason: String,
    drains: bool,
}

impl Outgoing {
    fn has_work(&self) -> bool {
        match &self.ending {
            Some(ending) => !ending.drains || self.bytes == 0 || !self.is_held,
            None => self.bytes > 0 && !self.is_held,
        }
    }

    fn batch(&mut self) -> Vec<OutMessage> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for queue in &mut self.queues {
            while let Some(message) = queue.front()
                && batch.len() < BATCH_MESSAGES
                && (batch.is_empty() || bytes + message.len() <= BATCH_BYTES)
            {
                bytes += message.len();
                batch.extend(queue.pop_front());
            }
        }
        batch
    }
}

#[derive(Debug, Default)]
struct Outbox {
    links: BTreeMap<u64, Outgoing>,
    /// Nodes that are to be dialled.
    dials: BTreeMap<NodeId, String>,
    /// The link that was served last.
    served: u64,
    is_stopping: bool,
}

/// What the lane does next.
#[derive(Debug)]
pub(crate) enum Job {
    Dial {
        peer: NodeId,
        address: String,
    },
    Send {
        link: u64,
        context: Context,
        batch: Vec<OutMessage>,
    },
    End {
        context: Context,
        reason: String,
    },
    /// There is nothing left, and nothing more will come.
    Stop,
}

pub(crate) struct Shared {
    pub(crate) mark: ForkMark,
    pub(crate) frames: FrameLimits,
    inbox: Mutex<Inbox>,
    /// Something came for the loop.
    arrived: Condvar,
    /// There may be room in the inbox.
    room: Condvar,
    outbox: Mutex<Outbox>,
    /// Something came for the lane.
    work: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Wake for Shared {
    fn wake(&self) {
        self.inbox.lock().is_woken = true;
        self.arrived.notify_one();
    }
}

/// No longer than what is kept.
fn cut(words: &str) -> String {
    let mut end = words.len().min(WORDS_BYTES_MAX);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words[..end].to_owned()
}

/// What the program's threads do.
impl Shared {
    pub(crate) fn new(frames: FrameLimits) -> Call<Self> {
        Ok(Self {
            mark: ForkMark::new()?,
            frames,
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            room: Condvar::new(),
            outbox: Mutex::default(),
            work: Condvar::new(),
        })
    }

    /// The largest message that there can be.
    pub(crate) fn bytes_max(&self) -> usize {
        ENVELOPE_BYTES.saturating_add(self.frames.largest())
    }

    pub(crate) fn up(&self, dialled: Option<NodeId>, context: Context) -> Call<u64> {
        let mut inbox = self.inbox.lock();
        if inbox.is_closed {
            return Err(closed());
        }
        let mut outbox = self.outbox.lock();
        if outbox.links.len() >= LINKS_MAX {
            let message = format!("{LINKS_MAX} links are up, and no more are taken at once");
            return Err(Failure::new(RAFTZ_BUSY, message));
        }
        inbox.count += 1;
        let link = inbox.count;
        inbox.links.insert(link, Waiting::default());
        inbox.arrivals.push(Arrival::Up { link, dialled });
        let outgoing = Outgoing {
            context,
            queues: Default::default(),
            bytes: 0,
            taken: 0,
            is_held: false,
            is_asked: false,
            ending: None,
        };
        outbox.links.insert(link, outgoing);
        self.arrived.notify_one();
        Ok(link)
    }

    /// Takes what arrived; waits for room, if there is none, no longer than this.
    pub(crate) fn deliver(
        &self,
        link: u64,
        len: usize,
        bytes: impl FnOnce() -> Bytes,
        patience: Duration,
    ) -> Call {
        let cost = len.saturating_add(MESSAGE_COST_BYTES);
        let mut inbox = self.inbox.lock();
        if !inbox.link(link)?.takes(cost) && len <= self.bytes_max() {
            self.wait_for_room(&mut inbox, link, cost, patience)?;
        }
        drop(inbox);
        // Nobody else waits while it is looked through. Who gives several of one link at once says nothing of
        // their order, and the bound is exceeded by no more than these.
        let read = InMessage::read(bytes(), &self.frames);
        let mut inbox = self.inbox.lock();
        let waiting = inbox.link(link)?;
        match read {
            Ok(message) => {
                waiting.bytes += cost;
                inbox.arrivals.push(Arrival::Message { link, message });
                self.arrived.notify_one();
                Ok(())
            }
            Err(words) => {
                inbox.links.remove(&link);
                inbox.arrivals.push(Arrival::Garbled { link, words: words.clone() });
                self.arrived.notify_one();
                Err(invalid(format!("{words}; link {link} is ended")))
            }
        }
    }

    fn wait_for_room(
        &self,
        inbox: &mut MutexGuard<'_, Inbox>,
        link: u64,
        cost: usize,
        patience: Duration,
    ) -> Call {
        if !patience.is_zero()
            && let Some(inside) = node::inside_callback()
        {
            let message = format!("this waits for the node, which must not be done in {inside}");
            return Err(Failure::new(RAFTZ_IN_CALLBACK, message));
        }
        let is_full = |inbox: &mut Inbox| inbox.link(link).is_ok_and(|it| !it.takes(cost));
        if self.room.wait_while_for(inbox, is_full, patience).timed_out() && is_full(inbox) {
            let message = format!("as much as may wait of link {link} waits for the node already");
            return Err(Failure::new(RAFTZ_BUSY, message));
        }
        Ok(())
    }

    pub(crate) fn ready(&self, link: u64) -> Call {
        self.inbox.lock().link(link)?;
        if let Some(outgoing) = self.outbox.lock().links.get_mut(&link) {
            (outgoing.is_held, outgoing.is_asked) = (false, true);
        }
        self.work.notify_one();
        Ok(())
    }

    pub(crate) fn down(&self, link: u64, words: &str) -> Call {
        // What it still should have sent, as the last word of a handshake, is sent by nobody now.
        if let Some(outgoing) = self.outbox.lock().links.get_mut(&link)
            && let Some(ending) = &mut outgoing.ending
        {
            ending.drains = false;
            self.work.notify_one();
        }
        let mut inbox = self.inbox.lock();
        inbox.link(link)?;
        inbox.links.remove(&link);
        let words = if words.is_empty() { "the program says that it is down" } else { words };
        inbox.arrivals.push(Arrival::Down { link, words: cut(words) });
        self.arrived.notify_one();
        self.room.notify_all();
        Ok(())
    }

    pub(crate) fn unreachable(&self, peer: NodeId, words: &str) -> Call {
        let mut inbox = self.inbox.lock();
        if inbox.is_closed {
            return Err(closed());
        }
        if inbox.unreachable.len() >= UNREACHABLE_MAX && !inbox.unreachable.contains_key(&peer) {
            let message = format!("{UNREACHABLE_MAX} nodes out of reach wait to be told already");
            return Err(Failure::new(RAFTZ_BUSY, message));
        }
        let words = if words.is_empty() { "the program cannot reach it" } else { words };
        inbox.unreachable.insert(peer, cut(words));
        self.arrived.notify_one();
        Ok(())
    }
}

/// What the loop does.
impl Shared {
    /// Waits until something came, or no longer than this, and takes it.
    pub(crate) fn take(
        &self,
        patience: Option<Duration>,
        arrivals: &mut Vec<Arrival>,
    ) -> io::Result<BTreeMap<NodeId, String>> {
        let mut inbox = self.inbox.lock();
        match patience {
            Some(patience) if patience.is_zero() => {}
            Some(patience) => {
                let _ = self.arrived.wait_while_for(&mut inbox, |it| it.is_quiet(), patience);
            }
            None => self.arrived.wait_while(&mut inbox, |it| it.is_quiet()),
        }
        inbox.is_woken = false;
        if let Some(words) = &inbox.failed {
            return Err(io::Error::other(words.clone()));
        }
        if !inbox.arrivals.is_empty() {
            arrivals.append(&mut inbox.arrivals);
            inbox.links.values_mut().for_each(|waiting| waiting.bytes = 0);
            self.room.notify_all();
        }
        Ok(std::mem::take(&mut inbox.unreachable))
    }

    /// A link has passed its handshake.
    pub(crate) fn prove(&self, link: u64) {
        if let Some(waiting) = self.inbox.lock().links.get_mut(&link) {
            waiting.is_proven = true;
        }
        self.room.notify_all();
    }

    /// A link is of no more use.
    pub(crate) fn end(&self, link: u64, reason: String, drains: bool) {
        self.inbox.lock().links.remove(&link);
        self.room.notify_all();
        if let Some(outgoing) = self.outbox.lock().links.get_mut(&link) {
            outgoing.ending = Some(Ending { reason, drains });
        }
        self.work.notify_one();
    }

    /// A node is to be dialled. The lane is woken by [`Shared::flush`].
    pub(crate) fn dial(&self, peer: NodeId, address: String) {
        self.outbox.lock().dials.insert(peer, address);
    }

    /// Queues a message. The lane is woken by [`Shared::flush`].
    pub(crate) fn send(
        &self,
        link: u64,
        message: OutMessage,
        bytes_max: usize,
    ) -> Result<(), SendError> {
        let mut outbox = self.outbox.lock();
        let outgoing = outbox.links.get_mut(&link).ok_or(SendError::NoLink)?;
        let bound = match message.inside.class {
            Class::Control => bytes_max.saturating_add(CONTROL_RESERVE_BYTES),
            Class::Data | Class::Bulk => bytes_max,
        };
        let bytes = outgoing.bytes.saturating_add(message.len());
        if outgoing.bytes > 0 && bytes > bound {
            return Err(SendError::Full);
        }
        outgoing.bytes = bytes;
        outgoing.queues[rank(message.inside.class)].push_back(message);
        Ok(())
    }

    pub(crate) fn flush(&self) {
        self.work.notify_one();
    }

    pub(crate) fn progress(&self, link: u64) -> Progress {
        let outbox = self.outbox.lock();
        let of = |it: &Outgoing| Progress { waits: it.bytes > 0, taken: it.taken };
        outbox.links.get(&link).map(of).unwrap_or_default()
    }

    /// The loop has ended: nothing is taken any more, and the lane comes to its end.
    pub(crate) fn close(&self) {
        let mut inbox = self.inbox.lock();
        inbox.is_closed = true;
        inbox.links.clear();
        inbox.arrivals.clear();
        drop(inbox);
        self.room.notify_all();
        let mut outbox = self.outbox.lock();
        outbox.is_stopping = true;
        outbox.dials.clear();
        for outgoing in outbox.links.values_mut() {
            let reason = "the node stops".to_owned();
            // What it still has to say is given once, to whoever takes it.
            outgoing.ending.get_or_insert(Ending { reason, drains: true });
        }
        drop(outbox);
        self.work.notify_one();
    }
}

/// What the lane does.
impl Shared {
    /// Waits for the next thing to do. Links take turns.
    pub(crate) fn next(&self) -> Job {
        let mut outbox = self.outbox.lock();
        loop {
            if let Some((peer, address)) = outbox.dials.pop_first() {
                return Job::Dial { peer, address };
            }
            let served = outbox.served;
            let is_stopping = outbox.is_stopping;
            let behind = outbox.links.range(served + 1..).chain(outbox.links.range(..=served));
            let found =
                behind.filter(|(_, it)| it.has_work() || is_stopping).map(|(at, _)| *at).next();
            let Some(link) = found else {
                if is_stopping {
                    return Job::Stop;
                }
                self.work.wait(&mut outbox);
                continue;
            };
            outbox.served = link;
            if let Some(job) = outbox.job(link) {
                return job;
            }
        }
    }

    /// A batch was given to the program, which took so many of it.
    pub(crate) fn taken(&self, link: u64, mut batch: Vec<OutMessage>, count: usize) {
        let mut outbox = self.outbox.lock();
        let Some(outgoing) = outbox.links.get_mut(&link) else { return };
        for message in batch.drain(..count) {
            outgoing.bytes = outgoing.bytes.saturating_sub(message.len());
            outgoing.taken += 1;
        }
        outgoing.is_held = !batch.is_empty() && !outgoing.is_asked;
        for message in batch.into_iter().rev() {
            outgoing.queues[rank(message.inside.class)].push_front(message);
        }
    }

    /// The program could not send on a link.
    pub(crate) fn send_failed(&self, link: u64, words: &str) {
        if let Some(outgoing) = self.outbox.lock().links.get_mut(&link) {
            outgoing.queues.iter_mut().for_each(VecDeque::clear);
            outgoing.bytes = 0;
            outgoing.is_held = true;
        }
        // If it has ended meanwhile, that is as good.
        let _ = self.down(link, words);
    }

    /// The lane can do nothing any more.
    pub(crate) fn fail(&self, words: String) {
        self.inbox.lock().failed = Some(words);
        self.arrived.notify_one();
    }
}

impl Outbox {
    fn job(&mut self, link: u64) -> Option<Job> {
        let outgoing = self.links.get_mut(&link)?;
        let is_drained = outgoing.bytes == 0 || (self.is_stopping && outgoing.is_held);
        if let Some(ending) = outgoing.ending.take_if(|it| !it.drains || is_drained) {
            let context = outgoing.context;
            self.links.remove(&link);
            return Some(Job::End { context, reason: ending.reason });
        }
        outgoing.is_asked = false;
        let (context, batch) = (outgoing.context, outgoing.batch());
        Some(Job::Send { link, context, batch })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use raftz_core::transport::OutFrame;

    use super::super::message::tests::{frame, whole};
    use super::*;

    fn rig(links: u64) -> Shared {
        let shared = Shared::new(FrameLimits::default()).unwrap();
        for link in 1..=links {
            let context = Context(std::ptr::without_provenance_mut(link as usize));
            assert_eq!(shared.up(None, context).unwrap(), link);
        }
        shared
    }

    fn message(class: Class, bytes: usize) -> OutMessage {
        OutMessage::of_frame(1, 1, OutFrame { class, ..frame(bytes) })
    }

    /// The next job, which is a batch: of which link, and its messages' classes.
    fn batch(shared: &Shared) -> (u64, Vec<OutMessage>, Vec<Class>) {
        let job = shared.next();
        let Job::Send { link, batch, .. } = job else { panic!("{job:?}") };
        let classes = batch.iter().map(|message| message.inside.class).collect();
        (link, batch, classes)
    }

    #[test]
    fn what_waits_to_be_sent_is_bounded_and_control_passes_where_data_is_refused() {
        let shared = rig(1);
        let send = |class, bytes| shared.send(1, message(class, bytes), 100_000);
        assert_eq!(send(Class::Data, 200_000), Ok(()), "one always finds room");
        assert_eq!(send(Class::Data, 1), Err(SendError::Full));
        assert_eq!(send(Class::Bulk, 1), Err(SendError::Full));
        assert_eq!(send(Class::Control, 1), Ok(()));
        let (link, all, classes) = batch(&shared);
        assert_eq!((link, classes), (1, vec![Class::Control, Class::Data]), "the urgent first");
        assert_eq!(send(Class::Data, 1), Err(SendError::Full), "until it is taken");
        shared.taken(1, all, 2);
        assert_eq!(send(Class::Data, 1), Ok(()));
        assert_eq!(shared.send(2, message(Class::Data, 1), 1), Err(SendError::NoLink));
    }

    #[test]
    fn a_link_that_takes_less_waits_until_it_asks_and_holds_up_no_other() {
        let shared = rig(2);
        for _ in 0..3 {
            shared.send(1, message(Class::Data, 10), 1 << 20).unwrap();
        }
        let (link, all, _) = batch(&shared);
        assert_eq!((link, all.len()), (1, 3));
        shared.taken(1, all, 1);
        assert!(shared.progress(1).waits && shared.progress(1).taken == 1);
        shared.send(2, message(Class::Data, 10), 1 << 20).unwrap();
        let (link, all, _) = batch(&shared);
        assert_eq!(link, 2);
        shared.taken(2, all, 1);
        // Asked for before the call had come back: not to be missed.
        shared.ready(1).unwrap();
        let (link, all, _) = batch(&shared);
        assert_eq!((link, all.len()), (1, 2));
        shared.ready(1).unwrap();
        shared.taken(1, all, 0);
        let (link, all, _) = batch(&shared);
        assert_eq!((link, all.len()), (1, 2));
        shared.taken(1, all, 2);
        assert!(!shared.progress(1).waits);
    }

    #[test]
    fn each_link_is_ended_once_after_what_it_still_has_to_say_and_at_a_stop_all_are() {
        let shared = rig(3);
        for link in 1..=2 {
            shared.send(link, message(Class::Control, 1), 1 << 20).unwrap();
            shared.end(link, "refused".into(), link == 1);
        }
        let mut ended = Vec::new();
        let mut sent = Vec::new();
        shared.close();
        loop {
            match shared.next() {
                Job::Send { link, batch, .. } => {
                    sent.push(link);
                    let count = batch.len();
                    shared.taken(link, batch, count);
                }
                Job::End { context, reason } => ended.push((context.0.addr(), reason)),
                Job::Dial { .. } => panic!("at a stop"),
                Job::Stop => break,
            }
        }
        assert_eq!(sent, [1]);
        ended.sort();
        let told = |link, reason: &str| (link, reason.to_owned());
        assert_eq!(ended, [told(1, "refused"), told(2, "refused"), told(3, "the node stops")]);
        let refused = |call: Call| call.unwrap_err().status;
        assert_eq!(
            refused(shared.up(None, Context(std::ptr::null_mut())).map(drop)),
            RAFTZ_SHUT_DOWN
        );
        assert_eq!(refused(shared.down(1, "")), RAFTZ_SHUT_DOWN);
    }

    #[test]
    fn what_waits_for_the_loop_is_bounded_by_link_and_before_the_handshake_more_so() {
        let shared = rig(2);
        let large = whole(&message(Class::Data, 3 << 20));
        let give = |link, bytes: &Bytes| {
            let given = shared.deliver(link, bytes.len(), || bytes.clone(), Duration::ZERO);
            given.map_err(|failure| failure.status)
        };
        assert_eq!(give(1, &large), Err(RAFTZ_BUSY));
        shared.prove(1);
        assert_eq!(give(1, &large), Ok(()));
        assert_eq!(give(1, &large), Err(RAFTZ_BUSY));
        assert_eq!(give(2, &whole(&message(Class::Control, 1))), Ok(()), "nobody else's room");
        let mut arrivals = Vec::new();
        shared.take(Some(Duration::ZERO), &mut arrivals).unwrap();
        assert_eq!(arrivals.len(), 4);
        assert_eq!(give(1, &large), Ok(()));
        assert_eq!(give(3, &large), Err(crate::status::RAFTZ_INVALID_ARG));
        shared.end(1, "over".into(), false);
        assert_eq!(give(1, &large), Err(RAFTZ_CLOSED));
    }
}
