//! What does not belong is refused by name, and what stands still disturbs nobody: each with real
//! processes, and with a load that must not notice.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::process::{Cluster, PATIENCE};

/// Long enough that a busy machine starves nobody into an election. (A clock cannot tell a node
/// that was not scheduled from one that is dead.)
const ELECTION_TIMEOUT_MS: u64 = 600;
const CALM: [&str; 3] =
    ["election_timeout_min_ms=600", "election_timeout_max_ms=1200", "heartbeat_interval_ms=100"];

/// Runs a program that is expected to end by itself.
fn ended(command: &mut Command) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
    // Held open: a node ends when its input does, and this one must end for another reason.
    let input = child.stdin.take();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("ours").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("ours");
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(input);
    child.wait_with_output().expect("ours")
}

/// Stops the clients of a node and checks that everything acknowledged is on these nodes.
fn assert_nothing_lost(cluster: &mut Cluster, loaded: usize, holders: &[usize]) {
    cluster.tell(loaded, "stop");
    cluster.wait_line(loaded, "its clients to stop", |line| (line == "stopped").then_some(()));
    cluster.settle();
    let acknowledged = cluster.acknowledged_keys();
    for place in holders {
        let held: BTreeSet<String> = cluster.dump(*place).into_iter().map(|(key, _)| key).collect();
        assert!(acknowledged.is_subset(&held), "node {} lost writes", place + 1);
    }
}

#[test]
fn a_node_of_another_cluster_is_refused_by_name_and_disturbs_nobody() {
    let mut cluster = Cluster::with_options(3, &CALM);
    cluster.start(0);
    cluster.start(1);
    cluster.tell(0, "load before 2");
    cluster.wait_acknowledged(200);
    let leader = cluster.leader();
    let term = cluster.status(leader).term;
    // On node 3's port and under its id, but founded as a cluster of its own.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let storage = format!("storage=directory:{}", elsewhere.path().join("data").display());
    cluster.start_with(2, &["cluster_id=bad", &storage]);
    for place in 0..2 {
        cluster.wait_status(place, "the stranger to be refused by name", |seen| {
            seen.peers.iter().any(|(id, why)| {
                *id == 3 && why.contains("cluster") && why.contains("not this node's cluster")
            })
        });
    }
    cluster.wait_status(2, "the stranger to be told why, by both", |seen| {
        [1, 2]
            .iter()
            .all(|id| seen.peers.iter().any(|(peer, why)| peer == id && why.contains("cluster")))
    });
    cluster.wait_acknowledged(200);
    let stranger = cluster.status(2);
    assert_eq!((stranger.leader, stranger.commit), (0, 0), "{stranger:?}");
    let seen = cluster.status(leader);
    assert_eq!((seen.term, seen.leader), (term, leader as u64 + 1), "an election: {seen:?}");
    // The right node takes its place, and gets everything.
    cluster.kill(2);
    cluster.start(2);
    assert_nothing_lost(&mut cluster, 0, &[0, 1, 2]);
}

#[test]
fn a_second_process_on_one_directory_ends_with_a_clear_message_and_the_first_goes_on() {
    let mut cluster = Cluster::with_options(3, &CALM);
    for place in 0..3 {
        cluster.start(place);
    }
    cluster.tell(0, "load before 2");
    cluster.wait_acknowledged(200);
    let leader = cluster.leader();
    let term = cluster.status(leader).term;
    // On another port: on the same one that would be what it trips over.
    let output = ended(cluster.command(leader).arg("listen_address=127.0.0.1:0"));
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    let directory = cluster.directory(leader).display().to_string();
    assert!(words.starts_with("failed ") && words.contains("in use by another node"), "{words}");
    assert!(words.contains(&directory), "{words}");
    // On the same port, too, it says what is wrong.
    let output = ended(&mut cluster.command(leader));
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("another node, listens there"), "{words}");
    cluster.wait_acknowledged(200);
    let seen = cluster.status(leader);
    assert_eq!((seen.term, seen.leader), (term, leader as u64 + 1), "an election: {seen:?}");
    assert!(seen.fault.is_empty(), "{}", seen.fault);
    assert_nothing_lost(&mut cluster, 0, &[0, 1, 2]);
}

#[test]
fn a_state_machine_that_blocks_for_ten_election_timeouts_causes_no_election() {
    let options: Vec<&str> = CALM.into_iter().chain(["machine=blockable"]).collect();
    let mut cluster = Cluster::with_options(3, &options);
    for place in 0..3 {
        cluster.start(place);
    }
    cluster.tell(0, "load before 4");
    cluster.wait_acknowledged(200);
    let leader = cluster.leader();
    let term = cluster.status(leader).term;
    let blocked = Duration::from_millis(10 * ELECTION_TIMEOUT_MS);
    // All three at once: nobody is left to cover for a leader that stands still.
    for place in 0..3 {
        cluster.tell(place, &format!("block {}", blocked.as_millis()));
    }
    for place in 0..3 {
        cluster.wait_line(place, "the machine to block", |line| (line == "blocked").then_some(()));
    }
    let begun = Instant::now();
    // Meanwhile everybody still answers, and says that nothing has changed.
    let mut asked = 0;
    while begun.elapsed() < blocked {
        for place in 0..3 {
            let seen = cluster.status(place);
            assert_eq!((seen.term, seen.leader), (term, leader as u64 + 1), "{seen:?}");
        }
        asked += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(asked > 10, "asked {asked} times");
    cluster.wait_acknowledged(200);
    assert_eq!(cluster.status(leader).term, term);
    assert_nothing_lost(&mut cluster, 0, &[0, 1, 2]);
}
