//! The demo passes, fails when it should, and leaves nothing behind however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

fn demo(data: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("--data").arg(data.path()).args(arguments);
    command
}

/// Exit status, standard output, and that nothing is left in `data`.
fn finished(data: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let output = demo(data, arguments).output().expect("the demo starts");
    assert_nothing_left(data.path());
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The demo in mid-load.
fn loading(data: &TempDir) -> Child {
    saying(data, "acknowledged, node")
}

/// The demo when it has said this.
fn saying(data: &TempDir, words: &str) -> Child {
    let mut child = demo(data, &["--writes", "300000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the demo starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(output.read_line(&mut line).expect("readable") > 0, "it ended too early");
    }
    assert!(!processes_of(data.path()).is_empty());
    // Whatever else it says must not block it.
    std::thread::spawn(move || output.lines().for_each(drop));
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("a process id");
    kill_process(pid, signal).expect("the demo runs");
}

/// Processes that have the directory's path on their command line.
fn processes_of(data: &Path) -> Vec<String> {
    let wanted = data.to_str().expect("a path of text");
    std::fs::read_dir("/proc")
        .expect("a list of processes")
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(wanted) && line.contains("--node"))
        .collect()
}

/// Nobody told us when the last child of a killed parent ends, so this waits for it.
fn assert_nothing_left(data: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let processes = processes_of(data);
        let files: Vec<_> =
            std::fs::read_dir(data).expect("listable").map(|entry| entry.unwrap().path()).collect();
        if processes.is_empty() && files.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {processes:?} {files:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_and_then_all_are_killed() {
    let data = tempfile::tempdir().unwrap();
    let (status, text) = finished(&data, &["--writes", "20000"]);
    assert_eq!(status, Some(0), "{text}");
    let verdict = text.lines().last().unwrap_or_default();
    let words: Vec<&str> = verdict.split(' ').collect();
    let ["PASS:", acknowledged, "acknowledged", "writes,", "0", "lost,", "failover", gap, "ms"] =
        words[..]
    else {
        panic!("{text}");
    };
    assert!(acknowledged.parse::<u64>().unwrap() >= 20_000, "{verdict}");
    assert!(gap.parse::<u64>().is_ok(), "{verdict}");
}

#[test]
fn a_hidden_key_is_found_out() {
    let data = tempfile::tempdir().unwrap();
    let (status, text) = finished(&data, &["--writes", "2000", "--sabotage"]);
    assert_eq!(status, Some(1), "{text}");
    let verdict = text.lines().last().unwrap_or_default();
    assert!(verdict.starts_with("FAIL: ") && verdict.contains("1 lost; node 2"), "{text}");
}

#[test]
fn an_input_of_binary_lines_with_empty_ones_is_loaded_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let input = elsewhere.path().join("in put");
    std::fs::write(&input, b"\0\xff\xfe\n\n\nlast line has no end").unwrap();
    let (status, text) = finished(&data, &["--writes", "500", "--input", input.to_str().unwrap()]);
    assert_eq!(status, Some(0), "{text}");
}

#[test]
fn an_input_that_cannot_be_used_fails_by_name() {
    let data = tempfile::tempdir().unwrap();
    let (status, text) = finished(&data, &["--input", "/nonexistent/file"]);
    assert_eq!(status, Some(1));
    assert!(text.starts_with("FAIL: /nonexistent/file: No such file"), "{text}");
    let (status, text) = finished(&data, &["--input", "/dev/null"]);
    assert_eq!(status, Some(1));
    assert!(text.starts_with("FAIL: /dev/null: it has no lines"), "{text}");
}

#[test]
fn an_interrupted_demo_removes_processes_and_files() {
    for (sent, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let data = tempfile::tempdir().unwrap();
        let mut child = loading(&data);
        signal(&child, sent);
        assert_eq!(child.wait().unwrap().code(), Some(status));
        assert_nothing_left(data.path());
    }
}

#[test]
fn a_killed_demo_is_cleaned_up_by_its_children_also_after_those_that_are_dead() {
    for moment in ["acknowledged, node", "SIGKILL to node"] {
        let data = tempfile::tempdir().unwrap();
        let mut child = saying(&data, moment);
        signal(&child, Signal::KILL);
        child.wait().unwrap();
        assert_nothing_left(data.path());
    }
}
