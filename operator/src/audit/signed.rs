//! What was signed, checked again, and whether it says what the rows say.
//!
//! Promise: a request counts only by a key that spoke for its machine; a report or a claim only by
//! a vault that one of the machine's sessions was opened with; a quote or a promise only by the
//! service key. The text of a request is decrypted and compared with the row that came of it.

use bitspire_shared::batch::Signed;
use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{EventId, PaymentHash, PubKey, QuoteId};
use bitspire_shared::money::{Direction, FeePpm, Fiat, Rate, Sats};
use bitspire_shared::nip01;
use bitspire_shared::rpc::{
    CreateWithdraw, DispenseReport, QuoteTerms, Request, RpcRequest, SignedText, StateReport,
    VaultBody, VaultSigned, WithdrawTerms,
};
use bitspire_shared::settlement::Stamp;
use bitspire_shared::split::FeePair;
use nostr::{Event, JsonUtil};
use serde::Serialize;
use serde_json::Value;

use super::opens::Opens;
use super::report::{Check, Findings};
use crate::store::documents::{Document, Fees};
use crate::store::invoices::Invoice;
use crate::store::quotes::Quote;
use crate::store::settlements::{Report, Settlement};
use crate::store::withdraws::{Lot, Withdraw};

const CHECK: Check = Check::Requests;

/// The keys that a machine's rows are checked with.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The service key.
    pub(super) service: PubKey,
    /// What opens what machines wrote to it.
    pub(super) opens: Opens,
    /// The machine's own keys, of all its pairings.
    pub(super) spires: Vec<PubKey>,
    /// The vaults that it had.
    pub(super) vaults: Vec<PubKey>,
}

/// A fee document, with its event's signature checked once for all quotes that name it.
#[derive(Debug, Default)]
pub(super) struct FeeDocument {
    fees: Option<Fees>,
    event: Option<Result<(nostr::EventId, nostr::PublicKey), &'static str>>,
}

impl FeeDocument {
    pub(super) fn new(document: &Document) -> Self {
        let event = document.event.as_deref().map(|json| match Event::from_json(json) {
            Err(_) => Err("no event"),
            Ok(event) if event.verify().is_err() => Err("a signature that does not hold"),
            Ok(event) => Ok((event.id, event.pubkey)),
        });
        Self { fees: document.fees(), event: Some(event.unwrap_or(Err("no event"))) }
    }
}

/// Whether a signature holds: now, or as far as can be told before many are looked at together. Then
/// whatever else is wrong with the same row is told beside it.
pub(super) type Holds<'a> = &'a mut dyn FnMut(Signed) -> bool;

const FORGED: &str = "an event whose id or signature does not hold";

/// The request in a stored event; `speaks` says whether a key spoke for the machine.
fn request(
    keys: &Keys,
    json: &str,
    speaks: &dyn Fn(PubKey) -> bool,
    holds: Holds<'_>,
) -> Result<(EventId, PubKey, RpcRequest), String> {
    let event = Event::from_json(json).map_err(|_| "no event".to_owned())?;
    let author = PubKey::new(event.pubkey).map_err(|e| e.to_string())?;
    if !nip01::id_holds(&event) || !holds(Signed::event(&event, author)) {
        return Err(FORGED.to_owned());
    }
    if !keys.spires.contains(&author) && !speaks(author) {
        return Err(format!("an event by {author}, which never spoke for this machine"));
    }
    let text = keys.opens.read(&author, &event.content).map_err(|e| e.to_string())?;
    let request = Request::parse(&text).map_err(|e| e.error.reason)?;
    Ok((EventId::from_bytes(event.id.to_bytes()), author, request.into_call()))
}

/// The request and the stamp of an invoice; the machine's key that the stamp names.
pub(super) fn invoice(
    findings: &mut Findings,
    keys: &Keys,
    (invoice, quote): (&Invoice, &Quote),
    speaks: &dyn Fn(PubKey) -> bool,
    holds: Holds<'_>,
) -> Option<PubKey> {
    findings.look(CHECK);
    // a million of them hold: words are made for what differs
    let subject = || of_invoice(invoice.payment_hash);
    let expected = || asked_for(invoice.quote_id);
    match request(keys, &invoice.request_event, speaks, holds) {
        Err(found) => findings.differ(CHECK, subject(), expected(), found),
        Ok((id, _, RpcRequest::CreateInvoice(body)))
            if body.quote_id == invoice.quote_id && id == invoice.request_event_id => {}
        Ok((id, _, call)) => {
            let found = format!("{} in event {id}: {call:?}", call.name());
            findings.differ(CHECK, subject(), expected(), found);
        }
    }
    findings.look(CHECK);
    let stamp = Stamp::parse_by(invoice.stamp.as_str(), &keys.spires);
    if !stamp.as_ref().is_ok_and(|stamp| says(stamp, quote, invoice)) {
        let (expected, found) = (stamped(quote, invoice), read(invoice.stamp.as_str()));
        findings.differ(CHECK, format!("stamp of {}", subject()), expected, found);
    }
    let expected = (quote.machine_id, quote.txid, quote.wire_sats);
    if expected != (invoice.machine_id, invoice.txid, invoice.wire_sats) {
        let found = format!("{} sats of transaction {}", invoice.wire_sats, invoice.txid);
        let expected = format!("{} sats of transaction {}", quote.wire_sats, quote.txid);
        findings.differ(CHECK, subject(), expected, found);
    }
    stamp.ok().map(|stamp| stamp.sender)
}

fn of_invoice(hash: PaymentHash) -> String {
    format!("invoice {hash}")
}

fn asked_for(quote: QuoteId) -> String {
    format!("create_invoice for quote {quote}")
}

/// The request for an invoice, whose signature was looked at later, is not its author's.
pub(super) fn request_fails(findings: &mut Findings, hash: PaymentHash, quote: QuoteId) {
    findings.differ(CHECK, of_invoice(hash), asked_for(quote), FORGED);
}

/// Whether a stamp says what it has to.
fn says(stamp: &Stamp, quote: &Quote, invoice: &Invoice) -> bool {
    stamp.direction == quote.direction
        && stamp.fiat == Fiat::new(quote.fiat_minor, quote.fiat_code)
        && stamp.exchange_rate == quote.rate_nano.to_decimal()
        && (stamp.principal, stamp.fee) == (quote.principal_sats, quote.fee_sats)
        && stamp.txid == Some(quote.txid)
        && stamp.fees_event_id == Some(quote.fees_event_id)
        && stamp.request_event_id == invoice.request_event_id
}

/// The same in words.
fn stamped(quote: &Quote, invoice: &Invoice) -> String {
    let fiat = Fiat::new(quote.fiat_minor, quote.fiat_code);
    format!(
        "{} of {fiat} at {}: {} + {} sats, transaction {}, fees {}, request {}",
        quote.direction,
        quote.rate_nano.to_decimal().normalize(),
        quote.principal_sats,
        quote.fee_sats,
        quote.txid,
        quote.fees_event_id,
        invoice.request_event_id,
    )
}

pub(super) fn read(stamp: &str) -> String {
    match Stamp::parse(stamp) {
        Err(error) => error.to_string(),
        Ok(stamp) => format!(
            "{} of {} at {}: {} + {} sats, transaction {}, fees {}, request {}",
            stamp.direction,
            stamp.fiat,
            stamp.exchange_rate.normalize(),
            stamp.principal,
            stamp.fee,
            stamp.txid.map(|id| id.to_string()).unwrap_or_default(),
            stamp.fees_event_id.map(|id| id.to_string()).unwrap_or_default(),
            stamp.request_event_id,
        ),
    }
}

/// What the service signs of a quote for a machine.
pub(super) fn terms(quote: &Quote, spire: PubKey) -> QuoteTerms {
    QuoteTerms {
        spire,
        quote_id: quote.quote_id,
        direction: quote.direction,
        txid: quote.txid,
        fiat: Fiat::new(quote.fiat_minor, quote.fiat_code),
        exchange_rate: quote.rate_nano,
        principal_sats: quote.principal_sats,
        fee_sats: quote.fee_sats,
        wire_sats: quote.wire_sats,
        fees_event_id: quote.fees_event_id,
        ttl_s: quote.ttl_s,
    }
}

/// A quote is signed by the service, for one of the machine's keys, of which `likely` is tried first.
pub(super) fn by_service(
    findings: &mut Findings,
    keys: &Keys,
    quote: &Quote,
    likely: Option<PubKey>,
    holds: Holds<'_>,
) {
    findings.look(CHECK);
    if !is_by_service(keys, quote, likely, holds) {
        not_by_service(findings, quote.quote_id);
    }
}

pub(super) fn is_by_service(
    keys: &Keys,
    quote: &Quote,
    likely: Option<PubKey>,
    holds: Holds<'_>,
) -> bool {
    let by_us = |spire: &PubKey| {
        let text = terms(quote, *spire).text();
        holds(Signed::text(&text, keys.service, quote.quote_sig))
    };
    let likely = likely.filter(|key| keys.spires.contains(key));
    likely.iter().chain(&keys.spires).any(by_us)
}

pub(super) fn not_by_service(findings: &mut Findings, quote: QuoteId) {
    let expected = "quote_sig by the service key over the row";
    findings.differ(CHECK, of_quote(quote), expected, "none");
}

fn of_quote(quote: QuoteId) -> String {
    format!("quote {quote}")
}

/// A quote: its sums by its rate and by its fee document.
pub(super) fn quote(
    findings: &mut Findings,
    quote: &Quote,
    document: &FeeDocument,
    operator: Option<PubKey>,
) {
    let subject = || of_quote(quote.quote_id);
    let fiat = Fiat::new(quote.fiat_minor, quote.fiat_code);
    findings.look(CHECK);
    let found = (quote.principal_sats, quote.fee_sats, quote.wire_sats);
    let sums = sums(quote.rate_nano, fiat, quote.direction, quote);
    if sums != Ok(found) {
        let words = |(principal, fee, wire)| format!("{principal} + {fee} = {wire} sats");
        let (expected, found) = (sums.map_or_else(|why| why, words), words(found));
        findings.differ(CHECK, format!("sums of {}", subject()), expected, found);
    }
    findings.look(CHECK);
    let found = (quote.platform_fee_ppm, quote.operator_fee_ppm);
    let fees = document.fees.and_then(|fees| fees.of(quote.direction).ok());
    let fees = fees.map(|fees| (fees.platform(), fees.operator()));
    if fees != Some(found) {
        let words = |(platform, operator): (FeePpm, FeePpm)| {
            format!("{} + {} ppm", platform.ppm(), operator.ppm())
        };
        let none = || format!("the fee document {}", quote.fees_event_id);
        let (expected, found) = (fees.map_or_else(none, words), words(found));
        findings.differ(CHECK, format!("fees of {}", subject()), expected, found);
    }
    if let Some(event) = &document.event {
        signed_document(findings, quote.fees_event_id, event, operator);
    }
}

/// Principal, fee and what moves on Lightning; in words, why they cannot be told.
fn sums(
    rate: Rate,
    fiat: Fiat,
    direction: Direction,
    quote: &Quote,
) -> Result<(Sats, Sats, Sats), String> {
    let principal = rate.principal(fiat, direction).map_err(|e| e.to_string())?;
    let fees = FeePair::new(quote.platform_fee_ppm, quote.operator_fee_ppm);
    let charge = fees.and_then(|fees| fees.charge(direction, principal));
    let charge = charge.map_err(|e| e.to_string())?;
    Ok((charge.principal(), charge.fee(), charge.wire()))
}

/// The event of a fee document: signed by the operator, and the one that is named.
fn signed_document(
    findings: &mut Findings,
    id: EventId,
    event: &Result<(nostr::EventId, nostr::PublicKey), &'static str>,
    operator: Option<PubKey>,
) {
    let found = match event {
        Err(why) => (*why).to_owned(),
        Ok((found, _)) if found.as_bytes() != id.as_bytes() => found.to_string(),
        Ok((_, author)) if operator.is_none_or(|key| key.nostr() == *author) => return,
        Ok((_, author)) => format!("an event by {author}"),
    };
    let expected = "the event that was signed by the operator's key";
    findings.differ(CHECK, format!("fee document {id}"), expected, found);
}

/// The request behind the promise for stacked notes, and the promise itself.
pub(super) fn withdraw(
    findings: &mut Findings,
    keys: &Keys,
    (withdraw, lots): (&Withdraw, &[Lot]),
    speaks: &dyn Fn(PubKey) -> bool,
) {
    findings.look(CHECK);
    let subject = format!("withdraw {}", withdraw.withdraw_id);
    let json = withdraw.request_event.as_deref().unwrap_or_default();
    let expected = "create_withdraw of these notes, signed by the machine's vault";
    match request(keys, json, speaks, &mut |signed| signed.holds()) {
        Err(found) => findings.differ(CHECK, &subject, expected, found),
        Ok((_, _, RpcRequest::CreateWithdraw(claim))) => match by_vault(keys, &claim) {
            None => findings.differ(CHECK, &subject, expected, "a vault_sig by no vault of it"),
            Some(claim) if !claims(claim, withdraw, lots) => {
                let found = format!("{claim:?}");
                findings.differ(CHECK, &subject, expected, found);
            }
            Some(_) => {}
        },
        Ok((_, _, call)) => findings.differ(CHECK, &subject, expected, call.name()),
    }
    let promised = |sig: Sig| {
        keys.spires.iter().any(|spire| {
            keys.vaults.iter().any(|vault| {
                let terms = WithdrawTerms {
                    spire: *spire,
                    vault: *vault,
                    txid: withdraw.txid,
                    withdraw_id: withdraw.withdraw_id,
                    net_sats: withdraw.net_sats,
                    expires_at: withdraw.expires_at,
                };
                terms.verify(&sig, &keys.service).is_ok()
            })
        })
    };
    if !withdraw.withdraw_sig.is_some_and(promised) {
        findings.differ(CHECK, subject, "withdraw_sig by the service key over the row", "none");
    }
}

pub(super) fn by_vault<'a, T: VaultBody>(keys: &Keys, signed: &'a VaultSigned<T>) -> Option<&'a T> {
    keys.vaults.iter().find_map(|vault| signed.check(vault).ok())
}

/// Whether a claim says what the withdraw's row says.
fn claims(claim: &CreateWithdraw, withdraw: &Withdraw, lots: &[Lot]) -> bool {
    let earlier = claim.earlier.iter().map(|lot| (lot.quote_id, &lot.notes));
    let mut named: Vec<_> = earlier.chain([(claim.quote_id, &claim.notes)]).collect();
    named.sort_unstable();
    let mut kept: Vec<_> = lots.iter().map(|lot| (lot.quote_id, &lot.notes)).collect();
    kept.sort_unstable();
    named == kept
        && claim.txid == withdraw.txid
        && claim.claim_hash == withdraw.claim_hash
        && Some(claim.fiat_code) == withdraw.fiat_code
        && Some(claim.journal_seq) == withdraw.journal_seq
        && Some(claim.journal_head) == withdraw.journal_head
}

/// A dispense report: its row is what a vault of the machine signed.
pub(super) fn report(findings: &mut Findings, keys: &Keys, report: &Report) {
    #[derive(Serialize)]
    struct Signed<'a> {
        #[serde(flatten)]
        body: &'a DispenseReport,
        vault_sig: Sig,
    }
    findings.look(CHECK);
    let body = DispenseReport {
        txid: report.txid,
        payment_hash: report.payment_hash,
        outcome: report.outcome,
        bays: report.bays.0.clone(),
        owed_minor: report.owed_minor,
        journal_seq: report.journal_seq,
        journal_head: report.journal_head,
    };
    let signed = serde_json::to_value(Signed { body: &body, vault_sig: report.vault_sig });
    let signed = signed.and_then(serde_json::from_value::<VaultSigned<DispenseReport>>);
    if !signed.is_ok_and(|signed| by_vault(keys, &signed).is_some()) {
        let subject = format!("report {} at {}", report.txid, report.journal_seq.0);
        let expected = "vault_sig of the machine's vault over the row";
        findings.differ(CHECK, subject, expected, "none that holds");
    }
}

/// The last heartbeat: a vault of the machine signed it.
pub(super) fn heartbeat(
    findings: &mut Findings,
    keys: &Keys,
    machine: impl std::fmt::Display,
    body: &Value,
) {
    findings.look(CHECK);
    let signed = serde_json::from_value::<VaultSigned<StateReport>>(body.clone());
    if !signed.is_ok_and(|signed| by_vault(keys, &signed).is_some()) {
        let expected = "vault_sig of the machine's vault over its heartbeat";
        findings.differ(CHECK, format!("machine {machine}"), expected, "none that holds");
    }
}

/// What a settlement says of itself against its quote and request.
pub(super) fn settlement(
    findings: &mut Findings,
    settlement: &Settlement,
    quote: &Quote,
    invoice: &Invoice,
) {
    let said = (
        settlement.txid,
        settlement.fiat_minor,
        settlement.fiat_code,
        settlement.fees_event_id,
        settlement.request_event_id,
    );
    let quoted = (
        Some(quote.txid),
        Some(quote.fiat_minor),
        Some(quote.fiat_code),
        Some(quote.fees_event_id),
        Some(invoice.request_event_id),
    );
    findings.look(CHECK);
    if quoted != said {
        let subject = format!("settlement {}", settlement.payment_hash);
        findings.differ(CHECK, subject, format!("{quoted:?}"), format!("{said:?}"));
    }
}
