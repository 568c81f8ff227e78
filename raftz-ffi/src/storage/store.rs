//! A store of C's behind the trait: how it is opened, written and read, and what is checked on the way.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use raftz_core::node::{self, Config};
use raftz_core::storage::{Completion, LogReader, Space, Storage, StorageError, WriteBatch};
use raftz_core::types::{
    Base, Boot, DiskId, Entry, EntryKind, GroupId, Identity, Index, Recovered,
};

use super::completions::{Writes, poisoned, raftz_completions};
use super::kept::{Change, Kept, Log};
use super::{NAME, RAFTZ_STORAGE_NEVER_BLOCKS, Table, raftz_entries, raftz_storage};
use crate::bytes;
use crate::machine::raftz_sink;
use crate::status::{RAFTZ_OK, raftz_status, shown};

/// How long a store may take for the first write of a life, for which a start waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How much of the log is in memory at once when it is looked through at open.
const LOOK_BYTES: u64 = 1 << 20;

/// What a store is formatted with.
pub(crate) struct Founding {
    pub(crate) identity: Identity,
    pub(crate) base: Base,
}

impl Founding {
    /// A new disk of a configured founder.
    pub(crate) fn of(config: &Config) -> Result<Self, StorageError> {
        let base = config.founding_base();
        let founders_hash = base.founders_hash();
        let (cluster, node, disk) = (config.cluster_id, config.node_id, DiskId(random()?));
        Ok(Self { identity: Identity { cluster, epoch: 0, node, disk, founders_hash }, base })
    }
}

pub(crate) fn random() -> Result<u128, StorageError> {
    bytes::random().map_err(|error| failed("drawing its id", &error.to_string()))
}

fn failed(doing: &str, words: &str) -> StorageError {
    let source = Arc::new(io::Error::other(words.to_owned()));
    StorageError::Io { path: NAME.into(), doing: doing.into(), source }
}

fn reading(first: Index) -> String {
    format!("reading entries from {first}")
}

/// A store of C's, ended with the last that holds it.
struct Store {
    table: raftz_storage,
    store: *mut c_void,
    completions: Arc<raftz_completions>,
    /// Only one read at a time, so that a store needs no lock for its readers.
    reading: Mutex<()>,
    logs: Mutex<BTreeMap<GroupId, Log>>,
}

// SAFETY: the contract of raftz_storage: its functions are called from any thread, those that may run at once
// are named there.
unsafe impl Send for Store {}
// SAFETY: as above; what is changed is behind locks.
unsafe impl Sync for Store {}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: the user's function, called once, and nothing after it.
            node::run_callback("the storage's destroy", || unsafe { destroy(self.store) });
        }
    }
}

/// A callback that has words for its failure.
fn with_words(
    name: &'static str,
    call: impl FnOnce(*mut raftz_sink) -> raftz_status,
) -> Result<Vec<u8>, StorageError> {
    raftz_sink::of(name, call).map_err(|words| failed(name, &words))
}

impl Store {
    fn open(table: raftz_storage) -> Result<Self, StorageError> {
        let open = table.open.ok_or_else(|| failed("open", "there is none"))?;
        let completions =
            raftz_completions::new().map_err(|failure| failed("open", &failure.message))?;
        let mut store = std::ptr::null_mut();
        with_words("the storage's open", |why| {
            let theirs = Arc::as_ptr(&completions).cast_mut();
            // SAFETY: the user's function, with the user's data, places for words and for the store, and
            // completions that outlive it.
            unsafe { open(table.user_data, theirs, why, &raw mut store) }
        })?;
        let (reading, logs) = (Mutex::default(), Mutex::default());
        Ok(Self { table, store, completions, reading, logs })
    }

    /// What it keeps of a group; nothing if it is new.
    fn load(&self, group: GroupId) -> Result<Vec<u8>, StorageError> {
        let load = self.table.load.ok_or_else(|| failed("load", "there is none"))?;
        with_words("the storage's load", |record| {
            // SAFETY: the user's function, with its store and a sink that lives meanwhile.
            unsafe { load(self.store, group.0, record) }
        })
    }

    /// What it has of these entries; and what is wrong with the next one, if that is missing or garbage.
    fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<(Vec<Entry>, Option<String>), StorageError> {
        let read = self.table.read.ok_or_else(|| failed("read", "there is none"))?;
        let mut entries = raftz_entries::new(group, first, last, bytes_max);
        let one_at_a_time = self.reading.lock();
        let status = node::run_callback("the storage's read", || {
            let (first, last) = (first.0, last.0);
            // SAFETY: the user's function, with its store and a place for entries that lives meanwhile.
            unsafe { read(self.store, group.0, first, last, &raw mut entries) }
        });
        drop(one_at_a_time);
        let raftz_entries { got, damage, failure, .. } = entries;
        if damage.is_none() && status != RAFTZ_OK {
            return Err(failed(&reading(first), &shown(status, failure)));
        }
        let nothing =
            || got.is_empty().then(|| format!("the storage gave nothing for entry {first}"));
        let damage = damage.or_else(nothing);
        Ok((got, damage))
    }

    /// Hands a submission to the store; `done` is told its fate.
    fn submit(&self, changes: Vec<(GroupId, Vec<u8>, Change)>, done: Completion) {
        let (number, writes, count) = self.completions.submit(Writes::of(changes), done);
        if let Some(submit) = self.table.submit {
            node::run_callback("the storage's submit", || {
                // SAFETY: the user's function, with its store and writes that stay until they are completed.
                unsafe { submit(self.store, writes, count, number) }
            });
        }
    }

    /// Writes a record and waits until it is durable.
    fn write_record(
        &self,
        group: GroupId,
        kept: &Kept,
        patience: Duration,
    ) -> Result<(), StorageError> {
        let doing = "its first write";
        let record = kept.encode().map_err(|words| failed(doing, &words))?;
        let (sender, fate) = sync_channel(1);
        let done = Completion::new(move |fate| drop(sender.send(fate)));
        self.submit(vec![(group, record, Change::default())], done);
        match fate.recv_timeout(patience) {
            Ok(fate) => fate,
            Err(RecvTimeoutError::Timeout) => {
                Err(failed(doing, &format!("it was not completed within {patience:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(failed(doing, "it was dropped")),
        }
    }

    /// What a submission comes to, if nothing contradicts the log.
    fn changes(&self, batch: WriteBatch) -> Result<Vec<(GroupId, Vec<u8>, Change)>, String> {
        let mut logs = self.logs.lock();
        let mut changes: BTreeMap<GroupId, Change> = BTreeMap::new();
        for (group, op) in batch {
            let no_group = || format!("there is no group {}", group.0);
            let log = logs.get_mut(&group).ok_or_else(no_group)?;
            log.write(op, changes.entry(group).or_default())?;
        }
        let whole = |(group, change)| {
            let record =
                logs.get(&group).map_or_else(|| Ok(Vec::new()), |log| log.kept.encode())?;
            Ok((group, record, change))
        };
        changes.into_iter().map(whole).collect()
    }

    fn close(&self) -> Result<(), StorageError> {
        let Some(close) = self.table.close else { return Ok(()) };
        // SAFETY: the user's function, with its store and a place for words.
        with_words("the storage's close", |why| unsafe { close(self.store, why) }).map(drop)
    }
}

/// Looks through the whole log behind its base: how far it is there, and what a node must know of it. `read` gives
/// entries from one index on, and what is wrong with the next, if that is missing or garbage.
pub(crate) fn look_through(
    kept: Kept,
    mut read: impl FnMut(Index, Index) -> Result<(Vec<Entry>, Option<String>), StorageError>,
) -> Result<(Log, Recovered), StorageError> {
    let (wanted, lost_before) = (kept.last, kept.lost);
    let mut log = Log { kept, runs: Vec::new() };
    log.kept.last = log.kept.base.id;
    let mut config_entries = Vec::new();
    let mut last_log_time_us = log.kept.base.log_time_us;
    let mut damage = None;
    while damage.is_none() && log.kept.last.index < wanted.index {
        let next = log.kept.last.index.next();
        let (entries, problem) = read(next, wanted.index)?;
        damage = problem;
        for entry in entries {
            let (id, before) = (entry.id(), log.kept.last);
            if id.term < before.term {
                damage = Some(format!("{id} follows {before}, and terms never fall"));
                break;
            }
            log.follow(&entry);
            last_log_time_us = entry.log_time_us;
            if !matches!(entry.kind, EntryKind::Noop | EntryKind::Command) {
                config_entries.push(entry);
            }
        }
    }
    let last = log.kept.last;
    if damage.is_none() && last != wanted {
        damage = Some(format!("the last entry is {last}, not {wanted}"));
    }
    log.kept.lost = match &damage {
        Some(words) if log.kept.base.membership.members.len() == 1 => {
            let words = format!("{words}; there is no other node to have it from");
            return Err(failed("looking through the log", &words));
        }
        Some(_) => lost_before.max(Some(wanted)),
        None => lost_before,
    };
    log.kept.commit = log.kept.commit.min(last.index).max(log.kept.base.id.index);
    let note = |words| format!("{NAME}: {words}; the log is whole up to {last} of {wanted}");
    let recovered = Recovered {
        identity: log.kept.identity,
        boot: log.kept.boot,
        hard_state: log.kept.hard_state,
        base: log.kept.base.clone(),
        last,
        runs: log.runs.clone(),
        config_entries,
        last_log_time_us,
        commit: log.kept.commit,
        damage: log.kept.damage(),
        notes: damage.map(note).into_iter().collect(),
    };
    Ok((log, recovered))
}

/// Whether a store holds a node's data.
pub(crate) fn is_formatted(table: &Table) -> Result<bool, StorageError> {
    let store = Store::open(table.0)?;
    let record = store.load(GroupId::FIRST)?;
    store.close()?;
    Ok(!record.is_empty())
}

fn format(store: &Store, founding: Founding, patience: Duration) -> Result<(), StorageError> {
    if !store.load(GroupId::FIRST)?.is_empty() {
        return Err(StorageError::NotEmpty { path: NAME.into(), found: "a record".into() });
    }
    let kept = Kept::founding(founding.identity, founding.base);
    store.write_record(GroupId::FIRST, &kept, patience)
}

/// Formats a store that is empty.
pub(crate) fn bootstrap(table: &Table, config: &Config) -> Result<(), StorageError> {
    let founding = Founding::of(config)?;
    let store = Store::open(table.0)?;
    format(&store, founding, PATIENCE)?;
    store.close()
}

/// Opens a store for a new life; one that is to be founded is empty, every other is not.
pub(crate) fn open(
    table: &Table,
    founding: Option<Founding>,
    patience: Duration,
) -> Result<(Box<dyn Storage>, Recovered), StorageError> {
    let (store, group) = (Store::open(table.0)?, GroupId::FIRST);
    if let Some(founding) = founding {
        format(&store, founding, patience)?;
    }
    let record = store.load(group)?;
    if record.is_empty() {
        return Err(StorageError::NotFormatted { path: NAME.into() });
    }
    let mut kept = Kept::decode(&record).map_err(|words| failed("the storage's load", &words))?;
    kept.boot = Boot(kept.boot.0.saturating_add(1));
    let read = |first, last| store.read(group, first, last, LOOK_BYTES);
    let (log, recovered) = look_through(kept, read)?;
    store.write_record(group, &log.kept, patience)?;
    store.logs.lock().insert(group, log);
    Ok((Box::new(Lane { store: Arc::new(store) }), recovered))
}

/// The side that writes.
struct Lane {
    store: Arc<Store>,
}

impl Storage for Lane {
    fn submit(&mut self, batch: WriteBatch, done: Completion) {
        let completions = &self.store.completions;
        if let Some(first) = completions.failed() {
            return done.complete(Err(poisoned(&first)));
        }
        match self.store.changes(batch) {
            Ok(changes) => self.store.submit(changes, done),
            Err(detail) => {
                completions.fail(&detail);
                done.complete(Err(StorageError::Invalid { path: NAME.into(), detail }));
            }
        }
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(Reader { store: Arc::clone(&self.store) })
    }

    fn never_blocks(&self) -> bool {
        self.store.table.flags & RAFTZ_STORAGE_NEVER_BLOCKS != 0
    }

    fn idle(&mut self) -> Result<(), StorageError> {
        let Some(idle) = self.store.table.idle else { return Ok(()) };
        // SAFETY: the user's function, with its store and a place for words.
        let done = with_words("the storage's idle", |why| unsafe { idle(self.store.store, why) });
        done.map(drop).inspect_err(|error| self.store.completions.fail(&error.to_string()))
    }

    fn space(&mut self) -> Space {
        let Some(is_low) = self.store.table.is_low_on_space else { return Space::Ample };
        // SAFETY: the user's function, with its store.
        let is_low = node::run_callback("the storage's is_low_on_space", || unsafe {
            is_low(self.store.store)
        });
        if is_low == 0 { Space::Ample } else { Space::Low }
    }

    fn log_bytes(&mut self) -> Option<u64> {
        let log_bytes = self.store.table.log_bytes?;
        // SAFETY: the user's function, with its store.
        Some(node::run_callback("the storage's log_bytes", || unsafe {
            log_bytes(self.store.store)
        }))
    }

    fn close(&mut self) -> Result<(), StorageError> {
        self.store.close()
    }
}

/// The side that reads.
struct Reader {
    store: Arc<Store>,
}

impl LogReader for Reader {
    fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let end = match self.store.logs.lock().get(&group) {
            Some(log) if log.term_of(first).is_some() && first <= last => log.kept.last.index,
            Some(_) | None => {
                let detail = "outside the log".into();
                return Err(StorageError::Missing { index: first, detail });
            }
        };
        let (entries, damage) = self.store.read(group, first, last.min(end), bytes_max)?;
        if let Some(words) = damage {
            return Err(failed(&reading(first), &words));
        }
        let logs = self.store.logs.lock();
        let written = |index| logs.get(&group).and_then(|log| log.term_of(index));
        let other = entries.iter().find(|entry| written(entry.index) != Some(entry.term));
        match other {
            Some(entry) => {
                let (id, doing) = (entry.id(), format!("reading entries from {first}"));
                Err(failed(
                    &doing,
                    &format!("the storage gave {id}, which is not what was written"),
                ))
            }
            None => Ok(entries),
        }
    }
}
