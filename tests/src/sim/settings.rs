//! What is asked of the program, in environment variables: that is how `make sim SEED=7` hands it on.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use raftz_core::sim::text::{kinds, names, number, numbers, ranges};
use raftz_core::sim::{Fault, Plan};

/// How all of the variables begin.
const PREFIX: &str = "RAFTZ_SIM_";
/// How long a campaign goes on when nobody says.
const SECONDS: u64 = 240;

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Many seeds, one after the other.
    Campaign {
        /// The first one.
        from: u64,
        /// How many at most.
        seeds: Option<u64>,
        /// After how long no further one is begun.
        seconds: Option<u64>,
    },
    /// One seed, aloud.
    Replay {
        /// Which one.
        seed: u64,
    },
}

/// What is asked of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What to run.
    pub work: Work,
    /// How long faults go on in a run, in virtual time, if not as long as its plan says.
    pub until_us: Option<u64>,
    /// Faults of a replay to leave out, by number.
    pub skipped: BTreeSet<u64>,
    /// Kinds of faults to leave out.
    pub without: BTreeSet<Fault>,
    /// Whether a replay tells of every message.
    pub tells_messages: bool,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn from_environment() -> Result<Self, String> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self::read(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Reads variables; an empty one counts as none, those of other programs are left alone.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn read(variables: impl Iterator<Item = (String, String)>) -> Result<Self, String> {
        let (mut seed, mut seeds, mut seconds, mut from) = (None, None, None, None);
        let (mut until_us, mut tells_messages) = (None, false);
        let (mut skipped, mut without) = (BTreeSet::new(), BTreeSet::new());
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            let read = match name {
                "SEED" => number(value).map(|number| seed = Some(number)),
                "SEEDS" => positive(value).map(|number| seeds = Some(number)),
                "SECONDS" => positive(value).map(|number| seconds = Some(number)),
                "FROM" => number(value).map(|number| from = Some(number)),
                "UNTIL_US" => positive(value).map(|number| until_us = Some(number)),
                "SKIP" => numbers(value).map(|numbers| skipped = numbers),
                "WITHOUT" => kinds(value).map(|kinds| without = kinds),
                "TRACE" if value == "all" => {
                    tells_messages = true;
                    Ok(())
                }
                "TRACE" => Err(format!("`{value}` is not `all`, the one choice there is")),
                _ => Err("there is no such setting; see the comment above `sim` in the \
                          Makefile"
                    .to_owned()),
            };
            read.map_err(|wrong| format!("{variable}: {wrong}"))?;
        }
        let work = match seed {
            None if skipped.is_empty() => {
                let seconds = seconds.or_else(|| seeds.is_none().then_some(SECONDS));
                Work::Campaign { from: from.unwrap_or_else(clock), seeds, seconds }
            }
            None => {
                return Err(format!(
                    "{PREFIX}SKIP numbers the faults of one run: it needs {PREFIX}SEED"
                ));
            }
            Some(seed) if seeds.or(seconds).or(from).is_none() => Work::Replay { seed },
            Some(_) => {
                return Err(format!(
                    "{PREFIX}SEED replays one run; {PREFIX}SEEDS, {PREFIX}SECONDS and \
                     {PREFIX}FROM ask for many: give one or the others"
                ));
            }
        };
        Ok(Self { work, until_us, skipped, without, tells_messages })
    }

    /// The plan of `seed` as it is asked for.
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::drawn(seed);
        plan.faults.retain(|fault| !self.without.contains(fault));
        plan.skipped.extend(&self.skipped);
        plan.duration_us = self.until_us.unwrap_or(plan.duration_us);
        plan
    }

    /// The command that runs `plan` again.
    pub fn command(&self, plan: &Plan) -> String {
        let mut command = format!("make sim SEED={}", plan.seed);
        if plan.duration_us != Plan::drawn(plan.seed).duration_us {
            let _ = write!(command, " UNTIL_US={}", plan.duration_us);
        }
        if !plan.skipped.is_empty() {
            let _ = write!(command, " SKIP={}", ranges(&plan.skipped));
        }
        if !self.without.is_empty() {
            let _ = write!(command, " WITHOUT={}", names(&self.without));
        }
        command
    }
}

/// A number that no other campaign began with: seeds in between are run by this one.
fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default()
}

fn positive(text: &str) -> Result<u64, String> {
    match number(text)? {
        0 => Err("0 is nothing to run".to_owned()),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let owned = |(name, value): &(&str, &str)| (format!("{PREFIX}{name}"), (*value).to_owned());
        Settings::read(variables.iter().map(owned))
    }

    #[test]
    fn a_campaign_of_four_minutes_is_what_runs_when_nothing_is_said() {
        let work = read(&[("SEEDS", ""), ("FROM", "5")]).unwrap().work;
        assert_eq!(work, Work::Campaign { from: 5, seeds: None, seconds: Some(SECONDS) });
        let work = read(&[("SEEDS", "9"), ("FROM", "5")]).unwrap().work;
        assert_eq!(work, Work::Campaign { from: 5, seeds: Some(9), seconds: None });
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        for (variables, about) in [
            (&[("SEED", "seven")][..], "RAFTZ_SIM_SEED: `seven`"),
            (&[("SEED", "-1")], "RAFTZ_SIM_SEED: `-1`"),
            (&[("SEED", "18446744073709551616")], "from 0 to 18446744073709551615"),
            (&[("SEEDS", "0")], "RAFTZ_SIM_SEEDS: 0"),
            (&[("SECONDS", "1.5")], "RAFTZ_SIM_SECONDS"),
            (&[("UNTIL_US", "0")], "RAFTZ_SIM_UNTIL_US"),
            (&[("SEED", "1"), ("SKIP", "9-5")], "RAFTZ_SIM_SKIP: `9-5`"),
            (&[("SEED", "1"), ("SKIP", "3,")], "RAFTZ_SIM_SKIP"),
            (&[("SEED", "1"), ("SKIP", "0-18446744073709551615")], "RAFTZ_SIM_SKIP"),
            (&[("SKIP", "3")], "needs RAFTZ_SIM_SEED"),
            (&[("SEED", "1"), ("SEEDS", "2")], "give one or the others"),
            (&[("WITHOUT", "kill,flood")], "no fault `flood`; there are kill,"),
            (&[("TRACE", "some")], "RAFTZ_SIM_TRACE"),
            (&[("SPEED", "1")], "RAFTZ_SIM_SPEED: there is no such setting"),
        ] {
            let wrong = read(variables).unwrap_err();
            assert!(wrong.contains(about), "{variables:?}: {wrong}");
        }
    }

    #[test]
    fn the_command_of_a_plan_asks_for_that_plan() {
        let asked = [("UNTIL_US", "70"), ("SKIP", "3,5-9,11,12"), ("WITHOUT", "rot,kill")];
        let settings = read(&[&[("SEED", "7")][..], &asked].concat()).unwrap();
        let plan = settings.plan(7);
        assert_eq!(plan.duration_us, 70);
        assert_eq!(plan.skipped, BTreeSet::from([3, 5, 6, 7, 8, 9, 11, 12]));
        assert!(!plan.faults.contains(&Fault::Kill) && !plan.faults.contains(&Fault::Rot));
        let command = settings.command(&plan);
        assert_eq!(command, "make sim SEED=7 UNTIL_US=70 SKIP=3,5-9,11-12 WITHOUT=kill,rot");
        let whole = read(&[("SEED", "7")]).unwrap();
        assert_eq!(whole.command(&whole.plan(7)), "make sim SEED=7");
    }
}
