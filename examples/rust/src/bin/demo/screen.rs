//! What a person sees: a bar that moves on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const BAR_CELLS: u64 = 28;
const REDRAW: Duration = Duration::from_millis(80);

/// Standard output. Errors in writing to it are ignored: the demo's work goes on, and its exit
/// status still tells how it ended.
pub(crate) struct Screen {
    started: Instant,
    terminal: bool,
    drawn: Option<Instant>,
    /// Tenths of the load that were told in lines.
    told: u64,
    /// When the rate was last taken, at how many, and what it was per second.
    rate: (Instant, u64, u64),
}

impl Screen {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let terminal = io::stdout().is_terminal();
        Self { started: now, terminal, drawn: None, told: 0, rate: (now, 0, 0) }
    }

    /// One line of the story, with the time since the start.
    pub(crate) fn say(&mut self, what: &str) {
        self.clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let _ = writeln!(io::stdout(), "[{seconds:6.2} s] {what}");
    }

    /// The last line.
    pub(crate) fn verdict(&mut self, what: &str) {
        self.clear();
        let _ = writeln!(io::stdout(), "{what}");
        let _ = io::stdout().flush();
    }

    /// How far the load is.
    pub(crate) fn progress(&mut self, done: u64, of: u64, leader: Option<usize>) {
        let leader = leader.map_or("no leader".into(), |place| format!("node {} leads", place + 1));
        let tenth = done * 10 / of.max(1);
        if !self.terminal && tenth > self.told {
            self.told = tenth;
            self.say(&format!("{:3} %  {done}/{of} acknowledged, {leader}", tenth * 10));
        }
        let now = Instant::now();
        let (since, before, _) = self.rate;
        let elapsed_ms = (now - since).as_millis() as u64;
        if elapsed_ms >= 500 {
            self.rate = (now, done, done.saturating_sub(before) * 1000 / elapsed_ms);
        }
        let rate = self.rate.2;
        self.bar(done, of, &format!("{done}/{of}  {rate}/s  {leader}"));
    }

    /// How far the reading back is.
    pub(crate) fn read_back(&mut self, done: u64, of: u64) {
        self.bar(done, of, &format!("{done}/{of} read back"));
    }

    fn bar(&mut self, done: u64, of: u64, beside: &str) {
        let now = Instant::now();
        if !self.terminal || self.drawn.is_some_and(|drawn| now - drawn < REDRAW) {
            return;
        }
        let full = (done * BAR_CELLS / of.max(1)).min(BAR_CELLS) as usize;
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR_CELLS as usize - full));
        let percent = done * 100 / of.max(1);
        let _ = write!(io::stdout(), "\r\x1b[2K[{bar}] {percent:3} %  {beside}");
        let _ = io::stdout().flush();
        self.drawn = Some(now);
    }

    fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(io::stdout(), "\r\x1b[2K");
        }
    }
}
