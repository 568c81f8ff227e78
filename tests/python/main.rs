//! The Python package as its users get it: built, installed into an environment of its own, tested there by its
//! own tests, and checked by what checks types.
//!
//! What is built and installed stays below the target folder, so that the next run is quick.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod package;
#[path = "../../raftz-ffi/tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use package::{
    Environment, folder, only, place, python, root, said, succeeds, tools, wheel, with_wheel,
};

/// One at a time: they share folders, and the machine.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn the_wheel_is_for_every_later_python_and_has_all_that_belongs_to_it() {
    let _one = alone();
    if python().is_none() {
        return;
    }
    let name = wheel().file_name().unwrap().to_string_lossy();
    let (version, machine) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let (start, end) =
        (format!("raftz-{version}-cp311-abi3-manylinux_2_"), format!("_{machine}.whl"));
    assert!(name.starts_with(&start) && name.ends_with(&end), "{name}");
    let list = succeeds(with_wheel().command("python").args(["-m", "zipfile", "-l"]).arg(wheel()));
    for part in ["raftz/py.typed", "raftz/_raftz.pyi", "raftz/aio.py", "/licenses/LICENSE"] {
        assert!(list.contains(part), "{part} is not in the wheel:\n{list}");
    }
    let license = std::fs::read(root().join("LICENSE")).unwrap();
    assert_eq!(std::fs::read(folder().join("LICENSE")).unwrap(), license, "two licenses");
}

#[test]
fn the_packages_own_tests_pass_with_the_wheel() {
    let _one = alone();
    if python().is_some() {
        let mut pytest = with_wheel().command("pytest");
        println!("{}", succeeds(pytest.args(["-q", "-x", "-p", "no:cacheprovider"])));
    }
}

#[test]
fn the_source_package_builds_and_works_in_a_fresh_environment() {
    let _one = alone();
    if python().is_none() {
        return;
    }
    let sources = place().join("sdist");
    let _ = std::fs::remove_dir_all(&sources);
    succeeds(tools().command("maturin").args(["sdist", "--out"]).arg(&sources));
    let fresh = Environment::fresh("fresh");
    // As the release, but not optimized as a whole, which takes minutes.
    let profile = "--config-settings=build-args=--profile quick";
    fresh.install(&[profile, &only(&sources, ".tar.gz").display().to_string()]);
    let text = succeeds(fresh.command("python").args(["-m", "raftz", "demo"]));
    assert!(text.ends_with("PASS\n"), "{text}");
}

/// Types are right, and the stub says what the native half is.
#[test]
fn types_are_right_and_the_stub_is_true() {
    let _one = alone();
    if python().is_none() {
        return;
    }
    let all = with_wheel();
    let ours = [root().join("examples/python"), root().join("tests/python/testnode.py")];
    let ours =
        || [PathBuf::from("tests"), "benches/load.py".into()].into_iter().chain(ours.clone());
    succeeds(all.command("mypy").args(["--strict", "-p", "raftz"]).current_dir(place()));
    succeeds(all.command("mypy").arg("--strict").args(ours()));
    let mut pyright = all.command("basedpyright");
    pyright.args(["--level", "error", "--pythonpath"]).arg(all.program("python"));
    succeeds(pyright.arg("python/raftz").args(ours()));
    succeeds(all.command("stubtest").arg("raftz._raftz").current_dir(place()));
}

/// Both libraries in one process: they share no state.
#[test]
fn the_c_library_and_the_package_live_in_one_process() {
    let _one = alone();
    if python().is_none() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let text = succeeds(
        with_wheel()
            .command("python")
            .arg("tests/beside_c.py")
            .arg(root().join("tests/c/smoke.py"))
            .arg(program.parent().unwrap().join("libraftz.so"))
            .arg(root().join("include/raftz.h")),
    );
    assert_eq!(text, "ok\nok\n");
}

#[test]
fn without_rust_the_installation_says_what_is_missing() {
    let _one = alone();
    if python().is_none() {
        return;
    }
    let fresh = Environment::fresh("no-rust");
    let output = fresh
        .command("pip")
        .args(["install", "."])
        .env("PATH", fresh.program(""))
        .env("HOME", place())
        .output()
        .unwrap();
    let text = said(&output);
    assert!(!output.status.success() && text.contains("rustup.rs"), "{text}");
}
