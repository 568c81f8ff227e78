//! All states that can be reached, each once, and what must hold among the nodes in every one.
//!
//! Messages stay: one that has arrived may arrive again, and one that never does is lost. So of two
//! states that differ in nothing but their messages, the one that has all of the other's and more can
//! do whatever the other can, and the other is not visited.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::fmt;
use std::rc::Rc;

use raftz_core::sim::choice::{Chooser, Exhaustive, Stream};
use raftz_core::types::{Entry, LogId, NodeId, RaftBody, RaftMessage, Role, Term};

use super::node::{Driver, Event, Letter, Node, Violation, ensure, told_vote};

/// How much may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Campaigns; no term is higher than their number.
    pub(crate) campaigns: u8,
    /// Proposed commands.
    pub(crate) proposals: u8,
    /// Crashes.
    pub(crate) crashes: u8,
    /// Links that break, so that a leader begins anew with a peer.
    pub(crate) breaks: u8,
    /// Whether answers to heartbeats arrive, so that a leader asks again what may have been lost.
    pub(crate) answers: bool,
    /// Appends in flight to one peer.
    pub(crate) window: usize,
}

/// How many terms the history of votes has room for.
const TERMS_MAX: usize = 3;

/// A state of the whole: what the nodes are, what may still arrive, what has been promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Numbers of the nodes' states.
    nodes: [u32; 3],
    /// Number of the set of messages that may arrive.
    letters: u32,
    /// Number of the list of everything ever committed.
    decided: u32,
    /// Whose vote each node told in each term, and who led it; 0 is nobody.
    votes: [[u8; 3]; TERMS_MAX],
    leaders: [u8; TERMS_MAX],
    /// What has been used up of the bounds.
    campaigns: u8,
    proposals: u8,
    crashes: u8,
    breaks: u8,
}

/// A state of one node.
struct Known {
    node: Node,
    log: Vec<Entry>,
    /// Another core that came to the same fingerprint by another way.
    twin: Option<Node>,
}

/// What a node does in one state at one event.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    node: u32,
    sent: Rc<[u32]>,
}

/// A message.
struct Sent {
    from: NodeId,
    to: NodeId,
    message: RaftMessage,
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) states: usize,
    /// Events that changed something, from all states.
    pub(crate) transitions: usize,
    pub(crate) node_states: usize,
    pub(crate) twins: usize,
    pub(crate) depth: usize,
}

/// What was found wrong, and how it came about.
pub(crate) struct Finding {
    violation: Violation,
    way: Vec<String>,
}

impl Finding {
    pub(crate) fn property(&self) -> &'static str {
        self.violation.property
    }
}

type Decided = Vec<(LogId, Vec<u8>, Term)>;

/// The search.
pub(crate) struct Search {
    bounds: Bounds,
    driver: Driver,
    known: Vec<Known>,
    by_fingerprint: HashMap<u64, u32>,
    sent: Vec<Sent>,
    by_words: HashMap<String, u32>,
    steps: HashMap<(u32, Event), Result<Step, Violation>>,
    sets: Vec<Rc<[u32]>>,
    by_set: HashMap<Rc<[u32]>, u32>,
    decisions: Vec<Rc<Decided>>,
    by_decided: HashMap<Rc<Decided>, u32>,
    /// The same as bits.
    bits: Vec<Vec<u64>>,
    /// The states that were visited: those with the most messages.
    visited: HashMap<State, Vec<u32>>,
    tally: Tally,
}

impl Search {
    pub(crate) fn new(bounds: Bounds, driver: Driver) -> Self {
        assert!(usize::from(bounds.campaigns) <= TERMS_MAX);
        Self {
            bounds,
            driver,
            known: Vec::new(),
            by_fingerprint: HashMap::new(),
            sent: Vec::new(),
            by_words: HashMap::new(),
            steps: HashMap::new(),
            sets: Vec::new(),
            by_set: HashMap::new(),
            decisions: Vec::new(),
            by_decided: HashMap::new(),
            bits: Vec::new(),
            visited: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// Visits every state, depth first.
    pub(crate) fn run(mut self) -> Result<Tally, Finding> {
        let first = self.first();
        self.visit(first);
        // The way to the present state: each state on it with the choices still to be made in it.
        let mut way = vec![(first, Exhaustive::new(), (0, Event::Tick))];
        let mut returned = false;
        while let Some((state, choices, _)) = way.last_mut() {
            let state = *state;
            let covered = std::mem::take(&mut returned) && !self.is_maximal(&state);
            let Some(choice) = choices.next().filter(|_| !covered) else {
                way.pop();
                returned = true;
                continue;
            };
            let Some((at, event)) = self.choose(&state, &mut choice.stream(Stream::Order)) else {
                continue;
            };
            match self.follow(state, at, event) {
                Ok(next) if next == state => {}
                Ok(next) => {
                    self.tally.transitions += 1;
                    if self.visit(next) {
                        way.push((next, Exhaustive::new(), (at, event)));
                        self.tally.depth = self.tally.depth.max(way.len());
                    }
                }
                Err(violation) => {
                    let mut events: Vec<_> = way[1..].iter().map(|(.., event)| *event).collect();
                    events.push((at, event));
                    let way = events.iter().map(|(at, event)| self.tell(*at, *event)).collect();
                    return Err(Finding { violation, way });
                }
            }
        }
        self.tally.node_states = self.known.len();
        self.compare_twins();
        Ok(self.tally)
    }

    /// Whether `state` is news: not visited yet, not even with more messages that may arrive.
    fn visit(&mut self, state: State) -> bool {
        let sets = self.visited.entry(State { letters: 0, ..state }).or_default();
        let bits = &self.bits;
        let new = &bits[state.letters as usize];
        if sets.iter().any(|set| is_subset(new, &bits[*set as usize])) {
            return false;
        }
        sets.retain(|set| !is_subset(&bits[*set as usize], new));
        sets.push(state.letters);
        self.tally.states += 1;
        true
    }

    /// Whether nothing visited has the same nodes and more messages.
    fn is_maximal(&self, state: &State) -> bool {
        let key = State { letters: 0, ..*state };
        self.visited.get(&key).is_some_and(|sets| sets.contains(&state.letters))
    }

    fn first(&mut self) -> State {
        let ids = [1, 2, 3].map(|id| NodeId::new(id).unwrap());
        State {
            nodes: ids.map(|id| self.know(Node::new(id, self.bounds.window))),
            letters: self.set(Vec::new()),
            decided: self.decide(Vec::new()),
            votes: Default::default(),
            leaders: Default::default(),
            campaigns: 0,
            proposals: 0,
            crashes: 0,
            breaks: 0,
        }
    }

    /// One thing that can happen in `state`; `None` where the choices name nothing. What comes first is
    /// tried first: a second campaign beside the first meets the conflicts early.
    fn choose(&self, state: &State, chooser: &mut Chooser) -> Option<(usize, Event)> {
        let kind = chooser.below(7);
        if kind == 1 {
            let letters = &self.sets[state.letters as usize];
            let number = *letters.get(chooser.below(letters.len() as u64) as usize)?;
            let to = self.sent[number as usize].to;
            return Some((to.get() as usize - 1, Event::Deliver(number)));
        }
        let at = chooser.below(3) as usize;
        let node = &self.known[state.nodes[at] as usize].node;
        let writes = node.disk.queue.len() as u64;
        let event = match kind {
            // The first to stand is node 1: see the module's documentation.
            0 if state.campaigns < self.bounds.campaigns && (state.campaigns > 0 || at == 0) => {
                Event::Campaign
            }
            2 => Event::Tick,
            3 if state.proposals < self.bounds.proposals => Event::Propose(state.proposals),
            4 if writes > 0 => Event::Persist(chooser.below(writes) as usize + 1),
            5 if state.crashes < self.bounds.crashes => {
                Event::Crash(chooser.below(writes + 1) as usize)
            }
            6 if state.breaks < self.bounds.breaks && node.raft.role() == Role::Leader => {
                let other = (at as u64 + 1 + chooser.below(2)) % 3;
                Event::Break(NodeId::new(other + 1)?)
            }
            _ => return None,
        };
        Some((at, event))
    }

    /// The state after `event` at node `at`, judged.
    fn follow(&mut self, state: State, at: usize, event: Event) -> Result<State, Violation> {
        let step = self.step(state.nodes[at], event)?;
        if step.node == state.nodes[at] && step.sent.is_empty() {
            return Ok(state);
        }
        let mut next = state;
        next.nodes[at] = step.node;
        match event {
            Event::Campaign => next.campaigns += 1,
            Event::Propose(_) => next.proposals += 1,
            Event::Crash(_) => next.crashes += 1,
            Event::Break(_) => next.breaks += 1,
            Event::Deliver(_) | Event::Tick | Event::Persist(_) => {}
        }
        self.note_words(&mut next, &step.sent)?;
        self.note_commit(&mut next, at)?;
        self.judge(&next, at)?;
        next.letters = self.letters(&next, &step.sent)?;
        Ok(next)
    }

    /// What a node does, found out once.
    fn step(&mut self, node: u32, event: Event) -> Result<Step, Violation> {
        if let Some(step) = self.steps.get(&(node, event)) {
            return step.clone();
        }
        let core = self.known[node as usize].node.clone();
        let step = self.run_step(core, event).map(|(next, sent)| {
            let node = self.know(next);
            Step { node, sent: sent.into() }
        });
        self.steps.insert((node, event), step.clone());
        step
    }

    fn run_step(&mut self, mut node: Node, event: Event) -> Result<(Node, Vec<u32>), Violation> {
        let letter: Option<Letter> = match event {
            Event::Deliver(number) => {
                let Sent { from, message, .. } = &self.sent[number as usize];
                Some((*from, message.clone()))
            }
            Event::Tick
            | Event::Campaign
            | Event::Propose(_)
            | Event::Persist(_)
            | Event::Crash(_)
            | Event::Break(_) => None,
        };
        let from = node.id();
        let letters = node.take(event, letter.as_ref(), self.driver)?;
        let mut sent: Vec<u32> =
            letters.into_iter().map(|(to, message)| self.number(from, to, message)).collect();
        sent.sort_unstable();
        sent.dedup();
        Ok((node, sent))
    }

    /// The number of a node's state.
    fn know(&mut self, node: Node) -> u32 {
        let next = self.known.len() as u32;
        match self.by_fingerprint.entry(node.fingerprint()) {
            Place::Vacant(place) => {
                place.insert(next);
                let log = node.log();
                self.known.push(Known { node, log, twin: None });
                next
            }
            Place::Occupied(place) => {
                let number = *place.get();
                let known = &mut self.known[number as usize];
                if known.twin.is_none() && known.node.words() != node.words() {
                    known.twin = Some(node);
                }
                number
            }
        }
    }

    /// The number of a message.
    fn number(&mut self, from: NodeId, to: NodeId, message: RaftMessage) -> u32 {
        let next = self.sent.len() as u32;
        let words = format!("{from}→{to} {message:?}");
        let number = *self.by_words.entry(words).or_insert(next);
        if number == next {
            self.sent.push(Sent { from, to, message });
        }
        number
    }

    fn set(&mut self, letters: Vec<u32>) -> u32 {
        if let Some(number) = self.by_set.get(&letters[..]) {
            return *number;
        }
        let (number, letters): (u32, Rc<[u32]>) = (self.sets.len() as u32, letters.into());
        let mut bits = vec![0; letters.last().map_or(0, |last| *last as usize / 64 + 1)];
        for letter in letters.iter() {
            bits[*letter as usize / 64] |= 1 << (letter % 64);
        }
        self.bits.push(bits);
        self.sets.push(letters.clone());
        self.by_set.insert(letters, number);
        number
    }

    fn decide(&mut self, decided: Decided) -> u32 {
        if let Some(number) = self.by_decided.get(&decided) {
            return *number;
        }
        let (number, decided) = (self.decisions.len() as u32, Rc::new(decided));
        self.decisions.push(decided.clone());
        self.by_decided.insert(decided, number);
        number
    }

    /// The messages that may still arrive and do something.
    fn letters(&mut self, state: &State, news: &[u32]) -> Result<u32, Violation> {
        let mut letters = self.sets[state.letters as usize].to_vec();
        letters.extend_from_slice(news);
        letters.sort_unstable();
        letters.dedup();
        let mut kept = Vec::with_capacity(letters.len());
        for number in letters {
            let is_answer =
                matches!(self.sent[number as usize].message.body, RaftBody::HeartbeatReply(_));
            let is_lost = is_answer && !self.bounds.answers;
            if !is_lost && !self.is_dead(state, number)? {
                kept.push(number);
            }
        }
        Ok(self.set(kept))
    }

    /// Whether a message can do nothing any more, however its receiver goes on: an answer of a term that
    /// the receiver's disk has reached, so that it brings no news of a term even after a crash, and
    /// - to a vote or pre-vote, that does no more than a tick now. Then it is of another round than the
    ///   receiver's present one, or counted in it already; rounds never come back;
    /// - to a leader's word, where the receiver does not lead in that term. It did when it spoke,
    ///   and nobody becomes leader twice in one term.
    fn is_dead(&mut self, state: &State, number: u32) -> Result<bool, Violation> {
        let Sent { to, message, .. } = &self.sent[number as usize];
        let receiver = state.nodes[to.get() as usize - 1];
        let node = &self.known[receiver as usize].node;
        if message.term > node.disk.hard_state.term {
            return Ok(false);
        }
        Ok(match &message.body {
            RaftBody::PreVoteReply(_) | RaftBody::VoteReply(_) => {
                self.step(receiver, Event::Deliver(number))? == self.step(receiver, Event::Tick)?
            }
            RaftBody::AppendReply(_) | RaftBody::HeartbeatReply(_) => {
                node.raft.role() != Role::Leader || node.raft.term() > message.term
            }
            RaftBody::PreVote(_)
            | RaftBody::Vote(_)
            | RaftBody::Append(_)
            | RaftBody::Heartbeat(_)
            | RaftBody::TimeoutNow
            | RaftBody::SnapshotOffer(_) => false,
        })
    }

    // ---- what must hold ----

    /// One vote and one leader a term, by what has been told.
    fn note_words(&self, state: &mut State, news: &[u32]) -> Result<(), Violation> {
        for number in news {
            let Sent { from, to, message } = &self.sent[*number as usize];
            let term = message.term;
            let Some(row) = (term.0 as usize).checked_sub(1) else { continue };
            if let Some(whom) = told_vote(*from, *to, message) {
                let told = &mut state.votes[row][from.get() as usize - 1];
                ensure(*told == 0 || *told == whom.get() as u8, "one vote a term", || {
                    format!("{from} votes for {told} and for {whom} in t{term}")
                })?;
                *told = whom.get() as u8;
            }
            if matches!(message.body, RaftBody::Append(_) | RaftBody::Heartbeat(_)) {
                let leader = &mut state.leaders[row];
                ensure(*leader == 0 || *leader == from.get() as u8, "one leader a term", || {
                    format!("{leader} and {from} lead t{term}")
                })?;
                *leader = from.get() as u8;
            }
        }
        Ok(())
    }

    /// What node `at` commits is what has been committed there, or new and durable on a majority.
    fn note_commit(&mut self, state: &mut State, at: usize) -> Result<(), Violation> {
        let Known { node, log, .. } = &self.known[state.nodes[at] as usize];
        let (id, term) = (node.id(), node.raft.term());
        let commit = node.raft.commit().0 as usize;
        let mut decided = self.decisions[state.decided as usize].clone();
        for (place, entry) in log.iter().enumerate().take(commit) {
            let words = entry.payload.bytes();
            match decided.get(place) {
                Some((known, payload, _)) => {
                    let same = *known == entry.id() && payload == words;
                    ensure(same, "what is committed stays", || {
                        format!("{id} commits {} where {known} was committed", entry.id())
                    })?;
                }
                None => {
                    Rc::make_mut(&mut decided).push((entry.id(), words.to_vec(), term));
                    self.ensure_durable(state, entry.id())?;
                }
            }
        }
        if decided.len() > self.decisions[state.decided as usize].len() {
            state.decided = self.decide(decided.to_vec());
        }
        Ok(())
    }

    fn ensure_durable(&self, state: &State, entry: LogId) -> Result<(), Violation> {
        let nodes = state.nodes.iter().map(|node| &self.known[*node as usize].node);
        let holders = nodes
            .filter(|node| node.disk.log.entry(entry.index).map(Entry::id) == Some(entry))
            .count();
        ensure(holders >= 2, "commits are durable on a majority", || {
            format!("{entry} is committed and durable on {holders} of 3")
        })
    }

    /// What must hold in `state`, to which node `at` has come.
    fn judge(&self, state: &State, at: usize) -> Result<(), Violation> {
        let known = state.nodes.map(|node| &self.known[node as usize]);
        let decided = &self.decisions[state.decided as usize];
        for (id, ..) in decided.iter() {
            self.ensure_durable(state, *id)?;
        }
        for (other, Known { node, log, .. }) in known.iter().enumerate() {
            let (id, term) = (node.id(), node.raft.term());
            if node.raft.role() == Role::Leader {
                let mut others = known.iter().map(|other| &other.node.raft);
                let one = others.all(|raft| {
                    raft.id() == id || raft.term() != term || raft.role() != Role::Leader
                });
                ensure(one, "one leader a term", || format!("{id} is not alone in t{term}"))?;
                for (place, (entry, _, committed_in)) in decided.iter().enumerate() {
                    let holds = log.get(place).map(Entry::id) == Some(*entry);
                    ensure(holds || *committed_in >= term, "leader completeness", || {
                        format!("{id} leads t{term} without {entry}, committed in t{committed_in}")
                    })?;
                }
            }
            if other != at {
                match_logs(&known[at].log, log)?;
            }
        }
        Ok(())
    }

    /// Wherever two cores had one fingerprint, the second does what the first did.
    fn compare_twins(&mut self) {
        let events: Vec<(u32, Event)> = self.steps.keys().copied().collect();
        for (number, event) in events {
            let Some(twin) = self.known[number as usize].twin.clone() else { continue };
            let second = self.run_step(twin, event).map(|(node, sent)| (node.fingerprint(), sent));
            let first = self.steps[&(number, event)].clone().map(|step| {
                let node = &self.known[step.node as usize].node;
                (node.fingerprint(), step.sent.to_vec())
            });
            assert!(
                first == second,
                "a fingerprint forgets something: at {event:?}, {first:?} and {second:?} of\n{:?}\n{:?}",
                self.known[number as usize].node.raft,
                self.known[number as usize].twin.as_ref().map(|twin| &twin.raft),
            );
        }
        self.tally.twins = self.known.iter().filter(|known| known.twin.is_some()).count();
    }

    fn tell(&self, at: usize, event: Event) -> String {
        let words = match event {
            Event::Deliver(number) => {
                let Sent { from, to, message } = &self.sent[number as usize];
                return format!("{from}→{to} t{} {:?}", message.term, message.body);
            }
            Event::Tick => "a tick".into(),
            Event::Campaign => "campaigns".into(),
            Event::Propose(number) => format!("takes proposal {number}"),
            Event::Persist(count) => format!("{count} writes are durable"),
            Event::Crash(kept) => format!("crashes with {kept} writes on disk, and starts again"),
            Event::Break(peer) => format!("its link to {peer} breaks"),
        };
        format!("{}: {words}", at + 1)
    }
}

fn is_subset(few: &[u64], many: &[u64]) -> bool {
    few.len() <= many.len() && few.iter().zip(many).all(|(few, many)| few & !many == 0)
}

/// Two logs that hold one entry are equal up to it.
fn match_logs(one: &[Entry], two: &[Entry]) -> Result<(), Violation> {
    let Some(last) = one.iter().zip(two).rposition(|(a, b)| a.id() == b.id()) else {
        return Ok(());
    };
    ensure(one[..=last] == two[..=last], "log matching", || {
        let ids =
            |log: &[Entry]| log.iter().map(|entry| entry.id().to_string()).collect::<Vec<_>>();
        format!("{:?} and {:?}", ids(one), ids(two))
    })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}, after", self.violation.property, self.violation.sentence)?;
        for line in &self.way {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
