//! The C programs under checkers of memory: sanitizers that gcc builds in, and Valgrind. Each checker first
//! has to find faults that were planted on the Rust side; one that is blind to them proves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use c_host::{Host, Link, SANITIZERS, has_sanitizers, has_tool, root, succeeds};

/// What is run under a checker, shortened where it waits.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("functions.c", &["memory"]),
    ("machine.c", &["short"]),
    ("storage.c", &["alone"]),
    ("transport.c", &["short"]),
    ("once.c", &["freeing"]),
    ("core.c", &["calm"]),
];
/// And this under the sanitizers: where a leader reads for another node, an optimized comparison of an `Option` looks to
/// Valgrind like one of bytes that were never written; and simulated clusters take it minutes.
const SANITIZED: &[(&str, &[&str])] =
    &[("storage.c", &["clusters"]), ("core.c", &["short"]), ("simulated.c", &["short"])];

/// And this with the archive, which holds the same code: what differs is how programs begin and end with it.
const ARCHIVED: &[(&str, &[&str])] = &[("functions.c", &["memory"]), ("once.c", &["freeing"])];

/// The planted faults as a library, compiled as ours is.
fn planted(host: &Host) -> String {
    let library = host.folder().join("libplanted.so");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    succeeds(
        Command::new(rustc)
            .args(["--edition", "2024", "-g", "--crate-type", "cdylib", "-o"])
            .arg(&library)
            .arg(root().join("tests/c/planted.rs")),
    );
    library.to_str().unwrap().to_owned()
}

/// Under `checker`, each fault ends a program with a word of it, and without a fault nothing does.
fn finds_what_was_planted(
    host: &Host,
    link: Link,
    flags: &[&str],
    checker: impl Fn(&Path) -> Command,
    words: &[(&str, &str)],
) {
    let library = planted(host);
    let path = format!("-Wl,-rpath,{}", host.folder().display());
    let program = host.build(Path::new("planted.c"), link, &[flags, &[&library, &path]].concat());
    succeeds(&mut checker(&program));
    for (fault, word) in words {
        let output = checker(&program).arg(fault).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(word), "{fault} was not found: {said}");
    }
}

fn sanitized(link: Link, programs: &[(&str, &[&str])]) {
    let Some(host) = Host::new().filter(|_| has_sanitizers()) else { return };
    let words = [("leak", "LeakSanitizer"), ("use-after-free", "heap-use-after-free")];
    finds_what_was_planted(&host, link, SANITIZERS, |it| Command::new(it), &words);
    for (source, arguments) in programs {
        let program = host.build(Path::new(source), link, SANITIZERS);
        succeeds(Command::new(program).args(*arguments));
    }
}

#[test]
fn sanitizers_find_nothing_with_the_shared_library() {
    sanitized(Link::Shared, &[PROGRAMS, SANITIZED].concat());
}

#[test]
fn sanitizers_find_nothing_with_the_archive() {
    sanitized(Link::Static, ARCHIVED);
}

#[test]
fn valgrind_finds_nothing() {
    if !has_tool("valgrind") {
        return;
    }
    let Some(host) = Host::new() else { return };
    let valgrind = |program: &Path| {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--leak-check=full", "--error-exitcode=9"]);
        // It runs one thread at a time. Unless they take turns, one that computes starves all others on some machines.
        command.arg("--fair-sched=yes");
        command.env("RAFTZ_C_SLOWNESS", "4").arg(program);
        command
    };
    let words = [("leak", "definitely lost"), ("use-after-free", "Invalid read")];
    finds_what_was_planted(&host, Link::Shared, &[], valgrind, &words);
    let built: Vec<(PathBuf, &[&str])> = PROGRAMS
        .iter()
        .map(|(source, arguments)| (host.build(Path::new(source), Link::Shared, &[]), *arguments))
        .collect();
    for (program, arguments) in built {
        succeeds(valgrind(&program).args(arguments));
    }
}
