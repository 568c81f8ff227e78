//! Reads of the state machine.

use std::ffi::c_void;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::node::{Node, NodeError, ReadOptions};
use raftz_core::types::{Index, ReadLevel, Reply};

use crate::bytes::raftz_slice;
use crate::error::raftz_error;
use crate::guard::{self, Call, borrow, call, invalid, null};
use crate::node::raftz_node;
use crate::propose::{Ended, ReplyOut, Tag, raftz_done_fn, raftz_reply};
use crate::queue::raftz_queue;
use crate::sized::{self, Sized};
use crate::status::raftz_status;

/// \brief What a read may see: all that was acknowledged anywhere before it began. The leader asks a quorum; no
/// clock is trusted and no disk is written.
pub const RAFTZ_READ_LINEARIZABLE: u32 = 0;
/// \brief What a read may see: the same, by the clock of a leader that has a lease; see the key `lease_reads`.
/// As RAFTZ_READ_LINEARIZABLE where there is none. Unsafe where clocks may stand still, as in a virtual machine
/// that is paused or restored.
pub const RAFTZ_READ_LEASE: u32 = 1;
/// \brief What a read may see: at least what the entry `index` had changed, as the outcome of a proposal names it.
pub const RAFTZ_READ_AT_LEAST: u32 = 2;
/// \brief What a read may see: all that was acknowledged `max_age_ms` before it began, or earlier. Answered by any
/// node that can prove it; others ask the leader.
pub const RAFTZ_READ_BOUNDED: u32 = 3;
/// \brief What a read may see: whatever this node has applied; it may be old.
pub const RAFTZ_READ_STALE: u32 = 4;

/// \brief How a read is to be done.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_read_opts {
    /// \brief Set it to `sizeof(raftz_read_opts)`.
    pub size: usize,
    /// \brief RAFTZ_READ_…
    pub level: u32,
    /// \brief Time after which the read is answered, in milliseconds. 0: the key `read_timeout_ms`.
    pub timeout_ms: u32,
    /// \brief For RAFTZ_READ_AT_LEAST.
    pub index: u64,
    /// \brief For RAFTZ_READ_BOUNDED.
    pub max_age_ms: u64,
}

// SAFETY: integers alone.
unsafe impl Sized for raftz_read_opts {
    const NAME: &'static str = "raftz_read_opts";
}

/// What the options say.
///
/// # Safety
/// As [`sized::read`].
unsafe fn options(opts: *const raftz_read_opts) -> Call<ReadOptions> {
    // SAFETY: the caller's contract.
    let Some(opts) = unsafe { sized::read(opts) }? else { return Ok(ReadOptions::default()) };
    let level = match opts.level {
        RAFTZ_READ_LINEARIZABLE => ReadLevel::Linearizable,
        RAFTZ_READ_LEASE => ReadLevel::Lease,
        RAFTZ_READ_AT_LEAST => ReadLevel::AtLeast(Index(opts.index)),
        RAFTZ_READ_BOUNDED => ReadLevel::Bounded(Duration::from_millis(opts.max_age_ms)),
        RAFTZ_READ_STALE => ReadLevel::Stale,
        other => return Err(invalid(format!("opts.level is {other}, no RAFTZ_READ_…"))),
    };
    let timeout = (opts.timeout_ms > 0).then(|| Duration::from_millis(u64::from(opts.timeout_ms)));
    Ok(ReadOptions { level, timeout })
}

/// \brief Asks the state machine. Returns at once; the completion is called with the answer.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node whose machine is asked.
/// \param request The question; copied.
/// \param opts What the read may see, and how long it may take; NULL: RAFTZ_READ_LINEARIZABLE.
/// \param done_fn Told the answer, exactly once if the call succeeds and never if it fails; never from within
///        this call. Index and term of its outcome are 0.
/// \param user_data Given to `done_fn`.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK (accepted), RAFTZ_BUSY, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG,
///         RAFTZ_ABI_MISMATCH or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_read(
    node: *const raftz_node,
    request: raftz_slice,
    opts: *const raftz_read_opts,
    done_fn: raftz_done_fn,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (node, request, options) = unsafe {
            (borrow(node, "node")?.handle()?, guard::bytes(request, "request")?, options(opts)?)
        };
        let done = done_fn.ok_or_else(|| null("done_fn"))?;
        let tag = Tag(user_data);
        ask(&*node.node()?, request, options, move |answer| {
            let ended = Ended::read(answer);
            let seen = ended.outcome();
            // SAFETY: the user's function, with the user's data and an outcome that lives meanwhile.
            unsafe { done(tag.get(), &raw const seen) }
        })
    })
}

/// \brief Asks the state machine, as raftz_read(), and has the answer put into a queue: an event of kind
/// RAFTZ_EVENT_COMPLETION with the user data and one outcome, whose index and term are 0.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node whose machine is asked.
/// \param request The question; copied.
/// \param opts What the read may see, and how long it may take; NULL: RAFTZ_READ_LINEARIZABLE.
/// \param queue The queue.
/// \param user_data Given back with the event.
/// \param error [out] Why not; may be NULL.
/// \return As raftz_read(); RAFTZ_BUSY also when the queue is at its bound, RAFTZ_CLOSED when it is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_read_queued(
    node: *const raftz_node,
    request: raftz_slice,
    opts: *const raftz_read_opts,
    queue: *mut raftz_queue,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (node, request, options, queue) = unsafe {
            (
                borrow(node, "node")?.handle()?,
                guard::bytes(request, "request")?,
                options(opts)?,
                borrow(queue.cast_const(), "queue")?.shared()?,
            )
        };
        let (reserved, id, tag) = (queue.reserve(1)?, node.id(), Tag(user_data));
        ask(&*node.node()?, request, options, move |answer| {
            reserved.complete((id, tag.get()), vec![Ended::read(answer)]);
        })
    })
}

fn ask(
    node: &Node,
    request: &[u8],
    options: ReadOptions,
    done: impl FnOnce(Result<Reply, NodeError>) + Send + 'static,
) -> Call {
    Ok(node.read_with(Bytes::copy_from_slice(request), options, done)?)
}

/// \brief Asks the state machine and waits for the answer.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
///
/// \param node The node whose machine is asked.
/// \param request The question; copied.
/// \param opts What the read may see, and how long it may take; NULL: RAFTZ_READ_LINEARIZABLE.
/// \param reply [in,out] Set its `size` to `sizeof(raftz_reply)`; the rest is filled. Free its `bytes`.
/// \param error [out] Why there is no answer; may be NULL.
/// \return RAFTZ_OK, RAFTZ_LEADER_TIMEOUT, RAFTZ_APPLY_TIMEOUT, RAFTZ_READ_TIMEOUT, RAFTZ_READ_FAILED, RAFTZ_BUSY,
///         RAFTZ_FAULTED, RAFTZ_SHUT_DOWN, RAFTZ_IN_CALLBACK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or
///         RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_read_wait(
    node: *const raftz_node,
    request: raftz_slice,
    opts: *const raftz_read_opts,
    reply: *mut raftz_reply,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let out = unsafe { ReplyOut::new(reply) }?;
        // SAFETY: the caller's contract.
        let (node, request, options) = unsafe {
            (borrow(node, "node")?.handle()?, guard::bytes(request, "request")?, options(opts)?)
        };
        let answer = node.node()?.read_blocking(Bytes::copy_from_slice(request), options)?;
        // SAFETY: the caller's contract.
        unsafe { out.put(answer, 0, 0) };
        Ok(())
    })
}
