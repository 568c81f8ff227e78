//! Connections: how they come about, what travels on them, and how each side learns that they are gone.

use crate::replica::Input;
use crate::transport::codec::{self, Decoded};
use crate::transport::frame::FrameError;
use crate::transport::handshake::{Identity, Known, Reject, judge};
use crate::transport::{InFrame, SendError};
use crate::types::{GroupId, Message};

use super::marker::Marker;
use super::network::Passage;
use super::node;
use super::plan::Wire;
use super::world::{Event, World, node_id};

/// How long a side waits for a sign of the other before it gives a connection up.
pub(super) const DEAD_AFTER_US: u64 = 1_000_000;
/// How often two nodes look after their connection.
const LINK_CARE_US: u64 = 40_000;

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        let forward = match &message {
            Message::Forward(forward) => Some(forward.id),
            Message::ForwardReply(_)
            | Message::Raft(_)
            | Message::Snapshot(_)
            | Message::Read(_) => None,
        };
        if self.hand_over(from, to, message).is_err()
            && let Some(id) = forward
        {
            // As the host does: after everything else of this step.
            self.mark(Marker::ForwardUnsent);
            let is_too_large = false;
            let life = self.nodes[from].life.as_mut();
            if let Some(life) = life {
                life.unsent.push(Input::ForwardUnsent { id, is_too_large });
            }
        }
    }

    pub(super) fn hand_over(
        &mut self,
        from: usize,
        to: usize,
        message: Message,
    ) -> Result<(), SendError> {
        let now_us = self.now_us;
        let Some(connection) = self.net.get(from, to).connection else {
            return Err(SendError::NoLink);
        };
        if self.net.get(from, to).in_flight >= self.net.bound {
            self.mark(Marker::LinkFull);
            return Err(SendError::Full);
        }
        let Passage::Arrives(arrival_us, again_us) = self.net.passage(from, to, now_us) else {
            return Ok(());
        };
        let tie = self.net.get(from, to).tie;
        match self.net.wire {
            Wire::Messages => {
                if let Some(again_us) = again_us {
                    let message = message.clone();
                    self.net.to(from, to).in_flight += 1;
                    self.at(again_us, tie, Event::Deliver { from, to, connection, message });
                }
                self.net.to(from, to).in_flight += 1;
                self.at(arrival_us, tie, Event::Deliver { from, to, connection, message });
            }
            Wire::Bytes => {
                let frame = codec::encode(GroupId::FIRST, &message);
                let mut bytes = Vec::with_capacity(frame.len());
                bytes.extend_from_slice(&frame.head);
                frame.payloads.iter().for_each(|payload| bytes.extend_from_slice(payload));
                self.net.note_sent(from, to, &bytes);
                for arrival_us in [Some(arrival_us), again_us].into_iter().flatten() {
                    for bytes in self.net.chunks(from, to, bytes.clone()) {
                        self.net.to(from, to).in_flight += 1;
                        self.at(arrival_us, tie, Event::Chunk { from, to, connection, bytes });
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether what was sent on this connection reaches a process that holds it.
    pub(super) fn arrives(&mut self, from: usize, to: usize, connection: u64) -> bool {
        self.net.arrived(from, to);
        if self.net.get(to, from).connection != Some(connection) || !self.is_running(to) {
            self.mark(Marker::StaleMessage);
            return false;
        }
        if !self.net.is_open(from, to) && self.net.wire == Wire::Messages {
            return false;
        }
        let now_us = self.now_us;
        self.net.to(to, from).heard_us = now_us;
        true
    }

    pub(super) fn take_bytes(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let mut frames: Vec<InFrame> = Vec::new();
        let connection = self.net.get(to, from).connection;
        let result = self.net.to(from, to).reader.push(bytes, &mut frames);
        for frame in frames {
            if !self.is_running(to) || self.net.get(to, from).connection != connection {
                return;
            }
            match codec::decode(&frame) {
                Ok((_, Decoded::Message(message))) => {
                    if !self.net.was_sent(from, to, &frame.bytes) {
                        let sentence =
                            format!("node {} takes what node {} never said", to + 1, from + 1);
                        self.oracle.object("codec", sentence);
                    }
                    self.tell(|| format!("{} hears {message:?} of {}", to + 1, from + 1));
                    self.step(to, Input::Receive { from: node_id(from), message });
                }
                Ok((_, Decoded::Unknown(kind))) => self.bad_frame(&format!("unknown kind {kind}")),
                Err(error) => self.bad_frame(&error.to_string()),
            }
        }
        if let Err(error) = result {
            let error: FrameError = error;
            self.bad_frame(&error.to_string());
            self.break_link(from, to, "bad frame");
        }
    }

    pub(super) fn bad_frame(&mut self, what: &str) {
        self.mark(Marker::BadFrame);
        if !self.net.has_flipped {
            self.oracle.object("codec", format!("a frame that nobody damaged is refused: {what}"));
        }
    }

    /// One side's connection is gone, and the other is told, if it can be.
    pub(super) fn break_link(&mut self, a: usize, b: usize, reason: &str) {
        if let Some(connection) = self.net.get(a, b).connection
            && self.net.is_open(b, a)
        {
            let after_us = self.plan.delay_us;
            self.later(after_us, Event::Broken { at: a, peer: b, connection });
        }
        self.link_down(b, a, reason);
    }

    /// A side gives its connection up.
    pub(super) fn link_down(&mut self, at: usize, peer: usize, reason: &str) {
        if self.net.to(at, peer).connection.take().is_some() {
            if self.net.get(peer, at).reader.is_mid_frame() {
                self.mark(Marker::CutFrame);
            }
            let input = Input::LinkDown { peer: node_id(peer), reason: reason.to_owned() };
            self.step(at, input);
        }
    }

    /// Two nodes look after their connection: dial, answer what belongs to an old one, give up the silent.
    pub(super) fn care(&mut self, a: usize, b: usize) {
        let (held_a, held_b) = (self.net.get(a, b).connection, self.net.get(b, a).connection);
        let awake = |at: usize| self.nodes[at].paused_until_us <= self.now_us;
        let both_ways = self.net.is_open(a, b) && self.net.is_open(b, a) && awake(a) && awake(b);
        if held_a == held_b {
            if held_a.is_some() {
                self.give_up_if_silent(a, b);
                self.give_up_if_silent(b, a);
            } else if both_ways && self.is_running(a) && self.is_running(b) {
                self.connect(a, b);
            }
        } else {
            for (at, peer) in [(a, b), (b, a)] {
                if self.net.get(at, peer).connection.is_some() {
                    if both_ways {
                        self.link_down(at, peer, "connection reset");
                    } else {
                        self.give_up_if_silent(at, peer);
                    }
                }
            }
        }
        let after_us = self.net.to(a, b).chooser.around(LINK_CARE_US);
        self.later(after_us, Event::Care { a, b });
    }

    pub(super) fn give_up_if_silent(&mut self, at: usize, peer: usize) {
        let direction = self.net.get(at, peer);
        let asleep = self.nodes[at].paused_until_us > self.now_us;
        // An idle but open connection is kept alive by pings.
        let silent = !self.net.is_open(peer, at) || !self.is_running(peer);
        if silent && !asleep && self.now_us.saturating_sub(direction.heard_us) > DEAD_AFTER_US {
            self.link_down(at, peer, "nothing heard");
        }
    }

    pub(super) fn identity(&self, at: usize) -> Option<Identity> {
        let life = self.nodes[at].life.as_ref()?;
        Some(Identity::peer(
            node::CLUSTER,
            0,
            node_id(at),
            life.disk_id,
            life.boot,
            life.founders_hash,
        ))
    }

    /// A handshake: each side judges the other by what it knows.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        for (at, peer) in [(a, b), (b, a)] {
            let (Some(own), Some(other)) = (self.identity(at), self.identity(peer)) else { return };
            let (own, other) =
                (own.addressed_to(Some(node_id(peer))), other.addressed_to(Some(node_id(at))));
            let member = self.nodes[at]
                .life
                .as_ref()
                .and_then(|life| life.replica.raft().membership().members.get(&node_id(peer)));
            let disk = member.and_then(|member| member.disk_id);
            let known = Known { expected: Some(node_id(peer)), disk, connected: None };
            if let Err(refused) = judge(&own, &other, &known) {
                let told = refused.told;
                match told.known_disk.filter(|_| told.code == Reject::WRONG_DISK) {
                    Some(known) => self.step(peer, Input::WrongDisk { known }),
                    None => {
                        let sentence =
                            format!("node {} refuses node {}: {}", at + 1, peer + 1, told.words);
                        self.oracle.object("handshake", sentence);
                    }
                }
                return;
            }
        }
        self.net.connect(a, b, self.now_us);
        for (at, peer) in [(a, b), (b, a)] {
            if let Some(Identity { disk, boot, .. }) = self.identity(peer) {
                self.step(at, Input::LinkUp { peer: node_id(peer), disk, boot });
            }
        }
    }
}
