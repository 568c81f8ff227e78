//! What callers asked and were told, and whether that can be true.
//!
//! The committed log is the order in which everything happened, so a history is judged in the time that it
//! takes to read it: a call that was *done* stands in the log at the index that it was told, with its own
//! payload and the reply that a machine of its own gives; behind everything that had been told as done
//! before it was asked; and not committed before it was asked. *Refused* calls are not in the log.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Done, Index, NodeId, Outcome, Payload, Reply, Token};

use super::mix::{self, Mix};
use super::oracle::Oracle;

/// How a call ended, for those who look at whole histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was applied.
    Done(Reply),
    /// It is certainly not in the log.
    Refused,
    /// It may be, or may yet be.
    Unknown,
}

/// One call of a finished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose it was.
    pub client: u64,
    /// What was proposed.
    pub payload: Payload,
    /// When, in virtual time.
    pub invoked_us: u64,
    /// When it ended.
    pub ended_us: u64,
    /// How.
    pub end: End,
}

struct Call {
    client: u64,
    node: NodeId,
    payload: Payload,
    invoked_us: u64,
    /// Every call that was done by then stands at or below this index.
    floor: Index,
    deadline_us: u64,
    end: Option<(u64, End)>,
}

/// All calls of a run.
#[derive(Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    /// Calls that wait, by node and deadline on its clock.
    waiting: BTreeMap<NodeId, BTreeSet<(u64, u64)>>,
    /// Calls that wait, by client.
    open: BTreeMap<u64, u64>,
    /// Which call was told to stand at an index.
    claimed: BTreeMap<Index, u64>,
    /// Whoever asks from now on must see everything up to here, and how that grew.
    floor: Index,
    floors: Vec<(u64, Index)>,
    pub(super) done: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    /// The longest that a call took that was done.
    pub(super) longest_us: u64,
}

impl Calls {
    /// A client calls a node.
    pub(super) fn ask(
        &mut self,
        client: u64,
        node: NodeId,
        payload: Payload,
        now_us: u64,
        deadline_us: u64,
    ) -> Token {
        let token = self.calls.len() as u64 + 1;
        let floor = self.floor;
        let end = None;
        self.calls.push(Call {
            client,
            node,
            payload,
            invoked_us: now_us,
            floor,
            deadline_us,
            end,
        });
        self.waiting.entry(node).or_default().insert((deadline_us, token));
        *self.open.entry(client).or_default() += 1;
        Token(token)
    }

    /// Whoever asks from now on must see everything up to here.
    pub(super) const fn floor(&self) -> Index {
        self.floor
    }

    /// What was the floor then.
    pub(super) fn floor_at(&self, true_us: u64) -> Index {
        let later = self.floors.partition_point(|(since_us, _)| *since_us <= true_us);
        later.checked_sub(1).map_or(Index::ZERO, |last| self.floors[last].1)
    }

    /// Somebody was told of what stands at this index.
    pub(super) fn saw(&mut self, index: Index, now_us: u64) {
        if index > self.floor {
            self.floor = index;
            self.floors.push((now_us, index));
        }
    }

    /// Whether a client waits for an answer.
    pub(super) fn waits(&self, client: u64) -> bool {
        self.open.get(&client).is_some_and(|open| *open > 0)
    }

    /// How many calls were made.
    pub(super) fn count(&self) -> u64 {
        self.calls.len() as u64
    }

    /// How the latest call ended.
    pub(super) fn last_end(&self) -> Option<&End> {
        self.calls.last()?.end.as_ref().map(|(_, end)| end)
    }

    /// A node answers.
    pub(super) fn answer(
        &mut self,
        id: NodeId,
        token: Token,
        outcome: &Outcome,
        now_us: u64,
        oracle: &mut Oracle,
    ) {
        let at = usize::try_from(token.0.wrapping_sub(1)).unwrap_or(usize::MAX);
        let Some(call) =
            self.calls.get_mut(at).filter(|call| call.node == id && call.end.is_none())
        else {
            let sentence =
                format!("node {id} answers call {} twice, or one of another node", token.0);
            return oracle.object("calls end once", sentence);
        };
        let end = match outcome {
            Outcome::Done(done) => End::Done(done.reply.clone()),
            Outcome::Refused(_) => End::Refused,
            Outcome::Unknown(_) => End::Unknown,
        };
        call.end = Some((now_us, end));
        let (client, deadline_us) = (call.client, call.deadline_us);
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.remove(&(deadline_us, token.0));
        }
        if let Some(open) = self.open.get_mut(&client) {
            *open = open.saturating_sub(1);
        }
        match outcome {
            Outcome::Done(done) => self.done(id, token, done, now_us, oracle),
            Outcome::Refused(_) => self.refused += 1,
            Outcome::Unknown(_) => self.unknown += 1,
        }
    }

    fn done(&mut self, id: NodeId, token: Token, done: &Done, now_us: u64, oracle: &mut Oracle) {
        self.done += 1;
        let call = &self.calls[usize::try_from(token.0 - 1).unwrap_or_default()];
        let (index, payload) = (done.index, Mix::default().bytes(call.payload.bytes()).0);
        self.longest_us = self.longest_us.max(now_us.saturating_sub(call.invoked_us));
        let wrong = match oracle.decided(index) {
            None => Some("which is not committed".to_owned()),
            Some((term, _, _, _)) if term != done.term => {
                Some(format!("of term {}, which was committed in term {term}", done.term))
            }
            Some((_, other, _, _)) if other != payload => {
                Some("which holds another command".to_owned())
            }
            Some((_, _, reply, _)) if reply != Some(mix::of_reply(&done.reply)) => {
                Some(format!("with the reply {:?}, which is another command's", done.reply))
            }
            Some(_) if index <= call.floor => Some(format!(
                "although entry {} had been told as done before it was asked",
                call.floor
            )),
            Some((_, _, _, at_us)) if at_us < call.invoked_us => {
                Some("which was committed before it was asked".to_owned())
            }
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            let sentence = format!("node {id} says that a call is done at entry {index}, {wrong}");
            return oracle.object("linearizable calls", sentence);
        }
        self.saw(index, now_us);
        if let Some(other) = self.claimed.insert(index, token.0) {
            let sentence = format!("calls {other} and {} are both done at entry {index}", token.0);
            oracle.object("linearizable calls", sentence);
        }
    }

    /// A node is gone, with its callers.
    pub(super) fn node_died(&mut self, id: NodeId, now_us: u64) {
        for (_, token) in self.waiting.remove(&id).unwrap_or_default() {
            let call = &mut self.calls[usize::try_from(token - 1).unwrap_or_default()];
            call.end = Some((now_us, End::Unknown));
            self.unknown += 1;
            if let Some(open) = self.open.get_mut(&call.client) {
                *open = open.saturating_sub(1);
            }
        }
    }

    /// Whether a call that waits at this node should have ended by `boot_us` on its clock.
    pub(super) fn overdue(&self, id: NodeId, boot_us: u64) -> bool {
        let first = self.waiting.get(&id).and_then(BTreeSet::first);
        first.is_some_and(|(deadline_us, _)| *deadline_us <= boot_us)
    }

    /// Compares what callers were told with the whole log. Call it when nothing more happens.
    pub(super) fn settle(&self, oracle: &mut Oracle) {
        #[derive(Default)]
        struct Count {
            committed: u64,
            done: u64,
            possible: u64,
        }
        let mut counts: BTreeMap<u64, Count> = BTreeMap::new();
        for payload in oracle.commands() {
            counts.entry(payload).or_default().committed += 1;
        }
        for call in &self.calls {
            let payload = Mix::default().bytes(call.payload.bytes()).0;
            let count = counts.entry(payload).or_default();
            match &call.end {
                Some((_, End::Done(_))) => {
                    count.done += 1;
                    count.possible += 1;
                }
                Some((_, End::Refused)) => {}
                Some((_, End::Unknown)) | None => count.possible += 1,
            }
        }
        let wrong = counts.values().find(|c| c.committed > c.possible || c.committed < c.done);
        if let Some(count) = wrong {
            let Count { committed, done, possible } = count;
            let sentence = format!(
                "a command stands {committed} times in the log; it was done {done} times, and may be there {possible} times"
            );
            oracle.object("linearizable calls", sentence);
        }
    }

    /// The history, for other judges.
    pub(super) fn history(self) -> Vec<Operation> {
        let operation = |call: Call| {
            let (ended_us, end) = call.end.unwrap_or((u64::MAX, End::Unknown));
            let Call { client, payload, invoked_us, .. } = call;
            Operation { client, payload, invoked_us, ended_us, end }
        };
        self.calls.into_iter().map(operation).collect()
    }
}
