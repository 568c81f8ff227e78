//! What callers meet while the leadership moves: their calls wait, and go on wherever it is decided.
//!
//! A leader that is about to hand over holds what is proposed, its own callers' and what followers have handed it.
//! If it stays, they go into its log; if another leads, they are handed to that one. None of them has been in a log
//! by then, so this is the one time at which a call of a follower is handed on.

use crate::raft;
use crate::types::{FaultReason, Outcome, Refusal, Role, TransferFailure};

use super::member::held_cost;
use super::tickets::{Stage, Ticket, Who};
use super::{Action, Replica, TransferCall};

impl Replica {
    /// Somebody wants another leader.
    pub(super) fn take_transfer(&mut self, call: TransferCall, out: &mut Vec<Action>) {
        let TransferCall { token, target, deadline_us, steps_down } = call;
        let refusal = if let Some(reason) = &self.fault {
            Some(TransferFailure::Faulted { reason: reason.to_string() })
        } else if self.shutting_down {
            Some(TransferFailure::ShuttingDown)
        } else {
            None
        };
        match refusal {
            Some(why) => out.push(Action::TransferEnded { token, result: Err(why) }),
            None => {
                self.drive(raft::Input::Transfer { token, target, deadline_us, steps_down }, out);
            }
        }
    }

    /// Sees to it that a transfer ends by its deadline, also in a step that does not concern the core.
    pub(super) fn expire_transfer(&mut self, out: &mut Vec<Action>) {
        if self.raft.transfer_deadline_us().is_some_and(|due_us| due_us <= self.now.boot_us) {
            self.drive(raft::Input::Tick, out);
        }
    }

    /// Nothing is decided any more: whoever waits for a transfer is told so.
    pub(super) fn end_transfer(&mut self, why: TransferFailure, out: &mut Vec<Action>) {
        if let Some(token) = self.raft.forget_transfer() {
            out.push(Action::TransferEnded { token, result: Err(why) });
        }
    }

    pub(super) fn fail_transfer(&mut self, reason: &FaultReason, out: &mut Vec<Action>) {
        self.end_transfer(TransferFailure::Faulted { reason: reason.to_string() }, out);
    }

    /// Whether this node leads and takes proposals.
    pub(super) fn takes_proposals(&self) -> bool {
        self.raft.role() == Role::Leader && !self.raft.hands_over()
    }

    /// This node leads no more. Calls that were to stay here do not go elsewhere.
    pub(super) fn refuse_held_that_stay(&mut self, out: &mut Vec<Action>) {
        let hint = self.raft.leader();
        for number in std::mem::take(&mut self.held) {
            let stays = self
                .tickets
                .get_mut(number)
                .is_some_and(|ticket| matches!(ticket.stage, Stage::Held { may_move: false, .. }));
            if stays {
                self.end(number, Outcome::Refused(Refusal::NotLeader { hint }), out);
            } else {
                self.held.push_back(number);
            }
        }
    }

    /// Keeps a call until it is known who takes it.
    pub(super) fn hold(&mut self, who: Who, deadline_us: u64, stage: Stage) {
        if let Stage::Held { payload, .. } = &stage {
            self.held_bytes += held_cost(payload);
        }
        let number = self.tickets.issue(Ticket { who, deadline_us, stage });
        self.held.push_back(number);
    }
}
