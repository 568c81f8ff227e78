//! A transport for several hosts in one process: frames pass through queues, and links can be cut
//! and healed by the test that owns the network. Identities are judged as in a real handshake.
//!
//! A send only appends to the sender's own outbox. A flush takes the network's lock once, moves
//! everything, and wakes each receiver at most once. Payloads that travel alone in a large frame
//! are copied once, into the one buffer that a receiver expects; frames without separate payloads
//! are passed on as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};

use super::handshake::{Identity, Known, judge};
use super::{
    InFrame, OutFrame, PeerIdentity, PeerSpec, SendError, Transport, TransportEvent, Wake,
};
use crate::types::{DiskId, NodeId};

/// Bytes that may wait for one receiver, from one sender, before sends are refused.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The network that memory transports talk over. Clones are handles to the same one.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    hosts: BTreeMap<NodeId, Host>,
    /// (from, to) pairs over which nothing passes.
    cuts: BTreeSet<(NodeId, NodeId)>,
    incarnations: u64,
}

struct Host {
    identity: Identity,
    incarnation: u64,
    /// The data directories that its membership knows.
    disks: BTreeMap<NodeId, Option<DiskId>>,
    mailbox: Arc<Mailbox>,
}

/// What waits for one transport. Locked after the network, never before.
#[derive(Default)]
struct Mailbox {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

#[derive(Default)]
struct Inbox {
    woken: bool,
    /// The topology changed: links must be looked at again.
    changed: bool,
    /// Sender, its incarnation, frame: what an earlier life sent must not pass for the later one's.
    frames: Vec<(NodeId, u64, InFrame)>,
    bytes_from: BTreeMap<NodeId, usize>,
}

impl Wake for Mailbox {
    fn wake(&self) {
        self.inbox.lock().woken = true;
        self.arrived.notify_one();
    }
}

impl Mailbox {
    fn change(&self) {
        self.inbox.lock().changed = true;
        self.arrived.notify_one();
    }
}

impl std::fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = self.shared.lock();
        f.debug_struct("MemoryNetwork")
            .field("hosts", &shared.hosts.keys())
            .field("cuts", &shared.cuts)
            .finish()
    }
}

impl MemoryNetwork {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Attaches a node. A node that is attached already is replaced, as by a restart.
    pub fn attach(&self, identity: Identity) -> MemoryTransport {
        let mailbox = Arc::new(Mailbox::default());
        let mut shared = self.shared.lock();
        shared.incarnations += 1;
        let incarnation = shared.incarnations;
        if let Some(node) = identity.from {
            let host = Host {
                identity: identity.clone(),
                incarnation,
                disks: BTreeMap::new(),
                mailbox: Arc::clone(&mailbox),
            };
            shared.hosts.insert(node, host);
        }
        shared.tell_all();
        MemoryTransport {
            network: self.clone(),
            node: identity.from,
            incarnation,
            mailbox,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            outbox: Vec::new(),
            outbox_bytes: BTreeMap::new(),
            troubles: BTreeMap::new(),
            ready: Vec::new(),
        }
    }

    /// Stops everything between `a` and `b`.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        let mut shared = self.shared.lock();
        shared.cuts.extend([(a, b), (b, a)]);
        shared.tell_all();
    }

    /// Stops everything from `from` to `to`; the other way still passes. No link goes down: as on
    /// a real network, silence in one direction tells nobody.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.shared.lock().cuts.insert((from, to));
    }

    /// Stops everything between `node` and all others that are attached now.
    pub fn isolate(&self, node: NodeId) {
        let mut shared = self.shared.lock();
        let others: Vec<NodeId> = shared.hosts.keys().copied().filter(|id| *id != node).collect();
        for other in others {
            shared.cuts.extend([(node, other), (other, node)]);
        }
        shared.tell_all();
    }

    /// Lifts every cut.
    pub fn heal(&self) {
        let mut shared = self.shared.lock();
        shared.cuts.clear();
        shared.tell_all();
    }

    /// Lifts the cuts between `a` and `b`.
    pub fn heal_between(&self, a: NodeId, b: NodeId) {
        let mut shared = self.shared.lock();
        shared.cuts.remove(&(a, b));
        shared.cuts.remove(&(b, a));
        shared.tell_all();
    }
}

impl Shared {
    fn tell_all(&self) {
        for host in self.hosts.values() {
            host.mailbox.change();
        }
    }

    fn passes(&self, from: NodeId, to: NodeId) -> bool {
        !self.cuts.contains(&(from, to))
    }

    /// Whether both ways are cut, which takes a link down.
    fn severed(&self, a: NodeId, b: NodeId) -> bool {
        !self.passes(a, b) && !self.passes(b, a)
    }
}

/// One node's end of a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    node: Option<NodeId>,
    incarnation: u64,
    mailbox: Arc<Mailbox>,
    peers: BTreeMap<NodeId, PeerSpec>,
    /// Usable links: the other side's incarnation and identity.
    links: BTreeMap<NodeId, (u64, PeerIdentity)>,
    outbox: Vec<(NodeId, InFrame)>,
    outbox_bytes: BTreeMap<NodeId, usize>,
    /// The trouble last reported for each peer, so that it is reported once.
    troubles: BTreeMap<NodeId, String>,
    /// Events found outside of `poll`.
    ready: Vec<TransportEvent>,
}

impl std::fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTransport").field("node", &self.node).finish_non_exhaustive()
    }
}

impl MemoryTransport {
    /// The network that it is attached to.
    pub const fn network(&self) -> &MemoryNetwork {
        &self.network
    }

    /// Brings the links in line with the network: which pairs see each other, and what each says
    /// of itself.
    fn relink(&mut self, events: &mut Vec<TransportEvent>) {
        let Some(node) = self.node else { return };
        let shared = self.network.shared.lock();
        let replaced = shared.hosts.get(&node).is_none_or(|me| me.incarnation != self.incarnation);
        let down: Vec<(NodeId, String)> = self
            .links
            .iter()
            .filter_map(|(peer, (incarnation, _))| {
                let reason = match shared.hosts.get(peer) {
                    _ if replaced => "this node was attached to the network anew",
                    None => "the peer left the network",
                    Some(host) if host.incarnation != *incarnation => "the peer restarted",
                    Some(_) if shared.severed(node, *peer) => "the network between the two is cut",
                    Some(_) => return None,
                };
                Some((*peer, reason.to_owned()))
            })
            .collect();
        for (peer, reason) in down {
            self.links.remove(&peer);
            events.push(TransportEvent::LinkDown { peer, reason });
        }
        let Some(me) = shared.hosts.get(&node).filter(|_| !replaced) else { return };
        for (peer, host) in &shared.hosts {
            let wanted = self.peers.contains_key(peer) || host.disks.contains_key(&node);
            if *peer == node || !wanted || self.links.contains_key(peer) {
                continue;
            }
            if !shared.passes(node, *peer) || !shared.passes(*peer, node) {
                trouble(&mut self.troubles, *peer, "the network between the two is cut", events);
                continue;
            }
            match meet(me, host, node, *peer) {
                Ok(identity) => {
                    self.troubles.remove(peer);
                    self.links.insert(*peer, (host.incarnation, identity));
                    events.push(TransportEvent::LinkUp(identity));
                }
                Err(event) => {
                    let key = format!("{event:?}");
                    if self.troubles.get(peer) != Some(&key) {
                        self.troubles.insert(*peer, key);
                        events.push(event);
                    }
                }
            }
        }
        for peer in self.peers.keys() {
            if !shared.hosts.contains_key(peer) {
                trouble(&mut self.troubles, *peer, "it is not on the network", events);
            }
        }
    }

    /// Moves the outbox: one lock of the network, one lock and one wake for each receiver.
    fn deliver(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let Some(node) = self.node else { return };
        let mut per_peer: BTreeMap<NodeId, Vec<InFrame>> = BTreeMap::new();
        for (to, frame) in self.outbox.drain(..) {
            per_peer.entry(to).or_default().push(frame);
        }
        self.outbox_bytes.clear();
        let shared = self.network.shared.lock();
        if shared.hosts.get(&node).is_none_or(|me| me.incarnation != self.incarnation) {
            return;
        }
        for (to, frames) in per_peer {
            let Some(host) = shared.hosts.get(&to) else { continue };
            let linked = self.links.get(&to).map(|(incarnation, _)| *incarnation);
            if linked != Some(host.incarnation) || !shared.passes(node, to) {
                continue;
            }
            let mut inbox = host.mailbox.inbox.lock();
            let waiting = inbox.bytes_from.get(&node).copied().unwrap_or(0);
            // A receiver that does not poll loses frames, as a broken link would lose them.
            if waiting > QUEUE_BYTES_MAX {
                continue;
            }
            let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
            inbox.bytes_from.insert(node, waiting + bytes);
            let incarnation = self.incarnation;
            inbox.frames.extend(frames.into_iter().map(|frame| (node, incarnation, frame)));
            drop(inbox);
            host.mailbox.arrived.notify_one();
        }
    }
}

fn trouble(
    troubles: &mut BTreeMap<NodeId, String>,
    peer: NodeId,
    reason: &str,
    events: &mut Vec<TransportEvent>,
) {
    if troubles.get(&peer).is_none_or(|known| known != reason) {
        troubles.insert(peer, reason.to_owned());
        events.push(TransportEvent::Unreachable { peer, reason: reason.to_owned() });
    }
}

/// The handshake between two attached hosts, judged as each side would judge it.
fn meet(
    me: &Host,
    other: &Host,
    node: NodeId,
    peer: NodeId,
) -> Result<PeerIdentity, TransportEvent> {
    let knows = |host: &Host, id: NodeId| Known {
        expected: Some(id),
        disk: host.disks.get(&id).copied().flatten(),
        connected: None,
    };
    let here = me.identity.addressed_to(Some(peer));
    let there = other.identity.addressed_to(Some(node));
    let accepted = judge(&here, &there, &knows(me, peer)).map_err(|refused| {
        let (code, reason) = (refused.told.code, refused.words);
        TransportEvent::Refused { peer, disk: there.disk, code, reason }
    })?;
    judge(&there, &here, &knows(other, node)).map_err(|refused| TransportEvent::RefusedBy {
        peer,
        code: refused.told.code,
        reason: refused.told.words,
        known_disk: refused.told.known_disk,
    })?;
    Ok(accepted.peer)
}

/// A frame as its receiver wants it: in one buffer.
fn joined(frame: OutFrame) -> Bytes {
    if frame.payloads.is_empty() {
        return frame.head;
    }
    let mut bytes = BytesMut::with_capacity(frame.len());
    bytes.extend_from_slice(&frame.head);
    for payload in &frame.payloads {
        bytes.extend_from_slice(payload);
    }
    bytes.freeze()
}

impl Transport for MemoryTransport {
    fn set_peers(&mut self, peers: &[PeerSpec]) {
        self.peers = peers
            .iter()
            .filter(|spec| Some(spec.node) != self.node)
            .map(|spec| (spec.node, spec.clone()))
            .collect();
        self.troubles.clear();
        let mut events = Vec::new();
        {
            let mut shared = self.network.shared.lock();
            if let Some(me) = self.node.and_then(|node| shared.hosts.get_mut(&node))
                && me.incarnation == self.incarnation
            {
                me.disks = peers.iter().map(|spec| (spec.node, spec.disk)).collect();
            }
            // A member known by another disk than the one it is linked with is dropped.
            self.links.retain(|peer, (_, identity)| {
                let known = self.peers.get(peer).and_then(|spec| spec.disk);
                let keep = known.is_none_or(|disk| disk == identity.disk);
                if !keep {
                    let reason = "the membership knows it by another data directory".into();
                    events.push(TransportEvent::LinkDown { peer: *peer, reason });
                }
                keep
            });
            shared.tell_all();
        }
        self.ready.append(&mut events);
    }

    fn send(&mut self, to: NodeId, frame: OutFrame) -> Result<(), SendError> {
        if !self.links.contains_key(&to) {
            return Err(SendError::NoLink);
        }
        let queued = self.outbox_bytes.entry(to).or_default();
        if *queued > QUEUE_BYTES_MAX {
            return Err(SendError::Full);
        }
        *queued += frame.len();
        self.outbox.push((to, InFrame { bytes: joined(frame) }));
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        events: &mut Vec<TransportEvent>,
    ) -> std::io::Result<()> {
        self.deliver();
        let mut is_waiting = self.ready.is_empty();
        events.append(&mut self.ready);
        let deadline = timeout.and_then(deadline_after);
        let (changed, frames) = {
            let mailbox = Arc::clone(&self.mailbox);
            let mut inbox = mailbox.inbox.lock();
            while is_waiting && !inbox.woken && !inbox.changed && inbox.frames.is_empty() {
                match deadline {
                    None => mailbox.arrived.wait(&mut inbox),
                    Some(deadline) => {
                        let result = mailbox.arrived.wait_until(&mut inbox, deadline);
                        is_waiting = !result.timed_out();
                    }
                }
            }
            inbox.woken = false;
            inbox.bytes_from.clear();
            (std::mem::take(&mut inbox.changed), std::mem::take(&mut inbox.frames))
        };
        if changed || frames.iter().any(|(from, ..)| !self.links.contains_key(from)) {
            self.relink(events);
        }
        for (from, incarnation, frame) in frames {
            if self.links.get(&from).is_some_and(|(linked, _)| *linked == incarnation) {
                events.push(TransportEvent::Frame { from, frame });
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.deliver();
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.mailbox) as Arc<dyn Wake>
    }

    fn local_address(&self) -> Option<String> {
        None
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let Some(node) = self.node else { return };
        let mut shared = self.network.shared.lock();
        if shared.hosts.get(&node).is_some_and(|me| me.incarnation == self.incarnation) {
            shared.hosts.remove(&node);
            shared.tell_all();
        }
    }
}

/// The instant `timeout` from now, or `None` if it is too far away to be said.
#[allow(clippy::disallowed_methods, reason = "a transport is where the event loop sleeps")]
fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::wildcard_enum_match_arm
    )]
    use super::*;
    use crate::transport::Class;
    use crate::transport::codec::{Decoded, decode, encode};
    use crate::transport::handshake::Reject;
    use crate::types::{Boot, ClusterId, Forward, ForwardedProposal, GroupId, Message, Payload};

    fn id(raw: u64) -> NodeId {
        NodeId::new(raw).unwrap()
    }

    fn identity(node: u64, boot: u64) -> Identity {
        let mut identity =
            Identity::peer(ClusterId(1), 0, id(node), DiskId(node.into()), Boot(boot), 0);
        identity.instance = node * 1000 + boot;
        identity
    }

    fn spec(node: u64) -> PeerSpec {
        PeerSpec { node: id(node), address: String::new(), disk: None }
    }

    /// Polls without waiting; every effect in memory is immediate.
    fn events(transport: &mut MemoryTransport) -> Vec<TransportEvent> {
        let mut events = Vec::new();
        transport.poll(Some(Duration::ZERO), &mut events).unwrap();
        events
    }

    fn pair(network: &MemoryNetwork) -> (MemoryTransport, MemoryTransport) {
        let mut one = network.attach(identity(1, 1));
        let mut two = network.attach(identity(2, 1));
        one.set_peers(&[spec(1), spec(2)]);
        two.set_peers(&[spec(1), spec(2)]);
        for transport in [&mut one, &mut two] {
            let found = events(transport);
            assert!(matches!(found[..], [TransportEvent::LinkUp(_)]), "{found:?}");
        }
        (one, two)
    }

    fn message(bytes: usize) -> Message {
        let payload = Payload::new(vec![7; bytes]);
        let proposals = vec![ForwardedProposal { payload, session: None }];
        Message::Forward(Forward { id: 1, patience_us: 2, proposals })
    }

    #[test]
    fn frames_of_every_size_arrive_in_order() {
        let (mut one, mut two) = pair(&MemoryNetwork::new());
        let sizes = [0, 1, 4095, 4096, 100_000, 3];
        for size in sizes {
            one.send(id(2), encode(GroupId::FIRST, &message(size))).unwrap();
        }
        one.flush();
        let found = events(&mut two);
        assert_eq!(found.len(), sizes.len());
        for (event, size) in found.iter().zip(sizes) {
            let TransportEvent::Frame { from, frame } = event else { panic!("{event:?}") };
            assert_eq!(*from, id(1));
            let expected = Decoded::Message(message(size));
            assert_eq!(decode(frame).unwrap(), (GroupId::FIRST, expected));
        }
    }

    #[test]
    fn bulk_frames_pass_like_all_others() {
        let (mut one, mut two) = pair(&MemoryNetwork::new());
        let frame = encode(GroupId::FIRST, &message(5000));
        one.send(id(2), OutFrame { class: Class::Bulk, ..frame.clone() }).unwrap();
        one.send(id(2), frame).unwrap();
        one.flush();
        assert_eq!(events(&mut two).len(), 2);
    }

    #[test]
    fn a_cut_takes_the_link_down_and_healing_brings_it_back() {
        let network = MemoryNetwork::new();
        let (mut one, mut two) = pair(&network);
        network.cut(id(1), id(2));
        assert!(matches!(events(&mut one)[0], TransportEvent::LinkDown { .. }));
        let frame = encode(GroupId::FIRST, &message(1));
        assert_eq!(one.send(id(2), frame.clone()), Err(SendError::NoLink));
        assert!(matches!(events(&mut two)[0], TransportEvent::LinkDown { .. }));
        network.heal();
        assert!(matches!(events(&mut one)[..], [TransportEvent::LinkUp(_)]));
        assert!(matches!(events(&mut two)[..], [TransportEvent::LinkUp(_)]));
        assert_eq!(one.send(id(2), frame), Ok(()));
    }

    #[test]
    fn a_cut_one_way_silences_one_direction_only() {
        let network = MemoryNetwork::new();
        let (mut one, mut two) = pair(&network);
        network.cut_one_way(id(1), id(2));
        one.send(id(2), encode(GroupId::FIRST, &message(1))).unwrap();
        one.flush();
        assert!(events(&mut two).is_empty());
        two.send(id(1), encode(GroupId::FIRST, &message(1))).unwrap();
        two.flush();
        assert!(matches!(events(&mut one)[..], [TransportEvent::Frame { .. }]));
    }

    #[test]
    fn a_restarted_peer_is_down_and_up_again_with_its_new_boot() {
        let network = MemoryNetwork::new();
        let (mut one, two) = pair(&network);
        drop(two);
        let mut two = network.attach(identity(2, 2));
        two.set_peers(&[spec(1)]);
        let found = events(&mut one);
        assert!(matches!(found[0], TransportEvent::LinkDown { .. }), "{found:?}");
        let up = found.iter().find_map(|event| match event {
            TransportEvent::LinkUp(peer) => Some(peer.boot),
            _ => None,
        });
        assert_eq!(up, Some(Boot(2)));
    }

    #[test]
    fn a_peer_with_another_disk_is_refused_by_name_on_both_sides() {
        let network = MemoryNetwork::new();
        let mut one = network.attach(identity(1, 1));
        let mut two = network.attach(identity(2, 1));
        one.set_peers(&[PeerSpec { disk: Some(DiskId(99)), ..spec(2) }]);
        two.set_peers(&[spec(1)]);
        let refused = events(&mut one);
        assert!(matches!(refused[..], [TransportEvent::Refused { .. }]), "{refused:?}");
        let told = events(&mut two);
        let [TransportEvent::RefusedBy { code, reason, known_disk, .. }] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(*known_disk, Some(DiskId(99)));
        assert_eq!(*code, Reject::WRONG_DISK);
        assert!(
            reason.contains(&DiskId(99).to_string()) && reason.contains(&DiskId(2).to_string())
        );
    }

    #[test]
    fn a_poll_waits_even_if_the_caller_still_holds_events() {
        let (mut one, _two) = pair(&MemoryNetwork::new());
        let mut held = Vec::new();
        one.poll(Some(Duration::ZERO), &mut held).unwrap();
        let reason = String::new();
        held.push(TransportEvent::Unreachable { peer: id(9), reason });
        let before = deadline_after(Duration::from_millis(30)).unwrap();
        one.poll(Some(Duration::from_millis(30)), &mut held).unwrap();
        assert!(deadline_after(Duration::ZERO).unwrap() >= before);
        assert_eq!(held.len(), 1);
    }

    #[allow(clippy::disallowed_methods, reason = "a host's own thread")]
    #[test]
    fn a_wake_ends_a_sleeping_poll() {
        let network = MemoryNetwork::new();
        let mut one = network.attach(identity(1, 1));
        events(&mut one);
        let waker = one.waker();
        let thread = std::thread::spawn(move || waker.wake());
        one.poll(None, &mut Vec::new()).unwrap();
        thread.join().unwrap();
    }
}
