//! Leadership that is handed over: by callback, into a queue, or waited for.

use std::ffi::c_void;
use std::time::Duration;

use raftz_core::node::{Node, NodeError};
use raftz_core::types::{NodeId, TransferPhase};

use crate::error::raftz_error;
use crate::guard::{Call, Out, borrow, call, null};
use crate::node::raftz_node;
use crate::propose::{Ended, Tag, raftz_done_fn};
use crate::queue::raftz_queue;
use crate::status::raftz_status;

/// \brief A transfer's phase: this node brings its successor up to date, and then asks it to stand.
pub const RAFTZ_TRANSFER_BEGUN: u32 = 1;
/// \brief A transfer's phase: the other node leads.
pub const RAFTZ_TRANSFER_DONE: u32 = 2;
/// \brief A transfer's phase: it does not.
pub const RAFTZ_TRANSFER_FAILED: u32 = 3;

pub(crate) const fn transfer_number(phase: TransferPhase) -> u32 {
    match phase {
        TransferPhase::Begun => RAFTZ_TRANSFER_BEGUN,
        TransferPhase::Done => RAFTZ_TRANSFER_DONE,
        TransferPhase::Failed => RAFTZ_TRANSFER_FAILED,
    }
}

/// What is wanted.
#[derive(Clone, Copy)]
enum Wish {
    /// That this node lead; nobody in particular if `None`.
    Transfer(Option<NodeId>),
    StepDown,
}

fn timeout(timeout_ms: u32) -> Duration {
    Duration::from_millis(timeout_ms.into())
}

fn ask(
    node: &Node,
    wish: Wish,
    timeout_ms: u32,
    done: impl FnOnce(Result<NodeId, NodeError>) + Send + 'static,
) -> Call {
    match wish {
        Wish::Transfer(target) => {
            node.transfer_leadership_with(target, timeout(timeout_ms), done)?;
        }
        Wish::StepDown => node.step_down_with(timeout(timeout_ms), done)?,
    }
    Ok(())
}

/// # Safety
/// NULL or a node; a function that C gave, and its data.
unsafe fn call_back(
    node: *mut raftz_node,
    wish: Wish,
    timeout_ms: u32,
    done_fn: raftz_done_fn,
    user_data: *mut c_void,
) -> Call {
    // SAFETY: the caller's contract.
    let node = unsafe { borrow(node.cast_const(), "node") }?.handle()?;
    let done = done_fn.ok_or_else(|| null("done_fn"))?;
    let tag = Tag(user_data);
    ask(&*node.node()?, wish, timeout_ms, move |result| {
        let ended = Ended::transfer(result);
        let seen = ended.outcome();
        // SAFETY: the user's function, with the user's data and an outcome that lives meanwhile.
        unsafe { done(tag.get(), &raw const seen) }
    })
}

/// # Safety
/// NULL or a node; NULL or a queue.
unsafe fn enqueue(
    node: *mut raftz_node,
    wish: Wish,
    timeout_ms: u32,
    queue: *mut raftz_queue,
    user_data: *mut c_void,
) -> Call {
    // SAFETY: the caller's contract.
    let (node, queue) = unsafe {
        (
            borrow(node.cast_const(), "node")?.handle()?,
            borrow(queue.cast_const(), "queue")?.shared()?,
        )
    };
    let (reserved, id, tag) = (queue.reserve(1)?, node.id(), Tag(user_data));
    ask(&*node.node()?, wish, timeout_ms, move |result| {
        reserved.complete((id, tag.get()), vec![Ended::transfer(result)]);
    })
}

/// # Safety
/// NULL or a node; NULL or a place for a number.
unsafe fn wait(node: *mut raftz_node, wish: Wish, timeout_ms: u32, leader_id: *mut u64) -> Call {
    // SAFETY: the caller's contract.
    let node = unsafe { borrow(node.cast_const(), "node") }?.handle()?;
    let node = node.node()?;
    let leader = match wish {
        Wish::Transfer(target) => node.transfer_leadership(target, timeout(timeout_ms))?,
        Wish::StepDown => node.step_down(timeout(timeout_ms))?,
    };
    if let Ok(out) = Out::new(leader_id, "leader_id") {
        // SAFETY: the caller's contract.
        unsafe { out.put(leader.get()) };
    }
    Ok(())
}

/// \brief Has another node lead. Returns at once; the completion is called when it does, or when it is known
/// that nothing comes of it.
///
/// The other node is brought up to date first. Commands that come meanwhile are held for a moment, and done by
/// whoever leads then. If nothing is decided within the timeout this node leads on.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; it must lead.
/// \param target_id Who is to lead, a voter; 0: whoever suits best.
/// \param timeout_ms By when it must be decided, in milliseconds.
/// \param done_fn Told how it ended, exactly once if the call succeeds and never if it fails; never from within
///        this call. Its outcome has the status RAFTZ_OK and the new leader in `leader_id`, or the status
///        RAFTZ_NOT_LEADER, RAFTZ_TRANSFER_TARGET, RAFTZ_TRANSFER_UNFIT, RAFTZ_TRANSFER_TIMEOUT,
///        RAFTZ_TRANSFER_UNDER_WAY, RAFTZ_TRANSFER_OVERTAKEN, RAFTZ_SHUT_DOWN or RAFTZ_FAULTED.
/// \param user_data Given to `done_fn`.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK (accepted), RAFTZ_BUSY, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED, RAFTZ_NULL_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_transfer_leadership(
    node: *mut raftz_node,
    target_id: u64,
    timeout_ms: u32,
    done_fn: raftz_done_fn,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    let wish = Wish::Transfer(NodeId::new(target_id));
    // SAFETY: the caller's contract.
    call(error, || unsafe { call_back(node, wish, timeout_ms, done_fn, user_data) })
}

/// \brief Has another node lead, as raftz_transfer_leadership(), and has the end put into a queue: an event of
/// kind RAFTZ_EVENT_COMPLETION with the user data and one outcome.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; it must lead.
/// \param target_id Who is to lead, a voter; 0: whoever suits best.
/// \param timeout_ms By when it must be decided, in milliseconds.
/// \param queue The queue.
/// \param user_data Given back with the event.
/// \param error [out] Why not; may be NULL.
/// \return As raftz_transfer_leadership(); RAFTZ_BUSY also when the queue is at its bound, RAFTZ_CLOSED when
///         it is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_transfer_leadership_queued(
    node: *mut raftz_node,
    target_id: u64,
    timeout_ms: u32,
    queue: *mut raftz_queue,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    let wish = Wish::Transfer(NodeId::new(target_id));
    // SAFETY: the caller's contract.
    call(error, || unsafe { enqueue(node, wish, timeout_ms, queue, user_data) })
}

/// \brief Has another node lead, as raftz_transfer_leadership(), and waits until it does.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
///
/// \param node The node; it must lead.
/// \param target_id Who is to lead, a voter; 0: whoever suits best.
/// \param timeout_ms By when it must be decided, in milliseconds.
/// \param leader_id [out] Who leads now; may be NULL.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NOT_LEADER, RAFTZ_TRANSFER_TARGET, RAFTZ_TRANSFER_UNFIT, RAFTZ_TRANSFER_TIMEOUT,
///         RAFTZ_TRANSFER_UNDER_WAY, RAFTZ_TRANSFER_OVERTAKEN, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED,
///         RAFTZ_IN_CALLBACK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_transfer_leadership_wait(
    node: *mut raftz_node,
    target_id: u64,
    timeout_ms: u32,
    leader_id: *mut u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    let wish = Wish::Transfer(NodeId::new(target_id));
    // SAFETY: the caller's contract.
    call(error, || unsafe { wait(node, wish, timeout_ms, leader_id) })
}

/// \brief Has the best of the other nodes lead, and leaves elections to others for a few election timeouts.
/// Returns at once; the completion is called when another leads, or when it is known that none does.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; it must lead, and leads on if nobody else is fit to.
/// \param timeout_ms By when it must be decided, in milliseconds.
/// \param done_fn Told how it ended, as by raftz_transfer_leadership().
/// \param user_data Given to `done_fn`.
/// \param error [out] Why not; may be NULL.
/// \return As raftz_transfer_leadership().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_step_down(
    node: *mut raftz_node,
    timeout_ms: u32,
    done_fn: raftz_done_fn,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe { call_back(node, Wish::StepDown, timeout_ms, done_fn, user_data) })
}

/// \brief Has the best of the other nodes lead, as raftz_step_down(), and has the end put into a queue: an event
/// of kind RAFTZ_EVENT_COMPLETION with the user data and one outcome.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; it must lead, and leads on if nobody else is fit to.
/// \param timeout_ms By when it must be decided, in milliseconds.
/// \param queue The queue.
/// \param user_data Given back with the event.
/// \param error [out] Why not; may be NULL.
/// \return As raftz_transfer_leadership_queued().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_step_down_queued(
    node: *mut raftz_node,
    timeout_ms: u32,
    queue: *mut raftz_queue,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe { enqueue(node, Wish::StepDown, timeout_ms, queue, user_data) })
}

/// \brief Has the best of the other nodes lead, as raftz_step_down(), and waits until it does.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
///
/// \param node The node; it must lead, and leads on if nobody else is fit to.
/// \param timeout_ms By when it must be decided, in milliseconds.
/// \param leader_id [out] Who leads now; may be NULL.
/// \param error [out] Why not; may be NULL.
/// \return As raftz_transfer_leadership_wait().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_step_down_wait(
    node: *mut raftz_node,
    timeout_ms: u32,
    leader_id: *mut u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe { wait(node, Wish::StepDown, timeout_ms, leader_id) })
}
