//! Whether a process grows: its memory, descriptors and threads, as the system counts them.
//!
//! A node without compaction remembers the place of each batch of its log and keeps each segment
//! open, so that much growth with the log is right; everything else must stay as it was after a
//! warm-up.

use std::fmt;
use std::path::Path;

/// Memory for what has no bound of its own: allocators keep freed memory, buffers grow to their
/// largest use.
const SLACK_KB: u64 = 6 << 10;
/// Memory that an entry of the log may cost for ever: its place on the disk, in a vector that
/// doubles, with room to spare.
const ENTRY_BYTES: u64 = 64;
/// Descriptors beyond those of the warm-up: links that were just replaced, a segment in the making.
const SLACK_DESCRIPTORS: u64 = 4;

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) memory_kb: u64,
    /// Open files and sockets, the log's segments aside.
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl Health {
    fn each(self, other: Self, pick: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            memory_kb: pick(self.memory_kb, other.memory_kb),
            descriptors: pick(self.descriptors, other.descriptors),
            threads: pick(self.threads, other.threads),
        }
    }

    fn of(process: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).expect("a number")
        };
        let is_segment = |path: &Path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|it| it.starts_with("wal-"))
        };
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd"))
            .expect("it runs")
            // One that was closed meanwhile leads nowhere.
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|path| !is_segment(path));
        Self {
            memory_kb: number("VmRSS:"),
            descriptors: descriptors.count() as u64,
            threads: number("Threads:"),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kb, descriptors, threads } = self;
        write!(f, "{memory_kb} kB, {descriptors} descriptors, {threads} threads")
    }
}

/// Looks at a process under load from time to time.
pub(crate) struct Watch {
    process: u32,
    /// The most of each early in the run, and the log's length then.
    early: Option<(Health, u64)>,
    /// The least of each late in the run, so that no passing peak counts, and the log's length then.
    late: Option<(Health, u64)>,
}

impl Watch {
    pub(crate) const fn new(process: u32) -> Self {
        Self { process, early: None, late: None }
    }

    /// A look early in the run, with `entries` in the log.
    pub(crate) fn look_early(&mut self, entries: u64) {
        let now = Health::of(self.process);
        let most = self.early.map_or(now, |(before, _)| before.each(now, u64::max));
        self.early = Some((most, entries));
    }

    /// A look late in the run.
    pub(crate) fn look_late(&mut self, entries: u64) {
        let now = Health::of(self.process);
        let least = self.late.map_or(now, |(before, _)| before.each(now, u64::min));
        self.late = Some((least, entries));
    }

    /// What the process held early and late.
    ///
    /// # Errors
    /// It grew.
    pub(crate) fn verdict(&self) -> Result<(Health, Health), String> {
        let (early, from) = self.early.ok_or("nobody looked early in the run")?;
        let (late, to) = self.late.ok_or("nobody looked late in the run")?;
        let entries = to.saturating_sub(from);
        let allowed_kb = SLACK_KB + entries * ENTRY_BYTES / 1024;
        let is_flat = late.memory_kb <= early.memory_kb + allowed_kb
            && late.descriptors <= early.descriptors + SLACK_DESCRIPTORS
            && late.threads <= early.threads;
        if is_flat {
            Ok((early, late))
        } else {
            Err(format!(
                "it grew: {early} -> {late} over {entries} entries ({allowed_kb} kB and \
                 {SLACK_DESCRIPTORS} descriptors more are right)"
            ))
        }
    }
}
