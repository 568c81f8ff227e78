//! What the lanes decide, as plain functions over plain values.

use crate::machine::Command;
use crate::storage::WriteBatch;
use crate::types::{Entry, EntryKind, GroupId, Index, OpId, Reply, WriteOp};

/// Why a state machine's replica must fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApplyFailure {
    /// First entry of the batch that failed.
    pub(crate) index: Index,
    /// Which callback.
    pub(crate) kind: &'static str,
    /// What it said.
    pub(crate) detail: String,
}

/// The last write of each group in a submission: what its completion confirms. Groups appear in
/// the order of their first write.
pub(crate) fn marks(batch: &WriteBatch) -> Vec<(GroupId, OpId)> {
    let mut marks: Vec<(GroupId, OpId)> = Vec::new();
    for (group, op) in batch {
        match marks.iter_mut().find(|(marked, _)| marked == group) {
            Some((_, last)) => *last = op.id,
            None => marks.push((*group, op.id)),
        }
    }
    marks
}

/// Bytes that an entry will take in a store, roughly.
fn entry_bytes(entry: &Entry) -> u64 {
    16 + entry.cost_bytes()
}

/// Bytes that a write will take, roughly: what submissions are cut by.
fn cost_bytes(op: &WriteOp) -> u64 {
    64 + op.entries.iter().map(entry_bytes).sum::<u64>()
}

/// Cuts entries off the end of a write that is larger than `bytes_max`, but for one; gives the rest
/// as a write of its own. What stays confirms only what came before it: it may last without the
/// rest, as a log that was sent in pieces does.
fn split(op: &mut WriteOp, bytes_max: u64) -> Option<WriteOp> {
    let mut bytes = 64;
    let fits = |entry: &&Entry| {
        bytes += entry_bytes(entry);
        bytes <= bytes_max
    };
    let keep = op.entries.iter().take_while(fits).count().max(1);
    if keep >= op.entries.len() {
        return None;
    }
    let entries = op.entries.split_off(keep);
    let commit = std::mem::take(&mut op.commit);
    let rest = WriteOp { id: op.id, entries, commit, ..WriteOp::default() };
    op.id.seq = op.id.seq.saturating_sub(u64::from(!bug!(PieceConfirmsTheWhole)));
    Some(rest)
}

/// Cuts the front of `queue` off as one submission: everything that is queued, so that it shares
/// one sync, but no more than `bytes_max` unless a single entry is larger. Never reorders.
pub(crate) fn next_submission(
    queue: &mut std::collections::VecDeque<(GroupId, WriteOp)>,
    bytes_max: u64,
) -> WriteBatch {
    if let Some((group, first)) = queue.front_mut()
        && let Some(rest) = split(first, bytes_max)
    {
        let group = *group;
        queue.insert(1, (group, rest));
    }
    let mut bytes = 0_u64;
    let mut count = 0;
    for (_, op) in queue.iter() {
        bytes = bytes.saturating_add(cost_bytes(op));
        if count > 0 && bytes > bytes_max {
            break;
        }
        count += 1;
    }
    if bug!(SubmissionConfirmsTheWholeQueue)
        && let Some(id) = queue.back().map(|(_, op)| op.id)
    {
        queue[count - 1].1.id = id;
    }
    queue.drain(..count).collect()
}

/// The commands among committed entries: everything else is the library's own and is not given to
/// the machine.
pub(crate) fn commands(entries: &[Entry]) -> Vec<Command<'_>> {
    // Nearly all are.
    let mut commands = Vec::with_capacity(entries.len());
    let of_machine = entries.iter().filter(|entry| entry.kind == EntryKind::Command);
    commands.extend(of_machine.map(|entry| Command {
        index: entry.index,
        term: entry.term,
        log_time_us: entry.log_time_us,
        payload: entry.payload.bytes(),
    }));
    commands
}

/// Pairs replies with the commands that they answer; a machine that gave another number has lost
/// count, and nothing it says can be trusted.
pub(crate) fn pair(
    commands: &[Command],
    replies: &mut Vec<Reply>,
) -> Result<Vec<(Index, Reply)>, String> {
    if commands.len() != replies.len() {
        return Err(format!(
            "{} replies to {} commands; apply must push exactly one reply for each",
            replies.len(),
            commands.len()
        ));
    }
    if bug!(RepliesAreReversed) {
        replies.reverse();
    }
    Ok(commands.iter().map(|command| command.index).zip(replies.drain(..)).collect())
}

/// Checks that entries read for `first..` are that: consecutive, at least one, none beyond `last`.
pub(crate) fn check_run(entries: &[Entry], first: Index, last: Index) -> Result<Index, String> {
    let mut next = first;
    for entry in entries {
        if entry.index != next || entry.index > last {
            return Err(format!("entry {} came where {next} was asked for", entry.index));
        }
        next = next.next();
    }
    if next == first {
        return Err(format!("no entry came where {first} was asked for"));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::types::{Boot, HardState, Payload, Term};
    use bytes::Bytes;
    use std::collections::VecDeque;

    fn entry(index: u64, kind: EntryKind, bytes: usize) -> Entry {
        Entry {
            term: Term(1),
            index: Index(index),
            log_time_us: index,
            kind,
            session: None,
            payload: Payload::new(vec![0; bytes]),
        }
    }

    fn op(seq: u64, bytes: usize) -> WriteOp {
        WriteOp {
            id: OpId { boot: Boot(1), seq },
            entries: vec![entry(seq, EntryKind::Command, bytes)].into(),
            ..WriteOp::default()
        }
    }

    #[test]
    fn everything_queued_is_one_submission_up_to_the_cap_in_order() {
        let group = GroupId::FIRST;
        let mut queue: VecDeque<_> = (1..=4).map(|seq| (group, op(seq, 1000))).collect();
        let all = next_submission(&mut queue.clone(), u64::MAX);
        assert_eq!(all.len(), 4);
        let two = next_submission(&mut queue, 2500);
        assert_eq!(two.iter().map(|(_, op)| op.id.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(next_submission(&mut queue, 1).len(), 1, "a large write goes alone");
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_write_too_large_for_a_submission_goes_in_pieces_and_only_the_last_confirms_it() {
        let whole = WriteOp {
            hard_state: Some(HardState { term: Term(1), vote: None }),
            truncate_from: Some(Index(1)),
            entries: (1..=7).map(|index| entry(index, EntryKind::Command, 1000)).collect(),
            commit: Index(3),
            ..op(5, 0)
        };
        let mut queue =
            VecDeque::from([(GroupId::FIRST, whole.clone()), (GroupId::FIRST, op(6, 0))]);
        let mut entries = Vec::new();
        for (pieces, seq, count) in [(1, 4, 3), (1, 4, 3), (2, 6, 1)] {
            let batch = next_submission(&mut queue, 3500);
            assert_eq!(batch.len(), pieces);
            assert_eq!(marks(&batch)[0].1.seq, seq);
            let piece = &batch[0].1;
            let (first, last) = (entries.is_empty(), seq > 5);
            assert_eq!((piece.hard_state.is_some(), piece.truncate_from.is_some()), (first, first));
            assert_eq!(piece.commit, if last { whole.commit } else { Index(0) });
            assert_eq!(piece.entries.len(), count);
            entries.extend_from_slice(&piece.entries);
        }
        assert!(queue.is_empty());
        assert_eq!(entries[..], whole.entries[..]);
    }

    #[test]
    fn a_submission_confirms_the_last_write_of_each_group() {
        let other = GroupId(7);
        let batch = vec![(GroupId::FIRST, op(1, 0)), (other, op(5, 0)), (GroupId::FIRST, op(2, 0))];
        let marks = marks(&batch);
        assert_eq!(marks[0], (GroupId::FIRST, OpId { boot: Boot(1), seq: 2 }));
        assert_eq!(marks[1], (other, OpId { boot: Boot(1), seq: 5 }));
    }

    #[test]
    fn only_commands_reach_the_machine() {
        let entries = [
            entry(1, EntryKind::Noop, 0),
            entry(2, EntryKind::Command, 3),
            entry(3, EntryKind::Membership, 3),
            entry(4, EntryKind::Settings, 3),
        ];
        let commands = commands(&entries);
        assert_eq!(commands.len(), 1);
        assert_eq!(commands[0].index, Index(2));
    }

    #[test]
    fn replies_pair_with_commands_or_are_refused() {
        let entries = [entry(2, EntryKind::Command, 1), entry(5, EntryKind::Command, 1)];
        let commands = commands(&entries);
        let reply = |words: &'static str| Reply::Ok(Bytes::from(words));
        let paired = pair(&commands, &mut vec![reply("one"), reply("two")]).unwrap();
        assert_eq!(paired, [(Index(2), reply("one")), (Index(5), reply("two"))]);
        let error = pair(&commands, &mut vec![reply("one")]).unwrap_err();
        assert!(error.contains("1 replies to 2 commands"), "{error}");
    }

    #[test]
    fn a_run_with_a_gap_or_beyond_its_end_is_refused() {
        let run = [entry(3, EntryKind::Command, 0), entry(4, EntryKind::Command, 0)];
        assert_eq!(check_run(&run, Index(3), Index(9)), Ok(Index(5)));
        assert!(check_run(&run, Index(2), Index(9)).is_err());
        assert!(check_run(&run, Index(3), Index(3)).is_err());
        assert!(check_run(&[], Index(3), Index(3)).is_err());
    }
}
