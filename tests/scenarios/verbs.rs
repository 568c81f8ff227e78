//! The verbs of a transcript, one per line.
//!
//! | verb | does |
//! |---|---|
//! | `cluster 3 [learners=1] [window=2] [window-bytes=…] [append-bytes=…] [uncommitted=…] [unapplied=…] [cache=…] [held=…] [timeout=150..300] [lease=on]` | founds and starts nodes 1, 2, 3 … |
//! | … `[log-entries=…] [retain=…] [keep=…] [rate=…] [piece=…] [stall=500ms]` | its policy of snapshots; without it, none is taken and no log is shortened |
//! | `policy 1 [log-entries=…] …` | node 1 changes its own, now and in later lives |
//! | `preset 1 [terms=1,1,4] [term=6] [vote=2]` | restarts node 1 with such a log (by default: its own) and hard state |
//! | … `[priorities=100,50,0] [disk-stall=1s]` | election priorities of nodes 1, 2, …; how long a leader's disk may stand still |
//! | `campaign 1` | as if the election timeout had passed |
//! | `transfer 1 [2] [wait=1s]`, `step-down 1` | a caller of node 1 wants node 2, or the best, to lead |
//! | `forget 1` | node 1 is told that its leader is dead |
//! | `elect 1` | campaigns and works everything off, quietly; node 1 leads and all know its commit |
//! | `propose 1 a b … [wait=1s] [no-forward]` | callers of node 1 propose, in one batch |
//! | `read 1 r1 r2 … level=linearizable [wait=1s]` | readers of node 1 ask, in one batch; or `lease`, `stale`, `at:7`, `bounded:100ms` |
//! | `load 1 20` | so many commands, one after the other, quietly; all of them are committed and applied |
//! | `deliver 1->2 [3]` | hands over the oldest message (or three) of that direction |
//! | `drop 1->2 [3\|all]`, `drop-all` | loses messages |
//! | `duplicate 1->2` | doubles the oldest message, at the end of the queue |
//! | `reverse 1->2` | turns the queue around |
//! | `cut 1->2`, `partition 1 2 \| 3`, `heal` | messages sent from now on are lost; waiting ones, too |
//! | `link-up 1 2`, `link-down 1 2`, `link-up all` | the transport's word about a link; a break loses what is under way |
//! | `persist 1 [2]`, `fail-write 1` | all (or two) waiting writes become durable, with one completion; or fail |
//! | `apply 1`, `fail-apply 1` | the machine applies what waits for it, or is restored; or fails at it |
//! | `snapshot 1` | node 1 is asked for a snapshot |
//! | `build 1`, `fail-build 1` | what its machine froze is written into a snapshot, unless that was cancelled (`anyway`: it was complete before); or cannot be |
//! | `pieces 1 [2]` | its lane of pieces does what waits for it (or two things) |
//! | `fail-restore 1`, `mend-restore 1` | from now on its machine takes no snapshot; or does again |
//! | `lose-snapshot 1` | its newest snapshot cannot be read any more |
//! | `corrupt 1->2` | the oldest message, a piece of a snapshot, is damaged on its way |
//! | `delay 1->2`, `arrive 1->2` | the oldest message is overtaken by all others; all that were arrive |
//! | `fail-reads 1` | from now on its disk gives no old entries back |
//! | `hold disk 1`, `release disk 1`, `hold apply 1`, `hold build 1`, `hold pieces 1` … | that lane stands still in `stabilize` and `run` |
//! | `stabilize [1 2]` | works off everything that waits, time standing still |
//! | `advance 200ms [1 2]` | time passes at once; all (or these) nodes are told |
//! | `run 200ms [1 2]` | time passes and everything due is worked off; only news is shown |
//! | `crash 1 [keep=1]`, `restart 1` | a life ends; the first waiting write still reaches the disk |
//! | `sabotage 1 from=3 [last=5@t2]` | a dead node's disk loses entries |
//! | `wipe 1` | a dead node's directory is replaced by a new, empty one |
//! | `storage-full 1`, `storage-ample 1`, `shutdown 1` | |
//! | `send 2->1 t5 vote last=1@t1 [transfer]` … | a message made by hand; see [`super::by_hand`] |
//! | `lenient` | from here on hand-made messages may break what the oracle takes for granted |
//! | `status [1]`, `counts 1`, `log [1]`, `snapshots [1]`, `queue 1->2` | shows |
//! | `expect 1 role=leader term=2 commit=3 …`, `expect-equal-logs`, `expect-one-leader`, `expect-no-leader` | fails where it is not so |

use std::collections::BTreeMap;

use raftz_core::replica::{Input, SnapshotPolicy};
use raftz_core::types::{HardState, Index, LogId, Message, NodeId, SnapshotMessage, Term};

use super::by_hand;
use super::cluster::{Cluster, Plan, Voice, node};
use super::disk::Log;
use super::{reads, show};

/// A transcript being played.
#[derive(Default)]
pub(crate) struct Script {
    cluster: Option<Cluster>,
}

/// The words of a line: plain ones, and `name=value` ones.
pub(crate) struct Words<'a> {
    pub(crate) plain: Vec<&'a str>,
    pub(crate) named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let mut words = Self { plain: Vec::new(), named: BTreeMap::new() };
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => {
                    words.named.insert(name, value);
                }
                None => words.plain.push(word),
            }
        }
        words
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.named.get(name).map(|value| number(value))
    }

    fn nodes(&self, from: usize) -> Vec<NodeId> {
        self.plain.get(from..).unwrap_or(&[]).iter().map(|word| id(word)).collect()
    }

    fn nodes_or_all(&self, from: usize, cluster: &Cluster) -> Vec<NodeId> {
        let nodes = self.nodes(from);
        if nodes.is_empty() { cluster.ids() } else { nodes }
    }

    fn id(&self, at: usize) -> NodeId {
        id(self.plain.get(at).expect("a node is missing"))
    }

    fn pair(&self, at: usize) -> (NodeId, NodeId) {
        pair(self.plain.get(at).expect("a direction is missing"))
    }
}

fn number(word: &str) -> u64 {
    if word == "max" {
        return u64::MAX;
    }
    word.parse().unwrap_or_else(|_| panic!("{word:?} is not a number"))
}

fn id(word: &str) -> NodeId {
    node(number(word))
}

fn pair(word: &str) -> (NodeId, NodeId) {
    let (from, to) = word.split_once("->").unwrap_or_else(|| panic!("{word:?} is not `1->2`"));
    (id(from), id(to))
}

/// `3@t2`.
pub(crate) fn log_id(word: &str) -> LogId {
    let (index, term) =
        word.split_once("@t").unwrap_or_else(|| panic!("{word:?} is not like `3@t2`"));
    LogId::new(Term(number(term)), Index(number(index)))
}

fn micros(word: &str) -> u64 {
    if let Some(ms) = word.strip_suffix("ms") {
        return number(ms) * 1000;
    }
    if let Some(us) = word.strip_suffix("us") {
        return number(us);
    }
    number(word.strip_suffix('s').unwrap_or_else(|| panic!("{word:?} needs a unit"))) * 1_000_000
}

impl Script {
    /// Plays the lines of one block; what the cluster says, below each of several verbs.
    pub(crate) fn play(&mut self, block: &str) -> String {
        let lines: Vec<&str> = block.lines().filter(|line| !line.trim().is_empty()).collect();
        let mut out = String::new();
        for line in &lines {
            let heard = self.verb(line);
            if lines.len() > 1 && !heard.is_empty() {
                out += &format!("> {}\n", line.trim());
            }
            for line in heard {
                out += &line;
                out.push('\n');
            }
        }
        if out.is_empty() {
            out.push_str("ok\n");
        }
        out
    }

    fn verb(&mut self, line: &str) -> Vec<String> {
        let words = Words::of(line);
        if words.plain[0] == "cluster" {
            self.cluster = Some(Cluster::new(&plan(&words)));
        }
        let cluster = self.cluster.as_mut().expect("begin with `cluster`");
        match words.plain[0] {
            "cluster" => {}
            "elect" => elect(cluster, words.id(1)),
            "load" => load(cluster, words.id(1), number(words.plain[2])),
            "propose" | "read" | "campaign" | "forget" | "send" | "shutdown" | "storage-full"
            | "storage-ample" | "snapshot" | "policy" | "transfer" | "step-down" => {
                call(cluster, line, &words);
            }
            "deliver" | "drop" | "drop-all" | "duplicate" | "reverse" | "cut" | "partition"
            | "heal" | "link-up" | "link-down" | "corrupt" | "delay" | "arrive" => {
                network(cluster, line, &words);
            }
            "persist" | "fail-write" | "fail-apply" | "fail-reads" | "apply" | "hold"
            | "release" | "lose-snapshot" | "build" | "fail-build" | "pieces" | "fail-restore"
            | "mend-restore" => {
                lane(cluster, &words);
            }
            "advance" | "run" | "stabilize" => time(cluster, &words),
            "crash" | "restart" | "preset" | "sabotage" | "wipe" => life(cluster, &words),
            "lenient" => cluster.oracle.lenient = true,
            "counts" => {
                let id = words.id(1);
                let line = show::counts(id, cluster.raft(id).counts());
                cluster.say(Voice::Silent, || line);
            }
            "status" => {
                for id in words.nodes_or_all(1, cluster) {
                    let lines = if cluster.is_alive(id) {
                        let replica = cluster.nodes[&id].replica.as_ref().expect("alive");
                        show::status(id, &replica.raft().status(), replica.newest_snapshot())
                    } else {
                        vec![format!("{id}: down")]
                    };
                    for line in lines {
                        cluster.say(Voice::Silent, || line);
                    }
                }
            }
            "log" => {
                for id in words.nodes_or_all(1, cluster) {
                    let line = format!("{id}: {}", show::log(&cluster.nodes[&id].log));
                    cluster.say(Voice::Silent, || line);
                }
            }
            "snapshots" => {
                for id in words.nodes_or_all(1, cluster) {
                    let kept = &cluster.nodes[&id].snapshots;
                    let line = format!("{id}: {}", show::snapshots(&kept.list()));
                    cluster.say(Voice::Silent, || line);
                }
            }
            "queue" => {
                let (from, to) = words.pair(1);
                let queue = cluster.net.get(&(from, to)).cloned().unwrap_or_default();
                for message in queue {
                    cluster
                        .say(Voice::Silent, || format!("{from}→{to} {}", show::message(&message)));
                }
            }
            "expect" => expect(cluster, line, &words),
            "expect-equal-logs" => {
                let logs: Vec<_> = words.nodes_or_all(1, cluster);
                let logs: Vec<_> = logs.iter().map(|id| &cluster.nodes[id].disk.log).collect();
                let agree = |two: &[&Log]| two[0].agrees_with(two[1]);
                assert!(logs.windows(2).all(agree), "the logs differ");
            }
            "expect-one-leader" => assert_eq!(cluster.leaders().len(), 1, "{line}"),
            "expect-no-leader" => assert_eq!(cluster.leaders(), vec![], "{line}"),
            other => panic!("unknown verb {other:?}"),
        }
        cluster.heard()
    }
}

/// The opening of many transcripts, which `election` shows in full.
fn elect(cluster: &mut Cluster, id: NodeId) {
    let ids = cluster.ids();
    cluster.voice = Voice::Silent;
    cluster.step(id, Input::Campaign);
    cluster.run(10_000, &ids);
    assert_eq!(cluster.leaders(), vec![id], "nobody, or somebody else, was elected");
    cluster.heard();
    let status = cluster.raft(id).status();
    cluster.say(Voice::Silent, || {
        format!("{id}: leads t{}, everything up to {} committed", status.term, status.commit)
    });
    cluster.voice = Voice::All;
}

/// Commands whose way is not the subject.
fn load(cluster: &mut Cluster, id: NodeId, count: u64) {
    let ids = cluster.ids();
    cluster.voice = Voice::Silent;
    for number in 1..=count {
        cluster.propose(id, &[&format!("load-{number}")], 1_000_000, true);
        cluster.run(10_000, &ids);
    }
    cluster.heard();
    let (commit, applied) = (cluster.raft(id).commit(), cluster.raft(id).applied());
    assert_eq!((applied, cluster.raft(id).last().index), (commit, commit), "not all is applied");
    cluster.say(Voice::Silent, || format!("{id}: has committed and applied all up to {commit}"));
    cluster.voice = Voice::All;
}

fn plan(words: &Words<'_>) -> Plan {
    let mut plan = Plan::of(number(words.plain[1]));
    for (name, value) in &words.named {
        match *name {
            "learners" => plan.learners = number(value),
            "window" => plan.raft.window_messages = number(value) as usize,
            "window-bytes" => plan.raft.window_bytes = number(value),
            "append-bytes" => plan.raft.append_bytes_max = number(value),
            "uncommitted" => plan.raft.uncommitted_bytes_max = number(value),
            "unapplied" => plan.raft.unapplied_bytes_max = number(value),
            "cache" => plan.raft.cache_bytes_max = number(value),
            "held" => plan.held_bytes_max = number(value),
            "priorities" => {
                plan.priorities = value.split(',').map(|word| number(word) as u8).collect();
            }
            "disk-stall" => plan.raft.disk_stall_timeout_us = micros(value),
            "largest" => plan.settings.entry_bytes_max = number(value),
            "machine" => {
                assert_eq!(*value, "kept", "machine=kept, or nothing");
                plan.raft.machine_applied = Some(Index::ZERO);
            }
            "lease" => {
                assert_eq!(*value, "on", "lease=on, or nothing");
                plan.raft.lease_reads = true;
            }
            "seed" => plan.seed = number(value),
            name if is_policy(name) => set_policy(&mut plan.snapshots, name, value),
            "timeout" => {
                let (min, max) = value.split_once("..").expect("timeout=min..max");
                plan.raft.election_timeout_min_us = number(min) * 1000;
                plan.raft.election_timeout_max_us = number(max) * 1000;
            }
            other => panic!("unknown option {other:?}"),
        }
    }
    plan
}

fn is_policy(name: &str) -> bool {
    matches!(name, "log-entries" | "retain" | "keep" | "rate" | "piece" | "stall" | "scrub")
}

fn set_policy(policy: &mut SnapshotPolicy, name: &str, value: &str) {
    match name {
        "log-entries" => policy.log_entries = number(value),
        "retain" => policy.retain_bytes = number(value),
        "keep" => policy.keep = number(value) as usize,
        "rate" => policy.send_bytes_per_s = number(value),
        "piece" => policy.piece_bytes = number(value) as u32,
        "stall" => policy.stall_us = micros(value),
        "scrub" => policy.scrub_interval_us = micros(value),
        other => panic!("unknown policy {other:?}"),
    }
}

fn call(cluster: &mut Cluster, line: &str, words: &Words<'_>) {
    match words.plain[0] {
        "campaign" => cluster.step(words.id(1), Input::Campaign),
        "forget" => cluster.step(words.id(1), Input::ForgetLeader),
        "propose" => {
            let wait_us = words.named.get("wait").map_or(1_000_000, |word| micros(word));
            let mut payloads = words.plain[2..].to_vec();
            let forward = !payloads.contains(&"no-forward");
            payloads.retain(|word| *word != "no-forward");
            cluster.propose(words.id(1), &payloads, wait_us, forward);
        }
        "read" => {
            let wait_us = words.named.get("wait").map_or(1_000_000, |word| micros(word));
            let level = words.named.get("level").copied().unwrap_or("linearizable");
            let level = reads::level(level, micros);
            cluster.read_at(words.id(1), &words.plain[2..], level, wait_us);
        }
        "send" => {
            let (from, to) = words.pair(1);
            let message = by_hand::message(line, words);
            cluster.step(to, Input::Receive { from, message });
        }
        "transfer" | "step-down" => {
            let wait_us = words.named.get("wait").map_or(1_000_000, |word| micros(word));
            let target = words.plain.get(2).map(|word| id(word));
            cluster.transfer(words.id(1), target, wait_us, words.plain[0] == "step-down");
        }
        "shutdown" => cluster.step(words.id(1), Input::Shutdown),
        "snapshot" => cluster.step(words.id(1), Input::TakeSnapshot),
        "policy" => {
            let id = words.id(1);
            let node = cluster.nodes.get_mut(&id).expect("no such node");
            let policy = &mut node.config.snapshots;
            words.named.iter().for_each(|(name, value)| set_policy(policy, name, value));
            let policy = *policy;
            cluster.step(id, Input::SetSnapshotPolicy(policy));
        }
        "storage-full" => cluster.step(words.id(1), Input::StorageFull(true)),
        _ => cluster.step(words.id(1), Input::StorageFull(false)),
    }
}

fn network(cluster: &mut Cluster, line: &str, words: &Words<'_>) {
    match words.plain[0] {
        "deliver" | "drop" => {
            let (from, to) = words.pair(1);
            let count = match words.plain.get(2) {
                Some(&"all") => usize::MAX,
                Some(word) => number(word) as usize,
                None => 1,
            };
            if words.plain[0] == "drop" {
                let queue = cluster.net.entry((from, to)).or_default();
                let gone = queue.len().min(count);
                queue.drain(..gone);
                assert!(gone > 0, "nothing to lose from {from} to {to}");
                return;
            }
            let waiting = cluster.net.get(&(from, to)).map_or(0, std::collections::VecDeque::len);
            assert!(waiting > 0, "nothing to deliver from {from} to {to}");
            for _ in 0..count.min(waiting) {
                cluster.deliver(from, to);
            }
        }
        "drop-all" => {
            cluster.net.clear();
            cluster.late.clear();
        }
        "corrupt" => {
            let queue = cluster.net.entry(words.pair(1)).or_default();
            let Some(Message::Snapshot(SnapshotMessage::Piece { bytes, .. })) = queue.front_mut()
            else {
                panic!("the oldest message is no piece of a snapshot");
            };
            let mut damaged = bytes.to_vec();
            damaged[bytes.len() / 2] ^= 1;
            *bytes = damaged.into();
        }
        "delay" => {
            let queue = cluster.net.entry(words.pair(1)).or_default();
            let message = queue.pop_front().expect("nothing to delay");
            cluster.late.entry(words.pair(1)).or_default().push_back(message);
        }
        "arrive" => {
            let (from, to) = words.pair(1);
            let late = cluster.late.remove(&(from, to)).expect("nothing was delayed");
            for message in late {
                cluster.net.entry((from, to)).or_default().push_front(message);
                cluster.deliver(from, to);
            }
        }
        "duplicate" => {
            let queue = cluster.net.entry(words.pair(1)).or_default();
            let copy = queue.front().expect("nothing to double").clone();
            queue.push_back(copy);
        }
        "reverse" => {
            let queue = cluster.net.entry(words.pair(1)).or_default();
            assert!(queue.len() > 1, "nothing to turn around");
            queue.make_contiguous().reverse();
        }
        "cut" => {
            cluster.cut.insert(words.pair(1));
            cluster.net.remove(&words.pair(1));
        }
        "partition" => {
            let sides: Vec<Vec<NodeId>> = line["partition".len()..]
                .split('|')
                .map(|side| side.split_whitespace().map(id).collect())
                .collect();
            for (at, side) in sides.iter().enumerate() {
                for other in sides.iter().enumerate().filter(|(o, _)| *o != at).map(|(_, s)| s) {
                    for (a, b) in side.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
                        cluster.cut.insert((a, b));
                        cluster.net.remove(&(a, b));
                    }
                }
            }
        }
        "heal" => cluster.cut.clear(),
        verb => {
            let mut pairs = Vec::new();
            if words.plain[1] == "all" {
                let ids = cluster.ids();
                for a in &ids {
                    pairs.extend(ids.iter().filter(|b| *b > a).map(|b| (*a, *b)));
                }
            } else {
                pairs.push((words.id(1), words.id(2)));
            }
            for (a, b) in pairs {
                if verb == "link-up" {
                    cluster.link_up(a, b);
                } else {
                    for direction in [(a, b), (b, a)] {
                        cluster.net.remove(&direction);
                        cluster.late.remove(&direction);
                    }
                    cluster.link_down(a, b, "connection reset");
                }
            }
        }
    }
}

fn lane(cluster: &mut Cluster, words: &Words<'_>) {
    match words.plain[0] {
        "persist" => {
            let count = words.plain.get(2).map_or(usize::MAX, |word| number(word) as usize);
            assert!(cluster.persist(words.id(1), count), "nothing to make durable");
        }
        "fail-write" => cluster.fail_disk(words.id(1)),
        "fail-apply" => cluster.fail_machine(words.id(1)),
        "fail-reads" => {
            cluster.nodes.get_mut(&words.id(1)).expect("no such node").reads_fail = true;
        }
        "apply" => assert!(cluster.apply(words.id(1)), "nothing to apply"),
        "build" => {
            let is_late = words.plain.contains(&"anyway");
            assert!(cluster.build(words.id(1), is_late), "nothing to build");
        }
        "fail-build" => cluster.fail_build(words.id(1)),
        "pieces" => {
            let count = words.plain.get(2).map_or(usize::MAX, |word| number(word) as usize);
            assert!(cluster.pieces(words.id(1), count), "no piece to read or write");
        }
        "lose-snapshot" => cluster.nodes[&words.id(1)].snapshots.lose_newest(),
        "fail-restore" | "mend-restore" => {
            let node = cluster.nodes.get_mut(&words.id(1)).expect("no such node");
            node.snapshots.restore_fails = words.plain[0] == "fail-restore";
        }
        verb => {
            let held = verb == "hold";
            let member = cluster.nodes.get_mut(&words.id(2)).expect("no such node");
            match words.plain[1] {
                "disk" => member.disk_held = held,
                "apply" => member.apply_held = held,
                "build" => member.snapshots.build_held = held,
                "pieces" => member.snapshots.pieces_held = held,
                other => panic!("no lane {other:?}"),
            }
        }
    }
}

fn time(cluster: &mut Cluster, words: &Words<'_>) {
    match words.plain[0] {
        "stabilize" => {
            let nodes = words.nodes_or_all(1, cluster);
            cluster.stabilize(&nodes);
        }
        "advance" => {
            let nodes = words.nodes_or_all(2, cluster);
            cluster.advance(micros(words.plain[1]), &nodes);
        }
        _ => {
            let nodes = words.nodes_or_all(2, cluster);
            cluster.voice = Voice::News;
            cluster.run(micros(words.plain[1]), &nodes);
            cluster.voice = Voice::All;
        }
    }
}

fn life(cluster: &mut Cluster, words: &Words<'_>) {
    let id = words.id(1);
    match words.plain[0] {
        "crash" => cluster.crash(id, words.number("keep").unwrap_or(0) as usize),
        "restart" => {
            assert!(!cluster.is_alive(id), "{id} is alive");
            cluster.start(id);
        }
        "wipe" => cluster.wipe(id),
        "preset" => {
            let terms: Option<Vec<u64>> =
                words.named.get("terms").map(|list| list.split(',').map(number).collect());
            let last = terms.as_ref().and_then(|terms| terms.last().copied()).unwrap_or(0);
            let term = Term(words.number("term").unwrap_or(last));
            let vote = words.number("vote").map(node);
            cluster.crash(id, 0);
            cluster.preset(id, terms.as_deref(), HardState { term, vote });
            cluster.now_us -= 150_000;
            cluster.start(id);
            cluster.now_us += 150_000;
        }
        _ => {
            let last_known = words.named.get("last").map(|word| log_id(word));
            let first_faulty = Index(words.number("from").expect("sabotage 1 from=3"));
            cluster.sabotage(id, first_faulty, last_known);
        }
    }
}

fn expect(cluster: &Cluster, line: &str, words: &Words<'_>) {
    let id = words.id(1);
    let status = cluster.raft(id).status();
    for (name, wanted) in &words.named {
        let found = match *name {
            "role" => status.role.to_string(),
            "term" => status.term.to_string(),
            "vote" => status.vote.map_or("nobody".into(), |id| id.to_string()),
            "leader" => status.leader.map_or("none".into(), |id| id.to_string()),
            "last" => status.last.to_string(),
            "durable" => status.durable.to_string(),
            "commit" => status.commit.to_string(),
            "applied" => status.applied.to_string(),
            "damaged" => status.damage.is_some().to_string(),
            "base" => status.base.to_string(),
            "transfer" => status.transfer.map_or("none".into(), |id| id.to_string()),
            "machine" => cluster.nodes[&id].machine.applied.to_string(),
            "snapshot" => {
                let kept = cluster.nodes[&id].snapshots.list();
                kept.first().map_or("none".into(), |kept| kept.id.last.to_string())
            }
            other => panic!("cannot expect {other:?}"),
        };
        assert_eq!(&found, wanted, "{line}: {name}");
    }
}
