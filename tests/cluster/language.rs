//! In which language a node's program is written: Rust on the core, C on libraftz.so, or Python on its package. They
//! speak the same lines and understand each other's directories; but for one in C that keeps its log in a store of its
//! own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::process::Cluster;
use super::{package, support};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    C,
    /// C, with the log in an SQLite database in the node's directory.
    COnSqlite,
    /// Python on a wheel.
    Python,
}

impl Language {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Rust => Self::C,
            Self::C => Self::Rust,
            Self::COnSqlite => Self::COnSqlite,
            Self::Python => Self::Python,
        }
    }

    fn program(self) -> &'static Path {
        match self {
            Self::Rust => Path::new(env!("CARGO_BIN_EXE_raftz-testnode")),
            Self::C => program_in_c(),
            Self::COnSqlite => program_on_sqlite(),
            Self::Python => program_in_python(),
        }
    }
}

impl Cluster {
    /// Has a node run a program of this language from its next start on.
    pub(crate) fn speak(&mut self, place: usize, language: Language) {
        self.programs[place] = language.program().to_owned();
    }
}

/// `tests/c/testnode*.c`; built once a run, from the sources as they are now.
fn program_in_c() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("raftz-testnode", &[], &[]))
}

/// The same with the store of an example.
fn program_on_sqlite() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let store = "../examples/c/custom_storage_sqlite.c";
    let flags = ["-DON_SQLITE", "-I../examples/c", "-lsqlite3"];
    BUILT.get_or_init(|| built("raftz-testnode-on-sqlite", &[store], &flags))
}

/// `tests/python/testnode.py`, to be run by the Python that has the package.
fn program_in_python() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let python = package::with_wheel().program("python");
        let program = package::root().join("tests/python/testnode.py");
        put(&package::place(), "raftz-testnode.py", |fresh| {
            let text = std::fs::read_to_string(program).expect("the program");
            std::fs::write(fresh, format!("#!{}\n{text}", python.display())).expect("a file");
            std::fs::set_permissions(fresh, Permissions::from_mode(0o755)).expect("it is ours");
        })
    })
}

fn built(name: &str, more: &[&str], flags: &[&str]) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
    std::fs::create_dir_all(&folder).expect("a folder");
    // A copy of what cargo has built beside this program, as a dependency of it: another build
    // may replace that one at any time. The name is the one that programs ask for.
    let here = std::env::current_exe().expect("a path");
    let abi = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
    let library = put(&folder, &format!("libraftz.so.{abi}"), |fresh| {
        std::fs::copy(here.with_file_name("libraftz.so"), fresh).expect("libraftz.so");
    });
    put(&folder, name, |fresh| {
        let status = Command::new("cc")
            .current_dir(tests)
            .args(["-std=c11", "-O1", "-g", "-pthread"])
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I../include", "-o"])
            .arg(fresh)
            .args(["c/testnode.c", "c/testnode_load.c", "c/testnode_mixed.c"])
            .args(more)
            .arg(library)
            .args(flags)
            .arg("-Wl,-rpath,$ORIGIN")
            .status()
            .expect("a C compiler called cc");
        assert!(status.success(), "the node in C does not compile");
    })
}

/// Whether SQLite is installed, for programs too. If not, that is said where the gate counts it.
pub(crate) fn has_sqlite() -> bool {
    let mut compiler = Command::new("cc");
    compiler.args(["-include", "sqlite3.h", "-shared", "-x", "c", "/dev/null", "-lsqlite3"]);
    let is_there = compiler.args(["-o", "/dev/null"]).output().is_ok_and(|it| it.status.success());
    if !is_there {
        support::not_run("SQLite (sqlite3.h and libsqlite3)");
    }
    is_there
}

/// Makes a file and renames it into place: another run may be using the old one, and another test be making its own.
fn put(folder: &Path, name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let nth = MADE.fetch_add(1, Ordering::Relaxed);
    let fresh = folder.join(format!("{name}-{}-{nth}", std::process::id()));
    make(&fresh);
    let placed = folder.join(name);
    std::fs::rename(fresh, &placed).expect("the file in its place");
    placed
}
