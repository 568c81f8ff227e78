//! Inputs: what happened to a core, as C tells it.

use bytes::Bytes;
use raftz_core::raft::{Input, Proposal};
use raftz_core::transport::InFrame;
use raftz_core::transport::codec::{self, Decoded};
use raftz_core::transport::frame::{FRAME_HEADER_BYTES, FrameHeader};
use raftz_core::types::{
    Boot, DiskId, Entry, GroupId, Index, LogId, Message, NodeId, OpId, Payload, RaftMessage,
    Snapshot, SnapshotId, Term, Token,
};

use crate::bytes::raftz_slice;
use crate::error::Failure;
use crate::guard::{self, Call, invalid};
use crate::status::{
    RAFTZ_BAD_MESSAGE, RAFTZ_OK, RAFTZ_STORAGE, RAFTZ_UNSUPPORTED, raftz_status, shown,
};
use crate::storage::kept;

/// \brief An input: the time that raftz_core_next_deadline() asked for has come. Harmless at any time.
pub const RAFTZ_INPUT_TICK: u32 = 1;
/// \brief An input: a message arrived, `receive`.
pub const RAFTZ_INPUT_RECEIVE: u32 = 2;
/// \brief An input: commands are proposed, `propose`. Each is answered by RAFTZ_ACTION_ACCEPTED or RAFTZ_ACTION_REFUSED of
/// the same step.
pub const RAFTZ_INPUT_PROPOSE: u32 = 3;
/// \brief An input: how much must be applied before an answer holds everything acknowledged by now? `read`. Answered by
/// one RAFTZ_ACTION_MAY_READ or RAFTZ_ACTION_MAY_NOT_READ, of this step or a later one.
pub const RAFTZ_INPUT_READ: u32 = 4;
/// \brief An input: campaign now, as if the election timeout had passed.
pub const RAFTZ_INPUT_CAMPAIGN: u32 = 5;
/// \brief An input: hand over the leadership, `transfer`. Answered by one RAFTZ_ACTION_TRANSFER_ENDED.
pub const RAFTZ_INPUT_TRANSFER: u32 = 6;
/// \brief An input: the leader is known to be dead, from a better source than silence.
pub const RAFTZ_INPUT_FORGET_LEADER: u32 = 7;
/// \brief An input: the write that `persisted` names is durable, and so are all before it.
pub const RAFTZ_INPUT_PERSISTED: u32 = 8;
/// \brief An input: a write failed, for which `reason` has the words. The core halts.
pub const RAFTZ_INPUT_PERSIST_FAILED: u32 = 9;
/// \brief An input: the state machine has applied everything up to `index`.
pub const RAFTZ_INPUT_APPLIED: u32 = 10;
/// \brief An input: the answer to RAFTZ_ACTION_READ_ENTRIES, `entries_read`. A late one is nothing.
pub const RAFTZ_INPUT_ENTRIES_READ: u32 = 11;
/// \brief An input: a snapshot is whole on this node's disk, with its base, `snapshot`: one of its own, or a fetched one.
pub const RAFTZ_INPUT_SNAPSHOT_KEPT: u32 = 12;
/// \brief An input: the snapshot `snapshot_id` turned out to be damaged, or is gone. It is offered to nobody any more.
pub const RAFTZ_INPUT_SNAPSHOT_LOST: u32 = 13;
/// \brief An input: the log may begin behind `index`, or as near to it as the newest snapshot allows.
pub const RAFTZ_INPUT_COMPACT: u32 = 14;
/// \brief An input: the state machine is what RAFTZ_ACTION_RESTORE asked for, `snapshot_id`.
pub const RAFTZ_INPUT_RESTORED: u32 = 15;
/// \brief An input: a link to a peer came up, `link_up`. What was on its way over an older one is lost.
pub const RAFTZ_INPUT_LINK_UP: u32 = 16;
/// \brief An input: the last link to the peer `peer_id` is gone.
pub const RAFTZ_INPUT_LINK_DOWN: u32 = 17;
/// \brief An input: room for the log is running out (`is_full` not 0), or there is some again (0). Commands are refused
/// meanwhile.
pub const RAFTZ_INPUT_STORAGE_FULL: u32 = 18;

/// \brief Names a snapshot: two of the same name are the same bytes, on whatever node. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_snapshot_id {
    /// \brief The term of the last entry that it covers.
    pub term: u64,
    /// \brief The index of that entry.
    pub index: u64,
    /// \brief How many bytes it has.
    pub bytes: u64,
    /// \brief A hash of them, of the program's choice; nodes compare it.
    pub hash: [u8; 32],
}

/// \brief A snapshot that a program keeps. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_snapshot {
    /// \brief Its name.
    pub id: raftz_snapshot_id,
    /// \brief What raftz_core_snapshot_base() gave for it, on whatever node. To be kept and sent with it.
    pub base: raftz_slice,
}

/// \brief What RAFTZ_INPUT_RECEIVE carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_input_receive {
    /// \brief Its sender, as the program's network knows it.
    pub from: u64,
    /// \brief The message, as RAFTZ_ACTION_SEND gave it; copied.
    pub message: raftz_slice,
}

/// \brief A proposed command. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_proposal {
    /// \brief Names it in the answer; any number.
    pub token: u64,
    /// \brief The command; copied.
    pub command: raftz_slice,
}

/// \brief What RAFTZ_INPUT_PROPOSE carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_input_propose {
    /// \brief The commands, which reach the log in this order and without others between them.
    pub proposals: *const raftz_proposal,
    /// \brief How many.
    pub proposal_count: usize,
}

/// \brief What RAFTZ_INPUT_READ carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_input_read {
    /// \brief Names it in the answer; none that is open may have the same.
    pub request: u64,
    /// \brief Not 0: a lease is enough, if the configuration has `lease_reads`.
    pub by_lease: u32,
    /// \brief 0.
    pub reserved: u32,
}

/// \brief What RAFTZ_INPUT_TRANSFER carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_input_transfer {
    /// \brief Names it in the answer; any number.
    pub token: u64,
    /// \brief Who is to lead; 0: whoever suits best.
    pub target_id: u64,
    /// \brief When it must be decided, by the clock of `boot_us`.
    pub deadline_us: u64,
    /// \brief Not 0: leave elections to others for a while, too.
    pub steps_down: u32,
    /// \brief 0.
    pub reserved: u32,
}

/// \brief What RAFTZ_INPUT_PERSISTED carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_input_persisted {
    /// \brief As RAFTZ_ACTION_PERSIST said. One of an earlier life is nothing.
    pub boot: u64,
    /// \brief As RAFTZ_ACTION_PERSIST said, of the last write that is durable.
    pub number: u64,
}

/// \brief What RAFTZ_INPUT_ENTRIES_READ carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_input_entries_read {
    /// \brief As RAFTZ_ACTION_READ_ENTRIES said.
    pub request: u64,
    /// \brief RAFTZ_OK, or any other: they could not be read.
    pub status: raftz_status,
    /// \brief 0.
    pub reserved: u32,
    /// \brief The entries from `first` on, in order, each as it was given to be written; at least one. What was changed
    /// meanwhile is found out, and is a failed read.
    pub entries: *const raftz_slice,
    /// \brief How many.
    pub entry_count: usize,
    /// \brief Why they could not be read, in words.
    pub reason: raftz_slice,
}

/// \brief What RAFTZ_INPUT_LINK_UP carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_input_link_up {
    /// \brief The peer.
    pub peer_id: u64,
    /// \brief Its life: `boot` of its raftz_core_info.
    pub boot: u64,
    /// \brief Its disk: `disk_id` of its raftz_core_info. A leader writes it into the membership. From then on a link from
    /// another disk is told of as RAFTZ_EVENT_NONSENSE: close it, and hand on no message of it.
    pub disk_id: [u8; 16],
}

/// \brief What an input carries: of which kind, that says the input. The layout is frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub union raftz_core_input_with {
    /// \brief As much as there is room for.
    pub reserved: [u64; 12],
    /// \brief Of RAFTZ_INPUT_RECEIVE.
    pub receive: raftz_input_receive,
    /// \brief Of RAFTZ_INPUT_PROPOSE.
    pub propose: raftz_input_propose,
    /// \brief Of RAFTZ_INPUT_READ.
    pub read: raftz_input_read,
    /// \brief Of RAFTZ_INPUT_TRANSFER.
    pub transfer: raftz_input_transfer,
    /// \brief Of RAFTZ_INPUT_PERSISTED.
    pub persisted: raftz_input_persisted,
    /// \brief Of RAFTZ_INPUT_PERSIST_FAILED: words in UTF-8.
    pub reason: raftz_slice,
    /// \brief Of RAFTZ_INPUT_APPLIED and RAFTZ_INPUT_COMPACT.
    pub index: u64,
    /// \brief Of RAFTZ_INPUT_ENTRIES_READ.
    pub entries_read: raftz_input_entries_read,
    /// \brief Of RAFTZ_INPUT_SNAPSHOT_KEPT.
    pub snapshot: raftz_snapshot,
    /// \brief Of RAFTZ_INPUT_SNAPSHOT_LOST and RAFTZ_INPUT_RESTORED.
    pub snapshot_id: raftz_snapshot_id,
    /// \brief Of RAFTZ_INPUT_LINK_UP.
    pub link_up: raftz_input_link_up,
    /// \brief Of RAFTZ_INPUT_LINK_DOWN.
    pub peer_id: u64,
    /// \brief Of RAFTZ_INPUT_STORAGE_FULL.
    pub is_full: u32,
}

/// \brief Something that happened to a core. The layout of this struct is frozen.
///
/// A later version may know more kinds; what a kind carries never changes. A kind that the library does not know is
/// RAFTZ_UNSUPPORTED.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct raftz_core_input {
    /// \brief RAFTZ_INPUT_…
    pub kind: u32,
    /// \brief 0.
    pub reserved: u32,
    /// \brief What it carries.
    pub with: raftz_core_input_with,
}

/// Takes an input over from C. Whatever is wrong with it is told before anything is changed.
///
/// # Safety
/// What the input carries is there, and so is all that it points to.
pub(crate) unsafe fn taken(input: &raftz_core_input) -> Call<Input> {
    if input.reserved != 0 {
        return Err(invalid(format!("input.reserved is {}; it must be 0", input.reserved)));
    }
    let with = &input.with;
    // SAFETY: the caller's contract; all that a union may be is integers and pointers, for which every value is good.
    unsafe {
        Ok(match input.kind {
            RAFTZ_INPUT_TICK => Input::Tick,
            RAFTZ_INPUT_RECEIVE => Input::Receive {
                from: node(with.receive.from, "receive.from")?,
                message: message(guard::bytes(with.receive.message, "receive.message")?)?,
            },
            RAFTZ_INPUT_PROPOSE => Input::Propose { proposals: proposals(with.propose)? },
            RAFTZ_INPUT_READ => {
                Input::Read { request: with.read.request, by_lease: with.read.by_lease != 0 }
            }
            RAFTZ_INPUT_CAMPAIGN => Input::Campaign,
            RAFTZ_INPUT_TRANSFER => Input::Transfer {
                token: Token(with.transfer.token),
                target: NodeId::new(with.transfer.target_id),
                deadline_us: with.transfer.deadline_us,
                steps_down: with.transfer.steps_down != 0,
            },
            RAFTZ_INPUT_FORGET_LEADER => Input::ForgetLeader,
            RAFTZ_INPUT_PERSISTED => {
                let raftz_input_persisted { boot, number } = with.persisted;
                Input::Persisted { op: OpId { boot: Boot(boot), seq: number } }
            }
            RAFTZ_INPUT_PERSIST_FAILED => {
                Input::PersistFailed { reason: words(with.reason, "reason")? }
            }
            RAFTZ_INPUT_APPLIED => Input::Applied { index: Index(with.index) },
            RAFTZ_INPUT_ENTRIES_READ => {
                let result = entries(with.entries_read)?;
                Input::EntriesRead { request: with.entries_read.request, result }
            }
            RAFTZ_INPUT_SNAPSHOT_KEPT => Input::SnapshotKept { snapshot: snapshot(with.snapshot)? },
            RAFTZ_INPUT_SNAPSHOT_LOST => Input::SnapshotLost { id: snapshot_id(with.snapshot_id) },
            RAFTZ_INPUT_COMPACT => Input::Compact { upto: Index(with.index) },
            RAFTZ_INPUT_RESTORED => Input::Restored { id: snapshot_id(with.snapshot_id) },
            RAFTZ_INPUT_LINK_UP => Input::LinkUp {
                peer: node(with.link_up.peer_id, "link_up.peer_id")?,
                disk: DiskId(u128::from_be_bytes(with.link_up.disk_id)),
                boot: Boot(with.link_up.boot),
            },
            RAFTZ_INPUT_LINK_DOWN => Input::LinkDown { peer: node(with.peer_id, "peer_id")? },
            RAFTZ_INPUT_STORAGE_FULL => Input::StorageFull { full: with.is_full != 0 },
            other => {
                let words = format!("input.kind is {other}, which this version does not know");
                return Err(Failure::new(RAFTZ_UNSUPPORTED, words));
            }
        })
    }
}

fn node(id: u64, name: &str) -> Call<NodeId> {
    NodeId::new(id).ok_or_else(|| invalid(format!("{name} is 0; ids start at 1")))
}

/// # Safety
/// As [`guard::bytes`].
unsafe fn words(slice: raftz_slice, name: &str) -> Call<String> {
    // SAFETY: the caller's contract.
    Ok(String::from_utf8_lossy(unsafe { guard::bytes(slice, name) }?).into_owned())
}

/// A message off the program's network, whatever became of it there.
fn message(bytes: &[u8]) -> Call<RaftMessage> {
    let garbled = |what: &dyn std::fmt::Display| {
        let words = format!("receive.message is no message of raftz: {what}; drop it");
        Failure::new(RAFTZ_BAD_MESSAGE, words)
    };
    let short = || garbled(&format!("its {} bytes are too few", bytes.len()));
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>().ok_or_else(short)?;
    let header = FrameHeader::parse(header).map_err(|error| garbled(&error))?;
    let front = FRAME_HEADER_BYTES.saturating_add(header.metadata_length as usize);
    let front = bytes.get(..front).ok_or_else(short)?;
    header.verify(front).map_err(|error| garbled(&error))?;
    let frame = InFrame { bytes: Bytes::copy_from_slice(bytes) };
    let (group, decoded) = codec::decode(&frame).map_err(|error| garbled(&error))?;
    if group != GroupId::FIRST {
        return Err(garbled(&format!("it is of group {}, and this is group 1", group.0)));
    }
    match decoded {
        Decoded::Message(Message::Raft(message)) => Ok(message),
        Decoded::Message(
            Message::Forward(_)
            | Message::ForwardReply(_)
            | Message::Snapshot(_)
            | Message::Read(_),
        ) => {
            let words = "receive.message is for what nodes have around their core; drop it";
            Err(Failure::new(RAFTZ_UNSUPPORTED, words))
        }
        Decoded::Unknown(kind) => {
            let words = format!("receive.message is of kind {kind}, of a later version; drop it");
            Err(Failure::new(RAFTZ_UNSUPPORTED, words))
        }
    }
}

/// # Safety
/// All proposals are there.
unsafe fn proposals(given: raftz_input_propose) -> Call<Vec<Proposal>> {
    // SAFETY: the caller's contract.
    let given =
        unsafe { guard::array(given.proposals, given.proposal_count, "propose.proposals") }?;
    let copy = |(at, it): (usize, &raftz_proposal)| {
        let name = format!("propose.proposals[{at}].command");
        // SAFETY: the caller's contract.
        let bytes = unsafe { guard::bytes(it.command, &name) }?;
        let payload = Payload::new(Bytes::copy_from_slice(bytes));
        Ok(Proposal { token: Token(it.token), payload, session: None })
    };
    given.iter().enumerate().map(copy).collect()
}

/// What was read; or why there is nothing to believe.
///
/// # Safety
/// All entries are there.
unsafe fn entries(given: raftz_input_entries_read) -> Call<Result<Vec<Entry>, String>> {
    // SAFETY: the caller's contract.
    let (slices, reason) = unsafe {
        (
            guard::array(given.entries, given.entry_count, "entries_read.entries")?,
            words(given.reason, "entries_read.reason")?,
        )
    };
    if given.status != RAFTZ_OK {
        return Ok(Err(shown(given.status, Some(reason).filter(|it| !it.is_empty()))));
    }
    let mut entries = Vec::with_capacity(slices.len());
    for (at, slice) in slices.iter().enumerate() {
        // SAFETY: the caller's contract.
        let bytes = unsafe { guard::bytes(*slice, &format!("entries_read.entries[{at}]")) }?;
        match kept::decode_entry(bytes, GroupId::FIRST) {
            Ok(entry) => entries.push(entry),
            // Those before it are good.
            Err(_) if !entries.is_empty() => break,
            Err(words) => return Ok(Err(format!("the program's log: {words}"))),
        }
    }
    Ok(Ok(entries))
}

/// # Safety
/// The base is there.
pub(crate) unsafe fn snapshot(given: raftz_snapshot) -> Call<Snapshot> {
    // SAFETY: the caller's contract.
    let base = unsafe { guard::bytes(given.base, "snapshot.base") }?;
    let base = kept::decode_base(base)
        .map_err(|words| Failure::new(RAFTZ_STORAGE, format!("snapshot.base: {words}")))?;
    let id = snapshot_id(given.id);
    if id.last != base.id || base.id.index == Index::ZERO {
        let words = format!("snapshot.id ends with {}, its base with {}", id.last, base.id);
        return Err(invalid(words));
    }
    Ok(Snapshot { id, base })
}

fn snapshot_id(id: raftz_snapshot_id) -> SnapshotId {
    let raftz_snapshot_id { term, index, bytes, hash } = id;
    SnapshotId { last: LogId::new(Term(term), Index(index)), bytes, hash }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use raftz_core::types::{Base, Member, Membership, RaftBody, Settings};

    use super::*;

    /// Of each input, the number of its kind in C. A new one does not compile until it has one.
    const fn kind_of(input: &Input) -> u32 {
        match input {
            Input::Tick => RAFTZ_INPUT_TICK,
            Input::Receive { .. } => RAFTZ_INPUT_RECEIVE,
            Input::Propose { .. } => RAFTZ_INPUT_PROPOSE,
            Input::Read { .. } => RAFTZ_INPUT_READ,
            Input::Campaign => RAFTZ_INPUT_CAMPAIGN,
            Input::Transfer { .. } => RAFTZ_INPUT_TRANSFER,
            Input::ForgetLeader => RAFTZ_INPUT_FORGET_LEADER,
            Input::Persisted { .. } => RAFTZ_INPUT_PERSISTED,
            Input::PersistFailed { .. } => RAFTZ_INPUT_PERSIST_FAILED,
            Input::Applied { .. } => RAFTZ_INPUT_APPLIED,
            Input::EntriesRead { .. } => RAFTZ_INPUT_ENTRIES_READ,
            Input::SnapshotKept { .. } => RAFTZ_INPUT_SNAPSHOT_KEPT,
            Input::SnapshotLost { .. } => RAFTZ_INPUT_SNAPSHOT_LOST,
            Input::Compact { .. } => RAFTZ_INPUT_COMPACT,
            Input::Restored { .. } => RAFTZ_INPUT_RESTORED,
            Input::LinkUp { .. } => RAFTZ_INPUT_LINK_UP,
            Input::LinkDown { .. } => RAFTZ_INPUT_LINK_DOWN,
            Input::StorageFull { .. } => RAFTZ_INPUT_STORAGE_FULL,
        }
    }

    /// The last kind.
    const LAST: u32 = RAFTZ_INPUT_STORAGE_FULL;

    /// A good input of each kind.
    fn good(kind: u32, base: &[u8], message: &[u8]) -> raftz_core_input {
        let mut with = raftz_core_input_with { reserved: [0; 12] };
        let id = raftz_snapshot_id { term: 1, index: 1, bytes: 0, hash: [0; 32] };
        match kind {
            RAFTZ_INPUT_RECEIVE => {
                with.receive = raftz_input_receive { from: 2, message: raftz_slice::of(message) };
            }
            RAFTZ_INPUT_SNAPSHOT_KEPT => {
                with.snapshot = raftz_snapshot { id, base: raftz_slice::of(base) };
            }
            RAFTZ_INPUT_LINK_UP => {
                with.link_up = raftz_input_link_up { peer_id: 2, boot: 1, disk_id: [1; 16] };
            }
            RAFTZ_INPUT_LINK_DOWN => with.peer_id = 2,
            _ => {}
        }
        raftz_core_input { kind, reserved: 0, with }
    }

    fn base() -> Vec<u8> {
        let members = [(NodeId::new(1).unwrap(), Member::at("h:1"))];
        let founding = Base::founding(Membership::of_voters(members), Settings::default());
        kept::encode_base(&Base { id: LogId::new(Term(1), Index(1)), ..founding }).unwrap()
    }

    fn frame() -> Vec<u8> {
        let message = RaftMessage { term: Term(1), body: RaftBody::TimeoutNow };
        codec::encode(GroupId::FIRST, &Message::Raft(message)).head.to_vec()
    }

    #[test]
    fn every_input_of_the_core_has_its_kind_in_c_and_every_kind_is_taken() {
        let (base, frame) = (base(), frame());
        for kind in 1..=LAST {
            // SAFETY: what it points to is there.
            let input = unsafe { taken(&good(kind, &base, &frame)) };
            assert_eq!(input.as_ref().map(kind_of).ok(), Some(kind), "{input:?}");
        }
        for kind in [0, LAST + 1, u32::MAX] {
            // SAFETY: it points to nothing.
            let refused = unsafe { taken(&good(kind, &[], &[])) };
            assert_eq!(refused.unwrap_err().status, RAFTZ_UNSUPPORTED);
        }
    }

    #[test]
    fn a_message_with_any_byte_flipped_or_cut_off_is_refused() {
        let whole = frame();
        assert!(message(&whole).is_ok());
        for at in 0..whole.len() {
            assert_eq!(message(&whole[..at]).unwrap_err().status, RAFTZ_BAD_MESSAGE, "{at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 0x20;
            assert_eq!(message(&flipped).unwrap_err().status, RAFTZ_BAD_MESSAGE, "{at}");
        }
    }

    #[test]
    fn a_base_with_any_byte_flipped_or_cut_off_is_refused() {
        let whole = base();
        for at in 0..whole.len() {
            assert!(kept::decode_base(&whole[..at]).is_err(), "{at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 0x20;
            assert!(kept::decode_base(&flipped).is_err(), "{at}");
        }
    }
}
