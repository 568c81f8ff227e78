//! Calls that want another leader, on their way to the replica and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::replica::{Input, TransferCall};
use crate::types::{GroupId, NodeId, Now, Refusal, Token, TransferFailure};

use super::callbacks::{Callbacks, Item};
use super::callers::Permit;
use super::clock;
use super::error::NodeError;
use super::handle::{Node, ms, stopped};
use super::host::Host;
use super::intake::Note;
use super::pending::Slot;
use super::threads;

/// What such a call ends with.
type Ended = Result<NodeId, NodeError>;

/// How long a blocked caller outlasts its deadline, at which the event loop answers.
const GRACE: Duration = Duration::from_millis(250);
/// A node that is shut down spends no more than so many of its longest election timeouts on handing over.
const SHUTDOWN_TIMEOUTS: u32 = 3;

/// Who waits.
enum End {
    /// A blocked thread.
    Slot(Arc<Slot<Ended>>),
    /// A user's function.
    Callback(Box<dyn FnOnce(Ended) + Send>, Arc<Callbacks>, Permit),
}

/// Somebody who wants another leader. Told also when this is dropped.
pub(crate) struct TransferWish {
    target: Option<NodeId>,
    deadline_us: u64,
    steps_down: bool,
    end: Option<End>,
}

impl TransferWish {
    fn answer(mut self, result: Ended) {
        self.fill(result);
    }

    fn fill(&mut self, result: Ended) {
        match self.end.take() {
            // Only ever waited for by a blocked thread: there is no waker.
            Some(End::Slot(slot)) => drop(slot.fill(result)),
            Some(End::Callback(done, callbacks, permit)) => {
                callbacks.push(Item::Answer(Box::new(move || {
                    let _permit = permit;
                    done(result);
                })));
            }
            None => {}
        }
    }
}

impl Drop for TransferWish {
    fn drop(&mut self) {
        self.fill(Err(NodeError::ShutDown));
    }
}

/// The wishes that the replicas know by number.
#[derive(Default)]
pub(super) struct TransferWishes {
    waiting: BTreeMap<Token, TransferWish>,
    latest: u64,
}

impl TransferWishes {
    /// Tells everybody that nothing comes of it any more.
    pub(super) fn end(&mut self, why: &NodeError) {
        for wish in std::mem::take(&mut self.waiting).into_values() {
            wish.answer(Err(why.clone()));
        }
    }
}

impl Host {
    /// Somebody wants another leader.
    pub(super) fn wish_transfer(&mut self, now: Now, group: GroupId, wish: TransferWish) {
        let halted = self.members.get(&group).and_then(|member| member.halted.as_ref());
        if let Some(reason) = halted {
            return wish.answer(Err(NodeError::Faulted { reason: reason.to_string() }));
        }
        let wishes = &mut self.transfers;
        wishes.latest += 1;
        let token = Token(wishes.latest);
        let TransferWish { target, deadline_us, steps_down, .. } = wish;
        wishes.waiting.insert(token, wish);
        let call = TransferCall { token, target, deadline_us, steps_down };
        self.step(now, group, Input::Transfer(call));
    }

    /// A transfer that was asked for is over.
    pub(super) fn transfer_ended(&mut self, token: Token, result: Result<NodeId, TransferFailure>) {
        if let Some(wish) = self.transfers.waiting.remove(&token) {
            wish.answer(result.map_err(NodeError::from));
        }
    }
}

impl Node {
    /// Has another node lead, and waits until it does: `target`, or whoever suits best. Gives the new leader.
    ///
    /// The target is brought up to date first. Calls that come meanwhile are held for a moment, and done by whoever
    /// leads then. If nothing is decided within `timeout` this node leads on.
    ///
    /// # Errors
    /// [`NodeError::Transfer`] says why not: only a leader can do this, and only to a voter that is linked and fit;
    /// one transfer at a time. [`NodeError::InCallback`] inside a callback of a node.
    pub fn transfer_leadership(
        &self,
        target: Option<NodeId>,
        timeout: Duration,
    ) -> Result<NodeId, NodeError> {
        self.change_leader(target, timeout, false)
    }

    /// As [`Node::transfer_leadership`], and has `done` called with the end, once, on the callback thread. Never
    /// blocks and never calls `done` itself.
    ///
    /// # Errors
    /// Too many calls in flight, or a node that takes none any more; `done` will not be called.
    pub fn transfer_leadership_with(
        &self,
        target: Option<NodeId>,
        timeout: Duration,
        done: impl FnOnce(Result<NodeId, NodeError>) + Send + 'static,
    ) -> Result<(), NodeError> {
        self.change_leader_with(target, timeout, false, Box::new(done))
    }

    /// Has the best of the other nodes lead, and leaves elections to others for a few election timeouts. Gives the
    /// new leader.
    ///
    /// # Errors
    /// As [`Node::transfer_leadership`]; this node leads on if nobody else is fit to.
    pub fn step_down(&self, timeout: Duration) -> Result<NodeId, NodeError> {
        self.change_leader(None, timeout, true)
    }

    /// As [`Node::step_down`], and has `done` called with the end, once, on the callback thread. Never blocks and
    /// never calls `done` itself.
    ///
    /// # Errors
    /// Too many calls in flight, or a node that takes none any more; `done` will not be called.
    pub fn step_down_with(
        &self,
        timeout: Duration,
        done: impl FnOnce(Result<NodeId, NodeError>) + Send + 'static,
    ) -> Result<(), NodeError> {
        self.change_leader_with(None, timeout, true, Box::new(done))
    }

    fn change_leader(&self, target: Option<NodeId>, timeout: Duration, steps_down: bool) -> Ended {
        self.may_block()?;
        let slot = Slot::empty();
        let end = Some(End::Slot(Arc::clone(&slot)));
        let deadline_us = clock::deadline_us(timeout);
        self.send_wish(TransferWish { target, deadline_us, steps_down, end });
        match slot.take_until(clock::deadline_us(timeout.saturating_add(GRACE))) {
            Some(Err(NodeError::ShutDown)) => Err(stopped(&self.status())),
            Some(ended) => ended,
            None => {
                let detail = format!("the node gave no answer within {} ms", ms(timeout));
                let target = target.unwrap_or(self.id);
                Err(TransferFailure::TimedOut { target, detail }.into())
            }
        }
    }

    fn change_leader_with(
        &self,
        target: Option<NodeId>,
        timeout: Duration,
        steps_down: bool,
        done: Box<dyn FnOnce(Ended) + Send>,
    ) -> Result<(), NodeError> {
        match self.shared.intake.closed() {
            Some(Refusal::Faulted { reason }) => return Err(NodeError::Faulted { reason }),
            Some(_) => return Err(NodeError::ShutDown),
            None => {}
        }
        let permit = self.shared.gauge.admit(1, 0).map_err(|what| NodeError::Busy { what })?;
        let end = Some(End::Callback(done, Arc::clone(&self.shared.callbacks), permit));
        let deadline_us = clock::deadline_us(timeout);
        self.send_wish(TransferWish { target, deadline_us, steps_down, end });
        Ok(())
    }

    fn send_wish(&self, wish: TransferWish) {
        self.shared.intake.notify([Note::Transfer(GroupId::FIRST, wish)]);
    }

    /// A node that is to end hands over first, so that the others need not find out that it is gone. At most half of
    /// the time that there is goes into that.
    pub(super) fn hand_over_before_end(&self, timeout: Duration) {
        let leads = self.shared.board.wait(0, |pulse| Some(pulse.leader == Some(self.id)));
        if leads.unwrap_or(false) && threads::inside().is_none() {
            let longest = self.defaults.election_timeout_max.saturating_mul(SHUTDOWN_TIMEOUTS);
            // Whether it worked or not, the node ends.
            let _ = self.change_leader(None, (timeout / 2).min(longest), true);
        }
    }
}
