//! `bitspire-world`: every program of bitSpire in one.
//!
//! The first argument says which program it is; the rest is that program's.

use std::ffi::OsString;
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::signal::Signal;

const USAGE: &str = "expected one of: agent, operator, sim, each with its own arguments";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let verb = arguments.next().unwrap_or_default();
    let rest = |name: &str| -> Vec<OsString> {
        std::iter::once(OsString::from(name)).chain(arguments).collect()
    };
    match verb.to_str() {
        Some("agent") => part(|| bitspire_agent::cli::main(rest("bitspire-agent"))),
        Some("operator") => part(|| bitspire_operator::cli::main(rest("bitspire-operator"))),
        Some("sim") => part(|| bitspire_hardware::sim::cli::main(rest("bitspire-sim"))),
        _ => {
            eprintln!("{}: {USAGE}", program.to_string_lossy());
            ExitCode::from(2)
        }
    }
}

/// A part of a world does not outlive the one who started it.
fn part(run: impl FnOnce() -> ExitCode) -> ExitCode {
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        eprintln!("the system does not end this process with its parent: {error}");
        return ExitCode::FAILURE;
    }
    run()
}
