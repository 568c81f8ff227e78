//! Builds C++ programs with `include/raftz.hpp` against the library that was built beside this test.
#![allow(dead_code, reason = "no test program uses all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::c_host::{Host, has_tool, root};

/// Every warning that programs may ask for must leave the header alone.
const WARNINGS: &[&str] =
    &["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"];

/// A standard, and whether there are exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) standard: &'static str,
    pub(crate) exceptions: bool,
}

/// The ways in which programs are compiled.
pub(crate) const MODES: [Mode; 4] = [
    Mode { standard: "c++17", exceptions: true },
    Mode { standard: "c++17", exceptions: false },
    Mode { standard: "c++20", exceptions: true },
    Mode { standard: "c++20", exceptions: false },
];

impl Mode {
    fn flags(self) -> Vec<String> {
        let standard = format!("-std={}", self.standard);
        let rest = (!self.exceptions).then(|| "-fno-exceptions".to_owned());
        std::iter::once(standard).chain(rest).collect()
    }
}

/// The compilers that there are; says which are missing.
pub(crate) fn compilers() -> Vec<&'static str> {
    ["g++", "clang++"].into_iter().filter(|it| has_tool(it)).collect()
}

/// A host for C++, if there is a compiler.
pub(crate) fn host() -> Option<Host> {
    if has_tool("g++") { Host::new() } else { None }
}

fn compiler(name: &str, mode: Mode, flags: &[&str]) -> Command {
    let mut compiler = Command::new(name);
    compiler.args(mode.flags()).args(WARNINGS).args(flags);
    compiler.arg("-I").arg(root().join("include")).arg("-I").arg(root().join("tests/cpp"));
    compiler
}

fn succeeded(source: &Path, mode: Mode, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {mode:?}: {said}", source.display());
}

/// Compiles a source file of the repository, or one made elsewhere, and gives the object.
pub(crate) fn object(host: &Host, source: &str, mode: Mode, flags: &[&str]) -> PathBuf {
    object_by("g++", host, source, mode, flags)
}

/// The same with another compiler.
pub(crate) fn object_by(
    name: &str,
    host: &Host,
    source: &str,
    mode: Mode,
    flags: &[&str],
) -> PathBuf {
    let source = root().join(source);
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let exceptions = if mode.exceptions { "with" } else { "without" };
    let object = host.folder().join(format!("{name}-{stem}-{}-{exceptions}.o", mode.standard));
    let mut compiler = compiler(name, mode, flags);
    let output = compiler.arg("-c").arg(&source).arg("-o").arg(&object).output().unwrap();
    succeeded(&source, mode, &output);
    object
}

/// Links objects with the shared library.
pub(crate) fn program(host: &Host, objects: &[PathBuf], flags: &[&str]) -> PathBuf {
    let program = objects[0].with_extension("program");
    let mut linker = Command::new("g++");
    linker.args(objects).args(flags).arg(library(host));
    linker.arg(format!("-Wl,-rpath,{}", host.folder().display()));
    let output = linker.args(["-lpthread", "-o"]).arg(&program).output().unwrap();
    succeeded(&program, MODES[0], &output);
    program
}

/// Compiles and links a program of one file.
pub(crate) fn built(host: &Host, source: &str, mode: Mode, flags: &[&str]) -> PathBuf {
    program(host, &[object(host, source, mode, flags)], flags)
}

/// The library under the name that programs look for at run time.
fn library(host: &Host) -> PathBuf {
    let files = std::fs::read_dir(host.folder()).unwrap().map(|entry| entry.unwrap().path());
    let is_library = |path: &PathBuf| path.display().to_string().contains("/libraftz.so.");
    files.into_iter().find(is_library).unwrap()
}

/// A folder within the host's, for what a program leaves.
pub(crate) fn scratch(host: &Host, program: &Path) -> PathBuf {
    let folder = host.folder().join(format!("{}.data", program.display()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
