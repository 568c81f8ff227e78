//! Every function of the header, called with everything that is wrong with its arguments. The cases are
//! generated from the header: from the types what can be wrong, from the documentation what must come of it.
//! A function that has no case, or a type that has no good value, fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use c_host::header::{self, Function, Typed, told};
use c_host::{Host, Link, succeeds};

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Status(&'static str),
    /// Something that the header tells of.
    Documented,
    /// As before, but a NULL was welcome.
    NotNullArg,
    /// What the documentation gives for NULL, or nothing to look at.
    Value(&'static str),
}

/// An argument that is not the good one.
struct Instead<'a> {
    parameter: &'a str,
    setup: String,
    expression: String,
}

/// A struct that begins with its size, and fields of it with numbers that it cannot have.
struct Sized {
    name: &'static str,
    numbers: &'static [(&'static str, &'static str, &'static str)],
}

const IN: &[Sized] = &[
    Sized {
        name: "raftz_propose_opts",
        numbers: &[
            ("forward", "3", "RAFTZ_INVALID_ARG"),
            ("forward", "UINT32_MAX", "RAFTZ_INVALID_ARG"),
        ],
    },
    Sized {
        name: "raftz_read_opts",
        numbers: &[
            ("level", "5", "RAFTZ_INVALID_ARG"),
            ("level", "UINT32_MAX", "RAFTZ_INVALID_ARG"),
        ],
    },
    Sized { name: "raftz_queue_opts", numbers: &[] },
    Sized {
        name: "raftz_start_opts",
        numbers: &[
            ("builtin", "2", "RAFTZ_INVALID_ARG"),
            ("builtin", "UINT32_MAX", "RAFTZ_INVALID_ARG"),
            ("listen_fd", "-1", "RAFTZ_INVALID_ARG"),
            ("listen_fd", "INT32_MAX", "RAFTZ_INVALID_ARG"),
        ],
    },
    Sized {
        name: "raftz_machine",
        numbers: &[
            ("flags", "2", "RAFTZ_INVALID_ARG"),
            ("flags", "UINT32_MAX", "RAFTZ_INVALID_ARG"),
            ("abi_version", "0", "RAFTZ_ABI_MISMATCH"),
            ("abi_version", "RAFTZ_ABI_VERSION + 1", "RAFTZ_ABI_MISMATCH"),
            ("apply", "NULL", "RAFTZ_NULL_ARG"),
            ("snapshot_end", "on_destroy", "RAFTZ_INVALID_ARG"),
            ("applied_index", "on_applied_index", "RAFTZ_MACHINE"),
        ],
    },
    Sized {
        name: "raftz_storage",
        numbers: &[
            ("flags", "2", "RAFTZ_INVALID_ARG"),
            ("flags", "UINT32_MAX", "RAFTZ_INVALID_ARG"),
            ("abi_version", "0", "RAFTZ_ABI_MISMATCH"),
            ("abi_version", "RAFTZ_ABI_VERSION + 1", "RAFTZ_ABI_MISMATCH"),
            ("open", "NULL", "RAFTZ_NULL_ARG"),
            ("load", "NULL", "RAFTZ_NULL_ARG"),
            ("submit", "NULL", "RAFTZ_NULL_ARG"),
            ("read", "NULL", "RAFTZ_NULL_ARG"),
        ],
    },
    Sized {
        name: "raftz_transport",
        numbers: &[
            ("flags", "1", "RAFTZ_INVALID_ARG"),
            ("flags", "UINT32_MAX", "RAFTZ_INVALID_ARG"),
            ("abi_version", "0", "RAFTZ_ABI_MISMATCH"),
            ("abi_version", "RAFTZ_ABI_VERSION + 1", "RAFTZ_ABI_MISMATCH"),
            ("open", "NULL", "RAFTZ_NULL_ARG"),
            ("send", "NULL", "RAFTZ_NULL_ARG"),
            ("end", "NULL", "RAFTZ_NULL_ARG"),
        ],
    },
    Sized {
        name: "raftz_conformance_opts",
        numbers: &[
            ("flags", "2", "RAFTZ_INVALID_ARG"),
            ("flags", "UINT32_MAX", "RAFTZ_INVALID_ARG"),
        ],
    },
    Sized {
        name: "raftz_core_opts",
        numbers: &[
            ("flags", "4", "RAFTZ_INVALID_ARG"),
            ("flags", "0", "RAFTZ_STORAGE"),
            ("flags", "UINT32_MAX", "RAFTZ_INVALID_ARG"),
            ("abi_version", "0", "RAFTZ_ABI_MISMATCH"),
            ("abi_version", "RAFTZ_ABI_VERSION + 1", "RAFTZ_ABI_MISMATCH"),
            ("record", "(raftz_slice){NULL, 1}", "RAFTZ_NULL_ARG"),
            ("record", "good.slice; opts.it.record.len = SIZE_MAX", "RAFTZ_INVALID_ARG"),
            ("record", "good.slice", "RAFTZ_STORAGE"),
            ("record", "good.slice; opts.it.flags = 0", "RAFTZ_STORAGE"),
            ("entry_count", "1", "RAFTZ_NULL_ARG"),
            ("entries", "&good.slice; opts.it.entry_count = SIZE_MAX / 16", "RAFTZ_INVALID_ARG"),
            ("entries", "&good.bad_commands[1]; opts.it.entry_count = 1", "RAFTZ_NULL_ARG"),
            ("entries", "&good.slice; opts.it.entry_count = 1", "RAFTZ_STORAGE"),
            ("snapshot", "&(const raftz_snapshot){{0, 0, 0, {0}}, good.slice}", "RAFTZ_STORAGE"),
            ("flags", "3; opts.it.machine_applied = 1", "RAFTZ_INVALID_ARG"),
        ],
    },
    Sized {
        name: "raftz_sim_opts",
        numbers: &[
            ("duration_us", "3600000001", "RAFTZ_INVALID_ARG"),
            ("duration_us", "UINT64_MAX", "RAFTZ_INVALID_ARG"),
            ("shrink_runs", "UINT64_MAX", "RAFTZ_OK"),
            ("without.len", "1", "RAFTZ_NULL_ARG"),
            ("without", "raftz_text(\"flood\")", "RAFTZ_INVALID_ARG"),
            ("skip", "raftz_text(\"9-5\")", "RAFTZ_INVALID_ARG"),
            ("skip", "raftz_text(\"\\xff\")", "RAFTZ_BAD_UTF8"),
        ],
    },
];
const OUT: &[&str] = &[
    "raftz_event_info",
    "raftz_state_info",
    "raftz_peer_info",
    "raftz_kv_reply_info",
    "raftz_reply",
    "raftz_metrics_info",
    "raftz_peer_metrics_info",
    "raftz_standing_info",
    "raftz_core_info",
    "raftz_sim_report_info",
];
/// Numbers by themselves: of which function and parameter.
const NUMBERS: &[(&str, &str, &str, Wanted)] = &[
    ("raftz_config_set_log", "level", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_config_set_log", "level", "6", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_config_set_log", "level", "UINT32_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_config_set_event_callback", "kinds", "1u << 18", Wanted::Status("RAFTZ_UNSUPPORTED")),
    ("raftz_config_set_event_callback", "kinds", "1ull << 63", Wanted::Status("RAFTZ_UNSUPPORTED")),
    ("raftz_config_set_event_callback", "kinds", "0", Wanted::Status("RAFTZ_OK")),
    ("raftz_config_set_event_queue", "kinds", "1u << 18", Wanted::Status("RAFTZ_UNSUPPORTED")),
    (
        "raftz_config_set_event_queue",
        "kinds",
        "UINT64_MAX - 1",
        Wanted::Status("RAFTZ_UNSUPPORTED"),
    ),
    ("raftz_kv_reply_read", "flags", "UINT32_MAX", Wanted::Documented),
    ("raftz_kv_reply_read", "flags", "RAFTZ_OUTCOME_UNKNOWN", Wanted::Documented),
    ("raftz_config_set_bool", "is_on", "255", Wanted::Status("RAFTZ_OK")),
    ("raftz_config_new", "node_id", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_config_add_founder", "node_id", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_config_set_number", "number", "UINT64_MAX", Wanted::Documented),
    ("raftz_config_key", "at", "SIZE_MAX", Wanted::Value("value == NULL")),
    ("raftz_state_peer", "at", "SIZE_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_kv_reply_entry", "at", "SIZE_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_status_name", "status", "INT32_MIN", Wanted::Value("strcmp(value, \"RAFTZ_?\") == 0")),
    ("raftz_propose_batch", "count", "SIZE_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_propose_batch", "count", "0", Wanted::Status("RAFTZ_OK")),
    ("raftz_propose_queued", "count", "SIZE_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_propose_queued", "count", "SIZE_MAX / 16", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_node_wait_for_applied", "index", "UINT64_MAX", Wanted::Status("RAFTZ_APPLY_TIMEOUT")),
    (
        "raftz_transfer_leadership_wait",
        "target_id",
        "UINT64_MAX",
        Wanted::Status("RAFTZ_TRANSFER_TARGET"),
    ),
    ("raftz_transfer_leadership_wait", "target_id", "1", Wanted::Status("RAFTZ_TRANSFER_TARGET")),
    ("raftz_queue_next", "timeout_ms", "0", Wanted::Documented),
    ("raftz_watch_wait", "timeout_ms", "0", Wanted::Documented),
    ("raftz_watch_wait", "after_version", "UINT64_MAX", Wanted::Documented),
    ("raftz_metrics_peer", "peer_id", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_metrics_peer", "peer_id", "UINT64_MAX", Wanted::Status("RAFTZ_OK")),
    ("raftz_storage_complete", "number", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_storage_complete", "number", "1", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_storage_complete", "number", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_core_new", "boot_us", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_core_new", "wall_us", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_core_step", "boot_us", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_core_step", "wall_us", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_core_snapshot_base", "index", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_core_snapshot_base", "index", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_core_snapshot_base", "log_time_us", "UINT64_MAX", Wanted::Status("RAFTZ_OK")),
    ("raftz_links_up", "peer_id", "0", Wanted::Status("RAFTZ_OK")),
    ("raftz_links_up", "peer_id", "UINT64_MAX", Wanted::Status("RAFTZ_OK")),
    ("raftz_links_deliver", "link", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_links_deliver", "link", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_links_deliver_bytes", "link", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_links_ready", "link", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_links_ready", "link", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_links_down", "link", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_links_down", "link", "UINT64_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_links_unreachable", "peer_id", "0", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_links_unreachable", "peer_id", "UINT64_MAX", Wanted::Status("RAFTZ_OK")),
    ("raftz_sim_chooser_below", "count", "0", Wanted::Value("value == 0")),
    ("raftz_sim_chooser_below", "count", "UINT64_MAX", Wanted::Documented),
    ("raftz_sim_chooser_fill", "capacity", "SIZE_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
    ("raftz_source_read", "capacity", "0", Wanted::Documented),
    ("raftz_source_read", "capacity", "SIZE_MAX", Wanted::Documented),
];

/// One argument: what is declared for it, what is passed, and what is looked at and freed afterwards.
#[derive(Default)]
struct Argument {
    setup: String,
    expression: String,
    after: String,
}

fn argument(function: &Function, it: &Typed) -> Argument {
    let (base, name) = (it.base.as_str(), it.name.as_str());
    let of =
        |expression: &str| Argument { expression: expression.to_owned(), ..Argument::default() };
    let is_free = function.name.ends_with("_free");
    match (base, it.stars) {
        ("raftz_error", 2) => {
            Argument { setup: "raftz_error *error = NULL;".into(), ..of("&error") }
        }
        // A place for one output.
        (_, 2) if !it.is_const => Argument {
            setup: format!("{base} *{name}; memset(&{name}, FILLING, sizeof {name});"),
            expression: format!("&{name}"),
            after: format!(
                "if (status == RAFTZ_OK) {{ {base}_free({name}); }} else {{ CHECK(is_full_of(&{name}, 0, sizeof {name}, FILLING)); }}"
            ),
        },
        ("raftz_slice" | "uint64_t" | "size_t" | "bool", 1) if !it.is_const => Argument {
            setup: format!("{base} {name}; memset(&{name}, FILLING, sizeof {name});"),
            expression: format!("&{name}"),
            after: format!(
                "if (status != RAFTZ_OK) {{ CHECK(is_full_of(&{name}, 0, sizeof {name}, FILLING)); }}"
            ),
        },
        // They belong to the core.
        ("raftz_core_action", 2) => Argument {
            setup: format!("const {base} *{name}; memset(&{name}, FILLING, sizeof {name});"),
            expression: format!("&{name}"),
            after: format!(
                "if (status != RAFTZ_OK) {{ CHECK(is_full_of(&{name}, 0, sizeof {name}, FILLING)); }}"
            ),
        },
        ("raftz_core_input", 1) => Argument {
            setup: format!("raftz_core_input {name} = RAFTZ_CORE_INPUT_INIT;"),
            ..of(&format!("&{name}"))
        },
        ("uint8_t", 1) => Argument { setup: format!("uint8_t {name}[8];"), ..of(name) },
        (_, 1) if OUT.contains(&base) => out_struct(base, name, &format!("sizeof({base})")),
        (_, 1) if IN.iter().any(|known| known.name == base) => Argument {
            setup: in_struct(base, name, &format!("sizeof({base})")),
            ..of(&format!("&{name}.it"))
        },
        ("raftz_replies", 1) => of("good.replies"),
        ("raftz_sink", 1) => of("good.sink"),
        ("raftz_entries", 1) => of("good.entries"),
        ("raftz_sim_chooser", 1) => of("good.chooser"),
        // Nothing restores a snapshot in this version.
        ("raftz_source", 1) => of("NULL"),
        ("raftz_config", 1) if !is_free => Argument {
            setup: format!("raftz_config *{name} = fresh_raftz_config();"),
            expression: name.to_owned(),
            after: format!("raftz_config_free({name});"),
        },
        ("raftz_node", 1) if function.name == "raftz_node_stop" => Argument {
            setup: format!("raftz_node *{name} = fresh_raftz_node();"),
            expression: name.to_owned(),
            after: format!("raftz_node_free({name});"),
        },
        ("raftz_queue", 1) if function.name == "raftz_queue_close" => Argument {
            setup: format!("raftz_queue *{name} = fresh_raftz_queue();"),
            expression: name.to_owned(),
            after: format!("raftz_queue_free({name});"),
        },
        ("raftz_bytes", 1) if !it.is_const => of("fresh_raftz_bytes()"),
        (_, 1) if is_free => of(&format!("fresh_{base}()")),
        ("raftz_slice", 1) => of(if name == "commands" { "good.commands" } else { "&good.slice" }),
        ("void", 1) => of("&good"),
        ("char", 1) => of(match (name, function.name.as_str()) {
            ("key", "raftz_config_set_bool") => "\"forward\"",
            ("key", _) => "\"heartbeat_interval_ms\"",
            ("text", _) => "\"49\"",
            ("cluster_id", _) => "\"c1\"",
            ("address", _) => "\"127.0.0.1:7002\"",
            ("path", _) => "\"nowhere\"",
            (other, function) => panic!("no good text for {other} of {function}"),
        }),
        (handle, 1) => of(&format!("good.{}", handle.trim_start_matches("raftz_"))),
        ("raftz_slice", 0) if function.name == "raftz_kv_reply_read" => {
            of("raftz_bytes_slice(good.answer)")
        }
        ("raftz_slice", 0) if name == "request" => of("raftz_bytes_slice(good.bytes)"),
        ("raftz_slice", 0) => of("good.slice"),
        ("raftz_done_fn", 0) => of("on_done"),
        ("raftz_batch_done_fn", 0) => of("on_batch"),
        ("raftz_event_fn", 0) => of("on_event"),
        ("raftz_log_fn", 0) => of("on_log"),
        ("raftz_destroy_fn", 0) => of("on_destroy"),
        ("raftz_free_fn", 0) => of("on_free"),
        (_, 0) => of(match name {
            "node_id" | "peer_id" | "index" | "is_on" | "by" | "boot_us" | "wall_us"
            | "log_time_us" => "1",
            "number" => "49",
            "seed" => "7",
            "kinds" => "RAFTZ_EVENTS_ALL",
            "level" => "RAFTZ_LOG_INFO",
            "at" | "flags" | "target_id" | "after_version" => "0",
            "count" => "2",
            "limit" => "9",
            "capacity" => "8",
            "link" => "fresh_link()",
            "status" => "RAFTZ_BUSY",
            "timeout_ms" if function.name.contains("wait_for") => "50",
            // Where it is to be done, and not only to be begun.
            "timeout_ms" if ["stop", "snapshot"].iter().any(|it| function.name.contains(it)) => {
                "60000"
            }
            "timeout_ms" => "1",
            other => panic!("no good value for {base} {other} of {}", function.name),
        }),
        (_, _) => panic!("no good value for {it:?} of {}", function.name),
    }
}

fn in_struct(base: &str, name: &str, size: &str) -> String {
    let upper = base.trim_start_matches("raftz_").to_uppercase();
    let more = match base {
        "raftz_read_opts" => format!("{name}.it.level = RAFTZ_READ_STALE;"),
        "raftz_start_opts" => format!("{name}.it.network = good.network;"),
        "raftz_machine" => format!(
            "{name}.it.create = on_create; {name}.it.apply = on_apply; {name}.it.user_data = &good;"
        ),
        "raftz_sim_opts" => format!("{name}.it.duration_us = 100000;"),
        "raftz_storage" => format!("{name}.it = disk_table(fresh_disk());"),
        "raftz_transport" => format!("{name}.it = nowhere();"),
        "raftz_core_opts" => format!("{name}.it.flags = RAFTZ_CORE_FOUNDS;"),
        _ => String::new(),
    };
    format!(
        "struct {{ {base} it; unsigned char tail[64]; }} {name} = {{RAFTZ_{upper}_INIT, {{0}}}}; {more} {name}.it.size = {size};"
    )
}

/// After success exactly so many bytes are written; after failure none but those of the size.
fn out_struct(base: &str, name: &str, size: &str) -> Argument {
    let free = if base == "raftz_reply" {
        format!("raftz_bytes_free({name}.it.bytes);")
    } else {
        String::new()
    };
    Argument {
        setup: format!(
            "struct {{ {base} it; unsigned char tail[64]; }} {name}; memset(&{name}, FILLING, sizeof {name}); {name}.it.size = {size};"
        ),
        expression: format!("&{name}.it"),
        after: format!(
            "CHECK({name}.it.size == (size_t)({size})); \
             if (status != RAFTZ_OK) {{ CHECK(is_full_of(&{name}, sizeof(size_t), sizeof {name}, FILLING)); }} \
             else {{ if ({name}.it.size > sizeof({base})) {{ CHECK(is_full_of(&{name}, sizeof({base}), {name}.it.size, 0)); }} \
             CHECK(is_full_of(&{name}, {name}.it.size, sizeof {name}, FILLING)); {free} }}"
        ),
    }
}

/// The generated program.
struct Program<'a> {
    functions: &'a BTreeMap<String, Function>,
    code: String,
    names: Vec<(String, &'static str)>,
    counts: BTreeMap<String, usize>,
}

impl Program<'_> {
    fn case(
        &mut self,
        function: &Function,
        what: &str,
        instead: &[Instead<'_>],
        wanted: Wanted,
        place: Option<&'static str>,
    ) {
        let bases: Vec<&str> = function.parameters.iter().map(|it| it.base.as_str()).collect();
        let place = place.unwrap_or(if bases.contains(&"raftz_replies") {
            "IN_APPLY"
        } else if bases.contains(&"raftz_sink") {
            "IN_QUERY"
        } else if bases.contains(&"raftz_entries") {
            "IN_READ"
        } else if bases.contains(&"raftz_sim_chooser") {
            "IN_WORKLOAD"
        } else {
            "ANYWHERE"
        });
        let (mut setup, mut passed, mut after) = (String::new(), Vec::new(), String::new());
        let mut has_error = false;
        for it in &function.parameters {
            let mut argument = argument(function, it);
            if let Some(other) = instead.iter().find(|other| other.parameter == it.name) {
                // What was to be looked at is not there.
                argument = Argument {
                    setup: other.setup.clone(),
                    expression: other.expression.clone(),
                    after: String::new(),
                };
                if OUT.contains(&it.base.as_str()) && !other.setup.is_empty() {
                    let size = other.setup.rsplit("size = ").next().unwrap().trim_end_matches(';');
                    argument.after = out_struct(&it.base, &it.name, size).after;
                }
            } else if it.base == "raftz_error" && it.stars == 2 {
                has_error = true;
            }
            writeln!(setup, "    {}", argument.setup).unwrap();
            passed.push(argument.expression);
            writeln!(after, "    {}", argument.after).unwrap();
        }
        let number = self.names.len();
        let call = format!("{}({})", function.name, passed.join(", "));
        let (base, stars) = (function.result.base.as_str(), function.result.stars);
        let body = if (base, stars) == ("void", 0) {
            format!("    {call};\n")
        } else if is_status(function) {
            self.status(function, &call, wanted, has_error, &passed)
        } else {
            let pointer = if stars == 1 { "const char *" } else { base };
            let look = match wanted {
                Wanted::Value(look) => look,
                Wanted::Status(_) | Wanted::Documented | Wanted::NotNullArg => {
                    let is_text = stars == 1 && function.words.contains("never NULL");
                    if is_text { "value != NULL" } else { "true" }
                }
            };
            format!("    {pointer} value = {call};\n    (void)value;\n    CHECK({look});\n")
        };
        write!(self.code, "static void case_{number}(void) {{\n{setup}{body}{after}}}\n\n")
            .unwrap();
        self.names.push((format!("{}: {what}", function.name), place));
        *self.counts.entry(function.name.clone()).or_default() += 1;
    }

    fn status(
        &self,
        function: &Function,
        call: &str,
        wanted: Wanted,
        has_error: bool,
        passed: &[String],
    ) -> String {
        let told = told(self.functions, function).join(", ");
        let wanted = match wanted {
            Wanted::Status(status) => status,
            Wanted::Documented => "DOCUMENTED",
            Wanted::NotNullArg => "NOT_NULL_ARG",
            Wanted::Value(_) => panic!("{} has a status", function.name),
        };
        let error = if has_error { "error" } else { "NULL" };
        let mut body = format!(
            "    raftz_status status = {call};\n    static const raftz_status told[] = {{{told}}};\n    judge(status, {wanted}, told, sizeof told / sizeof *told, {has_error}, {error});\n"
        );
        let mut count = |tally: &str, when: &str| {
            writeln!(body, "    if ({when}) {{ tally_add(&{tally}, 1); }}").unwrap();
        };
        let passes = |expression: &str| passed.iter().any(|it| it == expression);
        if passes("on_done") || passes("on_batch") {
            count("accepted", "status == RAFTZ_OK");
        }
        if passes("on_destroy") {
            count("taken", "status == RAFTZ_OK");
        }
        if passes("on_free") {
            count("wrapped", "status == RAFTZ_OK");
        }
        body
    }

    fn cases(&mut self, function: &Function) {
        let set = |parameter, setup: &str, expression: &str| {
            let (setup, expression) = (setup.to_owned(), expression.to_owned());
            [Instead { parameter, setup, expression }]
        };
        // A node that is alone has nobody to hand over to.
        let impossible = [
            "raftz_queue_next",
            "raftz_source_read",
            "raftz_transfer_leadership_wait",
            "raftz_step_down_wait",
            // Nothing waits for it, and the good bytes are no entry.
            "raftz_storage_complete",
            "raftz_entries_push",
            // Nor are they a message.
            "raftz_links_deliver",
            "raftz_links_deliver_bytes",
        ];
        let is_possible = !impossible.contains(&function.name.as_str());
        let is_good = is_status(function) && is_possible;
        let good = if is_good { Wanted::Status("RAFTZ_OK") } else { Wanted::Documented };
        self.case(function, "good", &[], good, None);
        match function.inside_callbacks() {
            "no" | "with" => {
                let refused = Wanted::Status("RAFTZ_IN_CALLBACK");
                self.case(function, "in a completion", &[], refused, Some("IN_COMPLETION"));
            }
            "yes" => self.case(function, "in a completion", &[], good, Some("IN_COMPLETION")),
            "only" => {}
            other => panic!("{}: Inside callbacks: {other:?}", function.name),
        }
        for it in &function.parameters {
            let name = it.name.as_str();
            if it.stars > 0 || it.base.ends_with("_fn") {
                self.case(
                    function,
                    &format!("{name} is NULL"),
                    &set(name, "", "NULL"),
                    null(function, it),
                    None,
                );
            }
            if it.base == "raftz_node" && it.stars == 1 && !function.name.ends_with("_free") {
                let stopped = set(name, "", "good.stopped");
                self.case(function, "on a stopped node", &stopped, Wanted::Documented, None);
                let begins = ["raftz_propose", "raftz_read", "raftz_transfer", "raftz_step_down"];
                let done_inside = begins.iter().any(|it| function.name.starts_with(it));
                if !done_inside {
                    self.case(
                        function,
                        "on a stopped node, again",
                        &stopped,
                        Wanted::Documented,
                        None,
                    );
                }
            }
            if it.base == "raftz_slice" && it.stars == 0 {
                for (slice, wanted) in [
                    ("NULL, 1", Wanted::Status("RAFTZ_NULL_ARG")),
                    ("NULL, SIZE_MAX", Wanted::Status("RAFTZ_NULL_ARG")),
                    ("(const uint8_t *)\"x\", SIZE_MAX", Wanted::Status("RAFTZ_INVALID_ARG")),
                    (
                        "(const uint8_t *)\"x\", (size_t)1 << 63",
                        Wanted::Status("RAFTZ_INVALID_ARG"),
                    ),
                    ("NULL, 0", Wanted::Documented),
                    ("(const uint8_t *)1, 0", Wanted::Documented),
                    ("(const uint8_t *)\"\\xff\\xfe\\x00\", 3", Wanted::Documented),
                ] {
                    let bad = set(name, "", &format!("(raftz_slice){{{slice}}}"));
                    let wanted = if function.name == "raftz_source_read" {
                        Wanted::Documented
                    } else {
                        wanted
                    };
                    self.case(
                        function,
                        &format!("{name} is {{{}}}", slice.replace(['"', '\\'], "'")),
                        &bad,
                        wanted,
                        None,
                    );
                }
            }
            if it.base == "raftz_slice" && it.stars == 1 && it.is_const {
                let null = Wanted::Status("RAFTZ_NULL_ARG");
                self.case(
                    function,
                    &format!("{name} has {{NULL, 1}}"),
                    &set(name, "", "&good.bad_commands[1]"),
                    null,
                    None,
                );
                if name == "commands" {
                    self.case(
                        function,
                        "the last of commands is {NULL, 1}",
                        &set(name, "", "good.bad_commands"),
                        null,
                        None,
                    );
                } else {
                    let setup = "raftz_slice endless = {(const uint8_t *)\"x\", SIZE_MAX};";
                    self.case(
                        function,
                        &format!("{name} is endless"),
                        &set(name, setup, "&endless"),
                        Wanted::Status("RAFTZ_INVALID_ARG"),
                        None,
                    );
                }
            }
            if it.base == "char" && it.stars == 1 {
                for (what, text, wanted) in [
                    ("not UTF-8", "\"\\xff\\xfe\"", Wanted::Status("RAFTZ_BAD_UTF8")),
                    ("half UTF-8", "\"key\\xc3\"", Wanted::Status("RAFTZ_BAD_UTF8")),
                    ("empty", "\"\"", Wanted::Documented),
                    ("long", "good.long_text", Wanted::Documented),
                    ("odd", "\"\\n=%s%n\\x01\"", Wanted::Documented),
                ] {
                    self.case(
                        function,
                        &format!("{name} is {what}"),
                        &set(name, "", text),
                        wanted,
                        None,
                    );
                }
            }
            self.sizes(function, it);
        }
        for (_, parameter, number, wanted) in NUMBERS.iter().filter(|it| it.0 == function.name) {
            self.case(
                function,
                &format!("{parameter} = {number}"),
                &set(parameter, "", number),
                *wanted,
                None,
            );
        }
    }

    fn sizes(&mut self, function: &Function, it: &Typed) {
        let (base, name) = (it.base.as_str(), it.name.as_str());
        if it.stars != 1 {
            return;
        }
        let invalid = Wanted::Status("RAFTZ_INVALID_ARG");
        if let Some(known) = IN.iter().find(|known| known.name == base) {
            let mut with = |what: &str, size: &str, more: &str, wanted| {
                let setup = format!("{} {more}", in_struct(base, name, size));
                let other = Instead { parameter: name, setup, expression: format!("&{name}.it") };
                self.case(function, &format!("{name}: {what}"), &[other], wanted, None);
            };
            let ours = format!("sizeof({base})");
            let is_required =
                ["raftz_machine", "raftz_storage", "raftz_core_opts", "raftz_transport"]
                    .contains(&base);
            let small = if is_required { Wanted::Documented } else { Wanted::NotNullArg };
            with("no size", "0", "", invalid);
            with("size 3", "3", "", invalid);
            with("a huge size", "SIZE_MAX", "", invalid);
            with("a size beyond reason", &format!("{ours} + 4097"), "", invalid);
            with("nothing but the size", "sizeof(size_t)", "", small);
            with("a size that ends within a field", &format!("{ours} - 3"), "", invalid);
            with("newer, and zero", &format!("{ours} + 16"), "", Wanted::Status("RAFTZ_OK"));
            let tail = format!("{name}.tail[15] = 1;");
            with(
                "newer, and in use",
                &format!("{ours} + 16"),
                &tail,
                Wanted::Status("RAFTZ_ABI_MISMATCH"),
            );
            // A simulation does not ask for an index.
            let is_looked_at =
                |field: &str| function.name != "raftz_sim_run" || field != "applied_index";
            for (field, number, wanted) in known.numbers.iter().filter(|it| is_looked_at(it.0)) {
                let more = match *field {
                    // One or the other; and what comes with the library only without a machine.
                    "listen_fd" => format!("{name}.it.network = NULL;"),
                    _ => String::new(),
                };
                let more = format!("{more} {name}.it.{field} = {number};");
                let setup = format!("{} {more}", in_struct(base, name, &ours));
                let mut instead =
                    vec![Instead { parameter: name, setup, expression: format!("&{name}.it") }];
                if *field == "builtin" {
                    let (setup, expression) = (String::new(), "NULL".to_owned());
                    instead.push(Instead { parameter: "machine", setup, expression });
                }
                let what = format!("{name}.{field} = {}", number.replace(['"', '\\'], "'"));
                self.case(function, &what, &instead, Wanted::Status(wanted), None);
            }
        }
        if OUT.contains(&base) {
            let small = if base == "raftz_reply" { invalid } else { Wanted::Status("RAFTZ_OK") };
            for (what, size, wanted) in [
                ("no size", "0".to_owned(), invalid),
                ("size 3", "3".to_owned(), invalid),
                ("a huge size", "SIZE_MAX".to_owned(), invalid),
                ("a size that ends within a field", format!("sizeof({base}) - 3"), invalid),
                ("older", format!("sizeof({base}) - 8"), small),
                ("nothing but the size", "sizeof(size_t)".to_owned(), small),
                ("newer", format!("sizeof({base}) + 24"), Wanted::Status("RAFTZ_OK")),
            ] {
                let argument = out_struct(base, name, &size);
                let other = Instead {
                    parameter: name,
                    setup: argument.setup,
                    expression: argument.expression,
                };
                self.case(function, &format!("{name}: {what}"), &[other], wanted, None);
            }
        }
    }
}

/// Whether what a function returns says how it went.
fn is_status(function: &Function) -> bool {
    let says = |word| function.returns().contains(word);
    function.result.base == "raftz_status" && (says("RAFTZ_") || says("As raftz_"))
}

/// What the documentation of a parameter says of NULL.
fn null(function: &Function, it: &Typed) -> Wanted {
    let words = function.words_of(&it.name);
    if !is_status(function) {
        let answers = [
            ("for NULL the answer is RAFTZ_OK", "value == RAFTZ_OK"),
            ("for NULL the answer is an empty line", "value != NULL && *value == '\\0'"),
            ("for NULL the answer is an empty slice", "value.len == 0"),
            ("for NULL the answer is false", "!value"),
            ("for NULL the answer is -1", "value == -1"),
            ("for NULL the answer is 0", "value == 0"),
        ];
        let found = answers.iter().find(|(said, _)| words.contains(said));
        return found.map_or(Wanted::Documented, |(_, look)| Wanted::Value(look));
    }
    // A user's data is the user's.
    if it.base == "void" || words.contains("NULL") {
        Wanted::NotNullArg
    } else {
        Wanted::Status("RAFTZ_NULL_ARG")
    }
}

fn generated() -> (String, usize) {
    let listed = header::functions();
    let functions: BTreeMap<String, Function> =
        listed.iter().map(|it| (it.name.clone(), it.clone())).collect();
    let mut program = Program {
        functions: &functions,
        code: "#include \"arguments.h\"\n\n".into(),
        names: Vec::new(),
        counts: BTreeMap::new(),
    };
    for function in &listed {
        program.cases(function);
    }
    // The symbols are another list of the functions, made in another way.
    let symbols =
        std::fs::read_to_string(c_host::root().join("raftz-ffi/abi/libraftz.sym")).unwrap();
    let without: Vec<&str> =
        symbols.lines().filter(|name| !program.counts.contains_key(*name)).collect();
    assert!(without.is_empty(), "no case for {without:?}");
    assert_eq!(program.counts.len(), symbols.lines().count());
    let Program { mut code, names, .. } = program;
    code.push_str("static const struct test_case cases[] = {\n");
    for (number, (name, place)) in names.iter().enumerate() {
        writeln!(code, "    {{\"{name}\", {place}, case_{number}}},").unwrap();
    }
    code.push_str(
        "};\n\nint main(void) {\n    return run_cases(cases, sizeof cases / sizeof *cases);\n}\n",
    );
    (code, names.len())
}

/// Builds and runs all cases.
fn survives(flags: &[&str]) {
    let (code, count) = generated();
    assert!(count > 500, "{count} cases");
    let Some(host) = Host::new() else { return };
    let source = host.folder().join("arguments.c");
    std::fs::write(&source, code).unwrap();
    let program = host.build(&source, Link::Shared, flags);
    succeeds(&mut Command::new(program));
}

#[test]
fn every_function_survives_every_bad_argument_and_says_what_the_header_says() {
    survives(&["-O0"]);
}

#[test]
fn nothing_leaks_with_bad_arguments() {
    if c_host::has_sanitizers() {
        survives(&[&["-O0"], c_host::SANITIZERS].concat());
    }
}
