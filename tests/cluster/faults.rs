//! What can be done to a cluster of real processes, under load: each fault inflicted, seen to have
//! happened, and taken back. What the clients saw meanwhile is judged at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use raftz_tests::linear::{self, Operation};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::process::{Cluster, PATIENCE};
use super::proxy::{Happened, Proxies, Rule};

/// Longest wait for a sign that a fault of the network did something. Without traffic on a link
/// nothing can happen to it.
const SIGN: Duration = Duration::from_secs(5);
/// Longest time that a fault lasts once it has shown.
const LASTING_MS: u32 = 900;
/// How often a fault is tried until it shows.
const ATTEMPTS: u32 = 3;
/// Calls that must be done while a fault lasts that leaves a majority whole, and after each one.
const PROGRESS: u64 = 20;
/// Nodes call each other by ids, the cluster by places.
const fn id(place: usize) -> u64 {
    place as u64 + 1
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGKILL of a follower.
    KillFollower,
    /// SIGKILL of so many that no majority is left.
    KillMost,
    /// SIGSTOP of the leader until there is another.
    PauseLeader,
    /// What the leader sends to one follower is held up.
    CutFromLeader,
    /// What one follower sends to the leader is held up.
    CutToLeader,
    /// The leader is cut off from everybody.
    IsolateLeader,
    /// A minority with the leader, and a majority.
    Split,
    /// Two sides that see each other only through one node in the middle; the leader on one side.
    Bridge,
    /// Connections of the leader are reset.
    Reset,
    /// A connection of the leader at whose other end nobody listens any more.
    HalfOpen,
    /// Everything to and from the leader comes late.
    Delay,
    /// Bits are flipped on the leader's connections.
    Flip,
    /// A follower reads slowly.
    SlowReader,
    /// A connection of the leader comes a second time, with its beginning said again.
    Duplicate,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::KillLeader,
        Self::KillFollower,
        Self::KillMost,
        Self::PauseLeader,
        Self::CutFromLeader,
        Self::CutToLeader,
        Self::IsolateLeader,
        Self::Split,
        Self::Bridge,
        Self::Reset,
        Self::HalfOpen,
        Self::Delay,
        Self::Flip,
        Self::SlowReader,
        Self::Duplicate,
    ];

    /// Whether a majority stays connected both ways, so that the cluster must go on.
    const fn leaves_a_majority(self) -> bool {
        !matches!(self, Self::KillMost | Self::Delay | Self::Flip | Self::Reset)
    }
}

/// The clients in each process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Clients of the whole cluster.
    pub(crate) clients: usize,
    /// Keys that they share at a time.
    pub(crate) keys: u64,
    pub(crate) pace_ms: u64,
    pub(crate) timeout_ms: u64,
    /// Reads ask for what a node happens to have.
    pub(crate) stale: bool,
}

/// A cluster behind proxies, under load, and what was done to it.
pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    pub(crate) proxies: Proxies,
    load: Load,
    rng: ChaCha8Rng,
    deck: Vec<Fault>,
    /// A node that is never killed, so that what it holds on to in a long life shows.
    spared: Option<usize>,
    starts: u64,
    happened: BTreeMap<Fault, u64>,
}

impl Rig {
    pub(crate) fn start(
        size: usize,
        options: &[&str],
        load: Load,
        spared: Option<usize>,
        seed: u64,
    ) -> Self {
        Self::on(Cluster::behind_proxies(size, options, seed), load, spared, seed)
    }

    /// Starts the nodes of this cluster.
    pub(crate) fn on(
        (cluster, proxies): (Cluster, Proxies),
        load: Load,
        spared: Option<usize>,
        seed: u64,
    ) -> Self {
        let size = cluster.size();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rig = Self {
            cluster,
            proxies,
            load,
            rng,
            deck: Vec::new(),
            spared,
            starts: 0,
            happened: BTreeMap::new(),
        };
        for place in 0..size {
            rig.start_node(place);
        }
        rig.wait_progress();
        rig
    }

    /// How often each fault that was inflicted happened; 0 for one that never showed.
    pub(crate) const fn happened(&self) -> &BTreeMap<Fault, u64> {
        &self.happened
    }

    fn start_node(&mut self, place: usize) {
        let size = self.cluster.size();
        self.starts += 1;
        let Load { clients, keys, pace_ms, timeout_ms, stale } = self.load;
        let mix = if stale { "mix-stale" } else { "mix" };
        let share = clients / size + usize::from(place < clients % size);
        let (tag, seed) = (self.starts, self.rng.next_u32());
        self.cluster.start(place);
        self.cluster
            .tell(place, &format!("{mix} s{tag} {share} {keys} {pace_ms} {timeout_ms} {seed}"));
    }

    /// Waits until some more calls were done.
    fn wait_progress(&mut self) {
        let goal = self.cluster.account().done + PROGRESS;
        self.cluster.wait_account("calls to be done", |account| account.done >= goal);
    }

    /// The next fault: all of them in some order, then again in another.
    pub(crate) fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck.extend(Fault::ALL);
        }
        let at = self.below(self.deck.len());
        self.deck.swap_remove(at)
    }

    /// Inflicts a fault, a few times if it does not show: the links that it concerns may be idle.
    pub(crate) fn strike(&mut self, fault: Fault) {
        let mut has_shown = false;
        for _ in 0..ATTEMPTS {
            has_shown = self.attempt(fault);
            if has_shown {
                break;
            }
        }
        *self.happened.entry(fault).or_default() += u64::from(has_shown);
    }

    /// Inflicts a fault, waits until it has shown, takes it back, and waits until calls are done
    /// again and every node has caught up; whether it has shown.
    fn attempt(&mut self, fault: Fault) -> bool {
        let mut leader = self.cluster.leader();
        if fault == Fault::KillLeader && Some(leader) == self.spared {
            self.pause(leader);
            leader = self.cluster.leader();
        }
        let others = self.others(leader);
        let has_shown = match fault {
            Fault::KillLeader => self.kill(fault, vec![leader]),
            Fault::KillFollower => {
                let victim = others.iter().find(|place| Some(**place) != self.spared);
                self.kill(fault, victim.into_iter().copied().collect())
            }
            Fault::KillMost => {
                let count = self.cluster.size() / 2 + 1 + self.below(2);
                self.kill(fault, [leader].into_iter().chain(others).take(count).collect())
            }
            Fault::PauseLeader => self.pause(leader),
            Fault::CutFromLeader
            | Fault::CutToLeader
            | Fault::IsolateLeader
            | Fault::Split
            | Fault::Bridge
            | Fault::Reset
            | Fault::HalfOpen
            | Fault::Delay
            | Fault::Flip
            | Fault::SlowReader
            | Fault::Duplicate => self.disturb(fault, leader, &others),
        };
        self.wait_progress();
        self.wait_whole();
        has_shown
    }

    /// Waits until every node has what was committed when this was called: a majority hides one
    /// that has been left behind.
    fn wait_whole(&mut self) {
        let leader = self.cluster.leader();
        let commit = self.cluster.status(leader).commit;
        for place in 0..self.cluster.size() {
            self.cluster.wait_status(place, "a node to catch up", |seen| seen.applied >= commit);
        }
    }

    /// The other places, in random order.
    fn others(&mut self, leader: usize) -> Vec<usize> {
        let mut others: Vec<usize> = (0..self.cluster.size()).filter(|it| *it != leader).collect();
        for at in (1..others.len()).rev() {
            let with = self.below(at + 1);
            others.swap(at, with);
        }
        others
    }

    fn kill(&mut self, fault: Fault, victims: Vec<usize>) -> bool {
        let victims: Vec<usize> =
            victims.into_iter().filter(|place| Some(*place) != self.spared).collect();
        for place in &victims {
            self.cluster.kill(*place);
        }
        if fault.leaves_a_majority() {
            self.wait_progress();
        } else {
            self.last();
        }
        for place in &victims {
            self.start_node(*place);
        }
        !victims.is_empty()
    }

    fn pause(&mut self, leader: usize) -> bool {
        self.cluster.pause(leader);
        // Another leader proves that it stood still for longer than an election timeout.
        let successor = self.cluster.leader();
        self.wait_progress();
        self.last();
        self.cluster.resume(leader);
        successor != leader
    }

    /// A fault of the network.
    fn disturb(&mut self, fault: Fault, leader: usize, others: &[usize]) -> bool {
        let before = self.proxies.happened();
        self.impose(fault, leader, others);
        let deadline = Instant::now() + SIGN;
        let mut has_shown = shows(fault, &before, &self.proxies.happened());
        while !has_shown && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            if fault == Fault::Reset || fault == Fault::Duplicate {
                self.impose(fault, leader, others);
            }
            has_shown = shows(fault, &before, &self.proxies.happened());
        }
        self.last();
        if fault.leaves_a_majority() {
            self.wait_progress();
        }
        self.proxies.heal();
        has_shown
    }

    fn impose(&mut self, fault: Fault, leader: usize, others: &[usize]) {
        let ids: Vec<u64> = others.iter().map(|place| id(*place)).collect();
        let (leader, one) = (id(leader), ids[0]);
        // Fewer than half, with the leader.
        let companions = (self.cluster.size() - 1) / 2 - 1;
        let proxies = &self.proxies;
        match fault {
            Fault::CutFromLeader => proxies.one_way(leader, one, Rule::Keep),
            Fault::CutToLeader => proxies.one_way(one, leader, Rule::Keep),
            Fault::IsolateLeader => proxies.between(&[leader], &ids, Rule::Keep),
            Fault::Split => {
                let (few, many) = ids.split_at(companions);
                proxies.between(&[&[leader], few].concat(), many, Rule::Keep);
            }
            Fault::Bridge => {
                let (few, [_middle, many @ ..]) = ids.split_at(companions) else { return };
                proxies.between(&[&[leader], few].concat(), many, Rule::Keep);
            }
            Fault::Reset => {
                for other in ids {
                    proxies.reset(leader, other);
                }
            }
            Fault::HalfOpen => proxies.both_ways(leader, one, Rule::Swallow),
            Fault::Delay => {
                proxies.between(&[leader], &ids, Rule::Delay { ms: 10, jitter_ms: 40 });
            }
            Fault::Flip => proxies.between(&[leader], &ids, Rule::Flip { one_of: 3000 }),
            Fault::SlowReader => {
                proxies.one_way(leader, one, Rule::Slow { bytes_per_s: 2000 });
            }
            Fault::Duplicate => {
                proxies.duplicate(leader, one);
            }
            Fault::KillLeader | Fault::KillFollower | Fault::KillMost | Fault::PauseLeader => {}
        }
    }

    /// Lets a fault last.
    fn last(&mut self) {
        let ms = u64::from(self.rng.next_u32() % LASTING_MS);
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u32() as usize % bound.max(1)
    }

    /// Stops the clients, and waits until every call has ended and all nodes have applied the same.
    pub(crate) fn calm(&mut self) {
        self.proxies.heal();
        for place in self.cluster.awake() {
            self.cluster.tell(place, "stop");
        }
        for place in self.cluster.awake() {
            let is_end = |line: &str| (line == "stopped").then_some(());
            self.cluster.wait_line(place, "its clients to stop", is_end);
        }
        self.cluster.wait_account("every call to end", |account| account.open() == 0);
        self.cluster.settle();
    }

    /// Reads every key once more, and judges everything that was seen: how many keys, or what is
    /// wrong.
    ///
    /// # Errors
    /// A key whose history is not linearizable; nodes that hold different things.
    pub(crate) fn judge(&mut self) -> Result<usize, String> {
        let done = self.cluster.account().calls;
        let keys = self.cluster.history(|history| history.keys());
        for (at, key) in keys.iter().enumerate() {
            // Through each node in turn; a leader that had lost a write would say so now.
            let key = String::from_utf8_lossy(key).into_owned();
            let ms = PATIENCE.as_millis();
            self.cluster.tell(at % self.cluster.size(), &format!("read {key} {ms}"));
        }
        let all = done + keys.len() as u64;
        self.cluster.wait_account("every key to be read", |it| it.calls == all && it.open() == 0);
        self.cluster.settle();
        let first = self.cluster.dump(0);
        for place in 1..self.cluster.size() {
            if self.cluster.dump(place) != first {
                return Err(format!("nodes 1 and {} hold different things", place + 1));
            }
        }
        let history: Vec<Operation> = self.cluster.history(|history| history.operations());
        for (key, operations) in linear::by_key(history) {
            linear::check(&operations).map_err(|objection| {
                format!("key {}: {objection}", String::from_utf8_lossy(&key))
            })?;
        }
        Ok(keys.len())
    }
}

/// Whether a fault of the network has shown since `before`.
fn shows(fault: Fault, before: &Happened, now: &Happened) -> bool {
    match fault {
        Fault::CutFromLeader
        | Fault::CutToLeader
        | Fault::IsolateLeader
        | Fault::Split
        | Fault::Bridge => now.bytes_kept > before.bytes_kept,
        Fault::Reset => now.resets > before.resets,
        Fault::HalfOpen => now.bytes_swallowed > before.bytes_swallowed,
        Fault::Delay => now.bytes_delayed > before.bytes_delayed,
        Fault::Flip => now.bits_flipped > before.bits_flipped,
        Fault::SlowReader => now.bytes_slowed > before.bytes_slowed,
        Fault::Duplicate => now.duplicates > before.duplicates,
        Fault::KillLeader | Fault::KillFollower | Fault::KillMost | Fault::PauseLeader => false,
    }
}
