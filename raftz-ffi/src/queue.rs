//! A queue of completions and events, with a descriptor to wait for.
#![allow(clippy::disallowed_methods, reason = "a wait has an end")]

use std::ffi::c_void;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use raftz_core::node::{self, Backlog};
use raftz_core::types::EventKey;

use crate::bytes::raftz_slice;
use crate::error::{Failure, raftz_error};
use crate::events::{RAFTZ_EVENT_COMPLETION, RAFTZ_EVENT_DROPPED, Told, raftz_event_info};
use crate::fork::ForkMark;
use crate::guard::{Call, Out, borrow, call, free, invalid, value};
use crate::propose::{Ended, raftz_outcome};
use crate::sized::{self, Place, Sized};
use crate::status::{
    RAFTZ_BUSY, RAFTZ_CLOSED, RAFTZ_EMPTY, RAFTZ_IN_CALLBACK, RAFTZ_THREAD, raftz_status,
};

/// \brief A queue into which completions and events of any number of nodes are put, and from which a
/// program takes them: an event loop that waits for raftz_queue_fd(), or a thread that blocks.
pub struct raftz_queue {
    shared: Arc<Queue>,
}

/// \brief How a queue is to be. All zero, but for the size, is the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_queue_opts {
    /// \brief Set it to `sizeof(raftz_queue_opts)`.
    pub size: usize,
    /// \brief Most calls that may be under way or wait to be taken; beyond it new ones are refused with
    /// RAFTZ_BUSY. 0: 65536.
    pub calls_max: u64,
    /// \brief Most events of nodes that may wait to be taken; beyond it the newest are dropped, counted and told of
    /// by RAFTZ_EVENT_DROPPED. Of events that tell of a state (role, leader, readiness, membership, the link to
    /// one peer, progress of one transfer, disk space, a fault) only the latest waits, and is not dropped. 0: 4096.
    pub events_max: u64,
}

// SAFETY: integers alone.
unsafe impl Sized for raftz_queue_opts {
    const NAME: &'static str = "raftz_queue_opts";
}

/// \brief Something taken from a queue: a completion or an event of a node.
pub struct raftz_event {
    info: raftz_event_info,
    key: Option<Key>,
    /// What the outcomes point into.
    _ended: Vec<Ended>,
    outcomes: Vec<raftz_outcome>,
    text: String,
}

// SAFETY: the pointers in it are the user's data and what it owns itself.
unsafe impl Send for raftz_event {}

/// Most states that events in a queue may tell of, those of nodes themselves aside.
const KEYS_MAX: usize = 65_536;

/// What an event tells the present state of: of which node, and what.
type Key = (u64, EventKey);

/// What nodes and the handle share.
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    fd: OwnedFd,
    mark: ForkMark,
    calls_max: u64,
    events_max: u64,
}

struct State {
    /// Completions have no key, and a bound of their own.
    waiting: Backlog<Key, Box<raftz_event>>,
    /// Calls under way, and completions that wait to be taken.
    calls: u64,
    /// Events that may be dropped.
    events: u64,
    dropped: u64,
    /// Nothing new may come: neither calls nor events.
    closed: bool,
    /// Nobody can take anything any more.
    freed: bool,
}

impl State {
    /// An event has no place; how many had none is an event, too, of which there is always one at most.
    fn drop_one(&mut self) {
        self.dropped += 1;
        let mut info = raftz_event_info::of_kind(RAFTZ_EVENT_DROPPED, 1, 0);
        info.count = self.dropped;
        let key = (0, EventKey::Dropped);
        let event = raftz_event::new(Some(key), info, Vec::new(), String::new());
        drop(self.waiting.push_surely(key, event));
    }

    /// Whether nothing is here and nothing will come.
    fn is_finished(&self) -> bool {
        self.closed && self.waiting.is_empty() && (self.calls == 0 || self.freed)
    }
}

impl Queue {
    /// Room for so many calls, and for one event even if they are none.
    pub(crate) fn reserve(self: &Arc<Self>, calls: usize) -> Call<Reserved> {
        let calls = weight(calls);
        if calls > self.calls_max {
            let message = format!(
                "{calls} calls at once never fit the queue (calls_max = {}); use smaller batches",
                self.calls_max
            );
            return Err(invalid(message));
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err(Failure::new(RAFTZ_CLOSED, "the queue is closed"));
        }
        if state.calls.saturating_add(calls) > self.calls_max {
            let message = format!(
                "busy: calls of the queue (calls_max = {}) is at its bound; take completions from it",
                self.calls_max
            );
            return Err(Failure::new(RAFTZ_BUSY, message));
        }
        state.calls += calls;
        Ok(Reserved { queue: Arc::clone(self), calls })
    }

    /// Refuses a queue of the parent process.
    pub(crate) fn check(&self) -> Call {
        self.mark.check()
    }

    /// Puts something in that has a place: a completion by its reservation, an event by its bound or its key.
    fn push(&self, mut state: parking_lot::MutexGuard<'_, State>, event: Box<raftz_event>) {
        let was_empty = state.waiting.is_empty();
        let key = event.key;
        let pushed = match key {
            Some(key) if key.1.is_of_the_node() => Ok(state.waiting.push_surely(key, event)),
            Some(_) | None => state.waiting.push(key, event),
        };
        // Peers without end are strangers whose links come and go.
        let surplus = pushed.unwrap_or_else(|refused| {
            state.drop_one();
            Some(refused)
        });
        if was_empty {
            self.signal();
        }
        drop(state);
        drop(surplus);
        self.filled.notify_one();
    }

    /// An event of a node.
    pub(crate) fn push_event(&self, told: Told) {
        let Told { key, info, text } = told;
        let key = key.map(|key| (info.node_id, key));
        let event = raftz_event::new(key, info, Vec::new(), text);
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        if key.is_some() {
            return self.push(state, event);
        }
        if state.events < self.events_max {
            state.events += 1;
            return self.push(state, event);
        }
        // What waits is not empty then, so that nobody need be told.
        state.drop_one();
    }

    /// The descriptor is readable while there is something.
    fn signal(&self) {
        let one = 1_u64;
        // SAFETY: a descriptor of ours and eight bytes. An eventfd that is not at its end takes it.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: a descriptor of ours and eight bytes; it does not block.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    fn take(&self, state: &mut State) -> Option<Box<raftz_event>> {
        let event = state.waiting.pop()?;
        if event.info.kind == RAFTZ_EVENT_COMPLETION {
            state.calls -= weight(event.outcomes.len());
        } else if event.key.is_none() {
            state.events -= 1;
        }
        if state.waiting.is_empty() {
            self.clear();
        }
        self.tell_end(state);
        Some(event)
    }

    /// Wakes everybody who waits for what will not come.
    fn tell_end(&self, state: &State) {
        if state.is_finished() {
            self.signal();
            self.filled.notify_all();
        }
    }
}

/// What a completion of so many calls counts for.
fn weight(calls: usize) -> u64 {
    calls.max(1) as u64
}

/// Room in a queue for calls under way; given back if they never came to be.
pub(crate) struct Reserved {
    queue: Arc<Queue>,
    calls: u64,
}

impl Reserved {
    /// The calls have ended.
    pub(crate) fn complete(mut self, (node_id, user_data): (u64, *mut c_void), ended: Vec<Ended>) {
        let mut info = raftz_event_info::of_kind(RAFTZ_EVENT_COMPLETION, 1, node_id);
        info.user_data = user_data;
        let event = raftz_event::new(None, info, ended, String::new());
        let state = self.queue.state.lock();
        if !state.freed {
            // From here on the event counts for them.
            self.calls = 0;
            self.queue.push(state, event);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.calls > 0 {
            let mut state = self.queue.state.lock();
            state.calls -= self.calls;
            self.queue.tell_end(&state);
        }
    }
}

impl raftz_event {
    fn new(key: Option<Key>, info: raftz_event_info, ended: Vec<Ended>, text: String) -> Box<Self> {
        let outcomes = ended.iter().map(Ended::outcome).collect();
        let mut event = Box::new(Self { info, key, _ended: ended, outcomes, text });
        // The description points at what the event owns, now that it stays where it is.
        event.info.text = raftz_slice::of(event.text.as_bytes());
        event.info.outcomes = event.outcomes.as_ptr();
        event.info.outcome_count = event.outcomes.len();
        event
    }
}

impl raftz_queue {
    /// What nodes keep of it.
    pub(crate) fn shared(&self) -> Call<Arc<Queue>> {
        self.shared.mark.check()?;
        Ok(Arc::clone(&self.shared))
    }
}

/// \brief Makes a queue.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param opts How it is to be; NULL for the defaults.
/// \param queue [out] The queue, to be freed with raftz_queue_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or RAFTZ_THREAD (no descriptor).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_queue_new(
    opts: *const raftz_queue_opts,
    queue: *mut *mut raftz_queue,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(queue, "queue")?;
        // SAFETY: the caller's contract.
        let opts = unsafe { sized::read(opts) }?;
        let or = |number: Option<u64>, default| number.filter(|it| *it > 0).unwrap_or(default);
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Failure::of_system(RAFTZ_THREAD, "no descriptor for the queue", &error));
        }
        let shared = Arc::new(Queue {
            state: Mutex::new(State {
                waiting: Backlog::with_bounds(usize::MAX, KEYS_MAX),
                calls: 0,
                events: 0,
                dropped: 0,
                closed: false,
                freed: false,
            }),
            filled: Condvar::new(),
            // SAFETY: new, and nobody else's.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            mark: ForkMark::new()?,
            calls_max: or(opts.map(|opts| opts.calls_max), 65_536),
            events_max: or(opts.map(|opts| opts.events_max), 4096),
        });
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_queue { shared }) };
        Ok(())
    })
}

/// \brief A descriptor that is readable while the queue holds something: for poll, epoll and the like.
///
/// Wait for it to be readable, then take with raftz_queue_next() and timeout 0 until RAFTZ_EMPTY. Do not
/// read from it, write to it or close it.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param queue The queue; for NULL the answer is -1.
/// \return The descriptor; it lives as long as the queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_queue_fd(queue: *const raftz_queue) -> i32 {
    // SAFETY: the caller's contract.
    value(-1, || Ok(unsafe { borrow(queue, "queue") }?.shared()?.fd.as_raw_fd()))
}

/// \brief Takes the oldest thing from a queue.
///
/// Threads: any, several at once. Inside callbacks: with timeout 0. Blocks: up to the timeout.
///
/// \param queue The queue.
/// \param timeout_ms How long to wait for something, in milliseconds: 0 not at all, RAFTZ_WAIT_FOREVER as
///        long as it takes.
/// \param event [out] What was taken, to be freed with raftz_event_free().
/// \param error [out] Why not; may be NULL. RAFTZ_EMPTY, with which every drain ends, leaves no error.
/// \return RAFTZ_OK, RAFTZ_EMPTY, RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_CLOSED or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_queue_next(
    queue: *mut raftz_queue,
    timeout_ms: u32,
    event: *mut *mut raftz_event,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(event, "event")?;
        // SAFETY: the caller's contract.
        let queue = unsafe { borrow(queue.cast_const(), "queue") }?.shared()?;
        if let Some(inside) = node::inside_callback().filter(|_| timeout_ms > 0) {
            let message = format!("a wait inside {inside} would hold it up; use timeout 0");
            return Err(Failure::new(RAFTZ_IN_CALLBACK, message));
        }
        let end = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
        let mut state = queue.state.lock();
        loop {
            if let Some(event) = queue.take(&mut state) {
                drop(state);
                // SAFETY: the caller's contract.
                unsafe { out.put(Box::into_raw(event)) };
                return Ok(());
            }
            if state.is_finished() {
                return Err(Failure::new(RAFTZ_CLOSED, "the queue is closed and empty"));
            }
            let is_over = timeout_ms == 0 || queue.filled.wait_until(&mut state, end).timed_out();
            if is_over && state.waiting.is_empty() {
                return Err(Failure::new(RAFTZ_EMPTY, "nothing came before the timeout"));
            }
        }
    })
}

/// \brief How many events of nodes were dropped, because nobody took them in time. Completions never are.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param queue The queue; for NULL the answer is 0.
/// \return How many, since the queue was made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_queue_dropped(queue: *const raftz_queue) -> u64 {
    value(0, || {
        // SAFETY: the caller's contract.
        let shared = unsafe { borrow(queue, "queue") }?.shared()?;
        let dropped = shared.state.lock().dropped;
        Ok(dropped)
    })
}

/// \brief Closes a queue: its consumers come to an end.
///
/// New calls for it are refused with RAFTZ_CLOSED, and events of nodes are not put into it any more. Calls
/// under way go on, and what they end with can be taken as before. Once all of that is taken,
/// raftz_queue_next() returns RAFTZ_CLOSED instead of waiting, in every thread, and raftz_queue_fd() stays
/// readable. Closing a closed queue is nothing.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param queue The queue.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_queue_close(
    queue: *mut raftz_queue,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let queue = unsafe { borrow(queue.cast_const(), "queue") }?.shared()?;
        let mut state = queue.state.lock();
        if !std::mem::replace(&mut state.closed, true) {
            queue.tell_end(&state);
        }
        Ok(())
    })
}

/// \brief Frees a queue and what is in it. Calls under way go on; how they end is not told any more.
///
/// Threads: any, once, with no other call on the queue under way or to come: raftz_queue_close() ends those
/// who take from it. Inside callbacks: yes. Blocks: no.
///
/// \param queue The queue, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_queue_free(queue: *mut raftz_queue) {
    value((), || {
        // SAFETY: the caller's contract: NULL, or a queue that is C's own.
        let Some(queue) = (unsafe { crate::guard::take_back(queue) }) else { return Ok(()) };
        if queue.shared.mark.is_child() {
            // A thread of the parent may have held its lock when the process was forked.
            std::mem::forget(queue);
            return Ok(());
        }
        let waiting = {
            let mut state = queue.shared.state.lock();
            (state.closed, state.freed) = (true, true);
            let empty = Backlog::with_bounds(0, 0);
            let waiting = std::mem::replace(&mut state.waiting, empty);
            queue.shared.tell_end(&state);
            waiting
        };
        drop(waiting);
        Ok(())
    });
}

/// \brief What an event says.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param event The event.
/// \param info [in,out] Set its `size` to `sizeof(raftz_event_info)`; the rest is filled. What it points to
///        lives as long as the event.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_event_get(
    event: *const raftz_event,
    info: *mut raftz_event_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let event = unsafe { borrow(event, "event") }?;
        // SAFETY: the caller's contract.
        unsafe { Place::new(info, "info")?.put(&event.info) };
        Ok(())
    })
}

/// \brief Frees an event.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param event The event, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_event_free(event: *mut raftz_event) {
    // SAFETY: the caller's contract: NULL, or an event that is C's own.
    unsafe { free(event) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::events::{RAFTZ_EVENT_NONSENSE, RAFTZ_EVENT_ROLE};

    #[test]
    fn what_replaces_each_other_waits_once_and_what_is_dropped_is_told() {
        let mut pointer = std::ptr::null_mut();
        let opts = raftz_queue_opts {
            size: std::mem::size_of::<raftz_queue_opts>(),
            calls_max: 0,
            events_max: 2,
        };
        // SAFETY: places of this function's own.
        let status =
            unsafe { raftz_queue_new(&raw const opts, &raw mut pointer, std::ptr::null_mut()) };
        assert_eq!(status, 0);
        // SAFETY: the queue was made just now, and is nobody else's.
        let queue = unsafe { Box::from_raw(pointer) };
        let told = |kind, key, node, term| {
            let mut info = raftz_event_info::of_kind(kind, 1, node);
            info.term = term;
            queue.shared.push_event(Told { key, info, text: String::new() });
        };
        for term in 1..=9 {
            told(RAFTZ_EVENT_NONSENSE, None, 1, term);
            told(RAFTZ_EVENT_ROLE, Some(EventKey::Role), 1, term);
            told(RAFTZ_EVENT_ROLE, Some(EventKey::Role), 2, term);
        }
        let mut state = queue.shared.state.lock();
        assert_eq!((state.dropped, state.events), (7, 2));
        let rest = std::iter::from_fn(|| queue.shared.take(&mut state));
        let rest: Vec<[u64; 4]> = rest
            .map(|it| [it.info.kind.into(), it.info.node_id, it.info.term, it.info.count])
            .collect();
        let [nonsense, role, dropped] =
            [RAFTZ_EVENT_NONSENSE, RAFTZ_EVENT_ROLE, RAFTZ_EVENT_DROPPED].map(u64::from);
        let wanted = [
            [nonsense, 1, 1, 0],
            [nonsense, 1, 2, 0],
            [dropped, 0, 0, 7],
            [role, 1, 9, 0],
            [role, 2, 9, 0],
        ];
        assert_eq!(rest, wanted);
        assert_eq!(state.events, 0);
    }
}
