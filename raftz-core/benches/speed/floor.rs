//! The floor: only the unavoidable work of a replicated batch.
//!
//! A leader sends the batch over loopback TCP to two followers; all three append it to files that are allocated
//! and zeroed, and sync them; the batch is done at the leader's own sync and the first acknowledgement. No terms,
//! no log, no checks, no callers; one batch at a time. The batch is all outstanding writes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::cluster::Place;
use super::figures::Run;

/// What a write takes beyond its payload.
const HEADER_BYTES: usize = 32;
const FILE_BYTES: u64 = 128 << 20;
const TIME: Duration = Duration::from_millis(600);

/// The child that runs it.
pub(crate) struct Floor {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Floor {
    pub(crate) fn start(place: Place, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let sync = if place == Place::Disk { "sync" } else { "no-sync" };
        let program = std::env::current_exe().expect("this program");
        let mut process = Command::new(program)
            .arg("--role=floor")
            .arg(dir)
            .arg(sync)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { process, input, output }
    }

    pub(crate) fn load(&mut self, outstanding: usize, bytes: usize) -> Run {
        writeln!(self.input, "{outstanding} {bytes}").expect("the child listens");
        Run::parse(&self.output.next().expect("the child answers").expect("text"))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A file of zeros, in which a writer goes round.
struct Tape {
    file: File,
    at: u64,
    is_synced: bool,
}

impl Tape {
    fn new(path: &Path, is_synced: bool) -> Self {
        let file = File::create(path).expect("a file");
        let zeros = vec![0u8; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at).expect("writes");
        }
        file.sync_all().expect("syncs");
        Self { file, at: 0, is_synced }
    }

    fn append(&mut self, batch: &[u8]) {
        if self.at + batch.len() as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(batch, self.at).expect("writes");
        if self.is_synced {
            self.file.sync_data().expect("syncs");
        }
        self.at += batch.len() as u64;
    }
}

fn follow(mut stream: TcpStream, mut tape: Tape) {
    let mut batch = Vec::new();
    let mut length = [0u8; 8];
    // Each batch is led by its length; a wrong one cannot come from our own leader.
    while stream.read_exact(&mut length).is_ok() {
        batch.resize(usize::try_from(u64::from_le_bytes(length)).expect("fits") - 8, 0);
        stream.read_exact(&mut batch).expect("a whole batch");
        tape.append(&batch);
        if stream.write_all(&[1]).is_err() {
            return;
        }
    }
}

/// The leader's end of a connection: how many batches the follower has acknowledged.
struct Follower {
    stream: mio::net::TcpStream,
    acks: u64,
}

impl Follower {
    /// Takes what has come, without waiting.
    fn hear(&mut self) {
        let mut bytes = [0u8; 64];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the follower is gone"),
                Ok(count) => self.acks += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

struct Leader {
    followers: [Follower; 2],
    poll: Poll,
    events: Events,
    tape: Tape,
    sent: u64,
}

impl Leader {
    fn commit(&mut self, batch: &[u8]) {
        self.sent += 1;
        for at in 0..self.followers.len() {
            self.send(at, batch);
        }
        self.tape.append(&batch[8..]);
        loop {
            self.followers.iter_mut().for_each(Follower::hear);
            if self.followers.iter().any(|follower| follower.acks >= self.sent) {
                return;
            }
            self.wait();
        }
    }

    fn wait(&mut self) {
        match self.poll.poll(&mut self.events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => panic!("{error}"),
            Ok(()) | Err(_) => {}
        }
    }

    fn send(&mut self, at: usize, batch: &[u8]) {
        let mut left = batch;
        while !left.is_empty() {
            match self.followers[at].stream.write(left) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.followers.iter_mut().for_each(Follower::hear);
                    self.wait();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The child: three threads, and loads as the parent asks for them.
pub(crate) fn run(args: &[String]) {
    let [dir, sync] = args else { panic!("a folder, and whether to sync") };
    let (dir, is_synced) = (PathBuf::from(dir), sync == "sync");
    let tape = |name: &str| Tape::new(&dir.join(name), is_synced);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    let poll = Poll::new().expect("an event queue");
    let followers = ["second", "third"].map(|name| {
        let theirs = TcpStream::connect(address).expect("connects");
        theirs.set_nodelay(true).expect("no delay");
        let tape = tape(name);
        std::thread::spawn(move || follow(theirs, tape));
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream.set_nonblocking(true).expect("non-blocking");
        let mut stream = mio::net::TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(0), interest).expect("registered");
        Follower { stream, acks: 0 }
    });
    let tape = tape("first");
    let mut leader = Leader { followers, poll, events: Events::with_capacity(16), tape, sent: 0 };
    for line in io::stdin().lines() {
        let line = line.expect("text");
        let (outstanding, bytes) = line.split_once(' ').expect("two numbers");
        let outstanding: usize = outstanding.parse().expect("a number");
        let bytes: usize = bytes.parse().expect("a number");
        let mut batch = vec![7u8; 8 + outstanding * (bytes + HEADER_BYTES)];
        let length = batch.len() as u64;
        batch[..8].copy_from_slice(&length.to_le_bytes());
        let warm = Instant::now();
        while warm.elapsed() < TIME / 4 {
            leader.commit(&batch);
        }
        let mut nanos = Vec::with_capacity(1 << 20);
        let begun = Instant::now();
        while begun.elapsed() < TIME {
            let one = Instant::now();
            leader.commit(&batch);
            nanos.push(u64::try_from(one.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        let seconds = begun.elapsed().as_secs_f64();
        // Each batch stands for all its writes.
        println!("{}", Run::line(nanos, seconds / outstanding as f64, 0));
    }
}

/// Syncs a second of 4 KiB writes into a file that is already full of zeros.
pub(crate) fn fdatasync_per_s(dir: &Path) -> f64 {
    let file = File::create(dir.join("probe")).expect("a file");
    let block = vec![0u8; 4096];
    let blocks = 4096;
    for at in 0..blocks {
        file.write_all_at(&block, at * 4096).expect("writes");
    }
    file.sync_all().expect("syncs");
    let begun = Instant::now();
    let mut count = 0u64;
    while begun.elapsed() < Duration::from_secs(1) {
        file.write_all_at(&block, (count % blocks) * 4096).expect("writes");
        file.sync_data().expect("syncs");
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}
