//! The callback thread: the one place where user completions, the event observer and log lines
//! run. Whatever they do, they cannot hold up the event loop.
//!
//! Completions are bounded by the calls in flight that they belong to. Events are not anybody's
//! call, so their number is capped: beyond the cap the newest are dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::types::NodeId;
use crate::types::{Event, GroupId, Outcome};

use super::callers::Permit;
use super::intake::Intake;
use super::threads::{self, Waiting};

/// A user's completion of one proposal.
pub(crate) type Done = Box<dyn FnOnce(Outcome) + Send>;

/// An observer of events. Called on the callback thread, one event at a time.
pub type EventObserver = Arc<dyn Fn(GroupId, &Event) + Send + Sync>;

/// Events that may wait for the callback thread.
const EVENTS_MAX: usize = 4096;

/// Something for the callback thread to do.
pub(crate) enum Item {
    /// A completion. The permit is given back after it ran, so that a slow callback is felt at
    /// intake.
    Done(Done, Outcome, Permit),
    /// A completion and what it is given, in one; the permits of its calls go with it.
    Answer(Box<dyn FnOnce() + Send>),
    /// The waker of a future whose value is there; bounded by the permit of its call.
    Wake(Waker, Permit),
    /// An event.
    Event(GroupId, Event),
    /// A log line.
    Warn(String),
}

/// The callback thread's queue.
pub(crate) struct Callbacks {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// How often something was pushed, and which of these pushes are done.
    pushed: AtomicU64,
    done: AtomicU64,
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    events: usize,
    events_dropped: u64,
    sleeping: bool,
    closed: bool,
}

impl Callbacks {
    /// An empty queue.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue::default()),
            filled: Condvar::new(),
            pushed: AtomicU64::new(0),
            done: AtomicU64::new(0),
        })
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
                perform(item, None);
            }
            return;
        }
        self.enqueue(queue, items.drain(..));
    }

    fn enqueue(&self, mut queue: MutexGuard<'_, Queue>, items: impl IntoIterator<Item = Item>) {
        for item in items {
            let capped = match &item {
                Item::Done(..) | Item::Answer(_) | Item::Wake(..) => false,
                Item::Event(..) | Item::Warn(_) => true,
            };
            if capped {
                if queue.events >= EVENTS_MAX {
                    queue.events_dropped += 1;
                    continue;
                }
                queue.events += 1;
            }
            queue.items.push(item);
        }
        let wake = std::mem::take(&mut queue.sleeping);
        self.pushed.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        if wake {
            self.filled.notify_one();
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
    }

    /// The thread's body. Tells the node's inbox when a batch is through.
    pub(crate) fn run(&self, observer: Option<EventObserver>, intake: &Intake) {
        threads::mark_as_completing_for(intake);
        let mut batch = Vec::new();
        let mut waiting = Waiting::default();
        loop {
            waiting.has_computed();
            waiting.begin(|| false, || !self.queue.lock().items.is_empty());
            let mut queue = self.queue.lock();
            while queue.items.is_empty() && !queue.closed {
                queue.sleeping = true;
                self.filled.wait(&mut queue);
            }
            waiting.end();
            queue.sleeping = false;
            if queue.items.is_empty() {
                return;
            }
            std::mem::swap(&mut batch, &mut queue.items);
            queue.events = 0;
            let dropped = std::mem::take(&mut queue.events_dropped);
            let pushed = self.pushed.load(Ordering::Relaxed);
            drop(queue);
            for item in batch.drain(..) {
                perform(item, observer.as_ref());
            }
            self.done.store(pushed, Ordering::Relaxed);
            intake.completions_ran();
            if dropped > 0 {
                perform(
                    Item::Warn(format!(
                        "{dropped} events were dropped: the callback thread was busy with user callbacks for too long"
                    )),
                    None,
                );
            }
        }
    }
}

/// Runs one item. A panic in it is reported and goes no further.
pub(super) fn perform(item: Item, observer: Option<&EventObserver>) {
    match item {
        Item::Done(done, outcome, permit) => {
            let ran = threads::guarded(|| {
                threads::run_inside("a completion callback", || done(outcome));
            });
            drop(permit);
            report("a completion callback", ran);
        }
        Item::Answer(answer) => {
            let ran = threads::guarded(|| threads::run_inside("a completion callback", answer));
            report("a completion callback", ran);
        }
        Item::Wake(waker, permit) => {
            let ran = threads::guarded(|| threads::run_inside("a future's waker", || waker.wake()));
            drop(permit);
            report("a future's waker", ran);
        }
        Item::Event(group, event) => {
            report("the log subscriber", logged(|| log_event(group, &event)));
            if let Some(observer) = observer {
                let ran = threads::guarded(|| {
                    threads::run_inside("the event callback", || observer(group, &event));
                });
                report("the event callback", ran);
            }
        }
        Item::Warn(text) => {
            let _ = logged(|| tracing::warn!("{text}"));
        }
    }
}

fn report(what: &str, ran: Result<(), String>) {
    if let Err(panic) = ran {
        let _ = logged(|| tracing::error!(%panic, "{what} panicked"));
    }
}

/// Writes log lines. The subscriber is a user's code: it may panic, and must not wait for the node.
pub(super) fn logged(lines: impl FnOnce()) -> Result<(), String> {
    threads::guarded(|| threads::run_inside("the log subscriber", lines))
}

fn log_event(group: GroupId, event: &Event) {
    let group = group.0;
    match event {
        Event::Role { role, term } => tracing::info!(group, term = term.0, "now {role}"),
        Event::Leader { leader: Some(leader), term } => {
            tracing::info!(group, term = term.0, "node {leader} leads");
        }
        Event::Leader { leader: None, term } => {
            tracing::info!(group, term = term.0, "no leader is known");
        }
        Event::Ready { term } => tracing::info!(group, term = term.0, "the leader is ready"),
        Event::Membership { index, membership } => tracing::info!(
            group,
            index = index.0,
            voters = ?membership.voters,
            "a membership took effect"
        ),
        Event::PeerUp { peer } => tracing::info!(group, "node {peer} is connected"),
        Event::PeerDown { peer, reason } => {
            tracing::warn!(group, "node {peer} is out of reach: {reason}");
        }
        Event::PeerRefused { peer, disk, reason } => {
            tracing::warn!(group, %disk, "node {peer} was refused: {reason}");
        }
        Event::Nonsense { from, what } => {
            tracing::warn!(group, "node {from} sent nonsense, dropped: {what}");
        }
        Event::Healed { upto } => tracing::info!(group, upto = upto.0, "damaged entries healed"),
        Event::PeerStalled { peer, matched, last } => tracing::warn!(
            group,
            matched = matched.0,
            last = last.0,
            "node {peer} answers, but its log stands still"
        ),
        Event::NetworkTrouble { detail } => tracing::warn!(group, "network: {detail}"),
        Event::StorageTrouble { detail } => tracing::warn!(group, "storage: {detail}"),
        Event::StorageFull { full: true } => {
            tracing::warn!(group, "free space is below the reserve; proposals are refused");
        }
        Event::StorageFull { full: false } => tracing::info!(group, "free space is back"),
        Event::Snapshot { phase, peer, index, bytes, total_bytes } => tracing::info!(
            group,
            peer = peer.map(NodeId::get),
            index = index.0,
            bytes,
            total_bytes,
            "snapshot: {phase}"
        ),
        Event::Transfer { to, phase, detail } => {
            let colon = if detail.is_empty() { "" } else { ": " };
            tracing::info!(group, "transfer of leadership to node {to} {phase}{colon}{detail}");
        }
        Event::Faulted(reason) => tracing::error!(group, "faulted: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::node::callers::Gauge;
    use crate::node::clock;
    use crate::node::threads::Threads;
    use crate::types::{NodeId, Refusal, Term};
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
    fn events_beyond_the_cap_are_dropped_and_completions_never() {
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
        assert_eq!(callbacks.queue.lock().events_dropped, 10);
        callbacks.close();
        callbacks.run(None, &Intake::new());
        assert_eq!(*ran.lock(), EVENTS_MAX + 10);
    }
}
