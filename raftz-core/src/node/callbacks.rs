//! The callback thread: the one place where user completions, the event observer and log lines
//! run. Whatever they do, they cannot hold up the event loop.
//!
//! Completions are bounded by the calls in flight that they belong to. Events and lines are not anybody's
//! call, so they wait in a [`Backlog`]: the latest state of each thing, and a capped number of the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::types::{Event, EventKey, GroupId, NodeId, Outcome};

use super::backlog::Backlog;
use super::callers::Permit;
use super::intake::Intake;
use super::log::{Line, Log};
use super::query::{Asked, QueryResult, Told};
use super::subscription::Subscribers;
use super::threads::{self, Waiting};

/// A user's completion of one proposal.
pub(crate) type Done = Box<dyn FnOnce(Outcome) + Send>;

/// An observer of events. Called on the callback thread, one event at a time.
pub type EventObserver = Arc<dyn Fn(GroupId, &Event) + Send + Sync>;

/// Events and lines that may wait for the callback thread, those that replace each other aside.
const EVENTS_MAX: usize = 4096;

/// Something for the callback thread to do.
pub(crate) enum Item {
    /// A completion. The permit is given back after it ran, so that a slow callback is felt at
    /// intake.
    Done(Done, Outcome, Permit),
    /// A completion and what it is given, in one; the permits of its calls go with it.
    Answer(Box<dyn FnOnce() + Send>),
    /// The completion of a read; the permit goes with who asked.
    Read(Told, QueryResult, Arc<Asked>),
    /// The waker of a future whose value is there; bounded by the permit of its call.
    Wake(Waker, Permit),
    /// An event.
    Event(GroupId, Event),
    /// A log line.
    Line(Line),
}

/// What waits that is nobody's call.
#[derive(Debug)]
enum News {
    Event(GroupId, Event),
    Line(Line),
}

/// The callback thread's queue.
pub(crate) struct Callbacks {
    node: Option<NodeId>,
    queue: Mutex<Queue>,
    filled: Condvar,
    /// How often something was pushed, and which of these pushes are done.
    pushed: AtomicU64,
    done: AtomicU64,
    /// Events that the observer will never see.
    dropped: AtomicU64,
    subscribers: Subscribers,
}

struct Queue {
    calls: Vec<Item>,
    news: Backlog<EventKey, News>,
    sleeping: bool,
    closed: bool,
}

impl Queue {
    const fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.news.is_empty()
    }
}

impl Callbacks {
    /// The empty queue of a node.
    pub(crate) fn of(node: NodeId) -> Arc<Self> {
        Arc::new(Self { node: Some(node), ..Self::default() })
    }

    /// An empty queue.
    #[cfg(test)]
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many events the node's observer will never see.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Who else is told of events.
    pub(crate) const fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// The latest push, while not everything pushed is done.
    pub(crate) fn busy_with(&self) -> Option<u64> {
        let pushed = self.pushed.load(Ordering::Relaxed);
        (self.done.load(Ordering::Relaxed) != pushed).then_some(pushed)
    }

    /// Hands over everything in `items`: one lock and at most one wake.
    pub(crate) fn push_all(&self, items: &mut Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            // Only reached when the thread is gone, that is after a shutdown that has already
            // answered everything it knew of. A completion must still not get lost.
            for item in items.drain(..) {
                perform(self.node, item);
            }
            return;
        }
        self.enqueue(queue, items.drain(..));
    }

    fn enqueue(&self, mut queue: MutexGuard<'_, Queue>, items: impl IntoIterator<Item = Item>) {
        for item in items {
            match item {
                Item::Done(..) | Item::Answer(_) | Item::Read(..) | Item::Wake(..) => {
                    queue.calls.push(item);
                }
                Item::Event(group, event) => {
                    self.subscribers.tell(group, &event);
                    self.add(&mut queue, event.key(), News::Event(group, event));
                }
                Item::Line(line) => self.add(&mut queue, None, News::Line(line)),
            }
        }
        let wake = std::mem::take(&mut queue.sleeping);
        self.pushed.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        if wake {
            self.filled.notify_one();
        }
    }

    fn add(&self, queue: &mut Queue, key: Option<EventKey>, news: News) {
        match key.filter(|key| key.is_of_the_node()) {
            Some(key) => drop(queue.news.push_surely(key, news)),
            None if queue.news.push(key, news).is_ok() => {}
            None => {
                let total = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                let news = News::Event(GroupId::FIRST, Event::Dropped { total });
                queue.news.push_surely(EventKey::Dropped, news);
            }
        }
    }

    /// Hands over one item on behalf of the caller whom it is to call back; given back if the thread is gone,
    /// because nobody is called back from within his own call.
    pub(crate) fn offer(&self, item: Item) -> Result<(), Item> {
        let queue = self.queue.lock();
        if queue.closed {
            return Err(item);
        }
        self.enqueue(queue, [item]);
        Ok(())
    }

    /// Hands over one item.
    pub(crate) fn push(&self, item: Item) {
        self.push_all(&mut vec![item]);
    }

    /// Lets the thread end once it has done what is queued.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_one();
        self.subscribers.close();
    }

    /// The thread's body. Tells the node's inbox when a batch is through.
    ///
    /// News are taken one at a time, and completions in between: however many events wait, a completion waits for
    /// one at most, and what waits can still be replaced by what is newer.
    pub(crate) fn run(&self, observer: Option<EventObserver>, intake: &Intake) {
        threads::mark_as_completing_for(intake);
        let mut calls = Vec::new();
        let mut waiting = Waiting::default();
        let mut log = Log::new(self.node);
        loop {
            waiting.has_computed();
            waiting.begin(|| false, || !self.queue.lock().is_empty());
            let mut queue = self.queue.lock();
            while queue.is_empty() && !queue.closed {
                queue.sleeping = true;
                self.filled.wait(&mut queue);
            }
            waiting.end();
            queue.sleeping = false;
            if queue.is_empty() {
                return;
            }
            std::mem::swap(&mut calls, &mut queue.calls);
            let news = queue.news.pop();
            let pushed = self.pushed.load(Ordering::Relaxed);
            drop(queue);
            for item in calls.drain(..) {
                perform(self.node, item);
            }
            match news {
                Some(News::Event(group, event)) => {
                    report(self.node, "the log subscriber", logged(|| log.event(group, &event)));
                    if let Some(observer) = &observer {
                        let ran = threads::guarded(|| {
                            threads::run_inside("the event callback", || observer(group, &event));
                        });
                        report(self.node, "the event callback", ran);
                    }
                }
                Some(News::Line(line)) => {
                    let _ = logged(|| log.line(&line));
                }
                None => {}
            }
            self.done.store(pushed, Ordering::Relaxed);
            intake.completions_ran();
        }
    }
}

impl Default for Callbacks {
    fn default() -> Self {
        let news = Backlog::new(EVENTS_MAX);
        Self {
            node: None,
            queue: Mutex::new(Queue { calls: Vec::new(), news, sleeping: false, closed: false }),
            filled: Condvar::new(),
            pushed: AtomicU64::new(0),
            done: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            subscribers: Subscribers::default(),
        }
    }
}

/// Runs a completion; news that come when the thread is gone have nobody to go to. A panic is reported and goes
/// no further.
pub(super) fn perform(node: Option<NodeId>, item: Item) {
    match item {
        Item::Done(done, outcome, permit) => {
            let ran = threads::guarded(|| {
                threads::run_inside("a completion callback", || done(outcome));
            });
            drop(permit);
            report(node, "a completion callback", ran);
        }
        Item::Read(done, answer, asked) => {
            let ran = threads::guarded(|| {
                threads::run_inside("a completion callback", || done(answer));
            });
            drop(asked);
            report(node, "a completion callback", ran);
        }
        Item::Answer(answer) => {
            let ran = threads::guarded(|| threads::run_inside("a completion callback", answer));
            report(node, "a completion callback", ran);
        }
        Item::Wake(waker, permit) => {
            let ran = threads::guarded(|| threads::run_inside("a future's waker", || waker.wake()));
            drop(permit);
            report(node, "a future's waker", ran);
        }
        Item::Event(..) | Item::Line(_) => {}
    }
}

fn report(node: Option<NodeId>, what: &str, ran: Result<(), String>) {
    if let Err(panic) = ran {
        let node = node.map(NodeId::get);
        let _ = logged(|| tracing::error!(node, %panic, "{what} panicked"));
    }
}

/// Writes log lines. The subscriber is a user's code: it may panic, and must not wait for the node.
pub(super) fn logged(lines: impl FnOnce()) -> Result<(), String> {
    threads::guarded(|| threads::run_inside("the log subscriber", lines))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::node::callers::Gauge;
    use crate::node::clock;
    use crate::node::threads::Threads;
    use crate::types::{NodeId, Refusal, Role, Term};
    use std::time::Duration;

    fn soon() -> u64 {
        clock::deadline_us(Duration::from_secs(10))
    }

    fn outcome() -> Outcome {
        Outcome::Refused(Refusal::StorageFull)
    }

    #[test]
    fn everything_queued_runs_before_the_thread_ends_also_after_a_panic() {
        let gauge = Gauge::new(10, 1000);
        let callbacks = Callbacks::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for n in 0..5 {
            let seen = Arc::clone(&seen);
            let done: Done = Box::new(move |_| {
                assert_ne!(n, 2, "on purpose");
                seen.lock().push(n);
            });
            callbacks.push(Item::Done(done, outcome(), gauge.admit(1, 10).unwrap()));
        }
        let events = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&events);
        callbacks.push(Item::Event(GroupId::FIRST, Event::Ready { term: Term(3) }));
        callbacks.close();
        let threads = Threads::new("t".into());
        let thread = Arc::clone(&callbacks);
        let observer: EventObserver =
            Arc::new(move |group, event| theirs.lock().push((group, event.clone())));
        threads.spawn("call", move || thread.run(Some(observer), &Intake::new())).unwrap();
        threads.join_until(soon()).unwrap();
        assert_eq!(*seen.lock(), [0, 1, 3, 4]);
        assert_eq!(*events.lock(), [(GroupId::FIRST, Event::Ready { term: Term(3) })]);
        assert_eq!(gauge.calls(), 0);
    }

    #[test]
    fn events_beyond_the_cap_are_dropped_and_told_and_completions_never() {
        let gauge = Gauge::new(u64::MAX, u64::MAX);
        let callbacks = Callbacks::new();
        let from = NodeId::new(1).unwrap();
        let ran = Arc::new(Mutex::new(0));
        for _ in 0..EVENTS_MAX + 10 {
            callbacks.push(Item::Event(GroupId::FIRST, Event::Nonsense { from, what: "x".into() }));
            let ran = Arc::clone(&ran);
            let done: Done = Box::new(move |_| *ran.lock() += 1);
            callbacks.push(Item::Done(done, outcome(), gauge.admit(1, 0).unwrap()));
        }
        assert_eq!(callbacks.dropped(), 10);
        callbacks.close();
        let events = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&events);
        let observer: EventObserver = Arc::new(move |_, event| theirs.lock().push(event.clone()));
        callbacks.run(Some(observer), &Intake::new());
        assert_eq!(*ran.lock(), EVENTS_MAX + 10);
        assert_eq!(events.lock().len(), EVENTS_MAX + 1);
        assert_eq!(events.lock().last(), Some(&Event::Dropped { total: 10 }));
    }

    #[test]
    fn who_looks_away_learns_the_latest_state_and_nothing_of_what_was_before() {
        let callbacks = Callbacks::new();
        let peer = NodeId::new(2).unwrap();
        let push = |event| callbacks.push(Item::Event(GroupId::FIRST, event));
        let from = NodeId::new(3).unwrap();
        for _ in 0..EVENTS_MAX {
            push(Event::Nonsense { from, what: "x".into() });
        }
        for term in 1..=5000 {
            push(Event::Role { role: Role::Candidate, term: Term(term) });
            push(Event::PeerUp { peer });
            push(Event::Leader { leader: Some(peer), term: Term(term) });
            push(Event::PeerDown { peer, reason: term.to_string() });
        }
        callbacks.close();
        let events = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&events);
        let observer: EventObserver = Arc::new(move |_, event| theirs.lock().push(event.clone()));
        callbacks.run(Some(observer), &Intake::new());
        let states = [
            Event::Role { role: Role::Candidate, term: Term(5000) },
            Event::Leader { leader: Some(peer), term: Term(5000) },
            Event::PeerDown { peer, reason: "5000".into() },
        ];
        assert_eq!(events.lock()[EVENTS_MAX..], states);
        assert_eq!(callbacks.dropped(), 0);
    }
}
