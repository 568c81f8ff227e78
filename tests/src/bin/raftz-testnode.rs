//! One node of a test cluster in a process of its own, with clients inside, told what to do by lines
//! on its standard input. It ends when its input does, so it never outlives the test.
//!
//! ```text
//! raftz-testnode PLACE ROOT ADDRESS,ADDRESS,… [key=value …]
//!     keys of the configuration, and machine=kv, blockable or forgetful
//!
//! load TAG CLIENTS                             clients that write keys of their own     -> ack …
//! mix TAG CLIENTS KEYS PACE_MS TIMEOUT_MS SEED clients with a history                   -> op …
//! read KEY TIMEOUT_MS                          one read through the log, in the history -> op …
//! stop                                         ends all clients                         -> stopped
//! block MS                                     the machine stands still once
//! pace MS WRITES                               one client, one write every so often           -> paced …
//! transfer ID TIMEOUT_MS                       hands over to ID, or to the best if that is 0    -> transferred ID US or not …
//! status | dump
//! ```

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::machine::{KvQuery, KvReply, KvStore, StateMachine};
use raftz_core::node::Node;
use raftz_core::types::{NodeId, Outcome};
use raftz_examples::{PATIENCE, Result, config, set};
use raftz_tests::flawed::{Blockable, Brake, Forgetful};
use raftz_tests::mixed::{self, Ids, Mix, MixedClients};
use raftz_tests::value_of;

/// Prints one line as a whole and at once: what was acknowledged must be known to the test even if
/// this process dies right after.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A test that has gone away needs no answer.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(node: &Arc<Node>, tag: &str, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|client| {
                let (node, stop) = (Arc::clone(node), Arc::clone(&stop));
                let tag = format!("{tag}.{client}");
                std::thread::spawn(move || write_until(&node, &tag, &stop))
            })
            .collect();
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A client that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

fn write_until(node: &Node, tag: &str, stop: &AtomicBool) {
    // Said when it changes, not at each attempt.
    let mut why = None;
    for n in 0u64.. {
        let key = format!("{tag}.{n}");
        let value = value_of(&key);
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            match node.propose(set(key.clone(), value.clone())).wait() {
                Outcome::Done(_) => {
                    say(&format!("ack {key}"));
                    why = None;
                    break;
                }
                // It may be there or not; the next key is another write.
                Outcome::Unknown(_) => {
                    say(&format!("unknown {key}"));
                    break;
                }
                Outcome::Refused(refusal) => {
                    if why.as_ref() != Some(&refusal) {
                        say(&format!("refused {refusal}"));
                        why = Some(refusal);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }
}

/// One client with one write outstanding, for this long and at least so many writes: how many writes were not done, and how long each
/// of the others took, in microseconds.
fn pace(node: &Node, millis: u64, writes: usize) -> (u64, Vec<u128>) {
    let end = Instant::now() + Duration::from_millis(millis);
    let (mut not_done, mut took_us) = (0, Vec::new());
    for n in 0u64.. {
        let begun = Instant::now();
        if begun >= end && took_us.len() >= writes {
            break;
        }
        // A few keys over and over: the store does not grow.
        match node.propose(set(format!("pace.{}", n % 100), "x")).wait() {
            Outcome::Done(_) => took_us.push(begun.elapsed().as_micros()),
            Outcome::Unknown(_) | Outcome::Refused(_) => not_done += 1,
        }
    }
    (not_done, took_us)
}

fn dump(node: &Node) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let query =
            KvQuery::Scan { prefix: bytes::Bytes::new(), after: after.clone(), limit: 5000 };
        let reply = node.query(query.encode(), PATIENCE)?;
        let KvReply::Scanned { entries, more } = KvReply::decode(&reply)? else {
            return Err("not an answer to scan".into());
        };
        after = entries.last().map(|(key, _)| key.clone());
        for (key, value) in entries {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            all.insert(text(&key), text(&value));
        }
        if !more {
            return Ok(all);
        }
    }
}

/// Starts the node that the arguments describe.
fn launch(args: &[String], brake: Brake) -> Result<Node> {
    let [place, root, addresses, options @ ..] = args else {
        return Err("usage: raftz-testnode PLACE ROOT ADDRESS,ADDRESS,… [key=value …]".into());
    };
    let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
    let mut config = config(place.parse()?, &addresses, Path::new(root))?;
    // So few that logs are shortened all the time, and who was away for a moment needs a snapshot.
    config.snapshot_log_entries = 500;
    config.snapshot_retain_bytes = 20_000;
    let mut machine = "kv";
    for option in options {
        match option.split_once('=').ok_or("an option is key=value")? {
            ("machine", kind) => machine = kind,
            (key, value) => config.set(key, value)?,
        }
    }
    config.on_event = Some(Arc::new(|_, event| say(&format!("event {event:?}"))));
    let machine: Box<dyn StateMachine> = match machine {
        "kv" => Box::new(KvStore::new()),
        "blockable" => Box::new(Blockable::new(brake, say)),
        "forgetful" => Box::new(Forgetful::default()),
        other => return Err(format!("no machine is called {other:?}").into()),
    };
    if !Node::is_formatted(&config)? {
        Node::bootstrap(&config)?;
    }
    Ok(Node::start(config, || Ok(machine))?)
}

fn status(node: &Node) {
    let status = node.status();
    let leader = status.leader.map_or(0, |id| id.get());
    let fault = status.fault.as_ref().map(ToString::to_string).unwrap_or_default();
    let disks = status.membership.members.values().filter(|m| m.disk_id.is_some()).count();
    let (term, commit, applied) = (status.term, status.commit, status.applied);
    for peer in &status.peers {
        let words = if !peer.connected {
            peer.unreachable.clone().unwrap_or_else(|| "not connected yet".into())
        } else if let (Some(mode), Some(matched), Some(next), Some(in_flight)) =
            (peer.mode, peer.matched, peer.next, peer.in_flight)
        {
            format!("linked; {mode}, matched {matched}, next {next}, {in_flight} in flight")
        } else {
            "linked".to_owned()
        };
        say(&format!("peer {} {words}", peer.id));
    }
    if let Some(from) = status.damaged_from {
        say(&format!("damaged {from}"));
    }
    say(&format!("status {term} {leader} {commit} {applied} {disks} {fault}"));
}

fn serve() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let brake = Brake::default();
    let node = Arc::new(launch(&args, brake.clone())?);
    let served = AtomicU64::new(0);
    let ids = Arc::new(Ids::default());
    say("ready");
    let mut clients: Option<Clients> = None;
    let mut mixed: Option<MixedClients> = None;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["load", tag, count] => {
                let life = served.fetch_add(1, Ordering::Relaxed);
                let tag = format!("{tag}.{life}");
                clients = Some(Clients::start(&node, &tag, count.parse()?));
            }
            ["mix" | "mix-stale", tag, clients, keys, pace_ms, timeout_ms, seed] => {
                let mix = Mix {
                    tag: tag.to_owned(),
                    clients: clients.parse()?,
                    keys: keys.parse()?,
                    pace: Duration::from_millis(pace_ms.parse()?),
                    timeout: Duration::from_millis(timeout_ms.parse()?),
                    seed: seed.parse()?,
                    stale: words[0] == "mix-stale",
                };
                mixed = Some(MixedClients::start(&node, &ids, &mix, say));
            }
            ["read", key, timeout_ms] => {
                let timeout = Duration::from_millis(timeout_ms.parse()?);
                mixed::read(&node, &ids, Bytes::from(key.to_owned()), timeout, say);
            }
            ["stop"] => {
                if let Some(clients) = clients.take() {
                    clients.stop();
                }
                if let Some(mixed) = mixed.take() {
                    mixed.stop();
                }
                say("stopped");
            }
            ["block", for_ms] => brake.block(for_ms.parse()?),
            ["pace", millis, writes] => {
                let (not_done, took_us) = pace(&node, millis.parse()?, writes.parse()?);
                let took_us: Vec<String> = took_us.iter().map(u128::to_string).collect();
                say(&format!("paced {not_done} {}", took_us.join(" ")));
            }
            ["transfer", to, timeout_ms] => {
                let timeout = Duration::from_millis(timeout_ms.parse()?);
                let begun = Instant::now();
                match node.transfer_leadership(NodeId::new(to.parse()?), timeout) {
                    Ok(leader) => {
                        say(&format!("transferred {leader} {}", begun.elapsed().as_micros()));
                    }
                    Err(why) => say(&format!("not transferred: {why}")),
                }
            }
            ["status"] => status(&node),
            ["dump"] => {
                for (key, value) in dump(&node)? {
                    say(&format!("holds {key} {value}"));
                }
                say("end");
            }
            _ => return Err(format!("unknown request {line:?}").into()),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed {error}"));
            ExitCode::FAILURE
        }
    }
}
