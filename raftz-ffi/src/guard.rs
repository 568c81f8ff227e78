//! The boundary: every call from C runs in here, so that whatever goes wrong becomes a status.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::bytes::raftz_slice;
use crate::error::{Failure, raftz_error};
use crate::status::{
    RAFTZ_BAD_UTF8, RAFTZ_EMPTY, RAFTZ_INVALID_ARG, RAFTZ_NULL_ARG, RAFTZ_OK, RAFTZ_PANIC,
    raftz_status,
};

/// What the inside of a call gives.
pub(crate) type Call<T = ()> = Result<T, Failure>;

/// Runs the inside of a call. A panic ends here as [`RAFTZ_PANIC`].
pub(crate) fn call(error: *mut *mut raftz_error, inside: impl FnOnce() -> Call) -> raftz_status {
    match guarded(inside) {
        Ok(()) => RAFTZ_OK,
        Err(failure) => {
            let status = failure.status;
            // An empty queue is no mishap, and is met too often for an object of its own.
            if !error.is_null() && status != RAFTZ_EMPTY {
                // SAFETY: the caller's contract: NULL or a place for a pointer.
                unsafe { error.write(raftz_error::new(failure)) };
            }
            status
        }
    }
}

/// For functions that have no status to give: what they give instead when something is wrong.
pub(crate) fn value<T>(instead: T, inside: impl FnOnce() -> Call<T>) -> T {
    guarded(inside).unwrap_or(instead)
}

fn guarded<T>(inside: impl FnOnce() -> Call<T>) -> Call<T> {
    // Handles that a panic may have left in disorder are marked and take no more calls.
    catch_unwind(AssertUnwindSafe(inside)).unwrap_or_else(|payload| {
        let text = panic_text(payload.as_ref());
        // A payload may panic when it is dropped.
        std::mem::forget(payload);
        Err(Failure::new(RAFTZ_PANIC, format!("raftz failed inside: {text}; please report this")))
    })
}

pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// A failure about one argument.
pub(crate) fn null(name: &str) -> Failure {
    Failure::new(RAFTZ_NULL_ARG, format!("{name} must not be NULL"))
}

/// A failure about one argument.
pub(crate) fn invalid(what: impl Into<String>) -> Failure {
    Failure::new(RAFTZ_INVALID_ARG, what.into())
}

/// What a pointer from C points to.
///
/// # Safety
/// NULL, or valid and unchanged for as long as the reference is used.
pub(crate) unsafe fn borrow<'a, T>(pointer: *const T, name: &str) -> Call<&'a T> {
    // SAFETY: the caller's contract.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// What a pointer from C points to, to be changed.
///
/// # Safety
/// NULL, or valid and nobody else's for as long as the reference is used.
pub(crate) unsafe fn borrow_mut<'a, T>(pointer: *mut T, name: &str) -> Call<&'a mut T> {
    // SAFETY: the caller's contract.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

/// A place for an output.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// The place, if it is one.
    pub(crate) fn new(pointer: *mut T, name: &str) -> Call<Self> {
        if pointer.is_null() { Err(null(name)) } else { Ok(Self(pointer)) }
    }

    /// Writes it.
    ///
    /// # Safety
    /// The pointer was valid for writing.
    pub(crate) unsafe fn put(self, value: T) {
        // SAFETY: the caller's contract; what was there before is C's and not dropped.
        unsafe { self.0.write(value) }
    }
}

impl<T> Out<*mut T> {
    /// Gives an object away.
    ///
    /// # Safety
    /// The pointer was valid for writing.
    pub(crate) unsafe fn give(self, value: T) {
        // SAFETY: the caller's contract.
        unsafe { self.put(Box::into_raw(Box::new(value))) }
    }
}

/// Takes an object back, to drop it. NULL is nothing.
///
/// # Safety
/// NULL, or an object that [`Out::give`] gave away and nobody uses any more.
pub(crate) unsafe fn take_back<T>(pointer: *mut T) -> Option<Box<T>> {
    // SAFETY: the caller's contract.
    (!pointer.is_null()).then(|| unsafe { Box::from_raw(pointer) })
}

/// Drops an object that C gives back; a panic in that ends here.
///
/// # Safety
/// As [`take_back`].
pub(crate) unsafe fn free<T>(pointer: *mut T) {
    value((), || {
        // SAFETY: the caller's contract.
        drop(unsafe { take_back(pointer) });
        Ok(())
    });
}

/// Text that ends with NUL.
///
/// # Safety
/// NULL, or text that ends with NUL and is unchanged for as long as the reference is used.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Call<&'a str> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: the caller's contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str()
        .map_err(|error| Failure::new(RAFTZ_BAD_UTF8, format!("{name} is not UTF-8: {error}")))
}

/// The bytes of a slice.
///
/// # Safety
/// `data` points to `len` bytes that are unchanged for as long as the reference is used, or `len` is 0.
pub(crate) unsafe fn bytes<'a>(slice: raftz_slice, name: &str) -> Call<&'a [u8]> {
    if slice.len == 0 {
        return Ok(&[]);
    }
    if slice.data.is_null() {
        return Err(null(&format!("{name}.data with {name}.len = {}", slice.len)));
    }
    if isize::try_from(slice.len).is_err() {
        return Err(invalid(format!("{name}.len = {} is more than there is memory", slice.len)));
    }
    // SAFETY: the caller's contract; not NULL, and no longer than an allocation can be.
    Ok(unsafe { std::slice::from_raw_parts(slice.data, slice.len) })
}

/// The items of an array.
///
/// # Safety
/// `pointer` points to `count` items that are unchanged for as long as the reference is used, or `count` is 0.
pub(crate) unsafe fn array<'a, T>(pointer: *const T, count: usize, name: &str) -> Call<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    if count > isize::MAX as usize / std::mem::size_of::<T>().max(1) {
        return Err(invalid(format!("count = {count} of {name} is more than there is memory")));
    }
    // SAFETY: the caller's contract; not NULL, and no longer than an allocation can be.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_with_its_text() {
        let mut error = std::ptr::null_mut();
        let status = call(&raw mut error, || std::panic::panic_any("on purpose"));
        assert_eq!(status, RAFTZ_PANIC);
        // SAFETY: set by the failed call.
        let error = unsafe { take_back(error) };
        assert!(error.is_some_and(|error| error.message().contains("on purpose")));
        assert_eq!(call(std::ptr::null_mut(), || std::panic::panic_any(7)), RAFTZ_PANIC);
        assert_eq!(value(3, || std::panic::panic_any("x")), 3);
    }

    #[test]
    fn slices_are_checked_before_they_are_read() {
        let slice = |data: *const u8, len| raftz_slice { data, len };
        // SAFETY: nothing is read of a slice that is refused or empty.
        unsafe {
            assert_eq!(bytes(slice(std::ptr::null(), 0), "s").map(<[u8]>::len).ok(), Some(0));
            assert_eq!(bytes(slice(std::ptr::dangling(), 0), "s").map(<[u8]>::len).ok(), Some(0));
            let refused =
                |data, len| bytes(slice(data, len), "s").err().map(|failure| failure.status);
            assert_eq!(refused(std::ptr::null(), 1), Some(RAFTZ_NULL_ARG));
            assert_eq!(refused(std::ptr::dangling(), usize::MAX), Some(RAFTZ_INVALID_ARG));
        }
    }
}
