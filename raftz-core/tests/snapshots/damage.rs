//! Every byte flipped, every length, every wrong name: reported or refused, and no wrong byte given.

use raftz_core::storage::StorageError;
use raftz_core::storage::snapshot::SnapshotStore;
use raftz_core::types::{Index, LogId, SnapshotId, Term};

use crate::support::*;

const HEADER: usize = 32;
const CHUNK: usize = HEADER + (64 << 10);
const END: usize = HEADER + 16;

/// Opens a store with this file under the name of `id`: it must be refused or reported wherever it is
/// touched, and whatever is given must be of the true bytes.
fn judge(sample: &Sample, id: &SnapshotId, file: Vec<u8>, what: &str) {
    let disk = holding([(file_of(id), file)]);
    let store = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let listed = store.list(GROUP).unwrap();
    assert_eq!(store.notes().len() + listed.len(), 1, "{what}: {:?}", store.notes());
    let path = file_of(id).display().to_string();
    assert!(store.notes().iter().all(|note| note.contains(&path)), "{what}: {:?}", store.notes());
    let fate = store.check(GROUP, id, &mut |_| true);
    assert!(matches!(fate, Err(StorageError::Corrupt { .. })), "{what}: {fate:?}");
    let (bytes, fate) = read(&store, id);
    let error = fate.expect_err(what).to_string();
    assert!(error.contains(&path) && error.contains("at byte"), "{what}: {error}");
    assert!(sample.machine.starts_with(&bytes), "{what}: wrong bytes");
    for at in [0, sample.file.len() / 2, sample.file.len().saturating_sub(9)] {
        if let Ok(piece) = store.read_piece(GROUP, id, at as u64, 64) {
            assert!(sample.file[at..].starts_with(&piece), "{what}: a wrong piece");
        }
    }
    // It is no hindrance to receiving the right one, nor does it outlive it.
    let mut intake = store.receive(GROUP, &sample.snapshot.id).unwrap();
    assert_eq!(intake.held_bytes(), 0, "{what}");
    intake.write(&sample.file).unwrap();
    assert_eq!(intake.finish().unwrap(), sample.snapshot);
    store.retain(GROUP, 1).unwrap();
    if listed.is_empty() && id.last <= sample.snapshot.id.last {
        let left: Vec<_> = disk.synced().into_keys().collect();
        assert_eq!(left, [file_of(&sample.snapshot.id)], "{what}");
    }
    let (bytes, fate) = read(&store, &sample.snapshot.id);
    assert!(fate.is_ok() && bytes == sample.machine, "{what}, received");
}

#[test]
fn every_flipped_byte_is_found_and_none_is_given() {
    let sample = sample(5, 300);
    for at in 0..sample.file.len() {
        for mask in [1, 0x80, 0xff] {
            let mut file = sample.file.clone();
            file[at] ^= mask;
            judge(&sample, &sample.snapshot.id, file, &format!("byte {at} ^ {mask:#x}"));
        }
    }
}

#[test]
fn every_other_length_is_found_also_where_the_name_says_so() {
    let sample = sample(5, 300);
    let longer = [1, 31, 32, 33, 48, 5000].map(|more| sample.file.len() + more);
    for length in (0..sample.file.len()).chain(longer) {
        let mut file = sample.file.clone();
        file.resize(length, 0);
        let what = format!("{length} of {} bytes", sample.file.len());
        judge(&sample, &sample.snapshot.id, file.clone(), &what);
        let id = SnapshotId { bytes: length as u64, ..sample.snapshot.id };
        judge(&sample, &id, file, &format!("{what}, and so named"));
    }
}

#[test]
fn a_name_that_lies_is_found() {
    let sample = sample(5, 300);
    let id = sample.snapshot.id;
    let mut hash = id.hash;
    hash[31] ^= 1;
    let lies = [
        SnapshotId { hash, ..id },
        SnapshotId { bytes: id.bytes + 1, ..id },
        SnapshotId { last: LogId::new(Term(2), Index(4)), ..id },
        SnapshotId { last: LogId::new(Term(1), Index(5)), ..id },
        SnapshotId { last: LogId::new(Term(2), Index(6)), ..id },
    ];
    for lie in lies {
        judge(&sample, &lie, sample.file.clone(), &format!("{lie:?}"));
    }
}

#[test]
fn chunks_that_are_sound_in_another_place_are_found() {
    let sample = sample(5, 200_000);
    let head = sample.file.len() - END - (200_000 + 4 * HEADER);
    let chunk = |n: usize| head + n * CHUNK..head + (n + 1) * CHUNK;
    let mut swapped = sample.file.clone();
    swapped[chunk(0)].copy_from_slice(&sample.file[chunk(1)]);
    swapped[chunk(1)].copy_from_slice(&sample.file[chunk(0)]);
    judge(&sample, &sample.snapshot.id, swapped, "swapped");
    let mut twice = sample.file.clone();
    twice[chunk(2)].copy_from_slice(&sample.file[chunk(1)]);
    judge(&sample, &sample.snapshot.id, twice, "twice");
    // The same chunk of another snapshot is sound in itself: only the whole tells.
    let other = crate::support::sample(6, 200_000);
    let mut spliced = sample.file.clone();
    spliced[chunk(1)].copy_from_slice(&other.file[chunk(1)]);
    let store = open(&holding([(file_of(&sample.snapshot.id), spliced)])).unwrap();
    let fate = store.check(GROUP, &sample.snapshot.id, &mut |_| true);
    assert!(matches!(fate, Err(StorageError::Corrupt { .. })), "{fate:?}");
    assert!(read(&store, &sample.snapshot.id).1.is_err(), "its end is not given");
}

#[test]
fn rot_is_told_by_who_has_it_and_not_sent() {
    let sample = sample(5, 200_000);
    let head = sample.file.len() - END - (200_000 + 4 * HEADER);
    let mut file = sample.file.clone();
    file[head + CHUNK + 5000] ^= 4;
    let store = open(&holding([(file_of(&sample.snapshot.id), file)])).unwrap();
    let id = &sample.snapshot.id;
    assert_eq!(store.list(GROUP).unwrap(), std::slice::from_ref(&sample.snapshot));
    let second = head + CHUNK..head + 2 * CHUNK;
    for at in (0..sample.file.len()).step_by(4999) {
        let upto = (at + 10_000).min(sample.file.len());
        match store.read_piece(GROUP, id, at as u64, 10_000) {
            Ok(piece) => {
                assert!(piece == sample.file[at..upto]);
                assert!(upto <= second.start || second.end <= at, "{at}");
            }
            Err(StorageError::Corrupt { offset, .. }) => {
                assert_eq!(offset, second.start as u64);
                assert!(at < second.end && second.start < upto, "{at}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn with_head(sample: &Sample, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = sample.file.clone();
    let head = file.len() - END - sample.machine.len() - HEADER;
    change(&mut file[..head]);
    file[8..12].fill(0);
    let crc = crc32c::crc32c(&file[..head]);
    file[8..12].copy_from_slice(&crc.to_le_bytes());
    file
}

#[test]
fn a_later_format_another_cluster_epoch_or_group_is_refused_by_name() {
    let sample = sample(5, 300);
    let id = &sample.snapshot.id;
    let open_with = |change: &dyn Fn(&mut [u8])| {
        let disk = holding([(file_of(id), with_head(&sample, change))]);
        open(&disk).map(|_| ()).unwrap_err()
    };
    let error = open_with(&|head| head[32..40].copy_from_slice(&[9, 0, 0, 0, 2, 0, 0, 0]));
    assert!(matches!(error, StorageError::TooNew { found: 9, known: 1, .. }), "{error}");
    for at in [40, 56, 64] {
        let error = open_with(&|head| head[at] ^= 1);
        assert!(matches!(error, StorageError::WrongOwner { .. }), "{error}");
    }
    // A later writer whose files this version reads.
    let file = with_head(&sample, |head| head[32] = 9);
    let id = SnapshotId { hash: *blake3::hash(&file).as_bytes(), ..*id };
    let store = open(&holding([(file_of(&id), file)])).unwrap();
    assert_eq!(read(&store, &id).0, sample.machine);
}
