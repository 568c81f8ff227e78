//! State machines as C programs have them, and what they must have been given.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use raftz::bytes::raftz_slice;
use raftz::machine::*;
use raftz::status::*;
use raftz::version::RAFTZ_ABI_VERSION;

use super::judge::{bytes, call, complain, documented, lock, slice};

/// What has been applied anywhere in a cluster: no two machines may be given different commands of one index.
#[derive(Default)]
pub(super) struct Truth(Mutex<BTreeMap<u64, Vec<u8>>>);

impl Truth {
    fn applied(&self, index: u64, command: &[u8]) {
        let mut all = lock(&self.0);
        let known = all.entry(index).or_insert_with(|| command.to_vec());
        if known != command {
            complain(format!("two commands of index {index}: {known:?} and {command:?}"));
        }
    }

    pub(super) fn at(&self, index: u64) -> Option<Vec<u8>> {
        lock(&self.0).get(&index).cloned()
    }
}

/// What a machine does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    Apply,
    TooFew,
    TooMany,
    Create,
    Begin,
    Read,
    Restore,
}

pub(super) const FAULTS: [Fault; 8] = [
    Fault::Nothing,
    Fault::Apply,
    Fault::TooFew,
    Fault::TooMany,
    Fault::Create,
    Fault::Begin,
    Fault::Read,
    Fault::Restore,
];

/// How the machines of one node are to be, and how many there were. Outlives them all.
pub(super) struct Spec {
    pub(super) truth: Arc<Truth>,
    pub(super) fault: Fault,
    /// So many commands, or calls of another kind, are taken well first.
    pub(super) after: u64,
    calls: AtomicU64,
    created: AtomicU64,
    destroyed: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Spec {
    pub(super) fn new(truth: &Arc<Truth>, fault: Fault, after: u64) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            truth: Arc::clone(truth),
            fault,
            after,
            calls: zero(),
            created: zero(),
            destroyed: zero(),
            begun: zero(),
            ended: zero(),
        })
    }

    /// As a table of functions.
    pub(super) fn table(&self, flags: u32) -> raftz_machine {
        raftz_machine {
            size: size_of::<raftz_machine>(),
            abi_version: RAFTZ_ABI_VERSION,
            flags,
            user_data: std::ptr::from_ref(self).cast_mut().cast(),
            create: Some(create),
            destroy: Some(destroy),
            apply: Some(apply),
            query: Some(query),
            snapshot_begin: Some(snapshot_begin),
            snapshot_read: Some(snapshot_read),
            snapshot_end: Some(snapshot_end),
            restore: Some(restore),
            applied_index: None,
        }
    }

    fn fails(&self, fault: Fault) -> bool {
        self.fault == fault && self.calls.fetch_add(1, SeqCst) >= self.after
    }

    /// How many machines and snapshots there are; there must be none once nothing runs any more.
    pub(super) fn left(&self) -> u64 {
        let ended = self.destroyed.load(SeqCst) + self.ended.load(SeqCst);
        self.created.load(SeqCst) + self.begun.load(SeqCst) - ended
    }
}

struct Machine {
    spec: *const Spec,
    applied: Vec<(u64, Vec<u8>)>,
}

struct Frozen {
    spec: *const Spec,
    bytes: Vec<u8>,
    read: usize,
}

fn spec<'a>(pointer: *const Spec) -> &'a Spec {
    // SAFETY: the world keeps every spec until no node is left.
    unsafe { &*pointer }
}

/// How most functions fail.
fn failed(why: *mut raftz_sink, words: &'static [u8]) -> raftz_status {
    documented("raftz_sink_fail", call!(raftz_sink_fail(why, slice(words))));
    RAFTZ_CALLBACK_FAILED
}

unsafe extern "C" fn create(
    user_data: *mut c_void,
    why: *mut raftz_sink,
    machine: *mut *mut c_void,
) -> raftz_status {
    let pointer = user_data.cast_const().cast::<Spec>();
    if spec(pointer).fails(Fault::Create) {
        return failed(why, b"create fails");
    }
    spec(pointer).created.fetch_add(1, SeqCst);
    let made = Box::new(Machine { spec: pointer, applied: Vec::new() });
    // SAFETY: the library gives a place.
    unsafe { machine.write(Box::into_raw(made).cast()) };
    RAFTZ_OK
}

unsafe extern "C" fn destroy(machine: *mut c_void) {
    // SAFETY: what `create` made, given back once.
    let machine = unsafe { Box::from_raw(machine.cast::<Machine>()) };
    spec(machine.spec).destroyed.fetch_add(1, SeqCst);
}

/// Whether a command is one that the machine turns down.
pub(super) fn is_rejected(command: &[u8]) -> bool {
    command.first() == Some(&b'!')
}

unsafe extern "C" fn apply(
    machine: *mut c_void,
    commands: *const raftz_command,
    count: usize,
    replies: *mut raftz_replies,
) -> raftz_status {
    // SAFETY: the machine, from one thread at a time; and so many commands.
    let (machine, commands) =
        unsafe { (&mut *machine.cast::<Machine>(), std::slice::from_raw_parts(commands, count)) };
    for command in commands {
        // SAFETY: it lives until this returns.
        let data = unsafe { bytes(command.data) };
        if machine.applied.last().is_some_and(|(last, _)| *last >= command.index) {
            complain(format!("index {} was applied before", command.index));
        }
        if spec(machine.spec).fails(Fault::Apply) {
            let words = slice(b"apply fails");
            documented("raftz_replies_fail", call!(raftz_replies_fail(replies, words)));
            return RAFTZ_CALLBACK_FAILED;
        }
        let is_rejected = is_rejected(&data);
        spec(machine.spec).truth.applied(command.index, &data);
        machine.applied.push((command.index, data));
        let reply = command.data;
        if spec(machine.spec).fails(Fault::TooFew) {
            continue;
        }
        if spec(machine.spec).fails(Fault::TooMany) {
            documented("raftz_replies_push", call!(raftz_replies_push(replies, reply)));
        }
        if is_rejected {
            documented("raftz_replies_reject", call!(raftz_replies_reject(replies, reply)));
        } else {
            documented("raftz_replies_push", call!(raftz_replies_push(replies, reply)));
        }
    }
    RAFTZ_OK
}

/// The question for the command of an index; its answer is empty where there is none.
pub(super) fn question(index: u64) -> Vec<u8> {
    [&b"at"[..], &index.to_le_bytes()].concat()
}

unsafe extern "C" fn query(
    machine: *mut c_void,
    request: raftz_slice,
    reply: *mut raftz_sink,
) -> raftz_status {
    // SAFETY: the machine, from one thread at a time; the request lives until this returns.
    let (machine, request) = unsafe { (&*machine.cast::<Machine>(), bytes(request)) };
    let write = |bytes: &[u8]| {
        documented("raftz_sink_write", call!(raftz_sink_write(reply, slice(bytes))));
    };
    match (request.as_slice(), request.strip_prefix(b"at")) {
        (b"fail", _) => return failed(reply, b"query fails"),
        (b"reject", _) => {
            write(b"no");
            documented("raftz_sink_reject", call!(raftz_sink_reject(reply)));
        }
        (_, Some(index)) if index.len() == 8 => {
            let index = u64::from_le_bytes(index.try_into().unwrap_or_default());
            if let Ok(at) = machine.applied.binary_search_by_key(&index, |(index, _)| *index) {
                write(&machine.applied[at].1);
            }
        }
        _ => write(&machine.applied.len().to_le_bytes()),
    }
    RAFTZ_OK
}

unsafe extern "C" fn snapshot_begin(
    machine: *mut c_void,
    why: *mut raftz_sink,
    snapshot: *mut *mut c_void,
) -> raftz_status {
    // SAFETY: the machine, from one thread at a time.
    let machine = unsafe { &*machine.cast::<Machine>() };
    if spec(machine.spec).fails(Fault::Begin) {
        return failed(why, b"snapshot_begin fails");
    }
    spec(machine.spec).begun.fetch_add(1, SeqCst);
    let one = |(index, data): &(u64, Vec<u8>)| {
        [&index.to_le_bytes()[..], &data.len().to_le_bytes(), data].concat()
    };
    let bytes = machine.applied.iter().flat_map(one).collect();
    let frozen = Box::new(Frozen { spec: machine.spec, bytes, read: 0 });
    // SAFETY: the library gives a place.
    unsafe { snapshot.write(Box::into_raw(frozen).cast()) };
    RAFTZ_OK
}

unsafe extern "C" fn snapshot_read(snapshot: *mut c_void, piece: *mut raftz_sink) -> raftz_status {
    // SAFETY: what `snapshot_begin` made, from one thread at a time.
    let frozen = unsafe { &mut *snapshot.cast::<Frozen>() };
    if spec(frozen.spec).fails(Fault::Read) {
        return RAFTZ_CALLBACK_FAILED;
    }
    let end = frozen.bytes.len().min(frozen.read + 100);
    let bytes = slice(&frozen.bytes[frozen.read..end]);
    documented("raftz_sink_write", call!(raftz_sink_write(piece, bytes)));
    frozen.read = end;
    RAFTZ_OK
}

unsafe extern "C" fn snapshot_end(snapshot: *mut c_void) {
    // SAFETY: what `snapshot_begin` made, given back once.
    let frozen = unsafe { Box::from_raw(snapshot.cast::<Frozen>()) };
    spec(frozen.spec).ended.fetch_add(1, SeqCst);
}

unsafe extern "C" fn restore(
    machine: *mut c_void,
    source: *mut raftz_source,
    why: *mut raftz_sink,
) -> raftz_status {
    // SAFETY: the machine, from one thread at a time.
    let machine = unsafe { &mut *machine.cast::<Machine>() };
    if spec(machine.spec).fails(Fault::Restore) {
        return failed(why, b"restore fails");
    }
    let (mut all, mut buffer, mut count) = (Vec::new(), [0_u8; 61], 0_usize);
    loop {
        let at = buffer.as_mut_ptr();
        let status = call!(raftz_source_read(source, at, buffer.len(), &raw mut count));
        documented("raftz_source_read", status);
        if status != RAFTZ_OK {
            return status;
        }
        if count == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..count]);
    }
    machine.applied.clear();
    let mut rest = all.as_slice();
    while let Some((head, behind)) = rest.split_at_checked(16) {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let Some((data, behind)) = behind.split_at_checked(number(&head[8..]) as usize) else {
            break;
        };
        spec(machine.spec).truth.applied(number(&head[..8]), data);
        machine.applied.push((number(&head[..8]), data.to_vec()));
        rest = behind;
    }
    if !rest.is_empty() {
        complain(format!("a snapshot came back with {} bytes too many", rest.len()));
    }
    RAFTZ_OK
}
