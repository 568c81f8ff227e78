//! Allocations, counted: of the core for each entry, and of a receiving transport for each frame.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use raftz_core::transport::codec::{Decoded, decode, encode};
use raftz_core::transport::handshake::Identity;
use raftz_core::transport::tcp::{Listen, TcpConfig, TcpTransport};
use raftz_core::transport::{PeerSpec, Transport, TransportEvent};
use raftz_core::types::{
    Append, Boot, ClusterId, DiskId, Entry, EntryKind, GroupId, Index, LogId, Message, NodeId,
    Payload, RaftBody, RaftMessage, Term,
};

use super::figures::Figures;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
pub(crate) struct Counted;

fn note() {
    // A thread that is ending counts no more.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note();
        // SAFETY: as above; `block` came from `System`.
        unsafe { System.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; `block` came from `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Allocations of this thread while `work` runs.
pub(crate) fn count(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("ids start at one")
}

fn transport(node: u64) -> TcpTransport {
    let disk = DiskId(u128::from(node));
    let identity = Identity::peer(ClusterId(7), 1, id(node), disk, Boot(1), 0);
    TcpTransport::new(TcpConfig::new(identity, Listen::Address("127.0.0.1:0".into())))
        .expect("a transport")
}

fn know(one: &mut TcpTransport, node: u64, other: &TcpTransport) {
    let address = other.local_address().expect("it listens");
    one.set_peers(&[PeerSpec { node: id(node), address, disk: None }]);
}

fn append(entries: u64) -> Message {
    let entry = |index| Entry {
        term: Term(1),
        index: Index(index),
        log_time_us: 1,
        kind: EntryKind::Command,
        session: None,
        payload: Payload::new(vec![7u8; 64]),
    };
    let entries = (1..=entries).map(entry).collect();
    let append = Append { session: 1, prev: LogId::ZERO, commit: Index::ZERO, entries };
    Message::Raft(RaftMessage { term: Term(1), body: RaftBody::Append(append) })
}

/// What it costs to receive and decode a frame with so many entries, over a real connection.
fn per_frame(entries: u64) -> f64 {
    const FRAMES: u64 = 1000;
    let (mut sender, mut receiver) = (transport(1), transport(2));
    know(&mut sender, 2, &receiver);
    know(&mut receiver, 1, &sender);
    let message = append(entries);
    let (mut theirs, mut ours) = (Vec::new(), Vec::with_capacity(64));
    let (mut received, mut allocations) = (0, 0);
    let patience = Instant::now() + Duration::from_secs(20);
    let mut is_linked = false;
    while received < FRAMES {
        assert!(Instant::now() < patience, "{received} of {FRAMES} frames came");
        if is_linked {
            let _ = sender.send(id(2), encode(GroupId::FIRST, &message));
            sender.flush();
        }
        sender.poll(Some(Duration::ZERO), &mut theirs).expect("polls");
        is_linked |= theirs.drain(..).any(|event| matches!(event, TransportEvent::LinkUp(_)));
        allocations += count(|| {
            receiver.poll(Some(Duration::ZERO), &mut ours).expect("polls");
            for event in ours.drain(..) {
                let TransportEvent::Frame { frame, .. } = event else { continue };
                let decoded = decode(&frame).expect("our own frame");
                assert!(matches!(decoded.1, Decoded::Message(_)));
                received += 1;
            }
        });
    }
    allocations as f64 / received as f64
}

pub(crate) fn bench(figures: &mut Figures) {
    let (one, many) = (per_frame(1), per_frame(64));
    println!(
        "\nallocations for a received and decoded frame: {one:.2} with one entry, {many:.2} with 64"
    );
    figures.set("allocations_per_frame_of_1", Some(one));
    figures.set("allocations_per_frame_of_64", Some(many));
}
