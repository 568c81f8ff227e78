//! What several test programs of this crate share.

use std::io::Write;

/// Says that something was not tested for want of a tool, so that nobody takes silence for success.
///
/// A passing test's output stays hidden, so the name also goes to the file that `RAFTZ_NOT_RUN`
/// names, a line each; the gate counts them. Under `RAFTZ_REQUIRE_TOOLS=1` the test fails.
pub(crate) fn not_run(name: &str) {
    println!("NOT RUN: {name}");
    let required = std::env::var_os("RAFTZ_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!required, "NOT RUN: {name}; and RAFTZ_REQUIRE_TOOLS=1 wants all that there is");
    if let Some(path) = std::env::var_os("RAFTZ_NOT_RUN") {
        let list = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        // One write, so that tests which run at the same time do not mix their lines.
        let written = list.and_then(|mut list| list.write_all(format!("{name}\n").as_bytes()));
        assert!(written.is_ok(), "RAFTZ_NOT_RUN: {}: {written:?}", path.display());
    }
}
