//! That no note moves for good without a record is held by the compiler: these tests hold the
//! compiler to it.

use std::path::{Path, PathBuf};

// built with this program, not as a case: for a case that passes, all dependencies are built once
// more, where the others need only be checked
#[path = "proof/pass.rs"]
mod pass;

/// Loss prevented: a change of the ports or of the journal that lets a plan reach a device without
/// its durable intent, or one intent move notes twice.
#[test]
fn dispensing_without_a_durable_intent_does_not_compile() {
    let _ = (pass::dispense, pass::stack);
    let cases = trybuild::TestCases::new();
    for case in [
        "plain_plan",
        "forged",
        "own_authority",
        "used_twice",
        "cloned",
        "value_swapped",
        "other_type",
    ] {
        cases.compile_fail(format!("tests/proof/{case}.rs"));
    }
}

/// Loss prevented: a second authority in the product would open devices that ask for no journal.
#[test]
fn the_journal_is_the_only_authority_outside_of_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for package in ["agent", "hardware", "operator", "shared"] {
        for file in rust_files(&root.join(package)) {
            let text = std::fs::read_to_string(&file).unwrap();
            // tests stand last in a file
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let words: Vec<&str> = product.split_whitespace().collect();
            let impls = words.windows(2).filter(|pair| {
                pair[1] == "for" && pair[0].rsplit("::").next() == Some("Authority")
            });
            found.extend(impls.map(|_| file.strip_prefix(root).unwrap().to_path_buf()));
        }
    }
    assert_eq!(found, [Path::new("agent/src/journal/commit.rs")]);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            files.extend(rust_files(&path));
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && !only_tested(&path) {
            files.push(path);
        }
    }
    files
}

/// Whether its module says that it is there for tests only.
fn only_tested(file: &Path) -> bool {
    let module = std::fs::read_to_string(file.with_file_name("mod.rs")).unwrap_or_default();
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    module.contains(&format!("#[cfg(test)]\nmod {name};\n"))
}
