//! Configurations and nodes as they come.

use std::ffi::{c_char, c_void};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use raftz::bytes::*;
use raftz::config::*;
use raftz::events::*;
use raftz::network::*;
use raftz::node::*;

use super::{LONGEST_MS, NODES_MAX, good};
use crate::fuzz::capi::judge::{Given, Versioned, bytes, call, complain, judged, text};
use crate::fuzz::capi::machine::{FAULTS, Spec, Truth};
use crate::fuzz::capi::store::{Disk, WAYS};
use crate::fuzz::capi::world::{Keeps, World, c, keep, on_end, pick, pull};
use crate::fuzz::tape::Tape;

/// Texts that mean something to some key; none that reaches beyond this machine or writes a file.
const TEXTS: [&std::ffi::CStr; 20] = [
    c"1",
    c"0",
    c"true",
    c"false",
    c"50",
    c"100",
    c"4k",
    c"1m",
    c"18446744073709551615",
    c"-1",
    c"",
    c"memory",
    c"custom",
    c"directory:",
    c"random",
    c"1=127.0.0.1:7001",
    c"1=127.0.0.1:7001,2=127.0.0.1:7002",
    c"nonsense",
    c"127.0.0.1:0",
    c"\xff\xfe",
];
const ADDRESSES: [&std::ffi::CStr; 8] = [
    c"127.0.0.1:0",
    c"127.0.0.1:7001",
    c"[::1]:0",
    c"localhost:0",
    c"nonsense",
    c"",
    c"127.0.0.1:99999",
    c"\xff",
];

pub(super) fn config_new(world: &mut World, tape: &mut Tape<'_>) {
    let id = [1, 2, 0, u64::MAX][tape.below(4)];
    let cluster = [c(c"b1"), c(c"b1"), c(c""), c(c"no digits"), c(c"\xff"), null()][tape.below(6)];
    let alone = tape.below(4) < 3;
    let mut given = Given::new();
    let is_null = tape.byte() >= 250;
    let place = if is_null { null_mut() } else { given.place() };
    let status = judged(tape, "raftz_config_new", 0, |error| {
        call!(raftz_config_new(id, cluster, place, error))
    });
    let config = given.after(status);
    if let Some(config) = config.filter(|_| alone) {
        good(&mut Tape::new(&[]), "raftz_config_add_founder", |error| {
            call!(raftz_config_add_founder(config, id, c(c"127.0.0.1:7001"), error))
        });
    }
    call!(raftz_config_free(keep(&mut world.configs, config)));
}

/// A key that there is, or one that there is not. Never one that lets nodes out of this machine, or wait for ever.
fn key(config: *mut raftz_config, tape: &mut Tape<'_>) -> *const c_char {
    let at = match tape.byte() {
        250.. => {
            return [null(), c(c"no_such_key"), c(c""), c(c"\xff"), c(c"node_id")][tape.below(5)];
        }
        at => usize::from(at),
    };
    let key = call!(raftz_config_key(config, at % 40));
    if key.is_null() {
        return c(c"seed");
    }
    // SAFETY: it lives as long as the configuration.
    match unsafe { text(key) }.as_str() {
        "insecure_plaintext" | "segment_bytes" => c(c"seed"),
        _ => key,
    }
}

pub(super) fn config_text(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let key = key(config, tape);
    let value = c(TEXTS[tape.below(TEXTS.len())]);
    let value = if tape.byte() >= 250 { null() } else { value };
    judged(tape, "raftz_config_set", 0, |error| call!(raftz_config_set(config, key, value, error)));
}

pub(super) fn config_number(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let key = key(config, tape);
    let number = tape.number();
    judged(tape, "raftz_config_set_number", 0, |error| {
        call!(raftz_config_set_number(config, key, number, error))
    });
}

pub(super) fn config_bool(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let key =
        [c(c"forward"), c(c"lease_reads"), c(c"metrics"), c(c"founders"), null()][tape.below(5)];
    let is_on = tape.byte();
    judged(tape, "raftz_config_set_bool", 0, |error| {
        call!(raftz_config_set_bool(config, key, is_on, error))
    });
}

pub(super) fn config_place(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let address = c(ADDRESSES[tape.below(ADDRESSES.len())]);
    let address = if tape.byte() >= 250 { null() } else { address };
    match tape.below(3) {
        0 => judged(tape, "raftz_config_set_listen_address", 0, |error| {
            call!(raftz_config_set_listen_address(config, address, error))
        }),
        1 => {
            let id = tape.number();
            judged(tape, "raftz_config_add_founder", 0, |error| {
                call!(raftz_config_add_founder(config, id, address, error))
            })
        }
        // Never with a node behind it: that is what `found` is for.
        _ => {
            judged(tape, "raftz_config_set_directory", 0, |error| {
                call!(raftz_config_set_directory(config, address, error))
            });
            judged(tape, "raftz_config_set_memory", 0, |error| {
                call!(raftz_config_set_memory(config, error))
            })
        }
    };
}

pub(super) fn config_look(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let key = key(config, tape);
    let mut given = Given::new();
    let status = judged(tape, "raftz_config_get", 0, |error| {
        call!(raftz_config_get(config, key, given.place(), error))
    });
    call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
    judged(tape, "raftz_config_validate", 0, |error| call!(raftz_config_validate(config, error)));
}

unsafe extern "C" fn on_event(user_data: *mut c_void, event: *const raftz_event_info) {
    // SAFETY: it lives until this returns.
    let (info, words) = unsafe { (*event, bytes((*event).text)) };
    if user_data.is_null() || info.node_id == 0 || info.size != size_of::<raftz_event_info>() {
        complain(format!("an event of nobody: {info:?}"));
    }
    if String::from_utf8(words).is_err() || info.kind == RAFTZ_EVENT_COMPLETION {
        complain(format!("an event that is none: {info:?}"));
    }
}

unsafe extern "C" fn on_log(user_data: *mut c_void, level: u32, line: raftz_slice) {
    // SAFETY: it lives until this returns.
    let line = String::from_utf8(unsafe { bytes(line) });
    if user_data.is_null() || !(RAFTZ_LOG_ERROR..=RAFTZ_LOG_TRACE).contains(&level) || line.is_err()
    {
        complain(format!("a line of level {level}: {line:?}"));
    }
}

pub(super) fn config_tell(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let kinds = [RAFTZ_EVENTS_ALL, 0, 0b110, 1 << 40][tape.below(4)];
    let level = [RAFTZ_LOG_TRACE, RAFTZ_LOG_WARN, 0, 9][tape.below(4)];
    match tape.below(3) {
        0 => {
            let queue = pick(tape, &world.queues);
            judged(tape, "raftz_config_set_event_queue", 0, |error| {
                call!(raftz_config_set_event_queue(config, kinds, queue, error))
            });
        }
        1 => {
            let function: raftz_event_fn = if tape.byte() >= 250 { None } else { Some(on_event) };
            world.own(|data| {
                judged(tape, "raftz_config_set_event_callback", 0, |error| {
                    call!(raftz_config_set_event_callback(
                        config,
                        kinds,
                        function,
                        data,
                        Some(on_end),
                        error
                    ))
                })
            });
        }
        _ => {
            let function: raftz_log_fn = if tape.byte() >= 250 { None } else { Some(on_log) };
            world.own(|data| {
                judged(tape, "raftz_config_set_log", 0, |error| {
                    call!(raftz_config_set_log(config, level, function, data, Some(on_end), error))
                })
            });
        }
    }
}

pub(super) fn config_storage(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let disk = Disk::new(WAYS[tape.below(WAYS.len())], u64::from(tape.byte()));
    let mut table = disk.table(0);
    match tape.byte() {
        240 => table.flags = 2,
        241 => table.abi_version = 9,
        242 => table.open = None,
        243 => table.submit = None,
        _ => {}
    }
    world.disks.push(disk);
    let mut table = Versioned::given(tape, table);
    judged(tape, "raftz_config_set_storage", 0, |error| {
        call!(raftz_config_set_storage(config, table.pointer(), error))
    });
}

pub(super) fn config_free(world: &mut World, tape: &mut Tape<'_>) {
    call!(raftz_config_free(pull(tape, &mut world.configs)));
}

pub(super) fn bootstrap(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let mut is_formatted = false;
    judged(tape, "raftz_node_is_formatted", LONGEST_MS, |error| {
        call!(raftz_node_is_formatted(config, &raw mut is_formatted, error))
    });
    judged(tape, "raftz_node_bootstrap", 2 * LONGEST_MS, |error| {
        call!(raftz_node_bootstrap(config, error))
    });
}

pub(super) fn network(world: &mut World, tape: &mut Tape<'_>) {
    if tape.below(4) == 3 {
        return call!(raftz_network_free(pull(tape, &mut world.networks)));
    }
    let mut given = Given::new();
    let status = judged(tape, "raftz_network_new", 0, |error| {
        call!(raftz_network_new(given.place(), error))
    });
    call!(raftz_network_free(keep(&mut world.networks, given.after(status))));
}

pub(super) fn start(world: &mut World, tape: &mut Tape<'_>) {
    if world.nodes.len() >= NODES_MAX {
        return;
    }
    let config = pick(tape, &world.configs);
    let bits = tape.byte();
    // Two members of one cluster in one network may be wrong for each other: nothing is promised of what they keep.
    let network = if bits & 1 == 0 {
        world.networks.first().copied().unwrap_or(null_mut())
    } else {
        null_mut()
    };
    let fault = FAULTS[tape.below(FAULTS.len())];
    let spec = Spec::new(&Arc::new(Truth::default()), fault, u64::from(bits >> 4));
    let mut table = spec.table(u32::from(bits >> 1 & 1));
    match tape.byte() {
        240 => table.flags = 2,
        241 => table.abi_version = 0,
        242 => table.apply = None,
        243 => table.restore = None,
        244 => table.query = None,
        _ => {}
    }
    world.specs.push(spec);
    let mut machine = Versioned::given(tape, table);
    let listener = (bits & 4 != 0).then(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let fd = listener.map_or(0, IntoRawFd::into_raw_fd);
    let fd = if bits & 12 == 8 { [-1, i32::MAX][usize::from(bits >> 4 & 1)] } else { fd };
    let builtin = u32::from(tape.byte() >= 250) * 7;
    let opts = raftz_start_opts { size: 0, builtin, listen_fd: fd, network };
    let mut opts = Versioned::given(tape, opts);
    let table = if bits & 2 == 0 { machine.pointer() } else { null_mut() };
    let keeps = if table.is_null() { Keeps::Kv } else { Keeps::Own };
    let mut given = Given::new();
    let status = judged(tape, "raftz_node_start", 2 * LONGEST_MS, |error| {
        call!(raftz_node_start(config, table, opts.pointer(), given.place(), error))
    });
    if bits & 4 != 0 && !opts.is_seen(std::mem::offset_of!(raftz_start_opts, listen_fd)) {
        // SAFETY: it was not taken over, and is ours.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    if let Some(pointer) = given.after(status) {
        world.add(pointer, keeps);
    }
}
