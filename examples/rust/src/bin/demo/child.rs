//! A child: one raftz node in a process of its own, and clients that write through it.

use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::machine::{KvQuery, KvReply};
use raftz_core::node::{Node, ProposeOptions};
use raftz_core::storage::vfs::{RealVfs, Vfs};
use raftz_core::types::{Event, Index, Outcome, Refusal, Reply, Role, Term};
use raftz_examples::{PATIENCE, ask, config, set, start};

use crate::args::ChildOptions;
use crate::wire::{Order, Report};
use crate::work::Work;

/// Client threads on each node.
const CLIENTS: usize = 3;
/// Writes that each client keeps on the way at once.
const WINDOW: usize = 64;
/// Pause before a refused write is tried again.
const PAUSE: Duration = Duration::from_millis(5);
/// Smaller than the default, so that the log of one demo is several files.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Keys asked for at once when the store is read back.
const PAGE: u32 = 1000;

/// Runs the child until it is told to stop, or its parent is gone.
pub(crate) fn run(options: ChildOptions) -> ExitCode {
    let input = options.root.join("input");
    let work = match Work::read(&input, options.writes_min) {
        Ok(work) => Arc::new(work),
        Err(why) => return fatal(why),
    };
    let node = match open(&options) {
        Ok(node) => Arc::new(node),
        Err(error) => return fatal(error.to_string()),
    };
    tell(&Report::Ready);
    let queue = Arc::new(Queue::default());
    for _ in 0..CLIENTS {
        let (node, work, queue) = (Arc::clone(&node), Arc::clone(&work), Arc::clone(&queue));
        thread::spawn(move || client(&node, &work, &queue));
    }
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match Order::parse(&line) {
            Some(Order::Load(ranges)) => queue.add(ranges),
            Some(Order::Await(index)) => {
                let node = Arc::clone(&node);
                // On a thread of its own, so that the parent's death is noticed meanwhile.
                thread::spawn(move || match node.wait_for_applied(Index(index), PATIENCE) {
                    Ok(()) => tell(&Report::Reached(index)),
                    Err(error) => tell(&Report::Fatal(error.to_string())),
                });
            }
            Some(Order::Dump(index)) => {
                let (node, sabotage) = (Arc::clone(&node), options.sabotage);
                thread::spawn(move || match dump(&node, Index(index), sabotage) {
                    Ok(keys) => tell(&Report::End { keys }),
                    Err(error) => tell(&Report::Fatal(error.to_string())),
                });
            }
            Some(Order::Stop) => {
                return match node.shutdown(PATIENCE) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => fatal(error.to_string()),
                };
            }
            None => return fatal(format!("no such order: {line}")),
        }
    }
    orphaned(&node, &options)
}

/// Standard input has ended without an order to stop: the parent is dead, and nobody else will
/// remove what is on disk, be it of a child that was dead already. The last one removes the
/// directory that they share.
fn orphaned(node: &Node, options: &ChildOptions) -> ExitCode {
    let _ = node.shutdown(Duration::from_secs(2));
    for entry in std::fs::read_dir(&options.root).into_iter().flatten().flatten() {
        let directory = entry.path();
        // Who lives holds the lock of its directory.
        let lock = RealVfs.lock(&directory.join("LOCK"));
        if let Ok(Some(_lock)) = lock {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
    let _ = std::fs::remove_file(options.root.join("input"));
    let _ = std::fs::remove_dir(&options.root);
    ExitCode::FAILURE
}

fn open(options: &ChildOptions) -> raftz_examples::Result<Node> {
    let mut config = config(options.place, &options.addresses, &options.root)?;
    config.segment_bytes = SEGMENT_BYTES;
    config.on_event = Some(Arc::new(|_, event: &Event| {
        if let Event::Role { role, term: Term(term) } = *event {
            let leads = role == Role::Leader;
            tell(&if leads { Report::Leads { term } } else { Report::Follows { term } });
        } else if let Event::Faulted(reason) = event {
            tell(&Report::Fatal(reason.to_string()));
        }
    }));
    start(config)
}

/// One line, whole, and out of this process before anything else happens. Nobody to tell means
/// that the parent is gone, which standard input's end says too.
fn tell(report: &Report) {
    let line = format!("{report}\n");
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

fn fatal(why: String) -> ExitCode {
    tell(&Report::Fatal(why));
    ExitCode::FAILURE
}

/// The writes that no client has taken yet.
#[derive(Default)]
struct Queue {
    ranges: Mutex<VecDeque<Range<u64>>>,
    more: Condvar,
}

impl Queue {
    fn add(&self, ranges: Vec<Range<u64>>) {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).extend(ranges);
        self.more.notify_all();
    }

    fn next(&self) -> Option<u64> {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(item) = ranges.front_mut()?.next() {
                return Some(item);
            }
            ranges.pop_front();
        }
    }

    fn wait(&self) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        while ranges.iter().all(Range::is_empty) {
            ranges = self.more.wait(ranges).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One client: keeps a window of writes on the way, and reports what was acknowledged before it
/// proposes anything further.
///
/// What was refused is tried again, for it is certainly not in the log. What is unknown is tried
/// again too, though it may be in the log: only because every key is ever given one value, so that
/// a second write of it changes nothing.
fn client(node: &Node, work: &Work, queue: &Queue) {
    let (done, completed) = mpsc::channel();
    let mut on_the_way = 0;
    let mut again = Vec::new();
    loop {
        let mut refused = 0;
        while on_the_way < WINDOW {
            let Some(item) = again.pop().or_else(|| queue.next()) else { break };
            let command = set(work.key(item), work.value(item));
            let done = done.clone();
            let proposed = node.propose_with(command, ProposeOptions::default(), move |outcome| {
                // The receiver outlives every call; see the end of this loop.
                let _ = done.send((item, outcome));
            });
            if let Err(why) = proposed {
                again.push(item);
                refused += 1;
                if hopeless(&why) {
                    return tell(&Report::Fatal(why.to_string()));
                }
                break;
            }
            on_the_way += 1;
        }
        if on_the_way == 0 && again.is_empty() {
            queue.wait();
            continue;
        }
        let mut acked: Vec<(u64, u64, u64)> = Vec::new();
        let mut unknown = 0;
        let first = (on_the_way > 0).then(|| completed.recv().ok()).flatten();
        for (item, outcome) in first.into_iter().chain(completed.try_iter()) {
            on_the_way -= 1;
            match outcome {
                Outcome::Done(done) => match done.reply {
                    Reply::Ok(_) => acked.push((done.term.0, done.index.0, item)),
                    Reply::Rejected(why) => {
                        return tell(&Report::Fatal(String::from_utf8_lossy(&why).into_owned()));
                    }
                },
                Outcome::Refused(why) => {
                    refused += 1;
                    again.push(item);
                    if hopeless(&why) {
                        return tell(&Report::Fatal(why.to_string()));
                    }
                }
                Outcome::Unknown(_) => {
                    unknown += 1;
                    again.push(item);
                }
            }
        }
        for same_term in acked.chunk_by(|one, next| one.0 == next.0) {
            let index = same_term.iter().map(|(_, index, _)| *index).max().unwrap_or(0);
            let items = same_term.iter().map(|(_, _, item)| *item).collect();
            tell(&Report::Acked { term: same_term[0].0, index, items });
        }
        if refused > 0 || unknown > 0 {
            tell(&Report::Again { refused, unknown });
            thread::sleep(PAUSE);
        }
    }
}

/// Whether trying again could never help.
const fn hopeless(why: &Refusal) -> bool {
    matches!(
        why,
        Refusal::TooLarge { .. }
            | Refusal::StorageFull
            | Refusal::Faulted { .. }
            | Refusal::ShuttingDown
    )
}

/// Sends the whole of this node's own store, once it holds everything up to `index`.
fn dump(node: &Node, index: Index, sabotage: bool) -> raftz_examples::Result<u64> {
    node.wait_for_applied(index, PATIENCE)?;
    let (mut keys, mut after) = (0, None);
    loop {
        let query = KvQuery::Scan { prefix: Bytes::new(), after, limit: PAGE };
        let KvReply::Scanned { entries, more } = ask(node, &query)? else {
            return Err("the store answered a scan with something else".into());
        };
        for (key, value) in &entries {
            keys += 1;
            if sabotage && keys == 7 {
                continue;
            }
            tell(&Report::Pair { key: key.to_vec(), value: value.to_vec() });
        }
        if !more {
            return Ok(keys);
        }
        after = entries.last().map(|(key, _)| key.clone());
    }
}
