//! In which language a node's program is written: Rust on the core, or C on libraftz.so. Both speak
//! the same lines and understand each other's directories.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::Cluster;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    C,
}

impl Language {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Rust => Self::C,
            Self::C => Self::Rust,
        }
    }

    fn program(self) -> &'static Path {
        match self {
            Self::Rust => Path::new(env!("CARGO_BIN_EXE_raftz-testnode")),
            Self::C => program_in_c(),
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
    BUILT.get_or_init(|| {
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
        let sources = ["testnode.c", "testnode_load.c", "testnode_mixed.c"]
            .map(|name| tests.join("c").join(name));
        put(&folder, "raftz-testnode", |fresh| {
            let status = Command::new("cc")
                .args(["-std=c11", "-O1", "-g", "-pthread"])
                .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
                .arg(tests.join("../include"))
                .arg("-o")
                .arg(fresh)
                .args(sources)
                .arg(library)
                .arg("-Wl,-rpath,$ORIGIN")
                .status()
                .expect("a C compiler called cc");
            assert!(status.success(), "the node in C does not compile");
        })
    })
}

/// Makes a file and renames it into place: another run may be using the old one.
fn put(folder: &Path, name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let fresh = folder.join(format!("{name}-{}", std::process::id()));
    make(&fresh);
    let placed = folder.join(name);
    std::fs::rename(fresh, &placed).expect("the file in its place");
    placed
}
