//! Builds C programs against the library that was built beside this test, and runs them.
#![allow(dead_code, reason = "no test program uses all of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub(crate) mod header;

/// How a program gets the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Shared,
    Static,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Whether there is such a program; says so if there is not.
pub(crate) fn has_tool(tool: &str) -> bool {
    let is_there =
        Command::new(tool).arg("--version").output().is_ok_and(|out| out.status.success());
    if !is_there {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        crate::support::not_run(&format!("{test}: no {tool}"));
    }
    is_there
}

/// Flags of gcc for programs that notice what they do wrong with memory.
pub(crate) const SANITIZERS: &[&str] =
    &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Whether gcc has them; says so if it does not.
pub(crate) fn has_sanitizers() -> bool {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = folder.path().join("none.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(SANITIZERS).arg(&source).arg("-o").arg(folder.path().join("none"));
    let is_there = gcc.output().is_ok_and(|out| out.status.success());
    if !is_there {
        crate::support::not_run("C programs under sanitizers: gcc has none");
    }
    is_there
}

/// A folder with the library under the name that programs look for at run time.
pub(crate) struct Host {
    folder: TempDir,
    /// Where the library was built.
    built: PathBuf,
}

impl Host {
    /// A host, if there is a compiler.
    pub(crate) fn new() -> Option<Self> {
        let program = std::env::current_exe().unwrap();
        Self::with_library(program.parent().unwrap())
    }

    /// As [`Host::new`], with a library that was built elsewhere.
    pub(crate) fn with_library(built: &Path) -> Option<Self> {
        if !has_tool("gcc") {
            return None;
        }
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let name = format!("libraftz.so.{}", abi());
        // Stays what it is, also when the library is built anew meanwhile.
        std::fs::hard_link(built.join("libraftz.so"), folder.path().join(name)).unwrap();
        Some(Self { folder, built: built.to_path_buf() })
    }

    /// A folder of the host's own, gone with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Compiles a program of `tests/c`, or one made elsewhere, with flags or libraries of its own.
    pub(crate) fn build(&self, source: &Path, link: Link, flags: &[&str]) -> PathBuf {
        let source = root().join("tests/c").join(source);
        self.build_with(&["include", "tests/c"], &source, link, flags)
    }

    /// As [`Host::build`], with headers of other folders of the repository.
    pub(crate) fn build_with(
        &self,
        include: &[&str],
        source: &Path,
        link: Link,
        flags: &[&str],
    ) -> PathBuf {
        let program = self.folder.path().join(source.file_stem().unwrap());
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=c11", "-D_GNU_SOURCE", "-g", "-O1"])
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
            .args(include.iter().map(|folder| format!("-I{}", root().join(folder).display())))
            .arg(source)
            .args(flags);
        match link {
            Link::Shared => gcc
                .arg(self.folder.path().join(format!("libraftz.so.{}", abi())))
                .arg(format!("-Wl,-rpath,{}", self.folder.path().display())),
            Link::Static => gcc.arg(self.built.join("libraftz.a")).args(["-ldl", "-lm"]),
        };
        let compiled = gcc.args(["-lpthread", "-o"]).arg(&program).output().unwrap();
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{}: {said}", source.display());
        program
    }

    /// Builds and runs a program of `tests/c`, which must succeed.
    pub(crate) fn passes(&self, source: &str, link: Link, arguments: &[&str]) {
        let program = self.build(Path::new(source), link, &[]);
        succeeds(Command::new(program).args(arguments));
    }
}

/// Runs a command that must succeed. Programs have a watchdog of their own.
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// What the name of the shared library ends in.
fn abi() -> String {
    let part = |name: &str| header::number(name).to_string();
    match header::number("RAFTZ_VERSION_MAJOR") {
        0 => format!("0.{}", part("RAFTZ_VERSION_MINOR")),
        major => major.to_string(),
    }
}
