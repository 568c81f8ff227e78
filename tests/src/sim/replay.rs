//! One seed again, aloud.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use raftz_core::sim::text::names;
use raftz_core::sim::{Plan, Report, Simulation};

use super::campaign::shorten;
use super::judge::{Checks, judge_report};
use super::say;
use super::settings::Settings;
use super::tally::Tally;

/// Characters of a line that are shown.
const LINE_MAX: usize = 240;
/// What stands in the lines of messages that arrive, which are most.
const HEARS: &str = " hears ";

/// Runs `seed` as it is asked for and tells what happens; whether nothing is wrong. A failure of the
/// whole run is made shorter afterwards.
pub(super) fn replay(simulation: &Simulation, settings: &Settings, seed: u64) -> bool {
    let plan = settings.plan(seed);
    say(&readable(&plan));
    let report = tell(simulation, &plan, settings.tells_messages, std::io::stdout());
    let checks = Checks { is_run_twice: true, are_keys_checked: true };
    let (failure, _) = judge_report(simulation, &plan, &report, checks);
    let Some(failure) = failure else {
        let seconds = report.virtual_us as f64 / 1e6;
        let markers: Vec<_> = report.markers.keys().map(|marker| format!("{marker:?}")).collect();
        say(&format!("\nmet: {}", markers.join(", ")));
        say(&format!("trace {:016x}, {seconds:.1} s simulated, {report}", report.trace));
        let mut tally = Tally::default();
        tally.add_report(&report);
        say(&tally.verdict());
        return true;
    };
    let is_whole = settings.until_us.is_none() && settings.skipped.is_empty();
    if is_whole && report.violation.is_some() {
        let (short, shorter) = shorten(simulation, &plan, &report);
        match write_trace(simulation, &short, settings) {
            Ok(path) => say(&format!("its trace: {}", path.display())),
            Err(error) => say(&format!("its trace cannot be written: {error}")),
        }
        say(&format!("it fails with {shorter}"));
        say(&format!("again: {}", settings.command(&short)));
    }
    say(&failure.to_string());
    false
}

/// Runs `plan` and writes its lines to `out`.
fn tell(
    simulation: &Simulation,
    plan: &Plan,
    tells_messages: bool,
    out: impl Write + 'static,
) -> Report {
    let mut out = BufWriter::new(out);
    let report = simulation.run_aloud(plan, move |line| {
        if !tells_messages && line.contains(HEARS) {
            return;
        }
        // Nobody reads any further.
        if writeln!(out, "{}", cut(&line)).is_err() {
            std::process::exit(1);
        }
    });
    if let Some(violation) = &report.violation {
        say(&format!(
            "{:>6}.{:06} {violation}",
            violation.at_us / 1_000_000,
            violation.at_us % 1_000_000
        ));
    }
    report
}

/// Writes the trace of a run that fails to a file under the build's directory.
fn write_trace(
    simulation: &Simulation,
    plan: &Plan,
    settings: &Settings,
) -> std::io::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    std::fs::create_dir_all(&target)?;
    let path = Path::new(&target).join(format!("raftz-sim-{}.txt", plan.seed));
    let mut file = File::create(&path)?;
    writeln!(file, "{}\n\n{}", settings.command(plan), readable(plan))?;
    let report = tell(simulation, plan, true, file.try_clone()?);
    writeln!(file, "{report}")?;
    Ok(path)
}

/// At most [`LINE_MAX`] characters of `line`.
fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_MAX) {
        None => line.to_owned(),
        Some((at, _)) => format!("{}…", &line[..at]),
    }
}

/// A plan, a field a line.
fn readable(plan: &Plan) -> String {
    let text = format!("{plan:?}");
    let fields = text.strip_prefix("Plan { ").and_then(|text| text.strip_suffix(" }"));
    let (mut lines, mut depth) = (vec![String::new()], 0);
    for character in fields.unwrap_or(&text).chars() {
        match character {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                lines.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(line) = lines.last_mut() {
            line.push(character);
        }
    }
    let line = |line: &String| match line.trim().split_once(": ") {
        // As they are named to this program.
        Some(("faults", _)) => format!("{:<18} {}", "faults", names(&plan.faults)),
        Some((name, value)) => format!("{name:<18} {value}"),
        None => line.clone(),
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_shown_a_field_a_line() {
        let mut plan = Plan::drawn(7);
        plan.election_us = (5, 10);
        plan.skipped = [2, 3].into();
        let text = readable(&plan);
        let value = |name: &str| {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
            line.unwrap().split_once(' ').unwrap().1.trim().to_owned()
        };
        assert_eq!(value("seed"), "7");
        assert_eq!(value("election_us"), "(5, 10)");
        assert_eq!(value("skipped"), "{2, 3}");
        assert_eq!(value("faults"), names(&plan.faults));
        assert_eq!(value("downtime_us"), plan.downtime_us.to_string());
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = "ü".repeat(LINE_MAX + 1);
        assert_eq!(cut(&long), format!("{}…", "ü".repeat(LINE_MAX)));
        assert_eq!(cut(&"ü".repeat(LINE_MAX)), "ü".repeat(LINE_MAX));
    }
}
