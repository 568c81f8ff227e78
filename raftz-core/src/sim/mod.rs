//! A deterministic simulator: whole clusters of the real replica, write-ahead log and codec in one thread,
//! in virtual time, under every fault, replayed from a seed.
//!
//! Nothing here knows how a node decides. The simulator replaces the clock (`clock`), the pipes (`network`),
//! the file operations (`disk`) and the threads (`lanes`, `links`, `lives`) on one line of virtual time (`world`); a *plan* (`plan`) says what a run is like, faults
//! strike (`nemesis`), an oracle looks after every event (`oracle`, `calls`), and in the end a healed quorum must
//! work again (`liveness`). All accidents come from one source (`choice`), so that a seed is a run.
//!
//! It is public: run *your* state machine in it. It finds what makes replicas diverge.
//!
//! ```
//! use raftz_core::machine::CountingMachine;
//! use raftz_core::sim::{Plan, Simulation};
//!
//! let simulation = Simulation::new(
//!     || Box::new(CountingMachine::default()),
//!     |chooser| vec![0; chooser.below(20) as usize],
//! );
//! let mut plan = Plan::drawn(7);
//! plan.duration_us = 2_000_000;
//! let report = simulation.run(&plan);
//! assert!(report.violation.is_none(), "{report}");
//! ```

mod calls;
pub mod choice;
mod clock;
pub mod disk;
mod handover;
mod lanes;
mod links;
mod liveness;
mod lives;
mod marker;
mod mix;
mod nemesis;
mod network;
mod node;
mod oracle;
mod plan;
mod reads;
mod shrink;
mod snapshots;
pub mod text;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::machine::StateMachine;

use choice::{Choices, Chooser};
use world::{Teller, World};

pub use calls::{End, Operation};
pub use marker::Marker;
pub use oracle::Violation;
pub use plan::{DURATION_US, Fault, Plan, Wire};
pub use workload::key_value;

/// Makes a machine for each life of each node.
type Machine = Arc<dyn Fn() -> Box<dyn StateMachine> + Send + Sync>;
/// Makes the commands that clients propose.
type Workload = Arc<dyn Fn(&mut Chooser) -> Vec<u8> + Send + Sync>;

/// What runs in the simulator: a state machine, and commands for it.
#[derive(Clone)]
pub struct Simulation {
    machine: Machine,
    workload: Option<Workload>,
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was found wrong, if anything.
    pub violation: Option<Violation>,
    /// Virtual time that passed.
    pub virtual_us: u64,
    /// Things that happened.
    pub events: u64,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// How many faults were drawn, those included that could not strike.
    pub faults_drawn: u64,
    /// Rare situations that were met.
    pub markers: BTreeMap<Marker, u64>,
    /// Entries committed.
    pub committed: u64,
    /// Calls made, and how many were done, refused and left unknown.
    pub calls: [u64; 4],
    /// Reads made, and how many were answered and not.
    pub reads: [u64; 3],
    /// The longest that a call took that was done.
    pub longest_call_us: u64,
    /// Whether more was damaged than any cluster survives, so that only safety was judged.
    pub is_beyond_survival: bool,
    /// A hash of everything that happened: equal runs have equal hashes.
    pub trace: u64,
    /// Every call, in the order in which they were made.
    pub history: Vec<Operation>,
}

impl Report {
    /// How many faults struck.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.violation {
            Some(violation) => write!(f, "{violation}"),
            None => write!(
                f,
                "{} events, {} faults, {} entries committed, 0 violations",
                self.events,
                self.fault_count(),
                self.committed
            ),
        }
    }
}

impl Simulation {
    /// `machine` makes the state machine that each node starts with; `workload` draws the commands that
    /// clients propose.
    pub fn new(
        machine: impl Fn() -> Box<dyn StateMachine> + Send + Sync + 'static,
        workload: impl Fn(&mut Chooser) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self { machine: Arc::new(machine), workload: Some(Arc::new(workload)) }
    }

    /// The built-in key-value store, with commands that touch as many keys as the plan says.
    pub fn key_value() -> Self {
        Self { machine: Arc::new(|| Box::new(crate::machine::KvStore::new())), workload: None }
    }

    /// One run. The same plan gives the same report.
    pub fn run(&self, plan: &Plan) -> Report {
        self.run_with(plan, &Choices::seeded(plan.seed), None)
    }

    /// One run that tells line by line what happens.
    pub fn run_aloud(&self, plan: &Plan, tell: impl FnMut(String) + 'static) -> Report {
        self.run_with(plan, &Choices::seeded(plan.seed), Some(Box::new(tell)))
    }

    /// One run whose accidents come from `choices`.
    pub fn run_choices(&self, plan: &Plan, choices: &Choices) -> Report {
        self.run_with(plan, choices, None)
    }

    fn run_with(&self, plan: &Plan, choices: &Choices, teller: Option<Teller>) -> Report {
        let machine = self.machine.clone();
        let workload = self.workload.clone().unwrap_or_else(|| key_value(plan));
        let run = || {
            let mut world = World::new(plan, choices, machine, workload, teller);
            world.play();
            world.report()
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let words = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without words");
            let sentence = words.to_owned();
            let violation = Violation { property: "no panic", sentence, at_us: 0 };
            Report { violation: Some(violation), ..Report::default() }
        })
    }
}

/// What a machine would put into a snapshot, or why it makes none.
pub(crate) fn freeze(machine: &mut dyn StateMachine) -> Result<Vec<u8>, String> {
    let mut view = machine.snapshot().map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    view.write_to(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
