//! The C++ programs under the sanitizers that g++ builds in, which first have to find faults that were planted in a
//! program of C++.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod cpp_host;
mod support;

use std::process::Command;

use c_host::{SANITIZERS, has_sanitizers, succeeds};
use cpp_host::{MODES, built, host, scratch};

#[test]
fn sanitizers_find_what_was_planted() {
    let Some(host) = host().filter(|_| has_sanitizers()) else { return };
    let flags = [SANITIZERS, &["-g"]].concat();
    let planted = built(&host, "tests/cpp/planted.cpp", MODES[0], &flags);
    succeeds(&mut Command::new(&planted));
    for (fault, word) in [("leak", "LeakSanitizer"), ("use-after-free", "heap-use-after-free")] {
        let output = Command::new(&planted).arg(fault).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(word), "{fault} was not found: {said}");
    }
}

fn clean(source: &str, wants_folder: bool) {
    let Some(host) = host().filter(|_| has_sanitizers()) else { return };
    let flags = [SANITIZERS, &["-g"]].concat();
    let program = built(&host, source, MODES[0], &flags);
    let mut command = Command::new(&program);
    if wants_folder {
        command.arg(scratch(&host, &program));
    }
    succeeds(&mut command);
}

#[test]
fn sanitizers_find_nothing_in_values() {
    clean("tests/cpp/values.cpp", false);
}

#[test]
fn sanitizers_find_nothing_in_what_a_node_does() {
    clean("tests/cpp/node.cpp", false);
}

#[test]
fn sanitizers_find_nothing_in_callbacks_that_fail() {
    clean("tests/cpp/failing.cpp", true);
}

#[test]
fn sanitizers_find_nothing_in_what_is_handed_over() {
    clean("tests/cpp/once.cpp", true);
}
