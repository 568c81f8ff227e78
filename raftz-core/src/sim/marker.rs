//! What a campaign of runs must have met at least once: rare situations that the simulator is for.

/// A situation worth meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Marker {
    /// A node recovered from a write that was torn.
    TornTail,
    /// A node died again while it recovered.
    CrashInRecovery,
    /// A node died between two outputs of one step.
    CrashBetweenOutputs,
    /// A node died while it wrote.
    CrashInWrite,
    /// A leader's sync failed.
    LeaderSyncFailed,
    /// A node's storage failed and it stopped.
    StorageFault,
    /// A candidate met another candidate of its term.
    VoteSplit,
    /// A new leader holds an uncommitted entry of an old term on a majority of disks (figure 8).
    Figure8,
    /// A follower dropped entries for others.
    Truncated,
    /// A leader's entries were overwritten, and a caller was told so.
    Overwritten,
    /// A leader was lost with calls in its log.
    LeadershipLost,
    /// A call waited for a leader in vain.
    NoLeader,
    /// A call was refused because something was full.
    Busy,
    /// A node refused calls because its disk was full.
    StorageFull,
    /// A message found its link full.
    LinkFull,
    /// A message of an earlier connection arrived.
    StaleMessage,
    /// A connection broke on one side only.
    HalfOpen,
    /// A forwarded call could not be handed over.
    ForwardUnsent,
    /// An append was refused by a follower: its log differs, or something was lost on the way.
    AppendRejected,
    /// A peer's entries were read from disk.
    ReadForPeer,
    /// Entries to apply were read from disk.
    ReadForApply,
    /// A node opened a damaged directory.
    DamagedOpen,
    /// A damaged node became whole again.
    Healed,
    /// A node refused a directory that is damaged beyond use.
    Refused,
    /// A wiped directory was refused by name.
    WrongDisk,
    /// A write had to wait for room.
    DiskFull,
    /// A damaged frame was found out.
    BadFrame,
    /// A frame was cut in the middle by a broken connection.
    CutFrame,
    /// More than one segment of a log was in use.
    ManySegments,
    /// A pre-vote was refused by a voter that hears a leader.
    FaithKept,
    /// A leader stepped down because it heard no quorum.
    QuorumLost,
    /// A leader that could not read its own log made room for another.
    ResignedForItsDisk,
    /// A snapshot was taken.
    SnapshotBuilt,
    /// A log became shorter, or was replaced by a snapshot.
    Compacted,
    /// A snapshot was fetched, at least in part.
    SnapshotFetched,
    /// A machine was restored from a peer's snapshot.
    SnapshotInstalled,
    /// A transfer was given up.
    TransferFailed,
    /// A transfer went on where an earlier one had ended.
    TransferResumed,
    /// A node died while it wrote, received or deleted a snapshot.
    CrashInSnapshot,
    /// A node came back after a crash between the arrival of a snapshot and its place in the log.
    InstallFinished,
    /// A scrub found a snapshot damaged.
    SnapshotRotFound,
    /// A node started without the snapshot that its log begins after.
    SnapshotLacking,
    /// A node's own snapshot was not written, since a newer one had arrived.
    BuildCancelled,
    /// A lease answered a read at once.
    LeaseRead,
    /// A follower answered a bounded read by itself.
    BoundedRead,
    /// Leadership was handed to another node.
    LeadershipMoved,
    /// It was to be, and nothing came of it.
    LeadershipStayed,
    /// A leader whose disk stood still, or was full, began to hand over.
    SickLeaderLeft,
    /// A leader began to hand over to a node of higher priority.
    PreferredLeads,
}

impl Marker {
    /// All of them.
    pub const ALL: [Self; 49] = [
        Self::TornTail,
        Self::CrashInRecovery,
        Self::CrashBetweenOutputs,
        Self::CrashInWrite,
        Self::LeaderSyncFailed,
        Self::StorageFault,
        Self::VoteSplit,
        Self::Figure8,
        Self::Truncated,
        Self::Overwritten,
        Self::LeadershipLost,
        Self::NoLeader,
        Self::Busy,
        Self::StorageFull,
        Self::LinkFull,
        Self::StaleMessage,
        Self::HalfOpen,
        Self::ForwardUnsent,
        Self::AppendRejected,
        Self::ReadForPeer,
        Self::ReadForApply,
        Self::DamagedOpen,
        Self::Healed,
        Self::Refused,
        Self::WrongDisk,
        Self::DiskFull,
        Self::BadFrame,
        Self::CutFrame,
        Self::ManySegments,
        Self::FaithKept,
        Self::QuorumLost,
        Self::ResignedForItsDisk,
        Self::SnapshotBuilt,
        Self::Compacted,
        Self::SnapshotFetched,
        Self::SnapshotInstalled,
        Self::TransferFailed,
        Self::TransferResumed,
        Self::CrashInSnapshot,
        Self::InstallFinished,
        Self::SnapshotRotFound,
        Self::SnapshotLacking,
        Self::BuildCancelled,
        Self::LeaseRead,
        Self::BoundedRead,
        Self::LeadershipMoved,
        Self::LeadershipStayed,
        Self::SickLeaderLeft,
        Self::PreferredLeads,
    ];
}
