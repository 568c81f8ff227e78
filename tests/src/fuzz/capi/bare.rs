//! A bare core: driven as a program should, with what is wrong in between. Its disk is [`Kept`], in two states: what was
//! written, and what of that the core was told is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ptr::{null, null_mut};

use raftz::bare::action::*;
use raftz::bare::input::*;
use raftz::bare::start::*;
use raftz::bare::*;
use raftz::bytes::*;
use raftz::config::*;
use raftz::events::RAFTZ_ROLE_LEADER;
use raftz::status::*;
use raftz::version::RAFTZ_ABI_VERSION;

use super::judge::{
    Given, NUMBER, Versioned, bytes, call, filling, judged, number_after, shown, slice,
};
use super::ops::{good, new_config};
use super::store::{Kept, keep};
use super::world::{World, c};
use crate::fuzz::tape::Tape;

/// Messages that are remembered, to be given back to their sender.
const SENT_MAX: usize = 8;
/// Deadlines that pass until a core that is alone has done what it can.
const DEADLINES_MAX: usize = 200;

pub(super) struct Bare {
    /// NULL between two lives.
    core: *mut raftz_core,
    config: *mut raftz_config,
    is_alone: bool,
    /// Nobody has lied to it, and its disk has neither failed nor lost anything.
    is_sound: bool,
    now_us: u64,
    written: Kept,
    durable: Kept,
    snapshot: Option<(raftz_snapshot_id, Vec<u8>)>,
    /// What was given to be applied, in all lives.
    applied: BTreeMap<u64, Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    life: Life,
}

/// What a core was asked, and asks for, from its beginning.
#[derive(Default)]
struct Life {
    boot: u64,
    /// The last write, and the last one of which it was told.
    issued: u64,
    told: u64,
    /// The last entry that was given to be applied.
    applied: u64,
    /// What is not yet answered.
    to_apply: Option<(u64, u64)>,
    to_read: VecDeque<raftz_action_read_entries>,
    to_restore: Option<raftz_snapshot_id>,
    proposed: BTreeMap<u64, Vec<u8>>,
    accepted: BTreeMap<u64, (u64, Vec<u8>)>,
    reads: BTreeSet<u64>,
    transfers: BTreeSet<u64>,
    is_halted: bool,
}

const fn of_kind(kind: u32) -> raftz_core_input {
    raftz_core_input { kind, reserved: 0, with: raftz_core_input_with { reserved: [0; 12] } }
}

fn same_id(one: &raftz_snapshot_id, other: &raftz_snapshot_id) -> bool {
    let all = |it: &raftz_snapshot_id| (it.term, it.index, it.bytes, it.hash);
    all(one) == all(other)
}

/// # Safety
/// So many, which live as long as they are used.
unsafe fn all<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// A place for actions: written on success only.
struct Places(*const raftz_core_action, usize);

impl Places {
    fn new() -> Self {
        Self(filling::<raftz_core_action>().cast_const(), usize::MAX)
    }

    /// What was given. It lives until the next step.
    fn after<'a>(self, status: raftz_status) -> &'a [raftz_core_action] {
        let is_written =
            (self.0 != filling::<raftz_core_action>().cast_const(), self.1 != usize::MAX);
        let is_ok = status == RAFTZ_OK;
        assert_eq!(is_written, (is_ok, is_ok), "actions beside {}", shown(status));
        // SAFETY: the library gave them.
        if is_ok { unsafe { all(self.0, self.1) } } else { &[] }
    }
}

// ---- operations ----

/// A core begins: a founder, or the one that there is, anew, with what its disk holds.
pub(super) fn core_new(world: &mut World, tape: &mut Tape<'_>) {
    let (is_alone, keeps_all) = (tape.below(3) < 2, tape.flag());
    let mut bare = world.bare.take().unwrap_or_else(|| Bare::new(is_alone));
    bare.end_life();
    if keeps_all {
        bare.durable = bare.written.clone();
    } else {
        bare.written = bare.durable.clone();
    }
    bare.begin(tape);
    world.bare = Some(bare);
}

pub(super) fn core_step(world: &mut World, tape: &mut Tape<'_>) {
    let what = tape.below(16);
    let Some(mut bare) = world.bare.take().filter(|it| !it.core.is_null()) else {
        let mut places = Places::new();
        let input = of_kind(RAFTZ_INPUT_TICK);
        let status = judged(tape, "raftz_core_step", 0, |error| {
            call!(raftz_core_step(
                null_mut(),
                1,
                1,
                &raw const input,
                &raw mut places.0,
                &raw mut places.1,
                error
            ))
        });
        assert_eq!(status, RAFTZ_NULL_ARG);
        places.after(status);
        return;
    };
    bare.now_us += 1000;
    bare.told(what, world, tape);
    world.bare = Some(bare);
}

pub(super) fn core_look(world: &mut World, tape: &mut Tape<'_>) {
    let is_null = tape.byte() >= 250;
    let core = world.bare.as_ref().filter(|_| !is_null).map_or(null_mut(), |it| it.core);
    let mut number = NUMBER;
    let status = judged(tape, "raftz_core_next_deadline", 0, |error| {
        call!(raftz_core_next_deadline(core, &raw mut number, error))
    });
    number_after(number, status);
    let mut number = NUMBER;
    let status = judged(tape, "raftz_core_fingerprint", 0, |error| {
        call!(raftz_core_fingerprint(core, &raw mut number, error))
    });
    number_after(number, status);
    let mut place = Versioned::<raftz_core_info>::place(tape);
    let into = place.pointer();
    let status =
        judged(tape, "raftz_core_status", 0, |error| call!(raftz_core_status(core, into, error)));
    place.after(status);
    let (mut given, mut term, index) = (Given::new(), NUMBER, tape.number());
    let status = judged(tape, "raftz_core_snapshot_base", 0, |error| {
        call!(raftz_core_snapshot_base(core, index, 0, &raw mut term, given.place(), error))
    });
    number_after(term, status);
    call!(raftz_bytes_free(given.after(status).unwrap_or(null_mut())));
}

pub(super) fn core_free(world: &mut World, _tape: &mut Tape<'_>) {
    match &mut world.bare {
        Some(bare) => bare.end_life(),
        None => call!(raftz_core_free(null_mut())),
    }
}

impl Bare {
    fn new(is_alone: bool) -> Self {
        let zeros = &mut Tape::new(&[]);
        let addresses: Vec<String> = (1..=if is_alone { 1 } else { 3 })
            .map(|id| format!("127.0.0.1:{}", 7000 + id))
            .collect();
        let config = new_config(zeros, 1, &addresses);
        good(zeros, "raftz_config_set_number", |error| {
            call!(raftz_config_set_number(config, c(c"seed"), 7, error))
        });
        Self {
            core: null_mut(),
            config,
            is_alone,
            is_sound: true,
            now_us: 1_000_000,
            written: Kept::default(),
            durable: Kept::default(),
            snapshot: None,
            applied: BTreeMap::new(),
            sent: VecDeque::new(),
            life: Life::default(),
        }
    }

    fn end_life(&mut self) {
        call!(raftz_core_free(std::mem::replace(&mut self.core, null_mut())));
    }

    fn begin(&mut self, tape: &mut Tape<'_>) {
        let mut record = self.written.record.clone();
        let mut entries: Vec<raftz_slice> =
            self.written.entries.values().map(|it| slice(it)).collect();
        let snapshot =
            self.snapshot.as_ref().map(|(id, base)| raftz_snapshot { id: *id, base: slice(base) });
        let founds = if record.is_empty() { RAFTZ_CORE_FOUNDS } else { 0 };
        let (mut flags, mut abi_version, mut machine_applied) = (founds, RAFTZ_ABI_VERSION, 0);
        let wrong = tape.byte();
        match wrong {
            240 => flags = 8,
            241 => flags ^= RAFTZ_CORE_FOUNDS,
            242 => abi_version = [0, 99][tape.below(2)],
            243 => machine_applied = 5,
            244 => record.iter_mut().skip(9).take(1).for_each(|byte| *byte ^= 1),
            245 => drop(entries.pop()),
            246 => entries.push(slice(b"no entry")),
            247 => entries.push(raftz_slice { data: null(), len: 1 }),
            _ => {}
        }
        let opts = raftz_core_opts {
            size: 0,
            abi_version,
            flags,
            disk_id: [7; 16],
            record: slice(&record),
            entries: entries.as_ptr(),
            entry_count: entries.len(),
            snapshot: snapshot.as_ref().map_or(null(), |it| it),
            machine_applied,
        };
        let mut opts = Versioned::given(tape, opts);
        let is_whole = opts.is_seen(std::mem::offset_of!(raftz_core_opts, snapshot));
        let (config, mut places, now_us) = (self.config, Places::new(), self.now_us);
        let mut given = Given::new();
        let status = judged(tape, "raftz_core_new", 0, |error| {
            call!(raftz_core_new(
                config,
                opts.pointer(),
                now_us,
                now_us,
                given.place(),
                &raw mut places.0,
                &raw mut places.1,
                error
            ))
        });
        let actions = places.after(status);
        let is_right = !(240..248).contains(&wrong) && is_whole;
        assert!(status == RAFTZ_OK || !is_right || !self.is_sound, "a good core does not begin");
        let Some(core) = given.after(status) else { return };
        self.core = core;
        self.is_sound &= is_right;
        let applied = self.snapshot.as_ref().map_or(0, |(id, _)| id.index);
        self.life = Life { applied, ..Life::default() };
        assert_eq!(actions.first().map(|it| it.kind), Some(RAFTZ_ACTION_PERSIST));
        self.carry_out(actions);
    }

    // ---- what it is asked ----

    fn info(&self) -> raftz_core_info {
        let mut place = Versioned::<raftz_core_info>::place(&mut Tape::new(&[]));
        let (core, into) = (self.core, place.pointer());
        let status = judged(&mut Tape::new(&[]), "raftz_core_status", 0, |error| {
            call!(raftz_core_status(core, into, error))
        });
        let info = place.after(status).expect("a core says how it is");
        assert_eq!(info.is_halted == 1, self.life.is_halted, "{info:?}");
        assert!(info.commit_index <= info.last_index || !self.is_sound, "{info:?}");
        assert!(info.applied_index <= info.commit_index, "{info:?}");
        info
    }

    fn number(
        &self,
        name: &'static str,
        ask: unsafe extern "C" fn(
            *const raftz_core,
            *mut u64,
            *mut *mut raftz::error::raftz_error,
        ) -> raftz_status,
    ) -> u64 {
        let mut number = NUMBER;
        let status = judged(&mut Tape::new(&[]), name, 0, |error| {
            // SAFETY: a core that was given and not freed, and a place that is there.
            unsafe { ask(self.core, &raw mut number, error) }
        });
        number_after(number, status).expect("a core says so")
    }

    // ---- what it is told ----

    /// One step. What is refused changes nothing.
    fn give(&mut self, tape: &mut Tape<'_>, input: &raftz_core_input) -> raftz_status {
        let (core, now_us, mut places) = (self.core, self.now_us, Places::new());
        let before = self.number("raftz_core_fingerprint", raftz_core_fingerprint);
        let status = judged(tape, "raftz_core_step", 0, |error| {
            call!(raftz_core_step(
                core,
                now_us,
                now_us,
                input,
                &raw mut places.0,
                &raw mut places.1,
                error
            ))
        });
        let actions = places.after(status);
        if status == RAFTZ_OK {
            self.carry_out(actions);
        } else {
            let after = self.number("raftz_core_fingerprint", raftz_core_fingerprint);
            assert_eq!(before, after, "{} of input {} changed the core", shown(status), input.kind);
        }
        status
    }

    /// What happens to it. Zeros are what a program does.
    fn told(&mut self, what: usize, world: &mut World, tape: &mut Tape<'_>) {
        let mut input = of_kind(RAFTZ_INPUT_TICK);
        match what {
            0 => {
                self.answer(tape);
                return;
            }
            1 => return self.pass_time(tape),
            2 => return self.propose(world, tape),
            3 => {
                let request = world.number();
                input.kind = RAFTZ_INPUT_READ;
                let by_lease = u32::from(tape.flag());
                input.with.read = raftz_input_read { request, by_lease, reserved: 0 };
                self.life.reads.insert(request);
                if self.give(tape, &input) != RAFTZ_OK {
                    self.life.reads.remove(&request);
                }
                return;
            }
            4 => input.kind = RAFTZ_INPUT_CAMPAIGN,
            5 => {
                let (token, target_id) = (world.number(), [0, 2, 1, 9][tape.below(4)]);
                let (deadline_us, steps_down) = (self.now_us + 100_000, u32::from(tape.flag()));
                input.kind = RAFTZ_INPUT_TRANSFER;
                input.with.transfer =
                    raftz_input_transfer { token, target_id, deadline_us, steps_down, reserved: 0 };
                self.life.transfers.insert(token);
                if self.give(tape, &input) != RAFTZ_OK {
                    self.life.transfers.remove(&token);
                }
                return;
            }
            6 => return self.snapshot(tape),
            7 => {
                input.kind = RAFTZ_INPUT_COMPACT;
                input.with.index = [u64::MAX, 0, self.life.applied][tape.below(3)];
            }
            8 => {
                input.kind = RAFTZ_INPUT_STORAGE_FULL;
                input.with.is_full = u32::from(!tape.flag());
            }
            9 => {
                input.kind = [RAFTZ_INPUT_LINK_UP, RAFTZ_INPUT_LINK_DOWN][tape.below(2)];
                let (peer_id, boot, disk) = (tape.number(), tape.number(), tape.byte());
                let link_up = raftz_input_link_up { peer_id, boot, disk_id: [disk; 16] };
                input.with.link_up = link_up;
            }
            10 => input.kind = RAFTZ_INPUT_FORGET_LEADER,
            11 => {
                input.kind = RAFTZ_INPUT_SNAPSHOT_LOST;
                input.with.snapshot_id = self.snapshot.take().map_or(
                    raftz_snapshot_id { term: 1, index: 1, bytes: 1, hash: [0; 32] },
                    |(id, _)| id,
                );
                self.is_sound = false;
            }
            12 => return self.lie(tape),
            13 => {
                input.kind = RAFTZ_INPUT_PERSIST_FAILED;
                input.with.reason = slice(b"the disk is gone");
                self.is_sound = false;
            }
            _ => return self.wrong(tape),
        }
        self.give(tape, &input);
    }

    /// Answers one thing that it waits for; whether there was any.
    fn answer(&mut self, tape: &mut Tape<'_>) -> bool {
        let is_partial = tape.flag();
        let Life { boot, issued, told, .. } = self.life;
        if told < issued {
            self.durable = self.written.clone();
            self.life.told = issued;
            let mut input = of_kind(RAFTZ_INPUT_PERSISTED);
            input.with.persisted = raftz_input_persisted { boot, number: issued };
            assert_eq!(self.give(tape, &input), RAFTZ_OK);
            return true;
        }
        if let Some(read) = self.life.to_read.pop_front() {
            let written = self.written.clone();
            let mut left = read.bytes_max;
            let mut entries = Vec::new();
            for (_, entry) in written.entries.range(read.first..=read.last) {
                if !entries.is_empty() && entry.len() as u64 > left {
                    break;
                }
                left = left.saturating_sub(entry.len() as u64);
                entries.push(slice(entry));
            }
            let mut input = of_kind(RAFTZ_INPUT_ENTRIES_READ);
            let is_there = !entries.is_empty();
            input.with.entries_read = raftz_input_entries_read {
                request: read.request,
                status: if is_there { RAFTZ_OK } else { RAFTZ_STORAGE },
                reserved: 0,
                entries: entries.as_ptr(),
                entry_count: entries.len(),
                reason: slice(b"there are none"),
            };
            assert_eq!(self.give(tape, &input), RAFTZ_OK);
            return true;
        }
        if let Some((first, last)) = self.life.to_apply.take() {
            let upto = if is_partial { first } else { last };
            self.life.to_apply = (upto < last).then_some((upto + 1, last));
            let mut input = of_kind(RAFTZ_INPUT_APPLIED);
            input.with.index = upto;
            assert_eq!(self.give(tape, &input), RAFTZ_OK, "{first} to {last}");
            return true;
        }
        if let Some(id) = self.life.to_restore.take() {
            self.life.applied = id.index;
            let mut input = of_kind(RAFTZ_INPUT_RESTORED);
            input.with.snapshot_id = id;
            assert_eq!(self.give(tape, &input), RAFTZ_OK);
            return true;
        }
        false
    }

    fn pass_time(&mut self, tape: &mut Tape<'_>) {
        let deadline = self.number("raftz_core_next_deadline", raftz_core_next_deadline);
        if deadline < u64::MAX {
            self.now_us = self.now_us.max(deadline);
        }
        self.give(tape, &of_kind(RAFTZ_INPUT_TICK));
    }

    /// Each is answered in the same step.
    fn propose(&mut self, world: &mut World, tape: &mut Tape<'_>) {
        let count = [1, 3, 0][tape.below(3)];
        for _ in 0..count {
            self.life.proposed.insert(world.number(), world.write(None, tape).command);
        }
        let proposed = self.life.proposed.clone();
        let proposals: Vec<raftz_proposal> = proposed
            .iter()
            .map(|(token, command)| raftz_proposal { token: *token, command: slice(command) })
            .collect();
        let mut input = of_kind(RAFTZ_INPUT_PROPOSE);
        let (proposals, proposal_count) = (proposals.as_ptr(), proposals.len());
        input.with.propose = raftz_input_propose { proposals, proposal_count };
        if self.give(tape, &input) == RAFTZ_OK {
            let left = self.life.proposed.len();
            assert_eq!(left, 0, "commands that were neither accepted nor refused");
        }
        self.life.proposed.clear();
    }

    /// The machine's snapshot, of all that is applied.
    fn snapshot(&mut self, tape: &mut Tape<'_>) {
        let info = self.info();
        let (core, index) = (self.core, info.applied_index);
        let (mut given, mut term) = (Given::new(), NUMBER);
        let status = judged(tape, "raftz_core_snapshot_base", 0, |error| {
            call!(raftz_core_snapshot_base(core, index, 0, &raw mut term, given.place(), error))
        });
        assert!(status == RAFTZ_OK || index <= info.base_index, "no base of {index}: {info:?}");
        number_after(term, status);
        let Some(base) = given.after(status) else { return };
        // SAFETY: it lives.
        let encoded = unsafe { bytes(call!(raftz_bytes_slice(base))) };
        call!(raftz_bytes_free(base));
        let id = raftz_snapshot_id { term, index, bytes: 8 * index, hash: [index as u8; 32] };
        let mut input = of_kind(RAFTZ_INPUT_SNAPSHOT_KEPT);
        input.with.snapshot = raftz_snapshot { id, base: slice(&encoded) };
        if self.give(tape, &input) == RAFTZ_OK {
            self.snapshot = Some((id, encoded));
        }
    }

    /// A message of its own comes as somebody else's, whole or not.
    fn lie(&mut self, tape: &mut Tape<'_>) {
        let (at, damage, from) = (usize::from(tape.byte()), tape.byte(), 2 + tape.below(2) as u64);
        let mut message = match self.sent.len() {
            0 => b"nothing was ever sent".to_vec(),
            sent => self.sent[at % sent].clone(),
        };
        let is_damaged = damage > 0 || self.sent.is_empty();
        if damage > 0 {
            let at = usize::from(damage) % message.len();
            message[at] ^= 1;
        }
        let mut input = of_kind(RAFTZ_INPUT_RECEIVE);
        input.with.receive = raftz_input_receive { from, message: slice(&message) };
        self.is_sound &= is_damaged;
        let status = self.give(tape, &input);
        assert!(!is_damaged || status != RAFTZ_OK, "a message that was changed is taken");
    }

    /// What is to be refused.
    fn wrong(&mut self, tape: &mut Tape<'_>) {
        let nothing = raftz_slice { data: null(), len: 1 };
        let mut input = of_kind(RAFTZ_INPUT_TICK);
        let wanted = match tape.below(15) {
            0 => {
                input.kind = [0, 99, u32::MAX][tape.below(3)];
                RAFTZ_UNSUPPORTED
            }
            1 => {
                input.reserved = 1;
                RAFTZ_INVALID_ARG
            }
            2 => {
                input.kind = [RAFTZ_INPUT_LINK_UP, RAFTZ_INPUT_LINK_DOWN][tape.below(2)];
                RAFTZ_INVALID_ARG
            }
            3 => {
                input.kind = RAFTZ_INPUT_RECEIVE;
                RAFTZ_INVALID_ARG
            }
            4 => {
                input.kind = RAFTZ_INPUT_RECEIVE;
                input.with.receive = raftz_input_receive { from: 2, message: nothing };
                RAFTZ_NULL_ARG
            }
            5 => {
                input.kind = RAFTZ_INPUT_PROPOSE;
                input.with.propose = raftz_input_propose { proposals: null(), proposal_count: 1 };
                RAFTZ_NULL_ARG
            }
            6 => {
                let number = [u64::MAX, 0, self.life.issued + 1][tape.below(3)];
                input.kind = RAFTZ_INPUT_PERSISTED;
                input.with.persisted = raftz_input_persisted { boot: self.life.boot, number };
                RAFTZ_INVALID_ARG
            }
            7 => {
                input.kind = RAFTZ_INPUT_APPLIED;
                input.with.index = [u64::MAX, 0][tape.below(2)];
                RAFTZ_INVALID_ARG
            }
            8 => {
                input.kind = RAFTZ_INPUT_ENTRIES_READ;
                input.with.entries_read = raftz_input_entries_read {
                    request: 1,
                    status: RAFTZ_OK,
                    reserved: 0,
                    entries: if tape.flag() { &raw const nothing } else { null() },
                    entry_count: 1,
                    reason: slice(b""),
                };
                RAFTZ_NULL_ARG
            }
            9 => {
                input.kind = RAFTZ_INPUT_SNAPSHOT_KEPT;
                RAFTZ_STORAGE
            }
            10 => {
                let request = self.life.reads.first().copied().unwrap_or(1);
                input.kind = RAFTZ_INPUT_READ;
                input.with.read = raftz_input_read { request, by_lease: 0, reserved: 0 };
                if self.life.reads.is_empty() {
                    return;
                }
                RAFTZ_INVALID_ARG
            }
            // One of another life is nothing, and so is what nobody asked for.
            11 => {
                let boot = self.life.boot + 1;
                input.kind = RAFTZ_INPUT_PERSISTED;
                input.with.persisted = raftz_input_persisted { boot, number: 1 };
                RAFTZ_OK
            }
            12 => {
                input.kind = RAFTZ_INPUT_RESTORED;
                RAFTZ_OK
            }
            13 => {
                let now_us = std::mem::replace(&mut self.now_us, u64::MAX);
                assert_eq!(self.give(tape, &input), RAFTZ_INVALID_ARG, "no time");
                self.now_us = now_us;
                return;
            }
            // One before the last is taken for the last.
            _ => {
                self.now_us = self.now_us.saturating_sub(500_000);
                RAFTZ_OK
            }
        };
        let status = self.give(tape, &input);
        let is_early = status == RAFTZ_BUSY && self.life.told == 0;
        assert!(status == wanted || is_early, "{}, not {}", shown(status), shown(wanted));
    }

    // ---- what it wants done ----

    fn carry_out(&mut self, actions: &[raftz_core_action]) {
        for action in actions {
            assert_eq!(action.reserved, 0);
            // SAFETY: of each kind what goes with it, which lives until the next step.
            unsafe { self.carry_out_one(action) };
        }
    }

    /// # Safety
    /// An action of the last step.
    unsafe fn carry_out_one(&mut self, action: &raftz_core_action) {
        let with = &action.with;
        // SAFETY: the caller's contract.
        unsafe {
            match action.kind {
                RAFTZ_ACTION_PERSIST => {
                    let raftz_action_persist { boot, number, write } = with.persist;
                    let life = &mut self.life;
                    assert_eq!(number, life.issued + 1, "writes are counted");
                    assert!(life.issued == 0 || boot == life.boot, "a write of another life");
                    (life.boot, life.issued) = (boot, number);
                    keep(&mut self.written, &*write);
                }
                RAFTZ_ACTION_SEND => {
                    assert_ne!(with.send.to, 1, "a message to itself");
                    self.sent.push_front(bytes(with.send.message));
                    self.sent.truncate(SENT_MAX);
                }
                RAFTZ_ACTION_READ_ENTRIES => self.life.to_read.push_back(with.read_entries),
                RAFTZ_ACTION_APPLY => self.apply(&with.apply),
                RAFTZ_ACTION_RESTORE => {
                    let kept = self.snapshot.as_ref();
                    assert!(kept.is_some_and(|(id, _)| same_id(id, &with.snapshot_id)));
                    self.life.to_restore = Some(with.snapshot_id);
                }
                RAFTZ_ACTION_ACCEPTED => {
                    let raftz_action_accepted { first, term, tokens, token_count } = with.accepted;
                    for (index, token) in (first..).zip(all(tokens, token_count)) {
                        let command = self.life.proposed.remove(token).expect("its token");
                        self.life.accepted.insert(index, (term, command));
                    }
                }
                RAFTZ_ACTION_REFUSED => {
                    let refused = with.refused;
                    assert_ne!(refused.status, RAFTZ_OK);
                    assert!(
                        String::from_utf8(bytes(refused.message)).is_ok_and(|it| !it.is_empty())
                    );
                    for token in all(refused.tokens, refused.token_count) {
                        self.life.proposed.remove(token).expect("its token");
                    }
                }
                RAFTZ_ACTION_MAY_READ => {
                    assert!(self.life.reads.remove(&with.may_read.request), "a read of nobody");
                }
                RAFTZ_ACTION_MAY_NOT_READ => {
                    assert!(self.life.reads.remove(&with.request), "a read of nobody");
                }
                RAFTZ_ACTION_TRANSFER_ENDED => {
                    let ended = with.transfer_ended;
                    assert!(self.life.transfers.remove(&ended.token), "a transfer of nobody");
                    assert_eq!(bytes(ended.message).is_empty(), ended.status == RAFTZ_OK);
                }
                RAFTZ_ACTION_EVENT => {
                    let event = &*with.event;
                    assert_eq!(event.node_id, 1);
                    assert!(String::from_utf8(bytes(event.text)).is_ok());
                }
                RAFTZ_ACTION_HALT => {
                    let reason = String::from_utf8(bytes(with.reason)).expect("words");
                    assert!(!self.is_sound, "a sound core halts: {reason}");
                    self.life.is_halted = true;
                }
                RAFTZ_ACTION_FETCH => assert!(!self.is_sound, "a snapshot of nobody"),
                other => panic!("an action {other}, of no kind"),
            }
        }
    }

    /// Commands come in order, once in a life, and the same ones in each.
    ///
    /// # Safety
    /// An action of the last step.
    unsafe fn apply(&mut self, apply: &raftz_action_apply) {
        assert!(self.life.to_apply.is_none(), "entries beside others that are to be applied");
        assert_eq!(apply.first, self.life.applied + 1, "entries in their order");
        assert!(apply.first <= apply.last);
        let mut next = apply.first;
        // SAFETY: the caller's contract.
        for command in unsafe { all(apply.commands, apply.command_count) } {
            // SAFETY: as above.
            let data = unsafe { bytes(command.data) };
            assert!((next..=apply.last).contains(&command.index), "commands in their order");
            next = command.index + 1;
            let accepted = self.life.accepted.get(&command.index);
            if let Some((_, own)) = accepted.filter(|(term, _)| *term == command.term) {
                assert_eq!(own, &data, "another command than was accepted");
            }
            let known = self.applied.entry(command.index).or_insert_with(|| data.clone());
            assert!(*known == data || !self.is_sound, "another command than in an earlier life");
        }
        self.life.applied = apply.last;
        self.life.to_apply = Some((apply.first, apply.last));
    }

    // ---- its end ----

    /// A core that is alone, and to which nothing was done, leads, and has applied what it accepted.
    pub(super) fn end(mut self) {
        let zeros = &mut Tape::new(&[]);
        if !self.core.is_null() {
            for _ in 0..DEADLINES_MAX {
                while self.answer(zeros) {}
                let info = self.info();
                if info.is_ready == 1 || !self.is_alone || info.is_halted == 1 {
                    break;
                }
                self.pass_time(zeros);
            }
            if self.is_alone && self.is_sound {
                self.has_kept_its_word();
            }
        }
        self.end_life();
        call!(raftz_config_free(self.config));
    }

    fn has_kept_its_word(&self) {
        let (info, life) = (self.info(), &self.life);
        assert_eq!((info.role, info.is_ready), (RAFTZ_ROLE_LEADER, 1), "{info:?}");
        assert_eq!(info.commit_index, info.last_index, "{info:?}");
        assert_eq!(life.applied, info.commit_index, "{info:?}");
        assert!(life.reads.is_empty() && life.transfers.is_empty(), "what was never answered");
        for (index, (_, command)) in &life.accepted {
            assert_eq!(self.applied.get(index), Some(command), "an accepted command, at {index}");
        }
        let last = self.applied.last_key_value().map_or(0, |(index, _)| *index);
        assert!(last <= life.applied, "what an earlier life applied is lost: {info:?}");
    }
}
