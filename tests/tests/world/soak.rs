//! A short run of the soak, so that it cannot rot and what it found stays found.

use std::process::Command;

use serde_json::Value;

/// Loss prevented: money or notes that nobody can account for after parts of the world died, stood
/// still or lost their cables in the middle of sales.
#[test]
fn a_few_bad_days_leave_every_note_and_sat_accounted_for() {
    let world = env!("CARGO_BIN_EXE_bitspire-world");
    let run = Command::new(world).args(["soak", "--seed", "1", "--sales", "10"]).output().unwrap();
    let told = String::from_utf8_lossy(&run.stderr);
    let line: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(run.status.success(), "{line:#}\n{told}");
    assert_eq!((&line["violations"], &line["sales"]), (&0.into(), &10.into()), "{line:#}");
    let faults = line["faults"].as_object().unwrap();
    assert!(faults.values().filter_map(Value::as_u64).sum::<u64>() > 3, "{line:#}");
}
