//! Commands: by callback, into a queue, or waited for.

use std::ffi::c_void;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::node::{NodeError, ProposeOptions};
use raftz_core::types::{Done, NodeId, Outcome, Refusal, Reply, Term};

use crate::bytes::{raftz_bytes, raftz_slice, take_over};
use crate::error::{leader_hint, leader_known, raftz_error, words};
use crate::guard::{self, Call, borrow, call, invalid, null};
use crate::node::{Handle, raftz_node};
use crate::queue::raftz_queue;
use crate::sized::{self, Place, Sized};
use crate::status::{RAFTZ_OK, is_outcome_unknown, raftz_status};

/// \brief In an outcome's flags: the state machine turned the command down; `reply` says why. The command
/// is in the log all the same, and was turned down alike on every node.
pub const RAFTZ_OUTCOME_REJECTED: u32 = 1;
/// \brief In an outcome's flags: the command may have had its effect, or may still have it. Without this
/// flag and with a status other than RAFTZ_OK it certainly had none.
pub const RAFTZ_OUTCOME_UNKNOWN: u32 = 2;

/// \brief How a command ended. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_outcome {
    /// \brief RAFTZ_OK: committed and applied; otherwise why not.
    pub status: raftz_status,
    /// \brief RAFTZ_OUTCOME_REJECTED, RAFTZ_OUTCOME_UNKNOWN.
    pub flags: u32,
    /// \brief Index of its entry, once done.
    pub index: u64,
    /// \brief Term of its entry, once done.
    pub term: u64,
    /// \brief With RAFTZ_NOT_LEADER and RAFTZ_TRANSFER_OVERTAKEN, and of a transfer that is done: who leads, as far
    /// as is known; else 0.
    pub leader_id: u64,
    /// \brief What the state machine answered, once done.
    pub reply: raftz_slice,
    /// \brief Why it was not done, in words of UTF-8 without NUL at the end.
    pub message: raftz_slice,
    /// \brief Zero.
    pub reserved: [u64; 2],
}

/// How a call ended, and the bytes that C is shown of it.
pub(crate) struct Ended {
    status: raftz_status,
    flags: u32,
    index: u64,
    term: u64,
    leader_id: u64,
    reply: Bytes,
    words: String,
}

impl Ended {
    pub(crate) fn new(outcome: Outcome) -> Self {
        let (status, words) = (outcome.code(), words(&outcome));
        match outcome {
            Outcome::Done(Done { index, term, reply }) => Self::done(reply, index.0, term.0),
            Outcome::Refused(refusal) => Self::failed(status, leader_hint(&refusal), words),
            Outcome::Unknown(_) => Self::failed(status, 0, words),
        }
    }

    /// The end of a read.
    pub(crate) fn read(answer: Result<Reply, NodeError>) -> Self {
        match answer {
            Ok(reply) => Self::done(reply, 0, 0),
            Err(error) => Self::failed(error.code(), 0, error.to_string()),
        }
    }

    /// The end of a transfer.
    pub(crate) fn transfer(result: Result<NodeId, NodeError>) -> Self {
        match result {
            Ok(leader) => {
                Self { leader_id: leader.get(), ..Self::done(Reply::Ok(Bytes::new()), 0, 0) }
            }
            Err(error) => Self::failed(error.code(), leader_known(&error), error.to_string()),
        }
    }

    fn done(reply: Reply, index: u64, term: u64) -> Self {
        let (flags, reply) = match reply {
            Reply::Ok(bytes) => (0, bytes),
            Reply::Rejected(bytes) => (RAFTZ_OUTCOME_REJECTED, bytes),
        };
        Self { status: RAFTZ_OK, flags, index, term, leader_id: 0, reply, words: String::new() }
    }

    fn failed(status: raftz_status, leader_id: u64, words: String) -> Self {
        let flags = if is_outcome_unknown(status) { RAFTZ_OUTCOME_UNKNOWN } else { 0 };
        Self { status, flags, index: 0, term: 0, leader_id, reply: Bytes::new(), words }
    }

    /// As C sees it; it points into this.
    pub(crate) fn outcome(&self) -> raftz_outcome {
        raftz_outcome {
            status: self.status,
            flags: self.flags,
            index: self.index,
            term: self.term,
            leader_id: self.leader_id,
            reply: raftz_slice::of(&self.reply),
            message: raftz_slice::of(self.words.as_bytes()),
            reserved: [0; 2],
        }
    }
}

/// \brief Whether a follower may hand a command to the leader, or hold it while there is none: as the
/// configuration says.
pub const RAFTZ_FORWARD_DEFAULT: u32 = 0;
/// \brief It may.
pub const RAFTZ_FORWARD_YES: u32 = 1;
/// \brief It may not; it refuses with RAFTZ_NOT_LEADER.
pub const RAFTZ_FORWARD_NO: u32 = 2;

/// \brief How a command is to be treated. All zero, but for the size, is the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_propose_opts {
    /// \brief Set it to `sizeof(raftz_propose_opts)`.
    pub size: usize,
    /// \brief Time after which the command is answered, in milliseconds. 0: `propose_timeout_ms` of the
    /// configuration.
    pub timeout_ms: u32,
    /// \brief RAFTZ_FORWARD_…
    pub forward: u32,
    /// \brief The term in which this node must lead when it takes the command, so that what the program has
    /// learnt in that term still holds; otherwise RAFTZ_TERM_MISMATCH. 0: any.
    pub expected_term: u64,
}

// SAFETY: integers alone.
unsafe impl Sized for raftz_propose_opts {
    const NAME: &'static str = "raftz_propose_opts";
}

/// # Safety
/// As [`sized::read`].
unsafe fn options(opts: *const raftz_propose_opts) -> Call<ProposeOptions> {
    // SAFETY: the caller's contract.
    let Some(opts) = unsafe { sized::read(opts) }? else { return Ok(ProposeOptions::default()) };
    let forward = match opts.forward {
        RAFTZ_FORWARD_DEFAULT => None,
        RAFTZ_FORWARD_YES => Some(true),
        RAFTZ_FORWARD_NO => Some(false),
        other => return Err(invalid(format!("opts.forward is {other}, no RAFTZ_FORWARD_…"))),
    };
    let timeout = (opts.timeout_ms > 0).then(|| Duration::from_millis(opts.timeout_ms.into()));
    let expected_term = (opts.expected_term > 0).then_some(Term(opts.expected_term));
    Ok(ProposeOptions { timeout, forward, expected_term, ..ProposeOptions::default() })
}

/// \brief Is told how a command ended. Called exactly once for every command that was accepted.
///
/// Threads: the node's callback thread, one call at a time. Blocking calls of raftz are refused in it;
/// proposing more is welcome, as long as the node is not being freed.
///
/// \param user_data What the call was given.
/// \param outcome How it ended; it lives until the function returns.
pub type raftz_done_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, outcome: *const raftz_outcome)>;

/// \brief Is told how the commands of a batch ended. Called exactly once for every batch that was accepted.
///
/// Threads: the node's callback thread, one call at a time. Blocking calls of raftz are refused in it;
/// proposing more is welcome, as long as the node is not being freed.
///
/// \param user_data What the call was given.
/// \param outcomes How they ended, in their order; they live until the function returns.
/// \param count How many.
pub type raftz_batch_done_fn = Option<
    unsafe extern "C" fn(user_data: *mut c_void, outcomes: *const raftz_outcome, count: usize),
>;

/// A user's data on its way to a callback.
pub(crate) struct Tag(pub(crate) *mut c_void);

// SAFETY: the contract of every completion: its user data may be used on the callback thread.
unsafe impl Send for Tag {}

impl Tag {
    /// A method, so that a closure takes all of it along.
    pub(crate) const fn get(&self) -> *mut c_void {
        self.0
    }
}

fn propose(
    node: &Handle,
    command: Bytes,
    options: ProposeOptions,
    done_fn: raftz_done_fn,
    user_data: *mut c_void,
) -> Call {
    let done = done_fn.ok_or_else(|| null("done_fn"))?;
    let tag = Tag(user_data);
    node.node()?.propose_with(command, options, move |outcome| {
        let ended = Ended::new(outcome);
        let seen = ended.outcome();
        // SAFETY: the user's function, with the user's data and an outcome that lives meanwhile.
        unsafe { done(tag.get(), &raw const seen) }
    })?;
    Ok(())
}

/// \brief Proposes a command. Returns at once; the completion is called when the command is committed and
/// applied, refused, or has run out of time.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; a follower hands the command to the leader.
/// \param command The command; copied.
/// \param opts How it is to be treated; NULL for the defaults.
/// \param done_fn Told how it ended, exactly once if the call succeeds and never if it fails; never from
///        within this call.
/// \param user_data Given to `done_fn`.
/// \param error [out] Why the command was not accepted; it certainly has no effect then. May be NULL.
/// \return RAFTZ_OK (accepted), RAFTZ_BUSY, RAFTZ_TOO_LARGE, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED, RAFTZ_NULL_ARG,
///         RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_propose(
    node: *mut raftz_node,
    command: raftz_slice,
    opts: *const raftz_propose_opts,
    done_fn: raftz_done_fn,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (node, command, options) = unsafe {
            (borrow(node.cast_const(), "node")?, guard::bytes(command, "command")?, options(opts)?)
        };
        propose(node.handle()?, Bytes::copy_from_slice(command), options, done_fn, user_data)
    })
}

/// \brief As raftz_propose(), without a copy of the command.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; a follower hands the command to the leader.
/// \param command The command. It is taken over: whether the call succeeds or fails, do not use or free it
///        any more.
/// \param opts How it is to be treated; NULL for the defaults.
/// \param done_fn Told how it ended, exactly once if the call succeeds and never if it fails.
/// \param user_data Given to `done_fn`.
/// \param error [out] Why the command was not accepted; it certainly has no effect then. May be NULL.
/// \return As raftz_propose().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_propose_bytes(
    node: *mut raftz_node,
    command: *mut raftz_bytes,
    opts: *const raftz_propose_opts,
    done_fn: raftz_done_fn,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (command, node) =
            unsafe { (take_over(command, "command")?, borrow(node.cast_const(), "node")?) };
        // SAFETY: the caller's contract.
        let options = unsafe { options(opts) }?;
        propose(node.handle()?, command, options, done_fn, user_data)
    })
}

/// # Safety
/// `count` slices are there, each of them readable.
unsafe fn batch(commands: *const raftz_slice, count: usize) -> Call<Vec<Bytes>> {
    // SAFETY: the caller's contract.
    let slices = unsafe { guard::array(commands, count, "commands") }?;
    let copy = |(at, slice): (usize, &raftz_slice)| {
        // SAFETY: the caller's contract.
        let bytes = unsafe { guard::bytes(*slice, &format!("commands[{at}]")) };
        bytes.map(Bytes::copy_from_slice)
    };
    slices.iter().enumerate().map(copy).collect()
}

/// \brief Proposes commands that reach the log in this order, though other callers' may stand between them.
/// One completion tells how each of them ended.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; a follower hands the commands to the leader.
/// \param commands The commands; copied.
/// \param count How many; with 0 the completion is called all the same.
/// \param opts How they are to be treated; NULL for the defaults.
/// \param done_fn Told how they ended, exactly once if the call succeeds and never if it fails; never from
///        within this call.
/// \param user_data Given to `done_fn`.
/// \param error [out] Why none of the commands was accepted. May be NULL.
/// \return As raftz_propose().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_propose_batch(
    node: *mut raftz_node,
    commands: *const raftz_slice,
    count: usize,
    opts: *const raftz_propose_opts,
    done_fn: raftz_batch_done_fn,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (node, commands, options) = unsafe {
            (borrow(node.cast_const(), "node")?, batch(commands, count)?, options(opts)?)
        };
        let done = done_fn.ok_or_else(|| null("done_fn"))?;
        let tag = Tag(user_data);
        node.handle()?.node()?.propose_batch_with(commands, options, move |outcomes| {
            let ended: Vec<Ended> = outcomes.into_iter().map(Ended::new).collect();
            let seen: Vec<raftz_outcome> = ended.iter().map(Ended::outcome).collect();
            // SAFETY: the user's function, with the user's data and outcomes that live meanwhile.
            unsafe { done(tag.get(), seen.as_ptr(), seen.len()) }
        })?;
        Ok(())
    })
}

/// \brief Proposes commands, as raftz_propose_batch(), and has their completion put into a queue: an event
/// of kind RAFTZ_EVENT_COMPLETION with the user data and the outcomes.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; a follower hands the commands to the leader.
/// \param commands The commands; copied.
/// \param count How many.
/// \param opts How they are to be treated; NULL for the defaults.
/// \param queue The queue.
/// \param user_data Given back with the event.
/// \param error [out] Why none of the commands was accepted. May be NULL.
/// \return As raftz_propose(); RAFTZ_BUSY also when the queue is at its bound, RAFTZ_INVALID_ARG when so
///         many never fit it, RAFTZ_CLOSED when it is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_propose_queued(
    node: *mut raftz_node,
    commands: *const raftz_slice,
    count: usize,
    opts: *const raftz_propose_opts,
    queue: *mut raftz_queue,
    user_data: *mut c_void,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (node, commands, options, queue) = unsafe {
            (
                borrow(node.cast_const(), "node")?.handle()?,
                batch(commands, count)?,
                options(opts)?,
                borrow(queue.cast_const(), "queue")?.shared()?,
            )
        };
        let (reserved, id) = (queue.reserve(commands.len())?, node.id());
        let tag = Tag(user_data);
        if commands.len() == 1 {
            let command = commands.into_iter().next().unwrap_or_default();
            node.node()?.propose_with(command, options, move |outcome| {
                reserved.complete((id, tag.get()), vec![Ended::new(outcome)]);
            })?;
            return Ok(());
        }
        node.node()?.propose_batch_with(commands, options, move |outcomes| {
            reserved.complete((id, tag.get()), outcomes.into_iter().map(Ended::new).collect());
        })?;
        Ok(())
    })
}

/// \brief What became of a command that was waited for, or of a read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_reply {
    /// \brief Set it to `sizeof(raftz_reply)`.
    pub size: usize,
    /// \brief Index of the command's entry; of a read 0.
    pub index: u64,
    /// \brief Term of the command's entry; of a read 0.
    pub term: u64,
    /// \brief RAFTZ_OUTCOME_REJECTED or 0.
    pub flags: u32,
    /// \brief Zero.
    pub reserved: u32,
    /// \brief What the state machine answered, to be freed with raftz_bytes_free().
    pub bytes: *mut raftz_bytes,
}

// SAFETY: integers and a pointer.
unsafe impl Sized for raftz_reply {
    const NAME: &'static str = "raftz_reply";
}

/// The place for a reply, checked before anything is done.
pub(crate) struct ReplyOut(Place<raftz_reply>);

impl ReplyOut {
    /// # Safety
    /// NULL, or at least the first field is there.
    pub(crate) unsafe fn new(reply: *mut raftz_reply) -> Call<Self> {
        // SAFETY: the caller's contract.
        let place = unsafe { Place::new(reply, "reply") }?;
        if place.size < std::mem::size_of::<raftz_reply>() {
            // Without its last field nobody could free the bytes.
            let message = "raftz_reply.size is too small; set it to sizeof(raftz_reply)";
            return Err(invalid(message));
        }
        Ok(Self(place))
    }

    /// # Safety
    /// As many bytes are there as the struct says.
    pub(crate) unsafe fn put(self, reply: Reply, index: u64, term: u64) {
        let (flags, bytes) = match reply {
            Reply::Ok(bytes) => (0, bytes),
            Reply::Rejected(bytes) => (RAFTZ_OUTCOME_REJECTED, bytes),
        };
        let bytes = Box::into_raw(Box::new(raftz_bytes(bytes)));
        let reply = raftz_reply { size: self.0.size, index, term, flags, reserved: 0, bytes };
        // SAFETY: the caller's contract.
        unsafe { self.0.put(&reply) }
    }
}

/// \brief Proposes a command and waits until it is committed and applied.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout and a quarter of a second.
///
/// \param node The node; a follower hands the command to the leader.
/// \param command The command; copied.
/// \param opts How it is to be treated; NULL for the defaults. Its timeout is how long the call may take.
/// \param reply [in,out] Set its `size` to `sizeof(raftz_reply)`; the rest is filled when the command is
///        done. Free its `bytes`.
/// \param error [out] Why it was not done; ask raftz_error_is_outcome_unknown() whether it may have had its
///        effect all the same. May be NULL.
/// \return RAFTZ_OK (done), a refusal (RAFTZ_NOT_LEADER to RAFTZ_TERM_MISMATCH), an unknown outcome
///         (RAFTZ_UNKNOWN_…), RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_propose_wait(
    node: *mut raftz_node,
    command: raftz_slice,
    opts: *const raftz_propose_opts,
    reply: *mut raftz_reply,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let out = unsafe { ReplyOut::new(reply) }?;
        // SAFETY: the caller's contract.
        let (node, command, options) = unsafe {
            (
                borrow(node.cast_const(), "node")?.handle()?,
                guard::bytes(command, "command")?,
                options(opts)?,
            )
        };
        let node = node.node()?;
        if let Some(inside) = raftz_core::node::inside_callback() {
            return Err(Refusal::InCallback { inside: inside.into() }.into());
        }
        match node.propose_opt(Bytes::copy_from_slice(command), options).wait() {
            Outcome::Done(Done { index, term, reply }) => {
                // SAFETY: the caller's contract.
                unsafe { out.put(reply, index.0, term.0) };
                Ok(())
            }
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Unknown(unknown) => Err(unknown.into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftz_core::types::{Index, NodeId, Unknown};

    #[test]
    fn an_outcome_is_shown_with_all_that_it_says() {
        let reply = Reply::Rejected(Bytes::from_static(b"no"));
        let done = Ended::new(Outcome::Done(Done { index: Index(7), term: Term(3), reply }));
        let seen = done.outcome();
        assert_eq!((seen.status, seen.index, seen.term), (RAFTZ_OK, 7, 3));
        assert_eq!((seen.flags, seen.reply.len, seen.message.len), (RAFTZ_OUTCOME_REJECTED, 2, 0));
        let refused = Ended::new(Outcome::Refused(Refusal::NotLeader { hint: NodeId::new(2) }));
        let seen = refused.outcome();
        assert_eq!((seen.status, seen.flags, seen.leader_id), (-1, 0, 2));
        assert!(seen.message.len > 0);
        let unknown = Ended::new(Outcome::Unknown(Unknown::Timeout)).outcome().flags;
        assert_eq!(unknown, RAFTZ_OUTCOME_UNKNOWN);
    }
}
