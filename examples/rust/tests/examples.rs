//! The examples hold what they claim: each checks itself and says so by its exit status.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::process::Command;

fn run(program: &str, last_line: &str) {
    let output = Command::new(program).output().expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().last(), Some(last_line), "{text}");
}

#[test]
fn simple_finds_everything_again_after_a_restart() {
    run(env!("CARGO_BIN_EXE_simple"), "simple: all as claimed");
}

#[test]
fn client_writes_on_all_nodes_at_once_and_the_stores_are_equal() {
    run(env!("CARGO_BIN_EXE_client"), "client: all as claimed");
}

#[test]
fn cluster_goes_on_without_its_leader_and_takes_it_back_by_log_and_by_snapshot() {
    run(env!("CARGO_BIN_EXE_cluster"), "cluster: all as claimed");
}

#[test]
fn simulate_passes_and_finds_the_planted_bug() {
    let simulate = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_simulate");
        let output = Command::new(program).args(arguments).output().expect("the example starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (status, text) = simulate(&[]);
    assert!(status == Some(0) && text.starts_with("PASS 20 seeds, "), "{status:?}: {text}");
    let (status, text) = simulate(&["--buggy"]);
    assert_eq!(status, Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("VIOLATION machines agree: "), "{text}");
    assert!(lines[1].starts_with("seed "), "{text}");
}
