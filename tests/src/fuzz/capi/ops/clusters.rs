//! Clusters as they should be, and a transport of their own.

use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::Arc;

use raftz::config::*;
use raftz::network::*;
use raftz::node::*;
use raftz::status::*;

use super::{LONGEST_MS, NODES_MAX, good};
use crate::fuzz::capi::judge::{Given, call, judged};
use crate::fuzz::capi::machine::{FAULTS, Fault, Spec, Truth};
use crate::fuzz::capi::store::{Disk, WAYS, Way};
use crate::fuzz::capi::wires::{MISHAPS, Post, Wires};
use crate::fuzz::capi::world::{Cluster, Keeps, Member, Node, World, acknowledged, c, pick};
use crate::fuzz::tape::Tape;

pub(super) fn found(world: &mut World, tape: &mut Tape<'_>) {
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

pub(in crate::fuzz::capi) fn new_config(
    zeros: &mut Tape<'_>,
    id: u64,
    addresses: &[String],
) -> *mut raftz_config {
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
pub(super) fn restart(world: &mut World, tape: &mut Tape<'_>) {
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

pub(super) fn read_back(world: &mut World, tape: &mut Tape<'_>) {
    if !world.clusters.is_empty() {
        world.read_back(tape.below(world.clusters.len()), 3, 200);
    }
}

pub(super) fn stop(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let timeout_ms = [LONGEST_MS, 1, 0, 100][tape.below(4)];
    if let Some(node) = node {
        world.stop(node, timeout_ms, tape);
    }
}

pub(super) fn free(world: &mut World, tape: &mut Tape<'_>) {
    match world.node(tape) {
        Some(node) => world.free(node),
        None => call!(raftz_node_free(null_mut())),
    }
}

pub(super) fn wires_happen(world: &mut World, tape: &mut Tape<'_>) {
    let mishap = MISHAPS[tape.below(MISHAPS.len())];
    let times = u64::from(tape.byte());
    world.wires.iter().for_each(|it| it.happens(mishap, times));
}

/// They are whole again unless it says otherwise.
pub(super) fn wires_cut(world: &mut World, tape: &mut Tape<'_>) {
    let is_cut = tape.flag();
    world.wires.iter().for_each(|it| it.cut(is_cut));
}

pub(super) fn wires_told(world: &mut World, tape: &mut Tape<'_>) {
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
