//! Snapshots: where the log begins, who is offered one, how one is installed (dissertation 5).
//!
//! Invariants kept here: the log's base is never above what a snapshot on this disk covers, and never above
//! what is applied; what is applied never moves back; a snapshot replaces the log only where the log does not
//! hold its last entry, and only after the machine has been restored from it. So a crash at any moment finds
//! the old log and machine, or a snapshot that boot restores from and finishes the install of.

use crate::types::{
    AppendOutcome, AppendReply, Base, FaultReason, Index, NodeId, RaftBody, Snapshot, SnapshotId,
    SnapshotOffer,
};

use super::Action;
use super::config_log::ConfigLog;
use super::core::{Raft, RoleState};
use super::progress::{Mode, Progress};

/// A snapshot on its way into the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Install {
    snapshot: Snapshot,
    /// Whether the machine is at it. Before that, what is being applied is waited for.
    is_restoring: bool,
}

impl std::hash::Hash for Install {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.snapshot.id, self.is_restoring).hash(state);
    }
}

impl Raft {
    /// Whether entries that the machine lacks are no longer in the log: a snapshot was damaged or lost. Until
    /// there is another one nothing is applied, and everything else goes on.
    pub fn lacks_snapshot(&self) -> bool {
        self.applied < self.log.base().index
    }

    /// The snapshot that the machine is to be restored from, if there is one.
    pub fn installing(&self) -> Option<SnapshotId> {
        self.install.as_ref().map(|install| install.snapshot.id)
    }

    /// Whether a snapshot that ends there would move the machine forward more surely than the log does.
    pub fn wants_snapshot(&self, last: Index) -> bool {
        last > self.commit || (self.lacks_snapshot() && last >= self.log.base().index)
    }

    // ---- the own log ----

    /// The base of a log that begins behind `index`; `None` unless all of it is applied and still in the log.
    /// Its log time is not above that of any entry behind it; exact is the one of a snapshot.
    pub fn base_at(&self, index: Index, log_time_us: u64) -> Option<Base> {
        if index > self.applied || index < self.log.base().index {
            return None;
        }
        Some(Base {
            id: crate::types::LogId::new(self.log.term_at(index)?, index),
            log_time_us,
            membership: self.configs.membership_as_of(index).clone(),
            settings: self.configs.settings_as_of(index).clone(),
        })
    }

    /// A snapshot is on the disk. Where it is ahead of the machine, the machine is to be restored from it.
    pub(super) fn on_snapshot_kept(&mut self, snapshot: Snapshot) {
        let last = snapshot.base.id;
        let is_newer = self.snapshot.as_ref().is_none_or(|kept| kept.base.id.index <= last.index);
        if !is_newer {
            return;
        }
        let is_wanted = match &self.install {
            None => {
                (last.index > self.applied && self.wants_snapshot(last.index))
                    || bug!(OldSnapshotsAreInstalled)
            }
            Some(install) => !install.is_restoring,
        };
        // A leader's log holds whatever is committed: only its machine may lack something.
        if is_wanted && (!matches!(self.role, RoleState::Leader(_)) || self.lacks_snapshot()) {
            self.install = Some(Install { snapshot: snapshot.clone(), is_restoring: false });
        }
        self.snapshot = Some(snapshot);
    }

    /// Lets the log begin behind `upto`, or as near to it as a snapshot and the machine allow.
    pub(super) fn compact(&mut self, upto: Index) {
        let covered = self.snapshot.as_ref().map_or(Index::ZERO, |kept| kept.base.id.index);
        let upto = if bug!(CompactsBeyondTheSnapshot) { self.applied } else { upto.min(covered) };
        let upto = upto.min(self.applied);
        if upto <= self.log.base().index || self.install.is_some() {
            return;
        }
        let exact = self.snapshot.as_ref().map(|kept| &kept.base).filter(|it| it.id.index == upto);
        let log_time_us = exact.map_or(0, |base| base.log_time_us);
        let Some(base) = self.base_at(upto, log_time_us) else { return };
        self.rebase(base);
        // Who was sent what is gone, and has not said so, cannot be asked again where that ended.
        if let RoleState::Leader(leader) = &mut self.role {
            let behind = leader
                .peers
                .iter_mut()
                .map(|(_, peer)| peer)
                .filter(|peer| peer.next().prev() < upto);
            behind.for_each(Progress::become_snapshot);
        }
    }

    fn rebase(&mut self, base: Base) {
        let replaces = !self.log.holds(base.id);
        if replaces {
            self.configs = ConfigLog::new(&base);
        } else {
            self.configs.rebase(&base);
        }
        self.log.rebase(base.id);
        self.writes.rebase(base, replaces);
    }

    // ---- a leader offers ----

    /// Offers the newest snapshot to a peer that needs entries below the log's base.
    pub(super) fn offer_snapshot(&mut self, to: NodeId, actions: &mut Vec<Action>) {
        let commit = self.commit;
        let Some(id) = self.snapshot.as_ref().map(|kept| kept.id) else { return };
        let Some(session) = self.peer_mut(to).map(|peer| peer.session()) else { return };
        let offer = SnapshotOffer { session, id, commit };
        self.send(to, RaftBody::SnapshotOffer(offer), actions);
    }

    /// What each peer that has answered since `since_us` needs next of this leader's log; `None` for one that
    /// needs a snapshot first. Nothing is known where this node does not lead.
    pub(crate) fn peers_need(&self, since_us: u64) -> Option<Vec<(NodeId, Option<Index>)>> {
        let RoleState::Leader(leader) = &self.role else { return None };
        let live = leader.peers.iter().filter(|(_, peer)| peer.contact_us() >= since_us);
        let need = |(id, peer): (&NodeId, &Progress)| {
            let next = match peer.mode() {
                Mode::Snapshot => None,
                Mode::Probe { .. } | Mode::Replicate(_) if peer.matched() > Index::ZERO => {
                    Some(peer.matched().next())
                }
                Mode::Probe { .. } | Mode::Replicate(_) => Some(peer.next()),
            };
            (*id, next)
        };
        Some(live.map(need).collect())
    }

    // ---- a follower takes ----

    pub(super) fn on_snapshot_offer(
        &mut self,
        from: NodeId,
        offer: SnapshotOffer,
        actions: &mut Vec<Action>,
    ) {
        let SnapshotOffer { session, id, commit } = offer;
        let last = id.last;
        if !last.index.is_sane() || last.index == Index::ZERO || last.term > self.hard.term {
            return self.nonsense(from, "an absurd snapshot", actions);
        }
        self.keep_faith();
        if last.index > self.commit && !self.log.holds(last) {
            // Also one that is newer than what the machine is just being restored from.
            let is_here = self.install.is_some()
                && self.snapshot.as_ref().is_some_and(|kept| kept.id.last >= last);
            if !is_here {
                actions.push(Action::Fetch { from, id });
            }
            // It may have come so far by an older one that the leader's log is enough.
            let outcome = AppendOutcome::Rejected { prev: last.index, hint: self.log.last() };
            let reply = AppendReply { session, outcome };
            return self.send(from, RaftBody::AppendReply(reply), actions);
        }
        // What a snapshot covers is committed; so is what this log holds of it, up to its very last entry.
        self.advance_verified(last.index);
        self.commit_to(last.index.max(commit.min(last.index)));
        self.heal(actions);
        let early = bug!(SnapshotIsAckedEarly);
        let covering = if early { 0 } else { self.covering(last.index) };
        let outcome =
            AppendOutcome::Matched { matched: last.index, storage_full: self.storage_full };
        let reply = AppendReply { session, outcome };
        self.send_promise(from, RaftBody::AppendReply(reply), covering, actions);
    }

    /// Has the machine restored, once it is through with what it was given before.
    pub(super) fn restore(&mut self, actions: &mut Vec<Action>) {
        if self.applying.is_some() {
            return;
        }
        let Some(install) = &mut self.install else { return };
        if install.is_restoring {
            return;
        }
        if install.snapshot.base.id.index <= self.applied && !bug!(OldSnapshotsAreInstalled) {
            // The log has overtaken it.
            self.install = None;
            return;
        }
        install.is_restoring = true;
        let id = install.snapshot.id;
        if self.config.machine_applied.is_some_and(|own| own >= id.last.index) {
            // It has kept more than the damaged log: only the log is to be replaced.
            return self.on_restored(id, actions);
        }
        actions.push(Action::Restore { id });
    }

    pub(super) fn on_restored(&mut self, id: SnapshotId, actions: &mut Vec<Action>) {
        let Some(install) = self.install.take_if(|it| it.is_restoring && it.snapshot.id == id)
        else {
            return;
        };
        let base = install.snapshot.base;
        let last = base.id;
        let before = self.membership().clone();
        if !self.log.holds(last) {
            if matches!(self.role, RoleState::Leader(_)) || last.index <= self.commit {
                let what = format!("snapshot {last:?} contradicts the committed log");
                return self.halt(FaultReason::Safety(what), actions);
            }
            self.log_time_us = self.log_time_us.max(base.log_time_us);
            self.rebase(base);
        }
        self.applied = self.applied.max(last.index);
        self.freshness.applied(self.applied);
        self.commit_to(last.index);
        self.advance_verified(last.index);
        if *self.membership() != before {
            self.membership_changed(actions);
        }
        if !self.halted {
            self.heal(actions);
        }
    }

    /// Finishes an install that a crash interrupted: the machine was restored from a snapshot that the log does
    /// not reach.
    pub(super) fn finish_install(&mut self) {
        let Some(base) = self.snapshot.as_ref().map(|kept| kept.base.clone()) else { return };
        let last = base.id;
        if last.index <= self.log.base().index || self.log.holds(last) {
            return;
        }
        self.log_time_us = self.log_time_us.max(base.log_time_us);
        self.rebase(base);
        self.applied = last.index;
        self.commit = last.index;
    }
}
