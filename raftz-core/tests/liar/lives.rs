//! Lies about which life of which directory speaks.

use raftz_core::transport::handshake::Reject;
use raftz_core::types::{Boot, DiskId};

use super::honest::Honest;
use super::mouth::Mouth;

#[test]
fn a_second_process_an_earlier_life_and_another_disk_are_refused_by_code() {
    let (honest, leader, _) = Honest::two_of_three();
    let mut liar = Mouth::living(3, &honest, DiskId(3003), Boot(5));
    liar.link(&[1, 2]);
    liar.until("its disk to be recorded", |_| {
        let membership = honest.node(leader).status().membership;
        membership.members[&honest.liar()].disk_id == Some(DiskId(3003))
    });
    let cases = [
        (DiskId(3003), Boot(5), Reject::ID_IN_USE),
        (DiskId(3003), Boot(4), Reject::STALE_BOOT),
        (DiskId(3003), Boot(0), Reject::STALE_BOOT),
        (DiskId(3004), Boot(5), Reject::WRONG_DISK),
        (DiskId(3004), Boot(u64::MAX), Reject::WRONG_DISK),
    ];
    for (disk, boot, code) in cases {
        let mut other = Mouth::living(3, &honest, disk, boot);
        other.until("the refusals", |other| {
            liar.listen();
            [1, 2].iter().all(|n| other.refused.contains(&(*n, code)))
        });
        assert!(other.linked.is_empty() && other.heard.is_empty(), "{disk} {boot:?}");
    }
    assert_eq!(liar.linked.len(), 2, "the living one kept its links");
    honest.go_on("after");
}

#[test]
fn acks_of_an_earlier_life_count_in_no_later_one() {
    let (mut honest, leader, follower) = Honest::two_of_three();
    let mut liar = Mouth::of(3, &honest);
    liar.link(&[leader]);
    honest.stop(follower);
    let (pending, index) = honest.propose(leader, "unheard of");
    let (term, session) = liar.hear_session(leader);
    drop(liar);
    let mut liar = Mouth::living(3, &honest, DiskId(3003), Boot(2));
    liar.link(&[leader]);
    // What the earlier life might have said, said by the later one.
    liar.acknowledge(leader, term, session, index);
    liar.be_heard(leader, &honest);
    assert!(honest.node(leader).status().commit < index, "committed with one log of three");
    honest.start(follower);
    drop(pending);
    honest.go_on("after");
}
