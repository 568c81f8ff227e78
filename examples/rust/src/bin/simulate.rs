//! A state machine of your own in the simulator: a bank, and a bug that no ordinary test of it finds.
//!
//! ```sh
//! cargo run -p raftz-examples --bin simulate             # PASS, exit status 0
//! cargo run -p raftz-examples --bin simulate -- --buggy  # what is wrong, and how to see it again; 1
//! ```
//!
//! A state machine must be *deterministic*: the same commands in the same order give the same state on every
//! node and in every life of a node, for that is all that replicas share. `--buggy` plants the classic
//! mistake: where two accounts are equally rich, the bank takes the first that a `HashMap` names, and
//! a `HashMap` names them in another order each time. (So the numbers of what is found differ from run to
//! run. Of a bug that follows from the commands, the seed would repeat every detail.)
//!
//! The simulator runs a whole cluster of the real library in one thread and in virtual time, with crashes,
//! partitions, slow and failing disks drawn from a seed. It compares the replicas' states and replies all the time.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::process::ExitCode;

use raftz_core::machine::{Command, MachineError, SnapshotView, StateMachine};
use raftz_core::sim::choice::Chooser;
use raftz_core::sim::{Plan, Simulation};
use raftz_core::types::Reply;

// ---- running it ----

/// How many seeds are tried: each is another cluster, another workload, other faults.
const SEEDS: u64 = 20;

fn main() -> ExitCode {
    let is_buggy = std::env::args().any(|argument| argument == "--buggy");
    // A machine for every life of every node, and commands for clients to propose. That is all.
    let simulation = Simulation::new(move || Box::new(Bank::new(is_buggy)), any_command);
    let (mut faults, mut committed) = (0, 0);
    for seed in 1..=SEEDS {
        let plan = Plan { duration_us: 5_000_000, ..Plan::drawn(seed) };
        let report = simulation.run(&plan);
        if report.violation.is_some() {
            // Shorter, and without the faults that have nothing to do with it: easier to understand.
            let (plan, report) = simulation.shrink(&plan, &report, 50);
            println!("VIOLATION {report}");
            println!("seed {}, {} ms of faults", plan.seed, plan.duration_us.div_ceil(1000));
            return ExitCode::FAILURE;
        }
        (faults, committed) = (faults + report.fault_count(), committed + report.committed);
    }
    println!("PASS {SEEDS} seeds, {faults} faults, {committed} entries committed");
    ExitCode::SUCCESS
}

// ---- the workload ----

/// Accounts are numbered from 0; the first is the bank's own.
const ACCOUNTS: u8 = 6;

/// What a client asks for next. Everything random in it comes from the chooser, so that a seed repeats it.
fn any_command(chooser: &mut Chooser) -> Vec<u8> {
    // Small numbers: accounts run dry, so that transfers are rejected, and are often equally rich.
    let mut below = |count: u8| u8::try_from(chooser.below(count.into())).unwrap_or_default();
    match below(4) {
        0 => vec![TAX],
        _ => vec![TRANSFER, below(ACCOUNTS), below(ACCOUNTS), below(5)],
    }
}

// ---- the state machine ----

/// `[TRANSFER, from, to, amount]`: rejected if there is not enough to take.
const TRANSFER: u8 = 0;
/// `[TAX]`: the richest account pays 1 to the bank.
const TAX: u8 = 1;

/// The state that every node keeps a copy of: a balance for each account.
struct Bank {
    /// In the order of their numbers. A `BTreeMap`, because its order follows from its content.
    balances: BTreeMap<u8, u64>,
    is_buggy: bool,
}

impl Bank {
    fn new(is_buggy: bool) -> Self {
        Self { balances: (0..ACCOUNTS).map(|account| (account, 10)).collect(), is_buggy }
    }

    /// Does one command, or says why not. A command that makes no sense is rejected, alike on every
    /// node; it is no reason for a panic or a `MachineError`, which would stop the replica.
    fn execute(&mut self, command: &[u8]) -> Result<u64, String> {
        match *command {
            [TRANSFER, from, to, amount] => self.transfer(from, to, amount.into()),
            [TAX] => {
                let richest = self.richest();
                self.transfer(richest, 0, 1)
            }
            _ => Err("no such command".into()),
        }
    }

    /// The giver's new balance. Looks before it takes: a rejected transfer has changed nothing.
    fn transfer(&mut self, from: u8, to: u8, amount: u64) -> Result<u64, String> {
        if !self.balances.contains_key(&to) {
            return Err(format!("no account {to}"));
        }
        let giver = self.balances.get_mut(&from).ok_or(format!("no account {from}"))?;
        *giver = giver.checked_sub(amount).ok_or(format!("account {from} holds only {giver}"))?;
        *self.balances.entry(to).or_default() += amount;
        Ok(self.balances[&from])
    }

    /// The account that holds the most.
    fn richest(&self) -> u8 {
        if self.is_buggy {
            // THE BUG. Where several hold the most, the last one in iteration order wins, and a HashMap
            // draws its order at random. Each replica taxes an account of its own choice.
            let hashed: HashMap<u8, u64> = self.balances.clone().into_iter().collect();
            return hashed.iter().max_by_key(|(_, balance)| **balance).map_or(0, |(id, _)| *id);
        }
        // Right: in the order of the numbers, the last of several. Any rule will do that follows from
        // the state alone.
        self.balances.iter().max_by_key(|(_, balance)| **balance).map_or(0, |(id, _)| *id)
    }
}

impl StateMachine for Bank {
    /// Committed commands, in the order of the log: one reply for each.
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        for command in batch {
            replies.push(match self.execute(command.payload) {
                Ok(balance) => Reply::Ok(balance.to_string().into()),
                Err(why) => Reply::Rejected(why.into()),
            });
        }
        Ok(())
    }

    /// The balance of the account whose number is asked for; changes nothing.
    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        match request.first().and_then(|account| self.balances.get(account)) {
            Some(balance) => Ok(Reply::Ok(balance.to_string().into())),
            None => Ok(Reply::Rejected("no such account".into())),
        }
    }

    /// All of the state, frozen. The simulator compares these bytes between replicas: whatever is not in
    /// them is not compared.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        Ok(Box::new(Frozen(self.balances.clone())))
    }

    /// The opposite: nine bytes for each account, its number and its balance.
    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|error| MachineError(error.to_string()))?;
        self.balances.clear();
        for record in bytes.chunks(9) {
            let [account, balance @ ..] = record else { continue };
            let balance = balance.try_into().map_err(|_| MachineError("cut short".into()))?;
            self.balances.insert(*account, u64::from_le_bytes(balance));
        }
        Ok(())
    }

    /// Nothing here waits for anything, so that all of it may run on the node's event loop.
    fn never_blocks(&self) -> bool {
        true
    }
}

/// The balances at one moment.
struct Frozen(BTreeMap<u8, u64>);

impl SnapshotView for Frozen {
    fn write_to(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        for (account, balance) in &self.0 {
            out.write_all(&[*account])?;
            out.write_all(&balance.to_le_bytes())?;
        }
        Ok(())
    }
}
