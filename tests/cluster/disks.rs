//! Disks that fail, fill up or stand still, one node at a time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::language::Language;
use super::shim::{ELECTION, Faulty};

const ALL: [usize; 3] = [0, 1, 2];

/// Three nodes that serve, and the place of their leader.
fn cluster() -> (Faulty, usize) {
    cluster_of(Language::Rust)
}

fn cluster_of(language: Language) -> (Faulty, usize) {
    let mut faulty = Faulty::steady(3);
    for place in ALL {
        faulty.cluster.speak(place, language);
        faulty.start(place, &[]);
    }
    let leader = faulty.cluster.leader();
    (faulty, leader)
}

/// Ends the load and checks that every node holds everything that was acknowledged.
fn all_is_there(faulty: &mut Faulty) {
    faulty.cluster.quiet(&[true; 3]);
    faulty.cluster.settle();
    let acknowledged = faulty.cluster.acknowledged_keys();
    for place in ALL {
        let held: BTreeSet<String> =
            faulty.cluster.dump(place).into_iter().map(|(key, _)| key).collect();
        assert!(acknowledged.is_subset(&held), "node {} lost writes", place + 1);
    }
}

#[test]
fn a_leader_whose_sync_fails_faults_by_name_and_lives_while_the_others_go_on() {
    leader_fails(Language::Rust, "fail sync", "syncing");
}

#[test]
fn a_leader_in_c_whose_sync_fails_faults_by_name_and_lives_while_the_others_go_on() {
    leader_fails(Language::C, "fail sync", "syncing");
}

#[test]
fn a_leader_whose_write_fails_faults_by_name_and_lives_while_the_others_go_on() {
    leader_fails(Language::Rust, "fail write", "writing");
}

fn leader_fails(language: Language, order: &str, doing: &str) {
    let (mut faulty, leader) = cluster_of(language);
    for place in ALL {
        faulty.cluster.tell(place, &format!("load n{place} 2"));
    }
    faulty.cluster.wait_acknowledged(100);
    // What strikes the segment that is prepared beside the log costs nothing: it is prepared again.
    let mut orders = 0;
    let told = loop {
        assert!(orders < 100, "the log is never struck");
        faulty.order(leader, order);
        orders += 1;
        while faulty.met(leader).failed < orders {
            faulty.cluster.wait_acknowledged(1);
        }
        // Time enough for it to say so.
        faulty.cluster.wait_acknowledged(20);
        let seen = faulty.cluster.status(leader);
        if !seen.fault.is_empty() {
            break seen;
        }
    };
    let faulted = |line: &str| line.starts_with("Faulted").then(|| line.to_owned());
    let told = told.events.iter().find_map(|event| faulted(event)).unwrap_or_else(|| {
        let event = |line: &str| line.strip_prefix("event ").and_then(faulted);
        faulty.cluster.wait_line(leader, "the fault's event", event)
    });
    let directory = faulty.cluster.directory(leader).display().to_string();
    assert!(told.contains(doing) && told.contains(&directory), "which file: {told}");
    assert_eq!(faulty.met(leader).failed, orders);
    let other = (leader + 1) % 3;
    faulty.cluster.wait_status(other, "another leader", |seen| {
        seen.leader > 0 && seen.leader != leader as u64 + 1
    });
    faulty.cluster.wait_acknowledged(200);
    // What was being prepared beside the log has ended by now; from here on nothing moves.
    let met = faulty.met(leader);
    faulty.cluster.wait_acknowledged(200);
    // It lives and says why it stopped; and it did not try again, although that would succeed.
    let seen = faulty.cluster.status(leader);
    assert!(seen.fault.contains(doing) && seen.fault.contains("check the disk"), "{}", seen.fault);
    assert_eq!(faulty.met(leader).operations, met.operations);
    faulty.kill(leader);
    faulty.start(leader, &[]);
    all_is_there(&mut faulty);
}

#[test]
fn a_full_disk_makes_its_leader_hand_over_and_full_ones_refuse_writes_and_come_back_by_themselves()
{
    fills_up("full on");
}

#[test]
fn disks_that_are_full_without_saying_so_are_noticed_refuse_and_come_back() {
    fills_up("full unseen");
}

fn fills_up(full: &str) {
    let (mut faulty, old) = cluster();
    faulty.cluster.tell(old, "load n 2");
    faulty.cluster.wait_acknowledged(100);
    faulty.order(old, full);
    // Another leads, whose disk has room, and nothing is refused for long.
    let place = (old + 1) % 3;
    let seen = faulty.cluster.wait_status(place, "a leader whose disk has room", |seen| {
        seen.leader > 0 && seen.leader != old as u64 + 1
    });
    let (leader, term) = (seen.leader as usize - 1, seen.term);
    faulty.cluster.wait_acknowledged(100);
    faulty.cluster.quiet(&[old == 0, old == 1, old == 2]);
    // With room again it is prepared like the others for what follows.
    faulty.order(old, "full off");
    faulty.cluster.tell(leader, "load k 2");
    faulty.cluster.wait_acknowledged(200);
    faulty.cluster.quiet(&[leader == 0, leader == 1, leader == 2]);
    for place in ALL {
        faulty.order(place, full);
    }
    // Full everywhere: nobody is better, so the leader stays, and refuses.
    faulty.cluster.tell(leader, "load l 2");
    wait_refused(&faulty, leader);
    let begun = Instant::now();
    let mut terms = BTreeSet::new();
    while begun.elapsed() < ELECTION * 5 {
        for place in ALL {
            let seen = faulty.cluster.status(place);
            terms.insert(seen.term);
            assert_eq!(seen.fault, "");
        }
    }
    println!("terms {terms:?}, {term} when the first was full");
    if full == "full unseen" {
        let met = ALL.iter().filter(|place| faulty.met(**place).full > 0).count();
        assert!(met > 1, "{met} found out, and refused");
    }
    // A start and an election need no room.
    faulty.kill(leader);
    faulty.start(leader, &[full]);
    faulty.cluster.leader();
    for place in ALL {
        faulty.order(place, "full off");
    }
    faulty.cluster.tell(leader, "load m 2");
    faulty.cluster.wait_acknowledged(100);
    all_is_there(&mut faulty);
}

fn wait_refused(faulty: &Faulty, place: usize) {
    faulty.cluster.wait_line(place, "StorageFull", |line| {
        (line.starts_with("refused") && line.contains("almost full")).then_some(())
    });
}

#[test]
fn a_follower_whose_disk_stands_still_costs_nobody_anything() {
    let (mut faulty, leader) = cluster();
    let follower = (leader + 1) % 3;
    faulty.cluster.tell(leader, "load n 2");
    faulty.cluster.wait_acknowledged(100);
    let term = faulty.cluster.status(leader).term;
    let timed = |faulty: &Faulty| {
        let begun = Instant::now();
        faulty.cluster.wait_acknowledged(300);
        begun.elapsed()
    };
    let before = timed(&faulty);
    faulty.order(follower, "stall on");
    faulty.wait_met(follower, "a sync that stalls", |met| met.stalled > 0);
    let during = timed(&faulty);
    println!("300 writes: {before:?} with three disks, {during:?} with two");
    let bearable = before * 5 + Duration::from_secs(1);
    assert!(during < bearable, "{during:?} with one disk less, {before:?} before");
    assert_eq!(faulty.cluster.status(leader).term, term, "no election");
    faulty.order(follower, "stall off");
    all_is_there(&mut faulty);
}

#[test]
fn a_leader_whose_disk_stands_still_loses_nothing_and_recovers() {
    let (mut faulty, leader) = cluster();
    for place in ALL {
        faulty.cluster.tell(place, &format!("load n{place} 2"));
    }
    faulty.cluster.wait_acknowledged(100);
    faulty.order(leader, "stall on");
    faulty.wait_met(leader, "a sync that stalls", |met| met.stalled > 0);
    // The two followers' disks are a quorum.
    faulty.cluster.wait_acknowledged(300);
    let loss = faulty.cut(&[leader], 7);
    // What stood still may have been the sync of a directory: then it is names that were at stake.
    println!("the stalled leader had not synced {loss:?}");
    let bytes = loss.dropped_bytes + loss.kept_bytes + loss.garbled_bytes;
    assert!(bytes + loss.names_kept + loss.names_undone > 0);
    faulty.cluster.wait_acknowledged(100);
    faulty.start(leader, &[]);
    let leader = faulty.cluster.leader();
    faulty.order(leader, "stall on");
    faulty.wait_met(leader, "a sync that stalls", |met| met.stalled > 0);
    faulty.cluster.wait_acknowledged(300);
    faulty.order(leader, "stall off");
    all_is_there(&mut faulty);
}
