//! Every later version opens what format 1 wrote, or refuses it naming both versions.

use std::path::Path;
use std::sync::Arc;

use raftz_core::storage::StorageError;
use raftz_core::storage::vfs::RealVfs;
use raftz_core::storage::wal::{Expect, Wal};

use crate::golden_content as golden;
use crate::support::*;

fn golden_files() -> Vec<(String, Vec<u8>)> {
    files_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/data-v1"))
}

fn copy_of_golden() -> Dir {
    Dir::holding(&golden_files())
}

fn expect() -> Expect {
    Expect { cluster: golden::CLUSTER, node: golden::node() }
}

#[test]
fn the_golden_directory_of_format_1_opens_with_every_entry_and_the_vote() {
    let dir = copy_of_golden();
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
    let dir = copy_of_golden();
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
    let dir = Dir::empty();
    golden::generate(&dir.path);
    for ((name, written), (golden_name, golden)) in dir.files().iter().zip(golden_files()) {
        assert_eq!(*name, golden_name);
        if name == "vote" {
            assert_eq!(written.len(), golden.len());
            continue;
        }
        let first = written.iter().zip(&golden).position(|(a, b)| a != b);
        assert_eq!((first, written.len()), (None, golden.len()), "{name}");
    }
    assert_eq!(dir.files().len(), golden_files().len());
}
