//! C++ programs that use `raftz.hpp` for real, in either standard, with and without exceptions: each of `tests/cpp` says
//! at its top what it proves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod cpp_host;
mod support;

use std::process::Command;

use c_host::succeeds;
use cpp_host::{MODES, Mode, built, compilers, host, object, object_by, program, scratch};

/// What is in the one and not in the other makes up all that the modes differ in.
const FAR_APART: [Mode; 2] = [MODES[0], MODES[3]];

/// Builds a program in the two ways that are furthest apart, and runs it with a folder of its own if it wants one.
fn passes(source: &str, wants_folder: bool) {
    let Some(host) = host() else { return };
    for mode in FAR_APART {
        let program = built(&host, source, mode, &[]);
        let mut command = Command::new(&program);
        if wants_folder {
            command.arg(scratch(&host, &program));
        }
        succeeds(&mut command);
    }
}

#[test]
fn values_say_what_they_are_and_moved_handles_are_errors() {
    let Some(host) = host() else { return };
    for mode in MODES {
        let program = built(&host, "tests/cpp/values.cpp", mode, &[]);
        succeeds(&mut Command::new(&program));
        // A value where there is none ends the program, in words.
        let output = Command::new(program).arg("no-value").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("RAFTZ_BUSY: not now"), "{said}");
    }
}

#[test]
fn everything_that_a_node_does_is_done_in_every_form() {
    passes("tests/cpp/node.cpp", false);
}

#[test]
fn callbacks_that_fail_are_told_and_end_no_process() {
    passes("tests/cpp/failing.cpp", true);
}

#[test]
fn what_is_handed_over_is_destroyed_once() {
    passes("tests/cpp/once.cpp", true);
}

#[test]
fn two_files_of_one_program_include_it_in_any_mode_each() {
    let Some(host) = host() else { return };
    let both = |source| FAR_APART.map(|mode| object(&host, source, mode, &[]));
    let others = both("tests/cpp/two_units_other.cpp");
    for mine in both("tests/cpp/two_units.cpp") {
        for other in &others {
            succeeds(&mut Command::new(program(&host, &[mine.clone(), other.clone()], &[])));
        }
    }
}

#[test]
fn other_compilers_take_it_as_well() {
    let Some(host) = host() else { return };
    for compiler in compilers().into_iter().filter(|it| *it != "g++") {
        for (source, mode) in ["values", "node", "failing", "once"].iter().zip(MODES) {
            object_by(compiler, &host, &format!("tests/cpp/{source}.cpp"), mode, &[]);
        }
    }
}

#[test]
fn an_older_standard_is_told_what_is_missing() {
    let Some(host) = host() else { return };
    let source = host.folder().join("old.cpp");
    std::fs::write(&source, "#include <raftz.hpp>\n").unwrap();
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++14", "-c", "-o", "/dev/null", "-I"]);
    let output = compiler.arg(c_host::root().join("include")).arg(&source).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("raftz.hpp needs C++17"), "{said}");
}

/// Programs that do without type information, too.
#[test]
fn it_needs_no_type_information() {
    let Some(host) = host() else { return };
    let program = built(&host, "tests/cpp/failing.cpp", MODES[0], &["-fno-rtti"]);
    succeeds(Command::new(&program).arg(scratch(&host, &program)));
}
