//! `raftz.hpp` beside `raftz.h`: it has all of it, says the same, and is documented.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use c_host::{header, root};

/// Functions that C++ calls as they are; and those of an error that say what its status says.
const PLAIN: &[&str] = &[
    "raftz_abi_version",
    "raftz_version",
    "raftz_version_text",
    "raftz_error_is_fatal",
    "raftz_error_is_outcome_unknown",
    "raftz_error_is_retriable",
    "raftz_error_status",
    // A store is a table of C functions in C++, too: it is set on native().
    "raftz_config_set_storage",
    "raftz_entries_fail",
    "raftz_entries_push",
    "raftz_storage_complete",
    "raftz_storage_conformance",
    // Who owns the event loop speaks C with the bare core, in C++, too.
    "raftz_core_fingerprint",
    "raftz_core_free",
    "raftz_core_new",
    "raftz_core_next_deadline",
    "raftz_core_snapshot_base",
    "raftz_core_status",
    "raftz_core_step",
    // So is a transport.
    "raftz_config_set_transport",
    "raftz_links_bytes_max",
    "raftz_links_deliver",
    "raftz_links_deliver_bytes",
    "raftz_links_down",
    "raftz_links_free",
    "raftz_links_ready",
    "raftz_links_unreachable",
    "raftz_links_up",
    // A simulation makes many machines of a table of C functions.
    "raftz_sim_chooser_below",
    "raftz_sim_chooser_fill",
    "raftz_sim_report_free",
    "raftz_sim_report_get",
    "raftz_sim_run",
];

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Every name of C in a text that begins with this.
fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with(prefix)).map(str::to_owned).collect()
}

#[test]
fn every_function_of_c_is_reached() {
    let text = text("include/raftz.hpp");
    let code = text.lines().filter(|line| {
        let line = line.trim();
        !line.starts_with("/*") && !line.starts_with('*')
    });
    let used = names(&code.collect::<Vec<_>>().join("\n"), "raftz_");
    let all: BTreeSet<String> = header::functions().into_iter().map(|it| it.name).collect();
    let plain = PLAIN.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
    let missing: Vec<&String> = all.difference(&used).filter(|it| !plain.contains(*it)).collect();
    assert!(
        missing.is_empty(),
        "raftz.hpp has nothing for {missing:?}; give it what there is to give, or name it in PLAIN"
    );
}

#[test]
fn every_part_of_the_cpp_header_is_documented() {
    let folder = root().join("target/doxygen-cpp");
    std::fs::create_dir_all(&folder).unwrap();
    let settings = folder.join("Doxyfile");
    let told = [
        "INPUT = include/raftz.hpp",
        "OUTPUT_DIRECTORY = target/doxygen-cpp",
        "EXCLUDE_SYMBOLS = raftz::detail* raftz::kv::detail*",
        "PREDEFINED = __cpp_exceptions=199711 __cplusplus=201703",
        "GENERATE_LATEX = NO",
        "HAVE_DOT = NO",
        "QUIET = YES",
        "WARN_IF_UNDOCUMENTED = YES",
        "WARN_IF_DOC_ERROR = YES",
        "WARN_AS_ERROR = FAIL_ON_WARNINGS",
    ];
    std::fs::write(&settings, told.join("\n")).unwrap();
    let made = Command::new("doxygen").arg(&settings).current_dir(root()).output();
    let Ok(made) = made else { return support::not_run("doxygen") };
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && said.trim().is_empty(), "{said}");
}
