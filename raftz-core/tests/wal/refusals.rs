//! Directories that are not opened or not formatted, and what is said about it.

use std::sync::Arc;

use raftz_core::storage::StorageError;
use raftz_core::storage::vfs::RealVfs;
use raftz_core::storage::wal::{Expect, JoinSpec, Wal};
use raftz_core::types::{Base, ClusterId};

use crate::support::*;

const SEGMENT: u64 = 1 << 14;

fn refusal(dir: &Dir, expect: Expect) -> StorageError {
    Wal::open(Arc::new(RealVfs), &dir.path, expect, tiny(SEGMENT)).map(|_| ()).unwrap_err()
}

#[test]
fn a_second_open_is_refused_while_the_first_lives() {
    let dir = Dir::formatted(SEGMENT);
    let (wal, _) = dir.open(SEGMENT);
    assert!(matches!(refusal(&dir, owner()), StorageError::Locked { .. }));
    drop(wal);
    dir.open(SEGMENT);
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused_and_untouched() {
    let dir = Dir::formatted(SEGMENT);
    let before = dir.files();
    for expect in [Expect { node: node(2), ..owner() }, Expect { cluster: ClusterId(9), ..owner() }]
    {
        let error = refusal(&dir, expect);
        assert!(matches!(error, StorageError::WrongOwner { .. }), "{error}");
        assert!(error.to_string().contains("belongs to node 1 of cluster"), "{error}");
    }
    assert_eq!(dir.files(), before);
}

#[test]
fn only_an_empty_directory_is_formatted() {
    let dir = Dir::formatted(SEGMENT);
    let before = dir.files();
    let again = dir.bootstrap(&RealVfs, SEGMENT).unwrap_err();
    assert!(matches!(again, StorageError::NotEmpty { .. }), "{again}");
    assert_eq!(dir.files(), before);
    let other = Dir::holding(&[("notes.txt".into(), b"mine".to_vec())]);
    let error = other.bootstrap(&RealVfs, SEGMENT).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(other.files(), [("notes.txt".to_string(), b"mine".to_vec())]);
    // Nor does a name that resembles one of ours make a file a leftover.
    let other = Dir::holding(&[("thesis.tmp".into(), b"mine".to_vec())]);
    let error = other.bootstrap(&RealVfs, SEGMENT).unwrap_err();
    assert!(error.to_string().contains("thesis.tmp"), "{error}");
    assert_eq!(other.files(), [("thesis.tmp".to_string(), b"mine".to_vec())]);
    // A directory that lost its superblock is not an empty one.
    std::fs::remove_file(dir.path.join("superblock")).unwrap();
    let error = dir.bootstrap(&RealVfs, SEGMENT).unwrap_err();
    assert!(matches!(error, StorageError::NotEmpty { .. }), "{error}");
}

#[test]
fn open_never_formats() {
    let dir = Dir::empty();
    assert!(!Wal::is_formatted(&RealVfs, &dir.path).unwrap());
    let error = refusal(&dir, owner());
    assert!(matches!(error, StorageError::NotFormatted { .. }), "{error}");
    assert!(!dir.path.exists());
    std::fs::create_dir(&dir.path).unwrap();
    assert!(matches!(refusal(&dir, owner()), StorageError::NotFormatted { .. }));
    dir.bootstrap(&RealVfs, SEGMENT).unwrap();
    assert!(Wal::is_formatted(&RealVfs, &dir.path).unwrap());
}

#[test]
fn a_newer_format_is_refused_naming_both_versions() {
    let dir = Dir::formatted(SEGMENT);
    raise_format(&dir.path, 2);
    let before = dir.files();
    let error = refusal(&dir, owner());
    assert!(matches!(error, StorageError::TooNew { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("format 2 is newer than format 1"), "{error}");
    assert_eq!(dir.files(), before);
}

#[test]
fn a_missing_parent_is_named() {
    let dir = Dir::empty();
    let mut deep = dir;
    deep.path.push("no/such");
    let error = deep.bootstrap(&RealVfs, SEGMENT).unwrap_err();
    assert!(error.to_string().contains("no/such"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    // Root may write anything, permissions or not; the process file system takes nothing.
    let spec = raftz_core::storage::wal::BootstrapSpec {
        cluster: CLUSTER,
        epoch: 0,
        node: node(1),
        base: base(),
    };
    let path = std::path::Path::new("/proc/self/fdinfo");
    let error = Wal::bootstrap(&RealVfs, path, &spec, tiny(SEGMENT)).map(|_| ()).unwrap_err();
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
    assert!(error.to_string().contains("/proc/self/fdinfo"), "{error}");
}

#[test]
fn a_newcomer_is_formatted_without_membership() {
    let dir = Dir::empty();
    let spec = JoinSpec { cluster: CLUSTER, epoch: 3, node: node(1) };
    let identity = Wal::join(&RealVfs, &dir.path, &spec, tiny(SEGMENT)).unwrap();
    let (_, recovered) = dir.open(SEGMENT);
    assert_eq!(recovered.identity, identity);
    assert_eq!(identity.founders_hash, 0);
    assert_eq!(recovered.base, Base::default());
}

#[test]
fn two_directories_have_different_disk_ids() {
    let ids = [0, 1].map(|_| Dir::formatted(SEGMENT).open(SEGMENT).1.identity.disk);
    assert_ne!(ids[0], ids[1]);
}
