//! One connection as a byte-stream state machine: bytes in, bytes out, deadlines asked for. It
//! owns no socket and reads no clock, so that an encrypting layer can slip in below it.
//!
//! A link passes through a handshake (see [`handshake`](crate::transport::handshake)), whose
//! messages it hands up to be judged, and then carries frames. Any byte is a sign of life; after
//! some silence the link asks with a ping, and after more it is dead. A peer that takes no bytes
//! off the wire while some wait is dead by the same measure, whatever it sends.
//!
//! A bulk link says no pings: on a slow wire the answer would come too late, behind all that the
//! system has buffered. It ends when nothing has moved for a while, for whatever reason; whether the
//! peer lives is seen on the link beside it.

use std::io::{self, IoSlice};

use super::queue::SendQueue;
use crate::transport::codec::{encode_bare, kind, kind_of};
use crate::transport::frame::{FrameError, FrameLimits, FrameReader};
use crate::transport::handshake::{
    Accepted, HANDSHAKE_BYTES_MAX, HandshakeError, HandshakeMessage, Identity,
};
use crate::transport::{InFrame, OutFrame, SendError};
use crate::types::NodeId;

/// The bounds and intervals of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkLimits {
    pub frames: FrameLimits,
    pub queue_bytes_max: usize,
    pub handshake_us: u64,
    pub ping_after_us: u64,
    pub dead_after_us: u64,
    pub bulk_idle_us: u64,
}

/// How far a link has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Dialled; the system has not connected it yet.
    Connecting,
    /// Dialled and greeted; the answer is awaited.
    AwaitWelcome,
    /// Accepted from the listener; nothing is known of the other side.
    AwaitHello,
    /// Welcomed; the other side has not agreed yet.
    AwaitConfirm(Box<Identity>),
    /// Carries frames.
    Ready(Box<Ready>),
    /// Writes a last message, then is closed.
    Closing,
}

/// A link that carries frames.
#[derive(Debug)]
pub(super) struct Ready {
    pub peer: Accepted,
    pub since_us: u64,
    /// Another link took over: nothing new is sent here, what comes is still taken.
    pub retiring: bool,
}

/// Why a link must be closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the handshake was not finished within {0} ms")]
    HandshakeTimeout(u64),
    #[error("more bytes before the end of the handshake than one message has")]
    HandshakeTooLong,
    #[error("nothing was heard for {0} ms")]
    Silent(u64),
    #[error("the peer took no bytes off the wire for {0} ms")]
    Stalled(u64),
    #[error("nothing moved on the bulk connection for {0} ms")]
    Idle(u64),
}

/// One connection without its socket.
#[derive(Debug)]
pub(super) struct Link {
    /// The peer that was dialled; `None` for an accepted connection.
    pub dialled: Option<NodeId>,
    /// Whether it carries bulk frames beside another link.
    pub is_bulk: bool,
    pub phase: Phase,
    reader: FrameReader,
    handshake: Vec<u8>,
    queue: SendQueue,
    limits: LinkLimits,
    opened_us: u64,
    heard_us: u64,
    /// When bytes were last written, or began to wait.
    moved_us: u64,
    /// When the frame that has not arrived whole began to arrive.
    frame_since_us: u64,
    pinged: bool,
}

impl Link {
    /// A link at its beginning.
    pub(super) fn new(dialled: Option<NodeId>, limits: LinkLimits, now_us: u64) -> Self {
        Self {
            dialled,
            is_bulk: false,
            phase: if dialled.is_some() { Phase::Connecting } else { Phase::AwaitHello },
            reader: FrameReader::new(limits.frames),
            handshake: Vec::new(),
            queue: SendQueue::default(),
            limits,
            opened_us: now_us,
            heard_us: now_us,
            moved_us: now_us,
            frame_since_us: now_us,
            pinged: false,
        }
    }

    /// The judged peer, once the link carries frames.
    pub(super) fn ready(&self) -> Option<&Ready> {
        match &self.phase {
            Phase::Ready(ready) => Some(ready),
            Phase::Connecting
            | Phase::AwaitWelcome
            | Phase::AwaitHello
            | Phase::AwaitConfirm(_)
            | Phase::Closing => None,
        }
    }

    /// Whether another link took over.
    pub(super) fn is_retiring(&self) -> bool {
        self.ready().is_some_and(|ready| ready.retiring)
    }

    /// Marks a link that another one replaces.
    pub(super) fn retire(&mut self) {
        if let Phase::Ready(ready) = &mut self.phase {
            ready.retiring = true;
        }
    }

    /// Whether it is an accepted connection of somebody still unknown.
    pub(super) const fn is_unauthenticated(&self) -> bool {
        self.dialled.is_none() && !matches!(self.phase, Phase::Ready(_))
    }

    /// Queues a handshake message.
    pub(super) fn say(&mut self, message: &HandshakeMessage, now_us: u64) {
        self.begin_wait(now_us);
        self.queue.push_handshake(message.encode());
    }

    /// Queues a frame.
    pub(super) fn send(&mut self, frame: OutFrame, now_us: u64) -> Result<(), SendError> {
        let Some(ready) = self.ready() else { return Err(SendError::NoLink) };
        if frame.len() > ready.peer.frame_bytes_max {
            return Err(SendError::TooLarge);
        }
        self.begin_wait(now_us);
        self.queue.push(frame, self.limits.queue_bytes_max)
    }

    /// Queues frames that waited for this link, whatever the bound.
    pub(super) fn send_waiting(&mut self, frames: impl Iterator<Item = OutFrame>, now_us: u64) {
        self.begin_wait(now_us);
        for frame in frames {
            // Refused by its bound alone, and there is none.
            let _ = self.queue.push(frame, usize::MAX);
        }
    }

    /// Changes how many bytes may wait; what waits already stays.
    pub(super) const fn bound_queue(&mut self, bytes_max: usize) {
        self.limits.queue_bytes_max = bytes_max;
    }

    fn begin_wait(&mut self, now_us: u64) {
        if self.queue.is_empty() {
            self.moved_us = now_us;
        }
    }

    /// Whether there are bytes to write.
    pub(super) const fn wants_write(&self) -> bool {
        !self.queue.is_empty() && !matches!(self.phase, Phase::Connecting)
    }

    /// Writes by `send` what it takes.
    pub(super) fn write(
        &mut self,
        now_us: u64,
        send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if self.queue.write(send)? > 0 {
            self.moved_us = now_us;
        }
        Ok(())
    }

    /// The buffer of a large frame to read into directly, see [`FrameReader::direct`].
    pub(super) fn direct(&mut self) -> Option<&mut Vec<u8>> {
        if matches!(self.phase, Phase::Ready(_)) { self.reader.direct() } else { None }
    }

    /// Takes notice of bytes read into [`Link::direct`].
    pub(super) fn direct_done(
        &mut self,
        now_us: u64,
        frames: &mut Vec<InFrame>,
    ) -> Result<(), LinkError> {
        let from = frames.len();
        self.hear(now_us);
        self.reader.direct_done(frames)?;
        if frames.len() > from {
            self.frame_since_us = now_us;
        }
        self.keep_own(now_us, frames, from);
        Ok(())
    }

    /// The frame that has not arrived whole: since when it arrives, and the bytes held for it.
    pub(super) fn unfinished_frame(&self) -> Option<(u64, usize)> {
        self.reader.is_mid_frame().then(|| (self.frame_since_us, self.reader.held_bytes()))
    }

    /// Takes arrived bytes: gives the next message of the handshake to be judged, or appends
    /// frames. Bytes behind a handshake message wait until [`Link::resume`].
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        now_us: u64,
        frames: &mut Vec<InFrame>,
    ) -> Result<Option<HandshakeMessage>, LinkError> {
        self.hear(now_us);
        match &self.phase {
            Phase::Ready(_) => {
                let from = frames.len();
                let began = !self.reader.is_mid_frame();
                self.reader.push(bytes, frames)?;
                if began || frames.len() > from {
                    self.frame_since_us = now_us;
                }
                self.keep_own(now_us, frames, from);
                Ok(None)
            }
            Phase::Closing => Ok(None),
            Phase::AwaitHello => {
                // A stranger gets no more than one message's bytes; nothing may follow a hello.
                if self.handshake.len() + bytes.len() > HANDSHAKE_BYTES_MAX {
                    return Err(LinkError::HandshakeTooLong);
                }
                self.handshake.extend_from_slice(bytes);
                self.next_message()
            }
            Phase::Connecting | Phase::AwaitWelcome | Phase::AwaitConfirm(_) => {
                self.handshake.extend_from_slice(bytes);
                self.next_message()
            }
        }
    }

    /// Goes on with the bytes that came behind a handshake message, after the phase has changed.
    pub(super) fn resume(
        &mut self,
        now_us: u64,
        frames: &mut Vec<InFrame>,
    ) -> Result<Option<HandshakeMessage>, LinkError> {
        if self.handshake.is_empty() {
            return Ok(None);
        }
        let rest = std::mem::take(&mut self.handshake);
        self.receive(&rest, now_us, frames)
    }

    fn next_message(&mut self) -> Result<Option<HandshakeMessage>, LinkError> {
        match HandshakeMessage::decode(&self.handshake)? {
            Some((message, taken)) => {
                self.handshake.drain(..taken);
                Ok(Some(message))
            }
            None => Ok(None),
        }
    }

    /// Notes a sign of life.
    pub(super) const fn hear(&mut self, now_us: u64) {
        self.heard_us = now_us;
        self.pinged = false;
    }

    /// Answers pings, and takes the transport's own frames out of what is handed up.
    fn keep_own(&mut self, now_us: u64, frames: &mut Vec<InFrame>, from: usize) {
        let mut pings = false;
        let mut at = 0;
        // One pass: a flood of pings must not cost the square of its length.
        frames.retain(|frame| {
            at += 1;
            match kind_of(frame) {
                Some(_) | None if at <= from => true,
                Some(kind::PING) => {
                    pings = true;
                    false
                }
                Some(kind::PONG) => false,
                Some(_) | None => true,
            }
        });
        if pings {
            self.begin_wait(now_us);
            // A full queue is answer enough: its bytes are a sign of life.
            let _ = self.queue.push(encode_bare(kind::PONG), self.limits.queue_bytes_max);
        }
    }

    /// Does what is due: a ping, or the end.
    pub(super) fn tick(&mut self, now_us: u64) -> Result<(), LinkError> {
        match &self.phase {
            Phase::Ready(_) if self.is_bulk => {
                if now_us >= self.bulk_idle_at_us() {
                    return Err(LinkError::Idle(self.limits.bulk_idle_us / 1000));
                }
                Ok(())
            }
            Phase::Ready(_) => {
                let dead = self.limits.dead_after_us;
                if now_us >= self.heard_us.saturating_add(dead) {
                    return Err(LinkError::Silent(dead / 1000));
                }
                if !self.queue.is_empty() && now_us >= self.moved_us.saturating_add(dead) {
                    return Err(LinkError::Stalled(dead / 1000));
                }
                let ping_at = self.heard_us.saturating_add(self.limits.ping_after_us);
                if now_us >= ping_at && !self.pinged {
                    self.pinged = true;
                    self.begin_wait(now_us);
                    let _ = self.queue.push(encode_bare(kind::PING), self.limits.queue_bytes_max);
                }
                Ok(())
            }
            Phase::Connecting
            | Phase::AwaitWelcome
            | Phase::AwaitHello
            | Phase::AwaitConfirm(_)
            | Phase::Closing => {
                if now_us >= self.opened_us.saturating_add(self.limits.handshake_us) {
                    return Err(LinkError::HandshakeTimeout(self.limits.handshake_us / 1000));
                }
                Ok(())
            }
        }
    }

    /// When a bulk link ends unless something moves. The accepting side waits twice as long, so that
    /// no frame is sent while its reader goes away.
    fn bulk_idle_at_us(&self) -> u64 {
        let patience = if self.dialled.is_some() { 1 } else { 2 };
        let moved_us = self.heard_us.max(self.moved_us);
        moved_us.saturating_add(self.limits.bulk_idle_us.saturating_mul(patience))
    }

    /// When [`Link::tick`] has something to do.
    pub(super) fn next_deadline_us(&self) -> u64 {
        match &self.phase {
            Phase::Ready(_) if self.is_bulk => self.bulk_idle_at_us(),
            Phase::Ready(_) => {
                let wait =
                    if self.pinged { self.limits.dead_after_us } else { self.limits.ping_after_us };
                let silent = self.heard_us.saturating_add(wait);
                if self.queue.is_empty() {
                    silent
                } else {
                    silent.min(self.moved_us.saturating_add(self.limits.dead_after_us))
                }
            }
            Phase::Connecting
            | Phase::AwaitWelcome
            | Phase::AwaitHello
            | Phase::AwaitConfirm(_)
            | Phase::Closing => self.opened_us.saturating_add(self.limits.handshake_us),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::transport::codec::encode;
    use crate::transport::{Class, PeerIdentity};
    use crate::types::{Boot, DiskId, GroupId, Message, RaftBody, RaftMessage, Term};

    const LIMITS: LinkLimits = LinkLimits {
        frames: FrameLimits {
            control_bytes_max: 1 << 20,
            data_bytes_max: 1 << 20,
            bulk_bytes_max: 1 << 20,
        },
        queue_bytes_max: 1 << 20,
        handshake_us: 3_000_000,
        ping_after_us: 2_000_000,
        dead_after_us: 6_000_000,
        bulk_idle_us: 10_000_000,
    };

    fn ready(now_us: u64) -> Link {
        let mut link = Link::new(None, LIMITS, now_us);
        let peer = PeerIdentity { node: NodeId::new(2).unwrap(), disk: DiskId(2), boot: Boot(1) };
        let accepted = Accepted {
            peer,
            instance: 1,
            version: 1,
            features: 0,
            frame_bytes_max: 1 << 20,
            address: String::new(),
        };
        let state = Ready { peer: accepted, since_us: now_us, retiring: false };
        link.phase = Phase::Ready(Box::new(state));
        link
    }

    fn written(link: &mut Link, now_us: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let all = |pieces: &[IoSlice<'_>]| {
            pieces.iter().for_each(|piece| out.extend_from_slice(piece));
            Ok(pieces.iter().map(|piece| piece.len()).sum())
        };
        link.write(now_us, all).unwrap();
        out
    }

    fn message() -> OutFrame {
        let body = RaftBody::TimeoutNow;
        encode(GroupId::FIRST, &Message::Raft(RaftMessage { term: Term(1), body }))
    }

    #[test]
    fn silence_is_pinged_once_and_then_fatal() {
        let mut link = ready(0);
        assert_eq!(link.next_deadline_us(), 2_000_000);
        link.tick(1_999_999).unwrap();
        assert!(!link.wants_write());
        link.tick(2_000_000).unwrap();
        assert_eq!(written(&mut link, 2_000_000), encode_bare(kind::PING).head);
        assert_eq!(link.next_deadline_us(), 6_000_000);
        link.tick(3_000_000).unwrap();
        assert!(!link.wants_write(), "one ping is enough");
        assert!(matches!(link.tick(6_000_000), Err(LinkError::Silent(6000))));
    }

    #[test]
    fn a_ping_is_answered_and_never_handed_up() {
        let mut link = ready(0);
        let mut frames = Vec::new();
        let stream = [encode_bare(kind::PING).head, message().head].concat();
        link.receive(&stream, 5_000_000, &mut frames).unwrap();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].bytes, message().head);
        assert_eq!(written(&mut link, 5_000_000), encode_bare(kind::PONG).head);
        assert_eq!(link.next_deadline_us(), 7_000_000, "any byte is a sign of life");
    }

    #[test]
    fn a_peer_that_talks_but_takes_nothing_is_stalled() {
        let mut link = ready(0);
        link.send(message(), 1_000_000).unwrap();
        let mut frames = Vec::new();
        for now_us in [2_000_000, 4_000_000, 6_000_000] {
            link.receive(&encode_bare(kind::PONG).head, now_us, &mut frames).unwrap();
            link.tick(now_us).unwrap();
        }
        assert!(matches!(link.tick(7_000_000), Err(LinkError::Stalled(6000))));
    }

    #[test]
    fn a_bulk_link_says_no_pings_and_ends_when_nothing_has_moved() {
        let mut link = ready(0);
        link.is_bulk = true;
        assert_eq!(link.next_deadline_us(), 20_000_000, "who accepted waits twice as long");
        link.dialled = NodeId::new(2);
        assert_eq!(link.next_deadline_us(), 10_000_000);
        link.send(message(), 4_000_000).unwrap();
        link.tick(13_999_999).unwrap();
        assert_eq!(written(&mut link, 13_999_999), message().head, "and nothing else");
        assert!(matches!(link.tick(23_999_999), Err(LinkError::Idle(10_000))));
        link.send(message(), 14_000_000).unwrap();
        assert!(link.tick(23_999_999).is_ok(), "the wait counts from the first waiting byte");
    }

    #[test]
    fn a_stranger_gets_one_message_and_three_seconds() {
        let mut link = Link::new(None, LIMITS, 0);
        let mut frames = Vec::new();
        let beginning = b"RFHS\x01\x00\x64\x00";
        assert!(link.receive(beginning, 1, &mut frames).unwrap().is_none());
        let flood = [0; HANDSHAKE_BYTES_MAX];
        assert!(matches!(link.receive(&flood, 2, &mut frames), Err(LinkError::HandshakeTooLong)));
        assert_eq!(link.next_deadline_us(), 3_000_000);
        assert!(matches!(link.tick(3_000_000), Err(LinkError::HandshakeTimeout(3000))));
        assert_eq!(link.send(message(), 0), Err(SendError::NoLink));
        assert_eq!(message().class, Class::Control);
    }

    #[test]
    fn an_unfinished_frame_counts_from_its_first_byte() {
        let mut link = ready(0);
        let (mut frames, frame) = (Vec::new(), message().head);
        assert_eq!(link.unfinished_frame(), None);
        link.receive(&frame[..10], 5, &mut frames).unwrap();
        link.receive(&frame[10..20], 7, &mut frames).unwrap();
        assert_eq!(link.unfinished_frame().map(|(since_us, _)| since_us), Some(5));
        let end_and_begin = [&frame[20..], &frame[..1]].concat();
        link.receive(&end_and_begin, 9, &mut frames).unwrap();
        assert_eq!(link.unfinished_frame().map(|(since_us, _)| since_us), Some(9));
        link.receive(&frame[1..], 11, &mut frames).unwrap();
        assert_eq!((link.unfinished_frame(), frames.len()), (None, 2));
    }
}
