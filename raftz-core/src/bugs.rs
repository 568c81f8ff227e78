//! Planted bugs: classic mistakes, switched on one at a time, that whoever tests this library must find.
//!
//! A check that has never failed proves nothing. Each bug here is one place in the source where the
//! right thing stands beside the wrong one, `bug!(Name)`; each is a mistake that some implementation
//! of Raft or of a log has made, or that this design exists to avoid; and each leads to a wrong outcome
//! (not to a panic), in a way that its words describe. The module, and every one of those places, exists
//! only in a build with `RUSTFLAGS="--cfg raftz_bugs"`.
//!
//! What is planted is planted for a thread, so that simulations with different bugs can run beside each
//! other. Threads of a real node know nothing of it.

use std::cell::Cell;

/// What a bug is a mistake in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Terms, votes, signs of life.
    Election,
    /// Entries on their way to followers, and what is known of those.
    Replication,
    /// What counts as committed.
    Commit,
    /// The write-ahead log.
    Log,
    /// Messages as bytes, and what the lanes between replica, log and machine decide.
    Wire,
    /// Calls, forwarding, applying.
    Replica,
    /// What reads see.
    Read,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug in everything that this thread does from now on, instead of the one before.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread is to make that mistake.
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

macro_rules! catalogue {
    ($($area:ident { $($(#[doc = $words:literal])+ $name:ident,)+ })+) => {
        /// A mistake, and how it shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($($(#[doc = $words])+ $name,)+)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$($(Self::$name,)+)+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $($(Self::$name => stringify!($name),)+)+
                }
            }

            /// What it is a mistake in.
            pub const fn area(self) -> Area {
                match self {
                    $($(Self::$name => Area::$area,)+)+
                }
            }

            /// The mistake, and how it shows, in words.
            pub const fn describes(self) -> &'static str {
                match self {
                    $($(Self::$name => concat!($($words),+).trim_ascii(),)+)+
                }
            }
        }
    };
}

catalogue! {
    Election {
        /// Promises wait for the entries behind them, not for term and vote: a voter that crashes
        /// after it told its vote votes again in the same term.
        PromisesDoNotAwaitTheHardState,
        /// A vote is kept in memory alone (hashicorp/raft #661): after a crash the node has promised
        /// what its disk does not know, and votes again.
        VoteIsNotPersisted,
        /// A term learned from others is kept in memory alone (PySyncObj #84): the node leads or
        /// acknowledges in a term that its disk does not know, and comes back below it.
        TermIsNotPersisted,
        /// A vote is given although it was given to another: two candidates of one term win.
        VotesForWhoeverAsks,
        /// A candidate's own vote is counted once for itself and once for its answer: in three voters
        /// it wins alone, so two lead one term.
        CandidateCountsItselfTwice,
        /// A late vote of an older term counts in the present election: its voter has voted for
        /// somebody else since.
        VotesOfOlderTermsCount,
        /// Whoever said yes in the pre-vote has voted: nobody's disk knows of it, and two candidates
        /// can have been encouraged by the same voter.
        PreVotesCountAsVotes,
        /// A voter compares lengths of logs and not their last terms: a leader is elected that lacks
        /// committed entries.
        VoteComparesOnlyIndexes,
        /// A voter compares last terms and not lengths: a leader is elected that lacks the last
        /// committed entries of its term.
        VoteComparesOnlyTerms,
        /// A node whose disk has lost entries stands for election: with a voter that never had them it
        /// overrules the one that still has them.
        DamagedNodeStands,
        /// A node whose disk has lost entries votes by what is left of its log: it helps a candidate
        /// into office that never had what this node had helped to commit.
        DamagedNodeVotesByWhatIsLeft,
        /// A candidate does not follow the leader of its own term: a node that once missed a few
        /// heartbeats campaigns for ever, and never gets the log.
        CandidateIgnoresTheLeader,
        /// What comes from an older term is dropped in silence (etcd-raft, the stuck candidate): a
        /// leader never learns of the higher term of a follower, which never follows again.
        StaleSendersGetNoAnswer,
        /// Only appends put an election off: an idle cluster elects again and again.
        HeartbeatIsNoSignOfLife,
        /// A leader says nothing to followers that have everything: an idle cluster elects again and
        /// again.
        IdleLeaderIsSilent,
    }
    Replication {
        /// A follower acknowledges entries that are not on its disk: power is cut, and a committed
        /// entry is gone from the majority.
        AcksBeforeDurable,
        /// A follower answers an append with the end of its log instead of the end of what the append
        /// proved: the leader counts a divergent tail as its own.
        AcksItsWholeLog,
        /// A follower looks at the index of the previous entry and not at its term: it joins entries
        /// to a log that they do not follow.
        PrevTermIsNotCompared,
        /// An entry that stands where a different one stood is taken for it: the follower keeps its
        /// own and acknowledges the leader's.
        ConflictsAreKept,
        /// The log is cut behind all that is applied, whatever a snapshot covers: nobody gets it back.
        CompactsBeyondTheSnapshot,
        /// A snapshot is acknowledged before the base that makes it part of the log is durable.
        SnapshotIsAckedEarly,
        /// A snapshot that is older than the machine is installed all the same.
        OldSnapshotsAreInstalled,
        /// A snapshot does not say when its last entry was stamped: snapshots of equal machines differ.
        SnapshotForgetsItsLogTime,
        /// An append is taken for the end of the log: a late or doubled one drops entries behind it
        /// that were acknowledged, and may be committed.
        AppendCutsWhatFollowsIt,
        /// Appends of a deposed leader are still obeyed: one that was late on its way overwrites what
        /// its successors had committed.
        OldLeadersAreObeyed,
        /// Acknowledgements of an older term of the same leader count: meanwhile their entries may have
        /// been overwritten.
        AcksOfOlderTermsCount,
        /// Acknowledgements that waited for the disk are sent although a new term has begun: what they
        /// acknowledge may have been dropped before it was durable.
        PromisesOutliveTheirTerm,
        /// The hint of a refusal is taken for a match: it may lie in a divergent tail.
        HintIsTakenForAMatch,
        /// A peer that answers heartbeats is believed to have all that was sent to it: entries are
        /// committed that are on no other disk.
        HeartbeatReplyConfirmsTheWindow,
        /// What a peer had acknowledged is believed over the end of the link (9 of 16 libraries): a
        /// disk that has lost it since is asked for ever to go on from where it no longer is.
        MatchOutlivesTheLink,
        /// A refusal does not move the next index back: a follower whose log is shorter or other than
        /// the leader believes never gets another entry.
        NextNeverBacksOff,
        /// Appends that were under way when a link broke stay in the window (etcd #14633): it fills, and
        /// the peer gets nothing any more.
        LostLinkLeaksTheWindow,
        /// Nobody asks after a window that was lost (etcd-raft #54, hashicorp/raft #612): it stays
        /// full, and the peer gets nothing any more.
        LostWindowIsNotAskedAfter,
        /// A probe that was lost is not sent again (etcd #10308): the peer gets nothing any more.
        LostProbeIsNotRepeated,
    }
    Commit {
        /// An entry of an older term is committed because a majority has it (Raft, figure 8): a later
        /// leader may overwrite it.
        EntriesOfOldTermsAreCounted,
        /// One vote less than a majority commits: an entry is lost with fewer disks than promised.
        QuorumOneShort,
        /// A leader counts its own entries before its disk has them (etcd #14370): alone it
        /// acknowledges what a power cut takes away.
        LeaderCountsItsUnsyncedEntries,
        /// A new leader takes all that it holds for committed: another one may have other entries there.
        NewLeaderCommitsItsLog,
        /// No entry opens a new term: what older leaders left is not committed until somebody calls, and
        /// the leader is never ready.
        NoEntryOpensTheTerm,
        /// A restarted node takes all that it holds for committed.
        RestartCommitsItsLog,
        /// A follower takes the commit index of an append for that of its own log: what lies behind the
        /// append may be a divergent tail.
        CommitsBeyondTheAppend,
        /// A follower takes the commit index of a heartbeat as far as its own log goes: it may hold
        /// other entries there.
        HeartbeatCommitsWhateverIsThere,
        /// The completion of a write confirms all writes that are under way.
        CompletionConfirmsAllInFlight,
        /// A late completion confirms the entries that have replaced those it wrote (etcd-raft, the ABA
        /// problem): they are acknowledged before they are durable.
        LateCompletionConfirmsWhatReplacedIt,
    }
    Log {
        /// A batch is complete when it is written: a power cut takes acknowledged entries away.
        LogIsNotSynced,
        /// A failed sync is passed over: a crash takes away what it did not write.
        FailedSyncIsIgnored,
        /// A failed sync is tried again and succeeds, because the kernel has dropped what it could not
        /// write (fsyncgate, 2018): a crash takes it away.
        FailedSyncIsTriedAgain,
        /// The slots of the vote file and the superblock are written and not synced: power cuts tear
        /// both copies, and the directory does not open any more.
        SlotsAreNotSynced,
        /// The name of a new segment is not synced: a power cut takes the whole segment away.
        SegmentsNameIsNotSynced,
        /// An open believes what a killed process had written and not synced: it is acknowledged, and
        /// a power cut takes it away.
        OpenDoesNotSync,
        /// The commit hint beside a batch is the batch's last entry: a restart applies what nobody has
        /// committed.
        CommitHintIsTheLastEntry,
        /// A truncation is carried out and not written down: the directory does not open any more.
        TruncationIsNotLogged,
        /// The index in memory keeps the places of dropped entries: whoever reads old entries gets those
        /// that were overwritten.
        IndexKeepsWhatWasDropped,
        /// Whatever cannot be read at the end of the log passes for torn: damage to the newest batches
        /// cuts acknowledged entries, and nobody is told.
        WatermarkIsNotHeeded,
        /// The log ends at its first bad batch, whatever follows (raft-engine): damage in the middle
        /// cuts acknowledged entries, and nobody is told.
        FirstBadBatchEndsTheLog,
        /// A log of several segments is read up to the end of the first one.
        RecoveryEndsWithTheFirstSegment,
        /// No checksum on disk is compared: torn and damaged batches are believed.
        ChecksumsOnDiskAreNotChecked,
        /// Entries that cannot be read are left out and not remembered as lost: the node votes and
        /// acknowledges as if it had never had them.
        DamageIsNotRemembered,
        /// A damaged log is whole again with the first append: the node votes without what it has lost.
        DamageHealsTooSoon,
        /// The vote is not given back by an open: the node votes again in the same term.
        RestartForgetsTheVote,
        /// The vote file states batches as durable that are not written yet: an undamaged log passes for
        /// damaged, and after a blackout nobody stands for election.
        WatermarkIsOverstated,
    }
    Wire {
        /// An append carries the index of its last entry as commit index: followers apply what nobody
        /// has committed.
        AppendCommitsItself,
        /// Entries are sent with the term of the message instead of their own: one entry has two terms.
        EntriesTakeTheMessagesTerm,
        /// The log time of entries is not read from the wire: followers hold other entries than the
        /// leader.
        LogTimeIsNotRead,
        /// The answers to a forwarded batch are numbered from one: callers get each other's answers.
        PositionsCountFromOne,
        /// An outcome of the unknown kind is read as a refusal: a call was refused and is applied.
        UnknownIsReadAsRefused,
        /// The checksum of a frame is not compared: a flipped bit becomes another term, index or answer.
        FrameChecksumIsNotChecked,
        /// The checksum of a payload is not compared: a flipped bit on the wire becomes another command.
        PayloadChecksumIsNotChecked,
        /// A submission that takes a part of the queue confirms all of it.
        SubmissionConfirmsTheWholeQueue,
        /// The first piece of a write that goes in pieces confirms all of it.
        PieceConfirmsTheWhole,
        /// The replies of a batch are paired with its commands from the wrong end.
        RepliesAreReversed,
    }
    Replica {
        /// Everything in the log is applied, committed or not.
        AppliesUncommitted,
        /// Each range begins with the last entry of the one before.
        LastEntryIsAppliedAgain,
        /// A restarted node takes for applied what it knows to be committed: its machine has none of it.
        RestartSkipsWhatWasApplied,
        /// A machine that persists itself is given everything again after a restart.
        PersistedMachineStartsOver,
        /// A machine that persists itself is given what this node's own disk does not hold yet: after a
        /// power cut the log ends before the machine does.
        PersistedMachineLeadsItsDisk,
        /// The caller of a slot is told that it is done when the slot is applied, by whatever entry.
        SlotIsMatchedWithoutItsTerm,
        /// At its deadline a call that stands in the log is told to be refused: it is applied later.
        ExpiredCallsAreToldRefused,
        /// A call of a past leadership is forgotten at its deadline (hashicorp/raft #498): nobody ever
        /// answers it.
        OrphanedCallsNeverEnd,
        /// A call is told to be refused, because too much waits, and is put into the log all the same.
        RefusedCallsAreAppended,
        /// A forwarded batch whose link broke is told to be refused: the leader may have it.
        LostForwardsAreToldRefused,
        /// A forwarded batch that arrives twice is run twice.
        DoubledForwardsRunTwice,
        /// A restarted follower numbers its batches from the beginning: the leader takes them for doubled
        /// ones, and answers to those of an earlier life end calls of this one.
        BatchNumbersStartAnew,
        /// A new leader does not go on from the highest log time in its log: it goes back.
        LogTimeStartsAnew,
    }
    Read {
        /// A leader answers reads by what it knows to be committed before it has committed an entry of its own term
        /// (etcd #7331): what its predecessor acknowledged is missing.
        ReadsBeforeTheTermIsOpen,
        /// A leader answers reads without asking whether it still leads.
        ReadsAreNotConfirmed,
        /// Answers to a heartbeat that was sent before the read confirm it (etcd #20418): another may lead by then.
        ReadsAreConfirmedByOlderRounds,
        /// A read that was confirmed is answered although the machine is not there yet.
        ReadsDoNotWaitForTheMachine,
        /// A lease counts from the moment at which the answers arrive.
        LeasesBeginWithTheirAnswers,
        /// A lease outlives the request to stand for election, whose voters keep faith with nobody.
        LeasesOutliveTransfers,
        /// A follower takes every sign of life for news of what is acknowledged, also of a leader that was deposed.
        AgeCountsFromHearing,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "reads this crate's source")]
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;

    fn places(dir: &Path, found: &mut BTreeMap<String, usize>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places(&path, found);
            } else if path.file_name().is_some_and(|name| name != "bugs.rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                for place in source.split("bug!(").skip(1) {
                    let name = place.split(')').next().unwrap().to_owned();
                    *found.entry(name).or_default() += 1;
                }
            }
        }
    }

    #[test]
    fn each_bug_is_planted_in_one_place_and_has_a_name_and_words() {
        let mut found = BTreeMap::new();
        places(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let expected: BTreeMap<_, _> =
            Bug::ALL.iter().map(|bug| (bug.name().to_owned(), 1)).collect();
        assert_eq!(found, expected);
        assert!(Bug::ALL.iter().all(|bug| bug.describes().ends_with('.')));
        let areas: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.area()).collect();
        assert_eq!(areas.len(), 6);
    }

    #[test]
    fn what_is_planted_is_planted_for_one_thread() {
        plant(Some(Bug::LogIsNotSynced));
        assert!(is_planted(Bug::LogIsNotSynced) && !is_planted(Bug::QuorumOneShort));
        let elsewhere = std::thread::spawn(|| is_planted(Bug::LogIsNotSynced)).join().unwrap();
        assert!(!elsewhere);
        plant(None);
        assert!(!is_planted(Bug::LogIsNotSynced));
    }
}
