//! State machines written in C.

use std::ffi::c_void;
use std::io::{self, Read, Write};

use bytes::{BufMut, BytesMut};
use raftz_core::machine::{
    Command, CountingMachine, KvStore, MachineError, SnapshotView, StateMachine,
};
use raftz_core::node;
use raftz_core::types::{Index, Reply};

use crate::bytes::raftz_slice;
use crate::error::Failure;
use crate::guard::{self, Call, Out, borrow_mut, call, invalid, null};
use crate::sized::{self, Sized};
use crate::status::{RAFTZ_OK, raftz_status, shown};

/// \brief One committed command, in the order of the log. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_command {
    /// \brief Index of its entry. Indexes grow but have gaps: not every entry is a command.
    pub index: u64,
    /// \brief Term of its entry.
    pub term: u64,
    /// \brief The cluster's clock when it was appended, in microseconds; it never decreases.
    pub log_time_us: u64,
    /// \brief The bytes that were proposed.
    pub data: raftz_slice,
}

/// \brief Takes the answers to a batch of commands: exactly one for each, in their order.
pub struct raftz_replies {
    replies: Vec<Reply>,
    room: BytesMut,
    failure: Option<String>,
}

/// \brief Takes bytes from a callback.
#[derive(Default)]
pub struct raftz_sink {
    pub(crate) bytes: Vec<u8>,
    is_rejected: bool,
    pub(crate) failure: Option<String>,
}

impl raftz_sink {
    /// Runs a callback that writes to a sink, or says there why it fails: what it wrote, or its words.
    pub(crate) fn of(
        name: &'static str,
        call: impl FnOnce(*mut Self) -> raftz_status,
    ) -> Result<Vec<u8>, String> {
        let mut sink = Self::default();
        match node::run_callback(name, || call(&raw mut sink)) {
            RAFTZ_OK => Ok(sink.bytes),
            status => Err(shown(status, sink.failure)),
        }
    }
}

/// \brief Gives a callback the bytes of a snapshot, from the front.
pub struct raftz_source {
    /// Lives as long as the call of `restore` that it is made for.
    from: *mut (dyn Read + 'static),
}

/// \brief In a machine's flags: none of its functions ever blocks or takes long. They may then run on the
/// node's event loop, which saves the way to another thread.
pub const RAFTZ_MACHINE_NEVER_BLOCKS: u32 = 1;

/// \brief A deterministic state machine: what the cluster keeps one copy of on every node.
///
/// Everything it does must follow from the commands alone: no clock, no randomness, nothing of the machine
/// it runs on. Set `size` to `sizeof(raftz_machine)` and `abi_version` to RAFTZ_ABI_VERSION; what is not
/// needed is NULL. The struct is copied by raftz_node_start().
///
/// All functions are called from one thread at a time, never at once, except `snapshot_read` and
/// `snapshot_end`, which run beside them. A status other than RAFTZ_OK from `apply` or `restore`
/// stops this replica with an event and a fault in its status; the process goes on, and the other nodes do.
/// Functions must return: no longjmp, no C++ exception, no end of the thread. Blocking calls of raftz are
/// refused in them. A function that fails says why in words: `apply` with raftz_replies_fail(), all others with
/// raftz_sink_fail() on the sink that they are given, which is only there for that where it is called `why`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_machine {
    /// \brief `sizeof(raftz_machine)`.
    pub size: usize,
    /// \brief RAFTZ_ABI_VERSION.
    pub abi_version: u32,
    /// \brief RAFTZ_MACHINE_…, or 0.
    pub flags: u32,
    /// \brief Given to `create`; or, without `create`, the machine itself.
    pub user_data: *mut c_void,
    /// \brief Makes the machine of a node. NULL: `user_data` is the machine.
    ///
    /// A status other than RAFTZ_OK makes raftz_node_start() fail; `destroy` is not called then.
    pub create: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            why: *mut raftz_sink,
            machine: *mut *mut c_void,
        ) -> raftz_status,
    >,
    /// \brief Ends a machine. Called exactly once for every machine that was created, after the last call of
    /// any other function; without `create` once for every raftz_node_start() that took the struct. Optional.
    ///
    /// raftz_node_start() takes the struct unless it returns RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG,
    /// RAFTZ_UNSUPPORTED or RAFTZ_FORKED.
    pub destroy: Option<unsafe extern "C" fn(machine: *mut c_void)>,
    /// \brief Applies commands in order and answers each, with raftz_replies_push() or
    /// raftz_replies_reject(). Required.
    pub apply: Option<
        unsafe extern "C" fn(
            machine: *mut c_void,
            commands: *const raftz_command,
            count: usize,
            replies: *mut raftz_replies,
        ) -> raftz_status,
    >,
    /// \brief Answers a question from the present state, with raftz_sink_write(), without changing it.
    /// A status other than RAFTZ_OK is told to the asker; the replica goes on. Optional.
    pub query: Option<
        unsafe extern "C" fn(
            machine: *mut c_void,
            request: raftz_slice,
            reply: *mut raftz_sink,
        ) -> raftz_status,
    >,
    /// \brief Freezes the present state, quickly: it is read later, while commands go on. The functions for
    /// snapshots come all four or none.
    pub snapshot_begin: Option<
        unsafe extern "C" fn(
            machine: *mut c_void,
            why: *mut raftz_sink,
            snapshot: *mut *mut c_void,
        ) -> raftz_status,
    >,
    /// \brief Writes the next piece of a frozen state, of any size, with raftz_sink_write(). It is called until it
    /// writes nothing.
    pub snapshot_read:
        Option<unsafe extern "C" fn(snapshot: *mut c_void, piece: *mut raftz_sink) -> raftz_status>,
    /// \brief Ends a frozen state. Called exactly once for every `snapshot_begin` that succeeded.
    pub snapshot_end: Option<unsafe extern "C" fn(snapshot: *mut c_void)>,
    /// \brief Replaces the whole state by what `snapshot_read` wrote, on this or another node. It may be called
    /// again with the same content.
    pub restore: Option<
        unsafe extern "C" fn(
            machine: *mut c_void,
            source: *mut raftz_source,
            why: *mut raftz_sink,
        ) -> raftz_status,
    >,
    /// \brief For a machine that persists itself: the index of the last command in its own storage, stored there
    /// at once with what the command did; 0 while there is none. Asked once, after `create`. Commands up to there are
    /// not applied again, and none is applied before it is on this node's own disk. NULL: the machine is
    /// rebuilt from the log at every start.
    ///
    /// raftz_node_start() fails with RAFTZ_MACHINE if the log ends before that index.
    pub applied_index: Option<
        unsafe extern "C" fn(
            machine: *mut c_void,
            why: *mut raftz_sink,
            index: *mut u64,
        ) -> raftz_status,
    >,
}

// SAFETY: integers, a pointer and optional functions.
unsafe impl Sized for raftz_machine {
    const NAME: &'static str = "raftz_machine";
}

/// \brief Answers the next command of a batch.
///
/// Threads: the one that called `apply`. Inside callbacks: only there. Blocks: no.
///
/// \param replies What `apply` was given.
/// \param reply The answer; copied.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_replies_push(
    replies: *mut raftz_replies,
    reply: raftz_slice,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        let (replies, reply) =
            unsafe { (borrow_mut(replies, "replies")?, guard::bytes(reply, "reply")?) };
        replies.push(reply, Reply::Ok);
        Ok(())
    })
}

/// \brief Turns the next command of a batch down: an ordinary answer, alike on every node.
///
/// Threads: the one that called `apply`. Inside callbacks: only there. Blocks: no.
///
/// \param replies What `apply` was given.
/// \param reason Why; copied.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_replies_reject(
    replies: *mut raftz_replies,
    reason: raftz_slice,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        let (replies, reason) =
            unsafe { (borrow_mut(replies, "replies")?, guard::bytes(reason, "reason")?) };
        replies.push(reason, Reply::Rejected);
        Ok(())
    })
}

/// \brief Says why `apply` is about to fail. The words go into the fault's event and status.
///
/// Threads: the one that called `apply`. Inside callbacks: only there. Blocks: no.
///
/// \param replies What `apply` was given.
/// \param reason Why, in UTF-8; copied.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_replies_fail(
    replies: *mut raftz_replies,
    reason: raftz_slice,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        let (replies, reason) =
            unsafe { (borrow_mut(replies, "replies")?, guard::bytes(reason, "reason")?) };
        replies.failure = Some(String::from_utf8_lossy(reason).into_owned());
        Ok(())
    })
}

/// \brief Writes bytes.
///
/// Threads: the one that called the callback. Inside callbacks: only there. Blocks: no.
///
/// \param sink What the callback was given.
/// \param data The bytes; copied.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_sink_write(
    sink: *mut raftz_sink,
    data: raftz_slice,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        let (sink, data) = unsafe { (borrow_mut(sink, "sink")?, guard::bytes(data, "data")?) };
        sink.bytes.extend_from_slice(data);
        Ok(())
    })
}

/// \brief Makes what is written to a query's sink a rejection: RAFTZ_OUTCOME_REJECTED for the asker.
///
/// Threads: the one that called `query`. Inside callbacks: only there. Blocks: no.
///
/// \param sink What `query` was given.
/// \return RAFTZ_OK or RAFTZ_NULL_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_sink_reject(sink: *mut raftz_sink) -> raftz_status {
    call(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        unsafe { borrow_mut(sink, "sink") }?.is_rejected = true;
        Ok(())
    })
}

/// \brief Says why a callback with a sink is about to fail. The words go into the error.
///
/// Threads: the one that called the callback. Inside callbacks: only there. Blocks: no.
///
/// \param sink What the callback was given.
/// \param reason Why, in UTF-8; copied.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_sink_fail(
    sink: *mut raftz_sink,
    reason: raftz_slice,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        let (sink, reason) =
            unsafe { (borrow_mut(sink, "sink")?, guard::bytes(reason, "reason")?) };
        sink.failure = Some(String::from_utf8_lossy(reason).into_owned());
        Ok(())
    })
}

/// \brief Reads the next bytes of a snapshot.
///
/// Threads: the one that called `restore`. Inside callbacks: only there. Blocks: for the disk.
///
/// \param source What `restore` was given.
/// \param buffer Where they go; what lies behind them in it is overwritten as well.
/// \param capacity How many fit; at least 1.
/// \param read [out] How many came; 0 at the end of the snapshot.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_STORAGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_source_read(
    source: *mut raftz_source,
    buffer: *mut u8,
    capacity: usize,
    read: *mut usize,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        let out = Out::new(read, "read")?;
        // SAFETY: the caller's contract.
        let source = unsafe { borrow_mut(source, "source") }?;
        if buffer.is_null() {
            return Err(null("buffer"));
        }
        if capacity == 0 || isize::try_from(capacity).is_err() {
            return Err(invalid("capacity must be at least 1, and no more than there is memory"));
        }
        // What is not read stays as it is; it is initialized so that a reader may look at it.
        // SAFETY: the caller's contract: so many bytes are there, and nobody else's meanwhile.
        let buffer = unsafe {
            buffer.write_bytes(0, capacity);
            std::slice::from_raw_parts_mut(buffer, capacity)
        };
        // SAFETY: it lives as long as the call of `restore`, in which this is called.
        let from = unsafe { &mut *source.from };
        let count = from.read(buffer).map_err(|error| {
            Failure::of_system(crate::status::RAFTZ_STORAGE, "the snapshot cannot be read", &error)
        })?;
        // SAFETY: the caller's contract.
        unsafe { out.put(count) };
        Ok(())
    })
}

impl raftz_replies {
    fn push(&mut self, bytes: &[u8], kind: fn(bytes::Bytes) -> Reply) {
        self.room.put_slice(bytes);
        self.replies.push(kind(self.room.split().freeze()));
    }
}

/// A machine of C's, behind the trait.
pub(crate) struct Machine {
    table: raftz_machine,
    machine: *mut c_void,
}

// SAFETY: the contract of raftz_machine: its functions are called from one thread at a time.
unsafe impl Send for Machine {}

/// A table that was found good; not yet a machine.
pub(crate) struct Table(raftz_machine);

// SAFETY: as for the machine that is made of it.
unsafe impl Send for Table {}

impl Table {
    /// Checks a table.
    ///
    /// # Safety
    /// As [`sized::read`].
    pub(crate) unsafe fn read(pointer: *const raftz_machine) -> Call<Option<Self>> {
        // SAFETY: the caller's contract.
        let Some(table) = unsafe { sized::read(pointer) }? else { return Ok(None) };
        sized::known::<raftz_machine>(table.abi_version, table.flags, RAFTZ_MACHINE_NEVER_BLOCKS)?;
        sized::required::<raftz_machine>(&[("apply", table.apply.is_some())])?;
        let snapshot = [
            ("snapshot_begin", table.snapshot_begin.is_some()),
            ("snapshot_read", table.snapshot_read.is_some()),
            ("snapshot_end", table.snapshot_end.is_some()),
            ("restore", table.restore.is_some()),
        ];
        let missing = snapshot.iter().find(|(_, is_there)| !is_there);
        if let Some((field, _)) = missing.filter(|_| snapshot.iter().any(|(_, there)| *there)) {
            return Err(invalid(format!(
                "raftz_machine.{field} is NULL; the functions for snapshots come all four or none"
            )));
        }
        Ok(Some(Self(table)))
    }

    /// Takes it over. Without `create` the machine is there already, and from here on it is destroyed also
    /// if the start fails.
    pub(crate) fn take(self) -> Taken {
        match self.0.create {
            Some(_) => Taken::Table(self),
            None => Taken::Machine(Machine { table: self.0, machine: self.0.user_data }),
        }
    }

    /// Whether it can make any number of machines.
    pub(crate) const fn makes_machines(&self) -> bool {
        self.0.create.is_some()
    }

    /// Makes a machine.
    pub(crate) fn create(&self) -> Result<Machine, MachineError> {
        let table = self.0;
        let create = table.create.ok_or_else(|| missing("create"))?;
        let mut machine = std::ptr::null_mut();
        with_words("create", |why| {
            // SAFETY: the user's function, with the user's data and places for words and the machine.
            unsafe { create(table.user_data, why, &raw mut machine) }
        })?;
        Ok(Machine { table, machine })
    }
}

/// A table that was taken over.
pub(crate) enum Taken {
    Table(Table),
    Machine(Machine),
}

impl Taken {
    /// The machine, made now if it is not there yet.
    pub(crate) fn create(self) -> Result<Machine, MachineError> {
        match self {
            Self::Machine(machine) => Ok(machine),
            Self::Table(table) => table.create(),
        }
    }
}

/// What a callback's status means.
fn checked(
    callback: &str,
    status: raftz_status,
    words: Option<String>,
) -> Result<(), MachineError> {
    if status == RAFTZ_OK {
        return Ok(());
    }
    Err(MachineError(format!("{callback} returned {}", shown(status, words))))
}

/// Calls a callback that has nothing to write but why it fails.
fn with_words(
    callback: &str,
    call: impl FnOnce(*mut raftz_sink) -> raftz_status,
) -> Result<(), MachineError> {
    let mut why = raftz_sink::default();
    let status = call(&raw mut why);
    checked(callback, status, why.failure)
}

fn missing(callback: &str) -> MachineError {
    MachineError(format!("the machine has no {callback}"))
}

impl StateMachine for Machine {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        let seen = |command: &Command| raftz_command {
            index: command.index.0,
            term: command.term.0,
            log_time_us: command.log_time_us,
            data: raftz_slice::of(command.payload),
        };
        let commands: Vec<raftz_command> = batch.iter().map(seen).collect();
        let apply = self.table.apply.ok_or_else(|| missing("apply"))?;
        let mut out = raftz_replies {
            replies: std::mem::take(replies),
            room: BytesMut::new(),
            failure: None,
        };
        // SAFETY: the user's function, with its machine and commands that live meanwhile.
        let status =
            unsafe { apply(self.machine, commands.as_ptr(), commands.len(), &raw mut out) };
        *replies = out.replies;
        checked("apply", status, out.failure)
    }

    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        let query = self.table.query.ok_or_else(|| missing("query"))?;
        let mut out = raftz_sink::default();
        // SAFETY: the user's function, with its machine and a request that lives meanwhile.
        let status = unsafe { query(self.machine, raftz_slice::of(request), &raw mut out) };
        checked("query", status, out.failure)?;
        Ok(if out.is_rejected { Reply::Rejected } else { Reply::Ok }(out.bytes.into()))
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        let table = self.table;
        let begin = table.snapshot_begin.ok_or_else(|| missing("snapshot_begin"))?;
        let mut snapshot = std::ptr::null_mut();
        with_words("snapshot_begin", |why| {
            // SAFETY: the user's function, with its machine and places for words and the snapshot.
            unsafe { begin(self.machine, why, &raw mut snapshot) }
        })?;
        Ok(Box::new(View { table, snapshot }))
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError> {
        let restore = self.table.restore.ok_or_else(|| missing("restore"))?;
        let from: *mut (dyn Read + '_) = from;
        // SAFETY: only the lifetime changes, and the source does not outlive this call.
        let from =
            unsafe { std::mem::transmute::<*mut (dyn Read + '_), *mut (dyn Read + 'static)>(from) };
        let mut source = raftz_source { from };
        with_words("restore", |why| {
            // SAFETY: the user's function, with its machine, a place for words and a source that lives meanwhile.
            unsafe { restore(self.machine, &raw mut source, why) }
        })
    }

    fn applied_index(&mut self) -> Result<Option<Index>, MachineError> {
        let Some(applied_index) = self.table.applied_index else { return Ok(None) };
        let mut index = 0;
        with_words("applied_index", |why| {
            // SAFETY: the user's function, with its machine and places for words and the index.
            unsafe { applied_index(self.machine, why, &raw mut index) }
        })?;
        Ok(Some(Index(index)))
    }

    fn never_blocks(&self) -> bool {
        self.table.flags & RAFTZ_MACHINE_NEVER_BLOCKS != 0
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: the user's function, called once, and nothing after it.
            node::run_callback("the state machine's destroy", || unsafe { destroy(self.machine) });
        }
    }
}

/// A frozen state of C's.
struct View {
    table: raftz_machine,
    snapshot: *mut c_void,
}

// SAFETY: the contract of raftz_machine: a snapshot is read and ended on any one thread.
unsafe impl Send for View {}

impl SnapshotView for View {
    fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let read = self.table.snapshot_read;
        let read = read.ok_or_else(|| io::Error::other(missing("snapshot_read")))?;
        let mut piece = raftz_sink::default();
        loop {
            piece.bytes.clear();
            // SAFETY: the user's function, with its snapshot and a sink that lives meanwhile.
            let status = unsafe { read(self.snapshot, &raw mut piece) };
            checked("snapshot_read", status, piece.failure.take()).map_err(io::Error::other)?;
            if piece.bytes.is_empty() {
                return Ok(());
            }
            out.write_all(&piece.bytes)?;
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(end) = self.table.snapshot_end {
            // SAFETY: the user's function, called once, and nothing after it.
            node::run_callback("the state machine's snapshot_end", || unsafe {
                end(self.snapshot)
            });
        }
    }
}

/// \brief Which machine a node keeps, if it is none of the program's own: the key-value store.
pub const RAFTZ_BUILTIN_KV: u32 = 0;
/// \brief Which machine a node keeps, if it is none of the program's own: one that counts and folds its
/// commands, for tests and measurements.
pub const RAFTZ_BUILTIN_COUNTER: u32 = 1;

/// One of the machines that come with the library.
pub(crate) fn builtin(which: u32) -> Call<Box<dyn StateMachine>> {
    match which {
        RAFTZ_BUILTIN_KV => Ok(Box::<KvStore>::default()),
        RAFTZ_BUILTIN_COUNTER => Ok(Box::<CountingMachine>::default()),
        other => Err(invalid(format!("builtin is {other}, no RAFTZ_BUILTIN_…"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::RAFTZ_CALLBACK_FAILED;
    use crate::version::RAFTZ_ABI_VERSION;

    /// A machine that is a vector of bytes; its snapshot is handed out byte by byte.
    unsafe extern "C" fn begin(
        machine: *mut c_void,
        _: *mut raftz_sink,
        snapshot: *mut *mut c_void,
    ) -> raftz_status {
        // SAFETY: the test's own pointers.
        unsafe {
            let frozen = (*machine.cast::<Vec<u8>>()).clone();
            snapshot.write(Box::into_raw(Box::new((frozen, 0_usize))).cast());
        }
        RAFTZ_OK
    }
    unsafe extern "C" fn read(snapshot: *mut c_void, piece: *mut raftz_sink) -> raftz_status {
        // SAFETY: the test's own pointers.
        unsafe {
            let (bytes, at) = &mut *snapshot.cast::<(Vec<u8>, usize)>();
            let Some(byte) = bytes.get(*at) else { return RAFTZ_OK };
            *at += 1;
            if *byte == b'!' {
                raftz_sink_fail(piece, raftz_slice::of(b"as told"));
                return RAFTZ_CALLBACK_FAILED;
            }
            raftz_sink_write(piece, raftz_slice::of(&[*byte]))
        }
    }
    unsafe extern "C" fn end(snapshot: *mut c_void) {
        // SAFETY: the test's own pointer.
        drop(unsafe { Box::from_raw(snapshot.cast::<(Vec<u8>, usize)>()) });
    }
    unsafe extern "C" fn restore(
        machine: *mut c_void,
        source: *mut raftz_source,
        _: *mut raftz_sink,
    ) -> raftz_status {
        let (mut buffer, mut got) = ([0_u8; 3], 1);
        let mut all = Vec::new();
        while got > 0 {
            // SAFETY: so many bytes are there.
            let status = unsafe { raftz_source_read(source, buffer.as_mut_ptr(), 3, &raw mut got) };
            if status != RAFTZ_OK {
                return status;
            }
            all.extend_from_slice(&buffer[..got]);
        }
        // SAFETY: the test's own pointer.
        unsafe { *machine.cast::<Vec<u8>>() = all };
        RAFTZ_OK
    }
    unsafe extern "C" fn apply(
        _: *mut c_void,
        _: *const raftz_command,
        _: usize,
        _: *mut raftz_replies,
    ) -> raftz_status {
        RAFTZ_OK
    }

    fn table(user_data: *mut c_void) -> raftz_machine {
        raftz_machine {
            size: std::mem::size_of::<raftz_machine>(),
            abi_version: RAFTZ_ABI_VERSION,
            flags: 0,
            user_data,
            create: None,
            destroy: None,
            apply: Some(apply),
            query: None,
            snapshot_begin: Some(begin),
            snapshot_read: Some(read),
            snapshot_end: Some(end),
            restore: Some(restore),
            applied_index: None,
        }
    }

    #[test]
    fn a_snapshot_goes_out_in_pieces_and_comes_back() {
        let (mut one, mut two) = (b"all of it".to_vec(), Vec::<u8>::new());
        let machine = |state: &mut Vec<u8>| Machine {
            table: table((&raw mut *state).cast()),
            machine: (&raw mut *state).cast(),
        };
        let mut view = machine(&mut one).snapshot().unwrap();
        one.clear();
        let mut out = Vec::new();
        view.write_to(&mut out).unwrap();
        assert_eq!(out, b"all of it");
        machine(&mut two).restore(&mut out.as_slice()).unwrap();
        assert_eq!(two, b"all of it");
        let mut bad = b"x!".to_vec();
        let error = machine(&mut bad).snapshot().unwrap().write_to(&mut Vec::new()).unwrap_err();
        let words = error.to_string();
        assert!(words.contains("RAFTZ_CALLBACK_FAILED") && words.contains("as told"), "{words}");
    }

    #[test]
    fn a_table_is_checked_field_by_field() {
        let refused = |change: fn(&mut raftz_machine)| {
            let mut table = table(std::ptr::null_mut());
            change(&mut table);
            // SAFETY: a whole table.
            let failure = unsafe { Table::read(&raw const table) }.err();
            failure.map(|failure| (failure.status, failure.message))
        };
        assert!(refused(|_| {}).is_none());
        for (change, field) in [
            ((|it| it.apply = None) as fn(&mut raftz_machine), "apply"),
            (|it| it.restore = None, "restore"),
            (|it| it.snapshot_end = None, "snapshot_end"),
            (|it| it.abi_version = 0, "abi_version"),
            (|it| it.abi_version = 2, "abi_version"),
            (|it| it.flags = 2, "flags"),
            (|it| it.size = 3, "size"),
        ] {
            let (_, message) = refused(change).unwrap();
            assert!(message.contains(field), "{message}");
        }
    }
}
