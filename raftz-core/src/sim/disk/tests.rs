#![allow(clippy::unwrap_used, clippy::panic)]
//! Each claim of the disk, and a write-ahead log on it.

mod log;

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::inode::SECTOR;
use super::{DiskCounts, DiskFaults, Rot, SimDisk};
use crate::sim::choice::{Choices, Stream};
use crate::storage::vfs::{OpenMode, Vfs, VfsFile};

const FILE: &str = "/d/wal-1";
const ALWAYS: u32 = 1_000_000;

fn new(seed: u64) -> SimDisk {
    let disk = SimDisk::new(Choices::seeded(seed).stream(Stream::Disk(1)));
    disk.make_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn open(disk: &SimDisk, path: &str) -> Arc<dyn VfsFile> {
    disk.open(Path::new(path), OpenMode::Keep).unwrap()
}

fn write(file: &Arc<dyn VfsFile>, bytes: &[u8], at: usize) -> io::Result<()> {
    // In two pieces, the first of which ends inside a sector.
    let (head, tail) = bytes.split_at(bytes.len() / 3);
    file.write_at(&mut [IoSlice::new(head), IoSlice::new(tail)], at as u64)
}

fn read(file: &Arc<dyn VfsFile>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn content(disk: &SimDisk, path: &str) -> Vec<u8> {
    read(&disk.open(Path::new(path), OpenMode::Existing).unwrap())
}

/// A disk with one durable file.
fn with_file(seed: u64, bytes: &[u8]) -> (SimDisk, Arc<dyn VfsFile>) {
    let disk = new(seed);
    let file = open(&disk, FILE);
    write(&file, bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    (disk, file)
}

fn is(error: &io::Error, kind: io::ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..500 {
        let (disk, file) = with_file(seed, &[1; 3000]);
        write(&file, &[2; 1000], 2000).unwrap();
        file.sync_data().unwrap();
        // Unsynced changes beside and in other files change nothing of it.
        write(&file, &[3; 2000], 6 * SECTOR).unwrap();
        write(&open(&disk, "/d/other"), &[4; 900], 0).unwrap();
        disk.power_cut();
        let bytes = content(&disk, FILE);
        assert!(bytes.len() >= 3000);
        assert!(bytes[..2000].iter().all(|byte| *byte == 1), "seed {seed}");
        assert!(bytes[2000..3000].iter().all(|byte| *byte == 2), "seed {seed}");
        assert_eq!(disk.unsynced_operations(), 0);
        disk.power_cut();
        assert_eq!(content(&disk, FILE), bytes, "a second cut finds the disk at rest");
    }
}

#[test]
fn unsynced_sectors_are_kept_lost_or_garbled_each_for_itself() {
    let mut seen = BTreeSet::new();
    let (mut lengths, mut mixed, mut counts) = (BTreeSet::new(), 0, DiskCounts::default());
    for seed in 0..400 {
        let (disk, file) = with_file(seed, &[1; 4 * SECTOR]);
        write(&file, &[2; 2 * SECTOR], SECTOR).unwrap();
        write(&file, &[3; 4 * SECTOR], 2 * SECTOR).unwrap();
        assert_eq!(disk.unsynced_operations(), 2);
        disk.power_cut();
        let bytes = content(&disk, FILE);
        assert_eq!(bytes[..SECTOR], [1; SECTOR], "untouched");
        lengths.insert(bytes.len());
        let kinds: Vec<u8> = bytes
            .chunks(SECTOR)
            .map(|sector| if sector == [sector[0]; SECTOR] { sector[0] } else { b'?' })
            .collect();
        seen.extend(kinds.iter().copied().enumerate());
        mixed += u32::from(kinds[1..4].iter().collect::<BTreeSet<_>>().len() > 2);
        counts = disk.counts();
    }
    for version in [(1, 1), (1, 2), (1, b'?'), (2, 1), (2, 2), (2, 3), (2, b'?'), (3, 1), (3, 3)] {
        assert!(seen.contains(&version), "{version:?} in {seen:?}");
    }
    assert!(seen.contains(&(5, 0)), "a length kept without its bytes");
    assert!(!seen.contains(&(1, 3)) && !seen.contains(&(3, 2)), "never written there");
    assert_eq!(lengths, [4 * SECTOR, 6 * SECTOR].into());
    assert!(mixed > 20, "{mixed}");
    assert_eq!(counts.power_cuts, 1);
}

#[test]
fn an_emptied_file_comes_back_whole_or_not() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let (disk, _) = with_file(seed, &[7; 1300]);
        let file = disk.open(Path::new(FILE), OpenMode::Create).unwrap();
        assert_eq!((file.len().unwrap(), disk.used_bytes()), (0, 0));
        write(&file, &[8; 100], 0).unwrap();
        disk.power_cut();
        let bytes = content(&disk, FILE);
        assert_eq!(disk.used_bytes(), bytes.len() as u64);
        lengths.insert(bytes.len());
    }
    assert_eq!(lengths, [0, 100, 1300].into());
}

#[test]
fn a_write_far_behind_the_end_leaves_zeros_between() {
    for seed in 0..50 {
        let (disk, file) = with_file(seed, &[1; 700]);
        write(&file, &[2; 600], 5000).unwrap();
        file.sync_data().unwrap();
        disk.power_cut();
        assert_eq!(content(&disk, FILE), [&[1; 700][..], &[0; 4300], &[2; 600]].concat());
    }
}

#[test]
fn names_are_lost_without_a_sync_of_their_directory() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (disk, _) = with_file(seed, b"old");
        let file = open(&disk, "/d/new");
        write(&file, b"new", 0).unwrap();
        file.sync_data().unwrap();
        disk.unlink(Path::new(FILE)).unwrap();
        assert_eq!(disk.unsynced_operations(), 2);
        disk.power_cut();
        let names = disk.list(Path::new("/d")).unwrap();
        for name in &names {
            let expected: &[u8] = if name == "new" { b"new" } else { b"old" };
            assert_eq!(content(&disk, &format!("/d/{name}")), expected);
        }
        seen.insert(names);
    }
    assert_eq!(seen.len(), 4, "both kept or lost in any combination: {seen:?}");
    for seed in 0..100 {
        let (disk, _) = with_file(seed, b"old");
        drop(open(&disk, "/d/new"));
        disk.unlink(Path::new(FILE)).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.power_cut();
        assert_eq!(disk.list(Path::new("/d")).unwrap(), ["new"]);
    }
}

#[test]
fn a_rename_is_atomic() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (disk, _) = with_file(seed, b"old");
        let file = open(&disk, "/d/x.tmp");
        write(&file, b"new", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.rename(Path::new("/d/x.tmp"), Path::new(FILE)).unwrap();
        assert_eq!((content(&disk, FILE), disk.used_bytes()), (b"new".to_vec(), 3));
        disk.power_cut();
        let names = disk.list(Path::new("/d")).unwrap();
        let bytes = content(&disk, FILE);
        assert_eq!(names.len(), if bytes == b"new" { 1 } else { 2 }, "seed {seed}");
        seen.insert(bytes);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_file_has_one_name_whatever_is_lost() {
    for seed in 0..200 {
        let (disk, _) = with_file(seed, b"it");
        for (from, to) in [(FILE, "/d/b"), ("/d/b", "/d/c"), ("/d/c", "/d/b"), ("/d/b", "/d/e")] {
            disk.rename(Path::new(from), Path::new(to)).unwrap();
        }
        disk.power_cut();
        assert_eq!(disk.list(Path::new("/d")).unwrap().len(), 1, "seed {seed}");
    }
}

#[test]
fn a_lost_directory_loses_what_is_in_it() {
    let mut kept = 0;
    for seed in 0..100 {
        let disk = new(seed);
        disk.make_dir(Path::new("/d/sub")).unwrap();
        assert_eq!(disk.list(Path::new("/d")).unwrap(), ["sub"]);
        let file = open(&disk, "/d/sub/x");
        write(&file, b"x", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d/sub")).unwrap();
        disk.power_cut();
        match disk.list(Path::new("/d/sub")) {
            Ok(names) => {
                assert_eq!(names, ["x"]);
                kept += 1;
            }
            Err(error) => {
                is(&error, io::ErrorKind::NotFound);
                assert_eq!(disk.used_bytes(), 0);
                disk.make_dir(Path::new("/d/sub")).unwrap();
                assert!(disk.list(Path::new("/d/sub")).unwrap().is_empty());
            }
        }
    }
    assert!((20..80).contains(&kept), "{kept}");
}

#[test]
fn a_failed_sync_lies_until_the_cache_goes_and_is_never_made_good() {
    let (mut reverted, mut by_cut) = (0, 0);
    for seed in 0..200 {
        let (disk, file) = with_file(seed, &[1; 8 * SECTOR]);
        write(&file, &[2; 4 * SECTOR], 2 * SECTOR).unwrap();
        let new = read(&file);
        disk.set_faults(DiskFaults { sync_error_ppm: ALWAYS, ..DiskFaults::default() });
        file.sync_data().unwrap_err();
        disk.set_faults(DiskFaults::default());
        assert_eq!(disk.unsynced_operations(), 0, "all of it is clean");
        assert_eq!(read(&file), new, "reads lie");
        file.sync_data().unwrap();
        disk.kill();
        assert_eq!(content(&disk, FILE), new, "also to the next process");
        let file = open(&disk, FILE);
        // A sector that is written again is written as the cache shows it.
        write(&file, &[3; 100], 2 * SECTOR).unwrap();
        if seed % 3 == 0 {
            // What waits for a sync stays in the cache.
            file.drop_cache().unwrap();
        }
        file.sync_data().unwrap();
        let copy = [&[3; 100][..], &[2; SECTOR - 100]].concat();
        if seed % 2 == 0 {
            file.drop_cache().unwrap();
        } else {
            disk.power_cut();
        }
        let bytes = content(&disk, FILE);
        assert_eq!(bytes[2 * SECTOR..3 * SECTOR], copy);
        if bytes[3 * SECTOR..6 * SECTOR] != new[3 * SECTOR..6 * SECTOR] {
            *(if seed % 2 == 0 { &mut reverted } else { &mut by_cut }) += 1;
            assert!(disk.counts().lying_reads > 0);
        }
        disk.power_cut();
        assert_eq!(content(&disk, FILE), bytes);
    }
    assert!(reverted > 40 && by_cut > 40, "{reverted} {by_cut}");
}

#[test]
fn the_length_that_a_failed_sync_left_may_still_be_lost() {
    let mut lengths = BTreeSet::new();
    for seed in 0..60 {
        let (disk, file) = with_file(seed, &[1; 600]);
        write(&file, &[2; 2000], 600).unwrap();
        disk.set_faults(DiskFaults { sync_error_ppm: ALWAYS, ..DiskFaults::default() });
        file.sync_data().unwrap_err();
        disk.set_faults(DiskFaults::default());
        if seed % 2 == 0 {
            file.sync_data().unwrap();
        }
        disk.power_cut();
        lengths.insert((seed % 2 == 0, content(&disk, FILE).len()));
    }
    assert_eq!(lengths, [(true, 2600), (false, 600), (false, 2600)].into());
}

#[test]
fn a_full_disk_takes_what_fits_or_nothing() {
    let mut lengths = BTreeSet::new();
    for seed in 0..20 {
        let (disk, file) = with_file(seed, &[1; 1000]);
        disk.set_faults(DiskFaults { capacity_bytes: Some(1500), ..DiskFaults::default() });
        assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 500);
        write(&file, &[2; 1000], 0).unwrap();
        let error = write(&file, &[3; 900], 900).unwrap_err();
        is(&error, io::ErrorKind::StorageFull);
        lengths.insert(file.len().unwrap());
        assert_eq!(disk.used_bytes(), file.len().unwrap());
        disk.unlink(Path::new(FILE)).unwrap();
        assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 1500);
        write(&open(&disk, FILE), &[4; 1500], 0).unwrap();
        assert_eq!(disk.counts().no_space, 1);
    }
    assert_eq!(lengths, [1000, 1500].into());
}

#[test]
fn a_short_write_leaves_a_prefix() {
    let (disk, file) = with_file(1, &[1; 1000]);
    disk.set_faults(DiskFaults { short_write_ppm: ALWAYS, ..DiskFaults::default() });
    write(&file, &[2; 1000], 0).unwrap_err();
    let bytes = read(&file);
    let written = bytes.iter().take_while(|byte| **byte == 2).count();
    assert!(written < 1000 && bytes[written..].iter().all(|byte| *byte == 1));
    disk.set_faults(DiskFaults { write_error_ppm: ALWAYS, ..DiskFaults::default() });
    write(&file, &[3; 1000], 0).unwrap_err();
    assert_eq!(read(&file), bytes);
    assert_eq!((disk.counts().short_writes, disk.counts().write_errors), (1, 1));
}

#[test]
fn other_operations_fail_as_often_as_is_asked() {
    let (disk, file) = with_file(1, &[1; 10]);
    disk.set_faults(DiskFaults {
        read_error_ppm: ALWAYS,
        dir_sync_error_ppm: ALWAYS,
        other_error_ppm: ALWAYS,
        ..DiskFaults::default()
    });
    assert!(file.read_at(&mut [0; 10], 0).is_err());
    assert!(disk.sync_dir(Path::new("/d")).is_err());
    assert!(disk.open(Path::new(FILE), OpenMode::Existing).is_err());
    assert!(disk.list(Path::new("/d")).is_err());
    assert!(disk.make_dir(Path::new("/e")).is_err());
    assert!(disk.lock(Path::new("/d/LOCK")).is_err());
    assert!(disk.rename(Path::new(FILE), Path::new(FILE)).is_err());
    assert!(disk.unlink(Path::new(FILE)).is_err());
    let counts = disk.counts();
    assert_eq!((counts.read_errors, counts.dir_sync_errors, counts.other_errors), (1, 1, 6));
}

#[test]
fn a_disk_that_ignores_syncs_loses_what_it_promised() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, file) = with_file(seed, &[1; 1000]);
        disk.set_faults(DiskFaults { drop_syncs: true, ..DiskFaults::default() });
        write(&file, &[2; 1000], 0).unwrap();
        file.sync_data().unwrap();
        drop(open(&disk, "/d/new"));
        disk.sync_dir(Path::new("/d")).unwrap();
        assert_eq!((disk.counts().syncs_dropped, disk.unsynced_operations()), (2, 2));
        disk.power_cut();
        lost += u32::from(content(&disk, FILE) != [2; 1000]);
    }
    assert!(lost > 20, "{lost}");
}

#[test]
fn a_disk_that_ignores_syncs_does_not_remember_without_end() {
    let (disk, file) = with_file(5, &[0; 4096]);
    disk.set_faults(DiskFaults { drop_syncs: true, ..DiskFaults::default() });
    for round in 0..20_000_u32 {
        write(&file, &[round as u8; 4096], 0).unwrap();
        file.sync_data().unwrap();
        drop(open(&disk, "/d/new"));
        disk.unlink(Path::new("/d/new")).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
    }
    assert!(disk.unsynced_operations() < 2000, "{}", disk.unsynced_operations());
    disk.set_faults(DiskFaults::default());
    let seen = read(&file);
    file.sync_data().unwrap();
    disk.power_cut();
    assert_eq!(content(&disk, FILE), seen);
}

/// Everything that changes; answers how many operations succeeded.
fn change_everything(disk: &SimDisk) -> u64 {
    let mut done = 0;
    let mut steps = || -> io::Result<()> {
        let mut count = |fate: io::Result<()>| fate.map(|()| done += 1);
        count(disk.make_dir(Path::new("/d")))?;
        count(disk.sync_dir(Path::new("/")))?;
        let lock = disk.lock(Path::new("/d/LOCK"));
        let _lock = lock.inspect(|_| count(Ok(())).unwrap())?;
        let file = disk.open(Path::new("/d/a"), OpenMode::Create)?;
        count(Ok(()))?;
        count(write(&file, &[1; 100], 0))?;
        file.read_at(&mut [0], 0)?;
        count(file.sync_data())?;
        count(disk.rename(Path::new("/d/a"), Path::new("/d/b")))?;
        disk.list(Path::new("/d"))?;
        drop(disk.open(Path::new("/d/b"), OpenMode::Existing)?);
        count(disk.unlink(Path::new("/d/b")))?;
        count(disk.sync_dir(Path::new("/d")))
    };
    let _ = steps();
    done
}

#[test]
fn a_process_dies_after_any_number_of_changes() {
    let all = change_everything(&SimDisk::new(Choices::seeded(0).stream(Stream::Disk(1))));
    assert_eq!(all, 9);
    for operations in 0..=all {
        let disk = SimDisk::new(Choices::seeded(0).stream(Stream::Disk(1)));
        disk.cut_after(Some(operations));
        assert_eq!(change_everything(&disk), operations);
        assert!(disk.list(Path::new("/")).is_err(), "nothing works any more");
        assert!(disk.free_bytes(Path::new("/")).is_err());
        disk.kill();
        disk.list(Path::new("/")).unwrap();
    }
}

#[test]
fn what_a_dead_process_holds_is_dead() {
    type End = fn(&SimDisk);
    for end in [SimDisk::kill as End, SimDisk::power_cut, SimDisk::wipe] {
        let (disk, file) = with_file(0, b"it");
        let view = disk.for_this_life();
        let lock = view.lock(Path::new("/d/LOCK")).unwrap();
        assert!(lock.is_some() && disk.lock(Path::new("/d/LOCK")).unwrap().is_none());
        end(&disk);
        assert!(write(&file, b"no", 0).is_err() && file.sync_data().is_err());
        assert!(file.read_at(&mut [0], 0).is_err() && file.len().is_err());
        assert!(file.drop_cache().is_err());
        assert!(view.open(Path::new(FILE), OpenMode::Keep).is_err());
        assert!(view.unlink(Path::new(FILE)).is_err() && view.list(Path::new("/")).is_err());
        let _ = disk.make_dir(Path::new("/d"));
        let mine = disk.lock(Path::new("/d/LOCK")).unwrap();
        assert!(mine.is_some(), "the lock was released");
        drop(lock);
        assert!(disk.lock(Path::new("/d/LOCK")).unwrap().is_none(), "but not the successor's");
        drop(mine);
        assert!(disk.lock(Path::new("/d/LOCK")).unwrap().is_some());
    }
}

#[test]
fn a_killed_process_leaves_what_it_wrote_unsynced() {
    let (disk, file) = with_file(3, &[1; 900]);
    write(&file, &[2; 900], 0).unwrap();
    drop(open(&disk, "/d/new"));
    disk.kill();
    assert_eq!(content(&disk, FILE), [2; 900]);
    assert_eq!(disk.unsynced_operations(), 2);
    open(&disk, FILE).sync_data().unwrap();
    disk.power_cut();
    assert_eq!(content(&disk, FILE), [2; 900]);
}

#[test]
fn a_wiped_disk_is_empty_and_a_copy_is_not() {
    let (disk, _) = with_file(3, &[1; 900]);
    let copy = disk.clone_content(Choices::seeded(9).stream(Stream::Disk(2)));
    disk.wipe();
    assert!(disk.list(Path::new("/")).unwrap().is_empty());
    assert_eq!((disk.used_bytes(), copy.used_bytes()), (0, 900));
    copy.power_cut();
    assert_eq!(content(&copy, FILE), [1; 900]);
}

#[test]
fn rot_stays_where_it_is_and_spares_what_is_unsynced() {
    for seed in 0..100 {
        let before = [&[9; 3 * SECTOR][..], &[0; 3 * SECTOR], &[9; 100]].concat();
        let (disk, file) = with_file(seed, &before);
        assert_eq!(disk.rot(Rot::FlipBit, "vote"), None);
        write(&file, &[5; SECTOR], 0).unwrap();
        let seen = read(&file);
        let kind = [Rot::FlipBit, Rot::GarbleSector, Rot::ZeroSector][seed as usize % 3];
        let said = disk.rot(kind, "wal-").unwrap();
        assert!(said.starts_with("/d/wal-1: "), "{said}");
        let rotten = read(&file);
        assert_eq!(rotten[..SECTOR], seen[..SECTOR], "{said}");
        let differing: Vec<usize> = (0..seen.len()).filter(|at| rotten[*at] != seen[*at]).collect();
        let sectors: BTreeSet<usize> = differing.iter().map(|at| at / SECTOR).collect();
        assert_eq!(sectors.len(), 1, "{said}");
        if kind == Rot::FlipBit {
            let at = differing[0];
            assert_eq!((differing.len(), (rotten[at] ^ seen[at]).count_ones()), (1, 1), "{said}");
        }
        file.sync_data().unwrap();
        file.drop_cache().unwrap();
        disk.power_cut();
        assert_eq!(content(&disk, FILE), rotten, "{said}");
    }
}

#[test]
fn an_unreadable_sector_stays_so_until_it_is_overwritten_for_good() {
    for seed in 0..50 {
        let (disk, file) = with_file(seed, &[7; SECTOR]);
        write(&file, &[8; SECTOR], SECTOR).unwrap();
        disk.rot(Rot::LatentError, "wal-").unwrap();
        let mut buf = [0; SECTOR];
        for _ in 0..3 {
            file.read_at(&mut buf, 10).unwrap_err();
            file.read_at(&mut buf, SECTOR as u64).unwrap();
        }
        write(&file, &[1; 10], 0).unwrap_err();
        assert_eq!(disk.rot(Rot::LatentError, "wal-"), None, "nothing else is at rest");
        write(&file, &[9; SECTOR], 0).unwrap();
        file.read_at(&mut buf, 0).unwrap();
        if seed % 2 == 0 {
            file.sync_data().unwrap();
        }
        disk.power_cut();
        let file = open(&disk, FILE);
        let read = file.read_at(&mut buf, 0);
        match read {
            Ok(_) => assert_ne!(buf, [7; SECTOR]),
            Err(_) => assert_eq!(seed % 2, 1),
        }
        assert!(disk.counts().latent_errors >= 4);
    }
}

#[test]
fn a_run_repeats_itself() {
    let run = || {
        let (disk, file) = with_file(77, &[1; 5000]);
        disk.set_faults(DiskFaults {
            sync_error_ppm: 300_000,
            short_write_ppm: 99_999,
            ..DiskFaults::default()
        });
        for round in 0..50_u8 {
            let _ = write(&file, &[round; 700], usize::from(round) * 90);
            if round % 3 == 0 {
                let _ = file.sync_data();
            }
        }
        disk.power_cut();
        disk.rot(Rot::GarbleSector, "");
        (content(&disk, FILE), disk.counts(), disk.random())
    };
    assert_eq!(run(), run());
}
