//! The history of many clients in several processes: how each operation is told on a line, and how
//! the lines become operations again.
//!
//! ```text
//! op call    <id> <at_us> <command>      before it is proposed; the id is the process's own
//! op read    <id> <at_us> <key>          before it is asked for, past the log
//! op done    <id> <at_us> <reply>        ok:… or rejected:…
//! op refused <id> <at_us> <words>        also a read without an answer
//! op unknown <id> <at_us> <words>
//! ```
//! Commands and replies are the store's own bytes, in hexadecimal. A process writes each line whole
//! and at once, so whatever it did before it was killed is known; an operation without an end then
//! ended unknown, together with its process.
//!
//! [`History`] also keeps the account of calls: an end without a call, and a second end of one
//! call, are errors.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use raftz_core::machine::{KvCommand, KvReply};
use raftz_core::node::NodeError;
use raftz_core::types::{Outcome, Reply};
use rustix::time::{ClockId, clock_gettime};

use crate::linear::{End, Operation, Request};

/// Microseconds by the clock that all processes of one machine share, and that never goes back.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(now.tv_sec) * 1_000_000 + part(now.tv_nsec) / 1000
}

/// The line that tells of a call that is about to be made.
pub fn call_line(id: u64, at_us: u64, command: &[u8]) -> String {
    format!("op call {id} {at_us} {}", Hex(command))
}

/// The line that tells of a read that is about to be made.
pub fn read_line(id: u64, at_us: u64, key: &[u8]) -> String {
    format!("op read {id} {at_us} {}", Hex(key))
}

/// The line that tells how a read ended.
pub fn answer_line(id: u64, at_us: u64, answer: &Result<Reply, NodeError>) -> String {
    match answer {
        Ok(reply) => done_line(id, at_us, reply),
        Err(error) => format!("op refused {id} {at_us} {error}"),
    }
}

fn done_line(id: u64, at_us: u64, reply: &Reply) -> String {
    match reply {
        Reply::Ok(bytes) => format!("op done {id} {at_us} ok:{}", Hex(bytes)),
        Reply::Rejected(bytes) => format!("op done {id} {at_us} rejected:{}", Hex(bytes)),
    }
}

/// The line that tells how a call ended.
pub fn end_line(id: u64, at_us: u64, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(done) => done_line(id, at_us, &done.reply),
        Outcome::Refused(refusal) => format!("op refused {id} {at_us} {refusal}"),
        Outcome::Unknown(unknown) => format!("op unknown {id} {at_us} {unknown}"),
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| digit.to_digit(16).map(|it| it as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// How many calls there were, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Calls made.
    pub calls: u64,
    /// Ended as done.
    pub done: u64,
    /// And read without the log.
    pub read: u64,
    /// Ended as refused.
    pub refused: u64,
    /// Ended as unknown.
    pub unknown: u64,
    /// Ended with their process.
    pub died: u64,
    /// The longest time from a call to its end, processes that died aside.
    pub longest_us: u64,
}

impl Account {
    /// Calls that have not ended.
    pub const fn open(&self) -> u64 {
        self.calls - self.done - self.refused - self.unknown - self.died
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, done, read, refused, unknown, died, .. } = self;
        write!(
            f,
            "{calls} calls, each ended once: {done} done ({read} reads), {refused} refused, {unknown} unknown, \
             {died} with their process"
        )
    }
}

/// What was heard of all operations so far.
#[derive(Debug, Default)]
pub struct History {
    /// Operations without an end, by the life of their process and their id in it.
    open: BTreeMap<(u64, u64), Operation>,
    ended: Vec<Operation>,
    account: Account,
}

impl History {
    /// Takes a line of a process in this life; whether it was one of a history.
    ///
    /// # Errors
    /// A line that breaks the rules: an end without a call, a second end, no known form.
    pub fn hear(&mut self, life: u64, line: &str) -> Result<bool, String> {
        let Some(rest) = line.strip_prefix("op ") else { return Ok(false) };
        self.take(life, rest)
            .ok_or_else(|| format!("life {life}: not a history's next line: {line}"))?;
        Ok(true)
    }

    fn take(&mut self, life: u64, line: &str) -> Option<()> {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [kind, id, at_us, rest] = words[..] else { return None };
        let (id, at_us): (u64, u64) = (id.parse().ok()?, at_us.parse().ok()?);
        if kind == "call" || kind == "read" {
            let bytes = Bytes::from(bytes_of(rest)?);
            let request = if kind == "read" {
                Request::Get { key: bytes }
            } else {
                Request::Command(KvCommand::decode(&bytes).ok()?)
            };
            let client = format!("{life}:{id}");
            let operation = Operation { client, invoked_us: at_us, request, end: End::Unknown };
            self.account.calls += 1;
            return self.open.insert((life, id), operation).is_none().then_some(());
        }
        let mut operation = self.open.remove(&(life, id))?;
        self.account.longest_us =
            self.account.longest_us.max(at_us.saturating_sub(operation.invoked_us));
        operation.end = match kind {
            "done" => {
                self.account.done += 1;
                self.account.read += u64::from(matches!(operation.request, Request::Get { .. }));
                End::Done { at_us, reply: reply_of(rest)? }
            }
            "refused" => {
                self.account.refused += 1;
                End::Refused
            }
            "unknown" => {
                self.account.unknown += 1;
                End::Unknown
            }
            _ => return None,
        };
        // Nothing follows from a call that never happened but that nobody may have seen it, and
        // for that it need not be there.
        if operation.end != End::Refused {
            self.ended.push(operation);
        }
        Some(())
    }

    /// A process is gone, and its last line was heard: what it had open ended with it.
    pub fn died(&mut self, life: u64) {
        let later = self.open.split_off(&(life + 1, 0));
        let its = self.open.split_off(&(life, 0));
        self.open.extend(later);
        self.account.died += its.len() as u64;
        self.ended.extend(its.into_values());
    }

    /// The account so far.
    pub const fn account(&self) -> Account {
        self.account
    }

    /// Every operation that may have happened. Those without an end count as unknown.
    pub fn operations(&self) -> Vec<Operation> {
        self.ended.iter().chain(self.open.values()).cloned().collect()
    }

    /// Every key that was ever asked for.
    pub fn keys(&self) -> std::collections::BTreeSet<Bytes> {
        let all = self.ended.iter().chain(self.open.values());
        all.map(|operation| operation.request.key().clone()).collect()
    }
}

fn reply_of(text: &str) -> Option<KvReply> {
    let (form, hex) = text.split_once(':')?;
    let bytes = Bytes::from(bytes_of(hex)?);
    let reply = match form {
        "ok" => Reply::Ok(bytes),
        "rejected" => Reply::Rejected(bytes),
        _ => return None,
    };
    KvReply::decode(&reply).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use raftz_core::types::{Done, Index, Refusal, Term, Unknown};

    use super::*;

    fn add() -> KvCommand {
        KvCommand::Increment { key: Bytes::from_static(b"k\0 "), by: -2 }
    }

    fn call(id: u64, at_us: u64) -> String {
        call_line(id, at_us, &add().encode())
    }

    fn done(reply: KvReply) -> Outcome {
        let bytes = reply.encode();
        let is_rejection = matches!(reply, KvReply::Rejected(_));
        let reply = if is_rejection { Reply::Rejected(bytes) } else { Reply::Ok(bytes) };
        Outcome::Done(Done { index: Index(1), term: Term(1), reply })
    }

    #[test]
    fn what_a_process_tells_becomes_the_same_operation_again() {
        for reply in [KvReply::Number(-9), KvReply::Rejected("no number here".into())] {
            let mut history = History::default();
            assert_eq!(history.hear(3, &call(7, 100)), Ok(true));
            assert_eq!(history.hear(3, &end_line(7, 130, &done(reply.clone()))), Ok(true));
            let operation = Operation {
                client: "3:7".into(),
                invoked_us: 100,
                request: Request::Command(add()),
                end: End::Done { at_us: 130, reply },
            };
            assert_eq!(history.operations(), [operation]);
            assert_eq!(history.account().longest_us, 30);
        }
        assert_eq!(History::default().hear(1, "ready"), Ok(false));
    }

    #[test]
    fn every_kind_of_end_is_counted_and_refusals_leave_no_operation() {
        let mut history = History::default();
        for id in 0..4 {
            history.hear(1, &call(id, id)).unwrap();
        }
        history.hear(2, &call(0, 9)).unwrap();
        history.hear(1, &end_line(0, 5, &done(KvReply::Number(1)))).unwrap();
        history.hear(1, &end_line(1, 5, &Outcome::Refused(Refusal::Overwritten))).unwrap();
        history.hear(1, &end_line(2, 5, &Outcome::Unknown(Unknown::Timeout))).unwrap();
        history.died(1);
        let account = history.account();
        let Account { calls, done, refused, unknown, died, .. } = account;
        assert_eq!((calls, done, refused, unknown, died, account.open()), (5, 1, 1, 1, 1, 1));
        assert_eq!(history.operations().len(), 4);
    }

    #[test]
    fn a_call_that_ends_twice_or_never_began_is_an_error() {
        let mut history = History::default();
        let end = end_line(1, 5, &Outcome::Unknown(Unknown::Timeout));
        assert!(history.hear(1, &end).is_err(), "never begun");
        history.hear(1, &call(1, 1)).unwrap();
        assert!(history.hear(2, &end).is_err(), "another life's");
        assert_eq!(history.hear(1, &end), Ok(true));
        assert!(history.hear(1, &end).is_err(), "ended before");
        assert!(history.hear(1, "op call 1").is_err(), "cut short");
    }
}
