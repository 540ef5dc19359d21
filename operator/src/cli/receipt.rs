//! `verify-receipt`: what a receipt states, and whether it holds.
//!
//! Promise: everything is checked here, with nothing but the text: no configuration, no database, no
//! network. Whose key the machine's is, a receipt cannot say; `--spire` pins it.
//!
//! Failure policy: a receipt that does not hold is exit code 1 with the reason, and none of its
//! figures; with `--json` the reason is the answer.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::PathBuf;

use bitspire_shared::ids::PubKey;
use bitspire_shared::receipt::{Line, MAX_TEXT, SignedReceipt};
use clap::Args;
use serde_json::{Value, json};

use super::show::cell;
use super::{CliError, End};

/// What is read at most: a receipt in any wrapping.
const MAX_READ: u64 = 4 * MAX_TEXT as u64;

/// What is asked.
#[derive(Debug, Args)]
pub(super) struct VerifyReceipt {
    /// The text of its QR code; standard input where it is absent or -
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub(super) text: Option<String>,
    /// A file that holds the text
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// The machine that it must be of (npub or hex)
    #[arg(long, value_name = "NPUB")]
    pub(super) spire: Option<String>,
}

/// Checks it and says so.
pub(super) fn verify(asked: VerifyReceipt, raw: bool) -> Result<End, CliError> {
    let VerifyReceipt { text, file, spire } = asked;
    let spire = spire.as_deref().map(PubKey::from_hex_or_npub).transpose();
    let spire = spire.map_err(CliError::Machine)?;
    let text = match (text, file) {
        (Some(text), _) if text != "-" => text,
        (_, Some(path)) => {
            let what = path.display().to_string();
            File::open(&path).and_then(bounded).map_err(|source| CliError::Text { what, source })?
        }
        (_, None) => bounded(std::io::stdin().lock())
            .map_err(|source| CliError::Text { what: "standard input".into(), source })?,
    };
    let checked = SignedReceipt::read(&text).and_then(|signed| {
        match &spire {
            Some(spire) => signed.check_of(spire)?,
            None => signed.check()?,
        };
        Ok(signed)
    });
    let mut out = std::io::stdout();
    match (checked, raw) {
        (Ok(signed), true) => writeln!(out, "{:#}", as_json(&signed)?)?,
        (Ok(signed), false) => write!(out, "{}", in_words(&signed, spire.is_some())?)?,
        (Err(refused), true) => {
            writeln!(out, "{:#}", json!({ "ok": false, "reason": refused.to_string() }))?;
            return Ok(End::Found);
        }
        (Err(refused), false) => return Err(refused.into()),
    }
    Ok(End::Done)
}

fn bounded(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MAX_READ).read_to_string(&mut text)?;
    Ok(text)
}

fn as_json(signed: &SignedReceipt) -> Result<Value, CliError> {
    let receipt = signed.check()?;
    Ok(json!({
        "ok": true,
        "machine": receipt.spire.npub(),
        "vault_named_at": signed.naming().created_at,
        "digest": signed.digest(),
        "wire_sats": receipt.wire_sats().ok(),
        "receipt": receipt,
    }))
}

fn in_words(signed: &SignedReceipt, pinned: bool) -> Result<String, CliError> {
    let receipt = signed.check()?;
    let named = Line {
        label: "Vault named by the machine",
        value: signed.naming().created_at.to_iso(),
        fine: true,
    };
    let mut lines = receipt.lines();
    lines.push(named);
    let width = lines.iter().map(|line| line.label.len()).max().unwrap_or(0);
    let mut text = format!("GOOD: {}. {}\n", receipt.heading(), receipt.standing());
    for Line { label, value, .. } in lines {
        text.push_str(&format!("{label:width$}  {}\n", cell(&value.into())));
    }
    if !pinned {
        text.push_str(
            "Whether this is the machine that is meant, its key says: compare it, or give --spire.\n",
        );
    }
    Ok(text)
}
