//! The `sandrunner` command: flags are read, the parts are built and run. The only place that exits.

use std::process::ExitCode;

use clap::Parser;
use sandrunner::cli::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(cli::run(arguments));
            // A disk that does not answer does not hold up the end.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => {
            cli::complain(&error);
            return ExitCode::from(1);
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            cli::complain(&*error.cause);
            ExitCode::from(error.code)
        }
    }
}
