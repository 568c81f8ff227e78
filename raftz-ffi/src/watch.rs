//! How a node stands, for who wants only the latest.

use std::time::Duration;

use raftz_core::node::{self, Standing};
use raftz_core::types::NodeId;

use crate::error::{Failure, raftz_error};
use crate::events::{phase_number, role_number};
use crate::guard::{borrow, call};
use crate::node::raftz_node;
use crate::sized::{Place, Sized};
use crate::status::{RAFTZ_EMPTY, RAFTZ_IN_CALLBACK, raftz_status};

/// \brief How a node stands.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_standing_info {
    /// \brief Set it to `sizeof(raftz_standing_info)`.
    pub size: usize,
    /// \brief Rises with each change, from 1.
    pub version: u64,
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
    /// \brief Index of the entry that gave the membership in force; 0 for the founding one.
    pub membership_index: u64,
    /// \brief How many other nodes have a usable link to it.
    pub connected_count: u32,
    /// \brief 1 if commands are refused for lack of disk space.
    pub is_storage_full: u32,
    /// \brief 1 if it has stopped because of a fault; raftz_state_get() says which.
    pub is_faulted: u32,
    /// \brief 1 if it was shut down.
    pub is_shut_down: u32,
    /// \brief Of the first snapshot on its way: RAFTZ_SNAPSHOT_SENDING or RAFTZ_SNAPSHOT_FETCHING; 0 for none.
    pub snapshot_phase: u32,
    /// \brief How many snapshots are on their way.
    pub snapshot_count: u32,
    /// \brief To or from which node the first is.
    pub snapshot_peer_id: u64,
    /// \brief How many of its bytes are through.
    pub snapshot_bytes: u64,
    /// \brief How many it has.
    pub snapshot_total_bytes: u64,
}

// SAFETY: integers alone.
unsafe impl Sized for raftz_standing_info {
    const NAME: &'static str = "raftz_standing_info";
}

fn info(size: usize, node_id: u64, (version, standing): (u64, &Standing)) -> raftz_standing_info {
    let first = standing.transfers.first();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    raftz_standing_info {
        size,
        version,
        node_id,
        leader_id: standing.leader.map_or(0, NodeId::get),
        term: standing.term.0,
        role: role_number(standing.role),
        is_ready: u32::from(standing.ready),
        membership_index: standing.membership_index.0,
        connected_count: count(standing.connected.len()),
        is_storage_full: u32::from(standing.storage_full),
        is_faulted: u32::from(standing.fault.is_some()),
        is_shut_down: u32::from(standing.shut_down),
        snapshot_phase: first.map_or(0, |it| phase_number(it.phase)),
        snapshot_count: count(standing.transfers.len()),
        snapshot_peer_id: first.map_or(0, |it| it.peer.get()),
        snapshot_bytes: first.map_or(0, |it| it.bytes),
        snapshot_total_bytes: first.map_or(0, |it| it.total_bytes),
    }
}

/// \brief Waits until a node stands in another way than before. What has changed in between is skipped: a
/// program that is slow learns the latest.
///
/// Nothing in it changes with every command, so that load wakes nobody.
///
/// Threads: any, several at once. Inside callbacks: with timeout 0. Blocks: up to the timeout.
///
/// \param node The node.
/// \param after_version The version that the caller has seen; 0: none, and the answer comes at once.
/// \param timeout_ms How long to wait, in milliseconds: 0 not at all, RAFTZ_WAIT_FOREVER as long as it takes.
/// \param info [in,out] Set its `size` to `sizeof(raftz_standing_info)`; the rest is filled.
/// \param error [out] Why not; may be NULL. RAFTZ_EMPTY leaves no error.
/// \return RAFTZ_OK; RAFTZ_EMPTY if nothing has changed before the timeout; RAFTZ_SHUT_DOWN or RAFTZ_FAULTED if
///         nothing will change any more; RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_IN_CALLBACK or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_watch_wait(
    node: *const raftz_node,
    after_version: u64,
    timeout_ms: u32,
    info: *mut raftz_standing_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node, "node") }?.handle()?;
        // SAFETY: the caller's contract.
        let out = unsafe { Place::new(info, "info") }?;
        if let Some(inside) = node::inside_callback().filter(|_| timeout_ms > 0) {
            let message = format!("a wait inside {inside} would hold it up; use timeout 0");
            return Err(Failure::new(RAFTZ_IN_CALLBACK, message));
        }
        let timeout = Duration::from_millis(timeout_ms.into());
        let newer = handle.node()?.standing_after(after_version, timeout)?;
        let Some((version, standing)) = newer else {
            return Err(Failure::new(RAFTZ_EMPTY, "nothing has changed before the timeout"));
        };
        let seen = self::info(out.size, handle.id(), (version, &standing));
        // SAFETY: the caller's contract.
        unsafe { out.put(&seen) };
        Ok(())
    })
}
