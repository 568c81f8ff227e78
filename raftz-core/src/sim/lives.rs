//! How processes begin and end: starts, deaths, and supervisors that start again what stopped.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::node::lanes::{Applier, Cancel, Pieces};
use crate::node::{log_time_us, restore_at_start};
use crate::replica::{Input, Replica};
use crate::storage::wal::CUT_NOTE;
use crate::storage::{Storage, StorageError};
use crate::types::{FaultReason, GroupId, Index};

use super::marker::Marker;
use super::node::{self, Life};
use super::world::{Event, World, node_id};

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The process alone: its files are as it left them.
    Killed,
    /// The machine: what was not synced may be gone.
    PowerCut,
}

/// How long a process is down when nothing goes wrong any more.
const CALM_DOWNTIME_US: u64 = 50_000;

impl World {
    /// A replica has stopped. It is started again, as by a supervisor, unless that is hopeless.
    pub(super) fn halted(&mut self, at: usize, reason: FaultReason) {
        self.tell(|| format!("{} stops: {reason}", at + 1));
        let node = &mut self.nodes[at];
        let (excused, replaced) = (node.is_excused() || node.has_lost(), node.is_replaced);
        let Some(life) = &mut node.life else { return };
        // As a leader it has resigned by now; this is what it was when it was last seen.
        let led = self.oracle.leads(node_id(at), life.replica.raft().term());
        life.halted = Some(reason.clone());
        let expected = match &reason {
            FaultReason::Storage(_) => excused,
            FaultReason::WrongDisk { .. } => replaced,
            FaultReason::Machine { .. }
            | FaultReason::TooNew { .. }
            | FaultReason::Safety(_)
            | FaultReason::Host(_) => false,
        };
        if !expected {
            self.oracle.object("nodes run", format!("node {} stops: {reason}", at + 1));
        }
        match reason {
            FaultReason::WrongDisk { .. } => {
                self.mark(Marker::WrongDisk);
                self.nodes[at].is_gone = true;
            }
            FaultReason::Storage(_) => {
                self.mark(Marker::StorageFault);
                if led {
                    self.mark(Marker::LeaderSyncFailed);
                }
            }
            FaultReason::Machine { .. }
            | FaultReason::TooNew { .. }
            | FaultReason::Safety(_)
            | FaultReason::Host(_) => {}
        }
        let after_us = self.downtime(at);
        self.later(after_us, Event::Start { at });
    }

    pub(super) fn downtime(&mut self, at: usize) -> u64 {
        if !self.is_stormy {
            return CALM_DOWNTIME_US;
        }
        self.nodes[at].chooser.around(self.plan.downtime_us)
    }

    pub(super) fn draw_death(&mut self, at: usize) -> Death {
        if self.nodes[at].chooser.percent(50) { Death::PowerCut } else { Death::Killed }
    }

    /// A node's process ends, in the middle of whatever it does.
    pub(super) fn die(&mut self, at: usize, death: Death) {
        let Some(mut life) = self.nodes[at].life.take() else { return };
        self.tell(|| format!("{} dies: {death:?}", at + 1));
        let node = &mut self.nodes[at];
        if let Some(batch) = life.writing.take() {
            // Some of the operations of this submission have happened.
            node.disk.cut_after(Some(node.chooser.below(6)));
            life.fates = Arc::default();
            life.submit(batch);
            *self.markers.entry(Marker::CrashInWrite).or_default() += 1;
        } else {
            node.disk.cut_after(Some(0));
        }
        if let Some(job) = life.snapshot_jobs.pop_front() {
            // And of this.
            let number = life.number;
            let node = &mut self.nodes[at];
            node.disk.cut_after(Some(node.chooser.below(8)));
            life.snapshot_jobs.clear();
            node.life = Some(life);
            let restored = matches!(job, super::node::SnapshotJob::Restore(_));
            if !restored {
                drop(self.snapshot_job(at, job));
                self.mark(Marker::CrashInSnapshot);
            }
            match self.nodes[at].life.take() {
                Some(same) if same.number == number => life = same,
                Some(_) | None => return,
            }
        }
        let node = &mut self.nodes[at];
        if self.plan.machine_persists {
            node.kept = Some((life.applier, life.machine_applied));
        }
        drop((life.replica, life.storage, life.reader));
        match death {
            Death::Killed => node.disk.kill(),
            Death::PowerCut => node.disk.power_cut(),
        }
        node.disk.cut_after(None);
        for event in std::mem::take(&mut self.stashed[at]) {
            if let Event::Deliver { from, to, .. } | Event::Chunk { from, to, .. } = event {
                self.net.arrived(from, to);
            }
        }
        self.calls.node_died(node_id(at), self.now_us);
        self.reads.node_died(node_id(at));
        self.transfers.node_died(at);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != at) {
            self.net.to(at, peer).connection = None;
            if let Some(connection) = self.net.get(peer, at).connection
                && death == Death::Killed
                && self.net.is_open(at, peer)
            {
                let after_us = self.nodes[at].chooser.around(self.plan.delay_us);
                self.later(after_us, Event::Broken { at: peer, peer: at, connection });
            }
        }
        let after_us = self.downtime(at);
        self.later(after_us, Event::Start { at });
    }

    /// A node is started, unless it runs or can never run again.
    pub(super) fn start(&mut self, at: usize) {
        if self.is_running(at) || self.nodes[at].is_gone {
            return;
        }
        if self.nodes[at].paused_until_us > self.now_us {
            let after_us = self.nodes[at].paused_until_us - self.now_us;
            return self.later(after_us, Event::Start { at });
        }
        if self.nodes[at].life.is_some() {
            // It had stopped by itself; its process is still there.
            return self.die(at, Death::Killed);
        }
        let id = node_id(at);
        let node = &mut self.nodes[at];
        let cut = node.dies_while_recovering > 0;
        if cut {
            node.dies_while_recovering -= 1;
            node.disk.cut_after(Some(node.chooser.below(12)));
        }
        let opened = node::open(&node.disk, id, &self.plan);
        if cut {
            drop(opened);
            let death = self.draw_death(at);
            let node = &mut self.nodes[at];
            match death {
                Death::Killed => node.disk.kill(),
                Death::PowerCut => node.disk.power_cut(),
            }
            node.disk.cut_after(None);
            self.mark(Marker::CrashInRecovery);
            let after_us = self.downtime(at);
            return self.later(after_us, Event::Start { at });
        }
        match opened {
            Ok(opened) => self.open(at, opened),
            Err(error) => self.refuses_to_start(at, &error),
        }
    }

    pub(super) fn refuses_to_start(&mut self, at: usize, error: &StorageError) {
        self.tell(|| format!("{} does not start: {error}", at + 1));
        let node = &mut self.nodes[at];
        node.disk.kill();
        let for_good = matches!(
            error,
            StorageError::Corrupt { .. }
                | StorageError::HardStateLost { .. }
                | StorageError::NotFormatted { .. }
                | StorageError::TooNew { .. }
                | StorageError::WrongOwner { .. }
                | StorageError::UnknownFeature { .. }
        );
        let damaged = node.is_damaged;
        let is_sound = !damaged && (for_good || !node.is_excused());
        if is_sound {
            let sentence =
                format!("node {} does not start, and its disk is sound: {error}", at + 1);
            self.oracle.object("recovery", sentence);
        } else if damaged && for_good {
            self.nodes[at].is_gone = true;
            self.mark(Marker::Refused);
        } else {
            let after_us = self.downtime(at);
            self.later(after_us, Event::Start { at });
        }
    }

    fn open(&mut self, at: usize, opened: node::Opened) {
        let id = node_id(at);
        let node::Opened { wal: storage, snapshots, recovered, entries } = opened;
        let (recovered, entries) = (&recovered, entries.as_slice());
        self.tell(|| {
            format!(
                "{id} starts: boot {}, {:?}, last {}, committed {}, {:?}{}",
                recovered.boot.0,
                recovered.hard_state,
                recovered.last,
                recovered.commit,
                recovered.damage,
                recovered.notes.iter().map(|note| format!("\n    {note}")).collect::<String>()
            )
        });
        if recovered.damage.is_some() {
            self.mark(Marker::DamagedOpen);
        }
        if recovered.notes.iter().any(|note| note.contains(CUT_NOTE)) {
            self.mark(Marker::TornTail);
        }
        if self.nodes[at].segments() > 1 {
            self.mark(Marker::ManySegments);
        }
        let was_damaged = self.nodes[at].is_damaged;
        if self.nodes[at].is_replaced {
            self.oracle.on_replaced(id);
        }
        self.oracle.on_recovered(id, recovered, entries, was_damaged);
        self.lives += 1;
        let number = self.lives;
        let group = GroupId::FIRST;
        let reader = storage.reader();
        let node = &mut self.nodes[at];
        node.errors_seen = node.disk_errors();
        node.starts += 1;
        let (mut applier, mut machine_applied) = match node.kept.take() {
            Some((applier, applied)) => (applier.reopened(reader.clone()), applied),
            None => {
                let machine = (self.machine)();
                let applier = Applier::new(group, machine, reader.clone(), self.plan.apply_bytes);
                (applier, Index::ZERO)
            }
        };
        let own = self.plan.machine_persists.then_some(machine_applied);
        let place = Some(snapshots.as_ref());
        let snapshot =
            match restore_at_start(|store, id| applier.restore(store, id), own, place, recovered) {
                Ok((snapshot, news)) => {
                    news.iter().for_each(|note| self.tell(|| format!("{id}: {note}")));
                    snapshot
                }
                Err(error) => {
                    let error =
                        StorageError::Missing { index: Index::ZERO, detail: error.to_string() };
                    return self.refuses_to_start(at, &error);
                }
            };
        if let Some(kept) = &snapshot {
            // It may have become complete as the last thing of an earlier life.
            self.oracle.on_snapshot(id, kept);
            machine_applied = machine_applied.max(kept.base.id.index);
            if kept.base.id.index > recovered.last.index {
                *self.markers.entry(Marker::InstallFinished).or_default() += 1;
            }
        }
        if snapshot.as_ref().map_or(Index::ZERO, |kept| kept.base.id.index).max(machine_applied)
            < recovered.base.id.index
        {
            self.mark(Marker::SnapshotLacking);
        }
        let own_log_time_us = log_time_us(reader.as_ref(), recovered, machine_applied);
        let node = &mut self.nodes[at];
        let config = node::replica_config(
            &self.plan,
            id,
            recovered.identity.disk,
            (machine_applied, own_log_time_us),
            snapshot,
        );
        let now = node.clock.now(self.now_us);
        let seed = node.chooser.number();
        node.life = Some(Life {
            number,
            boot: recovered.boot,
            disk_id: recovered.identity.disk,
            founders_hash: recovered.identity.founders_hash,
            replica: Replica::new(config, recovered, now, seed),
            storage,
            reader,
            applier,
            machine_applied,
            pieces: Pieces::new(Arc::clone(&snapshots)),
            build: Cancel::default(),
            snapshots,
            snapshot_jobs: VecDeque::new(),
            queue: VecDeque::new(),
            writing: None,
            fates: Arc::default(),
            submissions: 0,
            is_sealed: false,
            lacks_room: false,
            applying: None,
            tick_at_us: None,
            ticks: 0,
            halted: None,
            outputs_left: None,
            unsent: Vec::new(),
        });
        self.oracle.on_kept(id, machine_applied, recovered, was_damaged);
        self.step(at, Input::Tick);
    }
}
