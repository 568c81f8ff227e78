//! What a node has counted and measured.

use bytes::Bytes;
use raftz_core::node::{Metrics, PeerMetrics};
use raftz_core::types::{Histogram, NodeId};

use crate::bytes::raftz_bytes;
use crate::error::raftz_error;
use crate::events::phase_number;
use crate::guard::{Out, borrow, call, invalid};
use crate::node::raftz_node;
use crate::sized::{Place, Sized};
use crate::status::raftz_status;

/// \brief How often something happened that took time, and how long all of it took.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_times {
    /// \brief How often.
    pub count: u64,
    /// \brief How long all of it took, in microseconds.
    pub sum_us: u64,
    /// \brief A bound that half of it did not exceed, in microseconds; 0 if nothing happened.
    pub p50_us: u64,
    /// \brief Likewise for 99 of 100; UINT64_MAX: more than a minute.
    pub p99_us: u64,
}

impl raftz_times {
    fn of(histogram: &Histogram) -> Self {
        let (count, sum_us) = (histogram.count(), histogram.sum());
        let at = |part| if count == 0 { 0 } else { histogram.at_most(part).unwrap_or(u64::MAX) };
        Self { count, sum_us, p50_us: at(0.5), p99_us: at(0.99) }
    }
}

/// \brief What a node has counted and measured since it was started.
///
/// Each number by itself is right; together they need not belong to one moment. raftz_metrics_text() has more:
/// results, reasons, levels, and histograms.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_metrics_info {
    /// \brief Set it to `sizeof(raftz_metrics_info)`.
    pub size: usize,
    /// \brief The node.
    pub node_id: u64,
    /// \brief The leader that it knows; 0 for none.
    pub leader_id: u64,
    /// \brief Its term.
    pub term: u64,
    /// \brief How often a leader became known that was not known before, itself included.
    pub leader_changes: u64,
    /// \brief Elections in which it stood and won.
    pub elections_won: u64,
    /// \brief Elections in which it stood and did not win, for whatever reason.
    pub elections_not_won: u64,
    /// \brief Everything up to here is known to be committed.
    pub commit_index: u64,
    /// \brief Everything up to here is applied.
    pub applied_index: u64,
    /// \brief The last entry of its log.
    pub last_index: u64,
    /// \brief The first entry of its log.
    pub first_index: u64,
    /// \brief Commands of this node's callers that have not ended.
    pub proposals_pending: u64,
    /// \brief Those that were done.
    pub proposals_committed: u64,
    /// \brief Those that were refused, or ended as unknown.
    pub proposals_failed: u64,
    /// \brief From a command to its end.
    pub propose: raftz_times,
    /// \brief On a leader, from the append of a batch to its commit.
    pub commit: raftz_times,
    /// \brief One write of the log, its sync included; nothing for memory storage.
    pub wal_fsync: raftz_times,
    /// \brief One batch in the state machine.
    pub apply_batch: raftz_times,
    /// \brief Entries that were written to the log.
    pub entries_written: u64,
    /// \brief In so many writes.
    pub writes: u64,
    /// \brief Age of the oldest entry of the log, roughly, in microseconds; 0 if it is not known.
    pub oldest_log_entry_us: u64,
    /// \brief What the log takes on disk; 0 for memory storage.
    pub wal_bytes: u64,
    /// \brief Events that the node's observer will never see, because it was busy for too long.
    pub events_dropped: u64,
    /// \brief Reads, of all levels.
    pub reads: u64,
}

// SAFETY: integers alone.
unsafe impl Sized for raftz_metrics_info {
    const NAME: &'static str = "raftz_metrics_info";
}

/// \brief What a node has measured of another member.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_peer_metrics_info {
    /// \brief Set it to `sizeof(raftz_peer_metrics_info)`.
    pub size: usize,
    /// \brief The member.
    pub node_id: u64,
    /// \brief 1 if the node leads, and so knows how far the member is; the next five are 0 elsewhere.
    pub is_led: u32,
    /// \brief RAFTZ_SNAPSHOT_SENDING or RAFTZ_SNAPSHOT_FETCHING while a snapshot is on its way; else 0.
    pub snapshot_phase: u32,
    /// \brief Its log equals the leader's up to here, durably.
    pub match_index: u64,
    /// \brief Entries of the leader's log that it is not known to have.
    pub lag_entries: u64,
    /// \brief Time since its last answer, in microseconds.
    pub last_contact_us: u64,
    /// \brief Appends on their way to it.
    pub inflight: u64,
    /// \brief What its last answer to a heartbeat took, there and back, in microseconds; 0 if there was none.
    pub rtt_us: u64,
    /// \brief Bytes of that snapshot that are through; else 0.
    pub snapshot_bytes: u64,
    /// \brief All its bytes; else 0.
    pub snapshot_total_bytes: u64,
}

// SAFETY: integers alone.
unsafe impl Sized for raftz_peer_metrics_info {
    const NAME: &'static str = "raftz_peer_metrics_info";
}

fn us(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn info(size: usize, metrics: &Metrics) -> raftz_metrics_info {
    let sum = |counts: &[(&str, u64)]| counts.iter().map(|(_, count)| *count).sum::<u64>();
    let stood = metrics.elections.iter().filter(|(result, _)| *result != "not_begun");
    let stood: u64 = stood.map(|(_, count)| *count).sum();
    let won = metrics.elections.iter().find(|(result, _)| *result == "won").map_or(0, |it| it.1);
    raftz_metrics_info {
        size,
        node_id: metrics.node_id.get(),
        leader_id: metrics.leader.map_or(0, NodeId::get),
        term: metrics.term.0,
        leader_changes: metrics.leader_changes,
        elections_won: won,
        elections_not_won: stood.saturating_sub(won),
        commit_index: metrics.commit_index.0,
        applied_index: metrics.applied_index.0,
        last_index: metrics.last_index.0,
        first_index: metrics.first_index.0,
        proposals_pending: metrics.proposals_pending,
        proposals_committed: metrics.proposals_committed,
        proposals_failed: sum(&metrics.proposals_failed),
        propose: raftz_times::of(&metrics.propose_us),
        commit: raftz_times::of(&metrics.commit_us),
        wal_fsync: raftz_times::of(&metrics.wal_fsync_us),
        apply_batch: raftz_times::of(&metrics.apply_batch_us),
        entries_written: metrics.append_batch_entries.sum(),
        writes: metrics.append_batch_entries.count(),
        oldest_log_entry_us: metrics.oldest_log_entry_age.map_or(0, us),
        wal_bytes: metrics.wal_bytes.unwrap_or_default(),
        events_dropped: metrics.events_dropped,
        reads: sum(&metrics.reads),
    }
}

fn peer_info(size: usize, peer: &PeerMetrics) -> raftz_peer_metrics_info {
    let (progress, transfer) = (peer.progress.as_ref(), peer.transfer.as_ref());
    raftz_peer_metrics_info {
        size,
        node_id: peer.id.get(),
        is_led: u32::from(progress.is_some()),
        snapshot_phase: transfer.map_or(0, |it| phase_number(it.phase)),
        match_index: progress.map_or(0, |it| it.match_index.0),
        lag_entries: progress.map_or(0, |it| it.lag_entries),
        last_contact_us: progress.map_or(0, |it| us(it.last_contact)),
        inflight: progress.map_or(0, |it| it.inflight),
        rtt_us: progress.and_then(|it| it.rtt).map_or(0, us),
        snapshot_bytes: transfer.map_or(0, |it| it.bytes),
        snapshot_total_bytes: transfer.map_or(0, |it| it.total_bytes),
    }
}

/// \brief What a node has counted and measured, in numbers.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node.
/// \param info [in,out] Set its `size` to `sizeof(raftz_metrics_info)`; the rest is filled.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_metrics(
    node: *const raftz_node,
    info: *mut raftz_metrics_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node, "node") }?.handle()?;
        // SAFETY: the caller's contract.
        let out = unsafe { Place::new(info, "info") }?;
        let seen = self::info(out.size, &handle.node()?.metrics());
        // SAFETY: the caller's contract.
        unsafe { out.put(&seen) };
        Ok(())
    })
}

/// \brief What a node has measured of another member. Of one of which it knows nothing, all is 0 but the id: only
/// a leader knows how far others are, and who exchanges a snapshot with one knows how far that is.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node.
/// \param peer_id The other member's id.
/// \param info [in,out] Set its `size` to `sizeof(raftz_peer_metrics_info)`; the rest is filled.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG (a wrong size, or `peer_id` 0) or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_metrics_peer(
    node: *const raftz_node,
    peer_id: u64,
    info: *mut raftz_peer_metrics_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node, "node") }?.handle()?;
        // SAFETY: the caller's contract.
        let out = unsafe { Place::new(info, "info") }?;
        let id = NodeId::new(peer_id).ok_or_else(|| invalid("peer_id is 0; ids start at 1"))?;
        let peers = handle.node()?.metrics().peers;
        let nothing = PeerMetrics { id, progress: None, transfer: None };
        let seen = peer_info(out.size, peers.iter().find(|it| it.id == id).unwrap_or(&nothing));
        // SAFETY: the caller's contract.
        unsafe { out.put(&seen) };
        Ok(())
    })
}

/// \brief What a node has counted and measured, as Prometheus reads it: OpenMetrics text, each name with the
/// prefix `raftz_` and the labels `node` and `group`, that of a peer with `peer`, too.
///
/// The library opens no port. Serve the text where you like, as
/// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node.
/// \param metrics [out] The text, without NUL at the end, to be freed with raftz_bytes_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_metrics_text(
    node: *const raftz_node,
    metrics: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(metrics, "metrics")?;
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node, "node") }?.handle()?;
        let text = handle.node()?.metrics_text();
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_bytes(Bytes::from(text))) };
        Ok(())
    })
}
