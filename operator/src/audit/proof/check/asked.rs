//! Who asked for what, and what was promised: seal, session, request, quotes.

use bitspire_shared::batch::Signed;
use bitspire_shared::ids::{EventId, PubKey};
use bitspire_shared::money::{Direction, Fiat};
use bitspire_shared::time::Unix;
use nostr::{Event, JsonUtil as _};
use serde_json::Value;

use super::Looked;
use crate::audit::proof::{FORMAT, Fees, Proof};
use crate::audit::report::{Check, Findings};
use crate::audit::signed::{self, FeeDocument};
use crate::store::Json;
use crate::store::documents::{Document, DocumentKind};
use crate::store::invoices::{Invoice, InvoiceState};

/// A machine's clock and ours may be so many seconds apart.
const CLOCKS_APART_S: u64 = 120;

const REQUESTS: Check = Check::Requests;

pub(super) fn seal(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let proof = looked.proof;
    findings.same(REQUESTS, "format", FORMAT, proof.format.as_str());
    for (name, pin, key) in [
        ("service key", looked.pins.service, proof.service),
        ("machine's key", looked.pins.spire, proof.machine.spire),
    ] {
        if let Some(pin) = pin {
            findings.same(REQUESTS, name, pin, key);
        }
    }
    let holds =
        proof.text().and_then(|text| looked.sealed.seal.verify("the proof", &text, &proof.service));
    if let Err(error) = holds {
        findings.differ(REQUESTS, "seal", "the file as it was sealed", error);
    }
    let (service, at) = (proof.service.npub(), proof.made_at.to_iso());
    format!("seal: the file is as the service {service} sealed it at {at}")
}

/// Who asked, and when, by the signed request.
fn asked(looked: &Looked<'_>) -> Option<(PubKey, Unix)> {
    let event = Event::from_json(&looked.proof.request_event).ok()?;
    Some((PubKey::new(event.pubkey).ok()?, Unix(event.created_at.as_secs())))
}

pub(super) fn session(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let proof = looked.proof;
    let machine = proof.machine.spire.npub();
    let Some((author, at)) = asked(looked) else {
        findings.differ(REQUESTS, "request", "a signed event", "none");
        return "session: who asked".into();
    };
    let Some(session) = &proof.session else {
        findings.same(REQUESTS, "author of the request", proof.machine.spire, author);
        return format!(
            "session: the machine {machine} asked with its own key; that its vault is {} is the \
             service's word",
            proof.machine.vault
        );
    };
    findings.same(REQUESTS, "author of the request", session.key, author);
    let Some(opening) = &session.opening else {
        return format!(
            "session: that the key {author} and the vault {} spoke for the machine {machine} is \
             the service's word: what opened the session was not kept then",
            proof.machine.vault
        );
    };
    let said = opening.check(&proof.machine.spire, &proof.service, session.opened_at);
    if let Err(error) = said {
        findings.differ(REQUESTS, "opening of the session", "both proofs and the statement", error);
    }
    findings.same(REQUESTS, "session key", opening.session_pubkey, session.key);
    findings.same(REQUESTS, "vault", opening.vault_pubkey, proof.machine.vault);
    let (from, to) = (session.opened_at.0.saturating_sub(CLOCKS_APART_S), opening.expires_at);
    if at.0 < from || at > to.after(CLOCKS_APART_S) {
        let expected = format!("between {} and {}", session.opened_at.to_iso(), to.to_iso());
        findings.differ(REQUESTS, "time of the request", expected, at.to_iso());
    }
    format!(
        "session: the machine {machine} named its vault {}, and vault and session key both agreed \
         that {author} speaks for it",
        proof.machine.vault
    )
}

/// The invoice as the audit's functions take it.
fn invoice(proof: &Proof) -> Option<Invoice> {
    let (quote, invoice) = (proof.quotes.first()?, proof.invoice.as_ref()?);
    Some(Invoice {
        quote_id: quote.quote_id,
        machine_id: proof.machine.id,
        txid: proof.settlement.txid,
        payment_hash: proof.settlement.payment_hash,
        bolt11: invoice.bolt11.clone(),
        wire_sats: quote.wire_sats,
        stamp: invoice.stamp.clone().into(),
        request_event_id: proof.settlement.request_event_id,
        request_event: proof.request_event.clone(),
        created_at: invoice.created_at,
        expires_at: invoice.expires_at,
        state: InvoiceState::Settled,
    })
}

pub(super) fn request(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let proof = looked.proof;
    let speaks = |key: PubKey| proof.session.as_ref().is_some_and(|session| session.key == key);
    match (proof.settlement.direction, invoice(proof), &proof.withdraw) {
        (Direction::CashOut, Some(invoice), None) => {
            if let Some(quote) = proof.quotes.first() {
                let at_once = &mut |one: Signed| one.holds();
                signed::invoice(findings, &looked.keys, (&invoice, quote), &speaks, at_once);
                signed::settlement(findings, &looked.settlement, quote, &invoice);
                findings.same(REQUESTS, "quotes", 1, proof.quotes.len());
            }
            format!(
                "request: in event {}, which its author signed, the machine asked for the invoice \
                 of quote {}; the stamp beside the payment says the same",
                proof.settlement.request_event_id, invoice.quote_id
            )
        }
        (Direction::CashIn, None, Some(promise)) => {
            let withdraw = (&promise.withdraw, &promise.lots[..]);
            signed::withdraw(findings, &looked.keys, withdraw, &speaks);
            let kept = promise.withdraw.request_event.as_deref();
            findings.same(REQUESTS, "request", kept.unwrap_or_default(), &proof.request_event);
            let said =
                |minor, code, event: Option<EventId>| format!("{minor:?} {code:?} {event:?}");
            let event = Event::from_json(&proof.request_event).ok();
            let event = event.map(|event| EventId::from_bytes(event.id.to_bytes()));
            let expected = said(promise.withdraw.fiat_minor, promise.withdraw.fiat_code, event);
            let s = &proof.settlement;
            let found = said(Some(s.fiat_minor), Some(s.fiat_code), Some(s.request_event_id));
            findings.same(REQUESTS, "value and request", expected, found);
            let document = s.fees_event_id.map(|id| id.to_string()).unwrap_or_default();
            if proof.quotes.iter().all(|quote| Some(quote.fees_event_id) != s.fees_event_id) {
                findings.differ(REQUESTS, "fee document", "one that a lock names", document);
            }
            format!(
                "request: in event {}, which its author signed, the vault stated the notes, and \
                 the service promised {} sats for them",
                proof.settlement.request_event_id, promise.withdraw.net_sats
            )
        }
        _ => {
            let expected = "an invoice for cash_out, a promise for cash_in";
            findings.differ(REQUESTS, "request", expected, "neither, or both");
            "request: what the machine asked for".into()
        }
    }
}

/// A fee document as the audit's functions take it.
fn document(fees: &Fees, direction: Direction) -> Document {
    let (platform, operator) = (Some(fees.platform_ppm), Some(fees.operator_ppm));
    let of = |this| if direction == this { (platform, operator) } else { Default::default() };
    let (cash_in, cash_out) = (of(Direction::CashIn), of(Direction::CashOut));
    let other = Some(bitspire_shared::money::FeePpm::default());
    Document {
        machine_id: crate::ids::MachineId(0),
        kind: DocumentKind::Fees,
        body: Json(Value::Null),
        published_at: Unix(0),
        cash_in_platform_ppm: cash_in.0.or(other),
        cash_in_operator_ppm: cash_in.1.or(other),
        cash_out_platform_ppm: cash_out.0.or(other),
        cash_out_operator_ppm: cash_out.1.or(other),
        wanted_at: Unix(0),
        event: fees.event.clone(),
        event_id: Some(fees.event_id),
        created_at: None,
        signed_at: None,
        relay_acked_at: None,
        applied_at: None,
        superseded_at: None,
    }
}

pub(super) fn quotes(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let proof = looked.proof;
    let mut told = Vec::new();
    for quote in &proof.quotes {
        let fees = proof.fees.iter().find(|fees| fees.event_id == quote.fees_event_id);
        let document = fees.map(|fees| FeeDocument::new(&document(fees, quote.direction)));
        let document = document.unwrap_or_default();
        signed::by_service(findings, &looked.keys, quote, None, &mut |one| one.holds());
        signed::quote(findings, quote, &document, proof.operator);
        findings.same(REQUESTS, "machine of the quote", proof.machine.id, quote.machine_id);
        findings.same(REQUESTS, "transaction", proof.settlement.txid, quote.txid);
        findings.same(REQUESTS, "direction", proof.settlement.direction, quote.direction);
        told.push(format!(
            "{} at {} sats each {}: {} sats, {} sats of fees ({} + {} ppm by fee document {})",
            Fiat::new(quote.fiat_minor, quote.fiat_code),
            quote.rate_nano.to_decimal().normalize(),
            quote.fiat_code,
            quote.principal_sats,
            quote.fee_sats,
            quote.platform_fee_ppm.ppm(),
            quote.operator_fee_ppm.ppm(),
            quote.fees_event_id,
        ));
    }
    if told.is_empty() {
        findings.differ(REQUESTS, "quotes", "at least one", "none");
    }
    let all = told.join("; ");
    format!("quote: signed by the service for this machine, its sums follow from its rate: {all}")
}
