//! The log lane: the one place that writes. Everything queued while a sync runs becomes the next
//! submission, so batches grow by themselves; nothing waits for company.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::node::callbacks::logged;
use crate::node::clock;
use crate::node::error::NodeError;
use crate::node::intake::{Intake, Note};
use crate::node::metrics::Meter;
use crate::node::threads::{Threads, Waiting, guarded, run_inside};
use crate::storage::{Completion, IDLE_SEAL_MS, Space, Storage, WriteBatch};
use crate::types::{GroupId, OpId, WriteOp, earliest};

use super::queue::{LaneQueue, LaneSender, Waited, lane};
use super::rules;

/// How often a lane whose disk is almost full looks whether there is room again.
const SPACE_RETRY_MS: u64 = 500;
/// How long a clean stop waits for an asynchronous store's last completions.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// How often it asks meanwhile whether they wait for room, which is not waited for.
const CLOSE_LOOK: Duration = Duration::from_millis(50);

/// The log lane, wherever it runs.
pub(crate) enum LogLane {
    /// On the event loop, for a store that never blocks.
    Inline {
        /// The work.
        driver: Box<Driver>,
        /// When the store is to be told that nothing comes, if it has not been.
        idle_due_us: Option<u64>,
        /// When to look for free space, while there is too little.
        space_due_us: Option<u64>,
    },
    /// On a thread of its own.
    Thread(LaneSender<(GroupId, WriteOp)>),
}

impl LogLane {
    /// Puts a store where it belongs.
    pub(crate) fn start(
        storage: Box<dyn Storage>,
        groups: Vec<GroupId>,
        submission_bytes_max: u64,
        (intake, meter): (Arc<Intake>, Arc<Meter>),
        threads: &Threads,
    ) -> Result<Self, NodeError> {
        let inline = storage.never_blocks();
        let mut driver = Driver {
            storage,
            groups,
            submission_bytes_max,
            intake,
            meter,
            is_timed: !inline,
            queue: VecDeque::new(),
            low: false,
            panicked: None,
            outstanding: Arc::new(Outstanding::default()),
        };
        if inline {
            let driver = Box::new(driver);
            return Ok(Self::Inline { driver, idle_due_us: None, space_due_us: None });
        }
        let (queue, theirs) = lane();
        threads.spawn("log", move || {
            driver.run(&theirs);
            theirs.abandon();
        })?;
        Ok(Self::Thread(queue))
    }

    /// Whether it runs on the event loop, and answers within the turn.
    pub(crate) const fn is_inline(&self) -> bool {
        matches!(self, Self::Inline { .. })
    }

    /// Hands over the writes of one turn, in order.
    pub(crate) fn write(&mut self, ops: &mut Vec<(GroupId, WriteOp)>, now_us: u64) {
        if ops.is_empty() {
            return;
        }
        match self {
            Self::Inline { driver, idle_due_us, space_due_us } => {
                driver.queue.extend(ops.drain(..));
                driver.submit_all();
                *idle_due_us = Some(now_us.saturating_add(IDLE_SEAL_MS * 1000));
                *space_due_us = driver.low.then(|| now_us.saturating_add(SPACE_RETRY_MS * 1000));
            }
            Self::Thread(queue) => queue.push_all(ops.drain(..)),
        }
    }

    /// When the loop must call [`LogLane::tick`], if ever.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        match self {
            Self::Inline { idle_due_us, space_due_us, .. } => {
                earliest([*idle_due_us, *space_due_us])
            }
            Self::Thread(_) => None,
        }
    }

    /// Does what has come due.
    pub(crate) fn tick(&mut self, now_us: u64) {
        match self {
            Self::Inline { driver, idle_due_us, space_due_us } => {
                if idle_due_us.is_some_and(|due| due <= now_us) {
                    *idle_due_us = None;
                    driver.idle();
                }
                if space_due_us.is_some_and(|due| due <= now_us) {
                    driver.check_space();
                    if !driver.low {
                        *idle_due_us = Some(now_us.saturating_add(IDLE_SEAL_MS * 1000));
                    }
                    *space_due_us =
                        driver.low.then(|| now_us.saturating_add(SPACE_RETRY_MS * 1000));
                }
            }
            Self::Thread(_) => {}
        }
    }

    /// Finishes what is queued and closes the store; the thread, if any, does so by itself.
    pub(crate) fn stop(&mut self) {
        match self {
            Self::Inline { driver, .. } => driver.close(),
            Self::Thread(queue) => queue.close(),
        }
    }
}

/// The lane's work, on whatever thread.
pub(crate) struct Driver {
    storage: Box<dyn Storage>,
    groups: Vec<GroupId>,
    submission_bytes_max: u64,
    intake: Arc<Intake>,
    meter: Arc<Meter>,
    /// Whether its writes take time that is worth being measured.
    is_timed: bool,
    queue: VecDeque<(GroupId, WriteOp)>,
    low: bool,
    /// What the store panicked with: it may be in the middle of anything, and is left alone.
    panicked: Option<String>,
    outstanding: Arc<Outstanding>,
}

/// Submissions whose completion has not come.
#[derive(Default)]
struct Outstanding {
    count: Mutex<u64>,
    none: Condvar,
}

/// Reports a submission's fate exactly once, also when a store drops its completion.
struct Report {
    marks: Vec<(GroupId, OpId)>,
    intake: Arc<Intake>,
    outstanding: Arc<Outstanding>,
    /// When it was handed over, if that is to be known.
    timed: Option<(Arc<Meter>, u64)>,
    sent: bool,
}

impl Report {
    fn send(&mut self, result: Result<(), String>) {
        if std::mem::replace(&mut self.sent, true) {
            return;
        }
        if let (Some((meter, begun_us)), Ok(())) = (&self.timed, &result) {
            meter.synced(*begun_us);
        }
        self.intake.notify(self.marks.iter().map(|(group, op)| match &result {
            Ok(()) => Note::Persisted(*group, *op),
            Err(reason) => Note::PersistFailed(*group, reason.clone()),
        }));
        let mut count = self.outstanding.count.lock();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.outstanding.none.notify_all();
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.send(Err("the store dropped a completion without reporting".into()));
    }
}

impl Driver {
    fn run(&mut self, inbox: &LaneQueue<(GroupId, WriteOp)>) {
        let (mut taken, mut waiting) = (Vec::new(), Waiting::default());
        let mut seal_owed = false;
        loop {
            let timeout = if seal_owed {
                Some(Duration::from_millis(IDLE_SEAL_MS))
            } else if self.low {
                Some(Duration::from_millis(SPACE_RETRY_MS))
            } else {
                None
            };
            match inbox.take_all(timeout, &mut taken, &mut waiting) {
                Waited::Items => {
                    self.queue.extend(taken.drain(..));
                    self.submit_all();
                    seal_owed = true;
                }
                Waited::Idle if seal_owed => {
                    seal_owed = false;
                    self.idle();
                }
                Waited::Idle => {
                    let lacked_room = self.low;
                    self.check_space();
                    // What had waited for room is written, and nothing covers it yet.
                    seal_owed = lacked_room && !self.low;
                }
                Waited::Closed => break,
            }
        }
        self.close();
    }

    fn submit_all(&mut self) {
        while !self.queue.is_empty() {
            let batch = rules::next_submission(&mut self.queue, self.submission_bytes_max);
            self.submit(batch);
        }
        self.check_space();
    }

    fn submit(&mut self, batch: WriteBatch) {
        if let Some(reason) = &self.panicked {
            let marks = rules::marks(&batch);
            let failed = marks.iter().map(|(g, _)| Note::PersistFailed(*g, reason.clone()));
            self.intake.notify(failed);
            return;
        }
        let mut report = Report {
            marks: rules::marks(&batch),
            intake: Arc::clone(&self.intake),
            outstanding: Arc::clone(&self.outstanding),
            timed: self.is_timed.then(|| (Arc::clone(&self.meter), self.meter.now_us())),
            sent: false,
        };
        self.meter.wrote(batch.iter().map(|(_, op)| op.entries.len() as u64).sum());
        *self.outstanding.count.lock() += 1;
        let done = Completion::new(move |result| report.send(result.map_err(|e| e.to_string())));
        let _ = self.call("the storage's submit", |storage| storage.submit(batch, done));
    }

    /// Calls the store, unless it has panicked; a panic is a failed write of every group.
    fn call<T>(
        &mut self,
        what: &'static str,
        call: impl FnOnce(&mut dyn Storage) -> T,
    ) -> Option<T> {
        if self.panicked.is_some() {
            return None;
        }
        match guarded(|| run_inside(what, || call(self.storage.as_mut()))) {
            Ok(result) => Some(result),
            Err(panic) => {
                let reason = format!("the store panicked: {panic}");
                let groups = self.groups.iter();
                self.intake.notify(groups.map(|g| Note::PersistFailed(*g, reason.clone())));
                self.panicked = Some(reason);
                None
            }
        }
    }

    fn check_space(&mut self) {
        if let Some(bytes) = self.call("the storage's log_bytes", |storage| storage.log_bytes()) {
            self.meter.wal_bytes(bytes);
        }
        let Some(space) = self.call("the storage's space", |storage| storage.space()) else {
            // Nobody asks it again.
            self.low = false;
            return;
        };
        let low = match space {
            Space::Ample => false,
            Space::Low => true,
        };
        if low != self.low {
            self.low = low;
            self.intake.notify([Note::StorageFull(low)]);
        }
    }

    fn idle(&mut self) {
        // A seal that fails is a failed write: the store takes nothing more, so the node must know.
        if let Some(Err(error)) = self.call("the storage's idle", |storage| storage.idle()) {
            let reason = error.to_string();
            let groups = self.groups.iter();
            self.intake.notify(groups.map(|g| Note::PersistFailed(*g, reason.clone())));
        }
    }

    fn close(&mut self) {
        let deadline_us = clock::deadline_us(CLOSE_WAIT);
        let outstanding = Arc::clone(&self.outstanding);
        let mut lacks_room = false;
        let open = loop {
            let mut count = outstanding.count.lock();
            if *count > 0 && !lacks_room {
                let left = clock::left_until(deadline_us).min(CLOSE_LOOK);
                outstanding.none.wait_for(&mut count, left);
            }
            let open = *count;
            drop(count);
            if open == 0 || lacks_room || clock::left_until(deadline_us).is_zero() {
                break open;
            }
            lacks_room = self.call("the storage's space", |s| s.space()) == Some(Space::Low);
        };
        // The loop takes no notes any more, so the last words go to the log from here.
        let trouble = if open > 0 && !lacks_room {
            Some(format!("it was left unclosed: {open} submissions did not complete"))
        } else {
            let closed = self.call("the storage's close", |storage| storage.close());
            closed.and_then(Result::err).map(|error| format!("it was not closed cleanly: {error}"))
        };
        if let Some(trouble) = trouble {
            let _ = logged(|| tracing::warn!("storage: {trouble}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]
    use super::*;
    use crate::node::intake::Batch;
    use crate::storage::{LogReader, StorageError};
    use crate::types::{Boot, Entry, Index, NodeId};

    struct NoReader;
    impl LogReader for NoReader {
        fn read(
            &self,
            _: GroupId,
            first: Index,
            _: Index,
            _: u64,
        ) -> Result<Vec<Entry>, StorageError> {
            Err(StorageError::Missing { index: first, detail: "none".into() })
        }
    }

    /// What a test store does with a submission, told from outside.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Mood {
        Fine,
        NoRoom,
        Drops,
        Panics,
        CannotSeal,
    }

    #[derive(Default)]
    struct Seen {
        submissions: Vec<usize>,
        idles: usize,
        closed: usize,
        low: bool,
    }

    struct TestStore {
        mood: Mood,
        /// Submissions that wait for room.
        kept: Vec<Completion>,
        inline: bool,
        seen: Arc<Mutex<Seen>>,
        gate: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Storage for TestStore {
        fn submit(&mut self, batch: WriteBatch, done: Completion) {
            self.seen.lock().submissions.push(batch.len());
            let mut open = self.gate.0.lock();
            while !*open {
                self.gate.1.wait(&mut open);
            }
            match self.mood {
                Mood::Fine | Mood::CannotSeal => done.complete(Ok(())),
                Mood::NoRoom => self.kept.push(done),
                Mood::Drops => drop(done),
                Mood::Panics => panic!("on purpose"),
            }
        }
        fn reader(&self) -> Arc<dyn LogReader> {
            Arc::new(NoReader)
        }
        fn never_blocks(&self) -> bool {
            self.inline
        }
        fn idle(&mut self) -> Result<(), StorageError> {
            self.seen.lock().idles += 1;
            match self.mood {
                Mood::CannotSeal => {
                    Err(StorageError::NoSpace { path: "/disk".into(), doing: "sealing".into() })
                }
                Mood::Fine | Mood::NoRoom | Mood::Drops | Mood::Panics => Ok(()),
            }
        }
        fn space(&mut self) -> Space {
            if self.seen.lock().low { Space::Low } else { Space::Ample }
        }
        fn close(&mut self) -> Result<(), StorageError> {
            self.seen.lock().closed += 1;
            Ok(())
        }
    }

    struct Rig {
        intake: Arc<Intake>,
        threads: Threads,
        seen: Arc<Mutex<Seen>>,
        gate: Arc<(Mutex<bool>, Condvar)>,
        lane: LogLane,
        notes: Vec<Note>,
    }

    impl Rig {
        fn new(mood: Mood, inline: bool, open: bool) -> Self {
            let intake = Arc::new(Intake::new());
            let threads = Threads::new("t".into());
            let seen = Arc::new(Mutex::new(Seen::default()));
            let gate = Arc::new((Mutex::new(open), Condvar::new()));
            let store = TestStore {
                mood,
                kept: Vec::new(),
                inline,
                seen: Arc::clone(&seen),
                gate: Arc::clone(&gate),
            };
            let meter = NodeId::new(1).map(|node| Arc::new(Meter::new(node, true))).unwrap();
            let lane = LogLane::start(
                Box::new(store),
                vec![GroupId::FIRST],
                1 << 20,
                (Arc::clone(&intake), meter),
                &threads,
            )
            .unwrap();
            Self { intake, threads, seen, gate, lane, notes: Vec::new() }
        }

        fn write(&mut self, seqs: impl IntoIterator<Item = u64>) {
            let mut ops = seqs
                .into_iter()
                .map(|seq| {
                    let id = OpId { boot: Boot(1), seq };
                    (GroupId::FIRST, WriteOp { id, ..WriteOp::default() })
                })
                .collect();
            self.lane.write(&mut ops, clock::boot_us());
        }

        fn open(&self) {
            *self.gate.0.lock() = true;
            self.gate.1.notify_all();
        }

        fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
            let deadline = clock::deadline_us(Duration::from_secs(10));
            while !done(self) {
                assert!(!clock::left_until(deadline).is_zero(), "{what} did not happen");
                let mut batch = Batch::default();
                self.intake.drain(&mut batch);
                self.notes.append(&mut batch.notes);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }

        fn persisted(&self) -> u64 {
            let seqs = self.notes.iter().map(|note| match note {
                Note::Persisted(_, op) => op.seq,
                _ => 0,
            });
            seqs.max().unwrap_or(0)
        }

        fn failed(&self) -> Option<String> {
            self.notes.iter().find_map(|note| match note {
                Note::PersistFailed(_, reason) => Some(reason.clone()),
                _ => None,
            })
        }
    }

    #[test]
    fn writes_that_come_during_a_sync_share_the_next_one() {
        let mut rig = Rig::new(Mood::Fine, false, false);
        rig.write([1]);
        rig.until("the first submission", |rig| rig.seen.lock().submissions.len() == 1);
        for seq in 2..=9 {
            rig.write([seq]);
        }
        rig.open();
        rig.until("the last write", |rig| rig.persisted() == 9);
        assert_eq!(rig.seen.lock().submissions, [1, 8]);
        rig.lane.stop();
        rig.threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();
        assert_eq!(rig.seen.lock().closed, 1);
    }

    #[test]
    fn a_stop_does_not_wait_for_room_that_may_never_come() {
        let mut rig = Rig::new(Mood::NoRoom, false, true);
        rig.seen.lock().low = true;
        rig.write([1]);
        rig.until("the submission", |rig| rig.seen.lock().submissions.len() == 1);
        rig.lane.stop();
        rig.threads.join_until(clock::deadline_us(CLOSE_WAIT / 2)).unwrap();
        assert_eq!(rig.seen.lock().closed, 1, "sealed all the same");
    }

    #[test]
    fn a_lane_without_work_seals_once() {
        let mut rig = Rig::new(Mood::Fine, false, true);
        rig.write([1]);
        rig.until("the seal", |rig| rig.seen.lock().idles == 1);
        rig.lane.stop();
        rig.threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();
        assert_eq!(rig.seen.lock().idles, 1);
    }

    #[test]
    fn what_waited_for_room_is_sealed_once_it_is_written() {
        let mut rig = Rig::new(Mood::Fine, false, true);
        rig.seen.lock().low = true;
        rig.write([1]);
        rig.until("the seal", |rig| rig.seen.lock().idles == 1);
        rig.seen.lock().low = false;
        rig.until("another", |rig| rig.seen.lock().idles == 2);
        rig.lane.stop();
        rig.threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();

        let mut rig = Rig::new(Mood::Fine, true, true);
        rig.seen.lock().low = true;
        rig.write([1]);
        let seal = rig.lane.next_deadline_us().unwrap();
        rig.lane.tick(seal);
        rig.seen.lock().low = false;
        let room = rig.lane.next_deadline_us().unwrap();
        rig.lane.tick(room);
        assert_eq!(rig.seen.lock().idles, 1);
        let seal = rig.lane.next_deadline_us().unwrap();
        rig.lane.tick(seal);
        assert_eq!((rig.seen.lock().idles, rig.lane.next_deadline_us()), (2, None));
    }

    #[test]
    fn an_inline_lane_seals_by_the_loops_deadline() {
        let mut rig = Rig::new(Mood::Fine, true, true);
        assert_eq!(rig.lane.next_deadline_us(), None);
        rig.write([1]);
        let due = rig.lane.next_deadline_us().unwrap();
        rig.lane.tick(due - 1);
        assert_eq!(rig.seen.lock().idles, 0);
        rig.lane.tick(due);
        rig.lane.tick(due + 1);
        assert_eq!(rig.seen.lock().idles, 1);
        assert_eq!(rig.lane.next_deadline_us(), None);
    }

    #[test]
    fn a_dropped_completion_and_a_panic_are_failed_writes() {
        for (mood, word) in [(Mood::Drops, "dropped a completion"), (Mood::Panics, "dropped")] {
            for inline in [false, true] {
                let mut rig = Rig::new(mood, inline, true);
                rig.write([1]);
                rig.until("the failure", |rig| rig.failed().is_some());
                assert!(rig.failed().unwrap().contains(word), "{:?}", rig.failed());
                if mood == Mood::Panics {
                    rig.until("the panic's text", |rig| {
                        rig.notes.iter().any(|note| {
                            matches!(note, Note::PersistFailed(_, why) if why.contains("on purpose"))
                        })
                    });
                }
                rig.lane.stop();
                rig.threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();
            }
        }
    }

    #[test]
    fn a_store_that_panicked_is_never_called_again() {
        for inline in [false, true] {
            let mut rig = Rig::new(Mood::Panics, inline, true);
            rig.write([1]);
            rig.until("the failure", |rig| rig.failed().is_some());
            rig.notes.clear();
            rig.write([2]);
            rig.until("the next failure", |rig| rig.failed().is_some());
            assert!(rig.failed().unwrap().contains("on purpose"), "{:?}", rig.failed());
            if let Some(due) = rig.lane.next_deadline_us() {
                rig.lane.tick(due);
            }
            rig.lane.stop();
            rig.threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();
            let seen = rig.seen.lock();
            assert_eq!((seen.submissions.len(), seen.idles, seen.closed), (1, 0, 0));
        }
    }

    #[test]
    fn a_seal_that_fails_is_a_failed_write() {
        for inline in [false, true] {
            let mut rig = Rig::new(Mood::CannotSeal, inline, true);
            rig.write([1]);
            rig.until("the failure", |rig| {
                if let Some(due) = rig.lane.next_deadline_us() {
                    rig.lane.tick(due);
                }
                rig.failed().is_some_and(|why| why.contains("no space left"))
            });
            rig.lane.stop();
            rig.threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();
        }
    }

    #[test]
    fn a_lane_whose_sender_is_gone_closes_its_store_and_ends() {
        let rig = Rig::new(Mood::Fine, false, true);
        let Rig { lane, threads, seen, .. } = rig;
        drop(lane);
        threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();
        assert_eq!(seen.lock().closed, 1);
    }

    #[test]
    fn a_disk_that_fills_up_and_empties_is_told_by_itself() {
        let mut rig = Rig::new(Mood::Fine, false, true);
        rig.seen.lock().low = true;
        rig.write([1]);
        let told = |full: bool| {
            move |rig: &mut Rig| {
                rig.notes.iter().any(|note| matches!(note, Note::StorageFull(f) if *f == full))
            }
        };
        rig.until("full", told(true));
        rig.seen.lock().low = false;
        rig.until("space again, without a write", told(false));
        rig.lane.stop();
        rig.threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();
    }
}
