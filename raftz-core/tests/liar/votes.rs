//! Lies about who may vote.

use raftz_core::types::{LogId, Message, RaftBody, RaftMessage, Role, Term, VoteReply};

use super::honest::Honest;
use super::mouth::Mouth;

/// The newest question of an election that node 1 asked a voter.
fn asked(voter: &Mouth) -> Option<(Term, u64, bool)> {
    voter.heard.iter().rev().find_map(|(_, message)| match message {
        Message::Raft(RaftMessage { term, body: RaftBody::PreVote(ask) }) => {
            Some((*term, ask.round, false))
        }
        Message::Raft(RaftMessage { term, body: RaftBody::Vote(ask) }) => {
            Some((*term, ask.round, true))
        }
        _ => None,
    })
}

const fn grant(round: u64, is_vote: bool) -> RaftBody {
    let reply = VoteReply { round, granted: true, last: LogId::ZERO };
    if is_vote { RaftBody::VoteReply(reply) } else { RaftBody::PreVoteReply(reply) }
}

#[test]
fn votes_of_learners_and_strangers_elect_nobody() {
    let mut honest = Honest::found(&[1, 2, 3], &[4]);
    honest.start(1);
    // The voter 3 only listens and tells the others which round it is.
    let mut voter = Mouth::of(3, &honest);
    let mut others = [Mouth::of(4, &honest), Mouth::of(9, &honest), Mouth::of(10, &honest)];
    voter.link(&[1]);
    others.iter_mut().for_each(|other| other.link(&[1]));
    for is_vote in [false, true] {
        let mut rounds = std::collections::BTreeSet::new();
        voter.until("three rounds", |voter| {
            if let Some((wish, round, votes)) = asked(voter) {
                let term = if votes { wish } else { Term(wish.0 - 1) };
                if is_vote && !votes {
                    // A voter's word lets it stand: now the votes themselves are asked for.
                    voter.say(1, term, grant(round, false));
                }
                for other in &mut others {
                    other.say(1, term, grant(round, votes));
                    other.listen();
                }
                if votes == is_vote {
                    rounds.insert(round);
                }
            }
            assert_ne!(honest.node(1).status().role, Role::Leader, "elected by its own vote alone");
            rounds.len() >= 3
        });
        others.iter_mut().for_each(|other| other.be_heard(1, &honest));
        let status = honest.node(1).status();
        assert!(status.leader.is_none() && status.commit.0 == 0, "{status:?}");
        assert!(is_vote || status.term == Term(0), "a pre-vote of theirs was counted");
    }
    honest.start(2);
    honest.go_on("after");
}
