//! How a node is and what it knows.

use std::ffi::{CString, c_char};

use raftz_core::node::Status;
use raftz_core::types::NodeId;

use crate::bytes::raftz_slice;
use crate::error::raftz_error;
use crate::events::{phase_number, role_number};
use crate::guard::{Out, borrow, call, free, invalid};
use crate::node::raftz_node;
use crate::sized::{Place, Sized};
use crate::status::raftz_status;

/// \brief How a node was when it was asked.
pub struct raftz_state {
    status: Status,
    fault: String,
    address: String,
    peers: Vec<(String, CString)>,
    obstacles: String,
}

/// \brief A node's state, in numbers and words. The words live as long as the state.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_state_info {
    /// \brief Set it to `sizeof(raftz_state_info)`.
    pub size: usize,
    /// \brief The node.
    pub node_id: u64,
    /// \brief The leader that it knows; 0 for none.
    pub leader_id: u64,
    /// \brief Its term.
    pub term: u64,
    /// \brief RAFTZ_ROLE_…
    pub role: u32,
    /// \brief 1 if it leads and has committed an entry of its own term.
    pub is_ready: u32,
    /// \brief Its log begins after this index.
    pub base_index: u64,
    /// \brief Index of its last entry.
    pub last_index: u64,
    /// \brief Everything up to here is on its disk.
    pub durable_index: u64,
    /// \brief Everything up to here is known to be committed.
    pub commit_index: u64,
    /// \brief Everything up to here is applied to its machine.
    pub applied_index: u64,
    /// \brief First entry that its disk has lost and the leader has not yet replaced; 0 for none.
    pub damaged_from: u64,
    /// \brief Calls in flight on this node, from raftz_propose() to the end of the completion.
    pub calls_in_flight: u64,
    /// \brief Largest command that the cluster has agreed on.
    pub entry_bytes_max: u64,
    /// \brief How many times its data directory was opened.
    pub boot: u64,
    /// \brief How many other members there are; see raftz_state_peer().
    pub peer_count: usize,
    /// \brief Whether it was shut down: 1 or 0.
    pub is_shut_down: u32,
    /// \brief How many members' data directories, this node's among them, the membership names. Once it is
    /// all of them, a wiped directory under any member's id is refused.
    pub disk_count: u32,
    /// \brief Why the node stopped, if it did because of a fault; else empty.
    pub fault: raftz_slice,
    /// \brief Where it listens; empty if it does not.
    pub listen_address: raftz_slice,
    /// \brief Why there may be no leader: who cannot be reached and why, in one line.
    pub obstacles: raftz_slice,
    /// \brief Whom it is handing its leadership to; 0 for nobody.
    pub transfer_to: u64,
}

// SAFETY: integers and pointers alone.
unsafe impl Sized for raftz_state_info {
    const NAME: &'static str = "raftz_state_info";
}

/// \brief Another member, as a node sees it. The words live as long as the state.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_peer_info {
    /// \brief Set it to `sizeof(raftz_peer_info)`.
    pub size: usize,
    /// \brief The member.
    pub node_id: u64,
    /// \brief 1 if there is a usable link.
    pub is_connected: u32,
    /// \brief RAFTZ_SNAPSHOT_SENDING or RAFTZ_SNAPSHOT_FETCHING while a snapshot is on its way; else 0.
    pub snapshot_phase: u32,
    /// \brief On a leader: its log equals the leader's up to here, durably; else 0.
    pub matched_index: u64,
    /// \brief On a leader: the next entry to send; else 0.
    pub next_index: u64,
    /// \brief On a leader: messages with entries that are on their way; else 0.
    pub appends_in_flight: u64,
    /// \brief Where it is expected: `host:port`.
    pub address: raftz_slice,
    /// \brief Why there is no link; empty if there is one.
    pub unreachable: raftz_slice,
    /// \brief On a leader: "probe", "replicate" or "snapshot", ended by NUL; else empty.
    pub mode: *const c_char,
    /// \brief How many bytes of that snapshot have been sent to it, or are on this node's disk; else 0.
    pub snapshot_bytes: u64,
    /// \brief How many it has; else 0.
    pub snapshot_total_bytes: u64,
}

// SAFETY: integers and pointers alone.
unsafe impl Sized for raftz_peer_info {
    const NAME: &'static str = "raftz_peer_info";
}

/// \brief Asks a node how it is.
///
/// Threads: any. Inside callbacks: yes. Blocks: for microseconds; half a second if the node cannot answer.
///
/// \param node The node.
/// \param state [out] How it is, to be freed with raftz_state_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_state(
    node: *const raftz_node,
    state: *mut *mut raftz_state,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(state, "state")?;
        // SAFETY: the caller's contract.
        let status = unsafe { borrow(node, "node") }?.handle()?.node()?.status();
        let words = |peer: &raftz_core::node::PeerStatus| {
            let mode = CString::new(peer.mode.unwrap_or_default()).unwrap_or_default();
            (peer.unreachable.clone().unwrap_or_default(), mode)
        };
        let state = raftz_state {
            fault: status.fault.as_ref().map(ToString::to_string).unwrap_or_default(),
            address: status.listen_address.clone().unwrap_or_default(),
            peers: status.peers.iter().map(words).collect(),
            obstacles: status.obstacles(),
            status,
        };
        // SAFETY: the caller's contract.
        unsafe { out.give(state) };
        Ok(())
    })
}

/// \brief Frees a state.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param state The state, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_state_free(state: *mut raftz_state) {
    // SAFETY: the caller's contract: NULL, or a state that is C's own.
    unsafe { free(state) }
}

/// \brief What a state says.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param state The state.
/// \param info [in,out] Set its `size` to `sizeof(raftz_state_info)`; the rest is filled.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_state_get(
    state: *const raftz_state,
    info: *mut raftz_state_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let state = unsafe { borrow(state, "state") }?;
        // SAFETY: the caller's contract.
        let out = unsafe { Place::new(info, "info") }?;
        let status = &state.status;
        let disks = status.membership.members.values().filter(|member| member.disk_id.is_some());
        let seen = raftz_state_info {
            size: out.size,
            node_id: status.node_id.get(),
            leader_id: status.leader.map_or(0, NodeId::get),
            term: status.term.0,
            role: role_number(status.role),
            is_ready: u32::from(status.ready),
            base_index: status.base.index.0,
            last_index: status.last.index.0,
            durable_index: status.durable.0,
            commit_index: status.commit.0,
            applied_index: status.applied.0,
            damaged_from: status.damaged_from.map_or(0, |index| index.0),
            calls_in_flight: status.calls_in_flight,
            entry_bytes_max: status.settings.entry_bytes_max,
            boot: status.boot.0,
            peer_count: status.peers.len(),
            is_shut_down: u32::from(status.shut_down),
            disk_count: u32::try_from(disks.count()).unwrap_or(u32::MAX),
            fault: raftz_slice::of(state.fault.as_bytes()),
            listen_address: raftz_slice::of(state.address.as_bytes()),
            obstacles: raftz_slice::of(state.obstacles.as_bytes()),
            transfer_to: status.transfer.map_or(0, NodeId::get),
        };
        // SAFETY: the caller's contract.
        unsafe { out.put(&seen) };
        Ok(())
    })
}

/// \brief What a state says of another member.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param state The state.
/// \param at Which, from 0 to `peer_count` - 1.
/// \param info [in,out] Set its `size` to `sizeof(raftz_peer_info)`; the rest is filled.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_state_peer(
    state: *const raftz_state,
    at: usize,
    info: *mut raftz_peer_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let state = unsafe { borrow(state, "state") }?;
        let count = state.peers.len();
        let (Some(peer), Some((unreachable, mode))) =
            (state.status.peers.get(at), state.peers.get(at))
        else {
            return Err(invalid(format!("at is {at}, and there are {count} peers")));
        };
        // SAFETY: the caller's contract.
        let out = unsafe { Place::new(info, "info") }?;
        let seen = raftz_peer_info {
            size: out.size,
            node_id: peer.id.get(),
            is_connected: u32::from(peer.connected),
            snapshot_phase: peer.transfer.map_or(0, |it| phase_number(it.phase)),
            matched_index: peer.matched.map_or(0, |index| index.0),
            next_index: peer.next.map_or(0, |index| index.0),
            appends_in_flight: peer.in_flight.unwrap_or_default(),
            address: raftz_slice::of(peer.address.as_bytes()),
            unreachable: raftz_slice::of(unreachable.as_bytes()),
            mode: mode.as_ptr(),
            snapshot_bytes: peer.transfer.map_or(0, |it| it.bytes),
            snapshot_total_bytes: peer.transfer.map_or(0, |it| it.total_bytes),
        };
        // SAFETY: the caller's contract.
        unsafe { out.put(&seen) };
        Ok(())
    })
}
