//! What to do about a snapshot that rotted or went: how it is found out, and where the next one comes from.
//!
//! While the node runs its machine is whole, and a new snapshot of it takes the place of the damaged one. At a
//! start it is not: where the log begins after what any snapshot here covers, one is asked of the other nodes,
//! and nothing is applied before it is here. Nothing is ever skipped.

use crate::raft;
use crate::types::{
    Event, Index, Message, NodeId, Snapshot, SnapshotId, SnapshotMessage, earliest,
};

use super::super::Action;
use super::super::member::Replica;
use super::Building;
use super::fetch::RETRY_PARTS;

/// What is known to be damaged, and when things are due.
#[derive(Clone, Debug, Default)]
pub(super) struct Cure {
    /// Damaged ones, which go once there is a newer one.
    pub(super) damaged: Vec<SnapshotId>,
    scrub_due_us: Option<u64>,
    is_scrubbing: bool,
    /// Who was asked last, and when the next one is.
    asked: Option<NodeId>,
    ask_due_us: u64,
    /// When another attempt is made at a snapshot that must be.
    take_due_us: u64,
}

impl Replica {
    /// When something is due for the sake of damage.
    pub(super) fn cure_deadline(&self) -> Option<u64> {
        let cure = &self.snapshots.cure;
        let scrub = cure.scrub_due_us.filter(|_| !cure.is_scrubbing);
        let ask = self.must_ask().then_some(cure.ask_due_us);
        let take = self.must_take().then_some(cure.take_due_us);
        earliest([scrub, ask, take])
    }

    /// Has everything read that is kept, from time to time.
    pub(super) fn scrub(&mut self, out: &mut Vec<Action>) {
        let (now_us, interval_us) = (self.now.boot_us, self.snapshots.policy.scrub_interval_us);
        let cure = &mut self.snapshots.cure;
        if interval_us == 0 || self.snapshots.newest.is_none() {
            cure.scrub_due_us = None;
            return;
        }
        let latest_us = now_us.saturating_add(interval_us);
        let due_us = cure.scrub_due_us.unwrap_or(latest_us).min(latest_us);
        cure.scrub_due_us = Some(due_us);
        if !cure.is_scrubbing && now_us >= due_us {
            cure.is_scrubbing = true;
            let newest = self.snapshots.newest.as_ref().map(|kept| kept.id);
            out.push(Action::ScrubSnapshots { newest });
        }
    }

    pub(in crate::replica) fn scrubbed(
        &mut self,
        damaged: Vec<(SnapshotId, String)>,
        out: &mut Vec<Action>,
    ) {
        let interval_us = self.snapshots.policy.scrub_interval_us;
        let cure = &mut self.snapshots.cure;
        cure.is_scrubbing = false;
        cure.scrub_due_us = Some(self.now.boot_us.saturating_add(interval_us));
        for (id, detail) in damaged {
            self.snapshot_damaged(id, &detail, out);
        }
    }

    /// A snapshot cannot be read. If it is the newest, another one is taken of the machine at once.
    pub(super) fn snapshot_damaged(&mut self, id: SnapshotId, detail: &str, out: &mut Vec<Action>) {
        let it = &mut self.snapshots;
        if !it.cure.damaged.contains(&id) {
            it.cure.damaged.push(id);
        }
        if it.newest.take_if(|kept| kept.id == id).is_none() {
            return self.prune(out);
        }
        it.is_wanted = true;
        let detail = format!("a snapshot is damaged, and another one is taken: {detail}");
        out.push(Action::Event(Event::StorageTrouble { detail }));
        self.drive(raft::Input::SnapshotLost { id }, out);
    }

    /// Whether nobody could be given what the log no longer has.
    fn must_take(&self) -> bool {
        let it = &self.snapshots;
        let is_bare = it.newest.is_none() && self.raft.base().index > Index::ZERO;
        is_bare && it.building == Building::No && !self.raft.lacks_snapshot()
    }

    /// Wants a snapshot again and again where there must be one.
    pub(super) fn want_what_must_be(&mut self) {
        let now_us = self.now.boot_us;
        if self.must_take() && now_us >= self.snapshots.cure.take_due_us {
            let wait_us = (self.snapshots.policy.stall_us / RETRY_PARTS).max(1);
            self.snapshots.cure.take_due_us = now_us.saturating_add(wait_us);
            self.want_snapshot();
        }
    }

    // ---- asking the others ----

    fn must_ask(&self) -> bool {
        self.raft.lacks_snapshot()
            && self.raft.installing().is_none()
            && self.snapshots.fetching.is_none()
    }

    /// Asks one node after the other for a snapshot of what this one's log no longer has. One of them is this
    /// node itself: that a disk could not be read may pass.
    pub(super) fn ask_for_snapshot(&mut self, out: &mut Vec<Action>) {
        let now_us = self.now.boot_us;
        if !self.must_ask() || now_us < self.snapshots.cure.ask_due_us {
            return;
        }
        let (last, here) = (self.snapshots.cure.asked, self.raft.id());
        let is_there = |id: &&NodeId| **id == here || self.is_linked(**id);
        let there = || self.raft.membership().members.keys().filter(is_there);
        let next = there().find(|id| Some(**id) > last).or_else(|| there().next()).copied();
        let wait_us = (self.snapshots.policy.stall_us / RETRY_PARTS).max(1);
        let cure = &mut self.snapshots.cure;
        (cure.asked, cure.ask_due_us) = (next, now_us.saturating_add(wait_us));
        let least = self.raft.base().index;
        match next {
            Some(to) if to == here => out.push(Action::FindSnapshot { least }),
            Some(to) => {
                let message = Message::Snapshot(SnapshotMessage::Want { least });
                out.push(Action::Send { to, message });
            }
            None => {}
        }
    }

    /// A snapshot that could not be read can be.
    pub(in crate::replica) fn found(&mut self, snapshot: Snapshot, out: &mut Vec<Action>) {
        if self.must_ask() && self.raft.wants_snapshot(snapshot.id.last.index) {
            self.keep_snapshot(snapshot, out);
        }
    }

    /// Somebody asks for a snapshot. If the newest is too old, and the machine is not, there soon is another:
    /// it will ask again.
    pub(super) fn take_want(&mut self, from: NodeId, least: Index, out: &mut Vec<Action>) {
        if !self.raft.membership().contains(from) {
            return;
        }
        match self.snapshots.newest.as_ref().map(|kept| kept.id) {
            Some(id) if id.last.index >= least => {
                let message = Message::Snapshot(SnapshotMessage::Have { id });
                out.push(Action::Send { to: from, message });
            }
            Some(_) | None if self.raft.applied() >= least => self.want_snapshot(),
            Some(_) | None => {}
        }
    }

    pub(super) fn take_have(&mut self, from: NodeId, id: SnapshotId, out: &mut Vec<Action>) {
        let is_sane = id.last.index.is_sane() && id.bytes > 0;
        let is_of_use = self.must_ask() && self.raft.wants_snapshot(id.last.index);
        if is_sane && is_of_use && self.raft.membership().contains(from) {
            self.offered(from, id, out);
        }
    }
}
