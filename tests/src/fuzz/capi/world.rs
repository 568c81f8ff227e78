//! What a program holds: handles, the nodes behind them, and what it knows of clusters that were founded as they should be.

use std::ffi::{CStr, c_void};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use raftz::bytes::*;
use raftz::config::*;
use raftz::kv::*;
use raftz::network::*;
use raftz::node::*;
use raftz::propose::*;
use raftz::queue::*;
use raftz::read::*;
use raftz::state::*;
use raftz::status::*;

use super::bare::Bare;
use super::judge::{Given, Versioned, bytes, call, judged, lock, shown, slice};
use super::machine::{Fault, Spec, Truth, question};
use super::pending::{Acknowledged, Kind, Pending, Write, taken};
use super::store::{Disk, Way};
use super::wires::{Post, Wires};
use crate::fuzz::tape::Tape;

/// A node that is to stop does.
const STOP_MS: u32 = 20_000;
/// Most handles of one kind.
const HANDLES_MAX: usize = 8;

/// User data that somebody is to be rid of once.
#[derive(Default)]
pub(super) struct Owned {
    pub(super) is_taken: bool,
    ended: AtomicU32,
}

pub(super) unsafe extern "C" fn on_end(user_data: *mut c_void) {
    // SAFETY: the world keeps it until the end.
    unsafe { &*user_data.cast_const().cast::<Owned>() }.ended.fetch_add(1, SeqCst);
}

/// Which machine a node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    Own,
    Kv,
    Counter,
}

pub(super) struct Node {
    pub(super) pointer: *mut raftz_node,
    pub(super) keeps: Keeps,
    /// Cluster and place in it, if it is of one whose promises are looked at.
    pub(super) member: Option<(usize, usize)>,
    /// Calls that were accepted, and end by functions of ours.
    calls: Vec<Arc<Pending>>,
}

/// What is needed to start a member again.
pub(super) struct Member {
    pub(super) config: *mut raftz_config,
    pub(super) spec: Arc<Spec>,
    pub(super) way: Way,
    pub(super) survives: bool,
    /// Whether the cluster's network joins it with the others.
    pub(super) has_network: bool,
    /// Its port, before its first life.
    pub(super) listener: Option<OwnedFd>,
}

/// A cluster that nobody disturbs.
pub(super) struct Cluster {
    pub(super) network: *mut raftz_network,
    pub(super) keeps: Keeps,
    pub(super) members: Vec<Member>,
    pub(super) acknowledged: Acknowledged,
    pub(super) truth: Arc<Truth>,
}

/// All that one input has made.
pub(super) struct World {
    pub(super) configs: Vec<*mut raftz_config>,
    pub(super) networks: Vec<*mut raftz_network>,
    pub(super) queues: Vec<*mut raftz_queue>,
    pub(super) events: Vec<*mut raftz_event>,
    pub(super) bytes: Vec<*mut raftz_bytes>,
    pub(super) answers: Vec<*mut raftz_kv_reply>,
    pub(super) nodes: Vec<Node>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) owned: Vec<Arc<Owned>>,
    pub(super) specs: Vec<Arc<Spec>>,
    pub(super) disks: Vec<Arc<Disk>>,
    pub(super) wires: Vec<Arc<Wires>>,
    pub(super) posts: Vec<Arc<Post>>,
    /// Every call: it may be told of late.
    calls: Vec<Arc<Pending>>,
    /// Accepted ones of nodes that were freed.
    loose: Vec<Arc<Pending>>,
    /// Accepted ones whose end comes in a queue that is still there.
    queued: Vec<(*mut raftz_queue, Arc<Pending>)>,
    /// For callbacks that try to wait.
    inside: (*mut raftz_queue, Arc<Disk>),
    pub(super) folder: Option<tempfile::TempDir>,
    pub(super) bare: Option<Bare>,
    /// Once is enough for an input.
    pub(super) has_simulated: bool,
    next: u64,
}

impl Default for World {
    fn default() -> Self {
        let mut queue = std::ptr::null_mut();
        let none = std::ptr::null_mut();
        assert_eq!(call!(raftz_queue_new(std::ptr::null(), &raw mut queue, none)), RAFTZ_OK);
        Self {
            configs: Vec::new(),
            networks: Vec::new(),
            queues: Vec::new(),
            events: Vec::new(),
            bytes: Vec::new(),
            answers: Vec::new(),
            nodes: Vec::new(),
            clusters: Vec::new(),
            owned: Vec::new(),
            specs: Vec::new(),
            disks: Vec::new(),
            wires: Vec::new(),
            posts: Vec::new(),
            calls: Vec::new(),
            loose: Vec::new(),
            queued: Vec::new(),
            inside: (queue, Disk::new(Way::AtOnce, 0)),
            folder: None,
            bare: None,
            has_simulated: false,
            next: 0,
        }
    }
}

/// One of these, NULL now and then, and if there is none.
pub(super) fn pick<T>(tape: &mut Tape<'_>, of: &[*mut T]) -> *mut T {
    match tape.byte() {
        byte if byte < 240 && !of.is_empty() => of[usize::from(byte) % of.len()],
        _ => std::ptr::null_mut(),
    }
}

/// Takes one out, to free it; NULL if there is none.
pub(super) fn pull<T>(tape: &mut Tape<'_>, of: &mut Vec<*mut T>) -> *mut T {
    let pointer = pick(tape, of);
    of.retain(|other| *other != pointer);
    pointer
}

/// Keeps one, if there is room; gives back what has to be freed instead.
pub(super) fn keep<T>(of: &mut Vec<*mut T>, pointer: Option<*mut T>) -> *mut T {
    match pointer {
        Some(pointer) if of.len() < HANDLES_MAX => {
            of.push(pointer);
            std::ptr::null_mut()
        }
        other => other.unwrap_or(std::ptr::null_mut()),
    }
}

/// Text of ours.
pub(super) fn c(text: &CStr) -> *const std::ffi::c_char {
    text.as_ptr()
}

impl World {
    /// A number that was not there before.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A node that somebody started, of which nothing is known.
    pub(super) fn add(&mut self, pointer: *mut raftz_node, keeps: Keeps) {
        self.nodes.push(Node { pointer, keeps, member: None, calls: Vec::new() });
    }

    /// One of the nodes, or none.
    pub(super) fn node(&self, tape: &mut Tape<'_>) -> Option<usize> {
        let byte = tape.byte();
        (byte < 240 && !self.nodes.is_empty()).then(|| usize::from(byte) % self.nodes.len())
    }

    pub(super) fn pointer(&self, node: Option<usize>) -> *mut raftz_node {
        node.map_or(std::ptr::null_mut(), |at| self.nodes[at].pointer)
    }

    /// User data for something that will be taken over, if the call succeeds.
    pub(super) fn own(&mut self, take: impl FnOnce(*mut c_void) -> raftz_status) -> raftz_status {
        let mut owned = Arc::new(Owned::default());
        let status = take(Arc::as_ptr(&owned).cast_mut().cast());
        if let Some(owned) = Arc::get_mut(&mut owned) {
            owned.is_taken = status == RAFTZ_OK;
        }
        self.owned.push(owned);
        status
    }

    /// A command for a node: one that is told apart from all others.
    pub(super) fn write(&mut self, node: Option<usize>, tape: &mut Tape<'_>) -> Write {
        let number = self.number();
        let keeps = node.map_or(Keeps::Own, |at| self.nodes[at].keeps);
        if keeps == Keeps::Kv {
            let (key, value) =
                (format!("k{number}").into_bytes(), format!("v{number}").into_bytes());
            let mut given = Given::new();
            let (key_is, value_is) = (slice(&key), slice(&value));
            let status = judged(tape, "raftz_kv_set", 0, |error| {
                call!(raftz_kv_set(key_is, value_is, given.place(), error))
            });
            let command = given.after(status).expect("a command");
            // SAFETY: it lives.
            let encoded = unsafe { bytes(call!(raftz_bytes_slice(command))) };
            call!(raftz_bytes_free(command));
            return Write { command: encoded, pair: Some((key, value)) };
        }
        let mark = if tape.byte() >= 200 { '!' } else { 'c' };
        let mut command = format!("{mark}{number}").into_bytes();
        if tape.byte() >= 224 {
            command.resize(70_000, b'.');
        }
        Write { command, pair: None }
    }

    /// A call that is about to be made.
    pub(super) fn pending(
        &mut self,
        kind: Kind,
        count: usize,
        is_queued: bool,
        writes: Option<(usize, Vec<Write>)>,
    ) -> Arc<Pending> {
        let tracked = writes.and_then(|(node, writes)| {
            let (cluster, _) = self.nodes[node].member?;
            let is_known = self.clusters[cluster].keeps != Keeps::Counter;
            is_known.then(|| (writes, Arc::clone(&self.clusters[cluster].acknowledged)))
        });
        let inside = (self.inside.0.expose_provenance(), Arc::clone(&self.inside.1));
        let pending = Pending::new(kind, count, is_queued, tracked, inside);
        self.calls.push(Arc::clone(&pending));
        pending
    }

    /// It was accepted, or not.
    pub(super) fn made(
        &mut self,
        pending: Arc<Pending>,
        node: Option<usize>,
        queue: *mut raftz_queue,
        status: raftz_status,
    ) {
        if status != RAFTZ_OK {
            assert_eq!(pending.times_ended(), 0, "a call that was refused has ended");
        } else if pending.is_queued {
            self.queued.push((queue, pending));
        } else {
            let node = node.expect("NULL accepts nothing");
            self.nodes[node].calls.push(pending);
        }
    }

    /// Stops a node. Once it has, everything has ended.
    pub(super) fn stop(
        &mut self,
        node: usize,
        timeout_ms: u32,
        tape: &mut Tape<'_>,
    ) -> raftz_status {
        let pointer = self.nodes[node].pointer;
        let status = judged(tape, "raftz_node_stop", timeout_ms, |error| {
            call!(raftz_node_stop(pointer, timeout_ms, error))
        });
        if status == RAFTZ_OK {
            for call in self.nodes[node].calls.drain(..) {
                assert_eq!(call.times_ended(), 1, "a call of a node that has stopped");
            }
        }
        status
    }

    /// Frees a node, whatever it is at.
    pub(super) fn free(&mut self, node: usize) {
        let node = self.nodes.swap_remove(node);
        let begun = Instant::now();
        call!(raftz_node_free(node.pointer));
        assert!(begun.elapsed() < Duration::from_secs(20), "a node that is freed goes");
        self.loose.extend(node.calls);
    }

    /// Starts a member of a cluster.
    pub(super) fn start_member(&mut self, cluster: usize, member: usize, tape: &mut Tape<'_>) {
        let Cluster { network, keeps, members, .. } = &mut self.clusters[cluster];
        let Member { config, spec, way, has_network, listener, .. } = &mut members[member];
        let table = spec.table(0);
        let opts = raftz_start_opts {
            size: size_of::<raftz_start_opts>(),
            builtin: u32::from(*keeps == Keeps::Counter),
            listen_fd: listener.take().map_or(0, IntoRawFd::into_raw_fd),
            network: if *has_network { *network } else { std::ptr::null_mut() },
        };
        let machine = if *keeps == Keeps::Own { &raw const table } else { std::ptr::null() };
        let is_good = [Way::AtOnce, Way::Late, Way::Twice, Way::IsLow].contains(way)
            && [Fault::Nothing, Fault::Begin, Fault::Read].contains(&spec.fault);
        let (config, keeps) = (*config, *keeps);
        let mut given = Given::new();
        let status = judged(tape, "raftz_node_start", 0, |error| {
            call!(raftz_node_start(config, machine, &raw const opts, given.place(), error))
        });
        assert!(status == RAFTZ_OK || !is_good, "a good node does not start: {}", shown(status));
        if let Some(pointer) = given.after(status) {
            self.nodes.push(Node {
                pointer,
                keeps,
                member: Some((cluster, member)),
                calls: Vec::new(),
            });
        }
    }

    /// Takes something from a queue, and looks at it.
    pub(super) fn take(
        &mut self,
        queue: *mut raftz_queue,
        timeout_ms: u32,
        tape: &mut Tape<'_>,
    ) -> (raftz_status, Option<*mut raftz_event>) {
        let mut given = Given::new();
        let status = judged(tape, "raftz_queue_next", timeout_ms, |error| {
            call!(raftz_queue_next(queue, timeout_ms, given.place(), error))
        });
        let Some(event) = given.after(status) else { return (status, None) };
        let mut place = Versioned::place(&mut Tape::new(&[]));
        let into = place.pointer();
        let looked = call!(raftz_event_get(event, into, std::ptr::null_mut()));
        let info = place.after(looked).expect("an event says what it is");
        if info.kind == raftz::events::RAFTZ_EVENT_COMPLETION {
            taken(info.user_data, info.outcomes, info.outcome_count);
            let at = self
                .queued
                .iter()
                .position(|(at, pending)| *at == queue && pending.user_data() == info.user_data);
            self.queued.swap_remove(at.expect("a completion of a call that was made"));
        }
        (status, Some(event))
    }

    /// Frees a queue; what would still come into it is not told.
    pub(super) fn free_queue(&mut self, queue: *mut raftz_queue) {
        call!(raftz_queue_free(queue));
        self.queued.retain(|(at, _)| *at != queue);
    }

    /// Reads back what was acknowledged, from whichever node answers in time.
    pub(super) fn read_back(&self, cluster: usize, most: usize, timeout_ms: u32) {
        let Cluster { keeps, acknowledged, truth, .. } = &self.clusters[cluster];
        let writes = lock(acknowledged).clone();
        for (index, write) in writes.iter().rev().take(most) {
            if *keeps == Keeps::Own {
                assert_eq!(truth.at(*index).as_ref(), Some(&write.command), "at {index}");
            }
            let members =
                self.nodes.iter().filter(|it| it.member.is_some_and(|(of, _)| of == cluster));
            let mut answers =
                members.filter_map(|node| self.linearizable(node, *index, write, timeout_ms));
            match (answers.next(), &write.pair) {
                (Some(answer), Some((_, value))) => assert_eq!(&answer, value, "at {index}"),
                (Some(answer), None) => assert_eq!(answer, write.command, "at {index}"),
                // Nobody could: there is no more to be learnt.
                (None, _) => return,
            }
        }
    }

    fn linearizable(
        &self,
        node: &Node,
        index: u64,
        write: &Write,
        timeout_ms: u32,
    ) -> Option<Vec<u8>> {
        let zeros = &mut Tape::new(&[]);
        let request = match &write.pair {
            Some((key, _)) => {
                let mut given = Given::new();
                let key = slice(key);
                let status = judged(zeros, "raftz_kv_get", 0, |error| {
                    call!(raftz_kv_get(key, given.place(), error))
                });
                let request = given.after(status)?;
                // SAFETY: it lives.
                let encoded = unsafe { bytes(call!(raftz_bytes_slice(request))) };
                call!(raftz_bytes_free(request));
                encoded
            }
            None => question(index),
        };
        let opts = raftz_read_opts {
            size: size_of::<raftz_read_opts>(),
            level: RAFTZ_READ_LINEARIZABLE,
            timeout_ms,
            index: 0,
            max_age_ms: 0,
        };
        let mut place = Versioned::<raftz_reply>::place(zeros);
        let (pointer, into) = (node.pointer, place.pointer());
        let request = slice(&request);
        let status = judged(zeros, "raftz_read_wait", timeout_ms, |error| {
            call!(raftz_read_wait(pointer, request, &raw const opts, into, error))
        });
        let reply = place.after(status)?;
        // SAFETY: it lives.
        let answer = unsafe { bytes(call!(raftz_bytes_slice(reply.bytes))) };
        call!(raftz_bytes_free(reply.bytes));
        if write.pair.is_none() {
            return Some(answer);
        }
        let (mut given, encoded) = (Given::new(), slice(&answer));
        let status = judged(zeros, "raftz_kv_reply_read", 0, |error| {
            call!(raftz_kv_reply_read(encoded, reply.flags, given.place(), error))
        });
        let answer = given.after(status).expect("an answer of the store");
        let mut place = Versioned::<raftz_kv_reply_info>::place(zeros);
        let into = place.pointer();
        let status = judged(zeros, "raftz_kv_reply_get", 0, |error| {
            call!(raftz_kv_reply_get(answer, into, error))
        });
        let info = place.after(status).expect("what it says");
        assert_eq!((info.kind, info.is_on), (RAFTZ_KV_VALUE, 1), "an acknowledged key is there");
        // SAFETY: it lives as long as the answer.
        let value = unsafe { bytes(info.value) };
        call!(raftz_kv_reply_free(answer));
        Some(value)
    }

    /// Puts everything away, and looks at what must be true then.
    pub(super) fn end(&mut self) {
        if let Some(bare) = self.bare.take() {
            bare.end();
        }
        for cluster in 0..self.clusters.len() {
            self.read_back(cluster, 20, 500);
        }
        while let Some(node) = self.nodes.len().checked_sub(1) {
            let status = self.stop(node, STOP_MS, &mut Tape::new(&[]));
            assert_eq!(shown(status), "RAFTZ_OK", "no callback here blocks");
            self.free(node);
        }
        let loose = || self.loose.iter().filter(|call| call.times_ended() == 0).count() as u64;
        comes_to_nothing("calls of nodes that were freed", loose);
        for queue in std::mem::take(&mut self.queues) {
            while let (_, Some(event)) = self.take(queue, 0, &mut Tape::new(&[])) {
                call!(raftz_event_free(event));
            }
            let left = self.queued.iter().filter(|(at, _)| *at == queue).count();
            assert_eq!(left, 0, "calls whose ends never came into their queue");
            self.free_queue(queue);
        }
        self.free_handles();
        assert!(self.calls.iter().all(|call| call.times_ended() <= 1));
        comes_to_nothing("machines and snapshots", || self.specs.iter().map(|it| it.left()).sum());
        comes_to_nothing("stores", || self.disks.iter().map(|it| it.left()).sum());
        comes_to_nothing("transports", || self.posts.iter().map(|it| it.left()).sum());
        let owned = |it: &Arc<Owned>| u64::from(it.is_taken && it.ended.load(SeqCst) == 0);
        comes_to_nothing("user data", || self.owned.iter().map(owned).sum());
        for owned in &self.owned {
            assert_eq!(owned.ended.load(SeqCst), u32::from(owned.is_taken), "user data");
        }
    }

    fn free_handles(&mut self) {
        call!(raftz_queue_free(self.inside.0));
        self.events.drain(..).for_each(|it| call!(raftz_event_free(it)));
        self.bytes.drain(..).for_each(|it| call!(raftz_bytes_free(it)));
        self.answers.drain(..).for_each(|it| call!(raftz_kv_reply_free(it)));
        self.configs.drain(..).for_each(|it| call!(raftz_config_free(it)));
        self.networks.drain(..).for_each(|it| call!(raftz_network_free(it)));
        for cluster in self.clusters.drain(..) {
            call!(raftz_network_free(cluster.network));
            cluster.members.iter().for_each(|it| call!(raftz_config_free(it.config)));
        }
        call!(raftz_state_free(std::ptr::null_mut()));
    }
}

/// Waits until none of these is left: a node that was freed while it ran may need a moment.
fn comes_to_nothing(what: &str, left: impl Fn() -> u64) {
    let end = Instant::now() + Duration::from_secs(20);
    while left() > 0 {
        assert!(Instant::now() < end, "{what}: {} are left", left());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Of nobody yet.
pub(super) fn acknowledged() -> Acknowledged {
    Arc::new(Mutex::new(Vec::new()))
}
