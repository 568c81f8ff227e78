//! `make install`: everything in its place, and of use from any place, until `make uninstall`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Not as installed by users, which takes minutes: it differs by link-time optimization alone.
const PROFILE: &str = "quick";

/// A cluster of one, so that threads, sockets and the clock are linked and at work.
const PROGRAM: &str = r#"
#include <raftz.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    raftz_config *config = NULL;
    raftz_node *node = NULL;
    raftz_error *error = NULL;
    uint64_t leader_id = 0;
    if (raftz_version() != RAFTZ_VERSION || raftz_config_new(1, "c1a5", &config, &error) != RAFTZ_OK ||
        raftz_config_add_founder(config, 1, "127.0.0.1:1", &error) != RAFTZ_OK ||
        raftz_node_start(config, NULL, NULL, &node, &error) != RAFTZ_OK ||
        raftz_node_wait_for_leader(node, 60000, &leader_id, &error) != RAFTZ_OK) {
        fprintf(stderr, "%s\n", raftz_error_message(error));
        return 1;
    }
    raftz_node_free(node);
    raftz_config_free(config);
    printf("raftz %s, led by %u\n", raftz_version_text(), (unsigned)leader_id);
    return 0;
}
"#;

const PROJECT: &str = r#"
cmake_minimum_required(VERSION 3.15)
project(user C)

find_package(raftz @OTHER_ABI@ CONFIG QUIET)
if(raftz_FOUND)
  message(FATAL_ERROR "a version of another ABI was taken for ours")
endif()
find_package(raftz CONFIG REQUIRED)
find_package(raftz @VERSION@ EXACT CONFIG REQUIRED)

foreach(kind shared static)
  add_executable(${kind} program.c)
  target_link_libraries(${kind} PRIVATE raftz::${kind})
endforeach()
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn temporary_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs it, which must go well, and gives what it printed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}{said}");
    printed
}

/// Whether a tool is installed; if not, that is said.
fn has(tool: &str) -> bool {
    let is_there = Command::new(tool).arg("--version").output().is_ok();
    if !is_there {
        support::not_run(tool);
    }
    is_there
}

/// Only these variables count, not what a `make` around this test was given.
fn make(target: &str, variables: &[(&str, &Path)]) {
    let mut command = Command::new("make");
    command.current_dir(root()).args([target, &format!("PROFILE={PROFILE}")]);
    for inherited in ["MAKEFLAGS", "MAKEOVERRIDES", "PREFIX", "LIBDIR", "INCLUDEDIR", "DESTDIR"] {
        command.env_remove(inherited);
    }
    for (name, path) in variables {
        command.arg(format!("{name}={}", path.display()));
    }
    output(&mut command);
}

fn soname() -> String {
    let (major, rest) = VERSION.split_once('.').unwrap();
    let (minor, _) = rest.split_once('.').unwrap();
    if major == "0" { format!("libraftz.so.0.{minor}") } else { format!("libraftz.so.{major}") }
}

/// Every file below a folder, with what it points to if it is a link.
fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(inside) = folders.pop() {
        for entry in std::fs::read_dir(inside).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            match std::fs::read_link(&path) {
                Ok(target) => _ = files.insert(format!("{name} -> {}", target.display())),
                Err(_) if path.is_dir() => folders.push(path),
                Err(_) => _ = files.insert(name),
            }
        }
    }
    files
}

/// What an installation consists of.
fn all_files(lib: &str, include: &str) -> BTreeSet<String> {
    BTreeSet::from([
        format!("{include}/raftz.h"),
        format!("{include}/raftz.hpp"),
        format!("{lib}/libraftz.a"),
        format!("{lib}/libraftz.so.{VERSION}"),
        format!("{lib}/{} -> libraftz.so.{VERSION}", soname()),
        format!("{lib}/libraftz.so -> libraftz.so.{VERSION}"),
        format!("{lib}/pkgconfig/raftz.pc"),
        format!("{lib}/cmake/raftz/raftzConfig.cmake"),
        format!("{lib}/cmake/raftz/raftzConfigVersion.cmake"),
    ])
}

/// A prefix with an installation that was made elsewhere and moved here.
struct Moved {
    folder: tempfile::TempDir,
}

impl Moved {
    fn new() -> Self {
        let folder = temporary_folder();
        let before = folder.path().join("before");
        make("install", &[("PREFIX", &before)]);
        assert_eq!(files_below(&before), all_files("lib", "include"));
        let moved = Self { folder };
        std::fs::rename(before, moved.prefix()).unwrap();
        std::fs::write(moved.source(), PROGRAM).unwrap();
        moved
    }

    fn prefix(&self) -> PathBuf {
        self.folder.path().join("after")
    }

    fn lib(&self) -> PathBuf {
        self.prefix().join("lib")
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("program.c")
    }

    /// Compiles the program with these flags.
    fn compile<I: AsRef<OsStr>>(&self, name: &str, flags: impl IntoIterator<Item = I>) -> PathBuf {
        let program = self.folder.path().join(name);
        let mut command = Command::new("cc");
        command.args(["-Wall", "-Werror", "-o"]).arg(&program).arg(self.source()).args(flags);
        output(&mut command);
        program
    }

    /// A program needs the shared library by its soname, and finds it in the prefix.
    fn runs_shared(&self, program: &Path) {
        let link = self.lib().join("libraftz.so");
        let aside = self.lib().join("aside");
        // Who only runs programs has no link for compilers.
        std::fs::rename(&link, &aside).unwrap();
        runs(program);
        std::fs::rename(&aside, &link).unwrap();
        let named = self.lib().join(soname());
        std::fs::rename(&named, &aside).unwrap();
        let alone = Command::new(program).env_remove("LD_LIBRARY_PATH").output().unwrap();
        std::fs::rename(&aside, &named).unwrap();
        let said = String::from_utf8_lossy(&alone.stderr);
        assert!(!alone.status.success() && said.contains(&soname()), "{said}");
    }

    /// A program needs nothing of the prefix.
    fn runs_static(&self, program: &Path) {
        let aside = self.folder.path().join("aside");
        std::fs::rename(self.prefix(), &aside).unwrap();
        runs(program);
        std::fs::rename(&aside, self.prefix()).unwrap();
    }

    fn pkg_config(&self, args: &[&str]) -> String {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", self.lib().join("pkgconfig")).args(args).arg("raftz");
        output(&mut command).trim().to_owned()
    }
}

fn runs(program: &Path) {
    // Cargo shows this test libraries of its own.
    let printed = output(Command::new(program).env_remove("LD_LIBRARY_PATH"));
    assert_eq!(printed, format!("raftz {VERSION}, led by 1\n"));
}

/// The pc file's line of this name.
fn pc_field(lib: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(lib.join("pkgconfig/raftz.pc")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

#[test]
fn a_moved_installation_serves_compilers_pkg_config_and_cmake() {
    let moved = Moved::new();
    let include = format!("-I{}", moved.prefix().join("include").display());
    let rpath = format!("-Wl,-rpath,{}", moved.lib().display());

    let search = format!("-L{}", moved.lib().display());
    let plain = moved.compile("plain", [&include, &search, "-lraftz", &rpath]);
    moved.runs_shared(&plain);
    let archive = moved.lib().join("libraftz.a").display().to_string();
    let system_libs = pc_field(&moved.lib(), "Libs.private");
    let flags = [include.as_str(), &archive].into_iter().chain(system_libs.split(' '));
    moved.runs_static(&moved.compile("plain-static", flags));

    if has("pkg-config") {
        assert_eq!(moved.pkg_config(&["--modversion"]), VERSION);
        let flags = moved.pkg_config(&["--cflags", "--libs"]);
        let with_rpath = flags.split(' ').chain([rpath.as_str()]);
        moved.runs_shared(&moved.compile("pkg-config", with_rpath));
        // Of two libraries beside each other the linker would take the shared one.
        let flags = moved.pkg_config(&["--static", "--cflags", "--libs"]);
        assert!(flags.contains("-lraftz "), "{flags}");
        let flags = flags.replace("-lraftz ", "-l:libraftz.a ");
        moved.runs_static(&moved.compile("pkg-config-static", flags.split(' ')));
    }

    if has("cmake") {
        let (build, project) = (moved.folder.path().join("build"), moved.folder.path());
        let other_abi = if soname().ends_with(".0.0") { "0.1" } else { "0.0" };
        let text = PROJECT.replace("@VERSION@", VERSION).replace("@OTHER_ABI@", other_abi);
        std::fs::write(project.join("CMakeLists.txt"), text).unwrap();
        let prefix = format!("-DCMAKE_PREFIX_PATH={}", moved.prefix().display());
        output(Command::new("cmake").arg("-S").arg(project).arg("-B").arg(&build).arg(prefix));
        output(Command::new("cmake").arg("--build").arg(&build));
        moved.runs_shared(&build.join("shared"));
        moved.runs_static(&build.join("static"));
    }
}

#[test]
fn a_staged_installation_can_be_taken_away_again() {
    let folder = temporary_folder();
    let stage = folder.path().join("a stage");
    // Also where distributions put things: not side by side.
    let variables = [
        ("DESTDIR", stage.as_path()),
        ("PREFIX", Path::new("/opt/raftz-test")),
        ("LIBDIR", Path::new("/opt/raftz-test/lib/some-arch/")),
        ("INCLUDEDIR", Path::new("/opt//headers/raftz")),
    ];
    make("install", &variables);
    let lib = "opt/raftz-test/lib/some-arch";
    assert_eq!(files_below(&stage), all_files(lib, "opt/headers/raftz"));
    assert!(!Path::new("/opt/raftz-test").exists(), "it was only to be staged");
    for name in ["pkgconfig/raftz.pc", "cmake/raftz/raftzConfig.cmake"] {
        let text = std::fs::read_to_string(stage.join(lib).join(name)).unwrap();
        assert!(!text.contains("stage"), "{text}");
        assert!(text.contains("libdir}/../../../headers/raftz"), "{text}");
    }

    // Over an older one, and past what belongs to others.
    make("install", &variables);
    let neighbour = format!("{lib}/pkgconfig/neighbour.pc");
    std::fs::write(stage.join(&neighbour), "Name: neighbour\n").unwrap();
    make("uninstall", &variables);
    assert_eq!(files_below(&stage), BTreeSet::from([neighbour]));
    assert!(!stage.join(lib).join("cmake/raftz").exists());
    make("uninstall", &variables);
}

#[test]
fn the_static_link_line_is_the_one_that_the_compiler_gives() {
    let folder = temporary_folder();
    make("install", &[("PREFIX", folder.path())]);
    let from_environment = |name, otherwise: &str| {
        std::env::var_os(name).map_or_else(|| PathBuf::from(otherwise), PathBuf::from)
    };
    let built = root()
        .join(from_environment("CARGO_TARGET_DIR", "target"))
        .join(from_environment("CARGO_BUILD_TARGET", ""))
        .join(PROFILE);
    let source = folder.path().join("user.rs");
    std::fs::write(&source, "extern crate raftz;\n").unwrap();
    // A crate around the library rather than the library itself, which would be built again.
    let mut command = Command::new(from_environment("RUSTC", "rustc"));
    command
        .args(["--edition=2024", "--crate-type=staticlib", "--print=native-static-libs"])
        .arg("--out-dir")
        .arg(folder.path())
        .arg(format!("-Ldependency={}", built.join("deps").display()))
        .arg(format!("--extern=raftz={}", built.join("libraftz.rlib").display()))
        .arg(&source);
    let printed = command.output().unwrap();
    let said = String::from_utf8(printed.stderr).unwrap();
    let line = said.lines().find_map(|line| line.split_once("native-static-libs: "));
    let (_, libs) = line.unwrap_or_else(|| panic!("{command:?}: {said}"));
    assert_eq!(pc_field(&folder.path().join("lib"), "Libs.private"), libs);
}
