//! The `gatebook` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    gatebook::cli::main()
}
