//! The units of the service manager: what a broken-into process could do, and that each is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each unit with the most that it may be exposed, in tenths.
const UNITS: [(&str, u32); 4] = [
    ("bitspire-vault.service", 4),
    ("bitspire-bunker.service", 9),
    ("bitspire-net.service", 11),
    ("bitspire-operator.service", 11),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("systemd")
}

/// Loss prevented: a unit that loses a line of its sandbox, and with it a machine whose network
/// process can reach the dispenser.
#[test]
fn each_unit_is_locked_up() {
    let listed = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let units = listed.filter(|name| Path::new(name).extension().is_some_and(|e| e == "service"));
    assert_eq!(units.count(), UNITS.len(), "a unit without a bound");
    for (unit, most) in UNITS {
        let exposed = |tenths: u32| {
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager"])
                .arg(format!("--threshold={tenths}"))
                .arg(folder().join(unit))
                .output()
                .unwrap_or_else(|error| panic!("systemd-analyze, of the package systemd: {error}"))
        };
        let within = exposed(most);
        assert!(within.status.success(), "{}", String::from_utf8_lossy(&within.stdout));
        // the bound is the score, not something above it
        assert!(!exposed(most - 1).status.success(), "{unit}: a better score than {most}: say so");
    }
}

/// Loss prevented: a crash that writes every key in memory onto the disk.
#[test]
fn no_unit_dumps_its_memory() {
    for (unit, _) in UNITS {
        let text = fs::read_to_string(folder().join(unit)).unwrap();
        let limits: Vec<&str> = text.lines().filter(|line| line.starts_with("LimitCORE")).collect();
        assert_eq!(limits, ["LimitCORE=0"], "{unit}");
    }
}

/// What the service manager says of our units after `change`.
fn said_of(change: impl Fn(&str) -> String) -> Vec<String> {
    let copies = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_bitspire-world");
    let mut files = Vec::new();
    for (unit, _) in UNITS {
        let text = fs::read_to_string(folder().join(unit)).unwrap();
        let text = text
            .replace("/usr/bin/bitspire-agent", program)
            .replace("/usr/bin/bitspire-operator", program);
        files.push(copies.path().join(unit));
        fs::write(files.last().unwrap(), change(&text)).unwrap();
    }
    let checked = Command::new("systemd-analyze").arg("verify").args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    // units of the computer itself are read beside ours
    said.lines().filter(|line| line.contains("bitspire-")).map(str::to_owned).collect()
}

/// A unit whose machine secret is a credential, as its own comment says.
fn with_credential(text: &str) -> String {
    text.replace("#LoadCredentialEncrypted=", "LoadCredentialEncrypted=")
        .replace("#Environment=", "Environment=")
}

/// Loss prevented: a unit with a misspelt line, which the service manager passes over in silence.
#[test]
fn each_unit_is_understood() {
    assert_eq!(said_of(str::to_owned), Vec::<String>::new());
    let misspelt = said_of(|text| text.replace("LimitCORE=", "LimitCores="));
    assert!(misspelt.len() >= UNITS.len(), "{misspelt:?}");
}

/// Loss prevented: a machine secret that was sealed with the TPM, and a program that makes another
/// one beside its keys all the same, since the unit hands it over under a name that it does not know.
#[test]
fn each_unit_takes_its_secret_from_a_credential() {
    assert_eq!(said_of(with_credential), Vec::<String>::new());
    let program = env!("CARGO_BIN_EXE_bitspire-world");
    for (unit, _) in UNITS {
        let text = with_credential(&fs::read_to_string(folder().join(unit)).unwrap());
        let told = |name: &str| -> Vec<&str> {
            text.lines().filter_map(|line| line.strip_prefix(name)).collect()
        };
        let name = unit.strip_suffix(".service").unwrap();
        let credential = format!("machine-secret:/etc/credstore.encrypted/{name}");
        assert_eq!(told("LoadCredentialEncrypted="), [credential], "{unit}");
        let [variable] = told("Environment=")[..] else { panic!("{unit}: one variable") };
        let (variable, file) = variable.split_once('=').unwrap();
        assert_eq!(file, "%d/machine-secret", "{unit}");
        let verb = if text.contains("/usr/bin/bitspire-agent") { "agent" } else { "operator" };
        let given = "/run/credentials/unit/machine-secret";
        let mut shows = Command::new(program);
        let shown = shows.args([verb, "config", "show"]).env(variable, given).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let taken = shown.lines().find(|line| line.contains(given));
        assert!(taken.is_some_and(|line| line.contains("machine_secret_file")), "{unit}: {shown}");
    }
}
