//! One call of C's, and what must be true of every one, whatever it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::mem::size_of;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use raftz::bytes::raftz_slice;
use raftz::error::*;
use raftz::status::*;

use super::header::{self, Function};
use crate::fuzz::tape::Tape;

/// How much longer than its timeout a call may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// What places for outputs are filled with.
pub(super) const FILLING: u8 = 0xa5;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls a function of the library, and remembers that it was.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        $crate::fuzz::capi::judge::reached(stringify!($name), false);
        #[allow(unused_unsafe, reason = "some are safe")]
        // SAFETY: the world gives handles that it was given and has not freed, and places that are there; what is wrong
        // on purpose is what the header allows to be wrong.
        let value = unsafe { $name($($argument),*) };
        value
    }};
}
pub(super) use call;

static REACHED: Mutex<BTreeMap<&'static str, bool>> = Mutex::new(BTreeMap::new());

/// Remembers that a function was called, and whether it has ever succeeded.
pub(super) fn reached(name: &'static str, succeeded: bool) {
    *lock(&REACHED).entry(name).or_default() |= succeeded;
}

/// The functions that were called so far, and whether each has succeeded, where it can say so.
pub(super) fn all_reached() -> BTreeMap<&'static str, bool> {
    let says_so = |name: &str| told()[name].contains(&RAFTZ_OK);
    lock(&REACHED).iter().map(|(name, ok)| (*name, *ok || !says_so(name))).collect()
}

static COMPLAINTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Something does not hold where nothing may panic: in a callback. [`no_complaints`] tells.
pub(super) fn complain(what: String) {
    lock(&COMPLAINTS).push(what);
}

pub(super) fn no_complaints() {
    let all = std::mem::take(&mut *lock(&COMPLAINTS));
    assert!(all.is_empty(), "{all:#?}");
}

/// What each function's documentation names.
fn told() -> &'static BTreeMap<String, BTreeSet<raftz_status>> {
    static TOLD: OnceLock<BTreeMap<String, BTreeSet<raftz_status>>> = OnceLock::new();
    TOLD.get_or_init(|| {
        let numbers = header::numbers();
        let functions: BTreeMap<String, Function> =
            header::functions().into_iter().map(|it| (it.name.clone(), it)).collect();
        let number = |name: &String| raftz_status::try_from(numbers[name]).unwrap();
        let of = |it: &Function| header::told(&functions, it).iter().map(number).collect();
        functions.values().map(|it| (it.name.clone(), of(it))).collect()
    })
}

/// A status that the header names for this function.
pub(super) fn documented(name: &'static str, status: raftz_status) {
    if status == RAFTZ_OK {
        reached(name, true);
    }
    if !told()[name].contains(&status) {
        complain(format!("{name} gave {}, of which its documentation says nothing", shown(status)));
    }
}

pub(super) fn shown(status: raftz_status) -> String {
    // SAFETY: static text that ends with NUL.
    unsafe { text(call!(raftz_status_name(status))) }
}

/// # Safety
/// Text that ends with NUL.
pub(super) unsafe fn text(pointer: *const c_char) -> String {
    assert!(!pointer.is_null());
    // SAFETY: the caller's contract.
    unsafe { CStr::from_ptr(pointer) }.to_str().expect("text of the library is UTF-8").to_owned()
}

/// # Safety
/// A slice that the library gave, and that still lives.
pub(super) unsafe fn bytes(slice: raftz_slice) -> Vec<u8> {
    if slice.len == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(slice.data, slice.len) }.to_vec()
}

pub(super) fn slice(bytes: &[u8]) -> raftz_slice {
    raftz_slice { data: bytes.as_ptr(), len: bytes.len() }
}

/// These bytes, or now and then a slice that is none.
pub(super) fn any_slice(tape: &mut Tape<'_>, good: &[u8]) -> raftz_slice {
    match tape.byte() {
        252 => raftz_slice { data: std::ptr::null(), len: 1 },
        253 => raftz_slice { data: good.as_ptr(), len: usize::MAX },
        254 => raftz_slice { data: std::ptr::null(), len: 0 },
        255 => slice(b"\xff\xfe\0"),
        _ => slice(good),
    }
}

/// Whether each call is told, for whoever looks for a mistake: RAFTZ_FUZZ_TRACE=1.
fn traces() -> bool {
    static TRACES: OnceLock<bool> = OnceLock::new();
    *TRACES.get_or_init(|| std::env::var_os("RAFTZ_FUZZ_TRACE").is_some())
}

/// Makes a call that can fail, mostly with a place for its error.
pub(super) fn judged(
    tape: &mut Tape<'_>,
    name: &'static str,
    timeout_ms: u32,
    make: impl FnOnce(*mut *mut raftz_error) -> raftz_status,
) -> raftz_status {
    let filling = filling();
    let mut error = filling;
    let wants_error = tape.byte() < 240;
    let begun = Instant::now();
    let status = make(if wants_error { &raw mut error } else { std::ptr::null_mut() });
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(timeout_ms.into()) + PATIENCE, "{name} took {took:?}");
    if traces() {
        eprintln!("{name}: {} after {took:?}", shown(status));
    }
    documented(name, status);
    assert_ne!(shown(status), "RAFTZ_?", "{name}");
    if status == RAFTZ_OK || status == RAFTZ_EMPTY || !wants_error {
        assert!(error == filling, "{name}: an error was written beside {}", shown(status));
        return status;
    }
    assert!(error != filling && !error.is_null(), "{name}: {} has no error", shown(status));
    assert_eq!(call!(raftz_error_status(error)), status, "{name}");
    // SAFETY: text of an error that lives.
    let message = unsafe { text(call!(raftz_error_message(error))) };
    if traces() {
        eprintln!("  {message}");
    }
    assert!(!message.is_empty() && !message.contains('\n'), "{name}: {message:?}");
    let is_unknown = call!(raftz_error_is_outcome_unknown(error));
    assert_eq!(is_unknown, call!(raftz_status_is_outcome_unknown(status)), "{name}: {message}");
    assert!(!(is_unknown && call!(raftz_error_is_retriable(error))), "{name}: {message}");
    let is_fatal = call!(raftz_error_is_fatal(error));
    let is_retriable = call!(raftz_error_is_retriable(error));
    assert!(!(is_fatal && is_retriable), "{name}: {message}");
    assert_eq!(is_fatal, call!(raftz_status_is_fatal(status)), "{name}: {message}");
    assert_eq!(is_retriable, call!(raftz_status_is_retriable(status)), "{name}: {message}");
    assert!(call!(raftz_error_os_errno(error)) >= 0, "{name}: {message}");
    let _ = call!(raftz_error_leader_id(error));
    call!(raftz_error_free(error));
    status
}

/// No pointer that the library could give.
pub(super) fn filling<T>() -> *mut T {
    std::ptr::without_provenance_mut(usize::from_ne_bytes([FILLING; 8]))
}

/// A place for a handle: written on success only.
pub(super) struct Given<T>(*mut T);

impl<T> Given<T> {
    pub(super) fn new() -> Self {
        Self(filling())
    }

    pub(super) fn place(&mut self) -> *mut *mut T {
        &raw mut self.0
    }

    /// What was given, if the call succeeded.
    pub(super) fn after(self, status: raftz_status) -> Option<*mut T> {
        assert_eq!(status == RAFTZ_OK, self.0 != filling(), "an output beside {}", shown(status));
        assert!(!self.0.is_null());
        (status == RAFTZ_OK).then_some(self.0)
    }
}

/// A struct that begins with its size, as programs older and newer than the library have it, and wrong ones.
pub(super) struct Versioned<T> {
    words: Vec<u64>,
    size: usize,
    is_null: bool,
    of: PhantomData<T>,
}

const WORD: usize = size_of::<u64>();
const WORDS_BEHIND: usize = 8;

impl<T: Copy> Versioned<T> {
    fn with(tape: &mut Tape<'_>, words: Vec<u64>) -> Self {
        let ours = size_of::<T>();
        let (size, is_null) = match tape.byte() {
            200..=207 => (WORD, false),
            208..=215 => (ours - WORD, false),
            216..=223 => (ours + 2 * WORD, false),
            232..=235 => (0, false),
            236..=239 => (3, false),
            240..=243 => (usize::MAX, false),
            244..=247 => (ours - 3, false),
            248..=255 => (ours, true),
            _ => (ours, false),
        };
        let mut made = Self { words, size, is_null, of: PhantomData };
        made.words[0] = size as u64;
        made
    }

    /// An input.
    pub(super) fn given(tape: &mut Tape<'_>, value: T) -> Self {
        assert!(size_of::<T>().is_multiple_of(WORD) && align_of::<T>() <= WORD);
        let mut words = vec![0; size_of::<T>() / WORD + WORDS_BEHIND];
        // SAFETY: there is room for one, which has no destructor.
        unsafe { words.as_mut_ptr().cast::<T>().write(value) };
        let mut made = Self::with(tape, words);
        if made.size > size_of::<T>() && made.size < usize::MAX && tape.byte() >= 128 {
            made.words[size_of::<T>() / WORD] = 1;
        }
        made
    }

    /// A place for an output.
    pub(super) fn place(tape: &mut Tape<'_>) -> Self {
        let words = vec![u64::from_ne_bytes([FILLING; 8]); size_of::<T>() / WORD + WORDS_BEHIND];
        Self::with(tape, words)
    }

    pub(super) fn pointer(&mut self) -> *mut T {
        if self.is_null { std::ptr::null_mut() } else { self.words.as_mut_ptr().cast() }
    }

    /// Whether the library may look at the field that lies at this offset: there is a struct, with a plausible size and
    /// nothing in it that is unknown.
    pub(super) fn is_seen(&self, offset: usize) -> bool {
        let is_newer = self.size > size_of::<T>() && self.size < usize::MAX;
        let is_unknown = is_newer && self.words[size_of::<T>() / WORD] != 0;
        let is_plausible =
            self.size.is_multiple_of(WORD) && (is_newer || self.size <= size_of::<T>());
        !self.is_null && is_plausible && !is_unknown && self.size > offset
    }

    /// What was put out: nothing beyond the size, and nothing at all beside a failure. `None` if not all of it fits.
    pub(super) fn after(self, status: raftz_status) -> Option<T> {
        assert_eq!(self.words[0], self.size as u64, "the size is the caller's");
        // SAFETY: these words, as bytes.
        let all = unsafe {
            std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), self.words.len() * WORD)
        };
        let written = if status == RAFTZ_OK { self.size } else { WORD };
        assert!(!self.is_null || status != RAFTZ_OK);
        assert!(all[written..].iter().all(|byte| *byte == FILLING), "written beside the struct");
        if status != RAFTZ_OK || self.size < size_of::<T>() {
            return None;
        }
        assert!(
            all[size_of::<T>()..written].iter().all(|byte| *byte == 0),
            "unknown, and not zero"
        );
        // SAFETY: the library has filled one.
        Some(unsafe { self.words.as_ptr().cast::<T>().read() })
    }
}

/// A place for a number: written on success only.
pub(super) fn number_after(number: u64, status: raftz_status) -> Option<u64> {
    let filling = u64::from_ne_bytes([FILLING; 8]);
    assert!(status == RAFTZ_OK || number == filling, "a number beside {}", shown(status));
    (number != filling).then_some(number)
}

/// What [`number_after`] wants to begin with.
pub(super) const NUMBER: u64 = u64::from_ne_bytes([FILLING; 8]);
