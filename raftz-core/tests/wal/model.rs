//! The log against a plain vector, under random appends, truncations, votes and reopens.

use proptest::prelude::*;
use raftz_core::storage::Storage;
use raftz_core::types::{Entry, GroupId, HardState, Index, NodeId, Term, TermRun};

use crate::support::*;

const SEGMENT: u64 = 1 << 15;

#[derive(Clone, Debug)]
enum Step {
    Append { entries: u64, bytes: usize },
    Rewrite { back: u64, entries: u64, bytes: usize },
    Both { back: u64, entries: u64 },
    Vote { whom: u64 },
    Idle,
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
        2 => (1..4u64).prop_map(|whom| Step::Vote { whom }),
        1 => Just(Step::Idle),
        3 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
        3 => (0..20u64, 0..20_000u64)
            .prop_map(|(from, bytes_max)| Step::Read { from, bytes_max }),
    ]
}

fn new_entries(model: &[Entry], term: u64, count: u64, bytes: usize) -> Vec<Entry> {
    let next = model.len() as u64 + 1;
    (next..next + count).map(|index| entry(term, index, bytes)).collect()
}

fn runs(model: &[Entry]) -> Vec<TermRun> {
    let mut runs: Vec<TermRun> = Vec::new();
    for entry in model {
        if runs.last().is_none_or(|run| run.term != entry.term) {
            runs.push(TermRun { first: entry.index, term: entry.term });
        }
    }
    runs
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
        let mut model: Vec<Entry> = Vec::new();
        let mut hard_state = HardState::default();
        let mut term = 1;
        for step in steps {
            match step {
                Step::Append { entries, bytes } => {
                    let new = new_entries(&model, term, entries, bytes);
                    model.extend(new.iter().cloned());
                    submit(&mut store, vec![append(new)]).unwrap();
                }
                Step::Rewrite { back, entries, bytes } => {
                    term += 1;
                    let from = (model.len() as u64 + 1).saturating_sub(back).max(1);
                    model.truncate(from as usize - 1);
                    let new = new_entries(&model, term, entries, bytes);
                    model.extend(new.iter().cloned());
                    submit(&mut store, vec![rewrite(from, new)]).unwrap();
                }
                Step::Both { back, entries } => {
                    let first = new_entries(&model, term, 3, 40);
                    model.extend(first.iter().cloned());
                    term += 1;
                    let from = (model.len() as u64 + 1).saturating_sub(back).max(1);
                    model.truncate(from as usize - 1);
                    let second = new_entries(&model, term, entries, 5000);
                    model.extend(second.iter().cloned());
                    submit(&mut store, vec![append(first), rewrite(from, second)]).unwrap();
                }
                Step::Vote { whom } => {
                    term += 1;
                    hard_state = HardState { term: Term(term), vote: NodeId::new(whom) };
                    submit(&mut store, vec![vote(term, whom)]).unwrap();
                }
                Step::Idle => store.idle().unwrap(),
                Step::Reopen { clean } => {
                    if clean {
                        let _ = store.close();
                    }
                    drop(store);
                    let (reopened, recovered) = dir.open(SEGMENT);
                    store = reopened;
                    prop_assert_eq!(recovered.hard_state, hard_state);
                    prop_assert_eq!(recovered.last.index.0, model.len() as u64);
                    prop_assert_eq!(&recovered.runs, &runs(&model));
                    prop_assert_eq!(recovered.damage, None);
                    prop_assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
                    prop_assert_eq!(&all(&store, &recovered), &model);
                }
                Step::Read { from, bytes_max } => {
                    let first = from + 1;
                    let last = model.len() as u64;
                    if first <= last {
                        let read = store
                            .reader()
                            .read(GroupId::FIRST, Index(first), Index(last), bytes_max)
                            .unwrap();
                        prop_assert!(!read.is_empty());
                        prop_assert_eq!(&read[..], &model[from as usize..][..read.len()]);
                    }
                }
            }
        }
    }
}
