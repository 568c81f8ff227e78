//! C programs that use the library for real: each of `tests/c` says at its top what it proves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod c_host;
mod support;

use c_host::{Host, Link};

/// Builds and runs a program, in a folder of its own if it wants one.
fn passes(source: &str, link: Link, arguments: &[&str]) {
    let Some(host) = Host::new() else { return };
    let folder = host.folder().to_str().unwrap().to_owned();
    let arguments: Vec<&str> =
        arguments.iter().map(|it| if *it == "." { &folder } else { *it }).collect();
    host.passes(source, link, &arguments);
}

#[test]
fn every_function_does_what_it_is_there_for() {
    passes("functions.c", Link::Shared, &["memory"]);
}

#[test]
fn a_cluster_over_tcp_keeps_what_it_was_told() {
    passes("functions.c", Link::Shared, &["tcp", "."]);
}

#[test]
fn the_archive_links_and_works_alone() {
    passes("functions.c", Link::Static, &["memory"]);
}

#[test]
fn machines_of_c_are_made_and_ended_once_and_fail_alone() {
    passes("machine.c", Link::Shared, &[]);
}

#[test]
fn a_machine_that_persists_itself_is_given_everything_once() {
    passes("kept.c", Link::Shared, &["."]);
}

#[test]
fn stores_of_c_carry_a_cluster_and_bad_ones_are_found_out() {
    passes("storage.c", Link::Shared, &[]);
}

#[test]
fn transports_of_c_carry_a_cluster_whatever_they_do_with_messages() {
    passes("transport.c", Link::Shared, &["ways"]);
}

#[test]
fn whoever_does_not_belong_is_refused_over_c_and_misuse_ends_no_more_than_a_link() {
    passes("transport.c", Link::Shared, &["links"]);
}

#[test]
fn links_of_c_that_break_in_the_middle_of_traffic_or_fall_silent_are_replaced() {
    passes("transport.c", Link::Shared, &["breaks"]);
}

#[test]
fn the_simulator_finds_what_is_wrong_with_a_machine_of_c_and_nothing_else() {
    passes("simulated.c", Link::Shared, &[]);
}

#[test]
fn every_accepted_call_ends_exactly_once() {
    passes("once.c", Link::Shared, &[".", "8"]);
}

#[test]
fn nodes_and_queues_may_be_freed_in_any_order() {
    passes("once.c", Link::Shared, &["freeing"]);
}

#[test]
fn nothing_ends_within_the_call_itself() {
    passes("once.c", Link::Shared, &["never-within"]);
}

#[test]
fn a_forked_child_is_refused_and_its_parent_goes_on() {
    passes("forked.c", Link::Shared, &[]);
}

#[test]
fn signals_are_the_host_s() {
    passes("signals.c", Link::Shared, &["."]);
}

#[test]
fn a_node_can_be_watched() {
    passes("watched.c", Link::Shared, &[]);
}

#[test]
fn the_program_that_landings_keep_runs() {
    passes("landed.c", Link::Shared, &["."]);
}

#[test]
fn log_lines_go_to_the_node_s_own_function() {
    passes("logs.c", Link::Shared, &[]);
}

#[test]
fn the_bare_core_is_driven_in_one_thread_through_every_fault() {
    passes("core.c", Link::Shared, &[]);
}
