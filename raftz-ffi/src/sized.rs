//! Structs that begin with their own size, so that they can grow: the caller's may be older or newer.

use crate::error::Failure;
use crate::guard::{Call, invalid, null};
use crate::status::RAFTZ_ABI_MISMATCH;
use crate::version::RAFTZ_ABI_VERSION;

/// A struct of integers, pointers and optional function pointers alone, whose first field is
/// `size: usize`, and for which zero is a good value everywhere.
///
/// # Safety
/// The type must be `repr(C)` and as described.
pub(crate) unsafe trait Sized {
    /// Its name in C.
    const NAME: &'static str;
}

/// Reads such a struct: what an older caller does not have is zero, what a newer one has beyond ours
/// must be zero.
///
/// # Safety
/// NULL, or as many readable bytes as its first field says.
pub(crate) unsafe fn read<T: Sized>(pointer: *const T) -> Call<Option<T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    let ours = std::mem::size_of::<T>();
    // SAFETY: the caller's contract: at least the first field is there.
    let size = unsafe { pointer.cast::<usize>().read() };
    if !is_plausible::<T>(size) {
        return Err(bad_size::<T>(size));
    }
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let bytes = pointer.cast::<u8>();
    // SAFETY: both are at least so long, and apart; zero is a good value for the rest.
    let value = unsafe {
        std::ptr::copy_nonoverlapping(bytes, value.as_mut_ptr().cast::<u8>(), size.min(ours));
        value.assume_init()
    };
    // SAFETY: the caller's contract: `size` bytes are there.
    if (ours..size).any(|at| unsafe { bytes.add(at).read() } != 0) {
        let message = format!(
            "{} has {size} bytes and uses more than the {ours} that this version of raftz knows; upgrade the library",
            T::NAME
        );
        return Err(Failure::new(RAFTZ_ABI_MISMATCH, message));
    }
    Ok(Some(value))
}

/// Checks what every table of functions says of itself: its version, and flags of which these are known.
pub(crate) fn known<T: Sized>(abi_version: u32, flags: u32, flags_known: u32) -> Call<()> {
    let name = T::NAME;
    if abi_version == 0 || abi_version > RAFTZ_ABI_VERSION {
        let message = format!(
            "{name}.abi_version is {abi_version}; set it to RAFTZ_ABI_VERSION, which this library knows up to {RAFTZ_ABI_VERSION}"
        );
        return Err(Failure::new(RAFTZ_ABI_MISMATCH, message));
    }
    if flags & !flags_known != 0 {
        return Err(invalid(format!("{name}.flags is {flags:#x}")));
    }
    Ok(())
}

/// Checks that these functions of a table are there.
pub(crate) fn required<T: Sized>(functions: &[(&str, bool)]) -> Call<()> {
    match functions.iter().find(|(_, is_there)| !is_there) {
        Some((function, _)) => Err(null(&format!("{}.{function}", T::NAME))),
        None => Ok(()),
    }
}

/// A caller's struct for output, whose size was found good.
pub(crate) struct Place<T: Sized> {
    pointer: *mut T,
    /// The caller's.
    pub(crate) size: usize,
}

impl<T: Sized> Place<T> {
    /// Checks it before anything is done.
    ///
    /// # Safety
    /// NULL, or at least the first field is there.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Call<Self> {
        if pointer.is_null() {
            return Err(null(name));
        }
        // SAFETY: the caller's contract; not NULL.
        let size = unsafe { pointer.cast::<usize>().read() };
        if !is_plausible::<T>(size) {
            return Err(bad_size::<T>(size));
        }
        Ok(Self { pointer, size })
    }

    /// Fills it: what does not fit is left out, and what an older library does not know is zero. The size
    /// stays the caller's.
    ///
    /// # Safety
    /// As many bytes are there as the struct says.
    pub(crate) unsafe fn put(self, value: &T) {
        let ours = std::mem::size_of::<T>();
        let Self { pointer, size } = self;
        // SAFETY: the caller's contract; both are at least so long, and apart.
        unsafe {
            std::ptr::copy_nonoverlapping(
                std::ptr::from_ref(value).cast::<u8>(),
                pointer.cast::<u8>(),
                size.min(ours),
            );
            if size > ours {
                pointer.cast::<u8>().add(ours).write_bytes(0, size - ours);
            }
            pointer.cast::<usize>().write(size);
        }
    }
}

/// Whether a struct may have this size in some version; more likely it was never initialized otherwise. One
/// that ends between two words would leave us half a pointer.
fn is_plausible<T: Sized>(size: usize) -> bool {
    let word = std::mem::size_of::<usize>();
    size >= word && size.is_multiple_of(word) && size <= std::mem::size_of::<T>() + 4096
}

fn bad_size<T: Sized>(size: usize) -> Failure {
    invalid(format!("{0}.size is {size}; set it to sizeof({0})", T::NAME))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::{RAFTZ_INVALID_ARG, raftz_status};

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Opts {
        size: usize,
        first: u64,
        second: u64,
    }
    // SAFETY: integers alone.
    unsafe impl Sized for Opts {
        const NAME: &'static str = "opts";
    }

    fn read_words(words: &[u64]) -> Result<Option<Opts>, raftz_status> {
        // SAFETY: the tests say no more than there is, but where the size is refused first.
        unsafe { read(words.as_ptr().cast::<Opts>()) }.map_err(|failure| failure.status)
    }

    #[test]
    fn an_older_struct_is_extended_and_a_newer_one_must_not_use_what_is_unknown() {
        assert_eq!(read_words(&[16, 7]), Ok(Some(Opts { size: 16, first: 7, second: 0 })));
        assert_eq!(read_words(&[24, 7, 8]), Ok(Some(Opts { size: 24, first: 7, second: 8 })));
        assert_eq!(read_words(&[32, 7, 8, 0]), Ok(Some(Opts { size: 32, first: 7, second: 8 })));
        assert_eq!(read_words(&[32, 7, 8, 1]), Err(RAFTZ_ABI_MISMATCH));
        assert_eq!(read_words(&[0, 7, 8]), Err(RAFTZ_INVALID_ARG));
        assert_eq!(read_words(&[20, 7, 8]), Err(RAFTZ_INVALID_ARG), "half of the last word");
        assert_eq!(read_words(&[1 << 40, 7, 8]), Err(RAFTZ_INVALID_ARG));
    }

    #[test]
    fn an_output_fits_the_caller_s_struct() {
        let value = Opts { size: 24, first: 7, second: 8 };
        for (size, wanted) in [(16, [16, 7, 9, 9]), (24, [24, 7, 8, 9]), (32, [32, 7, 8, 0])] {
            let mut words = [size as u64, 9, 9, 9];
            let pointer = words.as_mut_ptr().cast::<Opts>();
            // SAFETY: so many bytes are there.
            unsafe { Place::new(pointer, "opts").unwrap().put(&value) };
            assert_eq!(words, wanted);
        }
    }
}
