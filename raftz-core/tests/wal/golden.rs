//! Every later version opens what format 1 wrote, or refuses it naming both versions.

use std::path::Path;
use std::sync::Arc;

use raftz_core::storage::StorageError;
use raftz_core::storage::vfs::RealVfs;
use raftz_core::storage::wal::{Expect, Wal};
use raftz_core::types::{Base, Index, LogId, Term, WriteOp};

use crate::golden_content as golden;
use crate::support::*;

/// The plain directory, and one whose base has moved.
const PLAIN: &str = "data-v1";
const MOVED: &str = "data-v1-base";

fn golden_files(name: &str) -> Vec<(String, Vec<u8>)> {
    files_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name))
}

fn writes_of(name: &str) -> Vec<WriteOp> {
    if name == MOVED { golden::moving_writes() } else { golden::writes() }
}

fn copy_of_golden(name: &str) -> Dir {
    Dir::holding(&golden_files(name))
}

fn expect() -> Expect {
    Expect { cluster: golden::CLUSTER, node: golden::node() }
}

#[test]
fn the_golden_directory_of_format_1_opens_with_every_entry_and_the_vote() {
    let dir = copy_of_golden(PLAIN);
    let total: usize = dir.files().iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(total < 200 << 10, "{total}");
    let options = tiny(golden::SEGMENT_BYTES);
    let (wal, recovered) =
        Wal::open(Arc::new(RealVfs), &dir.path, expect(), options).expect("opens");
    assert_eq!(recovered.identity.disk.0, golden::DISK);
    assert_eq!(recovered.identity.founders_hash, golden::base().founders_hash());
    assert_eq!(recovered.boot.0, 2);
    assert_eq!(recovered.hard_state, golden::hard_state());
    assert_eq!(recovered.base, golden::base());
    assert_eq!(recovered.commit, golden::commit());
    assert_eq!(recovered.config_entries, golden::entries()[6..7]);
    assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{recovered:?}");
    assert_eq!(all(&wal, &recovered), golden::entries());
}

#[test]
fn the_golden_directory_with_a_later_format_is_refused_naming_both_versions() {
    let dir = copy_of_golden(PLAIN);
    raise_format(&dir.path, 7);
    let error = Wal::open(Arc::new(RealVfs), &dir.path, expect(), tiny(golden::SEGMENT_BYTES))
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, StorageError::TooNew { found: 7, known: 1, .. }), "{error}");
}

/// The vote file has the same layout, which `hard_state.rs` holds, but how often its slots are
/// written is no matter of the format.
#[test]
fn the_same_writes_still_make_the_golden_log_and_superblock_byte_for_byte() {
    for which in [PLAIN, MOVED] {
        let dir = Dir::empty();
        golden::generate(&dir.path, writes_of(which));
        let files = golden_files(which);
        for ((name, written), (golden_name, golden)) in dir.files().iter().zip(&files) {
            assert_eq!(name, golden_name);
            if name == "vote" {
                assert_eq!(written.len(), golden.len());
                continue;
            }
            let first = written.iter().zip(golden).position(|(a, b)| a != b);
            assert_eq!((first, written.len()), (None, golden.len()), "{which}: {name}");
        }
        assert_eq!(dir.files().len(), files.len());
    }
}

#[test]
fn the_golden_directory_whose_base_has_moved_opens_without_the_segments_that_are_gone() {
    let dir = copy_of_golden(MOVED);
    let names: Vec<String> = dir.files().into_iter().map(|(name, _)| name).collect();
    assert!(!names.iter().any(|name| name == "wal-0000000000000001.log"), "{names:?}");
    let options = tiny(golden::SEGMENT_BYTES);
    let (wal, recovered) =
        Wal::open(Arc::new(RealVfs), &dir.path, expect(), options).expect("opens");
    let id = LogId::new(Term(3), Index(37));
    assert_eq!(recovered.base, Base { id, ..golden::moved_base(37) });
    assert_eq!(recovered.hard_state, golden::hard_state());
    assert_eq!(recovered.commit, Index(37));
    assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{recovered:?}");
    assert_eq!(all(&wal, &recovered), golden::entries_behind_base());
}
