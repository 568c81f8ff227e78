//! Why a call failed, in detail.

use std::ffi::{CString, c_char};

use raftz_core::node::{ConfigError, NodeError};
use raftz_core::types::{NodeId, Outcome, Refusal, TransferFailure, Unknown};

use crate::guard::{borrow, free, value};
use crate::status::{RAFTZ_OK, is_fatal, is_outcome_unknown, is_retriable, raftz_status};

/// What went wrong, on its way to C.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: raftz_status,
    pub(crate) message: String,
    pub(crate) leader_id: u64,
    pub(crate) os_errno: i32,
}

impl Failure {
    pub(crate) fn new(status: raftz_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), leader_id: 0, os_errno: 0 }
    }

    /// What the system said.
    pub(crate) fn of_system(status: raftz_status, what: &str, error: &std::io::Error) -> Self {
        let os_errno = error.raw_os_error().unwrap_or_default();
        Self { os_errno, ..Self::new(status, format!("{what}: {error}")) }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let os_errno = error.os_error().unwrap_or_default();
        let leader_id = leader_known(&error);
        Self { os_errno, leader_id, ..Self::new(error.code(), error.to_string()) }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        NodeError::from(error).into()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let leader_id = leader_hint(&refusal);
        Self { leader_id, ..Self::new(refusal.code(), refusal.to_string()) }
    }
}

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Self {
        Self::new(unknown.code(), unknown.to_string())
    }
}

/// Who leads, as a transfer that failed tells it; 0 for nobody known.
pub(crate) fn leader_known(error: &NodeError) -> u64 {
    if let NodeError::Transfer(TransferFailure::NotLeader { hint: Some(leader) })
    | NodeError::Transfer(TransferFailure::Overtaken { leader }) = error
    {
        return leader.get();
    }
    0
}

/// Who leads, as a refusal tells it; 0 for nobody known.
pub(crate) fn leader_hint(refusal: &Refusal) -> u64 {
    match refusal {
        Refusal::NotLeader { hint } => hint.map_or(0, NodeId::get),
        Refusal::NoLeader { .. }
        | Refusal::Busy { .. }
        | Refusal::StorageFull
        | Refusal::TooLarge { .. }
        | Refusal::TermMismatch { .. }
        | Refusal::Overwritten
        | Refusal::ShuttingDown
        | Refusal::Faulted { .. }
        | Refusal::InCallback { .. } => 0,
    }
}

/// Why a command was not done, in words; empty for one that was.
pub(crate) fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(_) => String::new(),
        Outcome::Refused(refusal) => refusal.to_string(),
        Outcome::Unknown(unknown) => unknown.to_string(),
    }
}

/// \brief Why a call failed, in detail.
///
/// Functions that can fail take a last argument `raftz_error **error`. It may be NULL. If the call fails
/// and it is not, a new object is written there, to be freed with raftz_error_free(). If the call
/// succeeds nothing is written, so set it to NULL beforehand.
pub struct raftz_error {
    failure: Failure,
    message: CString,
}

impl raftz_error {
    /// An object of C's own.
    pub(crate) fn new(failure: Failure) -> *mut Self {
        // A message with NUL inside would seem to end there.
        let clean = failure.message.replace('\0', "\u{fffd}");
        let message = CString::new(clean).unwrap_or_default();
        Box::into_raw(Box::new(Self { failure, message }))
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.failure.message
    }
}

/// \brief Frees an error.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param error The error, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_error_free(error: *mut raftz_error) {
    // SAFETY: the caller's contract: NULL, or an error that is C's own.
    unsafe { free(error) }
}

/// \brief The status that the failed call returned.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param error The error; for NULL the answer is RAFTZ_OK.
/// \return The status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_error_status(error: *const raftz_error) -> raftz_status {
    // SAFETY: the caller's contract.
    value(RAFTZ_OK, || Ok(unsafe { borrow(error, "error") }?.failure.status))
}

/// \brief What went wrong, where, and what to do about it: one line of English, ended by NUL.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param error The error; for NULL the answer is an empty line.
/// \return Text that lives as long as the error; never NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_error_message(error: *const raftz_error) -> *const c_char {
    // SAFETY: the caller's contract.
    value(c"".as_ptr(), || Ok(unsafe { borrow(error, "error") }?.message.as_ptr()))
}

/// \brief Whether the same call may well succeed a little later; after RAFTZ_NOT_LEADER rather on the node that
/// raftz_error_leader_id() names. It has certainly had no effect yet: never true for an unknown outcome.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param error The error; for NULL the answer is false.
/// \return Whether it may.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_error_is_retriable(error: *const raftz_error) -> bool {
    // SAFETY: the caller's contract.
    value(false, || Ok(is_retriable(unsafe { borrow(error, "error") }?.failure.status)))
}

/// \brief Whether the handle is of no more use: free it.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param error The error; for NULL the answer is false.
/// \return Whether it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_error_is_fatal(error: *const raftz_error) -> bool {
    // SAFETY: the caller's contract.
    value(false, || Ok(is_fatal(unsafe { borrow(error, "error") }?.failure.status)))
}

/// \brief Whether the command may have had its effect, or may still have it. To repeat it is safe only
/// if it is idempotent.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param error The error; for NULL the answer is false.
/// \return Whether it may.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_error_is_outcome_unknown(error: *const raftz_error) -> bool {
    // SAFETY: the caller's contract.
    value(false, || Ok(is_outcome_unknown(unsafe { borrow(error, "error") }?.failure.status)))
}

/// \brief The node that leads, as far as is known; 0 if it is not.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param error The error; for NULL the answer is 0.
/// \return Its id, or 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_error_leader_id(error: *const raftz_error) -> u64 {
    // SAFETY: the caller's contract.
    value(0, || Ok(unsafe { borrow(error, "error") }?.failure.leader_id))
}

/// \brief The system's errno behind the failure; 0 if there is none.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param error The error; for NULL the answer is 0.
/// \return The number, or 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_error_os_errno(error: *const raftz_error) -> i32 {
    // SAFETY: the caller's contract.
    value(0, || Ok(unsafe { borrow(error, "error") }?.failure.os_errno))
}
