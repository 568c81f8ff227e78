//! The header: made from the sources, committed, and good C and C++ by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn generated() -> cbindgen::Bindings {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    cbindgen::Builder::new().with_crate(folder).with_config(config).generate().unwrap()
}

/// Compares with what is committed; writes it first under RAFTZ_WRITE_HEADER=1.
fn same_as_committed(path: &Path, text: &str) {
    if std::env::var_os("RAFTZ_WRITE_HEADER").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is not what the sources make; run `make header` and look at the difference",
        path.display()
    );
}

#[test]
fn the_committed_header_is_what_the_sources_make() {
    let mut text = Vec::new();
    generated().write(&mut text);
    same_as_committed(&root().join("include/raftz.h"), &String::from_utf8(text).unwrap());
}

/// Every function that the header declares.
fn declared() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("include/raftz.h")).unwrap();
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '('));
    let calls = words.filter_map(|word| word.split_once('(').map(|(name, _)| name.to_owned()));
    let is_ours = |name: &String| name.starts_with("raftz_") && !name.ends_with("_fn");
    // The one that is no symbol: it is inline.
    calls.filter(is_ours).filter(|name| name != "raftz_text").collect()
}

/// What a build made of this package, beside this test's own program.
fn library(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().join(name)
}

fn output(program: &str, args: &[&str], path: &Path) -> String {
    let output = Command::new(program).args(args).arg(path).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn exactly_what_the_header_declares_is_exported() {
    let text = output("nm", &["-D", "--defined-only"], &library("libraftz.so"));
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.split(' ').nth(2).map(str::to_owned)).collect();
    let list: String = exported.iter().map(|name| format!("{name}\n")).collect();
    same_as_committed(&root().join("raftz-ffi/abi/libraftz.sym"), &list);
    // Where doc comments mention a function its name stands before a bracket, too.
    assert_eq!(exported, declared());
    assert!(exported.iter().all(|name| name.starts_with("raftz_")));
}

#[test]
fn the_library_has_its_name_by_version_and_stays_loaded() {
    let text = output("readelf", &["-d"], &library("libraftz.so"));
    let name = format!("[libraftz.so.{}]", "0.2");
    assert!(text.lines().any(|line| line.contains("SONAME") && line.contains(&name)), "{text}");
    assert!(text.contains("NODELETE"), "{text}");
}

#[test]
fn the_header_compiles_alone_and_twice_in_every_standard() {
    let folder = tempfile::tempdir().unwrap();
    let include = root().join("include");
    let mut twice =
        "#include <raftz.h>\n#include <raftz.h>\nint two(void);\nint two(void) {\n".to_owned();
    let text = std::fs::read_to_string(include.join("raftz.h")).unwrap();
    let initializers =
        text.lines().filter_map(|line| line.strip_prefix("#define RAFTZ_")?.split_once("_INIT "));
    for (name, _) in initializers {
        let object = name.to_lowercase();
        twice += &format!("  raftz_{object} {object} = RAFTZ_{name}_INIT;\n  (void){object};\n");
    }
    assert!(twice.contains("raftz_machine machine"), "{twice}");
    twice += "  return raftz_text(\"x\").len == 1 ? RAFTZ_OK : RAFTZ_EMPTY;\n}\n";
    let compilers = [
        ("gcc", "c", &["c99", "c11", "c2x"][..]),
        ("g++", "cpp", &["c++11", "c++17", "c++20"][..]),
    ];
    for (compiler, extension, standards) in compilers {
        let source = folder.path().join(format!("twice.{extension}"));
        std::fs::write(&source, &twice).unwrap();
        for standard in standards {
            let compiled = Command::new(compiler)
                .arg(format!("-std={standard}"))
                .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", "-o", "/dev/null", "-I"])
                .arg(&include)
                .arg(&source)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&compiled.stderr);
            assert!(compiled.status.success(), "{compiler} -std={standard}: {said}");
        }
    }
}

#[test]
fn every_part_of_the_header_is_documented() {
    let folder = root().join("target/doxygen");
    std::fs::create_dir_all(&folder).unwrap();
    let made = Command::new("doxygen").arg("raftz-ffi/Doxyfile").current_dir(root()).output();
    let Ok(made) = made else { return support::not_run("doxygen") };
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && said.trim().is_empty(), "{said}");
}
