//! Handing over (dissertation 3.10), and leaders that should.
//!
//! A transfer brings its target up to date while proposals go on, then holds them back, and when the target has
//! everything on its disk asks it to stand at once. Its election skips the pre-vote, and its requests say
//! that the old leader asked for them, so that nobody keeps faith. The old leader stays in office until it hears
//! of the new term: if it does not by the deadline, nothing has happened, and it goes on.
//!
//! A leader hands over by itself when its disk stands still, when its disk is full and another one's is not,
//! and to a voter of clearly higher priority. Who is fit says so in the answers to heartbeats. Nobody leaves
//! where nobody else could lead.
//!
//! Invariant kept here: each request is answered once, and no transfer outlives its deadline.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use crate::types::{Event, NodeId, RaftBody, Term, Token, TransferFailure, TransferPhase};

use super::core::{Raft, RoleState};
use super::leader::Leader;
use super::progress::{Mode, Progress};
use super::quorum::{VoteResult, vote};
use super::{Action, PRIORITY_MAX};

/// For so many election timeouts who made room leaves elections to others.
const OTHERS_FIRST: u64 = 3;
/// A leader is in office for so many before it thinks of handing over to a node of higher priority.
const SETTLES_IN: u64 = 2;
/// At most one such attempt is made in so many.
const PREFERS_ONCE_IN: u64 = 10;
/// After one that failed, so many pass before the next.
const FAILED_REST: u64 = 30;
/// A sick leader whose attempt failed tries again after so many.
const SICK_REST: u64 = 3;
/// Who is preferred by less than this is no reason for a pause in everybody's writes.
const PREFERRED_BY: u8 = 10;

/// Why leadership is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    Asked(Token),
    StalledDisk,
    FullDisk,
    Priority,
}

/// Leadership on its way.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    /// The term that is to end.
    term: Term,
    target: NodeId,
    /// Nobody else will do.
    is_named: bool,
    cause: Cause,
    deadline_us: u64,
    /// The target is so near that proposals wait.
    holds: bool,
    /// The target has everything, and was asked to stand.
    is_asked: bool,
}

impl Transfer {
    pub(super) fn fingerprint(&self, now_us: u64, state: &mut impl Hasher) {
        (self.term, self.target, self.is_named, self.cause).hash(state);
        (self.holds, self.is_asked, self.deadline_us.saturating_sub(now_us)).hash(state);
    }
}

/// When a leader last thought of leaving, and what it would leave for.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaving {
    /// Until then this node leaves elections to others.
    pub(super) sits_out_until_us: u64,
    /// When its disk last confirmed a write, or was given one while it had none.
    disk_moved_us: u64,
    /// That the disk stands still was told.
    stall_is_told: bool,
    /// Until then it does not hand over because its disk is sick.
    sick_rest_until_us: u64,
    /// Until then it does not hand over to a node of higher priority.
    content_until_us: u64,
}

impl Leaving {
    pub(super) fn fingerprint(&self, now_us: u64, disk_is_busy: bool, state: &mut impl Hasher) {
        let relative = |at_us: u64| at_us.saturating_sub(now_us);
        (relative(self.sits_out_until_us), self.stall_is_told).hash(state);
        (relative(self.sick_rest_until_us), relative(self.content_until_us)).hash(state);
        disk_is_busy.then(|| now_us.saturating_sub(self.disk_moved_us)).hash(state);
    }
}

impl Raft {
    // ---- how fit this node is ----

    /// Whether it leaves elections to others for now.
    pub(super) const fn sits_out(&self) -> bool {
        self.now.boot_us < self.leaving.sits_out_until_us
    }

    fn sit_out(&mut self) {
        self.leaving.sits_out_until_us = self.timeouts_from_now(OTHERS_FIRST);
    }

    /// How well this node would lead, for its leader to compare; 0: better not.
    pub(super) fn fitness(&self) -> u8 {
        let is_voter = self.configs.latest().1.voters.contains(&self.config.id);
        let is_fit = is_voter
            && self.may_campaign()
            && !self.lacks_snapshot()
            && !self.storage_full
            && !self.sits_out()
            && !self.disk_is_stalled();
        if is_fit { 1 + self.priority() } else { 0 }
    }

    fn priority(&self) -> u8 {
        self.config.election_priority.min(PRIORITY_MAX)
    }

    /// How much longer than others this node waits before it stands: nothing at the highest priority, and one
    /// whole timeout at the lowest, so that whoever is preferred is missed for no longer than that.
    pub(super) fn deference_us(&self) -> u64 {
        let below = u64::from(PRIORITY_MAX - self.priority());
        self.election_timeouts_us().1.saturating_mul(below) / u64::from(PRIORITY_MAX)
    }

    /// The disk has confirmed a write, or is given one while it has none.
    pub(super) const fn disk_moves(&mut self) {
        self.leaving.disk_moved_us = self.now.boot_us;
        self.leaving.stall_is_told = false;
    }

    fn disk_is_stalled(&self) -> bool {
        let still_us = self.now.boot_us.saturating_sub(self.leaving.disk_moved_us);
        let patience_us = match self.config.disk_stall_timeout_us {
            0 => self.election_timeouts_us().1,
            configured => configured,
        };
        self.writes.is_waiting() && still_us >= patience_us
    }

    fn timeouts_from_now(&self, count: u64) -> u64 {
        self.now.boot_us.saturating_add(self.election_timeouts_us().1.saturating_mul(count))
    }

    // ---- who else is ----

    /// Whether a peer was heard a moment ago, over a link that is still there.
    fn is_present(&self, id: NodeId, peer: &Progress) -> bool {
        let silent_us = self.now.boot_us.saturating_sub(peer.contact_us());
        self.linked.contains_key(&id) && silent_us <= self.election_timeouts_us().0
    }

    fn could_lead(&self, id: NodeId, peer: &Progress) -> bool {
        let is_voter = self.configs.latest().1.voters.contains(&id);
        is_voter && self.is_present(id, peer) && peer.fitness().is_some_and(|fitness| fitness > 0)
    }

    /// The fittest voter; of equals the one that has most.
    fn successor(&self, leader: &Leader) -> Option<(NodeId, u8)> {
        let fit = leader.peers.iter().filter(|(id, peer)| self.could_lead(**id, peer));
        let best = fit.max_by_key(|(id, it)| (it.fitness(), it.matched(), Reverse(**id)))?;
        Some((*best.0, best.1.fitness().unwrap_or_default()))
    }

    /// The voter that has most, of those that have not said yet how fit they are: a leader that was just elected
    /// has heard of nobody. Good enough for who asks, and for nobody else.
    fn unknown_successor(&self, leader: &Leader) -> Option<NodeId> {
        let voters = &self.configs.latest().1.voters;
        let unknown = leader.peers.iter().filter(|(id, peer)| {
            voters.contains(id) && self.is_present(**id, peer) && peer.fitness().is_none()
        });
        unknown.max_by_key(|(id, peer)| (peer.matched(), Reverse(**id))).map(|(id, _)| *id)
    }

    /// Whether the others can elect one of them without this node's disk.
    fn is_dispensable(&self, leader: &Leader) -> bool {
        let present = leader.peers.iter().filter(|(id, peer)| self.is_present(**id, peer));
        let present: BTreeSet<NodeId> = present.map(|(id, _)| *id).collect();
        vote(self.configs.latest().1, &present, &BTreeSet::new()) == VoteResult::Won
            && self.successor(leader).is_some()
    }

    // ---- beginning ----

    /// Somebody wants another leader.
    pub(super) fn on_transfer(
        &mut self,
        token: Token,
        target: Option<NodeId>,
        deadline_us: u64,
        steps_down: bool,
        actions: &mut Vec<Action>,
    ) {
        match self.choose_target(target) {
            Ok(to) => {
                if let Some(Transfer { target, .. }) = self.transfer.take() {
                    // Who asks goes before what the leader began by itself.
                    let (phase, detail) = (TransferPhase::Failed, "another was asked for".into());
                    actions.push(Action::Event(Event::Transfer { to: target, phase, detail }));
                }
                if steps_down {
                    self.sit_out();
                }
                let why = if steps_down { "asked to step down" } else { "asked for" };
                let cause = Cause::Asked(token);
                self.begin_transfer(to, target.is_some(), cause, deadline_us, why.into(), actions);
            }
            Err(why) => actions.push(Action::TransferEnded { token, result: Err(why) }),
        }
    }

    fn choose_target(&self, wanted: Option<NodeId>) -> Result<NodeId, TransferFailure> {
        if let Some(Transfer { target, cause: Cause::Asked(_), .. }) = self.transfer {
            return Err(TransferFailure::UnderWay { target });
        }
        let RoleState::Leader(leader) = &self.role else {
            return Err(TransferFailure::NotLeader { hint: self.leader });
        };
        let Some(target) = wanted else {
            let known = self.successor(leader).map(|(target, _)| target);
            return match known.or_else(|| self.unknown_successor(leader)) {
                Some(target) => Ok(target),
                None => Err(TransferFailure::NobodyFit { detail: self.why_nobody(leader) }),
            };
        };
        let membership = self.configs.latest().1;
        if target == self.config.id {
            return Err(TransferFailure::AlreadyLeads { target });
        }
        let Some(peer) = leader.peers.get(&target).filter(|_| membership.contains(target)) else {
            return Err(TransferFailure::UnknownTarget { target });
        };
        if !membership.voters.contains(&target) {
            return Err(TransferFailure::NotVoter { target });
        }
        match self.why_not(target, peer) {
            None => Ok(target),
            Some(detail) => Err(TransferFailure::NobodyFit { detail }),
        }
    }

    /// Why a voter cannot be asked to lead; of one that has not said yet, nothing is known against it.
    fn why_not(&self, id: NodeId, peer: &Progress) -> Option<String> {
        if !self.linked.contains_key(&id) {
            return Some(format!("node {id} is not linked"));
        }
        (peer.fitness() == Some(0)).then(|| {
            format!(
                "node {id} had better not lead now: its disk is full, slow or damaged, or it has just stepped down"
            )
        })
    }

    fn why_nobody(&self, leader: &Leader) -> String {
        let voters = &self.configs.latest().1.voters;
        let others = leader.peers.iter().filter(|(id, _)| voters.contains(id));
        let words = others.map(|(id, peer)| {
            self.why_not(*id, peer).unwrap_or_else(|| format!("node {id} has not answered lately"))
        });
        let words: Vec<String> = words.collect();
        if words.is_empty() { "there is no other voter".into() } else { words.join("; ") }
    }

    fn begin_transfer(
        &mut self,
        target: NodeId,
        is_named: bool,
        cause: Cause,
        deadline_us: u64,
        detail: String,
        actions: &mut Vec<Action>,
    ) {
        let phase = TransferPhase::Begun;
        actions.push(Action::Event(Event::Transfer { to: target, phase, detail }));
        let term = self.hard.term;
        let (holds, is_asked) = (false, false);
        self.transfer =
            Some(Transfer { term, target, is_named, cause, deadline_us, holds, is_asked });
    }

    /// A new leader has an office to settle into first.
    pub(super) fn settle_in(&mut self) {
        let until_us = self.timeouts_from_now(SETTLES_IN);
        self.leaving.content_until_us = self.leaving.content_until_us.max(until_us);
    }

    /// Whether another should lead: asked at each heartbeat.
    pub(super) fn consider_leaving(&mut self, actions: &mut Vec<Action>) {
        let RoleState::Leader(leader) = &self.role else { return };
        let now_us = self.now.boot_us;
        if self.disk_is_stalled() {
            let successor = self.successor(leader).filter(|_| self.is_dispensable(leader));
            return self.leave_sick_disk(Cause::StalledDisk, successor, actions);
        }
        if self.storage_full {
            let successor = self.successor(leader);
            return self.leave_sick_disk(Cause::FullDisk, successor, actions);
        }
        if now_us < self.leaving.content_until_us || self.transfer.is_some() || !self.is_ready() {
            return;
        }
        let wanted = self.priority().saturating_add(1).saturating_add(PREFERRED_BY);
        if leader.peers.values().all(|peer| peer.fitness() < Some(wanted)) {
            return;
        }
        let Some((to, _)) = self.successor(leader).filter(|(id, fitness)| {
            let matched = leader.peers.get(id).map(Progress::matched);
            *fitness >= wanted && matched.is_some_and(|matched| matched >= self.commit)
        }) else {
            return;
        };
        self.leaving.content_until_us = self.timeouts_from_now(PREFERS_ONCE_IN);
        let detail = format!("node {to} has a higher priority");
        self.begin_transfer(to, true, Cause::Priority, self.timeouts_from_now(1), detail, actions);
    }

    fn leave_sick_disk(
        &mut self,
        cause: Cause,
        successor: Option<(NodeId, u8)>,
        actions: &mut Vec<Action>,
    ) {
        let what = match cause {
            Cause::FullDisk => "the disk is full".to_owned(),
            Cause::Asked(_) | Cause::StalledDisk | Cause::Priority => {
                let still_us = self.now.boot_us.saturating_sub(self.leaving.disk_moved_us);
                format!("no write has become durable for {} ms", still_us / 1000)
            }
        };
        let is_free = self.transfer.is_none();
        if cause == Cause::StalledDisk && !self.leaving.stall_is_told {
            let leads = match successor {
                _ if !is_free => "leadership is being handed over".to_owned(),
                Some((to, _)) => format!("leadership is handed to node {to}"),
                None => "nobody else can lead, so this node goes on".to_owned(),
            };
            self.leaving.stall_is_told = true;
            let detail = format!("{what}; {leads}");
            actions.push(Action::Event(Event::StorageTrouble { detail }));
        }
        let Some((to, _)) = successor.filter(|_| is_free) else { return };
        if self.now.boot_us < self.leaving.sick_rest_until_us {
            return;
        }
        self.leaving.sick_rest_until_us = self.timeouts_from_now(SICK_REST);
        self.sit_out();
        let deadline_us = self.timeouts_from_now(1);
        self.begin_transfer(to, false, cause, deadline_us, what, actions);
    }

    /// Leaves office in its own term, and the next election to others.
    pub(super) fn resign(&mut self) {
        self.sit_out();
        self.faithful_until_us = self.now.boot_us;
        self.become_follower(self.hard.term, None);
    }

    // ---- under way ----

    /// Whom leadership is being handed to.
    pub(crate) fn hands_over_to(&self) -> Option<NodeId> {
        let transfer = self.transfer.as_ref().filter(|it| it.term == self.hard.term)?;
        matches!(self.role, RoleState::Leader(_)).then_some(transfer.target)
    }

    /// Whether this leader is so near to handing over that it should take no more proposals.
    pub fn hands_over(&self) -> bool {
        self.hands_over_to().is_some() && self.transfer.as_ref().is_some_and(|it| it.holds)
    }

    pub(crate) fn transfer_deadline_us(&self) -> Option<u64> {
        self.transfer.as_ref().map(|transfer| transfer.deadline_us)
    }

    /// The end of every step: whatever has changed may have decided it.
    pub(super) fn run_transfer(&mut self, actions: &mut Vec<Action>) {
        let Some(transfer) = &self.transfer else { return };
        let Transfer { target, is_named, deadline_us, .. } = *transfer;
        if self.hands_over_to().is_some() {
            return self.advance_transfer(actions);
        }
        // Out of office: somebody else leads, or will.
        let result = match self.leader {
            Some(leader) if leader == target => Ok(leader),
            Some(leader) if !is_named && leader != self.config.id => Ok(leader),
            Some(leader) => Err(TransferFailure::Overtaken { leader }),
            None if self.now.boot_us >= deadline_us => {
                let detail = "this node leads no more, and no leader is known yet".into();
                Err(TransferFailure::TimedOut { target, detail })
            }
            None => return,
        };
        self.end_transfer(result, actions);
    }

    fn advance_transfer(&mut self, actions: &mut Vec<Action>) {
        let (RoleState::Leader(leader), Some(transfer)) = (&mut self.role, &mut self.transfer)
        else {
            return;
        };
        let Transfer { target, is_asked, deadline_us, .. } = *transfer;
        let gone = |what: &str| Err(TransferFailure::NobodyFit { detail: what.to_owned() });
        let Some(peer) =
            leader.peers.get(&target).filter(|_| self.configs.latest().1.voters.contains(&target))
        else {
            return self.end_transfer(gone(&format!("node {target} votes no more")), actions);
        };
        if !self.linked.contains_key(&target) {
            return self.end_transfer(gone(&format!("the link to node {target} broke")), actions);
        }
        let (matched, last) = (peer.matched(), self.log.last().index);
        if self.now.boot_us >= deadline_us {
            let detail = if is_asked {
                "it was asked to stand, and nobody was heard to win".to_owned()
            } else {
                format!("it has entries up to {matched}, of {last}")
            };
            let result = Err(TransferFailure::TimedOut { target, detail });
            return self.end_transfer(result, actions);
        }
        if !transfer.holds {
            let missing = self.log.bytes_between(matched, last);
            transfer.holds = matches!(peer.mode(), Mode::Replicate(_))
                && !self.log.is_evicted(matched.next())
                && missing <= self.config.window_bytes;
        }
        if transfer.holds && matched == last && !is_asked {
            transfer.is_asked = true;
            leader.asked_to_leave = true;
            self.send(target, RaftBody::TimeoutNow, actions);
        }
    }

    /// The request to stand may have been lost.
    pub(super) fn ask_again(&self, actions: &mut Vec<Action>) {
        let asked = self.transfer.as_ref().filter(|transfer| transfer.is_asked);
        if let Some(target) = asked.and(self.hands_over_to()) {
            self.send(target, RaftBody::TimeoutNow, actions);
        }
    }

    // ---- the end ----

    /// Ends what is under way, if anything is, and tells who asked.
    pub(super) fn end_transfer(
        &mut self,
        result: Result<NodeId, TransferFailure>,
        actions: &mut Vec<Action>,
    ) {
        let Some(Transfer { target, cause, .. }) = self.transfer.take() else { return };
        let (to, phase, detail) = match &result {
            Ok(leader) => (*leader, TransferPhase::Done, String::new()),
            Err(why) => (target, TransferPhase::Failed, why.to_string()),
        };
        let is_failed = result.is_err();
        actions.push(Action::Event(Event::Transfer { to, phase, detail }));
        match cause {
            Cause::Asked(token) => actions.push(Action::TransferEnded { token, result }),
            Cause::Priority if is_failed => {
                self.leaving.content_until_us = self.timeouts_from_now(FAILED_REST);
            }
            // It would hold up whatever needs its disk for as long as that takes.
            Cause::StalledDisk if is_failed && self.disk_is_stalled() => {
                if let RoleState::Leader(leader) = &self.role
                    && self.is_dispensable(leader)
                {
                    self.resign();
                }
            }
            Cause::Priority | Cause::StalledDisk | Cause::FullDisk => {}
        }
    }

    /// Forgets what is under way; gives who waits for its end.
    pub(crate) fn forget_transfer(&mut self) -> Option<Token> {
        match self.transfer.take()?.cause {
            Cause::Asked(token) => Some(token),
            Cause::StalledDisk | Cause::FullDisk | Cause::Priority => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]
    use std::collections::BTreeMap;

    use crate::raft::{Config, Input};
    use crate::types::{
        AppendOutcome, AppendReply, Base, Boot, DiskId, EntryKind, HeartbeatReply, LogId, Member,
        Membership, Now, RaftMessage, Recovered, Settings, VoteReply,
    };

    use super::*;

    const LONGEST_US: u64 = 200_000;

    fn node(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    /// Node 1 of three, which leads, and two that answer everything but a request to stand.
    struct Rig {
        raft: Raft,
        now: Now,
        fitness: BTreeMap<NodeId, u8>,
        /// It stores nothing more.
        mute: Option<NodeId>,
        begun_us: Vec<u64>,
        asked: usize,
        ended: Vec<(Token, Result<NodeId, TransferFailure>)>,
    }

    impl Rig {
        fn new(priority: u8) -> Self {
            let members = (1..=3).map(|id| (node(id), Member::at("10.0.0.1:1")));
            let settings = Settings { election_timeout_min_ms: 100, ..Settings::default() };
            let disk = DiskId(1);
            let base = Base::founding(Membership::of_voters(members), settings);
            let recovered = Recovered::founded(node(1), disk, base);
            let mut config = Config::new(node(1), disk);
            (config.election_timeout_min_us, config.election_timeout_max_us) = (1, LONGEST_US);
            config.election_priority = priority;
            let now = Now { boot_us: 1_000_000, wall_us: 1_000_000 };
            let mut rig = Self {
                raft: Raft::new(config, &recovered, now, 1),
                now,
                fitness: BTreeMap::from([(node(2), 1), (node(3), 1)]),
                mute: None,
                begun_us: Vec::new(),
                asked: 0,
                ended: Vec::new(),
            };
            for id in [2, 3] {
                let (disk, boot) = (DiskId(id.into()), Boot(1));
                rig.step(Input::LinkUp { peer: node(id), disk, boot });
            }
            rig.step(Input::Campaign);
            assert!(rig.raft.is_ready());
            rig
        }

        /// One step, and all that follows from it at the same moment.
        fn step(&mut self, input: Input) {
            let mut inputs = vec![input];
            while let Some(input) = inputs.pop() {
                let mut actions = Vec::new();
                self.raft.step(self.now, input, &mut actions);
                for action in actions {
                    inputs.extend(self.answer(action));
                }
            }
        }

        fn answer(&mut self, action: Action) -> Option<Input> {
            match action {
                Action::Persist(op) => return Some(Input::Persisted { op: op.id }),
                Action::Apply { last, .. } => return Some(Input::Applied { index: last }),
                Action::Event(Event::Transfer { phase: TransferPhase::Begun, .. }) => {
                    self.begun_us.push(self.now.boot_us);
                }
                Action::TransferEnded { token, result } => self.ended.push((token, result)),
                Action::Send { to, message: RaftMessage { term, body } } => {
                    let body = self.reply(to, body)?;
                    // A pre-vote is answered from the term before.
                    let term = match body {
                        RaftBody::PreVoteReply(_) => Term(term.0 - 1),
                        _ => term,
                    };
                    let message = RaftMessage { term, body };
                    return Some(Input::Receive { from: to, message });
                }
                _ => {}
            }
            None
        }

        fn reply(&mut self, to: NodeId, body: RaftBody) -> Option<RaftBody> {
            let vote = |round| VoteReply { round, granted: true, last: LogId::ZERO };
            Some(match body {
                RaftBody::PreVote(asked) => RaftBody::PreVoteReply(vote(asked.round)),
                RaftBody::Vote(asked) => RaftBody::VoteReply(vote(asked.round)),
                RaftBody::Append(append) if self.mute != Some(to) => {
                    let matched = append.prev.index.plus(append.entries.len() as u64);
                    let outcome = AppendOutcome::Matched { matched, storage_full: false };
                    RaftBody::AppendReply(AppendReply { session: append.session, outcome })
                }
                RaftBody::Heartbeat(beat) => RaftBody::HeartbeatReply(HeartbeatReply {
                    session: beat.session,
                    round: beat.round,
                    sent_us: beat.sent_us,
                    clock_us: 0,
                    faith_us: 0,
                    fitness: self.fitness[&to],
                    storage_full: false,
                }),
                RaftBody::TimeoutNow => {
                    self.asked += 1;
                    return None;
                }
                _ => return None,
            })
        }

        fn run(&mut self, us: u64) {
            let end_us = self.now.boot_us + us;
            while let Some(due) = self.raft.next_deadline().filter(|due| *due <= end_us) {
                self.now.boot_us = self.now.boot_us.max(due);
                self.step(Input::Tick);
            }
            self.now.boot_us = end_us;
        }

        fn transfer(&mut self, target: Option<NodeId>, patience_us: u64) {
            let (token, deadline_us) = (Token(7), self.now.boot_us + patience_us);
            self.step(Input::Transfer { token, target, deadline_us, steps_down: false });
        }

        fn was_asked_to_leave(&self) -> bool {
            matches!(&self.raft.role, RoleState::Leader(leader) if leader.asked_to_leave)
        }
    }

    #[test]
    fn a_transfer_to_a_node_that_is_removed_ends_and_its_asker_is_told() {
        let mut rig = Rig::new(100);
        rig.mute = Some(node(2));
        let mut membership = rig.raft.membership().clone();
        membership.voters.remove(&node(2));
        membership.members.remove(&node(2));
        rig.raft.append_own(EntryKind::Noop, crate::types::Payload::empty(), None, &mut Vec::new());
        rig.step(Input::Tick);
        rig.transfer(Some(node(2)), LONGEST_US);
        assert_eq!((rig.asked, rig.raft.hands_over_to()), (0, Some(node(2))));
        let payload = membership.to_payload().unwrap();
        rig.raft.append_own(EntryKind::Membership, payload, None, &mut Vec::new());
        rig.step(Input::Tick);
        assert_eq!(rig.raft.hands_over_to(), None);
        let [(Token(7), Err(TransferFailure::NobodyFit { detail }))] = &rig.ended[..] else {
            panic!("{:?}", rig.ended);
        };
        assert_eq!(detail, "node 2 votes no more");
        assert!(!rig.was_asked_to_leave());
    }

    #[test]
    fn whoever_was_asked_to_leave_knows_it_for_the_rest_of_the_term() {
        let mut rig = Rig::new(100);
        rig.run(LONGEST_US);
        assert!(!rig.was_asked_to_leave());
        rig.transfer(None, LONGEST_US);
        assert_eq!(rig.asked, 1);
        rig.run(10 * LONGEST_US);
        assert!(rig.asked > 1, "the request is repeated");
        let [(Token(7), Err(TransferFailure::TimedOut { .. }))] = &rig.ended[..] else {
            panic!("{:?}", rig.ended);
        };
        assert!(rig.was_asked_to_leave() && rig.raft.is_ready());
        let asked = rig.asked;
        rig.run(10 * LONGEST_US);
        assert_eq!(rig.asked, asked, "it is over");
    }

    #[test]
    fn a_preferred_node_that_never_takes_over_is_asked_rarely() {
        let mut rig = Rig::new(50);
        rig.fitness.insert(node(3), 60);
        rig.run(40 * LONGEST_US);
        assert_eq!(rig.begun_us.len(), 0, "hardly better");
        rig.fitness.insert(node(3), 61);
        rig.run(100 * LONGEST_US);
        assert!((3..=4).contains(&rig.begun_us.len()), "{:?}", rig.begun_us);
        let mut gaps = rig.begun_us.windows(2).map(|two| two[1] - two[0]);
        assert!(gaps.all(|gap| gap >= FAILED_REST * LONGEST_US), "{:?}", rig.begun_us);
        assert!(rig.ended.is_empty() && rig.raft.is_ready());
    }

    #[test]
    fn a_leader_among_unfit_voters_has_nobody_to_hand_over_to() {
        let mut rig = Rig::new(100);
        rig.fitness = BTreeMap::from([(node(2), 0), (node(3), 0)]);
        rig.run(LONGEST_US);
        rig.transfer(None, LONGEST_US);
        let [(Token(7), Err(TransferFailure::NobodyFit { .. }))] = &rig.ended[..] else {
            panic!("{:?}", rig.ended);
        };
        assert_eq!(rig.asked, 0);
    }
}
