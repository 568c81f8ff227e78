//! What a store has been given and has not completed yet: the one place where it is decided what a completion means,
//! whenever, from wherever and however often it comes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use raftz_core::storage::{Completion, StorageError};
use raftz_core::types::{Entry, GroupId, Index};

use super::kept::{Change, encode_entry};
use super::{NAME, raftz_log_entry, raftz_log_write};
use crate::bytes::raftz_slice;
use crate::fork::ForkMark;
use crate::guard::{Call, invalid};
use crate::status::{RAFTZ_OK, raftz_status, shown};

/// \brief Takes the completions of one open store, with raftz_storage_complete().
///
/// It is there from the call of the store's `open` until its `destroy` has returned; if `open` fails, until that
/// returns.
pub struct raftz_completions {
    pub(crate) mark: ForkMark,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many submissions there were.
    issued: u64,
    /// Those that the store has not completed, or that wait for an earlier one.
    open: BTreeMap<u64, Submission>,
    /// The first failure: nothing behind it may succeed.
    failed: Option<String>,
}

/// A submission that the store has, or had.
struct Submission {
    /// `None` once its fate was told.
    done: Option<Completion>,
    /// What C reads of it; `None` once the store has completed it.
    writes: Option<Writes>,
}

/// Writes as C sees them. They stay where they are until the store is done with them.
pub(crate) struct Writes {
    writes: Vec<raftz_log_write>,
    /// What the pointers in `writes` and below point to.
    _entries: Vec<Vec<raftz_log_entry>>,
    _bytes: Vec<Vec<u8>>,
}

// SAFETY: the pointers point into the vectors beside them, which nobody changes.
unsafe impl Send for Writes {}

impl Writes {
    /// Of what changes in each group, and its record afterwards.
    pub(crate) fn of(changes: Vec<(GroupId, Vec<u8>, Change)>) -> Self {
        let (mut writes, mut kept_entries, mut kept_bytes) = (Vec::new(), Vec::new(), Vec::new());
        for (group, record, change) in changes {
            let (bytes, entries) = laid_out(&change.entries, group);
            let number = |index: Option<Index>| index.map_or(0, |index| index.0);
            writes.push(raftz_log_write {
                group: group.0,
                reserved: 0,
                record: raftz_slice::of(&record),
                remove_from: number(change.remove_from),
                remove_upto: number(change.remove_upto),
                entries: entries.as_ptr(),
                entry_count: entries.len(),
            });
            kept_entries.push(entries);
            kept_bytes.extend([record, bytes]);
        }
        Self { writes, _entries: kept_entries, _bytes: kept_bytes }
    }

    /// The first of them; it stays as long as this does.
    pub(crate) fn first(&self) -> *const raftz_log_write {
        self.writes.as_ptr()
    }
}

/// Entries one behind the other, and where each lies.
fn laid_out(entries: &[Entry], group: GroupId) -> (Vec<u8>, Vec<raftz_log_entry>) {
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(entries.len());
    for entry in entries {
        encode_entry(entry, group, &mut bytes);
        ends.push(bytes.len());
    }
    let mut from = 0;
    let place = |(entry, end): (&Entry, usize)| {
        let slice = raftz_slice::of(&bytes[from..end]);
        from = end;
        raftz_log_entry { index: entry.index.0, term: entry.term.0, bytes: slice }
    };
    let placed = entries.iter().zip(ends).map(place).collect();
    (bytes, placed)
}

impl raftz_completions {
    pub(crate) fn new() -> Call<Arc<Self>> {
        Ok(Arc::new(Self { mark: ForkMark::new()?, state: Mutex::default() }))
    }

    /// The failure behind which nothing succeeds any more.
    pub(crate) fn failed(&self) -> Option<String> {
        self.state.lock().failed.clone()
    }

    /// Marks the store as failed, beside any submission.
    pub(crate) fn fail(&self, words: &str) {
        self.state.lock().failed.get_or_insert_with(|| words.to_owned());
    }

    /// Registers a submission: its number, and what the store is to be given. The writes stay there at least until
    /// the store completes it.
    pub(crate) fn submit(
        &self,
        writes: Writes,
        done: Completion,
    ) -> (u64, *const raftz_log_write, usize) {
        let mut state = self.state.lock();
        state.issued += 1;
        let number = state.issued;
        let (place, count) = (writes.writes.as_ptr(), writes.writes.len());
        let submission = Submission { done: Some(done), writes: Some(writes) };
        state.open.insert(number, submission);
        (number, place, count)
    }

    /// The store's word on a submission. What is told further is told in order: a success when all before it have
    /// succeeded, a failure at once and for all behind it as well.
    pub(crate) fn complete(&self, number: u64, status: raftz_status, words: &str) -> Call {
        // Nobody's code runs under the lock: telling a fate only leaves a note.
        let mut state = self.state.lock();
        let issued = state.issued;
        let submission = state.open.get_mut(&number).filter(|it| it.writes.is_some());
        let Some(submission) = submission else {
            return Err(invalid(if number == 0 || number > issued {
                format!("number is {number}; {issued} submissions were made of this store")
            } else {
                format!("submission {number} was completed already")
            }));
        };
        submission.writes = None;
        if status != RAFTZ_OK {
            let words = (!words.is_empty()).then(|| words.to_owned());
            let reason = shown(status, words);
            let first = state.failed.get_or_insert_with(|| reason.clone()).clone();
            for (behind, submission) in state.open.range_mut(number..) {
                if let Some(done) = submission.done.take() {
                    let is_it = *behind == number;
                    done.complete(Err(if is_it { failed(&reason) } else { poisoned(&first) }));
                }
            }
        }
        while let Some(first) = state.open.first_entry().filter(|it| it.get().writes.is_none()) {
            if let Some(done) = first.remove().done {
                done.complete(Ok(()));
            }
        }
        // What failed and came back late is of no more use.
        state.open.retain(|_, it| it.done.is_some() || it.writes.is_some());
        Ok(())
    }
}

fn failed(reason: &str) -> StorageError {
    StorageError::Io {
        path: NAME.into(),
        doing: "a write".into(),
        source: Arc::new(io::Error::other(reason.to_owned())),
    }
}

pub(crate) fn poisoned(first: &str) -> StorageError {
    StorageError::Poisoned { path: NAME.into(), first: first.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::{RAFTZ_CALLBACK_FAILED, RAFTZ_INVALID_ARG};

    type Told = Arc<Mutex<Vec<(u64, Result<(), String>)>>>;

    fn rig(count: u64) -> (Arc<raftz_completions>, Told) {
        let (it, told) = (raftz_completions::new().unwrap(), Told::default());
        for wanted in 1..=count {
            let told = Arc::clone(&told);
            let done = move |fate: Result<(), StorageError>| {
                told.lock().push((wanted, fate.map_err(|error| error.to_string())));
            };
            let (number, _, writes) = it.submit(Writes::of(Vec::new()), Completion::new(done));
            assert_eq!((number, writes), (wanted, 0));
        }
        (it, told)
    }

    fn refused(call: Call) -> String {
        let failure = call.unwrap_err();
        assert_eq!(failure.status, RAFTZ_INVALID_ARG);
        failure.message
    }

    #[test]
    fn successes_are_told_in_order_however_they_come() {
        let (it, told) = rig(3);
        it.complete(3, RAFTZ_OK, "").unwrap();
        it.complete(2, RAFTZ_OK, "").unwrap();
        assert!(told.lock().is_empty(), "the first is still open");
        it.complete(1, RAFTZ_OK, "").unwrap();
        assert_eq!(*told.lock(), [(1, Ok(())), (2, Ok(())), (3, Ok(()))]);
    }

    #[test]
    fn a_second_completion_and_one_of_nothing_are_refused_and_change_nothing() {
        let (it, told) = rig(2);
        it.complete(1, RAFTZ_OK, "").unwrap();
        it.complete(2, RAFTZ_OK, "").unwrap();
        for number in [1, 2] {
            let words = refused(it.complete(number, RAFTZ_CALLBACK_FAILED, "late"));
            assert!(words.contains("already"), "{words}");
        }
        for number in [0, 3, u64::MAX] {
            let words = refused(it.complete(number, RAFTZ_OK, ""));
            assert!(words.contains("2 submissions"), "{words}");
        }
        assert_eq!(told.lock().len(), 2);
        assert_eq!(it.failed(), None);
    }

    #[test]
    fn a_failure_is_told_at_once_and_takes_all_behind_it_along() {
        let (it, told) = rig(4);
        it.complete(3, RAFTZ_OK, "").unwrap();
        it.complete(2, RAFTZ_CALLBACK_FAILED, "the disk is gone").unwrap();
        let words: Vec<_> = told.lock().clone();
        let number = |at: usize| words[at].0;
        assert_eq!((words.len(), number(0), number(1), number(2)), (3, 2, 3, 4));
        assert!(words.iter().all(|(_, fate)| fate.as_ref().unwrap_err().contains("disk is gone")));
        assert!(it.failed().unwrap().contains("RAFTZ_CALLBACK_FAILED"));
        // What was before it may still succeed, and what comes back late is taken.
        it.complete(1, RAFTZ_OK, "").unwrap();
        it.complete(4, RAFTZ_OK, "").unwrap();
        assert_eq!(told.lock().last(), Some(&(1, Ok(()))));
        assert_eq!(told.lock().len(), 4);
        assert!(refused(it.complete(4, RAFTZ_OK, "")).contains("already"));
        assert!(it.state.lock().open.is_empty());
    }
}
