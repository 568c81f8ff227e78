//! Stores written in C: a program's own place for the log, in place of the write-ahead log.
//!
//! A store of C's knows nothing of Raft. It keeps, for each group, one record and a run of numbered entries, all of
//! them bytes (`kept`); when it says that they are durable is the business of `completions`; `store` puts it behind
//! the trait of the core, and checks what it gives back.

pub(crate) mod completions;
pub(crate) mod kept;
pub(crate) mod store;

use std::ffi::c_void;
use std::time::Duration;

use raftz_core::node::{self, Config};
use raftz_core::storage::conformance::{self, Subject};
use raftz_core::storage::{Storage, StorageError};
use raftz_core::types::{ClusterId, Entry, GroupId, Index, NodeId, Recovered};

pub use completions::raftz_completions;
use store::Founding;

use crate::bytes::raftz_slice;
use crate::error::{Failure, raftz_error};
use crate::guard::{self, Call, Out, borrow, borrow_mut, call, invalid, null};
use crate::machine::raftz_sink;
use crate::sized::{self, Sized};
use crate::status::{RAFTZ_IN_CALLBACK, RAFTZ_STORAGE, raftz_status};

/// What messages name where those of a directory name its path.
pub(crate) const NAME: &str = "the program's storage";

/// \brief One entry of the log, for a store to keep. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_log_entry {
    /// \brief Its number. Within a group every number is there once, without gaps.
    pub index: u64,
    /// \brief The term in which it was appended; for information, it is in `bytes` as well.
    pub term: u64,
    /// \brief All of it, with checksums: to be given back exactly like this.
    pub bytes: raftz_slice,
}

/// \brief What a submission changes of one group. The layout of this struct is frozen.
///
/// It takes effect whole or not at all, whatever happens meanwhile: first the removals, then `entries`, together with
/// `record`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_log_write {
    /// \brief The group.
    pub group: u32,
    /// \brief 0.
    pub reserved: u32,
    /// \brief Replaces the group's record: to be given back exactly like this.
    pub record: raftz_slice,
    /// \brief Entries at and above this index are removed; 0 for none.
    pub remove_from: u64,
    /// \brief Entries at and below this index are removed; 0 for none.
    pub remove_upto: u64,
    /// \brief Entries to be added, in order; none of these indexes is there after the removals.
    pub entries: *const raftz_log_entry,
    /// \brief How many.
    pub entry_count: usize,
}

/// \brief Takes the entries that a store reads.
pub struct raftz_entries {
    group: GroupId,
    next: Index,
    last: Index,
    bytes_left: u64,
    got: Vec<Entry>,
    is_full: bool,
    /// What was given in place of the next entry.
    damage: Option<String>,
    /// The store's own words.
    failure: Option<String>,
}

/// \brief In a storage's flags: none of its functions ever blocks or takes long, and `submit` completes before it
/// returns. They may then run on the node's event loop, which saves the way to another thread.
pub const RAFTZ_STORAGE_NEVER_BLOCKS: u32 = 1;

/// \brief A store of the program's own for what a node must not lose: its log, its term and its vote.
///
/// A store keeps, for each group, one record and a run of numbered entries. Both are bytes that it does not look into;
/// what is given back changed, cut short or mixed up is found out by checksums, and never used. Put a store through
/// raftz_storage_conformance() before any node uses it.
///
/// Set `size` to `sizeof(raftz_storage)` and `abi_version` to RAFTZ_ABI_VERSION; what is not needed is NULL. The struct
/// is copied by raftz_config_set_storage(); `user_data` must be there as long as the configuration and the nodes that
/// were started with it.
///
/// `open`, `load` and `destroy` are called alone. Of an open store `submit`, `idle`, `is_low_on_space`, `log_bytes` and
/// `close` are called from one thread at a time, never at once. `read` is called from one thread at a time as well, but
/// beside all of these. Functions must return: no longjmp, no C++ exception, no end of the thread. Blocking calls of
/// raftz are refused in them.
///
/// The whole log is read once when a node starts. If entries are missing then, or garbage, the node starts without them
/// and does not stand for election until the leader has given them to it anew. If the record is, or if the node is alone
/// in its cluster, it does not start. One record is written; if that is not completed within 30 seconds the start fails.
///
/// Snapshots are files all the same: in the directory that the key `snapshot_directory` names. Without it a node with
/// such a store takes none, its log is never shortened, and nobody can bring it back by one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_storage {
    /// \brief `sizeof(raftz_storage)`.
    pub size: usize,
    /// \brief RAFTZ_ABI_VERSION.
    pub abi_version: u32,
    /// \brief RAFTZ_STORAGE_…, or 0.
    pub flags: u32,
    /// \brief Given to `open`.
    pub user_data: *mut c_void,
    /// \brief Opens the store, with all that was completed in earlier lives; one that is new is empty. Required.
    ///
    /// `completions` is what raftz_storage_complete() is called with. A status other than RAFTZ_OK, with words by
    /// raftz_sink_fail() on `why`, makes raftz_node_start() fail; `destroy` is not called then. It should refuse while
    /// the store is open, in this process or another.
    pub open: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            completions: *mut raftz_completions,
            why: *mut raftz_sink,
            store: *mut *mut c_void,
        ) -> raftz_status,
    >,
    /// \brief Ends a store. Called exactly once for every `open` that succeeded, after the last call of any other
    /// function; submissions that were not completed then have failed. Threads of the store must have ended when it
    /// returns. Optional.
    pub destroy: Option<unsafe extern "C" fn(store: *mut c_void)>,
    /// \brief Writes the group's record, as it was last given, with raftz_sink_write(); nothing if there is none. A
    /// status other than RAFTZ_OK, with words by raftz_sink_fail(), makes the start fail. Required.
    pub load: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            group: u32,
            record: *mut raftz_sink,
        ) -> raftz_status,
    >,
    /// \brief Makes writes durable, each of another group, and says so with raftz_storage_complete() and `number`:
    /// before it returns or later, from any thread, once for every call. Required.
    ///
    /// Writes take effect in the order of the calls: what is there after a power cut never has a later one without an
    /// earlier one. `writes`, and all that it points to, stay until they are completed, or `destroy` returns.
    ///
    /// A store that only lacks room may keep writes, and all behind them, until there is some, while `is_low_on_space`
    /// says so.
    pub submit: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            writes: *const raftz_log_write,
            count: usize,
            number: u64,
        ),
    >,
    /// \brief Gives the entries from `first` to `last`, in order, with raftz_entries_push(), until that wants no more.
    /// It may end early where an entry is missing. Required.
    ///
    /// Entries that are asked for were completed, and are not removed meanwhile unless what is read is of no more use. A
    /// status other than RAFTZ_OK, with words by raftz_entries_fail(), is a failed read: the node tells of it, tries
    /// elsewhere if it can, and stops with a fault if it needs the entries itself.
    pub read: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            group: u32,
            first: u64,
            last: u64,
            entries: *mut raftz_entries,
        ) -> raftz_status,
    >,
    /// \brief Called once whenever nothing was submitted for 50 milliseconds. A status other than RAFTZ_OK, with words by
    /// raftz_sink_fail(), means that nothing can be written any more. Optional.
    pub idle:
        Option<unsafe extern "C" fn(store: *mut c_void, why: *mut raftz_sink) -> raftz_status>,
    /// \brief Whether room is running out: not 0 if it is. Commands are refused then, votes go on. It is asked after
    /// every submission and now and then, and must be quick. Optional: there is always room.
    pub is_low_on_space: Option<unsafe extern "C" fn(store: *mut c_void) -> u32>,
    /// \brief How many bytes the log takes, for metrics. As often as `is_low_on_space`, and as quick. Optional.
    pub log_bytes: Option<unsafe extern "C" fn(store: *mut c_void) -> u64>,
    /// \brief Called once at a clean stop, before `destroy`, when nothing is submitted any more. A status other than
    /// RAFTZ_OK, with words by raftz_sink_fail(), is logged. Optional.
    pub close:
        Option<unsafe extern "C" fn(store: *mut c_void, why: *mut raftz_sink) -> raftz_status>,
}

// SAFETY: integers, a pointer and optional functions.
unsafe impl Sized for raftz_storage {
    const NAME: &'static str = "raftz_storage";
}

/// A table that was found good.
#[derive(Clone, Copy)]
pub(crate) struct Table(raftz_storage);

// SAFETY: the contract of raftz_storage: `open` may be called from any thread.
unsafe impl Send for Table {}
// SAFETY: as above; the table is never changed.
unsafe impl Sync for Table {}

impl Table {
    /// Checks a table.
    ///
    /// # Safety
    /// As [`sized::read`].
    pub(crate) unsafe fn read(pointer: *const raftz_storage) -> Call<Self> {
        // SAFETY: the caller's contract.
        let table = unsafe { sized::read(pointer) }?.ok_or_else(|| null("storage"))?;
        sized::known::<raftz_storage>(table.abi_version, table.flags, RAFTZ_STORAGE_NEVER_BLOCKS)?;
        sized::required::<raftz_storage>(&[
            ("open", table.open.is_some()),
            ("load", table.load.is_some()),
            ("submit", table.submit.is_some()),
            ("read", table.read.is_some()),
        ])?;
        Ok(Self(table))
    }

    pub(crate) fn is_formatted(&self) -> Result<bool, StorageError> {
        store::is_formatted(self)
    }

    pub(crate) fn bootstrap(&self, config: &Config) -> Result<(), StorageError> {
        store::bootstrap(self, config)
    }

    /// Opens the store for a node.
    pub(crate) fn open(&self) -> Result<(Box<dyn Storage>, Recovered), StorageError> {
        store::open(self, None, store::PATIENCE)
    }
}

/// \brief Says what became of a submission, once for each.
///
/// In which order submissions are completed does not matter: one that succeeded counts when all before it have succeeded
/// as well. After a failure nothing is submitted any more, what was submitted later has failed as well, and the node
/// stops with a fault that has the words in it; the process goes on.
///
/// Threads: any; of one store several at once. Inside callbacks: yes. Blocks: no.
///
/// \param completions What `open` was given.
/// \param number What `submit` was given.
/// \param status RAFTZ_OK: the writes survive a power cut. Any other: nobody can say, and nothing can be written any more.
/// \param words Why not, in UTF-8; copied. Empty for none.
/// \param error [out] Why the call failed; may be NULL.
/// \return RAFTZ_OK; RAFTZ_INVALID_ARG if it was completed already or there was no such submission, which changes
///         nothing; RAFTZ_NULL_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_storage_complete(
    completions: *mut raftz_completions,
    number: u64,
    status: raftz_status,
    words: raftz_slice,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (completions, words) = unsafe {
            (borrow(completions.cast_const(), "completions")?, guard::bytes(words, "words")?)
        };
        completions.mark.check()?;
        completions.complete(number, status, &String::from_utf8_lossy(words))
    })
}

/// \brief Gives the next entry.
///
/// Threads: the one that called `read`. Inside callbacks: only there. Blocks: no.
///
/// \param entries What `read` was given.
/// \param bytes The entry, as it was submitted; copied.
/// \param wants_more [out] Whether the next entry is wanted as well. What is given after that is not taken.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, or RAFTZ_INVALID_ARG for bytes that are not the next entry: the read has failed
///         then, whatever comes behind it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_entries_push(
    entries: *mut raftz_entries,
    bytes: raftz_slice,
    wants_more: *mut bool,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        let out = Out::new(wants_more, "wants_more")?;
        // SAFETY: the caller's contract.
        let (entries, bytes) =
            unsafe { (borrow_mut(entries, "entries")?, guard::bytes(bytes, "bytes")?) };
        let more = entries.push(bytes)?;
        // SAFETY: the caller's contract.
        unsafe { out.put(more) };
        Ok(())
    })
}

/// \brief Says why `read` is about to fail. The words go into what the node tells.
///
/// Threads: the one that called `read`. Inside callbacks: only there. Blocks: no.
///
/// \param entries What `read` was given.
/// \param reason Why, in UTF-8; copied.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_entries_fail(
    entries: *mut raftz_entries,
    reason: raftz_slice,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        let (entries, reason) =
            unsafe { (borrow_mut(entries, "entries")?, guard::bytes(reason, "reason")?) };
        entries.failure = Some(String::from_utf8_lossy(reason).into_owned());
        Ok(())
    })
}

impl raftz_entries {
    fn new(group: GroupId, first: Index, last: Index, bytes_max: u64) -> Self {
        Self {
            group,
            next: first,
            last,
            bytes_left: bytes_max,
            got: Vec::new(),
            is_full: false,
            damage: None,
            failure: None,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Call<bool> {
        if let Some(words) = &self.damage {
            return Err(invalid(words.clone()));
        }
        if self.is_full {
            return Ok(false);
        }
        let mut wrong = |words: String| {
            self.damage = Some(words.clone());
            invalid(words)
        };
        let entry = match kept::decode_entry(bytes, self.group) {
            Ok(entry) if entry.index == self.next => entry,
            Ok(entry) => {
                let words = format!("entry {} came where {} comes next", entry.index, self.next);
                return Err(wrong(words));
            }
            Err(words) => return Err(wrong(format!("in place of entry {}: {words}", self.next))),
        };
        let cost = entry.cost_bytes();
        if cost > self.bytes_left && !self.got.is_empty() {
            self.is_full = true;
            return Ok(false);
        }
        self.bytes_left = self.bytes_left.saturating_sub(cost);
        self.is_full = self.bytes_left == 0 || self.next == self.last;
        self.next = self.next.next();
        self.got.push(entry);
        Ok(!self.is_full)
    }
}

/// \brief In raftz_conformance_opts' flags: the store is empty again after a close. The rules about that are left out.
pub const RAFTZ_CONFORMANCE_FORGETS: u32 = 1;

/// \brief How a store is put to the test. All zero, but for the size, is the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_conformance_opts {
    /// \brief Set it to `sizeof(raftz_conformance_opts)`.
    pub size: usize,
    /// \brief RAFTZ_CONFORMANCE_…, or 0.
    pub flags: u32,
    /// \brief How long one submission may take, in milliseconds; 0 for 10000.
    pub patience_ms: u32,
}

// SAFETY: integers alone.
unsafe impl Sized for raftz_conformance_opts {
    const NAME: &'static str = "raftz_conformance_opts";
}

/// \brief Puts a store to the test: writes, removals, reads beside writes, clean closes and new opens, first by hand,
/// then at random, and everything compared with what should be there. Some hundred writes in all.
///
/// It cannot cut the power: whether submissions are completed before they are durable is for another test to say.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: for as long as the store takes.
///
/// \param storage The store. It must be empty, and is of no other use afterwards.
/// \param opts How; NULL for the defaults.
/// \param error [out] Which rules it breaks and how, or why the test could not be made; may be NULL.
/// \return RAFTZ_OK if it breaks none; RAFTZ_STORAGE if it does, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or
///         RAFTZ_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_storage_conformance(
    storage: *const raftz_storage,
    opts: *const raftz_conformance_opts,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (table, opts) = unsafe { (Table::read(storage)?, sized::read(opts)?) };
        let flags = opts.map_or(0, |opts| opts.flags);
        if flags & !RAFTZ_CONFORMANCE_FORGETS != 0 {
            return Err(invalid(format!("raftz_conformance_opts.flags is {flags:#x}")));
        }
        if let Some(inside) = node::inside_callback() {
            let message = format!("this waits for the store, which must not be done in {inside}");
            return Err(Failure::new(RAFTZ_IN_CALLBACK, message));
        }
        let patience_ms = opts.map(|opts| opts.patience_ms).filter(|ms| *ms > 0);
        let mut tested = Tested {
            table,
            founding: Some(founding()?),
            survives_close: flags & RAFTZ_CONFORMANCE_FORGETS == 0,
            patience: Duration::from_millis(patience_ms.unwrap_or(10_000).into()),
        };
        let findings = conformance::run(&mut tested);
        if findings.is_empty() {
            return Ok(());
        }
        let words: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Err(Failure::new(RAFTZ_STORAGE, format!("broken rules: {}", words.join("; "))))
    })
}

/// Of a cluster that is nobody's.
fn founding() -> Call<Founding> {
    let node = NodeId::new(1).ok_or_else(|| invalid("no node"))?;
    let config = Config::new(node, ClusterId(1)).with_founder(node, "127.0.0.1:1");
    Founding::of(&config).map_err(|error| Failure::new(RAFTZ_STORAGE, error.to_string()))
}

/// A store of C's under test.
struct Tested {
    table: Table,
    /// What it is formatted with when it is opened first.
    founding: Option<Founding>,
    survives_close: bool,
    patience: Duration,
}

impl Subject for Tested {
    fn open(&mut self) -> Result<(Box<dyn Storage>, Recovered), String> {
        store::open(&self.table, self.founding.take(), self.patience)
            .map_err(|error| error.to_string())
    }

    fn survives_close(&self) -> bool {
        self.survives_close
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}
