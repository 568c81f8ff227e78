//! Every struct of the header lies in memory as `tests/c/layout.txt` says, for C and for Rust: a line is a
//! struct and its size, or a field, where it begins, and its size. A difference breaks programs that were
//! compiled before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

use raftz::{
    bare::action::*, bare::input::*, bare::start::*, bare::*, bytes::*, events::*, kv::*,
    machine::*, metrics::*, node::*, propose::*, queue::*, read::*, sim::*, state::*, storage::*,
    transport::*, watch::*,
};

use c_host::{has_tool, header, root};

/// Struct or `struct.field`, and its numbers.
type Table = BTreeMap<String, Vec<usize>>;

fn table() -> Table {
    let text = std::fs::read_to_string(root().join("tests/c/layout.txt")).unwrap();
    let row = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap(), words.map(|word| word.parse().unwrap()).collect())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

const fn size_behind<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! layout {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        fn in_rust() -> Table {
            let mut table = Table::new();
            $(
                table.insert(stringify!($name).to_owned(), vec![size_of::<$name>()]);
                $(table.insert(
                    concat!(stringify!($name), ".", stringify!($field)).to_owned(),
                    vec![offset_of!($name, $field), size_behind(|it: &$name| &it.$field)],
                );)*
            )*
            table
        }
    };
}

layout! {
    raftz_slice { data, len }
    raftz_outcome { status, flags, index, term, leader_id, reply, message, reserved }
    raftz_event_info {
        size, kind, group, node_id, term, index, peer_id, role, is_on, text, user_data, outcomes,
        outcome_count, phase, reserved, bytes, total_bytes, count,
    }
    raftz_queue_opts { size, calls_max, events_max }
    raftz_command { index, term, log_time_us, data }
    raftz_machine {
        size, abi_version, flags, user_data, create, destroy, apply, query, snapshot_begin,
        snapshot_read, snapshot_end, restore, applied_index,
    }
    raftz_start_opts { size, builtin, listen_fd, network }
    raftz_propose_opts { size, timeout_ms, forward, expected_term }
    raftz_reply { size, index, term, flags, reserved, bytes }
    raftz_read_opts { size, level, timeout_ms, index, max_age_ms }
    raftz_state_info {
        size, node_id, leader_id, term, role, is_ready, base_index, last_index, durable_index,
        commit_index, applied_index, damaged_from, calls_in_flight, entry_bytes_max, boot, peer_count,
        is_shut_down, disk_count, fault, listen_address, obstacles, transfer_to,
    }
    raftz_peer_info {
        size, node_id, is_connected, snapshot_phase, matched_index, next_index, appends_in_flight, address,
        unreachable, mode, snapshot_bytes, snapshot_total_bytes,
    }
    raftz_times { count, sum_us, p50_us, p99_us }
    raftz_metrics_info {
        size, node_id, leader_id, term, leader_changes, elections_won, elections_not_won, commit_index,
        applied_index, last_index, first_index, proposals_pending, proposals_committed, proposals_failed,
        propose, commit, wal_fsync, apply_batch, entries_written, writes, oldest_log_entry_us, wal_bytes,
        events_dropped, reads,
    }
    raftz_peer_metrics_info {
        size, node_id, is_led, snapshot_phase, match_index, lag_entries, last_contact_us, inflight, rtt_us,
        snapshot_bytes, snapshot_total_bytes,
    }
    raftz_standing_info {
        size, version, node_id, leader_id, term, role, is_ready, membership_index, connected_count,
        is_storage_full, is_faulted, is_shut_down, snapshot_phase, snapshot_count, snapshot_peer_id,
        snapshot_bytes, snapshot_total_bytes,
    }
    raftz_kv_reply_info { size, kind, is_on, number, count, value }
    raftz_log_entry { index, term, bytes }
    raftz_log_write { group, reserved, record, remove_from, remove_upto, entries, entry_count }
    raftz_storage {
        size, abi_version, flags, user_data, open, destroy, load, submit, read, idle, is_low_on_space,
        log_bytes, close,
    }
    raftz_conformance_opts { size, flags, patience_ms }
    raftz_snapshot_id { term, index, bytes, hash }
    raftz_snapshot { id, base }
    raftz_core_opts {
        size, abi_version, flags, disk_id, record, entries, entry_count, snapshot, machine_applied,
    }
    raftz_action_persist { boot, number, write }
    raftz_action_send { to, message }
    raftz_action_read_entries { request, first, last, bytes_max }
    raftz_action_apply { first, last, commands, command_count }
    raftz_action_fetch { from, id }
    raftz_action_accepted { first, term, tokens, token_count }
    raftz_action_refused { status, reserved, leader_id, message, tokens, token_count }
    raftz_action_may_read { request, index }
    raftz_action_transfer_ended { token, leader_id, status, reserved, message }
    raftz_core_action { kind, reserved, with }
    raftz_input_receive { from, message }
    raftz_proposal { token, command }
    raftz_input_propose { proposals, proposal_count }
    raftz_input_read { request, by_lease, reserved }
    raftz_input_transfer { token, target_id, deadline_us, steps_down, reserved }
    raftz_input_persisted { boot, number }
    raftz_input_entries_read { request, status, reserved, entries, entry_count, reason }
    raftz_input_link_up { peer_id, boot, disk_id }
    raftz_core_input { kind, reserved, with }
    raftz_core_info {
        size, node_id, disk_id, boot, term, vote, leader_id, role, is_ready, is_open, is_halted, lacks_snapshot,
        reserved, base_index, last_index, last_term, durable_index, commit_index, applied_index, damaged_from,
        transfer_to, entry_bytes_max,
    }
    raftz_message { urgency, reserved, len, parts, part_count }
    raftz_transport {
        size, abi_version, flags, user_data, open, destroy, dial, send, end, stop,
    }
    raftz_sim_opts { size, duration_us, shrink_runs, without, skip, user_data, workload, tell }
    raftz_sim_report_info {
        size, is_violated, is_beyond_survival, property, sentence, at_us, seed, duration_us, skip, trace,
        virtual_us, events, faults, struck, committed, calls, calls_done, calls_refused, calls_unknown,
    }
}

#[test]
fn the_table_has_every_struct_and_field_of_the_header_and_is_what_rust_has() {
    let mut declared: Vec<String> = Vec::new();
    for it in header::structs() {
        declared.extend(it.fields.iter().map(|field| format!("{}.{}", it.name, field.name)));
        declared.push(it.name);
    }
    declared.sort();
    let table = table();
    assert_eq!(table.keys().cloned().collect::<Vec<_>>(), declared);
    assert_eq!(table, in_rust());
}

#[test]
fn the_table_is_what_c_has() {
    if !has_tool("gcc") {
        return;
    }
    let mut source = "#include <raftz.h>\n".to_owned();
    for (name, numbers) in table() {
        let condition = match name.split_once('.') {
            Some((of, field)) => format!(
                "offsetof({of}, {field}) == {} && sizeof((({of} *)0)->{field}) == {}",
                numbers[0], numbers[1]
            ),
            None => format!("sizeof({name}) == {}", numbers[0]),
        };
        writeln!(source, "_Static_assert({condition}, \"{name}\");").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layout.c");
    let compile = |source: &str| {
        std::fs::write(&path, source).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"]);
        gcc.arg(root().join("include")).arg(&path).output().unwrap()
    };
    let compiled = compile(&source);
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    // A difference is noticed.
    assert!(!compile(&source.replacen("== 0 ", "== 8 ", 1)).status.success());
}
