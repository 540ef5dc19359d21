//! `settlement ...` and `verify-proof`: one settlement, and the evidence for it.
//!
//! Promise: a proof is checked here, with nothing but its text: no configuration, no database, no
//! network, also where the daemon has just made it. Whose keys the service's and the machine's are,
//! a proof cannot say; `--service` and `--spire` pin them.
//!
//! Failure policy: the first step that does not hold is printed last, and is exit code 1.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use bitspire_shared::ids::PubKey;
use clap::{Args, Subcommand};

use super::client::Client;
use super::show::{cell, fields};
use super::{CliError, End};
use crate::audit::proof::{Checked, Pins, SealedProof, check};
use crate::ids::SettlementId;

/// The most that is read of a file.
const MAX_READ: u64 = 16 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum SettlementVerb {
    /// Show one settlement with its legs
    Show {
        /// Its number, as `settlements` shows it
        settlement: SettlementId,
        /// Check all of its evidence as `verify-proof` does, without asking any wallet
        #[arg(long)]
        verify: bool,
    },
    /// Write all evidence of one settlement into a file that `verify-proof` checks anywhere
    ///
    /// It holds the signed request and what opens it, quotes, reports, rules and legs, sealed by the
    /// service. Nothing in it is secret; it names amounts, keys and destinations.
    Proof {
        /// Its number, as `settlements` shows it
        settlement: SettlementId,
        /// The file; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What is asked.
#[derive(Debug, Args)]
pub(super) struct VerifyProof {
    /// The file, as `settlement proof` wrote it
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The service that it must be of (npub or hex)
    #[arg(long, value_name = "NPUB")]
    pub(super) service: Option<String>,
    /// The machine that it must be of (npub or hex)
    #[arg(long, value_name = "NPUB")]
    pub(super) spire: Option<String>,
}

/// Asks the daemon for it.
pub(super) fn settlement(
    data_dir: &Path,
    raw: bool,
    verb: SettlementVerb,
) -> Result<End, CliError> {
    let client = Client::new(data_dir)?;
    let mut out = std::io::stdout();
    match verb {
        SettlementVerb::Show { settlement, verify } => {
            let answer = client.get(&format!("/dca/settlements/{settlement}"))?;
            match (raw, verify) {
                (true, true) => {}
                (true, false) => writeln!(out, "{:#}", answer.body)?,
                (false, _) => write!(out, "{}", fields(&answer.body))?,
            }
            match verify {
                true => told(&check(&proof(&client, settlement)?, Pins::default()), raw, true),
                false => Ok(End::Done),
            }
        }
        SettlementVerb::Proof { settlement, out: path } => {
            let proof = proof(&client, settlement)?;
            let text = serde_json::to_string_pretty(&proof).map_err(CliError::Proof)?;
            let write = || {
                let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
                writeln!(file, "{text}")?;
                file.sync_all()
            };
            let what = path.display().to_string();
            write().map_err(|source| CliError::Out { what: what.clone(), source })?;
            writeln!(out, "{what}")?;
            Ok(End::Done)
        }
    }
}

fn proof(client: &Client, settlement: SettlementId) -> Result<SealedProof, CliError> {
    let answer = client.get(&format!("/dca/settlements/{settlement}/proof"))?;
    serde_json::from_value(answer.body).map_err(CliError::Proof)
}

/// Checks a file and says so.
pub(super) fn verify(asked: VerifyProof, raw: bool) -> Result<End, CliError> {
    let VerifyProof { file, service, spire } = asked;
    let key = |text: Option<String>| text.as_deref().map(PubKey::from_hex_or_npub).transpose();
    let service = key(service).map_err(CliError::Service)?;
    let spire = key(spire).map_err(CliError::Machine)?;
    let what = file.display().to_string();
    let mut text = String::new();
    let read = File::open(&file).and_then(|file| file.take(MAX_READ).read_to_string(&mut text));
    read.map_err(|source| CliError::Text { what, source })?;
    let sealed = serde_json::from_str(&text).map_err(CliError::Proof)?;
    let pinned = service.is_some() && spire.is_some();
    told(&check(&sealed, Pins { service, spire }), raw, pinned)
}

fn told(checked: &Checked, raw: bool, pinned: bool) -> Result<End, CliError> {
    let mut out = std::io::stdout();
    match raw {
        true => {
            let text = serde_json::to_string_pretty(checked).map_err(CliError::Proof)?;
            writeln!(out, "{text}")?;
        }
        false => write!(out, "{}", in_words(checked, pinned))?,
    }
    Ok(if checked.ok { End::Done } else { End::Found })
}

/// One line a step; names from elsewhere stay on it.
fn in_words(checked: &Checked, pinned: bool) -> String {
    let mut text = String::new();
    for step in &checked.steps {
        let line = cell(&step.words.as_str().into());
        match &step.found {
            None => text.push_str(&format!("holds  {line}\n")),
            Some(found) => {
                let found = cell(&found.as_str().into());
                text.push_str(&format!("FAILS  {line}\n       {found}\n"));
            }
        }
    }
    text.push_str(match (checked.ok, pinned) {
        (false, _) => "The proof does not hold; what would come after this was not looked at.\n",
        (true, true) => "The proof holds.\n",
        (true, false) => {
            "The proof holds for these keys. Whether they are the ones that are meant: compare them, \
             or give --service and --spire.\n"
        }
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::proof::Step;

    /// Loss prevented: a check that failed, and whose output reads as if it had held.
    #[test]
    fn what_fails_is_told_last_and_in_capitals() {
        let step = |words: &str, found: Option<&str>| Step {
            words: words.into(),
            found: found.map(Into::into),
        };
        let steps = vec![step("seal: good", None), step("quote:\nbad", Some("1; found 2"))];
        let failed = in_words(&Checked { ok: false, steps: steps.clone() }, false);
        let lines: Vec<_> = failed.lines().collect();
        assert_eq!(lines[..3], ["holds  seal: good", "FAILS  quote: bad", "       1; found 2"]);
        assert!(lines[3].contains("does not hold"), "{failed}");
        let held = in_words(&Checked { ok: true, steps: steps[..1].to_vec() }, true);
        assert_eq!(held, "holds  seal: good\nThe proof holds.\n");
    }
}
