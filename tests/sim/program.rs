//! The program that `make sim` runs, from outside.

use std::process::{Command, Output};

use raftz_core::sim::Fault;

fn raftz_sim(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftz-sim"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RAFTZ_SIM_") {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The words of the verdict of a campaign without its numbers.
fn shape(line: &str) -> String {
    let is_number = |word: &&str| word.parse::<f64>().is_ok();
    let words = line.split(' ').map(|word| if is_number(&word) { "#" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_campaign_ends_with_its_verdict_behind_the_tables() {
    let variables =
        [("RAFTZ_SIM_SEEDS", "5"), ("RAFTZ_SIM_FROM", "1"), ("RAFTZ_SIM_UNTIL_US", "2000000")];
    let output = raftz_sim(&variables);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    let last = out.lines().last().unwrap();
    assert_eq!(shape(last), "PASS: # seeds, # h simulated, # events, # faults, # violations");
    assert!(last.starts_with("PASS: 5 seeds, ") && last.ends_with(" faults, 0 violations"));
    for row in ["5 seeds from 1 on ", "power-cut ", "TornTail ", "1 seeds run twice, alike"] {
        assert!(out.lines().any(|line| line.starts_with(row)), "{row}: {out}");
    }
}

#[test]
fn a_campaign_by_time_ends_in_time() {
    // How many seeds that is depends on the machine: what they meet must not.
    let kinds = Fault::ALL.map(Fault::name).join(",");
    let output = raftz_sim(&[
        ("RAFTZ_SIM_SECONDS", "1"),
        ("RAFTZ_SIM_FROM", "1"),
        ("RAFTZ_SIM_UNTIL_US", "100000"),
        ("RAFTZ_SIM_WITHOUT", &kinds),
    ]);
    let out = text(&output.stdout);
    assert!(out.lines().last().unwrap().starts_with("PASS: "), "{out}");
}

#[test]
fn a_replay_tells_the_plan_what_happens_and_the_verdict() {
    let seed = [("RAFTZ_SIM_SEED", "1"), ("RAFTZ_SIM_UNTIL_US", "1000000")];
    let quiet = raftz_sim(&seed);
    let out = text(&quiet.stdout);
    assert_eq!(quiet.status.code(), Some(0), "{out}");
    assert!(out.lines().any(|line| line.starts_with("duration_us ") && line.ends_with(" 1000000")));
    assert!(out.lines().last().unwrap().starts_with("PASS: 1 seeds, "), "{out}");
    assert!(!out.contains(" hears "), "messages are told when asked for: {out}");
    let all = raftz_sim(&[&seed[..], &[("RAFTZ_SIM_TRACE", "all")]].concat());
    assert!(text(&all.stdout).contains(" hears "));
}

#[test]
fn bad_input_is_refused_in_a_sentence() {
    for (name, value, sentence) in [
        ("RAFTZ_SIM_SEED", "seven", "RAFTZ_SIM_SEED: `seven` is not a whole number"),
        ("RAFTZ_SIM_WITHOUT", "flood", "RAFTZ_SIM_WITHOUT: there is no fault `flood`"),
        ("RAFTZ_SIM_SPEED", "1", "RAFTZ_SIM_SPEED: there is no such setting"),
    ] {
        let output = raftz_sim(&[(name, value)]);
        assert_eq!(output.status.code(), Some(2), "{name}={value}");
        assert!(text(&output.stderr).contains(sentence), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}
