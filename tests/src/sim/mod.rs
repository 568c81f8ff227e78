//! The program around the simulator: what `make sim` runs.
//!
//! A *campaign* (`campaign`) runs many seeds on all cores and adds up what they met (`tally`); a *replay*
//! (`replay`) runs one again and tells what happens in it. Both read what they are asked from the
//! environment (`settings`) and judge a run alike (`judge`): by the simulator's own oracle, by running it
//! twice, and by the checker of linearizability, which knows nothing of logs.

mod campaign;
mod judge;
mod replay;
mod settings;
mod tally;

use std::io::Write;

use raftz_core::sim::Simulation;

pub use settings::{Settings, Work};

/// Does what `settings` ask; whether nothing was found wrong. The last line of standard output is the
/// verdict, which begins with `PASS: ` or `FAIL: `.
pub fn main(settings: &Settings) -> bool {
    let simulation = Simulation::key_value();
    match settings.work {
        Work::Replay { seed } => replay::replay(&simulation, settings, seed),
        Work::Campaign { from, seeds, seconds } => {
            campaign::campaign(&simulation, settings, from, seeds, seconds)
        }
    }
}

/// Writes a line to standard output. A reader that went away (`| head`) ends the program: a panic here
/// would pass for one of the run that is being told.
fn say(line: &str) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(1);
    }
}
