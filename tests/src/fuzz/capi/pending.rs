//! Calls that end later: how often each has, and with what.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use raftz::propose::*;
use raftz::queue::*;
use raftz::status::*;
use raftz::storage::raftz_storage_conformance;

use super::judge::{bytes, call, complain, documented, lock, reached, shown};
use super::machine::is_rejected;
use super::store::Disk;

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Read,
    Transfer,
}

/// A write of a cluster whose promises are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) command: Vec<u8>,
    /// Of the key-value store: the key, which nothing else writes, and its value.
    pub(super) pair: Option<(Vec<u8>, Vec<u8>)>,
}

/// Writes that were acknowledged, and the index of each.
pub(super) type Acknowledged = Arc<Mutex<Vec<(u64, Write)>>>;

/// A call. Its address is its user data; the world keeps it until nothing runs any more.
pub(super) struct Pending {
    kind: Kind,
    count: usize,
    /// Where its end is told: by a function of ours, or in a queue, which may go before.
    pub(super) is_queued: bool,
    begun: AtomicU32,
    ended: AtomicU32,
    writes: Vec<Write>,
    acknowledged: Option<Acknowledged>,
    /// A queue that lives as long, and an empty store: in a callback nothing may wait.
    inside: (usize, Arc<Disk>),
}

impl Pending {
    pub(super) fn new(
        kind: Kind,
        count: usize,
        is_queued: bool,
        tracked: Option<(Vec<Write>, Acknowledged)>,
        inside: (usize, Arc<Disk>),
    ) -> Arc<Self> {
        let (writes, acknowledged) = tracked.unzip();
        let (begun, ended) = (AtomicU32::new(0), AtomicU32::new(0));
        let writes = writes.unwrap_or_default();
        Arc::new(Self { kind, count, is_queued, begun, ended, writes, acknowledged, inside })
    }

    pub(super) fn user_data(self: &Arc<Self>) -> *mut c_void {
        Arc::as_ptr(self).cast_mut().cast()
    }

    pub(super) fn times_ended(&self) -> u32 {
        self.ended.load(SeqCst)
    }

    /// It has ended. Once that is counted nothing is looked at any more: the world may go.
    fn end(&self, outcomes: &[raftz_outcome]) {
        if self.begun.fetch_add(1, SeqCst) > 0 {
            complain(format!("a call of {:?} has ended twice", self.kind));
        }
        if outcomes.len() != self.count {
            complain(format!("{} outcomes of {}", outcomes.len(), self.count));
        }
        for (at, outcome) in outcomes.iter().enumerate() {
            if let Err(what) = self.look(at, outcome) {
                complain(format!("{what}: {:?} of {:?}", shown(outcome.status), self.kind));
            }
        }
        self.ended.fetch_add(1, SeqCst);
    }

    fn look(&self, at: usize, outcome: &raftz_outcome) -> Result<(), String> {
        let hold = |what: &str, holds: bool| if holds { Ok(()) } else { Err(what.to_owned()) };
        let is_done = outcome.status == RAFTZ_OK;
        // SAFETY: both live until the end was told.
        let (reply, message) = unsafe { (bytes(outcome.reply), bytes(outcome.message)) };
        hold("a name", shown(outcome.status) != "RAFTZ_?")?;
        hold("words exactly if not done", is_done == message.is_empty())?;
        hold("UTF-8", String::from_utf8(message).is_ok())?;
        hold("an answer only if done", is_done || reply.is_empty())?;
        hold("an index exactly of a write that is done", {
            (outcome.index > 0) == (is_done && self.kind == Kind::Write)
        })?;
        let is_unknown = call!(raftz_status_is_outcome_unknown(outcome.status));
        let says_unknown = outcome.flags & RAFTZ_OUTCOME_UNKNOWN != 0;
        let is_write = self.kind == Kind::Write;
        hold("unknown alike", is_unknown == says_unknown)?;
        hold("unknown only of writes", is_write || !is_unknown)?;
        hold("reserved", outcome.reserved == [0, 0])?;
        hold("a leader", self.kind != Kind::Transfer || !is_done || outcome.leader_id > 0)?;
        let (Some(write), Some(acknowledged)) = (self.writes.get(at), &self.acknowledged) else {
            return Ok(());
        };
        let says_rejected = outcome.flags & RAFTZ_OUTCOME_REJECTED != 0;
        if is_done && write.pair.is_none() {
            hold("the machine's answer", reply == write.command)?;
            hold("the machine's verdict", says_rejected == is_rejected(&write.command))?;
        }
        if is_done {
            lock(acknowledged).push((outcome.index, write.clone()));
        }
        Ok(())
    }

    /// What waits is refused here, and what does not is not.
    fn is_inside(&self) {
        let (queue, disk) = &self.inside;
        let queue = std::ptr::with_exposed_provenance_mut::<raftz_queue>(*queue);
        let (mut event, error) = (std::ptr::null_mut(), std::ptr::null_mut());
        for (timeout_ms, wanted) in [(1000, RAFTZ_IN_CALLBACK), (0, RAFTZ_EMPTY)] {
            let status = call!(raftz_queue_next(queue, timeout_ms, &raw mut event, error));
            if status != wanted {
                complain(format!("raftz_queue_next inside a callback: {}", shown(status)));
            }
        }
        let table = disk.table(0);
        let status = call!(raftz_storage_conformance(&raw const table, std::ptr::null(), error));
        documented("raftz_storage_conformance", status);
        if status != RAFTZ_IN_CALLBACK {
            complain(format!("raftz_storage_conformance inside a callback: {}", shown(status)));
        }
    }
}

fn pending<'a>(user_data: *mut c_void) -> &'a Pending {
    // SAFETY: the world keeps every call until nothing runs any more.
    unsafe { &*user_data.cast_const().cast::<Pending>() }
}

/// # Safety
/// So many outcomes, which live as long as they are used.
unsafe fn all<'a>(outcomes: *const raftz_outcome, count: usize) -> &'a [raftz_outcome] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(outcomes, count) }
}

pub(super) unsafe extern "C" fn on_done(user_data: *mut c_void, outcome: *const raftz_outcome) {
    pending(user_data).is_inside();
    // SAFETY: it lives until this returns.
    pending(user_data).end(unsafe { all(outcome, 1) });
}

pub(super) unsafe extern "C" fn on_batch(
    user_data: *mut c_void,
    outcomes: *const raftz_outcome,
    count: usize,
) {
    // SAFETY: they live until this returns.
    pending(user_data).end(unsafe { all(outcomes, count) });
}

/// The end of a call that was taken from a queue.
pub(super) fn taken(user_data: *mut c_void, outcomes: *const raftz_outcome, count: usize) {
    reached("raftz_event_get", true);
    // SAFETY: they live as long as the event.
    pending(user_data).end(unsafe { all(outcomes, count) });
}
