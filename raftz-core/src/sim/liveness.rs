//! The second phase of a run: what is left must work again, by itself and soon.
//!
//! A quorum of sound voters is chosen, the *core*; every fault among them is taken back and every fault
//! outside becomes permanent: dead nodes, links that work in one direction, slow disks. Then a leader must come
//! within ten election timeouts, new calls must be done, logs and machines must be equal, and no term
//! may follow.

use crate::raft::Raft;
use crate::types::{Lost, NodeId, ReadLevel, Role};

use crate::replica::SnapshotPolicy;

use super::calls::End;
use super::disk::DiskFaults;
use super::links::DEAD_AFTER_US;
use super::network::Weather;
use super::world::{Event, World, node_id, place};

/// Calls that each node of the core must get done.
const FRESH_CALLS: u64 = 5;
/// Who makes them; there are fewer clients than this in every plan.
pub(super) const FRESH_CLIENT: u64 = 1 << 32;
/// How long they may take: old calls may fill queues for a while.
pub(super) const PATIENCE_US: u64 = 30_000_000;
/// So many times longer, if whoever leads has a slow disk: it reads what others lack from there.
const SLOW_LEADERS_NEED: u64 = 10;

impl World {
    /// Heals the cluster and sees whether it recovers. `false` if it was beyond help, by the plan.
    pub(super) fn recover(&mut self) -> bool {
        let Some(core) = self.choose_core() else {
            if !self.plan.is_beyond_survival() {
                let sentence =
                    "fewer sound nodes than a majority, though faults spared one".to_owned();
                self.oracle.object("atlas", sentence);
            }
            return false;
        };
        self.heal(&core);
        // Half-open connections of the storm come to their ends first.
        self.run_until(self.now_us + 2 * DEAD_AFTER_US, |_| false);
        let timeout_us = self.plan.election_us.1.max(self.plan.election_us.0 * 3 / 2);
        let limit_us = 10 * timeout_us + self.backlog_us(&core) + self.transfer_us();
        let end_us = self.now_us + limit_us;
        let is_led = |world: &mut Self| {
            let leader = world.leader_of(&core);
            leader.is_some_and(|at| world.is_slow(at) || world.ready_leader(&core).is_some())
        };
        if !self.run_until(end_us, is_led) {
            let states = self.describe(&core);
            let sentence = format!("no leader {} ms after healing: {states}", limit_us / 1000);
            self.oracle.object("a leader in ten election timeouts", sentence);
        }
        self.check_fresh_calls(&core);
        self.check_fresh_reads(&core);
        self.check_rest(&core, timeout_us);
        self.check_sick_leader(&core, timeout_us);
        true
    }

    /// How long the disks of the core need for what piled up before them: up to a sync for each entry,
    /// where the plan lets no two share one.
    fn backlog_us(&self, core: &[usize]) -> u64 {
        let writes = |at: &usize| {
            let queue = self.nodes[*at].life.iter().flat_map(|life| &life.queue);
            queue.map(|(_, op)| op.entries.len().max(1) as u64).sum::<u64>()
        };
        2 * self.plan.disk_us * core.iter().map(writes).max().unwrap_or_default()
    }

    /// How long a member of the quorum may need to fetch a snapshot first, once its last source is given up.
    fn transfer_us(&self) -> u64 {
        const SNAPSHOT_BYTES: u64 = 100_000;
        let SnapshotPolicy { log_bytes, log_entries, piece_bytes, stall_us, .. } =
            self.plan.snapshots;
        let rate = self.plan.snapshots.send_bytes_per_s;
        if log_bytes == 0 && log_entries == 0 {
            return 0;
        }
        let pieces = SNAPSHOT_BYTES / piece_bytes as u64 + 4;
        let sent_us = (SNAPSHOT_BYTES * 1_000_000).checked_div(rate).unwrap_or_default();
        2 * stall_us + sent_us + pieces * (4 * self.plan.disk_us + 2 * self.plan.delay_us)
    }

    fn choose_core(&mut self) -> Option<Vec<usize>> {
        let voters = usize::try_from(self.plan.voters).unwrap_or_default();
        let mut sound: Vec<usize> = (0..voters)
            .filter(|at| !self.nodes[*at].is_gone && !self.nodes[*at].has_lost())
            .collect();
        let majority = voters / 2 + 1;
        if sound.len() < majority {
            return None;
        }
        let spare = sound.len() - majority;
        let extra = usize::try_from(self.fates.below(spare as u64 + 1)).unwrap_or_default();
        while sound.len() > majority + extra {
            let drop = usize::try_from(self.fates.below(sound.len() as u64)).unwrap_or_default();
            sound.remove(drop);
        }
        // Who lost a snapshot, and nothing else, must get another one from the others, and work again.
        let is_curable = |at: &usize| {
            let node = &self.nodes[*at];
            node.struck.snapshot && !node.is_damaged && !node.is_gone
        };
        sound.extend((0..voters).filter(is_curable));
        Some(sound)
    }

    fn heal(&mut self, core: &[usize]) {
        self.is_stormy = false;
        self.net.weather = Weather::default();
        self.net.bound = self.net.bound.max(1024);
        let nodes = self.nodes.len();
        self.tell(|| {
            format!(
                "only {:?} must work from now on",
                core.iter().map(|at| at + 1).collect::<Vec<_>>()
            )
        });
        for from in 0..nodes {
            for to in 0..nodes {
                self.net.to(from, to).heal();
            }
        }
        for at in 0..nodes {
            let node = &mut self.nodes[at];
            node.faults = DiskFaults::default();
            node.disk.set_faults(DiskFaults::default());
            node.disk_slow = 1;
            node.machine_slow = 1;
            node.dies_while_recovering = 0;
            node.paused_until_us = 0;
            if let Some(life) = &mut node.life {
                life.outputs_left = None;
            }
            node.clock.drift(self.now_us, 0);
            self.reschedule_tick(at);
            self.later(0, Event::Resume { at });
            self.finish_lanes(at);
            self.later(1, Event::Start { at });
            if !core.contains(&at) {
                self.break_for_good(at);
            }
        }
    }

    /// What a disk or a machine was slow with is done now.
    pub(super) fn finish_lanes(&mut self, at: usize) {
        let Some(life) = &self.nodes[at].life else { return };
        let (life, writes, applies) =
            (life.number, life.writing.is_some(), life.applying.is_some());
        if writes {
            self.later(1, Event::Written { at, life });
        }
        if applies {
            self.later(1, Event::Applied { at, life });
        }
        self.later(1, Event::Snapshot { at, life });
        self.later(1, Event::Space { at, life });
    }

    /// What lies outside of the core stays broken, in one way or another.
    fn break_for_good(&mut self, at: usize) {
        let how = self.fates.below(5);
        let nodes = self.nodes.len();
        self.nodes[at].is_outside = how < 3;
        match how {
            0 => {
                let death = self.draw_death(at);
                self.die(at, death);
                self.nodes[at].is_gone = true;
            }
            // It speaks and hears nothing, or hears and is not heard.
            1 => (0..nodes).for_each(|peer| self.net.to(peer, at).cuts = 1),
            2 => (0..nodes).for_each(|peer| self.net.to(at, peer).cuts = 1),
            3 => {
                // An attempt that stalls loses what is no whole chunk: where that is several pieces, or all of a
                // snapshot, a leader must not be too slow to give them in one attempt.
                let SnapshotPolicy { stall_us, .. } = self.plan.snapshots;
                let most = stall_us / (40 * self.plan.disk_us);
                self.nodes[at].disk_slow = most.clamp(2, 50);
            }
            _ => {}
        }
    }

    /// The leader whom all of the core follow, once it has committed an entry of its term. It may be a node
    /// outside of the core, if that works well enough.
    pub(super) fn ready_leader(&self, core: &[usize]) -> Option<usize> {
        self.leader_of(core).filter(|at| self.raft(*at).is_some_and(Raft::is_ready))
    }

    pub(super) fn leader_of(&self, core: &[usize]) -> Option<usize> {
        let leader = self.raft(*core.first()?)?.leader()?;
        let agree = |at: &usize| self.raft(*at).and_then(Raft::leader) == Some(leader);
        let leads = self.raft(place(leader)).is_some_and(|raft| raft.role() == Role::Leader);
        let leads = leads && !self.nodes[place(leader)].is_outside;
        (leads && core.iter().all(agree)).then_some(place(leader))
    }

    fn is_slow(&self, at: usize) -> bool {
        self.nodes[at].disk_slow > 1
    }

    /// Nodes outside of the core whom nothing keeps from following it: learners, and nodes whose disks had been
    /// damaged. A disk that is too damaged to be opened at all does.
    fn bystanders(&self, core: &[usize]) -> Vec<usize> {
        let follows = |at: &usize| {
            let node = &self.nodes[*at];
            let is_lost = node.is_gone || (node.is_damaged && node.life.is_none());
            !core.contains(at) && !is_lost && !node.is_outside && !self.is_slow(*at)
        };
        (0..self.nodes.len()).filter(follows).collect()
    }

    fn has_applied_all(&self, at: usize) -> bool {
        self.raft(at).is_some_and(|raft| raft.applied().0 == self.oracle.committed())
    }

    /// Whether its disk lacks nothing that this term can give back: what was lost without a name, a later one
    /// replaces.
    fn is_whole(&self, at: usize) -> bool {
        let waits_for = |lost: Lost| lost.last_known.map_or(lost.term_max.next(), |last| last.term);
        self.raft(at).is_some_and(|raft| {
            raft.damage().is_none_or(|damage| waits_for(damage.lost) > raft.term())
        })
    }

    fn raft(&self, at: usize) -> Option<&Raft> {
        let life = self.nodes[at].life.as_ref().filter(|life| life.halted.is_none());
        life.map(|life| life.replica.raft())
    }

    pub(super) fn describe(&self, core: &[usize]) -> String {
        let states = core.iter().map(|at| match &self.nodes[*at].life {
            None => format!("{} is down", at + 1),
            Some(life) => {
                let raft = life.replica.raft();
                let (role, term, commit, last) =
                    (raft.role(), raft.term(), raft.commit(), raft.last());
                format!("{} {role} of term {term}, committed {commit}, last {last}", at + 1)
            }
        });
        states.collect::<Vec<_>>().join("; ")
    }

    /// Each node of the core gets calls done. A refusal says that nothing has happened, so the caller asks
    /// again; but no call may be left unknown where nothing goes wrong.
    fn check_fresh_calls(&mut self, core: &[usize]) {
        let is_slow = self.leader_of(core).is_some_and(|at| self.is_slow(at));
        let patience_us = PATIENCE_US * if is_slow { SLOW_LEADERS_NEED } else { 1 };
        let end_us = self.now_us + patience_us;
        for at in core {
            let client = FRESH_CLIENT + *at as u64;
            for round in 0..FRESH_CALLS {
                loop {
                    self.propose(client, *at, 1, patience_us, true);
                    self.run_until(end_us + 1, |world| !world.calls.waits(client));
                    if self.oracle.violation.is_some() {
                        return;
                    }
                    match self.calls.last_end() {
                        Some(End::Done(_)) => break,
                        Some(End::Refused) if self.now_us < end_us => {
                            self.run_until(self.now_us + 100_000, |_| false);
                        }
                        end => {
                            let (node, states) = (at + 1, self.describe(core));
                            let sentence = format!(
                                "call {round} to node {node} after healing ended as {end:?}: {states}"
                            );
                            return self.oracle.object("calls are done after healing", sentence);
                        }
                    }
                }
            }
        }
    }

    /// Each node of the core answers a linearizable read.
    fn check_fresh_reads(&mut self, core: &[usize]) {
        let is_slow = self.leader_of(core).is_some_and(|at| self.is_slow(at));
        let patience_us = PATIENCE_US * if is_slow { SLOW_LEADERS_NEED } else { 1 };
        for at in core {
            if self.oracle.violation.is_some() {
                return;
            }
            self.read_at(*at, ReadLevel::Linearizable, patience_us);
            let has_ended = |world: &mut Self| world.reads.last_end().is_some();
            self.run_until(self.now_us + 2 * patience_us, has_ended);
            if !matches!(self.reads.last_end(), Some(Ok(_))) {
                let (node, end, states) = (at + 1, self.reads.last_end(), self.describe(core));
                let sentence =
                    format!("a read at node {node} after healing ended as {end:?}: {states}");
                self.oracle.object("reads are answered after healing", sentence);
            }
        }
    }

    fn check_rest(&mut self, core: &[usize], timeout_us: u64) {
        let terms = |world: &Self| -> Vec<u64> {
            let life = |at: &usize| world.nodes[*at].life.as_ref();
            core.iter().map(|at| life(at).map_or(0, |life| life.replica.raft().term().0)).collect()
        };
        let bystanders = self.bystanders(core);
        self.wait_for_rest(core, &bystanders);
        if !self.plan.is_fair() {
            // Whoever is preferred leads by then, also after an attempt that failed.
            self.run_until(self.now_us + 50 * timeout_us, |_| false);
        }
        // An election may be under way, of a leader whose disk was found to stand still, say: that ends.
        self.run_until(self.now_us + 10 * timeout_us, |world| {
            let terms = terms(world);
            world.ready_leader(core).is_some() && terms.iter().all(|term| *term == terms[0])
        });
        let before = terms(self);
        // Whose disk is slow may be found to stand still, and make room.
        let may_leave = self.leader_of(core).is_some_and(|at| self.is_slow(at));
        self.run_until(self.now_us + 10 * timeout_us, |_| false);
        if self.oracle.violation.is_some() {
            return;
        }
        // One that is preferred, and too slow to lead, is tried now and then.
        let is_tried = !self.plan.is_fair() && (0..self.nodes.len()).any(|at| self.is_slow(at));
        if terms(self) != before && !is_tried && !may_leave {
            let sentence =
                format!("terms go on growing after healing: {before:?}, then {:?}", terms(self));
            return self.oracle.object("no term growth", sentence);
        }
        let leader = self.ready_leader(core);
        let ids: Vec<NodeId> = core.iter().map(|at| node_id(*at)).collect();
        let committed = self.oracle.committed();
        let states = self.describe(core);
        let behind = core.iter().chain(&bystanders).find(|at| !self.has_applied_all(**at));
        let hurt = bystanders.iter().find(|at| !self.is_whole(**at));
        if leader.is_none() {
            self.oracle.object("one leader at rest", states);
        } else if let Some(behind) = behind {
            let sentence = format!("node {} has not applied all {committed}: {states}", behind + 1);
            self.oracle.object("equal states at rest", sentence);
        } else if let Some(hurt) = hurt {
            let sentence = format!("node {} never got back what its disk had lost", hurt + 1);
            self.oracle.object("damage heals", sentence);
        } else if !self.oracle.logs_agree(&ids) {
            self.oracle.object("equal logs at rest", states);
        }
        self.check_machines(core);
    }

    /// A node that has to apply its whole log anew, or to be sent what its disk lost, may take long, above all
    /// from a leader whose disk is slow; but it must get on.
    fn wait_for_rest(&mut self, core: &[usize], bystanders: &[usize]) {
        let mut before = None;
        let applied = |world: &Self| -> u64 {
            let rafts = core.iter().chain(bystanders).filter_map(|at| world.raft(*at));
            rafts.map(|raft| raft.applied().0).sum()
        };
        while before != Some(applied(self)) {
            before = Some(applied(self));
            let rests = self.run_until(self.now_us + PATIENCE_US, |world| {
                core.iter().chain(bystanders).all(|at| world.has_applied_all(*at))
                    && bystanders.iter().all(|at| world.is_whole(*at))
            });
            if rests {
                return;
            }
        }
    }

    /// Compares the machines themselves, by what they would put into a snapshot.
    fn check_machines(&mut self, core: &[usize]) {
        if !self.makes_snapshots {
            return;
        }
        let expected = match super::freeze(self.oracle.reference()) {
            Ok(expected) => expected,
            Err(why) => return self.no_snapshot("a machine", &why),
        };
        for at in core {
            let Some(life) = &mut self.nodes[*at].life else { continue };
            match life.applier.content() {
                Ok(found) if found == expected => {}
                Ok(_) => {
                    let sentence = format!(
                        "the machine of node {} holds another state than one that applied the same commands",
                        at + 1
                    );
                    return self.oracle.object("machines agree", sentence);
                }
                Err(why) => {
                    return self.no_snapshot(&format!("the machine of node {}", at + 1), &why);
                }
            }
        }
    }

    /// A machine makes no snapshot, although one without commands makes them.
    pub(super) fn no_snapshot(&mut self, whose: &str, why: &str) {
        self.oracle.object("machine", format!("{whose} makes no snapshot: {why}"));
    }
}
