#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use raftz_core::machine::KvStore;

use super::*;

const HISTORIES: &str = include_str!("histories.txt");

struct Labelled {
    is_linearizable: bool,
    claim: String,
    history: Vec<Operation>,
}

fn labelled() -> Vec<Labelled> {
    let mut all: Vec<Labelled> = Vec::new();
    for line in HISTORIES.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let label = |word: &str| line.strip_prefix(word).map(str::to_owned);
        let header = label("yes: ").map(|claim| (true, claim));
        if let Some((is_linearizable, claim)) = header.or(label("no: ").map(|claim| (false, claim)))
        {
            all.push(Labelled { is_linearizable, claim, history: Vec::new() });
        } else {
            all.last_mut().expect("a label first").history.push(drawn(line));
        }
    }
    all
}

/// An operation as it is drawn.
fn drawn(line: &str) -> Operation {
    let from = line.find('[').expect("a bar");
    let to = from + line[from..].find([']', '?', '!']).expect("its end");
    let (bar, words) = line.split_at(to + 1);
    let words: Vec<&str> = words.split_whitespace().collect();
    let (request, reply) = asked_and_answered(&words);
    let end = match bar.as_bytes()[to] {
        b']' => End::Done { at_us: to as u64, reply: reply.expect("an answer") },
        b'?' => End::Unknown,
        _ => End::Refused,
    };
    let client = line[..from].trim().to_owned();
    Operation { client, invoked_us: from as u64, request, end }
}

fn asked_and_answered(words: &[&str]) -> (Request, Option<KvReply>) {
    let key = Bytes::from_static(b"k");
    let text = |word: &str| Bytes::copy_from_slice(word.as_bytes());
    let option = |word: &str| (word != "-").then(|| text(word));
    let command = Request::Command;
    match *words {
        ["set", value] => {
            (command(KvCommand::Set { key, value: text(value) }), Some(KvReply::Stored))
        }
        ["get", value] => (Request::Get { key }, Some(KvReply::Value(option(value)))),
        ["delete"] => (command(KvCommand::Delete { key }), None),
        ["delete", word] => {
            let existed = word == "yes";
            (command(KvCommand::Delete { key }), Some(KvReply::Deleted { existed }))
        }
        ["cas", old, new, ref answer @ ..] => {
            let swap = KvCommand::CompareAndSet { key, expected: option(old), value: option(new) };
            let reply = match *answer {
                ["ok"] => Some(KvReply::Swapped),
                ["saw", actual] => Some(KvReply::NotSwapped { actual: option(actual) }),
                _ => None,
            };
            (command(swap), reply)
        }
        ["add", by, ref answer @ ..] => {
            let add = KvCommand::Increment { key, by: by.parse().expect("a number") };
            let reply = match *answer {
                ["=", sum] => Some(KvReply::Number(sum.parse().expect("a number"))),
                ["rejected"] => Some(KvReply::Rejected("no number".into())),
                _ => None,
            };
            (command(add), reply)
        }
        _ => panic!("{words:?}"),
    }
}

#[test]
fn every_labelled_history_is_judged_as_its_label_says() {
    let all = labelled();
    let good = all.iter().filter(|it| it.is_linearizable).count();
    assert!(good >= 15 && all.len() - good >= 15, "{good} of {} are linearizable", all.len());
    for Labelled { is_linearizable, claim, history } in all {
        let verdict = check(&history);
        assert_eq!(verdict.is_ok(), is_linearizable, "{claim}: {verdict:?}");
    }
}

#[test]
fn the_order_in_which_a_history_is_written_down_does_not_matter() {
    for Labelled { is_linearizable, claim, mut history } in labelled() {
        history.reverse();
        assert_eq!(check(&history).is_ok(), is_linearizable, "{claim}");
    }
}

#[test]
fn a_history_is_cut_by_key() {
    let set = |key: &'static str, value: &'static str| {
        let command =
            KvCommand::Set { key: key.into(), value: Bytes::from_static(value.as_bytes()) };
        Operation {
            client: "a".into(),
            invoked_us: 0,
            request: Request::Command(command),
            end: End::Unknown,
        }
    };
    let keys = by_key([set("x", "1"), set("y", "2"), set("x", "3")]);
    let sizes: Vec<(&[u8], usize)> = keys.iter().map(|(key, ops)| (&key[..], ops.len())).collect();
    assert_eq!(sizes, [(&b"x"[..], 2), (&b"y"[..], 1)]);
}

#[test]
fn an_objection_names_the_operations_that_do_not_fit() {
    let history = [drawn("a [--]       set 1"), drawn("b      [--]  get 7")];
    let text = check(&history).unwrap_err().to_string();
    assert!(text.contains("1 of 2") && text.contains("b Get"), "{text}");
}

/// A counter that eight clients use at once; of its increments every fourth has an unknown end, and
/// of those every other did not happen.
#[test]
fn two_dozen_increments_of_unknown_end_are_no_burden() {
    let (mut history, mut sum) = (Vec::new(), 0);
    for at in 0..96u64 {
        let by = [1, 10, 100][at as usize % 3];
        let asked = KvCommand::Increment { key: Bytes::from_static(b"k"), by };
        let (is_answered, is_lost) = (at % 4 != 1, at % 8 == 1);
        sum += if is_lost { 0 } else { by };
        let (happened_us, reply) = (10 * at + 100, KvReply::Number(sum));
        let end =
            if is_answered { End::Done { at_us: happened_us + 40, reply } } else { End::Unknown };
        history.push(Operation {
            client: at.to_string(),
            invoked_us: happened_us - 40,
            request: Request::Command(asked),
            end,
        });
    }
    let mut search = Search::new(&history);
    search.situations_max = 20_000;
    let verdict = search.run();
    assert!(verdict.is_ok(), "{verdict:?}");
    // The last answer off by one, which no subset explains.
    let last = history.iter_mut().rfind(|operation| operation.end != End::Unknown).unwrap();
    let End::Done { reply, .. } = &mut last.end else { panic!("it is done") };
    *reply = KvReply::Number(sum + 1_000_000);
    let verdict = check(&history);
    assert!(matches!(verdict, Err(Objection::NotLinearizable { .. })), "{verdict:?}");
}

/// Every order of some operations of which it is known that one explains them, tried one by one.
fn has_an_order(certain: &[Operation], uncertain: &[Operation], value: Option<&Bytes>) -> bool {
    if certain.is_empty() {
        return true;
    }
    let first_end_us = certain.iter().filter_map(Operation::answered_us).min().unwrap();
    let without = |all: &[Operation], at: usize| {
        let mut rest = all.to_vec();
        rest.remove(at);
        rest
    };
    let next = |operation: &Operation| {
        (operation.invoked_us <= first_end_us).then(|| model(&operation.request, value))
    };
    certain.iter().enumerate().any(|(at, operation)| {
        next(operation).is_some_and(|(after, expected)| {
            let End::Done { reply, .. } = &operation.end else { return false };
            agree(&expected, reply)
                && has_an_order(&without(certain, at), uncertain, after.as_ref())
        })
    }) || uncertain.iter().enumerate().any(|(at, operation)| {
        next(operation).is_some_and(|(after, _)| {
            has_an_order(certain, &without(uncertain, at), after.as_ref())
        })
    })
}

/// Requests on one key, with values of which some are numbers.
fn requests() -> impl Strategy<Value = Request> {
    let key = || Bytes::from_static(b"k");
    let value = || {
        prop_oneof![
            Just("1"),
            Just("-7"),
            Just("x"),
            Just(""),
            Just("+1"),
            Just("9223372036854775807")
        ]
        .prop_map(|text| Bytes::from_static(text.as_bytes()))
    };
    let option = move || prop_oneof![Just(None), value().prop_map(Some)];
    prop_oneof![
        value().prop_map(move |value| KvCommand::Set { key: key(), value }),
        Just(KvCommand::Delete { key: key() }),
        (option(), option()).prop_map(move |(expected, value)| KvCommand::CompareAndSet {
            key: key(),
            expected,
            value
        }),
        (-3i64..4).prop_map(move |by| KvCommand::Increment { key: key(), by }),
        Just(Request::read_through_log(key())),
    ]
    .prop_map(Request::Command)
}

/// What the store answers to each request, one after the other.
fn answers(requests: &[Request]) -> Vec<KvReply> {
    let mut store = KvStore::new();
    let executed = requests.iter().map(|request| match request {
        Request::Command(command) => KvReply::decode(&store.execute(command.clone())).unwrap(),
        Request::Get { key } => KvReply::Value(store.get(key).cloned()),
    });
    executed.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_model_answers_as_the_store_does(requests in prop::collection::vec(requests(), 0..40)) {
        let mut value = None;
        for (request, answered) in requests.iter().zip(answers(&requests)) {
            let (after, expected) = model(request, value.as_ref());
            prop_assert!(agree(&expected, &answered), "{:?}: {:?}, {:?}", request, expected, answered);
            value = after;
        }
    }

    /// Short histories of random answers, most of them impossible: what the search leaves out must
    /// never be what would have explained one.
    #[test]
    fn the_search_agrees_with_trying_every_order(
        operations in prop::collection::vec((requests(), 0u64..12, 1u64..8, 0usize..4), 0..7),
        values in prop::collection::vec(prop_oneof![Just("1"), Just("x"), Just("2")], 7),
    ) {
        let mut history: Vec<Operation> = Vec::new();
        for (at, (request, invoked_us, lasts_us, luck)) in operations.into_iter().enumerate() {
            // An answer that the request can have, from some value or other.
            let from = Bytes::from_static(values[at].as_bytes());
            let (_, reply) = model(&request, (luck > 1).then_some(&from));
            let end = if luck == 0 {
                End::Unknown
            } else {
                End::Done { at_us: invoked_us + lasts_us, reply }
            };
            history.push(Operation { client: at.to_string(), invoked_us, request, end });
        }
        let (uncertain, certain): (Vec<_>, Vec<_>) =
            history.iter().cloned().partition(|operation| operation.end == End::Unknown);
        prop_assert_eq!(check(&history).is_ok(), has_an_order(&certain, &uncertain, None));
    }

    /// Operations that were in truth executed one by one, in the order of `begun`, with ends that
    /// lie far enough behind for many of them to overlap, and with some answers forgotten.
    #[test]
    fn what_a_single_copy_answered_is_linearizable(
        requests in prop::collection::vec(requests(), 0..60),
        spread in prop::collection::vec((0u64..30, 0u64..30, 0u8..10), 60),
    ) {
        let replies = answers(&requests);
        let mut history: Vec<Operation> = Vec::new();
        for (at, (request, reply)) in requests.into_iter().zip(replies).enumerate() {
            let happened_us = 100 + 10 * at as u64;
            let (before_us, after_us, luck) = spread[at];
            let end = if luck == 0 {
                End::Unknown
            } else {
                End::Done { at_us: happened_us + after_us, reply }
            };
            let invoked_us = happened_us - before_us;
            history.push(Operation { client: at.to_string(), invoked_us, request, end });
        }
        prop_assert!(check(&history).is_ok(), "{:?}", check(&history));
    }
}
