//! `bitspire-operator`: see [`bitspire_operator::cli`].

fn main() -> std::process::ExitCode {
    bitspire_operator::cli::main(std::env::args_os())
}
