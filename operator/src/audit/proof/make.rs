//! A proof, from the rows of one settlement.
//!
//! Promise: one snapshot of the database; nothing is derived here but which keys signed.
//!
//! Failure policy: [`ProofError`]: no proof rather than half a one.

use std::collections::BTreeMap;

use bitspire_shared::canonical::CanonicalError;
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shared::rpc::{OpenSession, QuoteTerms, SignedText as _};
use nostr::{Event, JsonUtil as _, Keys};
use thiserror::Error;

use super::{
    FORMAT, Fees, Invoice, LegPaid, Machine, Promise, Proof, Provided, Rules, SealedProof, Session,
    Settlement,
};
use crate::app::App;
use crate::audit::gather::{self, Given};
use crate::audit::sale;
use crate::ids::SettlementId;
use crate::ledger::{Account, EntryKind, Posting};
use crate::store::lps::LpShare;
use crate::store::payments::Subject;
use crate::store::quotes::Quote;
use crate::store::{
    Kept, Read, StoreError, documents, invoices, ledger, legs, lps, machines, operators, payments,
    quotes, rules, sessions, settlements, verdicts, withdraws,
};

/// Why there is no proof.
#[derive(Debug, Error)]
pub enum ProofError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such settlement.
    #[error("there is no settlement {0}")]
    None(SettlementId),
    /// A payment that was refused, or came to a wallet of no machine.
    #[error(
        "settlement {0} is a refused payment: no request stands behind it, so nothing can be proved"
    )]
    Refused(SettlementId),
    /// Evidence that is not there.
    #[error("settlement {id}: {what} is gone; `audit` says more")]
    Gone {
        /// Which one.
        id: SettlementId,
        /// What is missing.
        what: &'static str,
    },
    /// The request does not open with the service's key.
    #[error("the request is not for this service's key")]
    Request(#[from] Nip44Error),
    /// The session's opening does not read.
    #[error("the session's opening does not read")]
    Opening(#[from] serde_json::Error),
    /// No canonical form.
    #[error("the proof cannot be sealed")]
    Seal(#[from] CanonicalError),
}

/// The sealed evidence of one settlement.
///
/// # Errors
/// [`ProofError`].
pub async fn make(app: &App, id: SettlementId) -> Result<SealedProof, ProofError> {
    let given = Given::of(app, BTreeMap::new(), BTreeMap::new());
    let proof = app.store.read(move |read| gathered(read, &given, id)).await?;
    Ok(proof.seal(&Keys::new(app.service.secret_key().clone()))?)
}

fn gathered(read: &Read<'_>, given: &Given, id: SettlementId) -> Result<Proof, ProofError> {
    let gone = |what| ProofError::Gone { id, what };
    let kept = settlements::find(read, id)?.ok_or(ProofError::None(id))?;
    let (Some(txid), Some(parts)) = (kept.txid, kept.parts()) else {
        return Err(ProofError::Refused(id));
    };
    let (Some(fiat_minor), Some(fiat_code), Some(request_event_id)) =
        (kept.fiat_minor, kept.fiat_code, kept.request_event_id)
    else {
        return Err(ProofError::Refused(id));
    };
    let row = machines::find(read, kept.machine_id)?.ok_or_else(|| gone("its machine"))?;
    let machine = gather::machine(read, given, &given.opens(), row)?;
    let (mut invoice, mut promise, mut quotes) = (None, None, Vec::new());
    let request_event = match kept.withdraw_id {
        None => {
            let kept = invoices::by_hash(read, kept.payment_hash)?;
            let kept = kept.ok_or_else(|| gone("its invoice"))?;
            quotes.extend(quotes::find(read, kept.quote_id)?);
            invoice = Some(Invoice {
                bolt11: kept.bolt11,
                stamp: kept.stamp.as_str().to_owned(),
                created_at: kept.created_at,
                expires_at: kept.expires_at,
            });
            kept.request_event
        }
        Some(withdraw) => {
            let lots = withdraws::lots(read, withdraw)?;
            for lot in &lots {
                quotes.extend(quotes::find(read, lot.quote_id)?);
            }
            let withdraw = withdraws::find(read, withdraw)?.ok_or_else(|| gone("its promise"))?;
            let event = withdraw.request_event.clone().ok_or_else(|| gone("its request"))?;
            let payment = payments::by_hash(read, kept.payment_hash)?;
            let payment = payment.ok_or_else(|| gone("its payment"))?.row;
            promise = Some(Promise { withdraw, lots, payment });
            event
        }
    };
    let quote = quotes.first().ok_or_else(|| gone("its quote"))?;
    let spire = machine.keys.spires.iter().find(|spire| is_for(quote, spire, &given.service));
    let spire = *spire.ok_or_else(|| gone("the key that its quote is for"))?;
    let event = Event::from_json(&request_event).map_err(|_| gone("its request"))?;
    let author = PubKey::new(event.pubkey).map_err(|_| gone("its request"))?;
    let cipher = ConversationKey::derive(&given.secret, &author)?;
    let request_keys = cipher.message_keys(&event.content)?;
    let session = sessions::by_key(read, author)?;
    let vault = session.as_ref().map(|session| session.vault_key).or(machine.row.vault_key);
    let vault = vault.ok_or_else(|| gone("its vault's key"))?;
    let session = session.map(|session| {
        let opening = session.opening.map(|json| serde_json::from_value::<OpenSession>(json.0));
        let opening = opening.transpose()?;
        let (key, opened_at) = (session.session_pubkey, session.opened_at);
        Ok::<_, serde_json::Error>(Session { key, opened_at, opening })
    });
    let reports = settlements::reports(read, kept.machine_id, txid)?;
    let mut bays = machine.bays.clone();
    for report in &reports {
        let booked = ledger::find(read, EntryKind::Dispensed, &sale::reference(report))?;
        for Posting { account, .. } in booked.iter().flat_map(|booked| booked.entry.postings()) {
            if let Account::Bay(_, bay, note) = account {
                bays.insert(*bay, *note);
            }
        }
    }
    // only bays that a report names
    bays.retain(|bay, _| reports.iter().any(|report| report.bays.0.contains_key(bay)));
    let platform = operators::list(read)?.first().and_then(|first| first.pubkey);
    let (rules, own_rules, legs) = distributed(read, &kept, machine.row.operator_id)?;
    let mut fees: Vec<Fees> = Vec::new();
    for quote in &quotes {
        if fees.iter().any(|one| one.event_id == quote.fees_event_id) {
            continue;
        }
        let document = documents::by_event(read, quote.fees_event_id)?;
        let document = document.ok_or_else(|| gone("a fee document"))?;
        let pair = document.fees().and_then(|fees| fees.of(quote.direction).ok());
        let pair = pair.ok_or_else(|| gone("what a fee document sets"))?;
        fees.push(Fees {
            event_id: quote.fees_event_id,
            event: document.event.clone(),
            platform_ppm: pair.platform(),
            operator_ppm: pair.operator(),
        });
    }
    let found = verdicts::of_txn(read, kept.machine_id, txid)?;
    Ok(Proof {
        format: FORMAT.to_owned(),
        made_at: given.now,
        service: given.service,
        operator: machine.operator,
        platform,
        machine: Machine {
            id: kept.machine_id,
            operator_id: machine.row.operator_id,
            spire,
            vault,
            bays,
        },
        session: session.transpose()?,
        settlement: Settlement {
            id,
            payment_hash: kept.payment_hash,
            wallet_id: kept.wallet_id.clone(),
            direction: kept.direction,
            wire_sats: kept.wire_sats,
            settled_at: kept.settled_at,
            extra: kept.extra.as_str().to_owned(),
            status: kept.status,
            txid,
            principal_sats: parts.principal,
            platform_fee_sats: parts.platform_fee,
            operator_fee_sats: parts.operator_fee,
            owed_sats: parts.owed,
            fiat_minor,
            fiat_code,
            fees_event_id: kept.fees_event_id,
            request_event_id,
            dispense_outcome: kept.dispense_outcome,
            distribution: kept.distribution,
            hold_reason: kept.hold_reason.clone(),
        },
        request_event,
        request_keys,
        quotes,
        fees,
        invoice,
        withdraw: promise,
        reports,
        verdicts: found.into_iter().map(|kept| kept.row.statement.0).collect(),
        rules,
        own_rules,
        providers: lps::shares_of(read, kept.id)?.into_iter().map(provided).collect(),
        legs,
    })
}

const fn provided(share: LpShare) -> Provided {
    let LpShare { lp_id, may_minor, sats, minor, .. } = share;
    Provided { lp_id, may_minor, sats, minor }
}

/// Whether the service has signed the quote for this machine.
fn is_for(quote: &Quote, spire: &PubKey, service: &PubKey) -> bool {
    let terms: QuoteTerms = crate::audit::signed::terms(quote, *spire);
    terms.verify(&quote.quote_sig, service).is_ok()
}

type Distributed = (Vec<Rules>, Option<crate::ids::RuleSetId>, Vec<LegPaid>);

/// The legs, and the rule sets behind them.
fn distributed(
    read: &Read<'_>,
    settlement: &Kept<SettlementId, settlements::Settlement>,
    operator: crate::ids::OperatorId,
) -> Result<Distributed, StoreError> {
    let (mut all, mut sets) = (Vec::new(), Vec::<Rules>::new());
    let rows = legs::of_settlement(read, settlement.id)?;
    let mut own = None;
    if let Some(first) = rows.first() {
        let (machine, at) = (settlement.machine_id, first.planned_at);
        let kept = rules::of_operator(read, operator, machine, at)?;
        own = kept.as_ref().map(|kept| kept.id);
        sets.extend(kept.map(|kept| Rules { id: kept.id, rules: kept.row }));
    }
    for leg in rows {
        if let Some(id) = leg.rule_id.filter(|id| sets.iter().all(|set| set.id != *id)) {
            let kept = rules::find(read, id)?;
            sets.extend(kept.map(|kept| Rules { id: kept.id, rules: kept.row }));
        }
        let payment = payments::of_subject(read, Subject::Leg(leg.id))?.pop();
        let (id, leg) = (leg.id, leg.row);
        all.push(LegPaid { id, leg, payment: payment.map(|kept| kept.row) });
    }
    Ok((sets, own, all))
}
