//! The command line as people meet it.

use clap::{Command, CommandFactory as _};

use super::args::Cli;
use super::*;

fn helps(command: &mut Command, path: &str, text: &mut String) {
    let name = format!("{path} {}", command.get_name());
    text.push_str(&format!("==={name}\n{}\n", command.render_long_help()));
    let verbs: Vec<_> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for verb in verbs.iter().filter(|verb| *verb != "help") {
        if let Some(verb) = command.find_subcommand_mut(verb) {
            helps(verb, &name, text);
        }
    }
}

/// Loss prevented: a script that breaks because an option went away unseen.
#[test]
fn the_helps_are_these() {
    let mut command = Cli::command();
    command.build();
    let mut text = String::new();
    helps(&mut command, "", &mut text);
    insta::assert_snapshot!(text);
}

/// Loss prevented: a nightly audit that found something, and ends as if it had not.
#[test]
fn what_was_found_is_an_exit_code_of_its_own() {
    use serde_json::json;
    assert!(matches!(verbs::ended(200, &json!({"ok": true})), End::Done));
    assert!(matches!(verbs::ended(200, &json!({"ok": false})), End::Found));
    assert!(matches!(verbs::ended(207, &json!({"steps": []})), End::Found));
    assert!(matches!(verbs::ended(200, &json!([])), End::Done));
}

/// Loss prevented: a script that takes "not reached" or "wrongly typed" for done.
#[test]
fn exit_codes_tell_what_went_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let run = |args: &[&str]| {
        let args =
            ["bitspire-operator", "--data-dir", &data].into_iter().chain(args.iter().copied());
        format!("{:?}", command(args.map(OsString::from)))
    };
    let code = |code: u8| format!("{:?}", ExitCode::from(code));
    assert_eq!(run(&["config", "check"]), code(0));
    assert_eq!(run(&["machine", "lst"]), code(2));
    assert_eq!(run(&["--config", "/nowhere/operator.toml", "config", "check"]), code(2));
    assert_eq!(run(&["machine", "list"]), code(3), "there is no cookie");
    let secret = folder.path().join("operator.toml");
    std::fs::write(&secret, "machine_secret_file = '/run/credentials/secret'\n").unwrap();
    let named = secret.display().to_string();
    let rotate = ["--config", &named, "secrets", "rotate", "service"];
    assert_eq!(run(&rotate), code(2), "a new secret is missing");
    std::fs::write(folder.path().join("api.cookie"), "http://127.0.0.1:1 x\n").unwrap();
    assert_eq!(run(&["machine", "list"]), code(3), "nobody listens");
}

/// Loss prevented: a forged receipt that a script takes for a good one, or a good one that cannot be
/// checked where no daemon runs.
#[test]
fn a_receipt_is_checked_without_a_daemon_or_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipt.txt");
    let example = include_str!("../../../docs/receipt.md");
    let (_, example) = example.split_once("```receipt\n").unwrap();
    let (example, _) = example.split_once("\n```").unwrap();
    std::fs::write(&file, example).unwrap();
    let file = file.display().to_string();
    let run = |args: &[&str]| {
        let fixed = ["bitspire-operator", "--config", "/nowhere/operator.toml", "verify-receipt"];
        let args = fixed.into_iter().chain(args.iter().copied());
        format!("{:?}", command(args.map(OsString::from)))
    };
    let code = |code: u8| format!("{:?}", ExitCode::from(code));
    let spire = "1b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f";
    assert_eq!(run(&["--file", &file]), code(0));
    assert_eq!(run(&[example]), code(0));
    assert_eq!(run(&["--json", "--spire", spire, example]), code(0));
    let other = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    assert_eq!(run(&["--spire", other, example]), code(1), "of another machine");
    let forged = example.replacen('A', "B", 1);
    assert_ne!(forged, example);
    assert_eq!(run(&[&forged]), code(1));
    assert_eq!(run(&["--json", &forged]), code(1));
    assert_eq!(run(&["--file", "/nowhere/receipt"]), code(2));
    assert_eq!(run(&["--spire", "nobody", example]), code(2));
}

/// Loss prevented: a wallet's key, or a passphrase, in the output that somebody sends along with a
/// question.
#[test]
fn the_configuration_says_where_secrets_lie_and_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    bitspire_shell::secrets::write_private(&key, b"0f1e2d3c4b5a").unwrap();
    let file = folder.path().join("operator.toml");
    let path = key.display();
    let text = format!(
        "machine_secret_file = '{path}'\n[bunker]\npassphrase_file = '{path}'\n\
         [wallets.bar]\nkind = 'phoenixd'\nurl = 'http://127.0.0.1:9740'\nkey_file = '{path}'\n"
    );
    std::fs::write(&file, text).unwrap();
    let (_, loaded) = load(Some(file), Some(folder.path())).unwrap();
    let shown = show_config(&loaded.shown);
    assert!(shown.matches(&path.to_string()).count() >= 3, "{shown}");
    assert!(!shown.contains("0f1e2d3c4b5a"), "{shown}");
}
