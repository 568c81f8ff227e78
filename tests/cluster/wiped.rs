//! A node whose disk was wiped comes back under its old id: refused by name, and nothing is lost.

use std::collections::BTreeSet;

use super::language::Language;
use super::process::Cluster;

#[test]
fn a_wiped_disk_under_a_known_id_is_refused_by_name_and_nothing_is_lost() {
    wiped(Language::Rust);
}

#[test]
fn a_wiped_disk_of_a_node_in_c_is_refused_by_name_and_nothing_is_lost() {
    wiped(Language::C);
}

fn wiped(language: Language) {
    let mut cluster = Cluster::new(3);
    for place in 0..3 {
        cluster.speak(place, language);
        cluster.start(place);
    }
    cluster.tell(0, "load before 2");
    cluster.wait_acknowledged(200);
    for place in 0..2 {
        cluster.wait_status(place, "every disk to be recorded", |seen| seen.disks == 3);
    }
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.directory(2)).expect("wiped");
    cluster.start(2);
    let fault = cluster.wait_status(2, "the wiped node's refusal", |s| !s.fault.is_empty()).fault;
    assert!(fault.contains("node 3") && fault.contains("wiped"), "{fault}");
    cluster.wait_acknowledged(200);
    cluster.tell(0, "stop");
    cluster.wait_line(0, "its clients to stop", |line| (line == "stopped").then_some(()));
    cluster.kill(2);
    cluster.settle();
    let acknowledged = cluster.acknowledged_keys();
    for place in 0..2 {
        let held: BTreeSet<String> = cluster.dump(place).into_iter().map(|(key, _)| key).collect();
        assert!(acknowledged.is_subset(&held), "node {} lost writes", place + 1);
    }
}
