//! What a node's snapshot threads would do: freeze, write, serve, receive and restore, each in its time.

use std::sync::Arc;

use crate::node::lanes::{Cancel, PieceJob, build, scrub};
use crate::node::not_restored;
use crate::replica::Input;
use crate::types::{Base, GroupId};

use super::marker::Marker;
use super::node::SnapshotJob;
use super::world::{Event, World, node_id};

impl World {
    /// The machine is frozen at once, as it is after what it was given before.
    pub(super) fn freeze(&mut self, at: usize, base: Box<Base>) {
        let Some(life) = &mut self.nodes[at].life else { return };
        let machine_at = life.machine_applied;
        if machine_at != base.id.index {
            let sentence = format!(
                "node {} takes a snapshot for {}, and its machine has applied {machine_at}",
                at + 1,
                base.id
            );
            return self.oracle.object("snapshots say what they hold", sentence);
        }
        match life.applier.freeze() {
            Ok(view) => {
                life.build = Cancel::default();
                let cancel = life.build.clone();
                self.snapshot_later(at, SnapshotJob::Build { view, base, cancel });
            }
            Err(detail) if self.makes_snapshots => {
                self.no_snapshot(&format!("the machine of node {}", at + 1), &detail);
            }
            Err(detail) => life.unsent.push(Input::SnapshotBuilt(Err(detail))),
        }
    }

    pub(super) fn piece_later(&mut self, at: usize, job: PieceJob) {
        self.snapshot_later(at, SnapshotJob::Piece(job));
    }

    /// Hands work to the snapshot lane.
    pub(super) fn snapshot_later(&mut self, at: usize, job: SnapshotJob) {
        let (after_us, number) = self.disk_time(at);
        let Some(life) = &mut self.nodes[at].life else { return };
        life.snapshot_jobs.push_back(job);
        if life.snapshot_jobs.len() == 1 {
            self.later(after_us, Event::Snapshot { at, life: number });
        }
    }

    /// The snapshot lane does what is next.
    pub(super) fn snapshot_work(&mut self, at: usize, number: u64) {
        if !self.is_life(at, number) {
            return;
        }
        let Some(life) = &mut self.nodes[at].life else { return };
        let Some(job) = life.snapshot_jobs.pop_front() else { return };
        let has_more = !life.snapshot_jobs.is_empty();
        let input = self.snapshot_job(at, job);
        if has_more {
            let (after_us, life) = self.disk_time(at);
            self.later(after_us, Event::Snapshot { at, life });
        }
        if let Some(input) = input {
            self.step(at, input);
        }
    }

    /// Does one thing; what the replica is to be told of it.
    pub(super) fn snapshot_job(&mut self, at: usize, job: SnapshotJob) -> Option<Input> {
        let life = self.nodes[at].life.as_mut()?;
        let group = GroupId::FIRST;
        match job {
            SnapshotJob::Build { view, base, cancel } => {
                let store = Arc::clone(&life.snapshots);
                let built = build(store.as_ref(), group, view, &base, 0, &|| cancel.check());
                if cancel.check().is_err() {
                    self.mark(Marker::BuildCancelled);
                }
                if let Ok(snapshot) = &built {
                    self.cure(at);
                    self.oracle.on_snapshot(node_id(at), snapshot);
                }
                Some(Input::SnapshotBuilt(built))
            }
            SnapshotJob::Restore(id) => match life.applier.restore(life.snapshots.as_ref(), &id) {
                Ok(()) => {
                    life.machine_applied = id.last.index;
                    self.oracle.on_restored(node_id(at), id);
                    Some(Input::Restored(id))
                }
                Err(failure) => Some(not_restored(id, &failure)),
            },
            SnapshotJob::Scrub(newest) => {
                let damaged = scrub(life.snapshots.as_ref(), group, newest, &mut |_| true);
                if !damaged.is_empty() {
                    self.mark(Marker::SnapshotRotFound);
                }
                Some(Input::SnapshotsScrubbed(damaged))
            }
            SnapshotJob::Piece(job) => {
                let input = life.pieces.serve(group, job);
                match &input {
                    Some(Input::FetchBegan { result: Ok(held), .. }) if *held > 0 => {
                        self.mark(Marker::TransferResumed);
                    }
                    Some(
                        Input::FetchFinished { result: Ok(snapshot), .. }
                        | Input::SnapshotFound(snapshot),
                    ) => {
                        self.cure(at);
                        self.oracle.on_snapshot(node_id(at), snapshot);
                    }
                    Some(_) | None => {}
                }
                input
            }
        }
    }

    /// A sound snapshot has come to be. What waits to be restored may be the one that was damaged.
    fn cure(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let installing = node.life.as_ref().and_then(|life| life.replica.raft().installing());
        node.struck.snapshot &= installing.is_some();
    }
}
