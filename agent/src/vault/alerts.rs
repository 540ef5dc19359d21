//! What a person should know, for the report.
//!
//! Promise: a thing that is said once stays long enough to be seen in several reports; the list is
//! bounded, and the oldest goes first.

use std::collections::BTreeMap;

use bitspire_shared::ids::TxnId;
use bitspire_shared::rpc;
use bitspire_shared::time::{Mono, Unix};

use super::core::Vault;
use crate::last_word::LastWord;
use crate::txn::Alert;

/// How long something that happened is said.
const KEPT_MS: u64 = 3_600_000;
/// Things that are said at once.
const MOST: usize = 64;
/// The longest text that the service takes, in bytes.
const MAX_TEXT: usize = 250;

/// What happened, by code and words.
#[derive(Debug, Default)]
pub(super) struct Alerts(BTreeMap<(&'static str, String), (Unix, Mono)>);

impl Alerts {
    /// Lets go of what was said long enough.
    pub(super) fn forget_old(&mut self, now: Mono) {
        self.0.retain(|_, (_, at)| now.since(*at) < KEPT_MS);
    }

    /// As the report has them.
    pub(super) fn list(&self) -> Vec<rpc::Alert> {
        let alert = |((code, detail), (since, _)): (&(&str, String), &(Unix, Mono))| rpc::Alert {
            code: (*code).to_owned(),
            detail: detail.clone(),
            since: *since,
        };
        self.0.iter().map(alert).collect()
    }
}

/// As much of `text` as a report takes.
pub(super) fn short(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().to_owned()
}

impl Vault {
    /// Says something to the operator.
    pub(super) fn raise(&mut self, code: &'static str, detail: String) {
        let now = self.now();
        let key = (code, short(&detail));
        if self.alerts.0.contains_key(&key) {
            return;
        }
        tracing::warn!(event = "alert", code, detail);
        if self.alerts.0.len() >= MOST {
            let oldest = self.alerts.0.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.alerts.0.remove(&oldest);
            }
        }
        self.alerts.0.insert(key, (now.unix, now.mono));
        self.reports.soon(now.mono);
    }

    /// Says something that happened again: with the time of this time.
    pub(super) fn raise_anew(&mut self, code: &'static str, detail: String) {
        self.alerts.0.remove(&(code, short(&detail)));
        self.raise(code, detail);
    }

    /// The vault before this one ended for a reason, and nobody but the screen could say so.
    pub(super) fn tell_last_word(&mut self, word: Option<LastWord>) {
        if let Some(LastWord { reasons }) = word {
            // the first is for customers
            self.raise("vault_had_ended", reasons.get(1..).unwrap_or_default().join(" "));
        }
    }

    pub(super) fn txn_alert(&mut self, txid: TxnId, alert: &Alert) {
        let (code, detail) = match alert {
            Alert::Uncertain { evidence } => ("uncertain", evidence.clone()),
            Alert::Overpaid { by_minor } => ("overpaid", format!("by {by_minor} minor units")),
            Alert::Owed { owed_minor } => ("owed", format!("{owed_minor} minor units")),
            Alert::UnexplainedCredit { denomination } => {
                let note = denomination.map_or("unknown".to_owned(), |d| d.minor().to_string());
                ("unexplained_credit", format!("a note of {note} minor units"))
            }
            Alert::DispenseFault { detail } => ("dispense_fault", detail.clone()),
            Alert::Refused { rpc, code } => ("refused", format!("{rpc}: {code}")),
            Alert::WithdrawChanged => ("withdraw_changed", "another withdraw came".to_owned()),
        };
        self.raise(code, format!("{txid}: {detail}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a report that the service refuses for one long text.
    #[test]
    fn texts_are_cut_between_characters() {
        let text = "é".repeat(200);
        assert_eq!(short(&text).len(), 250);
        assert_eq!(short("jam"), "jam");
        assert_eq!(short(&format!("a{text}")).len(), 249);
    }
}
