//! Clusters whose disks and resolvers fail on request. Each process is started under a preloaded
//! library, `tests/shim`, that is built here on first use and takes orders over a socket.
//!
//! What a cut process had printed before it died counts: the pipe is no disk.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::process::{Cluster, PATIENCE};

/// The longest election timeout of a steady cluster.
pub(crate) const ELECTION: Duration = Duration::from_millis(500);

/// What a cut did to what was not synced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    pub(crate) kept_bytes: u64,
    pub(crate) dropped_bytes: u64,
    pub(crate) garbled_bytes: u64,
    pub(crate) names_kept: u64,
    pub(crate) names_undone: u64,
}

impl std::ops::AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.kept_bytes += other.kept_bytes;
        self.dropped_bytes += other.dropped_bytes;
        self.garbled_bytes += other.garbled_bytes;
        self.names_kept += other.names_kept;
        self.names_undone += other.names_undone;
    }
}

/// How often a process has met each fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met {
    pub(crate) operations: u64,
    pub(crate) lied: u64,
    pub(crate) failed: u64,
    pub(crate) full: u64,
    pub(crate) stalled: u64,
    pub(crate) lookups: u64,
    /// Sectors that its earlier life left unsynced.
    pub(crate) inherited: u64,
}

/// The library; built once a run, from the sources as they are now.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let built = target.join("libraftz-shim.so");
        // Renamed into place: another run may have the old one mapped.
        let fresh = target.join(format!("libraftz-shim-{}.so", std::process::id()));
        let sources =
            ["journal.c", "names.c", "faults.c", "hooks.c"].map(|name| sources.join(name));
        let status = Command::new("cc")
            .args(["-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden", "-O1", "-g"])
            .args(["-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .arg(&fresh)
            .args(sources)
            .arg("-ldl")
            .status()
            .expect("a C compiler called cc");
        assert!(status.success(), "the shim does not compile");
        std::fs::rename(fresh, &built).expect("the library in its place");
        built
    })
}

/// The line to one process.
struct Control(BufReader<UnixStream>);

impl Control {
    fn say(&mut self, order: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(format!("{order}\n").as_bytes())
    }

    fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer from the shim: {error}"),
        }
    }
}

fn numbers<const N: usize>(line: &str, verb: &str) -> [u64; N] {
    let words = line.strip_prefix(verb).unwrap_or_else(|| panic!("{line:?} is not {verb:?}"));
    let numbers: Vec<u64> = words.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{line:?} has not {N} numbers"))
}

/// A cluster, each of its processes with a disk and a resolver that take orders.
pub(crate) struct Faulty {
    pub(crate) cluster: Cluster,
    controls: Vec<Option<Control>>,
}

impl Faulty {
    pub(crate) fn new(size: usize) -> Self {
        let mut cluster = Cluster::new(size);
        // The shim remembers at most 4 MiB of a file. Small segments are also prepared, named and
        // begun many times a second.
        cluster.options.extend(["segment_bytes=128k".into(), "entry_bytes_max=32k".into()]);
        Self { cluster, controls: (0..size).map(|_| None).collect() }
    }

    /// The same with timeouts that a busy machine keeps, for tests that allow no election.
    pub(crate) fn steady(size: usize) -> Self {
        let mut faulty = Self::new(size);
        let longest = format!("election_timeout_max_ms={}", ELECTION.as_millis());
        faulty.cluster.options.extend(["election_timeout_min_ms=400".into(), longest]);
        faulty
    }

    /// Starts a node under these orders, which hold from its first instruction, and waits until it
    /// serves.
    pub(crate) fn start(&mut self, place: usize, orders: &[&str]) {
        self.launch(place, orders);
        self.cluster
            .ready(place)
            .unwrap_or_else(|why| panic!("node {} did not start: {why}", place + 1));
    }

    /// Starts a node under these orders; gives what it has met before its first instruction.
    pub(crate) fn launch(&mut self, place: usize, orders: &[&str]) -> Met {
        static LIVES: AtomicU64 = AtomicU64::new(0);
        let life = LIVES.fetch_add(1, Ordering::Relaxed);
        let name = format!("raftz-shim-{}-{life}", std::process::id());
        let listener = SocketAddr::from_abstract_name(&name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .expect("a socket");
        listener.set_nonblocking(true).unwrap();
        // The library knows files by the paths that the kernel gives them.
        let root = self.cluster.root().canonicalize().unwrap();
        let data = root.join(format!("node-{}", place + 1));
        let memory = root.join(format!("unsynced-{}", place + 1));
        self.cluster.launch(place, |command| {
            command
                .env("LD_PRELOAD", library())
                .env("RAFTZ_SHIM_ROOT", data)
                .env("RAFTZ_SHIM_MEMORY", memory)
                .env("RAFTZ_SHIM_CONTROL", name);
        });
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("no word from the shim: {error}"),
            }
            assert!(Instant::now() < deadline, "the shim was not loaded");
            std::thread::sleep(Duration::from_millis(1));
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.controls[place] = Some(Control(BufReader::new(stream)));
        for order in orders {
            self.order(place, order);
        }
        let met = self.met(place);
        self.order(place, "go");
        met
    }

    fn control(&mut self, place: usize) -> &mut Control {
        self.controls[place].as_mut().expect("the node was started under the shim")
    }

    /// Gives a node's disk or resolver an order that it carries out before it answers.
    pub(crate) fn order(&mut self, place: usize, order: &str) {
        let answer = self.ask(place, order);
        assert_eq!(answer, "ok", "{order}");
    }

    fn ask(&mut self, place: usize, order: &str) -> String {
        let control = self.control(place);
        control.say(order).expect("the shim listens");
        control.hear().expect("the shim answers")
    }

    pub(crate) fn met(&mut self, place: usize) -> Met {
        let answer = self.ask(place, "met");
        let [operations, lied, failed, full, stalled, lookups, inherited] = numbers(&answer, "met");
        Met { operations, lied, failed, full, stalled, lookups, inherited }
    }

    /// Waits until a node has met a fault as `enough` wants.
    pub(crate) fn wait_met(&mut self, place: usize, what: &str, enough: impl Fn(&Met) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let met = self.met(place);
            if enough(&met) {
                return;
            }
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}: {met:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Cuts the power of these nodes, as nearly at once as may be; with seed 0, nothing is left of
    /// what was not synced. A node that has already cut its
    /// own, as ordered by `cut-at`, or has ended otherwise, is only buried.
    pub(crate) fn cut(&mut self, places: &[usize], seed: u64) -> Loss {
        for (place, way) in places.iter().zip(1..) {
            // No two disks lose the same.
            let seed = seed.wrapping_mul(way);
            // It may have cut itself.
            let _ = self.control(*place).say(&format!("cut {seed}"));
        }
        let mut all = Loss::default();
        for place in places {
            if let Some(answer) = self.control(*place).hear() {
                let [kept_bytes, dropped_bytes, garbled_bytes, names_kept, names_undone] =
                    numbers(&answer, "cut");
                all += Loss { kept_bytes, dropped_bytes, garbled_bytes, names_kept, names_undone };
            }
            self.kill(*place);
        }
        all
    }

    pub(crate) fn kill(&mut self, place: usize) {
        let status = self.cluster.kill(place);
        let code = status.and_then(|status| status.code());
        assert_ne!(code, Some(99), "the shim gave up; see standard error");
        self.controls[place] = None;
    }
}
