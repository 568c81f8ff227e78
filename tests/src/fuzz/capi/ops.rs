//! What an input may have done: one function each, with seven bytes for its arguments. Only added to, at the end, so that
//! inputs keep their meaning.

use std::ffi::{CString, c_char, c_void};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use raftz::bytes::*;
use raftz::config::*;
use raftz::error::*;
use raftz::events::*;
use raftz::kv::*;
use raftz::machine::*;
use raftz::metrics::*;
use raftz::network::*;
use raftz::node::*;
use raftz::propose::*;
use raftz::queue::*;
use raftz::read::*;
use raftz::state::*;
use raftz::status::*;
use raftz::storage::*;
use raftz::transfer::*;
use raftz::version::*;
use raftz::watch::*;

use super::bare::{core_free, core_look, core_new, core_step};
use super::judge::{
    Given, NUMBER, Versioned, any_slice, bytes, call, complain, documented, judged, number_after,
    slice, text,
};
use super::machine::{FAULTS, Fault, Spec, Truth, question};
use super::pending::{Kind, Write, on_batch, on_done};
use super::simulated::{of_nothing, simulate};
use super::store::{Disk, WAYS, Way};
use super::wires::{MISHAPS, Post, Wires};
use super::world::{
    Cluster, Keeps, Member, Node, World, acknowledged, c, keep, on_end, pick, pull,
};
use crate::fuzz::tape::Tape;

type Op = fn(&mut World, &mut Tape<'_>);

/// Most nodes at a time.
const NODES_MAX: usize = 6;
/// What no timeout of a node here is beyond.
const LONGEST_MS: u32 = 5000;

pub(super) const OPS: [(&str, Op); 53] = [
    ("found", found),
    ("restart", restart),
    ("stop", stop),
    ("free", free),
    ("config new", config_new),
    ("config text", config_text),
    ("config number", config_number),
    ("config bool", config_bool),
    ("config place", config_place),
    ("config look", config_look),
    ("config tell", config_tell),
    ("config storage", config_storage),
    ("config free", config_free),
    ("start", start),
    ("bootstrap", bootstrap),
    ("network", network),
    ("queue new", queue_new),
    ("queue next", queue_next),
    ("queue look", queue_look),
    ("queue close", queue_close),
    ("queue free", queue_free),
    ("event", event),
    ("bytes new", bytes_new),
    ("bytes free", bytes_free),
    ("kv command", kv_command),
    ("kv answer", kv_answer),
    ("propose", propose),
    ("propose bytes", propose_bytes),
    ("propose batch", propose_batch),
    ("propose queued", propose_queued),
    ("propose wait", propose_wait),
    ("read", read),
    ("read queued", read_queued),
    ("read wait", read_wait),
    ("read back", read_back),
    ("transfer", transfer),
    ("transfer wait", transfer_wait),
    ("state", state),
    ("metrics", metrics),
    ("watch", watch),
    ("wait", wait),
    ("snapshot", snapshot),
    ("names", names),
    ("conformance", conformance),
    ("settle", settle),
    ("simulate", simulate),
    ("core new", core_new),
    ("core step", core_step),
    ("core look", core_look),
    ("core free", core_free),
    ("wires happen", wires_happen),
    ("wires cut", wires_cut),
    ("wires told", wires_told),
];

fn short_ms(tape: &mut Tape<'_>) -> u32 {
    [0, 1, 20, 100][tape.below(4)]
}

// ---- clusters as they should be ----

fn found(world: &mut World, tape: &mut Tape<'_>) {
    let shape = tape.below(6);
    let members = [1, 1, 3, 2, 3, 2][shape];
    let keeps = [Keeps::Own, Keeps::Kv, Keeps::Counter][tape.below(3)];
    let place = tape.below(3);
    let way = WAYS[tape.below(WAYS.len())];
    let fault = FAULTS[tape.below(FAULTS.len())];
    let (after, flag) = (u64::from(tape.byte()), tape.flag());
    if world.nodes.len() + members > NODES_MAX {
        return;
    }
    let zeros = &mut Tape::new(&[]);
    let truth = Arc::new(Truth::default());
    let mut given = Given::new();
    let made = judged(zeros, "raftz_network_new", 0, |error| {
        call!(raftz_network_new(given.place(), error))
    });
    let at = world.clusters.len();
    let made = given.after(made).expect("a network");
    world.clusters.push(Cluster {
        network: made,
        keeps,
        members: Vec::new(),
        acknowledged: acknowledged(),
        truth: Arc::clone(&truth),
    });
    // A transport of their own joins them.
    let wires = (shape == 5).then(|| Arc::new(Wires::default()));
    world.wires.extend(wires.clone());
    // Over TCP each has its port from the beginning.
    let bind = |_| std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut listeners: Vec<Option<_>> =
        (0..members).map(|_| (shape == 4).then_some(()).map(bind)).collect();
    let address = |(at, listener): (usize, &Option<std::net::TcpListener>)| match listener {
        Some(listener) => listener.local_addr().unwrap().to_string(),
        None => format!("127.0.0.1:{}", 7001 + at),
    };
    let addresses: Vec<String> = listeners.iter().enumerate().map(address).collect();
    for id in 1..=members {
        let config = new_config(zeros, id as u64, &addresses);
        // What is wrong is wrong with the first of them.
        let fault = if id == 1 { fault } else { Fault::Nothing };
        let spec = Spec::new(&truth, fault, after);
        let (way, survives) = match place {
            1 => (if id == 1 { way } else { Way::AtOnce }, true),
            _ => (Way::AtOnce, place == 2 && members == 1),
        };
        if place == 1 {
            let disk = Disk::new(way, after);
            let table = disk.table(u32::from(flag));
            world.disks.push(disk);
            good(zeros, "raftz_config_set_storage", |error| {
                call!(raftz_config_set_storage(config, &raw const table, error))
            });
        }
        if let Some(wires) = &wires {
            let post = Post::new(wires, id as u64);
            let table = post.table();
            world.posts.push(post);
            good(zeros, "raftz_config_set_transport", |error| {
                call!(raftz_config_set_transport(config, &raw const table, error))
            });
        }
        if place == 2 && members == 1 {
            let folder = world.folder.get_or_insert_with(|| tempfile::tempdir().unwrap());
            let path = folder.path().join(format!("{at}"));
            let path = CString::new(path.to_str().unwrap()).unwrap();
            good(zeros, "raftz_config_set_directory", |error| {
                call!(raftz_config_set_directory(config, path.as_ptr(), error))
            });
        }
        if survives {
            formats(zeros, config, way);
        }
        world.specs.push(Arc::clone(&spec));
        world.clusters[at].members.push(Member {
            config,
            spec,
            way,
            survives,
            has_network: shape < 4,
            listener: listeners[id - 1].take().map(Into::into),
        });
        world.start_member(at, id - 1, zeros);
    }
}

// ---- a transport of one's own ----

fn wires_happen(world: &mut World, tape: &mut Tape<'_>) {
    let mishap = MISHAPS[tape.below(MISHAPS.len())];
    let times = u64::from(tape.byte());
    world.wires.iter().for_each(|it| it.happens(mishap, times));
}

/// They are whole again unless it says otherwise.
fn wires_cut(world: &mut World, tape: &mut Tape<'_>) {
    let is_cut = tape.flag();
    world.wires.iter().for_each(|it| it.cut(is_cut));
}

fn wires_told(world: &mut World, tape: &mut Tape<'_>) {
    if let Some(wires) = world.wires.first() {
        wires.told(tape);
    }
    let config = pick(tape, &world.configs);
    let mut table = Post::new(&Arc::new(Wires::default()), 1).table();
    match tape.below(3) {
        0 => table.size = 3,
        1 => table.abi_version = 0,
        _ => table.send = None,
    }
    judged(tape, "raftz_config_set_transport", 0, |error| {
        call!(raftz_config_set_transport(config, &raw const table, error))
    });
}

fn formats(zeros: &mut Tape<'_>, config: *mut raftz_config, way: Way) {
    let mut is_formatted = true;
    let status = judged(zeros, "raftz_node_is_formatted", LONGEST_MS, |error| {
        call!(raftz_node_is_formatted(config, &raw mut is_formatted, error))
    });
    assert!(status != RAFTZ_OK || !is_formatted, "nothing is there yet");
    let status = judged(zeros, "raftz_node_bootstrap", 2 * LONGEST_MS, |error| {
        call!(raftz_node_bootstrap(config, error))
    });
    let is_good = [Way::AtOnce, Way::Late, Way::Twice, Way::IsLow].contains(&way);
    assert!(status == RAFTZ_OK || !is_good, "it formats what is empty");
}

pub(super) fn good(
    tape: &mut Tape<'_>,
    name: &'static str,
    make: impl FnOnce(*mut *mut raftz_error) -> raftz_status,
) {
    assert_eq!(judged(tape, name, 0, make), RAFTZ_OK, "{name}");
}

pub(super) fn new_config(zeros: &mut Tape<'_>, id: u64, addresses: &[String]) -> *mut raftz_config {
    let mut given = Given::new();
    let status = judged(zeros, "raftz_config_new", 0, |error| {
        call!(raftz_config_new(id, c(c"c1"), given.place(), error))
    });
    let config = given.after(status).expect("a configuration");
    for (member, address) in (1..).zip(addresses) {
        let address = CString::new(address.as_str()).unwrap();
        good(zeros, "raftz_config_add_founder", |error| {
            call!(raftz_config_add_founder(config, member, address.as_ptr(), error))
        });
        if member == id {
            good(zeros, "raftz_config_set_listen_address", |error| {
                call!(raftz_config_set_listen_address(config, address.as_ptr(), error))
            });
        }
    }
    for (key, number) in [
        (c"election_timeout_max_ms", 200),
        (c"election_timeout_min_ms", 100),
        (c"heartbeat_interval_ms", 20),
        (c"propose_timeout_ms", 1000),
        (c"read_timeout_ms", 1000),
        (c"entry_bytes_max", 1 << 16),
        (c"segment_bytes", 1 << 20),
        (c"reserve_bytes", 0),
        (c"snapshot_log_entries", 8),
        (c"snapshot_retain_bytes", 0),
    ] {
        let key = c(key);
        good(zeros, "raftz_config_set_number", |error| {
            call!(raftz_config_set_number(config, key, number, error))
        });
    }
    good(zeros, "raftz_config_validate", |error| call!(raftz_config_validate(config, error)));
    config
}

/// A member that survives its process is stopped, or only freed, and started again.
fn restart(world: &mut World, tape: &mut Tape<'_>) {
    let stops = tape.below(2) == 0;
    let survives =
        |it: &Node| it.member.is_some_and(|(of, at)| world.clusters[of].members[at].survives);
    let Some(node) = world.nodes.iter().position(survives) else { return };
    let (cluster, member) = world.nodes[node].member.unwrap();
    if stops {
        assert_eq!(world.stop(node, 20_000, &mut Tape::new(&[])), RAFTZ_OK);
    }
    world.free(node);
    world.start_member(cluster, member, &mut Tape::new(&[]));
}

fn read_back(world: &mut World, tape: &mut Tape<'_>) {
    if !world.clusters.is_empty() {
        world.read_back(tape.below(world.clusters.len()), 3, 200);
    }
}

fn stop(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let timeout_ms = [LONGEST_MS, 1, 0, 100][tape.below(4)];
    if let Some(node) = node {
        world.stop(node, timeout_ms, tape);
    }
}

fn free(world: &mut World, tape: &mut Tape<'_>) {
    match world.node(tape) {
        Some(node) => world.free(node),
        None => call!(raftz_node_free(null_mut())),
    }
}

/// Waits until the calls of callbacks and queues have had a moment to end.
fn settle(_world: &mut World, tape: &mut Tape<'_>) {
    std::thread::sleep(Duration::from_millis(short_ms(tape).into()));
}

// ---- configurations ----

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

fn config_new(world: &mut World, tape: &mut Tape<'_>) {
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

fn config_text(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let key = key(config, tape);
    let value = c(TEXTS[tape.below(TEXTS.len())]);
    let value = if tape.byte() >= 250 { null() } else { value };
    judged(tape, "raftz_config_set", 0, |error| call!(raftz_config_set(config, key, value, error)));
}

fn config_number(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let key = key(config, tape);
    let number = tape.number();
    judged(tape, "raftz_config_set_number", 0, |error| {
        call!(raftz_config_set_number(config, key, number, error))
    });
}

fn config_bool(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let key =
        [c(c"forward"), c(c"lease_reads"), c(c"metrics"), c(c"founders"), null()][tape.below(5)];
    let is_on = tape.byte();
    judged(tape, "raftz_config_set_bool", 0, |error| {
        call!(raftz_config_set_bool(config, key, is_on, error))
    });
}

fn config_place(world: &mut World, tape: &mut Tape<'_>) {
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

fn config_look(world: &mut World, tape: &mut Tape<'_>) {
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

fn config_tell(world: &mut World, tape: &mut Tape<'_>) {
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

fn config_storage(world: &mut World, tape: &mut Tape<'_>) {
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

fn config_free(world: &mut World, tape: &mut Tape<'_>) {
    call!(raftz_config_free(pull(tape, &mut world.configs)));
}

// ---- nodes as they come ----

fn bootstrap(world: &mut World, tape: &mut Tape<'_>) {
    let config = pick(tape, &world.configs);
    let mut is_formatted = false;
    judged(tape, "raftz_node_is_formatted", LONGEST_MS, |error| {
        call!(raftz_node_is_formatted(config, &raw mut is_formatted, error))
    });
    judged(tape, "raftz_node_bootstrap", 2 * LONGEST_MS, |error| {
        call!(raftz_node_bootstrap(config, error))
    });
}

fn network(world: &mut World, tape: &mut Tape<'_>) {
    if tape.below(4) == 3 {
        return call!(raftz_network_free(pull(tape, &mut world.networks)));
    }
    let mut given = Given::new();
    let status = judged(tape, "raftz_network_new", 0, |error| {
        call!(raftz_network_new(given.place(), error))
    });
    call!(raftz_network_free(keep(&mut world.networks, given.after(status))));
}

fn start(world: &mut World, tape: &mut Tape<'_>) {
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

// ---- queues ----

fn queue_new(world: &mut World, tape: &mut Tape<'_>) {
    let calls_max = [0, 1, 4, u64::MAX][tape.below(4)];
    let events_max = [0, 1, 4, u64::MAX][tape.below(4)];
    let mut opts = Versioned::given(tape, raftz_queue_opts { size: 0, calls_max, events_max });
    let mut given = Given::new();
    let status = judged(tape, "raftz_queue_new", 0, |error| {
        call!(raftz_queue_new(opts.pointer(), given.place(), error))
    });
    call!(raftz_queue_free(keep(&mut world.queues, given.after(status))));
}

fn queue_next(world: &mut World, tape: &mut Tape<'_>) {
    let queue = pick(tape, &world.queues);
    let timeout_ms = short_ms(tape);
    let (_, event) = world.take(queue, timeout_ms, tape);
    call!(raftz_event_free(keep(&mut world.events, event)));
}

fn queue_look(world: &mut World, tape: &mut Tape<'_>) {
    let queue = pick(tape, &world.queues);
    assert_eq!(call!(raftz_queue_fd(queue)) < 0, queue.is_null());
    let dropped = call!(raftz_queue_dropped(queue));
    assert!(!queue.is_null() || dropped == 0);
}

fn queue_close(world: &mut World, tape: &mut Tape<'_>) {
    let queue = pick(tape, &world.queues);
    judged(tape, "raftz_queue_close", 0, |error| call!(raftz_queue_close(queue, error)));
}

fn queue_free(world: &mut World, tape: &mut Tape<'_>) {
    let queue = pull(tape, &mut world.queues);
    world.free_queue(queue);
}

fn event(world: &mut World, tape: &mut Tape<'_>) {
    let event = pick(tape, &world.events);
    let mut place = Versioned::<raftz_event_info>::place(tape);
    let into = place.pointer();
    let status =
        judged(tape, "raftz_event_get", 0, |error| call!(raftz_event_get(event, into, error)));
    if let Some(info) = place.after(status) {
        // SAFETY: it lives as long as the event.
        assert!(String::from_utf8(unsafe { bytes(info.text) }).is_ok());
        assert!(info.kind == RAFTZ_EVENT_COMPLETION || info.outcome_count == 0);
    }
    if tape.flag() {
        call!(raftz_event_free(pull(tape, &mut world.events)));
    }
}

// ---- bytes, and the store's commands and answers ----

fn bytes_new(world: &mut World, tape: &mut Tape<'_>) {
    let content = any_slice(tape, b"not of any store");
    let mut given = Given::new();
    let status = if tape.flag() {
        judged(tape, "raftz_bytes_copy", 0, |error| {
            call!(raftz_bytes_copy(content, given.place(), error))
        })
    } else {
        world.own(|data| {
            judged(tape, "raftz_bytes_wrap", 0, |error| {
                call!(raftz_bytes_wrap(content, Some(on_end), data, given.place(), error))
            })
        })
    };
    call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
}

fn bytes_free(world: &mut World, tape: &mut Tape<'_>) {
    let all = pick(tape, &world.bytes);
    let slice = call!(raftz_bytes_slice(all));
    assert!(!all.is_null() || slice.len == 0);
    call!(raftz_bytes_free(pull(tape, &mut world.bytes)));
}

fn kv_command(world: &mut World, tape: &mut Tape<'_>) {
    let which = tape.below(7);
    let (key, value) = (any_slice(tape, b"key"), any_slice(tape, b"value"));
    let optional = [null(), &raw const value][tape.below(2)];
    let number = tape.number();
    let mut given = Given::new();
    let place = given.place();
    let status = match which {
        0 => judged(tape, "raftz_kv_set", 0, |error| call!(raftz_kv_set(key, value, place, error))),
        1 => judged(tape, "raftz_kv_delete", 0, |error| call!(raftz_kv_delete(key, place, error))),
        2 => judged(tape, "raftz_kv_compare_and_set", 0, |error| {
            call!(raftz_kv_compare_and_set(key, optional, &raw const value, place, error))
        }),
        3 => judged(tape, "raftz_kv_increment", 0, |error| {
            call!(raftz_kv_increment(key, number.cast_signed(), place, error))
        }),
        4 => judged(tape, "raftz_kv_get", 0, |error| call!(raftz_kv_get(key, place, error))),
        5 => judged(tape, "raftz_kv_scan", 0, |error| {
            call!(raftz_kv_scan(key, optional, number as u32, place, error))
        }),
        _ => judged(tape, "raftz_kv_digest", 0, |error| call!(raftz_kv_digest(place, error))),
    };
    call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
}

fn kv_answer(world: &mut World, tape: &mut Tape<'_>) {
    let from = pick(tape, &world.bytes);
    let flags = [0, RAFTZ_OUTCOME_REJECTED, u32::MAX][tape.below(3)];
    let mut given = Given::new();
    let content = call!(raftz_bytes_slice(from));
    let status = judged(tape, "raftz_kv_reply_read", 0, |error| {
        call!(raftz_kv_reply_read(content, flags, given.place(), error))
    });
    call!(raftz_kv_reply_free(keep(&mut world.answers, given.after(status))));
    let answer = pick(tape, &world.answers);
    let mut place = Versioned::<raftz_kv_reply_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_kv_reply_get", 0, |error| {
        call!(raftz_kv_reply_get(answer, into, error))
    });
    let count = place.after(status).map_or(0, |info| info.count as usize);
    let mut none = [slice(&[]), slice(&[])];
    let [key, value] = &mut none;
    let status = judged(tape, "raftz_kv_reply_entry", 0, |error| {
        call!(raftz_kv_reply_entry(answer, count.wrapping_sub(1), key, value, error))
    });
    // SAFETY: they live as long as the answer.
    assert!(status != RAFTZ_OK || !unsafe { bytes(none[0]) }.is_empty());
    if tape.flag() {
        call!(raftz_kv_reply_free(pull(tape, &mut world.answers)));
    }
}

// ---- calls ----

fn propose_opts(tape: &mut Tape<'_>) -> Versioned<raftz_propose_opts> {
    let timeout_ms = [0, 1, 30, 300][tape.below(4)];
    let bits = tape.byte();
    let forward = if bits >= 250 { 3 } else { u32::from(bits) % 3 };
    let expected_term = [0, 0, 0, 1][usize::from(bits >> 3) % 4];
    let opts = raftz_propose_opts { size: 0, timeout_ms, forward, expected_term };
    Versioned::given(tape, opts)
}

/// As it is given to the library, and whether it is what was to be written.
fn command(tape: &mut Tape<'_>, write: &Write) -> (raftz_slice, bool) {
    let command = any_slice(tape, &write.command);
    (command, command.data == write.command.as_ptr() && command.len == write.command.len())
}

fn propose(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = propose_opts(tape);
    let write = world.write(node, tape);
    let (command, is_good) = command(tape, &write);
    let tracked = node.filter(|_| is_good).map(|node| (node, vec![write.clone()]));
    let pending = world.pending(Kind::Write, 1, false, tracked);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let status = judged(tape, "raftz_propose", 0, |error| {
        call!(raftz_propose(pointer, command, opts.pointer(), Some(on_done), data, error))
    });
    world.made(pending, node, null_mut(), status);
}

fn propose_bytes(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = propose_opts(tape);
    let write = world.write(node, tape);
    let mut given = Given::new();
    let content = slice(&write.command);
    let copied = judged(&mut Tape::new(&[]), "raftz_bytes_copy", 0, |error| {
        call!(raftz_bytes_copy(content, given.place(), error))
    });
    // Taken over, whatever comes of it.
    let command = given.after(copied).expect("a copy");
    let tracked = node.map(|node| (node, vec![write.clone()]));
    let pending = world.pending(Kind::Write, 1, false, tracked);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let function: raftz_done_fn = if tape.byte() >= 250 { None } else { Some(on_done) };
    let status = judged(tape, "raftz_propose_bytes", 0, |error| {
        call!(raftz_propose_bytes(pointer, command, opts.pointer(), function, data, error))
    });
    world.made(pending, node, null_mut(), status);
}

/// Up to three writes, now and then with one that is none.
fn several(
    world: &mut World,
    node: Option<usize>,
    tape: &mut Tape<'_>,
) -> (Vec<Write>, Vec<raftz_slice>, bool) {
    let count = [1, 3, 2, 0][tape.below(4)];
    let writes: Vec<Write> = (0..count).map(|_| world.write(node, tape)).collect();
    let mut slices: Vec<raftz_slice> = writes.iter().map(|write| slice(&write.command)).collect();
    let is_good = match slices.last_mut().filter(|_| tape.byte() >= 250) {
        Some(last) => {
            *last = raftz_slice { data: null(), len: 1 };
            false
        }
        None => true,
    };
    (writes, slices, is_good)
}

fn propose_batch(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = propose_opts(tape);
    let (writes, slices, _) = several(world, node, tape);
    let count = if tape.byte() >= 250 { usize::MAX } else { slices.len() };
    let tracked = node.map(|node| (node, writes.clone()));
    let pending = world.pending(Kind::Write, slices.len(), false, tracked);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let commands = slices.as_ptr();
    let status = judged(tape, "raftz_propose_batch", 0, |error| {
        call!(raftz_propose_batch(
            pointer,
            commands,
            count,
            opts.pointer(),
            Some(on_batch),
            data,
            error
        ))
    });
    world.made(pending, node, null_mut(), status);
}

fn propose_queued(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let queue = pick(tape, &world.queues);
    let mut opts = propose_opts(tape);
    let (writes, slices, _) = several(world, node, tape);
    let tracked = node.map(|node| (node, writes.clone()));
    let pending = world.pending(Kind::Write, slices.len(), true, tracked);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let (commands, count) = (slices.as_ptr(), slices.len());
    let status = judged(tape, "raftz_propose_queued", 0, |error| {
        call!(raftz_propose_queued(pointer, commands, count, opts.pointer(), queue, data, error))
    });
    world.made(pending, node, queue, status);
}

fn propose_wait(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = propose_opts(tape);
    let write = world.write(node, tape);
    let (command, is_good) = command(tape, &write);
    let mut place = Versioned::<raftz_reply>::place(tape);
    let (pointer, into) = (world.pointer(node), place.pointer());
    let status = judged(tape, "raftz_propose_wait", LONGEST_MS, |error| {
        call!(raftz_propose_wait(pointer, command, opts.pointer(), into, error))
    });
    let Some(reply) = place.after(status) else { return };
    assert!(reply.index > 0 && reply.term > 0 && reply.reserved == 0);
    let member = node.filter(|_| is_good).and_then(|node| world.nodes[node].member);
    if let Some((cluster, _)) = member.filter(|(of, _)| world.clusters[*of].keeps != Keeps::Counter)
    {
        super::judge::lock(&world.clusters[cluster].acknowledged).push((reply.index, write));
    }
    call!(raftz_bytes_free(keep(&mut world.bytes, Some(reply.bytes))));
}

fn read_opts(tape: &mut Tape<'_>) -> Versioned<raftz_read_opts> {
    let bits = tape.byte();
    let level = if bits >= 250 { 5 } else { u32::from(bits) % 5 };
    let timeout_ms = [0, 1, 30, 300][tape.below(4)];
    let (index, max_age_ms) = (u64::from(bits) * u64::from(bits >> 7), u64::from(bits >> 4));
    Versioned::given(tape, raftz_read_opts { size: 0, level, timeout_ms, index, max_age_ms })
}

/// A question for a node, or one that its machine does not understand.
fn request(world: &World, tape: &mut Tape<'_>) -> Vec<u8> {
    match tape.below(5) {
        0 => question(1),
        1 => b"fail".to_vec(),
        2 => b"reject".to_vec(),
        3 => Vec::new(),
        // SAFETY: it lives; NULL has none.
        _ => unsafe { bytes(call!(raftz_bytes_slice(pick(tape, &world.bytes)))) },
    }
}

fn read(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = read_opts(tape);
    let request = request(world, tape);
    let request = any_slice(tape, &request);
    let pending = world.pending(Kind::Read, 1, false, None);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let status = judged(tape, "raftz_read", 0, |error| {
        call!(raftz_read(pointer, request, opts.pointer(), Some(on_done), data, error))
    });
    world.made(pending, node, null_mut(), status);
}

fn read_queued(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let queue = pick(tape, &world.queues);
    let mut opts = read_opts(tape);
    let request = request(world, tape);
    let request = slice(&request);
    let pending = world.pending(Kind::Read, 1, true, None);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let status = judged(tape, "raftz_read_queued", 0, |error| {
        call!(raftz_read_queued(pointer, request, opts.pointer(), queue, data, error))
    });
    world.made(pending, node, queue, status);
}

fn read_wait(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = read_opts(tape);
    let request = request(world, tape);
    let request = any_slice(tape, &request);
    let mut place = Versioned::<raftz_reply>::place(tape);
    let (pointer, into) = (world.pointer(node), place.pointer());
    let status = judged(tape, "raftz_read_wait", LONGEST_MS, |error| {
        call!(raftz_read_wait(pointer, request, opts.pointer(), into, error))
    });
    if let Some(reply) = place.after(status) {
        assert_eq!((reply.index, reply.term, reply.reserved), (0, 0, 0));
        call!(raftz_bytes_free(keep(&mut world.bytes, Some(reply.bytes))));
    }
}

fn transfer(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let queue = pick(tape, &world.queues);
    let target = [0, 2, 1, 3, u64::MAX][tape.below(5)];
    let timeout_ms = [100, 0, 1, 2000][tape.below(4)];
    let way = tape.below(4);
    let is_queued = way >= 2;
    let pending = world.pending(Kind::Transfer, 1, is_queued, None);
    let (node_is, data) = (world.pointer(node), pending.user_data());
    let done: raftz_done_fn = Some(on_done);
    let status = match way {
        0 => judged(tape, "raftz_transfer_leadership", 0, |error| {
            call!(raftz_transfer_leadership(node_is, target, timeout_ms, done, data, error))
        }),
        1 => judged(tape, "raftz_step_down", 0, |error| {
            call!(raftz_step_down(node_is, timeout_ms, done, data, error))
        }),
        2 => judged(tape, "raftz_transfer_leadership_queued", 0, |error| {
            call!(raftz_transfer_leadership_queued(node_is, target, timeout_ms, queue, data, error))
        }),
        _ => judged(tape, "raftz_step_down_queued", 0, |error| {
            call!(raftz_step_down_queued(node_is, timeout_ms, queue, data, error))
        }),
    };
    world.made(pending, node, queue, status);
}

fn transfer_wait(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let target = [0, 2, 1, 3, u64::MAX][tape.below(5)];
    let timeout_ms = [100, 0, 1, 2000][tape.below(4)];
    let mut leader = NUMBER;
    let place = if tape.byte() >= 250 { null_mut() } else { &raw mut leader };
    let status = if tape.flag() {
        judged(tape, "raftz_step_down_wait", timeout_ms, |error| {
            call!(raftz_step_down_wait(node, timeout_ms, place, error))
        })
    } else {
        judged(tape, "raftz_transfer_leadership_wait", timeout_ms, |error| {
            call!(raftz_transfer_leadership_wait(node, target, timeout_ms, place, error))
        })
    };
    assert!(number_after(leader, status) != Some(0), "nobody leads");
}

// ---- looking ----

fn state(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let mut given = Given::new();
    let status = judged(tape, "raftz_node_state", 1000, |error| {
        call!(raftz_node_state(node, given.place(), error))
    });
    let state = given.after(status).unwrap_or(null_mut());
    let mut place = Versioned::<raftz_state_info>::place(tape);
    let into = place.pointer();
    let status =
        judged(tape, "raftz_state_get", 0, |error| call!(raftz_state_get(state, into, error)));
    let mut peers = 0;
    if let Some(info) = place.after(status) {
        assert_eq!(info.node_id, call!(raftz_node_id(node)));
        assert!(info.applied_index <= info.commit_index && info.role <= 3);
        peers = info.peer_count;
    }
    let at = [0, peers, usize::MAX][tape.below(3)];
    let mut place = Versioned::<raftz_peer_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_state_peer", 0, |error| {
        call!(raftz_state_peer(state, at, into, error))
    });
    assert!(status != RAFTZ_OK || at < peers || peers == 0);
    if let Some(info) = place.after(status) {
        // SAFETY: they live as long as the state.
        let (address, mode) = unsafe { (bytes(info.address), text(info.mode)) };
        assert!(info.node_id > 0 && !address.is_empty() && mode.len() < 20);
    }
    call!(raftz_state_free(state));
}

fn metrics(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let mut place = Versioned::<raftz_metrics_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_metrics", 0, |error| call!(raftz_metrics(node, into, error)));
    if let Some(info) = place.after(status) {
        assert_eq!(info.node_id, call!(raftz_node_id(node)));
    }
    let peer = [2, 1, 0, u64::MAX][tape.below(4)];
    let mut place = Versioned::<raftz_peer_metrics_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_metrics_peer", 0, |error| {
        call!(raftz_metrics_peer(node, peer, into, error))
    });
    assert!(place.after(status).is_none_or(|info| info.node_id == peer && peer > 0));
    let mut given = Given::new();
    let status = judged(tape, "raftz_metrics_text", 0, |error| {
        call!(raftz_metrics_text(node, given.place(), error))
    });
    call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
}

fn watch(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let after = [0, 1, 2, u64::MAX][tape.below(4)];
    let timeout_ms = short_ms(tape);
    let mut place = Versioned::<raftz_standing_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_watch_wait", timeout_ms, |error| {
        call!(raftz_watch_wait(node, after, timeout_ms, into, error))
    });
    assert!(place.after(status).is_none_or(|info| info.version > 0 && info.role <= 3));
}

fn wait(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let timeout_ms = [500, 0, 1, 50][tape.below(4)];
    let which = tape.below(4);
    let index = tape.number();
    match which {
        0 => {
            let mut leader = NUMBER;
            let status = judged(tape, "raftz_node_wait_for_leader", timeout_ms, |error| {
                call!(raftz_node_wait_for_leader(node, timeout_ms, &raw mut leader, error))
            });
            assert!(number_after(leader, status) != Some(0), "nobody leads");
        }
        1 => {
            judged(tape, "raftz_node_wait_for_applied", timeout_ms, |error| {
                call!(raftz_node_wait_for_applied(node, index, timeout_ms, error))
            });
        }
        2 => {
            judged(tape, "raftz_node_campaign", 0, |error| call!(raftz_node_campaign(node, error)));
        }
        _ => {
            let mut given = Given::new();
            let status = judged(tape, "raftz_node_listen_address", 0, |error| {
                call!(raftz_node_listen_address(node, given.place(), error))
            });
            call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
        }
    }
}

fn snapshot(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let timeout_ms = [200, 0, 1, 50, 5000][tape.below(5)];
    let mut index = NUMBER;
    let place = if tape.byte() >= 250 { null_mut() } else { &raw mut index };
    let status = judged(tape, "raftz_node_snapshot", timeout_ms, |error| {
        call!(raftz_node_snapshot(node, timeout_ms, place, error))
    });
    number_after(index, status);
}

fn names(_world: &mut World, tape: &mut Tape<'_>) {
    let status = tape.number() as i32;
    // SAFETY: static text.
    let (name, version) =
        unsafe { (text(call!(raftz_status_name(status))), text(call!(raftz_version_text()))) };
    assert!(name.starts_with("RAFTZ_") && version.contains('.'));
    let is_unknown = call!(raftz_status_is_outcome_unknown(status));
    assert_eq!(is_unknown, (-63..=-32).contains(&status) || status == RAFTZ_PANIC);
    let is_retriable = call!(raftz_status_is_retriable(status));
    assert!(!is_retriable || !is_unknown && !call!(raftz_status_is_fatal(status)), "{name}");
    of_nothing();
    assert_eq!(call!(raftz_version()), RAFTZ_VERSION);
    assert_eq!(call!(raftz_abi_version()), RAFTZ_ABI_VERSION);
    // What callbacks are given is nothing outside of them.
    let (word, error) = (slice(b"x"), null_mut());
    let (mut wants_more, mut count, mut byte) = (false, 0, 0);
    for (name, status) in [
        ("raftz_replies_push", call!(raftz_replies_push(null_mut(), word))),
        ("raftz_replies_reject", call!(raftz_replies_reject(null_mut(), word))),
        ("raftz_replies_fail", call!(raftz_replies_fail(null_mut(), word))),
        ("raftz_sink_write", call!(raftz_sink_write(null_mut(), word))),
        ("raftz_sink_reject", call!(raftz_sink_reject(null_mut()))),
        ("raftz_sink_fail", call!(raftz_sink_fail(null_mut(), word))),
        ("raftz_entries_push", call!(raftz_entries_push(null_mut(), word, &raw mut wants_more))),
        ("raftz_entries_fail", call!(raftz_entries_fail(null_mut(), word))),
        (
            "raftz_source_read",
            call!(raftz_source_read(null_mut(), &raw mut byte, 1, &raw mut count)),
        ),
        (
            "raftz_storage_complete",
            call!(raftz_storage_complete(null_mut(), 1, RAFTZ_OK, word, error)),
        ),
    ] {
        documented(name, status);
        assert_eq!(status, RAFTZ_NULL_ARG, "{name}");
    }
    for nothing in [call!(raftz_error_status(null())), call!(raftz_error_os_errno(null()))] {
        assert_eq!(nothing, 0);
    }
}

fn conformance(world: &mut World, tape: &mut Tape<'_>) {
    // A whole run takes a while: one that is refused, or a store that fails soon.
    let way = [Way::CannotOpen, Way::Fails, Way::CannotRead][tape.below(3)];
    let is_whole = tape.byte() == 77 && world.disks.is_empty();
    let disk = Disk::new(if is_whole { Way::AtOnce } else { way }, 0);
    let table = disk.table(0);
    world.disks.push(disk);
    let mut opts = raftz_conformance_opts { size: 0, flags: 0, patience_ms: 1000 };
    opts.flags = u32::from(tape.byte() >= 250) * 2;
    let mut table = Versioned::given(tape, table);
    let mut opts = Versioned::given(tape, opts);
    let begun = Instant::now();
    let status = judged(tape, "raftz_storage_conformance", 60_000, |error| {
        call!(raftz_storage_conformance(table.pointer(), opts.pointer(), error))
    });
    assert!(
        status != RAFTZ_OK || is_whole,
        "a store that cannot work passed in {:?}",
        begun.elapsed()
    );
}
