//! The log against a plain vector, under random appends, truncations, moves of the base, votes and
//! reopens.

use proptest::prelude::*;
use raftz_core::storage::Storage;
use raftz_core::types::{Entry, GroupId, HardState, Index, LogId, NodeId, Term, TermRun, WriteOp};

use crate::support::*;

const SEGMENT: u64 = 1 << 15;

#[derive(Clone, Debug)]
enum Step {
    Append { entries: u64, bytes: usize },
    Rewrite { back: u64, entries: u64, bytes: usize },
    Both { back: u64, entries: u64 },
    Compact { back: u64, entries: u64 },
    Install { back: u64, ahead: u64, entries: u64 },
    Vote { whom: u64 },
    Idle,
    Space,
    Reopen { clean: bool },
    Read { from: u64, bytes_max: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![4 => 0..200usize, 2 => 3000..9000usize, 1 => 30_000..40_000usize];
    prop_oneof![
        6 => (1..6u64, bytes.clone())
            .prop_map(|(entries, bytes)| Step::Append { entries, bytes }),
        3 => (0..9u64, 0..4u64, bytes)
            .prop_map(|(back, entries, bytes)| Step::Rewrite { back, entries, bytes }),
        2 => (0..9u64, 1..4u64).prop_map(|(back, entries)| Step::Both { back, entries }),
        3 => (0..9u64, 0..4u64).prop_map(|(back, entries)| Step::Compact { back, entries }),
        1 => (0..9u64, 0..12u64, 0..4u64)
            .prop_map(|(back, ahead, entries)| Step::Install { back, ahead, entries }),
        2 => (1..4u64).prop_map(|whom| Step::Vote { whom }),
        1 => Just(Step::Idle),
        1 => Just(Step::Space),
        3 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
        3 => (0..20u64, 0..20_000u64)
            .prop_map(|(from, bytes_max)| Step::Read { from, bytes_max }),
    ]
}

/// A log as a plain vector behind its base.
#[derive(Default)]
struct Model {
    base: LogId,
    entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.base.index, |entry| entry.index).0
    }

    fn append(&mut self, term: u64, count: u64, bytes: usize) -> Vec<Entry> {
        let next = self.last() + 1;
        let new: Vec<Entry> = (next..next + count).map(|i| entry(term, i, bytes)).collect();
        self.entries.extend(new.iter().cloned());
        new
    }

    /// Cuts some entries off the end, but none of the base; gives the first that goes.
    fn cut(&mut self, back: u64) -> u64 {
        let from = (self.last() + 1).saturating_sub(back).max(self.base.index.0 + 1);
        self.entries.retain(|entry| entry.index.0 < from);
        from
    }

    fn rebase(&mut self, id: LogId) {
        let holds = self.entries.iter().any(|entry| entry.id() == id);
        self.entries.retain(|entry| holds && entry.index > id.index);
        self.base = id;
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

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_matches_a_vector_whatever_is_done_to_it(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let dir = Dir::formatted(SEGMENT);
        let mut store = dir.open(SEGMENT).0;
        let mut model = Model::default();
        let mut hard_state = HardState::default();
        let mut term = 1;
        for step in steps {
            match step {
                Step::Append { entries, bytes } => {
                    submit(&mut store, vec![append(model.append(term, entries, bytes))]).unwrap();
                }
                Step::Rewrite { back, entries, bytes } => {
                    term += 1;
                    let from = model.cut(back);
                    let new = model.append(term, entries, bytes);
                    submit(&mut store, vec![rewrite(from, new)]).unwrap();
                }
                Step::Both { back, entries } => {
                    let first = model.append(term, 3, 40);
                    term += 1;
                    let from = model.cut(back);
                    let second = model.append(term, entries, 5000);
                    submit(&mut store, vec![append(first), rewrite(from, second)]).unwrap();
                }
                Step::Compact { back, entries } => {
                    // Also of what the same write appends and drops.
                    let first = model.append(term, entries, 900);
                    let from = model.cut(back / 4);
                    let at = model.entries.len().checked_sub(1 + back as usize);
                    let base = at.map(|at| model.entries[at].id());
                    if let Some(id) = base {
                        model.rebase(id);
                    }
                    let base = base.and_then(|id| moved(id.term.0, id.index.0));
                    let second = model.append(term, entries / 2, 40);
                    let op = WriteOp { base, ..rewrite(from, second) };
                    submit(&mut store, vec![append(first), op]).unwrap();
                }
                Step::Install { back, ahead, entries } => {
                    term += 1;
                    let to = (model.last() + 1 + ahead).saturating_sub(back);
                    let id = LogId::new(Term(term), Index(to.max(model.base.index.0 + 1)));
                    model.rebase(id);
                    let new = model.append(term, entries, 40);
                    let op = WriteOp { base: moved(term, id.index.0), ..append(new) };
                    submit(&mut store, vec![op]).unwrap();
                }
                Step::Vote { whom } => {
                    term += 1;
                    hard_state = HardState { term: Term(term), vote: NodeId::new(whom) };
                    submit(&mut store, vec![vote(term, whom)]).unwrap();
                }
                Step::Idle => store.idle().unwrap(),
                Step::Space => drop(store.space()),
                Step::Reopen { clean } => {
                    if clean {
                        let _ = store.close();
                    }
                    drop(store);
                    let (reopened, recovered) = dir.open(SEGMENT);
                    store = reopened;
                    prop_assert_eq!(recovered.hard_state, hard_state);
                    prop_assert_eq!(recovered.base.id, model.base);
                    prop_assert_eq!(recovered.last.index.0, model.last());
                    prop_assert_eq!(&recovered.runs, &model.runs());
                    prop_assert_eq!(recovered.damage, None);
                    prop_assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
                    prop_assert_eq!(&all(&store, &recovered), &model.entries);
                }
                Step::Read { from, bytes_max } => {
                    let first = model.base.index.0 + from + 1;
                    let last = model.last();
                    let read = |first| {
                        store.reader().read(GroupId::FIRST, Index(first), Index(last), bytes_max)
                    };
                    prop_assert!(read(model.base.index.0).is_err());
                    if first <= last {
                        let read = read(first).unwrap();
                        prop_assert!(!read.is_empty());
                        prop_assert_eq!(&read[..], &model.entries[from as usize..][..read.len()]);
                    }
                }
            }
        }
    }
}
