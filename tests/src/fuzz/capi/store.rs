//! Stores as C programs have them: in memory, and kept over the lives of a node.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use raftz::machine::{raftz_sink, raftz_sink_fail, raftz_sink_write};
use raftz::status::*;
use raftz::storage::*;
use raftz::version::RAFTZ_ABI_VERSION;

use super::judge::{bytes, call, complain, documented, lock, slice};

/// How a store completes, or what it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    AtOnce,
    /// By a thread of its own.
    Late,
    Twice,
    Fails,
    /// Not any more, some time after it was opened: a start would wait for it half a minute.
    Never,
    CannotRead,
    CannotOpen,
    IsLow,
}

pub(super) const WAYS: [Way; 8] = [
    Way::AtOnce,
    Way::Late,
    Way::Twice,
    Way::Fails,
    Way::Never,
    Way::CannotRead,
    Way::CannotOpen,
    Way::IsLow,
];

/// Submissions that a start, or the founding of a cluster, waits for.
const STARTING: u64 = 2;

/// What is kept. Outlives every store that is opened on it.
pub(super) struct Disk {
    kept: Mutex<Kept>,
    way: Way,
    after: u64,
    submits: AtomicU64,
    opened: AtomicU64,
    destroyed: AtomicU64,
}

/// A record, and a run of entries.
#[derive(Clone, Default)]
pub(super) struct Kept {
    is_open: bool,
    pub(super) record: Vec<u8>,
    pub(super) entries: BTreeMap<u64, Vec<u8>>,
}

/// The library's side of an open store, for any thread.
#[derive(Clone, Copy)]
struct Completions(*mut raftz_completions);
// SAFETY: the header says so.
unsafe impl Send for Completions {}

struct Store {
    disk: *const Disk,
    completions: Completions,
    worker: Option<(Sender<u64>, JoinHandle<()>)>,
}

impl Disk {
    pub(super) fn new(way: Way, after: u64) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            way,
            after,
            submits: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            destroyed: AtomicU64::new(0),
        })
    }

    /// As a table of functions.
    pub(super) fn table(&self, flags: u32) -> raftz_storage {
        raftz_storage {
            size: size_of::<raftz_storage>(),
            abi_version: RAFTZ_ABI_VERSION,
            // One that completes later blocks.
            flags: if self.way == Way::AtOnce { flags } else { 0 },
            user_data: std::ptr::from_ref(self).cast_mut().cast(),
            open: Some(open),
            destroy: Some(destroy),
            load: Some(load),
            submit: Some(submit),
            read: Some(read),
            idle: Some(idle),
            is_low_on_space: Some(is_low_on_space),
            log_bytes: Some(log_bytes),
            close: Some(idle),
        }
    }

    fn is_wrong(&self, way: Way) -> bool {
        let well = if way == Way::Never { self.after + STARTING } else { self.after };
        self.way == way && self.submits.load(SeqCst) > well
    }

    /// How many stores are open; there must be none once nothing runs any more.
    pub(super) fn left(&self) -> u64 {
        let destroyed = self.destroyed.load(SeqCst);
        self.opened.load(SeqCst) - destroyed
    }
}

impl Completions {
    fn complete(self, number: u64, status: raftz_status, words: &[u8]) -> raftz_status {
        let Self(completions) = self;
        let error = std::ptr::null_mut();
        let given = call!(raftz_storage_complete(completions, number, status, slice(words), error));
        documented("raftz_storage_complete", given);
        given
    }
}

fn disk<'a>(pointer: *const Disk) -> &'a Disk {
    // SAFETY: the world keeps every disk until no node is left.
    unsafe { &*pointer }
}

fn store<'a>(pointer: *mut c_void) -> &'a Store {
    // SAFETY: what `open` made; nothing in it changes but by locks until `destroy`.
    unsafe { &*pointer.cast_const().cast::<Store>() }
}

fn refuse(why: *mut raftz_sink, words: &[u8]) -> raftz_status {
    documented("raftz_sink_fail", call!(raftz_sink_fail(why, slice(words))));
    RAFTZ_CALLBACK_FAILED
}

unsafe extern "C" fn open(
    user_data: *mut c_void,
    completions: *mut raftz_completions,
    why: *mut raftz_sink,
    opened: *mut *mut c_void,
) -> raftz_status {
    let pointer = user_data.cast_const().cast::<Disk>();
    let mut kept = lock(&disk(pointer).kept);
    if kept.is_open || disk(pointer).is_wrong(Way::CannotOpen) {
        return refuse(why, b"open fails");
    }
    kept.is_open = true;
    if disk(pointer).way == Way::Never {
        disk(pointer).submits.store(0, SeqCst);
    }
    disk(pointer).opened.fetch_add(1, SeqCst);
    let completions = Completions(completions);
    let worker = (disk(pointer).way == Way::Late).then(|| {
        let (sender, numbers) = channel();
        let work = move || {
            for number in numbers {
                let given = completions.complete(number, RAFTZ_OK, b"");
                if given != RAFTZ_OK {
                    complain(format!("completion {number} was not taken: {given}"));
                }
            }
        };
        (sender, std::thread::spawn(work))
    });
    let made = Box::new(Store { disk: pointer, completions, worker });
    // SAFETY: the library gives a place.
    unsafe { opened.write(Box::into_raw(made).cast()) };
    RAFTZ_OK
}

unsafe extern "C" fn destroy(pointer: *mut c_void) {
    // SAFETY: what `open` made, given back once.
    let Store { disk: pointer, worker, .. } = *unsafe { Box::from_raw(pointer.cast::<Store>()) };
    if let Some((sender, thread)) = worker {
        drop(sender);
        if thread.join().is_err() {
            complain("the thread of a store panicked".to_owned());
        }
    }
    lock(&disk(pointer).kept).is_open = false;
    disk(pointer).destroyed.fetch_add(1, SeqCst);
}

unsafe extern "C" fn load(
    pointer: *mut c_void,
    group: u32,
    record: *mut raftz_sink,
) -> raftz_status {
    if group != 1 {
        complain(format!("group {group}"));
    }
    let kept = lock(&disk(store(pointer).disk).kept);
    let status = call!(raftz_sink_write(record, slice(&kept.record)));
    documented("raftz_sink_write", status);
    status
}

unsafe extern "C" fn submit(
    pointer: *mut c_void,
    writes: *const raftz_log_write,
    count: usize,
    number: u64,
) {
    let Store { disk: of, completions, worker } = store(pointer);
    let disk = disk(*of);
    disk.submits.fetch_add(1, SeqCst);
    if disk.is_wrong(Way::Never) {
        return;
    }
    if disk.is_wrong(Way::Fails) {
        completions.complete(number, RAFTZ_CALLBACK_FAILED, b"submit fails");
        return;
    }
    // SAFETY: so many writes, which stay until they are completed.
    for write in unsafe { std::slice::from_raw_parts(writes, count) } {
        // SAFETY: as above.
        unsafe { keep(&mut lock(&disk.kept), write) };
    }
    match worker {
        Some((sender, _)) => {
            if sender.send(number).is_err() {
                complain("the thread of a store is gone".to_owned());
            }
        }
        None => {
            completions.complete(number, RAFTZ_OK, b"");
        }
    }
    if disk.is_wrong(Way::Twice) {
        let again = completions.complete(number, RAFTZ_CALLBACK_FAILED, b"twice");
        let never = completions.complete(number + 1_000_000, RAFTZ_OK, b"");
        if (again, never) != (RAFTZ_INVALID_ARG, RAFTZ_INVALID_ARG) {
            complain(format!("completed twice, and what there is not: {again}, {never}"));
        }
    }
}

/// # Safety
/// A write of the library's.
pub(super) unsafe fn keep(kept: &mut Kept, write: &raftz_log_write) {
    if write.remove_from > 0 {
        kept.entries.retain(|index, _| *index < write.remove_from);
    }
    kept.entries.retain(|index, _| *index > write.remove_upto);
    let entries = if write.entry_count == 0 {
        &[]
    } else {
        // SAFETY: the caller's contract.
        unsafe { std::slice::from_raw_parts(write.entries, write.entry_count) }
    };
    for entry in entries {
        // SAFETY: the caller's contract.
        if kept.entries.insert(entry.index, unsafe { bytes(entry.bytes) }).is_some() {
            complain(format!("entry {} was there already", entry.index));
        }
    }
    // SAFETY: the caller's contract.
    kept.record = unsafe { bytes(write.record) };
}

unsafe extern "C" fn read(
    pointer: *mut c_void,
    _group: u32,
    first: u64,
    last: u64,
    entries: *mut raftz_entries,
) -> raftz_status {
    let disk = disk(store(pointer).disk);
    if disk.is_wrong(Way::CannotRead) {
        let words = slice(b"read fails");
        documented("raftz_entries_fail", call!(raftz_entries_fail(entries, words)));
        return RAFTZ_CALLBACK_FAILED;
    }
    let kept = lock(&disk.kept);
    for bytes in kept.entries.range(first..=last.max(first)).map(|(_, bytes)| bytes) {
        let mut wants_more = false;
        let status = call!(raftz_entries_push(entries, slice(bytes), &raw mut wants_more));
        documented("raftz_entries_push", status);
        if status != RAFTZ_OK || !wants_more {
            return status;
        }
    }
    RAFTZ_OK
}

unsafe extern "C" fn idle(_store: *mut c_void, _why: *mut raftz_sink) -> raftz_status {
    RAFTZ_OK
}

unsafe extern "C" fn is_low_on_space(pointer: *mut c_void) -> u32 {
    u32::from(disk(store(pointer).disk).is_wrong(Way::IsLow))
}

unsafe extern "C" fn log_bytes(pointer: *mut c_void) -> u64 {
    disk(store(pointer).disk).submits.load(SeqCst)
}
