//! What one run is like. Drawn from its seed (a *swarm*): each run has a few of the faults and extreme
//! values of some of the settings, because what is always a little of everything meets few corners.

use std::collections::BTreeSet;

use crate::replica::SnapshotPolicy;

use super::choice::{Choices, Chooser, Stream};

/// The kinds of faults that can strike. Their names select them on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A process is killed; what it wrote and did not sync is there for its successor.
    Kill,
    /// One machine loses power.
    PowerCut,
    /// All machines lose power at once.
    Blackout,
    /// A process dies in the middle of what it does: between two outputs, or in a write.
    Midway,
    /// A process dies again and again while it recovers.
    CrashLoop,
    /// A process stops, and is started again later.
    Restart,
    /// A process stands still, and with it everything but its clock.
    Pause,
    /// One node is cut off.
    Isolate,
    /// The nodes fall into two groups.
    Split,
    /// What some nodes say is not heard by some others, who are heard.
    OneWay,
    /// Two groups that only see each other through one node.
    Bridge,
    /// Each node sees its neighbours alone.
    Chain,
    /// As a chain whose ends see each other.
    Ring,
    /// What is said on some links comes much later.
    Clog,
    /// Connections break.
    Reset,
    /// Connections break and only one side learns of it.
    HalfOpen,
    /// Messages are lost.
    Loss,
    /// Messages come twice.
    Double,
    /// Messages overtake each other.
    Reorder,
    /// Bits flip on the wire.
    Flip,
    /// A write fails.
    WriteError,
    /// A sync fails, and what it covered is lost although reads still show it.
    SyncError,
    /// A read or another operation fails.
    OtherError,
    /// A disk is full for a while.
    DiskFull,
    /// A disk is slow for a while.
    SlowDisk,
    /// A disk does nothing for a while.
    StalledDisk,
    /// Stored bits change.
    Rot,
    /// Stored sectors cannot be read any more.
    DeadSector,
    /// A disk is lost, with all that was on it.
    LostDisk,
    /// A snapshot rots.
    SnapshotRot,
    /// A state machine is slow for a while.
    SlowMachine,
    /// A clock runs too fast or too slowly.
    Drift,
    /// The wall clock is set.
    ClockStep,
    /// A node is told to campaign, or to forget its leader.
    Unrest,
    /// A disk is damaged while only nodes that are then cut off know what it held.
    Ambush,
    /// A leader is deposed and leads again before it hears all answers of the time before.
    Echo,
    /// A node is told to hand over, to another or to the best, or to step down.
    Handover,
    /// The leader's disk does nothing for a while.
    LeaderStall,
    /// A leader is deposed without hearing of it, and is read from when answers to its last heartbeat arrive.
    Belated,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 39] = [
        Self::Kill,
        Self::PowerCut,
        Self::Blackout,
        Self::Midway,
        Self::CrashLoop,
        Self::Restart,
        Self::Pause,
        Self::Isolate,
        Self::Split,
        Self::OneWay,
        Self::Bridge,
        Self::Chain,
        Self::Ring,
        Self::Clog,
        Self::Reset,
        Self::HalfOpen,
        Self::Loss,
        Self::Double,
        Self::Reorder,
        Self::Flip,
        Self::WriteError,
        Self::SyncError,
        Self::OtherError,
        Self::DiskFull,
        Self::SlowDisk,
        Self::StalledDisk,
        Self::Rot,
        Self::DeadSector,
        Self::LostDisk,
        Self::SnapshotRot,
        Self::SlowMachine,
        Self::Drift,
        Self::ClockStep,
        Self::Unrest,
        Self::Ambush,
        Self::Echo,
        Self::Handover,
        Self::LeaderStall,
        Self::Belated,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerCut => "power-cut",
            Self::Blackout => "blackout",
            Self::Midway => "midway",
            Self::CrashLoop => "crash-loop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Isolate => "isolate",
            Self::Split => "split",
            Self::OneWay => "one-way",
            Self::Bridge => "bridge",
            Self::Chain => "chain",
            Self::Ring => "ring",
            Self::Clog => "clog",
            Self::Reset => "reset",
            Self::HalfOpen => "half-open",
            Self::Loss => "loss",
            Self::Double => "double",
            Self::Reorder => "reorder",
            Self::Flip => "flip",
            Self::WriteError => "write-error",
            Self::SyncError => "sync-error",
            Self::OtherError => "other-error",
            Self::DiskFull => "disk-full",
            Self::SlowDisk => "slow-disk",
            Self::StalledDisk => "stalled-disk",
            Self::Rot => "rot",
            Self::DeadSector => "dead-sector",
            Self::LostDisk => "lost-disk",
            Self::SnapshotRot => "snapshot-rot",
            Self::SlowMachine => "slow-machine",
            Self::Drift => "drift",
            Self::ClockStep => "clock-step",
            Self::Unrest => "unrest",
            Self::Ambush => "ambush",
            Self::Echo => "echo",
            Self::Handover => "handover",
            Self::LeaderStall => "leader-stall",
            Self::Belated => "belated",
        }
    }

    /// The fault of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Whether it damages what a disk had made durable, so that only a minority may meet it.
    pub const fn damages(self) -> bool {
        matches!(
            self,
            Self::Rot | Self::DeadSector | Self::LostDisk | Self::SnapshotRot | Self::Ambush
        )
    }
}

/// How messages move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// As values.
    Messages,
    /// As frames in a stream of bytes, cut anywhere.
    Bytes,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its seed.
    pub seed: u64,
    /// Voters, 1 to 7.
    pub voters: u64,
    /// Members beside them that do not vote.
    pub learners: u64,
    /// How long faults go on, in virtual time.
    pub duration_us: u64,
    /// How messages move.
    pub wire: Wire,
    /// The faults of this run.
    pub faults: BTreeSet<Fault>,
    /// The mean time between two of them.
    pub fault_every_us: u64,
    /// The mean time that one lasts.
    pub fault_lasts_us: u64,
    /// Faults that are left out, by their number in the run: what a search for a shorter run found
    /// to be beside the point.
    pub skipped: BTreeSet<u64>,
    /// How many disks may be damaged: a minority, unless the run is to find out what happens beyond.
    pub damaged_max: u64,
    /// Clients.
    pub clients: u64,
    /// The mean time that a client waits between two calls.
    pub think_us: u64,
    /// Most commands in one call of a client.
    pub calls_at_once: u64,
    /// The longest that a caller waits.
    pub patience_us: u64,
    /// Keys of the key-value workload.
    pub keys: u64,
    /// Largest value of the key-value workload.
    pub value_bytes: u64,
    /// Election timeout, least and most.
    pub election_us: (u64, u64),
    /// Heartbeat interval.
    pub heartbeat_us: u64,
    /// Most appends in flight to one peer.
    pub window_messages: u64,
    /// Most bytes in flight to one peer.
    pub window_bytes: u64,
    /// Most bytes in one append.
    pub append_bytes: u64,
    /// Most bytes handed to the machine at once.
    pub apply_bytes: u64,
    /// Most bytes of old entries in memory.
    pub cache_bytes: u64,
    /// Most bytes uncommitted, and unapplied.
    pub backlog_bytes: u64,
    /// Most bytes held while no leader is known.
    pub held_bytes: u64,
    /// Largest entry.
    pub entry_bytes_max: u64,
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// Most bytes handed to the log at once.
    pub submission_bytes: u64,
    /// Mean time that a message takes.
    pub delay_us: u64,
    /// Most messages or chunks on their way in one direction.
    pub link_bound: u64,
    /// Mean time of a write with its sync.
    pub disk_us: u64,
    /// Mean time that a machine takes for a range.
    pub apply_us: u64,
    /// Mean time until a stopped node is started again.
    pub downtime_us: u64,
    /// Whether machines persist themselves: they keep what they have applied when their node dies.
    pub machine_persists: bool,
    /// When snapshots are taken, and how they move.
    pub snapshots: SnapshotPolicy,
    /// Readers.
    pub readers: u64,
    /// Whether leaders ask for leases. Clocks then differ by less than those allow for.
    pub lease_reads: bool,
    /// Clocks differ by more, to find out what happens then.
    pub wild_clocks: bool,
    /// The election priority of each node.
    pub priorities: Vec<u8>,
}

/// Virtual time that a run's faults go on by default.
pub const DURATION_US: u64 = 60_000_000;

impl Plan {
    /// The plan that `seed` draws.
    pub fn drawn(seed: u64) -> Self {
        Self::draw(seed, &Choices::seeded(seed))
    }

    /// The plan that `choices` make.
    pub fn draw(seed: u64, choices: &Choices) -> Self {
        let c = &mut choices.stream(Stream::Plan);
        // A few runs have no faults at all and must be fast: not everything may rest on retries.
        let calm = c.percent(4);
        let voters = c.pick(&[3, 3, 3, 3, 5, 5, 5, 5, 1, 2, 4, 7]);
        let min = c.pick(&[50_000, 50_000, 150_000, 300_000]);
        let election_us = (min, min * c.pick(&[2, 2, 3]));
        let entry_bytes_max = c.pick(&[4 << 10, 64 << 10]);
        let (clients, calls_at_once) = (c.between(1, 5), c.pick(&[1_u64, 1, 5, 20]));
        // Long logs take long to recover, so most runs keep theirs short and crash the more often.
        let calls = c.pick(&[200, 500, 1_000, 2_000]);
        let small = |c: &mut Chooser, fine: u64| {
            let harsh = c.between(1, 400);
            c.pick(&[fine, fine, harsh])
        };
        let faults = if calm { BTreeSet::new() } else { draw_faults(c) };
        // What flips is a bit of a frame.
        let is_bytes = c.percent(25) || faults.contains(&Fault::Flip);
        let mut plan = Self {
            seed,
            voters,
            learners: c.pick(&[0, 0, 0, 1, 2]),
            duration_us: DURATION_US,
            wire: if is_bytes { Wire::Bytes } else { Wire::Messages },
            faults,
            fault_every_us: c.pick(&[100_000, 100_000, 300_000, 1_000_000, 3_000_000]),
            fault_lasts_us: c.pick(&[100_000, 500_000, 2_000_000]),
            skipped: BTreeSet::new(),
            damaged_max: if c.percent(3) { voters } else { (voters - 1) / 2 },
            clients,
            think_us: DURATION_US * clients * calls_at_once.div_ceil(2) / calls,
            calls_at_once,
            patience_us: c.pick(&[200_000, 1_000_000, 5_000_000]),
            keys: c.pick(&[1, 3, 20]),
            value_bytes: c.pick(&[8, 100, 3000]),
            election_us,
            heartbeat_us: min / 3,
            window_messages: c.pick(&[1, 2, 8, 64]),
            window_bytes: small(c, 8 << 20),
            append_bytes: small(c, 1 << 20),
            apply_bytes: small(c, 4 << 20),
            cache_bytes: c.pick(&[0, 300, 16 << 20]),
            backlog_bytes: c.pick(&[20_000, 64 << 20]),
            held_bytes: c.pick(&[300, 1 << 20]),
            entry_bytes_max,
            segment_bytes: entry_bytes_max + (64 << 10),
            submission_bytes: small(c, (entry_bytes_max + (64 << 10)) / 2),
            delay_us: c.pick(&[100, 500, 3_000]),
            link_bound: c.pick(&[4, 64, 1024]),
            disk_us: c.pick(&[100, 1_000, 5_000]),
            apply_us: c.pick(&[10, 1_000]),
            downtime_us: c.pick(&[50_000, 500_000, 2_000_000]),
            machine_persists: c.percent(25),
            snapshots: draw_snapshots(c),
            readers: c.pick(&[0, 1, 2, 3]),
            lease_reads: c.percent(60),
            wild_clocks: false,
            priorities: Vec::new(),
        };
        // Drawn last, so that whatever comes before is of a seed what it was.
        if !calm && c.percent(30) {
            plan.faults.insert(Fault::Handover);
        }
        if !calm && c.percent(15) {
            plan.faults.insert(Fault::LeaderStall);
        }
        let mixed = c.percent(25);
        let members = plan.voters + plan.learners;
        let priority = |_| if mixed { c.pick(&[0, 50, 55, 90, 100]) } else { 100 };
        plan.priorities = (0..members).map(priority).collect();
        if !calm && c.percent(20) {
            plan.faults.insert(Fault::Belated);
        }
        plan
    }

    /// How long a leader's disk may stand still. Where a write is cut into pieces, with a sync for each entry, the
    /// core hears of the last piece alone.
    pub fn disk_stall_us(&self) -> u64 {
        let is_cut = self.submission_bytes < self.entry_bytes_max;
        let longest_us = self.election_us.1.max(self.election_us.0 * 3 / 2);
        longest_us + if is_cut { 400 * self.disk_us } else { 0 }
    }

    /// Whether all nodes are wanted alike as leaders.
    pub fn is_fair(&self) -> bool {
        self.priorities.windows(2).all(|two| two[0] == two[1])
    }

    /// Whether nothing goes wrong in it.
    pub fn is_calm(&self) -> bool {
        self.faults.is_empty()
    }

    /// Whether more disks may be damaged than a cluster can lose.
    pub const fn is_beyond_survival(&self) -> bool {
        self.damaged_max > (self.voters - 1) / 2
    }

    /// The same without a kind of fault.
    #[must_use]
    pub fn without(mut self, fault: Fault) -> Self {
        self.faults.remove(&fault);
        self
    }
}

/// Faults that lead into the same corner when they come together.
const THEMES: [&[Fault]; 7] = [
    // Elections that overlap.
    &[Fault::Isolate, Fault::Split, Fault::OneWay, Fault::Clog, Fault::Reorder, Fault::Unrest],
    // Answers that come when their question is of another time.
    &[Fault::Echo, Fault::Split, Fault::Clog, Fault::Reorder, Fault::Unrest],
    // Leaders whose logs go apart before one is overwritten.
    &[Fault::Isolate, Fault::Split, Fault::Pause, Fault::Kill, Fault::Unrest],
    // Disks that lose what they had, beside nodes that never had it.
    &[Fault::Rot, Fault::DeadSector, Fault::Ambush, Fault::Kill, Fault::Split, Fault::Unrest],
    // Snapshots that cannot be read, when somebody needs them.
    &[Fault::SnapshotRot, Fault::Kill, Fault::PowerCut, Fault::CrashLoop, Fault::Isolate],
    // Writes that are done when something else counts.
    &[Fault::SlowDisk, Fault::StalledDisk, Fault::Split, Fault::Unrest, Fault::Reset],
    // Power that goes while files change.
    &[Fault::PowerCut, Fault::Midway, Fault::CrashLoop, Fault::SyncError, Fault::Blackout],
];

/// Snapshots all the time, now and then, or never; in pieces of a few bytes, or whole.
fn draw_snapshots(c: &mut Chooser) -> SnapshotPolicy {
    SnapshotPolicy {
        log_bytes: c.pick(&[0, 0, 500, 5_000]),
        log_entries: c.pick(&[0, 5, 30, 100, 300]),
        retain_bytes: c.pick(&[0, 0, 300, 3_000, 1 << 20]),
        keep: usize::try_from(c.pick(&[1, 1, 2, 3])).unwrap_or(1),
        send_bytes_per_s: c.pick(&[0, 0, 100_000]),
        piece_bytes: u32::try_from(c.pick(&[1_000, 5_000, 1 << 18])).unwrap_or(1_000),
        stall_us: c.pick(&[300_000, 1_000_000]),
        scrub_interval_us: c.pick(&[0, 500_000, 5_000_000]),
    }
}

/// Some of the faults; or a theme alone, or with a few others.
fn draw_faults(c: &mut Chooser) -> BTreeSet<Fault> {
    const DRAWN: &[Fault] = Fault::ALL.split_at(36).0;
    let share = c.pick(&[0, 5, 15, 30, 60]);
    let mut faults: BTreeSet<Fault> = DRAWN.iter().copied().filter(|_| c.percent(share)).collect();
    if c.percent(60) {
        faults.extend(c.pick(&THEMES));
    }
    faults.insert(c.pick(DRAWN));
    faults
}
