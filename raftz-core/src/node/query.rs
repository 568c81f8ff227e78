//! Questions to the machine, on their way there and back.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::types::Reply;

use super::callbacks::{Callbacks, Item};
use super::callers::Permit;
use super::error::NodeError;
use super::pending::Slot;

/// What a query ends with.
pub(crate) type QueryResult = Result<Reply, NodeError>;

/// A user's function that is told the answer.
pub(crate) type Told = Box<dyn FnOnce(QueryResult) + Send>;

/// A query on its way to the machine. Answered also when it is dropped.
pub(crate) struct QueryJob {
    /// The request.
    pub(crate) request: Bytes,
    asked: Option<Arc<Asked>>,
}

impl QueryJob {
    /// A query whose answer goes to `asked`.
    pub(crate) const fn new(request: Bytes, asked: Arc<Asked>) -> Self {
        Self { request, asked: Some(asked) }
    }

    /// Who waits.
    pub(super) const fn asked(&self) -> Option<&Arc<Asked>> {
        self.asked.as_ref()
    }

    /// Forgets who asked: he is told in another way.
    pub(crate) fn disarm(mut self) {
        self.asked = None;
    }

    /// Answers it.
    pub(crate) fn answer(mut self, result: QueryResult) {
        self.fill(result);
    }

    /// Answers it; what is a user's code is put on `later`, for the callback thread. Only on the event loop, which
    /// closes the callbacks.
    pub(crate) fn answer_on_loop(mut self, result: QueryResult, later: &mut Vec<Item>) {
        if let Some(asked) = self.asked.take()
            && let Some(end) = asked.take_end()
        {
            later.extend(asked.ended(end, result));
        }
    }

    fn fill(&mut self, result: QueryResult) {
        if let Some(asked) = self.asked.take() {
            asked.answer(result);
        }
    }
}

impl Drop for QueryJob {
    fn drop(&mut self) {
        self.fill(Err(NodeError::ShutDown));
    }
}

impl std::fmt::Debug for QueryJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryJob").finish_non_exhaustive()
    }
}

/// Where an answer goes.
pub(crate) enum QueryEnd {
    /// To a future or a blocked thread.
    Slot(Arc<Slot<QueryResult>>),
    /// To a user's function, on the callback thread.
    Function(Told),
}

/// Somebody who waits for the answer to a query; whoever answers first wins.
pub(crate) struct Asked {
    end: Mutex<Option<QueryEnd>>,
    callbacks: Arc<Callbacks>,
    deadline_us: u64,
    timeout: Duration,
    /// Held until the query is gone, not until its caller is: one that nobody waits for any more
    /// still stands in the lane's queue. And until a user's function has ended.
    _permit: Permit,
}

impl Asked {
    /// Somebody who has his answer by the deadline.
    pub(crate) fn new(
        end: QueryEnd,
        permit: Permit,
        callbacks: Arc<Callbacks>,
        deadline_us: u64,
        timeout: Duration,
    ) -> Arc<Self> {
        let end = Mutex::new(Some(end));
        Arc::new(Self { end, callbacks, deadline_us, timeout, _permit: permit })
    }

    /// How long he waits.
    pub(super) fn timeout_ms(&self) -> u64 {
        u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX)
    }

    fn take_end(&self) -> Option<QueryEnd> {
        self.end.lock().take()
    }

    /// What is left to do for the callback thread.
    fn ended(self: Arc<Self>, end: QueryEnd, result: QueryResult) -> Option<Item> {
        match end {
            QueryEnd::Function(done) => Some(Item::Read(done, result, self)),
            QueryEnd::Slot(slot) => slot.fill(result).map(|waker| {
                Item::Answer(Box::new(move || {
                    let _asked = self;
                    waker.wake();
                }))
            }),
        }
    }

    fn answer(self: &Arc<Self>, result: QueryResult) {
        // Locked until it is handed over: who finds it answered may then close the callbacks.
        let mut open = self.end.lock();
        let Some(end) = open.take() else { return };
        if let Some(item) = Arc::clone(self).ended(end, result) {
            self.callbacks.push(item);
        }
    }

    fn is_open(&self) -> bool {
        self.end.lock().is_some()
    }
}

/// The deadlines of those who wait for answers.
#[derive(Default)]
pub(super) struct QueryDeadlines {
    waiting: BTreeMap<u64, Vec<Weak<Asked>>>,
    count: usize,
    sweep_at: usize,
}

impl QueryDeadlines {
    /// Fewer than these are never swept.
    const SWEEP_MIN: usize = 1024;

    /// Remembers it until its deadline.
    pub(super) fn watch(&mut self, asked: &Arc<Asked>) {
        self.waiting.entry(asked.deadline_us).or_default().push(Arc::downgrade(asked));
        self.count += 1;
        // What has been answered meanwhile is forgotten whenever it could be half of them.
        if self.count > self.sweep_at.max(Self::SWEEP_MIN) {
            self.waiting.retain(|_, group| {
                group.retain(|asked| asked.upgrade().is_some_and(|asked| asked.is_open()));
                !group.is_empty()
            });
            self.count = self.waiting.values().map(Vec::len).sum();
            self.sweep_at = 2 * self.count;
        }
    }

    /// When the next one must be looked at.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(deadline_us, _)| *deadline_us)
    }

    /// Answers everybody: nobody looks after their deadlines any more.
    pub(super) fn end(&mut self, why: &NodeError) {
        for asked in std::mem::take(&mut self.waiting).values().flatten().filter_map(Weak::upgrade)
        {
            asked.answer(Err(why.clone()));
        }
        self.count = 0;
    }

    /// Answers whoever has waited long enough.
    pub(super) fn expire(&mut self, now_us: u64) {
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= now_us) {
            let group = first.remove();
            self.count -= group.len();
            for asked in group.iter().filter_map(Weak::upgrade) {
                asked.answer(Err(NodeError::QueryTimeout { waited_ms: asked.timeout_ms() }));
            }
        }
    }
}

#[cfg(test)]
impl Asked {
    /// Somebody who looks into a slot.
    pub(crate) fn slot(slot: &Arc<Slot<QueryResult>>, permit: Permit) -> Arc<Self> {
        let end = QueryEnd::Slot(Arc::clone(slot));
        Self::new(end, permit, Callbacks::new(), u64::MAX, Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::node::callers::Gauge;

    #[test]
    fn whoever_answers_first_wins_and_what_was_answered_is_forgotten() {
        let (gauge, callbacks) = (Gauge::new(1 << 20, 1 << 20), Callbacks::new());
        let mut deadlines = QueryDeadlines::default();
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut kept = Vec::new();
        for at in 0..4000_u64 {
            let theirs = Arc::clone(&told);
            let end = QueryEnd::Function(Box::new(move |result: QueryResult| {
                theirs.lock().push((at, result.err().map(|error| error.code())));
            }));
            let deadline_us = 1000 + at;
            let (permit, callbacks) = (gauge.admit(1, 1).unwrap(), Arc::clone(&callbacks));
            let asked = Asked::new(end, permit, callbacks, deadline_us, Duration::from_millis(7));
            let job = QueryJob::new(Bytes::new(), asked);
            deadlines.watch(job.asked().unwrap());
            if at < 3 {
                kept.push(job);
            } else {
                job.answer(Ok(Reply::Ok(Bytes::new())));
            }
        }
        assert!(deadlines.count <= 2 * QueryDeadlines::SWEEP_MIN, "{}", deadlines.count);
        assert_eq!(deadlines.next_us(), Some(1000));
        deadlines.expire(1001);
        assert_eq!(deadlines.next_us(), Some(1002));
        // Too late, and dropped: neither is told again.
        kept.remove(0).answer(Ok(Reply::Ok(Bytes::new())));
        kept.clear();
        callbacks.close();
        callbacks.run(None, &crate::node::intake::Intake::new());
        let mut told = std::mem::take(&mut *told.lock());
        told.sort_unstable();
        let (timeout, shut_down) = (Some(-71), Some(NodeError::ShutDown.code()));
        assert_eq!(told[..4], [(0, timeout), (1, timeout), (2, shut_down), (3, None)]);
        assert_eq!((told.len(), gauge.calls()), (4000, 0));
    }
}
