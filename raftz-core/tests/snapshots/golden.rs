//! Every later version reads the snapshots that format 1 wrote, or refuses them naming both versions.
//! `RAFTZ_WRITE_GOLDEN=1` writes the files that are missing; those that are there are never changed.

use std::path::Path;

use raftz_core::storage::snapshot::SnapshotStore;

use crate::support::*;

#[test]
fn the_golden_snapshots_of_format_1_are_read_and_written_byte_for_byte() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/snapshots-v1");
    for (index, bytes) in [(1000, 0), (2000, (64 << 10) + 100)] {
        let sample = sample(index, bytes);
        let name = file_of(&sample.snapshot.id);
        let path = golden.join(name.file_name().unwrap());
        if !path.exists() && std::env::var_os("RAFTZ_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(&golden).unwrap();
            std::fs::write(&path, &sample.file).unwrap();
        }
        let file =
            std::fs::read(&path).expect("the name holds the hash: another hash, another name");
        assert!(file == sample.file, "{}", path.display());
        let store = open(&holding([(name, file)])).unwrap();
        assert_eq!(store.list(GROUP).unwrap(), std::slice::from_ref(&sample.snapshot));
        store.check(GROUP, &sample.snapshot.id, &mut |_| true).unwrap();
        assert_eq!(read(&store, &sample.snapshot.id).0, sample.machine);
    }
}
