//! The library is loaded by a language that knows nothing of C but its calling convention.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod support;

use std::process::Command;

#[test]
fn python_starts_a_node_and_sets_and_reads_a_key() {
    if !c_host::has_tool("python3") {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let said = c_host::succeeds(
        Command::new("python3")
            .arg(c_host::root().join("tests/c/smoke.py"))
            .arg(program.parent().unwrap().join("libraftz.so"))
            .arg(c_host::root().join("include/raftz.h")),
    );
    assert_eq!(said, "ok\n");
}
