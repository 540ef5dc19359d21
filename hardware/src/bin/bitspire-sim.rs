//! A simulated device on a pseudo-terminal: see `bitspire_hardware::sim::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bitspire_hardware::sim::cli::main(std::env::args_os())
}
