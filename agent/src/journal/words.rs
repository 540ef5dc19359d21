//! Entries as people read them: `journal show`.

use std::collections::BTreeMap;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use serde_json::Value;

use super::entry::{Body, CashMove, CountChange, Stage, StoredEntry, TxnEntry};

/// Characters of a setting that are shown.
const LONGEST: usize = 160;

impl StoredEntry {
    /// The entry as a line for a person: position, time (UTC), transaction, what happened.
    #[must_use]
    pub fn in_words(&self) -> String {
        let txid = self.txid.map_or_else(|| "-".to_owned(), |txid| txid.to_string());
        let said = match serde_json::from_str::<Body>(&self.body) {
            Ok(body) => body.in_words(),
            Err(_) => format!("{}: none of this version: {}", self.kind, cut(&self.body)),
        };
        format!("{:>7}  {}  {txid:<32}  {said}", self.seq.0, self.at.to_iso())
    }
}

impl Body {
    fn in_words(&self) -> String {
        match self {
            Self::Genesis { binding } => format!("the journal of machine {binding} begins"),
            Self::Started { epoch, version } => {
                format!("the vault started for the {epoch}. time, version {version}")
            }
            Self::Intent { txn, no, what, value } => {
                format!("{}; about to {what} (intent {no}): {}", state(txn), plan(what, value))
            }
            Self::Txn(txn) => state(txn),
            Self::Request(request) => {
                format!("asks the service: {}, request {}", request.rpc, request.request_id)
            }
            Self::Cash(moves) => all(moves),
            Self::Verdict(verdict) => {
                format!("verdict {} used, made at entry {}", verdict.nonce, verdict.seen.0)
            }
            Self::Archived { upto, .. } => {
                format!("the entries up to {} lie in the archive", upto.0)
            }
            Self::Setting { key, value, cash } if cash.is_empty() => {
                format!("setting {key}: {}", cut(&value.to_string()))
            }
            Self::Setting { key, cash, .. } => format!("setting {key}; {}", all(cash)),
        }
    }
}

fn state(txn: &TxnEntry) -> String {
    let stage = match txn.stage {
        Stage::Open => "open",
        Stage::Ended => "ended, something is left to be told",
        Stage::Closed => "closed",
    };
    let mut said = format!("{} ({stage}), by {}", txn.name, txn.cause);
    if let Some(no) = txn.resolves {
        said += &format!("; intent {no} answered");
    }
    if let Some(verdict) = txn.verdict {
        said += &format!("; by verdict {}", verdict.nonce);
    }
    if !txn.cash.is_empty() {
        said += "; ";
        said += &all(&txn.cash);
    }
    said
}

fn plan(what: &str, value: &Value) -> String {
    match (what, value) {
        ("dispense", Value::Object(bays)) => {
            let bays = bays.iter().map(|(bay, count)| format!("bay {bay}: {count} notes"));
            bays.collect::<Vec<_>>().join(", ")
        }
        ("stack", _) => format!("a note of {} minor units", value["denomination"]),
        _ => cut(&value.to_string()),
    }
}

fn all(moves: &[CashMove]) -> String {
    moves.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn one(movement: &CashMove) -> String {
    let note = |value: &Denomination| format!("a note of {} minor units", value.minor());
    match movement {
        CashMove::Assign { bay, denomination, recycles } => {
            let keeps = if *recycles { "keeps fed notes" } else { "holds notes" };
            format!("bay {bay} {keeps} of {} minor units", denomination.minor())
        }
        CashMove::Change { bay, change, reason, .. } => match change {
            CountChange::Delta(delta) => format!("bay {bay}: {delta:+} notes ({reason})"),
            CountChange::Set(count) => format!("bay {bay}: counted, {count} notes ({reason})"),
        },
        CashMove::Dispensed { bay, denomination, result, .. } => {
            dispensed(*bay, denomination, result)
        }
        CashMove::Doubt { bay } => format!("bay {bay}: nobody knows what left it"),
        CashMove::Unsure { bay, most } => {
            format!("bay {bay}: up to {most} notes fewer may lie in it, until it is counted")
        }
        CashMove::Stacked { denomination, .. } => format!("{} in the cashbox", note(denomination)),
        CashMove::StackDoubt { denomination, .. } => {
            format!("{}: nobody knows whether it lies in the cashbox", note(denomination))
        }
        CashMove::NotStacked { denomination } => {
            format!("{} is not in the cashbox", note(denomination))
        }
        CashMove::Recycled { bay, denomination, notes } => {
            let value = denomination.minor();
            format!("bay {bay}: {notes} notes of {value} minor units lie here, not in the cashbox")
        }
        CashMove::Sorted { denomination } => {
            let value = denomination.minor();
            format!("the last notes of {value} minor units lie in the cashbox")
        }
        CashMove::Differs { bay, by } => {
            format!("bay {bay}: the device counts {by:+} notes against the books")
        }
        CashMove::RecycledAnew => "what is recycled is counted from nothing".to_owned(),
        CashMove::CashboxEmptied { counted } => format!("cashbox emptied: {}", heaps(counted)),
        CashMove::RejectBinEmptied { counted } => format!("reject bin emptied: {}", heaps(counted)),
    }
}

fn dispensed(
    bay: BayId,
    denomination: &Denomination,
    result: &bitspire_shared::cash::BayResult,
) -> String {
    let mut said = format!(
        "bay {bay}: {} of {} notes of {} minor units presented",
        result.presented,
        result.requested,
        denomination.minor()
    );
    let parts = [
        ("picked", result.picked),
        ("taken", result.taken),
        ("retracted", result.retracted),
        ("rejected", result.rejected),
    ];
    for (name, count) in parts {
        if let Some(count) = count {
            said += &format!(", {count} {name}");
        }
    }
    said
}

fn heaps(counted: &BTreeMap<Denomination, u32>) -> String {
    let heaps = counted.iter().map(|(value, count)| format!("{count} x {}", value.minor()));
    let all = heaps.collect::<Vec<_>>().join(", ");
    if all.is_empty() { "nothing in it".to_owned() } else { all }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
