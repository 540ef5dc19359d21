//! The shape of the workspace, held from what cargo itself says of it.
//!
//! Each test names the loss that it prevents: a rule that only a document holds is gone in a year.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Metadata {
    // for this platform only: the others' packages need not have been fetched
    let version = std::process::Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".into(), format!("--filter-platform={host}")])
        .exec()
        .unwrap()
}

/// Names of all packages that `package` is built with, at any depth, without dev-dependencies.
fn closure(metadata: &Metadata, package: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let name =
        |id: &PackageId| metadata.packages.iter().find(|p| p.id == *id).unwrap().name.to_string();
    let start = metadata.packages.iter().find(|p| p.name == package).unwrap().id.clone();
    let (mut seen, mut todo) = (BTreeSet::new(), vec![start]);
    while let Some(id) = todo.pop() {
        let node = resolve.nodes.iter().find(|node| node.id == id).unwrap();
        for dep in &node.deps {
            let built = dep.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if built && seen.insert(name(&dep.pkg)) {
                todo.push(dep.pkg.clone());
            }
        }
    }
    seen
}

/// Loss prevented: protocol code that does I/O cannot be simulated, so its money rules go untested.
#[test]
fn shared_is_pure() {
    let built_with = closure(&metadata(), "bitspire-shared");
    assert!(built_with.contains("nostr"), "the closure is read wrongly: {built_with:?}");
    for forbidden in ["tokio", "rusqlite", "serialport", "mio", "async-wsocket", "socket2"] {
        assert!(!built_with.contains(forbidden), "shared is built with {forbidden}");
    }
}

/// Loss prevented: a device driver that can reach the network is a way to the dispenser.
#[test]
fn hardware_knows_no_nostr_client() {
    let built_with = closure(&metadata(), "bitspire-hardware");
    assert!(built_with.contains("serialport"), "the closure is read wrongly: {built_with:?}");
    for forbidden in ["nostr-sdk", "nostr-relay-pool", "async-wsocket", "rusqlite"] {
        assert!(!built_with.contains(forbidden), "hardware is built with {forbidden}");
    }
}

/// Loss prevented: a machine that ships the operator's ledger, or the other way round.
#[test]
fn agent_and_operator_do_not_know_each_other() {
    let metadata = metadata();
    let agent = closure(&metadata, "bitspire-agent");
    assert!(agent.contains("bitspire-hardware"));
    assert!(!agent.contains("bitspire-operator"));
    let operator = closure(&metadata, "bitspire-operator");
    assert!(operator.contains("bitspire-shared"));
    assert!(!operator.contains("bitspire-agent"));
    assert!(!operator.contains("bitspire-hardware"));
}

/// Where each crate that does I/O may be named: (crate, package folder, the one module if any).
const ONE_MODULE: [(&str, &str, Option<&str>); 8] = [
    ("nostr_sdk", "shared/shell", Some("src/pool")),
    ("nostr_sdk", "agent", None),
    ("nostr_sdk", "operator", None),
    ("rusqlite", "shared/shell", None),
    ("rusqlite", "agent", Some("src/journal")),
    ("rusqlite", "operator", Some("src/store")),
    ("serialport", "hardware", Some("src/port")),
    ("serialport", "agent", None),
];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Whether a line of code (not a comment) names the crate as a path.
fn names(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line);
    code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"))
}

/// Loss prevented: a second way to the database or the serial port that nobody reviews.
#[test]
fn io_crates_are_named_in_one_module_each() {
    let mut offenders = Vec::new();
    for (name, package, module) in ONE_MODULE {
        let folder = root().join(package).join("src");
        let mut files = Vec::new();
        rust_files(&folder, &mut files);
        assert!(!files.is_empty());
        for file in files {
            let inside = file.strip_prefix(root().join(package)).unwrap().to_owned();
            // the module's file or anything in its folder, and no neighbour that begins alike
            if module.is_some_and(|module| inside.with_extension("").starts_with(module)) {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            if text.lines().any(|line| names(line, name)) {
                offenders.push(format!("{package}/{} names {name}", inside.display()));
            }
        }
    }
    assert!(offenders.is_empty(), "{offenders:#?}");
}

/// Packages with their features, as they are built for one program; no dev-dependencies.
fn built_as(package: &str) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = std::process::Command::new(cargo)
        .args(["tree", "--locked", "--edges", "no-dev", "--prefix", "none"])
        .args(["--format", "{p} features [{f}]", "--package", package])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "cargo tree: {tree:?}");
    String::from_utf8(tree.stdout).unwrap()
}

/// Loss prevented: a machine that whoever sets its environment can let die between a record and its
/// effect.
#[test]
fn shipped_programs_have_no_places_to_die_at() {
    let with = |built: &str| (built.contains("crash-points"), built.contains("\nfail v"));
    assert_eq!(with(&built_as("bitspire-tests")), (true, true), "the tree is read wrongly");
    for package in ["bitspire-agent", "bitspire-operator", "bitspire-hardware"] {
        assert_eq!(with(&built_as(package)), (false, false), "{package}");
    }
    // and where the feature is on all the same, a build without debug assertions has none
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let release = text.split("[profile.release]").nth(1).unwrap();
    let release = release.split("\n[").next().unwrap();
    assert!(release.contains("opt-level") && !release.contains("debug-assertions"), "{release}");
}

/// Loss prevented: a stray folder at the top level becomes a second home for something.
#[test]
fn the_top_level_holds_what_it_should() {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files: {listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let top: BTreeSet<&str> = listed.lines().filter_map(|path| path.split('/').next()).collect();
    let known = BTreeSet::from([
        ".cargo",
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "agent",
        "clippy.toml",
        "docs",
        "hardware",
        "operator",
        "rustfmt.toml",
        "shared",
        "systemd",
        "tests",
    ]);
    let unknown: Vec<_> = top.difference(&known).collect();
    assert!(unknown.is_empty(), "not expected at the top level: {unknown:?}");
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Everything that is compiled, but for the fuzz targets.
fn sources() -> String {
    let mut sources = String::new();
    for package in ["shared", "hardware", "agent", "operator", "tests"] {
        let mut files = Vec::new();
        rust_files(&root().join(package), &mut files);
        files.retain(|file| !file.starts_with(root().join("tests/fuzz")));
        for file in files {
            sources.push_str(&std::fs::read_to_string(file).unwrap());
        }
    }
    sources
}

/// Whether there is a function of this name; a test of a battery is generic over what it is run on.
fn is_there(sources: &str, name: &str) -> bool {
    ["(", "<"].iter().any(|end| sources.contains(&format!("fn {name}{end}")))
}

/// Loss prevented: a promise in docs/invariants.md, or a rule for a machine on its own, that no test
/// holds any more.
#[test]
fn each_named_invariant_has_its_tests() {
    let (invariants, operations) = (read("docs/invariants.md"), read("docs/operations.md"));
    let alone = operations.split("\n## ").find(|part| part.contains("| held by |")).unwrap();
    let text = format!("{invariants}\n{alone}");
    let sources = sources();
    let rows = text.lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| id") && !line.starts_with("| gone")
    });
    let mut named = 0;
    for row in rows {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<_> = last.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test is named in: {row}");
        for test in tests {
            let name = test.rsplit("::").next().unwrap();
            assert!(is_there(&sources, name), "no test {name}, named in: {row}");
            named += 1;
        }
    }
    assert!(named > 0, "docs/invariants.md names no test");
}

/// Loss prevented: a limit of what a thief gets, in docs/threat-model.md, that no test holds any more.
#[test]
fn each_limit_of_the_threat_model_has_its_test() {
    let (text, sources) = (read("docs/threat-model.md"), sources());
    // a sentence for a name: settings and events of the programs are shorter
    let is_test = |word: &&str| {
        let plain = word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        plain && word.matches('_').count() >= 3
    };
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 60, "{named:?}");
    let gone: Vec<_> = named.iter().filter(|name| !is_there(&sources, name)).collect();
    assert_eq!(gone, Vec::<&&str>::new());
}

/// What a revoke in the middle of each state of a cash_out comes to, by the tests that hold it.
const CASH_OUT_REVOKED: [(&str, &str); 12] = [
    ("quoted", "a_revoked_quote_becomes_no_invoice"),
    ("invoiced", "a_sale_paid_before_a_revoke_is_owed_by_a_verdict_after_another_pairing"),
    ("paid", "what_was_held_by_a_revoke_is_not_authorised_by_another_pairing"),
    ("dispense_committed", "an_authorised_sale_that_was_revoked_is_reported_by_its_vault"),
    ("dispensing", "an_authorised_sale_that_was_revoked_is_reported_by_its_vault"),
    (
        "paid_waiting",
        "a_paid_sale_that_waited_over_a_revoke_gives_its_notes_once_after_another_pairing",
    ),
    ("settled", "an_authorised_sale_that_was_revoked_is_reported_by_its_vault"),
    ("short_dispensed", "a_partial_sale_stays_owed_over_a_revoke"),
    ("uncertain", "an_uncertain_sale_waits_for_a_person_over_a_revoke"),
    ("cancelled", "a_revoked_quote_becomes_no_invoice"),
    ("expired", "after_a_revoke_nothing_is_signed_and_payments_are_owed"),
    ("late", "after_a_revoke_nothing_is_signed_and_payments_are_owed"),
];

/// The same of a cash_in.
const CASH_IN_REVOKED: [(&str, &str); 11] = [
    ("open", "a_revoked_lock_ends_at_its_time"),
    ("escrowed", "a_revoked_lock_ends_at_its_time"),
    (
        "stack_committed",
        "a_note_in_doubt_over_a_revoke_is_claimed_by_a_verdict_after_another_pairing",
    ),
    ("credited", "notes_stacked_before_a_revoke_are_claimed_after_another_pairing"),
    ("uncertain", "a_note_in_doubt_over_a_revoke_is_claimed_by_a_verdict_after_another_pairing"),
    ("offered", "an_offered_withdraw_stays_payable"),
    ("claimed", "a_bound_withdraw_is_paid_once_over_a_revoke"),
    ("pay_unknown", "a_withdraw_of_unknown_end_is_looked_up_and_paid_once_over_a_revoke"),
    ("redeemed", "a_paid_withdraw_stays_paid"),
    ("expired", "a_withdraw_that_ends_after_a_revoke_is_owed"),
    ("returned", "a_revoked_lock_ends_at_its_time"),
];

/// Loss prevented: a state of a sale that nobody has thought of when a machine is revoked in its
/// middle.
#[test]
fn each_state_of_a_sale_has_its_revoke() {
    let sources = sources();
    let out = bitspire_agent::txn::cash_out::State::NAMES;
    let into = bitspire_agent::txn::cash_in::State::NAMES;
    for (names, cases) in [(out, CASH_OUT_REVOKED.as_slice()), (into, &CASH_IN_REVOKED)] {
        let named: Vec<&str> = cases.iter().map(|(state, _)| *state).collect();
        assert_eq!(named, names, "a case for each state, in its order");
        for (state, test) in cases {
            assert!(is_there(&sources, test), "{state}: {test}");
        }
    }
}
