//! A resolver that hangs on one member's name.

use std::time::Instant;

use super::shim::{ELECTION, Faulty};

const HOST: &str = "raftz-test-host";

#[test]
fn a_resolver_that_hangs_on_one_name_causes_no_election() {
    let mut faulty = Faulty::steady(3);
    let third = faulty.cluster.addresses_mut();
    third[2] = third[2].replace("127.0.0.1", HOST);
    let name = format!("host {HOST}");
    for place in 0..2 {
        faulty.start(place, &[&name, "resolver hangs"]);
    }
    faulty.cluster.leader();
    // Two of three lead and serve, with a lookup that hangs on each.
    for place in 0..2 {
        faulty.wait_met(place, "a lookup", |met| met.lookups > 0);
        faulty.cluster.tell(place, &format!("load n{place} 2"));
    }
    let leader = faulty.cluster.leader();
    let term = faulty.cluster.status(leader).term;
    let begun = Instant::now();
    while begun.elapsed() < ELECTION * 6 {
        faulty.cluster.wait_acknowledged(50);
    }
    // The third finds the others by itself.
    faulty.start(2, &[&name]);
    faulty.cluster.wait_status(2, "the leader", |seen| seen.leader == leader as u64 + 1);
    faulty.cluster.wait_acknowledged(100);
    // It goes and comes again; meanwhile nobody knows where it is.
    faulty.kill(2);
    faulty.cluster.wait_acknowledged(300);
    faulty.start(2, &[&name]);
    faulty.cluster.quiet(&[true, true, true]);
    faulty.cluster.settle();
    for place in 0..3 {
        let seen = faulty.cluster.status(place);
        assert_eq!((seen.term, seen.leader), (term, leader as u64 + 1), "no election: {seen:?}");
    }
}
