//! Leadership that moves: who asks for it, that each is answered once, and that a sick leader leaves.

use std::collections::BTreeMap;

use crate::replica::{Input, TransferCall};
use crate::types::{NodeId, Token, TransferFailure, TransferPhase};

use super::calls::End;
use super::liveness::{FRESH_CLIENT, PATIENCE_US};
use super::marker::Marker;
use super::world::{World, node_id};

/// A disk that is this much slower than usual does nothing within any patience.
const STANDS_STILL: u64 = 1_000_000;

/// Requests for another leader that have not ended: at which node, and by when on its clock.
#[derive(Default)]
pub(super) struct Transfers {
    waiting: BTreeMap<Token, (usize, u64)>,
    latest: u64,
}

impl Transfers {
    /// Whether one that waits at this node should have ended by `boot_us` on its clock.
    pub(super) fn overdue(&self, at: usize, boot_us: u64) -> bool {
        self.waiting.values().any(|(asked, deadline_us)| *asked == at && *deadline_us <= boot_us)
    }

    /// A node is gone, with who asked it.
    pub(super) fn node_died(&mut self, at: usize) {
        self.waiting.retain(|_, (asked, _)| *asked != at);
    }
}

impl World {
    /// Somebody wants another leader; mostly he asks who leads.
    pub(super) fn ask_for_handover(&mut self, at: usize) -> bool {
        let leader = self.leader();
        let at = if self.fates.percent(80) { leader.unwrap_or(at) } else { at };
        let nodes = self.nodes.len() as u64;
        let target = self.fates.below(2 * nodes + 1);
        // Also one that does not exist.
        let target = NodeId::new(target + 1).filter(|id| id.get() <= nodes + 1);
        let steps_down = target.is_none() && self.fates.percent(30);
        self.ask_to_hand_over(at, target, steps_down)
    }

    /// Somebody asks this node to hand over, if it runs.
    pub(super) fn ask_to_hand_over(
        &mut self,
        at: usize,
        target: Option<NodeId>,
        steps_down: bool,
    ) -> bool {
        let patience_us = self.fates.around(4 * self.plan.election_us.1);
        if !self.is_running(at) || self.nodes[at].paused_until_us > self.now_us {
            return false;
        }
        self.transfers.latest += 1;
        let token = Token(self.transfers.latest);
        let deadline_us = self.nodes[at].clock.now(self.now_us).boot_us + patience_us;
        self.transfers.waiting.insert(token, (at, deadline_us));
        let call = TransferCall { token, target, deadline_us, steps_down };
        self.tell(|| format!("{} is asked: {call:?}", at + 1));
        self.step(at, Input::Transfer(call));
        true
    }

    /// A node says how a request ended.
    pub(super) fn transfer_ended(
        &mut self,
        at: usize,
        token: Token,
        result: &Result<NodeId, TransferFailure>,
    ) {
        self.tell(|| format!("{} ends transfer {}: {result:?}", at + 1, token.0));
        let asked = self.transfers.waiting.remove(&token).map(|(asked, _)| asked);
        if asked != Some(at) {
            let sentence = format!("node {} ends transfer {} twice, or another's", at + 1, token.0);
            self.oracle.object("calls end once", sentence);
        }
        if let Ok(leader) = result
            && *leader == node_id(at)
        {
            let sentence = format!("node {} says that it handed over to itself", at + 1);
            self.oracle.object("transfers move", sentence);
        }
    }

    /// How far a transfer has come.
    pub(super) fn note_transfer(&mut self, phase: TransferPhase, detail: &str) {
        match phase {
            TransferPhase::Begun if detail.contains("priority") => {
                self.mark(Marker::PreferredLeads);
            }
            TransferPhase::Begun if !detail.starts_with("asked") => {
                self.mark(Marker::SickLeaderLeft);
            }
            TransferPhase::Begun => {}
            TransferPhase::Done => self.mark(Marker::LeadershipMoved),
            TransferPhase::Failed => self.mark(Marker::LeadershipStayed),
        }
    }

    /// The disk of a leader stands still, and nothing else is wrong: another node must lead soon, and what was
    /// proposed there must be done.
    pub(super) fn check_sick_leader(&mut self, core: &[usize], timeout_us: u64) {
        let voters = usize::try_from(self.plan.voters).unwrap_or_default();
        let Some(leader) = self.ready_leader(core).filter(|at| core.contains(at)) else { return };
        // The others must be able to do without its disk.
        if self.oracle.violation.is_some() || core.len() <= voters / 2 + 1 {
            return;
        }
        self.tell(|| format!("the disk of {} stands still from now on", leader + 1));
        self.nodes[leader].disk_slow = STANDS_STILL;
        self.propose(FRESH_CLIENT, leader, 1, PATIENCE_US, true);
        let others: Vec<usize> = core.iter().copied().filter(|at| *at != leader).collect();
        let limit_us = 10 * timeout_us + self.plan.disk_stall_us();
        let is_led = |world: &mut Self| world.leader_of(&others).is_some_and(|at| at != leader);
        let has_stayed = !self.run_until(self.now_us + limit_us, is_led);
        let life = self.nodes[leader].life.as_ref();
        // What an earlier write had been given time for may have ended this one.
        let stands_still = life.is_some_and(|life| life.writing.is_some());
        if has_stayed && stands_still {
            let states = self.describe(core);
            let sentence = format!(
                "node {} led on for {} ms although its disk stood still: {states}",
                leader + 1,
                limit_us / 1000
            );
            return self.oracle.object("a sick leader makes room", sentence);
        }
        self.nodes[leader].disk_slow = 1;
        self.finish_lanes(leader);
        self.run_until(self.now_us + PATIENCE_US, |world| !world.calls.waits(FRESH_CLIENT));
        if !matches!(self.calls.last_end(), Some(End::Done(_))) && self.oracle.violation.is_none() {
            let states = self.describe(core);
            let sentence = format!(
                "a call to a leader whose disk stood still ended as {:?}: {states}",
                self.calls.last_end()
            );
            self.oracle.object("calls are done after healing", sentence);
        }
        // Whatever was written last is to be everywhere.
        self.run_until(self.now_us + 10 * timeout_us, |_| false);
    }
}
