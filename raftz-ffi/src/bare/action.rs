//! Actions out: what a core wants done, as C sees it.

use bytes::Bytes;
use raftz_core::node::NodeError;
use raftz_core::raft::Action;
use raftz_core::transport::codec;
use raftz_core::types::{
    Entries, EntryKind, Event, GroupId, Index, Message, NodeId, SnapshotId, Token, TransferFailure,
    WriteOp,
};

use super::driver::number_of;
use super::input::raftz_snapshot_id;
use crate::bytes::raftz_slice;
use crate::error::Failure;
use crate::events::{raftz_event_info, told};
use crate::machine::raftz_command;
use crate::status::{RAFTZ_OK, raftz_status};
use crate::storage::completions::Writes;
use crate::storage::kept::{Change, Log};
use crate::storage::raftz_log_write;

/// \brief An action: make `persist.write` durable, after all earlier ones, and say so with RAFTZ_INPUT_PERSISTED. Must be
/// carried out: what the core has promised to others rests on it.
pub const RAFTZ_ACTION_PERSIST: u32 = 1;
/// \brief An action: send `send.message`. It may be lost, doubled or overtaken.
pub const RAFTZ_ACTION_SEND: u32 = 2;
/// \brief An action: read the entries that `read_entries` names from the program's log, and answer with
/// RAFTZ_INPUT_ENTRIES_READ.
pub const RAFTZ_ACTION_READ_ENTRIES: u32 = 3;
/// \brief An action: apply the commands of `apply` to the state machine, and answer with RAFTZ_INPUT_APPLIED. One at a
/// time: none comes before the last one was answered.
pub const RAFTZ_ACTION_APPLY: u32 = 4;
/// \brief An action: restore the state machine from the snapshot `snapshot_id`, of which RAFTZ_INPUT_SNAPSHOT_KEPT told,
/// and answer with RAFTZ_INPUT_RESTORED. Nothing is applied meanwhile.
pub const RAFTZ_ACTION_RESTORE: u32 = 5;
/// \brief An action: fetch the snapshot that `fetch` names and its base, unless that is under way, and answer with
/// RAFTZ_INPUT_SNAPSHOT_KEPT once both are on the disk. It is asked for again until then.
pub const RAFTZ_ACTION_FETCH: u32 = 6;
/// \brief An action: the commands of `accepted` are in this leader's log. One is done when RAFTZ_ACTION_APPLY gives a command of
/// its index and term. Where that index passes with another term, or without a command, it is not done and never will be.
/// Where it passes by RAFTZ_ACTION_RESTORE nobody can say.
pub const RAFTZ_ACTION_ACCEPTED: u32 = 7;
/// \brief An action: the commands of `refused` are not in the log, and never will be.
pub const RAFTZ_ACTION_REFUSED: u32 = 8;
/// \brief An action: a read may be answered from a machine that has applied everything up to `may_read.index`.
pub const RAFTZ_ACTION_MAY_READ: u32 = 9;
/// \brief An action: nobody can say here what the read `request` must see, for this node does not lead (any more). Ask
/// the leader.
pub const RAFTZ_ACTION_MAY_NOT_READ: u32 = 10;
/// \brief An action: how a transfer ended, `transfer_ended`.
pub const RAFTZ_ACTION_TRANSFER_ENDED: u32 = 11;
/// \brief An action: news in `event`; may be ignored.
pub const RAFTZ_ACTION_EVENT: u32 = 12;
/// \brief An action: the core has stopped because of a fault, for which `reason` has the words. Free it; what is on the
/// disk may be started from again once the reason is gone.
pub const RAFTZ_ACTION_HALT: u32 = 13;

/// \brief What RAFTZ_ACTION_PERSIST carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_persist {
    /// \brief The core's life, to be given back.
    pub boot: u64,
    /// \brief The write's number in that life, from 1, without gaps; to be given back.
    pub number: u64,
    /// \brief What is to be written, whole or not at all.
    pub write: *const raftz_log_write,
}

/// \brief What RAFTZ_ACTION_SEND carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_send {
    /// \brief To whom.
    pub to: u64,
    /// \brief What; for RAFTZ_INPUT_RECEIVE there.
    pub message: raftz_slice,
}

/// \brief What RAFTZ_ACTION_READ_ENTRIES carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_read_entries {
    /// \brief Names the request; to be given back.
    pub request: u64,
    /// \brief The first entry that is wanted.
    pub first: u64,
    /// \brief The last one.
    pub last: u64,
    /// \brief So many bytes are enough; but at least one entry.
    pub bytes_max: u64,
}

/// \brief What RAFTZ_ACTION_APPLY carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_apply {
    /// \brief The first entry.
    pub first: u64,
    /// \brief The last one: what RAFTZ_INPUT_APPLIED says when all of them are applied.
    pub last: u64,
    /// \brief Those of the entries that are commands; the others are the core's own.
    pub commands: *const raftz_command,
    /// \brief How many; there may be none.
    pub command_count: usize,
}

/// \brief What RAFTZ_ACTION_FETCH carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_fetch {
    /// \brief Who has it.
    pub from: u64,
    /// \brief Which.
    pub id: raftz_snapshot_id,
}

/// \brief What RAFTZ_ACTION_ACCEPTED carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_accepted {
    /// \brief The entry of the first; the others follow it.
    pub first: u64,
    /// \brief The term of all of them.
    pub term: u64,
    /// \brief Their tokens, in order.
    pub tokens: *const u64,
    /// \brief How many.
    pub token_count: usize,
}

/// \brief What RAFTZ_ACTION_REFUSED carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_refused {
    /// \brief Why: RAFTZ_NOT_LEADER, RAFTZ_BUSY, RAFTZ_STORAGE_FULL, RAFTZ_TOO_LARGE or RAFTZ_FAULTED.
    pub status: raftz_status,
    /// \brief 0.
    pub reserved: u32,
    /// \brief With RAFTZ_NOT_LEADER: who leads, as far as is known; else 0.
    pub leader_id: u64,
    /// \brief Why, in words.
    pub message: raftz_slice,
    /// \brief Their tokens, in order.
    pub tokens: *const u64,
    /// \brief How many.
    pub token_count: usize,
}

/// \brief What RAFTZ_ACTION_MAY_READ carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_may_read {
    /// \brief The read.
    pub request: u64,
    /// \brief What must be applied before it is answered.
    pub index: u64,
}

/// \brief What RAFTZ_ACTION_TRANSFER_ENDED carries. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_action_transfer_ended {
    /// \brief The transfer.
    pub token: u64,
    /// \brief Who leads, as far as is known; else 0.
    pub leader_id: u64,
    /// \brief RAFTZ_OK: that node leads now. Otherwise why not.
    pub status: raftz_status,
    /// \brief 0.
    pub reserved: u32,
    /// \brief Why not, in words; empty if it is done.
    pub message: raftz_slice,
}

/// \brief What an action carries: of which kind, that says the action. The layout is frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub union raftz_core_action_with {
    /// \brief As much as there is room for.
    pub reserved: [u64; 12],
    /// \brief Of RAFTZ_ACTION_PERSIST.
    pub persist: raftz_action_persist,
    /// \brief Of RAFTZ_ACTION_SEND.
    pub send: raftz_action_send,
    /// \brief Of RAFTZ_ACTION_READ_ENTRIES.
    pub read_entries: raftz_action_read_entries,
    /// \brief Of RAFTZ_ACTION_APPLY.
    pub apply: raftz_action_apply,
    /// \brief Of RAFTZ_ACTION_RESTORE.
    pub snapshot_id: raftz_snapshot_id,
    /// \brief Of RAFTZ_ACTION_FETCH.
    pub fetch: raftz_action_fetch,
    /// \brief Of RAFTZ_ACTION_ACCEPTED.
    pub accepted: raftz_action_accepted,
    /// \brief Of RAFTZ_ACTION_REFUSED.
    pub refused: raftz_action_refused,
    /// \brief Of RAFTZ_ACTION_MAY_READ.
    pub may_read: raftz_action_may_read,
    /// \brief Of RAFTZ_ACTION_MAY_NOT_READ.
    pub request: u64,
    /// \brief Of RAFTZ_ACTION_TRANSFER_ENDED.
    pub transfer_ended: raftz_action_transfer_ended,
    /// \brief Of RAFTZ_ACTION_EVENT.
    pub event: *const raftz_event_info,
    /// \brief Of RAFTZ_ACTION_HALT: words in UTF-8, without NUL at the end.
    pub reason: raftz_slice,
}

/// \brief Something that a core wants done. The layout of this struct is frozen.
///
/// A later version may have more kinds. It gives none of them to a program whose `abi_version` in raftz_core_opts is older
/// than they are, so that nothing need be ignored that must not be.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct raftz_core_action {
    /// \brief RAFTZ_ACTION_…
    pub kind: u32,
    /// \brief 0.
    pub reserved: u32,
    /// \brief What it carries.
    pub with: raftz_core_action_with,
}

/// Actions of one step, and what they point to.
#[derive(Default)]
pub(crate) struct Shown {
    actions: Vec<raftz_core_action>,
    behind: Vec<Behind>,
}

/// What an action points to. All of it lies on the heap, where it stays when this is moved.
#[allow(dead_code, reason = "held for C, which reads it")]
enum Behind {
    Bytes(Vec<u8>),
    Writes(Writes),
    Commands(Entries, Vec<raftz_command>),
    Numbers(Vec<u64>),
    Event(Vec<raftz_event_info>, String),
}

impl Shown {
    /// What C is given; it stays as long as this does and nothing is added.
    pub(crate) fn actions(&self) -> &[raftz_core_action] {
        &self.actions
    }

    fn push(&mut self, kind: u32, with: raftz_core_action_with) {
        self.actions.push(raftz_core_action { kind, reserved: 0, with });
    }

    fn bytes(&mut self, bytes: Vec<u8>) -> raftz_slice {
        let slice = raftz_slice::of(&bytes);
        self.behind.push(Behind::Bytes(bytes));
        slice
    }

    fn words(&mut self, words: String) -> raftz_slice {
        self.bytes(words.into_bytes())
    }

    fn tokens(&mut self, tokens: &[Token]) -> (*const u64, usize) {
        let numbers: Vec<u64> = tokens.iter().map(|token| token.0).collect();
        let shown = (numbers.as_ptr(), numbers.len());
        self.behind.push(Behind::Numbers(numbers));
        shown
    }

    /// A write of a record, and of what changes beside it.
    pub(crate) fn write(&mut self, (boot, number): (u64, u64), record: Vec<u8>, change: Change) {
        let writes = Writes::of(vec![(GroupId::FIRST, record, change)]);
        let persist = raftz_action_persist { boot, number, write: writes.first() };
        self.behind.push(Behind::Writes(writes));
        self.push(RAFTZ_ACTION_PERSIST, raftz_core_action_with { persist });
    }

    pub(crate) fn may_not_read(&mut self, request: u64) {
        self.push(RAFTZ_ACTION_MAY_NOT_READ, raftz_core_action_with { request });
    }

    pub(crate) fn event(&mut self, node: NodeId, event: &Event) {
        let told = told(node, GroupId::FIRST.0, event);
        let text = raftz_slice::of(told.text.as_bytes());
        let info = vec![raftz_event_info { text, ..told.info }];
        let event = info.as_ptr();
        self.behind.push(Behind::Event(info, told.text));
        self.push(RAFTZ_ACTION_EVENT, raftz_core_action_with { event });
    }

    fn apply(&mut self, first: Index, last: Index, entries: Entries) {
        let commands = entries.iter().filter(|entry| entry.kind == EntryKind::Command);
        let shown = commands.map(|entry| raftz_command {
            index: entry.index.0,
            term: entry.term.0,
            log_time_us: entry.log_time_us,
            data: raftz_slice::of(entry.payload.bytes()),
        });
        let shown: Vec<raftz_command> = shown.collect();
        let (first, last) = (first.0, last.0);
        let (commands, command_count) = (shown.as_ptr(), shown.len());
        self.behind.push(Behind::Commands(entries, shown));
        let apply = raftz_action_apply { first, last, commands, command_count };
        self.push(RAFTZ_ACTION_APPLY, raftz_core_action_with { apply });
    }

    /// Shows an action. `log` is what the disk holds once all that was shown is written; the error is a write that
    /// contradicts it.
    pub(crate) fn show(
        &mut self,
        action: Action,
        node: NodeId,
        log: &mut Log,
    ) -> Result<(), String> {
        match action {
            Action::Persist(op) => return self.persist(op, log),
            Action::Send { to, message } => {
                let frame = codec::encode(GroupId::FIRST, &Message::Raft(message));
                let parts: Vec<&[u8]> = std::iter::once(&frame.head)
                    .chain(&frame.payloads)
                    .map(Bytes::as_ref)
                    .collect();
                let message = self.bytes(parts.concat());
                let send = raftz_action_send { to: to.get(), message };
                self.push(RAFTZ_ACTION_SEND, raftz_core_action_with { send });
            }
            Action::ReadEntries { request, first, last, bytes_max } => {
                let (first, last) = (first.0, last.0);
                let read_entries = raftz_action_read_entries { request, first, last, bytes_max };
                self.push(RAFTZ_ACTION_READ_ENTRIES, raftz_core_action_with { read_entries });
            }
            Action::Apply { first, last, entries } => self.apply(first, last, entries),
            Action::Restore { id } => {
                let with = raftz_core_action_with { snapshot_id: snapshot_id(id) };
                self.push(RAFTZ_ACTION_RESTORE, with);
            }
            Action::Fetch { from, id } => {
                let fetch = raftz_action_fetch { from: from.get(), id: snapshot_id(id) };
                self.push(RAFTZ_ACTION_FETCH, raftz_core_action_with { fetch });
            }
            Action::Accepted { first, term, tokens } => {
                let (tokens, token_count) = self.tokens(&tokens);
                let (first, term) = (first.0, term.0);
                let accepted = raftz_action_accepted { first, term, tokens, token_count };
                self.push(RAFTZ_ACTION_ACCEPTED, raftz_core_action_with { accepted });
            }
            Action::Refused { tokens, why } => {
                let (tokens, token_count) = self.tokens(&tokens);
                let Failure { status, message, leader_id, .. } = why.into();
                let message = self.words(message);
                let refused = raftz_action_refused {
                    status,
                    reserved: 0,
                    leader_id,
                    message,
                    tokens,
                    token_count,
                };
                self.push(RAFTZ_ACTION_REFUSED, raftz_core_action_with { refused });
            }
            Action::MayRead { request, index } => {
                let may_read = raftz_action_may_read { request, index: index.0 };
                self.push(RAFTZ_ACTION_MAY_READ, raftz_core_action_with { may_read });
            }
            Action::MayNotRead { request } => self.may_not_read(request),
            Action::TransferEnded { token, result } => self.transfer_ended(token, result),
            Action::Event(event) => self.event(node, &event),
            Action::Halt(reason) => {
                let reason = self.words(reason.to_string());
                self.push(RAFTZ_ACTION_HALT, raftz_core_action_with { reason });
            }
        }
        Ok(())
    }

    fn persist(&mut self, op: WriteOp, log: &mut Log) -> Result<(), String> {
        let (id, mut change) = (op.id, Change::default());
        log.write(op, &mut change)?;
        let number = number_of(id);
        self.write((id.boot.0, number), log.kept.encode()?, change);
        Ok(())
    }

    fn transfer_ended(&mut self, token: Token, result: Result<NodeId, TransferFailure>) {
        let (status, leader_id, words) = match result {
            Ok(leader) => (RAFTZ_OK, leader.get(), String::new()),
            Err(failure) => {
                let Failure { status, leader_id, message, .. } = NodeError::from(failure).into();
                (status, leader_id, message)
            }
        };
        let (token, message) = (token.0, self.words(words));
        let transfer_ended =
            raftz_action_transfer_ended { token, leader_id, status, reserved: 0, message };
        self.push(RAFTZ_ACTION_TRANSFER_ENDED, raftz_core_action_with { transfer_ended });
    }
}

fn snapshot_id(id: SnapshotId) -> raftz_snapshot_id {
    let SnapshotId { last, bytes, hash } = id;
    raftz_snapshot_id { term: last.term.0, index: last.index.0, bytes, hash }
}
