//! Whether the simulation bites: bugs planted in a copy of the sources, one after the other.
//!
//! Promise: each bug is a change of the product's own lines, found by nothing but the seeds or the
//! crash matrix; the sources here stay as they are. A test holds that each place still exists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// One bug.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// What it does wrong.
    pub what: &'static str,
    /// The file, from the workspace's root.
    pub file: &'static str,
    /// What stands there, once.
    pub good: &'static str,
    /// What would stand there.
    pub bad: &'static str,
}

const fn bug(what: &'static str, file: &'static str, good: &'static str, bad: &'static str) -> Bug {
    Bug { what, file, good, bad }
}

/// All of them.
pub const BUGS: [Bug; 15] = [
    bug(
        "the acceptor's credit is acknowledged before it is written down",
        "agent/src/txn/cash_in/mod.rs",
        "        let mut effects = Vec::new();\n        let same = ",
        "        let mut effects = then.clone();\n        let then = Vec::new();\n        let same = ",
    ),
    bug(
        "a dispense that nobody knows the end of counts as none after a restart",
        "agent/src/txn/cash_out/dispense.rs",
        "                self.uncertain(sale, given, batch, evidence, turn);\n            }\n        }\n    }\n\n    /// After a restart: whether",
        "                drop(evidence);\n                self.nothing_moved(sale, given, batch, false, now, turn);\n            }\n        }\n    }\n\n    /// After a restart: whether",
    ),
    bug(
        "what a dispense gave is not counted",
        "agent/src/txn/cash_out/dispense.rs",
        "        given.add(&bays, value);\n        self.book(",
        "        given.add(&bays, value.min(0));\n        self.book(",
    ),
    bug(
        "a short sale owes everything",
        "agent/src/txn/cash_out/rest.rs",
        "        let owed_minor = given.rest(self.deal.fiat);\n        turn.alert(",
        "        let owed_minor = self.deal.fiat.minor;\n        turn.alert(",
    ),
    bug(
        "notes come out whether or not the customer is there",
        "agent/src/txn/cash_out/sale.rs",
        "if gave_up.is_none() && self.fresh(now) {",
        "if gave_up.is_none() || !self.fresh(now) {",
    ),
    bug(
        "what was given is not taken off what is still to be given",
        "agent/src/txn/cash_out/state.rs",
        ".saturating_sub(self.minor).saturating_sub(self.by_verdict)",
        ".saturating_sub(self.by_verdict)",
    ),
    bug(
        "transactions are not told of a restart",
        "agent/src/vault/open.rs",
        "            self.queue.push_back((entry.txid, Input::Restarted(report)));",
        "            self.queue.push_back((entry.txid, Input::Tick));\n            drop(report);",
    ),
    bug(
        "a request on which money hangs is made anew after a restart",
        "agent/src/vault/requests.rs",
        "                if ask.binding() {",
        "                if ask.binding() && rpc.is_empty() {",
    ),
    bug(
        "a credit that belongs to nobody is forgotten",
        "agent/src/vault/drive.rs",
        "            self.append(Entry::Cash(vec![doubt]))?;",
        "            drop(doubt);",
    ),
    bug(
        "notes in doubt are claimed like the others",
        "agent/src/txn/cash_in/mod.rs",
        "        for note in self.notes.iter().filter(|note| note.is_ours()) {",
        "        for note in self.notes.iter().filter(|note| note.lock.is_some()) {",
    ),
    bug(
        "what was refused once is never asked again",
        "agent/src/txn/asking.rs",
        "            Kind::Permanent | Kind::Misuse => REFUSED_MS,\n        };\n        self.due = Some(now.after(wait));",
        "            Kind::Permanent | Kind::Misuse => REFUSED_MS,\n        };\n        self.due = Some(now.after(wait.saturating_mul(1_000)));",
    ),
    bug(
        "a note of unknown fate is taken for one that was given back",
        "agent/src/txn/cash_in/notes.rs",
        "                self.doubt(no, evidence.to_owned(), true, turn);\n            }\n            (State::Uncertain",
        "                drop(evidence);\n                self.not_ours(no, turn);\n            }\n            (State::Uncertain",
    ),
    bug(
        "a note that goes back at the start counts",
        "agent/src/txn/cash_in/notes.rs",
        "(State::StackCommitted { no, .. }, BillFate::InAcceptor) => self.not_ours(*no, turn),",
        "(State::StackCommitted { no, .. }, BillFate::InAcceptor) => self.count(*no, false, turn),",
    ),
    bug(
        "the validator's credit is acknowledged before it is durable",
        "hardware/src/acceptor/id003/talk.rs",
        "            Status::VendValid(_) if self.notes.acknowledged() => Some(Ask::Ack),",
        "            Status::VendValid(_) if !self.notes.has_none() => Some(Ask::Ack),",
    ),
    bug(
        "a dispenser's command is sent again when its answer is lost",
        "hardware/src/dispenser/f56/dispense.rs",
        "self.line.send(request, Nature::Money, now);",
        "self.line.send(request, Nature::Mechanical, now);",
    ),
];

/// The workspace's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What of the workspace a build needs.
const PARTS: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "clippy.toml",
    "rustfmt.toml",
    ".cargo",
    "shared",
    "hardware",
    "agent",
    "operator",
];

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        let text = fs::read(from)?;
        // what is as it was keeps its time, so that it is not built again
        if fs::read(to).ok() != Some(text.clone()) {
            fs::write(to, text)?;
        }
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name != "target" {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// How a bug was found, if it was.
#[derive(Debug)]
pub struct Found {
    /// The bug.
    pub what: &'static str,
    /// The first words of what does not hold; none where nothing was noticed.
    pub by: Option<String>,
}

/// Plants one bug after the other and plays at most `seeds` seeds, then the crash matrix.
///
/// # Errors
/// Where a bug cannot be planted or built.
pub fn bite(seeds: u64, mut tell: impl FnMut(&Found)) -> Result<bool> {
    let root = root();
    let target = root.join("target");
    let place = target.join("bite");
    let tree = place.join("tree");
    let mut all = true;
    for bug in BUGS {
        for part in PARTS.iter().chain(&["tests"]) {
            fs::create_dir_all(&tree)?;
            copy(&root.join(part), &tree.join(part)).with_context(|| format!("copying {part}"))?;
        }
        let file = tree.join(bug.file);
        let text = fs::read_to_string(&file)?;
        if text.matches(bug.good).count() != 1 {
            bail!("{}: the place is not there once: {}", bug.file, bug.what);
        }
        fs::write(&file, text.replace(bug.good, bug.bad))?;
        build(&tree, &target).with_context(|| bug.what)?;
        // the next build puts its own program there
        let program = place.join("world");
        fs::copy(target.join("debug").join("bitspire-world"), &program)?;
        let count = seeds.to_string();
        let plays: [&[&str]; 2] = [&["--seeds", &count, "--first"], &["--matrix"]];
        let mut by = None;
        for play in plays {
            let played = Command::new(&program).arg("simulate").args(play).output()?;
            if !played.status.success() {
                let text = String::from_utf8_lossy(&played.stdout);
                // the lines after the sums name what does not hold
                let line = text.lines().skip_while(|line| !line.starts_with("took")).nth(1);
                by = Some(line.unwrap_or("it failed").to_owned());
                break;
            }
        }
        all &= by.is_some();
        tell(&Found { what: bug.what, by });
    }
    build(&root, &target)?;
    Ok(all)
}

/// Builds the program; what does not change between the trees is built once.
fn build(tree: &Path, target: &Path) -> Result<()> {
    let built = Command::new("cargo")
        .args(["build", "--quiet", "-p", "bitspire-tests", "--bin", "bitspire-world"])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target)
        .output()?;
    if !built.status.success() {
        bail!("does not build: {}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(())
}
