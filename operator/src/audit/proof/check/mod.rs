//! The check of a proof, step by step.
//!
//! Promise: nothing but the proof is looked at: no database, no network, no clock. What is checked,
//! and by which functions, is what the audit checks of a settlement; here it is told in words.

mod asked;
mod money;

use bitspire_shared::ids::PubKey;
use serde::Serialize;

use super::{Proof, SealedProof};
use crate::audit::opens::Opens;
use crate::audit::report::Findings;
use crate::audit::signed;
use crate::store::settlements::Settlement;

/// Keys that a proof must be of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pins {
    /// The service's.
    pub service: Option<PubKey>,
    /// The machine's.
    pub spire: Option<PubKey>,
}

/// A step of the check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was looked at, and what it says.
    pub words: String,
    /// What does not hold.
    pub found: Option<String>,
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Whether every step holds.
    pub ok: bool,
    /// The steps, up to the first that does not hold.
    pub steps: Vec<Step>,
}

/// A proof with what its steps share.
struct Looked<'a> {
    sealed: &'a SealedProof,
    proof: &'a Proof,
    pins: Pins,
    keys: signed::Keys,
    settlement: Settlement,
}

type Run = fn(&Looked<'_>, &mut Findings) -> String;

/// Checks a proof; it ends at the first step that does not hold.
#[must_use]
pub fn check(sealed: &SealedProof, pins: Pins) -> Checked {
    let proof = &sealed.proof;
    let keys = signed::Keys {
        service: proof.service,
        opens: Opens::Message(proof.request_keys.clone()),
        spires: vec![proof.machine.spire],
        vaults: vec![proof.machine.vault],
    };
    let looked = Looked { sealed, proof, pins, keys, settlement: row(proof) };
    let runs: [Run; 9] = [
        asked::seal,
        asked::session,
        asked::request,
        asked::quotes,
        money::amounts,
        money::wallet,
        money::dispense,
        money::parts,
        money::distribution,
    ];
    let mut steps = Vec::new();
    for run in runs {
        let mut findings = Findings::default();
        let words = run(&looked, &mut findings);
        let found = findings.end().differences.into_iter().next();
        let found = found
            .map(|one| format!("{}: expected {}; found {}", one.subject, one.expected, one.found));
        let ends = found.is_some();
        steps.push(Step { words, found });
        if ends {
            return Checked { ok: false, steps };
        }
    }
    Checked { ok: true, steps }
}

/// The settlement as the audit's functions take it.
fn row(proof: &Proof) -> Settlement {
    let s = &proof.settlement;
    Settlement {
        payment_hash: s.payment_hash,
        machine_id: proof.machine.id,
        wallet_id: s.wallet_id.clone(),
        direction: s.direction,
        status: s.status,
        wire_sats: s.wire_sats,
        extra: s.extra.clone().into(),
        reason: None,
        txid: Some(s.txid),
        quote_id: proof.quotes.first().map(|quote| quote.quote_id),
        withdraw_id: proof.withdraw.as_ref().map(|promise| promise.withdraw.withdraw_id),
        principal_sats: Some(s.principal_sats),
        platform_fee_sats: Some(s.platform_fee_sats),
        operator_fee_sats: Some(s.operator_fee_sats),
        owed_sats: Some(s.owed_sats),
        exchange_rate: None,
        fiat_minor: Some(s.fiat_minor),
        fiat_code: Some(s.fiat_code),
        fees_event_id: s.fees_event_id,
        request_event_id: Some(s.request_event_id),
        fee_mismatch_sats: None,
        short: false,
        settled_at: s.settled_at,
        recorded_at: s.settled_at,
        dispense_outcome: s.dispense_outcome,
        reported_at: None,
        distribution: s.distribution,
        hold_reason: s.hold_reason.clone(),
        claim_token: None,
        lease_until: None,
    }
}
