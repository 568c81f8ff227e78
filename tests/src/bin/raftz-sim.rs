//! Runs whole clusters in one thread each, under every fault, many seeds or one of them again. `make sim`
//! hands on what is asked in environment variables; see `raftz_tests::sim`.

use std::process::ExitCode;

use raftz_tests::sim::{Settings, main as run};

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("raftz-sim: it is asked by variables, like RAFTZ_SIM_SEED=7, not by arguments");
        return ExitCode::from(2);
    }
    match Settings::from_environment() {
        Ok(settings) if run(&settings) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(wrong) => {
            eprintln!("raftz-sim: {wrong}");
            ExitCode::from(2)
        }
    }
}
