//! The story of the demo, in the order in which it happens, and its verdict.

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use raftz_examples::Result;

use crate::args::ParentOptions;
use crate::cluster::{Cluster, Event, NODES};
use crate::ledger::{Audit, Ledger};
use crate::screen::Screen;
use crate::wire::{Order, Report};
use crate::work::Work;

/// The default input: a text of the repository's own, and always at hand.
const OWN_TEXT: &[u8] = include_bytes!("../../../../../README.md");
/// Longest time without any news that is taken for being on the way.
const PATIENCE: Duration = Duration::from_secs(40);
/// Parts of the load, in percent, at which something dies or comes back.
const KILL_LEADER_AT: u64 = 40;
const RESTART_AT: u64 = 55;
const KILL_ALL_AT: u64 = 85;

/// Runs the demo from beginning to end.
pub(crate) fn run(options: &ParentOptions) -> ExitCode {
    let mut screen = Screen::new();
    let work = match read_input(options) {
        Ok(work) => work,
        Err(why) => {
            screen.verdict(&format!("FAIL: {why}"));
            return ExitCode::FAILURE;
        }
    };
    // Everything is cleaned up inside, before the verdict is told.
    let ended = play(options, &work, &mut screen);
    match ended {
        Ok(verdict) => {
            screen.verdict(&format!(
                "PASS: {} acknowledged writes, 0 lost, failover {} ms",
                verdict.acknowledged, verdict.failover_ms
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            screen.verdict(&format!("FAIL: {error}"));
            let signal = error.downcast_ref::<Interrupted>();
            signal.map_or(ExitCode::FAILURE, |signal| ExitCode::from(128 + signal.0 as u8))
        }
    }
}

fn read_input(options: &ParentOptions) -> Result<Work, String> {
    match &options.input {
        Some(path) => Work::read(Path::new(path), options.writes_min),
        None => Work::new(OWN_TEXT.to_vec(), options.writes_min),
    }
}

/// Somebody wanted the demo to end.
#[derive(Debug)]
struct Interrupted(i32);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted by signal {}; all processes and files are removed", self.0)
    }
}

impl std::error::Error for Interrupted {}

struct Verdict {
    acknowledged: u64,
    failover_ms: u128,
}

/// What the parent knows while it runs.
struct Show<'a> {
    cluster: Cluster,
    work: &'a Work,
    ledger: Ledger,
    screen: &'a mut Screen,
    ready: [bool; NODES],
    ended: [bool; NODES],
    /// In which term each node said that it leads, if that was its last word.
    leads: [Option<u64>; NODES],
    reached: [u64; NODES],
    /// Highest term in which a write was acknowledged, and when the first of it was.
    newest_ack: (u64, Instant),
    audits: Vec<Option<Audit>>,
    dumped: [Option<u64>; NODES],
}

fn play(options: &ParentOptions, work: &Work, screen: &mut Screen) -> Result<Verdict> {
    let source =
        options.input.as_ref().map_or("raftz's README.md".into(), |p| p.display().to_string());
    let cluster = Cluster::prepare(work, options)?;
    let mut show = Show {
        cluster,
        work,
        ledger: Ledger::new(work),
        screen,
        ready: [false; NODES],
        ended: [false; NODES],
        leads: [None; NODES],
        reached: [0; NODES],
        newest_ack: (0, Instant::now()),
        audits: (0..NODES).map(|_| None).collect(),
        dumped: [None; NODES],
    };
    show.say(&format!(
        "input: {source}, {} lines, {} writes in all; data in {}",
        work.lines(),
        work.writes(),
        show.cluster.root().display()
    ));
    show.start_all()?;
    show.wait("a leader is elected", |show| show.leader().is_some())?;
    for place in 0..NODES {
        let before = show.halves(place).0;
        show.load(place, before);
    }
    show.say("clients on all three nodes are writing");
    show.wait_for_load(KILL_LEADER_AT)?;
    let failover_ms = show.kill_the_leader()?;
    show.wait_for_load(KILL_ALL_AT)?;
    show.kill_everybody()?;
    show.start_all()?;
    for place in 0..NODES {
        show.load(place, work.share(place, NODES));
    }
    show.say("loading the rest");
    show.wait_for_load(100)?;
    show.say(&format!(
        "all {} writes are acknowledged; on the way {} refused and {} unknown ones were tried \
         again (the same key with the same value, so twice is as good as once)",
        show.ledger.count(),
        show.ledger.refused,
        show.ledger.unknown
    ));
    show.read_back()?;
    show.cluster.stop()?;
    Ok(Verdict { acknowledged: show.ledger.count(), failover_ms })
}

impl Show<'_> {
    fn say(&mut self, what: &str) {
        self.screen.say(what);
    }

    fn start_all(&mut self) -> Result<()> {
        for place in 0..NODES {
            self.start(place)?;
        }
        self.wait("all three nodes run", |show| show.ready.iter().all(|ready| *ready))
    }

    fn start(&mut self, place: usize) -> Result<()> {
        self.ended[place] = false;
        self.ready[place] = false;
        let pid = self.cluster.spawn(place)?;
        let address = self.cluster.addresses()[place].clone();
        self.say(&format!("node {} started: process {pid}, {address}", place + 1));
        Ok(())
    }

    /// A node's share of the writes, in two parts. The second is given out only when the leader is
    /// dead: however fast the load, there is something left for its successor to acknowledge.
    fn halves(&self, place: usize) -> (Range<u64>, Range<u64>) {
        let share = self.work.share(place, NODES);
        let middle = share.start + (share.end - share.start) * 7 / 10;
        (share.start..middle, middle..share.end)
    }

    /// Gives a node those writes of a range that are not acknowledged yet.
    fn load(&mut self, place: usize, range: Range<u64>) {
        let missing = self.ledger.missing(range);
        self.cluster.order(place, &Order::Load(missing));
    }

    fn wait_for_load(&mut self, percent: u64) -> Result<()> {
        let enough = (self.work.writes() * percent).div_ceil(100);
        self.wait("the load goes on", |show| show.ledger.count() >= enough)
    }

    /// The middle of the story: no warning, no last words. Returns how long no write was
    /// acknowledged by a new leader.
    fn kill_the_leader(&mut self) -> Result<u128> {
        self.wait("somebody leads", |show| show.leader().is_some())?;
        let (victim, term) = self.leader().ok_or("nobody leads")?;
        let killed = Instant::now();
        self.kill(victim)?;
        self.say(&format!("SIGKILL to node {}, the leader, in mid-load", victim + 1));
        for place in (0..NODES).filter(|place| *place != victim) {
            let after = self.halves(place).1;
            self.load(place, after);
        }
        // Writes that the dead leader had committed may still be acknowledged by its followers.
        // Only one of a later term shows that the cluster goes on.
        self.wait("another leader acknowledges a write", |show| show.newest_ack.0 > term)?;
        let failover_ms = self.newest_ack.1.duration_since(killed).as_millis();
        let heir = self.leader().map_or("?".into(), |(place, _)| (place + 1).to_string());
        self.say(&format!(
            "node {heir} took over: the first write of its term {} was acknowledged \
             {failover_ms} ms after the kill",
            self.newest_ack.0
        ));
        self.wait_for_load(RESTART_AT)?;
        self.start(victim)?;
        self.wait("the killed node runs again", |show| show.ready[victim])?;
        let index = self.ledger.index;
        self.cluster.order(victim, &Order::Await(index));
        self.load(victim, self.work.share(victim, NODES));
        self.wait("the killed node catches up", |show| show.reached[victim] >= index)?;
        self.say(&format!(
            "node {} has caught up to entry {index} and its clients go on",
            victim + 1
        ));
        Ok(failover_ms)
    }

    fn kill_everybody(&mut self) -> Result<()> {
        for place in 0..NODES {
            self.kill(place)?;
        }
        self.say(&format!(
            "SIGKILL to all three, in mid-load; {} writes were acknowledged so far",
            self.ledger.count()
        ));
        Ok(())
    }

    /// Kills a process and hears its last words: what it had acknowledged counts.
    fn kill(&mut self, place: usize) -> Result<()> {
        self.cluster.kill(place)?;
        self.leads[place] = None;
        self.wait("the last words are heard", |show| show.ended[place])?;
        self.leads[place] = None;
        Ok(())
    }

    fn read_back(&mut self) -> Result<()> {
        let index = self.ledger.index;
        self.say(&format!("reading everything back from each node, as of entry {index}"));
        for place in 0..NODES {
            self.audits[place] = Some(self.ledger.audit());
            self.cluster.order(place, &Order::Dump(index));
        }
        self.wait("every node has given back its store", |show| {
            show.dumped.iter().all(Option::is_some)
        })?;
        let mut lost_in_all = 0;
        let mut wrong = Vec::new();
        for place in 0..NODES {
            let Some(mut audit) = self.audits[place].take() else { continue };
            let lost = audit.lost(self.work, &self.ledger);
            lost_in_all += lost;
            let id = place + 1;
            self.say(&format!(
                "node {id}: {} keys with the value written, {lost} acknowledged ones missing",
                audit.right
            ));
            wrong.extend(audit.wrong.into_iter().map(|what| format!("node {id}: {what}")));
        }
        if lost_in_all == 0 && wrong.is_empty() {
            return Ok(());
        }
        for what in &wrong {
            self.say(what);
        }
        Err(format!(
            "{} acknowledged writes, {lost_in_all} lost; {}",
            self.ledger.count(),
            wrong.first().map_or("", String::as_str)
        )
        .into())
    }

    /// Who leads: of those that say so, the one of the latest term.
    fn leader(&self) -> Option<(usize, u64)> {
        (0..NODES)
            .filter_map(|place| Some((place, self.leads[place]?)))
            .max_by_key(|(_, term)| *term)
    }

    /// Takes in what happens until `condition` holds.
    fn wait(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let mut news = Instant::now();
        while !condition(self) {
            match self.cluster.events.recv_timeout(Duration::from_millis(100)) {
                Ok(event) => {
                    self.take(event)?;
                    news = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) if news.elapsed() < PATIENCE => {}
                Err(_) => {
                    let silence = PATIENCE.as_secs();
                    return Err(
                        format!("no news for {silence} s while waiting until {what}").into()
                    );
                }
            }
            self.draw();
        }
        Ok(())
    }

    fn draw(&mut self) {
        let writes = self.work.writes();
        let audits: Vec<&Audit> = self.audits.iter().flatten().collect();
        if audits.is_empty() {
            let leader = self.leader().map(|(place, _)| place);
            self.screen.progress(self.ledger.count(), writes, leader);
        } else {
            let right = audits.iter().map(|audit| audit.right).sum();
            self.screen.read_back(right, writes * NODES as u64);
        }
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Signal(signal) => Err(Interrupted(signal).into()),
            Event::Ended { place } => {
                self.ended[place] = true;
                if self.cluster.runs(place) {
                    return Err(format!("node {} died by itself", place + 1).into());
                }
                Ok(())
            }
            Event::Report { place, report, at } => self.hear(place, report, at),
        }
    }

    fn hear(&mut self, place: usize, report: Report, at: Instant) -> Result<()> {
        match report {
            Report::Ready => self.ready[place] = true,
            Report::Leads { term } => {
                self.leads[place] = Some(term);
                self.say(&format!("node {} leads, term {term}", place + 1));
            }
            Report::Follows { .. } => self.leads[place] = None,
            Report::Acked { term, index, items } => {
                for item in items {
                    self.ledger.acknowledge(item)?;
                }
                self.ledger.index = self.ledger.index.max(index);
                if term > self.newest_ack.0 {
                    self.newest_ack = (term, at);
                }
            }
            Report::Again { refused, unknown } => {
                self.ledger.refused += refused;
                self.ledger.unknown += unknown;
            }
            Report::Reached(index) => self.reached[place] = index,
            Report::Pair { key, value } => {
                if let Some(audit) = &mut self.audits[place] {
                    audit.take(self.work, &self.ledger, &key, &value);
                }
            }
            Report::End { keys } => self.dumped[place] = Some(keys),
            Report::Fatal(why) => return Err(format!("node {}: {why}", place + 1).into()),
        }
        Ok(())
    }
}
