//! Transports over loopback, driven by hand: every wait is for a condition, with a deadline.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm
)]

pub mod by_hand;
pub mod wire;

use std::time::{Duration, Instant};

use raftz_core::transport::codec::{Decoded, decode, encode};
use raftz_core::transport::handshake::Identity;
use raftz_core::transport::tcp::{Listen, TcpConfig, TcpTransport};
use raftz_core::transport::{
    OutFrame, PeerIdentity, PeerSpec, SendError, Transport, TransportEvent,
};
use raftz_core::types::{
    Boot, ClusterId, DiskId, Forward, ForwardedProposal, GroupId, LogId, Message, NodeId, Payload,
    SnapshotId, SnapshotMessage,
};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

pub fn identity(node: u64) -> Identity {
    Identity::peer(ClusterId(7), 1, id(node), DiskId(100 + u128::from(node)), Boot(1), 0)
}

pub fn config(identity: Identity) -> TcpConfig {
    let mut config = TcpConfig::new(identity, Listen::Address("127.0.0.1:0".into()));
    config.seed = 1;
    config
}

/// A transport and everything that it has reported.
pub struct Rig {
    pub transport: TcpTransport,
    pub seen: Vec<TransportEvent>,
}

impl Rig {
    pub fn new(identity: Identity) -> Self {
        Self::with(config(identity))
    }

    pub fn with(config: TcpConfig) -> Self {
        Self { transport: TcpTransport::new(config).unwrap(), seen: Vec::new() }
    }

    pub fn address(&self) -> String {
        self.transport.local_address().unwrap()
    }

    pub fn knows(&mut self, peers: &[(u64, &str)]) {
        let specs: Vec<PeerSpec> = peers
            .iter()
            .map(|(node, address)| PeerSpec {
                node: id(*node),
                address: (*address).to_owned(),
                disk: None,
            })
            .collect();
        self.transport.set_peers(&specs);
    }

    pub fn ups(&self, node: u64) -> Vec<PeerIdentity> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::LinkUp(peer) if peer.node == id(node) => Some(*peer),
                _ => None,
            })
            .collect()
    }

    pub fn downs(&self, node: u64) -> Vec<&str> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::LinkDown { peer, reason } if *peer == id(node) => {
                    Some(reason.as_str())
                }
                _ => None,
            })
            .collect()
    }

    pub fn is_up(&self, node: u64) -> bool {
        self.ups(node).len() > self.downs(node).len()
    }

    /// Numbers of the forwards received from a node, in the order of arrival.
    pub fn received(&self, node: u64) -> Vec<u64> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::Frame { from, frame } if *from == id(node) => {
                    match decode(frame).unwrap() {
                        (GroupId::FIRST, Decoded::Message(Message::Forward(forward))) => {
                            Some(forward.id)
                        }
                        (_, Decoded::Message(Message::Snapshot(_) | Message::Read(_))) => None,
                        other => panic!("{other:?}"),
                    }
                }
                _ => None,
            })
            .collect()
    }

    /// Numbers of the bulk frames received from a node, in the order of arrival.
    pub fn pieces(&self, node: u64) -> Vec<u64> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::Frame { from, frame } if *from == id(node) => {
                    match decode(frame).unwrap().1 {
                        Decoded::Message(Message::Snapshot(SnapshotMessage::Piece {
                            offset,
                            ..
                        })) => Some(offset),
                        _ => None,
                    }
                }
                _ => None,
            })
            .collect()
    }

    pub fn troubles(&self) -> Vec<&str> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::Trouble { detail } => Some(detail.as_str()),
                _ => None,
            })
            .collect()
    }

    pub fn send_piece(&mut self, to: u64, number: u64, bytes: usize) -> Result<(), SendError> {
        self.transport.send(id(to), piece(number, bytes))
    }

    pub fn refusals_by(&self, node: u64) -> Vec<(u16, &str)> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::RefusedBy { peer, code, reason, .. } if *peer == id(node) => {
                    Some((*code, reason.as_str()))
                }
                _ => None,
            })
            .collect()
    }

    /// Codes and words of the refusals that this rig gave a node.
    pub fn refusals_of(&self, node: u64) -> Vec<(u16, &str)> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::Refused { peer, code, reason, .. } if *peer == id(node) => {
                    Some((*code, reason.as_str()))
                }
                _ => None,
            })
            .collect()
    }

    /// The directories by which a node says that it knows this one.
    pub fn disks_known_by(&self, node: u64) -> Vec<Option<DiskId>> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::RefusedBy { peer, known_disk, .. } if *peer == id(node) => {
                    Some(*known_disk)
                }
                _ => None,
            })
            .collect()
    }

    pub fn unreachable(&self, node: u64) -> Vec<&str> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                TransportEvent::Unreachable { peer, reason } if *peer == id(node) => {
                    Some(reason.as_str())
                }
                _ => None,
            })
            .collect()
    }

    pub fn send(&mut self, to: u64, number: u64, bytes: usize) -> Result<(), SendError> {
        self.transport.send(id(to), frame(number, bytes))
    }

    pub fn poll(&mut self) {
        self.transport.poll(Some(Duration::from_millis(2)), &mut self.seen).unwrap();
        self.check_pairs();
    }

    /// What holds at any time: links go up and down in turn, frames come between.
    fn check_pairs(&self) {
        let mut up = std::collections::BTreeSet::new();
        for event in &self.seen {
            match event {
                TransportEvent::LinkUp(peer) => assert!(up.insert(peer.node), "up twice"),
                TransportEvent::LinkDown { peer, .. } => assert!(up.remove(peer), "down twice"),
                TransportEvent::Frame { from, .. } => {
                    assert!(up.contains(from), "frame while down")
                }
                TransportEvent::Unreachable { .. }
                | TransportEvent::Refused { .. }
                | TransportEvent::Trouble { .. }
                | TransportEvent::RefusedBy { .. } => {}
            }
        }
    }
}

pub fn frame(number: u64, bytes: usize) -> OutFrame {
    let payload = Payload::new(vec![number as u8; bytes]);
    let proposals = vec![ForwardedProposal { payload, session: None }];
    let forward = Forward { id: number, patience_us: bytes as u64, proposals };
    encode(GroupId::FIRST, &Message::Forward(forward))
}

/// A bulk frame.
pub fn piece(number: u64, bytes: usize) -> OutFrame {
    let id = SnapshotId { last: LogId::ZERO, bytes: 1 << 40, hash: [0; 32] };
    let bytes = vec![number as u8; bytes].into();
    let piece = SnapshotMessage::Piece { id, offset: number, bytes };
    encode(GroupId::FIRST, &Message::Snapshot(piece))
}

/// Drives all rigs in turn until `done`, or fails naming `what`.
pub fn until(rigs: &mut [&mut Rig], what: &str, done: impl Fn(&[&mut Rig]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(rigs) {
        assert!(
            Instant::now() < deadline,
            "not in time: {what}; seen {:?}",
            rigs.iter()
                .map(|rig| {
                    let tail = rig.seen.len().saturating_sub(6);
                    format!("{:.600}", format!("{:?}", &rig.seen[tail..]))
                })
                .collect::<Vec<_>>()
        );
        for rig in rigs.iter_mut() {
            rig.poll();
        }
    }
}

/// Two rigs with a link between them.
pub fn pair() -> (Rig, Rig) {
    pair_of(Rig::new(identity(1)), Rig::new(identity(2)))
}

pub fn pair_of(mut one: Rig, mut two: Rig) -> (Rig, Rig) {
    let (first, second) = (one.address(), two.address());
    one.knows(&[(1, &first), (2, &second)]);
    two.knows(&[(1, &first), (2, &second)]);
    until(&mut [&mut one, &mut two], "link", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
    (one, two)
}
