//! A test cluster: processes, what they said, and what they were told.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raftz_examples::Ports;
use raftz_tests::history::{Account, History};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::proxy::Proxies;

/// How long anything that should happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What all processes have said so far.
#[derive(Default)]
struct Heard {
    acknowledged: BTreeSet<String>,
    unknown: u64,
    history: History,
    /// What broke the rules of a history.
    broken: Vec<String>,
    /// Other lines of the present life of each node.
    lines: Vec<Vec<String>>,
}

#[derive(Default)]
struct Ears {
    heard: Mutex<Heard>,
    news: Condvar,
}

impl Ears {
    fn hear(&self, place: usize, life: u64, line: String) {
        let mut heard = self.heard.lock().unwrap();
        match heard.history.hear(life, &line) {
            Ok(true) => {}
            Ok(false) => {
                if let Some(key) = line.strip_prefix("ack ") {
                    heard.acknowledged.insert(key.to_owned());
                } else if line.starts_with("unknown ") {
                    heard.unknown += 1;
                } else {
                    heard.lines[place].push(line);
                }
            }
            Err(error) => heard.broken.push(error),
        }
        self.news.notify_all();
    }
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
    /// The other members, in words: why there is no link, or how far a leader thinks they are.
    pub(crate) peers: Vec<(u64, String)>,
    /// What it told of since it was last asked.
    pub(crate) events: Vec<String>,
}

/// One life of a node.
struct Process {
    child: Child,
    stdin: ChildStdin,
    ears: JoinHandle<()>,
    is_paused: bool,
}

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("it is ours, and runs");
    }
}

pub(crate) struct Cluster {
    root: TempDir,
    /// Where the nodes are dialled, by the membership.
    addresses: Vec<String>,
    /// Where they listen: the same, unless there are proxies in between.
    listening: Vec<String>,
    /// Keys of the configuration, `key=value`, of each node that is started from now on.
    pub(crate) options: Vec<String>,
    /// The program of each node that is started from now on.
    pub(crate) programs: Vec<PathBuf>,
    nodes: Vec<Option<Process>>,
    lives: u64,
    ears: Arc<Ears>,
    _ports: Ports,
}

impl Cluster {
    pub(crate) fn new(size: usize) -> Self {
        Self::with_options(size, &[])
    }

    /// A cluster whose nodes are configured with these options, each `key=value`.
    pub(crate) fn with_options(size: usize, options: &[&str]) -> Self {
        let ports = Ports::reserve(size).expect("loopback ports");
        let addresses = ports.addresses();
        Self::on(ports, addresses, options)
    }

    /// A cluster in which every connection leads through a proxy.
    pub(crate) fn behind_proxies(size: usize, options: &[&str], seed: u64) -> (Self, Proxies) {
        let ports = Ports::reserve(size).expect("loopback ports");
        let proxies = Proxies::new(&ports.addresses(), seed);
        (Self::on(ports, proxies.addresses(), options), proxies)
    }

    fn on(ports: Ports, addresses: Vec<String>, options: &[&str]) -> Self {
        let parent =
            option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let ears = Arc::new(Ears::default());
        ears.heard.lock().unwrap().lines = vec![Vec::new(); addresses.len()];
        Self {
            root: TempDir::new_in(parent).expect("a directory"),
            nodes: addresses.iter().map(|_| None).collect(),
            programs: vec![env!("CARGO_BIN_EXE_raftz-testnode").into(); addresses.len()],
            listening: ports.addresses(),
            addresses,
            options: options.iter().map(|&option| option.to_owned()).collect(),
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

    /// Whether a node runs and is not paused.
    pub(crate) fn is_awake(&self, place: usize) -> bool {
        self.nodes[place].as_ref().is_some_and(|process| !process.is_paused)
    }

    /// The places of the nodes that run and are not paused.
    pub(crate) fn awake(&self) -> Vec<usize> {
        (0..self.size()).filter(|place| self.is_awake(*place)).collect()
    }

    /// Where a node is dialled, by the membership.
    #[allow(dead_code, reason = "for those who look at processes from outside")]
    pub(crate) fn address(&self, place: usize) -> &str {
        &self.addresses[place]
    }

    /// The process id of a node that runs.
    #[allow(dead_code, reason = "for those who look at processes from outside")]
    pub(crate) fn process_id(&self, place: usize) -> u32 {
        self.nodes[place].as_ref().expect("the node runs").child.id()
    }

    /// Starts a node and waits until it serves.
    pub(crate) fn start(&mut self, place: usize) {
        self.start_with(place, &[]);
    }

    /// Starts a node with options of its own, which come after the cluster's.
    pub(crate) fn start_with(&mut self, place: usize, options: &[&str]) {
        self.launch(place, |command| {
            command.args(options);
        });
        self.ready(place).unwrap_or_else(|why| panic!("node {} did not start: {why}", place + 1));
    }

    /// Waits until a node serves, or says why it will not.
    pub(crate) fn ready(&self, place: usize) -> Result<(), String> {
        self.wait_line(place, "ready", |line| match line {
            "ready" => Some(Ok(())),
            _ => line.strip_prefix("failed ").map(|why| Err(why.to_owned())),
        })
    }

    /// The command that starts a node.
    pub(crate) fn command(&self, place: usize) -> Command {
        let mut command = Command::new(&self.programs[place]);
        command
            .args([&place.to_string(), &self.root.path().display().to_string()])
            .arg(self.addresses.join(","))
            .arg(format!("listen_address={}", self.listening[place]))
            .args(&self.options);
        command
    }

    /// Starts a process that `dress` has had a hand on.
    pub(crate) fn launch(&mut self, place: usize, dress: impl FnOnce(&mut Command)) {
        assert!(self.nodes[place].is_none(), "node {} runs already", place + 1);
        self.ears.heard.lock().unwrap().lines[place].clear();
        let mut command = self.command(place);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
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
                    ears.hear(place, life, line);
                }
                ears.heard.lock().unwrap().history.died(life);
                ears.news.notify_all();
            })
            .expect("a thread");
        self.nodes[place] = Some(Process { child, stdin, ears, is_paused: false });
    }

    /// SIGKILL, and wait until the process is gone and everything that it said was heard. Gives how
    /// it ended, if it ran.
    pub(crate) fn kill(&mut self, place: usize) -> Option<ExitStatus> {
        let Process { mut child, ears, .. } = self.nodes[place].take()?;
        child.kill().expect("it was ours to kill");
        let status = child.wait().expect("it was ours to wait for");
        // One that failed to listen has said so.
        let _ = ears.join();
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

    /// SIGSTOP, and wait until the process stands still.
    pub(crate) fn pause(&mut self, place: usize) {
        let process = self.nodes[place].as_mut().expect("the node runs");
        process.is_paused = true;
        process.signal(Signal::STOP);
        let path = format!("/proc/{}/stat", process.child.id());
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&path).expect("readable").contains(") T ") {
            assert!(Instant::now() < deadline, "node {} does not stand still", place + 1);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, place: usize) {
        let process = self.nodes[place].as_mut().expect("the node runs");
        process.signal(Signal::CONT);
        process.is_paused = false;
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

    /// The account of all calls with a history.
    ///
    /// Fails if what was heard breaks the rules of a history: a call that ended twice, say.
    pub(crate) fn account(&self) -> Account {
        let heard = self.ears.heard.lock().unwrap();
        assert!(heard.broken.is_empty(), "{:?}", heard.broken);
        heard.history.account()
    }

    /// What `read` makes of the history so far.
    pub(crate) fn history<T>(&self, read: impl FnOnce(&History) -> T) -> T {
        read(&self.ears.heard.lock().unwrap().history)
    }

    /// Waits until the account is as `is_so` wants. In vain, it says how every node sees things.
    pub(crate) fn wait_account(&mut self, what: &str, is_so: impl Fn(&Account) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = self.ears.heard.lock().unwrap();
        while !is_so(&heard.history.account()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let account = heard.history.account();
                drop(heard);
                let seen: Vec<_> =
                    self.awake().into_iter().map(|place| (place + 1, self.status(place))).collect();
                panic!("waited {PATIENCE:?} in vain for {what}: {account}; {seen:#?}");
            }
            heard = self.ears.news.wait_timeout(heard, left).unwrap().0;
        }
    }

    /// How things stand as a node sees them.
    pub(crate) fn status(&mut self, place: usize) -> Seen {
        self.tell(place, "status");
        let (mut peers, mut damaged, mut events) = (Vec::new(), false, Vec::new());
        self.wait_line(place, "a status", |line| {
            damaged |= line.starts_with("damaged ");
            events.extend(line.strip_prefix("event ").map(str::to_owned));
            if let Some((id, words)) = line.strip_prefix("peer ").and_then(|it| it.split_once(' '))
            {
                peers.push((id.parse().ok()?, words.to_owned()));
            }
            let mut words = line.strip_prefix("status ")?.splitn(6, ' ');
            let mut number = || words.next().and_then(|word| word.parse().ok());
            let (term, leader, commit) = (number()?, number()?, number()?);
            let (applied, disks) = (number()?, number()?);
            let fault = words.next().unwrap_or_default().to_owned();
            let (peers, events) = (std::mem::take(&mut peers), std::mem::take(&mut events));
            Some(Seen { term, leader, commit, applied, disks, damaged, fault, peers, events })
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
            for place in self.awake() {
                let leader = self.status(place).leader as usize;
                if leader > 0 && self.is_awake(leader - 1) {
                    return leader - 1;
                }
            }
            if Instant::now() >= deadline {
                let seen: Vec<Seen> =
                    self.awake().into_iter().map(|place| self.status(place)).collect();
                panic!("no leader in {PATIENCE:?}: {seen:#?}");
            }
        }
    }

    /// Whether a node's disk has a snapshot: beside its log, or where those of a store of its own are.
    pub(crate) fn has_snapshot(&self, place: usize) -> bool {
        let dir = self.directory(place);
        let names = [dir.join("snapshots"), dir].into_iter().flat_map(std::fs::read_dir).flatten();
        names.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("snap-"))
    }

    /// Waits until all running nodes have applied the same and nothing is on its way.
    pub(crate) fn settle(&mut self) {
        if let Err(seen) = self.try_settle() {
            panic!("nodes still differ: {seen:#?}");
        }
    }

    /// The same; or how each of them is, if one has a fault or they do not come to agree.
    pub(crate) fn try_settle(&mut self) -> Result<(), Vec<Seen>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen: Vec<Seen> =
                self.awake().into_iter().map(|place| self.status(place)).collect();
            let alike: BTreeSet<(u64, u64)> =
                seen.iter().map(|seen| (seen.commit, seen.applied)).collect();
            if alike.len() == 1 && alike.iter().all(|(commit, applied)| commit == applied) {
                return Ok(());
            }
            let has_fault = seen.iter().any(|seen| !seen.fault.is_empty());
            if has_fault || Instant::now() >= deadline {
                return Err(seen);
            }
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
