//! The runtime itself: what happens when its own loop breaks, and where it logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raftz_core::node::{Node, NodeError, ProposeOptions};
use raftz_core::transport::codec;
use raftz_core::transport::handshake::Reject;
use raftz_core::transport::memory::MemoryNetwork;
use raftz_core::transport::{OutFrame, PeerSpec, SendError, Transport, TransportEvent, Wake};
use raftz_core::types::{DiskId, FaultReason, NodeId, Outcome, Refusal, Unknown};
use support::lines::Lines;
use support::{Cluster, LONG, Mood, TestMachine, config, done, id, until};

/// Works until told to break.
struct Breaking {
    inner: Box<dyn Transport>,
    panics: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
}

/// Takes no answers to forwarded calls beyond 1000 bytes.
struct Narrow(Box<dyn Transport>);

impl Transport for Narrow {
    fn set_peers(&mut self, peers: &[PeerSpec]) {
        self.0.set_peers(peers);
    }
    fn send(&mut self, to: NodeId, frame: OutFrame) -> Result<(), SendError> {
        let kind = u16::from_le_bytes([frame.head[6], frame.head[7]]);
        if kind == codec::kind::FORWARD_REPLY && frame.len() > 1000 {
            return Err(SendError::TooLarge);
        }
        self.0.send(to, frame)
    }
    fn poll(
        &mut self,
        timeout: Option<Duration>,
        events: &mut Vec<TransportEvent>,
    ) -> std::io::Result<()> {
        self.0.poll(timeout, events)
    }
    fn flush(&mut self) {
        self.0.flush();
    }
    fn waker(&self) -> Arc<dyn Wake> {
        self.0.waker()
    }
    fn local_address(&self) -> Option<String> {
        None
    }
}

#[test]
fn answers_too_large_for_one_frame_come_in_parts_or_as_a_reason() {
    let network = MemoryNetwork::new();
    let nodes: Vec<Node> = (1..=2)
        .map(|n| {
            Node::start_with_transport(
                config(n, 2),
                |hello| Ok(Box::new(Narrow(Box::new(network.attach(hello))))),
                TestMachine::default().factory(),
            )
            .unwrap()
        })
        .collect();
    until("a leader that both know", || {
        let leaders: Vec<_> = nodes.iter().map(|node| node.status().leader).collect();
        leaders[0].is_some() && leaders[0] == leaders[1]
    });
    let follower = nodes.iter().find(|node| node.status().leader != Some(node.id())).unwrap();
    let options = || ProposeOptions { timeout: Some(LONG), ..ProposeOptions::default() };
    let commands: Vec<Bytes> = (0..7_u8).map(|n| Bytes::from(vec![n; 600])).collect();
    for (outcome, command) in
        follower.propose_batch(commands.clone(), options()).wait().into_iter().zip(commands)
    {
        assert_eq!(*done(outcome).reply.bytes(), command);
    }
    let outcome = follower.propose_opt(vec![1; 5000], options()).wait();
    let Outcome::Unknown(Unknown::Faulted { reason }) = &outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("larger than any message"), "{reason}");
}

/// Reports what it was given, once.
struct Telling {
    inner: Box<dyn Transport>,
    events: Vec<TransportEvent>,
}

impl Transport for Telling {
    fn set_peers(&mut self, peers: &[PeerSpec]) {
        self.inner.set_peers(peers);
    }
    fn send(&mut self, to: NodeId, frame: OutFrame) -> Result<(), SendError> {
        self.inner.send(to, frame)
    }
    fn poll(
        &mut self,
        timeout: Option<Duration>,
        events: &mut Vec<TransportEvent>,
    ) -> std::io::Result<()> {
        events.append(&mut self.events);
        self.inner.poll(timeout, events)
    }
    fn flush(&mut self) {
        self.inner.flush();
    }
    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }
    fn local_address(&self) -> Option<String> {
        None
    }
}

fn refused_by(peer: u64, code: u16, known_disk: Option<DiskId>) -> TransportEvent {
    let reason = format!("words of {peer}");
    TransportEvent::RefusedBy { peer: id(peer), code, reason, known_disk }
}

#[test]
fn only_a_member_that_can_be_right_ends_a_node_for_its_disk() {
    let start = |tell: &dyn Fn(DiskId) -> TransportEvent| {
        let network = MemoryNetwork::new();
        let lines = Lines::default();
        let node = tracing::subscriber::with_default(lines.clone(), || {
            Node::start_with_transport(
                config(1, 3),
                |hello| {
                    let events = vec![tell(hello.disk)];
                    Ok(Box::new(Telling { events, inner: Box::new(network.attach(hello)) }))
                },
                TestMachine::default().factory(),
            )
            .unwrap()
        });
        until("the refusal to be told", || lines.any(|line| line.contains("words of")));
        node.status().fault
    };
    let code = Reject::WRONG_DISK;
    assert_eq!(start(&|_| refused_by(9, code, Some(DiskId(7)))), None, "a stranger");
    assert_eq!(start(&|ours| refused_by(2, code, Some(ours))), None, "our own disk");
    assert_eq!(start(&|_| refused_by(2, code, None)), None, "no disk");
    assert_eq!(start(&|_| refused_by(2, Reject::NOT_ME, Some(DiskId(7)))), None, "another reason");
    let fault = start(&|_| refused_by(2, code, Some(DiskId(7))));
    assert!(matches!(fault, Some(FaultReason::WrongDisk { known: DiskId(7), .. })), "{fault:?}");
}

impl Transport for Breaking {
    fn set_peers(&mut self, peers: &[PeerSpec]) {
        self.inner.set_peers(peers);
    }
    fn send(&mut self, to: NodeId, frame: OutFrame) -> Result<(), SendError> {
        self.inner.send(to, frame)
    }
    fn poll(
        &mut self,
        timeout: Option<Duration>,
        events: &mut Vec<TransportEvent>,
    ) -> std::io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the transport failed"));
        }
        self.inner.poll(timeout, events)?;
        assert!(!self.panics.load(Ordering::SeqCst), "the transport broke");
        Ok(())
    }
    fn flush(&mut self) {
        self.inner.flush();
    }
    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }
    fn local_address(&self) -> Option<String> {
        None
    }
}

#[test]
fn a_loop_that_breaks_faults_the_node_and_answers_everybody() {
    for panics in [true, false] {
        let broken = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
        let network = MemoryNetwork::new();
        let (panic, fail) = (Arc::clone(&broken[0]), Arc::clone(&broken[1]));
        let gate = support::Gate::default();
        let machine =
            TestMachine { gate: Some(gate.clone()), ..TestMachine::with_mood(Mood::Fine, false) };
        let node = Node::start_with_transport(
            config(1, 1),
            |hello| {
                let inner = Box::new(network.attach(hello));
                Ok(Box::new(Breaking { inner, panics: panic, fails: fail }) as Box<dyn Transport>)
            },
            machine.factory(),
        )
        .unwrap();
        node.wait_for_leader(LONG).unwrap();
        let waiting = node.propose("never applied");
        until("it to be in the log", || node.status().commit.0 >= 2);
        broken[usize::from(!panics)].store(true, Ordering::SeqCst);
        // Wakes the loop, so that it meets its fate.
        let last = node.propose("wakes").wait();
        assert!(!matches!(last, Outcome::Done(_)), "{last:?}");
        let outcome = waiting.wait();
        let Outcome::Unknown(Unknown::Faulted { reason }) = &outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("the transport"), "{reason}");
        let refused = node.propose("x").wait();
        assert!(matches!(refused, Outcome::Refused(Refusal::Faulted { .. })), "{refused:?}");
        assert!(matches!(node.status().fault, Some(FaultReason::Host(_))));
        assert!(matches!(node.wait_for_leader(LONG), Err(NodeError::Faulted { .. })));
        gate.open();
        node.shutdown(LONG).unwrap();
    }
}

#[test]
fn a_transport_that_cannot_be_made_starts_nothing_and_says_why() {
    let error = Node::start_with_transport(
        config(1, 1),
        |_| Err("no network here".into()),
        TestMachine::default().factory(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("no network here"), "{error}");
}

#[test]
fn a_node_logs_under_the_dispatcher_of_its_start_from_its_callback_thread() {
    let (ours, theirs) = (Lines::default(), Lines::default());
    let cluster = tracing::subscriber::with_default(ours.clone(), || Cluster::start(1, true));
    let other = tracing::subscriber::with_default(theirs.clone(), || {
        let mut config = config(1, 1);
        config.founders[0].address = "127.0.0.1:9".into();
        let network = MemoryNetwork::new();
        Node::start_in_network(config, &network, TestMachine::default().factory()).unwrap()
    });
    cluster.leader();
    done(cluster.node(1).propose("x").wait());
    until("a line about the leader", || ours.any(|line| line.contains("node 1 leads")));
    assert!(!ours.any(|line| !line.starts_with("raftz-1-call:")));
    other.wait_for_leader(LONG).unwrap();
    until("its own line", || theirs.any(|_| true));
}
