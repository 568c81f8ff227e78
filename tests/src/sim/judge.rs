//! What one run is judged by: the simulator's oracle, which watches it; a second run, which must be the
//! same; and the linearizability of what its clients saw, key by key.

use std::fmt;
use std::time::Duration;

use raftz_core::machine::{KvCommand, KvReply};
use raftz_core::sim::{self, Plan, Report, Simulation};
use rustix::time::{ClockId, clock_gettime};

use crate::linear::{self, End, Objection, Operation, Request};

/// Operations of a key that may or may not have happened, beyond which a search for an order takes
/// too long: each doubles what there is to try.
const UNCERTAIN_MAX: usize = 12;

/// What is judged beside the oracle's word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checks {
    /// Whether a second run must be the same.
    pub(super) is_run_twice: bool,
    /// Whether each key's history must be linearizable.
    pub(super) are_keys_checked: bool,
}

/// What is wrong with a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) seed: u64,
    pub(super) oracle: String,
    pub(super) sentence: String,
}

impl Failure {
    pub(super) fn new(seed: u64, oracle: &str, sentence: &str) -> Self {
        // One line, whatever a panic or a checker had to say.
        let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { seed, oracle: oracle.to_owned(), sentence }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FAIL: seed {}: {}: {}", self.seed, self.oracle, self.sentence)
    }
}

/// Keys whose histories were looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keys {
    /// Linearizable from the first operation to the last.
    pub(super) whole: u64,
    /// Linearizable as far as they were looked at: what follows is too uncertain.
    pub(super) begun: u64,
    /// Given up.
    pub(super) too_hard: u64,
}

/// A run and what it is worth.
pub(super) struct Judged {
    /// Without its history.
    pub(super) report: Report,
    pub(super) failure: Option<Failure>,
    /// The keys that were checked, if they were.
    pub(super) keys: Option<Keys>,
    /// What the first run took of a processor.
    pub(super) busy: Duration,
}

/// Runs `plan` and judges it.
pub(super) fn judge(simulation: &Simulation, plan: &Plan, checks: Checks) -> Judged {
    let before = processor_time();
    let mut report = simulation.run(plan);
    let busy = processor_time().saturating_sub(before);
    let (failure, keys) = judge_report(simulation, plan, &report, checks);
    report.history = Vec::new();
    Judged { report, failure, keys, busy }
}

/// Judges a run of `plan` that was made already: what is wrong with it, and the keys that were checked.
pub(super) fn judge_report(
    simulation: &Simulation,
    plan: &Plan,
    report: &Report,
    checks: Checks,
) -> (Option<Failure>, Option<Keys>) {
    if let Some(violation) = &report.violation {
        let failure = Failure::new(plan.seed, violation.property, &violation.sentence);
        return (Some(failure), None);
    }
    if checks.is_run_twice
        && let Some(failure) = differs(plan.seed, report, &simulation.run(plan))
    {
        return (Some(failure), None);
    }
    if !checks.are_keys_checked {
        return (None, None);
    }
    match check_keys(&report.history) {
        Ok(keys) => (None, Some(keys)),
        Err(sentence) => (Some(Failure::new(plan.seed, "linearizability", &sentence)), None),
    }
}

/// What this thread has had of a processor: rates by it mean the same on a busy machine.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn differs(seed: u64, first: &Report, second: &Report) -> Option<Failure> {
    let is_same = first.trace == second.trace
        && first.events == second.events
        && first.violation == second.violation;
    (!is_same).then(|| {
        let told =
            |report: &Report| format!("{} events with trace {:016x}", report.events, report.trace);
        let sentence = format!("{} the first time, {} the second", told(first), told(second));
        Failure::new(seed, "determinism", &sentence)
    })
}

fn check_keys(history: &[sim::Operation]) -> Result<Keys, String> {
    let operations = history.iter().map(operation).collect::<Result<Vec<_>, _>>()?;
    let mut keys = Keys::default();
    for (key, history) in linear::by_key(operations) {
        let beginning = certain_beginning(&history);
        match linear::check(beginning.as_deref().unwrap_or(&history)) {
            Ok(()) if beginning.is_none() => keys.whole += 1,
            Ok(()) => keys.begun += 1,
            Err(Objection::TooHard { .. }) => keys.too_hard += 1,
            Err(objection @ Objection::NotLinearizable { .. }) => {
                return Err(format!("key {key:?} is {objection}"));
            }
        }
    }
    Ok(keys)
}

/// A call of the simulator's clients as the checker understands it.
fn operation(call: &sim::Operation) -> Result<Operation, String> {
    let command = KvCommand::decode(call.payload.bytes())
        .map_err(|error| format!("a client called with what is no command: {error}"))?;
    let end = match &call.end {
        sim::End::Done(reply) => {
            let reply = KvReply::decode(reply)
                .map_err(|error| format!("{command:?} was answered with no reply: {error}"))?;
            End::Done { at_us: call.ended_us, reply }
        }
        sim::End::Refused => End::Refused,
        sim::End::Unknown => End::Unknown,
    };
    let client = format!("client {}", call.client);
    Ok(Operation { client, invoked_us: call.invoked_us, request: Request::Command(command), end })
}

/// The longest beginning of `history` in which few enough operations are uncertain; none if that is the
/// whole of it. What somebody saw up to a moment is linearizable if all of it is: who still waited then
/// knows nothing yet, and who was refused later was refused.
fn certain_beginning(history: &[Operation]) -> Option<Vec<Operation>> {
    let is_uncertain = |operation: &&Operation| operation.end == End::Unknown;
    let mut ends: Vec<u64> = history.iter().filter(is_uncertain).map(|op| op.invoked_us).collect();
    ends.sort_unstable();
    ends.truncate(UNCERTAIN_MAX + 1);
    if ends.len() <= UNCERTAIN_MAX {
        return None;
    }
    let until = |end_us: u64| {
        let asked = history.iter().filter(|operation| operation.invoked_us < end_us);
        let known = asked.cloned().map(|mut operation| {
            if matches!(operation.end, End::Done { at_us, .. } if at_us >= end_us) {
                operation.end = End::Unknown;
            }
            operation
        });
        known.collect::<Vec<_>>()
    };
    let fits =
        |history: &Vec<Operation>| history.iter().filter(is_uncertain).count() <= UNCERTAIN_MAX;
    Some(ends.into_iter().rev().map(until).find(fits).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use raftz_core::types::{Payload, Reply};

    fn set(invoked_us: u64, end: End) -> Operation {
        let (key, value) = (Bytes::from("k"), Bytes::from(invoked_us.to_string()));
        let request = Request::Command(KvCommand::Set { key, value });
        Operation { client: "1".into(), invoked_us, request, end }
    }

    fn done(at_us: u64) -> End {
        End::Done { at_us, reply: KvReply::Stored }
    }

    #[test]
    fn a_history_is_cut_where_it_becomes_too_uncertain() {
        let few: Vec<_> = (0..UNCERTAIN_MAX as u64).map(|at| set(at * 10, End::Unknown)).collect();
        assert!(certain_beginning(&few).is_none());
        let mut many = few.clone();
        many.push(set(115, done(500)));
        many.push(set(116, done(117)));
        many.push(set(400, End::Unknown));
        // At 400 one who waits until 500 is the one too many; before 110 it had not asked.
        let cut = certain_beginning(&many).unwrap();
        assert_eq!(cut, few[..UNCERTAIN_MAX - 1]);
    }

    #[test]
    fn runs_that_differ_are_told_apart() {
        let first = Report { events: 3, trace: 1, ..Report::default() };
        assert_eq!(differs(9, &first, &first.clone()), None);
        let second = Report { trace: 2, ..first.clone() };
        let failure = differs(9, &first, &second).unwrap().to_string();
        assert!(failure.starts_with("FAIL: seed 9: determinism: 3 events"), "{failure}");
    }

    #[test]
    fn a_reply_that_no_order_explains_is_found() {
        let call = |command: KvCommand, reply: KvReply, at_us: u64| sim::Operation {
            client: 1,
            payload: Payload::new(command.encode()),
            invoked_us: at_us,
            ended_us: at_us + 1,
            end: sim::End::Done(Reply::Ok(reply.encode())),
        };
        let key = Bytes::from("n");
        let add = |by, sum, at_us| {
            let command = KvCommand::Increment { key: key.clone(), by };
            call(command, KvReply::Number(sum), at_us)
        };
        assert_eq!(check_keys(&[add(2, 2, 0), add(3, 5, 10)]).unwrap().whole, 1);
        let wrong = check_keys(&[add(2, 2, 0), add(3, 3, 10)]).unwrap_err();
        assert!(wrong.contains("not linearizable"), "{wrong}");
        let mut foreign = add(2, 2, 0);
        foreign.payload = Payload::new("no command");
        let wrong = check_keys(&[foreign]).unwrap_err();
        assert!(wrong.contains("what is no command"), "{wrong}");
    }
}
