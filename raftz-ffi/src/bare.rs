//! The bare core: the algorithm alone, for programs that own the event loop. It has no thread, clock, file or socket.
//!
//! What crosses is in `input` and `action`: messages, records and entries are bytes with checksums that nobody but the
//! library looks into. `start` founds a core or begins with what the program's disk held; `driver` stands between C and
//! [`Raft`](::raftz_core::raft::Raft) and refuses answers to nothing.

pub mod action;
pub mod input;
pub mod start;

mod driver;

use ::raftz_core::types::{Now, SANE_MAX};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use action::{Shown, raftz_core_action};
use driver::Driver;
use input::raftz_core_input;
use start::{Start, raftz_core_opts};

use crate::bytes::raftz_bytes;
use crate::config::raftz_config;
use crate::error::{Failure, raftz_error};
use crate::guard::{Call, Out, borrow, call, free, invalid, null};
use crate::sized::{self, Place, Sized};
use crate::status::{RAFTZ_BUSY, RAFTZ_PANIC, RAFTZ_THREAD, raftz_status};

/// \brief One member's part in the consensus of its cluster, as an object that does nothing by itself: a program tells
/// it what happened, one input at a time, and it answers with actions for the program to carry out.
///
/// It has no thread, reads no clock, and touches no file and no socket. The same inputs at the same times give the same
/// actions, so that whole clusters can be run in one thread and in any order.
///
/// What the program owes it:
///
/// - RAFTZ_ACTION_PERSIST is carried out in order: a later write is never on the disk without an earlier one, and each is
///   there whole or not at all. RAFTZ_INPUT_PERSISTED is said only when a power cut cannot take the write back, and
///   RAFTZ_INPUT_SNAPSHOT_KEPT only when it cannot take the snapshot. Safety rests on that. Nothing else that comes of a step
///   has to wait for its writes: what must, the core keeps back.
/// - RAFTZ_ACTION_APPLY and RAFTZ_ACTION_RESTORE are answered when they are done.
/// - RAFTZ_INPUT_TICK comes when raftz_core_next_deadline() says so, soon enough.
/// - Messages that arrive are from whom the program says. They may be lost, doubled or overtaken.
/// - Of one disk there is one core, also among processes. After a restart it begins with all that the disk holds; one whose
///   disk is lost does not come back under its old id.
///
/// Threads: one at a time. A call beside another one on the same core is refused with RAFTZ_BUSY.
pub struct raftz_core(Mutex<State>);

struct State {
    driver: Driver,
    /// What C has of the last step.
    shown: Shown,
    /// A step failed inside, or is doing so.
    is_broken: bool,
}

impl raftz_core {
    /// The core, for one call.
    fn enter(&self) -> Call<MutexGuard<'_, State>> {
        let Some(state) = self.0.try_lock() else {
            let words = "another thread is in a call on this core; one at a time";
            return Err(Failure::new(RAFTZ_BUSY, words));
        };
        if state.is_broken {
            let words =
                "an earlier step failed inside; free this core and begin with what the disk holds";
            return Err(Failure::new(RAFTZ_PANIC, words));
        }
        Ok(state)
    }
}

impl State {
    /// Runs a step; one that does not end well leaves the core broken.
    fn step(&mut self, step: impl FnOnce(&mut Driver) -> Call<Shown>) -> Call {
        self.is_broken = true;
        let stepped = step(&mut self.driver);
        self.is_broken = stepped.as_ref().is_err_and(|failure| failure.status == RAFTZ_PANIC);
        self.shown = stepped?;
        Ok(())
    }
}

/// \brief How a core is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_core_info {
    /// \brief Set it to `sizeof(raftz_core_info)`.
    pub size: usize,
    /// \brief The node.
    pub node_id: u64,
    /// \brief Names its disk. Peers are told it when a link comes up.
    pub disk_id: [u8; 16],
    /// \brief Its life: how many cores have begun with this disk. Peers are told it, too.
    pub boot: u64,
    /// \brief Its term.
    pub term: u64,
    /// \brief Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// \brief The leader that it knows; 0 for none.
    pub leader_id: u64,
    /// \brief RAFTZ_ROLE_…
    pub role: u32,
    /// \brief 1 if it leads and has committed an entry of its own term.
    pub is_ready: u32,
    /// \brief 1 once its first write is durable; before that it takes nothing else.
    pub is_open: u32,
    /// \brief 1 once it has halted.
    pub is_halted: u32,
    /// \brief 1 if its log begins behind what its machine holds, for a snapshot was lost. It applies nothing until
    /// RAFTZ_INPUT_SNAPSHOT_KEPT brings another one, which any peer may have.
    pub lacks_snapshot: u32,
    /// \brief 0.
    pub reserved: u32,
    /// \brief Its log begins after this index.
    pub base_index: u64,
    /// \brief Index of its last entry.
    pub last_index: u64,
    /// \brief Term of its last entry.
    pub last_term: u64,
    /// \brief Everything up to here is on its disk.
    pub durable_index: u64,
    /// \brief Everything up to here is known to be committed.
    pub commit_index: u64,
    /// \brief Everything up to here is applied to its machine.
    pub applied_index: u64,
    /// \brief First entry that its disk has lost and the leader has not yet replaced; 0 for none.
    pub damaged_from: u64,
    /// \brief Whom it is handing its leadership to; 0 for nobody.
    pub transfer_to: u64,
    /// \brief Largest command that the cluster has agreed on.
    pub entry_bytes_max: u64,
}

// SAFETY: integers alone.
unsafe impl Sized for raftz_core_info {
    const NAME: &'static str = "raftz_core_info";
}

/// A moment as C gives it.
fn now(boot_us: u64, wall_us: u64) -> Call<Now> {
    if boot_us > SANE_MAX || wall_us > SANE_MAX {
        return Err(invalid(format!("boot_us = {boot_us} or wall_us = {wall_us} is no real time")));
    }
    Ok(Now { boot_us, wall_us })
}

/// Where the actions of a step go.
struct ActionsOut(Out<*const raftz_core_action>, Out<usize>);

impl ActionsOut {
    fn new(actions: *mut *const raftz_core_action, count: *mut usize) -> Call<Self> {
        Ok(Self(Out::new(actions, "actions")?, Out::new(count, "count")?))
    }

    /// # Safety
    /// Both places were valid for writing.
    unsafe fn put(self, shown: &Shown) {
        let actions = shown.actions();
        // SAFETY: the caller's contract.
        unsafe {
            self.0.put(actions.as_ptr());
            self.1.put(actions.len());
        }
    }
}

/// \brief Makes a core: one that goes on with what a disk held, or, with RAFTZ_CORE_FOUNDS, a founder of a new cluster.
///
/// The actions begin with a RAFTZ_ACTION_PERSIST, of the record of this life. Until RAFTZ_INPUT_PERSISTED has said that it
/// is durable, the core takes nothing else: RAFTZ_BUSY.
///
/// If entries are missing, or were changed, the core begins without them, tells so by RAFTZ_EVENT_STORAGE_TROUBLE, and does
/// not stand for election until the leader has given them to it anew. If the record was, or if the node is alone in its
/// cluster, it does not begin.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param config Of this the core takes `node_id`, `cluster_id`, `founders`, `seed`, the timeouts of elections, heartbeats
///        and disks, `election_priority`, `lease_reads` and `lease_drift_percent`, `entry_bytes_max`, and the bounds of
///        appends, windows, uncommitted and unapplied entries, memory and what is applied at once. Copied.
/// \param opts What it begins with. Copied.
/// \param boot_us The present time: microseconds of a clock that never goes back and does not stand still while the
///        machine sleeps (CLOCK_BOOTTIME), or virtual ones.
/// \param wall_us The present time by the wall clock, in microseconds since 1970. Decides nothing; the cluster's clock leans
///        towards it.
/// \param core [out] The core, to be freed with raftz_core_free().
/// \param actions [out] What is to be done first. They live until the next raftz_core_step() of the core that succeeds, or
///        its end.
/// \param count [out] How many.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_CONFIG, RAFTZ_STORAGE (what the disk held is of no use), RAFTZ_THREAD (the system gave no
///         randomness), RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_ABI_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_core_new(
    config: *const raftz_config,
    opts: *const raftz_core_opts,
    boot_us: u64,
    wall_us: u64,
    core: *mut *mut raftz_core,
    actions: *mut *const raftz_core_action,
    count: *mut usize,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let (out, places) = (Out::new(core, "core")?, ActionsOut::new(actions, count)?);
        // SAFETY: the caller's contract.
        let (config, opts) =
            unsafe { (borrow(config, "config")?, sized::read(opts)?.ok_or_else(|| null("opts"))?) };
        let now = now(boot_us, wall_us)?;
        // SAFETY: the caller's contract.
        let start = unsafe { Start::new(&config.config, &opts) }?;
        let seed = config.config.seed.map_or_else(drawn_seed, Ok)?;
        let (driver, shown) = Driver::new(start, now, seed)?;
        // SAFETY: the caller's contract. The actions point to the heap, where moving the core does not reach.
        unsafe {
            places.put(&shown);
            out.give(raftz_core(Mutex::new(State { driver, shown, is_broken: false })));
        }
        Ok(())
    })
}

fn drawn_seed() -> Call<u64> {
    let drawn = crate::storage::store::random();
    drawn.map(|bits| bits as u64).map_err(|error| Failure::new(RAFTZ_THREAD, error.to_string()))
}

/// \brief Tells a core what happened, and gives what is to be done about it.
///
/// Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
///
/// \param core The core.
/// \param boot_us The present time, as for raftz_core_new(). One before the last is taken for the last.
/// \param wall_us The present time by the wall clock.
/// \param input What happened. It and what it points to are read during the call.
/// \param actions [out] What is to be done. The actions, and all that they point to, live until the next raftz_core_step() of
///        this core that succeeds, or its end.
/// \param count [out] How many.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK. With any other status but RAFTZ_PANIC nothing has changed: RAFTZ_BAD_MESSAGE (the message came garbled:
///         drop it), RAFTZ_UNSUPPORTED (a kind of input or message that this version does not know), RAFTZ_INVALID_ARG (an
///         answer to what was not asked, an id of 0), RAFTZ_STORAGE (a snapshot's base that was changed), RAFTZ_NULL_ARG,
///         RAFTZ_BUSY (the first write is not durable, too many reads are open, or another thread is in a call).
///         RAFTZ_PANIC: the core is of no more use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_core_step(
    core: *mut raftz_core,
    boot_us: u64,
    wall_us: u64,
    input: *const raftz_core_input,
    actions: *mut *const raftz_core_action,
    count: *mut usize,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let places = ActionsOut::new(actions, count)?;
        // SAFETY: the caller's contract.
        let (core, input) =
            unsafe { (borrow(core.cast_const(), "core")?, borrow(input, "input")?) };
        let now = now(boot_us, wall_us)?;
        let mut state = core.enter()?;
        // SAFETY: the caller's contract.
        let input = unsafe { input::taken(input) }?;
        state.step(|driver| driver.step(now, input))?;
        // SAFETY: the caller's contract.
        unsafe { places.put(&state.shown) };
        Ok(())
    })
}

/// \brief When a core wants RAFTZ_INPUT_TICK. May change with every step.
///
/// Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
///
/// \param core The core.
/// \param deadline_us [out] The time, by the clock of `boot_us`; UINT64_MAX for never. It may have passed.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BUSY or RAFTZ_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_core_next_deadline(
    core: *const raftz_core,
    deadline_us: *mut u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(deadline_us, "deadline_us")?;
        // SAFETY: the caller's contract.
        let state = unsafe { borrow(core, "core") }?.enter()?;
        // SAFETY: the caller's contract.
        unsafe { out.put(state.driver.next_deadline().unwrap_or(u64::MAX)) };
        Ok(())
    })
}

/// \brief How a core is.
///
/// Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
///
/// \param core The core.
/// \param info [in,out] Set its `size` to `sizeof(raftz_core_info)`; the rest is filled.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BUSY or RAFTZ_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_core_status(
    core: *const raftz_core,
    info: *mut raftz_core_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let out = unsafe { Place::new(info, "info") }?;
        // SAFETY: the caller's contract.
        let state = unsafe { borrow(core, "core") }?.enter()?;
        let seen = state.driver.info(out.size);
        // SAFETY: the caller's contract.
        unsafe { out.put(&seen) };
        Ok(())
    })
}

/// \brief A hash of everything that a core's future depends on, with times relative to now: of two cores of one history with
/// equal fingerprints the same inputs make the same. Left out is randomness that is still to be drawn.
///
/// Compare it within one build of the library.
///
/// Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
///
/// \param core The core.
/// \param fingerprint [out] The hash.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BUSY or RAFTZ_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_core_fingerprint(
    core: *const raftz_core,
    fingerprint: *mut u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(fingerprint, "fingerprint")?;
        // SAFETY: the caller's contract.
        let state = unsafe { borrow(core, "core") }?.enter()?;
        // SAFETY: the caller's contract.
        unsafe { out.put(state.driver.fingerprint()) };
        Ok(())
    })
}

/// \brief What stands in the log's place behind a snapshot of the state machine: to be kept with the snapshot, sent with it,
/// and given back with RAFTZ_INPUT_SNAPSHOT_KEPT. Bytes with a checksum.
///
/// A snapshot that a program takes is named by the entry that it ends with, of which RAFTZ_ACTION_APPLY told index, term and
/// log time, by its length, and by a hash of the program's choice.
///
/// Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
///
/// \param core The core.
/// \param index The last entry that the snapshot covers: one that is applied and still in the log.
/// \param log_time_us The log time of the last command up to there; 0 if that is not known.
/// \param term [out] The term of that entry, for the snapshot's name.
/// \param base [out] The bytes, to be freed with raftz_bytes_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BUSY or RAFTZ_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_core_snapshot_base(
    core: *const raftz_core,
    index: u64,
    log_time_us: u64,
    term: *mut u64,
    base: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let (term_out, out) = (Out::new(term, "term")?, Out::new(base, "base")?);
        // SAFETY: the caller's contract.
        let state = unsafe { borrow(core, "core") }?.enter()?;
        let (term, bytes) = state.driver.snapshot_base(index, log_time_us)?;
        // SAFETY: the caller's contract.
        unsafe {
            term_out.put(term);
            out.give(raftz_bytes(Bytes::from(bytes)));
        }
        Ok(())
    })
}

/// \brief Frees a core, and its last actions.
///
/// Threads: any, once, and no other call beside or after it. Inside callbacks: yes. Blocks: no.
///
/// \param core The core, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_core_free(core: *mut raftz_core) {
    // SAFETY: the caller's contract: NULL, or a core that is C's own.
    unsafe { free(core) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use ::raftz_core::node::Config;
    use ::raftz_core::raft::Input;
    use ::raftz_core::types::{Boot, ClusterId, NodeId, OpId};

    use super::*;
    use crate::bytes::raftz_slice;
    use crate::status::{RAFTZ_INVALID_ARG, RAFTZ_OK};
    use crate::version::RAFTZ_ABI_VERSION;

    fn core() -> raftz_core {
        let node = NodeId::new(1).unwrap();
        let config = Config::new(node, ClusterId(1)).with_founder(node, "h:1");
        let opts = raftz_core_opts {
            size: std::mem::size_of::<raftz_core_opts>(),
            abi_version: RAFTZ_ABI_VERSION,
            flags: start::RAFTZ_CORE_FOUNDS,
            disk_id: [1; 16],
            record: raftz_slice { data: std::ptr::null(), len: 0 },
            entries: std::ptr::null(),
            entry_count: 0,
            snapshot: std::ptr::null(),
            machine_applied: 0,
        };
        // SAFETY: the options point to nothing.
        let start = unsafe { Start::new(&config, &opts) }.unwrap();
        let (driver, shown) = Driver::new(start, Now::default(), 1).unwrap();
        raftz_core(Mutex::new(State { driver, shown, is_broken: false }))
    }

    fn step(core: &raftz_core, step: impl FnOnce(&mut Driver) -> Call<Shown>) -> raftz_status {
        call(std::ptr::null_mut(), || core.enter()?.step(step))
    }

    fn persisted(driver: &mut Driver, seq: u64) -> Call<Shown> {
        driver.step(Now::default(), Input::Persisted { op: OpId { boot: Boot(1), seq } })
    }

    #[test]
    fn a_panic_in_a_step_ends_the_core_and_a_refusal_does_not() {
        let core = core();
        assert_eq!(step(&core, |driver| persisted(driver, 9)), RAFTZ_INVALID_ARG);
        assert_eq!(step(&core, |driver| persisted(driver, 1)), RAFTZ_OK);
        assert_eq!(step(&core, |_| std::panic::panic_any("on purpose")), RAFTZ_PANIC);
        assert_eq!(step(&core, |driver| persisted(driver, 1)), RAFTZ_PANIC);
    }

    #[test]
    fn a_call_beside_another_is_refused() {
        let core = core();
        let inside = core.enter().unwrap();
        assert_eq!(core.enter().err().map(|failure| failure.status), Some(RAFTZ_BUSY));
        drop(inside);
        assert!(core.enter().is_ok());
    }
}
