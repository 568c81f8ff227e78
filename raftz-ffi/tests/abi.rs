//! Programs that were compiled before go on with this library. `raftz-ffi/abi/baseline` holds the header of the last landing,
//! and a program as it was then; both are compiled here as they were, and must find all that they knew, where it was.
//! ARCHITECTURE.md says what may change: "What stays as it is".
//!
//! `make abi-baseline` puts the present header and program there (RAFTZ_WRITE_BASELINE=1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use c_host::header::{self, Struct, Typed};
use c_host::{Host, Link, has_tool, root, succeeds};

const WHAT_NOW: &str = "\
programs that were compiled with the last landing's raftz.h would break. Take it back if it was not meant; \
structs that begin with their size may grow at their end, everything else stays and new names are added (ARCHITECTURE.md). \
If it is meant: raise the minor version in Cargo.toml, which changes the soname, run `make header`, then `make abi-baseline`. \
Nothing but a break of what nobody has yet goes in without: `make abi-baseline BREAK=unreleased`";

/// Where the last landing is kept.
fn baseline(file: &str) -> PathBuf {
    root().join("raftz-ffi/abi/baseline").join(file)
}

fn last_landing() -> String {
    std::fs::read_to_string(baseline("raftz.h")).unwrap()
}

/// What the name of the shared library ends in.
fn soname(header: &str) -> (i128, i128) {
    let numbers = header::numbers_in(header);
    let major = numbers["RAFTZ_VERSION_MAJOR"];
    (major, if major == 0 { numbers["RAFTZ_VERSION_MINOR"] } else { 0 })
}

// ---- what stays, read from two headers ----

/// What programs that were compiled with `old` would miss in `new`, a sentence each.
fn missing(old: &str, new: &str) -> Vec<String> {
    let mut missing = missing_functions(old, new);
    missing.extend(missing_numbers(old, new));
    missing.extend(moved_fields(old, new));
    missing
}

fn missing_functions(old: &str, new: &str) -> Vec<String> {
    let types = |text: &str| -> BTreeMap<String, Vec<String>> {
        let functions = header::functions_in(text).into_iter();
        let of = |it: header::Function| {
            let all = std::iter::once(&it.result).chain(&it.parameters);
            (it.name.clone(), all.map(shown).collect())
        };
        functions.map(of).collect()
    };
    let new = types(new);
    let judge = |(name, was): (String, Vec<String>)| match new.get(&name) {
        None => Some(format!("{name}() is gone")),
        Some(is) if *is != was => Some(format!("{name}() was of {was:?} and is of {is:?}")),
        Some(_) => None,
    };
    types(old).into_iter().filter_map(judge).collect()
}

/// A type, without the name of what has it.
fn shown(it: &Typed) -> String {
    format!("{}{}[{}]", it.base, "*".repeat(it.stars), it.count)
}

fn missing_numbers(old: &str, new: &str) -> Vec<String> {
    let new = header::numbers_in(new);
    let may_rise = |name: &str| name.starts_with("RAFTZ_VERSION") || name == "RAFTZ_ABI_VERSION";
    let judge = |(name, was): (String, i128)| match new.get(&name) {
        None => Some(format!("{name} is gone")),
        Some(is) if *is != was && !may_rise(&name) => Some(format!("{name} was {was} and is {is}")),
        Some(_) => None,
    };
    header::numbers_in(old).into_iter().filter_map(judge).collect()
}

fn moved_fields(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (Layouts::of(old), Layouts::of(new));
    let mut moved = Vec::new();
    for (name, was) in &old.structs {
        let Some(is) = new.structs.get(name) else {
            moved.push(format!("{name} is gone"));
            continue;
        };
        let fields = old.fields(was);
        for (at, field) in fields.iter().enumerate() {
            if new.fields(is).get(at) != Some(field) {
                moved
                    .push(format!("{name}.{} is not what and where it was: {field:?}", field.name));
            }
        }
        let (size_was, size_is) = (old.size(was), new.size(is));
        let behind = new.fields(is).get(fields.len()).cloned();
        match behind {
            // Where older programs have padding they have anything.
            Some(field) if begins_with_size(was) && field.offset < size_was => {
                moved.push(format!("{name}.{} lies within the older struct's padding", field.name));
            }
            Some(_) if begins_with_size(was) => {}
            Some(_) | None if size_was == size_is => {}
            Some(_) | None => moved.push(format!("{name} had {size_was} bytes and has {size_is}")),
        }
    }
    for (name, was) in &old.unions {
        let Some(is) = new.unions.get(name) else {
            moved.push(format!("{name} is gone"));
            continue;
        };
        for member in was.fields.iter().filter(|it| !is.fields.contains(it)) {
            moved.push(format!("{name}.{} is not what it was", member.name));
        }
        if old.union_size(was) != new.union_size(is) {
            moved.push(format!("{name} has another size"));
        }
    }
    moved
}

/// Whether a struct may grow: both sides know how much of it the other has.
fn begins_with_size(it: &Struct) -> bool {
    it.fields.first().is_some_and(|first| first.name == "size" && first.base == "size_t")
}

/// A field, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: String,
    of: String,
    offset: usize,
    size: usize,
}

/// Where fields lie, by the rules of C on the machines that raftz is for.
struct Layouts {
    structs: BTreeMap<String, Struct>,
    unions: BTreeMap<String, Struct>,
}

impl Layouts {
    fn of(text: &str) -> Self {
        let by_name = |all: Vec<Struct>| all.into_iter().map(|it| (it.name.clone(), it)).collect();
        Self {
            structs: by_name(header::structs_in(text)),
            unions: by_name(header::unions_in(text)),
        }
    }

    /// Size and alignment of one.
    fn measure(&self, it: &Typed) -> (usize, usize) {
        match it.base.as_str() {
            _ if it.stars > 0 => (8, 8),
            "size_t" | "uint64_t" | "int64_t" => (8, 8),
            "uint32_t" | "int32_t" | "raftz_status" => (4, 4),
            "uint8_t" | "bool" => (1, 1),
            name if name.ends_with("_fn") => (8, 8),
            name => match self.unions.get(name) {
                Some(of) => (self.union_size(of), self.align(of)),
                None => {
                    let inner = &self.structs[name];
                    (self.size(inner), self.align(inner))
                }
            },
        }
    }

    fn align(&self, of: &Struct) -> usize {
        of.fields.iter().map(|it| self.measure(it).1).max().unwrap_or(1)
    }

    fn size(&self, of: &Struct) -> usize {
        let end = self.fields(of).last().map_or(0, |last| last.offset + last.size);
        end.next_multiple_of(self.align(of))
    }

    fn union_size(&self, of: &Struct) -> usize {
        let largest = of.fields.iter().map(|it| self.measure(it).0 * it.count).max();
        largest.unwrap_or_default().next_multiple_of(self.align(of))
    }

    fn fields(&self, of: &Struct) -> Vec<Field> {
        let mut end = 0_usize;
        let mut fields = Vec::new();
        for it in &of.fields {
            let (size, align) = self.measure(it);
            let offset = end.next_multiple_of(align);
            end = offset + size * it.count;
            let (name, of) = (it.name.clone(), shown(it));
            fields.push(Field { name, of, offset, size: end - offset });
        }
        fields
    }
}

#[test]
fn the_layouts_reckoned_here_are_the_pinned_ones() {
    let layouts = Layouts::of(&header::text());
    let mut reckoned = Vec::new();
    for (name, it) in &layouts.structs {
        reckoned.push(format!("{name} {}", layouts.size(it)));
        let fields = layouts.fields(it);
        reckoned
            .extend(fields.iter().map(|f| format!("{name}.{} {} {}", f.name, f.offset, f.size)));
    }
    let text = std::fs::read_to_string(root().join("tests/c/layout.txt")).unwrap();
    let mut pinned: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    reckoned.sort();
    pinned.sort_unstable();
    assert_eq!(reckoned, pinned);
}

// ---- the same by abidiff, which also looks at what functions of tables take ----

/// A source that uses every function, struct and field of a header, so that a compiler describes them. Fields by
/// themselves, because the rule that lets a struct grow hides what else has changed in it.
fn probe(text: &str) -> String {
    let mut source = "#include <raftz.h>\n".to_owned();
    for it in header::functions_in(text) {
        writeln!(source, "__typeof__({0}) *probe_{0} = {0};", it.name).unwrap();
    }
    for it in header::structs_in(text) {
        writeln!(source, "{0} *probe_{0};", it.name).unwrap();
        for field in &it.fields {
            let of = format!("(({} *)0)->{}", it.name, field.name);
            writeln!(source, "__typeof__({of}) probe_{}__{};", it.name, field.name).unwrap();
        }
    }
    source
}

/// What abidiff says of programs compiled with `old` that are run with `new`; nothing is good. `None`: there is no abidiff.
fn abidiff(old: &str, new: &str) -> Option<String> {
    if !has_tool("abidiff") || !has_tool("gcc") {
        return None;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let compile = |name: &str, text: &str| {
        let here = folder.path().join(name);
        std::fs::create_dir(&here).unwrap();
        std::fs::write(here.join("raftz.h"), text).unwrap();
        std::fs::write(here.join("probe.c"), probe(text)).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=c11", "-g", "-fPIC", "-shared", "-I."]).args(["probe.c", "-o", "probe.so"]);
        succeeds(gcc.current_dir(&here));
        here.join("probe.so")
    };
    let structs = header::structs_in(old);
    let may_grow: Vec<String> =
        structs.iter().filter(|it| begins_with_size(it)).map(|it| it.name.clone()).collect();
    let rules = folder.path().join("rules");
    let rule = format!(
        "[suppress_type]\nlabel = structs that begin with their size may grow at their end\ntype_kind = struct\n\
         name_regexp = ^({})$\nhas_size_change = yes\nhas_data_member_inserted_at = end\n",
        may_grow.join("|")
    );
    std::fs::write(&rules, rule).unwrap();
    let mut command = Command::new("abidiff");
    command.args(["--no-added-syms", "--suppressions"]).arg(rules);
    let compared = command.arg(compile("old", old)).arg(compile("new", new)).output().unwrap();
    let said = String::from_utf8_lossy(&compared.stdout).into_owned();
    let code = compared.status.code().unwrap();
    let words = String::from_utf8_lossy(&compared.stderr);
    // Bits: 1 and 2 are mistakes of the call, 4 and 8 differences.
    assert!(code & 3 == 0, "abidiff: {words}");
    Some(if code == 0 { String::new() } else { said })
}

// ---- the gate ----

#[test]
fn nothing_is_taken_from_programs_of_the_last_landing() {
    let new = header::text();
    let write = std::env::var("RAFTZ_WRITE_BASELINE").unwrap_or_default();
    // There may be none yet.
    let old = std::fs::read_to_string(baseline("raftz.h")).unwrap_or_else(|_| new.clone());
    let missing = missing(&old, &new);
    let different = abidiff(&old, &new).unwrap_or_default();
    let is_compatible = missing.is_empty() && different.is_empty();
    let is_renamed = soname(&old) != soname(&new);
    if write.is_empty() {
        assert!(is_compatible, "{WHAT_NOW}\n{missing:#?}\n{different}");
        assert!(!is_renamed, "the baseline is of another soname: run `make abi-baseline`");
        return;
    }
    assert!(
        is_compatible || is_renamed || write == "unreleased",
        "{WHAT_NOW}\n{missing:#?}\n{different}"
    );
    std::fs::create_dir_all(baseline("")).unwrap();
    for (from, to) in [("include/raftz.h", "raftz.h"), ("tests/c/landed.c", "landed.c")] {
        std::fs::copy(root().join(from), baseline(to)).unwrap();
    }
}

/// Compiled as they were then, linked with the library as it is now.
fn run_as_then(link: Link) {
    let Some(host) = Host::new() else { return };
    // Whatever they could call is there to be linked.
    let every = host.folder().join("every.c");
    std::fs::write(&every, probe(&last_landing())).unwrap();
    let here = ["raftz-ffi/abi/baseline"];
    let program = host.build_with(&here, &baseline("landed.c"), link, &[every.to_str().unwrap()]);
    succeeds(Command::new(program).arg(host.folder()));
}

#[test]
fn a_program_of_the_last_landing_runs_with_this_library() {
    run_as_then(Link::Shared);
}

#[test]
fn a_program_of_the_last_landing_runs_with_this_archive() {
    run_as_then(Link::Static);
}

// ---- is the gate blind? ----

/// The present header with one thing changed.
fn changed(from: &str, to: &str) -> String {
    let text = header::text();
    assert_eq!(text.matches(from).count(), 1, "the header has this once: {from}");
    text.replace(from, to)
}

/// What one change of the header comes to: what the headers say, and what abidiff says.
fn judged(new: &str) -> (Vec<String>, Option<String>) {
    let old = header::text();
    (missing(&old, new), abidiff(&old, new))
}

#[test]
fn what_would_break_programs_is_found() {
    let found = |what: &str, new: String, word: &str| {
        let (missing, different) = judged(&new);
        assert!(missing.iter().any(|it| it.contains(word)), "{what}: {missing:?}");
        assert!(different.is_none_or(|said| said.contains(word)), "{what} is nothing to abidiff");
    };
    let gone = changed("void raftz_event_free(struct raftz_event *event);", "");
    found("a function is gone", gone, "raftz_event_free");
    let other = changed(
        "uint64_t raftz_queue_dropped(const struct raftz_queue *queue);",
        "uint32_t raftz_queue_dropped(const struct raftz_queue *queue);",
    );
    found("a function gives something else", other, "raftz_queue_dropped");
    let taken = changed(
        "int32_t raftz_queue_fd(const struct raftz_queue *queue);",
        "int32_t raftz_queue_fd(const struct raftz_queue *queue, uint32_t which);",
    );
    found("a function takes more", taken, "raftz_queue_fd");
    let inserted =
        changed("    uint64_t calls_max;", "    uint64_t calls_min;\n    uint64_t calls_max;");
    found("a field comes between", inserted, "calls_max");
    let narrow = changed("    uint64_t events_max;", "    uint32_t events_max;");
    found("a field is smaller", narrow, "events_max");
    let grown = changed("    uint64_t reserved[2];\n", "    uint64_t reserved[3];\n");
    found("a frozen struct has grown", grown, "raftz_outcome");
}

#[test]
fn numbers_and_padding_are_looked_at_which_debug_information_does_not_show() {
    let found = |new: String, word: &str| {
        let missing = missing(&header::text(), &new);
        assert!(missing.iter().any(|it| it.contains(word)), "{missing:?}");
    };
    found(
        changed("#define RAFTZ_BUSY -3\n", "#define RAFTZ_BUSY -4\n"),
        "RAFTZ_BUSY was -3 and is -4",
    );
    found(changed("#define RAFTZ_EVENT_READY 3\n", ""), "RAFTZ_EVENT_READY is gone");
    found(
        changed("    struct raftz_input_read read;", "    struct raftz_input_read reading;"),
        "raftz_core_input_with.read is not what it was",
    );
    // A struct that ends in padding, which then gets a field there.
    let padded =
        changed("    uint64_t events_max;", "    uint64_t events_max;\n    uint32_t more;");
    let filled =
        padded.replace("    uint32_t more;", "    uint32_t more;\n    uint32_t even_more;");
    let missing = missing(&padded, &filled);
    assert!(missing.iter().any(|it| it.contains("even_more lies within")), "{missing:?}");
}

#[test]
fn what_a_table_s_function_takes_is_looked_at() {
    let new = changed(
        "    raftz_status (*snapshot_begin)(void *machine, struct raftz_sink *why, void **snapshot);",
        "    raftz_status (*snapshot_begin)(void *machine, struct raftz_sink *why, void **snapshot, uint64_t index);",
    );
    let (_, different) = judged(&new);
    assert!(different.is_none_or(|said| said.contains("snapshot_begin")));
}

#[test]
fn what_is_added_passes() {
    let function = changed(
        "uint32_t raftz_abi_version(void);",
        "uint32_t raftz_abi_version(void);\n\nuint32_t raftz_abi_revision(void);",
    );
    let field = changed("    uint64_t events_max;", "    uint64_t events_max;\n    uint64_t more;");
    let callback = changed(
        "    raftz_status (*applied_index)(void *machine, struct raftz_sink *why, uint64_t *index);",
        "    raftz_status (*applied_index)(void *machine, struct raftz_sink *why, uint64_t *index);\n    void (*more)(void *machine);",
    );
    let number = changed(
        "#define RAFTZ_CLOSED -105\n",
        "#define RAFTZ_CLOSED -105\n#define RAFTZ_MORE -106\n",
    );
    for new in [function, field, callback, number] {
        let (missing, different) = judged(&new);
        assert_eq!(missing, Vec::<String>::new());
        assert_eq!(different.unwrap_or_default(), "");
    }
}

/// So that the probe is known to have something in it.
#[test]
fn the_probe_uses_every_symbol() {
    let symbols = std::fs::read_to_string(root().join("raftz-ffi/abi/libraftz.sym")).unwrap();
    let probe = probe(&header::text());
    assert!(symbols.lines().count() > 50 && Path::new(&baseline("raftz.h")).exists());
    for name in symbols.lines() {
        assert!(probe.contains(&format!(" = {name};")), "{name}");
    }
}
