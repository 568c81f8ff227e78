//! The node's threads: how they start, what they are marked with, and how their end is awaited.
//!
//! Every thread has a name, blocks all signals (they belong to the host program's own threads),
//! and logs under the dispatcher that was current when the node started. A mark in the thread says
//! which callback it is running, so that a blocking call from inside can be refused.
#![allow(clippy::disallowed_methods, reason = "the one place where the runtime starts threads")]

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::signal::{SigSet, SigmaskHow};
use parking_lot::{Condvar, Mutex};

use super::clock;
use super::error::NodeError;
use super::intake::Intake;

thread_local! {
    static INSIDE: Cell<Option<&'static str>> = const { Cell::new(None) };
    static ON_LOOP: Cell<bool> = const { Cell::new(false) };
    /// The inbox of the node whose completions run here, as a mere number.
    static COMPLETES_FOR: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as the one where the completions of the node with this inbox run.
pub(crate) fn mark_as_completing_for(intake: &Intake) {
    COMPLETES_FOR.set(std::ptr::from_ref(intake).addr());
}

/// Whether the completions of the node with this inbox run on this thread.
pub(crate) fn completes_for(intake: &Intake) -> bool {
    COMPLETES_FOR.get() == std::ptr::from_ref(intake).addr()
}

/// What this thread must not wait in, or `None` for a thread that is free to wait.
pub(crate) fn inside() -> Option<&'static str> {
    INSIDE.get().or_else(|| on_loop().then_some("the event loop"))
}

/// Whether this thread is some node's event loop.
pub(crate) fn on_loop() -> bool {
    ON_LOOP.get()
}

/// Marks this thread as an event loop for the rest of its life.
pub(crate) fn mark_as_loop() {
    ON_LOOP.set(true);
}

/// Runs `f` with this thread marked as being inside `what`.
pub(crate) fn run_inside<T>(what: &'static str, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<&'static str>);
    impl Drop for Restore {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let _restore = Restore(INSIDE.replace(Some(what)));
    f()
}

/// How long a thread looks for what it waits for before it sleeps, and what it takes for a short wait: about two
/// syncs of a common disk, so that the members of a busy group stay awake while it writes.
const AWAKE_US: u64 = 600;
/// After so many short waits in a row the next one is expected to be short.
const BRISK_WAITS: u32 = 4;
/// Who works longer than this between two waits loses little by sleeping, and others need the processor.
const BUSY_US: u64 = 50;
/// How long it looks where something is expected for another reason.
const LINGER_US: u64 = 40;

/// A thread's way of waiting. To fall asleep and to be woken takes tens of microseconds: a thread whose waits
/// have all been short lately looks for a moment whether this one is over, too, and gives way to others
/// meanwhile. One that has just waited long, as all of a node have that is idle or lightly used, sleeps at once.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    short_waits: u32,
    begun_us: u64,
    ended_us: u64,
}

impl Waiting {
    /// To be called before a wait by a thread that computes between its waits.
    pub(crate) fn has_computed(&mut self) {
        if clock::boot_us().saturating_sub(self.ended_us) > BUSY_US {
            self.short_waits = 0;
        }
    }

    /// Begins a wait; for a little while also where it `expects` that something comes.
    pub(crate) fn begin(&mut self, expects: impl Fn() -> bool, mut is_over: impl FnMut() -> bool) {
        self.begun_us = clock::boot_us();
        let is_brisk = self.short_waits >= BRISK_WAITS;
        let is_worth_it = |waited_us: u64| {
            (is_brisk && waited_us < AWAKE_US) || (waited_us < LINGER_US && expects())
        };
        while is_worth_it(self.waited_us()) && !is_over() {
            std::thread::yield_now();
        }
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.ended_us = clock::boot_us();
        let is_short = self.ended_us.saturating_sub(self.begun_us) < AWAKE_US;
        self.short_waits = if is_short { self.short_waits.saturating_add(1) } else { 0 };
    }

    fn waited_us(&self) -> u64 {
        clock::boot_us().saturating_sub(self.begun_us)
    }
}

/// What a panic carried, in words.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without text".to_owned()
    }
}

/// Runs `f`, turning a panic into its text.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    // What `f` touched is never used again by a caller that gets the error, so that a broken
    // invariant inside it cannot be observed.
    std::panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let text = panic_text(payload.as_ref());
        // The payload's destructor is a user's code as well. What even that panics with is leaked:
        // dropping it could go on like this for ever.
        let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
        if let Err(another) = dropped {
            std::mem::forget(another);
        }
        text
    })
}

/// The threads of one node.
#[derive(Debug)]
pub(crate) struct Threads {
    prefix: String,
    running: Arc<Running>,
    handles: Mutex<Vec<JoinHandle<()>>>,
    dispatch: tracing::Dispatch,
}

#[derive(Debug, Default)]
struct Running {
    names: Mutex<Vec<String>>,
    ended: Condvar,
}

/// Takes the thread off the list when it ends, however it ends.
struct EndMark {
    running: Arc<Running>,
    name: String,
}

impl Drop for EndMark {
    fn drop(&mut self) {
        let mut names = self.running.names.lock();
        if let Some(at) = names.iter().position(|name| *name == self.name) {
            names.swap_remove(at);
        }
        self.running.ended.notify_all();
    }
}

impl Threads {
    /// No threads yet; the present dispatcher becomes theirs.
    pub(crate) fn new(prefix: String) -> Self {
        Self {
            prefix,
            running: Arc::new(Running::default()),
            handles: Mutex::new(Vec::new()),
            dispatch: tracing::dispatcher::get_default(Clone::clone),
        }
    }

    /// Starts a thread called `prefix-role`.
    pub(crate) fn spawn(
        &self,
        role: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), NodeError> {
        let name = format!("{}-{role}", self.prefix);
        let failed = |detail: String| NodeError::Thread { name: name.clone(), detail };
        // A thread inherits its maker's mask. Blocking here, not in the new thread, leaves no
        // moment in which a signal could be delivered to it.
        let before = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(|errno| failed(format!("signals cannot be blocked: {errno}")))?;
        let mark = EndMark { running: Arc::clone(&self.running), name: name.clone() };
        self.running.names.lock().push(name.clone());
        let dispatch = self.dispatch.clone();
        let spawned = std::thread::Builder::new().name(name.clone()).spawn(move || {
            let _mark = mark;
            // Goes before the mark does: a subscriber's end belongs to the thread's life.
            let dispatch = dispatch;
            // Each role reports its own panics where they matter; this is the last net, so that
            // none reaches the process.
            let _ = guarded(|| tracing::dispatcher::with_default(&dispatch, body));
        });
        let restored = before.thread_set_mask();
        let handle = spawned.map_err(|error| failed(error.to_string()))?;
        self.handles.lock().push(handle);
        restored.map_err(|errno| failed(format!("the signal mask cannot be restored: {errno}")))
    }

    /// Waits until every thread has ended, at the latest until `deadline_us`; then names those
    /// that have not.
    pub(crate) fn join_until(&self, deadline_us: u64) -> Result<(), Vec<String>> {
        let mut names = self.running.names.lock();
        while !names.is_empty() {
            let left = clock::left_until(deadline_us);
            if left.is_zero() {
                let mut left_over = names.clone();
                left_over.sort();
                return Err(left_over);
            }
            self.running.ended.wait_for(&mut names, left);
        }
        drop(names);
        for handle in self.handles.lock().drain(..) {
            // The thread is past its last line, so this does not block; its panic, if any, was
            // reported by the role.
            let _ = handle.join();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::time::Duration;

    fn soon() -> u64 {
        clock::deadline_us(Duration::from_secs(10))
    }

    #[test]
    fn whose_waits_are_all_short_looks_again_before_sleeping() {
        let mut waiting = Waiting::default();
        let looks = |waiting: &mut Waiting, expects: bool| {
            let mut looks = 0;
            let is_over = || {
                looks += 1;
                false
            };
            waiting.begin(|| expects, is_over);
            looks
        };
        for _ in 0..BRISK_WAITS {
            assert_eq!(looks(&mut waiting, false), 0);
            // However late this thread runs again.
            waiting.begun_us = clock::boot_us() + 1_000_000;
            waiting.end();
        }
        waiting.ended_us = clock::boot_us() + 1_000_000;
        waiting.has_computed();
        assert!(looks(&mut waiting, false) > 0);
        let mut busy = Waiting {
            ended_us: clock::boot_us() - 2 * BUSY_US,
            short_waits: BRISK_WAITS,
            begun_us: 0,
        };
        busy.has_computed();
        assert_eq!(looks(&mut busy, false), 0, "it has much to do at a time");
        waiting.begun_us = clock::boot_us() - AWAKE_US;
        waiting.end();
        assert_eq!(looks(&mut waiting, false), 0, "one long wait is enough");
        assert!(looks(&mut waiting, true) > 0, "something is about to come");
    }

    #[test]
    fn threads_block_all_signals_and_leave_the_makers_mask_alone() {
        let before = SigSet::thread_get_mask().unwrap();
        let threads = Threads::new("t".into());
        let seen = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&seen);
        threads
            .spawn("mask", move || *shared.lock() = Some(SigSet::thread_get_mask().unwrap()))
            .unwrap();
        threads.join_until(soon()).unwrap();
        let mask = seen.lock().take().unwrap();
        assert!(mask.contains(nix::sys::signal::Signal::SIGTERM));
        assert!(mask.contains(nix::sys::signal::Signal::SIGUSR1));
        assert_eq!(before, SigSet::thread_get_mask().unwrap());
    }

    #[test]
    fn a_thread_that_does_not_end_is_named() {
        let threads = Threads::new("t".into());
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = Arc::clone(&gate);
        threads
            .spawn("stuck", move || {
                let mut open = theirs.0.lock();
                while !*open {
                    theirs.1.wait(&mut open);
                }
            })
            .unwrap();
        threads.spawn("dead", || panic!("on purpose")).unwrap();
        let left = threads.join_until(clock::deadline_us(Duration::from_millis(20)));
        assert!(left.unwrap_err().contains(&"t-stuck".to_owned()));
        *gate.0.lock() = true;
        gate.1.notify_all();
        threads.join_until(soon()).unwrap();
    }

    #[test]
    fn a_panic_whose_payload_panics_when_it_is_dropped_goes_no_further() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("on purpose, again");
            }
        }
        let ran = guarded(|| std::panic::panic_any(Bomb));
        assert_eq!(ran, Err("a panic without text".to_owned()));
    }

    #[test]
    fn the_mark_of_a_callback_ends_with_it_even_by_panic() {
        assert_eq!(inside(), None);
        let _ = guarded(|| run_inside("a test", || panic!("{:?}", inside())));
        assert_eq!(inside(), None);
        run_inside("outer", || {
            run_inside("inner", || assert_eq!(inside(), Some("inner")));
            assert_eq!(inside(), Some("outer"));
        });
    }
}
