//! What stands between C and the core: writes become records and entries, everything that C was asked for is
//! remembered until it is answered, and an answer to nothing is refused before the core hears of it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use raftz_core::raft::{Action, Input, Raft};
use raftz_core::types::{
    Boot, DiskId, Entry, Event, Index, NodeId, Now, OpId, Role, SANE_MAX, Term,
};

use super::action::Shown;
use super::raftz_core_info;
use super::start::Start;
use crate::error::Failure;
use crate::events::role_number;
use crate::guard::{Call, invalid};
use crate::status::{RAFTZ_BUSY, RAFTZ_PANIC};
use crate::storage::kept::{self, Change, Log};

/// Requests of this bit are the driver's own: it reads what is to be applied and is no longer in memory.
const OWN_REQUEST: u64 = 1 << 63;
/// Most reads that may be open.
const READS_MAX: usize = 65_536;
/// The number of the first write: the record of this life. Those of the core come behind it.
const OPENING: u64 = 1;

/// The number that C knows a write of the core's by.
pub(super) const fn number_of(id: OpId) -> u64 {
    id.seq.saturating_add(OPENING)
}

/// A range that the core wants applied, from the first entry that is not.
#[derive(Clone, Copy, Debug)]
struct Applying {
    first: Index,
    last: Index,
    /// What C has: to be applied up to here, or to be read under this request.
    asked: Asked,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Apply(Index),
    Read(u64),
}

/// One core behind C.
pub(super) struct Driver {
    raft: Raft,
    /// What the disk holds once everything that was shown is written.
    log: Log,
    disk: DiskId,
    boot: Boot,
    /// The first write is durable.
    is_open: bool,
    is_halted: bool,
    /// The last write that was shown.
    issued: u64,
    applying: Option<Applying>,
    apply_bytes_max: u64,
    requests: u64,
    /// Reads that are not answered, all asked in one term.
    reads: BTreeSet<u64>,
    reads_term: Term,
}

impl Driver {
    /// A core, and its first write.
    pub(super) fn new(start: Start, now: Now, seed: u64) -> Call<(Self, Shown)> {
        let Start { config, recovered, log } = start;
        let mut shown = Shown::default();
        let record = log.kept.encode().map_err(broken)?;
        shown.write((recovered.boot.0, OPENING), record, Change::default());
        for note in &recovered.notes {
            let detail = note.clone();
            shown.event(config.id, &Event::StorageTrouble { detail });
        }
        let apply_bytes_max = config.apply_bytes_max;
        let raft = Raft::new(config, &recovered, now, seed);
        let driver = Self {
            raft,
            log,
            disk: recovered.identity.disk,
            boot: recovered.boot,
            is_open: false,
            is_halted: false,
            issued: OPENING,
            applying: None,
            apply_bytes_max,
            requests: 0,
            reads: BTreeSet::new(),
            reads_term: Term::ZERO,
        };
        Ok((driver, shown))
    }

    /// When it wants to be woken.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.raft.next_deadline().filter(|_| self.is_open)
    }

    /// A hash of everything that its future depends on; see [`Raft::fingerprint`].
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let applying = self.applying.map(|Applying { first, last, asked }| match asked {
            Asked::Apply(upto) => (first, last, Some(upto)),
            // What the request is called makes no difference.
            Asked::Read(_) => (first, last, None),
        });
        (self.raft.fingerprint(), self.is_open, applying).hash(&mut hasher);
        hasher.finish()
    }

    /// What stands in the log's place behind a snapshot that ends at `index`, and that entry's term.
    pub(super) fn snapshot_base(&self, index: u64, log_time_us: u64) -> Call<(u64, Vec<u8>)> {
        let base = self.raft.base_at(Index(index), log_time_us.min(SANE_MAX));
        let base = base.filter(|base| base.id.index > Index::ZERO).ok_or_else(|| {
            let (from, upto) = (self.raft.base().index, self.raft.applied());
            invalid(format!("index is {index}; what is applied and in the log: {from} to {upto}"))
        })?;
        Ok((base.id.term.0, kept::encode_base(&base).map_err(broken)?))
    }

    /// How it is.
    pub(super) fn info(&self, size: usize) -> raftz_core_info {
        let status = self.raft.status();
        let id = |node: Option<NodeId>| node.map_or(0, NodeId::get);
        raftz_core_info {
            size,
            node_id: self.raft.id().get(),
            disk_id: self.disk.0.to_be_bytes(),
            boot: self.boot.0,
            term: status.term.0,
            vote: id(status.vote),
            leader_id: id(status.leader),
            role: role_number(status.role),
            is_ready: u32::from(status.ready),
            is_open: u32::from(self.is_open),
            is_halted: u32::from(self.is_halted),
            lacks_snapshot: u32::from(self.raft.lacks_snapshot()),
            reserved: 0,
            base_index: status.base.index.0,
            last_index: status.last.index.0,
            last_term: status.last.term.0,
            durable_index: status.durable.0,
            commit_index: status.commit.0,
            applied_index: status.applied.0,
            damaged_from: status.damage.map_or(0, |damage| damage.first_faulty.0),
            transfer_to: id(status.transfer),
            entry_bytes_max: status.settings.entry_bytes_max,
        }
    }

    /// Takes one input. An error but [`RAFTZ_PANIC`] has changed nothing.
    pub(super) fn step(&mut self, now: Now, input: Input) -> Call<Shown> {
        let Some(input) = self.checked(input)? else { return Ok(Shown::default()) };
        let (own, input) = self.with_own_part(input);
        let mut actions = Vec::new();
        self.raft.step(now, input, &mut actions);
        let actions: Vec<Action> = actions.into_iter().map(|action| self.noted(action)).collect();
        let mut shown = Shown::default();
        for action in own.into_iter().chain(actions) {
            shown.show(action, self.raft.id(), &mut self.log).map_err(broken)?;
        }
        let leads = self.raft.role() == Role::Leader && self.raft.term() == self.reads_term;
        if self.is_halted || !leads {
            // Nobody will say any more.
            std::mem::take(&mut self.reads).into_iter().for_each(|it| shown.may_not_read(it));
        }
        Ok(shown)
    }

    /// Refuses what answers nothing, and gives what the core is to be told, if anything.
    fn checked(&mut self, input: Input) -> Call<Option<Input>> {
        if let Input::Persisted { op } = input {
            return self.persisted(op);
        }
        if !self.is_open && !matches!(input, Input::PersistFailed { .. }) {
            let words = "the core's first write is not durable yet; write it, and say so with RAFTZ_INPUT_PERSISTED before anything else";
            return Err(Failure::new(RAFTZ_BUSY, words));
        }
        if let Input::Applied { index } = input {
            self.check_applied(index)?;
        }
        if let Input::Read { request, .. } = input {
            if self.reads.contains(&request) {
                return Err(invalid(format!("read.request {request} is open already")));
            }
            if self.reads.len() == READS_MAX {
                let words = format!("{READS_MAX} reads are open; wait until some are answered");
                return Err(Failure::new(RAFTZ_BUSY, words));
            }
            self.reads.insert(request);
            self.reads_term = self.raft.term();
        }
        Ok(Some(input))
    }

    /// Completions of another life are nothing; numbers count the record of this life as well.
    fn persisted(&mut self, op: OpId) -> Call<Option<Input>> {
        if op.boot != self.boot {
            return Ok(None);
        }
        if op.seq == 0 || op.seq > self.issued {
            let (number, issued) = (op.seq, self.issued);
            return Err(invalid(format!(
                "persisted.number is {number}; writes 1 to {issued} were given"
            )));
        }
        self.is_open = true;
        Ok(Some(Input::Persisted { op: OpId { seq: op.seq - OPENING, ..op } }))
    }

    fn check_applied(&self, index: Index) -> Call {
        let words = match self.applying {
            Some(Applying { first, asked: Asked::Apply(upto), .. }) => {
                if first <= index && index <= upto {
                    return Ok(());
                }
                format!("{first} to {upto}")
            }
            Some(Applying { asked: Asked::Read(_), .. }) | None => "none".to_owned(),
        };
        Err(invalid(format!("index is {index}; entries that are to be applied: {words}")))
    }

    /// What of an input is the driver's own business: an action, and what the core is told.
    fn with_own_part(&mut self, input: Input) -> (Option<Action>, Input) {
        if let Input::Applied { index } = input {
            return (self.applied(index), input);
        }
        if let Input::EntriesRead { request, result } = input {
            if request & OWN_REQUEST != 0 {
                return self.read_to_apply(request, result);
            }
            return (None, Input::EntriesRead { request, result });
        }
        (None, input)
    }

    /// So much is applied. What is left of the range is read next.
    fn applied(&mut self, index: Index) -> Option<Action> {
        let mut range = self.applying.take().filter(|range| index < range.last)?;
        range.first = index.next();
        self.applying = Some(range);
        let is_through = matches!(range.asked, Asked::Apply(upto) if upto == index);
        (is_through && !self.is_halted).then(|| self.ask_to_read(range.first, range.last))
    }

    fn ask_to_read(&mut self, first: Index, last: Index) -> Action {
        self.requests += 1;
        let request = OWN_REQUEST | self.requests;
        self.applying = Some(Applying { first, last, asked: Asked::Read(request) });
        Action::ReadEntries { request, first, last, bytes_max: self.apply_bytes_max }
    }

    /// What is to be applied was read. Without it this node can go on as little as one that cannot write.
    fn read_to_apply(
        &mut self,
        request: u64,
        result: Result<Vec<Entry>, String>,
    ) -> (Option<Action>, Input) {
        let asked = |it: &Applying| matches!(it.asked, Asked::Read(wanted) if wanted == request);
        let Some(range) = self.applying.filter(asked) else { return (None, Input::Tick) };
        let Applying { first, last, .. } = range;
        let indexes = (first.0..=last.0).map(Index);
        let is_wanted = |(entry, index): (&Entry, Index)| {
            entry.index == index && self.raft.term_at(index) == Some(entry.term)
        };
        let entries = result.and_then(|mut entries| {
            // What comes behind one that is not wanted is asked for again.
            entries.truncate(entries.iter().zip(indexes).take_while(|it| is_wanted(*it)).count());
            if entries.is_empty() {
                Err("the program's log gave others".to_owned())
            } else {
                Ok(entries)
            }
        });
        match entries {
            Ok(entries) => {
                let last = entries.last().map_or(last, |entry| entry.index);
                self.applying = Some(Applying { asked: Asked::Apply(last), ..range });
                (Some(Action::Apply { first, last, entries: entries.into() }), Input::Tick)
            }
            Err(words) => {
                let reason = format!("entries from {first} are to be applied: {words}");
                (None, Input::PersistFailed { reason })
            }
        }
    }

    /// Remembers what C is asked for, and asks for entries that are to be applied and are not in memory.
    fn noted(&mut self, action: Action) -> Action {
        if let Action::Apply { first, last, entries } = &action {
            let (first, last) = (*first, *last);
            if entries.is_empty() {
                return self.ask_to_read(first, last);
            }
            self.applying = Some(Applying { first, last, asked: Asked::Apply(last) });
        }
        if let Action::Persist(op) = &action {
            self.issued = number_of(op.id);
        }
        if let Action::MayRead { request, .. } | Action::MayNotRead { request } = action {
            self.reads.remove(&request);
        }
        self.is_halted |= matches!(action, Action::Halt(_));
        action
    }
}

/// A bug of ours: the core's state and the disk's do not agree any more.
fn broken(words: String) -> Failure {
    Failure::new(RAFTZ_PANIC, format!("raftz failed inside: {words}; please report this"))
}
