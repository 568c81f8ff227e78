//! The README's C program, pasted by somebody who has nothing else; and the examples in C, each of
//! which holds what it claims and says so by its exit status.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const EXAMPLES: [&str; 8] = [
    "simple",
    "client",
    "cluster",
    "event_loop",
    "bank",
    "bare_core",
    "simulate",
    "custom_transport",
];
/// The one that needs another library.
const WITH_SQLITE: &str = "custom_storage";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn temporary_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs it: whether it went well, what it printed, and that with what it complained of.
fn run(command: &mut Command) -> (bool, String, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{command:?}:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text, all)
}

/// Runs it, which must go well, and gives what it printed.
fn output(command: &mut Command) -> String {
    let (success, text, all) = run(command);
    assert!(success, "{all}");
    text
}

/// Whether a tool is installed; if not, that is said.
fn has(tool: &str) -> bool {
    let is_there = Command::new(tool).arg("--version").output().is_ok();
    if !is_there {
        support::not_run(tool);
    }
    is_there
}

/// Whether SQLite is installed, for programs too; if not, that is said.
fn has_sqlite() -> bool {
    let mut compiler = Command::new("cc");
    compiler.args(["-include", "sqlite3.h", "-shared", "-x", "c", "/dev/null", "-lsqlite3"]);
    let is_there = compiler.args(["-o", "/dev/null"]).output().is_ok_and(|it| it.status.success());
    if !is_there {
        support::not_run("SQLite (sqlite3.h and libsqlite3)");
    }
    is_there
}

/// The blocks of a language in the README's part about C.
fn pasted(language: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, part) = readme.split_once("\n## The same in C\n").expect("a part about C");
    let (part, _) = part.split_once("\n## ").expect("an end of the part about C");
    part.split(&format!("\n```{language}\n"))
        .skip(1)
        .map(|block| block.split_once("```").expect("an end of the block").0.to_owned())
        .collect()
}

/// A shell with an empty environment, but for a home and Rust, which is where this machine has it:
/// a home that is new has none. What is built is not optimized as a whole, which takes minutes.
fn sh(commands: &str, folder: &Path, home: &Path) -> String {
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", home.join("rust").display());
    let mut shell = Command::new("sh");
    shell.args(["-euc", commands]).current_dir(folder);
    shell.env_clear().env("PATH", path).env("HOME", home).env("MAKEFLAGS", "-- PROFILE=quick");
    output(&mut shell)
}

/// A home in which the README's first commands have installed raftz, once for all tests here.
fn home() -> &'static Path {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples-c");
        if home.exists() {
            std::fs::remove_dir_all(&home).unwrap();
        }
        let rust = home.join("rust");
        std::fs::create_dir_all(&rust).unwrap();
        let own = |variable: &str, folder: &str| {
            let told = std::env::var(variable);
            told.unwrap_or_else(|_| format!("{}/{folder}", std::env::var("HOME").unwrap()))
        };
        // The compiler beside this cargo, too: one found by the path may be a switch between several, and
        // in an empty environment it may think that one has to be fetched.
        let tools = Path::new(env!("CARGO")).parent().unwrap().display();
        let cargo = format!(
            "#!/bin/sh\nexport CARGO_HOME='{}' RUSTUP_HOME='{}' PATH=\"{tools}:$PATH\"\nexec '{}' \"$@\"\n",
            own("CARGO_HOME", ".cargo"),
            own("RUSTUP_HOME", ".rustup"),
            env!("CARGO")
        );
        std::fs::write(rust.join("cargo"), cargo).unwrap();
        std::fs::set_permissions(rust.join("cargo"), PermissionsExt::from_mode(0o755)).unwrap();
        sh(&pasted("sh")[0], repository(), &home);
        home
    })
}

/// An example's files: one that is of several has its name at the beginning of each.
fn sources(name: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(repository().join("examples/c")).unwrap();
    let is_of_it = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap();
        file.starts_with(name) && file.ends_with(".c")
    };
    all.map(|entry| entry.unwrap().path()).filter(is_of_it).collect()
}

/// Builds an example with warnings as errors; whether that is possible here.
fn built(name: &str, folder: &Path) -> bool {
    if !has("cc") || !has("make") {
        return false;
    }
    let prefix = home().join(".local");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-pthread"]);
    compiler.arg("-I").arg(prefix.join("include"));
    compiler.args(sources(name));
    compiler.arg("-L").arg(prefix.join("lib")).arg("-lraftz");
    if name == WITH_SQLITE {
        compiler.arg("-lsqlite3");
    }
    compiler.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
    output(compiler.arg("-o").arg(folder.join(name)));
    true
}

/// A built example that keeps its files in `folder`.
fn example(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(folder.join(name));
    command.env("TMPDIR", folder).current_dir(folder);
    command
}

/// What a program of this name printed last, after it went well and left nothing but itself behind.
fn last_line(name: &str) -> Option<String> {
    let folder = temporary_folder();
    if !built(name, folder.path()) {
        return None;
    }
    let text = output(&mut example(name, folder.path()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{text}");
    Some(text.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn the_readmes_program_and_commands_can_be_pasted_and_run_in_an_empty_environment() {
    if !has("cc") || !has("make") || !has("pkg-config") {
        return;
    }
    let programs = pasted("c");
    let commands = pasted("sh");
    assert_eq!((programs.len(), commands.len()), (1, 2));
    assert!(programs[0].lines().count() < 40);
    let folder = temporary_folder();
    std::fs::write(folder.path().join("hello.c"), &programs[0]).unwrap();
    let said = sh(&commands[1], folder.path(), home());
    let (_, promised) = commands[1].trim_end().rsplit_once("# ").expect("what it prints");
    let (words, first) = words_and_numbers(&said);
    assert_eq!(words, words_and_numbers(promised).0, "{said}");
    // It says that it finds its log again: then the second life goes on behind the first.
    let said_again = sh("./hello", folder.path(), home());
    let (words_again, second) = words_and_numbers(&said_again);
    assert_eq!(words_again, words);
    assert!(second[0] > first[0] && second[1] > first[1], "{first:?} {second:?}");
}

/// On a slow machine the first election may take a second try: entry and term are what they are.
fn words_and_numbers(text: &str) -> (Vec<&str>, Vec<u64>) {
    let is_number = |word: &&str| word.parse::<u64>().is_ok();
    let (numbers, words): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(is_number);
    (words, numbers.into_iter().map(|word| word.parse().unwrap()).collect())
}

#[test]
fn simple_finds_everything_again_after_a_restart() {
    let Some(line) = last_line("simple") else { return };
    assert_eq!(line, "simple: all as claimed");
}

#[test]
fn client_tells_every_kind_of_outcome_and_each_is_true() {
    let Some(line) = last_line("client") else { return };
    assert_eq!(line, "client: all as claimed");
}

#[test]
fn event_loop_numbers_every_increment_once() {
    let Some(line) = last_line("event_loop") else { return };
    assert_eq!(line, "event_loop: all as claimed");
}

#[test]
fn bank_loses_no_money() {
    let Some(line) = last_line("bank") else { return };
    assert_eq!(line, "bank: all as claimed");
}

#[test]
fn bare_core_agrees_in_one_thread() {
    let Some(line) = last_line("bare_core") else { return };
    assert_eq!(line, "bare_core: all as claimed");
}

#[test]
fn simulate_passes_and_finds_the_planted_bug_again_and_again() {
    let folder = temporary_folder();
    if !built("simulate", folder.path()) {
        return;
    }
    let text = output(&mut example("simulate", folder.path()));
    assert!(
        text.starts_with("PASS 20 seeds, ") && text.ends_with(" entries committed\n"),
        "{text}"
    );
    let (success, text, all) = run(example("simulate", folder.path()).arg("--buggy"));
    let lines: Vec<&str> = text.lines().collect();
    assert!(!success && lines.len() == 4, "{all}");
    assert!(lines[0].starts_with("VIOLATION machines agree: "), "{all}");
    assert!(
        lines[1].starts_with("seed ") && lines[3].starts_with("the same again, trace "),
        "{all}"
    );
    // What it says finds the same once more, line by line.
    let again = lines[2].strip_prefix("again: simulate ").expect("how to see it again");
    let arguments = again.split(' ');
    let (success, text, all) = run(example("simulate", folder.path()).args(arguments));
    let told: Vec<&str> = text.lines().collect();
    assert!(!success && told.len() > 10, "{all}");
    assert_eq!(told[told.len() - 4..], lines, "{all}");
}

#[test]
fn custom_storage_loses_nothing_when_its_process_is_killed() {
    if !has("cc") || !has_sqlite() {
        return;
    }
    let Some(line) = last_line(WITH_SQLITE) else { return };
    assert_eq!(line, "custom_storage: all as claimed");
}

#[test]
fn custom_transport_loses_nothing_when_its_leader_is_killed() {
    let Some(line) = last_line("custom_transport") else { return };
    assert_eq!(line, "custom_transport: all as claimed");
}

#[test]
fn cluster_loses_nothing_when_the_leader_and_then_all_are_killed() {
    let Some(line) = last_line("cluster") else { return };
    let words: Vec<&str> = line.split(' ').collect();
    let ["PASS:", acknowledged, "acknowledged", "writes,", "0", "lost,", "failover", gap, "ms"] =
        words[..]
    else {
        panic!("{line}");
    };
    assert!(acknowledged.parse::<u64>().unwrap() >= 3000, "{line}");
    assert!(gap.parse::<u64>().is_ok(), "{line}");
}

#[test]
fn cluster_finds_a_hidden_key_out() {
    let folder = temporary_folder();
    if !built("cluster", folder.path()) {
        return;
    }
    let (success, text, all) = run(example("cluster", folder.path()).args(["--lie", "500"]));
    let verdict = text.lines().last().unwrap_or_default();
    assert!(!success && verdict.starts_with("FAIL: "), "{all}");
    assert!(verdict.contains("writes, 1 lost; node 2: 1/000000006 was acknowledged"), "{all}");
}

#[test]
fn no_process_of_cluster_outlives_its_parent_however_that_ends() {
    for signal in ["TERM", "KILL"] {
        let folder = temporary_folder();
        if !built("cluster", folder.path()) {
            return;
        }
        let mut parent = example("cluster", folder.path());
        let mut parent = parent.arg("100000000").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines().map(Result::unwrap);
        let begun = lines.any(|line| line.contains("all three are writing"));
        assert!(begun && processes_of(folder.path()).len() == 3);
        let kill = format!("kill -s {signal} {}", parent.id());
        output(Command::new("sh").args(["-c", &kill]));
        let last = lines.last();
        assert!(!parent.wait().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !processes_of(folder.path()).is_empty() {
            // A parent that was killed could not wait for them, so this does.
            assert!(signal == "KILL" && Instant::now() < deadline, "{signal}");
            std::thread::sleep(Duration::from_millis(10));
        }
        if signal == "TERM" {
            let last = last.unwrap_or_default();
            assert!(last.starts_with("FAIL: ") && last.ends_with("interrupted by signal 15"));
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}

/// Processes of children that have the folder's path on their command line.
fn processes_of(folder: &Path) -> Vec<String> {
    let wanted = folder.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(wanted) && line.contains("--node"))
        .collect()
}

#[test]
fn cmake_builds_all_examples_with_the_installed_library() {
    if !has("cc") || !has("make") || !has("cmake") {
        return;
    }
    let folder = temporary_folder();
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(repository().join("examples/c")).arg("-B").arg(folder.path());
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", home().join(".local").display()));
    output(configure.args(["-DCMAKE_C_FLAGS=-Werror", "-DRAFTZ_EXAMPLES_STATIC=ON"]));
    output(Command::new("cmake").arg("--build").arg(folder.path()));
    for name in EXAMPLES {
        assert!(folder.path().join(name).is_file(), "{name}");
    }
    let said = output(&mut example("simple", folder.path()));
    assert!(said.ends_with("simple: all as claimed\n"), "{said}");
}
