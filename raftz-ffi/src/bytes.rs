//! Bytes in and out.

use std::ffi::c_void;
use std::io;

use bytes::Bytes;
use raftz_core::node;
use raftz_core::types::Payload;

use crate::error::raftz_error;
use crate::guard::{self, Call, Out, borrow, call, free, value};

/// \brief Bytes that somebody else owns.
///
/// As an argument: read during the call, copied where they are needed for longer. As a result: see the
/// function for how long they live. With `len` 0 `data` may be anything.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_slice {
    /// \brief The first byte.
    pub data: *const u8,
    /// \brief How many.
    pub len: usize,
}

impl raftz_slice {
    /// Of bytes that outlive every use of it.
    pub(crate) const fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }
}

/// \brief Bytes of one's own: what the library gives, or what a program hands over without a copy.
pub struct raftz_bytes(pub(crate) Bytes);

/// \brief Frees memory that was handed over with raftz_bytes_wrap(). Called exactly once.
///
/// Threads: any, a node's own included. Blocking calls of raftz are refused in it.
pub type raftz_free_fn = Option<unsafe extern "C" fn(context: *mut c_void)>;

struct Foreign {
    slice: raftz_slice,
    free: raftz_free_fn,
    context: *mut c_void,
}

// SAFETY: the contract of raftz_bytes_wrap(): the bytes stay as they are, and they may be freed on any
// thread.
unsafe impl Send for Foreign {}

impl AsRef<[u8]> for Foreign {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: checked when it was made; the bytes stay until `free`.
        unsafe { guard::bytes(self.slice, "data") }.unwrap_or_default()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the user's function, called once with the user's context.
            node::run_callback("a free function", || unsafe { free(self.context) });
        }
    }
}

/// \brief Copies bytes.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param data What to copy.
/// \param bytes [out] The copy, to be freed with raftz_bytes_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_bytes_copy(
    data: raftz_slice,
    bytes: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> crate::status::raftz_status {
    call(error, || {
        let out = Out::new(bytes, "bytes")?;
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_bytes(Bytes::copy_from_slice(guard::bytes(data, "data")?))) };
        Ok(())
    })
}

/// \brief Hands bytes over without a copy.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param data The bytes; they must not change until `free` is called.
/// \param free_fn Called once when nobody needs them any more, on any thread; NULL for bytes that live for
///        ever. If the call fails it is not called, and the bytes stay the caller's.
/// \param context Given to `free_fn`.
/// \param bytes [out] The bytes, to be freed with raftz_bytes_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_bytes_wrap(
    data: raftz_slice,
    free_fn: raftz_free_fn,
    context: *mut c_void,
    bytes: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> crate::status::raftz_status {
    call(error, || {
        let out = Out::new(bytes, "bytes")?;
        // SAFETY: the caller's contract.
        unsafe { guard::bytes(data, "data") }?;
        let foreign = Foreign { slice: data, free: free_fn, context };
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_bytes(Bytes::from_owner(foreign))) };
        Ok(())
    })
}

/// \brief The bytes themselves.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param bytes The object; for NULL the answer is an empty slice.
/// \return A slice that lives as long as the object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_bytes_slice(bytes: *const raftz_bytes) -> raftz_slice {
    value(raftz_slice { data: std::ptr::null(), len: 0 }, || {
        // SAFETY: the caller's contract.
        Ok(raftz_slice::of(&unsafe { borrow(bytes, "bytes") }?.0))
    })
}

/// \brief Frees bytes.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param bytes The object, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_bytes_free(bytes: *mut raftz_bytes) {
    // SAFETY: the caller's contract: NULL, or bytes that are C's own.
    unsafe { free(bytes) }
}

/// A number that nobody else draws.
pub(crate) fn random() -> io::Result<u128> {
    let mut bytes = [0_u8; 16];
    // SAFETY: so many bytes are there.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(got) == Ok(bytes.len()) {
        Ok(u128::from_le_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// CRC32C, as everywhere in raftz.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    Payload::new(Bytes::copy_from_slice(bytes)).crc()
}

/// Takes bytes over from C: they are gone for it, whatever becomes of the call.
///
/// # Safety
/// NULL, or bytes that are C's own.
pub(crate) unsafe fn take_over(bytes: *mut raftz_bytes, name: &str) -> Call<Bytes> {
    // SAFETY: the caller's contract.
    unsafe { guard::take_back(bytes) }.map(|bytes| bytes.0).ok_or_else(|| guard::null(name))
}
