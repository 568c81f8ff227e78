//! Three members in processes of their own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::figures::Run;

/// A child that says nothing for so long says nothing any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the log is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    Disk,
}

/// What is applied to.
#[derive(Clone, Copy)]
pub(crate) enum Machine {
    Counting,
    KeyValue,
}

/// A process with one node.
pub(crate) struct Member {
    process: Child,
    input: ChildStdin,
    output: Receiver<String>,
    address: String,
}

impl Member {
    /// Starts it; it waits for the addresses of all. A setting is a key of the configuration, `=` and a value.
    pub(crate) fn start(
        id: usize,
        machine: Machine,
        storage: &str,
        address: &str,
        settings: &[&str],
    ) -> Self {
        let name = match machine {
            Machine::Counting => "count",
            Machine::KeyValue => "store",
        };
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--role=member", &id.to_string(), name, storage, address])
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let input = process.stdin.take().expect("piped");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let (said, output) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|it| said.send(it)));
        let address = output.recv_timeout(PATIENCE).expect("the child answers");
        Self { process, input, output, address }
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the child listens");
    }

    pub(crate) fn hear(&mut self) -> String {
        self.output.recv_timeout(PATIENCE).expect("the child answers")
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Founds a cluster of its own.
    pub(crate) fn alone(&mut self) {
        self.say(&self.address.clone());
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// A file about the process.
    pub(crate) fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.process.id())).unwrap_or_default()
    }

    /// What `read` finds in such a file of each of its threads.
    pub(crate) fn of_threads<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id()));
        let file =
            |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join(name)).ok();
        let files = threads.into_iter().flatten().flatten().filter_map(file);
        files.filter_map(|text| read(&text)).collect()
    }

    /// A size that the system keeps of the process, in MiB.
    pub(crate) fn mib(&self, key: &str) -> f64 {
        let status = self.proc_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        kib.map_or(f64::NAN, |kib| kib / 1024.0)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The three.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    machine: Machine,
    storage: Vec<String>,
    settings: &'static [&'static str],
}

impl Cluster {
    pub(crate) fn start(place: Place, machine: Machine, dir: &Path) -> Self {
        Self::start_with(place, machine, dir, &[])
    }

    /// Starts three that are configured like this.
    pub(crate) fn start_with(
        place: Place,
        machine: Machine,
        dir: &Path,
        settings: &'static [&'static str],
    ) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let directory = |id: usize| -> PathBuf { dir.join(id.to_string()) };
        let storage: Vec<String> = (1..=3)
            .map(|id| match place {
                Place::Memory => "memory".into(),
                Place::Disk => directory(id).display().to_string(),
            })
            .collect();
        let start =
            |id: usize| Member::start(id, machine, &storage[id - 1], "127.0.0.1:0", settings);
        let mut members: Vec<Member> = (1..=3).map(start).collect();
        let addresses = addresses(&members);
        members.iter_mut().for_each(|member| member.say(&addresses));
        let mut cluster = Self { members, machine, storage, settings };
        cluster.leader();
        cluster
    }

    /// Which of them leads; all agree.
    pub(crate) fn leader(&mut self) -> usize {
        loop {
            let mut said = self.members.iter_mut().map(|member| member.ask("leader"));
            let first = said.next().expect("three members");
            if said.all(|other| other == first) {
                return first.parse::<usize>().expect("an id") - 1;
            }
        }
    }

    pub(crate) fn load(&mut self, outstanding: usize, bytes: usize) -> Run {
        let leader = self.leader();
        Run::parse(&self.members[leader].ask(&format!("load {outstanding} {bytes}")))
    }

    /// Starts a killed member again, where it was.
    pub(crate) fn restart(&mut self, at: usize) {
        let addresses = addresses(&self.members);
        let address = self.members[at].address.clone();
        let storage = &self.storage[at];
        let mut member = Member::start(at + 1, self.machine, storage, &address, self.settings);
        member.say(&addresses);
        self.members[at] = member;
    }

    /// The most memory that any of them has taken.
    pub(crate) fn peak_rss_mib(&self) -> f64 {
        self.members.iter().map(|member| member.mib("VmHWM:")).fold(0.0, f64::max)
    }
}

fn addresses(members: &[Member]) -> String {
    members.iter().map(|member| member.address.as_str()).collect::<Vec<_>>().join(" ")
}
