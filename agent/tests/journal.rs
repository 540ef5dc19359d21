//! The commands that look at a journal, as processes, on the journal of an older machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rusqlite::Connection;
use tempfile::TempDir;

/// What a machine of version 0.1.0 left behind.
const OLD: &str = include_str!("../src/journal/fixtures/schema_1.sql");
/// Its one transaction.
const TXID: &str = "3afbecc5b1e517a6c7cfd221b65f0f06";

fn journal() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.db");
    Connection::open(&path).unwrap().execute_batch(OLD).unwrap();
    (folder, path)
}

/// Runs the program; nothing of this test's environment reaches it.
fn agent(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitspire-agent"))
        .args(arguments)
        .env_clear()
        .env("BITSPIRE_DATA_DIR", folder)
        .env("BITSPIRE_RUNTIME_DIR", folder)
        .output()
        .unwrap()
}

/// What a command printed that went well.
fn says(folder: &Path, arguments: &[&str]) -> String {
    let output = agent(folder, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command said that did not.
fn complains(folder: &Path, arguments: &[&str]) -> String {
    let output = agent(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Loss prevented: a support person who cannot read what the machine has written down.
#[test]
fn a_journal_is_shown_in_words() {
    let (folder, path) = journal();
    let file = path.to_str().unwrap();
    let show = |more: &[&str]| {
        says(folder.path(), &[&["journal", "show", "--journal", file][..], more].concat())
    };
    insta::assert_snapshot!(show(&[]));
    assert_eq!(show(&["--last", "2"]).lines().count(), 2);
    assert_eq!(show(&["--from", "18", "--to", "19"]).lines().count(), 2);
    let of_txn = show(&["--txid", TXID]);
    assert_eq!(of_txn.lines().count(), show(&[]).lines().filter(|l| l.contains(TXID)).count());
    assert_eq!(show(&["--txid", TXID, "--last", "1"]).lines().count(), 1);
    let line = show(&["--last", "1", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["kind"], &line["txid"]), (&"txn".into(), &TXID.into()));
    let nobody = "00".repeat(16);
    let said = complains(folder.path(), &["journal", "show", "--journal", file, "--txid", &nobody]);
    assert!(said.contains("not in this journal"), "{said}");
    let said = complains(folder.path(), &["journal", "show"]);
    assert!(said.contains("journal.db"), "{said}");
}

/// Loss prevented: a broken journal that a script takes for a good one.
#[test]
fn a_journal_is_verified_and_so_is_its_export() {
    let (folder, path) = journal();
    let (file, export) = (path.to_str().unwrap(), folder.path().join("export.jsonl"));
    let export = export.to_str().unwrap();
    let verified = says(folder.path(), &["journal", "verify", "--journal", file]);
    assert!(verified.starts_with("the journal holds: 23 entries, 1 transactions open"));
    says(folder.path(), &["journal", "export", "--journal", file, "--out", export]);
    assert_eq!(says(folder.path(), &["journal", "verify", "--file", export]), verified);
    let printed = says(folder.path(), &["journal", "export", "--journal", file]);
    assert_eq!(fs::read_to_string(export).unwrap(), printed);
    // an export is never written over another
    complains(folder.path(), &["journal", "export", "--journal", file, "--out", export]);

    fs::write(export, printed.replacen("\"paid\\\"", "\"piad\\\"", 1)).unwrap();
    let said = complains(folder.path(), &["journal", "verify", "--file", export]);
    assert!(said.contains("broken at entry 17"), "{said}");
    let edit = "DROP TRIGGER entries_stay;
        UPDATE entries SET at = at + 1 WHERE seq = 12;
        CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'an entry is never changed'); END;";
    Connection::open(&path).unwrap().execute_batch(edit).unwrap();
    let said = complains(folder.path(), &["journal", "verify", "--journal", file]);
    assert!(said.contains("broken at entry 12"), "{said}");
}

/// Loss prevented: a journal that was put in another's place, whole in itself, and nobody who can say
/// where the two part.
#[test]
fn a_journal_is_held_against_what_the_operator_has_seen() {
    let (folder, path) = journal();
    let file = path.to_str().unwrap();
    let export = says(folder.path(), &["journal", "export", "--journal", file]);
    let entries: Vec<serde_json::Value> =
        export.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let (heads, kept) = (folder.path().join("heads"), folder.path().join("export.jsonl"));
    fs::write(&kept, &export).unwrap();
    let seen = |change: &dyn Fn(u64, &str) -> (u64, String)| {
        let lines = [entries.len() - 1, 4, 11].map(|at| {
            let (seq, hash) = (&entries[at]["seq"], entries[at]["hash"].as_str().unwrap());
            let (seq, head) = change(seq.as_u64().unwrap(), hash);
            serde_json::json!({ "seq": seq, "head": head, "at": 1_800_000_000 }).to_string() + "\n"
        });
        fs::write(&heads, lines.concat()).unwrap();
    };
    let heads = heads.to_str().unwrap();
    let ways = [["--journal", file], ["--file", kept.to_str().unwrap()]];
    for [flag, place] in ways {
        let verify = ["journal", "verify", flag, place, "--heads", heads];
        seen(&|seq, hash| (seq, hash.to_owned()));
        let said = says(folder.path(), &verify);
        assert!(said.contains("3 positions up to 23"), "{said}");
        seen(&|seq, hash| (seq, if seq < 10 { hash.to_owned() } else { "ee".repeat(32) }));
        let said = complains(folder.path(), &verify);
        assert!(said.contains("agree at entry 5, and have parted by entry 12"), "{said}");
        seen(&|seq, hash| (if seq == 23 { 24 } else { seq }, hash.to_owned()));
        let said = complains(folder.path(), &verify);
        assert!(said.contains("has seen entry 24") && said.contains("agree at entry 12"), "{said}");
    }
}

/// Loss prevented: a dispute decided by a story, because nobody can see what the machine knew and
/// showed at that moment.
#[test]
fn a_journal_is_replayed_to_any_entry() {
    let (folder, path) = journal();
    let file = path.to_str().unwrap();
    insta::assert_snapshot!(says(folder.path(), &["replay", file, "--txid", TXID]));
    let lines = says(folder.path(), &["replay", file, "--to", "18", "--json"]);
    let moments: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(moments.len(), 18);
    let before = &moments[9];
    assert_eq!((&before["open"], &before["txn"]), (&serde_json::json!([]), &().into()));
    let last = &moments[17];
    assert_eq!((&last["seq"], &last["txn"]["state"]), (&18.into(), &"dispense_committed".into()));
    assert_eq!(last["txn"]["screen"]["screen"], "txn");
    assert_eq!(last["open"][0]["txid"], TXID);
    assert_eq!(last["holdings"]["bays"]["1"]["on_hand"], 100);
}

/// Loss prevented: a support person who cannot hand over what is known about a sale.
#[test]
fn evidence_is_gathered_and_checked_from_the_command_line() {
    let (folder, path) = journal();
    let (file, out) = (path.to_str().unwrap(), folder.path().join("evidence.json"));
    let out = out.to_str().unwrap();
    fs::create_dir(folder.path().join("faults")).unwrap();
    let fault = serde_json::json!({
        "device": "dispenser", "seq": 19, "at": 1_795_248_894, "txid": TXID, "fault": "a jam",
        "frames": ["12 ms <- 10 02"],
    });
    fs::write(folder.path().join("faults/000000000019-dispenser-1.json"), fault.to_string())
        .unwrap();
    says(folder.path(), &["evidence", TXID, "--journal", file, "--out", out]);
    let bundle: serde_json::Value = serde_json::from_slice(&fs::read(out).unwrap()).unwrap();
    assert_eq!(bundle["faults"][0]["fault"], fault);
    assert_eq!(bundle["configuration"]["vault.heartbeat_s"]["origin"], "default");
    let said = says(folder.path(), &["journal", "verify", "--file", out]);
    assert!(said.starts_with("the evidence leads to entry 23"), "{said}");
    let said = complains(folder.path(), &["evidence", &"00".repeat(16), "--journal", file]);
    assert!(said.contains("not in this journal"), "{said}");
}
