//! Faults: which strikes whom, and what takes it back.

use std::collections::VecDeque;

use crate::replica::Input;
use crate::types::{ReadLevel, Role};

use super::disk::{DiskFaults, Rot};
use super::lives::Death;
use super::plan::Fault;
use super::world::{Event, World, node_id};

/// What follows a fault: its end, or its next step.
pub(super) enum Sequel {
    /// These directions are open again.
    Cuts(Cuts),
    /// The network does this no more.
    Weather(Fault),
    /// A disk works again.
    Disk(usize),
    /// It is as fast as before.
    DiskSlow(usize),
    /// A machine is as fast as before.
    MachineSlow(usize),
    /// A clock is right again.
    Drift(usize),
    /// These follow, each so long after the one before.
    Script(VecDeque<(u64, Move)>),
}

type Cuts = Vec<(usize, usize)>;

/// A step of a fault that takes several.
pub(super) enum Move {
    Cut(Cuts),
    Mend(Cuts),
    /// What one says to the other comes late, for so long.
    Clog(usize, usize, u64),
    /// A disk is damaged, which is found out at once.
    Damage(usize),
    Call(usize),
    /// Whoever leads, unless it is this one, is cut off for so long.
    Depose(usize, u64),
    Campaign(usize),
    Read(usize, ReadLevel),
    Forget(usize),
    HandOver(usize, usize),
}

/// A disk that does nothing for a while is this much slower than usual.
const STALL: u64 = 2_000;

impl World {
    /// The next fault strikes.
    pub(super) fn strike(&mut self) {
        if !self.is_stormy {
            return;
        }
        let after_us = self.fates.around(self.plan.fault_every_us);
        self.later(after_us, Event::Fault);
        let kinds: Vec<Fault> = self.plan.faults.iter().copied().collect();
        let fault = self.fates.pick(&kinds);
        let nodes = self.nodes.len() as u64;
        let at = usize::try_from(self.fates.below(nodes)).unwrap_or_default();
        let lasts_us = self.fates.around(self.plan.fault_lasts_us);
        self.fault_number += 1;
        let number = self.fault_number;
        let skipped = self.plan.skipped.contains(&number);
        if !skipped && self.inflict(fault, at, lasts_us) {
            *self.faults.entry(fault).or_default() += 1;
            self.tell(|| {
                format!("fault {number}: {} at {} for {lasts_us} us", fault.name(), at + 1)
            });
        }
    }

    fn inflict(&mut self, fault: Fault, at: usize, lasts_us: u64) -> bool {
        match fault {
            Fault::Kill => self.end(at, Death::Killed),
            Fault::PowerCut => self.end(at, Death::PowerCut),
            Fault::Blackout => {
                let mut any = false;
                for at in 0..self.nodes.len() {
                    any |= self.end(at, Death::PowerCut);
                }
                any
            }
            Fault::Midway => {
                let left = self.fates.below(12);
                let Some(life) = &mut self.nodes[at].life else { return false };
                life.outputs_left = Some(left);
                true
            }
            Fault::CrashLoop => {
                self.nodes[at].dies_while_recovering =
                    u32::try_from(1 + self.fates.below(4)).unwrap_or(1);
                let death = self.draw_death(at);
                self.end(at, death);
                true
            }
            Fault::Restart => self.stop(at),
            Fault::Pause => {
                let until_us = self.now_us + lasts_us;
                self.nodes[at].paused_until_us = until_us;
                self.later(lasts_us, Event::Resume { at });
                true
            }
            Fault::Isolate
            | Fault::Split
            | Fault::OneWay
            | Fault::Bridge
            | Fault::Chain
            | Fault::Ring => self.cut(fault, at, lasts_us),
            Fault::Clog => {
                let until_us = self.now_us + lasts_us;
                for peer in 0..self.nodes.len() {
                    if peer != at && self.fates.percent(50) {
                        self.net.to(at, peer).clogged_until_us = until_us;
                    }
                }
                true
            }
            Fault::Reset | Fault::HalfOpen => self.break_some(fault, at),
            Fault::Loss | Fault::Double | Fault::Reorder | Fault::Flip => {
                let ppm = self.fates.pick(&[10_000, 100_000, 400_000]);
                self.weather(fault, ppm);
                self.later(lasts_us, Event::Sequel { sequel: Sequel::Weather(fault) });
                true
            }
            Fault::WriteError | Fault::SyncError | Fault::OtherError | Fault::DiskFull => {
                self.spoil(fault, at);
                self.later(lasts_us, Event::Sequel { sequel: Sequel::Disk(at) });
                true
            }
            Fault::SlowDisk | Fault::StalledDisk => {
                self.nodes[at].disk_slow = if fault == Fault::SlowDisk { 30 } else { STALL };
                self.later(lasts_us, Event::Sequel { sequel: Sequel::DiskSlow(at) });
                true
            }
            Fault::Rot | Fault::DeadSector | Fault::LostDisk => self.damage(fault, at),
            Fault::SnapshotRot => self.damage_snapshot(at),
            Fault::SlowMachine => {
                self.nodes[at].machine_slow = 200;
                self.later(lasts_us, Event::Sequel { sequel: Sequel::MachineSlow(at) });
                true
            }
            Fault::Drift => {
                // Leases allow for a tenth between any two clocks.
                let ppm = if self.plan.wild_clocks {
                    self.fates.pick(&[-500_000, 500_000])
                } else if self.plan.lease_reads {
                    self.fates.pick(&[-45_000, -1_000, 300, 20_000, 45_000])
                } else {
                    self.fates.pick(&[-200_000, -1_000, 300, 100_000, 500_000])
                };
                self.drift(at, ppm);
                self.later(lasts_us, Event::Sequel { sequel: Sequel::Drift(at) });
                true
            }
            Fault::ClockStep => {
                let us = self.fates.pick(&[-3_600_000_000, -1_000_000, 1_000_000, 86_400_000_000]);
                self.nodes[at].clock.step_wall(us);
                true
            }
            Fault::Unrest => {
                let input =
                    if self.fates.percent(70) { Input::Campaign } else { Input::ForgetLeader };
                self.step(at, input);
                true
            }
            Fault::Ambush => self.ambush(at, lasts_us),
            Fault::Echo => self.echo(),
            Fault::Belated => self.belated(),
            Fault::Handover => self.ask_for_handover(at),
            Fault::LeaderStall => {
                let Some(leader) = self.leader() else { return false };
                self.nodes[leader].disk_slow = STALL;
                self.later(lasts_us, Event::Sequel { sequel: Sequel::DiskSlow(leader) });
                true
            }
        }
    }

    /// Ends a fault that lasts, or goes on with one of several steps.
    pub(super) fn follow(&mut self, sequel: Sequel) {
        match sequel {
            Sequel::Cuts(cuts) => self.mend(cuts),
            Sequel::Weather(fault) => self.weather(fault, 0),
            Sequel::Disk(at) => {
                self.nodes[at].faults = DiskFaults::default();
                self.nodes[at].disk.set_faults(DiskFaults::default());
            }
            Sequel::DiskSlow(at) => self.nodes[at].disk_slow = 1,
            Sequel::MachineSlow(at) => self.nodes[at].machine_slow = 1,
            Sequel::Drift(at) => self.drift(at, 0),
            Sequel::Script(script) => self.go_on_with(script),
        }
    }

    fn mend(&mut self, cuts: Cuts) {
        for (from, to) in cuts {
            let direction = self.net.to(from, to);
            direction.cuts = direction.cuts.saturating_sub(1);
        }
    }

    /// As many voters as can be spared are cut off and fall behind the victim, whose disk is damaged then; soon
    /// enough to catch it while it learns anew what it had, those who know that are cut off instead.
    fn ambush(&mut self, victim: usize, lasts_us: u64) -> bool {
        let voters = usize::try_from(self.plan.voters).unwrap_or_default();
        if victim >= voters || voters < 3 {
            return false;
        }
        let turn = usize::try_from(self.fates.below(voters as u64)).unwrap_or_default();
        let others = (0..voters).map(|seat| (seat + turn) % voters).filter(|at| *at != victim);
        let ignorant: Vec<usize> = others.take((voters - 1) / 2).collect();
        let before = self.apart(|at| ignorant.contains(&at));
        let after = self.apart(|at| at == victim || ignorant.contains(&at));
        let caught_us = self.fates.below(2 * self.plan.downtime_us);
        self.go_on_with(VecDeque::from([
            (0, Move::Cut(before.clone())),
            (lasts_us, Move::Damage(victim)),
            (caught_us, Move::Mend(before)),
            (0, Move::Cut(after.clone())),
            (2 * lasts_us, Move::Mend(after)),
        ]));
        true
    }

    /// A leader and a friend are alone with a call; others elect another, who is cut off in turn; when the first
    /// leads again, perhaps, its friend's answers of the time before arrive.
    fn echo(&mut self) -> bool {
        let voters = usize::try_from(self.plan.voters).unwrap_or_default();
        let Some(leader) = self.leader().filter(|_| voters > 4) else { return false };
        let other = 1 + usize::try_from(self.fates.below(voters as u64 - 1)).unwrap_or_default();
        let friend = (leader + other) % voters;
        let alone = self.apart(|at| at == leader || at == friend);
        let (min_us, max_us) = self.plan.election_us;
        self.go_on_with(VecDeque::from([
            (0, Move::Clog(friend, leader, 9 * max_us)),
            (0, Move::Cut(alone.clone())),
            (min_us / 2, Move::Call(leader)),
            (4 * max_us, Move::Mend(alone)),
            (min_us, Move::Depose(leader, 4 * max_us)),
            (min_us, Move::Campaign(leader)),
            (min_us, Move::Campaign(leader)),
            (max_us, Move::Campaign(leader)),
        ]));
        true
    }

    /// A leader that is not heard any more is deposed, and whoever did that acknowledges a call. Then the others'
    /// answers to its last heartbeats reach the old leader, which does not know: those to a regular one, a timeout
    /// later, or those to the very last one, from voters that were told to forget their leader. Or it was asked to hand
    /// over, and does not hear of the end.
    fn belated(&mut self) -> bool {
        let voters = usize::try_from(self.plan.voters).unwrap_or_default();
        let Some(leader) = self.leader().filter(|leader| voters > 2 && *leader < voters) else {
            return false;
        };
        let other = 1 + usize::try_from(self.fates.below(voters as u64 - 1)).unwrap_or_default();
        let heir = (leader + other) % voters;
        let others: Vec<usize> = (0..voters).filter(|at| *at != leader).collect();
        let alone: Cuts = (0..self.nodes.len()).map(|to| (leader, to)).collect();
        let ((min_us, max_us), beat_us) = (self.plan.election_us, self.plan.heartbeat_us);
        let heard_us = 2 * self.plan.delay_us;
        let (step_us, beats_us, asked, deposed): (u64, _, _, Vec<(u64, Move)>) =
            match self.fates.below(3) {
                0 => {
                    // The old leader gives up when it has heard nothing for the longest timeout.
                    let step_us = (max_us - min_us) / 10;
                    let campaigns =
                        [min_us, step_us].map(|after_us| (after_us, Move::Campaign(heir)));
                    (step_us, beat_us, None, Vec::from(campaigns))
                }
                1 => {
                    let forget = others.iter().map(|at| (0, Move::Forget(*at)));
                    let deposed = forget.chain([(0, Move::Campaign(heir))]).collect();
                    (beat_us / 4, 0, None, deposed)
                }
                _ => (beat_us / 4, 0, Some((0, Move::HandOver(leader, heir))), Vec::new()),
            };
        let took_us: u64 = deposed.iter().map(|(after_us, _)| after_us).sum();
        let arrive_us = heard_us + beats_us + took_us + 2 * step_us;
        let late = |at: usize| if at == heir { 3 * max_us } else { arrive_us };
        let clogs = others.iter().map(|at| (0, Move::Clog(*at, leader, late(*at))));
        let mut script: VecDeque<(u64, Move)> = clogs.collect();
        script.push_back((0, Move::Read(leader, ReadLevel::Linearizable)));
        script.extend(asked);
        script.push_back((heard_us + beats_us, Move::Cut(alone.clone())));
        script.extend(deposed);
        script.extend([
            (step_us, Move::Call(heir)),
            (step_us / 2, Move::Read(leader, ReadLevel::Linearizable)),
            (step_us, Move::Read(leader, ReadLevel::Lease)),
            (step_us, Move::Read(leader, ReadLevel::Lease)),
            (max_us, Move::Mend(alone)),
        ]);
        self.go_on_with(script);
        true
    }

    /// A node that leads, in the highest term if there are several.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| {
            let raft = self.nodes[*at].life.as_ref()?.replica.raft();
            (raft.role() == Role::Leader).then(|| (raft.term(), *at))
        };
        (0..self.nodes.len()).filter_map(|at| leads(&at)).max().map(|(_, at)| at)
    }

    /// Both directions between those for which `here` holds and those for which it does not.
    fn apart(&self, here: impl Fn(usize) -> bool) -> Cuts {
        let nodes = self.nodes.len();
        let all = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
        all.filter(|(a, b)| here(*a) != here(*b)).collect()
    }

    fn go_on_with(&mut self, mut script: VecDeque<(u64, Move)>) {
        while let Some((after_us, step)) = script.pop_front() {
            if after_us > 0 {
                script.push_front((0, step));
                return self.later(after_us, Event::Sequel { sequel: Sequel::Script(script) });
            }
            self.make(step);
        }
    }

    fn make(&mut self, step: Move) {
        match step {
            Move::Cut(cuts) => self.cut_all(&cuts),
            Move::Mend(cuts) => self.mend(cuts),
            Move::Clog(from, to, lasts_us) => {
                self.net.to(from, to).clogged_until_us = self.now_us + lasts_us;
            }
            Move::Damage(at) => {
                if self.damage(Fault::Rot, at) {
                    self.die(at, Death::Killed);
                }
            }
            Move::Call(at) => self.propose(self.plan.clients, at, 1, self.plan.patience_us, true),
            Move::Depose(heir, lasts_us) => {
                if let Some(leader) = self.leader().filter(|leader| *leader != heir) {
                    let cuts = self.apart(|at| at == leader);
                    self.cut_all(&cuts);
                    self.later(lasts_us, Event::Sequel { sequel: Sequel::Cuts(cuts) });
                }
            }
            Move::Campaign(at) => self.step(at, Input::Campaign),
            Move::HandOver(from, to) => drop(self.ask_to_hand_over(from, Some(node_id(to)), false)),
            Move::Forget(at) => self.step(at, Input::ForgetLeader),
            Move::Read(at, level) => self.read_at(at, level, self.plan.patience_us),
        }
    }

    fn end(&mut self, at: usize, death: Death) -> bool {
        let lives = self.nodes[at].life.is_some();
        self.die(at, death);
        lives
    }

    /// A clean stop: callers are answered, what is queued is written, the log is sealed.
    fn stop(&mut self, at: usize) -> bool {
        use crate::storage::Storage;
        if !self.is_running(at) {
            return false;
        }
        self.step(at, Input::Shutdown);
        if let Some(life) = &mut self.nodes[at].life {
            if let Some(batch) = life.writing.take() {
                life.submit(batch);
            }
            let rest: Vec<_> = life.queue.drain(..).collect();
            if !rest.is_empty() {
                life.submit(rest);
            }
            // What it says of its success is nobody's business any more.
            let _ = life.storage.close();
        }
        self.die(at, Death::Killed);
        true
    }

    fn cut(&mut self, fault: Fault, at: usize, lasts_us: u64) -> bool {
        let nodes = self.nodes.len();
        let pairs = |sees: &dyn Fn(usize, usize) -> bool| -> Vec<(usize, usize)> {
            let all = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
            all.filter(|(a, b)| a != b && !sees(*a, *b)).collect()
        };
        let side = self.fates.below(1 << nodes);
        let group = |node: usize| side >> node & 1;
        let turn = usize::try_from(self.fates.below(nodes as u64)).unwrap_or_default();
        let seat = |node: usize| (node + turn) % nodes;
        let outward = self.fates.percent(50);
        let cuts = if fault == Fault::Isolate {
            pairs(&|a, b| a != at && b != at)
        } else if fault == Fault::OneWay && outward {
            pairs(&|a, b| a != at || group(b) == 0)
        } else if fault == Fault::OneWay {
            pairs(&|a, b| b != at || group(a) == 0)
        } else if fault == Fault::Bridge {
            pairs(&|a, b| a == at || b == at || group(a) == group(b))
        } else if fault == Fault::Chain {
            pairs(&|a, b| seat(a).abs_diff(seat(b)) == 1)
        } else if fault == Fault::Ring {
            pairs(&|a, b| [1, nodes - 1].contains(&seat(a).abs_diff(seat(b))))
        } else {
            pairs(&|a, b| group(a) == group(b))
        };
        if cuts.is_empty() {
            return false;
        }
        self.cut_all(&cuts);
        self.later(lasts_us, Event::Sequel { sequel: Sequel::Cuts(cuts) });
        true
    }

    fn cut_all(&mut self, cuts: &[(usize, usize)]) {
        for (from, to) in cuts {
            self.net.to(*from, *to).cuts += 1;
        }
    }

    fn break_some(&mut self, fault: Fault, at: usize) -> bool {
        let mut any = false;
        for peer in 0..self.nodes.len() {
            if peer == at || self.net.get(at, peer).connection.is_none() || self.fates.percent(50) {
                continue;
            }
            any = true;
            if fault == Fault::HalfOpen {
                self.mark(super::Marker::HalfOpen);
                self.link_down(at, peer, "connection reset");
            } else {
                self.break_link(peer, at, "connection reset");
            }
        }
        any
    }

    fn weather(&mut self, fault: Fault, ppm: u32) {
        let weather = &mut self.net.weather;
        let what = if fault == Fault::Loss {
            &mut weather.loss_ppm
        } else if fault == Fault::Double {
            &mut weather.double_ppm
        } else if fault == Fault::Reorder {
            &mut weather.reorder_ppm
        } else {
            &mut weather.flip_ppm
        };
        *what = ppm;
    }

    fn spoil(&mut self, fault: Fault, at: usize) {
        let ppm = self.fates.pick(&[20_000, 200_000, 1_000_000]);
        let node = &mut self.nodes[at];
        let faults = &mut node.faults;
        if fault == Fault::WriteError {
            faults.write_error_ppm = ppm;
            faults.short_write_ppm = ppm / 2;
        } else if fault == Fault::SyncError {
            faults.sync_error_ppm = ppm;
            faults.dir_sync_error_ppm = ppm;
        } else if fault == Fault::OtherError {
            faults.read_error_ppm = ppm / 10;
            faults.other_error_ppm = ppm;
        } else {
            let room = self.fates.below(3) * 20_000;
            faults.capacity_bytes = Some(node.disk.used_bytes() + room);
        }
        node.disk.set_faults(*faults);
    }

    /// Stored content goes bad: on so many disks of a cluster as it can lose, and only where the log has
    /// a mark beyond it, since nobody can tell a damaged last write from one that was never finished.
    fn damage(&mut self, fault: Fault, at: usize) -> bool {
        let kinds = [("wal-", 6), ("vote", 1), ("superblock", 1)];
        let draw = self.fates.below(8);
        let flavour = self.fates.below(3);
        let leaves_it = self.fates.percent(50);
        let damaged = self.nodes.iter().filter(|node| node.has_lost()).count() as u64;
        if self.nodes[at].is_gone
            || (!self.nodes[at].has_lost() && damaged >= self.plan.damaged_max)
        {
            return false;
        }
        let id = self.nodes[at].id;
        if fault == Fault::LostDisk {
            if !self.is_known_everywhere(at) {
                return false;
            }
            self.die(at, Death::PowerCut);
            self.nodes[at].is_damaged = true;
            self.oracle.on_damaged(id);
            // Where a majority of disks is lost, a new one beside them could found another history.
            if leaves_it || damaged + 1 > (self.plan.voters - 1) / 2 {
                self.nodes[at].is_gone = true;
            } else {
                self.replace_disk(at);
            }
            return true;
        }
        if !self.nodes[at].life.as_ref().is_some_and(|life| life.is_sealed) {
            return false;
        }
        let rot = match (fault, flavour) {
            (Fault::DeadSector, _) => Rot::LatentError,
            (_, 0) => Rot::ZeroSector,
            (_, 1) => Rot::GarbleSector,
            (_, _) => Rot::FlipBit,
        };
        let mut left = draw;
        let prefix = kinds.iter().find(|(_, share)| {
            let here = left < *share;
            left = left.saturating_sub(*share);
            here
        });
        let prefix = prefix.map_or("wal-", |(prefix, _)| prefix);
        let mut struck = self.nodes[at].struck;
        struck.log |= prefix == "wal-";
        struck.vote_slots += u64::from(prefix == "vote");
        if struck.log && struck.vote_slots > 1 {
            return false;
        }
        let Some(what) = self.nodes[at].disk.rot(rot, prefix) else { return false };
        self.nodes[at].struck = struck;
        self.tell(|| format!("{}: {what}", at + 1));
        self.nodes[at].is_damaged = true;
        self.oracle.on_damaged(id);
        if leaves_it {
            // It is found out at once, while others may still lack what was here.
            self.die(at, Death::Killed);
        }
        true
    }

    /// A snapshot goes bad: on one disk at a time, and within what a cluster can lose. A lone node would have
    /// nobody to ask for another.
    fn damage_snapshot(&mut self, at: usize) -> bool {
        let rot = self.fates.pick(&[0, 1, 2, 3]);
        let rot =
            [Rot::FlipBit, Rot::GarbleSector, Rot::ZeroSector, Rot::LatentError][rot as usize];
        let dies = self.fates.percent(50);
        let lost = self.nodes.iter().filter(|node| node.has_lost()).count() as u64;
        let is_struck = self.nodes.iter().any(|node| node.struck.snapshot);
        if self.nodes[at].is_gone || self.nodes[at].is_damaged || is_struck {
            return false;
        }
        if lost >= self.plan.damaged_max || self.plan.voters < 2 {
            return false;
        }
        let Some(what) = self.nodes[at].disk.rot(rot, "snap-") else { return false };
        self.nodes[at].struck.snapshot = true;
        self.tell(|| format!("{}: {what}", at + 1));
        if dies {
            // It is found out at once, and there is no machine left to take another one of.
            self.die(at, Death::Killed);
        }
        true
    }

    /// Whether every other node would refuse this one with another disk: a committed membership names it,
    /// and all of them hold it.
    fn is_known_everywhere(&self, at: usize) -> bool {
        let id = self.nodes[at].id;
        let knows = |other: usize| {
            let Some(life) = &self.nodes[other].life else { return false };
            let raft = life.replica.raft();
            let known = raft.membership().members.get(&id).and_then(|member| member.disk_id);
            let last = raft.last().index;
            known.is_some() && raft.commit() == last && raft.durable() == last
        };
        (0..self.nodes.len()).filter(|other| *other != at).all(knows)
    }

    fn drift(&mut self, at: usize, ppm: i64) {
        let now_us = self.now_us;
        self.nodes[at].clock.drift(now_us, ppm);
        // Its deadline comes at another true time now.
        self.reschedule_tick(at);
    }
}
