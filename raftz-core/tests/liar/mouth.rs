//! The liar's mouth: a real transport with a valid identity, driven by the test.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use raftz_core::transport::codec::{Decoded, decode, encode};
use raftz_core::transport::handshake::Identity;
use raftz_core::transport::tcp::{Listen, TcpConfig, TcpTransport};
use raftz_core::transport::{PeerSpec, Transport, TransportEvent};
use raftz_core::types::{
    Append, AppendOutcome, AppendReply, Boot, DiskId, Entry, EntryKind, GroupId, Heartbeat,
    HeartbeatReply, Index, LogId, Message, NodeId, Payload, RaftBody, RaftMessage, Term,
};

use super::honest::{CLUSTER, Honest};
use super::support::{LONG, id};

/// Somebody who says what the test says.
pub(crate) struct Mouth {
    transport: TcpTransport,
    /// Nodes with a link.
    pub(crate) linked: BTreeSet<u64>,
    /// Everything heard: the speaker and the message.
    pub(crate) heard: Vec<(u64, Message)>,
    /// Refusals: who refused, and its code.
    pub(crate) refused: Vec<(u64, u16)>,
    /// Whether heartbeats are answered, so that a leader stays in office.
    pub(crate) polite: bool,
}

impl Mouth {
    /// With the identity of node `n`, on its one directory, in its first life.
    pub(crate) fn of(n: u64, honest: &Honest) -> Self {
        Self::living(n, honest, DiskId(3000 + u128::from(n)), Boot(1))
    }

    pub(crate) fn living(n: u64, honest: &Honest, disk: DiskId, boot: Boot) -> Self {
        let hash = honest.base.founders_hash();
        let identity = Identity::peer(CLUSTER, 0, id(n), disk, boot, hash);
        let mut config = TcpConfig::new(identity, Listen::Nowhere);
        config.seed = n;
        let mut transport = TcpTransport::new(config).unwrap();
        let peers = honest.addresses.iter().filter(|(peer, _)| **peer < 3 && **peer != n);
        let peers: Vec<PeerSpec> = peers
            .map(|(peer, address)| PeerSpec {
                node: id(*peer),
                address: address.clone(),
                disk: None,
            })
            .collect();
        transport.set_peers(&peers);
        Self {
            transport,
            linked: BTreeSet::new(),
            heard: Vec::new(),
            refused: Vec::new(),
            polite: true,
        }
    }

    /// Hears what there is and stays polite.
    pub(crate) fn listen(&mut self) {
        let mut events = Vec::new();
        self.transport.poll(Some(Duration::from_millis(2)), &mut events).unwrap();
        for event in events {
            match event {
                TransportEvent::LinkUp(peer) => drop(self.linked.insert(peer.node.get())),
                TransportEvent::LinkDown { peer, .. } => drop(self.linked.remove(&peer.get())),
                TransportEvent::RefusedBy { peer, code, .. } => {
                    self.refused.push((peer.get(), code));
                }
                TransportEvent::Frame { from, frame } => {
                    let (_, decoded) = decode(&frame).unwrap();
                    let Decoded::Message(message) = decoded else { panic!("{decoded:?}") };
                    self.answer(from, &message);
                    self.heard.push((from.get(), message));
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, from: NodeId, message: &Message) {
        let Message::Raft(RaftMessage { term, body: RaftBody::Heartbeat(beat) }) = message else {
            return;
        };
        if self.polite {
            let Heartbeat { session, round, sent_us, .. } = *beat;
            let reply = HeartbeatReply {
                session,
                round,
                sent_us,
                clock_us: 0,
                faith_us: 0,
                fitness: 0,
                storage_full: false,
            };
            self.say(from.get(), *term, RaftBody::HeartbeatReply(reply));
        }
    }

    /// Says something; a link that is not there loses it, as it may.
    pub(crate) fn say(&mut self, to: u64, term: Term, body: RaftBody) {
        self.tell(to, &Message::Raft(RaftMessage { term, body }));
    }

    pub(crate) fn tell(&mut self, to: u64, message: &Message) {
        let _ = self.transport.send(id(to), encode(GroupId::FIRST, message));
    }

    /// Listens until `done`.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} did not happen");
            self.listen();
        }
    }

    /// Waits for links with these nodes.
    pub(crate) fn link(&mut self, nodes: &[u64]) {
        self.until("links", |mouth| nodes.iter().all(|n| mouth.linked.contains(n)));
    }

    /// Term, session and entries of the newest append that a leader sent.
    pub(crate) fn newest_append(&self, leader: u64) -> Option<(Term, &Append)> {
        self.heard.iter().rev().find_map(|(from, message)| match message {
            Message::Raft(RaftMessage { term, body: RaftBody::Append(append) })
                if *from == leader =>
            {
                Some((*term, append))
            }
            _ => None,
        })
    }

    /// Waits until the leader has asked what this member holds; gives term and session of its question.
    /// It sends entries only to who has answered that.
    pub(crate) fn hear_session(&mut self, leader: u64) -> (Term, u64) {
        let mut found = None;
        self.until("the leader's question", |mouth| {
            found = mouth.newest_append(leader).map(|(term, append)| (term, append.session));
            found.is_some()
        });
        found.unwrap()
    }

    /// Claims to have stored everything up to `matched`.
    pub(crate) fn acknowledge(&mut self, to: u64, term: Term, session: u64, matched: Index) {
        let outcome = AppendOutcome::Matched { matched, storage_full: false };
        self.say(to, term, RaftBody::AppendReply(AppendReply { session, outcome }));
    }

    /// Waits until a node has dealt with everything said to it so far. Frames keep their order, and the
    /// last one is nonsense that the node tells of.
    pub(crate) fn be_heard(&mut self, by: u64, honest: &Honest) {
        const TOLD: &str = "an absurd term";
        let before = honest.count_nonsense(by, TOLD);
        self.until("its last words to be dealt with", |mouth| {
            // Said again and again: a link may break, and what is queued is lost.
            mouth.say(by, Term(u64::MAX), RaftBody::TimeoutNow);
            mouth.listen();
            honest.count_nonsense(by, TOLD) > before
        });
    }
}

/// A command that nobody proposed.
pub(crate) fn forged(term: Term, index: Index) -> Entry {
    Entry {
        term,
        index,
        log_time_us: 1 << 61,
        kind: EntryKind::Command,
        session: None,
        payload: Payload::new("forged"),
    }
}

pub(crate) fn append(prev: LogId, commit: Index, entries: Vec<Entry>) -> RaftBody {
    RaftBody::Append(Append { session: 1, prev, commit, entries: entries.into() })
}

pub(crate) fn heartbeat(commit: LogId) -> RaftBody {
    RaftBody::Heartbeat(Heartbeat {
        session: 1,
        round: 1,
        commit,
        sent_us: 0,
        confirmed_clock_us: 0,
        faith_us: 0,
    })
}
