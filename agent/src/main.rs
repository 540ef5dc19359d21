//! `bitspire-agent`: see [`bitspire_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    bitspire_agent::cli::main(std::env::args_os())
}
