//! Numbers that mean the same in every language, and never change their meaning.

use std::ffi::{CStr, c_char};

/// \brief How a call ended: RAFTZ_OK, or a negative number that says why not.
///
/// Numbers are never reused. A number that a program does not know comes from a later version of the
/// library; treat one between -32 and -63 as "outcome unknown" and any other as a failure.
pub type raftz_status = i32;

/// \brief Done.
pub const RAFTZ_OK: raftz_status = 0;

/// \brief Refused: another node leads; the error's or outcome's leader id says which, if known.
pub const RAFTZ_NOT_LEADER: raftz_status = -1;
/// \brief Refused: no leader appeared before the deadline.
pub const RAFTZ_NO_LEADER: raftz_status = -2;
/// \brief Refused: a bound on what is in flight is reached; retry after a short wait.
pub const RAFTZ_BUSY: raftz_status = -3;
/// \brief Refused: the leader's disk is below its reserve of free space, or those of a quorum are.
pub const RAFTZ_STORAGE_FULL: raftz_status = -4;
/// \brief Refused: the command exceeds the cluster's limit.
pub const RAFTZ_TOO_LARGE: raftz_status = -5;
/// \brief Refused: a later leader committed another entry in its place.
pub const RAFTZ_OVERWRITTEN: raftz_status = -6;
/// \brief Refused: the node is shut down, or about to be.
pub const RAFTZ_SHUT_DOWN: raftz_status = -7;
/// \brief Refused: the node has stopped because of a fault.
pub const RAFTZ_FAULTED: raftz_status = -8;
/// \brief Refused: a blocking call inside a callback of a node would wait for itself.
pub const RAFTZ_IN_CALLBACK: raftz_status = -9;
/// \brief Refused: this node does not lead in the term that was asked for.
pub const RAFTZ_TERM_MISMATCH: raftz_status = -10;

/// \brief Unknown: the deadline passed while the command was in the log or on its way there.
pub const RAFTZ_UNKNOWN_TIMEOUT: raftz_status = -32;
/// \brief Unknown: its leader was lost after the command was handed over.
pub const RAFTZ_UNKNOWN_LEADERSHIP_LOST: raftz_status = -33;
/// \brief Unknown: the node shut down while the command was in the log.
pub const RAFTZ_UNKNOWN_SHUT_DOWN: raftz_status = -34;
/// \brief Unknown: the node faulted while the command was in the log.
pub const RAFTZ_UNKNOWN_FAULTED: raftz_status = -35;
/// \brief Unknown: the command goes on, but a callback of the node must not wait for it.
pub const RAFTZ_UNKNOWN_IN_CALLBACK: raftz_status = -36;

/// \brief The configuration is wrong or contradicts itself.
pub const RAFTZ_CONFIG: raftz_status = -64;
/// \brief The data directory cannot be used.
pub const RAFTZ_STORAGE: raftz_status = -65;
/// \brief The network cannot be used.
pub const RAFTZ_NETWORK: raftz_status = -66;
/// \brief The state machine was not created, or its own storage does not belong to this log.
pub const RAFTZ_MACHINE: raftz_status = -67;
/// \brief The system gave no thread or no descriptor.
pub const RAFTZ_THREAD: raftz_status = -68;
/// \brief No leader became known in time.
pub const RAFTZ_LEADER_TIMEOUT: raftz_status = -69;
/// \brief The node did not apply far enough in time.
pub const RAFTZ_APPLY_TIMEOUT: raftz_status = -70;
/// \brief A read had no answer in time.
pub const RAFTZ_READ_TIMEOUT: raftz_status = -71;
/// \brief Some threads did not end in time, because a callback does not return.
pub const RAFTZ_STILL_RUNNING: raftz_status = -72;
/// \brief The state machine could not answer a read.
pub const RAFTZ_READ_FAILED: raftz_status = -73;
/// \brief There is no snapshot: none could be taken, or not in time.
pub const RAFTZ_SNAPSHOT_UNAVAILABLE: raftz_status = -74;
/// \brief Leadership was not handed over: the node that was named is no other voter.
pub const RAFTZ_TRANSFER_TARGET: raftz_status = -80;
/// \brief Leadership was not handed over: the node that was named cannot lead now, or no other node can.
pub const RAFTZ_TRANSFER_UNFIT: raftz_status = -81;
/// \brief Leadership was not handed over in time.
pub const RAFTZ_TRANSFER_TIMEOUT: raftz_status = -82;
/// \brief Leadership is being handed over already.
pub const RAFTZ_TRANSFER_UNDER_WAY: raftz_status = -83;
/// \brief Another node leads than the one that was named.
pub const RAFTZ_TRANSFER_OVERTAKEN: raftz_status = -84;

/// \brief A pointer that must not be NULL is.
pub const RAFTZ_NULL_ARG: raftz_status = -96;
/// \brief An argument has a value that it cannot have.
pub const RAFTZ_INVALID_ARG: raftz_status = -97;
/// \brief Text is not UTF-8.
pub const RAFTZ_BAD_UTF8: raftz_status = -98;
/// \brief This version does not have it (yet).
pub const RAFTZ_UNSUPPORTED: raftz_status = -99;
/// \brief A struct has a size, or a vtable a version, that this library does not know.
pub const RAFTZ_ABI_MISMATCH: raftz_status = -100;
/// \brief The library failed inside: a bug of it. The handle takes no more calls; free it.
pub const RAFTZ_PANIC: raftz_status = -101;
/// \brief The process was forked after the handle was made; a child cannot use it.
pub const RAFTZ_FORKED: raftz_status = -102;
/// \brief For user callbacks: a general failure.
pub const RAFTZ_CALLBACK_FAILED: raftz_status = -103;
/// \brief Nothing came before the timeout.
pub const RAFTZ_EMPTY: raftz_status = -104;
/// \brief The queue was closed, and everything in it has been taken; or the link has ended.
pub const RAFTZ_CLOSED: raftz_status = -105;
/// \brief Bytes are no message of a member of this cluster: they came garbled, cut short, or from elsewhere.
pub const RAFTZ_BAD_MESSAGE: raftz_status = -107;

/// \brief A timeout: as long as it takes (49 days, to be exact).
pub const RAFTZ_WAIT_FOREVER: u32 = 0xFFFF_FFFF;

macro_rules! names {
    ($($name:ident),* $(,)?) => {
        /// The constant's own name.
        pub(crate) const fn name(status: raftz_status) -> Option<&'static CStr> {
            match status {
                $($name => {
                    const TEXT: &CStr = match CStr::from_bytes_with_nul(
                        concat!(stringify!($name), "\0").as_bytes(),
                    ) {
                        Ok(text) => text,
                        Err(_) => c"RAFTZ_?",
                    };
                    Some(TEXT)
                })*
                _ => None,
            }
        }

        /// All of them.
        #[cfg(test)]
        const ALL: &[raftz_status] = &[$($name),*];
    };
}

names! {
    RAFTZ_OK, RAFTZ_NOT_LEADER, RAFTZ_NO_LEADER, RAFTZ_BUSY, RAFTZ_STORAGE_FULL, RAFTZ_TOO_LARGE,
    RAFTZ_OVERWRITTEN, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED, RAFTZ_IN_CALLBACK, RAFTZ_TERM_MISMATCH,
    RAFTZ_UNKNOWN_TIMEOUT, RAFTZ_UNKNOWN_LEADERSHIP_LOST, RAFTZ_UNKNOWN_SHUT_DOWN,
    RAFTZ_UNKNOWN_FAULTED, RAFTZ_UNKNOWN_IN_CALLBACK, RAFTZ_CONFIG, RAFTZ_STORAGE, RAFTZ_NETWORK,
    RAFTZ_MACHINE, RAFTZ_THREAD, RAFTZ_LEADER_TIMEOUT, RAFTZ_APPLY_TIMEOUT, RAFTZ_READ_TIMEOUT,
    RAFTZ_STILL_RUNNING, RAFTZ_READ_FAILED, RAFTZ_SNAPSHOT_UNAVAILABLE, RAFTZ_TRANSFER_TARGET,
    RAFTZ_TRANSFER_UNFIT, RAFTZ_TRANSFER_TIMEOUT, RAFTZ_TRANSFER_UNDER_WAY, RAFTZ_TRANSFER_OVERTAKEN,
    RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BAD_UTF8,
    RAFTZ_UNSUPPORTED, RAFTZ_ABI_MISMATCH, RAFTZ_PANIC, RAFTZ_FORKED, RAFTZ_CALLBACK_FAILED,
    RAFTZ_EMPTY, RAFTZ_CLOSED, RAFTZ_BAD_MESSAGE,
}

/// A callback's status as a person reads it, with the words that came with it.
pub(crate) fn shown(status: raftz_status, words: Option<String>) -> String {
    let number = match name(status) {
        Some(name) => format!("{} ({status})", name.to_string_lossy()),
        None => status.to_string(),
    };
    match words {
        Some(words) => format!("{number}: {words}"),
        None => number,
    }
}

/// Whether a call that ended like this may have had its effect all the same.
pub(crate) const fn is_outcome_unknown(status: raftz_status) -> bool {
    status <= -32 && status > -64 || status == RAFTZ_PANIC
}

/// Whether the same call may well succeed a little later, and cannot have had its effect yet.
pub(crate) const fn is_retriable(status: raftz_status) -> bool {
    matches!(
        status,
        RAFTZ_NOT_LEADER
            | RAFTZ_NO_LEADER
            | RAFTZ_BUSY
            | RAFTZ_STORAGE_FULL
            | RAFTZ_OVERWRITTEN
            | RAFTZ_LEADER_TIMEOUT
            | RAFTZ_APPLY_TIMEOUT
            | RAFTZ_READ_TIMEOUT
            | RAFTZ_STILL_RUNNING
            | RAFTZ_TRANSFER_UNFIT
            | RAFTZ_TRANSFER_TIMEOUT
            | RAFTZ_TRANSFER_UNDER_WAY
            | RAFTZ_EMPTY
    )
}

/// Whether the handle is of no more use.
pub(crate) const fn is_fatal(status: raftz_status) -> bool {
    matches!(
        status,
        RAFTZ_SHUT_DOWN
            | RAFTZ_FAULTED
            | RAFTZ_UNKNOWN_SHUT_DOWN
            | RAFTZ_UNKNOWN_FAULTED
            | RAFTZ_PANIC
            | RAFTZ_FORKED
            | RAFTZ_CLOSED
    )
}

/// \brief The name of a status, such as "RAFTZ_BUSY"; "RAFTZ_?" for a number that this version does
/// not know.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param status Any number.
/// \return Static text; never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn raftz_status_name(status: raftz_status) -> *const c_char {
    name(status).unwrap_or(c"RAFTZ_?").as_ptr()
}

/// \brief Whether a call that ended like this may have had its effect, or may still have it; also for numbers
/// of later versions. To repeat it is safe only if it is idempotent.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param status Any number.
/// \return Whether it may.
#[unsafe(no_mangle)]
pub extern "C" fn raftz_status_is_outcome_unknown(status: raftz_status) -> bool {
    is_outcome_unknown(status)
}

/// \brief As raftz_error_is_retriable(), for a status that came without an error, as in an outcome.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param status Any number.
/// \return Whether the same call may well succeed a little later.
#[unsafe(no_mangle)]
pub extern "C" fn raftz_status_is_retriable(status: raftz_status) -> bool {
    is_retriable(status)
}

/// \brief As raftz_error_is_fatal(), for a status that came without an error, as in an outcome.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param status Any number.
/// \return Whether the handle is of no more use.
#[unsafe(no_mangle)]
pub extern "C" fn raftz_status_is_fatal(status: raftz_status) -> bool {
    is_fatal(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_name_and_no_two_share_a_number() {
        let mut numbers = ALL.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ALL.len());
        assert!(ALL.iter().all(|status| name(*status) != Some(c"RAFTZ_?")));
        assert_eq!(name(RAFTZ_BUSY), Some(c"RAFTZ_BUSY"));
        assert_eq!(name(-31), None);
    }
}
