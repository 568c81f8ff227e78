//! The core object: its state, the way into it and out of it.
//!
//! `step` is the only way to change it. A step first notes time, then hands the input to the part
//! that decides (election, follower, leader), and in the end collects what every step may cause: one
//! write for all that changed, promises that have become durable, entries to apply. Order among
//! the parts of one step therefore never matters to a caller.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use litemap::LiteMap;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::types::{
    Damage, DiskId, Entries, Event, FaultReason, HardState, Index, LogId, Membership, NodeId, Now,
    RaftBody, RaftMessage, Recovered, Refusal, Role, Settings, Snapshot, Term, TransferFailure,
    earliest,
};

use super::config_log::ConfigLog;
use super::counts::Counts;
use super::leader::Leader;
use super::log::Log;
use super::log_time::LogClock;
use super::progress::PeerProgress;
use super::reads::Freshness;
use super::runs::TermRuns;
use super::snapshot::Install;
use super::transfer::{Leaving, Transfer};
use super::writes::Writes;
use super::{Action, Config, Input};

/// The state that goes with each role.
#[derive(Clone, Debug)]
pub(super) enum RoleState {
    Follower {
        /// The log is known to equal the present leader's up to here.
        verified: Index,
    },
    PreCandidate(Tally),
    Candidate(Tally),
    Leader(Box<Leader>),
}

/// Answers to one round of requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) round: u64,
    pub(super) granted: BTreeSet<NodeId>,
    pub(super) refused: BTreeSet<NodeId>,
}

/// One member's part in the consensus of one group.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(super) config: Config,
    pub(super) now: Now,
    pub(super) hard: HardState,
    pub(super) role: RoleState,
    pub(super) leader: Option<NodeId>,
    pub(super) log: Log,
    pub(super) configs: ConfigLog,
    pub(super) commit: Index,
    pub(super) applied: Index,
    /// Last index of the range that is being applied.
    pub(super) applying: Option<Index>,
    pub(super) writes: Writes,
    /// Highest log time seen, in this log or any it replaced.
    pub(super) log_time_us: u64,
    pub(super) damage: Option<Damage>,
    /// The newest snapshot on this node's disk.
    pub(super) snapshot: Option<Snapshot>,
    /// A snapshot that the machine is to be restored from, or is being restored from.
    pub(super) install: Option<Install>,
    /// Until then this voter keeps faith with the leader it heard.
    pub(super) faithful_until_us: u64,
    /// Until then it has promised the same to a leader that relies on it.
    pub(super) pledged_until_us: u64,
    pub(super) freshness: Freshness,
    pub(super) born_us: u64,
    /// Until then it does not resign again; see `on_read_failed`.
    pub(super) resigned_until_us: u64,
    pub(super) election_due_us: u64,
    pub(super) round: u64,
    pub(super) next_request: u64,
    /// Data directories that live links have proved.
    pub(super) linked: LiteMap<NodeId, DiskId>,
    /// Links may have proved directories that the membership does not know.
    pub(super) has_unrecorded_disks: bool,
    pub(super) storage_full: bool,
    /// Leadership on its way from this node to another, until that one is known to lead.
    pub(super) transfer: Option<Transfer>,
    pub(super) leaving: Leaving,
    pub(super) halted: bool,
    /// What makes this member unfit before it takes its first input.
    unfit: Option<FaultReason>,
    rng: ChaCha8Rng,
    told: Told,
    pub(super) counts: Counts,
}

/// What observers were told last.
#[derive(Clone, Debug)]
struct Told {
    role: Role,
    term: Term,
    /// Of votes, or of pre-votes.
    round: u64,
    leader: Option<NodeId>,
    /// The last leader that was known, and its term.
    last_leader: Option<(NodeId, Term)>,
    ready: bool,
}

/// A member's state, for people and for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Whether it leads and has committed an entry of its own term.
    pub ready: bool,
    /// Where its log begins.
    pub base: LogId,
    /// Its last entry.
    pub last: LogId,
    /// Everything up to here is on its disk.
    pub durable: Index,
    /// Everything up to here is known to be committed.
    pub commit: Index,
    /// Everything up to here is applied.
    pub applied: Index,
    /// The membership in force.
    pub membership: Membership,
    /// The settings in force.
    pub settings: Settings,
    /// What its disk has lost and the leader has not yet replaced.
    pub damage: Option<Damage>,
    /// A leader's view of the others; empty elsewhere.
    pub peers: Vec<PeerProgress>,
    /// Whom it is handing its leadership to.
    pub transfer: Option<NodeId>,
}

impl Raft {
    /// A member as its storage recovered it. It starts as a follower, whatever it was before: a
    /// persisted term is never resumed as leader or candidate.
    pub fn new(config: Config, recovered: &Recovered, now: Now, seed: u64) -> Self {
        let runs = TermRuns::new(recovered.base.id, recovered.last.index, &recovered.runs);
        let log = Log::new(runs);
        let mut configs = ConfigLog::new(&recovered.base);
        for entry in &recovered.config_entries {
            configs.appended(entry);
        }
        let known = if bug!(RestartCommitsItsLog) { Index(u64::MAX) } else { recovered.commit };
        let snapshot = config.snapshot.clone();
        // Where the machine is: at the snapshot that it was restored from, or where it says.
        let restored = snapshot.as_ref().map_or(Index::ZERO, |kept| kept.base.id.index);
        let machine = config.machine_applied.unwrap_or_default().max(restored);
        let base = recovered.base.id.index.max(restored);
        // What a machine has applied is committed, and stays so.
        let own = config.machine_applied.unwrap_or(base).max(base);
        let commit = known.max(own).min(log.last().index);
        configs.committed(commit);
        let lacks_snapshot = machine < recovered.base.id.index;
        let applied = if lacks_snapshot { machine } else { base.min(commit) };
        let mut raft = Self {
            now,
            hard: recovered.hard_state,
            role: RoleState::Follower { verified: recovered.base.id.index },
            leader: None,
            configs,
            commit,
            applied: if bug!(RestartSkipsWhatWasApplied) { commit } else { applied },
            applying: None,
            writes: Writes::new(recovered.boot),
            log_time_us: recovered.last_log_time_us.max(recovered.base.log_time_us),
            damage: recovered.damage,
            snapshot,
            install: None,
            faithful_until_us: 0,
            pledged_until_us: 0,
            freshness: Freshness::default(),
            born_us: now.boot_us,
            resigned_until_us: 0,
            election_due_us: 0,
            // An answer to a round of an earlier life must not count in this one.
            round: recovered.boot.0 << 32,
            next_request: 0,
            linked: LiteMap::new(),
            has_unrecorded_disks: true,
            storage_full: false,
            transfer: None,
            leaving: Leaving::default(),
            halted: false,
            unfit: None,
            rng: ChaCha8Rng::seed_from_u64(seed ^ recovered.boot.0.rotate_left(32)),
            told: Told {
                role: Role::Follower,
                term: recovered.hard_state.term,
                round: recovered.boot.0 << 32,
                leader: None,
                last_leader: None,
                ready: false,
            },
            counts: Counts::default(),
            log,
            config,
        };
        raft.finish_install();
        // A voter behaves at boot as if it had just heard a leader: it may have, in its last life.
        raft.keep_faith();
        if raft.config.lease_reads {
            raft.pledged_until_us = raft.faithful_until_us;
        }
        if raft.membership().voters.len() == 1 && raft.may_campaign() {
            // A lone voter can have heard nobody.
            raft.election_due_us = now.boot_us;
        }
        raft.unfit = raft.wrong_disk();
        raft
    }

    /// The fault of a member whose group knows it by another data directory.
    fn wrong_disk(&self) -> Option<FaultReason> {
        let Config { id: node, disk_id: ours, .. } = self.config;
        let known = self.membership().members.get(&node)?.disk_id?;
        (known != ours).then_some(FaultReason::WrongDisk { node, known, ours })
    }

    /// Takes one input and appends what is to be done to `actions`.
    pub fn step(&mut self, now: Now, input: Input, actions: &mut Vec<Action>) {
        if self.halted {
            if let Input::Propose { proposals } = input {
                let why = Refusal::Faulted { reason: "the replica has stopped".into() };
                let tokens = proposals.into_iter().map(|proposal| proposal.token).collect();
                actions.push(Action::Refused { tokens, why });
            } else if let Input::Transfer { token, .. } = input {
                let why = TransferFailure::Faulted { reason: "the replica has stopped".into() };
                actions.push(Action::TransferEnded { token, result: Err(why) });
            }
            return;
        }
        // Boot time never goes back; a caller whose clock does is read as standing still.
        self.now = Now { boot_us: now.boot_us.max(self.now.boot_us), wall_us: now.wall_us };
        if let Some(reason) = self.unfit.take() {
            self.halt(reason, actions);
            return self.step(now, input, actions);
        }
        match input {
            Input::Tick => {}
            Input::ForgetLeader => self.forget_leader(),
            Input::Receive { from, message } => self.receive(from, message, actions),
            Input::Propose { proposals } => self.propose(proposals, actions),
            Input::Read { request, by_lease } => self.on_read(request, by_lease, actions),
            Input::Campaign if self.is_pledged() => {}
            Input::Campaign => self.start_campaign(actions),
            Input::Transfer { token, target, deadline_us, steps_down } => {
                self.on_transfer(token, target, deadline_us, steps_down, actions);
            }
            Input::Persisted { op } => self.on_persisted(op, actions),
            Input::PersistFailed { reason } => self.halt(FaultReason::Storage(reason), actions),
            Input::Applied { index } => self.on_applied(index),
            Input::EntriesRead { request, result } => {
                self.on_entries_read(request, result, actions);
            }
            Input::SnapshotKept { snapshot } => self.on_snapshot_kept(snapshot),
            Input::SnapshotLost { id } => {
                self.snapshot.take_if(|kept| kept.id == id);
            }
            Input::Compact { upto } => self.compact(upto),
            Input::Restored { id } => self.on_restored(id, actions),
            Input::LinkUp { peer, disk, boot: _ } => self.on_link_up(peer, disk, actions),
            Input::LinkDown { peer } => self.on_link_down(peer),
            Input::StorageFull { full } => {
                if self.storage_full != full {
                    self.storage_full = full;
                    actions.push(Action::Event(Event::StorageFull { full }));
                }
            }
        }
        if !self.halted {
            self.settle(actions);
        }
    }

    /// What every step may cause: deadlines that have come, one write, entries to apply, news.
    fn settle(&mut self, actions: &mut Vec<Action>) {
        self.restore(actions);
        self.run_deadlines(actions);
        self.lead(actions);
        self.run_transfer(actions);
        let disk_was_idle = !self.writes.is_waiting();
        if let Some(op) = self.writes.issue(self.commit) {
            if disk_was_idle {
                self.disk_moves();
            }
            if !op.entries.is_empty() || op.truncate_from.is_some() || op.base.is_some() {
                self.log.writing(op.id.seq);
            }
            actions.push(Action::Persist(op));
        }
        self.apply_committed(actions);
        if !self.halted {
            self.evict();
            self.tell(actions);
        }
    }

    fn run_deadlines(&mut self, actions: &mut Vec<Action>) {
        if let RoleState::Leader(_) = self.role {
            self.run_leader_deadlines(actions);
        } else if self.now.boot_us >= self.election_due_us && self.may_campaign() {
            if self.writes.hard_state_is_durable() {
                self.start_campaign(actions);
            } else {
                // Another term on top of one that is not on disk yet would only wait longer, and pile
                // up writes behind a disk that hangs.
                self.await_election();
            }
        }
    }

    /// The boot-clock time at which [`Input::Tick`] is wanted; `None` when nothing is due ever. May
    /// change with every step.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.halted {
            return None;
        }
        let due = match &self.role {
            RoleState::Leader(leader) => self.leader_deadline_us(leader),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.may_campaign().then_some(self.election_due_us)
            }
        };
        earliest([due, self.transfer_deadline_us()])
    }

    fn on_persisted(&mut self, op: crate::types::OpId, actions: &mut Vec<Action>) {
        if !self.writes.persisted(op) {
            return;
        }
        self.disk_moves();
        self.log.persisted(if bug!(CompletionConfirmsAllInFlight) { u64::MAX } else { op.seq });
        for (to, message) in self.writes.release() {
            actions.push(Action::Send { to, message });
        }
        if self.writes.hard_state_is_durable() {
            self.on_own_vote_durable(actions);
        }
    }

    fn on_applied(&mut self, index: Index) {
        if self.applying.is_some_and(|upto| index <= upto) && index > self.applied {
            self.applied = index;
            if self.applying == Some(index) {
                self.applying = None;
            }
            self.freshness.applied(self.applied);
        }
    }

    /// Hands committed entries to the machine, one range at a time: what is committed meanwhile is
    /// the next range.
    fn apply_committed(&mut self, actions: &mut Vec<Action>) {
        if self.applying.is_some() || self.install.is_some() || self.applied >= self.commit {
            return;
        }
        if self.lacks_snapshot() {
            return;
        }
        if let Some(own) = self.config.machine_applied
            && !bug!(PersistedMachineStartsOver)
        {
            // A damaged log may end before its machine, and is filled again up to there and beyond.
            self.applied = self.applied.max(own.min(self.commit));
            self.freshness.applied(self.applied);
            if self.applied >= self.commit {
                return;
            }
        }
        let again = bug!(LastEntryIsAppliedAgain) && self.applied > self.log.base().index;
        let first = if again { self.applied } else { self.applied.next() };
        let mut last = if bug!(AppliesUncommitted) { self.log.last().index } else { self.commit };
        if self.config.machine_applied.is_some() && !bug!(PersistedMachineLeadsItsDisk) {
            last = last.min(self.log.durable());
            if last < first {
                return;
            }
        }
        if let Some((index, what)) = self.configs.too_new() {
            if index == first {
                let what = what.to_owned();
                return self.halt(FaultReason::TooNew { index, what }, actions);
            }
            last = last.min(index.prev());
        }
        let entries = if self.log.is_evicted(first) {
            last = last.min(self.log.last_evicted());
            Entries::new()
        } else {
            let entries = self.log.copy_run(first, last, self.config.apply_bytes_max);
            last = entries.last().map_or(last, |entry| entry.index);
            entries
        };
        self.applying = Some(last);
        actions.push(Action::Apply { first, last, entries });
    }

    /// Forgets entries that nobody is likely to need. A leader keeps what it has not applied, so that
    /// the bound on unapplied bytes counts all of it.
    fn evict(&mut self) {
        let upto = match self.role {
            RoleState::Leader(_) => self.applied,
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.log.durable()
            }
        };
        self.log.evict(upto, self.config.cache_bytes_max);
    }

    /// Adds entries to the log and to the step's write. True if that changed the membership in force.
    pub(super) fn append(&mut self, entries: Entries) -> bool {
        let mut membership_changed = false;
        for entry in &entries {
            membership_changed |= self.configs.appended(entry);
            self.log_time_us = self.log_time_us.max(entry.log_time_us);
        }
        self.log.extend(&entries);
        self.writes.append(entries);
        membership_changed
    }

    /// Moves the commit index forward. Nothing below it ever changes again.
    pub(super) fn commit_to(&mut self, index: Index) {
        let index = index.min(self.log.last().index);
        if index > self.commit {
            self.commit = index;
            self.configs.committed(index);
        }
    }

    /// Adopts a term, forgets the vote of the old one, and follows. News of a term is no sign of
    /// life: only who led before, and so kept no election timeout, draws a new one.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        if term > self.hard.term {
            self.hard = HardState { term, vote: None };
            if !bug!(TermIsNotPersisted) {
                self.writes.hard_state(self.hard);
            }
            self.writes.drop_promises_of_other_terms(term);
        }
        if matches!(self.role, RoleState::Leader(_)) {
            self.await_election();
        }
        self.role = RoleState::Follower { verified: self.log.base().index };
        self.leader = leader;
    }

    /// Draws a new election timeout, counted from now.
    pub(super) fn await_election(&mut self) {
        let (min, max) = self.election_timeouts_us();
        let spread = max.saturating_sub(min).max(1);
        // Who cannot apply yet should lead only where nobody else can.
        let patience = if self.lacks_snapshot() { max } else { self.deference_us() };
        let wait = min.saturating_add(self.rng.next_u64() % spread).saturating_add(patience);
        let due_us = self.now.boot_us.saturating_add(wait);
        self.election_due_us = due_us.max(self.leaving.sits_out_until_us);
    }

    /// For so long a voter keeps faith with a leader that it has heard.
    pub(super) fn faith_us(&self) -> u64 {
        self.configs.settings().election_timeout_min_ms.saturating_mul(1000)
    }

    /// The leader lives: no election, and no help for anybody else's, for a while.
    pub(super) fn keep_faith(&mut self) {
        self.faithful_until_us = self.now.boot_us.saturating_add(self.faith_us());
        self.await_election();
    }

    /// Local timeouts, never below what the group agreed on, and always apart: without a spread,
    /// candidates would tie for ever.
    pub(super) fn election_timeouts_us(&self) -> (u64, u64) {
        let floor = self.faith_us();
        let min = self.config.election_timeout_min_us.max(floor);
        let Config { election_timeout_min_us, election_timeout_max_us, .. } = self.config;
        let spread = election_timeout_max_us.saturating_sub(election_timeout_min_us).max(min / 2);
        (min, election_timeout_max_us.max(min.saturating_add(spread)))
    }

    /// The local interval, but never so rare that a voter's faith would not outlast two missed ones.
    pub(crate) fn heartbeat_interval_us(&self) -> u64 {
        self.config.heartbeat_interval_us.min(self.faith_us() / 3).max(1)
    }

    pub(super) fn send(&self, to: NodeId, body: RaftBody, actions: &mut Vec<Action>) {
        let message = RaftMessage { term: self.hard.term, body };
        actions.push(Action::Send { to, message });
    }

    /// Sends `body` once the hard state and the write `covering` are durable.
    pub(super) fn send_promise(
        &mut self,
        to: NodeId,
        body: RaftBody,
        covering: u64,
        actions: &mut Vec<Action>,
    ) {
        let message = RaftMessage { term: self.hard.term, body };
        if let Some(message) = self.writes.promise(to, message, covering) {
            actions.push(Action::Send { to, message });
        }
    }

    pub(super) fn nonsense(&self, from: NodeId, what: &str, actions: &mut Vec<Action>) {
        actions.push(Action::Event(Event::Nonsense { from, what: what.to_owned() }));
    }

    pub(super) fn halt(&mut self, reason: FaultReason, actions: &mut Vec<Action>) {
        self.halted = true;
        let why = TransferFailure::Faulted { reason: reason.to_string() };
        self.end_transfer(Err(why), actions);
        actions.push(Action::Event(Event::Faulted(reason.clone())));
        actions.push(Action::Halt(reason));
    }

    /// A membership came into force or went: tell, and keep a leader's peers in step with it.
    pub(super) fn membership_changed(&mut self, actions: &mut Vec<Action>) {
        let (index, membership) = self.configs.latest();
        let membership = membership.clone();
        if let Some(reason) = self.wrong_disk() {
            return self.halt(reason, actions);
        }
        actions.push(Action::Event(Event::Membership { index, membership }));
        self.reconcile_peers();
    }

    /// Stops this member for a reason that lies outside consensus.
    pub(crate) fn stop(&mut self) {
        self.halted = true;
        self.leader = None;
        self.role = RoleState::Follower { verified: self.log.base().index };
    }

    fn tell(&mut self, actions: &mut Vec<Action>) {
        let (role, term) = (self.role(), self.hard.term);
        if (role, self.round) != (self.told.role, self.told.round) {
            self.counts.role((self.told.role, self.told.term), (role, term));
            self.told.round = self.round;
        }
        let known = self.leader.map(|leader| (leader, term));
        if known.is_some() && known != self.told.last_leader {
            self.told.last_leader = known;
            self.counts.leader_changes += 1;
        }
        if (role, term) != (self.told.role, self.told.term) {
            self.told.role = role;
            self.told.term = term;
            self.told.ready = false;
            actions.push(Action::Event(Event::Role { role, term }));
        }
        if self.leader != self.told.leader {
            self.told.leader = self.leader;
            actions.push(Action::Event(Event::Leader { leader: self.leader, term }));
        }
        if self.is_ready() && !self.told.ready {
            self.told.ready = true;
            actions.push(Action::Event(Event::Ready { term }));
        }
    }

    /// Its role.
    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Follower { .. } => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// Its id.
    pub const fn id(&self) -> NodeId {
        self.config.id
    }

    /// Its term.
    pub const fn term(&self) -> Term {
        self.hard.term
    }

    /// The leader it knows, itself included.
    pub const fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Everything up to here is known to be committed.
    pub const fn commit(&self) -> Index {
        self.commit
    }

    /// Its last entry.
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// Everything up to here is on its disk.
    pub fn durable(&self) -> Index {
        self.log.durable()
    }

    /// Where its log begins.
    pub const fn base(&self) -> LogId {
        self.log.base()
    }

    /// Whether the machine is at work on a range, or on a snapshot.
    pub const fn is_applying(&self) -> bool {
        self.applying.is_some() || self.install.is_some()
    }

    /// Everything up to here is applied.
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// The term of the entry at `index`, from memory.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        self.configs.settings()
    }

    /// The membership in force.
    pub fn membership(&self) -> &Membership {
        self.configs.latest().1
    }

    /// What its disk has lost and the leader has not yet replaced.
    pub const fn damage(&self) -> Option<Damage> {
        self.damage
    }

    /// Index of the entry that gave the membership in force.
    pub fn membership_index(&self) -> Index {
        self.configs.latest().0
    }

    /// Whether it refuses proposals for lack of disk space.
    pub const fn storage_full(&self) -> bool {
        self.storage_full
    }

    /// What has happened, in numbers.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A leader's view of the others; nothing elsewhere.
    pub fn progress(&self) -> impl Iterator<Item = PeerProgress> {
        let peers = match &self.role {
            RoleState::Leader(leader) => Some(&leader.peers),
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                None
            }
        };
        peers.into_iter().flatten().map(|(id, peer)| peer.describe(*id))
    }

    /// Whether it leads and knows everything older to be committed.
    pub fn is_ready(&self) -> bool {
        match &self.role {
            RoleState::Leader(leader) => self.commit >= leader.first,
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                false
            }
        }
    }

    /// Its state, for people and for tests.
    pub fn status(&self) -> Status {
        Status {
            role: self.role(),
            term: self.hard.term,
            vote: self.hard.vote,
            leader: self.leader,
            ready: self.is_ready(),
            base: self.log.base(),
            last: self.log.last(),
            durable: self.log.durable(),
            commit: self.commit,
            applied: self.applied,
            membership: self.membership().clone(),
            settings: self.configs.settings().clone(),
            damage: self.damage,
            peers: self.progress().collect(),
            transfer: self.hands_over_to(),
        }
    }

    /// A hash of everything that its future depends on, with times relative to now, writes counted
    /// from the last durable one and reads from the last request, so that two equal states reached at
    /// different moments compare equal.
    ///
    /// Left out: randomness still to be drawn, the log's clock (which stamps entries and decides
    /// nothing), and what entries say beyond their identities. In one history an identity names one
    /// entry (Log Matching); who compares states of several histories must hash the logs, too.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let now_us = self.now.boot_us;
        let relative = |at_us: u64| at_us.saturating_sub(now_us);
        (self.hard.term, self.hard.vote, self.leader, self.role()).hash(&mut hasher);
        (self.commit, self.applied, self.applying).hash(&mut hasher);
        self.writes.fingerprint(&mut hasher);
        self.log.fingerprint(self.writes.durable(), &mut hasher);
        (relative(self.faithful_until_us), relative(self.election_due_us)).hash(&mut hasher);
        (relative(self.resigned_until_us), relative(self.pledged_until_us)).hash(&mut hasher);
        self.freshness.fingerprint(now_us, &mut hasher);
        self.leaving.fingerprint(now_us, self.writes.is_waiting(), &mut hasher);
        self.transfer.as_ref().map(|it| it.fingerprint(now_us, &mut hasher)).hash(&mut hasher);
        // Answers repeat the round that they answer: it decides which of those on their way count.
        self.round.hash(&mut hasher);
        (self.configs.latest().0, self.configs.change_pending()).hash(&mut hasher);
        (format!("{:?}", self.damage), &self.linked).hash(&mut hasher);
        (self.snapshot.as_ref().map(|kept| kept.id), &self.install).hash(&mut hasher);
        (self.storage_full, self.halted, self.unfit.is_some()).hash(&mut hasher);
        match &self.role {
            RoleState::Follower { verified } => verified.hash(&mut hasher),
            RoleState::PreCandidate(tally) | RoleState::Candidate(tally) => {
                (tally.round, &tally.granted, &tally.refused).hash(&mut hasher);
            }
            RoleState::Leader(leader) => leader.fingerprint(now_us, self.next_request, &mut hasher),
        }
        hasher.finish()
    }

    /// Starts the clock of a new leader.
    pub(super) fn log_clock(&self) -> LogClock {
        LogClock::start(self.log_time_us, self.now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use crate::types::{Base, Boot, EntryKind, Heartbeat, HeartbeatReply, Member};

    use super::*;

    const NOW: Now = Now { boot_us: 7, wall_us: 7 };

    /// One of three voters, whose timeouts are all drawn alike.
    fn voter(election_timeout_min_ms: u64) -> Raft {
        let (id, disk) = (NodeId::new(1).unwrap(), DiskId(1));
        let members = (1..=3).map(|id| (NodeId::new(id).unwrap(), Member::at("10.0.0.1:1")));
        let settings = Settings { election_timeout_min_ms, ..Settings::default() };
        let base = Base::founding(Membership::of_voters(members), settings);
        let recovered = Recovered::founded(id, disk, base);
        let mut config = Config::new(id, disk);
        (config.election_timeout_min_us, config.election_timeout_max_us) = (1, 1);
        Raft::new(config, &recovered, NOW, 1)
    }

    /// Its fingerprint after each of `inputs`.
    fn fingerprints(inputs: &[Input]) -> Vec<u64> {
        let mut raft = voter(0);
        let step = |input: &Input| {
            raft.step(NOW, input.clone(), &mut Vec::new());
            raft.fingerprint()
        };
        inputs.iter().map(step).collect()
    }

    #[test]
    fn a_leader_left_with_a_silent_voter_counts_from_when_that_was_heard() {
        let mut raft = voter(100);
        (raft.config.election_timeout_min_us, raft.config.election_timeout_max_us) =
            (100_000, 300_000);
        raft.become_leader(&mut Vec::new());
        let second = NodeId::new(2).unwrap();
        raft.peer_mut(second).unwrap().heard(100_000);
        let role_at = |raft: &mut Raft, boot_us| {
            raft.step(Now { boot_us, ..NOW }, Input::Tick, &mut Vec::new());
            raft.role()
        };
        assert_eq!(role_at(&mut raft, 299_000), Role::Leader);
        assert_eq!(role_at(&mut raft, 301_000), Role::Leader, "node 2 was heard");
        let mut membership = raft.membership().clone();
        membership.voters.remove(&second);
        let payload = membership.to_payload().unwrap();
        raft.append_own(EntryKind::Membership, payload, None, &mut Vec::new());
        assert_eq!(role_at(&mut raft, 301_000), Role::Follower, "node 3 never was");
    }

    #[test]
    fn a_leader_that_is_its_own_quorum_confirms_its_last_round_with_every_answer() {
        let mut raft = voter(100);
        raft.become_leader(&mut Vec::new());
        let mut membership = raft.membership().clone();
        membership.voters.retain(|id| *id == raft.config.id);
        let payload = membership.to_payload().unwrap();
        raft.append_own(EntryKind::Membership, payload, None, &mut Vec::new());
        let from = NodeId::new(2).unwrap();
        let (mut beats, mut fresh_at) = (VecDeque::new(), Vec::new());
        for boot_us in (10_000..).step_by(33_334).take(10) {
            let mut inputs = VecDeque::from([Input::Tick]);
            while let Some(input) = inputs.pop_front() {
                let mut actions = Vec::new();
                raft.step(Now { boot_us, ..NOW }, input, &mut actions);
                for action in actions {
                    if let Action::Persist(write) = action {
                        inputs.push_back(Input::Persisted { op: write.id });
                    } else if let Action::Apply { last, .. } = action {
                        inputs.push_back(Input::Applied { index: last });
                    } else if let Action::Send { to, message } = action
                        && let RaftBody::Heartbeat(beat) = message.body
                        && to == from
                    {
                        beats.push_back(beat);
                    }
                }
            }
            // Every answer is two rounds late.
            if beats.len() > 2
                && let Some(Heartbeat { session, round, sent_us, .. }) = beats.pop_front()
            {
                let body = RaftBody::HeartbeatReply(HeartbeatReply {
                    session,
                    round,
                    sent_us,
                    clock_us: boot_us,
                    faith_us: 0,
                    fitness: 0,
                    storage_full: false,
                });
                let message = RaftMessage { term: raft.term(), body };
                let input = Input::Receive { from, message };
                raft.step(Now { boot_us, ..NOW }, input, &mut Vec::new());
                fresh_at.push(raft.fresh_at_us());
            }
        }
        assert!(fresh_at.len() >= 6 && fresh_at.is_sorted_by(|a, b| a < b), "{fresh_at:?}");
    }

    #[test]
    fn a_fingerprint_tells_rounds_and_links_apart() {
        let peer = NodeId::new(2).unwrap();
        let rounds = fingerprints(&[Input::Campaign, Input::Campaign]);
        assert_ne!(rounds[0], rounds[1], "an answer to the first round counts in the first alone");
        let up = Input::LinkUp { peer, disk: DiskId(2), boot: Boot(1) };
        let links = fingerprints(&[Input::Tick, up, Input::LinkDown { peer }]);
        assert_ne!(links[0], links[1], "a proved disk is to be recorded");
        assert_eq!(links[0], links[2], "a follower forgets a link with its end");
    }
}
