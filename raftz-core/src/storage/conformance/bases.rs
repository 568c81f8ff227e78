//! The part of the suite that moves the log's base.

use super::{Completion, GROUP, Storage, Subject, Suite, rule};
use crate::types::{Base, HardState, Index, LogId, Term, WriteOp};

impl Suite {
    pub(super) fn base(&self, term: u64, index: Index) -> Option<Box<Base>> {
        let id = LogId::new(Term(term), index);
        Some(Box::new(Base { id, log_time_us: index.0, ..self.model.base.clone() }))
    }

    /// A write that moves the base, and what can be read after it.
    fn moves(&mut self, store: &mut dyn Storage, change: impl FnOnce(&Self, &mut WriteOp)) {
        let mut op = self.op();
        change(self, &mut op);
        self.submit(store, vec![op]);
        self.reads_behind_the_base(store);
    }

    /// Everything above the base is there; nothing at or below it is, and nothing beyond the end.
    fn reads_behind_the_base(&mut self, store: &dyn Storage) {
        if !self.findings.is_empty() {
            return;
        }
        let (base, last) = (self.model.base.id.index, self.model.last().index);
        for gone in [base.prev(), base, last.next()] {
            if store.reader().read(GROUP, gone, last.next(), 1000).is_ok() {
                self.found(rule::BASE, format!("entry {gone} is read, beside base {base}"));
            }
        }
        self.read_everything(store);
    }

    /// The base moves in every way in which it can.
    pub(super) fn bases(&mut self, store: &mut dyn Storage) {
        let begin = self.model.base.id.index;
        let term_at = |suite: &Self, index: Index| {
            let found = suite.model.entries.iter().find(|entry| entry.index == index);
            found.map_or(0, |entry| entry.term.0)
        };
        // Forward, within a write and between two; then the same again, which changes nothing.
        for to in [begin.plus(3), begin.plus(11), begin.plus(11), begin.plus(20)] {
            self.moves(store, |suite, op| {
                let same = suite.model.base.id.index == to;
                let term = if same { suite.model.base.id.term.0 } else { term_at(suite, to) };
                op.base = suite.base(term, to);
            });
        }
        // Onto the last entry, then entries behind an empty log.
        self.moves(store, |suite, op| {
            let last = suite.model.last();
            op.base = suite.base(last.term.0, last.index);
        });
        self.moves(store, |suite, op| {
            op.entries = suite.entries(suite.model.last().index.next(), 4, &vec![vec![8; 90]; 9]);
        });
        // With entries behind it in the same write.
        self.moves(store, |suite, op| {
            let last = suite.model.last().index;
            op.base = suite.base(4, last.prev());
            op.entries = suite.entries(last.next(), 4, &vec![vec![2; 10]; 4]);
        });
        // Beyond the log, alone and with entries; with a term that the log has not: in place of it.
        self.moves(store, |suite, op| {
            op.base = suite.base(5, suite.model.last().index.plus(50));
        });
        self.moves(store, |suite, op| {
            let to = suite.model.last().index.plus(7);
            op.base = suite.base(5, to);
            op.entries = suite.entries(to.next(), 6, &vec![vec![4; 2000]; 8]);
        });
        self.moves(store, |suite, op| {
            op.base = suite.base(7, suite.model.last().index.prev());
            op.hard_state = Some(HardState { term: Term(7), vote: None });
        });
        self.moves(store, |suite, op| {
            op.entries = suite.entries(suite.model.last().index.next(), 7, &vec![vec![6; 30]; 9]);
        });
        // Everything at once: a shorter end, a base in what is left of it, and another end.
        self.moves(store, |suite, op| {
            let from = suite.model.last().index.prev();
            op.truncate_from = Some(from);
            op.base = suite.base(7, from.prev().prev());
            op.entries = suite.entries(from, 8, &vec![vec![5; 40]; 5]);
        });
        // The shorter end does not hold the base any more.
        self.moves(store, |suite, op| {
            let last = suite.model.last().index;
            op.truncate_from = Some(last.prev());
            op.base = suite.base(8, last);
            op.entries = suite.entries(last.next(), 8, &vec![vec![1; 40]; 5]);
        });
        // Writes and moves that follow each other without waiting.
        let mut ops = Vec::new();
        for step in 0..6 {
            let mut op = self.op();
            let last = self.model.last().index.plus(2 * step);
            op.entries = self.entries(last.next(), 8, &vec![vec![3; 20]; 2]);
            ops.push(op);
            let mut op = self.op();
            op.base = self.base(8, last.plus(1));
            ops.push(op);
        }
        self.submit(store, ops);
        self.reads_behind_the_base(store);
    }

    /// After a write that it may refuse everything after, the store is opened once more.
    pub(super) fn base_back(&mut self, subject: &mut dyn Subject) {
        if !subject.survives_close() || !self.findings.is_empty() {
            return;
        }
        let Some(mut store) = self.open(subject, rule::REOPEN) else { return };
        let present = self.model.base.id;
        let mut op = self.op();
        op.base = self.base(present.term.0, present.index.prev());
        let (sender, fates) = crossbeam_channel::bounded(1);
        store.submit(vec![(GROUP, op)], Completion::new(move |fate| drop(sender.send(fate))));
        match fates.recv_timeout(self.patience) {
            Ok(Err(_)) => {}
            Ok(Ok(())) => self.found(rule::BACK, format!("it moved to before {present}")),
            Err(_) => self.found(rule::ONCE, "a base that moves back did not complete"),
        }
        let _ = store.close();
        drop(store);
        if let Some(store) = self.open(subject, rule::REOPEN) {
            self.reads_behind_the_base(&*store);
        }
    }
}
