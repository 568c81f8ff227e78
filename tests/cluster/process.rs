//! A test cluster: processes, what they said, and what they were told.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use raftz_examples::Ports;
use tempfile::TempDir;

/// How long anything that should happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What all processes have said so far.
#[derive(Default)]
struct Heard {
    acknowledged: BTreeSet<String>,
    unknown: u64,
    /// Other lines of the present life of each node.
    lines: Vec<Vec<String>>,
}

#[derive(Default)]
struct Ears {
    heard: Mutex<Heard>,
    news: Condvar,
}

/// How things stand as one node sees them.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Who leads; 0 for nobody.
    pub(crate) leader: u64,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    /// Members whose data directory the membership names.
    pub(crate) disks: u64,
    /// Why the node stopped; empty if it did not.
    pub(crate) fault: String,
}

pub(crate) struct Cluster {
    root: TempDir,
    addresses: Vec<String>,
    nodes: Vec<Option<(Child, ChildStdin)>>,
    lives: u64,
    ears: Arc<Ears>,
    _ports: Ports,
}

impl Cluster {
    pub(crate) fn new(size: usize) -> Self {
        let ports = Ports::reserve(size).expect("loopback ports");
        let parent =
            option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let ears = Arc::new(Ears::default());
        ears.heard.lock().unwrap().lines = vec![Vec::new(); size];
        Self {
            root: TempDir::new_in(parent).expect("a directory"),
            addresses: ports.addresses(),
            nodes: (0..size).map(|_| None).collect(),
            lives: 0,
            ears,
            _ports: ports,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn directory(&self, place: usize) -> PathBuf {
        self.root.path().join(format!("node-{}", place + 1))
    }

    pub(crate) fn is_up(&self, place: usize) -> bool {
        self.nodes[place].is_some()
    }

    /// Starts a node and waits until it serves.
    pub(crate) fn start(&mut self, place: usize) {
        self.launch(place);
        self.wait_line(place, "ready", |line| (line == "ready").then_some(()));
    }

    fn launch(&mut self, place: usize) {
        assert!(self.nodes[place].is_none(), "node {} runs already", place + 1);
        self.ears.heard.lock().unwrap().lines[place].clear();
        let mut child = Command::new(env!("CARGO_BIN_EXE_raftz-testnode"))
            .args([&place.to_string(), &self.root.path().display().to_string()])
            .arg(self.addresses.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let ears = Arc::clone(&self.ears);
        let life = self.lives;
        self.lives += 1;
        std::thread::Builder::new()
            .name(format!("ears-{life}"))
            .spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    let mut heard = ears.heard.lock().unwrap();
                    if let Some(key) = line.strip_prefix("ack ") {
                        heard.acknowledged.insert(key.to_owned());
                    } else if line.starts_with("unknown ") {
                        heard.unknown += 1;
                    } else {
                        heard.lines[place].push(line);
                    }
                    ears.news.notify_all();
                }
            })
            .expect("a thread");
        self.nodes[place] = Some((child, stdin));
    }

    /// SIGKILL, and wait until the process is gone.
    pub(crate) fn kill(&mut self, place: usize) {
        if let Some((mut child, _)) = self.nodes[place].take() {
            child.kill().expect("it was ours to kill");
            child.wait().expect("it was ours to wait for");
        }
    }

    pub(crate) fn tell(&mut self, place: usize, line: &str) {
        let (_, stdin) = self.nodes[place].as_mut().expect("the node runs");
        writeln!(stdin, "{line}").expect("the node listens");
    }

    /// Takes the first line of a node that `pick` accepts, and drops those before it.
    pub(crate) fn wait_line<T>(
        &self,
        place: usize,
        what: &str,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = self.ears.heard.lock().unwrap();
        loop {
            while !heard.lines[place].is_empty() {
                let line = heard.lines[place].remove(0);
                assert!(!line.starts_with("failed"), "node {}: {line}", place + 1);
                if let Some(found) = pick(&line) {
                    return found;
                }
            }
            heard = self.wait_news(heard, deadline, what);
        }
    }

    fn wait_news<'a>(
        &self,
        heard: std::sync::MutexGuard<'a, Heard>,
        deadline: Instant,
        what: &str,
    ) -> std::sync::MutexGuard<'a, Heard> {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "waited {PATIENCE:?} in vain for {what}");
        self.ears.news.wait_timeout(heard, left).unwrap().0
    }

    pub(crate) fn unknown(&self) -> u64 {
        self.ears.heard.lock().unwrap().unknown
    }

    pub(crate) fn acknowledged_keys(&self) -> BTreeSet<String> {
        self.ears.heard.lock().unwrap().acknowledged.clone()
    }

    /// Waits until `more` writes have been acknowledged since this call.
    pub(crate) fn wait_acknowledged(&self, more: usize) {
        let begun = Instant::now();
        let mut heard = self.ears.heard.lock().unwrap();
        let goal = heard.acknowledged.len() + more;
        while heard.acknowledged.len() < goal {
            heard = self.wait_news(heard, begun + PATIENCE, "acknowledged writes");
        }
    }

    /// How things stand as a node sees them.
    pub(crate) fn status(&mut self, place: usize) -> Seen {
        self.tell(place, "status");
        self.wait_line(place, "a status", |line| {
            let mut words = line.strip_prefix("status ")?.splitn(5, ' ');
            let mut number = || words.next().and_then(|word| word.parse().ok());
            let (leader, commit, applied, disks) = (number()?, number()?, number()?, number()?);
            let fault = words.next().unwrap_or_default().to_owned();
            Some(Seen { leader, commit, applied, disks, fault })
        })
    }

    /// Waits until a node sees what `is_so` wants.
    pub(crate) fn wait_status(
        &mut self,
        place: usize,
        what: &str,
        is_so: impl Fn(&Seen) -> bool,
    ) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.status(place);
            if is_so(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}: {seen:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The place of the node that the running ones say leads.
    pub(crate) fn leader(&mut self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for place in 0..self.size() {
                if self.is_up(place) {
                    let leader = self.status(place).leader as usize;
                    if leader > 0 && self.is_up(leader - 1) {
                        return leader - 1;
                    }
                }
            }
            assert!(Instant::now() < deadline, "no leader in {PATIENCE:?}");
        }
    }

    /// Waits until all running nodes have applied the same and nothing is on its way.
    pub(crate) fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let up: Vec<usize> = (0..self.size()).filter(|place| self.is_up(*place)).collect();
            let seen: BTreeSet<(u64, u64)> = up
                .into_iter()
                .map(|place| self.status(place))
                .map(|seen| (seen.commit, seen.applied))
                .collect();
            if seen.len() == 1 && seen.iter().all(|(commit, applied)| commit == applied) {
                return;
            }
            assert!(Instant::now() < deadline, "nodes still differ: {seen:?}");
        }
    }

    /// Everything that a node's store holds.
    pub(crate) fn dump(&mut self, place: usize) -> Vec<(String, String)> {
        self.tell(place, "dump");
        let mut all = Vec::new();
        self.wait_line(place, "the end of the dump", |line| {
            if let Some(entry) = line.strip_prefix("holds ") {
                let (key, value) = entry.split_once(' ').expect("a key and a value");
                all.push((key.to_owned(), value.to_owned()));
            }
            (line == "end").then_some(())
        });
        all
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for place in 0..self.size() {
            self.kill(place);
        }
    }
}
