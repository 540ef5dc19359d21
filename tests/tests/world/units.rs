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

/// Loss prevented: a unit with a misspelt line, which the service manager passes over in silence.
#[test]
fn each_unit_is_understood() {
    let copies = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_bitspire-world");
    let mut files = Vec::new();
    for (unit, _) in UNITS {
        let text = fs::read_to_string(folder().join(unit)).unwrap();
        let text = text
            .replace("/usr/bin/bitspire-agent", program)
            .replace("/usr/bin/bitspire-operator", program);
        files.push(copies.path().join(unit));
        fs::write(files.last().unwrap(), text).unwrap();
    }
    let checked = Command::new("systemd-analyze").arg("verify").args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    // units of the computer itself are read beside ours
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("bitspire-")).collect();
    assert_eq!(ours, Vec::<&str>::new());
}
