//! A restart: how long a node reads a snapshot of a million keys and a tail of a hundred thousand entries, beside
//! a plain loop that does only what cannot be avoided.
//!
//! The loop reads the same files from front to back, takes keys and values out of them and puts them into the
//! same kind of store: no checksums, no election, nothing twice. Both run in processes of their own, in turns, and
//! find nothing of the files in memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bytes::{Buf, Bytes};
use raftz_core::machine::{KvCommand, KvStore};
use raftz_core::types::EntryHeader;

use super::cluster::{Machine, Member};
use super::figures::{Figures, median, rounds};

const KEYS: u64 = 1_000_000;
const TAIL: u64 = 100_000;
const BYTES: usize = 64;
/// Snapshots on demand alone, and no tail but the one that is written on purpose.
const SETTINGS: &[&str] =
    &["snapshot_log_bytes=0", "snapshot_log_entries=0", "snapshot_retain_bytes=0"];

const BLOCK_BYTES: usize = 4096;
const BATCH_HEADER_BYTES: usize = 64;
const RECORD_HEADER_BYTES: usize = 16;
const CHUNK_HEADER_BYTES: usize = 32;

fn start(dir: &Path) -> Member {
    let storage = dir.display().to_string();
    let mut member = Member::start(1, Machine::KeyValue, &storage, "127.0.0.1:0", SETTINGS);
    member.alone();
    member
}

/// Writes what is to be read. Gives the last index.
fn prepare(dir: &Path) -> u64 {
    let mut member = start(dir);
    member.ask("leader");
    member.ask(&format!("fill 0 {KEYS} {BYTES}"));
    member.ask("snapshot");
    member.ask(&format!("fill 0 {TAIL} {BYTES}"));
    let status = member.ask("status");
    status.split(' ').next_back().and_then(|last| last.parse().ok()).expect("the last index")
}

/// The files of a kind, the oldest first.
fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder").flatten();
    let is_one = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    files.sort();
    files
}

/// Lets the system forget what it knows of the files.
fn forget(dir: &Path) {
    for path in files(dir, "") {
        let Ok(file) = File::open(path) else { continue };
        file.sync_all().expect("syncs");
        let all = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        all.expect("a hint");
    }
}

pub(crate) fn bench(dir: &Path, figures: &mut Figures) {
    let dir = dir.join("restart");
    let last = prepare(&dir);
    let (mut raftz, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        forget(&dir);
        let mut member = start(&dir);
        raftz.push(member.ask(&format!("applied {last}")).parse().expect("seconds"));
        drop(member);
        forget(&dir);
        let output = Command::new(std::env::current_exe().expect("this program"))
            .arg("--role=replay")
            .arg(&dir)
            .output()
            .expect("a child process");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        plain.push(text.trim().parse::<f64>().expect("seconds"));
    }
    let bytes = |prefix: &str| {
        let sizes =
            files(&dir, prefix).into_iter().map(|path| path.metadata().map_or(0, |it| it.len()));
        sizes.sum::<u64>() as f64 / 1e6
    };
    let (raftz, plain): (f64, f64) = (median(raftz), median(plain));
    println!(
        "\nrestart with a snapshot of {KEYS} keys ({:.0} MB) and {TAIL} entries behind it (segments of {:.0} MB)",
        bytes("snap-"),
        bytes("wal-")
    );
    println!(
        "{raftz:.3} s until all is applied; a plain loop over the same files takes {plain:.3} s"
    );
    figures.set("restart_1m_keys_s", Some(raftz));
    figures.set("restart_1m_keys_ratio", Some(raftz / plain));
    drop(std::fs::remove_dir_all(&dir));
}

/// The machine's bytes in a snapshot's file: what lies between its head, the headers of its chunks and its end.
struct Content {
    file: BufReader<File>,
    left: usize,
}

impl Content {
    fn open(path: &Path) -> Self {
        let file = BufReader::with_capacity(1 << 20, File::open(path).expect("a snapshot"));
        let mut content = Self { file, left: 0 };
        let head = content.chunk();
        std::io::copy(&mut content.file.by_ref().take(head as u64), &mut std::io::sink())
            .expect("a head");
        content
    }

    /// The next chunk's length.
    fn chunk(&mut self) -> usize {
        let mut header = [0; CHUNK_HEADER_BYTES];
        self.file.read_exact(&mut header).expect("a chunk");
        (&header[24..]).get_u64_le() as usize
    }

    fn fill(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.left = self.chunk();
            }
            let (some, rest) = bytes.split_at_mut(bytes.len().min(self.left));
            self.file.read_exact(some).expect("a chunk's content");
            self.left -= some.len();
            bytes = rest;
        }
    }

    fn bytes(&mut self) -> Bytes {
        let mut length = [0; 4];
        self.fill(&mut length);
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.fill(&mut bytes);
        bytes.into()
    }
}

/// Applies every command of a segment that is behind `after`.
fn apply_segment(path: &Path, after: u64, store: &mut KvStore) -> u64 {
    let mut file = File::open(path).expect("a segment");
    let mut header = [0; BLOCK_BYTES];
    file.read_exact(&mut header).expect("a header");
    let salt = &header[32..40];
    let (mut batch, mut applied) = (vec![0; BLOCK_BYTES], 0);
    loop {
        batch.resize(BLOCK_BYTES, 0);
        if file.read_exact(&mut batch).is_err() {
            return applied;
        }
        if !batch.starts_with(b"rzbatch1") || &batch[16..24] != salt {
            return applied;
        }
        let records = (&batch[12..]).get_u32_le();
        let bytes = (&batch[32..]).get_u64_le() as usize;
        batch.resize(bytes, 0);
        file.read_exact(&mut batch[BLOCK_BYTES..]).expect("a whole batch");
        let mut rest = &batch[BATCH_HEADER_BYTES..];
        for _ in 0..records {
            let (kind, length) = (rest[0], (&rest[8..]).get_u64_le() as usize);
            let body = &rest[RECORD_HEADER_BYTES..][..length];
            rest = &rest[RECORD_HEADER_BYTES + length..];
            if kind != 1 {
                continue;
            }
            let header = EntryHeader::decode(body).expect("an entry");
            if header.index.0 > after
                && let Ok(command) = KvCommand::decode(&body[header.header_bytes..])
            {
                store.execute(command);
                applied += 1;
            }
        }
    }
}

/// The plain loop, in a child: prints its seconds.
pub(crate) fn replay(args: &[String]) {
    let [dir] = args else { panic!("a folder") };
    let dir = Path::new(dir);
    let begun = Instant::now();
    let mut store = KvStore::new();
    let snapshots = files(dir, "snap-");
    let snapshot = snapshots.last().expect("a snapshot");
    // snap-<group>-<index>-...
    let name = snapshot.file_name().expect("a name").to_string_lossy().into_owned();
    let index = name.split('-').nth(2).expect("an index");
    let after = u64::from_str_radix(index, 16).expect("hexadecimal");
    let mut content = Content::open(snapshot);
    let mut start = [0; 16];
    content.fill(&mut start);
    for _ in 0..(&start[8..]).get_u64_le() {
        let (key, value) = (content.bytes(), content.bytes());
        store.execute(KvCommand::Set { key, value });
    }
    let applied: u64 =
        files(dir, "wal-").iter().map(|path| apply_segment(path, after, &mut store)).sum();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!((store.len() as u64, applied), (KEYS, TAIL), "all of it was there");
    println!("{seconds}");
}
