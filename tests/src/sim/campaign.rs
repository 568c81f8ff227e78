//! Many seeds, on all cores: each thread takes the next seed, runs it and tells what became of it. The
//! first failure ends the campaign and is made as short as a minute allows.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use raftz_core::sim::text::names;
use raftz_core::sim::{Plan, Report, Simulation};

use super::judge::{Checks, Failure, Judged, judge};
use super::say;
use super::settings::Settings;
use super::tally::{Tally, hours};

/// One seed of so many is run twice.
const TWICE_EVERY: u64 = 50;
/// One seed of so many is checked key by key.
const KEYS_EVERY: u64 = 20;
/// How long a search for a shorter run may take, more or less.
const SHRINK: Duration = Duration::from_secs(60);
/// Most runs of such a search.
const SHRINK_RUNS_MAX: u64 = 2000;
/// A run that takes longer than this does not end.
const STUCK_AFTER: Duration = Duration::from_secs(600);
/// How often progress is shown on a terminal, and elsewhere.
const SHOWN_EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// What a thread tells.
enum Word {
    Begun { seed: u64 },
    Ended { seed: u64, checks: Checks, judged: Box<Judged> },
}

/// What the threads share.
struct Seeds<'a> {
    simulation: &'a Simulation,
    settings: &'a Settings,
    from: u64,
    limit: u64,
    deadline: Option<Instant>,
    next: AtomicU64,
    is_over: AtomicBool,
}

impl Seeds<'_> {
    /// Runs seeds until there are none left, or no time, or something was found.
    fn work(&self, tell: &Sender<Word>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if number >= self.limit || is_late || self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let seed = self.from.wrapping_add(number);
            let checks = Checks {
                is_run_twice: number.is_multiple_of(TWICE_EVERY),
                are_keys_checked: number.is_multiple_of(KEYS_EVERY),
            };
            // Whom nobody hears any more has nothing left to do.
            let _ = tell.send(Word::Begun { seed });
            let judged = Box::new(judge(self.simulation, &self.settings.plan(seed), checks));
            let _ = tell.send(Word::Ended { seed, checks, judged });
        }
    }
}

/// Runs `seeds` seeds from `from` on, for at most `seconds`; whether nothing was found wrong.
pub(super) fn campaign(
    simulation: &Simulation,
    settings: &Settings,
    from: u64,
    seeds: Option<u64>,
    seconds: Option<u64>,
) -> bool {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let many = seeds.map_or_else(|| "seeds".to_owned(), |seeds| format!("{seeds} seeds"));
    let time = seconds.map_or_else(String::new, |seconds| format!(" for {seconds} s"));
    let without = match names(&settings.without) {
        none if none.is_empty() => none,
        names => format!(", without {names}"),
    };
    say(&format!("{many} from {from}{time} on {threads} threads{without}"));
    let begun = Instant::now();
    let work = Seeds {
        simulation,
        settings,
        from,
        limit: seeds.unwrap_or(u64::MAX),
        deadline: seconds.and_then(|seconds| begun.checked_add(Duration::from_secs(seconds))),
        next: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    };
    let (tally, failed) = std::thread::scope(|scope| {
        let (tell, told) = channel();
        for _ in 0..threads {
            let (work, tell) = (&work, tell.clone());
            scope.spawn(move || work.work(&tell));
        }
        drop(tell);
        listen(&told, &work, begun)
    });
    let seconds = begun.elapsed().as_secs_f64();
    if let Some((failure, report)) = failed {
        say(&format!("{} seeds in {seconds:.0} s before a failure", tally.seeds));
        let plan = settings.plan(failure.seed);
        let (short, _) = shorten(simulation, &plan, &report);
        say(&format!("again: {}", settings.command(&short)));
        say(&failure.to_string());
        return false;
    }
    say(&tally.tables());
    // A campaign that was told to leave something out need not have met everything.
    let is_whole = settings.until_us.is_none() && settings.without.is_empty();
    let not_covered = tally.not_covered().filter(|_| is_whole);
    say(&not_covered.as_ref().map_or_else(|| tally.verdict(), Failure::to_string));
    not_covered.is_none()
}

/// Adds up what the threads tell until they have ended; with what failed, if anything did.
fn listen(
    told: &Receiver<Word>,
    work: &Seeds<'_>,
    begun: Instant,
) -> (Tally, Option<(Failure, Report)>) {
    let mut tally = Tally::default();
    let mut failed: Option<(Failure, Report)> = None;
    let mut running: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut progress = Progress::new(begun);
    loop {
        match told.recv_timeout(SHOWN_EVERY.0) {
            Ok(Word::Begun { seed }) => {
                running.insert(seed, Instant::now());
            }
            Ok(Word::Ended { seed, checks, judged }) => {
                running.remove(&seed);
                let Some(failure) = &judged.failure else {
                    tally.add(&judged, checks.is_run_twice);
                    progress.show(&tally, work);
                    continue;
                };
                work.is_over.store(true, Ordering::Relaxed);
                // Of those that fail at once, the first, so that it is the same one again.
                if failed.as_ref().is_none_or(|(other, _)| failure.seed < other.seed) {
                    failed = Some((failure.clone(), judged.report));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Some((seed, _)) = running.iter().find(|(_, since)| since.elapsed() > STUCK_AFTER) {
            progress.clear();
            let plan = work.settings.plan(*seed);
            say(&format!("again: {}", work.settings.command(&plan)));
            let sentence = format!("it has been running for {} s", STUCK_AFTER.as_secs());
            say(&Failure::new(*seed, "stuck", &sentence).to_string());
            // Its thread cannot be ended.
            std::process::exit(1);
        }
        progress.show(&tally, work);
    }
    progress.clear();
    (tally, failed)
}

/// One line on standard error: rewritten on a terminal, now and then a new one elsewhere.
struct Progress {
    begun: Instant,
    shown: Instant,
    is_terminal: bool,
}

impl Progress {
    fn new(begun: Instant) -> Self {
        Self { begun, shown: begun, is_terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, tally: &Tally, work: &Seeds<'_>) {
        let every = if self.is_terminal { SHOWN_EVERY.0 } else { SHOWN_EVERY.1 };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = tally.seeds as f64 / seconds;
        let of = if work.limit == u64::MAX { String::new() } else { format!(" of {}", work.limit) };
        let by_seeds = work.limit.saturating_sub(tally.seeds) as f64 / rate;
        let by_time = work
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64());
        let left = by_time.map_or(by_seeds, |by_time| by_time.min(by_seeds));
        let left =
            if left.is_finite() { format!("{left:.0} s left") } else { "no end known".into() };
        let line = format!(
            "{}{of} seeds, {rate:.1}/s, {:.0} events/s, {:.0} times real time, {:.1} h, {left}",
            tally.seeds,
            tally.events as f64 / seconds,
            tally.virtual_us as f64 / 1e6 / seconds,
            hours(tally.virtual_us),
        );
        // Progress that nobody can see is no reason to end.
        let _ = if self.is_terminal {
            write!(std::io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    fn clear(&self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// The shortest run that fails like `report`, the one of `plan`, as far as a minute allows. What the
/// oracle of the simulator did not see it cannot look for: such a run stays as it is.
pub(super) fn shorten(simulation: &Simulation, plan: &Plan, report: &Report) -> (Plan, Report) {
    if report.violation.is_none() {
        return (plan.clone(), report.clone());
    }
    say("looking for a shorter run that fails alike, about a minute");
    // A run that panics would say so each time.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let again = simulation.run(plan);
    let runs = SHRINK.as_micros() / begun.elapsed().as_micros().max(1);
    let runs = u64::try_from(runs).unwrap_or(u64::MAX).clamp(3, SHRINK_RUNS_MAX);
    let is_same = again.violation == report.violation;
    let found = if is_same {
        simulation.shrink(plan, report, usize::try_from(runs).unwrap_or(usize::MAX))
    } else {
        (plan.clone(), report.clone())
    };
    std::panic::set_hook(hook);
    if !is_same {
        say("run again it does not fail alike: it depends on more than its seed");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flawed() -> Simulation {
        Simulation::new(|| panic!("a machine\nthat breaks"), |_| Vec::new())
    }

    fn settings() -> Settings {
        let variables = [("RAFTZ_SIM_SEEDS", "4"), ("RAFTZ_SIM_UNTIL_US", "300000")];
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Settings::read(owned.into_iter()).unwrap()
    }

    #[test]
    fn a_campaign_ends_with_its_first_failure() {
        assert!(!campaign(&flawed(), &settings(), 1, Some(4), None));
    }

    #[test]
    fn a_panic_is_a_failure_in_one_line() {
        let checks = Checks { is_run_twice: false, are_keys_checked: false };
        let judged = judge(&flawed(), &settings().plan(3), checks);
        let line = judged.failure.unwrap().to_string();
        assert_eq!(line, "FAIL: seed 3: no panic: a machine that breaks");
    }
}
