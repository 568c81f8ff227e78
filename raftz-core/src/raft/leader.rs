//! Leading: proposals into the log, entries to the peers, commitment (dissertation 3.5, 3.6, 10.2.1).
//!
//! The leader sends and writes in the same step; its own match is its own durable mark, one vote like
//! any other, so commitment may pass its own disk. It commits only onto an entry of its own term.
//! It leaves office when a whole election timeout has passed without answers from a quorum.

use std::hash::{Hash, Hasher};

use litemap::LiteMap;

use crate::types::{
    Append, AppendOutcome, AppendReply, DiskId, Entries, Entry, EntryKind, Event, Heartbeat,
    HeartbeatReply, Index, LogId, Member, NodeId, Payload, RaftBody, RaftMessage, Refusal,
    SessionTag, Token,
};

use super::core::{Raft, RoleState};
use super::counts::Timed;
use super::log_time::LogClock;
use super::progress::{Answer, Mode, Progress, WindowLimits};
use super::reads::Reads;
use super::{Action, PRIORITY_MAX, Proposal, quorum};

/// A commit is told at the latest after this part of the heartbeat interval, if no append carries
/// it sooner.
const COMMIT_NOTICE_PARTS: u64 = 5;

/// A peer that answers but does not advance is told of after so many of the longest election timeouts.
const STUCK_TIMEOUTS: u64 = 10;

/// Reads for one peer that may fail, one after the other, before the leader resigns.
const READS_FAILED_MAX: u32 = 3;
/// In so many election timeouts a leader resigns once.
const RESIGNS_ONCE_IN: u64 = 20;

/// What a leader keeps beyond what everybody keeps.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// Index of the no-op that opened the term. Once it is committed, so is everything older.
    pub(super) first: Index,
    pub(super) peers: LiteMap<NodeId, Progress>,
    pub(super) heartbeat_due_us: u64,
    /// A quorum was heard no earlier than this. Looked at anew before the leader would leave office for it, and
    /// with each membership. It only saves counting, so fingerprints leave it out.
    quorum_heard_us: u64,
    /// Somebody was asked in this term to stand against it, and voters were told that they need not keep faith:
    /// whatever it concludes from their promises is void for the rest of the term.
    pub(super) asked_to_leave: bool,
    notice_due_us: Option<u64>,
    /// Counts the heartbeat rounds of the term.
    pub(super) round: u64,
    pub(super) reads: Reads,
    sessions: u64,
    clock: LogClock,
    timed: Timed,
}

impl Leader {
    /// What decides its future, but for the log's clock; see [`Raft::fingerprint`].
    pub(super) fn fingerprint(&self, now_us: u64, last_request: u64, state: &mut impl Hasher) {
        let relative = |at_us: u64| at_us.saturating_sub(now_us);
        (self.first, self.round, self.sessions, self.asked_to_leave).hash(state);
        self.reads.fingerprint(now_us, state);
        (relative(self.heartbeat_due_us), self.notice_due_us.map(relative)).hash(state);
        for (id, peer) in &self.peers {
            id.hash(state);
            peer.fingerprint(now_us, last_request, state);
        }
    }
}

impl Raft {
    pub(super) fn become_leader(&mut self, actions: &mut Vec<Action>) {
        let first = self.log.last().index.next();
        if bug!(NewLeaderCommitsItsLog) {
            self.commit_to(self.log.last().index);
        }
        if bug!(LogTimeStartsAnew) {
            self.log_time_us = 1;
        }
        self.leader = Some(self.config.id);
        self.role = RoleState::Leader(Box::new(Leader {
            first,
            peers: LiteMap::new(),
            heartbeat_due_us: self.now.boot_us.saturating_add(self.heartbeat_interval_us()),
            quorum_heard_us: 0,
            asked_to_leave: false,
            notice_due_us: None,
            round: 0,
            reads: Reads::default(),
            sessions: 0,
            clock: self.log_clock(),
            timed: Timed::default(),
        }));
        self.settle_in();
        self.reconcile_peers();
        if !bug!(NoEntryOpensTheTerm) {
            self.append_own(EntryKind::Noop, Payload::empty(), None, actions);
        }
    }

    /// One progress for each other member, none for anybody else.
    pub(super) fn reconcile_peers(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let membership = self.configs.latest().1;
        leader.peers.retain(|id, _| membership.contains(*id));
        for id in membership.others(self.config.id) {
            let next = self.log.last().index.next();
            leader.peers.entry(id).or_insert_with(|| {
                leader.sessions += 1;
                Progress::new(leader.sessions, next, self.now.boot_us)
            });
        }
        self.look_for_quorum();
        self.has_unrecorded_disks = true;
    }

    /// Appends one entry of the present term.
    pub(super) fn append_own(
        &mut self,
        kind: EntryKind,
        payload: Payload,
        session: Option<SessionTag>,
        actions: &mut Vec<Action>,
    ) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let log_time_us = leader.clock.stamp_us(self.now).max(self.log_time_us);
        let index = self.log.last().index.next();
        let entry = Entry { term: self.hard.term, index, log_time_us, kind, session, payload };
        if self.append(vec![entry].into()) {
            self.membership_changed(actions);
        }
    }

    pub(super) fn propose(&mut self, proposals: Vec<Proposal>, actions: &mut Vec<Action>) {
        let lacks_snapshot = self.lacks_snapshot();
        let lacks_room = self.storage_full || !self.quorum_has_room();
        let RoleState::Leader(leader) = &mut self.role else {
            let tokens = proposals.into_iter().map(|proposal| proposal.token).collect();
            let why = Refusal::NotLeader { hint: self.leader };
            return actions.push(Action::Refused { tokens, why });
        };
        let log_time_us = leader.clock.stamp_us(self.now).max(self.log_time_us);
        let (term, first) = (self.hard.term, self.log.last().index.next());
        let mut index = first;
        let mut entries: Vec<Entry> = Vec::with_capacity(proposals.len());
        let mut accepted: Vec<Token> = Vec::with_capacity(proposals.len());
        let mut refused: Vec<(Token, Refusal)> = Vec::new();
        let limit = self.configs.settings().entry_bytes_max;
        let unapplied = self.log.bytes_between(self.applied, self.commit);
        // What this leader's own disk still owes is in memory, too, whoever has committed it.
        let settled = self.commit.min(self.log.durable());
        let mut uncommitted = self.log.bytes_between(settled, self.log.last().index);
        for Proposal { token, payload, session } in proposals {
            let bytes = payload.len() as u64;
            let why = if bytes > limit {
                Some(Refusal::TooLarge { bytes, limit })
            } else if lacks_room {
                Some(Refusal::StorageFull)
            } else if lacks_snapshot {
                let what =
                    "a leader whose snapshot was damaged, and which waits for another".into();
                Some(Refusal::Busy { what })
            } else if uncommitted > 0
                && uncommitted.saturating_add(bytes) > self.config.uncommitted_bytes_max
            {
                Some(Refusal::Busy { what: "the bytes of uncommitted entries".into() })
            } else if unapplied > self.config.unapplied_bytes_max {
                Some(Refusal::Busy { what: "the bytes of unapplied entries".into() })
            } else {
                None
            };
            if let Some(why) = why {
                refused.push((token, why));
                if !bug!(RefusedCallsAreAppended) {
                    continue;
                }
            }
            let kind = EntryKind::Command;
            let entry = Entry { term, index, log_time_us, kind, session, payload };
            index = index.next();
            uncommitted += entry.cost_bytes();
            entries.push(entry);
            accepted.push(token);
        }
        if !accepted.is_empty() {
            leader.timed.appended(index.prev(), self.now.boot_us);
            self.append(entries.into());
            actions.push(Action::Accepted { first, term, tokens: accepted });
        }
        for (token, why) in refused {
            actions.push(Action::Refused { tokens: vec![token], why });
        }
    }

    /// Whether as many voters as a commit takes have room for entries, as far as this leader has heard.
    fn quorum_has_room(&self) -> bool {
        let RoleState::Leader(leader) = &self.role else { return false };
        let is_full = |id| leader.peers.get(&id).is_some_and(Progress::storage_full);
        quorum::reached(self.configs.latest().1, |id| u64::from(!is_full(id))) > 0
    }

    /// What a leader does at the end of every step: commit, then send whatever may go out.
    pub(super) fn lead(&mut self, actions: &mut Vec<Action>) {
        if !matches!(self.role, RoleState::Leader(_)) {
            return;
        }
        self.advance_commit();
        self.record_disks(actions);
        let mut at = 0;
        while let Some(id) = self.peer_at(at) {
            self.replicate(id, actions);
            at += 1;
        }
        self.begin_round(actions);
        self.plan_commit_notice();
    }

    /// What the leader knows each other member's disk to hold; of nobody while it does not lead.
    pub fn matches(&self) -> impl Iterator<Item = (NodeId, Index)> {
        let peers = match &self.role {
            RoleState::Leader(leader) => Some(&leader.peers),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                None
            }
        };
        peers.into_iter().flatten().map(|(id, peer)| (*id, peer.matched()))
    }

    /// The peers in their order, one by one: replicating to one may change what is known of others.
    fn peer_at(&self, at: usize) -> Option<NodeId> {
        let RoleState::Leader(leader) = &self.role else { return None };
        leader.peers.get_indexed(at).map(|(id, _)| *id)
    }

    pub(super) fn peer_mut(&mut self, id: NodeId) -> Option<&mut Progress> {
        match &mut self.role {
            RoleState::Leader(leader) => leader.peers.get_mut(&id),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                None
            }
        }
    }

    /// Commits what a quorum has made durable, if it ends on an entry of the own term.
    fn advance_commit(&mut self) {
        let RoleState::Leader(leader) = &self.role else { return };
        if self.commit >= self.log.last().index {
            return;
        }
        let own = self.config.id;
        let early = bug!(LeaderCountsItsUnsyncedEntries);
        let durable = if early { self.log.last().index } else { self.log.durable() };
        let reached = quorum::reached(self.configs.latest().1, |id| {
            if id == own {
                durable.0
            } else {
                leader.peers.get(&id).map_or(0, |peer| peer.matched().0)
            }
        });
        let reached = Index(reached);
        let is_own_term = self.log.term_at(reached) == Some(self.hard.term);
        if reached > self.commit && (is_own_term || bug!(EntriesOfOldTermsAreCounted)) {
            self.commit_to(reached);
            if let RoleState::Leader(leader) = &mut self.role {
                let times = &mut self.counts.commit_us;
                leader.timed.committed(self.commit, self.now.boot_us, times);
            }
        }
    }

    /// Sends to one peer all that its mode and window allow.
    fn replicate(&mut self, id: NodeId, actions: &mut Vec<Action>) {
        let limits =
            WindowLimits { messages: self.config.window_messages, bytes: self.config.window_bytes };
        loop {
            let bytes_max = self.config.append_bytes_max;
            let next_request = self.next_request + 1;
            let RoleState::Leader(leader) = &mut self.role else { return };
            let Some(peer) = leader.peers.get_mut(&id) else { return };
            let last = match self.log.last().index {
                // It takes no more.
                last if peer.storage_full() => last.min(leader.first),
                last => last,
            };
            if !peer.may_append(limits) {
                return;
            }
            let next = peer.next();
            let probing = matches!(peer.mode(), Mode::Probe { .. });
            if next > last && !probing {
                return;
            }
            if next.prev() < self.log.base().index {
                peer.become_snapshot();
                return self.offer_snapshot(id, actions);
            }
            let (entries, bytes) = if peer.is_bare() || next > last {
                (Entries::new(), 0)
            } else if self.log.is_evicted(next) {
                peer.wait_for_read(next_request);
                self.next_request = next_request;
                let upto = self.log.last_evicted().min(last);
                let read = Action::ReadEntries {
                    request: next_request,
                    first: next,
                    last: upto,
                    bytes_max,
                };
                return actions.push(read);
            } else {
                self.log.copy(next, last, bytes_max)
            };
            if !self.send_append(id, entries, bytes, actions) {
                return;
            }
        }
    }

    /// Sends `entries` (or a probe) from the peer's `next` on. False: there was nothing to send from.
    fn send_append(
        &mut self,
        id: NodeId,
        entries: Entries,
        bytes: u64,
        actions: &mut Vec<Action>,
    ) -> bool {
        let commit = self.commit;
        let RoleState::Leader(leader) = &mut self.role else { return false };
        let Some(peer) = leader.peers.get_mut(&id) else { return false };
        let prev = peer.next().prev();
        let Some(prev_term) = self.log.term_at(prev) else { return false };
        let last = entries.last().map_or(prev, |entry| entry.index);
        peer.sent_append(last, bytes);
        peer.tell_commit(commit.min(last));
        let session = peer.session();
        let append = Append { session, prev: LogId::new(prev_term, prev), commit, entries };
        self.send(id, RaftBody::Append(append), actions);
        true
    }

    pub(super) fn on_entries_read(
        &mut self,
        request: u64,
        result: Result<Vec<Entry>, String>,
        actions: &mut Vec<Action>,
    ) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let wanted = leader.peers.iter_mut().find(|(_, peer)| peer.reading() == Some(request));
        let Some((id, peer)) = wanted else { return };
        let id = *id;
        let entries = match result {
            Ok(entries) => entries,
            Err(detail) => return self.on_read_failed(id, detail, actions),
        };
        let expected = std::iter::successors(Some(peer.next()), |index| Some(index.next()));
        let intact = !entries.is_empty()
            && entries
                .iter()
                .zip(expected)
                .all(|(entry, index)| entry.index == index && self.log.holds(entry.id()));
        if !intact {
            let detail = "storage returned other entries than were asked for".into();
            return self.on_read_failed(id, detail, actions);
        }
        peer.read_came();
        let bytes = entries.iter().map(Entry::cost_bytes).sum();
        self.send_append(id, entries.into(), bytes, actions);
    }

    /// A leader that cannot read its own log keeps whoever needs it from catching up, and may commit
    /// nothing at all: it makes room for another, who may hold the entries on a better disk. Not again
    /// soon, though, lest leaders change without end where no disk gives them back.
    fn on_read_failed(&mut self, id: NodeId, detail: String, actions: &mut Vec<Action>) {
        actions.push(Action::Event(Event::StorageTrouble { detail }));
        let failed = self.peer_mut(id).map_or(0, Progress::read_failed);
        let now_us = self.now.boot_us;
        let others = self.configs.latest().1.voters.len() > 1;
        if failed < READS_FAILED_MAX || now_us < self.resigned_until_us || !others {
            return;
        }
        let timeout_us = self.election_timeouts_us().1;
        self.resigned_until_us = now_us.saturating_add(timeout_us.saturating_mul(RESIGNS_ONCE_IN));
        self.resign();
    }

    pub(super) fn on_append_reply(
        &mut self,
        from: NodeId,
        reply: AppendReply,
        actions: &mut Vec<Action>,
    ) {
        let (now_us, last) = (self.now.boot_us, self.log.last().index);
        let Some(peer) = self.peer_mut(from) else { return };
        if peer.session() != reply.session {
            return;
        }
        peer.heard(now_us);
        match reply.outcome {
            AppendOutcome::Matched { matched, .. } if matched > last => {
                self.nonsense(from, "a match beyond the leader's log", actions);
            }
            AppendOutcome::Matched { matched, storage_full } => {
                peer.note_room(!storage_full);
                peer.on_matched(matched);
            }
            AppendOutcome::Rejected { prev, .. } if peer.takes_back(prev) => {
                self.restart_peer(from);
                self.nonsense(from, "it refuses what it has acknowledged", actions);
            }
            AppendOutcome::Rejected { hint, .. } if *peer.mode() == Mode::Snapshot => {
                if self.log.holds(hint)
                    && let Some(peer) = self.peer_mut(from)
                {
                    peer.reconnect(hint.index.next());
                }
            }
            AppendOutcome::Rejected { prev, hint } => {
                let below = hint.index.min(prev.prev());
                let next = self.log.last_not_above(below, hint.term).index.next();
                if let Some(peer) = self.peer_mut(from) {
                    if bug!(HintIsTakenForAMatch) {
                        peer.on_matched(hint.index.min(last));
                    }
                    peer.on_rejected(prev, next);
                }
            }
        }
    }

    pub(super) fn on_heartbeat_reply(
        &mut self,
        from: NodeId,
        reply: HeartbeatReply,
        actions: &mut Vec<Action>,
    ) {
        let (now_us, last) = (self.now.boot_us, self.log.last().index);
        let patience_us = STUCK_TIMEOUTS.saturating_mul(self.election_timeouts_us().1);
        let kept = 100 - u64::from(self.config.lease_drift_percent.min(100));
        let RoleState::Leader(leader) = &mut self.role else { return };
        let is_open = leader.round > leader.reads.confirmed();
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.heard(now_us);
        if peer.session() != reply.session {
            return;
        }
        if reply.round > leader.round || reply.sent_us > now_us {
            let what = "an answer to a heartbeat that was never sent";
            return self.nonsense(from, what, actions);
        }
        let began_us = if bug!(LeasesBeginWithTheirAnswers) { now_us } else { reply.sent_us };
        let faithful_until_us = began_us.saturating_add(reply.faith_us.saturating_mul(kept) / 100);
        let HeartbeatReply { round, clock_us, .. } = reply;
        peer.answered(Answer { round, clock_us, faithful_until_us });
        // Whoever exaggerates is no fitter than the fittest.
        peer.note_fitness(reply.fitness.min(1 + PRIORITY_MAX));
        peer.note_room(!reply.storage_full);
        peer.round_trip(reply.sent_us, now_us);
        if peer.is_news_that_stuck(last, now_us, patience_us) {
            let matched = peer.matched();
            actions.push(Action::Event(Event::PeerStalled { peer: from, matched, last }));
        }
        if bug!(HeartbeatReplyConfirmsTheWindow) {
            peer.on_matched(peer.next().prev().min(last));
        }
        if peer.reading() == Some(0) {
            peer.read_again();
        }
        // An open probe, or a window that is not acknowledged, may have been lost with nobody to
        // say so. Asking again costs one empty append; if nothing was lost, its answer waits for the
        // same disk as the others.
        match peer.mode() {
            Mode::Probe { .. } if !bug!(LostProbeIsNotRepeated) => peer.forget_probe(),
            Mode::Replicate(_)
                if peer.matched() < peer.next().prev() && !bug!(LostWindowIsNotAskedAfter) =>
            {
                self.send_append(from, Entries::new(), 0, actions);
            }
            Mode::Snapshot => self.offer_snapshot(from, actions),
            Mode::Probe { .. } | Mode::Replicate(_) => {}
        }
        if is_open {
            self.confirm_rounds(actions);
        }
    }

    /// When a leader wants to be woken. One that is alone has nobody to talk to.
    pub(super) fn leader_deadline_us(&self, leader: &Leader) -> Option<u64> {
        if leader.peers.is_empty() {
            return None;
        }
        let notice = leader.notice_due_us.unwrap_or(u64::MAX);
        Some(leader.heartbeat_due_us.min(notice).min(self.quorum_due_us(leader)))
    }

    /// Before then no whole election timeout has passed without answers from a quorum.
    fn quorum_due_us(&self, leader: &Leader) -> u64 {
        leader.quorum_heard_us.saturating_add(self.election_timeouts_us().1)
    }

    /// Whether one will have by `at_us`, as far as was looked.
    fn is_quorum_silent(&self, at_us: u64) -> bool {
        matches!(&self.role, RoleState::Leader(leader) if at_us >= self.quorum_due_us(leader))
    }

    /// Notes since when a quorum is known to have been heard.
    fn look_for_quorum(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let (own, now_us) = (self.config.id, self.now.boot_us);
        leader.quorum_heard_us = quorum::reached(self.configs.latest().1, |id| {
            if id == own { now_us } else { leader.peers.get(&id).map_or(0, Progress::contact_us) }
        });
    }

    pub(super) fn run_leader_deadlines(&mut self, actions: &mut Vec<Action>) {
        let now_us = self.now.boot_us;
        if self.is_quorum_silent(now_us) {
            self.look_for_quorum();
            if self.is_quorum_silent(now_us) {
                // Out of office in its own term: no vote is given back, no term is burnt.
                self.faithful_until_us = now_us;
                return self.become_follower(self.hard.term, None);
            }
        }
        let RoleState::Leader(leader) = &self.role else { return };
        let due = leader.heartbeat_due_us.min(leader.notice_due_us.unwrap_or(u64::MAX));
        if now_us >= due {
            self.send_heartbeats(actions);
        }
    }

    pub(super) fn send_heartbeats(&mut self, actions: &mut Vec<Action>) {
        let Some(term) = self.log.term_at(self.commit) else { return };
        let commit = LogId::new(term, self.commit);
        let sent_us = self.now.boot_us;
        let interval = self.heartbeat_interval_us();
        let last = self.log.last().index;
        let (is_ready, wants_lease) = (self.is_ready(), self.config.lease_reads);
        let faith_us = if wants_lease { self.faith_us() } else { 0 };
        let RoleState::Leader(leader) = &mut self.role else { return };
        leader.round += 1;
        leader.heartbeat_due_us = sent_us.saturating_add(interval);
        leader.notice_due_us = None;
        let round = leader.round;
        for (id, peer) in leader.peers.iter_mut() {
            if bug!(IdleLeaderIsSilent) && peer.matched() == last {
                continue;
            }
            peer.tell_commit(commit.index);
            if is_ready {
                peer.sent_round(round);
            }
            let (session, confirmed_clock_us) = (peer.session(), peer.confirmed_clock_us());
            let body = RaftBody::Heartbeat(Heartbeat {
                session,
                round,
                commit,
                sent_us,
                confirmed_clock_us,
                faith_us,
            });
            let message = RaftMessage { term: self.hard.term, body };
            actions.push(Action::Send { to: *id, message });
        }
        if is_ready {
            leader.reads.sent(round, sent_us, commit.index);
        }
        let next_us = leader.heartbeat_due_us;
        if self.is_quorum_silent(next_us) {
            self.look_for_quorum();
        }
        self.ask_again(actions);
        self.consider_leaving(actions);
    }

    /// Under load appends carry the commit index; the last one of a burst is told a little later.
    fn plan_commit_notice(&mut self) {
        let commit = self.commit;
        let delay = self.heartbeat_interval_us() / COMMIT_NOTICE_PARTS;
        let now_us = self.now.boot_us;
        let RoleState::Leader(leader) = &mut self.role else { return };
        let untold = leader
            .peers
            .values()
            .any(|peer| matches!(peer.mode(), Mode::Replicate(_)) && peer.told_commit() < commit);
        if !untold {
            leader.notice_due_us = None;
        } else if leader.notice_due_us.is_none() {
            leader.notice_due_us = Some(now_us.saturating_add(delay));
        }
    }

    pub(super) fn on_link_up(&mut self, peer: NodeId, disk: DiskId, actions: &mut Vec<Action>) {
        let known = self.membership().members.get(&peer).and_then(|member| member.disk_id);
        if known.is_some_and(|known| known != disk) {
            return self.nonsense(peer, "a link from another data directory", actions);
        }
        self.linked.insert(peer, disk);
        self.has_unrecorded_disks = true;
        self.restart_peer(peer);
    }

    pub(super) fn on_link_down(&mut self, peer: NodeId) {
        self.linked.remove(&peer);
        self.restart_peer(peer);
    }

    fn restart_peer(&mut self, id: NodeId) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peers.get_mut(&id) {
            leader.sessions += 1;
            peer.restart(leader.sessions);
        }
    }

    /// Writes the data directories that links have proved into the membership, so that a wiped or
    /// copied one can never come back under a known id.
    fn record_disks(&mut self, actions: &mut Vec<Action>) {
        let is_busy = self.configs.change_pending() || self.hands_over();
        if !self.has_unrecorded_disks || self.linked.is_empty() || !self.is_ready() || is_busy {
            return;
        }
        self.has_unrecorded_disks = false;
        let own = (self.config.id, self.config.disk_id);
        let is_news = |(id, member): (&NodeId, &Member)| {
            member.disk_id.is_none() && (*id == own.0 || self.linked.contains_key(id))
        };
        if !self.membership().members.iter().any(is_news) {
            return;
        }
        let mut membership = self.membership().clone();
        for (id, member) in &mut membership.members {
            let proved = if *id == own.0 { Some(own.1) } else { self.linked.get(id).copied() };
            member.disk_id = member.disk_id.or(proved);
        }
        if let Ok(payload) = membership.to_payload() {
            self.append_own(EntryKind::Membership, payload, None, actions);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use crate::types::Now;

    use super::*;

    #[test]
    fn a_fingerprint_tells_whether_a_commit_is_still_to_be_told() {
        let fingerprint = |notice_due_us: Option<u64>, sessions: u64| {
            let leader = Leader {
                first: Index(1),
                peers: LiteMap::new(),
                heartbeat_due_us: 50,
                quorum_heard_us: 0,
                asked_to_leave: false,
                notice_due_us,
                round: 0,
                reads: Reads::default(),
                sessions,
                clock: LogClock::start(0, Now::default()),
                timed: Timed::default(),
            };
            let mut hasher = DefaultHasher::new();
            leader.fingerprint(0, 0, &mut hasher);
            hasher.finish()
        };
        assert_ne!(fingerprint(None, 2), fingerprint(Some(10), 2));
        assert_ne!(fingerprint(None, 2), fingerprint(None, 3), "the next session has another name");
    }
}
