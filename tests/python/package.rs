//! The Python package, built and installed below the target folder, for tests of this crate.
#![allow(dead_code, reason = "no test program uses all of it")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The package's own folder.
pub(crate) fn folder() -> PathBuf {
    root().join("bindings/python")
}

/// Where everything of these tests is.
pub(crate) fn place() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("python")
}

/// A Python of at least 3.11 with venv; if there is none, that is said.
pub(crate) fn python() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&'static str>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
        let fits = |name: &&'static str| {
            Command::new(name).args(["-c", check]).output().is_ok_and(|out| out.status.success())
        };
        let found = ["python3", "python3.11", "python3.12", "python3.13"]
            .iter()
            .copied()
            .find(|it| fits(it));
        if found.is_none() {
            crate::support::not_run("the Python package: no python3-venv of 3.11 or later");
        }
        found
    })
}

/// What a program has said.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs what must succeed.
#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said(&output));
    said(&output)
}

/// An environment of Python's with these things in it.
pub(crate) struct Environment(PathBuf);

impl Environment {
    /// One that is made anew.
    pub(crate) fn fresh(name: &str) -> Self {
        let _ = std::fs::remove_dir_all(place().join(name));
        Self::kept(name)
    }

    /// One that may be there from an earlier run.
    pub(crate) fn kept(name: &str) -> Self {
        let folder = place().join(name);
        if !folder.join("bin/pip").exists() {
            std::fs::create_dir_all(place()).unwrap();
            succeeds(Command::new(python().unwrap()).args(["-m", "venv"]).arg(&folder));
        }
        Self(folder)
    }

    /// Where a program of it is.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }

    /// A program of it; what cargo builds on its behalf goes where everything is built, so that little is built twice.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        command
            .current_dir(folder())
            .env("CARGO_TARGET_DIR", place().parent().and_then(Path::parent).unwrap())
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("RUSTFLAGS");
        command
    }

    /// Installs packages into it.
    pub(crate) fn install(&self, what: &[&str]) {
        succeeds(self.command("pip").args(["install", "--quiet"]).args(what));
    }
}

/// The folder is one test program's at a time, until its process ends.
fn claimed() {
    static CLAIM: OnceLock<File> = OnceLock::new();
    CLAIM.get_or_init(|| {
        std::fs::create_dir_all(place()).unwrap();
        let file = File::create(place().join("lock")).unwrap();
        file.lock().unwrap();
        file
    });
}

/// The environment with the tools that build and check.
pub(crate) fn tools() -> &'static Environment {
    static MADE: OnceLock<Environment> = OnceLock::new();
    MADE.get_or_init(|| {
        claimed();
        let tools = Environment::kept("tools");
        tools.install(&["--requirement", "tests/requirements.txt"]);
        tools
    })
}

/// The one file of this kind in a folder.
pub(crate) fn only(folder: &Path, ending: &str) -> PathBuf {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> =
        paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

/// The wheel, built once a run.
pub(crate) fn wheel() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = place().join("wheel");
        let _ = std::fs::remove_dir_all(&folder);
        succeeds(
            tools()
                .command("maturin")
                .args(["build", "--profile", "quick", "--locked", "--out"])
                .arg(&folder),
        );
        only(&folder, ".whl")
    })
}

/// The environment with the tools and the wheel.
pub(crate) fn with_wheel() -> &'static Environment {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let path = wheel().display().to_string();
        tools().install(&["--force-reinstall", "--no-deps", &path]);
    });
    tools()
}
