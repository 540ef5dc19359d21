//! `bitspire-world`: every program of bitSpire in one, and what is run on all of them together.
//!
//! The first argument says which program it is; the rest is that program's.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use bitspire_tests::demo::Demo;
use bitspire_tests::figures;
use bitspire_tests::power::Power;
use bitspire_tests::sim::Simulate;
use bitspire_tests::soak::Soak;
use clap::Parser;
use nix::sys::prctl;
use nix::sys::signal::Signal;

const USAGE: &str = "expected one of: demo, figures, simulate, power, soak, agent, operator, relay, nsecbunkerd, sim, each with its own arguments";

/// Measures bitSpire on this computer: one JSON line a figure
#[derive(Debug, Parser)]
#[command(name = "figures")]
struct Figures {
    /// Only this one, and what is measured with it
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

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
        Some("relay") => part(|| bitspire_tests::relay::main(rest("relay"))),
        Some("nsecbunkerd") => part(|| bitspire_tests::nsecbunkerd::main(rest("nsecbunkerd"))),
        Some("demo") => shown(rest("demo")),
        Some("figures") => measured(rest("figures")),
        Some("simulate") => simulated(rest("simulate")),
        Some("power") => cut(rest("power")),
        Some("soak") => soaked(rest("soak")),
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

/// The alias in `.cargo/config.toml` ends in the verb, so that a `--` of the caller comes here.
fn own(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|first| first == "--") {
        arguments.remove(1);
    }
    arguments
}

fn shown(arguments: Vec<OsString>) -> ExitCode {
    match Demo::parse_from(own(arguments)).run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soaked(arguments: Vec<OsString>) -> ExitCode {
    match Soak::parse_from(own(arguments)).run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cut(arguments: Vec<OsString>) -> ExitCode {
    match Power::parse_from(own(arguments)).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("power: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn simulated(arguments: Vec<OsString>) -> ExitCode {
    match Simulate::parse_from(own(arguments)).run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measured(arguments: Vec<OsString>) -> ExitCode {
    let Figures { only } = Figures::parse_from(own(arguments));
    let told = figures::run(only.as_deref(), |figure| {
        Ok(writeln!(std::io::stdout(), "{}", figure.line())?)
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a command from the documents that the program refuses.
    #[test]
    fn both_spellings_of_an_alias_work() {
        for line in [vec!["figures", "--only", "x"], vec!["figures", "--", "--only", "x"]] {
            let arguments = own(line.into_iter().map(OsString::from).collect());
            assert_eq!(Figures::parse_from(arguments).only.as_deref(), Some("x"));
        }
        assert!(Figures::try_parse_from(["figures", "x"]).is_err());
    }
}
