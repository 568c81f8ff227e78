//! Is this a store that a group can trust? A suite that any [`Storage`] can be put through, and that
//! says in words what is wrong with it.
//!
//! It plays the log lane: writes, overwrites, truncations, hard states, reads beside writes, clean
//! closes and new opens, first by hand, then at random against a plain model. It cannot cut the
//! power: whether `done` was called before the bytes were safe is for a crash test to say.

mod bases;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{Completion, Storage, StorageError};
use crate::types::{
    Base, Entries, Entry, EntryKind, GroupId, HardState, Index, LogId, Member, Membership, NodeId,
    OpId, Payload, Recovered, SessionTag, Term, TermRun, WriteOp,
};

/// A store under test: how to open it.
pub trait Subject {
    /// Opens the store: the first time formatted and empty, later with what it holds. The handle
    /// that was returned before has been closed and dropped.
    ///
    /// # Errors
    /// Says why not; the suite reports it as a finding.
    fn open(&mut self) -> Result<(Box<dyn Storage>, Recovered), String>;

    /// Whether what was written is still there after a close. False skips the rules about it.
    fn survives_close(&self) -> bool {
        true
    }

    /// How long one submission may take before the suite calls its completion missing.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A rule that the store broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// How it was broken.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

const GROUP: GroupId = GroupId::FIRST;

mod rule {
    pub(super) const OPEN: &str = "a store opens, empty at first";
    pub(super) const ONCE: &str = "every submission completes exactly once";
    pub(super) const ORDER: &str = "completions come in the order of submission";
    pub(super) const READ: &str = "a reader returns durable entries exactly as they were written";
    pub(super) const BOUND: &str = "a read stops at its byte bound but returns at least one entry";
    pub(super) const MISSING: &str = "a read of a missing entry is an error";
    pub(super) const TRUNCATE: &str = "a truncated entry is gone and can be replaced";
    pub(super) const IDLE: &str = "a healthy store has nothing to complain of when it is idle";
    pub(super) const GAP: &str = "a write that leaves a gap is an error and leaves nothing behind";
    pub(super) const BASE: &str = "a log begins behind its base, and keeps what follows it";
    pub(super) const BACK: &str = "a base that moves back is an error and changes nothing";
    pub(super) const REOPEN: &str = "everything durable is there after a close and an open";
    pub(super) const BOOT: &str = "each open is a new boot of the same directory";
}

/// Runs the whole suite. An empty list means that the store conforms.
pub fn run(subject: &mut dyn Subject) -> Vec<Finding> {
    let mut suite = Suite {
        findings: Vec::new(),
        model: Model::default(),
        next: 0,
        boot: None,
        patience: subject.patience(),
    };
    let Some(mut store) = suite.open(subject, rule::OPEN) else { return suite.findings };
    suite.scripted(&mut *store);
    if suite.findings.is_empty() {
        store = match suite.reopen(subject, store) {
            Some(store) => store,
            None => return suite.findings,
        };
        if let Some(store) = suite.random(subject, store) {
            suite.gap(subject, store);
            suite.base_back(subject);
        }
    }
    suite.findings
}

/// What the store should hold.
#[derive(Clone, Debug, Default)]
struct Model {
    hard_state: HardState,
    entries: Vec<Entry>,
    commit: Index,
    base: Base,
}

impl Model {
    fn last(&self) -> LogId {
        self.entries.last().map_or(self.base.id, Entry::id)
    }

    fn rebase(&mut self, base: &Base) {
        if self.entries.iter().any(|entry| entry.id() == base.id) {
            self.entries.retain(|entry| entry.index > base.id.index);
        } else if base.id != self.base.id {
            self.entries.clear();
        }
        self.base = base.clone();
    }

    fn write(&mut self, op: &WriteOp) {
        if let Some(hard_state) = op.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = op.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        if let Some(base) = &op.base {
            self.rebase(base);
        }
        self.entries.extend(op.entries.iter().cloned());
        self.commit = self.commit.max(op.commit).max(self.base.id.index);
    }

    fn runs(&self) -> Vec<TermRun> {
        let mut runs: Vec<TermRun> = Vec::new();
        for entry in &self.entries {
            if runs.last().is_none_or(|run| run.term != entry.term) {
                runs.push(TermRun { first: entry.index, term: entry.term });
            }
        }
        runs
    }
}

struct Suite {
    findings: Vec<Finding>,
    model: Model,
    next: u64,
    boot: Option<Recovered>,
    patience: Duration,
}

type Fates = Receiver<(u64, Result<(), StorageError>)>;

impl Suite {
    fn found(&mut self, rule: &'static str, detail: impl Into<String>) {
        self.findings.push(Finding { rule, detail: detail.into() });
    }

    fn open(&mut self, subject: &mut dyn Subject, rule: &'static str) -> Option<Box<dyn Storage>> {
        let (store, recovered) = match subject.open() {
            Ok(opened) => opened,
            Err(why) => {
                self.found(rule, why);
                return None;
            }
        };
        self.next = 0;
        if let Some(before) = self.boot.clone() {
            if recovered.boot <= before.boot {
                let (old, new) = (before.boot.0, recovered.boot.0);
                self.found(rule::BOOT, format!("boot {new} came after boot {old}"));
            }
            if recovered.identity != before.identity {
                self.found(rule::BOOT, "the identity changed between two opens");
            }
        } else {
            self.model.base = recovered.base.clone();
        }
        self.compare(rule, &recovered);
        self.boot = Some(recovered);
        Some(store)
    }

    fn compare(&mut self, rule: &'static str, recovered: &Recovered) {
        let model = self.model.clone();
        if recovered.hard_state != model.hard_state {
            let (got, want) = (recovered.hard_state, model.hard_state);
            self.found(rule, format!("term and vote are {got:?}, not {want:?}"));
        }
        if recovered.base != model.base {
            let (got, want) = (recovered.base.id, model.base.id);
            self.found(rule, format!("the log begins at {got} with another base than {want}"));
        }
        if recovered.last != model.last() {
            let (got, want) = (recovered.last, model.last());
            self.found(rule, format!("the last entry is {got}, not {want}"));
        }
        if recovered.runs != model.runs() {
            let (got, want) = (&recovered.runs, model.runs());
            self.found(rule, format!("the terms of the log are {got:?}, not {want:?}"));
        }
        let special = |entry: &&Entry| match entry.kind {
            EntryKind::Noop | EntryKind::Command => false,
            EntryKind::Membership | EntryKind::Settings | EntryKind::Unknown(_) => true,
        };
        let want: Vec<Entry> = model.entries.iter().filter(special).cloned().collect();
        if recovered.config_entries != want {
            let (got, want) = (recovered.config_entries.len(), want.len());
            self.found(rule, format!("{got} entries beside commands and no-ops, not these {want}"));
        }
        if recovered.commit > model.commit.min(model.last().index) {
            let (got, want) = (recovered.commit, model.commit);
            self.found(rule, format!("commit hint {got} is above every one written ({want})"));
        }
        if recovered.commit < model.base.id.index {
            let (got, base) = (recovered.commit, model.base.id);
            self.found(rule, format!("commit hint {got} is below the base {base}"));
        }
        if let Some(damage) = recovered.damage {
            self.found(
                rule,
                format!("damage is reported although nothing was damaged: {damage:?}"),
            );
        }
    }

    fn reopen(
        &mut self,
        subject: &mut dyn Subject,
        mut store: Box<dyn Storage>,
    ) -> Option<Box<dyn Storage>> {
        if !subject.survives_close() {
            return Some(store);
        }
        if let Err(error) = store.close() {
            self.found(rule::REOPEN, format!("a clean close failed: {error}"));
        }
        drop(store);
        let store = self.open(subject, rule::REOPEN)?;
        self.read_everything(&*store);
        Some(store)
    }

    fn op(&mut self) -> WriteOp {
        self.next += 1;
        let boot = self.boot.as_ref().map(|recovered| recovered.boot).unwrap_or_default();
        WriteOp { id: OpId { boot, seq: self.next }, ..WriteOp::default() }
    }

    fn entries(&self, from: Index, term: u64, payloads: &[Vec<u8>]) -> Entries {
        let numbered = (0..).zip(payloads);
        let entry = |(at, payload): (u64, &Vec<u8>)| Entry {
            term: Term(term),
            index: from.plus(at),
            log_time_us: from.plus(at).0 * 10,
            kind: if payload.is_empty() { EntryKind::Noop } else { EntryKind::Command },
            session: (payload.len() % 3 == 1).then(|| SessionTag {
                session: at,
                sequence: at + 1,
                acked_below: at,
            }),
            payload: Payload::new(payload.clone()),
        };
        numbered.map(entry).collect()
    }

    /// Submits all of `ops`, one after the other without waiting, then collects every completion.
    fn submit(&mut self, store: &mut dyn Storage, ops: Vec<WriteOp>) {
        if !self.findings.is_empty() {
            // What follows would only blur the first finding.
            return;
        }
        let (sender, fates): (_, Fates) = unbounded();
        let mut waiting: VecDeque<u64> = VecDeque::new();
        for op in ops {
            let seq = op.id.seq;
            waiting.push_back(seq);
            self.model.write(&op);
            let sender = sender.clone();
            let done = Completion::new(move |fate| drop(sender.send((seq, fate))));
            store.submit(vec![(GROUP, op)], done);
        }
        drop(sender);
        while let Some(expected) = waiting.pop_front() {
            match fates.recv_timeout(self.patience) {
                Ok((seq, Ok(()))) if seq == expected => {}
                Ok((seq, Ok(()))) => {
                    let detail = format!("submission {seq} completed before {expected}");
                    return self.found(rule::ORDER, detail);
                }
                Ok((seq, Err(error))) => {
                    let detail = format!("submission {seq} failed on a healthy store: {error}");
                    return self.found(rule::ONCE, detail);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let detail =
                        format!("submission {expected} did not complete in {:?}", self.patience);
                    return self.found(rule::ONCE, detail);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let detail = format!("submission {expected} was dropped without completion");
                    return self.found(rule::ONCE, detail);
                }
            }
        }
    }

    fn read(
        &mut self,
        store: &dyn Storage,
        rule: &'static str,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Vec<Entry> {
        match store.reader().read(GROUP, first, last, bytes_max) {
            Ok(entries) => entries,
            Err(error) => {
                self.found(rule, format!("entries {first}..={last} could not be read: {error}"));
                Vec::new()
            }
        }
    }

    fn read_everything(&mut self, store: &dyn Storage) {
        let last = self.model.last().index;
        let mut next = self.model.base.id.index.next();
        let mut at = 0;
        while next <= last && self.findings.is_empty() {
            let got = self.read(store, rule::READ, next, last, 4096);
            if got.is_empty() {
                return self.found(rule::READ, format!("the read from {next} returned nothing"));
            }
            for entry in got {
                if self.model.entries.get(at) != Some(&entry) {
                    let want = self.model.entries.get(at).map(Entry::id);
                    let detail = format!(
                        "position {next} holds {} with {} bytes where {want:?} was written",
                        entry.id(),
                        entry.payload.len()
                    );
                    return self.found(rule::READ, detail);
                }
                at += 1;
                next = next.next();
            }
        }
    }

    fn scripted(&mut self, store: &mut dyn Storage) {
        let first = self.model.base.id.index.next();
        let every_byte: Vec<u8> = (0..=255).collect();
        let payloads =
            [vec![], b"a".to_vec(), every_byte, vec![0; 5000], vec![9; 1 << 20], b"end".to_vec()];
        let mut start = self.op();
        start.hard_state = Some(HardState { term: Term(1), vote: NodeId::new(1) });
        let mut append = self.op();
        append.entries = self.entries(first, 1, &payloads);
        let mut more: Vec<WriteOp> = vec![start, append];
        for step in 0..40u64 {
            let mut op = self.op();
            op.entries = self.entries(first.plus(6 + step), 1 + step / 20, &[vec![7; 64]]);
            op.commit = first.plus(step);
            more.push(op);
        }
        self.submit(store, more);
        self.read_everything(store);
        let last = self.model.last().index;

        let one = self.read(store, rule::BOUND, first, last, 1);
        if one.len() != 1 {
            self.found(rule::BOUND, format!("a bound of 1 byte gave {} entries", one.len()));
        }
        let some = self.read(store, rule::BOUND, first.plus(6), last, 1000);
        let bytes: u64 = some.iter().map(Entry::cost_bytes).sum();
        if bytes > 1000 {
            self.found(rule::BOUND, format!("a bound of 1000 bytes gave {bytes}"));
        }
        for (from, to) in [(Index::ZERO, last), (last.next(), last.next()), (last.plus(99), last)] {
            if store.reader().read(GROUP, from, to, 1000).is_ok() {
                self.found(rule::MISSING, format!("entries {from}..={to} were read all the same"));
            }
        }

        // Overwritten twice before either completes, then shortened, then a membership.
        let overwrite = |suite: &mut Self, from: Index, term: u64, count: usize| {
            let mut op = suite.op();
            op.truncate_from = Some(from);
            op.hard_state = Some(HardState { term: Term(term), vote: None });
            op.entries = suite.entries(from, term, &vec![vec![5; 300]; count]);
            op
        };
        let second = overwrite(self, first.plus(10), 3, 9);
        let third = overwrite(self, first.plus(12), 4, 2);
        self.submit(store, vec![second, third]);
        let end = self.model.last().index;
        if store.reader().read(GROUP, end.next(), end.next(), 10).is_ok() {
            self.found(rule::TRUNCATE, format!("entry {} is still readable", end.next()));
        }
        self.read_everything(store);
        let member = NodeId::new(1).map(|id| (id, Member::at("127.0.0.1:1")));
        if let Ok(payload) = Membership::of_voters(member).to_payload() {
            let mut op = self.op();
            let entries = self.entries(end.next(), 4, &[vec![1]]);
            let kind = EntryKind::Membership;
            let special = |entry: &Entry| Entry { kind, payload: payload.clone(), ..entry.clone() };
            op.entries = entries.iter().map(special).collect();
            self.submit(store, vec![op]);
        }
        if let Err(error) = store.idle() {
            self.found(rule::IDLE, error.to_string());
        }
        self.read_everything(store);
        self.read_beside_writes(store);
        self.bases(store);
    }

    /// Reads from another thread while the lane writes on: never a wrong entry.
    #[allow(clippy::disallowed_methods, reason = "a log is read from any thread; this shows it")]
    fn read_beside_writes(&mut self, store: &mut dyn Storage) {
        let reader = store.reader();
        let settled: Vec<Entry> = self.model.entries.clone();
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let wrong = std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                let reader = Arc::clone(&reader);
                for entry in settled.iter().cycle() {
                    if stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected) {
                        return None;
                    }
                    let read = reader.read(GROUP, entry.index, entry.index, u64::MAX);
                    if read.as_ref().ok().and_then(|entries| entries.first()) != Some(entry) {
                        return Some(format!("entry {} read as {read:?}", entry.id()));
                    }
                }
                None
            });
            for _ in 0..50 {
                let from = self.model.last().index.next();
                let mut op = self.op();
                op.entries = self.entries(from, 4, &[vec![3; 100]]);
                self.submit(store, vec![op]);
            }
            drop(stop);
            beside.join().unwrap_or_else(|_| Some("the reader panicked".into()))
        });
        if let Some(detail) = wrong {
            self.found(rule::READ, detail);
        }
    }

    /// Random writes against the model, with closes and opens between.
    fn random(
        &mut self,
        subject: &mut dyn Subject,
        mut store: Box<dyn Storage>,
    ) -> Option<Box<dyn Storage>> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut term = self.model.last().term.0.max(self.model.hard_state.term.0);
        for round in 0..200u32 {
            let mut ops = Vec::new();
            let mut shadow = self.model.clone();
            for _ in 0..=rng.next_u32() % 3 {
                let mut op = self.op();
                if rng.next_u32().is_multiple_of(4) {
                    term += 1;
                    let vote = NodeId::new(u64::from(rng.next_u32() % 4));
                    op.hard_state = Some(HardState { term: Term(term), vote });
                }
                let (base, last) = (shadow.base.id.index, shadow.last().index);
                let mut from = last.next();
                if rng.next_u32().is_multiple_of(3) && last > shadow.commit.max(base) {
                    let room = shadow.commit.max(base).distance_to(last);
                    from = shadow.commit.max(base).plus(1 + rng.next_u64() % room);
                    op.truncate_from = Some(from);
                }
                let count = rng.next_u32() % 5;
                let payloads: Vec<Vec<u8>> =
                    (0..count).map(|_| vec![1; (rng.next_u32() % 3000) as usize]).collect();
                let newest = term.max(shadow.last().term.0);
                // What is dropped here is never below the base; so the log still holds what is kept.
                let kept = from.prev();
                if rng.next_u32().is_multiple_of(8) {
                    let room = base.distance_to(kept);
                    let ahead = rng.next_u64() % (room + 1);
                    let found = shadow.entries.iter().find(|e| e.index == base.plus(ahead));
                    op.base = found
                        .map(|entry| (entry.term.0, entry.index))
                        .and_then(|(t, i)| self.base(t, i));
                } else if rng.next_u32().is_multiple_of(24) {
                    from = kept.plus(2 + rng.next_u64() % 9);
                    op.base = self.base(newest, from.prev());
                }
                op.entries = self.entries(from, newest, &payloads);
                shadow.write(&op);
                ops.push(op);
            }
            self.submit(&mut *store, ops);
            if round % 20 == 19 {
                self.read_everything(&*store);
                store = self.reopen(subject, store)?;
            }
            if !self.findings.is_empty() {
                return None;
            }
        }
        Some(store)
    }

    /// The last thing a store is asked: a store may refuse everything after an invalid write.
    fn gap(&mut self, subject: &mut dyn Subject, mut store: Box<dyn Storage>) {
        let next = self.model.last().index.next();
        let mut op = self.op();
        op.entries = self.entries(next.plus(1), self.model.last().term.0, &[vec![1; 10]]);
        let (sender, fates) = crossbeam_channel::bounded(1);
        store.submit(vec![(GROUP, op)], Completion::new(move |fate| drop(sender.send(fate))));
        match fates.recv_timeout(self.patience) {
            Ok(Err(_)) => {}
            Ok(Ok(())) => {
                self.found(rule::GAP, format!("entry {} was taken before {next}", next.plus(1)));
            }
            Err(_) => self.found(rule::ONCE, "a write that leaves a gap did not complete"),
        }
        if store.reader().read(GROUP, next, next.plus(1), 1000).is_ok() {
            self.found(rule::GAP, format!("entries {next}.. can be read"));
        }
        // Having refused a write it may refuse to close cleanly, too; what it holds must be whole.
        let _ = store.close();
        drop(store);
        if subject.survives_close()
            && let Some(store) = self.open(subject, rule::REOPEN)
        {
            self.read_everything(&*store);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::storage::{LogReader, MemoryStorage, WriteBatch};
    use crate::types::{Base, ClusterId, DiskId, Identity, Settings};

    use super::*;

    fn fresh() -> (MemoryStorage, Recovered) {
        let node = NodeId::new(1).unwrap();
        let identity =
            Identity { cluster: ClusterId(1), epoch: 1, node, disk: DiskId(1), founders_hash: 0 };
        let membership = Membership::of_voters([(node, Member::at("127.0.0.1:1"))]);
        let base = Base::founding(membership, Settings::default());
        MemoryStorage::new(identity, GROUP, base)
    }

    struct Memory;

    impl Subject for Memory {
        fn open(&mut self) -> Result<(Box<dyn Storage>, Recovered), String> {
            let (store, recovered) = fresh();
            Ok((Box::new(store), recovered))
        }
        fn survives_close(&self) -> bool {
            false
        }
    }

    #[test]
    fn the_memory_store_conforms() {
        assert_eq!(run(&mut Memory), vec![]);
    }

    /// A store with one planted fault.
    struct Broken {
        inner: MemoryStorage,
        fault: Fault,
        late: Option<Completion>,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        NeverCompletes,
        OutOfOrder,
        KeepsTruncated,
        LosesPayload,
        TakesGaps,
        KeepsWhatABaseReplaces,
    }

    impl Storage for Broken {
        fn submit(&mut self, mut batch: WriteBatch, done: Completion) {
            match self.fault {
                Fault::NeverCompletes => drop(done),
                Fault::OutOfOrder => match self.late.take() {
                    None => {
                        self.late = Some(done);
                        self.inner.submit(batch, Completion::new(|_| {}));
                    }
                    Some(late) => {
                        self.inner.submit(batch, done);
                        late.complete(Ok(()));
                    }
                },
                Fault::KeepsTruncated => {
                    if batch.iter().any(|(_, op)| op.truncate_from.is_some()) {
                        batch.clear();
                    }
                    self.inner.submit(batch, done);
                }
                Fault::KeepsWhatABaseReplaces => {
                    let is_base = |op: &WriteOp| op.base.is_some() && op.entries.is_empty();
                    batch.retain(|(_, op)| !is_base(op));
                    self.inner.submit(batch, done);
                }
                Fault::TakesGaps => {
                    self.inner.submit(batch, Completion::new(|_| {}));
                    done.complete(Ok(()));
                }
                Fault::LosesPayload => {
                    for (_, op) in &mut batch {
                        let payload = Payload::empty();
                        let bare =
                            |entry: &Entry| Entry { payload: payload.clone(), ..entry.clone() };
                        op.entries = op.entries.iter().map(bare).collect();
                    }
                    self.inner.submit(batch, done);
                }
            }
        }
        fn reader(&self) -> Arc<dyn LogReader> {
            self.inner.reader()
        }
    }

    struct BrokenSubject(Fault);

    impl Subject for BrokenSubject {
        fn open(&mut self) -> Result<(Box<dyn Storage>, Recovered), String> {
            let (inner, recovered) = fresh();
            Ok((Box::new(Broken { inner, fault: self.0, late: None }), recovered))
        }
        fn survives_close(&self) -> bool {
            false
        }
    }

    #[test]
    fn broken_stores_are_told_what_is_wrong() {
        for (fault, expected) in [
            (Fault::NeverCompletes, rule::ONCE),
            (Fault::OutOfOrder, rule::ORDER),
            (Fault::KeepsTruncated, rule::TRUNCATE),
            (Fault::LosesPayload, rule::READ),
            (Fault::TakesGaps, rule::GAP),
            (Fault::KeepsWhatABaseReplaces, rule::BASE),
        ] {
            let findings = run(&mut BrokenSubject(fault));
            assert!(
                findings.iter().any(|finding| finding.rule == expected),
                "{expected}: {findings:?}"
            );
        }
    }

    #[test]
    fn a_store_that_does_not_open_is_a_finding() {
        struct Closed;
        impl Subject for Closed {
            fn open(&mut self) -> Result<(Box<dyn Storage>, Recovered), String> {
                Err("no".into())
            }
        }
        assert_eq!(run(&mut Closed)[0].to_string(), "a store opens, empty at first: no");
    }
}
