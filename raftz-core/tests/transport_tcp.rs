//! The TCP transport over loopback: links between nodes that mean well.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod transport_rig;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use raftz_core::transport::handshake::Reject;
use raftz_core::transport::tcp::{Listen, TcpConfig, TcpError, TcpTransport};
use raftz_core::transport::{PeerSpec, SendError, Transport};
use raftz_core::types::{Boot, ClusterId, DiskId};
use transport_rig::{Rig, config, frame, id, identity, pair, pair_of, until};

/// Sizes around every threshold: gathered, passed on as they are, beyond the shared buffer, large.
const SIZES: [usize; 9] = [0, 1, 100, 4095, 4096, 65_000, 70_000, 300_000, 3 << 20];

#[test]
fn thousands_of_frames_of_all_sizes_arrive_in_order_both_ways() {
    let (mut one, mut two) = pair();
    let total = 3000;
    let (mut next_one, mut next_two) = (0, 0);
    until(&mut [&mut one, &mut two], "settled links", |rigs| {
        rigs.iter().all(|rig| !rig.seen.is_empty())
    });
    let deadline = Instant::now() + transport_rig::PATIENCE;
    while one.received(2).len() < total || two.received(1).len() < total {
        assert!(Instant::now() < deadline, "not in time");
        for (rig, to, next) in [(&mut one, 2, &mut next_one), (&mut two, 1, &mut next_two)] {
            for _ in 0..200 {
                let size =
                    if *next % 50 == 0 { SIZES[(*next / 50) as usize % SIZES.len()] } else { 60 };
                if *next < total as u64 && rig.send(to, *next, size) == Ok(()) {
                    *next += 1;
                }
            }
            rig.poll();
        }
    }
    for (rig, from) in [(&one, 2), (&two, 1)] {
        let mut numbers = rig.received(from);
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..total as u64), "every frame once");
    }
}

#[test]
fn frames_on_one_link_keep_their_order() {
    let mut one = Rig::new(identity(1));
    let mut two = Rig::new(identity(2));
    // Only one side dials, so there is one link from the start.
    let address = two.address();
    one.knows(&[(2, &address)]);
    until(&mut [&mut one, &mut two], "link", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
    for (number, size) in SIZES.iter().cycle().take(60).enumerate() {
        one.send(2, number as u64, *size).unwrap();
    }
    until(&mut [&mut one, &mut two], "frames", |rigs| rigs[1].received(1).len() == 60);
    assert!(two.received(1).into_iter().eq(0..60));
    // The inbound link serves the other way, too.
    two.send(1, 99, 10).unwrap();
    until(&mut [&mut one, &mut two], "answer", |rigs| rigs[0].received(2) == [99]);
}

#[test]
fn three_nodes_reach_each_other() {
    let mut rigs = [Rig::new(identity(1)), Rig::new(identity(2)), Rig::new(identity(3))];
    let addresses: Vec<String> = rigs.iter().map(Rig::address).collect();
    for rig in &mut rigs {
        rig.knows(&[(1, &addresses[0]), (2, &addresses[1]), (3, &addresses[2])]);
    }
    let [a, b, c] = &mut rigs;
    until(&mut [a, b, c], "mesh", |rigs| {
        (1..=3).all(|here| (1..=3).all(|to| here == to || rigs[here as usize - 1].is_up(to)))
    });
    for (from, rig) in rigs.iter_mut().enumerate() {
        for to in (1..=3).filter(|to| *to != from as u64 + 1) {
            rig.send(to, 10 * (from as u64 + 1) + to, 500).unwrap();
        }
    }
    let [a, b, c] = &mut rigs;
    until(&mut [a, b, c], "frames", |rigs| {
        (1..=3u64).all(|here| {
            (1..=3u64)
                .filter(|from| *from != here)
                .all(|from| rigs[here as usize - 1].received(from) == [10 * from + here])
        })
    });
}

#[test]
fn simultaneous_dials_settle_without_losing_the_link_or_a_frame() {
    for _ in 0..20 {
        let (mut one, mut two) = pair();
        for number in 0..50 {
            one.send(2, number, 2000).unwrap();
            two.send(1, number, 2000).unwrap();
            one.poll();
            two.poll();
        }
        until(&mut [&mut one, &mut two], "frames", |rigs| {
            rigs[0].received(2).len() == 50 && rigs[1].received(1).len() == 50
        });
        assert!(one.downs(2).is_empty() && two.downs(1).is_empty());
    }
}

#[test]
fn a_restarted_peer_is_down_and_up_with_its_new_boot() {
    let (mut one, two) = pair();
    let address = two.address();
    drop(two);
    let mut reborn = identity(2);
    reborn.boot = Boot(2);
    let mut restart = config(reborn);
    restart.listen = Listen::Address(address);
    let mut two = Rig::with(restart);
    let first = one.address();
    two.knows(&[(1, &first)]);
    until(&mut [&mut one, &mut two], "new life", |rigs| {
        rigs[0].ups(2).last().is_some_and(|peer| peer.boot == Boot(2)) && rigs[1].is_up(1)
    });
    assert_eq!(one.downs(2).len(), one.ups(2).len() - 1);
    one.send(2, 5, 10).unwrap();
    until(&mut [&mut one, &mut two], "frame", |rigs| rigs[1].received(1) == [5]);
}

#[test]
fn a_newer_boot_replaces_a_link_that_is_still_open() {
    let (mut one, mut old) = pair();
    let mut reborn = identity(2);
    reborn.boot = Boot(2);
    let mut two = Rig::new(reborn);
    let first = one.address();
    old.knows(&[]);
    two.knows(&[(1, &first)]);
    until(&mut [&mut one, &mut two], "new life", |rigs| {
        rigs[0].ups(2).last().is_some_and(|peer| peer.boot == Boot(2)) && rigs[1].is_up(1)
    });
    assert_eq!(one.downs(2).len(), 1);
    assert!(one.downs(2)[0].contains("restarted"), "{:?}", one.downs(2));
    // The old life, still running, is told that it is over.
    old.knows(&[(1, &first)]);
    until(&mut [&mut one, &mut old], "refusal", |rigs| !rigs[1].refusals_by(1).is_empty());
    assert_eq!(old.refusals_by(1)[0].0, Reject::STALE_BOOT);
}

#[test]
fn a_newer_boot_of_a_node_that_no_membership_names_is_up_like_any_other() {
    let mut one = Rig::new(identity(1));
    let first = one.address();
    let mut old = Rig::new(identity(9));
    old.knows(&[(1, &first)]);
    until(&mut [&mut one, &mut old], "first life", |rigs| rigs[0].is_up(9) && rigs[1].is_up(1));
    old.knows(&[]);
    let mut reborn = identity(9);
    reborn.boot = Boot(2);
    let mut nine = Rig::new(reborn);
    nine.knows(&[(1, &first)]);
    until(&mut [&mut one, &mut nine], "new life", |rigs| {
        rigs[0].ups(9).last().is_some_and(|peer| peer.boot == Boot(2)) && rigs[1].is_up(1)
    });
    assert_eq!(one.downs(9).len(), 1);
    one.send(9, 5, 10).unwrap();
    nine.send(1, 6, 10).unwrap();
    until(&mut [&mut one, &mut nine], "frames", |rigs| {
        rigs[0].received(9) == [6] && rigs[1].received(1) == [5]
    });
}

/// Starts 1 and 2 with the given difference; returns what 2, dialling 1, is told, and what 1 says.
fn refused(
    change: impl FnOnce(&mut raftz_core::transport::handshake::Identity),
) -> (u16, String, String) {
    let mut one = Rig::new(identity(1));
    let mut other = identity(2);
    change(&mut other);
    let mut two = Rig::new(other);
    let first = one.address();
    two.knows(&[(1, &first)]);
    until(&mut [&mut one, &mut two], "refusal", |rigs| !rigs[1].refusals_by(1).is_empty());
    assert!(one.ups(2).is_empty() && two.ups(1).is_empty());
    let (code, told) = two.refusals_by(1)[0];
    let (own_code, words) = one.refusals_of(2)[0];
    assert_eq!(code, own_code);
    (code, told.to_owned(), words.to_owned())
}

#[test]
fn nodes_of_another_cluster_epoch_or_version_are_refused_with_words() {
    let (theirs, ours) = (ClusterId(8).to_string(), ClusterId(7).to_string());
    let (code, told, words) = refused(|other| other.cluster = ClusterId(8));
    assert_eq!(code, Reject::WRONG_CLUSTER);
    assert!(words.contains(&theirs) && words.contains(&ours), "{words}");
    assert!(told.contains(&theirs) && !told.contains(&ours), "{told}");
    assert_eq!(refused(|other| other.epoch = 2).0, Reject::WRONG_EPOCH);
    let (code, words, _) = refused(|other| {
        other.version_min = 5;
        other.version_max = 6;
    });
    assert_eq!(code, Reject::NO_COMMON_VERSION);
    assert!(words.contains("5 to 6") && words.contains("1 to 1"), "{words}");
}

#[test]
fn a_second_process_with_the_same_id_is_refused() {
    let mut one = Rig::new(identity(1));
    let mut twin = Rig::new(identity(1));
    let first = one.address();
    twin.knows(&[(3, &first)]);
    until(&mut [&mut one, &mut twin], "refusal", |rigs| !rigs[1].refusals_by(3).is_empty());
    assert_eq!(twin.refusals_by(3)[0].0, Reject::ID_IN_USE);
}

#[test]
fn a_node_at_anothers_address_is_not_taken_for_it() {
    let mut one = Rig::new(identity(1));
    let mut two = Rig::new(identity(2));
    let first = one.address();
    two.knows(&[(3, &first)]);
    until(&mut [&mut one, &mut two], "refusal", |rigs| !rigs[1].refusals_by(3).is_empty());
    assert_eq!(two.refusals_by(3)[0].0, Reject::NOT_ME);
}

#[test]
fn a_wiped_node_is_refused_by_name_whoever_dials() {
    for wiped_dials in [true, false] {
        let mut one = Rig::new(identity(1));
        let mut wiped = identity(2);
        wiped.disk = DiskId(999);
        let mut two = Rig::new(wiped);
        let (first, second) = (one.address(), two.address());
        let disk = Some(DiskId(102));
        // The knowing side needs an address to dial; a dead one keeps it from dialling.
        let address = if wiped_dials { "127.0.0.1:1".into() } else { second };
        one.transport.set_peers(&[PeerSpec { node: id(2), address, disk }]);
        two.knows(&[(1, if wiped_dials { &first } else { "127.0.0.1:1" })]);
        until(&mut [&mut one, &mut two], "refusal", |rigs| !rigs[1].refusals_by(1).is_empty());
        let (code, words) = two.refusals_by(1)[0];
        assert_eq!(code, Reject::WRONG_DISK);
        assert!(
            words.contains(&DiskId(102).to_string()) && words.contains(&DiskId(999).to_string())
        );
        assert!(one.ups(2).is_empty() && two.ups(1).is_empty());
        // Only a peer found at its own address is believed which directory it knows.
        let believed = if wiped_dials { disk } else { None };
        assert_eq!(two.disks_known_by(1)[0], believed);
    }
}

#[test]
fn a_second_process_on_a_copied_directory_is_refused() {
    let (mut one, mut two) = pair();
    let mut copy = Rig::new(identity(2));
    let first = one.address();
    copy.knows(&[(1, &first)]);
    until(&mut [&mut one, &mut two, &mut copy], "refusal", |rigs| {
        !rigs[2].refusals_by(1).is_empty()
    });
    assert_eq!(copy.refusals_by(1)[0].0, Reject::ID_IN_USE);
    assert!(one.downs(2).is_empty());
}

#[test]
fn a_node_that_reaches_itself_says_so() {
    let mut one = Rig::new(identity(1));
    let own = one.address();
    one.knows(&[(2, &own)]);
    until(&mut [&mut one], "refusal", |rigs| !rigs[0].refusals_by(2).is_empty());
    assert_eq!(one.refusals_by(2)[0].0, Reject::SELF_CONNECTION);
}

#[test]
fn a_silent_peer_is_found_dead_and_a_quiet_one_is_not() {
    let quick = |node| {
        let mut config = config(identity(node));
        config.limits.ping_after_ms = 50;
        config.limits.dead_after_ms = 300;
        Rig::with(config)
    };
    let (mut one, mut two) = pair_of(quick(1), quick(2));
    // Nothing is said but pings, for several times the deadline.
    let quiet_until = Instant::now() + Duration::from_millis(1000);
    until(&mut [&mut one, &mut two], "quiet", |_| Instant::now() >= quiet_until);
    assert!(one.downs(2).is_empty() && two.downs(1).is_empty());
    // Now 2 stops: its socket stays open and nobody reads it.
    until(&mut [&mut one], "death", |rigs| !rigs[0].downs(2).is_empty());
    assert!(one.downs(2)[0].contains("300 ms"), "{:?}", one.downs(2));
    assert_eq!(one.send(2, 1, 1), Err(SendError::NoLink));
}

#[test]
fn a_reader_that_stops_costs_bounded_memory_and_is_dropped() {
    let quick = |node| {
        let mut config = config(identity(node));
        config.limits.queue_bytes_max = 4 << 20;
        config.limits.dead_after_ms = 500;
        config.limits.ping_after_ms = 100;
        Rig::with(config)
    };
    let (mut one, mut two) = pair_of(quick(1), quick(2));
    let mut queued = 0;
    let mut full = false;
    // 2 is not polled: kernel buffers fill, then the queue.
    until(&mut [&mut one], "full", |_| true);
    for number in 0..1000 {
        match one.send(2, number, 1 << 20) {
            Ok(()) => queued += 1,
            Err(SendError::Full) => {
                full = true;
                break;
            }
            Err(error) => panic!("{error:?}"),
        }
        one.transport.flush();
    }
    assert!(full && queued < 100, "{queued} MiB were taken");
    until(&mut [&mut one], "drop", |rigs| !rigs[0].downs(2).is_empty());
    // It comes back as soon as it reads again.
    until(&mut [&mut one, &mut two], "return", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
}

#[test]
fn a_hold_up_of_this_side_is_no_stall_of_the_peer() {
    let with = |node, dead_after_ms| {
        let mut config = config(identity(node));
        config.limits.dead_after_ms = dead_after_ms;
        config.limits.ping_after_ms = 100;
        Rig::with(config)
    };
    let (mut one, mut two) = pair_of(with(1, 300), with(2, 60_000));
    // More than the sockets hold, so that something waits here.
    for number in 0..6 {
        one.send(2, number, 4 << 20).unwrap();
    }
    one.poll();
    // The peer takes what is in the sockets, and speaks, while this side does nothing.
    let held_up_until = Instant::now() + Duration::from_millis(600);
    until(&mut [&mut two], "hold-up", |_| Instant::now() >= held_up_until);
    two.send(1, 7, 10).unwrap();
    two.poll();
    until(&mut [&mut one, &mut two], "frames", |rigs| {
        rigs[1].received(1).len() == 6 && rigs[0].received(2) == [7]
    });
    assert!(one.downs(2).is_empty(), "{:?}", one.downs(2));
}

#[test]
fn a_reset_in_the_middle_of_a_frame_ends_the_link_and_hands_up_nothing_of_it() {
    let mut one = Rig::new(identity(1));
    let mut two = Rig::new(identity(2));
    // A proxy that cuts the first connection in the middle of a large frame.
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap().to_string();
    let target = two.address();
    let thread = std::thread::spawn(move || {
        let (mut near, _) = proxy.accept().unwrap();
        let mut far = std::net::TcpStream::connect(target).unwrap();
        let (mut near_read, mut far_write) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut far, &mut near);
        });
        let mut left = 500_000;
        let mut buffer = vec![0; 10_000];
        while left > 0 {
            let count = near_read.read(&mut buffer).unwrap();
            far_write.write_all(&buffer[..count]).unwrap();
            left -= count.min(left);
        }
        // Unread bytes make this a reset for the near side.
        let _ = far_write.shutdown(std::net::Shutdown::Both);
        let _ = near_read.shutdown(std::net::Shutdown::Both);
        let _ = back.join();
        drop(proxy);
    });
    one.knows(&[(2, &address)]);
    until(&mut [&mut one, &mut two], "link", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
    one.send(2, 1, 10).unwrap();
    one.send(2, 2, 2 << 20).unwrap();
    until(&mut [&mut one, &mut two], "reset", |rigs| {
        !rigs[0].downs(2).is_empty() && !rigs[1].downs(1).is_empty()
    });
    assert_eq!(two.received(1), [1]);
    thread.join().unwrap();
    // The direct way works at once.
    one.knows(&[(2, &two.address())]);
    until(&mut [&mut one, &mut two], "again", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
}

#[test]
fn a_name_that_does_not_resolve_is_reported_retried_and_harms_nobody() {
    let mut one = {
        let mut config = config(identity(1));
        config.resolve = Some(Arc::new(|name: &str| {
            if name.starts_with("hangs") {
                // Never answers while the test runs.
                let (keep, wait) = std::sync::mpsc::channel::<()>();
                std::mem::forget(keep);
                let _ = wait.recv();
            }
            assert!(!name.starts_with("panics"), "on purpose");
            Err(std::io::Error::other("no such name"))
        }));
        Rig::with(config)
    };
    let mut two = Rig::new(identity(2));
    let second = two.address();
    one.knows(&[(2, &second), (3, "nowhere.invalid:7001"), (4, "hangs.invalid:7001")]);
    until(&mut [&mut one, &mut two], "retries", |rigs| {
        rigs[0].is_up(2) && rigs[0].unreachable(3).len() >= 2 && !rigs[0].unreachable(4).is_empty()
    });
    one.knows(&[(2, &second), (5, "panics.invalid:7001")]);
    until(&mut [&mut one, &mut two], "retries after a panic", |rigs| {
        rigs[0].unreachable(5).len() >= 2
    });
    assert!(one.unreachable(5)[0].contains("the resolver panicked"), "{:?}", one.unreachable(5));
    assert!(one.unreachable(3)[0].contains("nowhere.invalid:7001"), "{:?}", one.unreachable(3));
    assert!(one.unreachable(3)[0].contains("no such name"), "{:?}", one.unreachable(3));
    let start = Instant::now();
    drop(one);
    assert!(start.elapsed() < Duration::from_secs(1), "a hung lookup must not delay the end");
}

#[test]
fn a_peer_that_came_by_itself_is_not_told_to_be_out_of_reach() {
    let (answer, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let mut one = {
        let mut config = config(identity(1));
        config.resolve = Some(Arc::new(move |_: &str| {
            let _ = wait.lock().unwrap().recv();
            Err(std::io::Error::other("no such name"))
        }));
        Rig::with(config)
    };
    let mut two = Rig::new(identity(2));
    one.knows(&[(2, "two.invalid:7001")]);
    one.poll();
    let first = one.address();
    two.knows(&[(1, &first)]);
    until(&mut [&mut one, &mut two], "link", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
    // Now the lookup fails, which concerns nobody.
    drop(answer);
    for number in 0..20 {
        two.send(1, number, 10).unwrap();
        until(&mut [&mut one, &mut two], "frames", |rigs| {
            rigs[0].received(2).len() as u64 > number
        });
    }
    assert!(one.unreachable(2).is_empty(), "{:?}", one.unreachable(2));
    // Once the link is gone it does.
    drop(two);
    until(&mut [&mut one], "report", |rigs| !rigs[0].unreachable(2).is_empty());
    assert!(one.unreachable(2)[0].contains("no such name"), "{:?}", one.unreachable(2));
}

#[test]
fn a_name_of_this_machine_resolves_and_connects() {
    let mut one = Rig::new(identity(1));
    let mut two = Rig::new(identity(2));
    let port = two.address().rsplit_once(':').unwrap().1.to_owned();
    one.knows(&[(2, &format!("localhost:{port}"))]);
    until(&mut [&mut one, &mut two], "link", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let one = Rig::new(identity(1));
    let config = TcpConfig::new(identity(2), Listen::Address(one.address()));
    let error = TcpTransport::new(config).unwrap_err();
    assert!(matches!(&error, TcpError::PortInUse { address, .. } if *address == one.address()));
    assert!(error.to_string().contains("choose another"), "{error}");
}

#[test]
fn an_address_beyond_loopback_needs_consent() {
    let config = TcpConfig::new(identity(1), Listen::Address("0.0.0.0:0".into()));
    let error = TcpTransport::new(config).unwrap_err();
    assert!(matches!(error, TcpError::NotLoopback { .. }));
    assert!(error.to_string().contains("insecure_plaintext"), "{error}");
    let mut config = TcpConfig::new(identity(1), Listen::Address("0.0.0.0:0".into()));
    config.insecure_plaintext = true;
    assert!(TcpTransport::new(config).is_ok());

    let mut one = Rig::new(identity(1));
    one.knows(&[(2, "192.0.2.1:7001")]);
    until(&mut [&mut one], "report", |rigs| !rigs[0].unreachable(2).is_empty());
    assert!(one.unreachable(2)[0].contains("insecure_plaintext"), "{:?}", one.unreachable(2));
}

#[test]
fn an_unusable_listen_address_is_an_error_with_the_address() {
    for address in ["nonsense", "127.0.0.1:99999", "192.0.2.1:0"] {
        let mut config = TcpConfig::new(identity(1), Listen::Address(address.into()));
        config.insecure_plaintext = true;
        let error = TcpTransport::new(config).unwrap_err();
        assert!(matches!(error, TcpError::BadAddress { .. }), "{address}: {error:?}");
        let host = address.split(':').next().unwrap();
        assert!(error.to_string().contains(host), "{error}");
    }
}

#[test]
fn a_frame_beyond_what_the_peer_accepts_is_refused_at_once() {
    let mut small = config(identity(2));
    small.limits.frames.control_bytes_max = 2000;
    small.limits.frames.data_bytes_max = 2000;
    small.limits.frames.bulk_bytes_max = 2000;
    let (mut one, mut two) = pair_of(Rig::new(identity(1)), Rig::with(small));
    assert_eq!(one.send(2, 1, 5000), Err(SendError::TooLarge));
    assert_eq!(one.send(2, 2, 500), Ok(()));
    until(&mut [&mut one, &mut two], "frame", |rigs| rigs[1].received(1) == [2]);
}

#[test]
fn a_wake_from_another_thread_ends_a_poll_without_deadline() {
    let mut one = Rig::new(identity(1));
    one.poll();
    let waker = one.transport.waker();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        waker.wake();
        // Another one, should the first have ended an earlier poll.
        while stopped.recv_timeout(Duration::from_millis(20)).is_err() {
            waker.wake();
        }
    });
    one.transport.poll(None, &mut one.seen).unwrap();
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[test]
fn an_idle_transport_sleeps() {
    let (mut one, mut two) = pair();
    // What the settling of links leaves to do is done within a few turns.
    for _ in 0..20 {
        one.poll();
        two.poll();
    }
    let start = Instant::now();
    let mut turns = 0;
    while start.elapsed() < Duration::from_millis(400) {
        one.transport.poll(Some(Duration::from_millis(100)), &mut one.seen).unwrap();
        turns += 1;
    }
    assert!(turns <= 8, "{turns} turns in 400 ms");
}

#[test]
fn a_send_without_link_is_told_so() {
    let mut one = Rig::new(identity(1));
    assert_eq!(one.transport.send(id(2), frame(1, 1)), Err(SendError::NoLink));
}
