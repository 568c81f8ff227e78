//! What the leader knows about one peer, and every transition of it. Nobody else changes it.
//!
//! ```text
//!             matched                      rejected, link lost
//!   Probe ─────────────▶ Replicate ─────────────────────────────▶ Probe
//!     │                                                             │
//!     └── needs entries below the base ──▶ Snapshot ── matched ─────┘
//! ```
//! * **Probe**: one append at a time, until the peer's log is found to match somewhere.
//! * **Replicate**: a stream of appends, sent ahead of their acknowledgements within a window of
//!   bytes and messages.
//! * **Snapshot**: appends wait until a snapshot has brought the peer back to where the log begins.
//!
//! A *session* is one unbroken attempt to replicate to the peer: it ends with the term and with the
//! link. Nothing said in one session counts in another, so a peer that lost data between two links
//! can never be credited with what it said before.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::types::{Index, NodeId};

/// How the peer is being replicated to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Finding where the logs match.
    Probe {
        /// The probe in flight: index of its `prev`.
        outstanding: Option<Index>,
        /// A probe of this session was refused: the next ones carry no entries until one matches.
        bare: bool,
    },
    /// Streaming.
    Replicate(Window),
    /// Waiting for a snapshot.
    Snapshot,
}

/// Appends in flight, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    /// (last index, bytes) of each.
    appends: VecDeque<(Index, u64)>,
    bytes: u64,
}

/// Bounds of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimits {
    /// Most appends in flight.
    pub(crate) messages: usize,
    /// Most bytes in flight; one append is allowed whatever its size.
    pub(crate) bytes: u64,
}

impl Window {
    fn has_room(&self, limits: WindowLimits) -> bool {
        self.appends.is_empty()
            || (self.appends.len() < limits.messages && self.bytes < limits.bytes)
    }

    fn add(&mut self, last: Index, bytes: u64) {
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn free_upto(&mut self, matched: Index) {
        while self.appends.front().is_some_and(|(last, _)| *last <= matched) {
            if let Some((_, bytes)) = self.appends.pop_front() {
                self.bytes -= bytes;
            }
        }
    }
}

/// A peer, as the leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    session: u64,
    matched: Index,
    next: Index,
    mode: Mode,
    /// The read of old entries under way for this peer.
    reading: Option<u64>,
    /// How many of them have failed, one after the other.
    reads_failed: u32,
    contact_us: u64,
    /// What the last heartbeat took to it and back.
    rtt_us: Option<u64>,
    /// Highest commit index that a message to the peer carried.
    told_commit: Index,
    /// Since when the match has stood still below the log's end; `None` while it has not, or once
    /// that was told.
    stuck: Stuck,
    /// The last heartbeat round that it answered.
    round: u64,
    /// Until then it helps nobody else into office.
    faithful_until_us: u64,
    /// Its clock, from its last answer.
    clock_us: u64,
    /// A round that is not confirmed, and its clock as it was known when that was sent.
    asked_clock: Option<(u64, u64)>,
    /// At this moment of its clock the leader was in office.
    confirmed_clock_us: u64,
    /// How well it would lead, as it last said in this session.
    fitness: Option<u8>,
    /// It said that its disk is almost full.
    storage_full: bool,
}

/// Whether a peer that is behind moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stuck {
    No,
    Since(u64),
    Told,
}

/// What an answer to a heartbeat says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// The round that it answers.
    pub(crate) round: u64,
    /// The peer's clock.
    pub(crate) clock_us: u64,
    /// Until then, by the leader's clock, the peer helps nobody else into office.
    pub(crate) faithful_until_us: u64,
}

impl Progress {
    /// A peer about which nothing is known; `next` is a guess. Session numbers are never reused in
    /// a term.
    pub(crate) fn new(session: u64, next: Index, now_us: u64) -> Self {
        Self {
            session,
            matched: Index::ZERO,
            next,
            mode: Mode::Probe { outstanding: None, bare: false },
            reading: None,
            reads_failed: 0,
            contact_us: now_us,
            rtt_us: None,
            told_commit: Index::ZERO,
            stuck: Stuck::No,
            round: 0,
            faithful_until_us: 0,
            clock_us: 0,
            asked_clock: None,
            confirmed_clock_us: 0,
            fitness: None,
            storage_full: false,
        }
    }

    /// The peer answered a heartbeat. True, once, when its match has stood still below `last` for
    /// `patience_us`.
    pub(crate) fn is_news_that_stuck(
        &mut self,
        last: Index,
        now_us: u64,
        patience_us: u64,
    ) -> bool {
        match self.stuck {
            // Whether a snapshot moves is told elsewhere.
            _ if self.matched >= last || self.mode == Mode::Snapshot => self.stuck = Stuck::No,
            Stuck::No => self.stuck = Stuck::Since(now_us),
            Stuck::Since(since) if now_us.saturating_sub(since) >= patience_us => {
                self.stuck = Stuck::Told;
                return true;
            }
            Stuck::Since(_) | Stuck::Told => {}
        }
        false
    }

    pub(crate) const fn session(&self) -> u64 {
        self.session
    }

    pub(crate) const fn matched(&self) -> Index {
        self.matched
    }

    pub(crate) const fn next(&self) -> Index {
        self.next
    }

    pub(crate) const fn mode(&self) -> &Mode {
        &self.mode
    }

    pub(crate) const fn contact_us(&self) -> u64 {
        self.contact_us
    }

    pub(crate) const fn told_commit(&self) -> Index {
        self.told_commit
    }

    pub(crate) const fn fitness(&self) -> Option<u8> {
        self.fitness
    }

    /// Whether its disk is almost full.
    pub(crate) const fn storage_full(&self) -> bool {
        self.storage_full
    }

    /// The peer said how well it would lead.
    pub(crate) const fn note_fitness(&mut self, fitness: u8) {
        self.fitness = Some(fitness);
    }

    /// And whether its disk has room.
    pub(crate) const fn note_room(&mut self, has_room: bool) {
        self.storage_full = !has_room;
    }

    pub(crate) const fn reading(&self) -> Option<u64> {
        self.reading
    }

    /// All of it, with times relative to now and reads counted back from the last request.
    pub(crate) fn fingerprint(&self, now_us: u64, last_request: u64, state: &mut impl Hasher) {
        (self.session, self.matched, self.next, &self.mode).hash(state);
        // 0 is no request: the read failed, and the peer waits for another.
        let reading = self.reading.map(|request| (request > 0).then(|| last_request - request));
        (reading, self.reads_failed, self.told_commit).hash(state);
        (self.fitness, self.storage_full).hash(state);
        now_us.saturating_sub(self.contact_us).hash(state);
        let passed = |at_us: u64| now_us.wrapping_sub(at_us);
        (self.round, self.faithful_until_us.saturating_sub(now_us)).hash(state);
        (passed(self.clock_us), passed(self.confirmed_clock_us)).hash(state);
        self.asked_clock.map(|(round, clock_us)| (round, passed(clock_us))).hash(state);
        match self.stuck {
            Stuck::No => None,
            Stuck::Since(since) => Some(Some(now_us.saturating_sub(since))),
            Stuck::Told => Some(None),
        }
        .hash(state);
    }

    /// The last heartbeat round that it answered.
    pub(crate) const fn round(&self) -> u64 {
        self.round
    }

    /// Until then it helps nobody else into office.
    pub(crate) const fn faithful_until_us(&self) -> u64 {
        self.faithful_until_us
    }

    /// At this moment of its clock the leader was in office, and has told of all it knew then; 0: not known.
    pub(crate) const fn confirmed_clock_us(&self) -> u64 {
        self.confirmed_clock_us
    }

    /// It answered a heartbeat.
    pub(crate) fn answered(&mut self, answer: Answer) {
        self.round = self.round.max(answer.round);
        self.faithful_until_us = self.faithful_until_us.max(answer.faithful_until_us);
        self.clock_us = self.clock_us.max(answer.clock_us);
    }

    /// A round goes out, after whatever its clock was known to show.
    pub(crate) fn sent_round(&mut self, round: u64) {
        if self.clock_us > self.confirmed_clock_us && self.asked_clock.is_none() {
            self.asked_clock = Some((round, self.clock_us));
        }
    }

    /// A quorum answered everything up to this round.
    pub(crate) fn round_confirmed(&mut self, confirmed: u64) {
        if let Some((_, clock_us)) = self.asked_clock.take_if(|(round, _)| *round <= confirmed) {
            self.confirmed_clock_us = clock_us;
        }
    }

    /// The peer answered in this term.
    pub(crate) fn heard(&mut self, now_us: u64) {
        self.contact_us = self.contact_us.max(now_us);
    }

    /// It answered a heartbeat that was sent at that time, if it says the truth.
    pub(crate) fn round_trip(&mut self, sent_us: u64, now_us: u64) {
        self.rtt_us = now_us.checked_sub(sent_us).filter(|_| sent_us > 0).or(self.rtt_us);
    }

    /// A message that carries this commit index goes out.
    pub(crate) fn tell_commit(&mut self, commit: Index) {
        self.told_commit = self.told_commit.max(commit);
    }

    /// The link came or went: a new session begins, and whatever was said in the old one counts no
    /// more. Where to look first is kept.
    pub(crate) fn restart(&mut self, session: u64) {
        if self.matched > Index::ZERO {
            self.next = self.matched.next();
        }
        self.session = session;
        if !bug!(MatchOutlivesTheLink) {
            self.matched = Index::ZERO;
        }
        self.reading = None;
        (self.fitness, self.storage_full) = (None, false);
        self.told_commit = Index::ZERO;
        // It may be another life, or another boot.
        (self.clock_us, self.confirmed_clock_us, self.asked_clock) = (0, 0, None);
        if !bug!(LostLinkLeaksTheWindow) {
            self.mode = Mode::Probe { outstanding: None, bare: false };
        }
    }

    /// Whether an append that carries entries, or a probe, may go out now.
    pub(crate) fn may_append(&self, limits: WindowLimits) -> bool {
        if self.reading.is_some() {
            return false;
        }
        match &self.mode {
            Mode::Probe { outstanding, .. } => outstanding.is_none(),
            Mode::Replicate(window) => window.has_room(limits),
            Mode::Snapshot => false,
        }
    }

    /// Whether the next append must not carry entries.
    pub(crate) const fn is_bare(&self) -> bool {
        matches!(self.mode, Mode::Probe { bare: true, .. })
    }

    /// An append goes out: `prev` is `next - 1`, its last entry (or `prev`) is `last`.
    pub(crate) fn sent_append(&mut self, last: Index, bytes: u64) {
        match &mut self.mode {
            Mode::Probe { outstanding, .. } => *outstanding = Some(self.next.prev()),
            Mode::Replicate(window) => {
                if last >= self.next {
                    window.add(last, bytes);
                    self.next = last.next();
                }
            }
            Mode::Snapshot => {}
        }
    }

    /// Entries for the peer are being read from storage.
    pub(crate) fn wait_for_read(&mut self, request: u64) {
        self.reading = Some(request);
    }

    /// What was read is there.
    pub(crate) fn read_came(&mut self) {
        self.reading = None;
        self.reads_failed = 0;
    }

    /// A read that failed may be tried again.
    pub(crate) fn read_again(&mut self) {
        self.reading = None;
    }

    /// The read failed: it is tried again at the peer's next answer to a heartbeat. Gives how many have
    /// failed by now, one after the other.
    pub(crate) fn read_failed(&mut self) -> u32 {
        self.reading = Some(0);
        self.reads_failed = self.reads_failed.saturating_add(1);
        self.reads_failed
    }

    /// The peer holds the leader's log up to `matched`. Returns whether that is news.
    pub(crate) fn on_matched(&mut self, matched: Index) -> bool {
        let (news, next) = (matched > self.matched, self.next);
        if news {
            self.stuck = Stuck::No;
        }
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        match &mut self.mode {
            Mode::Probe { .. } => {
                self.next = self.matched.next();
                self.mode = Mode::Replicate(Window::default());
            }
            Mode::Replicate(window) => window.free_upto(self.matched),
            Mode::Snapshot => {
                self.next = self.matched.next();
                self.mode = Mode::Probe { outstanding: None, bare: false };
            }
        }
        if self.next != next {
            // What is being read is not wanted any more.
            self.reading = None;
        }
        news
    }

    /// The peer refused an append whose `prev` had this index. Returns false when the refusal
    /// answers nothing that is outstanding: late, doubled or overtaken.
    pub(crate) fn on_rejected(&mut self, prev: Index, next: Index) -> bool {
        let fresh = match &self.mode {
            Mode::Probe { outstanding, .. } => *outstanding == Some(prev),
            Mode::Replicate(_) => prev > self.matched && prev < self.next,
            Mode::Snapshot => false,
        };
        if fresh && !bug!(NextNeverBacksOff) {
            self.next = next.max(self.matched.next()).min(prev.max(Index(1)));
            self.reading = None;
            self.mode = Mode::Probe { outstanding: None, bare: true };
        }
        fresh
    }

    /// The peer was offered a snapshot, and its log ends where this leader's has an entry: that is tried first.
    pub(crate) fn reconnect(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.mode = Mode::Probe { outstanding: None, bare: true };
    }

    /// Whether the refusal of the open probe at `prev` takes back what the peer acknowledged in this
    /// very session: its disk has lost it, and nobody noticed the restart.
    pub(crate) fn takes_back(&self, prev: Index) -> bool {
        prev > Index::ZERO
            && prev <= self.matched
            && matches!(self.mode, Mode::Probe { outstanding, .. } if outstanding == Some(prev))
    }

    /// A heartbeat was answered although a probe is still open: it may be lost, so allow another, a
    /// bare one, in case the answer only waits for a slow disk.
    pub(crate) fn forget_probe(&mut self) {
        if let Mode::Probe { outstanding, bare } = &mut self.mode {
            *bare |= outstanding.take().is_some();
        }
    }

    /// The peer needs entries that the log no longer has.
    pub(crate) fn become_snapshot(&mut self) {
        self.reading = None;
        self.mode = Mode::Snapshot;
    }
}

/// A peer's progress, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer.
    pub id: NodeId,
    /// "probe", "replicate" or "snapshot".
    pub mode: &'static str,
    /// Its log equals the leader's up to here, durably.
    pub matched: Index,
    /// The next index to send.
    pub next: Index,
    /// Boot-clock time of its last answer, in microseconds.
    pub contact_us: u64,
    /// Appends in flight.
    pub in_flight: usize,
    /// What its last answer to a heartbeat took, there and back, in microseconds.
    pub rtt_us: Option<u64>,
}

impl Progress {
    /// The progress of peer `id`, for people.
    pub(crate) fn describe(&self, id: NodeId) -> PeerProgress {
        let (mode, in_flight) = match &self.mode {
            Mode::Probe { outstanding, .. } => ("probe", usize::from(outstanding.is_some())),
            Mode::Replicate(window) => ("replicate", window.appends.len()),
            Mode::Snapshot => ("snapshot", 0),
        };
        PeerProgress {
            id,
            mode,
            matched: self.matched,
            next: self.next,
            contact_us: self.contact_us,
            in_flight,
            rtt_us: self.rtt_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WindowLimits = WindowLimits { messages: 2, bytes: 100 };

    fn streaming(matched: u64) -> Progress {
        let mut peer = Progress::new(1, Index(matched + 1), 0);
        peer.sent_append(Index(matched), 0);
        assert!(peer.on_matched(Index(matched)) || matched == 0);
        assert!(matches!(peer.mode(), Mode::Replicate(_)));
        peer
    }

    #[test]
    fn a_probe_is_alone_until_it_is_answered_or_forgotten() {
        let mut peer = Progress::new(1, Index(6), 0);
        assert!(peer.may_append(LIMITS));
        peer.sent_append(Index(8), 10);
        assert!(!peer.may_append(LIMITS));
        assert_eq!(peer.next(), Index(6), "a probe does not advance");
        peer.forget_probe();
        assert!(peer.may_append(LIMITS));
    }

    #[test]
    fn the_window_is_bounded_in_messages_and_in_bytes() {
        let mut peer = streaming(5);
        peer.sent_append(Index(6), 10);
        assert!(peer.may_append(LIMITS));
        peer.sent_append(Index(7), 10);
        assert!(!peer.may_append(LIMITS), "two messages");
        peer.on_matched(Index(7));
        peer.sent_append(Index(8), 1000);
        assert!(!peer.may_append(LIMITS), "bytes");
        peer.on_matched(Index(8));
        assert!(peer.may_append(LIMITS));
    }

    #[test]
    fn match_never_moves_back_whatever_the_order_of_replies() {
        let mut peer = streaming(5);
        peer.sent_append(Index(6), 1);
        peer.sent_append(Index(7), 1);
        assert!(peer.on_matched(Index(7)));
        assert!(!peer.on_matched(Index(6)));
        assert_eq!((peer.matched(), peer.next()), (Index(7), Index(8)));
    }

    #[test]
    fn late_and_doubled_rejections_change_nothing() {
        let mut peer = streaming(5);
        peer.sent_append(Index(6), 1);
        assert!(!peer.on_rejected(Index(4), Index(2)), "below the match");
        assert!(!peer.on_rejected(Index(9), Index(2)), "never sent");
        assert!(peer.on_rejected(Index(6), Index(3)));
        assert_eq!(peer.next(), Index(6), "never below the match");
        assert!(!peer.on_rejected(Index(6), Index(3)), "no probe is outstanding");
        peer.sent_append(Index(5), 0);
        assert!(!peer.on_rejected(Index(9), Index(2)), "not this probe");
    }

    #[test]
    fn a_refusal_of_what_was_acknowledged_is_told_from_a_late_one() {
        let mut peer = streaming(5);
        peer.sent_append(Index(6), 1);
        assert!(!peer.takes_back(Index(5)), "streaming: a late refusal");
        assert!(peer.on_rejected(Index(6), Index(3)));
        peer.sent_append(Index(5), 0);
        assert!(!peer.takes_back(Index(4)), "not this probe");
        assert!(peer.takes_back(Index(5)));
        let unknown = Progress::new(1, Index(1), 0);
        assert!(!unknown.takes_back(Index::ZERO), "nothing was acknowledged");
    }

    #[test]
    fn a_new_session_forgets_the_match_but_not_where_to_look() {
        let mut peer = streaming(5);
        peer.sent_append(Index(9), 1);
        peer.restart(2);
        assert_eq!((peer.session(), peer.matched(), peer.next()), (2, Index(0), Index(6)));
        assert!(peer.may_append(LIMITS));
        peer.restart(3);
        assert_eq!(peer.next(), Index(6), "a guess survives a second break");
    }

    #[test]
    fn a_peer_that_answers_but_stands_still_is_told_once() {
        let mut peer = streaming(5);
        assert!(!peer.is_news_that_stuck(Index(5), 0, 100), "nothing is owed");
        assert!(!peer.is_news_that_stuck(Index(9), 10, 100));
        assert!(!peer.is_news_that_stuck(Index(9), 109, 100));
        assert!(peer.is_news_that_stuck(Index(9), 110, 100));
        assert!(!peer.is_news_that_stuck(Index(9), 500, 100), "only once");
        peer.on_matched(Index(6));
        assert!(!peer.is_news_that_stuck(Index(9), 600, 100), "it moved");
        assert!(peer.is_news_that_stuck(Index(9), 700, 100));
    }

    #[test]
    fn a_fingerprint_tells_a_failed_read_from_one_under_way_and_patience_from_news() {
        let fingerprint = |peer: &Progress, last_request: u64| {
            let mut hasher = std::hash::DefaultHasher::new();
            peer.fingerprint(0, last_request, &mut hasher);
            hasher.finish()
        };
        let reading = |request: u64, last_request: u64| {
            let mut peer = streaming(5);
            peer.wait_for_read(request);
            fingerprint(&peer, last_request)
        };
        assert_ne!(reading(0, 7), reading(7, 7));
        assert_eq!(reading(7, 8), reading(1, 2), "read numbers count back from the last");
        let mut behind = streaming(5);
        let fresh = fingerprint(&behind, 0);
        assert!(!behind.is_news_that_stuck(Index(9), 0, 100));
        assert_ne!(fingerprint(&behind, 0), fresh);
    }

    #[test]
    fn a_peer_below_the_base_waits_for_a_snapshot_and_then_probes() {
        let mut peer = Progress::new(1, Index(3), 0);
        peer.become_snapshot();
        assert!(!peer.may_append(LIMITS));
        peer.on_matched(Index(10));
        assert_eq!(peer.next(), Index(11));
        assert!(peer.may_append(LIMITS));
    }
}
