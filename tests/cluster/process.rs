//! A test cluster: processes, what they said, and what they were told.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
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
    pub(crate) term: u64,
    /// Who leads; 0 for nobody.
    pub(crate) leader: u64,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    /// Members whose data directory the membership names.
    pub(crate) disks: u64,
    /// Its disk has lost entries that had been durable, and they have not been replaced yet.
    pub(crate) damaged: bool,
    /// Why the node stopped; empty if it did not.
    pub(crate) fault: String,
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    /// Ends when everything that the process said has been heard.
    ears: JoinHandle<()>,
}

pub(crate) struct Cluster {
    root: TempDir,
    addresses: Vec<String>,
    /// `key=value` for the configuration of each node that is started from now on.
    pub(crate) options: Vec<String>,
    nodes: Vec<Option<Process>>,
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
            options: Vec::new(),
            nodes: (0..size).map(|_| None).collect(),
            lives: 0,
            ears,
            _ports: ports,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The directory that holds those of the nodes.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where each node says that it is reached; for changing before the first start.
    pub(crate) fn addresses_mut(&mut self) -> &mut [String] {
        &mut self.addresses
    }

    pub(crate) fn directory(&self, place: usize) -> PathBuf {
        self.root.path().join(format!("node-{}", place + 1))
    }

    pub(crate) fn is_up(&self, place: usize) -> bool {
        self.nodes[place].is_some()
    }

    /// Starts a node and waits until it serves.
    pub(crate) fn start(&mut self, place: usize) {
        self.launch(place, |_| ());
        self.ready(place).unwrap_or_else(|why| panic!("node {} did not start: {why}", place + 1));
    }

    /// Waits until a node serves, or says why it will not.
    pub(crate) fn ready(&self, place: usize) -> Result<(), String> {
        self.wait_line(place, "ready", |line| match line {
            "ready" => Some(Ok(())),
            _ => line.strip_prefix("failed ").map(|why| Err(why.to_owned())),
        })
    }

    /// Starts a process that `dress` has had a hand on.
    pub(crate) fn launch(&mut self, place: usize, dress: impl FnOnce(&mut Command)) {
        assert!(self.nodes[place].is_none(), "node {} runs already", place + 1);
        self.ears.heard.lock().unwrap().lines[place].clear();
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftz-testnode"));
        command
            .args([&place.to_string(), &self.root.path().display().to_string()])
            .arg(self.addresses.join(","))
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        dress(&mut command);
        let mut child = command.spawn().expect("a process");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let ears = Arc::clone(&self.ears);
        let life = self.lives;
        self.lives += 1;
        let ears = std::thread::Builder::new()
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
        self.nodes[place] = Some(Process { child, stdin, ears });
    }

    /// SIGKILL, and wait until the process is gone and everything it said has been heard. Gives how
    /// it ended, if it ran.
    pub(crate) fn kill(&mut self, place: usize) -> Option<ExitStatus> {
        let mut process = self.nodes[place].take()?;
        process.child.kill().expect("it was ours to kill");
        let status = process.child.wait().expect("it was ours to wait for");
        // Ears die only of a lock that is poisoned, when the test has failed already.
        let _ = process.ears.join();
        Some(status)
    }

    /// Ends the load of these nodes and waits until their clients have stopped.
    pub(crate) fn quiet(&mut self, which: &[bool]) {
        let places = || (0..which.len()).filter(|place| which[*place]);
        for place in places() {
            self.tell(place, "stop");
        }
        for place in places() {
            self.wait_line(place, "its clients to stop", |line| (line == "stopped").then_some(()));
        }
    }

    /// Waits until `is_so`.
    pub(crate) fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a node serves, or its process has ended.
    pub(crate) fn wait_ready_or_ended(&mut self, place: usize) {
        self.wait_until("ready", |cluster| {
            let is_ready =
                cluster.ears.heard.lock().unwrap().lines[place].iter().any(|line| line == "ready");
            is_ready || cluster.has_ended(place)
        });
    }

    /// Whether a process that was started has ended by itself.
    pub(crate) fn has_ended(&mut self, place: usize) -> bool {
        let process = self.nodes[place].as_mut().expect("the node was started");
        process.child.try_wait().expect("it was ours to wait for").is_some()
    }

    pub(crate) fn tell(&mut self, place: usize, line: &str) {
        let process = self.nodes[place].as_mut().expect("the node runs");
        writeln!(process.stdin, "{line}").expect("the node listens");
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
                if let Some(found) = pick(&line) {
                    return found;
                }
                assert!(!line.starts_with("failed"), "node {}: {line}", place + 1);
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
        let mut damaged = false;
        self.wait_line(place, "a status", |line| {
            damaged |= line.starts_with("damaged ");
            let mut words = line.strip_prefix("status ")?.splitn(6, ' ');
            let mut number = || words.next().and_then(|word| word.parse().ok());
            let (term, leader, commit) = (number()?, number()?, number()?);
            let (applied, disks) = (number()?, number()?);
            let fault = words.next().unwrap_or_default().to_owned();
            Some(Seen { term, leader, commit, applied, disks, damaged, fault })
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
