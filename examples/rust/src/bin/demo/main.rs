//! `make demo`: three processes load a text file into a replicated key-value store while they are
//! killed, and nothing that was acknowledged may be missing afterwards.
//!
//! One program plays both parts. Started by a person it is the *parent*: it starts three children,
//! kills and restarts them, keeps a ledger of what they acknowledged and compares it in the end
//! with what each of them answers. Started with `--node` it is a *child*: one raftz node with a
//! few client threads. Between themselves nodes speak raftz; parent and child speak lines over
//! the child's standard input and output (`wire.rs`).
//!
//! `script.rs` tells the story, `cluster.rs` holds the processes, `ledger.rs` judges.

mod args;
mod child;
mod cluster;
mod ledger;
mod screen;
mod script;
mod wire;
mod work;

use std::process::ExitCode;

use args::Role;

fn main() -> ExitCode {
    match Role::from_arguments(std::env::args_os().skip(1).collect()) {
        Ok(Role::Help) => {
            println!("{}", args::USAGE);
            ExitCode::SUCCESS
        }
        Ok(Role::Parent(options)) => script::run(&options),
        Ok(Role::Child(options)) => child::run(options),
        Err(problem) => {
            eprintln!("{problem}\n\n{}", args::USAGE);
            ExitCode::from(2)
        }
    }
}
