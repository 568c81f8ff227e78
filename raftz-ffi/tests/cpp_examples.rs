//! The README's C++ program, pasted beside an installation; and the examples in C++, each of which holds what it claims
//! and says so by its exit status.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod cpp_host;
mod support;

use std::path::Path;
use std::process::Command;

use c_host::{Host, has_tool, root, succeeds};
use cpp_host::{MODES, built, host};

/// The blocks of a language in the README's part about C++.
fn pasted(language: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, part) = readme.split_once("\n## The same in C++\n").expect("a part about C++");
    let (part, _) = part.split_once("\n## ").expect("an end of the part about C++");
    part.split(&format!("\n```{language}\n"))
        .skip(1)
        .map(|block| block.split_once("```").expect("an end of the block").0.to_owned())
        .collect()
}

/// What is installed below a home, as the README says.
fn installed(home: &Path) {
    let mut make = Command::new("make");
    make.current_dir(root()).args(["install", "PROFILE=quick"]);
    make.arg(format!("PREFIX={}/.local", home.display()));
    for inherited in ["MAKEFLAGS", "MAKEOVERRIDES", "PREFIX", "LIBDIR", "INCLUDEDIR", "DESTDIR"] {
        make.env_remove(inherited);
    }
    succeeds(&mut make);
}

fn sh(commands: &str, folder: &Path, home: &Path) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-euc", commands]).current_dir(folder).env("HOME", home);
    // Cargo shows this test libraries of its own.
    succeeds(shell.env_remove("LD_LIBRARY_PATH"))
}

/// On a slow machine the first election may take a second try: entry and term are what they are.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().filter(|word| word.parse::<u64>().is_err()).collect()
}

#[test]
fn what_is_installed_serves_the_readmes_program_and_cmake() {
    let tools = ["g++", "c++", "make", "pkg-config"];
    if !tools.into_iter().all(has_tool) {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let home = folder.path().join("home");
    installed(&home);

    let (programs, commands) = (pasted("cpp"), pasted("sh"));
    assert_eq!((programs.len(), commands.len()), (1, 1));
    assert!(programs[0].lines().count() < 40);
    std::fs::write(folder.path().join("hello.cpp"), &programs[0]).unwrap();
    let (_, promised) = commands[0].trim_end().rsplit_once("# ").expect("what it prints");
    let said = sh(&commands[0], folder.path(), &home);
    assert_eq!(words(&said), words(promised), "{said}");
    // It finds its log again.
    assert_eq!(words(&sh("./hello", folder.path(), &home)), words(promised));

    if has_tool("cmake") {
        let build = folder.path().join("build");
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(root().join("examples/cpp")).arg("-B").arg(&build);
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", home.join(".local").display()));
        succeeds(configure.args(["-DCMAKE_CXX_FLAGS=-Werror", "-DRAFTZ_EXAMPLES_STATIC=ON"]));
        succeeds(Command::new("cmake").arg("--build").arg(&build));
        let said = succeeds(&mut Command::new(build.join("simple")));
        assert!(said.ends_with("simple: all as claimed\n"), "{said}");
        assert!(build.join("cluster").is_file());
    }
}

/// What an example printed last, after it went well and left nothing behind.
fn last_line(host: &Host, name: &str) -> String {
    let program = built(host, &format!("examples/cpp/{name}.cpp"), MODES[0], &[]);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = Command::new(program);
    let said = succeeds(command.env("TMPDIR", folder.path()).current_dir(folder.path()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn simple_finds_everything_again_after_a_restart() {
    let Some(host) = host() else { return };
    assert_eq!(last_line(&host, "simple"), "simple: all as claimed");
}

#[test]
fn cluster_loses_nothing_when_the_leader_stops_and_comes_back() {
    let Some(host) = host() else { return };
    let line = last_line(&host, "cluster");
    let words: Vec<&str> = line.split(' ').collect();
    let ["PASS:", acknowledged, "acknowledged", "writes,", "0", "lost,", "failover", gap, "ms"] =
        words[..]
    else {
        panic!("{line}");
    };
    assert!(acknowledged.parse::<u64>().unwrap() >= 3000, "{line}");
    assert!(gap.parse::<u64>().is_ok(), "{line}");
}
