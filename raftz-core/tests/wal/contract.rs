//! The log on disk keeps the contract of a store, whatever the size of its segments.

use raftz_core::storage::Storage;
use raftz_core::storage::conformance::{Subject, run};
use raftz_core::types::Recovered;

use crate::support::*;

struct OnDisk {
    dir: Dir,
    segment_bytes: u64,
}

impl Subject for OnDisk {
    fn open(&mut self) -> Result<(Box<dyn Storage>, Recovered), String> {
        let (wal, recovered) =
            self.dir.try_open(self.segment_bytes).map_err(|error| error.to_string())?;
        Ok((Box::new(wal), recovered))
    }
}

#[test]
fn the_log_on_disk_keeps_the_contract() {
    for segment_bytes in [1 << 14, 1 << 17, 1 << 23] {
        let mut subject = OnDisk { dir: Dir::formatted(segment_bytes), segment_bytes };
        assert_eq!(run(&mut subject), [], "with segments of {segment_bytes} bytes");
    }
}
