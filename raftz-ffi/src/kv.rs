//! The built-in key-value store: its commands, its questions and its answers.

use bytes::Bytes;
use raftz_core::machine::{KvCommand, KvQuery, KvReply};
use raftz_core::types::Reply;

use crate::bytes::{raftz_bytes, raftz_slice};
use crate::error::raftz_error;
use crate::guard::{self, Call, Out, borrow, call, free, invalid};
use crate::propose::RAFTZ_OUTCOME_REJECTED;
use crate::sized::{Place, Sized};
use crate::status::raftz_status;

/// # Safety
/// As [`guard::bytes`].
unsafe fn own(slice: raftz_slice, name: &str) -> Call<Bytes> {
    // SAFETY: the caller's contract.
    Ok(Bytes::copy_from_slice(unsafe { guard::bytes(slice, name) }?))
}

/// # Safety
/// As [`guard::bytes`].
unsafe fn own_key(slice: raftz_slice) -> Call<Bytes> {
    // SAFETY: the caller's contract.
    let key = unsafe { own(slice, "key") }?;
    if key.is_empty() { Err(invalid("key is empty; a key has at least one byte")) } else { Ok(key) }
}

/// # Safety
/// NULL, or a slice.
unsafe fn own_optional(slice: *const raftz_slice, name: &str) -> Call<Option<Bytes>> {
    // SAFETY: the caller's contract.
    unsafe { slice.as_ref() }.map(|slice| unsafe { own(*slice, name) }).transpose()
}

/// # Safety
/// `bytes` is NULL or a place for a pointer.
unsafe fn make(
    bytes: *mut *mut raftz_bytes,
    name: &str,
    encoded: impl FnOnce() -> Call<Bytes>,
) -> Call {
    let out = Out::new(bytes, name)?;
    let encoded = encoded()?;
    // SAFETY: the caller's contract.
    unsafe { out.give(raftz_bytes(encoded)) };
    Ok(())
}

/// \brief A command for the key-value store: gives a key a value. Its answer is RAFTZ_KV_STORED.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param key The key, at least one byte.
/// \param value The value, possibly empty.
/// \param command [out] The command, to be proposed; free it with raftz_bytes_free(), or hand it to
///        raftz_propose_bytes().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_set(
    key: raftz_slice,
    value: raftz_slice,
    command: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe {
        make(command, "command", || {
            Ok(KvCommand::Set { key: own_key(key)?, value: own(value, "value")? }.encode())
        })
    })
}

/// \brief A command for the key-value store: takes a key out. Its answer is RAFTZ_KV_DELETED.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param key The key, at least one byte.
/// \param command [out] The command, as of raftz_kv_set().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_delete(
    key: raftz_slice,
    command: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe {
        make(command, "command", || Ok(KvCommand::Delete { key: own_key(key)? }.encode()))
    })
}

/// \brief A command for the key-value store: writes a value if the present one is the expected one. Its answer
/// is RAFTZ_KV_SWAPPED, RAFTZ_KV_NOT_SWAPPED or RAFTZ_KV_NOT_SWAPPED_LARGE.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param key The key, at least one byte.
/// \param expected What must be there; NULL: the key must be absent.
/// \param value What shall be there; NULL: take the key out.
/// \param command [out] The command, as of raftz_kv_set().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_compare_and_set(
    key: raftz_slice,
    expected: *const raftz_slice,
    value: *const raftz_slice,
    command: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe {
        make(command, "command", || {
            let (expected, value) =
                (own_optional(expected, "expected")?, own_optional(value, "value")?);
            Ok(KvCommand::CompareAndSet { key: own_key(key)?, expected, value }.encode())
        })
    })
}

/// \brief A command for the key-value store: adds to the decimal number under a key; an absent key counts as 0.
/// Its answer is RAFTZ_KV_NUMBER.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param key The key, at least one byte.
/// \param by What to add, possibly negative.
/// \param command [out] The command, as of raftz_kv_set().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_increment(
    key: raftz_slice,
    by: i64,
    command: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe {
        make(command, "command", || Ok(KvCommand::Increment { key: own_key(key)?, by }.encode()))
    })
}

/// \brief A question to the key-value store: the value under a key. Its answer is RAFTZ_KV_VALUE.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param key The key.
/// \param request [out] The question, for raftz_read(); free it with raftz_bytes_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_get(
    key: raftz_slice,
    request: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe {
        make(request, "request", || Ok(KvQuery::Get { key: own(key, "key")? }.encode()))
    })
}

/// \brief A question to the key-value store: keys that begin with a prefix, in the order of their bytes, and
/// their values. Its answer is RAFTZ_KV_SCANNED. To go on where an answer with `is_on` ended, ask again with
/// its last key as `after`.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param prefix What the keys begin with; empty: all keys.
/// \param after Only keys beyond this one; NULL: from the first.
/// \param limit At most so many; the store has a limit of its own.
/// \param request [out] The question, as of raftz_kv_get().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_scan(
    prefix: raftz_slice,
    after: *const raftz_slice,
    limit: u32,
    request: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe {
        make(request, "request", || {
            let after = own_optional(after, "after")?;
            Ok(KvQuery::Scan { prefix: own(prefix, "prefix")?, after, limit }.encode())
        })
    })
}

/// \brief A question to the key-value store: its size and a digest of all of it, equal on nodes that have applied
/// the same. Its answer is RAFTZ_KV_DIGEST.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param request [out] The question, as of raftz_kv_get().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK or RAFTZ_NULL_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_digest(
    request: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    // SAFETY: the caller's contract.
    call(error, || unsafe { make(request, "request", || Ok(KvQuery::Digest.encode())) })
}

/// \brief An answer of the key-value store: the value is set.
pub const RAFTZ_KV_STORED: u32 = 0;
/// \brief An answer of the key-value store: the key has no value (any more); `is_on`: it had one before.
pub const RAFTZ_KV_DELETED: u32 = 1;
/// \brief An answer of the key-value store: the value was the expected one, and is the new one now.
pub const RAFTZ_KV_SWAPPED: u32 = 2;
/// \brief An answer of the key-value store: the value was not the expected one, nothing changed; `is_on`: there
/// is one, `value`.
pub const RAFTZ_KV_NOT_SWAPPED: u32 = 3;
/// \brief An answer of the key-value store: as RAFTZ_KV_NOT_SWAPPED, but the value is too large to be repeated;
/// `number` is its length.
pub const RAFTZ_KV_NOT_SWAPPED_LARGE: u32 = 4;
/// \brief An answer of the key-value store: the sum after an increment, `number`.
pub const RAFTZ_KV_NUMBER: u32 = 5;
/// \brief An answer of the key-value store: `is_on`: the key has a value, `value`.
pub const RAFTZ_KV_VALUE: u32 = 6;
/// \brief An answer of the key-value store: `count` keys and values, see raftz_kv_reply_entry(); `is_on`: further
/// keys match.
pub const RAFTZ_KV_SCANNED: u32 = 7;
/// \brief An answer of the key-value store: `count` keys, and the digest in `number`.
pub const RAFTZ_KV_DIGEST: u32 = 8;
/// \brief An answer of the key-value store: it turned the command or question down; `value` says why, in words.
pub const RAFTZ_KV_REJECTED: u32 = 9;

/// \brief An answer of the key-value store.
pub struct raftz_kv_reply(KvReply);

/// \brief What an answer says. Which fields mean something depends on its kind; the others are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_kv_reply_info {
    /// \brief Set it to `sizeof(raftz_kv_reply_info)`.
    pub size: usize,
    /// \brief RAFTZ_KV_…
    pub kind: u32,
    /// \brief 1 or 0; see the kind.
    pub is_on: u32,
    /// \brief See the kind.
    pub number: i64,
    /// \brief See the kind.
    pub count: u64,
    /// \brief See the kind. It lives as long as the answer.
    pub value: raftz_slice,
}

// SAFETY: integers and a pointer.
unsafe impl Sized for raftz_kv_reply_info {
    const NAME: &'static str = "raftz_kv_reply_info";
}

/// \brief Reads an answer of the key-value store.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param bytes What the command or question was answered with.
/// \param flags The flags that came with it: RAFTZ_OUTCOME_REJECTED or 0.
/// \param reply [out] The answer, to be freed with raftz_kv_reply_free().
/// \param error [out] Why the bytes are none; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_reply_read(
    bytes: raftz_slice,
    flags: u32,
    reply: *mut *mut raftz_kv_reply,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(reply, "reply")?;
        // SAFETY: the caller's contract.
        let bytes = unsafe { own(bytes, "bytes") }?;
        let is_rejected = flags & RAFTZ_OUTCOME_REJECTED != 0;
        let answer = if is_rejected { Reply::Rejected(bytes) } else { Reply::Ok(bytes) };
        let decoded = KvReply::decode(&answer)
            .map_err(|error| invalid(format!("bytes are no answer of the store: {error}")))?;
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_kv_reply(decoded)) };
        Ok(())
    })
}

/// \brief What an answer says.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param reply The answer.
/// \param info [in,out] Set its `size` to `sizeof(raftz_kv_reply_info)`; the rest is filled.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_reply_get(
    reply: *const raftz_kv_reply,
    info: *mut raftz_kv_reply_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let reply = &unsafe { borrow(reply, "reply") }?.0;
        // SAFETY: the caller's contract.
        let out = unsafe { Place::new(info, "info") }?;
        let value = raftz_slice { data: std::ptr::null(), len: 0 };
        let mut seen = raftz_kv_reply_info {
            size: out.size,
            kind: RAFTZ_KV_STORED,
            is_on: 0,
            number: 0,
            count: 0,
            value,
        };
        let mut optional = |bytes: &Option<Bytes>| {
            if let Some(bytes) = bytes {
                (seen.is_on, seen.value) = (1, raftz_slice::of(bytes));
            }
        };
        seen.kind = match reply {
            KvReply::Stored => RAFTZ_KV_STORED,
            KvReply::Deleted { existed } => {
                seen.is_on = u32::from(*existed);
                RAFTZ_KV_DELETED
            }
            KvReply::Swapped => RAFTZ_KV_SWAPPED,
            KvReply::NotSwapped { actual } => {
                optional(actual);
                RAFTZ_KV_NOT_SWAPPED
            }
            KvReply::NotSwappedLarge { actual_bytes } => {
                seen.number = i64::try_from(*actual_bytes).unwrap_or(i64::MAX);
                RAFTZ_KV_NOT_SWAPPED_LARGE
            }
            KvReply::Number(number) => {
                seen.number = *number;
                RAFTZ_KV_NUMBER
            }
            KvReply::Value(value) => {
                optional(value);
                RAFTZ_KV_VALUE
            }
            KvReply::Scanned { entries, more } => {
                (seen.count, seen.is_on) = (entries.len() as u64, u32::from(*more));
                RAFTZ_KV_SCANNED
            }
            KvReply::Digest { entries, digest } => {
                (seen.count, seen.number) = (*entries, digest.cast_signed());
                RAFTZ_KV_DIGEST
            }
            KvReply::Rejected(words) => {
                seen.value = raftz_slice::of(words.as_bytes());
                RAFTZ_KV_REJECTED
            }
        };
        // SAFETY: the caller's contract.
        unsafe { out.put(&seen) };
        Ok(())
    })
}

/// \brief A key and its value of an answer of kind RAFTZ_KV_SCANNED.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param reply The answer.
/// \param at Which, from 0 to `count` - 1.
/// \param key [out] The key; it lives as long as the answer.
/// \param value [out] The value; it lives as long as the answer.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_reply_entry(
    reply: *const raftz_kv_reply,
    at: usize,
    key: *mut raftz_slice,
    value: *mut raftz_slice,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let reply = &unsafe { borrow(reply, "reply") }?.0;
        let (key_out, value_out) = (Out::new(key, "key")?, Out::new(value, "value")?);
        let KvReply::Scanned { entries, .. } = reply else {
            return Err(invalid("the answer is not of kind RAFTZ_KV_SCANNED"));
        };
        let count = entries.len();
        let (key, value) = entries
            .get(at)
            .ok_or_else(|| invalid(format!("at is {at}, and there are {count} entries")))?;
        // SAFETY: the caller's contract.
        unsafe {
            key_out.put(raftz_slice::of(key));
            value_out.put(raftz_slice::of(value));
        }
        Ok(())
    })
}

/// \brief Frees an answer.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param reply The answer, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_kv_reply_free(reply: *mut raftz_kv_reply) {
    // SAFETY: the caller's contract: NULL, or an answer that is C's own.
    unsafe { free(reply) }
}
