//! What a node tells of by itself.

use std::ffi::c_void;
use std::sync::Arc;

use raftz_core::node::EventObserver;
use raftz_core::types::{Event, EventKey, NodeId, Role, SnapshotPhase};

use crate::bytes::raftz_slice;
use crate::config::{UserData, raftz_destroy_fn};
use crate::error::Failure;
use crate::guard::{Call, null};
use crate::propose::raftz_outcome;
use crate::queue::Queue;
use crate::sized::Sized;
use crate::status::RAFTZ_UNSUPPORTED;
use crate::transfer::transfer_number;

/// \brief In a queue: a call has ended; see the event's outcomes. Never told otherwise.
pub const RAFTZ_EVENT_COMPLETION: u32 = 0;
/// \brief The node's role or term changed: `role`, `term`.
pub const RAFTZ_EVENT_ROLE: u32 = 1;
/// \brief Another leader is known, or none any more: `peer_id` (0: none), `term`.
pub const RAFTZ_EVENT_LEADER: u32 = 2;
/// \brief This node leads and has committed an entry of its own term: `term`.
pub const RAFTZ_EVENT_READY: u32 = 3;
/// \brief A membership took effect: `index`, and in `text` its voters.
pub const RAFTZ_EVENT_MEMBERSHIP: u32 = 4;
/// \brief A link to a peer is usable: `peer_id`.
pub const RAFTZ_EVENT_PEER_UP: u32 = 5;
/// \brief No link to a peer is usable any more: `peer_id`, `text`.
pub const RAFTZ_EVENT_PEER_DOWN: u32 = 6;
/// \brief A peer was refused, because it is not what the membership says: `peer_id`, `text`.
pub const RAFTZ_EVENT_PEER_REFUSED: u32 = 7;
/// \brief A message that no honest node sends was dropped: `peer_id`, `text`.
pub const RAFTZ_EVENT_NONSENSE: u32 = 8;
/// \brief Damaged entries have been replaced; the node is whole again: `index`.
pub const RAFTZ_EVENT_HEALED: u32 = 9;
/// \brief A peer answers, but its log stands still: `peer_id`, `index` (how far it is).
pub const RAFTZ_EVENT_PEER_STALLED: u32 = 10;
/// \brief Storage could not do something that the node can live without: `text`.
pub const RAFTZ_EVENT_STORAGE_TROUBLE: u32 = 11;
/// \brief The network could not do something that concerns no peer in particular: `text`.
pub const RAFTZ_EVENT_NETWORK_TROUBLE: u32 = 12;
/// \brief Free disk space fell below the reserve (`is_on` 1) or is back (0).
pub const RAFTZ_EVENT_STORAGE_FULL: u32 = 13;
/// \brief The node has stopped because of a fault and does nothing more: `text`.
pub const RAFTZ_EVENT_FAULTED: u32 = 14;
/// \brief Progress of a snapshot: `phase`, its last entry `index`, `bytes` of `total_bytes`, and `peer_id` where
/// it moves between nodes.
pub const RAFTZ_EVENT_SNAPSHOT: u32 = 15;
/// \brief Leadership is being handed over by this node: `phase` (RAFTZ_TRANSFER_…), `peer_id` (who is to lead, or
/// who leads once it is done), and in `text` why it was begun, or why it failed.
pub const RAFTZ_EVENT_TRANSFER: u32 = 16;
/// \brief Events were dropped, because nobody took them in time; none of those that replace each other is among
/// them: `count`, so far. With `node_id` 0 it is the queue that dropped them.
pub const RAFTZ_EVENT_DROPPED: u32 = 17;
/// \brief Every kind of event that this version tells of.
pub const RAFTZ_EVENTS_ALL: u64 = 0xFFFF_FFFF_FFFF_FFFF;

/// Kinds that are told of.
const KNOWN: u64 = (1 << (RAFTZ_EVENT_DROPPED + 1)) - 2;

/// \brief A snapshot's phase: this node has taken it.
pub const RAFTZ_SNAPSHOT_BUILT: u32 = 1;
/// \brief A snapshot's phase: a peer fetches it from this node.
pub const RAFTZ_SNAPSHOT_SENDING: u32 = 2;
/// \brief A snapshot's phase: the peer was given its last piece.
pub const RAFTZ_SNAPSHOT_SENT: u32 = 3;
/// \brief A snapshot's phase: this node fetches it.
pub const RAFTZ_SNAPSHOT_FETCHING: u32 = 4;
/// \brief A snapshot's phase: it is on this node's disk, whole.
pub const RAFTZ_SNAPSHOT_FETCHED: u32 = 5;
/// \brief A snapshot's phase: the state machine was restored from it.
pub const RAFTZ_SNAPSHOT_INSTALLED: u32 = 6;
/// \brief A snapshot's phase: it is not fetched any more; a later offer may go on with it.
pub const RAFTZ_SNAPSHOT_FAILED: u32 = 7;

pub(crate) const fn phase_number(phase: SnapshotPhase) -> u32 {
    match phase {
        SnapshotPhase::Built => RAFTZ_SNAPSHOT_BUILT,
        SnapshotPhase::Sending => RAFTZ_SNAPSHOT_SENDING,
        SnapshotPhase::Sent => RAFTZ_SNAPSHOT_SENT,
        SnapshotPhase::Fetching => RAFTZ_SNAPSHOT_FETCHING,
        SnapshotPhase::Fetched => RAFTZ_SNAPSHOT_FETCHED,
        SnapshotPhase::Installed => RAFTZ_SNAPSHOT_INSTALLED,
        SnapshotPhase::Failed => RAFTZ_SNAPSHOT_FAILED,
    }
}

/// \brief A node's role: follows a leader, or waits for one.
pub const RAFTZ_ROLE_FOLLOWER: u32 = 0;
/// \brief A node's role: asks whether an election would succeed.
pub const RAFTZ_ROLE_PRE_CANDIDATE: u32 = 1;
/// \brief A node's role: stands for election.
pub const RAFTZ_ROLE_CANDIDATE: u32 = 2;
/// \brief A node's role: leads.
pub const RAFTZ_ROLE_LEADER: u32 = 3;

pub(crate) const fn role_number(role: Role) -> u32 {
    match role {
        Role::Follower => RAFTZ_ROLE_FOLLOWER,
        Role::PreCandidate => RAFTZ_ROLE_PRE_CANDIDATE,
        Role::Candidate => RAFTZ_ROLE_CANDIDATE,
        Role::Leader => RAFTZ_ROLE_LEADER,
    }
}

/// \brief What an event says. Which fields mean something depends on its kind; the others are zero.
///
/// In a callback `size` is what the library has; for raftz_event_get() set it to
/// `sizeof(raftz_event_info)`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_event_info {
    /// \brief Bytes of this struct.
    pub size: usize,
    /// \brief RAFTZ_EVENT_…; a later version may tell of kinds that are unknown to the program.
    pub kind: u32,
    /// \brief The group, for hosts of several; 1 today.
    pub group: u32,
    /// \brief The node that tells.
    pub node_id: u64,
    /// \brief A term.
    pub term: u64,
    /// \brief An index of the log.
    pub index: u64,
    /// \brief Another node; 0 for none.
    pub peer_id: u64,
    /// \brief RAFTZ_ROLE_…
    pub role: u32,
    /// \brief 1 or 0.
    pub is_on: u32,
    /// \brief Words in UTF-8, without NUL at the end. They live as long as the event, or until the callback
    /// returns.
    pub text: raftz_slice,
    /// \brief Of a completion: the user data that the call was given.
    pub user_data: *mut c_void,
    /// \brief Of a completion: how the calls ended, in their order; they live as long as the event.
    pub outcomes: *const raftz_outcome,
    /// \brief How many outcomes there are.
    pub outcome_count: usize,
    /// \brief RAFTZ_SNAPSHOT_… or RAFTZ_TRANSFER_…
    pub phase: u32,
    /// \brief Reserved: 0.
    pub reserved: u32,
    /// \brief Bytes that are through.
    pub bytes: u64,
    /// \brief All bytes.
    pub total_bytes: u64,
    /// \brief How many.
    pub count: u64,
}

// SAFETY: integers and pointers alone.
unsafe impl Sized for raftz_event_info {
    const NAME: &'static str = "raftz_event_info";
}

impl raftz_event_info {
    pub(crate) const fn of_kind(kind: u32, group: u32, node_id: u64) -> Self {
        Self {
            size: std::mem::size_of::<Self>(),
            kind,
            group,
            node_id,
            term: 0,
            index: 0,
            peer_id: 0,
            role: 0,
            is_on: 0,
            text: raftz_slice { data: std::ptr::null(), len: 0 },
            user_data: std::ptr::null_mut(),
            outcomes: std::ptr::null(),
            outcome_count: 0,
            phase: 0,
            reserved: 0,
            bytes: 0,
            total_bytes: 0,
            count: 0,
        }
    }
}

/// \brief Takes an event of a node.
///
/// While it is busy, events that tell of a state (role, leader, readiness, membership, the link to one peer, progress of
/// one transfer, disk space, a fault) replace each other, so that the latest is never missed. At most 4096 others wait;
/// how many were dropped is told as RAFTZ_EVENT_DROPPED.
///
/// Threads: the node's callback thread, one event at a time; nodes started with one configuration call it at
/// once. Blocking calls of raftz are refused in it.
///
/// \param user_data What raftz_config_set_event_callback() was given.
/// \param event The event; it lives until the function returns.
pub type raftz_event_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const raftz_event_info)>;

/// An event as C sees it, and its words.
pub(crate) struct Told {
    /// What it tells the present state of, if it does.
    pub(crate) key: Option<EventKey>,
    pub(crate) info: raftz_event_info,
    pub(crate) text: String,
}

pub(crate) fn told(node: NodeId, group: u32, event: &Event) -> Told {
    let mut info = raftz_event_info::of_kind(0, group, node.get());
    let mut text = String::new();
    info.kind = match event {
        Event::Role { role, term } => {
            (info.role, info.term) = (role_number(*role), term.0);
            RAFTZ_EVENT_ROLE
        }
        Event::Leader { leader, term } => {
            (info.peer_id, info.term) = (leader.map_or(0, NodeId::get), term.0);
            RAFTZ_EVENT_LEADER
        }
        Event::Ready { term } => {
            info.term = term.0;
            RAFTZ_EVENT_READY
        }
        Event::Membership { index, membership } => {
            info.index = index.0;
            let voters: Vec<String> = membership.voters.iter().map(NodeId::to_string).collect();
            text = voters.join(",");
            RAFTZ_EVENT_MEMBERSHIP
        }
        Event::PeerUp { peer } => {
            info.peer_id = peer.get();
            RAFTZ_EVENT_PEER_UP
        }
        Event::PeerDown { peer, reason } => {
            info.peer_id = peer.get();
            text.clone_from(reason);
            RAFTZ_EVENT_PEER_DOWN
        }
        Event::PeerRefused { peer, reason, .. } => {
            info.peer_id = peer.get();
            text.clone_from(reason);
            RAFTZ_EVENT_PEER_REFUSED
        }
        Event::Nonsense { from, what } => {
            info.peer_id = from.get();
            text.clone_from(what);
            RAFTZ_EVENT_NONSENSE
        }
        Event::Healed { upto } => {
            info.index = upto.0;
            RAFTZ_EVENT_HEALED
        }
        Event::PeerStalled { peer, matched, .. } => {
            (info.peer_id, info.index) = (peer.get(), matched.0);
            RAFTZ_EVENT_PEER_STALLED
        }
        Event::StorageTrouble { detail } => {
            text.clone_from(detail);
            RAFTZ_EVENT_STORAGE_TROUBLE
        }
        Event::NetworkTrouble { detail } => {
            text.clone_from(detail);
            RAFTZ_EVENT_NETWORK_TROUBLE
        }
        Event::StorageFull { full } => {
            info.is_on = u32::from(*full);
            RAFTZ_EVENT_STORAGE_FULL
        }
        Event::Snapshot { phase, peer, index, bytes, total_bytes } => {
            info.phase = phase_number(*phase);
            info.peer_id = peer.map_or(0, NodeId::get);
            info.index = index.0;
            (info.bytes, info.total_bytes) = (*bytes, *total_bytes);
            RAFTZ_EVENT_SNAPSHOT
        }
        Event::Transfer { to, phase, detail } => {
            info.phase = transfer_number(*phase);
            info.peer_id = to.get();
            text.clone_from(detail);
            RAFTZ_EVENT_TRANSFER
        }
        Event::Faulted(reason) => {
            text = reason.to_string();
            RAFTZ_EVENT_FAULTED
        }
        Event::Dropped { total } => {
            info.count = *total;
            RAFTZ_EVENT_DROPPED
        }
    };
    Told { key: event.key(), info, text }
}

enum To {
    Callback(unsafe extern "C" fn(*mut c_void, *const raftz_event_info), UserData),
    Queue(Arc<Queue>),
}

/// Where a node's events go.
pub(crate) struct Events {
    kinds: u64,
    to: To,
}

impl Events {
    pub(crate) fn to_callback(
        kinds: u64,
        event_fn: raftz_event_fn,
        user_data: *mut c_void,
        destroy: raftz_destroy_fn,
    ) -> Call<Arc<Self>> {
        let call = event_fn.ok_or_else(|| null("event_fn"))?;
        let kinds = known(kinds)?;
        Ok(Arc::new(Self { kinds, to: To::Callback(call, UserData::new(user_data, destroy)) }))
    }

    pub(crate) fn to_queue(kinds: u64, queue: Arc<Queue>) -> Call<Arc<Self>> {
        Ok(Arc::new(Self { kinds: known(kinds)?, to: To::Queue(queue) }))
    }

    /// Refuses a queue of the parent process.
    pub(crate) fn check(&self) -> Call {
        match &self.to {
            To::Callback(..) => Ok(()),
            To::Queue(queue) => queue.check(),
        }
    }

    /// What a node's configuration wants.
    pub(crate) fn observer(self: &Arc<Self>, node: NodeId) -> EventObserver {
        let events = Arc::clone(self);
        Arc::new(move |group, event| {
            let mut told = told(node, group.0, event);
            // Whoever is told of anything is told what is missing.
            let kinds = if events.kinds == 0 { 0 } else { events.kinds | 1 << RAFTZ_EVENT_DROPPED };
            if kinds & (1 << told.info.kind) == 0 {
                return;
            }
            match &events.to {
                To::Callback(call, user_data) => {
                    told.info.text = raftz_slice::of(told.text.as_bytes());
                    // SAFETY: the user's function, with the user's data and an event that lives
                    // meanwhile.
                    unsafe { call(user_data.get(), &raw const told.info) }
                }
                To::Queue(queue) => queue.push_event(told),
            }
        })
    }
}

fn known(kinds: u64) -> Call<u64> {
    if kinds != RAFTZ_EVENTS_ALL && kinds & !KNOWN != 0 {
        let message = format!(
            "kinds {:#x} of events are not told by this version; RAFTZ_EVENTS_ALL takes what there is",
            kinds & !KNOWN
        );
        return Err(Failure::new(RAFTZ_UNSUPPORTED, message));
    }
    Ok(kinds & KNOWN)
}
