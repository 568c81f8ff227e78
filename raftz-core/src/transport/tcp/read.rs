//! Reading, in fair shares.
//!
//! Readiness is edge-triggered: what a socket holds must be remembered until it is read. Links with
//! something to read stand in a ring and take turns, a share each, until the turn's budget is
//! used up; the next turn goes on where this one ended, without waiting. Members have a ring and a
//! budget of their own ([`TcpLimits::turn_bytes`](super::TcpLimits)), their bulk connections and
//! everybody else share a small one each: however much of a snapshot arrives and however many
//! strangers send, they delay a member's other frames by no more than that in a turn.

use std::collections::VecDeque;
use std::io;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::TcpTransport;
use super::link::Link;
use crate::transport::{InFrame, TransportEvent};

/// Bytes read from one link before the next in its ring has its share.
const SHARE_BYTES: usize = 64 << 10;
/// What is read of members' bulk connections in a turn, and again of everybody outside the membership:
/// a part of the members' budget.
const SMALL_PART: usize = 4;

/// Links with something left to read, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct Unread {
    members: VecDeque<usize>,
    bulk: VecDeque<usize>,
    others: VecDeque<usize>,
}

impl Unread {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.bulk.is_empty() && self.others.is_empty()
    }
}

impl TcpTransport {
    /// Puts a link with something to read at the end of its ring.
    pub(super) fn note_unread(&mut self, token: usize) {
        let Some(conn) = self.conns.get(&token) else { return };
        if !conn.readable || conn.is_unread {
            return;
        }
        let is_members = self.is_members_link(&conn.link);
        let ring = match (is_members, conn.link.is_bulk) {
            (true, false) => &mut self.unread.members,
            (true, true) => &mut self.unread.bulk,
            (false, _) => &mut self.unread.others,
        };
        ring.push_back(token);
        if let Some(conn) = self.conns.get_mut(&token) {
            conn.is_unread = true;
        }
    }

    /// Whether a link leads to a member: one that was dialled, or has said who it is.
    fn is_members_link(&self, link: &Link) -> bool {
        let peer = link.ready().map(|ready| ready.peer.peer.node).or(link.dialled);
        peer.is_some_and(|node| self.is_member(node))
    }

    /// Reads all links in turn, within the budgets.
    pub(super) fn read_turn(&mut self, now_us: u64) {
        let mut left = self.limits.turn_bytes;
        while left > 0
            && let Some(token) = self.unread.members.pop_front()
        {
            left = left.saturating_sub(self.take_share(token, now_us));
        }
        let small = self.limits.turn_bytes.div_ceil(SMALL_PART);
        let mut left = small;
        while left > 0
            && let Some(token) = self.unread.bulk.pop_front()
        {
            left = left.saturating_sub(self.take_share(token, now_us));
        }
        let mut left = small;
        while left > 0
            && let Some(token) = self.unread.others.pop_front()
        {
            left = left.saturating_sub(self.take_share(token, now_us));
        }
    }

    fn take_share(&mut self, token: usize, now_us: u64) -> usize {
        if let Some(conn) = self.conns.get_mut(&token) {
            conn.is_unread = false;
        }
        // Even an empty socket costs something.
        self.read_share(token, now_us).max(1)
    }

    /// Reads one link's socket for a share, and notes what is left. Returns the bytes read.
    pub(super) fn read_share(&mut self, token: usize, now_us: u64) -> usize {
        let mut frames = std::mem::take(&mut self.frames);
        let taken = self.read_some(token, now_us, &mut frames);
        // Nothing of one link must ever be taken for another's.
        frames.clear();
        self.frames = frames;
        taken
    }

    fn read_some(&mut self, token: usize, now_us: u64, frames: &mut Vec<InFrame>) -> usize {
        let mut taken = 0;
        let mut end: Option<String> = None;
        while end.is_none() && taken < SHARE_BYTES {
            let Some(conn) = self.conns.get_mut(&token) else { return taken };
            if !conn.readable {
                break;
            }
            let mut message = None;
            let room;
            let result = match conn.link.direct() {
                Some(buffer) => {
                    room = buffer.capacity() - buffer.len();
                    match recv(&conn.stream, spare_capacity(buffer), RecvFlags::empty()) {
                        Ok((_, 0)) => Ok(0),
                        Ok((_, count)) => {
                            if let Err(error) = conn.link.direct_done(now_us, frames) {
                                end = Some(error.to_string());
                            }
                            Ok(count)
                        }
                        Err(error) => Err(error),
                    }
                }
                None => {
                    room = self.scratch.len();
                    match recv(&conn.stream, &mut self.scratch[..], RecvFlags::empty()) {
                        Ok((_, 0)) => Ok(0),
                        Ok((_, count)) => {
                            match conn.link.receive(&self.scratch[..count], now_us, frames) {
                                Ok(found) => message = found,
                                Err(error) => end = Some(error.to_string()),
                            }
                            Ok(count)
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match result {
                // Two settled links end half by half, so that nothing queued on the loser is lost.
                Ok(0) if conn.link.is_retiring() && conn.link.wants_write() => {
                    conn.is_ended = true;
                    conn.readable = false;
                }
                Ok(0) => {
                    conn.is_ended = true;
                    end = Some("the peer closed the connection".into());
                }
                Ok(count) => {
                    taken += count;
                    // Less than there was room for: the socket is empty, and will tell of more. Its end has
                    // been told already, if it lies behind these bytes, and must be read.
                    conn.readable &= count == room || conn.is_closing;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => conn.readable = false,
                Err(error) => end = Some(io::Error::from(error).to_string()),
            }
            // Frames go up before anything that the next message or the end may cause.
            self.hand_up(token, frames);
            while let Some(received) = message.take() {
                if let Err(reason) = self.handshake(token, received, now_us) {
                    end = Some(reason);
                    break;
                }
                let Some(conn) = self.conns.get_mut(&token) else { return taken };
                match conn.link.resume(now_us, frames) {
                    Ok(next) => message = next,
                    Err(error) => end = Some(error.to_string()),
                }
                self.hand_up(token, frames);
            }
        }
        match end {
            Some(reason) => self.close(token, now_us, &reason),
            None => {
                // Reading may have queued an answer.
                self.mark_dirty(token);
                self.note_unread(token);
                self.bound_held_frames(token, now_us);
            }
        }
        taken
    }

    fn hand_up(&mut self, token: usize, frames: &mut Vec<InFrame>) {
        if frames.is_empty() {
            return;
        }
        let ready = self.conns.get(&token).and_then(|conn| conn.link.ready());
        let from = ready.map(|ready| ready.peer.peer.node);
        // A retired link may outlive the one that replaced it; what comes then comes too late.
        let up = from.filter(|from| self.peers.get(from).is_some_and(|peer| peer.up.is_some()));
        let Some(from) = up else {
            frames.clear();
            return;
        };
        let events = frames.drain(..).map(|frame| TransportEvent::Frame { from, frame });
        self.ready.extend(events);
    }

    /// What has arrived of unfinished frames from outside the membership is bounded for all such
    /// links together. Beyond it the frame that has been on its way for the longest ends with its
    /// link: an honest one takes moments.
    fn bound_held_frames(&mut self, token: usize, now_us: u64) {
        if self.conns.get(&token).is_none_or(|conn| self.is_members_link(&conn.link)) {
            return;
        }
        loop {
            let (mut bytes, mut oldest) = (0, None);
            for (token, conn) in &self.conns {
                if let Some((since_us, held)) = conn.link.unfinished_frame()
                    && !self.is_members_link(&conn.link)
                {
                    bytes += held;
                    let this = (since_us, *token);
                    oldest = Some(oldest.map_or(this, |oldest: (u64, usize)| oldest.min(this)));
                }
            }
            let Some((_, oldest)) = oldest.filter(|_| bytes > self.limits.non_members_bytes_max)
            else {
                return;
            };
            self.close(
                oldest,
                now_us,
                "its frame was not finished while other nodes outside the membership sent theirs",
            );
        }
    }
}
