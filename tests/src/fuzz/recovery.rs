//! Recovery of a data directory. Input: a mode, then what is done to the files of a small sealed log.
//!
//! * One fault within one block, a file cut or removed: everything acknowledged is there, or reported as
//!   damaged, or the directory is refused; term and vote are never others.
//! * Many faults: what is served was written some time; no vote that was never cast.
//! * Forged: every checksum is put right again. Nobody can tell then what was true, but the log that is
//!   served is one, goes on, and stays the same at the next open.
//! * Raw: the input itself as files.
//!
//! The first three work on a log that begins at its beginning, or on one whose base has moved and whose
//! first segments are gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use raftz_core::raft::{Config, Input, Raft};
use raftz_core::storage::wal::{BootstrapSpec, Expect, Wal, WalOptions};
use raftz_core::storage::{Completion, Storage, StorageError};
use raftz_core::types::{
    Base, ClusterId, Entry, EntryKind, GroupId, HardState, Index, LogId, Member, Membership,
    NodeId, Now, Payload, Recovered, Settings, Term, WriteOp,
};

use super::disk::Image;
use super::platter::Platter;
use super::tape::Tape;

const BLOCK: usize = 4096;
const CLUSTER: ClusterId = ClusterId(0xc1);
const OPTIONS: WalOptions = WalOptions { segment_bytes: 1 << 14, reserve_bytes: 0 };
/// Names that a directory may hold; the first four are those of the log that begins at its beginning.
const NAMES: [&str; 9] = [
    "superblock",
    "vote",
    "wal-0000000000000001.log",
    "wal-0000000000000002.log",
    "wal-0000000000000003.log",
    "wal-ffffffffffffffff.log",
    "spare.tmp",
    "formatting.tmp",
    "stray",
];

const ONE_FAULT: u8 = 0;
const MANY_FAULTS: u8 = 1;
const FORGED: u8 = 2;
const RAW: u8 = 3;
/// Added to a mode: of the log whose base has moved.
const MOVED: u8 = 4;

/// What a sealed log holds, and ever held.
struct Truth {
    image: Image,
    base: Base,
    entries: Vec<Entry>,
    hard_state: HardState,
    ever: Vec<Entry>,
    votes: BTreeSet<(Term, Option<NodeId>)>,
}

fn node(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

fn dir() -> &'static Path {
    Path::new("/disk/data")
}

fn open(disk: &Platter) -> Result<(Wal, Recovered), StorageError> {
    let expect = Expect { cluster: CLUSTER, node: node(1) };
    Wal::open(Arc::new(disk.clone()), dir(), expect, OPTIONS)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let mut payload = format!("t{term}i{index}.").into_bytes();
    payload.resize(bytes.max(payload.len()), index as u8);
    Entry {
        term: Term(term),
        index: Index(index),
        log_time_us: 1000 + index,
        kind: EntryKind::Command,
        session: None,
        payload: Payload::new(payload),
    }
}

fn founding() -> Base {
    let members = (1..=3).map(|id| (node(id), Member::at(format!("127.0.0.1:700{id}"))));
    Base::founding(Membership::of_voters(members), Settings::default())
}

fn moved(term: u64, index: u64) -> Base {
    Base { id: LogId::new(Term(term), Index(index)), log_time_us: 1000 + index, ..founding() }
}

/// A small log after `writes` and a clean stop; of what they append, `entries` are left.
fn sealed(writes: Vec<WriteOp>, base: Base, entries: Vec<Entry>) -> Truth {
    let disk = Platter::default();
    let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: node(1), base: founding() };
    Wal::bootstrap(&disk, dir(), &spec, OPTIONS).expect("formats");
    let (mut wal, _) = open(&disk).expect("opens");
    let mut hard_states = vec![HardState::default()];
    hard_states.extend(writes.iter().filter_map(|op| op.hard_state));
    let ever = writes.iter().flat_map(|op| op.entries.iter().cloned()).collect();
    for op in writes {
        submit(&mut wal, op).expect("is written");
    }
    wal.close().expect("is sealed");
    drop(wal);
    let does_without = |path: &Path| path.ends_with("spare.tmp") || path.ends_with("LOCK");
    let image = disk.synced().into_iter().filter(|(path, _)| !does_without(path)).collect();
    Truth {
        image,
        base,
        entries,
        hard_state: hard_states.last().copied().unwrap_or_default(),
        ever,
        votes: hard_states.into_iter().map(|state| (state.term, state.vote)).collect(),
    }
}

fn vote(term: u64, whom: u64) -> Option<HardState> {
    Some(HardState { term: Term(term), vote: NodeId::new(whom) })
}

fn config(index: u64) -> Entry {
    let payload = founding().membership.to_payload().expect("encodes");
    Entry { kind: EntryKind::Membership, payload, ..entry(1, index, 0) }
}

fn append(entries: Vec<Entry>) -> WriteOp {
    WriteOp { entries: entries.into(), ..WriteOp::default() }
}

/// Writes, votes, a truncation and a change of segments.
fn plain() -> Truth {
    let first = vec![entry(1, 1, 90), config(2), entry(1, 3, 90), entry(1, 4, 90)];
    let second = vec![entry(2, 3, 50), entry(2, 4, 900)];
    let last = vec![entry(4, 5, 20)];
    let entries = [&first[..2], &second, &last].concat();
    let writes = vec![
        WriteOp { hard_state: vote(2, 3), ..append(first) },
        WriteOp { truncate_from: Some(Index(3)), ..append(second) },
        WriteOp { hard_state: vote(4, 2), ..WriteOp::default() },
        WriteOp { commit: Index(4), ..append(last) },
    ];
    sealed(writes, founding(), entries)
}

/// The same, and moves of the base: one that lets segments go, one that replaces the log, and one that
/// no checkpoint states.
fn compacted() -> Truth {
    let base = |term, index| Some(Box::new(moved(term, index)));
    let mut writes: Vec<WriteOp> = (1..=7).map(|i| append(vec![entry(1, i, 90)])).collect();
    writes.push(WriteOp { hard_state: vote(2, 3), base: base(1, 6), ..WriteOp::default() });
    writes.push(append(vec![entry(2, 8, 90), config(9)]));
    writes.push(WriteOp {
        hard_state: vote(4, 2),
        base: base(3, 9),
        ..append(vec![entry(4, 10, 9)])
    });
    writes.push(append(vec![entry(4, 11, 20), entry(4, 12, 20)]));
    let last = vec![entry(5, 12, 30), config(13), entry(5, 14, 30)];
    writes.push(WriteOp {
        hard_state: vote(5, 1),
        truncate_from: Some(Index(12)),
        base: base(4, 11),
        ..append(last.clone())
    });
    sealed(writes, moved(4, 11), last)
}

fn truth(is_moved: bool) -> &'static Truth {
    static TRUTHS: [OnceLock<Truth>; 2] = [const { OnceLock::new() }; 2];
    TRUTHS[usize::from(is_moved)].get_or_init(|| if is_moved { compacted() } else { plain() })
}

fn submit(wal: &mut Wal, op: WriteOp) -> Result<(), StorageError> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let done = Completion::new(move |fate| sender.send(fate).unwrap());
    wal.submit(vec![(GroupId::FIRST, op)], done);
    receiver.try_recv().expect("this log blocks")
}

fn all(wal: &Wal, recovered: &Recovered) -> Vec<Entry> {
    try_all(wal, recovered).expect("what was recovered can be read")
}

fn try_all(wal: &Wal, recovered: &Recovered) -> Result<Vec<Entry>, StorageError> {
    let (first, last) = (recovered.base.id.index.next(), recovered.last.index);
    if last < first {
        return Ok(Vec::new());
    }
    let entries = wal.reader().read(GroupId::FIRST, first, last, u64::MAX)?;
    assert_eq!(entries.len() as u64, recovered.base.id.index.distance_to(last));
    assert!(entries.iter().zip(first.0..).all(|(entry, index)| entry.index.0 == index));
    assert_eq!(entries.last().map(Entry::id), Some(recovered.last));
    Ok(entries)
}

pub(super) fn check(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mode = tape.byte();
    let truth = truth(mode & MOVED != 0);
    match mode % 4 {
        ONE_FAULT => one_fault(truth, &mut tape),
        MANY_FAULTS => many_faults(truth, &mut tape),
        FORGED => forged(truth, &mut tape),
        _ => raw(&mut tape),
    }
}

// ---- one fault ----

fn one_fault(truth: &Truth, tape: &mut Tape<'_>) {
    let mut image = truth.image.clone();
    let path = image.keys().nth(tape.below(image.len())).cloned().unwrap();
    let bytes = Arc::make_mut(image.get_mut(&path).unwrap());
    match tape.below(4) {
        0 => {
            image.remove(&path);
        }
        1 => bytes.truncate(tape.place(bytes.len())),
        2 => {
            let at = tape.place(bytes.len() / BLOCK) * BLOCK;
            let end = bytes.len().min(at + BLOCK);
            bytes[at..end].fill(tape.byte());
        }
        _ => {
            // Within one device block: more at once is more than one fault.
            let at = tape.place(bytes.len());
            let room = BLOCK - at % BLOCK;
            let with = tape.take(room);
            let end = bytes.len().min(at + with.len());
            bytes[at..end].copy_from_slice(&with[..end - at]);
        }
    }
    let disk = Platter::holding(&image);
    if is_damaged(truth, &disk) {
        assert!(is_damaged(truth, &disk), "the damage was forgotten");
    }
}

/// Opens, checks what must hold after one fault, and tells whether something is reported as lost.
fn is_damaged(truth: &Truth, disk: &Platter) -> bool {
    let (wal, recovered) = match open(disk) {
        Ok(opened) => opened,
        Err(StorageError::Corrupt { .. } | StorageError::HardStateLost { .. }) => return false,
        Err(error) => panic!("neither opened nor named: {error}"),
    };
    assert_eq!(recovered.hard_state, truth.hard_state, "the vote changed");
    let base = &recovered.base;
    assert!(base.id < truth.base.id || *base == truth.base, "the base changed");
    // Where the move of the base is lost there may be older entries, too.
    let mut read = all(&wal, &recovered);
    read.retain(|entry| entry.index > truth.base.id.index);
    assert!(truth.entries.starts_with(&read), "entries changed");
    let last = truth.entries.last().map(Entry::id);
    let Some(damage) = recovered.damage else {
        assert_eq!(Some(recovered.last), last, "silently cut");
        return false;
    };
    assert_eq!(damage.first_faulty, recovered.last.index.next());
    assert!(damage.lost.last_known.is_none_or(|known| Some(known) == last));
    assert!(!recovered.notes.is_empty());
    true
}

// ---- many faults ----

fn many_faults(truth: &Truth, tape: &mut Tape<'_>) {
    let mut image = truth.image.clone();
    break_it(&mut image, tape);
    let disk = Platter::holding(&image);
    for _ in 0..2 {
        let Ok((wal, recovered)) = open(&disk) else { return };
        let vote = (recovered.hard_state.term, recovered.hard_state.vote);
        assert!(truth.votes.contains(&vote), "a vote that nobody cast: {vote:?}");
        for entry in all(&wal, &recovered) {
            assert!(truth.ever.contains(&entry), "an entry that nobody wrote: {}", entry.id());
        }
    }
}

fn break_it(image: &mut Image, tape: &mut Tape<'_>) {
    for _ in 0..=tape.below(8) {
        let Some(path) = image.keys().nth(tape.below(image.len().max(1))).cloned() else { return };
        let other = dir().join(NAMES[tape.below(NAMES.len())]);
        let source = image.get(&other).cloned().unwrap_or_default();
        let bytes = Arc::make_mut(image.get_mut(&path).unwrap());
        let at = tape.place(bytes.len() + 1);
        match tape.below(8) {
            0 => {
                image.remove(&path);
            }
            1 => bytes.truncate(at),
            2 => bytes.resize(at + tape.place(4 * BLOCK), tape.byte()),
            3 => {
                let end = bytes.len().min(at + tape.place(2 * BLOCK));
                bytes[at..end].fill(0);
            }
            4 => {
                let copy = Arc::new(bytes.clone());
                image.insert(other, copy);
            }
            // Blocks of one file in the place of others.
            5 => {
                let from = tape.place(source.len() / BLOCK + 1) * BLOCK;
                let to = at / BLOCK * BLOCK;
                let source = source.get(from..).unwrap_or_default();
                let count = source.len().min(bytes.len() - to).min(BLOCK);
                bytes[to..to + count].copy_from_slice(&source[..count]);
            }
            6 => {
                let with = tape.number().to_le_bytes();
                let end = bytes.len().min(at + with.len());
                bytes[at..end].copy_from_slice(&with[..end - at]);
            }
            _ => {
                let count = 1 + tape.below(16);
                let with = tape.take(count);
                let end = bytes.len().min(at + with.len());
                bytes[at..end].copy_from_slice(&with[..end - at]);
            }
        }
    }
}

// ---- forged ----

fn forged(truth: &Truth, tape: &mut Tape<'_>) {
    let mut image = truth.image.clone();
    break_it(&mut image, tape);
    reseal(&mut image);
    goes_on(&Platter::holding(&image));
}

/// Puts every checksum right that stands where one belongs.
fn reseal(image: &mut Image) {
    for (path, bytes) in image {
        let bytes = Arc::make_mut(bytes);
        if path.extension().is_none_or(|extension| extension != "log") {
            for slot in bytes.chunks_exact_mut(BLOCK).take(2) {
                seal(slot);
            }
            continue;
        }
        if let Some(header) = bytes.get_mut(..BLOCK) {
            seal(header);
        }
        for at in (BLOCK..bytes.len().saturating_sub(63)).step_by(BLOCK) {
            let length = u64::from_le_bytes(bytes[at + 32..at + 40].try_into().unwrap());
            let is_batch = bytes[at..].starts_with(b"rzbatch1");
            let end = at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            if is_batch && length >= 64 && end <= bytes.len() {
                seal(&mut bytes[at..end]);
            }
        }
    }
}

fn seal(unit: &mut [u8]) {
    unit[8..12].fill(0);
    let crc = crc32c::crc32c(unit);
    unit[8..12].copy_from_slice(&crc.to_le_bytes());
}

// ---- raw ----

fn raw(tape: &mut Tape<'_>) {
    let mut image = Image::new();
    let flags = tape.byte();
    for _ in 0..tape.below(5) {
        let path: PathBuf = dir().join(NAMES[tape.below(NAMES.len())]);
        let length = tape.place(1 << 14);
        let mut bytes = tape.take(length).to_vec();
        if flags & 1 != 0 {
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        image.insert(path, Arc::new(bytes));
    }
    if flags & 2 != 0 {
        reseal(&mut image);
    }
    goes_on(&Platter::holding(&image));
}

/// Whatever opens is a log that can be read, that a core can live with, that takes another entry, and
/// that the next open finds unchanged.
fn goes_on(disk: &Platter) {
    let Ok((mut wal, recovered)) = open(disk) else { return };
    awaken(&recovered);
    let mut entries = match try_all(&wal, &recovered) {
        Ok(entries) => entries,
        // A payload has a checksum of its own, which is not looked at before it is read.
        Err(StorageError::Corrupt { .. }) => return,
        Err(error) => panic!("neither read nor named: {error}"),
    };
    let Recovered { hard_state, base, last, .. } = recovered;
    let next = Entry { log_time_us: recovered.last_log_time_us, ..entry(0, 0, 10) };
    let next = Entry { term: last.term, index: last.index.next(), ..next };
    if submit(&mut wal, WriteOp { entries: vec![next.clone()].into(), ..WriteOp::default() })
        .is_ok()
    {
        entries.push(next);
    }
    drop(wal);
    let (wal, again) = open(disk).expect("what opened once opens again");
    assert_eq!((again.hard_state, again.base.clone()), (hard_state, base));
    let held = all(&wal, &again);
    let ids = |entries: &[Entry]| entries.iter().map(Entry::id).collect::<Vec<_>>();
    assert!(held == entries, "{:?}, then {:?}", ids(&entries), ids(&held));
}

/// The core starts on it, and neither time nor a campaign stops it.
fn awaken(recovered: &Recovered) {
    let now = Now { boot_us: 1_000_000, wall_us: 2_000_000 };
    let config = Config::new(recovered.identity.node, recovered.identity.disk);
    let mut raft = Raft::new(config, recovered, now, 7);
    let mut actions = Vec::new();
    for input in [Input::Tick, Input::Campaign] {
        raft.step(now.plus_us(10_000_000), input, &mut actions);
    }
    let _ = (raft.status(), raft.fingerprint(), raft.next_deadline());
}

pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    let seed = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let block = |file: u8, block: u8, how: u8| [ONE_FAULT, file, how, block, 0, 0, 0];
    let mut seeds = Vec::new();
    for (file, name) in ["superblock", "vote", "first-segment", "second-segment"].iter().enumerate()
    {
        let file = file as u8;
        seeds.push(seed(&format!("{name}-removed"), &[ONE_FAULT, file, 0]));
        seeds.push(seed(&format!("{name}-cut"), &[ONE_FAULT, file, 1, 0, 16, 0]));
        for at in 0..2 {
            seeds.push(seed(&format!("{name}-block-{at}"), &block(file, at, 2)));
        }
        // A few bytes in the first batch or slot.
        seeds.push(seed(&format!("{name}-bytes"), &[ONE_FAULT, file, 3, 40, 16, 0, 1, 2, 3, 4]));
        // A number of a header replaced, checksums right: file, other, place, what, number.
        for at in [16u8, 24, 32, 40, 48] {
            for (value, number) in [("max", 195), ("zero", 0), ("sane", 210)] {
                let name = format!("forged-{name}-{at}-{value}");
                seeds.push(seed(&name, &[FORGED, 0, file, 8, at, 0, 0, 6, number]));
            }
        }
    }
    // The same faults in each block of the log whose base has moved.
    for (file, path) in truth(true).image.keys().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap();
        seeds.push(seed(&format!("moved-{name}-removed"), &[MOVED | ONE_FAULT, file as u8, 0]));
        for at in 0..4 {
            let block = [MOVED | ONE_FAULT, file as u8, 2, at, 0, 0, 0];
            seeds.push(seed(&format!("moved-{name}-block-{at}"), &block));
        }
        let forged = [MOVED | FORGED, 0, file as u8, 8, 200, 16, 0, 6, 3];
        seeds.push(seed(&format!("moved-{name}-forged"), &forged));
    }
    seeds.push(seed("intact", &[MANY_FAULTS, 0, 0, 8, 255, 255, 255, 7]));
    seeds.push(seed("segments-exchanged", &[MANY_FAULTS, 1, 2, 3, 0, 0, 0, 4, 3, 2, 0, 0, 0, 4]));
    let mut all_files = vec![RAW, 3, 4];
    for (path, bytes) in &truth(false).image {
        let name = path.file_name().unwrap().to_str().unwrap();
        let place = NAMES.iter().position(|known| *known == name).unwrap();
        // Enough for headers and first batches; the rest reads as zeros.
        let kept = &bytes[..bytes.len().min(2 * BLOCK)];
        all_files.extend([place as u8, kept.len() as u8, (kept.len() >> 8) as u8, 0]);
        all_files.extend_from_slice(kept);
    }
    seeds.push(("raw-files".into(), all_files));
    seeds
}
